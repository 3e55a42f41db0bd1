//! The image for a virtual drive: who is given it, and that real firmware starts the installer from it.
#![allow(clippy::print_stderr, reason = "tests")]

use crate::host::{Disk, Firmware, Host};
use crate::network::{Beside, Network};
use crate::{is_long_run, place, store};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(90);
/// The BMC's address, in a namespace beside the host.
const BMC: &str = "10.77.0.2";

#[test]
fn the_image_is_given_to_the_bmc_of_an_open_job_whole_and_in_parts_and_to_nobody_else() {
    let Some(store) = store() else { return };
    let network = Network::make(Beside::Nobody);
    let mut appliance = network.serve(store, Firmware::Bios);
    network.neighbour_has_also("10.77.0.3");
    // Given a job with an image for the drive of the host behind this BMC
    let url = appliance.arm_for_media("job", "DISK1", BMC);
    assert!(url.starts_with("http://10.77.0.1:80/t/") && url.ends_with("/installer.iso"), "{url}");
    // When the BMC asks for it whole, by its head alone, and for its parts, as BMCs do
    let (status, whole) = network.bmc_asks(BMC, &url, &[]);
    assert_eq!(status, "200");
    assert_eq!(&whole[0x8001..0x8006], b"CD001", "it is a volume");
    let length = network.bmc_length(BMC, &url);
    assert_eq!(length, whole.len().to_string());
    for (range, from, to) in
        [("0-511", 0, 512), ("32768-34815", 32768, 34816), ("-2048", whole.len() - 2048, whole.len())]
    {
        let (status, part) = network.bmc_asks(BMC, &url, &["--range", range]);
        assert_eq!(status, "206", "{range}");
        assert!(part == whole[from..to], "{range}");
    }
    // Then it is the same to the byte, also by an appliance that was killed in between
    appliance.kill_and_start_again();
    assert!(network.bmc_asks(BMC, &url, &[]).1 == whole, "another image after a restart");
    // And neither another machine, nor another name, nor a token of another kind opens it
    let job = network.job("job");
    let token = |field: &str| job[field].as_str().unwrap().to_owned();
    let wrong = url.replace(&token("media_token"), &"0".repeat(32));
    let of_host = url.replace(&token("media_token"), &token("token"));
    let kernel = url.replace("installer.iso", "vmlinuz");
    for (address, url) in [("10.77.0.3", &url), (BMC, &wrong), (BMC, &of_host), (BMC, &kernel)] {
        let (status, got) = network.bmc_asks(address, url, &[]);
        assert_eq!(status, "404", "{address} {url}");
        assert!(got.len() < 1000, "{address} was given {} bytes", got.len());
    }
    let shown = appliance.show("job");
    assert!(shown["moments"].to_string().contains("other-reader"), "the stranger is in the timeline: {shown}");
    assert!(shown["moments"].to_string().contains("media-read"), "and the BMC: {shown}");
    assert!(!shown.to_string().contains(&token("media_token")), "and no secret");
    // And when the job is over, it is nobody's
    appliance.disarm("job");
    // Another process closed it: the boot servers read that within a second or so.
    let until = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        let (status, got) = network.bmc_asks(BMC, &url, &[]);
        if status == "404" && got.len() < 1000 {
            break;
        }
        assert!(std::time::Instant::now() < until, "still given: {status}");
    }
    // The reader of another project finds both ways to start from it
    let place = store.folder.join("inspected.iso");
    std::fs::write(&place, &whole).unwrap();
    let place = place.display().to_string();
    let output =
        std::process::Command::new("xorriso").args(["-indev", &place, "-report_el_torito", "plain"]).output().unwrap();
    let report = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(report.contains("BIOS  y") && report.contains("UEFI  y"), "{report}");
    assert_eq!(
        crate::store::run("bsdtar", &["-xOf", &place, "BOOT/GRUB/GRUB.CFG"]).matches("rackmedic.nonce=").count(),
        1
    );
}

/// From the power-on to hello by the CD alone. With us as the only server the host has an address in the configuration: not a
/// word of DHCP is said. Beside another server it has none, and its installer asks that one.
fn installs_from_cd(firmware: Firmware, beside: Beside) {
    let Some(store) = store() else { return };
    let _place = place();
    let network = Network::make(beside);
    let appliance = network.serve(store, firmware);
    let url = appliance.arm_for_media("job", "DISK1", BMC);
    let (status, image) = network.bmc_asks(BMC, &url, &[]);
    assert_eq!(status, "200");
    let cd = store.folder.join(format!("{}.iso", network.host_namespace));
    std::fs::write(&cd, &image).unwrap();
    let begun = std::time::Instant::now();
    let host = Host::from_cd(&network, firmware, store, &[Disk::empty("DISK1")], &cd);
    appliance.wait_for_event(&host, "job", "hello", PATIENCE);
    let to_hello = begun.elapsed().as_secs_f64();
    let flight = appliance.wait_for(&host, "job", "installed", PATIENCE);
    host.holds(store);
    // Beside another server the installer asks that one for an address, as any system does; we only hear it.
    let asked = usize::from(beside == Beside::PlainDhcp);
    assert_eq!(flight.count("discover"), asked, "its address stands on the CD where it is known");
    assert_eq!(flight.count("offered"), 0, "we offered nothing");
    eprintln!(
        "| {firmware:?} | {beside:?} | virtual media | {to_hello:.1} s from power-on to hello | image {} MiB |",
        image.len() >> 20
    );
}

#[test]
fn a_bios_starts_the_installer_from_the_image() {
    installs_from_cd(Firmware::Bios, Beside::Nobody);
}

#[test]
fn a_uefi_starts_the_installer_from_the_image() {
    if !is_long_run() {
        return;
    }
    installs_from_cd(Firmware::UefiPxe, Beside::Nobody);
}

#[test]
fn a_bios_starts_the_installer_from_the_image_and_has_its_address_from_another_server() {
    if !is_long_run() {
        return;
    }
    installs_from_cd(Firmware::Bios, Beside::PlainDhcp);
}
