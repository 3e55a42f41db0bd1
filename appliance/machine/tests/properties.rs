//! What holds for every sequence of faults, requests and waits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use machine::{
    AcRestore, At, BmcFault, BmcRequest, BootOverride, Component, Cure, Failing, Fault, HardwareKind, InstallTrouble,
    Machine, OffCause, Power, Spec,
};
use proptest::prelude::*;

fn faults() -> impl Strategy<Value = Fault> {
    prop_oneof![
        Just(Fault::KernelStuck),
        Just(Fault::KernelPanic { dump_ms: Some(30_000) }),
        Just(Fault::KernelPanic { dump_ms: None }),
        Just(Fault::UserspaceDead),
        Just(Fault::NicHung),
        Just(Fault::NicDead),
        Just(Fault::PlainReboot),
        Just(Fault::PlainPoweroff),
        Just(Fault::OsBroken { kernel_dies: true }),
        Just(Fault::BootLoop { lives_ms: 90_000 }),
        Just(Fault::NoLocalBoot),
        Just(Fault::DiskDead),
        Just(Fault::DiskSwapped),
        Just(Fault::Component(Component::Kubelet, Failing::Dead)),
        Just(Fault::Component(Component::Etcd, Failing::CertificateExpired)),
        Just(Fault::PowerLost(OffCause::AcLoss)),
        Just(Fault::PowerLost(OffCause::Fault)),
        Just(Fault::PowerReturns),
        Just(Fault::Hardware(HardwareKind::Memory)),
        Just(Fault::ForeignData),
        Just(Fault::Install(InstallTrouble::WrongDigest)),
        Just(Fault::Button),
        Just(Fault::PowerByOthers { on: true }),
        Just(Fault::PowerByOthers { on: false }),
        Just(Fault::BenignSilence { lasts_ms: 20_000 }),
        Just(Fault::Repaired),
    ]
}

fn bmc_faults() -> impl Strategy<Value = BmcFault> {
    prop_oneof![
        Just(BmcFault::Slow(9_000)),
        Just(BmcFault::Refusing),
        Just(BmcFault::Dead),
        Just(BmcFault::Resetting(60_000)),
        Just(BmcFault::Sideband),
        Just(BmcFault::IgnoresPower),
        Just(BmcFault::KeepsBoot),
        Just(BmcFault::SlowOff(15_000)),
        Just(BmcFault::RepeatsPower(45_000)),
        Just(BmcFault::LosesReply),
        Just(BmcFault::FirmwareTask(100_000)),
        Just(BmcFault::Cured),
    ]
}

fn requests() -> impl Strategy<Value = BmcRequest> {
    prop_oneof![
        Just(BmcRequest::ReadPower),
        Just(BmcRequest::ForceOff),
        Just(BmcRequest::PowerOn),
        Just(BmcRequest::ForceRestart),
        Just(BmcRequest::GracefulRestart),
        Just(BmcRequest::GracefulShutdown),
        Just(BmcRequest::SetBootOnce(BootOverride::NetworkOnce)),
        Just(BmcRequest::Reset),
    ]
}

#[derive(Debug, Clone)]
enum Deed {
    Wait(At),
    Fault(Fault),
    BmcFault(BmcFault),
    Ask(BmcRequest),
    Serve(Option<u64>),
    Restart(Component),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        3 => (0..400_000u64).prop_map(Deed::Wait),
        2 => faults().prop_map(Deed::Fault),
        1 => bmc_faults().prop_map(Deed::BmcFault),
        3 => requests().prop_map(Deed::Ask),
        1 => prop::option::of(1..9u64).prop_map(Deed::Serve),
        1 => Just(Deed::Restart(Component::Kubelet)),
    ];
    prop::collection::vec(deed, 1..60)
}

fn machines() -> impl Strategy<Value = Machine> {
    let restore = prop_oneof![Just(AcRestore::StayOff), Just(AcRestore::LastState), Just(AcRestore::On)];
    (any::<u64>(), restore, any::<bool>()).prop_map(|(seed, ac_restore, bmc_shares_feed)| {
        Machine::new(Spec { ac_restore, bmc_shares_feed, ..Spec::default() }, seed)
    })
}

/// Plays the deeds, calling `look` after each; a wait is cut in `steps`.
fn play(machine: &mut Machine, deeds: &[Deed], steps: u64, mut look: impl FnMut(&Machine)) -> At {
    let mut at = 0;
    for deed in deeds {
        match deed {
            Deed::Wait(span) => {
                for step in 1..=steps {
                    machine.advance(at + span * step / steps);
                    look(machine);
                }
                at += span;
            }
            Deed::Fault(fault) => machine.inject(at, *fault),
            Deed::BmcFault(fault) => machine.inject_bmc(at, *fault),
            Deed::Ask(request) => {
                let _ = machine.bmc_request(at, *request);
            }
            Deed::Serve(job) => machine.serve_boot(at, *job),
            Deed::Restart(component) => {
                machine.restart_component(at, *component);
            }
        }
        look(machine);
    }
    at
}

