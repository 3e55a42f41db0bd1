//! The release of a host that is proven off: taint, pods, volumes, and the taint off again before any power on
//! (rules 23, 25, 26). Power is re-read until it ends; anything but Off stops it (rule 29).

use super::{POLL_MS, State, StepRun, failed, keep, right_machine};
use crate::command::{BmcCall, Call, ClusterCall, Failure, Intent, NextCall, Observation, Reply, StepResult, Warrant};
use crate::fence::{Reading, Witness};
use crate::rules::Rules;
use crate::signal::Power;
use crate::time::{Elapsed, Millis, Now, SECOND};

/// Power is read at least this often during a release.
const REREAD_MS: Millis = 10 * SECOND;
/// A proof, and an Off read after it, is good for this long.
const PROOF_AGE_MS: Millis = 30 * SECOND;
/// Between two tries of a call that the API did not answer.
const API_RETRY_MS: Millis = 2 * SECOND;
/// Tries to take the taint away on the way out.
const UNTAINT_TRIES: u8 = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Work {
    #[default]
    Taint,
    Pods,
    Attachments,
    Leftovers,
    Untaint,
}

/// How far it is.
#[derive(Debug, Default)]
pub(super) struct Release {
    work: Work,
    asked: Option<Call>,
    readings: Vec<Reading>,
    last_off: Option<Elapsed>,
    last_read: Option<Elapsed>,
    tainted: bool,
    ending: Option<Failure>,
    untaints: u8,
    api_silent: bool,
    was_read: bool,
}

pub(super) fn next<R: Rules>(run: &mut StepRun<R>, observation: &Observation, now: Now) -> NextCall {
    let (proven_at, witness, rules_23) = match run.command.warrant() {
        Warrant::Proof(proof) => (proof.at(), proof.witness(), run.enforces(23)),
        Warrant::Free | Warrant::Permit(_) => return failed(Failure::Invalid, &[], false),
    };
    let keep_taint = matches!(run.command.intent(), Intent::Release { keep_taint: true });
    let target = &run.command.target;
    let (host, machine, limit) = (target.host, target.machine, target.release_ms);
    let age = run.age(now);
    let rules_27 = run.enforces(27);
    let (enforces_25, enforces_26, enforces_29) = (run.enforces(25), run.enforces(26), run.enforces(29));
    let State::Release(state) = &mut run.state else { return failed(Failure::Invalid, &[], false) };
    state.last_off.get_or_insert(proven_at);

    if *observation == Observation::Begin && rules_23 && now.elapsed.since(proven_at) > PROOF_AGE_MS {
        return failed(Failure::Invalid, &[], false);
    }
    if *observation == Observation::Cancel {
        return stop(state, Failure::Cancelled, keep_taint && !enforces_26);
    }
    let asked = state.asked.take();
    if let (Some(call), Observation::Reply(reply)) = (asked, observation) {
        match (call, reply) {
            (Call::ReadOutlets, reply) => {
                state.last_read = Some(now.elapsed);
                state.was_read = true;
                match reply {
                    Reply::Flag(true) => state.last_off = Some(now.elapsed),
                    Reply::Flag(false) if enforces_29 => return stop(state, Failure::CameBack, false),
                    _ => {
                        if let Some(why) = unheard(state, witness, now).filter(|_| enforces_29) {
                            return stop(state, why, false);
                        }
                    }
                }
            }
            (Call::Bmc(_, BmcCall::ReadPower), reply) => {
                state.last_read = Some(now.elapsed);
                state.was_read = true;
                if let Some(why) = power(state, reply, machine, witness, now).filter(|_| enforces_29) {
                    return stop(state, why, false);
                }
            }
            (_, Reply::ApiSilent) => {
                state.api_silent = true;
                if state.work == Work::Untaint {
                    state.untaints += 1;
                    if state.untaints >= UNTAINT_TRIES {
                        state.ending.get_or_insert(Failure::TaintStays);
                        return end(state);
                    }
                } else if age >= limit {
                    return stop(state, Failure::ApiSilent, false);
                }
                return NextCall::WaitUntil(now.elapsed.plus(API_RETRY_MS));
            }
            (_, Reply::ApiRefused) if state.work == Work::Untaint => {
                state.ending.get_or_insert(Failure::TaintStays);
                return end(state);
            }
            (_, Reply::ApiRefused) => return stop(state, Failure::ApiRefused, false),
            (Call::Cluster(_), reply) => {
                state.api_silent = false;
                if let Some(next) = worked(state, reply, age >= limit, keep_taint, enforces_25, now) {
                    return next;
                }
            }
            _ => {}
        }
    }
    if state.work == Work::Untaint {
        if !state.tainted || !enforces_26 {
            return end(state);
        }
        state.asked = Some(Call::Cluster(ClusterCall::RemoveTaint));
        return NextCall::Call(Call::Cluster(ClusterCall::RemoveTaint));
    }
    if age >= limit + REREAD_MS {
        return stop(state, if state.api_silent { Failure::ApiSilent } else { Failure::NotReleased }, false);
    }
    // Before the first effect, before pods go, and every 10 s.
    let due = state.last_read.is_none_or(|at| now.elapsed.since(at) >= REREAD_MS)
        || (matches!(state.work, Work::Taint | Work::Pods) && !state.was_read);
    if due && enforces_29 && rules_23 && rules_27 {
        // Whoever bore witness to the Off is asked again: the outlets, where they did, since the BMC may lie or be dark.
        let read = match witness {
            Witness::Outlets => Call::ReadOutlets,
            Witness::Bmc | Witness::Human => Call::Bmc(host, BmcCall::ReadPower),
        };
        state.asked = Some(read);
        return NextCall::Call(read);
    }
    let call = Call::Cluster(match state.work {
        Work::Taint => {
            state.tainted = true;
            ClusterCall::PutTaint
        }
        Work::Pods => ClusterCall::DeletePods,
        Work::Attachments => ClusterCall::DeleteVolumeAttachments,
        Work::Leftovers => ClusterCall::ReadLeftovers,
        Work::Untaint => ClusterCall::RemoveTaint,
    });
    state.was_read = false;
    state.asked = Some(call);
    NextCall::Call(call)
}

