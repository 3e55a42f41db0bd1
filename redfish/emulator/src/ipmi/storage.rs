//! Event log and sensors.

use super::command::{ABSENT, Answer, Context, INVALID, LENGTH, RESERVATION};
use crate::misbehaviour::Misbehaviour;
use crate::state::State;
use machine::{BmcEvent, BmcEventKind, HardwareKind, OffCause, Power};

/// A sensor: number, type, unit, name, and its value when the host is on and when it is off, times ten for volts.
struct Sensor {
    number: u8,
    kind: u8,
    unit: u8,
    name: &'static str,
    /// M and the exponents of the linear formula (section 36.3).
    factor: u8,
    result_exponent: i8,
    on: u8,
    off: u8,
    upper_critical: u8,
}

const SENSORS: &[Sensor] = &[
    Sensor {
        number: 1,
        kind: 1,
        unit: 1,
        name: "CPU1 Temp",
        factor: 1,
        result_exponent: 0,
        on: 48,
        off: 24,
        upper_critical: 95,
    },
    Sensor {
        number: 2,
        kind: 1,
        unit: 1,
        name: "Inlet Temp",
        factor: 1,
        result_exponent: 0,
        on: 23,
        off: 21,
        upper_critical: 45,
    },
    Sensor {
        number: 3,
        kind: 4,
        unit: 18,
        name: "FAN1",
        factor: 100,
        result_exponent: 0,
        on: 72,
        off: 0,
        upper_critical: 250,
    },
    Sensor {
        number: 4,
        kind: 4,
        unit: 18,
        name: "FAN2",
        factor: 100,
        result_exponent: 0,
        on: 70,
        off: 0,
        upper_critical: 250,
    },
    Sensor {
        number: 5,
        kind: 2,
        unit: 4,
        name: "12V",
        factor: 6,
        result_exponent: -2,
        on: 201,
        off: 0,
        upper_critical: 220,
    },
    Sensor {
        number: 6,
        kind: 8,
        unit: 6,
        name: "PSU1 Power",
        factor: 4,
        result_exponent: 0,
        on: 60,
        off: 2,
        upper_critical: 200,
    },
];

pub(super) fn run(state: &mut State, context: &mut Context, at: u64, net_fn: u8, command: u8, data: &[u8]) -> Answer {
    state.settle(at);
    match (net_fn, command) {
        (0x0a, 0x20) => {
            let count = u16::try_from(SENSORS.len()).unwrap_or(0).to_le_bytes();
            // Version 1.5, records, free space, time of the last change and erasure, reserving supported.
            Answer::of([0x51, count[0], count[1], 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x02])
        }
        (0x0a, 0x22) => {
            context.sdr_reservation = context.sdr_reservation.wrapping_add(1).max(1);
            Answer::of(context.sdr_reservation.to_le_bytes())
        }
        (0x0a, 0x23) => sdr(state, context, data),
        (0x04, 0x2d) => reading(state, data),
        (0x04, 0x27) => thresholds(data),
        (0x0a, 0x40) => {
            let count = u16::try_from(events(state).len()).unwrap_or(0).to_le_bytes();
            Answer::of([0x51, count[0], count[1], 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x02])
        }
        (0x0a, 0x42) => {
            context.sel_reservation = context.sel_reservation.wrapping_add(1).max(1);
            Answer::of(context.sel_reservation.to_le_bytes())
        }
        (0x0a, 0x43) => sel(state, context, data),
        (0x0a, 0x48) => Answer::of(stamp(at).to_le_bytes()),
        _ => Answer::no(INVALID),
    }
}

fn u16_of(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(data.get(at..at + 2)?.try_into().ok()?))
}

/// The part of a record that was asked for, behind the next record's number.
fn part(record: &[u8], next: u16, data: &[u8]) -> Answer {
    let (Some(offset), Some(count)) = (data.get(4).copied(), data.get(5).copied()) else { return Answer::no(LENGTH) };
    let rest = record.get(usize::from(offset)..).unwrap_or_default();
    let count = if count == 0xff { rest.len() } else { usize::from(count).min(rest.len()) };
    let mut answer = next.to_le_bytes().to_vec();
    answer.extend(rest.get(..count).unwrap_or_default());
    Answer::of(answer)
}

fn sdr(state: &State, context: &Context, data: &[u8]) -> Answer {
    let (Some(reservation), Some(id)) = (u16_of(data, 0), u16_of(data, 2)) else { return Answer::no(LENGTH) };
    let partial = data.get(4).is_some_and(|offset| *offset != 0);
    let lost = state.has(Misbehaviour::IpmiReservationLost) && partial;
    if lost || (partial && reservation != context.sdr_reservation) {
        return Answer::no(RESERVATION);
    }
    let Some(sensor) = SENSORS.get(usize::from(id)) else { return Answer::no(ABSENT) };
    let next = if usize::from(id) + 1 < SENSORS.len() { id + 1 } else { 0xffff };
    part(&full_record(id, sensor), next, data)
}

