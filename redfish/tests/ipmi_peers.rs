//! Our IPMI client against servers that nobody here wrote: OpenIPMI's `ipmi_sim` (suite 3) and go-ipmi's
//! `goipmi-server` (suites 3 and 17). `tests/peers/install` gets them; `RACKMEDIC_PEERS` names the folder. Without it, or
//! outside a network namespace of its own for the one that listens on all addresses, a test says so and is not run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use bmc::Secret;
use bmc::boot::{BootDevice, BootLasts, BootMode};
use bmc::controller::{ALWAYS, Controller};
use bmc::health::{SensorKind, Severity};
use bmc::ipmi::boot_options::{DiskSelector, Habit};
use bmc::ipmi::client::{self, Client, IpmiError, Patience};
use bmc::ipmi::command::{Command as Request, Control};
use bmc::ipmi::console::Console;
use bmc::ipmi::crypto::Suite;
use bmc::ipmi::handshake::{Login, LoginError, Privilege};
use bmc::ipmi::sol_activation::ConsoleError;
use bmc::ipmi::suite_zero::SuiteZero;
use bmc::ipmi::users::Limit;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A process that ends with its test, and its folder.
struct Peer {
    child: Child,
    folder: PathBuf,
    address: SocketAddr,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn peers() -> Option<PathBuf> {
    let folder = std::env::var_os("RACKMEDIC_PEERS").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("not run: RACKMEDIC_PEERS names no folder (tests/peers/install makes one)");
    }
    folder
}

