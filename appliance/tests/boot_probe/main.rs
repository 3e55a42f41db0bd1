//! The probe of a boot link against servers of others, with each fault made for real.
//!
//! Needs root and the peers (tests/peers/install-boot), announced by `RACKMEDIC_PEERS`. Without them each test says that it
//! was not run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "tests")]

mod link;

use link::{Link, Report};

/// Boot options as a site with iPXE has them: by architecture, over TFTP and HTTP.
const BY_ARCHITECTURE: [&str; 8] = [
    "--dhcp-match=set:x64,option:client-arch,7",
    "--dhcp-match=set:x64http,option:client-arch,16",
    "--dhcp-match=set:arm,option:client-arch,11",
    "--dhcp-boot=tag:x64,x64.efi",
    "--dhcp-boot=tag:arm,arm.efi",
    "--dhcp-boot=tag:x64http,http://10.82.0.2:8080/x64.efi",
    "--dhcp-option-force=tag:x64http,60,HTTPClient",
    "--dhcp-boot=tag:!x64,tag:!arm,tag:!x64http,bios.0",
];

fn link() -> Option<Link> {
    Link::make()
}

#[test]
fn a_link_that_boots_everybody_is_read_as_such_and_no_address_is_taken() {
    let Some(mut link) = link() else { return };
    link.file("x64.efi", 300_000);
    link.file("arm.efi", 2_000);
    link.file("bios.0", 70_000);
    link.dnsmasq(&BY_ARCHITECTURE);
    let report = link.probe(&[]);
    let bios = report.client("bios-pxe");
    assert_eq!(bios["fetched"]["outcome"], "there", "{report:?}");
    assert_eq!(bios["fetched"]["bytes"], 70_000);
    assert_eq!(report.client("x64-pxe")["fetched"]["bytes"], 300_000);
    assert_eq!(report.client("arm64-pxe")["fetched"]["bytes"], 2_000);
    assert!(report.client("x64-pxe")["answers"][0]["after_ms"].as_u64().unwrap() < 2000);
    assert_eq!(report.client("plain")["answers"][0]["server"], "10.82.0.2");
    // The HTTP server that its offer names is not there.
    assert_eq!(report.faults(), ["next-server-unreachable"]);
    assert!(report.sentence("next-server-unreachable").contains("x64.efi"), "{report:?}");
    assert_eq!(report.exit, 1);
    assert_eq!(link.leases(), "", "the probe took an address");
}

#[test]
fn two_servers_that_give_addresses_are_both_named() {
    let Some(mut link) = link() else { return };
    link.dnsmasq(&[]);
    link.kea();
    let report = link.probe(&[]);
    assert_eq!(report.faults(), ["rogue-server"]);
    let sentence = report.sentence("rogue-server");
    assert!(sentence.contains("10.82.0.2 (") && sentence.contains("10.82.0.3 ("), "{sentence}");
}

#[test]
fn a_stray_option_60_is_followed_to_the_dead_port_it_sends_uefi_to() {
    let Some(mut link) = link() else { return };
    link.dnsmasq(&["--dhcp-option-force=60,PXEClient"]);
    let report = link.probe(&[]);
    assert_eq!(report.faults(), ["dead-port-4011", "stray-option-60"], "{report:?}");
    assert_eq!(report.client("x64-pxe")["boot_server"]["outcome"], "closed");
    assert!(report.sentence("stray-option-60").contains("10.82.0.2"));
}

#[test]
fn a_proxy_beside_a_plain_server_is_asked_on_port_4011_and_its_file_looked_for() {
    let Some(mut link) = link() else { return };
    link.file("menu.0", 4_000);
    link.kea();
    link.dnsmasq_as_proxy(&["--pxe-service=X86-64_EFI,Boot,menu.0", "--pxe-service=BC_EFI,Boot,menu.0"]);
    let report = link.probe(&[]);
    let client = report.client("x64-pxe");
    assert_eq!(client["boot_server"]["outcome"], "answered", "{report:?}");
    assert_eq!(client["boot_server"]["answer"]["file"], "menu.0", "{report:?}");
    assert_eq!(client["fetched"]["outcome"], "there", "{report:?}");
    assert!(!report.faults().contains(&"rogue-server"), "{report:?}");
}

