//! From the network boot to a written disk, and what stops it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use machine::{
    BmcFault, BmcRequest, BootAnswer, BootClass, BootOverride, Cure, Disk, DiskName, Fault, InstallStage,
    InstallTrouble, Machine, Spec, Ticket,
};
use support::{MINUTE, cycle, host, off, to_the_network};

fn ticket(disk: &str) -> BootAnswer {
    BootAnswer::Ticket(Ticket { job: 9, disk: Some(disk.to_owned()), foreign_data_approved: false, proves: false })
}

#[test]
fn a_broken_system_survives_power_cycles_and_ends_with_a_new_image() {
    let mut host = host();
    host.inject(0, Fault::OsBroken { kernel_dies: true });
    let at = cycle(&mut host, 1_000);
    assert!(!host.truth().kernel_ok);
    let at = to_the_network(&mut host, at);
    let ask = host.boot_ask().expect("it asks the network");
    assert!(ask.before_disk && ask.class == BootClass::Pxe && ask.mac == host.spec().macs[0]);
    host.serve_boot(at, Some(9));
    host.advance(at + 15 * MINUTE);
    assert_eq!(host.installing(), Some((9, InstallStage::Done)));
    assert_eq!(host.disk_writes(), 1);
    assert_eq!(host.truth().cure, Cure::PowerCycle, "it waits for the power cycle");
    cycle(&mut host, at + 15 * MINUTE);
    assert!(host.truth().healthy);
}

#[test]
fn an_install_tells_its_stages_and_its_progress_in_order() {
    let mut host = host();
    let at = to_the_network(&mut host, 0);
    host.serve_boot(at, Some(9));
    assert!(!host.answers().icmp, "it has not spoken yet");
    let mut stages = Vec::new();
    let mut last = (0, at);
    while let Some(next) = host.next_change_at() {
        let middle = host.now() + (next - host.now()) / 2;
        host.advance(middle);
        let progress = host.install_progress().expect("an install");
        assert!(progress.written_percent >= last.0 && progress.stage_at >= last.1);
        last = (progress.written_percent, progress.stage_at);
        stages.push(progress.stage);
        host.advance(next);
    }
    assert_eq!(stages, [InstallStage::Starting, InstallStage::Writing, InstallStage::Verifying]);
    assert_eq!(host.install_progress().map(|p| (p.stage, p.written_percent)), Some((InstallStage::Done, 100)));
    assert!(host.answers().icmp && host.answers().kubelet_port == Some(false));
}

#[test]
fn silence_from_the_network_lets_an_ordered_boot_fall_back_to_the_disk() {
    let mut host = host();
    let at = to_the_network(&mut host, 0);
    host.serve_boot(at, None);
    host.advance(at + 10 * MINUTE);
    assert!(host.truth().healthy);
    assert_eq!(host.disk_writes_begun(), 0);
}

#[test]
fn a_network_that_nobody_serves_is_given_up_after_a_while() {
    let mut host = host();
    let at = to_the_network(&mut host, 0);
    host.advance(at + host.spec().network_boot_wait_ms - 1);
    assert!(host.boot_ask().is_some());
    host.advance(at + 10 * MINUTE);
    assert!(host.boot_ask().is_none() && host.truth().healthy);
}

#[test]
fn a_machine_with_nothing_on_its_disk_asks_unordered_and_goes_on_asking() {
    let mut host = host();
    host.inject(0, Fault::NoLocalBoot);
    host.advance(60 * MINUTE);
    assert!(!host.boot_ask().expect("it asks").before_disk);
    host.serve_boot(60 * MINUTE, None);
    assert!(host.boot_ask().is_some());
}

#[test]
fn a_machine_without_a_working_card_cannot_be_heard_asking() {
    let mut host = host();
    host.inject(0, Fault::NicDead);
    host.inject(0, Fault::NoLocalBoot);
    host.advance(60 * MINUTE);
    assert!(host.boot_ask().is_none());
    host.serve_boot(60 * MINUTE, Some(1));
    assert!(host.installing().is_none());
}

#[test]
fn foreign_data_stops_the_installer_before_it_writes_until_a_person_approves() {
    let mut host = host();
    host.inject(0, Fault::ForeignData);
    let at = to_the_network(&mut host, 0);
    host.serve_boot(at, Some(1));
    host.advance(at + 15 * MINUTE);
    assert_eq!(host.installing(), Some((1, InstallStage::ForeignData)));
    assert_eq!((host.disk_writes_begun(), host.disk()), (0, Disk::Image(0)));
    let at = to_the_network(&mut host, at + 15 * MINUTE);
    host.serve_boot(at, BootAnswer::Ticket(Ticket { job: 2, disk: None, foreign_data_approved: true, proves: false }));
    host.advance(at + 15 * MINUTE);
    assert_eq!(host.installing(), Some((2, InstallStage::Done)));
}

