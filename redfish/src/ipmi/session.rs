//! An open session: every packet signed and encrypted, each answer verified before it is believed, each sequence number
//! taken once (sections 6.12.13, 13.28 and 13.29).

use super::crypto::{Digest, Suite, decrypt, encrypt};
use super::frame::{self, FrameError, Packet, Payload};
use thiserror::Error;

/// How far a sequence number may run ahead of the highest seen, or lie behind it (section 6.12.13: a sliding window).
const WINDOW: u32 = 32;

/// What a request was: its answer must match all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestKey {
    /// Network function.
    pub net_fn: u8,
    /// Command.
    pub command: u8,
    /// Sequence number of the message, 0 to 63.
    pub sequence: u8,
}

/// A response of the BMC, verified and decrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// What it answers.
    pub key: RequestKey,
    /// Completion code; 0 = done.
    pub completion: u8,
    /// Data behind it.
    pub data: Vec<u8>,
}

/// What a packet of the session carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A response.
    Reply(Reply),
    /// A payload of serial over LAN.
    Sol(Vec<u8>),
}

/// Why a packet is dropped. None of these ends the session: anybody can send us bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Dropped {
    /// No packet that we speak.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// Of no session, or of another one.
    #[error("the packet belongs to another session")]
    OtherSession,
    /// Not signed, or not encrypted: the session demands both.
    #[error("the packet is not signed or not encrypted")]
    Unprotected,
    /// The signature is wrong.
    #[error("the signature of the packet is wrong")]
    Forged,
    /// Its number was taken before, or lies outside the window.
    #[error("the packet was received before or is too old")]
    Replayed,
    /// It cannot be decrypted.
    #[error("the packet cannot be decrypted")]
    Cipher,
}

/// An open session.
pub struct Session {
    suite: Suite,
    console_id: u32,
    bmc_id: u32,
    k1: Digest,
    k2: Digest,
    next_out: u32,
    highest_in: u32,
    seen: u32,
    next_message: u8,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("suite", &self.suite)
            .field("console_id", &self.console_id)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// A session whose keys are agreed: `k1` signs, `k2` encrypts (section 13.32). Handshakes make them; whoever tests the
    /// packets of a session may.
    #[must_use]
    pub fn new(suite: Suite, console_id: u32, bmc_id: u32, k1: Digest, k2: Digest) -> Session {
        Session { suite, console_id, bmc_id, k1, k2, next_out: 1, highest_in: 0, seen: 0, next_message: 1 }
    }

    /// Its cipher suite.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The BMC's number of it, for closing.
    #[must_use]
    pub fn bmc_id(&self) -> u32 {
        self.bmc_id
    }

    /// Makes a request: the datagram, and what its answer must match. `iv` must be fresh random bytes for every call.
    pub fn request(&mut self, iv: [u8; 16], lun: u8, net_fn: u8, command: u8, data: &[u8]) -> (RequestKey, Vec<u8>) {
        let key = RequestKey { net_fn, command, sequence: self.next_message };
        self.next_message = (self.next_message + 1) % 64;
        let message = frame::request_to(lun, net_fn, command, key.sequence, data);
        (key, self.seal(iv, Payload::Ipmi, &message))
    }

    /// The same request again, under a new number of the session: for an answer that did not come. Only for commands that
    /// may be done twice.
    pub fn again(&mut self, iv: [u8; 16], lun: u8, key: RequestKey, data: &[u8]) -> Vec<u8> {
        let message = frame::request_to(lun, key.net_fn, key.command, key.sequence, data);
        self.seal(iv, Payload::Ipmi, &message)
    }

    /// A payload of serial over LAN.
    pub fn sol(&mut self, iv: [u8; 16], payload: &[u8]) -> Vec<u8> {
        self.seal(iv, Payload::Sol, payload)
    }

    /// What a BMC sends.
    #[cfg(test)]
    pub(super) fn sealed(&mut self, iv: [u8; 16], payload_type: Payload, payload: &[u8]) -> Vec<u8> {
        self.seal(iv, payload_type, payload)
    }

    fn seal(&mut self, iv: [u8; 16], payload_type: Payload, payload: &[u8]) -> Vec<u8> {
        let sequence = self.next_out;
        // Zero is the number of packets outside a session.
        self.next_out = self.next_out.checked_add(1).unwrap_or(1);
        let mut packet = frame::authenticated(payload_type, self.bmc_id, sequence, &encrypt(&self.k2, iv, payload));
        let code = self.suite.packet_code(&self.k1, frame::covered(&packet));
        packet.extend(code);
        packet
    }

