//! What an event or a state of a sensor means (tables 42-1 to 42-3), and how bad it is.

use super::event_tables::{POST_ERRORS, POST_PROGRESS, SENSOR_TYPES, THRESHOLD_EVENTS, generic, specific};
use crate::health::Severity;

/// Event/reading type of thresholds (table 42-1).
pub const THRESHOLD: u8 = 0x01;
/// Event/reading type of states that the sensor's type defines (table 42-1).
pub const SENSOR_SPECIFIC: u8 = 0x6f;

/// The name of a sensor type.
#[must_use]
pub fn sensor_type(code: u8) -> &'static str {
    match SENSOR_TYPES.get(usize::from(code)) {
        Some(name) => name,
        None if code >= 0xc0 => "OEM sensor",
        None => "Reserved",
    }
}

/// What a state means, and how bad it is. `None` if the specification gives it no meaning.
#[must_use]
pub fn state(sensor_type: u8, event_type: u8, offset: u8) -> Option<(&'static str, Severity)> {
    let states = match event_type {
        THRESHOLD => THRESHOLD_EVENTS,
        SENSOR_SPECIFIC => specific(sensor_type),
        other => generic(other),
    };
    let (text, severity) = *states.get(usize::from(offset))?;
    // A bare "state asserted" is for the record: how bad it is, only the sensor's name tells.
    (!text.is_empty()).then_some((text, severity))
}

/// What event data 2 and 3 add, where the specification gives them a meaning (table 42-3).
#[must_use]
pub fn detail(sensor_type: u8, event_type: u8, data: [u8; 3]) -> Option<String> {
    let [first, second, third] = data;
    let (second_is_ours, third_is_ours) = (first >> 6 == 3, first >> 4 & 3 == 3);
    match (sensor_type, event_type, first & 0x0f) {
        (0x0f, SENSOR_SPECIFIC, 0) if second_is_ours => word(&POST_ERRORS, second),
        (0x0f, SENSOR_SPECIFIC, 1 | 2) if second_is_ours => word(&POST_PROGRESS, second),
        (0x0c, SENSOR_SPECIFIC, _) if third_is_ours => Some(format!("memory module {third}")),
        (0x23, SENSOR_SPECIFIC, _) if second_is_ours => {
            let timer = match second & 0x0f {
                1 => "BIOS FRB2",
                2 => "BIOS/POST",
                3 => "OS load",
                4 => "SMS/OS",
                5 => "OEM",
                _ => return None,
            };
            Some(format!("timer of {timer}"))
        }
        _ => None,
    }
}

fn word(words: &[&str], code: u8) -> Option<String> {
    match words.get(usize::from(code)) {
        Some(word) => Some((*word).to_owned()),
        None => Some(format!("code {code:#04x}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Severity::{Critical, Ok, Warning};
    use proptest::prelude::*;

    #[test]
    fn what_breaks_a_machine_is_critical() {
        let severity = |sensor, kind, offset| state(sensor, kind, offset).map(|(_, severity)| severity);
        assert_eq!(severity(0x01, THRESHOLD, 9), Some(Critical));
        assert_eq!(severity(0x01, THRESHOLD, 7), Some(Warning));
        assert_eq!(severity(0x0c, SENSOR_SPECIFIC, 1), Some(Critical));
        assert_eq!(severity(0x0c, SENSOR_SPECIFIC, 0), Some(Warning));
        assert_eq!(severity(0x08, SENSOR_SPECIFIC, 0), Some(Ok));
        assert_eq!(severity(0x08, SENSOR_SPECIFIC, 3), Some(Critical));
        assert_eq!(severity(0x20, SENSOR_SPECIFIC, 1), Some(Critical));
        assert_eq!(severity(0x23, SENSOR_SPECIFIC, 4), None);
        assert_eq!(severity(0x0b, 0x0b, 1), Some(Warning));
        assert_eq!(sensor_type(0x2c), "FRU State");
        assert_eq!(sensor_type(0xc8), "OEM sensor");
    }

    #[test]
    fn data_bytes_speak_only_where_they_say_so() {
        assert_eq!(detail(0x0f, 0x6f, [0xc0, 0x01, 0xff]).as_deref(), Some("no system memory installed"));
        assert_eq!(detail(0x0f, 0x6f, [0xc2, 0x13, 0xff]).as_deref(), Some("starting operating system boot process"));
        assert_eq!(detail(0x0f, 0x6f, [0x00, 0x01, 0xff]), None);
        assert_eq!(detail(0x0c, 0x6f, [0x31, 0xff, 0x05]).as_deref(), Some("memory module 5"));
        assert_eq!(detail(0x23, 0x6f, [0xc1, 0x04, 0xff]).as_deref(), Some("timer of SMS/OS"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(kind: u8, event: u8, offset: u8, data: [u8; 3]) {
            let _ = (sensor_type(kind), state(kind, event, offset), detail(kind, event, data));
        }
    }
}