#[test]
fn a_named_disk_that_is_absent_or_there_twice_is_not_written() {
    let twin = DiskName { serial: "disk-0".to_owned(), wwn: 2 };
    let twice = Machine::new(Spec { data_disks: vec![twin], ..Spec::default() }, 1);
    let mut swapped = host();
    swapped.inject(0, Fault::DiskSwapped);
    swapped.advance(10 * MINUTE);
    for mut host in [twice, swapped] {
        let at = to_the_network(&mut host, 10 * MINUTE);
        host.serve_boot(at, ticket("disk-0"));
        host.advance(at + 15 * MINUTE);
        assert_eq!(host.installing(), Some((9, InstallStage::NoDisk)));
        assert_eq!(host.disk_writes_begun(), 0);
        assert!(host.data_disks().iter().all(|d| d.writes_begun == 0));
    }
}

#[test]
fn an_install_on_a_data_disk_is_told_by_the_truth() {
    let data = DiskName { serial: "data-1".to_owned(), wwn: 2 };
    let mut host = Machine::new(Spec { data_disks: vec![data], ..Spec::default() }, 1);
    let at = to_the_network(&mut host, 0);
    host.serve_boot(at, ticket("data-1"));
    host.advance(at + 15 * MINUTE);
    assert_eq!((host.data_disks()[0].writes_begun, host.disk_writes_begun()), (1, 0));
}

#[test]
fn power_cut_while_writing_leaves_neither_the_old_system_nor_the_new() {
    let mut host = host();
    let at = to_the_network(&mut host, 0);
    host.serve_boot(at, Some(1));
    while host.installing().map(|i| i.1) != Some(InstallStage::Writing) {
        host.advance(host.next_change_at().unwrap());
    }
    let now = host.now();
    cycle(&mut host, now);
    assert_eq!((host.disk(), host.disk_writes(), host.disk_writes_begun()), (Disk::Partial, 0, 1));
    assert!(!host.truth().kernel_ok && host.boot_ask().is_some());
    assert!(host.power_ledger().recent[1].writing);
}

#[test]
fn each_way_to_fail_ends_told_and_the_next_install_succeeds() {
    let troubles = [
        (InstallTrouble::BadManifest, Disk::Image(0)),
        (InstallTrouble::Truncated, Disk::Partial),
        (InstallTrouble::WriteError, Disk::Partial),
        (InstallTrouble::WrongDigest, Disk::Partial),
    ];
    for (trouble, disk) in troubles {
        let mut host = host();
        host.inject(0, Fault::Install(trouble));
        let at = to_the_network(&mut host, 0);
        host.serve_boot(at, Some(1));
        host.advance(at + 15 * MINUTE);
        assert_eq!(host.installing(), Some((1, InstallStage::Failed(trouble))));
        assert_eq!((host.disk(), host.disk_writes()), (disk, 0));
        let at = to_the_network(&mut host, at + 15 * MINUTE);
        host.serve_boot(at, Some(2));
        host.advance(at + 15 * MINUTE);
        assert_eq!(host.installing(), Some((2, InstallStage::Done)));
    }
}

#[test]
fn an_installer_whose_card_dies_stands_where_it_is() {
    let mut host = host();
    let at = to_the_network(&mut host, 0);
    host.serve_boot(at, Some(1));
    host.inject(at + 1_000, Fault::NicDead);
    host.advance(at + 60 * MINUTE);
    assert_eq!(host.installing(), Some((1, InstallStage::Starting)));
}

#[test]
fn the_virtual_drive_boots_the_installer_of_its_job() {
    let mut host = host();
    let at = off(&mut host, 0);
    host.bmc_request(at, BmcRequest::InsertMedia(5)).result.unwrap();
    host.bmc_request(at, BmcRequest::SetBootOnce(BootOverride::VirtualMediaOnce)).result.unwrap();
    host.bmc_request(at, BmcRequest::PowerOn).result.unwrap();
    host.advance(at + 20 * MINUTE);
    assert_eq!(host.installing(), Some((5, InstallStage::Done)));
    cycle(&mut host, at + 20 * MINUTE);
    assert!(host.truth().healthy, "the override was used up: it boots the new image");
}

#[test]
fn a_bmc_that_keeps_the_override_sends_each_boot_to_the_network() {
    let mut host = host();
    host.inject_bmc(0, BmcFault::KeepsBoot);
    let at = to_the_network(&mut host, 0);
    host.serve_boot(at, None);
    host.advance(at + 10 * MINUTE);
    let at = off(&mut host, at + 10 * MINUTE);
    host.bmc_request(at, BmcRequest::PowerOn).result.unwrap();
    host.advance(at + 160_000);
    assert!(host.boot_ask().is_some_and(|ask| ask.before_disk));
}
