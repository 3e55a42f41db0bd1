//! Sessions after a kill: a process asks a BMC a thousand times, is killed without warning, and starts again. The BMC must
//! not hold more than one session of ours. The test starts itself as that process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bmc::redfish::{Credential, Facts, Options, Patience, Redfish, Trust};
use bmc_emulator::{Certificate, Emulator, Setup, by_name};
use rackmedic::store::secret::{OuterKey, Sealer};
use rackmedic::store::session_keeper::SealedKeeper;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const CHILD: &str = "RACKMEDIC_TEST_BMC";

/// The data key of the folder: made by the first process, opened by the others.
fn sealer(folder: &Path) -> Sealer {
    let outer = OuterKey::file(&folder.join("key")).unwrap();
    let wrapped = folder.join("wrapped");
    match std::fs::read(&wrapped) {
        Ok(bytes) => Sealer::open(&outer, &bytes).unwrap(),
        Err(_) => {
            let (sealer, bytes) = Sealer::make(&outer).unwrap();
            std::fs::write(wrapped, bytes).unwrap();
            sealer
        }
    }
}

/// Reads the power for ever, or `count` times and then closes.
async fn child(place: &str) {
    let mut parts = place.split(' ');
    let mut next = || parts.next().unwrap();
    let (address, pin, folder) = (next().parse().unwrap(), next().parse().unwrap(), next().to_owned());
    let count: u32 = next().parse().unwrap();
    let sealer = Arc::new(sealer(Path::new(&folder)));
    let keeper =
        SealedKeeper::new(&Path::new(&folder).join("sessions"), &format!("redfish://{address}"), sealer).unwrap();
    let options = Options {
        trust: Trust::Pin(pin),
        patience: Patience::default(),
        system: None,
        keep_alive: false,
        keeper: Arc::new(keeper),
        facts: Facts::default(),
    };
    let password = bmc::Secret::new(b"secret-of-a-bmc".to_vec());
    let credential = Credential { user: "admin".to_owned(), password };
    let mut client = Redfish::new(address, "127.0.0.1", credential, options).unwrap();
    let mut done = 0;
    while count == 0 || done < count {
        client.readings().await.unwrap();
        done += 1;
    }
    client.close().await;
}

#[test]
fn at_most_one_session_is_open_after_kills() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if let Ok(place) = std::env::var(CHILD) {
        return runtime.block_on(child(&place));
    }
    runtime.block_on(async {
        let folder = std::env::temp_dir().join(format!("rackmedic-session-kill-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let certificate = Certificate::make().unwrap();
        let mut setup = Setup::of(by_name("dell_r750").unwrap());
        setup.spec.bmc_sessions_max = 4;
        let emulator = Emulator::start(setup, &certificate).await.unwrap();
        let run = |count: u32| {
            let place = format!("{} {} {} {count}", emulator.redfish(), certificate.fingerprint(), folder.display());
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "at_most_one_session_is_open_after_kills"]).env(CHILD, place);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        };
        let requests = |wanted: u64| {
            let handle = emulator.handle().clone();
            async move {
                let begun = Instant::now();
                while handle.counted().requests < wanted {
                    assert!(begun.elapsed() < Duration::from_secs(120), "{:?}", handle.counted());
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        };
        for round in 0..8u64 {
            let before = emulator.handle().counted().requests;
            let mut process = run(0);
            // A thousand requests at first, then kills at uneven moments soon after the start.
            requests(before + if round == 0 { 1_000 } else { 6 + 7 * round }).await;
            process.kill().unwrap();
            process.wait().unwrap();
            let open = emulator.handle().sessions_open();
            assert!(open <= 1, "{open} sessions are open after kill {round}");
        }
        assert!(run(3).wait().unwrap().success());
        assert_eq!(emulator.handle().sessions_open(), 0, "an orderly end leaves none");
        let counted = emulator.handle().counted();
        assert!(counted.requests > 1_000 && counted.sessions_opened <= 2, "{counted:?}");
        std::fs::remove_dir_all(&folder).unwrap();
    });
}
