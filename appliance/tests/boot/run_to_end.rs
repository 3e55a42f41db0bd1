//! `rackmedic boot run` from the BMC to the end, on the virtual rack: the host's power is owned by OpenIPMI's simulator, its
//! firmware is SeaBIOS with the card's iPXE ROM, and nothing but the command's own words and orders brings it up.
#![allow(clippy::print_stderr, reason = "tests")]

use crate::store::{RACKMEDIC, STARTED, run};
use crate::{place, store};
use rack::layout::{APPLIANCE, BMC_PASSWORD, BMC_USER, Rack};
use rack::run::inside;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// The rack's own program, which a BMC calls to switch its host: beside the programs of this build.
fn hook() -> Option<PathBuf> {
    let beside = Path::new(RACKMEDIC).with_file_name("rack");
    beside.exists().then_some(beside)
}

struct World {
    rack: Rack,
    server: Option<Child>,
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            let _ = server.kill();
            let _ = server.wait();
        }
        let host = self.rack.host(1);
        rack::bmc::stop(&host);
        let _ = host.power_off();
        rack::network::remove(&self.rack);
    }
}

#[test]
fn one_command_brings_a_host_from_its_bmc_to_its_own_disk() {
    let Some(store) = store() else { return };
    let Some(hook) = hook() else {
        eprintln!("not run: the rack's program is not built (`cargo build -p rack`, in the same profile)");
        return;
    };
    let _place = place();
    // Given a host with an empty disk behind a BMC, and boot servers beside it
    let folder = store.folder.join("rack");
    let rack = Rack::new(&format!("rmr{}", std::process::id()), &folder);
    let mut world = World { rack: rack.clone(), server: None };
    rack::network::make(&rack, 1).unwrap();
    let host = rack.host(1);
    std::fs::create_dir_all(&host.folder).unwrap();
    run("qemu-img", &["create", "-q", "-f", "raw", &host.disk().display().to_string(), "64M"]);
    rack::bmc::start(&rack, &host, &hook).unwrap();
    let (config, log) = (folder.join("boot.toml"), folder.join("serve.log"));
    let text = format!(
        "data_dir = \"{}\"\nstore = \"{}\"\nboot_set = \"1\"\ntrusted_keys = [\"{}\"]\nkernel_arguments = \"console=ttyS0 quiet\"\n\
         [[link]]\ninterface = \"eth0\"\naddress = \"{APPLIANCE}\"\nmode = \"server\"\n[[link.subnet]]\nnetwork = \"10.77.0.0/24\"\n\
         [[host]]\nname = \"n1\"\nmac = \"{}\"\naddress = \"{}\"\n",
        folder.join("data").display(),
        store.place().display(),
        store.key,
        host.mac(),
        host.address()
    );
    std::fs::write(&config, text).unwrap();
    let command = |verb: &str| {
        let mut command = inside(&rack.appliance(), RACKMEDIC);
        command.args(["boot", verb, "--config"]).arg(&config);
        command
    };
    let words = std::fs::File::create(&log).unwrap();
    world.server = Some(command("serve").stdout(Stdio::null()).stderr(words).spawn().unwrap());
    let until = Instant::now() + Duration::from_secs(20);
    while !std::fs::read_to_string(&log).unwrap().contains("ready:") {
        assert!(Instant::now() < until, "{}", std::fs::read_to_string(&log).unwrap());
        std::thread::sleep(Duration::from_millis(20));
    }
    // When one command is given
    let begun = Instant::now();
    let mut run = command("run");
    run.args(["heal-1", "--mac", &host.mac(), "--image", "small", "--image-version", "1"]);
    run.args(["--disk-serial", &host.disk_serial(), "--legacy", "--power-cycle", "--post-s", "30", "--output", "json"]);
    run.args(["--url", &format!("ipmi://{BMC_USER}@{}", host.bmc_address()), "--data-dir"]);
    run.arg(folder.join("data")).env("RACKMEDIC_BMC_PASSWORD", BMC_PASSWORD);
    let output = run.output().unwrap();
    let (said, took) = (String::from_utf8_lossy(&output.stderr).into_owned(), begun.elapsed().as_secs_f64());
    let console = String::from_utf8_lossy(&std::fs::read(host.console()).unwrap_or_default()).into_owned();
    eprintln!("{said}\nexit {:?} after {took:.1} s", output.status.code());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}\n{console}"));
    // Then it ends well: armed, powered, booted by PXE, installed, started from its disk, the job closed
    assert_eq!(output.status.code(), Some(0), "{report}\n{console}");
    assert_eq!((&report["installed"], &report["closed"]), (&true.into(), &true.into()), "{report}");
    let methods: Vec<(&str, &str)> = report["methods"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tried| (tried["method"].as_str().unwrap(), tried["outcome"].as_str().unwrap()))
        .collect();
    assert_eq!(methods, [("virtual-media", "not-offered"), ("pxe", "proven")], "{report}");
    assert_eq!(console.matches(STARTED).count(), 1, "{console}");
    // By its BMC alone: on for the boot, off and on for the disk; and it is on now
    assert_eq!(host.switched(), (2, 1), "switched on and off, counted behind the BMC");
    assert!(host.is_on());
    let show = command("show").args(["heal-1", "--output", "json"]).output().unwrap();
    let shown: Value = serde_json::from_slice(&show.stdout).unwrap();
    let events: Vec<&str> = shown["moments"].as_array().unwrap().iter().filter_map(|m| m["event"].as_str()).collect();
    for event in ["armed", "discover", "offered", "acknowledged", "file-began", "hello", "written", "stage"] {
        assert!(events.contains(&event), "{event}: {events:?}");
    }
    assert_eq!((&shown["state"], &shown["detail"]), (&"closed".into(), &"installed".into()), "{shown}");
    assert_eq!(events.iter().filter(|event| **event == "hello").count(), 1);
}
