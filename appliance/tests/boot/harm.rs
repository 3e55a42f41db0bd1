//! The harm that is not done: hosts without a job hear nothing, wrong disks stay as they are, a kill changes nothing.
#![allow(clippy::print_stderr, reason = "tests")]

use crate::host::{DISK_BYTES, Disk, Firmware, Host};
use crate::network::{Beside, Network};
use crate::{place, store};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn a_host_without_a_job_hears_nothing_from_us() {
    let Some(store) = store() else { return };
    let _place = place();
    let network = Network::make(Beside::PlainDhcp);
    let _appliance = network.serve(store, Firmware::Bios);
    let capture = network.capture_what_we_say();
    let host = Host::start(&network, Firmware::Bios, store, &[Disk::empty("DISK1")]);
    // It has its address from the other server, found nothing to boot and has given up.
    host.wait_for_words("No more network devices", PATIENCE);
    let said = capture.stop();
    assert_eq!(said, Vec::<String>::new(), "packets of ours");
}

#[test]
fn a_host_whose_job_was_closed_hears_nothing_from_us() {
    let Some(store) = store() else { return };
    let _place = place();
    let network = Network::make(Beside::PlainDhcp);
    let appliance = network.serve(store, Firmware::Bios);
    appliance.arm("job", "DISK1", &[]);
    appliance.disarm("job");
    let capture = network.capture_what_we_say();
    let host = Host::start(&network, Firmware::Bios, store, &[Disk::empty("DISK1")]);
    host.wait_for_words("No more network devices", PATIENCE);
    assert_eq!(capture.stop(), Vec::<String>::new(), "packets of ours");
}

/// The newest event of a timeline, with the file or the stage that it is about.
fn newest(shown: &serde_json::Value) -> String {
    let moments = shown["moments"].as_array().cloned().unwrap_or_default();
    let Some(newest) = moments.last() else { return String::new() };
    let words = ["event", "file", "stage"].map(|field| newest[field].as_str().unwrap_or_default().to_owned());
    words.join(" ").trim().to_owned()
}

#[test]
fn killed_at_every_event_the_appliance_still_writes_the_disk_once() {
    let Some(store) = store() else { return };
    let _place = place();
    let network = Network::make(Beside::Nobody);
    let mut appliance = network.serve(store, Firmware::Bios);
    appliance.arm("job", "DISK1", &[]);
    let mut host = Host::start(&network, Firmware::Bios, store, &[Disk::empty("DISK1")]);
    let (mut kills, mut power_cycles) = (Vec::new(), 0);
    let until = Instant::now() + 4 * PATIENCE;
    loop {
        let shown = appliance.show("job");
        let state = shown["state"].as_str().unwrap().to_owned();
        if state == "installed" {
            break;
        }
        assert!(Instant::now() < until && state != "failed", "{shown}\n{}", host.said());
        // Each of them once: DISCOVER and OFFER, script, kernel and initramfs, hello, and every stage of the installer.
        let now = newest(&shown);
        if !now.is_empty() && now != "armed" && !kills.contains(&now) {
            appliance.kill_and_start_again();
            kills.push(now);
        }
        // A ROM that was left alone in the middle of a file gives up. The appliance then has its BMC start it again.
        if host.said().contains("No more network devices") {
            host.power_cycle(&[0]);
            power_cycles += 1;
        }
    }
    let flight = appliance.wait_for(&host, "job", "installed", PATIENCE);
    host.holds(store);
    assert_eq!(flight.count("hello"), 1, "welcomed once");
    assert_eq!(flight.count("written"), 1, "written once");
    eprintln!("killed at: {}; {power_cycles} power cycles", kills.join(", "));
    let of = |word: &str| kills.iter().filter(|kill| kill.contains(word)).count();
    assert!(of("stage") >= 3 && of("file") >= 1, "{kills:?}");
    assert!(of("discover") + of("offered") + of("acknowledged") >= 1, "{kills:?}");
}

/// What volume managers and clustered storage put on a disk: place and bytes.
const ZFS: &[(usize, &[u8])] = &[(0x2_1000, b"\x0c\xb1\xba\x00\0\0\0\0")];
const CEPH: &[(usize, &[u8])] = &[(0, b"bluestore block device")];
const LVM: &[(usize, &[u8])] = &[(512, b"LABELONE"), (536, b"LVM2 001")];

