//! What a host does, fault by fault.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use machine::{
    AcRestore, BmcRequest, Component, Cure, Failing, Fault, HardwareKind, Held, InstallTrouble, Machine, OffCause,
    Power, Spec, StageRead,
};
use support::{MINUTE, cycle, host, off, power, reimage};

#[test]
fn a_stuck_kernel_is_silent_with_its_power_on_and_a_power_cycle_cures_it() {
    let mut host = host();
    let before = host.boot_id();
    host.inject(1_000, Fault::KernelStuck);
    assert!(!host.answers().icmp && host.answers().kubelet_port.is_none());
    assert_eq!(host.truth().silent_since, Some(1_000));
    assert_eq!(power(&mut host, 2_000), Power::On);
    cycle(&mut host, 3_000);
    assert!(host.truth().healthy);
    assert_eq!(host.truth().silent_since, None);
    assert_ne!(host.boot_id(), before, "a new kernel has a new boot ID");
}

#[test]
fn a_panicked_kernel_dumps_and_then_restarts_by_itself() {
    let mut host = host();
    host.inject(0, Fault::KernelPanic { dump_ms: Some(2 * MINUTE) });
    host.advance(2 * MINUTE - 1);
    assert_eq!(host.bmc_stage(2 * MINUTE - 1), StageRead::Running, "the BMC sees no difference");
    host.advance(2 * MINUTE);
    assert_eq!(host.bmc_stage(2 * MINUTE), StageRead::Post);
    host.advance(10 * MINUTE);
    assert!(host.truth().healthy);
    assert_eq!(host.power_ledger().hard_cuts, 0);
}

#[test]
fn dead_userspace_answers_pings_only_and_hears_no_shutdown() {
    let mut host = host();
    host.inject(0, Fault::UserspaceDead);
    let answers = host.answers();
    assert!(answers.icmp && answers.kubelet_port.is_none() && answers.second_port.is_none());
    host.bmc_request(1, BmcRequest::GracefulRestart).result.unwrap();
    host.advance(10 * MINUTE);
    assert!(!host.truth().healthy && host.boots() == 1);
}

#[test]
fn a_plain_reboot_closes_the_held_connection_then_falls_silent_then_returns() {
    let mut host = host();
    host.inject(1_000, Fault::PlainReboot);
    let answers = host.answers();
    assert!(answers.icmp && answers.kubelet_port == Some(false));
    assert_eq!(host.held(0), Held::Closed);
    assert!(host.shutting_down() && !host.kubelet_renews());
    host.advance(27_000);
    assert!(!host.answers().icmp);
    host.advance(10 * MINUTE);
    assert!(host.truth().healthy);
    assert_eq!(host.held(0), Held::Reset, "the new kernel never knew that connection");
    assert_eq!(host.held(10 * MINUTE), Held::Open);
    assert_eq!(host.power_ledger().hard_cuts, 0, "nobody cut anything");
}

#[test]
fn a_kernel_that_hangs_amid_its_shutdown_never_finishes_it() {
    let mut host = host();
    host.inject(0, Fault::PlainReboot);
    host.inject(1_000, Fault::KernelStuck);
    host.advance(30 * MINUTE);
    assert_eq!(host.boots(), 1);
    assert_eq!(host.truth().cure, Cure::PowerCycle);
}

#[test]
fn a_plain_poweroff_is_no_hard_cut_and_its_cause_is_unknown() {
    let mut host = host();
    host.inject(0, Fault::PlainPoweroff);
    host.advance(MINUTE);
    assert_eq!(host.power(), Power::Off);
    assert_eq!(host.off_cause(), OffCause::Unknown);
    assert_eq!(host.power_ledger().hard_cuts, 0);
    assert!(host.power_ledger().recent.back().unwrap().orderly);
}

#[test]
fn benign_silence_ends_by_itself_without_a_reboot() {
    let mut host = host();
    host.inject(1_000, Fault::BenignSilence { lasts_ms: 20_000 });
    assert!(!host.answers().icmp && !host.kubelet_renews());
    host.advance(21_000);
    assert!(host.answers().icmp && host.truth().healthy);
    assert_eq!(host.boots(), 1);
}

#[test]
fn a_dead_kubelet_refuses_closes_its_connections_and_its_restart_cures_it() {
    let mut host = host();
    host.inject(5, Fault::Component(Component::Kubelet, Failing::Dead));
    assert_eq!(host.answers().kubelet_port, Some(false));
    assert_eq!(host.held(0), Held::Closed);
    assert!(host.answers().second_port == Some(true) && host.agent_alive());
    assert!(host.restart_component(6, Component::Kubelet));
    assert!(host.truth().healthy);
}

