//! Steps that are a short row of calls, each of which may be repeated or is found already done.

use super::{POLL_MS, State, StepRun, failed, keep, right_machine};
use crate::assess::NetworkState;
use crate::command::{BmcCall, Call, ClusterCall, Failure, Intent, NextCall, Observation, Reply, StepResult, Warrant};
use crate::fence::{Reading, Witness};
use crate::rules::Rules;
use crate::signal::{BmcTrouble, BootStage, Power};
use crate::time::{Millis, Now, SECOND};

/// A row of calls gives up after this.
const LIMIT_MS: Millis = 60 * SECOND;
/// Between two tries of one call.
const RETRY_MS: Millis = 2 * SECOND;

/// How far it is.
#[derive(Debug, Default)]
pub(super) struct Sequence {
    at: usize,
    asked: bool,
    readings: Vec<Reading>,
    sent: bool,
}

/// The calls of an intent, in order.
fn calls<R: Rules>(run: &StepRun<R>) -> Vec<Call> {
    use ClusterCall as K;
    let host = run.command.target.host;
    let cluster = |calls: &[K]| calls.iter().map(|c| Call::Cluster(*c)).collect::<Vec<_>>();
    match run.command.intent() {
        Intent::RestartComponent(component) => vec![Call::RestartComponent(component)],
        Intent::Cordon if run.enforces(24) => cluster(&[K::Cordon]),
        Intent::Cordon => cluster(&[K::Cordon, K::PutTaint]),
        Intent::SoftReboot => vec![
            Call::Cluster(K::ReadNode),
            Call::Bmc(host, BmcCall::ReadStage),
            Call::Bmc(host, BmcCall::ReadPower),
            Call::Bmc(host, BmcCall::GracefulRestart),
        ],
        // The last look is some seconds old by now: whoever answers again is not cut.
        Intent::OutletsOff => vec![Call::Probe, Call::OutletsOff, Call::ReadOutlets],
        Intent::ArmBoot(_) if !run.enforces(40) => cluster(&[K::MintCredential]),
        Intent::ArmBoot(job) => vec![
            // Identity and power first: a ticket for a running host would be of no use, for another one of harm.
            Call::Bmc(host, BmcCall::ReadPower),
            Call::OpenTicket(job),
            Call::Bmc(host, BmcCall::SetNetworkBootOnce),
            Call::Bmc(host, BmcCall::ReadNetworkBootOnce),
        ],
        Intent::ArmProof(job) => vec![
            Call::Bmc(host, BmcCall::ReadPower),
            Call::OpenProofTicket(job),
            Call::Bmc(host, BmcCall::SetNetworkBootOnce),
            Call::Bmc(host, BmcCall::ReadNetworkBootOnce),
        ],
        Intent::CloseTicket(job) => vec![Call::CloseTicket(job)],
        // The etcd member by its ID first (rule 20), then what names the node (rule 41).
        // Whoever bore witness to the Off is asked right before each (rule 23): the API may keep us waiting meanwhile.
        Intent::RemoveIdentity { etcd_member } => {
            let removals =
                etcd_member.map(K::RemoveEtcdMember).into_iter().chain([K::DeleteVolumeAttachments, K::DeleteNode]);
            let asked = off_witness(run).filter(|_| run.enforces(23));
            removals.flat_map(|call| asked.into_iter().chain([Call::Cluster(call)])).collect()
        }
        // A Node of that name is there again: it needs no credential, and the name is not ours to give (rule 41).
        Intent::MintCredential(_) if run.enforces(41) => cluster(&[K::ReadNode, K::MintCredential]),
        Intent::MintCredential(_) => cluster(&[K::MintCredential]),
        // What it is, and that nobody uses it. Its power is the matter of its own incident.
        Intent::Promote(spare) => vec![Call::Bmc(spare, BmcCall::ReadPower)],
        Intent::Canary => cluster(&[K::CreateCanary, K::ReadCanary, K::DeleteCanary]),
        Intent::Return => cluster(&[K::RestoreLabels, K::DeleteCredential, K::Uncordon]),
        Intent::Withdraw { uncordon: true } => cluster(&[K::RemoveTaint, K::Uncordon]),
        Intent::Withdraw { uncordon: false } => cluster(&[K::RemoveTaint]),
        Intent::LastLook { .. }
        | Intent::ForceOff { .. }
        | Intent::ProveOff
        | Intent::PowerOn { .. }
        | Intent::Release { .. } => Vec::new(),
    }
}

/// Where the Off of the step's proof can be read again.
fn off_witness<R: Rules>(run: &StepRun<R>) -> Option<Call> {
    match run.command.warrant() {
        Warrant::Proof(proof) if proof.witness() == Witness::Outlets => Some(Call::ReadOutlets),
        Warrant::Proof(_) => Some(Call::Bmc(run.command.target.host, BmcCall::ReadPower)),
        Warrant::Free | Warrant::Permit(_) => None,
    }
}

