//! Serial over LAN: how it is opened and closed, and why it is not (sections 24.1 and 24.2).

use super::command::{APPLICATION, Command};
use super::frame::{FrameError, Payload, u16_at};
use super::sol::{COUNT_MAX, TRIES_MAX};
use thiserror::Error;

/// Of a packet, before its characters (section 15.9).
const HEADER_BYTES: usize = 4;
/// Characters a packet if the BMC tells no size that can be.
const CHARACTERS_DEFAULT: usize = 60;

/// Why a serial console never began, or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ConsoleError {
    /// Somebody has it.
    #[error("another session has it; wait until that ends, or open it with take-over, which ends that one")]
    Busy,
    /// It is switched off.
    #[error("serial over LAN is switched off for this account or on the BMC; switch it on there")]
    Disabled,
    /// No more sessions with a console.
    #[error("the BMC has no console session left; wait until one ends")]
    Full,
    /// It would not be encrypted.
    #[error("the BMC gives it without encryption only: it is not opened")]
    Unencrypted,
    /// It would be at another port.
    #[error(
        "the BMC wants to serve it at UDP port {0}, not at the one of the session: it is not opened; set the BMC to one port"
    )]
    OtherPort(u16),
    /// Our characters are not taken.
    #[error("the BMC took none of the characters sent, {TRIES_MAX} times; what was written last may be lost")]
    Stalled,
    /// The BMC ended it.
    #[error("the BMC ended it: another session took it over, or serial over LAN was switched off; open it again")]
    Ended,
}

/// What the BMC granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Activated {
    /// Characters a packet to the BMC, at most.
    pub characters_max: usize,
    /// UDP port of the payload; 0 if it tells none.
    pub port: u16,
}

/// Activate Payload, encrypted and authenticated (section 24.1). Never sent twice: the second is refused for the first.
#[must_use]
pub fn activate() -> Command {
    let data = vec![Payload::Sol.code(), 1, 0xc0, 0, 0, 0];
    Command { repeatable: false, ..Command::read(APPLICATION, 0x48, data) }
}

/// Deactivate Payload (section 24.2).
#[must_use]
pub fn deactivate() -> Command {
    Command::read(APPLICATION, 0x49, vec![Payload::Sol.code(), 1, 0, 0, 0, 0])
}

/// What a completion code of [`activate`] means; `None` if it is none of its own.
#[must_use]
pub fn refusal(code: u8) -> Option<ConsoleError> {
    Some(match code {
        0x80 => ConsoleError::Busy,
        0x81 => ConsoleError::Disabled,
        0x82 => ConsoleError::Full,
        0x83 => ConsoleError::Unencrypted,
        _ => return None,
    })
}

/// Reads the answer to [`activate`].
///
/// # Errors
/// It is too short.
pub fn read_activated(data: &[u8]) -> Result<Activated, FrameError> {
    let inbound = usize::from(u16_at(data, 4, "activate payload")?);
    let port = u16_at(data, 8, "activate payload")?;
    // Some firmware tells its size in the other byte order, or 0.
    let characters_max = match inbound {
        0..=HEADER_BYTES | 1_024.. => CHARACTERS_DEFAULT,
        size => (size - HEADER_BYTES).min(COUNT_MAX),
    };
    Ok(Activated { characters_max, port })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_is_asked_for_encrypted_and_its_answer_read() {
        // Activate Payload as ipmitool sends it, less the flag for a serial alert.
        assert_eq!((activate().command, &activate().data[..]), (0x48, &[1, 1, 0xc0, 0, 0, 0][..]));
        assert!(!activate().repeatable && deactivate().repeatable);
        // ipmi_sim: 0 0 0 0, 256 in, 256 out, port 623, no VLAN.
        let seen = read_activated(&[0, 0, 0, 0, 0x00, 0x01, 0x00, 0x01, 0x6f, 0x02, 0xff, 0xff]).unwrap();
        assert_eq!(seen, Activated { characters_max: 252, port: 623 });
        assert_eq!(read_activated(&[0; 12]).unwrap().characters_max, CHARACTERS_DEFAULT);
        assert_eq!(refusal(0x80), Some(ConsoleError::Busy));
        assert!(read_activated(&[0; 9]).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(data in proptest::collection::vec(any::<u8>(), 0..16), code: u8) {
            let _ = (read_activated(&data), refusal(code));
        }
    }
}
