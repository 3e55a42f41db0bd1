//! The chassis (section 28): power, its control, boot options.

use super::command::{Answer, LENGTH, RANGE, failed};
use crate::misbehaviour::Misbehaviour;
use crate::state::{Handle, PERSISTENT, State, accepted};
use machine::{BmcFault, BmcReply, BmcRequest, BootOverride, OffCause, Power};
use std::time::Duration;

/// Get Chassis Capabilities: front panel lockout and interrupt, everything at the BMC.
pub(super) fn capabilities() -> Answer {
    Answer::of([0x06, 0x20, 0x20, 0x20, 0x20, 0x20])
}

pub(super) fn chassis_status(state: &mut State, at: u64) -> Answer {
    match state.ask(at, BmcRequest::ReadPower).result {
        Ok(BmcReply::Power(read)) => {
            let on = u8::from(read.power != Power::Off);
            let last = match read.cause {
                OffCause::AcLoss => 0x01,
                OffCause::Fault => 0x08,
                _ => 0x10,
            };
            // Restore policy: stays off.
            Answer::of([on, last, 0])
        }
        Ok(_) => Answer::no(0xff),
        Err(why) => failed(why),
    }
}

pub(super) fn chassis_control(state: &mut State, handle: &Handle, at: u64, data: &[u8]) -> Answer {
    let request = match data.first().map(|byte| byte & 0x0f) {
        Some(0) => BmcRequest::ForceOff,
        Some(1) => BmcRequest::PowerOn,
        Some(2 | 3) => BmcRequest::ForceRestart,
        Some(4) => {
            state.counted.interrupts += 1;
            return Answer::of([]);
        }
        Some(5) => BmcRequest::GracefulShutdown,
        Some(_) => return Answer::no(RANGE),
        None => return Answer::no(LENGTH),
    };
    let outcome = state.ask(at, request);
    let after = handle.until(outcome.arrives_at).min(Duration::from_secs(5));
    match accepted(&outcome) {
        Ok(true) => Answer { after, ..Answer::of([]) },
        Ok(false) => Answer::no(0xd5),
        Err(why) => failed(why),
    }
}

pub(super) fn set_boot(state: &mut State, at: u64, data: &[u8]) -> Answer {
    let [parameter, values @ ..] = data else { return Answer::no(LENGTH) };
    match parameter & 0x7f {
        3 => {
            // Bit 3: the flags do not expire when a minute passes without a command (section 28.13).
            state.boot.ipmi_expires = values.first().is_none_or(|byte| byte & 0x08 == 0);
            Answer::of([])
        }
        5 => {
            let Some(flags) = values.get(..5).and_then(|flags| <[u8; 5]>::try_from(flags).ok()) else {
                return Answer::no(LENGTH);
            };
            let boot = match (flags[1] >> 2) & 0x0f {
                0x1 => BootOverride::NetworkOnce,
                0x2 | 0x9 => BootOverride::DiskOnce,
                0x5 => BootOverride::VirtualMediaOnce,
                _ => BootOverride::None,
            };
            let outcome = state.ask(at, BmcRequest::SetBootOnce(boot));
            if let Err(why) = accepted(&outcome) {
                return failed(why);
            }
            if !state.has(Misbehaviour::IpmiBootNotSet) {
                state.boot.ipmi = flags;
                state.boot.ipmi_set_at_ms = at;
                if state.has(Misbehaviour::IpmiBootSetForever) {
                    state.boot.ipmi[0] |= PERSISTENT;
                    state.machine.inject_bmc(at, BmcFault::KeepsBoot);
                }
            }
            Answer::of([])
        }
        // Set in progress, acknowledge, initiator: taken and not looked at.
        0 | 2 | 4 | 6 | 7 => Answer::of([]),
        _ => Answer::no(0x80),
    }
}

pub(super) fn get_boot(state: &mut State, at: u64, data: &[u8]) -> Answer {
    state.settle(at);
    let Some(parameter) = data.first().map(|byte| byte & 0x7f) else { return Answer::no(LENGTH) };
    let mut answer = vec![1, parameter];
    match parameter {
        0 => answer.push(0),
        3 => answer.push(if state.boot.ipmi_expires { 0 } else { 0x08 }),
        4 => answer.extend([0, 0]),
        5 => answer.extend(state.boot.ipmi),
        _ => return Answer::no(0x80),
    }
    Answer::of(answer)
}
