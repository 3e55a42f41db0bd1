//! Event log: every sixteen bytes become a sentence that a terminal survives.
#![no_main]

use bmc::health::TEXT_MAX;
use bmc::ipmi::sdr;
use bmc::ipmi::sel;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = sel::read_info(data);
    let _ = sel::read_reservation(data);
    let _ = sel::read_time(data);
    if let Ok((_, record)) = sel::read_entry(data) {
        let sensors = sdr::decode(data).unwrap_or_default();
        let entry = sel::decode(&record, &sensors);
        assert!(!entry.text.is_empty() && entry.text.chars().count() <= TEXT_MAX);
        assert!(!entry.text.chars().any(char::is_control), "{:?}", entry.text);
        assert!(!entry.sensor.is_some_and(|name| name.chars().any(char::is_control)));
    }
});