    /// Takes in a datagram of the BMC's address.
    ///
    /// # Errors
    /// Why it is dropped; the session goes on.
    pub fn accept(&mut self, datagram: &[u8]) -> Result<Incoming, Dropped> {
        let Packet::Secure(packet) = frame::parse(datagram, self.suite.packet_code_bytes())? else {
            return Err(Dropped::OtherSession);
        };
        if packet.session_id != self.console_id {
            return Err(Dropped::OtherSession);
        }
        let (Some(code), true) = (packet.code, packet.encrypted) else { return Err(Dropped::Unprotected) };
        let expected = self.suite.hmac(&self.k1, &[packet.covered]);
        if !self.suite.fits(&expected, code, self.suite.packet_code_bytes()) {
            return Err(Dropped::Forged);
        }
        self.take(packet.sequence)?;
        let plain = decrypt(&self.k2, packet.payload).ok_or(Dropped::Cipher)?;
        match packet.payload_type {
            Payload::Ipmi => {
                let seen = frame::response(&plain)?;
                let key = RequestKey { net_fn: seen.net_fn, command: seen.command, sequence: seen.sequence };
                Ok(Incoming::Reply(Reply { key, completion: seen.completion, data: seen.data.to_vec() }))
            }
            Payload::Sol => Ok(Incoming::Sol(plain)),
            _ => Err(Dropped::Frame(FrameError::Field("payload type"))),
        }
    }

    /// Each number once, in a window around the highest.
    fn take(&mut self, sequence: u32) -> Result<(), Dropped> {
        if sequence == 0 {
            return Err(Dropped::Replayed);
        }
        if sequence > self.highest_in {
            let ahead = sequence - self.highest_in;
            if self.highest_in != 0 && ahead > WINDOW {
                return Err(Dropped::Replayed);
            }
            self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
            self.highest_in = sequence;
            return Ok(());
        }
        let behind = self.highest_in - sequence;
        if behind >= WINDOW || self.seen & (1 << behind) != 0 {
            return Err(Dropped::Replayed);
        }
        self.seen |= 1 << behind;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use zeroize::Zeroizing;

    fn pair(suite: Suite) -> (Session, Session) {
        let digest = |byte: u8| Zeroizing::new(vec![byte; suite.rakp_code_bytes()]);
        let ours = Session::new(suite, 0x1111, 0x2222, digest(1), digest(2));
        let theirs = Session::new(suite, 0x2222, 0x1111, digest(1), digest(2));
        (ours, theirs)
    }

    /// A BMC's answer, made with the other end of the session.
    fn answer(theirs: &mut Session, key: RequestKey, data: &[u8]) -> Vec<u8> {
        let mut message = vec![frame::CONSOLE_ADDRESS, (key.net_fn + 1) << 2];
        let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |s, b| s.wrapping_add(*b)).wrapping_neg();
        message.push(sum(&message));
        message.extend([frame::BMC_ADDRESS, key.sequence << 2, key.command, 0]);
        message.extend(data);
        message.push(sum(&message[3..]));
        theirs.seal([7; 16], Payload::Ipmi, &message)
    }

    #[test]
    fn an_answer_is_taken_once_and_only_from_this_session() {
        for suite in Suite::PREFERENCE {
            let (mut ours, mut theirs) = pair(suite);
            let (key, _) = ours.request([0; 16], 0, 0, 1, &[]);
            let datagram = answer(&mut theirs, key, &[0x21, 0x10, 0x40]);
            let Ok(Incoming::Reply(reply)) = ours.accept(&datagram) else { unreachable!() };
            assert_eq!((reply.key, reply.completion, &reply.data[..]), (key, 0, &[0x21, 0x10, 0x40][..]));
            assert_eq!(ours.accept(&datagram), Err(Dropped::Replayed));
            let (_, mut stranger) = pair(suite);
            stranger.bmc_id = 0x3333;
            assert_eq!(ours.accept(&answer(&mut stranger, key, &[])), Err(Dropped::OtherSession));
            let mut cut = answer(&mut theirs, key, &[]);
            cut[5] &= 0x3f;
            assert_eq!(ours.accept(&cut), Err(Dropped::Unprotected));
        }
    }

    #[test]
    fn a_changed_bit_anywhere_is_seen() {
        let (mut ours, mut theirs) = pair(Suite::Sha256);
        let (key, _) = ours.request([0; 16], 0, 0, 1, &[]);
        let good = answer(&mut theirs, key, &[1, 2, 3]);
        for place in 4..good.len() {
            let mut bad = good.clone();
            bad[place] ^= 0x10;
            assert!(ours.accept(&bad).is_err(), "byte {place}");
        }
        assert!(ours.accept(&good).is_ok());
    }

    #[test]
    fn numbers_come_in_any_order_within_the_window() {
        let (mut ours, _) = pair(Suite::Sha1);
        assert_eq!(ours.take(5), Ok(()));
        assert_eq!(ours.take(3), Ok(()));
        assert_eq!(ours.take(3), Err(Dropped::Replayed));
        assert_eq!(ours.take(5 + WINDOW), Ok(()));
        assert_eq!(ours.take(5), Err(Dropped::Replayed));
        assert_eq!(ours.take(6), Ok(()));
        assert_eq!(ours.take(10_000), Err(Dropped::Replayed));
        assert_eq!(ours.take(0), Err(Dropped::Replayed));
    }

    proptest! {
        #[test]
        fn no_datagram_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            let (mut ours, _) = pair(Suite::Sha256);
            let _ = ours.accept(&bytes);
        }
    }
}
