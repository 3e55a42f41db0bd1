//! Sensor data records: what sensors there are and how their bytes become numbers (sections 33, 35.3, 43.1 and 43.2).

use super::command::{Command, SENSOR, STORAGE};
use super::event::THRESHOLD;
use super::frame::{FrameError, u16_at};
use super::sensor_value::{Conversion, unit};
use crate::health::{SensorKind, tame};

/// Next record ID of the last record.
pub const LAST_RECORD: u16 = 0xffff;
/// Bytes of a record before its body: ID, version, type, length.
pub const HEADER_BYTES: u8 = 5;

/// Where records are kept: the repository of the whole system, or the BMC's own sensors alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The SDR repository (section 33).
    Repository,
    /// Device SDRs (section 35): for a BMC without a repository.
    Device,
}

/// A sensor as its record describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct SensorRecord {
    /// Its name.
    pub name: String,
    /// Slave address of the controller that owns it; 0x20 is the BMC.
    pub owner: u8,
    /// Logical unit there.
    pub lun: u8,
    /// Number there.
    pub number: u8,
    /// Sensor type (table 42-3).
    pub sensor_type: u8,
    /// Event/reading type (table 42-1).
    pub event_type: u8,
    /// Unit as written; empty without a number.
    pub unit: String,
    /// How its byte becomes a number; `None` if it has states only.
    pub conversion: Option<Conversion>,
}

impl SensorRecord {
    /// What it measures.
    #[must_use]
    pub fn kind(&self) -> SensorKind {
        match (self.sensor_type, &self.unit[..]) {
            _ if self.conversion.is_none() => SensorKind::Discrete,
            (_, "W") => SensorKind::Power,
            (_, "A") | (0x03, _) => SensorKind::Current,
            (_, "V") | (0x02, _) => SensorKind::Voltage,
            (_, "C") | (0x01, _) => SensorKind::Temperature,
            (_, "RPM") | (0x04, _) => SensorKind::Fan,
            _ => SensorKind::Other,
        }
    }

    /// Whether its states are crossed thresholds.
    #[must_use]
    pub fn has_thresholds(&self) -> bool {
        self.event_type == THRESHOLD
    }
}

/// Get SDR Repository Info (section 33.9).
#[must_use]
pub fn repository_info() -> Command {
    Command::read(STORAGE, 0x20, Vec::new())
}

/// Reserve SDR Repository (section 33.11), or Reserve Device SDR Repository (section 35.4).
#[must_use]
pub fn reserve(source: Source) -> Command {
    let net_fn = net_fn(source);
    Command::read(net_fn, 0x22, Vec::new())
}

/// Get SDR (section 33.12), or Get Device SDR (section 35.3): a part of a record.
#[must_use]
pub fn get_part(source: Source, reservation: u16, record: u16, offset: u8, bytes: u8) -> Command {
    let (number, [r0, r1], [i0, i1]) =
        (if source == Source::Repository { 0x23 } else { 0x21 }, reservation.to_le_bytes(), record.to_le_bytes());
    Command::read(net_fn(source), number, vec![r0, r1, i0, i1, offset, bytes])
}

fn net_fn(source: Source) -> u8 {
    if source == Source::Repository { STORAGE } else { SENSOR }
}

/// Reads the answer to [`repository_info`]: how many records there are.
///
/// # Errors
/// It is too short.
pub fn read_repository_info(data: &[u8]) -> Result<u16, FrameError> {
    u16_at(data, 1, "SDR repository info")
}

/// Reads the answer to [`reserve`].
///
/// # Errors
/// It is too short.
pub fn read_reservation(data: &[u8]) -> Result<u16, FrameError> {
    u16_at(data, 0, "reservation")
}

/// Reads the answer to [`get_part`]: the ID of the next record, and the part.
///
/// # Errors
/// It is too short.
pub fn read_part(data: &[u8]) -> Result<(u16, &[u8]), FrameError> {
    Ok((u16_at(data, 0, "SDR")?, data.get(2..).unwrap_or_default()))
}

/// The length of a record's body, from its header.
///
/// # Errors
/// It is too short.
pub fn body_bytes(header: &[u8]) -> Result<u8, FrameError> {
    header.get(4).copied().ok_or(FrameError::Short("SDR header"))
}

