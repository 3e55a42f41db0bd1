//! Our IPMI client against servers that nobody here wrote: OpenIPMI's `ipmi_sim` (suite 3) and go-ipmi's
//! `goipmi-server` (suites 3 and 17). `tests/peers/install` gets them; `RACKMEDIC_PEERS` names the folder. Without it, or
//! outside a network namespace of its own for the one that listens on all addresses, a test says so and is not run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use bmc::Secret;
use bmc::boot::{BootDevice, BootLasts, BootMode};
use bmc::ipmi::boot_options::DiskSelector;
use bmc::ipmi::client::{Client, IpmiError, Patience};
use bmc::ipmi::command::Control;
use bmc::ipmi::crypto::Suite;
use bmc::ipmi::handshake::{Login, LoginError, Privilege};
use std::net::SocketAddr;
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

/// OpenIPMI's simulator; its chassis is a file that a hook of ours reads and writes.
fn ipmi_sim(name: &str, port: u16) -> Option<Peer> {
    peers()?;
    let folder = folder(name);
    let lan = format!(
        "name \"heal1\"\nset_working_mc 0x20\n  startlan 1\n    addr 127.0.0.1 {port}\n    priv_limit admin\n    \
         allowed_auths_user none md2 md5 straight\n    allowed_auths_operator none md2 md5 straight\n    \
         allowed_auths_admin none md2 md5 straight\n    guid a123456789abcdefa123456789abcdef\n  endlan\n  \
         chassis_control \"./chassis.sh 0x20\"\n  user 2 true \"admin\" \"secret\" admin 10 none md2 md5 straight\n  \
         user 3 true \"reader\" \"secret\" user 10 none md2 md5 straight\n"
    );
    let emulator = "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\n\
                    sel_enable 0x20 1000 0x0a\nmc_enable 0x20\n";
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
        let set = client.boot_override(disk).await.unwrap();
        assert_eq!((set.device, set.lasts, set.mode), (Some(device), BootLasts::Once, Some(BootMode::Uefi)));
    }
    let http = client.set_boot_once(&BootDevice::Http { uri: None }, BootMode::Uefi, disk).await;
    assert!(matches!(http, Err(IpmiError::BootDevice { .. })), "{http:?}");
    client.close().await;

    let Some(peer) = ipmi_sim("sim-boot", 19_629) else { return };
    let mut client = open(&peer, &[Suite::Sha1]).await;
    client.set_boot_once(&BootDevice::Pxe, BootMode::Uefi, DiskSelector::Standard).await.unwrap();
    let set = client.boot_override(DiskSelector::Standard).await.unwrap();
    assert_eq!((set.device, set.lasts, &set.word[..]), (None, BootLasts::Disabled, "PXE (not valid)"));
    client.close().await;
}

#[tokio::test]
async fn nobody_there_is_silence_within_its_time() {
    let begun = Instant::now();
    let patience = Patience { retry: Duration::from_millis(200), tries: 3 };
    let nobody = Client::open(([127, 0, 0, 1], 9).into(), &admin(), &Suite::PREFERENCE, patience).await;
    assert!(matches!(nobody, Err(IpmiError::Silent { stage: "capabilities", tries: 3, .. })), "{nobody:?}");
    assert!(begun.elapsed() < Duration::from_secs(3));
}
