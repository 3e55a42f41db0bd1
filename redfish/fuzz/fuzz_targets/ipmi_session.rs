//! Packets of an open session: none counts twice, none that is not signed counts at all.
#![no_main]

use bmc::ipmi::crypto::{Digest, Suite, encrypt};
use bmc::ipmi::frame::{Payload, authenticated, covered};
use bmc::ipmi::session::Session;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    for suite in Suite::PREFERENCE {
        let key = |byte: u8| Digest::new(vec![byte; suite.rakp_code_bytes()]);
        let mut session = Session::new(suite, 0x11, 0x22, key(1), key(2));
        let _ = session.accept(data);
        let mut rest = data;
        // Packets that are signed as they must be, with anything within.
        while let [kind, sequence, length, more @ ..] = rest {
            let (body, after) = more.split_at(usize::from(*length).min(more.len()));
            rest = after;
            let payload = if kind & 1 == 0 { Payload::Ipmi } else { Payload::Sol };
            // Encrypted, or only said to be.
            let inside = if kind & 2 == 0 { encrypt(&key(2), [3; 16], body) } else { body.to_vec() };
            let mut packet = authenticated(payload, 0x11, u32::from(*sequence), &inside);
            let code = suite.packet_code(&key(1), covered(&packet));
            packet.extend(code);
            let first = session.accept(&packet).is_ok();
            assert!(!(first && session.accept(&packet).is_ok()), "taken twice");
            if let Some(last) = packet.last_mut() {
                *last ^= 1;
            }
            assert!(session.accept(&packet).is_err(), "a wrong signature");
        }
    }
});
