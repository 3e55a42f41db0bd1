//! An open session of the BMC's side: packets verified, decrypted and sealed, and what goes wrong with them on the wire.

use super::command::Context;
use super::session::Strength;
use crate::misbehaviour::Misbehaviour;
use bmc::ipmi::crypto::{Digest, decrypt, encrypt};
use bmc::ipmi::frame::{self, Payload, Secure};
use std::collections::BTreeSet;
use std::net::SocketAddr;

pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let _ = getrandom::fill(&mut bytes);
    bytes
}

/// An open session.
pub(super) struct Open {
    pub(super) strength: Strength,
    pub(super) console_id: u32,
    pub(super) machine_session: u32,
    pub(super) k1: Digest,
    pub(super) k2: Digest,
    pub(super) next_out: u32,
    pub(super) highest_in: u32,
    pub(super) context: Context,
    pub(super) last: Vec<u8>,
    /// Where its last packet came from.
    pub(super) from: SocketAddr,
    /// When.
    pub(super) used_at_ms: u64,
}

impl Open {
    /// The payload of a packet, if the packet is what the session demands and was not taken before.
    pub(super) fn unseal(&mut self, packet: &Secure<'_>) -> Option<Vec<u8>> {
        match self.strength {
            Strength::Zero => Some(packet.payload.to_vec()),
            Strength::Of(suite) => {
                let (code, true) = (packet.code?, packet.encrypted) else { return None };
                let expected = suite.hmac(&self.k1, &[packet.covered]);
                if !suite.fits(&expected, code, suite.packet_code_bytes()) || packet.sequence <= self.highest_in {
                    return None;
                }
                self.highest_in = packet.sequence;
                decrypt(&self.k2, packet.payload)
            }
        }
    }

    /// The datagrams that carry a payload, with everything that goes wrong with them.
    pub(super) fn deliver(
        &mut self,
        payload_type: Payload,
        payload: &[u8],
        wrong: &BTreeSet<Misbehaviour>,
    ) -> Vec<Vec<u8>> {
        let mut datagram = if wrong.contains(&Misbehaviour::IpmiUnsealed) {
            frame::unprotected(payload_type, self.console_id, self.count(), payload)
        } else {
            self.seal(payload_type, payload, wrong.contains(&Misbehaviour::IpmiOtherSession))
        };
        if wrong.contains(&Misbehaviour::IpmiForged)
            && let Some(last) = datagram.last_mut()
        {
            *last ^= 1;
        }
        let mut datagrams = Vec::new();
        if wrong.contains(&Misbehaviour::IpmiReplays) && !self.last.is_empty() {
            datagrams.push(self.last.clone());
        }
        self.last.clone_from(&datagram);
        datagrams.push(datagram.clone());
        if wrong.contains(&Misbehaviour::IpmiTwice) {
            datagrams.push(datagram);
        }
        datagrams
    }

    /// The next sequence number.
    fn count(&mut self) -> u32 {
        let sequence = self.next_out;
        self.next_out += 1;
        sequence
    }

    fn seal(&mut self, payload_type: Payload, payload: &[u8], other_session: bool) -> Vec<u8> {
        let session = if other_session { self.console_id ^ 0x55 } else { self.console_id };
        let sequence = self.count();
        match self.strength {
            // Unsealed packets of a session still carry its number and sequence.
            Strength::Zero => frame::unprotected(payload_type, session, sequence, payload),
            Strength::Of(suite) => {
                let encrypted = encrypt(&self.k2, random(), payload);
                let mut packet = frame::authenticated(payload_type, session, sequence, &encrypted);
                let code = suite.packet_code(&self.k1, frame::covered(&packet));
                packet.extend(code);
                packet
            }
        }
    }
}