/// A person said that it is off, since its BMC cannot: what the BMC does not answer changes nothing then.
fn confirmed_by_person<R: Rules>(run: &StepRun<R>) -> bool {
    matches!(run.command.warrant(), Warrant::Proof(proof) if proof.witness() == Witness::Human)
}

/// What a reply leads to.
enum Then {
    Next,
    Again(Millis),
    Fail(Failure),
    AlreadySo,
}

pub(super) fn next<R: Rules>(run: &mut StepRun<R>, observation: &Observation, now: Now) -> NextCall {
    let calls = calls(run);
    let over = run.age(now) >= LIMIT_MS;
    let idempotent = !matches!(run.command.intent(), Intent::SoftReboot | Intent::RestartComponent(_));
    let current = match &run.state {
        State::Sequence(state) if state.asked => calls.get(state.at).copied(),
        _ => None,
    };
    let then = match (observation, current) {
        (Observation::Cancel, _) => {
            let (sent, readings) = match &run.state {
                State::Sequence(state) => (state.sent, state.readings.clone()),
                _ => (false, Vec::new()),
            };
            return failed(Failure::Cancelled, &readings, sent);
        }
        (Observation::Reply(reply), Some(call)) => Some(judge(run, call, reply, now)),
        _ => None,
    };
    let State::Sequence(state) = &mut run.state else { return failed(Failure::Invalid, &[], false) };
    state.asked = false;
    match then {
        None => {}
        Some(Then::Next) => state.at += 1,
        Some(Then::AlreadySo) => return NextCall::Done(StepResult::AlreadySo),
        Some(Then::Again(span)) if !over && (idempotent || !state.sent) => {
            let reread = matches!(run.command.intent(), Intent::MintCredential(_) | Intent::RemoveIdentity { .. });
            if reread && matches!(current, Some(Call::Cluster(_))) {
                // What was read before the wait may be so no longer.
                state.at = state.at.saturating_sub(1);
            }
            return NextCall::WaitUntil(now.elapsed.plus(span));
        }
        Some(Then::Again(_)) => return failed(out_of_time(current), &state.readings, state.sent),
        Some(Then::Fail(why)) => return failed(why, &state.readings, state.sent),
    }
    let Some(call) = calls.get(state.at).copied() else {
        return match state.readings.is_empty() || run.command.intent() != Intent::OutletsOff {
            true => NextCall::Done(StepResult::Done),
            false => NextCall::Done(StepResult::Readings { readings: state.readings.clone(), off_sent: None }),
        };
    };
    if over {
        return failed(out_of_time(Some(call)), &state.readings, state.sent);
    }
    state.asked = true;
    state.sent |= effective(call);
    NextCall::Call(call)
}

/// Whether a call changes something outside that a pause should have stopped.
fn effective(call: Call) -> bool {
    match call {
        Call::Bmc(_, BmcCall::GracefulRestart | BmcCall::PowerOn | BmcCall::ForceOff) => true,
        Call::OutletsOff | Call::OutletsOn | Call::RestartComponent(_) => true,
        Call::Bmc(..) | Call::Probe | Call::ReadOutlets => false,
        Call::OpenTicket(_) | Call::OpenProofTicket(_) | Call::CloseTicket(_) => false,
        Call::Cluster(call) => matches!(call, ClusterCall::DeleteNode | ClusterCall::RemoveEtcdMember(_)),
    }
}

fn out_of_time(call: Option<Call>) -> Failure {
    match call {
        Some(Call::Cluster(ClusterCall::ReadCanary)) => Failure::CanaryFailed,
        Some(Call::Cluster(_)) | None => Failure::ApiSilent,
        Some(Call::Bmc(_, BmcCall::SetNetworkBootOnce | BmcCall::ReadNetworkBootOnce)) => Failure::BootNotSet,
        Some(Call::Bmc(..) | Call::OutletsOff | Call::OutletsOn | Call::ReadOutlets) => Failure::BmcSilent,
        Some(Call::RestartComponent(_)) => Failure::AgentSilent,
        Some(Call::Probe | Call::OpenTicket(_) | Call::OpenProofTicket(_) | Call::CloseTicket(_)) => Failure::Invalid,
    }
}

