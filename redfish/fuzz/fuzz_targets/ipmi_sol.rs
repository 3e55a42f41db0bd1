//! Serial over LAN: whatever the BMC acknowledges or refuses, our characters keep their order and their number.
#![no_main]

use bmc::ipmi::sol::{Sol, UNSENT_MAX};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((max, mut rest)) = data.split_first() else { return };
    let mut sol = Sol::new(usize::from(*max));
    while let [kind, length, more @ ..] = rest {
        let (body, after) = more.split_at(usize::from(*length % 64).min(more.len()));
        rest = after;
        match kind % 5 {
            0 => assert!(sol.write(body) <= UNSENT_MAX.min(body.len())),
            1 => sol.generate_break(),
            2 => {
                if let Some(packet) = sol.outgoing() {
                    assert!(packet.len() <= 4 + 255 && (1..=15).contains(&packet[0]));
                    assert!(sol.is_waiting() && sol.outgoing().is_none(), "one packet under way");
                }
            }
            3 => {
                if sol.again().is_err() {
                    return;
                }
            }
            _ => {
                let taken = sol.accept(body);
                assert!(taken.characters.len() <= body.len());
                // The same packet again brings nothing again.
                let twice = sol.accept(body);
                assert!(twice.characters.is_empty() || body.first().is_none_or(|sequence| sequence & 0x0f == 0));
            }
        }
    }
});
