//! Sensor records, and what they make of readings: finite numbers or none.
#![no_main]

use bmc::ipmi::{sdr, sensor_value};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((split, rest)) = data.split_first() else { return };
    let (record, reading) = rest.split_at(usize::from(*split).min(rest.len()));
    let _ = sdr::read_repository_info(record);
    let _ = sdr::read_reservation(record);
    let _ = sdr::read_part(record);
    let _ = sdr::body_bytes(record);
    for sensor in sdr::decode(record).unwrap_or_default() {
        assert!(!sensor.name.chars().any(char::is_control), "{:?}", sensor.name);
        if let Ok(seen) = sensor_value::read(&sensor, reading) {
            assert!(seen.value.is_none_or(f64::is_finite), "{seen:?}");
        }
        let _ = sensor_value::absent(&sensor);
        let _ = sensor_value::get_reading(&sensor);
        if let Some(conversion) = &sensor.conversion {
            for raw in [0, 1, 127, 128, 255] {
                assert!(conversion.value(raw).is_none_or(f64::is_finite));
            }
            if let Ok(other) = conversion.with_factors(reading) {
                assert!(other.value(77).is_none_or(f64::is_finite));
            }
        }
    }
});