#[test]
fn data_disks_are_never_written_whatever_names_they_have_in_this_boot() {
    let Some(store) = store() else { return };
    let _place = place();
    // Given a host with its own disk between three others, full of data
    let network = Network::make(Beside::Nobody);
    let appliance = network.serve(store, Firmware::Bios);
    let disks = [
        Disk { serial: "ZFS1", marks: ZFS },
        Disk::empty("DISK1"),
        Disk { serial: "CEPH1", marks: CEPH },
        Disk { serial: "LVM1", marks: LVM },
    ];
    let mut host = Host::start(&network, Firmware::Bios, store, &disks);
    host.power_off();
    let data = [0, 2, 3];
    let before = data.map(|number| host.disk(number));
    // When it is reimaged three times, and its kernel gives the disks other names each time
    for (job, order) in [("vdb", [0, 1, 2, 3]), ("vda", [1, 3, 2, 0]), ("vdd", [3, 2, 0, 1])] {
        host.spoil_disk(1, 40 << 20, job.as_bytes());
        appliance.arm(job, "DISK1", &[]);
        host.power_cycle(&order);
        appliance.wait_for(&host, job, "installed", PATIENCE);
        // Then the data disks were not written once, by the count of the machine itself
        let writes = data.map(|number| host.writes(number));
        assert_eq!(writes, [0, 0, 0], "{job}");
        assert!(host.writes(1) > 0, "the count counts");
        host.power_off();
        appliance.disarm(job);
    }
    // And each byte of them is what it was
    assert!(before == data.map(|number| host.disk(number)), "a data disk was written");
}

#[test]
fn disks_that_cannot_be_told_apart_stay_as_they_are() {
    let Some(store) = store() else { return };
    let _place = place();
    let network = Network::make(Beside::Nobody);
    let appliance = network.serve(store, Firmware::Bios);
    appliance.arm("job", "SAME", &["--foreign-data-approved"]);
    let disks = [Disk::empty("SAME"), Disk::empty("SAME")];
    let host = Host::start(&network, Firmware::Bios, store, &disks);
    let flight = appliance.wait_for(&host, "job", "failed", PATIENCE);
    assert_eq!(flight.failure("code"), "many-disks");
    for number in 0..2 {
        assert!(host.disk(number).iter().all(|byte| *byte == 0), "disk {number} was written");
    }
}

#[test]
fn a_disk_with_data_of_others_stays_as_it_is_and_so_does_the_disk_beside() {
    let Some(store) = store() else { return };
    let _place = place();
    let network = Network::make(Beside::Nobody);
    let appliance = network.serve(store, Firmware::Bios);
    appliance.arm("job", "DISK1", &[]);
    let lvm: &[(usize, &[u8])] = &[(512, b"LABELONE"), (536, b"LVM2 001")];
    let ceph: &[(usize, &[u8])] = &[(0, b"bluestore block device")];
    let disks = [Disk { serial: "DATA", marks: ceph }, Disk { serial: "DISK1", marks: lvm }];
    let host = Host::start(&network, Firmware::Bios, store, &disks);
    let before = [host.disk(0), host.disk(1)];
    let flight = appliance.wait_for(&host, "job", "failed", PATIENCE);
    assert_eq!(flight.failure("code"), "foreign-data");
    assert!(flight.failure("sentence").contains("LVM2 physical volume"), "{}", flight.failure("sentence"));
    assert!(before == [host.disk(0), host.disk(1)], "a disk was written");
    // Approved by a person it is written, and the data disk beside it is not.
    drop(host);
    appliance.arm("again", "DISK1", &["--foreign-data-approved"]);
    let host = Host::start(&network, Firmware::Bios, store, &disks);
    appliance.wait_for(&host, "again", "installed", PATIENCE);
    assert!(host.disk(0) == before[0], "the data disk was written");
    assert!(host.disk(1) != before[1]);
}

#[test]
fn a_damaged_disk_is_mended_by_writing_what_differs() {
    let Some(store) = store() else { return };
    let _place = place();
    let network = Network::make(Beside::Nobody);
    let appliance = network.serve(store, Firmware::Bios);
    // The image as it stands on a host, but for one chunk of forty-four.
    let (begin, end) = store.image.split_at(20 << 20);
    let marks: &[(usize, &[u8])] = &[(0, begin), ((20 << 20) + 100, &end[100..])];
    let disks = [Disk { serial: "DISK1", marks }];
    appliance.arm("job", "DISK1", &["--mode", "differential"]);
    let host = Host::start(&network, Firmware::Bios, store, &disks);
    host.spoil(40 << 20, b"spoilt");
    let flight = appliance.wait_for(&host, "job", "installed", PATIENCE);
    host.holds(store);
    let count = flight.written();
    eprintln!("{count}");
    let differing = count["differing_chunks"].as_u64().unwrap();
    assert!((1..=3).contains(&differing), "{count}");
    assert!(count["written_bytes"].as_u64().unwrap() < DISK_BYTES / 10, "{count}");
}
