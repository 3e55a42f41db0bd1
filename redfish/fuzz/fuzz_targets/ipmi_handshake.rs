//! A BMC that answers a login with anything: who does not know the password never gets a session open.
#![no_main]

use bmc::Secret;
use bmc::ipmi::crypto::Suite;
use bmc::ipmi::frame::{Payload, plain, sessionless};
use bmc::ipmi::handshake::{Handshake, Login, Privilege, Random, Step};
use libfuzzer_sys::fuzz_target;

/// The stages that a datagram is dressed for, so that the fuzzer gets behind the first one.
fn dressed(kind: u8, body: &[u8]) -> Vec<u8> {
    // The tag and the console's number, as they were sent.
    let known = |head: &[u8]| [head, body].concat();
    match kind % 6 {
        0 => {
            let mut message = vec![0x81, 0x1c, 0x63, 0x20, 0, 0x38, 0];
            message.extend(body.iter().take(16));
            let sum = message.iter().skip(3).fold(0u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg();
            message.push(sum);
            sessionless(&message)
        }
        1 => plain(Payload::OpenResponse, &known(&[7, 0, 3, 0, 0x44, 0x33, 0x22, 0x11])),
        2 => plain(Payload::Rakp2, &known(&[7, 0, 0, 0, 0x44, 0x33, 0x22, 0x11])),
        3 => plain(Payload::Rakp4, &known(&[7, 0, 0, 0, 0x44, 0x33, 0x22, 0x11])),
        _ => body.to_vec(),
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((suite, mut rest)) = data.split_first() else { return };
    let suite = if suite & 1 == 0 { Suite::Sha256 } else { Suite::Sha1 };
    let password = Secret::new(b"a password that is not told".get(..20).unwrap_or_default().to_vec());
    let Ok(login) = Login::new("admin".to_owned(), password, Privilege::Operator) else { return };
    let random = Random { console_id: 0x1122_3344, console_random: [9; 16], tag: 7 };
    let (mut handshake, _) = Handshake::begin(login, suite, random);
    while let [kind, length, more @ ..] = rest {
        let (body, after) = more.split_at(usize::from(*length).min(more.len()));
        rest = after;
        match handshake.accept(&dressed(*kind, body)) {
            Step::Open(_) => panic!("a session without the password"),
            Step::Failed(_) => return,
            Step::Send(datagram) => assert!(datagram.len() < 256),
            Step::Ignore => {}
        }
    }
});
