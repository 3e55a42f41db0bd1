//! What clients ask a BMC for beside power: its channel, its accounts, its log, what the machine draws.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod support;

use bmc::Secret;
use bmc::ipmi::client::{Client, IpmiError, Patience};
use bmc::ipmi::crypto::Suite;
use bmc::ipmi::handshake::{Login, LoginError, Privilege};
use bmc_emulator::{Emulator, Misbehaviour};
use machine::{Fault, HardwareKind, OffCause};
use std::time::Duration;
use support::{PASSWORD, emulator, ipmitool, missing, run, text};

async fn login(emulator: &Emulator, user: &str, password: &str, privilege: Privilege) -> Result<Client, IpmiError> {
    let login = Login::new(user.to_owned(), Secret::new(password.as_bytes().to_vec()), privilege).unwrap();
    let patience = Patience { retry: Duration::from_millis(500), tries: 4 };
    Client::open(emulator.ipmi(), &login, &[Suite::Sha256], patience).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ipmitool_asks_who_and_where_it_is() {
    if missing("ipmitool") {
        return;
    }
    let emulator = emulator("dell_r750").await;
    let lan = ipmitool(&emulator, "17", &["lan", "print", "1"]).await;
    assert!(lan.contains("127.0.0.1") && lan.contains("02:bc:77:77:88:88") && lan.contains("3,17"), "{lan}");
    let channel = ipmitool(&emulator, "17", &["channel", "info", "1"]).await;
    assert!(channel.contains("802.3 LAN") && channel.contains("always available"), "{channel}");
    let test = ipmitool(&emulator, "17", &["mc", "selftest"]).await;
    assert!(test.contains("passed"), "{test}");
    let chassis = ipmitool(&emulator, "17", &["chassis", "status"]).await;
    assert!(chassis.contains("System Power         : on"), "{chassis}");
    let unit = ipmitool(&emulator, "17", &["fru", "print", "0"]).await;
    let field =
        |name: &str, value: &str| unit.lines().any(|line| line.trim().starts_with(name) && line.ends_with(value));
    assert!(field("Product Name", "PowerEdge R750") && field("Product Serial", "SN-0001"), "{unit}");
    assert!(field("Chassis Type", "Rack Mount Chassis") && field("Chassis Serial", "SN-0001"), "{unit}");
    let capabilities = ipmitool(&emulator, "17", &["raw", "0x00", "0x00"]).await;
    assert!(capabilities.contains("06 20 20 20 20 20"), "{capabilities}");
    let device = ipmitool(&emulator, "17", &["raw", "0x04", "0x20", "0x00"]).await;
    assert!(device.contains("0a 01"), "{device}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_watts_of_the_machine_are_shown() {
    if missing("ipmitool") {
        return;
    }
    let emulator = emulator("lenovo_sr670").await;
    let on = ipmitool(&emulator, "17", &["dcmi", "power", "reading"]).await;
    assert!(on.contains("240 Watts") && on.contains("activated"), "{on}");
    emulator.handle().inject(Fault::Button);
    let off = ipmitool(&emulator, "17", &["dcmi", "power", "reading"]).await;
    assert!(off.contains("9 Watts") && !off.contains("240"), "{off}");
    let sensor = ipmitool(&emulator, "17", &["sensor", "reading", "PSU1 Power"]).await;
    assert!(sensor.contains('8'), "{sensor}");
    emulator.handle().inject(Fault::PowerLost(OffCause::AcLoss));
    let none = ipmitool(&emulator, "17", &["dcmi", "power", "reading"]).await;
    assert!(none.contains(" 0 Watts"), "{none}");
    if missing("ipmi-dcmi") {
        return;
    }
    emulator.handle().inject(Fault::PowerReturns);
    let host = format!("127.0.0.1:{}", emulator.ipmi().port());
    let base = ["-D", "LAN_2_0", "-I", "17", "-h", &host, "-u", "admin", "-p", PASSWORD];
    let done = run("ipmi-dcmi", &[&base[..], &["--get-system-power-statistics"]].concat()).await;
    assert!(text(&done).contains("9 Watts"), "{}", text(&done));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_are_made_and_locked_out_as_ipmitool_does_it() {
    if missing("ipmitool") {
        return;
    }
    let emulator = emulator("supermicro_x12").await;
    ipmitool(&emulator, "17", &["user", "set", "name", "3", "night"]).await;
    ipmitool(&emulator, "17", &["user", "set", "password", "3", "secret-of-night"]).await;
    let early = login(&emulator, "night", "secret-of-night", Privilege::User).await;
    assert!(early.is_err(), "not before it is enabled");
    ipmitool(&emulator, "17", &["user", "enable", "3"]).await;
    let access = ["channel", "setaccess", "1", "3", "ipmi=on", "privilege=3"];
    ipmitool(&emulator, "17", &access).await;
    let list = ipmitool(&emulator, "17", &["user", "list", "1"]).await;
    assert!(list.contains("night") && list.contains("OPERATOR"), "{list}");
    let mut night = login(&emulator, "night", "secret-of-night", Privilege::Operator).await.unwrap();
    night.reading().await.unwrap();
    let refused = night.user_set_password(2, &Secret::new(b"mine now".to_vec())).await;
    assert!(matches!(refused, Err(IpmiError::Refused { code: 0xd4, .. })), "an operator: {refused:?}");
    night.close().await;
    let above = login(&emulator, "night", "secret-of-night", Privilege::Administrator).await;
    assert!(above.is_err(), "not above its privilege");
    let mut admin = login(&emulator, "admin", PASSWORD, Privilege::Administrator).await.unwrap();
    let users = admin.user_list().await.unwrap();
    assert!(users.iter().any(|user| user.name == "night" && user.enabled == Some(true) && user.id == 3), "{users:?}");
    assert!(admin.user_test_password(3, &Secret::new(b"secret-of-night".to_vec())).await.unwrap());
    admin.close().await;
    ipmitool(&emulator, "17", &["user", "test", "3", "16", "secret-of-night"]).await;
    ipmitool(&emulator, "17", &["user", "disable", "3"]).await;
    let late = login(&emulator, "night", "secret-of-night", Privilege::User).await;
    assert!(matches!(late, Err(IpmiError::Login { source: LoginError::UserRefused, .. })), "{late:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_cleared_under_a_reservation_that_holds() {
    if missing("ipmitool") {
        return;
    }
    let emulator = emulator("dell_r750").await;
    emulator.handle().inject(Fault::Hardware(HardwareKind::Memory));
    let log = ipmitool(&emulator, "17", &["sel", "elist"]).await;
    assert!(log.contains("DIMM A1") && log.contains("Uncorrectable ECC"), "{log}");
    // A reservation made by another since is lost.
    let mut client = login(&emulator, "admin", PASSWORD, Privilege::Administrator).await.unwrap();
    let first = ipmitool(&emulator, "17", &["raw", "0x0a", "0x42"]).await;
    client.event_log(&[]).await.unwrap();
    let bytes: Vec<String> = first.split_whitespace().map(|byte| format!("0x{byte}")).collect();
    let clear = ["raw", "0x0a", "0x47", &bytes[0], &bytes[1], "0x43", "0x4c", "0x52", "0xaa"];
    let port = emulator.ipmi().port().to_string();
    let base = ["-I", "lanplus", "-C", "17", "-H", "127.0.0.1", "-p", &port, "-U", "admin", "-P", PASSWORD];
    let lost = run("ipmitool", &[&base[..], &clear].concat()).await;
    assert!(text(&lost).contains("rsp=0xc5"), "{}", text(&lost));
    assert!(!client.event_log(&[]).await.unwrap().entries.is_empty());
    ipmitool(&emulator, "17", &["sel", "clear"]).await;
    assert!(client.event_log(&[]).await.unwrap().entries.is_empty());
    emulator.handle().inject(Fault::Button);
    assert_eq!(client.event_log(&[]).await.unwrap().entries.len(), 1, "what comes later is there");
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_shows_in_sensors_and_log() {
    let broken = [
        (HardwareKind::PowerSupply, "PSU1 Status"),
        (HardwareKind::Processor, "CPU1 Status"),
        (HardwareKind::Memory, "DIMM A1"),
        (HardwareKind::Disk, "Disk 0"),
        (HardwareKind::Thermal, "CPU1 Temp"),
    ];
    for (kind, name) in broken {
        let emulator = emulator("hpe_dl385").await;
        let mut client = login(&emulator, "admin", PASSWORD, Privilege::Administrator).await.unwrap();
        let records = client.sensor_records().await.unwrap().sensors;
        let before = client.sensors(&records).await.unwrap();
        emulator.handle().inject(Fault::Hardware(kind));
        let after = client.sensors(&records).await.unwrap();
        let changed: Vec<_> =
            before.iter().zip(&after).filter(|(before, after)| before != after).map(|(_, after)| after).collect();
        assert!(changed.len() == 1 && changed[0].name == name, "{kind:?}: {changed:?}");
        let log = client.event_log(&records).await.unwrap();
        assert!(log.entries.iter().any(|entry| entry.sensor.as_deref() == Some(name)), "{kind:?}: {log:?}");
        client.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_bmc_gives_no_console_either() {
    let emulator = emulator("openbmc").await;
    let client = login(&emulator, "admin", PASSWORD, Privilege::Administrator).await.unwrap();
    emulator.handle().set(Misbehaviour::IpmiBusy, true);
    let busy = client.console(false).await;
    assert!(matches!(busy, Err(IpmiError::Refused { code: 0xc0, .. })), "{busy:?}");
}
