//! Commands, from bytes to the machine and back.

use super::storage;
use crate::misbehaviour::Misbehaviour;
use crate::state::{Handle, State, accepted};
use bmc::Secret;
use machine::{BmcError, BmcReply, BmcRequest, BootOverride, OffCause, Power};
use std::time::Duration;

/// What is answered.
pub(super) struct Answer {
    pub(super) code: u8,
    pub(super) data: Vec<u8>,
    pub(super) after: Duration,
    /// Done, and never answered.
    pub(super) lost: bool,
}

impl Answer {
    pub(super) fn of(data: impl Into<Vec<u8>>) -> Answer {
        Answer { code: 0, data: data.into(), after: Duration::ZERO, lost: false }
    }

    pub(super) fn no(code: u8) -> Answer {
        Answer { code, data: Vec::new(), after: Duration::ZERO, lost: false }
    }
}

/// Invalid command.
pub(super) const INVALID: u8 = 0xc1;
/// Reservation lost.
pub(super) const RESERVATION: u8 = 0xc5;
/// Request too short or too long.
pub(super) const LENGTH: u8 = 0xc7;
/// Parameter out of range.
pub(super) const RANGE: u8 = 0xc9;
/// No such record.
pub(super) const ABSENT: u8 = 0xcb;
/// Insufficient privilege.
const PRIVILEGE: u8 = 0xd4;

/// What a session remembers between commands.
pub(super) struct Context {
    account_privilege: u8,
    asked_privilege: u8,
    privilege: u8,
    pub(super) sel_reservation: u16,
    pub(super) sdr_reservation: u16,
}

impl Context {
    pub(super) fn new(account_privilege: u8, asked_privilege: u8) -> Context {
        // A session opens at User (section 6.8).
        let privilege = 2.min(account_privilege);
        Context { account_privilege, asked_privilege, privilege, sel_reservation: 0, sdr_reservation: 0 }
    }
}

/// A command outside a session.
pub(super) fn sessionless(handle: &Handle, net_fn: u8, command: u8, data: &[u8]) -> Answer {
    match (net_fn, command) {
        (0x06, 0x38) => {
            let extended = data.first().is_some_and(|byte| byte & 0x80 != 0);
            let null_users = u8::from(handle.lock().account("").is_some()) << 1;
            // Non-null user names, no key, IPMI 2.0 (section 22.13).
            Answer::of([1, if extended { 0x80 } else { 0 }, 0x04 | null_users, 0x02, 0, 0, 0, 0])
        }
        (0x06, 0x54) => {
            let index = usize::from(data.get(2).copied().unwrap_or(0) & 0x3f);
            let mut records = vec![0xc0, 3, 0x01, 0x41, 0x81, 0xc0, 17, 0x03, 0x44, 0x81];
            if handle.lock().has(Misbehaviour::IpmiSuiteZero) {
                records.extend([0xc0, 0, 0x00, 0x40, 0x80]);
            }
            let part = records.chunks(16).nth(index).unwrap_or_default();
            let mut answer = vec![1];
            answer.extend(part);
            Answer::of(answer)
        }
        (0x06, 0x37) => Answer::of(handle.lock().machine.bmc_identity().to_be_bytes()),
        _ => Answer::no(PRIVILEGE),
    }
}

/// Why a command is not even looked at: the BMC is busy, or the session's privilege is too low.
pub(super) fn refusal(handle: &Handle, context: &Context, net_fn: u8, command: u8) -> Option<Answer> {
    if handle.lock().has(Misbehaviour::IpmiBusy) && (net_fn, command) != (0x06, 0x3c) {
        return Some(Answer::no(0xc0));
    }
    let needs = match (net_fn, command) {
        (0x00, 0x02 | 0x08) => 3,
        (0x06, 0x02 | 0x43 | 0x45 | 0x47 | 0x4c) | (0x0a, 0x47) | (0x0c, 0x01 | 0x21) => 4,
        _ => 1,
    };
    (context.privilege < needs).then(|| Answer::no(PRIVILEGE))
}

/// A command within a session.
pub(super) fn run(handle: &Handle, context: &mut Context, net_fn: u8, command: u8, data: &[u8]) -> Answer {
    if let Some(refusal) = refusal(handle, context, net_fn, command) {
        return refusal;
    }
    let at = handle.now();
    let mut state = handle.lock();
    match (net_fn, command) {
        (0x06, 0x01) => device_id(&state),
        (0x06, 0x02) => simple(&mut state, at, BmcRequest::Reset),
        (0x06, 0x37) => Answer::of(state.machine.bmc_identity().to_be_bytes()),
        (0x06, 0x38 | 0x54) => {
            drop(state);
            sessionless(handle, net_fn, command, data)
        }
        (0x06, 0x3b) => privilege(context, data),
        (0x06, 0x3c) => Answer::of([]),
        (0x06, 0x44) => user_access(&state, data),
        (0x06, 0x46) => user_name(&state, data),
        (0x06, 0x47) => user_password(&mut state, data),
        (0x00, 0x01) => chassis_status(&mut state, at),
        (0x00, 0x02) => chassis_control(&mut state, handle, at, data),
        (0x00, 0x08) => set_boot(&mut state, at, data),
        (0x00, 0x09) => get_boot(&mut state, at, data),
        (0x0a, _) | (0x04, _) => storage::run(&mut state, context, at, net_fn, command, data),
        _ => Answer::no(INVALID),
    }
}

