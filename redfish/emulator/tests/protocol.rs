//! The emulator under DMTF's validator of the protocol (redfish-protocol-validator 1.3.2), and who may do what.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod support;

use bmc::controller::ALWAYS;
use bmc::redfish::{Credential, Facts, NoKeeper, Options, Patience, Redfish, RedfishError, Trust};
use bmc::{Power, PowerCommand, Secret};
use bmc_emulator::{Certificate, Emulator, Setup, by_name};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use support::{PASSWORD, emulator, missing, run, text};
use tokio::process::Command;

/// The validator of the peers' folder, or of the path.
fn validator() -> Option<PathBuf> {
    let peers = std::env::var_os("RACKMEDIC_PEERS").map(|peers| PathBuf::from(peers).join("python-1/bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places: Vec<PathBuf> = peers.into_iter().chain(std::env::split_paths(&path)).collect();
    places.iter().map(|folder| folder.join("rf_protocol_validator")).find(|program| program.is_file())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_validator_finds_no_failure_at_any_make() {
    let Some(program) = validator() else {
        eprintln!("not run: rf_protocol_validator is not installed (redfish-protocol-validator 1.3.2)");
        return;
    };
    let models = ["dell_r750", "hpe_dl385", "lenovo_sr670", "supermicro_x12", "ami_megarac", "openbmc"];
    let reports = std::env::temp_dir().join(format!("rackmedic-validator-{}", std::process::id()));
    let validate = |model: &'static str| {
        let (program, folder) = (program.clone(), reports.join(model));
        async move {
            let emulator = emulator(model).await;
            std::fs::create_dir_all(&folder).unwrap();
            let url = format!("https://{}", emulator.redfish());
            let done = Command::new(program)
                .args(["-u", "admin", "-p", PASSWORD, "-r", &url, "--no-cert-check", "--avoid-http-redirect"])
                .args(["--report-type", "tsv", "--report-dir", folder.to_str().unwrap()])
                // These would win over the option that trusts the emulator.
                .env_remove("REQUESTS_CA_BUNDLE")
                .env_remove("CURL_CA_BUNDLE")
                .kill_on_drop(true)
                .output();
            let done = tokio::time::timeout(Duration::from_secs(240), done).await.expect("it ends").unwrap();
            let said = text(&done);
            assert!(said.contains("PASS: 3") && said.contains("FAIL: 0,"), "{model}: {said}: {}", folder.display());
        }
    };
    let all: Vec<_> = models.map(|model| tokio::spawn(validate(model))).into_iter().collect();
    for one in all {
        one.await.unwrap();
    }
    let _ = std::fs::remove_dir_all(&reports);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_may_only_read_switches_nothing() {
    if missing("curl") {
        return;
    }
    let certificate = Certificate::make().unwrap();
    let emulator = Emulator::start(Setup::of(by_name("dell_r750").unwrap()), &certificate).await.unwrap();
    let url = format!("https://{}/redfish/v1/AccountService/Accounts", emulator.redfish());
    let admin = format!("admin:{PASSWORD}");
    let reader = r#"{"UserName":"reader","Password":"secret-of-reader","RoleId":"ReadOnly"}"#;
    let json = "content-type: application/json";
    let done = run("curl", &["-ks", "-u", &admin, "-H", json, "-d", reader, &url]).await;
    assert!(text(&done).contains("\"RoleId\":\"ReadOnly\""), "{}", text(&done));
    let options = Options {
        trust: Trust::Pin(certificate.fingerprint()),
        patience: Patience { connect: Duration::from_secs(3), answer: Duration::from_secs(5) },
        system: None,
        keep_alive: false,
        keeper: Arc::new(NoKeeper),
        facts: Facts::default(),
    };
    let credential = Credential { user: "reader".to_owned(), password: Secret::new(b"secret-of-reader".to_vec()) };
    let mut client = Redfish::new(emulator.redfish(), "127.0.0.1", credential, options).unwrap();
    assert_eq!(client.readings().await.unwrap().main.power, Power::On);
    let refused = client.power(PowerCommand::Off, ALWAYS).await;
    assert!(matches!(refused, Err(RedfishError::Forbidden { .. })), "{refused:?}");
    assert_eq!(emulator.handle().counted().offs, 0, "it never reached the machine");
    // Its own password it may change, and log out.
    assert!(matches!(client.rotate_password(&Secret::new(b"another-secret".to_vec())).await, bmc::Rotation::Done));
    client.close().await;
    assert_eq!(emulator.handle().sessions_open(), 0);
}