#[test]
fn a_hung_kubelet_listens_and_says_nothing() {
    let mut host = host();
    host.inject(0, Fault::Component(Component::Kubelet, Failing::Hung));
    let answers = host.answers();
    assert!(answers.kubelet_port == Some(true) && !answers.kubelet_health && answers.held == Held::Open);
    assert!(!host.kubelet_renews());
}

#[test]
fn a_dead_runtime_leaves_the_lease_alive_and_the_node_not_ready() {
    let mut host = host();
    host.inject(0, Fault::Component(Component::Runtime, Failing::Dead));
    assert!(host.kubelet_renews() && !host.kubelet_ok() && !host.component_ok(Component::Runtime));
}

#[test]
fn off_takes_effect_after_a_while_and_not_at_once() {
    let mut host = host();
    host.bmc_request(0, BmcRequest::ForceOff).result.unwrap();
    assert_eq!(power(&mut host, 1), Power::GoingOff);
    assert_eq!(power(&mut host, 6_000), Power::Off);
}

#[test]
fn each_cut_is_recorded_with_what_it_hit() {
    let mut host = host();
    off(&mut host, 0);
    let cut = *host.power_ledger().recent.back().unwrap();
    assert!(cut.kubelet_ok && !cut.orderly && !cut.firmware_task);
    assert_eq!((cut.by, cut.stage), (OffCause::Command, StageRead::Running));
    assert_eq!(host.power_ledger().hard_cuts_of_working, 1);
    for at in 0..40 {
        host.inject(MINUTE + at, Fault::Button);
    }
    let ledger = host.power_ledger();
    assert_eq!((ledger.power_ons, ledger.hard_cuts, ledger.recent.len()), (20, 21, 16));
    assert_eq!(ledger.hard_cuts_of_working, 1, "the others hit a machine in its self test");
}

#[test]
fn when_the_feed_returns_the_chassis_does_as_it_was_told() {
    let returns = |restore, was_on: bool| {
        let host = Machine::new(Spec { ac_restore: restore, ..Spec::default() }, 1);
        let mut host = if was_on { host } else { host.switched_off() };
        host.inject(0, Fault::PowerLost(OffCause::AcLoss));
        assert_eq!((host.watts(), host.power()), (0, Power::Off));
        host.bmc_request(1_000, BmcRequest::PowerOn).result.unwrap();
        assert_eq!(host.power(), Power::Off, "nothing runs without a feed");
        host.inject(MINUTE, Fault::PowerReturns);
        host.power()
    };
    assert_eq!(returns(AcRestore::StayOff, true), Power::Off);
    assert_eq!(returns(AcRestore::LastState, true), Power::On);
    assert_eq!(returns(AcRestore::LastState, false), Power::Off);
    assert_eq!(returns(AcRestore::On, false), Power::On);
}

#[test]
fn a_machine_switched_off_by_command_keeps_that_cause_through_a_power_loss() {
    let mut host = host();
    let at = off(&mut host, 0);
    host.inject(at, Fault::PowerLost(OffCause::AcLoss));
    host.inject(at + MINUTE, Fault::PowerReturns);
    assert_eq!(host.off_cause(), OffCause::Command);
}

#[test]
fn a_looping_system_dies_again_after_each_boot_until_it_is_written_anew() {
    let mut host = host();
    host.inject(0, Fault::BootLoop { lives_ms: 2 * MINUTE });
    host.advance(60 * MINUTE);
    assert!(host.boots() >= 5, "{} boots in an hour", host.boots());
    reimage(&mut host, 60 * MINUTE);
    let boots = host.boots();
    host.advance(200 * MINUTE);
    assert!(host.truth().healthy && host.boots() == boots);
}

#[test]
fn the_cure_of_what_ails_it_now_follows_its_state() {
    let mut host = host();
    assert_eq!(host.truth().cure, Cure::Nothing);
    host.inject(0, Fault::Component(Component::Cni, Failing::Stubborn));
    assert_eq!(host.truth().cure, Cure::Reboot);
    host.inject(0, Fault::KernelStuck);
    assert_eq!(host.truth().cure, Cure::PowerCycle);
    host.inject(0, Fault::OsBroken { kernel_dies: false });
    assert_eq!(host.truth().cure, Cure::Reimage);
    host.inject(0, Fault::Hardware(HardwareKind::Memory));
    assert_eq!(host.truth().cure, Cure::Hands);
    host.inject(0, Fault::Repaired);
    assert_eq!(host.truth().cure, Cure::Time);
    host.advance(10 * MINUTE);
    assert_eq!(host.truth().cure, Cure::Nothing);
}