/// A full sensor record (section 43.1).
fn full_record(id: u16, sensor: &Sensor) -> Vec<u8> {
    let mut body = vec![0x20, 0, sensor.number];
    // Entity 7.1; initialised; thresholds readable; type, threshold based.
    body.extend([7, 1, 0x7f, 0x68, sensor.kind, 0x01]);
    // Masks: upper critical asserted, deasserted, readable.
    body.extend([0x80, 0x02, 0x80, 0x02, 0x10, 0x10]);
    // Unsigned; base unit; linear.
    body.extend([0, sensor.unit, 0, 0]);
    // M, tolerance, B, accuracy, exponents (R in the high half).
    #[allow(clippy::cast_sign_loss)] // Four bits of two's complement.
    let exponents = (sensor.result_exponent as u8 & 0x0f) << 4;
    body.extend([sensor.factor, 0, 0, 0, 0, exponents]);
    // Nominal reading, normal range, sensor range, thresholds, hysteresis.
    body.extend([0x01, sensor.on, sensor.on, sensor.off, 0xff, 0]);
    body.extend([0xff, sensor.upper_critical, sensor.upper_critical, 0, 0, 0, 1, 1, 0, 0, 0]);
    body.push(0xc0 | u8::try_from(sensor.name.len()).unwrap_or(0));
    body.extend(sensor.name.bytes());
    let mut record = id.to_le_bytes().to_vec();
    record.extend([0x51, 0x01, u8::try_from(body.len()).unwrap_or(0)]);
    record.extend(body);
    record
}

fn reading(state: &State, data: &[u8]) -> Answer {
    let Some(number) = data.first() else { return Answer::no(LENGTH) };
    let Some(sensor) = SENSORS.iter().find(|sensor| sensor.number == *number) else { return Answer::no(ABSENT) };
    let off = state.machine.power() == Power::Off;
    let failed = state.machine.hardware();
    let hot = sensor.kind == 1 && matches!(failed, Some(HardwareKind::Thermal)) && sensor.number == 1;
    let value = match (off, hot) {
        (true, _) => sensor.off,
        (false, true) => sensor.upper_critical + 2,
        (false, false) => sensor.on,
    };
    // Events and scanning on; bit 4 = at or above upper critical.
    let over = if value >= sensor.upper_critical { 0x10 } else { 0 };
    Answer::of([value, 0xc0, 0xc0 | over, 0x80])
}

fn thresholds(data: &[u8]) -> Answer {
    let Some(number) = data.first() else { return Answer::no(LENGTH) };
    match SENSORS.iter().find(|sensor| sensor.number == *number) {
        Some(sensor) => Answer::of([0x10, 0, 0, 0, 0, sensor.upper_critical, 0]),
        None => Answer::no(ABSENT),
    }
}

fn events(state: &mut State) -> Vec<BmcEvent> {
    let at = state.machine.now();
    match state.machine.bmc_request(at, machine::BmcRequest::ReadEvents).result {
        Ok(machine::BmcReply::Events(events)) => events,
        _ => Vec::new(),
    }
}

/// A moment of the machine as a BMC's clock: counted from the beginning of 2026.
pub(crate) fn stamp(at: u64) -> u32 {
    1_767_225_600u32.saturating_add(u32::try_from(at / 1_000).unwrap_or(u32::MAX))
}

fn sel(state: &mut State, context: &Context, data: &[u8]) -> Answer {
    let (Some(reservation), Some(id)) = (u16_of(data, 0), u16_of(data, 2)) else { return Answer::no(LENGTH) };
    let partial = data.get(4).is_some_and(|offset| *offset != 0);
    let lost = state.has(Misbehaviour::IpmiReservationLost) && reservation != 0;
    if lost || (partial && reservation != context.sel_reservation) {
        return Answer::no(RESERVATION);
    }
    let events = events(state);
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

/// A system event record (section 32.1).
fn record(event: &BmcEvent) -> Vec<u8> {
    // Sensor type, number, event type, data 1 to 3.
    let (kind, number, event_type, first) = match event.kind {
        BmcEventKind::PoweredOff(OffCause::AcLoss) => (0x09, 0x80, 0x6f, 0x04),
        BmcEventKind::PoweredOff(OffCause::Fault) => (0x09, 0x80, 0x6f, 0x06),
        BmcEventKind::PoweredOff(_) => (0x22, 0x81, 0x6f, 0x06),
        BmcEventKind::PoweredOn => (0x22, 0x81, 0x6f, 0x00),
        BmcEventKind::Reset => (0x1d, 0x82, 0x6f, 0x01),
        BmcEventKind::PostBegan => (0x0f, 0x83, 0x6f, 0x02),
        BmcEventKind::ShuttingDown => (0x20, 0x84, 0x6f, 0x03),
        BmcEventKind::HardwareFailed(_) => (0x07, 0x85, 0x6f, 0x00),
        BmcEventKind::BmcRestarted => (0x1d, 0x86, 0x6f, 0x00),
    };
    let mut record = u16::try_from(event.id).unwrap_or(0xfffe).to_le_bytes().to_vec();
    record.push(0x02);
    record.extend(stamp(event.at).to_le_bytes());
    record.extend([0x20, 0x00, 0x04, kind, number, event_type, first, 0xff, 0xff]);
    record
}
