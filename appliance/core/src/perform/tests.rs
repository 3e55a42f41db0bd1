//! Whatever the world answers, a step ends, writes power only to the machine that it just read, and leaves no taint.

use super::{StepRun, perform};
use crate::budget::Permit;
use crate::command::{
    BmcCall, Call, ClusterCall, Command, Failure, Intent, NextCall, Observation, Reply, StepResult, Target, Warrant,
};
use crate::fence::{Cause, Expected, ProvenOff, Reading, ReadingSource, Witnesses, prove};
use crate::id::{ClusterId, HostId, IncidentId, JobId, MachineId, PoolId, StepId};
use crate::policy::Limits;
use crate::rules::Enforced;
use crate::sight::{OwnSight, Reference};
use crate::signal::{BmcTrouble, BootStage, NodeReport, OffCause, Power};
use crate::time::{Elapsed, MINUTE, Millis, Now, SECOND};
use crate::world::incident::{Reservation, Rung};
use proptest::prelude::*;

const MACHINE: MachineId = MachineId(0xAAAA_BBBB_CCCC_DDDD_1111_2222_3333_4444);
const OTHER: MachineId = MachineId(0x9999);
const HOST: HostId = HostId(1);

fn now(at: Millis) -> Now {
    Now { elapsed: Elapsed(at), wall_ms: 0 }
}

fn target() -> Target {
    let limits = Limits::default();
    Target {
        host: HOST,
        name: "worker-1".to_owned(),
        cluster: Some(ClusterId(1)),
        machine: MACHINE,
        linked: true,
        found_off: false,
        outlets_off: false,
        on_left: None,
        network: crate::assess::NetworkState::Silent,
        boot_before: None,
        disk: None,
        spare_machine: Some(MACHINE),
        effect_ms: limits.effect_ms,
        off_gap_ms: limits.off_gap_ms,
        found_off_gap_ms: limits.found_off_gap_ms,
        release_ms: limits.release_ms,
        last_look_ms: limits.last_look_ms,
        action_spacing_ms: limits.action_spacing_ms,
    }
}

fn reading(at: Millis, identity: MachineId, power: Power) -> Reading {
    Reading {
        contradicted: false,
        at: Elapsed(at),
        source: ReadingSource::Bmc,
        identity: Some(identity),
        power,
        off_cause: OffCause::Command,
    }
}

fn proof(at: Millis) -> ProvenOff<Enforced> {
    let evidence = crate::evidence::Evidence::default();
    let sight = OwnSight {
        at: Elapsed(at),
        link: true,
        gateway: true,
        references: vec![Reference { domain: None, answers: true }],
        ..OwnSight::default()
    };
    let readings = [reading(at - 8_000, MACHINE, Power::Off), reading(at - 1_000, MACHINE, Power::Off)];
    let expected = Expected { host: HOST, incident: IncidentId(1), machine: MACHINE, linked: true };
    let witnesses = Witnesses { evidence: &evidence, domains: &[] };
    let cause = Cause::Commanded { at: Elapsed(at - 9_000) };
    prove(Enforced, expected, cause, &readings, witnesses, &sight, &Limits::default(), now(at)).unwrap()
}

fn permit() -> Permit<Enforced> {
    let reservation = Reservation {
        rung: Rung::PowerCycle,
        at: Elapsed(0),
        cluster: None,
        pool: PoolId(0),
        domains: Vec::new(),
        control_plane: false,
        storage: None,
        read_on: false,
        power_steps: 0,
        installs: 0,
    };
    Permit::for_test(HOST, IncidentId(1), &reservation, Enforced)
}

fn run(intent: Intent, at: Millis) -> StepRun<Enforced> {
    let warrant = if intent.needs_permit() {
        Warrant::Permit(permit())
    } else if intent.needs_proof() {
        Warrant::Proof(proof(at))
    } else {
        Warrant::Free
    };
    let command = Command::new(StepId(1), IncidentId(1), target(), intent, warrant).unwrap();
    StepRun::new(Enforced, command, now(at))
}

