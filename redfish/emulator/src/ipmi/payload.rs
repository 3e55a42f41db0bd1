//! Payloads beside commands: who has the serial console, and how it is given and taken away (section 24).

use super::command::{Answer, INVALID, LENGTH};
use super::sol::{GRANTED_CHARACTERS, Sol};
use super::sol_config::SolConfig;

/// The number of serial over LAN among the payloads.
const SOL: u8 = 1;
/// A payload or instance that there is none of.
const UNSUPPORTED: u8 = 0xcc;

/// Somebody's console.
#[derive(Debug)]
pub(super) struct Console {
    pub(super) session: u32,
    pub(super) sol: Sol,
}

/// The one console and its parameters.
#[derive(Debug, Default)]
pub(super) struct Payloads {
    pub(super) console: Option<Console>,
    pub(super) config: SolConfig,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker {
    pub(super) session: u32,
    pub(super) encrypted: bool,
    /// The UDP port of all that the BMC serves.
    pub(super) port: u16,
}

/// What became of a command.
pub(super) struct Done {
    pub(super) answer: Answer,
    /// This other session lost its console by it.
    pub(super) taken_from: Option<u32>,
}

/// Whether a command is one of these.
pub(super) fn is_one(net_fn: u8, command: u8) -> bool {
    matches!((net_fn, command), (0x06, 0x48..=0x4f) | (0x0c, 0x21 | 0x22))
}

/// Does one.
pub(super) fn run(payloads: &mut Payloads, asker: Asker, net_fn: u8, command: u8, data: &[u8]) -> Done {
    let mut taken_from = None;
    let answer = match (net_fn, command) {
        (0x0c, 0x21) => {
            let answer = payloads.config.set(data);
            if !payloads.config.enabled {
                taken_from = payloads.console.take().map(|console| console.session);
            }
            answer
        }
        (0x0c, 0x22) => payloads.config.get(data, asker.port),
        (0x06, 0x48) => activate(payloads, asker, data),
        (0x06, 0x49) => match (data, payloads.console.take()) {
            ([SOL, 1, ..], Some(console)) => {
                taken_from = Some(console.session).filter(|session| *session != asker.session);
                Answer::of([])
            }
            // Deactivated already.
            ([SOL, 1, ..], None) => Answer::no(0x80),
            (_, kept) => {
                payloads.console = kept;
                Answer::no(if data.len() < 2 { LENGTH } else { UNSUPPORTED })
            }
        },
        (0x06, 0x4a) => match *data {
            // One instance at most, and whether it is active.
            [SOL] => Answer::of([1, u8::from(payloads.console.is_some()), 0]),
            [_] => Answer::no(UNSUPPORTED),
            _ => Answer::no(LENGTH),
        },
        (0x06, 0x4b) => match *data {
            [SOL, 1] => {
                let session = payloads.console.as_ref().map_or(0, |console| console.session);
                let mut answer = session.to_le_bytes().to_vec();
                // The serial port is the first.
                answer.extend([1, 0, 0, 0, 0, 0, 0, 0]);
                Answer::of(answer)
            }
            [_, _] => Answer::no(UNSUPPORTED),
            _ => Answer::no(LENGTH),
        },
        // Set User Payload Access: everybody has the console, and keeps it.
        (0x06, 0x4c) => Answer::of([]),
        // Get User Payload Access and Get Channel Payload Support: commands (0) and serial over LAN (1).
        (0x06, 0x4d) => Answer::of([0x02, 0, 0, 0]),
        (0x06, 0x4e) => Answer::of([0x03, 0, 0x3f, 0, 0, 0, 0, 0]),
        // Get Channel Payload Version: 1.0.
        (0x06, 0x4f) => match *data {
            [_, 0 | SOL] => Answer::of([0x10]),
            [_, _] => Answer::no(0x80),
            _ => Answer::no(LENGTH),
        },
        _ => Answer::no(INVALID),
    };
    Done { answer, taken_from }
}

fn activate(payloads: &mut Payloads, asker: Asker, data: &[u8]) -> Answer {
    let [payload, instance, protection, ..] = *data else { return Answer::no(LENGTH) };
    if (payload, instance) != (SOL, 1) {
        return Answer::no(UNSUPPORTED);
    }
    if !payloads.config.enabled {
        return Answer::no(0x81);
    }
    if !asker.encrypted {
        return Answer::no(0x83);
    }
    // Bit 7: encrypted, bit 6: authenticated.
    if protection & 0xc0 != 0xc0 {
        return Answer::no(0x84);
    }
    if payloads.console.is_some() {
        return Answer::no(0x80);
    }
    payloads.console = Some(Console { session: asker.session, sol: Sol::default() });
    let inbound = u16::from(GRANTED_CHARACTERS) + 4;
    let mut answer = vec![0; 4];
    for number in [inbound, 256, asker.port, 0xffff] {
        answer.extend(number.to_le_bytes());
    }
    Answer::of(answer)
}