proptest! {
    #[test]
    fn many_small_steps_end_where_one_large_step_ends(deeds in deeds(), machine in machines()) {
        let (mut one, mut many) = (machine.clone(), machine);
        play(&mut one, &deeds, 1, |_| {});
        play(&mut many, &deeds, 10, |_| {});
        prop_assert_eq!(one, many);
    }

    #[test]
    fn the_same_seed_and_deeds_give_the_same_machine(deeds in deeds(), machine in machines()) {
        let (mut one, mut other) = (machine.clone(), machine);
        play(&mut one, &deeds, 3, |_| {});
        play(&mut other, &deeds, 3, |_| {});
        prop_assert_eq!(one, other);
    }

    #[test]
    fn a_stored_machine_goes_on_as_if_it_had_never_been_stored(
        before in deeds(), after in deeds(), machine in machines()
    ) {
        let mut kept = machine;
        let at = play(&mut kept, &before, 1, |_| {});
        let text = serde_json::to_string(&kept).unwrap();
        let mut stored: Machine = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&stored, &kept);
        for machine in [&mut kept, &mut stored] {
            machine.advance(at + 1_000);
            play(machine, &after, 1, |_| {});
        }
        prop_assert_eq!(stored, kept);
    }

    #[test]
    fn a_machine_that_is_off_shows_no_sign_of_life(deeds in deeds(), mut machine in machines()) {
        play(&mut machine, &deeds, 4, |machine| {
            if machine.power() == Power::Off {
                let answers = machine.answers();
                assert!(!answers.arp && !answers.icmp && answers.kubelet_port.is_none());
                assert!(!machine.truth().healthy && !machine.agent_alive() && machine.truth().boot.is_none());
                assert!(machine.boot_ask().is_none() && machine.installing().is_none() && machine.watts() < 100);
            }
        });
    }

    #[test]
    fn nothing_runs_without_a_feed(deeds in deeds(), mut machine in machines()) {
        play(&mut machine, &deeds, 4, |machine| {
            assert!(machine.fed() || machine.power() == Power::Off);
        });
    }

    #[test]
    fn answers_and_truth_agree(deeds in deeds(), mut machine in machines()) {
        play(&mut machine, &deeds, 4, |machine| {
            let (truth, answers) = (machine.truth(), machine.answers());
            assert_eq!(truth.silent_since.is_some(), !answers.icmp && answers.kubelet_port.is_none());
            assert!(truth.silent_since.is_none_or(|at| at <= machine.now()));
            assert!(!truth.kubelet_ok || (truth.kernel_ok && machine.kubelet_renews() && answers.icmp));
            assert!(answers.second_port != Some(true) || machine.agent_alive());
            assert!(truth.cure != Cure::Nothing || truth.healthy, "{truth:?}");
        });
    }

    #[test]
    fn counts_only_grow_and_a_cut_never_counts_twice(deeds in deeds(), mut machine in machines()) {
        let mut last = (0, 0, 0, 0, 0);
        let mut power = machine.power();
        play(&mut machine, &deeds, 1, |machine| {
            let ledger = machine.power_ledger();
            let now = (
                ledger.power_ons, ledger.hard_cuts, machine.disk_writes(), machine.disk_writes_begun(), machine.boots()
            );
            assert!(now.0 >= last.0 && now.1 >= last.1 && now.2 >= last.2 && now.3 >= last.3 && now.4 >= last.4);
            if power == Power::Off && now.0 == last.0 {
                assert_eq!(machine.power(), Power::Off, "on without a power-on");
                assert_eq!(now.1, last.1, "a machine that stayed off was cut");
            }
            if power != Power::Off && machine.power() == Power::Off {
                assert_eq!(ledger.recent.back().map(|c| c.by), Some(machine.off_cause()));
            }
            last = now;
            power = machine.power();
        });
    }

    #[test]
    fn the_next_change_always_lies_ahead(deeds in deeds(), mut machine in machines()) {
        play(&mut machine, &deeds, 1, |machine| {
            assert!(machine.next_change_at().is_none_or(|at| at > machine.now()));
        });
        let mut last = machine.now();
        for _ in 0..20 {
            let Some(at) = machine.next_change_at() else { break };
            prop_assert!(at > last);
            last = at;
            machine.advance(at);
        }
    }

    #[test]
    fn a_moment_gone_by_never_comes_back(deeds in deeds(), mut machine in machines(), back in 0..100_000u64) {
        let at = play(&mut machine, &deeds, 1, |_| {});
        machine.advance(at);
        let before = machine.clone();
        machine.advance(at.saturating_sub(back));
        prop_assert_eq!(machine, before);
    }
}