const INTENTS: [Intent; 17] = [
    Intent::RestartComponent(crate::signal::Component::Kubelet),
    Intent::Cordon,
    Intent::LastLook { slow_bmc: false },
    Intent::SoftReboot,
    Intent::ForceOff { found_off: false },
    Intent::ForceOff { found_off: true },
    Intent::ProveOff,
    Intent::OutletsOff,
    Intent::Release { keep_taint: false },
    Intent::PowerOn { alarm: false },
    Intent::ArmBoot(JobId(1)),
    Intent::RemoveIdentity { etcd_member: Some(7) },
    Intent::MintCredential(JobId(1)),
    Intent::Promote(HOST),
    Intent::ArmProof(JobId(1)),
    Intent::Canary,
    Intent::Return,
];

fn reply() -> impl Strategy<Value = Reply> {
    let power = prop_oneof![Just(Power::On), Just(Power::Off), Just(Power::Transitioning), Just(Power::Unknown)];
    prop_oneof![
        3 => Just(Reply::Ok),
        5 => (power, prop_oneof![9 => Just(MACHINE), 1 => Just(OTHER)]).prop_map(|(p, id)| Reply::Power(reading(0, id, p))),
        1 => Just(Reply::Identity(None)),
        1 => Just(Reply::Stage(BootStage::OsRunning)),
        1 => Just(Reply::Stage(BootStage::FirmwareTask)),
        1 => any::<bool>().prop_map(Reply::Flag),
        1 => any::<(bool, bool)>().prop_map(|(icmp, tcp)| Reply::Probed { icmp, tcp }),
        1 => any::<bool>().prop_map(|lease_renewed| Reply::Node { node: Some(NodeReport::default()), lease_renewed }),
        2 => (0u32..3, 0u32..3).prop_map(|(pods, attachments)| Reply::Leftovers { pods, attachments }),
        1 => Just(Reply::BmcTrouble(BmcTrouble::Silent)),
        1 => Just(Reply::BmcTrouble(BmcTrouble::Busy)),
        1 => Just(Reply::BmcTrouble(BmcTrouble::Refused)),
        1 => Just(Reply::Conflict),
        1 => Just(Reply::ApiSilent),
        1 => Just(Reply::ApiRefused),
        1 => Just(Reply::AgentSilent),
    ]
}

/// Plays a step against a script of replies, repeated from its begin; gives the calls and the result.
fn play(intent: Intent, replies: &[Reply], cancel_after: Option<usize>) -> (Vec<(Call, Reply)>, StepResult, Millis) {
    let begin = 100 * SECOND;
    let mut at = begin;
    let mut step = run(intent, at);
    let mut calls = Vec::new();
    let mut next = perform(&mut step, &Observation::Begin, now(at));
    for turn in 0..2_000 {
        if cancel_after == Some(turn) {
            next = perform(&mut step, &Observation::Cancel, now(at));
        }
        match next {
            NextCall::Done(result) => return (calls, result, at - begin),
            NextCall::WaitUntil(until) => {
                at = at.max(until.0);
                next = perform(&mut step, &Observation::Timer, now(at));
            }
            NextCall::Call(call) => {
                at += 300;
                let mut reply = replies.get(calls.len() % replies.len()).copied().unwrap();
                if let Reply::Power(reading) = &mut reply {
                    reading.at = Elapsed(at);
                }
                calls.push((call, reply));
                next = perform(&mut step, &Observation::Reply(reply), now(at));
            }
        }
    }
    panic!("{intent:?} did not end: {calls:?}");
}

