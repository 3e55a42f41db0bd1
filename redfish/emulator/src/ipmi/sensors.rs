//! Sensors and their records (sections 33, 35 and 43): what the machine is like, and what of it broke.

use super::command::{ABSENT, Answer, INVALID, LENGTH, RESERVATION, part, u16_of};
use crate::misbehaviour::Misbehaviour;
use crate::state::State;
use machine::{HardwareKind, Machine, Power};

/// What a sensor shows.
#[derive(Clone, Copy)]
enum Shows {
    /// A value when the host is on and when it is off, in steps of the sensor.
    Value { unit: u8, factor: u8, result_exponent: i8, on: u8, off: u8, upper_critical: u8 },
    /// States: the one that always is, if one is, and the one that a failure adds.
    State { usual: Option<u8>, failed: u8, kind: HardwareKind },
}

/// A sensor.
struct Sensor {
    number: u8,
    kind: u8,
    name: &'static str,
    shows: Shows,
}

const fn value(unit: u8, factor: u8, result_exponent: i8, on: u8, off: u8, upper_critical: u8) -> Shows {
    Shows::Value { unit, factor, result_exponent, on, off, upper_critical }
}

const CPU_TEMPERATURE: u8 = 1;
const VOLTAGE: u8 = 5;
const WATTS: u8 = 6;
/// Watts a step of that sensor.
const WATTS_FACTOR: u8 = 4;

const SENSORS: &[Sensor] = &[
    Sensor { number: CPU_TEMPERATURE, kind: 1, name: "CPU1 Temp", shows: value(1, 1, 0, 48, 24, 95) },
    Sensor { number: 2, kind: 1, name: "Inlet Temp", shows: value(1, 1, 0, 23, 21, 45) },
    Sensor { number: 3, kind: 4, name: "FAN1", shows: value(18, 100, 0, 72, 0, 250) },
    Sensor { number: 4, kind: 4, name: "FAN2", shows: value(18, 100, 0, 70, 0, 250) },
    Sensor { number: VOLTAGE, kind: 2, name: "12V", shows: value(4, 6, -2, 201, 0, 220) },
    Sensor { number: WATTS, kind: 8, name: "PSU1 Power", shows: value(6, WATTS_FACTOR, 0, 60, 2, 200) },
    Sensor {
        number: 7,
        kind: 8,
        name: "PSU1 Status",
        // Presence detected; failure detected.
        shows: Shows::State { usual: Some(0), failed: 1, kind: HardwareKind::PowerSupply },
    },
    Sensor {
        number: 8,
        kind: 7,
        name: "CPU1 Status",
        // Processor presence; internal error.
        shows: Shows::State { usual: Some(7), failed: 0, kind: HardwareKind::Processor },
    },
    Sensor {
        number: 9,
        kind: 0x0c,
        name: "DIMM A1",
        // Presence; an error that cannot be corrected.
        shows: Shows::State { usual: Some(6), failed: 1, kind: HardwareKind::Memory },
    },
    Sensor {
        number: 10,
        kind: 0x0d,
        name: "Disk 0",
        // Drive present; drive fault.
        shows: Shows::State { usual: Some(0), failed: 1, kind: HardwareKind::Disk },
    },
];

pub(super) fn run(state: &mut State, net_fn: u8, command: u8, data: &[u8]) -> Answer {
    match (net_fn, command) {
        (0x0a, 0x20) => {
            let count = u16::try_from(SENSORS.len()).unwrap_or(0).to_le_bytes();
            // Version 1.5, records, free space, time of the last change and erasure, reserving supported.
            Answer::of([0x51, count[0], count[1], 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x02])
        }
        (0x0a, 0x22) => {
            state.sensor_reservation = state.sensor_reservation.wrapping_add(1).max(1);
            Answer::of(state.sensor_reservation.to_le_bytes())
        }
        (0x0a, 0x23) => record(state, data),
        // Get Device SDR Info: sensors of logical unit 0, which do not change.
        (0x04, 0x20) => Answer::of([u8::try_from(SENSORS.len()).unwrap_or(0), 0x01]),
        (0x04, 0x2d) => reading(&state.machine, data),
        (0x04, 0x27) => thresholds(data),
        _ => Answer::no(INVALID),
    }
}

/// How a failure stands in the event log: sensor type, number, event type, first byte of data.
pub(super) fn failure(kind: HardwareKind) -> [u8; 4] {
    let broken = SENSORS.iter().find_map(|sensor| match sensor.shows {
        Shows::State { failed, kind: breaks, .. } if breaks == kind => Some([sensor.kind, sensor.number, 0x6f, failed]),
        _ => None,
    });
    match kind {
        // Upper critical, going high.
        HardwareKind::Thermal => [0x01, CPU_TEMPERATURE, 0x01, 0x09],
        // A system event of the board that nobody can place.
        _ => broken.unwrap_or([0x12, 0x85, 0x6f, 0x02]),
    }
}

