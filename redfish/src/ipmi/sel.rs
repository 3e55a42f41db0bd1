//! The system event log: its commands (section 31) and its records (section 32) in words.

use super::command::{Command, STORAGE};
use super::event;
use super::frame::{FrameError, sixteen_at, u16_at, u32_at};
use super::sdr::SensorRecord;
use crate::health::{LogEntry, Severity, tame};

/// Asks for the oldest record.
pub const FIRST_RECORD: u16 = 0x0000;
/// Next record ID of the last record.
pub const LAST_RECORD: u16 = 0xffff;

/// Times before this one count from the start of the BMC (section 37).
const FIRST_UNIX_TIME: u32 = 0x2000_0000;
const NO_TIME: u32 = 0xffff_ffff;

/// The log as a whole (section 31.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogInfo {
    /// Records in it.
    pub entries: u16,
    /// Room left, bytes; 0xffff is that much or more.
    pub free_bytes: u16,
    /// When a record was last added, by the BMC's clock.
    pub added_unix_s: Option<i64>,
    /// When it was last cleared, by the BMC's clock.
    pub cleared_unix_s: Option<i64>,
    /// Records were lost for want of room.
    pub overflowed: bool,
}

/// Get SEL Info (section 31.2).
#[must_use]
pub fn info() -> Command {
    Command::read(STORAGE, 0x40, Vec::new())
}

/// Reserve SEL (section 31.4).
#[must_use]
pub fn reserve() -> Command {
    Command::read(STORAGE, 0x42, Vec::new())
}

/// Get SEL Entry (section 31.5), whole.
#[must_use]
pub fn get_entry(reservation: u16, record: u16) -> Command {
    let ([r0, r1], [i0, i1]) = (reservation.to_le_bytes(), record.to_le_bytes());
    Command::read(STORAGE, 0x43, vec![r0, r1, i0, i1, 0x00, 0xff])
}

/// Get SEL Time (section 31.10).
#[must_use]
pub fn time() -> Command {
    Command::read(STORAGE, 0x48, Vec::new())
}

/// Reads the answer to [`info`].
///
/// # Errors
/// It is too short.
pub fn read_info(data: &[u8]) -> Result<LogInfo, FrameError> {
    let flags = data.get(13).ok_or(FrameError::Short("SEL info"))?;
    Ok(LogInfo {
        entries: u16_at(data, 1, "SEL info")?,
        free_bytes: u16_at(data, 3, "SEL info")?,
        added_unix_s: unix_s(u32_at(data, 5, "SEL info")?),
        cleared_unix_s: unix_s(u32_at(data, 9, "SEL info")?),
        overflowed: flags & 0x80 != 0,
    })
}

/// Reads the answer to [`reserve`].
///
/// # Errors
/// It is too short.
pub fn read_reservation(data: &[u8]) -> Result<u16, FrameError> {
    u16_at(data, 0, "reservation")
}

/// Reads the answer to [`get_entry`]: the ID of the next record, and the record.
///
/// # Errors
/// It is too short.
pub fn read_entry(data: &[u8]) -> Result<(u16, [u8; 16]), FrameError> {
    Ok((u16_at(data, 0, "SEL entry")?, sixteen_at(data, 2, "SEL entry")?))
}

/// Reads the answer to [`time`]; `None` if the clock was never set.
///
/// # Errors
/// It is too short.
pub fn read_time(data: &[u8]) -> Result<Option<i64>, FrameError> {
    Ok(unix_s(u32_at(data, 0, "SEL time")?))
}

fn unix_s(stamp: u32) -> Option<i64> {
    (stamp >= FIRST_UNIX_TIME && stamp != NO_TIME).then_some(i64::from(stamp))
}