fn check(calls: &[(Call, Reply)], intent: Intent) {
    let mut right_machine = false;
    let (mut tainted, mut graceful) = (false, 0);
    for (call, reply) in calls {
        match call {
            Call::Bmc(_, BmcCall::ReadPower) => {
                right_machine = matches!(reply, Reply::Power(r) if r.identity == Some(MACHINE));
            }
            Call::Bmc(_, BmcCall::ForceOff | BmcCall::PowerOn | BmcCall::GracefulRestart) => {
                assert!(right_machine, "{intent:?}: a power write without the identity read before it: {calls:?}");
                graceful += u32::from(matches!(call, Call::Bmc(_, BmcCall::GracefulRestart)));
            }
            Call::Cluster(ClusterCall::PutTaint) => {
                assert!(matches!(intent, Intent::Release { .. }));
                tainted = true;
            }
            Call::Cluster(ClusterCall::RemoveTaint) if *reply == Reply::Ok => tainted = false,
            _ => {}
        }
    }
    assert!(graceful <= 1, "an orderly reboot was sent {graceful} times");
    // Only an API that keeps silent or refuses can leave it; then the core knows, and removes it later.
    let tried = calls.iter().any(|(call, _)| *call == Call::Cluster(ClusterCall::RemoveTaint));
    assert!(!tainted || tried, "the taint was left without a try: {calls:?}");
}

proptest! {
    #[test]
    fn every_step_ends_whatever_the_world_answers(
        intent in prop::sample::select(&INTENTS[..]),
        replies in prop::collection::vec(reply(), 1..30),
        cancel_after in prop::option::of(0usize..20),
    ) {
        let (calls, _, took) = play(intent, &replies, cancel_after);
        check(&calls, intent);
        prop_assert!(took <= 6 * MINUTE, "{intent:?} took {took} ms");
    }
}

#[test]
fn an_off_of_a_machine_that_is_off_sends_nothing() {
    let off = Reply::Power(reading(0, MACHINE, Power::Off));
    let (calls, result, _) =
        play(Intent::ForceOff { found_off: false }, &[Reply::Stage(BootStage::None), off, off, off], None);
    assert!(calls.iter().all(|(call, _)| !matches!(call, Call::Bmc(_, BmcCall::ForceOff))));
    assert!(matches!(result, StepResult::Readings { off_sent: None, .. }));
}

#[test]
fn another_machine_is_sent_nothing() {
    let wrong = Reply::Power(reading(0, OTHER, Power::On));
    let (calls, result, _) = play(Intent::ForceOff { found_off: false }, &[Reply::Stage(BootStage::None), wrong], None);
    assert!(calls.iter().all(|(call, _)| !matches!(call, Call::Bmc(_, BmcCall::ForceOff))));
    assert!(matches!(result, StepResult::Failed { why: Failure::WrongMachine, sent: false, .. }), "{result:?}");
}

/// Plays a power step against a BMC whose power never changes; gives when each write left, the result and when it came.
fn play_deaf(mut step: StepRun<Enforced>, power: Power, accepts: Reply) -> (Vec<Millis>, StepResult, Millis) {
    let (mut at, mut writes) = (100 * SECOND, Vec::new());
    let mut next = perform(&mut step, &Observation::Begin, now(at));
    loop {
        next = match next {
            NextCall::Done(result) => return (writes, result, at),
            NextCall::WaitUntil(until) => {
                at = at.max(until.0);
                perform(&mut step, &Observation::Timer, now(at))
            }
            NextCall::Call(call) => {
                at += 300;
                let reply = match call {
                    Call::Bmc(_, BmcCall::ForceOff | BmcCall::PowerOn) => {
                        writes.push(at);
                        accepts
                    }
                    Call::Bmc(_, BmcCall::ReadStage) => Reply::Stage(BootStage::OsRunning),
                    Call::Probe => Reply::Probed { icmp: false, tcp: false },
                    _ => Reply::Power(reading(at, MACHINE, power)),
                };
                perform(&mut step, &Observation::Reply(reply), now(at))
            }
        };
    }
}

#[test]
fn what_is_accepted_without_effect_is_read_back_until_its_deadline_and_sent_once() {
    for (intent, power) in
        [(Intent::ForceOff { found_off: false }, Power::On), (Intent::PowerOn { alarm: false }, Power::Off)]
    {
        let (writes, result, ended) = play_deaf(run(intent, 100 * SECOND), power, Reply::Ok);
        assert!(matches!(result, StepResult::Failed { why: Failure::NoEffect, sent: true, .. }), "{result:?}");
        assert_eq!(writes.len(), 1, "{intent:?}: {writes:?}");
        assert!(ended >= 160 * SECOND, "{intent:?}: given up after {} ms", ended - 100 * SECOND);
    }
}

