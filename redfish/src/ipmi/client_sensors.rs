//! Sensors over an open session: their records, and their readings.

use super::client::Client;
use super::error::IpmiError;
use super::frame::BMC_ADDRESS;
use super::sdr::{self, HEADER_BYTES, LAST_RECORD, SensorRecord, Source};
use super::sensor_value;
use crate::health::Sensor;
use std::collections::HashSet;

/// Records read of one BMC at most.
pub const RECORDS_MAX: usize = 1_024;
/// Reservations made anew for one reading of all records.
const RESERVATIONS_MAX: u32 = 32;
/// Asked at a time: what every BMC can answer over its internal buses.
const PART_BYTES: u8 = 16;
/// Nothing smaller is tried.
const PART_BYTES_MIN: u8 = 2;

const RESERVATION_LOST: u8 = 0xc5;
const NO_SUCH_RECORD: u8 = 0xcb;

/// The records of all sensors as read.
#[derive(Debug, Clone, PartialEq)]
pub struct SensorRecords {
    /// They.
    pub sensors: Vec<SensorRecord>,
    /// They were read to the end. If not, there are more than [`RECORDS_MAX`], or the list leads in a circle.
    pub complete: bool,
}

/// How the reading of records stands.
struct Reading {
    source: Source,
    reservation: u16,
    reservations: u32,
    part_bytes: u8,
}