/// A record in words. `sensors` lends names, units and conversions; without them a sensor is called by its number.
#[must_use]
pub fn decode(record: &[u8; 16], sensors: &[SensorRecord]) -> LogEntry {
    let [i0, i1, kind, t0, t1, t2, t3, rest @ ..] = *record;
    let id = u16::from_le_bytes([i0, i1]).to_string();
    let stamp = unix_s(u32::from_le_bytes([t0, t1, t2, t3]));
    match kind {
        0x02 => system_event(id, stamp, rest, sensors),
        0xc0..=0xdf => {
            let [m0, m1, m2, data @ ..] = rest;
            let manufacturer = u32::from_le_bytes([m0, m1, m2, 0]);
            let text = format!("OEM record {kind:02x}h of manufacturer {manufacturer}: {}", hex(&data));
            LogEntry { id, at_unix_s: stamp, severity: Severity::Ok, text, sensor: None }
        }
        // Without a time: the data begins where the others have theirs.
        0xe0..=0xff => {
            let text = format!("OEM record {kind:02x}h: {}", hex(record.get(3..).unwrap_or_default()));
            LogEntry { id, at_unix_s: None, severity: Severity::Ok, text, sensor: None }
        }
        other => {
            let text = format!("record of unknown type {other:02x}h: {}", hex(record.get(3..).unwrap_or_default()));
            LogEntry { id, at_unix_s: None, severity: Severity::Ok, text, sensor: None }
        }
    }
}

/// A record of type 02h (section 32.1).
fn system_event(id: String, at_unix_s: Option<i64>, rest: [u8; 9], sensors: &[SensorRecord]) -> LogEntry {
    let [owner, lun, _version, sensor_type, number, direction, data @ ..] = rest;
    let (event_type, offset, deasserted) = (direction & 0x7f, data[0] & 0x0f, direction & 0x80 != 0);
    let known = sensors.iter().find(|s| (s.owner, s.lun, s.number) == (owner, lun & 0x03, number));
    let (what, how_bad) = match event::state(sensor_type, event_type, offset) {
        Some((words, how_bad)) => (words.to_owned(), how_bad),
        None => (format!("event type {event_type:02x}h offset {offset}, data {}", hex(&data)), Severity::Ok),
    };
    let mut text = format!("{}: {what}", event::sensor_type(sensor_type));
    let added = if event_type == event::THRESHOLD {
        known.and_then(|sensor| crossing(sensor, data))
    } else {
        event::detail(sensor_type, event_type, data)
    };
    if let Some(added) = added {
        text.push_str(&format!(" ({added})"));
    }
    if deasserted {
        text.push_str(", deasserted");
    }
    let named = known.map(|sensor| sensor.name.clone()).filter(|name| !name.is_empty());
    let sensor = named.unwrap_or_else(|| format!("{} #{number:02x}h", event::sensor_type(sensor_type)));
    // What ends is not bad any more; the beginning has an entry of its own.
    let severity = if deasserted { Severity::Ok } else { how_bad };
    LogEntry { id, at_unix_s, severity, text: tame(&text), sensor: Some(sensor) }
}

/// What was read, and which limit it crossed (section 29.7).
fn crossing(sensor: &SensorRecord, data: [u8; 3]) -> Option<String> {
    let conversion = sensor.conversion.as_ref()?;
    let told = |bits: u8, raw: u8| (bits & 0x03 == 1).then(|| conversion.value(raw)).flatten();
    let show = |value: f64| format!("{} {}", rounded(value), sensor.unit);
    match (told(data[0] >> 6, data[1]), told(data[0] >> 4, data[2])) {
        (Some(value), Some(limit)) => Some(format!("{}, limit {}", show(value).trim_end(), show(limit).trim_end())),
        (Some(value), None) => Some(show(value).trim_end().to_owned()),
        (None, _) => None,
    }
}

/// Three decimals at most, and none that say nothing.
fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