#[test]
fn a_file_that_is_not_there_and_a_server_that_is_not_there_are_told_apart() {
    let Some(mut link) = link() else { return };
    link.file("other", 1);
    link.dnsmasq(&["--dhcp-boot=nothing-here.0"]);
    let report = link.probe(&[]);
    assert_eq!(report.faults(), ["file-missing"]);
    assert!(report.sentence("file-missing").contains("nothing-here.0"));
    drop(link);

    let Some(mut link) = Link::make() else { return };
    link.dnsmasq(&["--dhcp-boot=loader.0,elsewhere,10.82.0.77"]);
    let report = link.probe(&[]);
    assert_eq!(report.faults(), ["next-server-unreachable"]);
    assert!(report.sentence("next-server-unreachable").contains("10.82.0.77"));
}

#[test]
fn a_silent_link_is_a_fault_of_its_own() {
    let Some(link) = link() else { return };
    let report = link.probe(&["--wait-s", "1"]);
    assert_eq!(report.faults(), ["no-offer"]);
    assert_eq!(report.exit, 1);
}

#[test]
fn an_offer_that_comes_too_late_for_ipxe_is_named() {
    let Some(mut link) = link() else { return };
    // dnsmasq pings an address for three seconds before it offers it.
    link.dnsmasq_that_pings();
    let report = link.probe(&["--wait-s", "8"]);
    assert_eq!(report.faults(), ["slow-offer"], "{report:?}");
    assert!(report.client("plain")["answers"][0]["after_ms"].as_u64().unwrap() > 2000);
}

#[test]
fn a_server_behind_a_relay_is_seen_through_it() {
    let Some(mut link) = link() else { return };
    link.relay_to_kea();
    let report = link.probe(&[]);
    let answer = &report.client("plain")["answers"][0];
    assert_eq!(answer["relay"], "10.82.0.2", "{report:?}");
    assert_eq!(answer["server"], "10.82.1.3");
    assert!(report.faults().is_empty(), "{report:?}");
    assert_eq!(report.exit, 0);
}

#[test]
fn without_the_right_to_raw_frames_it_says_what_it_needs() {
    let Some(link) = link() else { return };
    let (exit, said) = link.probe_without_rights();
    assert_eq!(exit, 1, "{said}");
    assert!(said.contains("CAP_NET_RAW") && said.contains("nothing was sent"), "{said}");
}

/// The table for people names what the JSON names.
#[test]
fn the_mtu_is_that_of_the_network_that_is_asked_and_not_of_one_that_has_an_interface_of_the_same_name() {
    let Some(mut link) = link() else { return };
    // Given a link of 1,400 bytes in a network of its own, while /sys shows another network, whose eth0 has another MTU or is none
    link.mtu(1400);
    link.dnsmasq(&["--dhcp-option-force=26,1400"]);
    let report = link.probe(&["--offers-only"]);
    assert_eq!(report.json["interface"]["mtu"], 1400);
    assert_eq!(report.faults(), Vec::<&str>::new(), "{}", report.json);
    // And a server that says something else than the link has
    link.mtu(1300);
    let report = link.probe(&["--offers-only"]);
    assert!(report.faults().contains(&"mtu-differs"), "{}", report.json);
    assert!(report.sentence("mtu-differs").contains("eth0 here has 1300"), "{}", report.sentence("mtu-differs"));
}

#[test]
fn the_table_has_the_clients_the_servers_and_the_sentences() {
    let Some(mut link) = link() else { return };
    link.dnsmasq(&["--dhcp-option-force=60,PXEClient"]);
    let page = link.probe_table();
    for words in ["plain DHCP", "arm64 UEFI HTTP", "10.82.0.2", "fault: stray-option-60", "fault: dead-port-4011"] {
        assert!(page.contains(words), "no '{words}' in:\n{page}");
    }
}

#[test]
fn a_report_is_one_json_value_with_the_card_that_was_played() {
    let Some(mut link) = link() else { return };
    link.dnsmasq(&[]);
    let report: Report = link.probe(&["--mac", "02:00:5e:82:00:01", "--offers-only"]);
    assert_eq!(report.json["mac"], "02:00:5e:82:00:01");
    assert_eq!(report.json["clients"].as_array().unwrap().len(), 7);
}
