//! Refusals and certificates' names: what a BMC says reaches a person without what drives his terminal.
#![no_main]

use bmc::health::{TEXT_MAX, tame};
use bmc::redfish::{Fingerprint, Messages, authorities};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let messages = Messages::read(data);
    for text in messages.ids.iter().chain([&messages.text]) {
        assert!(!text.chars().any(char::is_control) && text.chars().count() <= TEXT_MAX, "{text:?}");
    }
    let _ = messages.any(&["SYS518", "PreconditionFailed"]);
    let _ = authorities(data);
    if let Ok(text) = std::str::from_utf8(data) {
        let tamed = tame(text);
        assert_eq!(tame(&tamed), tamed, "tame stays tame");
        if let Ok(fingerprint) = text.parse::<Fingerprint>() {
            assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
        }
    }
});