fn judge<R: Rules>(run: &mut StepRun<R>, call: Call, reply: &Reply, now: Now) -> Then {
    let removal = matches!(run.command.intent(), Intent::RemoveIdentity { .. });
    match reply {
        Reply::BmcTrouble(_) if removal && confirmed_by_person(run) => return Then::Next,
        Reply::BmcTrouble(BmcTrouble::Refused) => return Then::Fail(Failure::BmcRefused),
        // A stage that cannot be read stops nothing; the power reading behind it decides.
        Reply::BmcTrouble(_) if matches!(call, Call::Bmc(_, BmcCall::ReadStage)) => return Then::Next,
        Reply::BmcTrouble(_) => return Then::Again(RETRY_MS),
        // Who votes, and who is healthy, is read again before a removal is sent a second time (rule 20).
        Reply::ApiSilent if matches!(call, Call::Cluster(ClusterCall::RemoveEtcdMember(_))) => {
            return Then::Fail(Failure::ApiSilent);
        }
        Reply::ApiSilent => return Then::Again(RETRY_MS),
        Reply::ApiRefused => return Then::Fail(Failure::ApiRefused),
        Reply::AgentSilent => return Then::Fail(Failure::AgentSilent),
        _ => {}
    }
    match call {
        Call::Bmc(host, BmcCall::ReadPower) => power(run, host, reply, now),
        Call::Bmc(_, BmcCall::ReadStage) => match reply {
            Reply::Stage(BootStage::FirmwareTask) if run.enforces(33) => Then::Fail(Failure::FirmwareTask),
            // After a restart of ours: the reboot that we had ordered is already under way.
            Reply::Stage(BootStage::ShuttingDown | BootStage::Post | BootStage::OsStarting) => Then::AlreadySo,
            _ => Then::Next,
        },
        Call::Bmc(_, BmcCall::ReadNetworkBootOnce) => match reply {
            Reply::Flag(true) => Then::Next,
            _ if !run.enforces(34) => Then::Next,
            _ => Then::Fail(Failure::BootNotSet),
        },
        Call::Cluster(ClusterCall::ReadNode) => match reply {
            Reply::Node { node: Some(_), .. } if matches!(run.command.intent(), Intent::MintCredential(_)) => {
                Then::Fail(Failure::CameBack)
            }
            // The boot changed already: the reboot that we had ordered has happened.
            Reply::Node { node: Some(node), .. } if run.target().boot_before.is_some_and(|b| b != node.boot) => {
                Then::AlreadySo
            }
            _ => Then::Next,
        },
        Call::Cluster(ClusterCall::ReadCanary) => match reply {
            Reply::Flag(true) => Then::Next,
            _ => Then::Again(POLL_MS),
        },
        Call::Probe => match (reply, run.target().network) {
            (Reply::Probed { icmp, tcp }, NetworkState::Silent) if run.enforces(1) && (*icmp || *tcp) => {
                Then::Fail(Failure::Answered)
            }
            (Reply::Probed { tcp: true, .. }, NetworkState::KernelOnly) if run.enforces(1) => {
                Then::Fail(Failure::Answered)
            }
            _ => Then::Next,
        },
        Call::ReadOutlets if removal => match reply {
            Reply::Flag(true) => Then::Next,
            Reply::Flag(false) => Then::Fail(Failure::CameBack),
            _ => Then::Again(RETRY_MS),
        },
        Call::ReadOutlets => match reply {
            Reply::Flag(true) => {
                if let State::Sequence(state) = &mut run.state {
                    keep(&mut state.readings, super::outlets_read_off(now));
                }
                Then::Next
            }
            _ => Then::Again(POLL_MS),
        },
        _ => match reply {
            Reply::Ok | Reply::Conflict | Reply::Flag(_) => Then::Next,
            _ => Then::Again(RETRY_MS),
        },
    }
}

/// The identity before a write, and the state that the write wants (rules 29, 30).
fn power<R: Rules>(run: &mut StepRun<R>, host: crate::id::HostId, reply: &Reply, _now: Now) -> Then {
    let Reply::Power(reading) = reply else { return Then::Again(RETRY_MS) };
    let intent = run.command.intent();
    let expected = match intent {
        Intent::Promote(spare) if spare == host => run.command.target.spare_machine,
        _ => Some(run.command.target.machine),
    };
    let right = expected.is_some_and(|machine| right_machine(reading.identity, machine));
    let check = run.enforces(29);
    if let State::Sequence(state) = &mut run.state {
        keep(&mut state.readings, *reading);
    }
    if check && !right {
        // One that names nothing is asked again: only another name is another machine.
        return if reading.identity.is_some() { Then::Fail(Failure::WrongMachine) } else { Then::Again(RETRY_MS) };
    }
    match (intent, reading.power) {
        (_, Power::Off) if reading.contradicted => Then::Again(POLL_MS),
        (Intent::RemoveIdentity { .. }, Power::Off) => Then::Next,
        (Intent::RemoveIdentity { .. }, Power::On | Power::Transitioning) => Then::Fail(Failure::CameBack),
        (Intent::SoftReboot, Power::On) => Then::Next,
        (Intent::SoftReboot, _) => Then::Fail(Failure::ForeignChange),
        (Intent::ArmBoot(_) | Intent::ArmProof(_) | Intent::Promote(_), Power::Off) => Then::Next,
        (Intent::ArmBoot(_) | Intent::ArmProof(_) | Intent::Promote(_), Power::On) => {
            Then::Fail(Failure::ForeignChange)
        }
        _ => Then::Again(POLL_MS),
    }
}
