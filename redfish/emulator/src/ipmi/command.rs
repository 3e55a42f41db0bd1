//! Commands, from bytes to the machine and back.

use super::{chassis, dcmi, fru, lan, sel, sensors, users};
use crate::misbehaviour::Misbehaviour;
use crate::state::{Handle, State, accepted};
use machine::{BmcError, BmcRequest};
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
}

impl Context {
    pub(super) fn new(account_privilege: u8, asked_privilege: u8) -> Context {
        // A session opens at User (section 6.8).
        let privilege = 2.min(account_privilege);
        Context { account_privilege, asked_privilege, privilege }
    }
}

/// A little-endian number at a place.
pub(super) fn u16_of(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(data.get(at..at + 2)?.try_into().ok()?))
}

/// The part of a record that was asked for, behind the next record's number.
pub(super) fn part(record: &[u8], next: u16, data: &[u8]) -> Answer {
    let (Some(offset), Some(count)) = (data.get(4).copied(), data.get(5).copied()) else { return Answer::no(LENGTH) };
    let rest = record.get(usize::from(offset)..).unwrap_or_default();
    let count = if count == 0xff { rest.len() } else { usize::from(count).min(rest.len()) };
    let mut answer = next.to_le_bytes().to_vec();
    answer.extend(rest.get(..count).unwrap_or_default());
    Answer::of(answer)
}

/// A moment of the machine as a BMC's clock: counted from the beginning of 2026.
pub(super) fn stamp(at: u64) -> u32 {
    1_767_225_600u32.saturating_add(u32::try_from(at / 1_000).unwrap_or(u32::MAX))
}

/// A command outside a session.
pub(super) fn sessionless(handle: &Handle, net_fn: u8, command: u8, data: &[u8]) -> Answer {
    match (net_fn, command) {
        (0x06, 0x38) => {
            let extended = data.first().is_some_and(|byte| byte & 0x80 != 0);
            let null_users = u8::from(handle.lock().ipmi_account("").is_some()) << 1;
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
        (0x06, 0x37) => Answer::of(handle.lock().identity().to_be_bytes()),
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
    state.settle(at);
    match (net_fn, command) {
        (0x06, 0x01) => device_id(&state),
        (0x06, 0x02) => simple(&mut state, at, BmcRequest::Reset),
        (0x06, 0x37) => Answer::of(state.identity().to_be_bytes()),
        (0x06, 0x38 | 0x54) => {
            drop(state);
            sessionless(handle, net_fn, command, data)
        }
        (0x06, 0x3b) => privilege(context, data),
        (0x06, 0x3c) => Answer::of([]),
        // Get Self Test Results: all well. BMC Global Enables: the event log is on.
        (0x06, 0x04) => Answer::of([0x55, 0]),
        (0x06, 0x2f) => Answer::of([0x08]),
        (0x06, 0x41) => lan::channel_access(data),
        (0x06, 0x42) => lan::channel_info(&state, data),
        (0x06, 0x43..=0x47) => users::run(&mut state, command, data),
        (0x00, 0x00) => chassis::capabilities(),
        (0x00, 0x01) => chassis::chassis_status(&mut state, at),
        (0x00, 0x02) => chassis::chassis_control(&mut state, handle, at, data),
        (0x00, 0x08) => chassis::set_boot(&mut state, at, data),
        (0x00, 0x09) => chassis::get_boot(&mut state, at, data),
        (0x0a, 0x10..=0x1f) => fru::run(&state, command, data),
        (0x0a, 0x40..=0x4f) => sel::run(&mut state, at, command, data),
        (0x0a, 0x20..=0x2f) | (0x04, _) => sensors::run(&mut state, net_fn, command, data),
        (0x0c, 0x02) => lan::parameter(&state, data),
        (0x2c, _) => dcmi::run(&mut state, at, command, data),
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

pub(super) fn failed(why: BmcError) -> Answer {
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
