//! Force off, the take-over of a found Off, and reading Off again for a proof.

use super::{POLL_MS, RESEND_MS, SENDS_MAX, State, StepRun, failed, keep, right_machine};
use crate::assess::NetworkState;
use crate::command::{BmcCall, Call, Failure, NextCall, Observation, Reply, StepResult};
use crate::fence::Reading;
use crate::rules::Rules;
use crate::signal::{BmcTrouble, BootStage, Power};
use crate::time::{Elapsed, Millis, Now, SECOND};

/// Rule 29: proof comes no earlier than 5 s after the first Off; the readings span that time.
const SPAN_MS: Millis = 5 * SECOND;
/// Between the Off reads within that span.
const READ_GAP_MS: Millis = 2_500;
/// A silence probed longer ago than this is probed once more before the command.
const PROBE_AGE_MS: Millis = SECOND;
/// Reading for a proof without a command gives up on a silent BMC after this.
const READ_ONLY_MS: Millis = 20 * SECOND;

/// How Off is come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// By our command.
    Command,
    /// It was found off and is taken over (rule 31).
    Found,
    /// By reading only.
    ReadOnly,
}

impl Way {
    pub(super) fn of(found_off: bool) -> Way {
        if found_off { Way::Found } else { Way::Command }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Nothing,
    Stage,
    Outlets,
    Probe,
    Power,
    Off,
    Pause,
}

/// How far it is.
#[derive(Debug)]
pub(super) struct Off {
    way: Way,
    asked: Asked,
    readings: Vec<Reading>,
    sends: u8,
    sent: Option<Elapsed>,
    last_send: Option<Elapsed>,
    accepted: bool,
    first_off: Option<Elapsed>,
    probed: Option<Elapsed>,
}

impl Off {
    pub(super) fn new(way: Way) -> Off {
        Off {
            way,
            asked: Asked::Nothing,
            readings: Vec::new(),
            sends: 0,
            sent: None,
            last_send: None,
            accepted: false,
            first_off: None,
            probed: None,
        }
    }
}

pub(super) fn next<R: Rules>(run: &mut StepRun<R>, observation: &Observation, now: Now) -> NextCall {
    let target = &run.command.target;
    let (host, machine) = (target.host, target.machine);
    let age = run.age(now);
    let limit =
        if matches!(&run.state, State::Off(off) if off.way == Way::ReadOnly) { READ_ONLY_MS } else { target.effect_ms };
    let found_off_gap = target.found_off_gap_ms;
    let silence = target.network;
    let expects_silence = matches!(silence, NetworkState::Silent | NetworkState::KernelOnly);
    let enforces_1 = run.enforces(1);
    let slow_gap = target.found_off;
    let outlets = target.outlets_off;
    let (enforces_29, enforces_30, enforces_33, enforces_31) =
        (run.enforces(29), run.enforces(30), run.enforces(33), run.enforces(31));
    // The switch of rule 23: the command's acceptance is taken for its effect.
    let believes_reading = run.enforces(23);
    let wait_to_write = run.write_at(now);
    let State::Off(off) = &mut run.state else { return failed(Failure::Invalid, &[], false) };
    let sent = off.sent.is_some();

    if *observation == Observation::Cancel {
        return failed(Failure::Cancelled, &off.readings, sent);
    }
    let asked = std::mem::replace(&mut off.asked, Asked::Pause);
    match (asked, observation) {
        (Asked::Stage, Observation::Reply(reply)) => {
            let busy = matches!(reply, Reply::Stage(BootStage::FirmwareTask | BootStage::ShuttingDown));
            if busy && enforces_33 {
                return failed(Failure::FirmwareTask, &off.readings, sent);
            }
            if let Some(at) = wait_to_write {
                return NextCall::WaitUntil(at);
            }
            // A slow BMC took its time: the network is asked once more.
            let stale = off.probed.is_none_or(|at| now.elapsed.since(at) > PROBE_AGE_MS);
            if expects_silence && enforces_1 && !sent && stale {
                off.asked = Asked::Probe;
                return NextCall::Call(Call::Probe);
            }
            return send(run, now);
        }
        (Asked::Outlets, Observation::Reply(reply)) => {
            // The outlets are the witness of this Off: they prove it anew, whatever its BMC says (second proof).
            if *reply == Reply::Flag(true) {
                keep(&mut off.readings, super::outlets_read_off(now));
                return NextCall::Done(StepResult::Readings { readings: off.readings.clone(), off_sent: None });
            }
            if *reply == Reply::Flag(false) || age >= limit {
                return failed(Failure::ForeignChange, &off.readings, false);
            }
            return NextCall::WaitUntil(now.elapsed.plus(POLL_MS));
        }
        (Asked::Probe, Observation::Reply(reply)) => {
            let answers = match (reply, silence) {
                (Reply::Probed { icmp, tcp }, NetworkState::Silent) => *icmp || *tcp,
                (Reply::Probed { tcp, .. }, _) => *tcp,
                _ => true,
            };
            if answers {
                return failed(Failure::Answered, &off.readings, false);
            }
            let first = off.probed.is_none();
            off.probed = Some(now.elapsed);
            if first {
                off.asked = Asked::Stage;
                return NextCall::Call(Call::Bmc(host, BmcCall::ReadStage));
            }
            return send(run, now);
        }
        (Asked::Off, Observation::Reply(Reply::Ok)) if !believes_reading => {
            return NextCall::Done(StepResult::Readings { readings: off.readings.clone(), off_sent: off.sent });
        }
        (Asked::Off, Observation::Reply(reply)) => {
            // Whatever it answered, the power that is read decides (rule 30); a lost reply is unknown, then read.
            if matches!(reply, Reply::BmcTrouble(BmcTrouble::Refused)) {
                return failed(Failure::BmcRefused, &off.readings, true);
            }
            off.accepted |= *reply == Reply::Ok;
            return NextCall::WaitUntil(now.elapsed.plus(POLL_MS));
        }
        (Asked::Power, Observation::Reply(Reply::Power(reading))) => {
            keep(&mut off.readings, *reading);
            if enforces_29 && reading.identity.is_some() && !right_machine(reading.identity, machine) {
                return failed(Failure::WrongMachine, &off.readings, sent);
            }
            if let Some(next) = read(
                off,
                reading,
                now,
                if slow_gap || off.way == Way::Found { found_off_gap } else { SPAN_MS },
                enforces_31,
            ) {
                return next;
            }
            // What was accepted is read back until its deadline and not sent again (rule 30).
            let may_send = off.way == Way::Command && reading.power == Power::On && !off.accepted;
            if may_send {
                if enforces_29 && !right_machine(reading.identity, machine) {
                    return failed(Failure::BmcSilent, &off.readings, sent);
                }
                let again = off.last_send.is_none_or(|at| now.elapsed.since(at) >= RESEND_MS);
                if again && off.sends < SENDS_MAX {
                    if expects_silence && enforces_1 && off.probed.is_none() {
                        // The last look is some seconds old, in which a silence may have ended by itself (rule 1).
                        off.asked = Asked::Probe;
                        return NextCall::Call(Call::Probe);
                    }
                    // A firmware task may have begun since the last order: asked before each one (rule 33).
                    off.asked = Asked::Stage;
                    return NextCall::Call(Call::Bmc(host, BmcCall::ReadStage));
                }
            }
            if age >= limit {
                let why = if sent { Failure::NoEffect } else { Failure::BmcBusy };
                return failed(why, &off.readings, sent);
            }
            return NextCall::WaitUntil(now.elapsed.plus(POLL_MS));
        }
        (Asked::Power, Observation::Reply(reply)) => {
            let why = match reply {
                Reply::BmcTrouble(BmcTrouble::Refused) => return failed(Failure::BmcRefused, &off.readings, sent),
                Reply::BmcTrouble(BmcTrouble::Busy) => Failure::BmcBusy,
                _ => Failure::BmcSilent,
            };
            if age >= limit || (!sent && age >= READ_ONLY_MS) {
                return failed(why, &off.readings, sent);
            }
            return NextCall::WaitUntil(now.elapsed.plus(POLL_MS));
        }
        _ => {}
    }
    if off.way == Way::Command && off.sends == 0 && !enforces_30 {
        // The switch of rule 30: a write without reading first.
        return send(run, now);
    }
    if outlets && off.way == Way::ReadOnly {
        off.asked = Asked::Outlets;
        return NextCall::Call(Call::ReadOutlets);
    }
    off.asked = Asked::Power;
    NextCall::Call(Call::Bmc(host, BmcCall::ReadPower))
}

fn send<R: Rules>(run: &mut StepRun<R>, now: Now) -> NextCall {
    let host = run.command.target.host;
    run.last_write = Some(now.elapsed);
    if let State::Off(off) = &mut run.state {
        off.sends += 1;
        off.sent.get_or_insert(now.elapsed);
        off.last_send = Some(now.elapsed);
        off.asked = Asked::Off;
    }
    NextCall::Call(Call::Bmc(host, BmcCall::ForceOff))
}

/// What one power reading means; `None` = go on.
fn read(off: &mut Off, reading: &Reading, now: Now, span_ms: Millis, enforces_31: bool) -> Option<NextCall> {
    let done = |off: &Off| NextCall::Done(StepResult::Readings { readings: off.readings.clone(), off_sent: off.sent });
    match reading.power {
        // Its chassis says On: read again until the deadline, never a proof.
        Power::Off if reading.contradicted => {
            off.first_off = None;
            None
        }
        Power::Off => {
            let first = *off.first_off.get_or_insert(reading.at);
            if reading.at.since(first) >= span_ms {
                return Some(done(off));
            }
            // Read in the middle of the span and at its end.
            let left = span_ms - reading.at.since(first);
            Some(NextCall::WaitUntil(now.elapsed.plus(left.min(READ_GAP_MS.max(span_ms / 2)))))
        }
        Power::On if off.first_off.is_some() => Some(done(off)),
        Power::On if off.way == Way::Found && enforces_31 => Some(failed(Failure::ForeignChange, &off.readings, false)),
        Power::On if off.way != Way::Command => Some(done(off)),
        Power::On | Power::Transitioning | Power::Unknown => {
            off.first_off = None;
            None
        }
    }
}