/// A power reading in the middle; `Some` = the release stops.
fn power(
    state: &mut Release,
    reply: &Reply,
    machine: crate::id::MachineId,
    witness: Witness,
    now: Now,
) -> Option<Failure> {
    match reply {
        Reply::Power(reading) => {
            keep(&mut state.readings, *reading);
            let named = reading.identity.is_some();
            if named && !right_machine(reading.identity, machine) {
                return Some(Failure::WrongMachine);
            }
            match reading.power {
                Power::Off if named && !reading.contradicted => {
                    state.last_off = Some(now.elapsed);
                    None
                }
                // Without a name, contradicted by its chassis, or without a word that we know (a BMC whose services start
                // again), it says no more than a BMC that is silent.
                Power::Off | Power::Unknown => unheard(state, witness, now),
                Power::On | Power::Transitioning => Some(Failure::CameBack),
            }
        }
        // A witness that fell silent contradicts nothing for as long as its last Off is fresh, from the proof on; of a human
        // there is none.
        _ => unheard(state, witness, now),
    }
}

fn unheard(state: &Release, witness: Witness, now: Now) -> Option<Failure> {
    let fresh = state.last_off.is_some_and(|at| now.elapsed.since(at) <= PROOF_AGE_MS);
    (witness != Witness::Human && !fresh).then_some(Failure::BmcSilent)
}

/// A call of the release succeeded; `Some` = what comes next is not simply the next piece of work.
fn worked(
    state: &mut Release,
    reply: &Reply,
    over: bool,
    keep_taint: bool,
    enforces_25: bool,
    now: Now,
) -> Option<NextCall> {
    state.work = match state.work {
        Work::Taint => Work::Pods,
        Work::Pods => Work::Attachments,
        Work::Attachments => Work::Leftovers,
        Work::Leftovers => {
            let gone = matches!(reply, Reply::Leftovers { pods: 0, attachments: 0 });
            if !gone && !over && enforces_25 {
                // Asked again in a second; what is stuck is deleted again, which changes nothing if it is gone.
                state.work = Work::Leftovers;
                return Some(NextCall::WaitUntil(now.elapsed.plus(POLL_MS)));
            }
            if !gone && enforces_25 {
                state.ending = Some(Failure::NotReleased);
            }
            if keep_taint {
                return Some(end(state));
            }
            Work::Untaint
        }
        Work::Untaint => {
            state.tainted = false;
            return Some(end(state));
        }
    };
    None
}

/// Stops for a reason: the taint goes first.
fn stop(state: &mut Release, why: Failure, leave_taint: bool) -> NextCall {
    state.ending.get_or_insert(why);
    state.work = Work::Untaint;
    if !state.tainted || leave_taint {
        return end(state);
    }
    state.asked = Some(Call::Cluster(ClusterCall::RemoveTaint));
    NextCall::Call(Call::Cluster(ClusterCall::RemoveTaint))
}

fn end(state: &Release) -> NextCall {
    match state.ending {
        None => NextCall::Done(StepResult::Done),
        Some(why) => failed(why, &state.readings, true),
    }
}
