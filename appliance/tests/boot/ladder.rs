//! The ladder of methods with a real firmware on a real BMC protocol: one method fails at its deadline, the next is proven,
//! and both are remembered.

use crate::host::{Disk, Firmware, Host};
use crate::network::{Beside, Network};
use crate::store::{RACKMEDIC, run};
use crate::{place, store};
use bmc_emulator::{Certificate, Emulator, Setup, by_name};
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

fn wait_for_words(said: &Path, words: &str, patience: Duration) {
    let until = Instant::now() + patience;
    loop {
        let text = std::fs::read_to_string(said).unwrap_or_default();
        if text.contains(words) {
            return;
        }
        assert!(Instant::now() < until, "it never said '{words}':\n{text}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// What the BMC has as its override now.
fn boot_override(bmc: std::net::SocketAddr) -> Value {
    // The password stands in the environment of this one child only.
    let mut command = std::process::Command::new(RACKMEDIC);
    command.args(["bmc", "boot", "status", "--tls-accept-new", "--output", "json", "--data-dir", "/nonexistent"]);
    command.args(["--url", &format!("redfish://admin@{bmc}")]).env("RACKMEDIC_BMC_PASSWORD", "secret-of-a-bmc");
    let output = command.output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn a_method_without_its_proof_gives_way_to_the_next_and_both_are_remembered() {
    let Some(store) = store() else { return };
    let _place = place();
    let network = Network::make(Beside::Nobody);
    let appliance = network.serve(store, Firmware::Bios);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let certificate = Certificate::make().unwrap();
    let setup = Setup::of(by_name("hpe_dl385").unwrap());
    let bmc = runtime.block_on(Emulator::start(setup, &certificate)).unwrap();
    let said = store.folder.join("ladder.said");

    // Given a BMC that says that an image is in its drive, and has not read a byte of it: that proves nothing.
    let child = appliance.run("climb", bmc.redfish(), &["--post-s", "30"], &said);
    wait_for_words(&said, "virtual media: telling the BMC", Duration::from_secs(60));
    wait_for_words(&said, "did not read a byte of it within 60 s", Duration::from_secs(120));
    // And a host that nobody switches while its BMC is told to boot by HTTP.
    wait_for_words(&said, "UEFI HTTP: telling the BMC", Duration::from_secs(60));
    wait_for_words(&said, "switch the host off and on now", Duration::from_secs(60));
    let asked = boot_override(bmc.redfish());
    assert_eq!((asked["device"].as_str(), asked["lasts"].as_str()), (Some("http"), Some("once")), "{asked}");
    let uri = asked["uri"].as_str().unwrap();
    assert!(uri.starts_with("http://10.77.0.1:80/t/") && uri.ends_with(".efi"), "the URL of the job's loader");

    // When its time is over, and the host is switched on for the next method.
    wait_for_words(&said, "PXE: telling the BMC", Duration::from_secs(90));
    let host = Host::start(&network, Firmware::Bios, store, &[Disk::empty("DISK1")]);
    let output = child.wait_with_output().unwrap();

    // Then it is installed by that one.
    let text = std::fs::read_to_string(&said).unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{text}"));
    assert_eq!(output.status.code(), Some(0), "{report}\n{text}\n{}", host.said());
    assert_eq!(report["installed"], true);
    assert_eq!((&report["closed"], &report["started"]), (&true.into(), &"silent".into()), "{report}");
    for (number, method, outcome, stage) in [
        (0, "virtual-media", "failed", Value::from("media-unread")),
        (1, "uefi-http", "failed", Value::from("nothing")),
        (2, "pxe", "proven", Value::Null),
    ] {
        let tried = &report["methods"][number];
        assert_eq!((&tried["method"], &tried["outcome"]), (&method.into(), &outcome.into()), "{report}");
        assert_eq!(tried["stage"], stage, "{report}");
    }
    host.holds(store);
    assert_eq!(boot_override(bmc.redfish())["device"], "pxe");

    // And remembered, for the host and for its model.
    let methods = appliance.methods();
    assert_eq!(methods["hosts"][crate::network::MAC]["uefi-http"]["failed_at"]["nothing"], 1);
    let models = methods["models"].as_object().unwrap();
    assert_eq!(models.len(), 1);
    assert!(models.values().all(|model| model["pxe"]["succeeded"] == 1), "{methods}");
    drop(host);

    // The next job of the host begins with what worked; when nothing comes of it, its right is taken back.
    let child = appliance.run("again", bmc.redfish(), &["--post-s", "30"], &said);
    wait_for_words(&said, "methods: PXE, then virtual media, then UEFI HTTP", Duration::from_secs(60));
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let jobs: Value = serde_json::from_str(&run(
        RACKMEDIC,
        &["boot", "jobs", "--output", "json", "--config", &appliance.config().display().to_string()],
    ))
    .unwrap();
    let again = jobs.as_array().unwrap().iter().find(|job| job["job"] == "again").unwrap();
    assert_eq!(again["state"], "closed", "{again}");
}