/// Does the weakest thing that deserves the name, and waits for its effect.
fn apply(host: &mut Machine, fault: Fault, cure: Cure, at: u64) -> u64 {
    let end = at + 20 * MINUTE;
    match cure {
        Cure::Nothing => return at,
        Cure::Time => {}
        Cure::ComponentRestart => {
            if let Fault::Component(component, _) = fault {
                host.restart_component(at, component);
            }
        }
        Cure::PowerOn => {
            host.bmc_request(at, BmcRequest::PowerOn).result.unwrap();
        }
        Cure::Reboot => {
            host.bmc_request(at, BmcRequest::GracefulRestart).result.unwrap();
        }
        Cure::PowerCycle => return cycle(host, at) + 10 * MINUTE,
        Cure::Reimage => return reimage(host, at),
        Cure::Hands => host.inject(at, Fault::Repaired),
    }
    host.advance(end);
    end
}

const CURES: [Cure; 8] = [
    Cure::Nothing,
    Cure::Time,
    Cure::ComponentRestart,
    Cure::PowerOn,
    Cure::Reboot,
    Cure::PowerCycle,
    Cure::Reimage,
    Cure::Hands,
];

fn serves_for_good(host: &Machine) -> bool {
    let truth = host.truth();
    truth.healthy && truth.cure == Cure::Nothing
}

#[test]
fn each_fault_is_cured_by_the_cure_it_names_and_by_nothing_weaker() {
    let mut faults = vec![
        Fault::KernelStuck,
        Fault::KernelPanic { dump_ms: Some(MINUTE) },
        Fault::KernelPanic { dump_ms: None },
        Fault::UserspaceDead,
        Fault::NicHung,
        Fault::BenignSilence { lasts_ms: MINUTE },
        Fault::PlainReboot,
        Fault::PlainPoweroff,
        Fault::OsBroken { kernel_dies: true },
        Fault::OsBroken { kernel_dies: false },
        Fault::NoLocalBoot,
        Fault::BootLoop { lives_ms: 2 * MINUTE },
        Fault::CertificateExpiring,
        Fault::Button,
        Fault::PowerByOthers { on: false },
        Fault::PowerByOthers { on: true },
        Fault::Install(InstallTrouble::Truncated),
    ];
    for failing in [
        Failing::Dead,
        Failing::Hung,
        Failing::Stubborn,
        Failing::CertificateExpired,
        Failing::DiskFull,
        Failing::BadConfig,
    ] {
        faults.push(Fault::Component(Component::Kubelet, failing));
    }
    for fault in faults {
        let mut sick = host();
        sick.inject(1_000, fault);
        // An off by others and an orderly one take their seconds.
        sick.advance(31_000);
        if fault.cure() == Cure::Time {
            assert!(!sick.truth().healthy, "{fault:?} hurts at first");
        }
        for cure in CURES.into_iter().filter(|c| *c < fault.cure()) {
            let mut host = sick.clone();
            apply(&mut host, fault, cure, 31_000);
            assert!(!serves_for_good(&host) || cure == Cure::Nothing, "{cure:?} cured {fault:?}");
        }
        if fault.cure() != Cure::Hands {
            let mut host = sick.clone();
            apply(&mut host, fault, fault.cure(), 31_000);
            assert!(serves_for_good(&host), "{:?} did not cure {fault:?}: {:?}", fault.cure(), host.truth());
        }
    }
}

#[test]
fn what_needs_hands_outlives_a_power_cycle_and_ends_with_hands() {
    let kinds = [
        HardwareKind::PowerSupply,
        HardwareKind::Processor,
        HardwareKind::Memory,
        HardwareKind::Disk,
        HardwareKind::Thermal,
        HardwareKind::Other,
    ];
    let broken = [Fault::NicDead, Fault::DiskDead, Fault::DiskSwapped].into_iter();
    for fault in broken.chain(kinds.map(Fault::Hardware)) {
        assert_eq!(fault.cure(), Cure::Hands);
        let mut host = host();
        host.inject(0, fault);
        let at = cycle(&mut host, 1_000);
        assert!(!host.truth().healthy, "{fault:?}");
        assert_eq!(host.truth().cure, Cure::Hands, "{fault:?}");
        host.inject(at, Fault::Repaired);
        host.advance(at + 10 * MINUTE);
        assert!(serves_for_good(&host), "{fault:?}");
    }
}
