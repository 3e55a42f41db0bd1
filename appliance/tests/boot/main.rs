//! Real firmware boots through the boot servers, and the installer writes a real virtual disk.
//!
//! Needs root, the peers (tests/peers/install-boot) and the installer's program (images/build-installer), named by
//! `RACKMEDIC_PEERS` and `RACKMEDIC_INSTALLER`. Without them each test says that it was not run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "tests")]

mod harm;
mod host;
mod ladder;
mod media;
mod neighbours;
mod network;
mod node;

mod relay;
mod run_to_end;
mod shim;
mod store;
mod strangers;
mod sushy;
mod tamper;
mod wire;

use host::{Disk, Firmware, Host};
use network::{Beside, Network};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use store::Store;

/// One machine is emulated at a time for each core but one; a slow one is not to fail another's deadlines.
static PLACES: Mutex<()> = Mutex::new(());

fn place() -> MutexGuard<'static, ()> {
    PLACES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn store() -> Option<&'static Store> {
    static STORE: OnceLock<Option<Store>> = OnceLock::new();
    STORE.get_or_init(Store::make).as_ref()
}

/// Beside a server that speaks of booting itself iPXE takes the first whole offer: a race, and the next
/// start of the host is another one. The ladder of methods starts it again as often as here.
fn install_beside_one_that_speaks_of_booting(firmware: Firmware) {
    let Some(store) = store() else { return };
    let beside = Beside::DhcpWithBootOptions;
    let _place = place();
    let network = Network::make(beside);
    let appliance = network.serve(store, firmware);
    appliance.arm("job", "DISK1", &[]);
    let mut host = Host::start(&network, firmware, store, &[Disk::empty("DISK1")]);
    let mut before = 0;
    for start in 1..=3 {
        if start > 1 {
            host.power_cycle(&[0]);
        }
        let (installed, flight) = appliance.installed_within("job", Duration::from_secs(60));
        if !installed {
            before = flight.count("discover");
            continue;
        }
        host.holds(store);
        let begun = flight.seconds_of_number("discover", before).expect("a DISCOVER is in the timeline");
        let hello = flight.seconds_of("hello").expect("hello") - begun;
        let end = flight.last_seconds() - begun;
        eprintln!("| {firmware:?} | {beside:?} | {hello:.1} s | {end:.1} s | start {start} |");
        return;
    }
    panic!("not installed in three starts:\n{}", appliance.timeline("job"));
}

/// The whole matrix and the longest stories take more time than the ordinary run has: `tests/run --long` has it.
fn is_long_run() -> bool {
    let long = std::env::var_os("RACKMEDIC_LONG").is_some();
    if !long {
        eprintln!("not run without RACKMEDIC_LONG=1");
    }
    long
}

/// From the first DISCOVER to hello, and to the end, seconds.
fn install(firmware: Firmware, beside: Beside) -> Option<(f64, f64)> {
    let store = store()?;
    let _place = place();
    let network = Network::make(beside);
    let appliance = network.serve(store, firmware);
    appliance.arm("job", "DISK1", &[]);
    let host = Host::start(&network, firmware, store, &[Disk::empty("DISK1")]);
    let flight = appliance.wait_for(&host, "job", "installed", Duration::from_secs(240));
    host.holds(store);
    let seconds = |event: &str| flight.seconds_of(event);
    let begun = seconds("discover").expect("a DISCOVER is in the timeline");
    let times = (seconds("hello").expect("hello") - begun, flight.last_seconds() - begun);
    eprintln!("| {firmware:?} | {beside:?} | {:.1} s | {:.1} s |", times.0, times.1);
    Some(times)
}

#[test]
fn bios_installs_with_us_as_the_only_server() {
    install(Firmware::Bios, Beside::Nobody);
}

#[test]
fn bios_installs_beside_another_dhcp_server() {
    if !is_long_run() {
        return;
    }
    install(Firmware::Bios, Beside::PlainDhcp);
}

#[test]
fn bios_installs_beside_a_dhcp_server_that_speaks_of_booting() {
    install_beside_one_that_speaks_of_booting(Firmware::Bios);
}

#[test]
fn bios_installs_behind_a_relay() {
    if !is_long_run() {
        return;
    }
    install(Firmware::Bios, Beside::Relay);
}

#[test]
fn uefi_installs_by_pxe_with_us_as_the_only_server() {
    if !is_long_run() {
        return;
    }
    install(Firmware::UefiPxe, Beside::Nobody);
}

#[test]
fn uefi_installs_by_pxe_beside_another_dhcp_server() {
    install(Firmware::UefiPxe, Beside::PlainDhcp);
}

#[test]
fn uefi_installs_by_pxe_beside_a_dhcp_server_that_speaks_of_booting() {
    if !is_long_run() {
        return;
    }
    install_beside_one_that_speaks_of_booting(Firmware::UefiPxe);
}

#[test]
fn uefi_installs_by_pxe_behind_a_relay() {
    if !is_long_run() {
        return;
    }
    install(Firmware::UefiPxe, Beside::Relay);
}

#[test]
fn uefi_installs_by_http_with_us_as_the_only_server() {
    install(Firmware::UefiHttp, Beside::Nobody);
}

#[test]
fn uefi_installs_by_http_beside_another_dhcp_server() {
    if !is_long_run() {
        return;
    }
    install(Firmware::UefiHttp, Beside::PlainDhcp);
}

#[test]
fn uefi_installs_by_http_beside_a_dhcp_server_that_speaks_of_booting() {
    if !is_long_run() {
        return;
    }
    install_beside_one_that_speaks_of_booting(Firmware::UefiHttp);
}

#[test]
fn uefi_installs_by_http_behind_a_relay() {
    if !is_long_run() {
        return;
    }
    install(Firmware::UefiHttp, Beside::Relay);
}