/// Decodes a whole record. A compact record may stand for several sensors; a record of no sensor gives none.
///
/// # Errors
/// It ends before its own fields do.
pub fn decode(record: &[u8]) -> Result<Vec<SensorRecord>, FrameError> {
    let byte = |at: usize| record.get(at).copied().ok_or(FrameError::Short("SDR"));
    let full = match byte(3)? {
        0x01 => true,
        0x02 => false,
        _ => return Ok(Vec::new()),
    };
    let (sensor_type, event_type, units) = (byte(12)?, byte(13)?, byte(20)?);
    let conversion = if full { Conversion::read(record)? } else { None };
    let (sharing, name_at) = if full { ([0, 0], 47) } else { ([byte(23)?, byte(24)?], 31) };
    let unit = if conversion.is_some() { unit([units, byte(21)?, byte(22)?]) } else { String::new() };
    let first = SensorRecord {
        name: id_string(record, name_at)?,
        owner: byte(5)?,
        lun: byte(6)? & 0x03,
        number: byte(7)?,
        sensor_type,
        event_type,
        unit,
        conversion,
    };
    Ok(shared(&first, sharing))
}

/// The sensors that share a record (section 43.2, bytes 24 and 25): numbers and names that count up from the first.
fn shared(first: &SensorRecord, [sharing, modifier]: [u8; 2]) -> Vec<SensorRecord> {
    let count = sharing & 0x0f;
    if count <= 1 {
        return vec![first.clone()];
    }
    let offset = modifier & 0x7f;
    (0..count)
        .map(|n| {
            let instance = offset.saturating_add(n);
            let suffix = match sharing >> 4 & 0x03 {
                1 => letters(instance),
                _ => instance.to_string(),
            };
            let name = format!("{}{suffix}", first.name);
            SensorRecord { name, number: first.number.wrapping_add(n), ..first.clone() }
        })
        .collect()
}

/// A to Z, then AA and so on.
fn letters(instance: u8) -> String {
    let letter = |n: u8| char::from(b'A' + n % 26);
    match instance / 26 {
        0 => letter(instance).to_string(),
        more => format!("{}{}", letter(more - 1), letter(instance)),
    }
}

/// A string with its type and length before it (section 43.15).
fn id_string(record: &[u8], at: usize) -> Result<String, FrameError> {
    let head = *record.get(at).ok_or(FrameError::Short("sensor name"))?;
    let from = at + 1;
    // Shorter than it says: what is there is read. Vendors pad, and cut.
    let end = record.len().min(from + usize::from(head & 0x1f));
    let bytes = record.get(from..end).unwrap_or_default();
    let text: String = match head >> 6 {
        0 => {
            let units = bytes.chunks_exact(2).map(|pair| pair.iter().rev().fold(0, |u, b| u << 8 | u16::from(*b)));
            char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
        }
        1 => bytes.iter().flat_map(|b| [bcd_plus(b >> 4), bcd_plus(b & 0x0f)]).collect(),
        2 => six_bit(bytes),
        _ => bytes.iter().take_while(|b| **b != 0).map(|b| char::from(*b)).collect(),
    };
    Ok(tame(&text))
}

fn bcd_plus(nibble: u8) -> char {
    match nibble {
        0..=9 => char::from(b'0' + nibble),
        0x0a => ' ',
        0x0b => '-',
        0x0c => '.',
        0x0d => ':',
        0x0e => ',',
        _ => '_',
    }
}

