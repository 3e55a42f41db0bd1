//! A sensor's byte, its number and its states (sections 35.14, 36.3 and 43.17).

use super::command::{Command, SENSOR};
use super::event;
use super::frame::FrameError;
use super::sdr::SensorRecord;
use crate::health::{Sensor, Severity};

/// Units by number (section 43.17). Those of [`Sensor::unit`] have its words.
const UNITS: [&str; 93] = [
    "",
    "C",
    "F",
    "K",
    "V",
    "A",
    "W",
    "J",
    "Coulombs",
    "VA",
    "Nits",
    "lm",
    "lx",
    "cd",
    "kPa",
    "PSI",
    "N",
    "CFM",
    "RPM",
    "Hz",
    "us",
    "ms",
    "s",
    "min",
    "h",
    "d",
    "weeks",
    "mil",
    "in",
    "ft",
    "cu in",
    "cu ft",
    "mm",
    "cm",
    "m",
    "cu cm",
    "cu m",
    "l",
    "fl oz",
    "rad",
    "sr",
    "revolutions",
    "cycles",
    "g",
    "oz",
    "lb",
    "ft lb",
    "oz in",
    "gauss",
    "gilberts",
    "H",
    "mH",
    "farad",
    "ufarad",
    "ohms",
    "S",
    "mol",
    "Bq",
    "ppm",
    "",
    "dB",
    "dBA",
    "dBC",
    "Gy",
    "Sv",
    "color temperature K",
    "bit",
    "kbit",
    "Mbit",
    "Gbit",
    "byte",
    "kB",
    "MB",
    "GB",
    "words",
    "dwords",
    "qwords",
    "lines",
    "hits",
    "misses",
    "retries",
    "resets",
    "overruns",
    "underruns",
    "collisions",
    "packets",
    "messages",
    "characters",
    "errors",
    "correctable errors",
    "uncorrectable errors",
    "fatal errors",
    "grams",
];

const RATES: [&str; 8] = ["", "/us", "/ms", "/s", "/min", "/h", "/d", ""];

/// The unit in words, from the three bytes of a record.
#[must_use]
pub fn unit([flags, base, modifier]: [u8; 3]) -> String {
    let word = |code: u8| UNITS.get(usize::from(code)).copied().unwrap_or_default();
    let rate = RATES.get(usize::from(flags >> 3 & 0x07)).copied().unwrap_or_default();
    let joined = match flags >> 1 & 0x03 {
        1 => format!("{}/{}", word(base), word(modifier)),
        2 => format!("{} {}", word(base), word(modifier)),
        _ => word(base).to_owned(),
    };
    let percent = if flags & 0x01 != 0 { "%" } else { "" };
    match (percent, &joined[..]) {
        ("%", "") => "%".to_owned(),
        ("%", other) => format!("% {other}{rate}"),
        (_, other) => format!("{other}{rate}"),
    }
}

/// How a byte is a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Unsigned,
    OnesComplement,
    TwosComplement,
}

/// y = L((M x + B 10^K1) 10^K2) (section 36.3).
#[derive(Debug, Clone, PartialEq)]
pub struct Conversion {
    format: Format,
    m: i16,
    b: i16,
    k1: i8,
    k2: i8,
    linearization: u8,
}

impl Conversion {
    /// From a full record; `None` if the sensor gives no number.
    ///
    /// # Errors
    /// The record ends before its fields do.
    pub fn read(record: &[u8]) -> Result<Option<Conversion>, FrameError> {
        let byte = |at: usize| record.get(at).copied().ok_or(FrameError::Short("SDR"));
        let format = match byte(20)? >> 6 {
            0 => Format::Unsigned,
            1 => Format::OnesComplement,
            2 => Format::TwosComplement,
            _ => return Ok(None),
        };
        let factors = [byte(24)?, byte(25)?, byte(26)?, byte(27)?, byte(29)?];
        let linearization = byte(23)? & 0x7f;
        Ok(Some(Conversion { linearization, ..Conversion::factors(format, factors) }))
    }

    /// Whether the factors change from reading to reading and are to be asked for with each (70h to 7Fh).
    #[must_use]
    pub fn is_non_linear(&self) -> bool {
        self.linearization >= 0x70
    }

    /// With the factors of one reading, from the answer to [`get_factors`].
    ///
    /// # Errors
    /// It is too short.
    pub fn with_factors(&self, data: &[u8]) -> Result<Conversion, FrameError> {
        let [_next, m, m_high, b, b_high, _accuracy, exponents, ..] = *data else {
            return Err(FrameError::Short("sensor reading factors"));
        };
        Ok(Conversion::factors(self.format, [m, m_high, b, b_high, exponents]))
    }