fn record(state: &State, data: &[u8]) -> Answer {
    let (Some(reservation), Some(id)) = (u16_of(data, 0), u16_of(data, 2)) else { return Answer::no(LENGTH) };
    let partial = data.get(4).is_some_and(|offset| *offset != 0);
    let lost = state.has(Misbehaviour::IpmiReservationLost) || reservation != state.sensor_reservation;
    if partial && lost {
        return Answer::no(RESERVATION);
    }
    let Some(sensor) = SENSORS.get(usize::from(id)) else { return Answer::no(ABSENT) };
    let next = if usize::from(id) + 1 < SENSORS.len() { id + 1 } else { 0xffff };
    part(&full_record(id, sensor), next, data)
}

/// A full sensor record (section 43.1).
fn full_record(id: u16, sensor: &Sensor) -> Vec<u8> {
    let mut body = vec![0x20, 0, sensor.number];
    match sensor.shows {
        Shows::Value { unit, factor, result_exponent, on, off, upper_critical } => {
            // Entity 7.1; initialised; thresholds readable; type, threshold based.
            body.extend([7, 1, 0x7f, 0x68, sensor.kind, 0x01]);
            // Masks: upper critical asserted, deasserted, readable.
            body.extend([0x80, 0x02, 0x80, 0x02, 0x10, 0x10]);
            // Unsigned; base unit; linear.
            body.extend([0, unit, 0, 0]);
            // M, tolerance, B, accuracy, exponents (R in the high half).
            #[allow(clippy::cast_sign_loss)] // Four bits of two's complement.
            let exponents = (result_exponent as u8 & 0x0f) << 4;
            body.extend([factor, 0, 0, 0, 0, exponents]);
            // Nominal reading, normal range, sensor range, thresholds, hysteresis.
            body.extend([0x01, on, on, off, 0xff, 0]);
            body.extend([0xff, upper_critical, upper_critical, 0, 0, 0, 1, 1]);
        }
        Shows::State { usual, failed, .. } => {
            let mask = 1u16 << failed | usual.map_or(0, |usual| 1 << usual);
            let [low, high] = mask.to_le_bytes();
            // Entity 7.1; initialised; no thresholds; type, specific to the sensor; masks; no value.
            body.extend([7, 1, 0x7f, 0x40, sensor.kind, 0x6f]);
            body.extend([low, high, low, high, low, high]);
            body.extend([0xc0, 0, 0, 0]);
            body.extend([0; 20]);
        }
    }
    body.extend([0, 0, 0]);
    body.push(0xc0 | u8::try_from(sensor.name.len()).unwrap_or(0));
    body.extend(sensor.name.bytes());
    let mut record = id.to_le_bytes().to_vec();
    record.extend([0x51, 0x01, u8::try_from(body.len()).unwrap_or(0)]);
    record.extend(body);
    record
}

fn reading(machine: &Machine, data: &[u8]) -> Answer {
    let Some(number) = data.first() else { return Answer::no(LENGTH) };
    let Some(sensor) = SENSORS.iter().find(|sensor| sensor.number == *number) else { return Answer::no(ABSENT) };
    let failed = machine.hardware();
    match sensor.shows {
        Shows::Value { on, off, upper_critical, .. } => {
            let hot = sensor.number == CPU_TEMPERATURE && failed == Some(HardwareKind::Thermal);
            let value = match sensor.number {
                // What flows says whether there is a feed at all.
                WATTS => u8::try_from(machine.watts() / u32::from(WATTS_FACTOR)).unwrap_or(u8::MAX),
                VOLTAGE if machine.watts() == 0 => 0,
                _ if machine.power() == Power::Off => off,
                _ if hot => upper_critical.saturating_add(2),
                _ => on,
            };
            // Events and scanning on; bit 4 = at or above upper critical.
            let over = if value >= upper_critical { 0x10 } else { 0 };
            Answer::of([value, 0xc0, 0xc0 | over, 0x80])
        }
        Shows::State { usual, failed: state, kind } => {
            let usual = usual.map_or(0u16, |usual| 1 << usual);
            let broken = if failed == Some(kind) { 1 << state } else { 0 };
            let [low, high] = (usual | broken).to_le_bytes();
            Answer::of([0, 0xc0, low, 0x80 | high])
        }
    }
}

fn thresholds(data: &[u8]) -> Answer {
    let Some(number) = data.first() else { return Answer::no(LENGTH) };
    match SENSORS.iter().find(|sensor| sensor.number == *number).map(|sensor| sensor.shows) {
        Some(Shows::Value { upper_critical, .. }) => Answer::of([0x10, 0, 0, 0, 0, upper_critical, 0]),
        // A sensor of states has none.
        Some(Shows::State { .. }) => Answer::no(0xcd),
        None => Answer::no(ABSENT),
    }
}