/// Four characters in three bytes, the lowest bits first.
fn six_bit(bytes: &[u8]) -> String {
    let (mut text, mut held, mut bits) = (String::new(), 0u32, 0);
    for byte in bytes {
        held |= u32::from(*byte) << bits;
        bits += 8;
        while bits >= 6 {
            text.push(char::from(b' ' + u8::try_from(held & 0x3f).unwrap_or(0)));
            held >>= 6;
            bits -= 6;
        }
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;
    use crate::ipmi::event::SENSOR_SPECIFIC;
    use proptest::prelude::*;

    /// A full record of a processor temperature, M = 1, as the boards that we know have it.
    pub(in super::super) fn full(name: &[u8], head: u8) -> Vec<u8> {
        let mut record = vec![0; 47];
        record[..8].copy_from_slice(&[0x10, 0x00, 0x51, 0x01, 0, 0x20, 0x00, 0x30]);
        record[12..14].copy_from_slice(&[0x01, 0x01]);
        record[20..22].copy_from_slice(&[0x80, 0x01]);
        record[24] = 1;
        record.push(head);
        record.extend(name);
        record[4] = u8::try_from(record.len() - 5).unwrap();
        record
    }

    fn compact(sharing: [u8; 2]) -> Vec<u8> {
        let mut record = vec![0; 31];
        record[..8].copy_from_slice(&[0x11, 0x00, 0x51, 0x02, 0, 0x20, 0x01, 0x60]);
        record[12..14].copy_from_slice(&[0x0d, SENSOR_SPECIFIC]);
        record[20] = 0xc0;
        record[23..25].copy_from_slice(&sharing);
        record.extend([0xc5, b'D', b'r', b'i', b'v', b'e']);
        record
    }

    #[test]
    fn a_full_record_names_its_sensor() {
        let seen = decode(&full(b"CPU1 Temp", 0xc9)).unwrap();
        let [sensor] = &seen[..] else { unreachable!() };
        assert_eq!((&sensor.name[..], sensor.owner, sensor.lun, sensor.number), ("CPU1 Temp", 0x20, 0, 0x30));
        assert_eq!((sensor.kind(), &sensor.unit[..]), (SensorKind::Temperature, "C"));
        assert_eq!(sensor.conversion.as_ref().and_then(|c| c.value(0xf6)), Some(-10.0));
    }

    #[test]
    fn a_compact_record_stands_for_all_that_share_it() {
        let names = |sharing| decode(&compact(sharing)).unwrap().into_iter().map(|s| s.name).collect::<Vec<_>>();
        assert_eq!(names([0x01, 0]), ["Drive"]);
        assert_eq!(names([0x03, 0x04]), ["Drive4", "Drive5", "Drive6"]);
        assert_eq!(names([0x12, 0x19]), ["DriveZ", "DriveAA"]);
        let last = decode(&compact([0x03, 0])).unwrap().pop().unwrap();
        assert_eq!((last.number, last.lun, last.kind()), (0x62, 1, SensorKind::Discrete));
    }

    #[test]
    fn names_come_in_four_encodings() {
        let name = |bytes: &[u8], head| decode(&full(bytes, head)).unwrap().pop().unwrap().name;
        // "IPMI" is the specification's own example of 6-bit packing (section 43.16).
        assert_eq!(name(&[0x29, 0xdc, 0xa6], 0x83), "IPMI");
        assert_eq!(name(&[0x12, 0xb3], 0x42), "12-3");
        assert_eq!(name(&[b'F', 0, 0xfc, 0], 0x04), "F\u{fc}");
        assert_eq!(name(b"P12\x1b[2J\0xx", 0xc9), "P12 [2J");
    }

    #[test]
    fn parts_are_asked_for_where_the_records_are() {
        let part = get_part(Source::Repository, 0x1234, 0x0010, 5, 16);
        assert_eq!((part.net_fn, part.command, &part.data[..]), (0x0a, 0x23, &[0x34, 0x12, 0x10, 0, 5, 16][..]));
        assert_eq!((get_part(Source::Device, 0, 0, 0, 5).net_fn, reserve(Source::Device).command), (0x04, 0x22));
        assert_eq!(read_part(&[0xff, 0xff, 1, 2]), Ok((LAST_RECORD, &[1, 2][..])));
        assert_eq!(read_repository_info(&[0x51, 0x05, 0x00, 0, 0]), Ok(5));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut data in proptest::collection::vec(any::<u8>(), 0..80), kind in 1u8..3) {
            let _ = (decode(&data), read_part(&data), read_reservation(&data), read_repository_info(&data));
            if let Some(place) = data.get_mut(3) {
                *place = kind;
            }
            for sensor in decode(&data).unwrap_or_default() {
                let _ = (sensor.kind(), sensor.conversion.map(|c| c.value(data[0])));
            }
        }
    }
}