impl Client {
    /// The records of all sensors. They change with the firmware alone: keep them, it takes hundreds of requests.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn sensor_records(&mut self) -> Result<SensorRecords, IpmiError> {
        let count = match self.run(&sdr::repository_info(), "SDR repository info").await {
            Ok(data) => Some(self.read(sdr::read_repository_info(&data), "SDR repository info")?),
            Err(IpmiError::Refused { .. }) => None,
            Err(why) => return Err(why),
        };
        let source = if count.unwrap_or(0) == 0 { Source::Device } else { Source::Repository };
        let reservation = self.reserve_records(source).await?;
        let mut reading = Reading { source, reservation, reservations: 1, part_bytes: PART_BYTES };
        let (mut sensors, mut next, mut seen) = (Vec::new(), 0, HashSet::new());
        while next != LAST_RECORD && seen.len() < RECORDS_MAX && seen.insert(next) {
            let (following, record) = match self.record(&mut reading, next).await {
                Ok(read) => read,
                // An empty repository has no first record, and its BMC need not have records of its own either.
                Err(IpmiError::Refused { code, .. }) if next == 0 && (code == NO_SUCH_RECORD || count == Some(0)) => {
                    (LAST_RECORD, Vec::new())
                }
                Err(why) => return Err(why),
            };
            // A record that ends early is the firmware's fault; the others are still worth having.
            sensors.extend(sdr::decode(&record).unwrap_or_default());
            next = following;
        }
        Ok(SensorRecords { sensors, complete: next == LAST_RECORD })
    }

    /// Reads the sensors of the BMC among the records. What belongs to other controllers is left out: asking for it takes
    /// bridged messages, which many BMCs answer late or never.
    ///
    /// # Errors
    /// The session is lost. A sensor that is refused is absent.
    pub async fn sensors(&mut self, records: &[SensorRecord]) -> Result<Vec<Sensor>, IpmiError> {
        let mut sensors = Vec::new();
        for record in records.iter().filter(|record| record.owner == BMC_ADDRESS) {
            let sensor = match self.run(&sensor_value::get_reading(record), "sensor reading").await {
                Ok(data) => self.with_factors(record, &data).await?,
                Err(IpmiError::Refused { .. }) => sensor_value::absent(record),
                Err(why) => return Err(why),
            };
            sensors.push(sensor);
        }
        Ok(sensors)
    }

    /// A reading as a number; one of a sensor that is not linear needs its own factors.
    async fn with_factors(&mut self, record: &SensorRecord, data: &[u8]) -> Result<Sensor, IpmiError> {
        let (Some(conversion), Some(raw)) = (record.conversion.as_ref().filter(|c| c.is_non_linear()), data.first())
        else {
            return Ok(sensor_value::read(record, data).unwrap_or_else(|_| sensor_value::absent(record)));
        };
        let factors = match self.run(&sensor_value::get_factors(record, *raw), "sensor reading factors").await {
            Ok(factors) => conversion.with_factors(&factors).ok(),
            Err(IpmiError::Refused { .. }) => None,
            Err(why) => return Err(why),
        };
        // Without factors its thresholds are still told.
        let record = SensorRecord { conversion: factors.or_else(|| Some(conversion.clone())), ..record.clone() };
        Ok(sensor_value::read(&record, data).unwrap_or_else(|_| sensor_value::absent(&record)))
    }

    /// One record: its header, then its body in parts; from its beginning again if the reservation was lost.
    async fn record(&mut self, reading: &mut Reading, id: u16) -> Result<(u16, Vec<u8>), IpmiError> {
        let (mut record, mut following, mut whole) = (Vec::new(), LAST_RECORD, usize::from(HEADER_BYTES));
        while record.len() < whole {
            let wanted = if record.is_empty() {
                HEADER_BYTES
            } else {
                u8::try_from(whole - record.len()).unwrap_or(u8::MAX).min(reading.part_bytes)
            };
            let offset = u8::try_from(record.len()).unwrap_or(u8::MAX);
            let command = sdr::get_part(reading.source, reading.reservation, id, offset, wanted);
            let data = match self.run(&command, "sensor data record").await {
                Ok(data) => data,
                Err(IpmiError::Refused { code: RESERVATION_LOST, .. }) if reading.reservations < RESERVATIONS_MAX => {
                    reading.reservation = self.reserve_records(reading.source).await?;
                    reading.reservations += 1;
                    record.clear();
                    whole = usize::from(HEADER_BYTES);
                    continue;
                }
                // "Cannot return that many bytes", or a bare no from a BMC that means the same.
                Err(IpmiError::Refused { code: 0xc7 | 0xc8 | 0xca | 0xff, .. })
                    if !record.is_empty() && reading.part_bytes > PART_BYTES_MIN =>
                {
                    reading.part_bytes = (reading.part_bytes.min(wanted) / 2).max(PART_BYTES_MIN);
                    continue;
                }
                Err(why) => return Err(why),
            };
            let (next, part) = self.read(sdr::read_part(&data), "sensor data record")?;
            let part = part.get(..usize::from(wanted)).unwrap_or(part);
            if record.is_empty() {
                following = next;
                whole += usize::from(self.read(sdr::body_bytes(part), "sensor data record")?);
            } else if part.is_empty() {
                break;
            }
            record.extend(part);
            // The offset of a part is one byte.
            whole = whole.min(usize::from(u8::MAX));
        }
        Ok((following, record))
    }

    async fn reserve_records(&mut self, source: Source) -> Result<u16, IpmiError> {
        match self.run(&sdr::reserve(source), "reserve SDRs").await {
            Ok(data) => self.read(sdr::read_reservation(&data), "reserve SDRs"),
            Err(IpmiError::Refused { .. }) => Ok(0),
            Err(why) => Err(why),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::scripted::{Asked, Does, answering, done, refused};
    use super::super::sdr::tests::full;
    use super::*;

    /// Records in a place; it can answer `part_bytes_max` at a time and loses its reservation once.
    fn records(net_fn: u8, part_bytes_max: u8, next: fn(u16) -> u16) -> impl FnMut(Asked) -> Does + Send {
        let mut lost = false;
        move |asked| {
            if asked.net_fn != net_fn {
                return refused(0xc1);
            }
            match (asked.command, &asked.data[..]) {
                (0x20, []) => done(&[0x51, 2, 0, 0, 0]),
                (0x22, _) => done(&[1, 0]),
                (0x23 | 0x21, [_, _, id, _, offset, wanted]) => {
                    if *wanted > part_bytes_max {
                        return refused(0xca);
                    }
                    if *offset > 20 && !lost {
                        lost = true;
                        return refused(0xc5);
                    }
                    let name = format!("Sensor {id}");
                    let record = full(name.as_bytes(), 0xc8);
                    let (from, to) = (usize::from(*offset), usize::from(*offset) + usize::from(*wanted));
                    let mut answer = next(u16::from(*id)).to_le_bytes().to_vec();
                    answer.extend(&record[from..to.min(record.len())]);
                    done(&answer)
                }
                (0x2d, [0x30]) => done(&[0x2d, 0xc0, 0xc0, 0x80]),
                _ => refused(0xcb),
            }
        }
    }

    fn names(read: &SensorRecords) -> Vec<&str> {
        read.sensors.iter().map(|sensor| &sensor.name[..]).collect()
    }

    #[tokio::test]
    async fn records_come_in_parts_as_small_as_the_bmc_needs() {
        for part_bytes_max in [255, 16, 8, 5] {
            let mut client =
                answering(records(0x0a, part_bytes_max, |id| if id == 2 { LAST_RECORD } else { id + 1 })).await;
            let read = client.sensor_records().await.unwrap();
            assert_eq!((names(&read), read.complete), (vec!["Sensor 0", "Sensor 1", "Sensor 2"], true));
        }
    }

    #[tokio::test]
    async fn without_a_repository_the_device_is_asked_and_a_circle_ends() {
        let mut client = answering(records(0x04, 16, |id| id ^ 1)).await;
        let read = client.sensor_records().await.unwrap();
        assert_eq!((names(&read), read.complete), (vec!["Sensor 0", "Sensor 1"], false));
        let sensors = client.sensors(&read.sensors).await.unwrap();
        assert_eq!(sensors[0].value, Some(45.0));
    }

    #[tokio::test]
    async fn no_records_are_no_error_but_no_answer_about_them_is() {
        let mut empty =
            answering(|asked| if asked.command == 0x20 { done(&[0x51, 0, 0, 0, 0]) } else { refused(0xc1) }).await;
        let read = empty.sensor_records().await.unwrap();
        assert_eq!((read.sensors.len(), read.complete), (0, true));
        let mut without = answering(|_| refused(0xc1)).await;
        let none = without.sensor_records().await;
        assert!(matches!(none, Err(IpmiError::Refused { code: 0xc1, .. })), "{none:?}");
    }

    #[tokio::test]
    async fn a_sensor_that_is_not_linear_is_read_with_factors_of_its_own() {
        let mut record = full(b"Flow", 0xc4);
        record[23] = 0x70;
        let sensors = sdr::decode(&record).unwrap();
        let mut client = answering(|asked| match (asked.command, &asked.data[..]) {
            (0x2d, _) => done(&[7, 0xc0, 0xc8]),
            (0x23, [0x30, 7]) => done(&[8, 3, 0, 0, 0, 0, 0]),
            _ => refused(0xc1),
        })
        .await;
        let read = client.sensors(&sensors).await.unwrap();
        assert_eq!((read[0].value, read[0].severity), (Some(21.0), crate::health::Severity::Warning));
        let mut client =
            answering(|asked| if asked.command == 0x2d { done(&[7, 0xc0, 0xc8]) } else { refused(0xc1) }).await;
        let read = client.sensors(&sensors).await.unwrap();
        assert_eq!((read[0].value, read[0].severity), (None, crate::health::Severity::Warning));
    }

    #[tokio::test]
    async fn only_sensors_of_the_bmc_are_asked_each_at_its_logical_unit() {
        let mut client = answering(|asked| {
            assert_eq!((asked.net_fn, asked.command), (0x04, 0x2d));
            done(&[asked.lun, 0xc0, 0xc0])
        })
        .await;
        let own = sdr::decode(&full(b"Own", 0xc3)).unwrap().pop().unwrap();
        let there = SensorRecord { lun: 3, ..own.clone() };
        let foreign = SensorRecord { owner: 0x2c, ..own.clone() };
        let values: Vec<_> = client.sensors(&[own, there, foreign]).await.unwrap();
        assert_eq!(values.iter().map(|sensor| sensor.value).collect::<Vec<_>>(), [Some(0.0), Some(3.0)]);
    }
}
