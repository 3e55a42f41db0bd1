//! Datagrams: what is parsed lies within them, and a message that is read again is the same.
#![no_main]

use bmc::ipmi::frame::{Packet, parse, response};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    for code_bytes in [0, 12, 16] {
        match parse(data, code_bytes) {
            Ok(Packet::Secure(packet)) => {
                assert!(packet.payload.len() + packet.covered.len() <= 2 * data.len());
                assert!(packet.code.is_none_or(|code| code.len() == code_bytes));
                let _ = response(packet.payload);
            }
            Ok(Packet::Sessionless { message }) => {
                if let Ok(answer) = response(message) {
                    assert!(answer.net_fn % 2 == 0 && answer.sequence < 64);
                    assert!(answer.data.len() < message.len());
                }
            }
            Ok(Packet::Pong { .. }) | Err(_) => {}
        }
    }
    let _ = response(data);
});