/// Whether there is no network but loopback.
fn alone() -> bool {
    let devices = std::fs::read_to_string("/proc/net/dev").unwrap();
    devices.lines().filter_map(|l| l.split_once(':')).all(|(name, _)| name.trim() == "lo")
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("rackmedic-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn ipmi_sim(name: &str, port: u16) -> Option<Peer> {
    ipmi_sim_with(name, port, "", "")
}

/// OpenIPMI's simulator; its chassis is a file that a hook of ours reads and writes. `more_lan` and `more_parts` are put
/// at the end of its configuration and of its hardware.
fn ipmi_sim_with(name: &str, port: u16, more_lan: &str, more_parts: &str) -> Option<Peer> {
    peers()?;
    let folder = folder(name);
    let lan = format!(
        "name \"heal1\"\nset_working_mc 0x20\n  startlan 1\n    addr 127.0.0.1 {port}\n    priv_limit admin\n    \
         allowed_auths_user none md2 md5 straight\n    allowed_auths_operator none md2 md5 straight\n    \
         allowed_auths_admin none md2 md5 straight\n    guid a123456789abcdefa123456789abcdef\n  endlan\n  \
         chassis_control \"./chassis.sh 0x20\"\n  user 2 true \"admin\" \"secret\" admin 10 none md2 md5 straight\n  \
         user 3 true \"reader\" \"secret\" user 10 none md2 md5 straight\n{more_lan}"
    );
    let emulator = format!(
        "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\n\
         sel_enable 0x20 1000 0x0a\n{more_parts}mc_enable 0x20\n"
    );
    let hook = "#!/bin/sh\ncd \"$(dirname \"$0\")\"\ncase \"$2 $3\" in\n\"get power\") echo \"power:$(cat power)\" ;;\n\
                \"set power\") echo \"$4\" >power ;;\n\"get boot\") echo \"boot:$(cat boot)\" ;;\n\"set boot\") echo \"$4\" >boot ;;\n\
                esac\n";
    std::fs::write(folder.join("lan.conf"), lan).unwrap();
    std::fs::write(folder.join("bmc.emu"), emulator).unwrap();
    std::fs::write(folder.join("chassis.sh"), hook).unwrap();
    std::fs::write(folder.join("power"), "0\n").unwrap();
    std::fs::write(folder.join("boot"), "none\n").unwrap();
    std::fs::create_dir(folder.join("state")).unwrap();
    let made = Command::new("chmod").arg("+x").arg(folder.join("chassis.sh")).status().unwrap();
    assert!(made.success());
    let child = Command::new("ipmi_sim")
        .args(["-c", "lan.conf", "-f", "bmc.emu", "-s", "./state", "-n"])
        .current_dir(&folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("ipmi_sim starts");
    Some(Peer { child, folder, address: ([127, 0, 0, 1], port).into() })
}

fn goipmi(name: &str, port: u16, suites: &str) -> Option<Peer> {
    let server = peers()?.join("goipmi-server-v0.9.0");
    if !alone() {
        eprintln!(
            "not run: goipmi-server listens on all addresses and is started in a network namespace of its own only"
        );
        return None;
    }
    let folder = folder(name);
    let child = Command::new(server)
        .envs([
            ("GOIPMI_SERVER_PORT", port.to_string().as_str()),
            ("GOIPMI_SERVER_USER", "admin"),
            ("GOIPMI_SERVER_PASS", "secret"),
            ("GOIPMI_SERVER_CIPHER_SUITES", suites),
            ("GOIPMI_SERVER_CONSOLE", "pty"),
        ])
        .current_dir(&folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("goipmi-server starts");
    Some(Peer { child, folder, address: ([127, 0, 0, 1], port).into() })
}

fn login(user: &str, password: &str, privilege: Privilege) -> Login {
    Login::new(user.to_owned(), Secret::new(password.as_bytes().to_vec()), privilege).unwrap()
}

fn admin() -> Login {
    login("admin", "secret", Privilege::Administrator)
}

fn brisk() -> Patience {
    Patience { retry: Duration::from_millis(700), tries: 4 }
}

/// Opens as soon as the peer listens.
async fn open(peer: &Peer, suites: &[Suite]) -> Client {
    let begun = Instant::now();
    loop {
        match Client::open(peer.address, &admin(), suites, brisk()).await {
            Ok(client) => return client,
            Err(why) if begun.elapsed() > Duration::from_secs(20) => panic!("never opened: {why}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

/// Waits until the chassis reads so.
async fn reads(client: &mut Client, on: bool) {
    let begun = Instant::now();
    while client.chassis_status().await.unwrap().on != on {
        assert!(begun.elapsed() < Duration::from_secs(10), "the chassis never read {on}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn power_goes_both_ways(client: &mut Client) {
    for on in [true, false, true, false] {
        client.control(if on { Control::On } else { Control::Off }).await.unwrap();
        reads(client, on).await;
    }
    // An off of what is off is no failure of the fence.
    let again = client.control(Control::Off).await;
    assert!(again.is_ok() || matches!(again, Err(IpmiError::Refused { code: 0xd5, .. })), "{again:?}");
    reads(client, false).await;
}

#[tokio::test]
async fn ipmi_sim_is_read_and_switched_by_suite_3() {
    let Some(peer) = ipmi_sim("sim-power", 19_623) else { return };
    let mut client = open(&peer, &Suite::PREFERENCE).await;
    assert_eq!(client.suite(), Suite::Sha1, "it has no SHA-256");
    let device = client.device_id().await.unwrap();
    assert_eq!((device.manufacturer, device.product), (0x1291, 0x0f02));
    assert_ne!(client.system_guid().await.unwrap(), [0; 16]);
    power_goes_both_ways(&mut client).await;
    client.close().await;
}

#[tokio::test]
async fn ipmi_sim_refuses_a_wrong_password_a_wrong_user_and_more_privilege_than_given() {
    let Some(peer) = ipmi_sim("sim-refuse", 19_624) else { return };
    open(&peer, &[Suite::Sha1]).await.close().await;
    let tried = |login: Login| async move { Client::open(peer.address, &login, &[Suite::Sha1], brisk()).await };
    let wrong = tried(login("admin", "Secret", Privilege::Operator)).await;
    assert!(matches!(wrong, Err(IpmiError::Login { source: LoginError::PasswordWrong, .. })), "{wrong:?}");
    let text = wrong.err().map(|e| e.to_string()).unwrap_or_default();
    assert!(!text.contains("Secret") && text.contains("password is wrong"), "{text}");
}

#[tokio::test]
async fn sessions_are_given_back() {
    // The simulator has ten a user: thirty in a row only work if each is closed.
    let Some(peer) = ipmi_sim("sim-sessions", 19_625) else { return };
    open(&peer, &[Suite::Sha1]).await.close().await;
    for round in 0..30 {
        let client = Client::open(peer.address, &admin(), &[Suite::Sha1], brisk()).await;
        client.unwrap_or_else(|why| panic!("round {round}: {why}")).close().await;
    }
}

#[tokio::test]
async fn goipmi_server_is_read_and_switched_by_suite_17_and_by_suite_3() {
    let Some(peer) = goipmi("go-power", 19_626, "3,17") else { return };
    for suite in Suite::PREFERENCE {
        let mut client = open(&peer, &[suite]).await;
        assert_eq!(client.suite(), suite);
        client.device_id().await.unwrap();
        power_goes_both_ways(&mut client).await;
        client.close().await;
    }
}

#[tokio::test]
async fn a_server_without_suite_17_is_spoken_to_by_suite_3() {
    let Some(peer) = goipmi("go-three", 19_627, "3") else { return };
    let client = open(&peer, &Suite::PREFERENCE).await;
    assert_eq!(client.suite(), Suite::Sha1);
    client.close().await;
}

#[tokio::test]
async fn a_boot_is_set_once_and_read_back_and_a_peer_that_forgets_it_is_seen() {
    let Some(peer) = goipmi("go-boot", 19_628, "17") else { return };
    let disk = DiskSelector::SupermicroUefi;
    let mut client = open(&peer, &[Suite::Sha256]).await;
    for device in [BootDevice::Pxe, BootDevice::Cd, BootDevice::Disk] {
        client.set_boot_once(&device, BootMode::Uefi, disk).await.unwrap();
        let set = client.boot_override(Habit { disk, ..Habit::default() }).await.unwrap();
        assert_eq!((set.device, set.lasts, set.mode), (Some(device), BootLasts::Once, Some(BootMode::Uefi)));
    }
    let http = client.set_boot_once(&BootDevice::Http { uri: None }, BootMode::Uefi, disk).await;
    assert!(matches!(http, Err(IpmiError::BootDevice { .. })), "{http:?}");
    client.close().await;

    let Some(peer) = ipmi_sim("sim-boot", 19_629) else { return };
    let mut client = open(&peer, &[Suite::Sha1]).await;
    client.set_boot_once(&BootDevice::Pxe, BootMode::Uefi, DiskSelector::Standard).await.unwrap();
    let set = client.boot_override(Habit::default()).await.unwrap();
    assert_eq!((set.device, set.lasts, &set.word[..]), (None, BootLasts::Disabled, "PXE (not valid)"));
    // By its make it is known that the flags are lost: the verb believes the device.
    let seen = Controller::set_boot_once(&mut client, &BootDevice::Pxe, BootMode::Uefi, ALWAYS).await.unwrap();
    assert_eq!((seen.device, seen.lasts), (Some(BootDevice::Pxe), BootLasts::Once));
    client.close().await;
}

/// What somebody else's tool prints about the peer.
async fn told(program: &str, arguments: Vec<String>) -> String {
    let mut command = Command::new("timeout");
    command.arg("20").arg(program).args(arguments).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn ipmitool(peer: &Peer, arguments: &str) -> String {
    let port = peer.address.port();
    let all = format!("-I lanplus -C 3 -H 127.0.0.1 -p {port} -U admin -P secret {arguments}");
    told("ipmitool", all.split(' ').map(str::to_owned).collect()).await
}

fn bytes(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!(" {b:#04x}")).collect()
}

/// A full sensor record: number, type, format and unit, M, exponent of the result, name.
fn full_record(number: u8, kind: u8, units: [u8; 2], m: u8, exponent: i8, name: &str) -> String {
    let mut record = vec![0; 47];
    record[2..8].copy_from_slice(&[0x51, 0x01, 0, 0x20, 0x00, number]);
    record[8..14].copy_from_slice(&[3, number, 0x7f, 0x68, kind, 0x01]);
    record[14..20].copy_from_slice(&[0x80, 0x7a, 0x80, 0x7a, 0x3f, 0x3f]);
    record[20..22].copy_from_slice(&units);
    record[24] = m;
    record[29] = (exponent << 4).cast_unsigned();
    record.push(0xc0 | u8::try_from(name.len()).unwrap());
    record.extend(name.as_bytes());
    record[4] = u8::try_from(record.len() - 5).unwrap();
    format!("main_sdr_add 0x20{}\n", bytes(&record))
}

/// A compact record of a power supply's states.
fn compact_record(number: u8, name: &str) -> String {
    let mut record = vec![0; 31];
    record[2..8].copy_from_slice(&[0x51, 0x02, 0, 0x20, 0x00, number]);
    record[8..14].copy_from_slice(&[10, number, 0x7f, 0x68, 0x08, 0x6f]);
    record[20] = 0xc0;
    record.push(0xc0 | u8::try_from(name.len()).unwrap());
    record.extend(name.as_bytes());
    record[4] = u8::try_from(record.len() - 5).unwrap();
    format!("main_sdr_add 0x20{}\n", bytes(&record))
}

/// A temperature beyond its critical limit, a voltage, a fan that is not scanned, a power supply without mains, a sensor
/// that has a record and nothing else.
fn sensors() -> String {
    let states = "000111111000000 ".repeat(4);
    let mut parts = format!(
        "sensor_add 0x20 0 1 0x01 0x01\n\
         sensor_set_threshold 0x20 0 1 settable 111000 0xa0 0x90 0x70 00 00 00\n\
         sensor_set_event_support 0x20 0 1 enable scanning per-state {states}\nsensor_set_value 0x20 0 1 0x98 1\n\
         sensor_add 0x20 0 2 0x02 0x01\n\
         sensor_set_event_support 0x20 0 2 enable scanning per-state {states}\nsensor_set_value 0x20 0 2 0xc8 0\n\
         sensor_add 0x20 0 3 0x04 0x01\nsensor_set_value 0x20 0 3 0x30 0\n\
         sensor_add 0x20 0 4 0x08 0x6f\n\
         sensor_set_event_support 0x20 0 4 enable scanning per-state {}\n\
         sensor_set_bit 0x20 0 4 0 1 0\nsensor_set_bit 0x20 0 4 3 1 0\n",
        "000000000001111 ".repeat(4)
    );
    parts.push_str(&full_record(1, 0x01, [0x00, 1], 1, 0, "CPU1 Temp"));
    parts.push_str(&full_record(2, 0x02, [0x00, 4], 63, -3, "P12V"));
    parts.push_str(&full_record(3, 0x04, [0x00, 18], 100, 0, "FAN1"));
    parts.push_str(&compact_record(4, "PSU1"));
    parts.push_str(&full_record(9, 0x01, [0x00, 1], 1, 0, "Ghost"));
    parts
}

/// Entries of every kind, without their times: the simulator puts its own.
fn log_entries() -> String {
    let entries: [(u8, [u8; 9]); 9] = [
        (0x02, [0x20, 0, 4, 0x01, 0x01, 0x01, 0x59, 0x98, 0x90]),
        (0x02, [0x20, 0, 4, 0x0c, 0x10, 0x6f, 0x31, 0xff, 0x02]),
        (0x02, [0x20, 0, 4, 0x08, 0x04, 0xef, 0x03, 0xff, 0xff]),
        (0x02, [0x20, 0, 4, 0x23, 0x11, 0x6f, 0xc1, 0x44, 0xff]),
        (0x02, [0x41, 0, 4, 0x20, 0x12, 0x6f, 0x01, 0xff, 0xff]),
        (0xc1, [0x57, 0x01, 0, 1, 2, 3, 4, 5, 6]),
        (0x02, [0x20, 0, 4, 0x0f, 0x13, 0x6f, 0xc0, 0x01, 0xff]),
        (0x02, [0x20, 0, 4, 0x10, 0x14, 0x6f, 0x02, 0xff, 0xff]),
        (0x02, [0x20, 0, 4, 0x22, 0x15, 0x6f, 0x05, 0xff, 0xff]),
    ];
    entries.iter().map(|(kind, rest)| format!("sel_add 0x20 {kind:#04x} 0 0 0 0{}\n", bytes(rest))).collect()
}

#[tokio::test]
async fn the_event_log_reads_as_ipmitool_reads_it() {
    let Some(peer) = ipmi_sim_with("sim-sel", 19_630, "", &(sensors() + &log_entries())) else { return };
    let mut client = open(&peer, &[Suite::Sha1]).await;
    let records = client.sensor_records().await.unwrap();
    let log = client.event_log(&records.sensors).await.unwrap();
    assert!(log.complete);
    assert_eq!(log.entries.len(), usize::from(client.event_log_info().await.unwrap().entries));
    let list = ipmitool(&peer, "sel list").await;
    assert_eq!(log.entries.len(), list.lines().count(), "{list}");
    for (ours, theirs) in log.entries.iter().zip(list.lines()) {
        let columns: Vec<&str> = theirs.split('|').map(str::trim).collect();
        assert_eq!(ours.id, u16::from_str_radix(columns[0], 16).unwrap().to_string());
        assert_eq!(ours.at_unix_s, None, "its clock was never set");
        let text = ours.text.to_lowercase();
        if theirs.contains("OEM record") {
            assert!(text.replace(' ', "").contains(columns.last().unwrap()), "{text:?} for {theirs}");
            continue;
        }
        assert!(text.contains(&columns[4].to_lowercase()), "{text:?} for {theirs}");
        assert_eq!(text.ends_with(", deasserted"), columns[5] == "Deasserted", "{text:?} for {theirs}");
    }
    // The simulator logged the crossing of the limit by itself; the sensor's record makes numbers of it.
    let hot = &log.entries[1];
    assert_eq!(hot.text, "Temperature: upper critical going high (152 C, limit 144 C)");
    assert_eq!((hot.severity, hot.sensor.as_deref()), (Severity::Critical, Some("CPU1 Temp")));

    // With the clock set, an entry has a time; a reservation that an entry breaks costs a new one and no entry.
    let raw = |command, data| Request { lun: 0, net_fn: 0x0a, command, data, repeatable: false };
    client.run(&raw(0x49, 1_700_000_000u32.to_le_bytes().to_vec()), "set SEL time").await.unwrap();
    let added = [0, 0, 2, 0, 0, 0, 0, 0x20, 0, 4, 0x0c, 0x10, 0x6f, 0x00, 0xff, 0xff];
    client.run(&raw(0x44, added.to_vec()), "add SEL entry").await.unwrap();
    let now = client.event_log_time().await.unwrap().unwrap();
    assert!((1_700_000_000..1_700_000_060).contains(&now), "{now}");
    let longer = client.event_log(&[]).await.unwrap();
    assert_eq!(longer.entries.len(), log.entries.len() + 1);
    let last = longer.entries.last().unwrap();
    assert!((1_700_000_000..1_700_000_060).contains(&last.at_unix_s.unwrap()), "{last:?}");
    assert_eq!((&last.text[..], last.severity), ("Memory: correctable ECC", Severity::Warning));
    client.close().await;
}

#[tokio::test]
async fn sensors_read_as_ipmitool_and_freeipmi_read_them() {
    let Some(peer) = ipmi_sim_with("sim-sdr", 19_631, "", &sensors()) else { return };
    let mut client = open(&peer, &[Suite::Sha1]).await;
    let records = client.sensor_records().await.unwrap();
    assert!(records.complete);
    let ours = client.sensors(&records.sensors).await.unwrap();
    client.close().await;
    let names: Vec<&str> = ours.iter().map(|sensor| &sensor.name[..]).collect();
    assert_eq!(names, ["CPU1 Temp", "P12V", "FAN1", "PSU1", "Ghost"]);

    let list = ipmitool(&peer, "sensor").await;
    assert_eq!(list.lines().count(), ours.len(), "{list}");
    for (ours, theirs) in ours.iter().zip(list.lines()) {
        let columns: Vec<&str> = theirs.split('|').map(str::trim).collect();
        assert_eq!(ours.name, columns[0]);
        match (columns[1], columns[2]) {
            ("na", _) => assert_eq!(ours.value, None, "{theirs}"),
            (mask, "discrete") => {
                let mask = u32::from_str_radix(mask.trim_start_matches("0x"), 16).unwrap();
                assert_eq!(ours.value, Some(f64::from(mask)), "{theirs}");
            }
            (number, _) => {
                assert!((ours.value.unwrap() - number.parse::<f64>().unwrap()).abs() < 0.001, "{ours:?}: {theirs}");
                let severity = match columns[3] {
                    "ok" => Severity::Ok,
                    "nc" => Severity::Warning,
                    _ => Severity::Critical,
                };
                assert_eq!(ours.severity, severity, "{theirs}");
            }
        }
    }
    assert_eq!(ours[3].unit, "presence detected, power supply AC lost");
    assert_eq!(ours[3].severity, Severity::Critical);

    let port = peer.address.port();
    let cache = peer.folder.display();
    let arguments = format!(
        "-D LAN_2_0 -I 3 -W opensesspriv -h 127.0.0.1:{port} -u admin -p secret --quiet-cache --no-header-output \
         --comma-separated-output --sdr-cache-directory={cache}"
    );
    let list = told("ipmi-sensors", arguments.split(' ').map(str::to_owned).collect()).await;
    assert_eq!(list.lines().count(), ours.len(), "{list}");
    for (ours, theirs) in ours.iter().zip(list.lines()) {
        let columns: Vec<&str> = theirs.split(',').collect();
        assert_eq!(ours.name, columns[1]);
        if ours.kind == SensorKind::Discrete {
            assert_eq!(ours.unit.split(", ").count(), columns[5].matches('\'').count() / 2, "{theirs}");
            continue;
        }
        assert_eq!(ours.unit, columns[4], "{theirs}");
        let shown = ours.value.map_or_else(|| "N/A".to_owned(), |value| format!("{value:.2}"));
        assert_eq!(shown, columns[3], "{theirs}");
    }
}

#[tokio::test]
async fn what_stands_open_without_a_password_is_found() {
    // The simulator takes suite 0 from whoever knows a name: the audit must say so.
    let Some(peer) = ipmi_sim("sim-audit", 19_632) else { return };
    open(&peer, &[Suite::Sha1]).await.close().await;
    assert_eq!(client::ping(peer.address, brisk()).await.unwrap(), Some(true));
    let channel = client::auth_capabilities(peer.address, Privilege::Administrator, brisk()).await.unwrap();
    assert!(channel.ipmi_v2 && channel.ipmi_v1_5 && channel.none && channel.straight_password, "{channel:?}");
    assert!(!channel.weaknesses().is_empty());
    let suites = client::list_suites(peer.address, brisk()).await.unwrap();
    let listed = |number: u8| suites.iter().find(|suite| suite.number == number);
    assert_eq!(listed(0).unwrap().weakness(), Some("it asks for no password"));
    assert_eq!(listed(3).unwrap().weakness(), None);
    assert_eq!(client::suite_zero_open(peer.address, "admin", brisk()).await.unwrap(), SuiteZero::Opens);
    let nobody = client::suite_zero_open(peer.address, "nobody", brisk()).await.unwrap();
    assert!(matches!(nobody, SuiteZero::Refused(_)), "{nobody:?}");
    // Ten sessions a user: the probe gives each one back.
    for _ in 0..20 {
        assert_eq!(client::suite_zero_open(peer.address, "admin", brisk()).await.unwrap(), SuiteZero::Opens);
    }

    let Some(peer) = goipmi("go-audit", 19_633, "3,17") else { return };
    open(&peer, &[Suite::Sha256]).await.close().await;
    let suites = client::list_suites(peer.address, brisk()).await.unwrap();
    let numbers: Vec<u8> = suites.iter().map(|suite| suite.number).collect();
    assert_eq!(numbers, [3, 17]);
    for suite in &suites {
        let ours = Suite::from_number(suite.number).unwrap().triple();
        assert_eq!(([suite.authentication, suite.integrity[0], suite.confidentiality[0]]), ours);
    }
    let zero = client::suite_zero_open(peer.address, "admin", brisk()).await.unwrap();
    assert!(matches!(zero, SuiteZero::Refused(_)), "{zero:?}");
}

#[tokio::test]
async fn accounts_are_listed_and_a_password_is_changed() {
    let null_user = "  user 1 true \"\" \"\" user 10 none md2 md5 straight\n";
    let Some(peer) = ipmi_sim_with("sim-users", 19_634, null_user, "") else { return };
    let mut client = open(&peer, &[Suite::Sha1]).await;
    let users = client.user_list().await.unwrap();
    let named = |name: &str| users.iter().find(|user| user.name == name).unwrap();
    assert_eq!((named("admin").id, named("admin").limit), (2, Limit::Administrator));
    assert_eq!((named("reader").id, named("reader").limit), (3, Limit::User));
    let open_ones: Vec<u8> = users.iter().filter(|user| user.is_open_without_name()).map(|user| user.id).collect();
    assert_eq!(open_ones, [1]);
    let password = |text: &str| Secret::new(text.as_bytes().to_vec());
    // The simulator calls every password right, to ipmitool as to us: what proves one is a login. Nor does it let anybody
    // in by a password of more than sixteen bytes that it took.
    assert!(client.user_test_password(3, &password("secret")).await.unwrap());
    client.user_set_password(3, &password("longer secret 16")).await.unwrap();
    client.keep_alive().await.unwrap();
    client.close().await;
    let reader = login("reader", "longer secret 16", Privilege::User);
    Client::open(peer.address, &reader, &[Suite::Sha1], brisk()).await.unwrap().close().await;
    let before = login("reader", "secret", Privilege::User);
    let refused = Client::open(peer.address, &before, &[Suite::Sha1], brisk()).await;
    assert!(matches!(refused, Err(IpmiError::Login { source: LoginError::PasswordWrong, .. })), "{refused:?}");
}

/// A serial line whose other end sends everything back; its port.
fn echo() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    port
}

/// Writes to the console and reads until all of it came back.
async fn echoes(console: &mut Console, text: &[u8]) {
    let heard = async {
        console.write(text).await.unwrap();
        let mut heard = Vec::new();
        while heard.len() < text.len() {
            heard.extend(console.read().await.unwrap());
        }
        heard
    };
    let heard = tokio::time::timeout(Duration::from_secs(20), heard).await.expect("the echo comes");
    assert_eq!(String::from_utf8_lossy(&heard), String::from_utf8_lossy(text));
}

#[tokio::test]
async fn a_serial_console_carries_characters_both_ways() {
    let line = format!("  sol \"tcp:127.0.0.1:{}\" 115200\n", echo());
    let Some(peer) = ipmi_sim_with("sim-sol", 19_635, &line, "") else { return };
    let mut console = open(&peer, &[Suite::Sha1]).await.console(false).await.unwrap();
    echoes(&mut console, b"x").await;
    // Many packets of the 28 characters that it takes, and more than its fifteen numbers.
    let long: Vec<u8> = (0..2_000u32).map(|n| b'a' + u8::try_from(n % 26).unwrap()).collect();
    echoes(&mut console, &long).await;

    // Somebody else has it: a plain error, and on demand it is taken over.
    let busy = open(&peer, &[Suite::Sha1]).await.console(false).await;
    assert!(matches!(busy, Err(IpmiError::Console { source: ConsoleError::Busy, .. })), "{busy:?}");
    let mut mine = open(&peer, &[Suite::Sha1]).await.console(true).await.unwrap();
    echoes(&mut mine, b"taken over").await;
    mine.close().await;
    // The simulator does not tell the one that lost it: what that one writes is never taken.
    let robbed = console.write(b"lost").await;
    assert!(matches!(robbed, Err(IpmiError::Console { source: ConsoleError::Stalled, .. })), "{robbed:?}");
    console.close().await;

    // Given back: opened again without take-over.
    let mut again = open(&peer, &[Suite::Sha1]).await.console(false).await.unwrap();
    echoes(&mut again, b"again").await;
    again.close().await;
}

#[tokio::test]
async fn a_bmc_without_console_log_or_sensors_says_so() {
    // The released goipmi-server has no serial over LAN and no event log, and a repository of one record of no sensor.
    let Some(peer) = goipmi("go-less", 19_636, "17") else { return };
    let mut client = open(&peer, &[Suite::Sha256]).await;
    let log = client.event_log(&[]).await;
    assert!(matches!(log, Err(IpmiError::Refused { code: 0xc1, .. })), "{log:?}");
    let records = client.sensor_records().await.unwrap();
    assert_eq!((records.sensors.len(), records.complete), (0, true));
    let console = client.console(false).await;
    assert!(matches!(console, Err(IpmiError::Refused { code: 0xc1, .. })), "{console:?}");
}

#[tokio::test]
async fn nobody_there_is_silence_within_its_time() {
    let begun = Instant::now();
    let patience = Patience { retry: Duration::from_millis(200), tries: 3 };
    let nobody = Client::open(([127, 0, 0, 1], 9).into(), &admin(), &Suite::PREFERENCE, patience).await;
    assert!(matches!(nobody, Err(IpmiError::Silent { stage: "capabilities", tries: 3, .. })), "{nobody:?}");
    assert!(begun.elapsed() < Duration::from_secs(3));
}