fn hex(bytes: &[u8]) -> String {
    let all: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
    all.join(" ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::sdr;
    use super::*;
    use proptest::prelude::*;

    /// 2023-11-14 22:13:20, the 1 700 000 000th second.
    const STAMP: [u8; 4] = [0x00, 0xf1, 0x53, 0x65];

    fn record(kind: u8, rest: [u8; 9]) -> [u8; 16] {
        let mut record = [0; 16];
        record[..3].copy_from_slice(&[0x2a, 0x01, kind]);
        record[3..7].copy_from_slice(&STAMP);
        record[7..].copy_from_slice(&rest);
        record
    }

    #[test]
    fn a_crossed_threshold_tells_reading_and_limit_if_the_sensor_is_known() {
        let sensors = sdr::decode(&sdr::tests::full(b"CPU1 Temp", 0xc9)).unwrap();
        let record = record(0x02, [0x20, 0x00, 0x04, 0x01, 0x30, 0x01, 0x59, 0x62, 0x5f]);
        let known = decode(&record, &sensors);
        assert_eq!((&known.id[..], known.at_unix_s, known.severity), ("298", Some(1_700_000_000), Severity::Critical));
        assert_eq!(known.text, "Temperature: upper critical going high (98 C, limit 95 C)");
        assert_eq!(known.sensor.as_deref(), Some("CPU1 Temp"));
        let unknown = decode(&record, &[]);
        assert_eq!(unknown.text, "Temperature: upper critical going high");
        assert_eq!(unknown.sensor.as_deref(), Some("Temperature #30h"));
    }

    #[test]
    fn what_ends_is_for_the_record() {
        let ended = decode(&record(0x02, [0x20, 0, 4, 0x08, 0x61, 0xef, 0x03, 0xff, 0xff]), &[]);
        assert_eq!((&ended.text[..], ended.severity), ("Power Supply: power supply AC lost, deasserted", Severity::Ok));
        let begun = decode(&record(0x02, [0x20, 0, 4, 0x0c, 0x10, 0x6f, 0x31, 0xff, 0x02]), &[]);
        assert_eq!(begun.text, "Memory: uncorrectable ECC (memory module 2)");
        assert_eq!(begun.severity, Severity::Critical);
    }

    #[test]
    fn what_no_table_knows_keeps_its_bytes() {
        let oem = decode(&record(0xc1, [0x57, 0x01, 0x00, 1, 2, 3, 4, 5, 6]), &[]);
        assert_eq!(oem.text, "OEM record c1h of manufacturer 343: 01 02 03 04 05 06");
        assert_eq!(oem.at_unix_s, Some(1_700_000_000));
        let timeless = decode(&record(0xe3, [7; 9]), &[]);
        assert_eq!(timeless.at_unix_s, None);
        assert_eq!(timeless.text, "OEM record e3h: 00 f1 53 65 07 07 07 07 07 07 07 07 07");
        let vendor = decode(&record(0x02, [0x20, 0, 4, 0xc8, 0x10, 0x71, 0xa3, 0x11, 0x02]), &[]);
        assert_eq!(vendor.text, "OEM sensor: event type 71h offset 3, data a3 11 02");
    }

    #[test]
    fn a_clock_that_was_never_set_tells_no_time() {
        for stamp in [0u32, 0x1fff_ffff, 0xffff_ffff] {
            assert_eq!(read_time(&stamp.to_le_bytes()), Ok(None));
        }
        assert_eq!(read_time(&STAMP), Ok(Some(1_700_000_000)));
    }

    #[test]
    fn the_log_as_a_whole() {
        // ipmi_sim with two records in it, as it answers.
        let info = read_info(&[0x51, 2, 0, 0xe0, 0x3e, 0x00, 0xf1, 0x53, 0x65, 0, 0, 0, 0, 0x82]).unwrap();
        assert_eq!((info.entries, info.free_bytes, info.overflowed), (2, 0x3ee0, true));
        assert_eq!((info.added_unix_s, info.cleared_unix_s), (Some(1_700_000_000), None));
        assert_eq!(get_entry(0x0102, FIRST_RECORD).data, [0x02, 0x01, 0, 0, 0, 0xff]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            record: [u8; 16],
            data in proptest::collection::vec(any::<u8>(), 0..24),
            sensor in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let _ = decode(&record, &sdr::decode(&sensor).unwrap_or_default());
            let _ = (read_info(&data), read_entry(&data), read_time(&data), read_reservation(&data));
        }
    }
}
