//! Data Center Manageability Interface 1.5: what the machine draws.

use super::command::{Answer, INVALID, LENGTH, stamp};
use crate::state::State;
use machine::{BmcReply, BmcRequest, Power};

/// The group extension of DCMI.
const GROUP: u8 = 0xdc;

pub(super) fn run(state: &mut State, at: u64, command: u8, data: &[u8]) -> Answer {
    match (command, data) {
        // Capabilities: version 1.5, power management, no trap, in-band or LAN.
        (0x01, [GROUP, 1, ..]) => Answer::of([GROUP, 1, 5, 2, 0, 0x01, 0x04]),
        (0x01, [GROUP, _, ..]) => Answer::no(0xcc),
        (0x02, [GROUP, 1, ..]) => reading(state, at),
        (0x02, [GROUP, _, ..]) => Answer::no(0xcc),
        (_, [GROUP, ..]) => Answer::no(INVALID),
        (_, []) => Answer::no(LENGTH),
        // Another group.
        _ => Answer::no(INVALID),
    }
}

/// Get Power Reading: now; the least, the most and the average are of this moment too.
fn reading(state: &mut State, at: u64) -> Answer {
    let Ok(BmcReply::Watts(watts)) = state.ask(at, BmcRequest::ReadWatts).result else { return Answer::no(0xc0) };
    let watts = u16::try_from(watts).unwrap_or(u16::MAX).to_le_bytes();
    let mut answer = vec![GROUP];
    for _ in 0..4 {
        answer.extend(watts);
    }
    answer.extend(stamp(at).to_le_bytes());
    answer.extend(1_000u32.to_le_bytes());
    // Bit 6: it is measured now.
    answer.push(if state.machine.power() == Power::Off { 0 } else { 0x40 });
    Answer::of(answer)
}
