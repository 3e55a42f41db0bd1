//! The event log (section 31): info, reservation, records, clearing, the clock.

use super::command::{ABSENT, Answer, INVALID, LENGTH, RESERVATION, part, stamp, u16_of};
use super::sensors;
use crate::misbehaviour::Misbehaviour;
use crate::state::State;
use machine::{BmcEvent, BmcEventKind, OffCause};

pub(super) fn run(state: &mut State, at: u64, command: u8, data: &[u8]) -> Answer {
    match command {
        0x40 => {
            let events = state.events(at);
            let mut answer = vec![0x51];
            answer.extend(u16::try_from(events.len()).unwrap_or(0).to_le_bytes());
            let full = state.has(Misbehaviour::IpmiLogOverflows);
            answer.extend(if full { [0, 0] } else { [0xff, 0xff] });
            answer.extend(events.last().map_or(0, |event| stamp(event.at)).to_le_bytes());
            answer.extend(state.log_cleared_at_ms.map_or(0, stamp).to_le_bytes());
            // Reserving is supported; bit 7: events were dropped for lack of space.
            answer.push(if full { 0x82 } else { 0x02 });
            Answer::of(answer)
        }
        0x42 => {
            state.log_reservation = state.log_reservation.wrapping_add(1).max(1);
            Answer::of(state.log_reservation.to_le_bytes())
        }
        0x43 => entry(state, at, data),
        0x47 => clear(state, at, data),
        0x48 => Answer::of(stamp(at).to_le_bytes()),
        _ => Answer::no(INVALID),
    }
}

/// Whether a reservation is lost: another was made since, or it is one of those that are lost at once.
fn is_lost(state: &State, reservation: u16) -> bool {
    reservation != state.log_reservation || state.has(Misbehaviour::IpmiReservationLost)
}

fn entry(state: &mut State, at: u64, data: &[u8]) -> Answer {
    let (Some(reservation), Some(id)) = (u16_of(data, 0), u16_of(data, 2)) else { return Answer::no(LENGTH) };
    // A whole record may be read without one.
    let partial = data.get(4).is_some_and(|offset| *offset != 0);
    let lost = state.has(Misbehaviour::IpmiReservationLost) && reservation != 0;
    if lost || (partial && is_lost(state, reservation)) {
        return Answer::no(RESERVATION);
    }
    let events = state.events(at);
    let place = match id {
        0 => Some(0),
        0xffff => events.len().checked_sub(1),
        id => events.iter().position(|event| event.id == u64::from(id)),
    };
    let Some((place, event)) = place.and_then(|place| events.get(place).map(|event| (place, event))) else {
        return Answer::no(ABSENT);
    };
    let next = events.get(place + 1).map_or(0xffff, |event| u16::try_from(event.id).unwrap_or(0xffff));
    part(&record(event), next, data)
}

fn clear(state: &mut State, at: u64, data: &[u8]) -> Answer {
    let (Some(reservation), Some(&[b'C', b'L', b'R', action])) = (u16_of(data, 0), data.get(2..6)) else {
        return Answer::no(if data.len() < 6 { LENGTH } else { 0xcc });
    };
    if is_lost(state, reservation) {
        return Answer::no(RESERVATION);
    }
    match action {
        0xaa => state.clear_events(at),
        // How far it is.
        0 => {}
        _ => return Answer::no(0xcc),
    }
    // Done.
    Answer::of([1])
}

/// A system event record (section 32.1).
fn record(event: &BmcEvent) -> Vec<u8> {
    // Sensor type, number, event type, data 1.
    let [kind, number, event_type, first] = match event.kind {
        BmcEventKind::PoweredOff(OffCause::AcLoss) => [0x09, 0x80, 0x6f, 0x04],
        BmcEventKind::PoweredOff(OffCause::Fault) => [0x09, 0x80, 0x6f, 0x06],
        BmcEventKind::PoweredOff(_) => [0x22, 0x81, 0x6f, 0x06],
        BmcEventKind::PoweredOn => [0x22, 0x81, 0x6f, 0x00],
        BmcEventKind::Reset => [0x1d, 0x82, 0x6f, 0x01],
        BmcEventKind::PostBegan => [0x0f, 0x83, 0x6f, 0x02],
        BmcEventKind::ShuttingDown => [0x20, 0x84, 0x6f, 0x03],
        BmcEventKind::HardwareFailed(kind) => sensors::failure(kind),
        BmcEventKind::BmcRestarted => [0x1d, 0x86, 0x6f, 0x00],
    };
    let mut record = u16::try_from(event.id).unwrap_or(0xfffe).to_le_bytes().to_vec();
    record.push(0x02);
    record.extend(stamp(event.at).to_le_bytes());
    record.extend([0x20, 0x00, 0x04, kind, number, event_type, first, 0xff, 0xff]);
    record
}
