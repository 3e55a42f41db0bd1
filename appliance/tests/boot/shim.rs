//! shim and GRUB, as the distribution signed them, are the first loader: what Secure Boot asks for.

use crate::host::{Disk, Firmware, Host};
use crate::network::{Appliance, Beside, Network};
use crate::{install, is_long_run, place, store};
use serde_json::Value;
use std::time::{Duration, Instant};

/// What is optional is answered about: each question that is not costs about half a minute, and there are seven.
const SECONDS_TO_HELLO: f64 = 120.0;

/// In the usual run the story with Secure Boot on tells the same.
#[test]
fn shim_and_grub_bring_the_installer() {
    if !is_long_run() {
        return;
    }
    let Some((hello, _)) = install(Firmware::UefiShim, Beside::Nobody) else { return };
    assert!(hello < SECONDS_TO_HELLO, "{hello} s from DISCOVER to hello");
}

#[test]
fn shim_and_grub_bring_the_installer_beside_a_dhcp_server_that_names_us() {
    if !is_long_run() {
        return;
    }
    // GRUB asks the server that acknowledged its address, or whom that one names.
    install(Firmware::UefiShim, Beside::DhcpThatNamesUs);
}

#[test]
fn shim_and_grub_bring_the_installer_behind_a_relay() {
    if !is_long_run() {
        return;
    }
    install(Firmware::UefiShim, Beside::Relay);
}

/// curl's exit codes for a file that came, no answer within the time, and TFTP's error 1.
const CAME: i32 = 0;
const SILENCE: i32 = 28;
const NOT_THERE: i32 = 68;

#[test]
fn grubs_names_are_answered_to_the_hosts_own_card_and_to_nobody_else() {
    let Some(store) = store() else { return };
    let _place = place();
    // Given an armed host whose first loader is shim, and a neighbour that has read its token
    let network = Network::make(Beside::Nobody);
    let appliance = network.serve(store, Firmware::UefiShim);
    appliance.arm("job", "DISK1", &[]);
    wait_for(&appliance, "armed");
    let with_token = format!("t/{}/revocations_sku.efi", network.job("job")["token"].as_str().unwrap());
    let optional = ["grub/x86_64-efi/command.lst", &with_token];

    // When the neighbour asks from an address of its own, nothing leaves our card
    let capture = network.capture_what_we_say();
    for path in ["grub/grub.cfg", optional[0], optional[1]] {
        assert_eq!(network.neighbour_asks_by_tftp(path), SILENCE, "{path}");
    }
    assert_eq!(capture.stop(), Vec::<String>::new(), "packets of ours");

    // When the host's card asks from the host's address, it hears what GRUB and shim have to hear, and no more
    network.neighbour_becomes("10.77.0.50/24");
    assert_eq!(network.neighbour_asks_by_tftp("grub/grub.cfg"), CAME);
    for path in optional {
        assert_eq!(network.neighbour_asks_by_tftp(path), NOT_THERE, "{path}");
    }
    for path in ["grub.cfg", "boot.ipxe", "pxelinux.cfg/default"] {
        assert_eq!(network.neighbour_asks_by_tftp(path), SILENCE, "{path}");
    }

    // And when its job is closed, nothing again
    appliance.disarm("job");
    wait_for(&appliance, "closed");
    let capture = network.capture_what_we_say();
    for path in ["grub/grub.cfg", optional[0], optional[1]] {
        assert_eq!(network.neighbour_asks_by_tftp(path), SILENCE, "{path}");
    }
    assert_eq!(capture.stop(), Vec::<String>::new(), "packets of ours");
}

/// Until the timeline has this event.
fn wait_for(appliance: &Appliance, event: &str) {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let shown = appliance.show("job");
        if shown["moments"].as_array().unwrap().iter().any(|moment| moment["event"] == event) {
            return;
        }
        assert!(Instant::now() < until, "no {event}: {shown}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The file names of a kind of event, in their order.
fn files(shown: &Value, event: &str) -> Vec<String> {
    let moments = shown["moments"].as_array().unwrap().iter().filter(|moment| moment["event"] == event);
    moments.map(|moment| moment["file"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn with_secure_boot_on_shim_and_grub_bring_the_installer_and_ipxe_does_not_start() {
    let Some(store) = store() else { return };
    let _place = place();
    // Given a host with Secure Boot on whose first loader was left to be iPXE
    let network = Network::make(Beside::Nobody);
    let appliance = network.serve(store, Firmware::UefiPxe);
    appliance.arm("unsigned", "DISK1", &[]);
    let mut host = Host::start(&network, Firmware::UefiSecureBoot, store, &[Disk::empty("DISK1")]);
    // Then it fetches it and does not start it
    host.wait_for_words("Access Denied", Duration::from_secs(120));
    assert!(files(&appliance.show("unsigned"), "file-began").iter().all(|file| file == "snponly.efi"));
    appliance.disarm("unsigned");
    host.power_off();
    drop((appliance, host));

    // When its first loader is shim
    let appliance = network.serve(store, Firmware::UefiSecureBoot);
    appliance.arm("signed", "DISK1", &[]);
    let mut host = Host::start(&network, Firmware::UefiSecureBoot, store, &[Disk::empty("DISK1")]);
    let flight = appliance.wait_for(&host, "signed", "installed", Duration::from_secs(240));
    // Then shim, GRUB, kernel and installer are believed one by the other, and the disk is written
    host.holds(store);
    let begun = flight.seconds_of("discover").expect("a DISCOVER is in the timeline");
    let hello = flight.seconds_of("hello").expect("hello") - begun;
    let end = flight.last_seconds() - begun;
    eprintln!("| {:?} | {:?} | {hello:.1} s | {end:.1} s |", Firmware::UefiSecureBoot, Beside::Nobody);
    let shown = appliance.show("signed");
    let chain = ["shimx64.efi", "grubx64.efi", "grub.cfg", "vmlinuz", "initrd.img"];
    assert_eq!(files(&shown, "file-ended")[..chain.len()], chain);
    let not_there = files(&shown, "file-not-there");
    assert!(not_there.iter().any(|file| file.ends_with(".lst")), "{not_there:?}");

    // And when it asks the network once more it is answered nothing, so that its firmware goes on to the next entry
    let given = files(&shown, "file-began").len();
    host.power_cycle(&[0]);
    host.wait_for_words("BdsDxe: failed to load Boot0001", Duration::from_secs(120));
    host.wait_for_words("Start PXE over IPv6", Duration::from_secs(60));
    assert_eq!(files(&appliance.show("signed"), "file-began").len(), given);
}