    fn factors(format: Format, [m, m_high, b, b_high, exponents]: [u8; 5]) -> Conversion {
        Conversion {
            format,
            m: ten_bits(m, m_high),
            b: ten_bits(b, b_high),
            k1: four_bits(exponents & 0x0f),
            k2: four_bits(exponents >> 4),
            linearization: 0,
        }
    }

    /// The number of a byte. `None` where the function has no value, or its factors are still to be asked for.
    #[must_use]
    pub fn value(&self, raw: u8) -> Option<f64> {
        let signed = f64::from(raw.cast_signed());
        let x = match self.format {
            Format::Unsigned => f64::from(raw),
            Format::OnesComplement if raw & 0x80 != 0 => signed + 1.0,
            Format::OnesComplement | Format::TwosComplement => signed,
        };
        let power = |exponent: i8, number: f64| {
            // Division keeps decimal fractions that a multiplication by 0.001 would smear.
            let ten = 10f64.powi(i32::from(exponent.unsigned_abs()));
            if exponent < 0 { number / ten } else { number * ten }
        };
        let linear = power(self.k2, f64::from(self.m) * x + power(self.k1, f64::from(self.b)));
        let y = match self.linearization {
            0 => linear,
            1 => linear.ln(),
            2 => linear.log10(),
            3 => linear.log2(),
            4 => linear.exp(),
            5 => 10f64.powf(linear),
            6 => linear.exp2(),
            7 => 1.0 / linear,
            8 => linear.powi(2),
            9 => linear.powi(3),
            10 => linear.sqrt(),
            11 => linear.cbrt(),
            _ => return None,
        };
        y.is_finite().then_some(y)
    }
}

/// Ten bits, two's complement: the low eight, and two in the high bits of the next byte.
fn ten_bits(low: u8, high: u8) -> i16 {
    let all = u16::from(low) | u16::from(high >> 6) << 8;
    (all << 6).cast_signed() >> 6
}

/// Four bits, two's complement.
fn four_bits(bits: u8) -> i8 {
    (bits << 4).cast_signed() >> 4
}

/// Get Sensor Reading (section 35.14), to the logical unit that owns the sensor.
#[must_use]
pub fn get_reading(sensor: &SensorRecord) -> Command {
    Command { lun: sensor.lun, ..Command::read(SENSOR, 0x2d, vec![sensor.number]) }
}

/// Get Sensor Reading Factors (section 35.5), for one reading of a sensor.
#[must_use]
pub fn get_factors(sensor: &SensorRecord, raw: u8) -> Command {
    Command { lun: sensor.lun, ..Command::read(SENSOR, 0x23, vec![sensor.number, raw]) }
}

/// A sensor that gave no reading.
#[must_use]
pub fn absent(sensor: &SensorRecord) -> Sensor {
    Sensor {
        name: sensor.name.clone(),
        kind: sensor.kind(),
        value: None,
        unit: sensor.unit.clone(),
        severity: Severity::Ok,
    }
}

