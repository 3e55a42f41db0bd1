//! The channel and its address (sections 22.24 and 23.2), as ipmitool's `channel info` and `lan print` ask for them.

use super::command::{Answer, LENGTH};
use crate::state::State;

/// The one channel.
pub(super) const CHANNEL: u8 = 1;
/// "The one this is sent on".
const THIS_CHANNEL: u8 = 0x0e;
/// No such parameter.
const UNKNOWN: u8 = 0x80;
/// Invalid data: no such channel.
const INVALID_DATA: u8 = 0xcc;

fn is_ours(channel: u8) -> bool {
    matches!(channel & 0x0f, CHANNEL | THIS_CHANNEL)
}

/// Get Channel Access: always available, each message and user authenticated, up to administrator.
pub(super) fn channel_access(data: &[u8]) -> Answer {
    match data.first() {
        Some(channel) if is_ours(*channel) => Answer::of([0x02, 4]),
        Some(_) => Answer::no(INVALID_DATA),
        None => Answer::no(LENGTH),
    }
}

/// Get Channel Info: 802.3 LAN by IPMB's protocol, many sessions, vendor "IPMI".
pub(super) fn channel_info(state: &State, data: &[u8]) -> Answer {
    match data.first() {
        Some(channel) if is_ours(*channel) => {
            let sessions = u8::try_from(state.machine.bmc_sessions()).unwrap_or(0x3f).min(0x3f);
            Answer::of([CHANNEL, 4, 1, 0x80 | sessions, 0xf2, 0x1b, 0, 0, 0])
        }
        Some(_) => Answer::no(INVALID_DATA),
        None => Answer::no(LENGTH),
    }
}

/// The BMC's own card: an address that nobody sells, made of the machine's identity.
fn mac(state: &State) -> [u8; 6] {
    let [a, b, c, d] = (state.machine.spec().identity as u32).to_be_bytes();
    [0x02, 0xbc, a, b, c, d]
}

/// Get LAN Configuration Parameters.
pub(super) fn parameter(state: &State, data: &[u8]) -> Answer {
    let [channel, parameter, ..] = *data else { return Answer::no(LENGTH) };
    if !is_ours(channel) {
        return Answer::no(INVALID_DATA);
    }
    let mut answer = vec![0x11];
    if channel & 0x80 != 0 {
        return Answer::of(answer);
    }
    match parameter {
        // Nothing under way; no authentication of 1.5 anywhere.
        0 | 1 => answer.push(0),
        2 => answer.extend([0; 5]),
        3 => answer.extend([127, 0, 0, 1]),
        // Static.
        4 => answer.push(1),
        5 => answer.extend(mac(state)),
        6 => answer.extend([255, 0, 0, 0]),
        // Time to live, flags and precedence, type of service.
        7 => answer.extend([0x40, 0x40, 0x10]),
        // It answers ARP itself, and sends none by itself.
        10 => answer.push(0x01),
        12 | 14 => answer.extend([0; 4]),
        13 | 15 => answer.extend([0; 6]),
        16 => answer.extend(b"public\0\0\0\0\0\0\0\0\0\0\0\0"),
        20 => answer.extend([0, 0]),
        21 => answer.push(0),
        22 => answer.push(2),
        23 => answer.extend([0, 3, 17]),
        // Both suites up to administrator.
        24 => answer.extend([0, 0x44, 0, 0, 0, 0, 0, 0, 0]),
        _ => return Answer::no(UNKNOWN),
    }
    Answer::of(answer)
}
