//! Power on: read, write, read back. Never cancelled: it is how everything ends well.

use super::{POLL_MS, RESEND_MS, SENDS_MAX, State, StepRun, failed, keep, right_machine};
use crate::command::{BmcCall, Call, Failure, Intent, NextCall, Observation, Reply, StepResult};
use crate::fence::Reading;
use crate::rules::Rules;
use crate::signal::{BmcTrouble, Power};
use crate::time::{Elapsed, Now};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Asked {
    #[default]
    Nothing,
    Outlets,
    Power,
    On,
}

/// How far it is.
#[derive(Debug, Default)]
pub(super) struct On {
    asked: Asked,
    readings: Vec<Reading>,
    sends: u8,
    sent: Option<Elapsed>,
    last_send: Option<Elapsed>,
    accepted: bool,
    fed: bool,
}

pub(super) fn next<R: Rules>(run: &mut StepRun<R>, observation: &Observation, now: Now) -> NextCall {
    let target = &run.command.target;
    let (host, machine, limit, outlets_off) = (target.host, target.machine, target.effect_ms, target.outlets_off);
    let alarm = matches!(run.command.intent(), Intent::PowerOn { alarm: true });
    let on_left = target.on_left;
    let mut age = run.age(now);
    let check = run.enforces(29) && !alarm;
    let read_back = run.enforces(30);
    let wait_to_write = run.write_at(now);
    let State::On(on) = &mut run.state else { return failed(Failure::Invalid, &[], false) };
    // An on of an executor that was lost may be under way: until its deadline it is only read back (rules 30, 44), and
    // this step's own deadline begins after it, or with its own on.
    let in_flight = read_back && on_left.is_some_and(|at| now.elapsed.since(at) < limit);
    if in_flight {
        age = 0;
    } else if let Some(at) = on.sent.or(on_left) {
        age = age.min(now.elapsed.since(at));
    }
    let sent = on.sends > 0;
    match (std::mem::take(&mut on.asked), observation) {
        (Asked::Outlets, Observation::Reply(reply)) => {
            on.fed = *reply == Reply::Ok;
            if age >= limit {
                return failed(Failure::BmcSilent, &on.readings, sent);
            }
            return NextCall::WaitUntil(now.elapsed.plus(POLL_MS));
        }
        (Asked::On, Observation::Reply(reply)) => {
            if matches!(reply, Reply::BmcTrouble(BmcTrouble::Refused)) {
                return failed(Failure::BmcRefused, &on.readings, true);
            }
            if !read_back && *reply == Reply::Ok {
                return NextCall::Done(StepResult::Done);
            }
            on.accepted |= *reply == Reply::Ok;
            return NextCall::WaitUntil(now.elapsed.plus(POLL_MS));
        }
        (Asked::Power, Observation::Reply(Reply::Power(reading))) => {
            keep(&mut on.readings, *reading);
            if check && !right_machine(reading.identity, machine) {
                let why = if reading.identity.is_some() { Failure::WrongMachine } else { Failure::BmcSilent };
                return failed(why, &on.readings, sent);
            }
            match reading.power {
                Power::On => return NextCall::Done(if sent { StepResult::Done } else { StepResult::AlreadySo }),
                Power::Off => {
                    let again = on.last_send.is_none_or(|at| now.elapsed.since(at) >= RESEND_MS);
                    // What was accepted is read back until its deadline and not sent again; a lost reply is unknown.
                    let may_send = !in_flight && !on.accepted && on.sends < SENDS_MAX;
                    if again && may_send && wait_to_write.is_none() {
                        on.sends += 1;
                        on.sent.get_or_insert(now.elapsed);
                        on.last_send = Some(now.elapsed);
                        on.asked = Asked::On;
                        run.last_write = Some(now.elapsed);
                        return NextCall::Call(Call::Bmc(host, BmcCall::PowerOn));
                    }
                }
                Power::Transitioning | Power::Unknown => {}
            }
            if age >= limit {
                return failed(Failure::NoEffect, &on.readings, sent);
            }
            return NextCall::WaitUntil(now.elapsed.plus(POLL_MS));
        }
        (Asked::Power, Observation::Reply(reply)) => {
            let why = match reply {
                Reply::BmcTrouble(BmcTrouble::Refused) => return failed(Failure::BmcRefused, &on.readings, sent),
                Reply::BmcTrouble(BmcTrouble::Busy) => Failure::BmcBusy,
                _ => Failure::BmcSilent,
            };
            if age >= limit {
                return failed(why, &on.readings, sent);
            }
            return NextCall::WaitUntil(now.elapsed.plus(POLL_MS));
        }
        _ => {}
    }
    if outlets_off && !on.fed {
        // Whoever cut the outlets switches them on first; to do so twice changes nothing.
        on.asked = Asked::Outlets;
        return NextCall::Call(Call::OutletsOn);
    }
    on.asked = Asked::Power;
    NextCall::Call(Call::Bmc(host, BmcCall::ReadPower))
}
