//! Rule 60: the bench tool refuses a BMC that an appliance on this machine holds, before it asks it anything.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

mod store_world;

use bmc_emulator::{Certificate, Emulator, Setup, by_name};
use healing::id::HostId;
use rackmedic::store::bmc_registry::{held, holder};
use rackmedic::store::secret::OuterKey;
use rackmedic::store::sqlite::SqliteJournal;
use std::path::Path;
use store_world::{Dir, fresh};
use tokio::process::Command;

async fn bench(emulator: &Emulator, data: &Path) -> (Option<i32>, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_rackmedic"))
        .args(["bmc", "power", "status", "--url", &format!("ipmi://admin@{}", emulator.ipmi())])
        .arg("--data-dir")
        .arg(data)
        .env("RACKMEDIC_BMC_PASSWORD", "secret-of-a-bmc")
        .output()
        .await
        .unwrap();
    (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bmc_that_an_appliance_holds_is_refused_and_not_asked() {
    let folder = Dir::new("bmc-registered");
    let data = folder.path().join("data");
    std::fs::create_dir_all(&data).unwrap();
    let certificate = Certificate::make().unwrap();
    let emulator = Emulator::start(Setup::of(by_name("dell_r750").unwrap()), &certificate).await.unwrap();
    assert_eq!(bench(&emulator, &data).await.0, Some(0), "there is no database");
    let key = OuterKey::file(&folder.path().join("key")).unwrap();
    let mut journal = SqliteJournal::open(&data, &key, fresh()).await.unwrap();
    assert_eq!(bench(&emulator, &data).await.0, Some(0), "it is held by nobody");
    journal.register_bmc(emulator.ipmi(), HostId(7)).await.unwrap();
    let before = emulator.handle().counted();
    let (code, said) = bench(&emulator, &data).await;
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("holds this BMC, for host 7"), "{said}");
    assert_eq!(emulator.handle().counted(), before, "nothing was sent");
    // Away from loopback a BMC is its address, whatever the port.
    journal.register_bmc("192.0.2.7:443".parse().unwrap(), HostId(8)).await.unwrap();
    assert_eq!(holder(&data, "192.0.2.7:623".parse().unwrap()).await.unwrap(), Some(HostId(8)));
    assert_eq!(holder(&data, "[::ffff:192.0.2.7]:623".parse().unwrap()).await.unwrap(), Some(HostId(8)));
    assert_eq!(holder(&data, "192.0.2.8:623".parse().unwrap()).await.unwrap(), None);
    // A second time it changes whose it is.
    journal.register_bmc("192.0.2.7:443".parse().unwrap(), HostId(9)).await.unwrap();
    let all = held(&data).await.unwrap();
    let kept = all.iter().find(|one| one.address == "192.0.2.7").unwrap();
    assert_eq!((kept.host, kept.port), (HostId(9), 443));
    let done = Command::new(env!("CARGO_BIN_EXE_rackmedic"))
        .args(["bmc", "held", "--data-dir"])
        .arg(&data)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success() && said.contains("192.0.2.7"), "{said}");
    // A database that cannot be read is no permission.
    let data = folder.path().join("damaged");
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(data.join("rackmedic.db"), b"not a database at all, but long enough to be taken for one").unwrap();
    let (code, said) = bench(&emulator, &data).await;
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("cannot be read"), "{said}");
}