#[test]
fn a_write_whose_reply_is_lost_is_sent_again_and_three_times_at_most() {
    for (intent, power) in
        [(Intent::ForceOff { found_off: false }, Power::On), (Intent::PowerOn { alarm: false }, Power::Off)]
    {
        let lost = Reply::BmcTrouble(BmcTrouble::Silent);
        let (writes, result, _) = play_deaf(run(intent, 100 * SECOND), power, lost);
        assert!(matches!(result, StepResult::Failed { why: Failure::NoEffect, sent: true, .. }), "{result:?}");
        assert_eq!(writes.len(), 3, "{intent:?}: {writes:?}");
    }
}

#[test]
fn an_on_of_a_lost_executor_is_read_back_until_its_deadline_before_another() {
    let target = Target { on_left: Some(Elapsed(95 * SECOND)), ..target() };
    let intent = Intent::PowerOn { alarm: false };
    let command = Command::new(StepId(1), IncidentId(1), target, intent, Warrant::Free).unwrap();
    let step = StepRun::new(Enforced, command, now(100 * SECOND));
    let (writes, result, ended) = play_deaf(step, Power::Off, Reply::Ok);
    assert!(matches!(result, StepResult::Failed { why: Failure::NoEffect, sent: true, .. }), "{result:?}");
    assert!(writes.len() == 1 && writes.iter().all(|at| *at >= 155 * SECOND), "{writes:?}");
    assert!(ended >= writes.iter().max().unwrap() + 59 * SECOND, "its own on has its own time: {ended}");
}

#[test]
fn a_pause_before_the_off_sends_nothing() {
    let on = Reply::Power(reading(0, MACHINE, Power::On));
    let (_, result, _) = play(Intent::ForceOff { found_off: false }, &[Reply::Stage(BootStage::None), on], Some(1));
    assert!(matches!(result, StepResult::Failed { why: Failure::Cancelled, sent: false, .. }), "{result:?}");
}

#[test]
fn power_that_returns_in_a_release_stops_it_and_takes_the_taint_away() {
    let mut step = run(Intent::Release { keep_taint: false }, 100 * SECOND);
    let mut at = 100 * SECOND;
    let mut next = perform(&mut step, &Observation::Begin, now(at));
    let (mut reads, mut untainted) = (0, false);
    let result = loop {
        next = match next {
            NextCall::Done(result) => break result,
            NextCall::WaitUntil(until) => {
                at = at.max(until.0);
                perform(&mut step, &Observation::Timer, now(at))
            }
            NextCall::Call(call) => {
                at += 200;
                let reply = match call {
                    Call::Bmc(_, BmcCall::ReadPower) => {
                        reads += 1;
                        let power = if reads < 2 { Power::Off } else { Power::On };
                        Reply::Power(reading(at, MACHINE, power))
                    }
                    Call::Cluster(ClusterCall::DeletePods) => panic!("pods are deleted on a host that is on"),
                    Call::Cluster(ClusterCall::RemoveTaint) => {
                        untainted = true;
                        Reply::Ok
                    }
                    _ => Reply::Ok,
                };
                perform(&mut step, &Observation::Reply(reply), now(at))
            }
        };
    };
    assert!(matches!(result, StepResult::Failed { why: Failure::CameBack, .. }), "{result:?}");
    assert!(untainted);
}

#[test]
fn an_old_proof_releases_nothing() {
    let command = Command::new(
        StepId(1),
        IncidentId(1),
        target(),
        Intent::Release { keep_taint: false },
        Warrant::Proof(proof(100_000)),
    );
    let mut step = StepRun::new(Enforced, command.unwrap(), now(140_000));
    let next = perform(&mut step, &Observation::Begin, now(140_000));
    assert!(matches!(next, NextCall::Done(StepResult::Failed { why: Failure::Invalid, sent: false, .. })), "{next:?}");
}

#[test]
fn no_warrant_no_command() {
    for intent in INTENTS.into_iter().filter(|i| i.needs_permit() || i.needs_proof()) {
        assert!(Command::<Enforced>::new(StepId(1), IncidentId(1), target(), intent, Warrant::Free).is_none());
    }
}