/// Reads the answer to [`get_reading`]. A sensor of states has their mask as its value and their words as its unit.
///
/// # Errors
/// It is too short.
pub fn read(sensor: &SensorRecord, data: &[u8]) -> Result<Sensor, FrameError> {
    let [raw, flags, ref states @ ..] = *data else { return Err(FrameError::Short("sensor reading")) };
    // Bit 5: being read for the first time, or absent. Bit 6 clear: scanning is off, the byte is an old one.
    if flags & 0x20 != 0 || flags & 0x40 == 0 {
        return Ok(absent(sensor));
    }
    let low = states.first().copied().unwrap_or(0);
    let high = states.get(1).copied().unwrap_or(0) & 0x7f;
    let value = sensor.conversion.as_ref().and_then(|conversion| conversion.value(raw));
    if sensor.has_thresholds() {
        let severity = match low {
            crossed if crossed & 0b11_0110 != 0 => Severity::Critical,
            crossed if crossed & 0b00_1001 != 0 => Severity::Warning,
            _ => Severity::Ok,
        };
        return Ok(Sensor { value, severity, ..absent(sensor) });
    }
    let mask = u16::from_le_bytes([low, high]);
    let told = (0..15u8)
        .filter(|offset| mask & 1 << offset != 0)
        .map(|offset| event::state(sensor.sensor_type, sensor.event_type, offset).unwrap_or(("", Severity::Ok)));
    let (mut words, mut severity) = (Vec::new(), Severity::Ok);
    for (word, how_bad) in told {
        severity = severity.max(how_bad);
        if !word.is_empty() {
            words.push(word);
        }
    }
    let known = Sensor { severity, ..absent(sensor) };
    match sensor.conversion {
        Some(_) => Ok(Sensor { value, ..known }),
        None => Ok(Sensor { value: Some(f64::from(mask)), unit: words.join(", "), ..known }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::sdr::decode;
    use super::super::sdr::tests::full;
    use super::*;
    use proptest::prelude::*;

    fn near(value: Option<f64>, expected: f64) -> bool {
        value.is_some_and(|v| (v - expected).abs() < 1e-9)
    }

    fn conversion(linearization: u8, m: i16, b: i16, k1: i8, k2: i8) -> Conversion {
        Conversion { format: Format::Unsigned, m, b, k1, k2, linearization }
    }

    #[test]
    fn factors_are_read_from_their_bits() {
        let mut record = full(b"12V", 0xc3);
        // M = 63, B = -2, K1 = 1, K2 = -3: 0xc8 reads 12.58 V.
        record[20..22].copy_from_slice(&[0x00, 0x04]);
        record[24..30].copy_from_slice(&[63, 0, 0xfe, 0xc0, 0, 0xd1]);
        let read = Conversion::read(&record).unwrap().unwrap();
        assert_eq!(read, conversion(0, 63, -2, 1, -3));
        assert!(near(read.value(0xc8), 12.58));
        record[20] = 0xc0;
        assert_eq!(Conversion::read(&record), Ok(None));
    }

    #[test]
    fn every_linearization_of_the_specification() {
        let at_two = |function| conversion(function, 1, 0, 0, 0).value(2);
        let expected = [
            2.0,
            std::f64::consts::LN_2,
            std::f64::consts::LOG10_2,
            1.0,
            2f64.exp(),
            100.0,
            4.0,
            0.5,
            4.0,
            8.0,
            std::f64::consts::SQRT_2,
            2f64.cbrt(),
        ];
        for (function, expected) in (0..).zip(expected) {
            assert!(near(at_two(function), expected), "function {function}");
        }
        assert_eq!(at_two(0x70), None);
        assert_eq!(conversion(7, 1, 0, 0, 0).value(0), None, "1/0 is no reading");
        let non_linear = conversion(0x70, 9, 9, 0, 0);
        assert!(non_linear.is_non_linear() && !conversion(11, 1, 0, 0, 0).is_non_linear());
        let asked = non_linear.with_factors(&[0xff, 63, 0, 0xfe, 0xc0, 0, 0xd1]).unwrap();
        assert!(near(asked.value(0xc8), 12.58));
        assert!(non_linear.with_factors(&[0; 6]).is_err());
        let ones = Conversion { format: Format::OnesComplement, ..conversion(0, 1, 0, 0, 0) };
        assert_eq!((ones.value(0xfe), ones.value(0xff), ones.value(3)), (Some(-1.0), Some(0.0), Some(3.0)));
    }

    #[test]
    fn a_reading_is_absent_unless_it_says_otherwise() {
        let sensor = decode(&full(b"CPU1 Temp", 0xc9)).unwrap().pop().unwrap();
        let seen = |data: &[u8]| read(&sensor, data).map(|s| (s.value, s.severity)).unwrap();
        assert_eq!(seen(&[0x2d, 0xc0, 0xc0]), (Some(45.0), Severity::Ok));
        assert_eq!(seen(&[0x55, 0xc0, 0xc8]), (Some(85.0), Severity::Warning));
        assert_eq!(seen(&[0x69, 0xc0, 0xd8]), (Some(105.0), Severity::Critical));
        assert_eq!(seen(&[0x69, 0xe0, 0xd8]), (None, Severity::Ok));
        assert_eq!(seen(&[0x69, 0x80, 0xd8]), (None, Severity::Ok));
        assert_eq!(seen(&[0x69, 0x40]), (Some(105.0), Severity::Ok), "the short answer is legal");
        assert!(read(&sensor, &[0x69]).is_err());
    }

    #[test]
    fn states_are_told_in_words() {
        let mut sensor = decode(&full(b"PSU1", 0xc4)).unwrap().pop().unwrap();
        sensor = SensorRecord { sensor_type: 0x08, event_type: 0x6f, conversion: None, unit: String::new(), ..sensor };
        let seen = read(&sensor, &[0x00, 0xc0, 0x09, 0x80]).unwrap();
        assert_eq!((seen.value, seen.severity), (Some(9.0), Severity::Critical));
        assert_eq!(seen.unit, "presence detected, power supply AC lost");
    }

    #[test]
    fn units_are_written_as_the_shared_words() {
        assert_eq!(unit([0x80, 1, 0]), "C");
        assert_eq!(unit([0, 18, 0]), "RPM");
        assert_eq!(unit([1, 0, 0]), "%");
        assert_eq!(unit([0x18, 71, 0]), "kB/s");
        assert_eq!(unit([0, 92, 0]), "grams");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            record in proptest::collection::vec(any::<u8>(), 0..60),
            data in proptest::collection::vec(any::<u8>(), 0..6),
            units: [u8; 3], raw: u8,
        ) {
            let _ = (Conversion::read(&record).map(|c| c.map(|c| c.value(raw))), unit(units));
            for sensor in decode(&record).unwrap_or_default() {
                let _ = read(&sensor, &data);
            }
        }
    }
}
