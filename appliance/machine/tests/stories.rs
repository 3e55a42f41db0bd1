//! What a machine does, fault by fault, and what holds for every sequence.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use machine::{
    At, BmcError, BmcFault, BmcReply, BmcRequest, Component, Failing, Fault, HardwareKind, InstallStage, Machine,
    OffCause, Power, Spec,
};
use proptest::prelude::*;

const MINUTE: At = 60_000;

fn host() -> Machine {
    Machine::new(Spec::default(), 7)
}

fn power(machine: &mut Machine, at: At) -> Power {
    match machine.bmc_request(at, BmcRequest::ReadPower).result {
        Ok(BmcReply::Power(read)) => read.power,
        other => panic!("no power reading: {other:?}"),
    }
}

/// Off, on, and time for a full boot.
fn cycle(machine: &mut Machine, at: At) -> At {
    machine.bmc_request(at, BmcRequest::ForceOff).result.unwrap();
    machine.advance(at + 10_000);
    assert_eq!(power(machine, at + 10_000), Power::Off);
    machine.bmc_request(at + 10_000, BmcRequest::PowerOn).result.unwrap();
    machine.advance(at + 10 * MINUTE);
    at + 10 * MINUTE
}

#[test]
fn a_stuck_kernel_is_silent_with_its_power_on_and_a_power_cycle_cures_it() {
    let mut host = host();
    let before = host.boot_id();
    host.inject(1_000, Fault::KernelStuck);
    assert!(!host.answers().icmp && host.answers().kubelet_port.is_none());
    assert_eq!(power(&mut host, 2_000), Power::On);
    cycle(&mut host, 3_000);
    assert!(host.truth().healthy);
    assert_ne!(host.boot_id(), before, "a new kernel has a new boot ID");
}

#[test]
fn dead_userspace_answers_pings_only() {
    let mut host = host();
    host.inject(0, Fault::UserspaceDead);
    let answers = host.answers();
    assert!(answers.icmp && answers.kubelet_port.is_none() && answers.second_port.is_none());
}

#[test]
fn off_takes_effect_after_a_while_and_not_at_once() {
    let mut host = host();
    host.bmc_request(0, BmcRequest::ForceOff).result.unwrap();
    assert_eq!(power(&mut host, 1), Power::GoingOff);
    assert_eq!(power(&mut host, 6_000), Power::Off);
}

#[test]
fn a_broken_system_survives_power_cycles_and_ends_with_a_new_image() {
    let mut host = host();
    host.inject(0, Fault::OsBroken { kernel_dies: true });
    let at = cycle(&mut host, 1_000);
    assert!(!host.truth().kernel_ok);
    host.bmc_request(at, BmcRequest::ForceOff).result.unwrap();
    host.advance(at + 10_000);
    host.bmc_request(at + 10_000, BmcRequest::SetNetworkBootOnce).result.unwrap();
    host.bmc_request(at + 10_001, BmcRequest::PowerOn).result.unwrap();
    host.advance(at + 5 * MINUTE);
    assert!(host.boot_ask().expect("it asks the network").ordered);
    host.serve_boot(at + 5 * MINUTE, Some(9));
    host.advance(at + 20 * MINUTE);
    assert_eq!(host.installing(), Some((9, InstallStage::Done)));
    assert_eq!(host.disk_writes(), 1);
    cycle(&mut host, at + 20 * MINUTE);
    assert!(host.truth().healthy);
}

#[test]
fn silence_from_the_network_lets_an_ordered_boot_fall_back_to_the_disk() {
    let mut host = host();
    host.bmc_request(0, BmcRequest::ForceOff).result.unwrap();
    host.bmc_request(10_000, BmcRequest::SetNetworkBootOnce).result.unwrap();
    host.bmc_request(10_001, BmcRequest::PowerOn).result.unwrap();
    host.advance(5 * MINUTE);
    host.serve_boot(5 * MINUTE, None);
    host.advance(10 * MINUTE);
    assert!(host.truth().healthy);
    assert_eq!(host.disk_writes(), 0);
}

#[test]
fn foreign_data_stops_the_installer_before_it_writes() {
    let mut host = host();
    host.inject(0, Fault::ForeignData);
    host.inject(0, Fault::NoLocalBoot);
    host.advance(5 * MINUTE);
    host.serve_boot(5 * MINUTE, Some(1));
    host.advance(15 * MINUTE);
    assert_eq!(host.installing(), Some((1, InstallStage::ForeignData)));
    assert_eq!(host.disk_writes(), 0);
}

#[test]
fn a_bmc_that_lies_says_off_of_a_host_that_runs() {
    let mut host = host();
    host.inject_bmc(0, BmcFault::SaysOff);
    assert_eq!(power(&mut host, 1), Power::On);
    host.bmc_request(2, BmcRequest::ForceOff).result.unwrap();
    assert_eq!(power(&mut host, 10_000), Power::Off);
    assert_eq!(host.truth().power, Power::On);
    assert!(host.answers().icmp);
}