fn device_id(state: &State) -> Answer {
    let enterprise = state.model.enterprise.to_le_bytes();
    // SDR repository, SEL, chassis; firmware 2.14, IPMI 2.0.
    let support = 0x80 | 0x08 | 0x04 | 0x02 | 0x01;
    Answer::of([0x20, 1, 2, 0x14, 0x02, support, enterprise[0], enterprise[1], enterprise[2], 1, 0, 0, 0, 0, 0])
}

fn privilege(context: &mut Context, data: &[u8]) -> Answer {
    match data.first().copied() {
        None => Answer::no(LENGTH),
        Some(0) => Answer::of([context.privilege]),
        Some(level) if level > 4 => Answer::no(0x80),
        Some(level) if level > context.account_privilege || level > context.asked_privilege.max(2) => Answer::no(0x81),
        Some(level) => {
            context.privilege = level;
            Answer::of([level])
        }
    }
}

fn user_access(state: &State, data: &[u8]) -> Answer {
    let Some(id) = data.get(1).map(|id| usize::from(id & 0x3f)) else { return Answer::no(LENGTH) };
    let enabled = u8::try_from(state.accounts.len()).unwrap_or(0);
    let account = id.checked_sub(2).and_then(|place| state.accounts.get(place));
    // IPMI messaging on, privilege; id status 01 = enabled (section 22.27).
    let access = account.map_or(0x0f, |account| 0x30 | account.privilege);
    let status = if account.is_some() { 0x40 } else { 0x80 };
    Answer::of([10, status | enabled, 0, access])
}

fn user_name(state: &State, data: &[u8]) -> Answer {
    let Some(id) = data.first().map(|id| usize::from(id & 0x3f)) else { return Answer::no(LENGTH) };
    let mut name = [0; 16];
    if let Some(account) = id.checked_sub(2).and_then(|place| state.accounts.get(place)) {
        for (place, byte) in name.iter_mut().zip(account.name.bytes()) {
            *place = byte;
        }
    }
    Answer::of(name)
}

fn user_password(state: &mut State, data: &[u8]) -> Answer {
    let [id, operation, password @ ..] = data else { return Answer::no(LENGTH) };
    let place = usize::from(id & 0x3f).checked_sub(2);
    let Some(account) = place.and_then(|place| state.accounts.get_mut(place)) else { return Answer::no(RANGE) };
    if password.len() != 16 && password.len() != 20 {
        return if operation & 3 < 2 { Answer::of([]) } else { Answer::no(LENGTH) };
    }
    let end = password.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let given = Secret::new(password.get(..end).unwrap_or_default().to_vec());
    match operation & 3 {
        2 => {
            account.password = given;
            Answer::of([])
        }
        3 if account.password == given => Answer::of([]),
        3 => Answer::no(0x80),
        _ => Answer::of([]),
    }
}

fn chassis_status(state: &mut State, at: u64) -> Answer {
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

fn failed(why: BmcError) -> Answer {
    match why {
        BmcError::Busy => Answer::no(0xc0),
        BmcError::Refused => Answer::no(PRIVILEGE),
        BmcError::Silent | BmcError::ReplyLost => Answer { lost: true, ..Answer::of([]) },
    }
}

fn simple(state: &mut State, at: u64, request: BmcRequest) -> Answer {
    let outcome = state.ask(at, request);
    match accepted(&outcome) {
        Ok(true) => Answer::of([]),
        // Not possible in the present state.
        Ok(false) => Answer::no(0xd5),
        Err(why) => failed(why),
    }
}

fn chassis_control(state: &mut State, handle: &Handle, at: u64, data: &[u8]) -> Answer {
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

fn set_boot(state: &mut State, at: u64, data: &[u8]) -> Answer {
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
            }
            Answer::of([])
        }
        // Set in progress, acknowledge, initiator: taken and not looked at.
        0 | 2 | 4 | 6 | 7 => Answer::of([]),
        _ => Answer::no(0x80),
    }
}

fn get_boot(state: &mut State, at: u64, data: &[u8]) -> Answer {
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