#[test]
fn a_lost_reply_still_had_its_effect() {
    let mut host = host();
    host.inject_bmc(0, BmcFault::LosesReply);
    assert_eq!(host.bmc_request(1, BmcRequest::ForceOff).result, Err(BmcError::ReplyLost));
    assert_eq!(power(&mut host, 10_000), Power::Off);
}

#[test]
fn a_sideband_bmc_dies_with_the_feed() {
    let mut host = host();
    host.inject_bmc(0, BmcFault::Sideband);
    host.inject(1, Fault::PowerLost(OffCause::AcLoss));
    assert_eq!(host.bmc_request(2, BmcRequest::ReadPower).result, Err(BmcError::Silent));
    host.inject(3, Fault::PowerReturns);
    assert_eq!(power(&mut host, 4), Power::Off, "its policy is to stay off");
}

#[test]
fn a_dead_kubelet_refuses_and_its_restart_cures_it() {
    let mut host = host();
    host.inject(0, Fault::Component(Component::Kubelet, Failing::Dead));
    assert_eq!(host.answers().kubelet_port, Some(false));
    assert!(host.restart_component(1, Component::Kubelet));
    assert!(host.truth().healthy);
}

#[test]
fn an_expired_certificate_outlives_restart_and_reboot() {
    let mut host = host();
    host.inject(0, Fault::Component(Component::Kubelet, Failing::CertificateExpired));
    host.restart_component(1, Component::Kubelet);
    cycle(&mut host, 2);
    assert!(!host.truth().healthy);
}

#[test]
fn dead_memory_is_cured_by_hands_only() {
    let mut host = host();
    host.inject(0, Fault::Hardware(HardwareKind::Memory));
    let at = cycle(&mut host, 1);
    assert!(!host.truth().kernel_ok);
    host.inject(at, Fault::Repaired);
    host.advance(at + 10 * MINUTE);
    assert!(host.truth().healthy);
}

fn faults() -> impl Strategy<Value = Fault> {
    prop_oneof![
        Just(Fault::KernelStuck),
        Just(Fault::KernelPanic { dump_ms: Some(30_000) }),
        Just(Fault::UserspaceDead),
        Just(Fault::PlainReboot),
        Just(Fault::BootLoop { lives_ms: 90_000 }),
        Just(Fault::NoLocalBoot),
        Just(Fault::PowerLost(OffCause::AcLoss)),
        Just(Fault::PowerReturns),
        Just(Fault::Button),
        Just(Fault::BenignSilence { lasts_ms: 20_000 }),
        Just(Fault::Repaired),
    ]
}

#[derive(Debug, Clone)]
enum Do {
    Wait(At),
    Fault(Fault),
    Off,
    On,
}

fn deeds() -> impl Strategy<Value = Vec<Do>> {
    let deed =
        prop_oneof![(0..400_000u64).prop_map(Do::Wait), faults().prop_map(Do::Fault), Just(Do::Off), Just(Do::On),];
    prop::collection::vec(deed, 1..40)
}

fn play(machine: &mut Machine, deeds: &[Do], small_steps: bool) {
    let mut at = 0;
    for deed in deeds {
        match deed {
            Do::Wait(span) if small_steps => {
                for step in 1..=10 {
                    machine.advance(at + span * step / 10);
                }
                at += span;
            }
            Do::Wait(span) => at += span,
            Do::Fault(fault) => machine.inject(at, *fault),
            Do::Off => {
                let _ = machine.bmc_request(at, BmcRequest::ForceOff);
            }
            Do::On => {
                let _ = machine.bmc_request(at, BmcRequest::PowerOn);
            }
        }
    }
    machine.advance(at);
}

proptest! {
    #[test]
    fn many_small_steps_end_where_one_large_step_ends(deeds in deeds(), seed in any::<u64>()) {
        let mut one = Machine::new(Spec::default(), seed);
        let mut many = one.clone();
        play(&mut one, &deeds, false);
        play(&mut many, &deeds, true);
        prop_assert_eq!(one, many);
    }

    #[test]
    fn a_machine_that_is_off_shows_no_sign_of_life(deeds in deeds(), seed in any::<u64>()) {
        let mut machine = Machine::new(Spec::default(), seed);
        play(&mut machine, &deeds, false);
        if machine.power() == Power::Off {
            let answers = machine.answers();
            prop_assert!(!answers.arp && !answers.icmp && answers.kubelet_port.is_none());
            prop_assert!(!machine.truth().healthy && !machine.agent_alive());
        }
    }

    #[test]
    fn the_next_change_always_lies_ahead(deeds in deeds(), seed in any::<u64>()) {
        let mut machine = Machine::new(Spec::default(), seed);
        play(&mut machine, &deeds, false);
        let mut last = 0;
        for _ in 0..20 {
            let Some(at) = machine.next_change_at() else { break };
            prop_assert!(at > last || last == 0);
            last = at;
            machine.advance(at);
        }
    }
}
