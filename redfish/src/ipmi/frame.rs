//! Bytes on the wire: RMCP, ASF presence ping, session headers of IPMI 1.5 and 2.0, and the IPMI message itself
//! (sections 13.1 to 13.8).

use thiserror::Error;

/// No packet of ours or of a BMC is longer: a LAN frame.
pub const MAX_DATAGRAM: usize = 1472;

/// The responder address of a BMC (section 5.5).
pub const BMC_ADDRESS: u8 = 0x20;
/// Our address as remote console (section 5.5).
pub const CONSOLE_ADDRESS: u8 = 0x81;

const RMCP_VERSION: u8 = 0x06;
const NO_ACK: u8 = 0xff;
const CLASS_ASF: u8 = 0x06;
const CLASS_IPMI: u8 = 0x07;
const ASF_ENTERPRISE: [u8; 4] = [0x00, 0x00, 0x11, 0xbe];
const ASF_PONG: u8 = 0x40;
const FORMAT_V2: u8 = 0x06;
const NEXT_HEADER: u8 = 0x07;

/// Why bytes were no packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// It ends before its own fields do.
    #[error("the packet ends in the middle of its {0}")]
    Short(&'static str),
    /// A field has a value that no packet of this kind has.
    #[error("the packet has an impossible {0}")]
    Field(&'static str),
    /// A checksum of the message is wrong.
    #[error("the checksum of the message is wrong")]
    Checksum,
}

/// The payload types that we speak (section 13.27.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// An IPMI message.
    Ipmi,
    /// Serial over LAN.
    Sol,
    /// Open Session Request and Response, RAKP 1 to 4.
    OpenRequest,
    /// The answer to it.
    OpenResponse,
    /// RAKP message 1.
    Rakp1,
    /// RAKP message 2.
    Rakp2,
    /// RAKP message 3.
    Rakp3,
    /// RAKP message 4.
    Rakp4,
}

impl Payload {
    /// Its number.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Payload::Ipmi => 0x00,
            Payload::Sol => 0x01,
            Payload::OpenRequest => 0x10,
            Payload::OpenResponse => 0x11,
            Payload::Rakp1 => 0x12,
            Payload::Rakp2 => 0x13,
            Payload::Rakp3 => 0x14,
            Payload::Rakp4 => 0x15,
        }
    }

    fn from_code(code: u8) -> Option<Payload> {
        Some(match code {
            0x00 => Payload::Ipmi,
            0x01 => Payload::Sol,
            0x10 => Payload::OpenRequest,
            0x11 => Payload::OpenResponse,
            0x12 => Payload::Rakp1,
            0x13 => Payload::Rakp2,
            0x14 => Payload::Rakp3,
            0x15 => Payload::Rakp4,
            _ => return None,
        })
    }
}

/// A packet, its parts borrowed from the datagram. Nothing in it is verified yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet<'a> {
    /// An ASF presence pong.
    Pong {
        /// The tag of the ping that it answers.
        tag: u8,
        /// It says that it speaks IPMI.
        ipmi: bool,
    },
    /// A message outside a session, in the format of IPMI 1.5 (the only way to ask before a session).
    Sessionless {
        /// The IPMI message.
        message: &'a [u8],
    },
    /// A packet of RMCP+.
    Secure(Secure<'a>),
}

/// A packet of RMCP+ (section 13.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Secure<'a> {
    /// What it carries.
    pub payload_type: Payload,
    /// The payload is encrypted.
    pub encrypted: bool,
    /// Our session ID; 0 outside a session.
    pub session_id: u32,
    /// Its sequence number; 0 outside a session.
    pub sequence: u32,
    /// The payload, encrypted or not.
    pub payload: &'a [u8],
    /// What its authentication code covers; the code follows in the datagram.
    pub covered: &'a [u8],
    /// Its authentication code, if it is authenticated.
    pub code: Option<&'a [u8]>,
}

/// Reads a little-endian `u16` at a place.
pub(crate) fn u16_at(bytes: &[u8], at: usize, field: &'static str) -> Result<u16, FrameError> {
    let pair = bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).ok_or(FrameError::Short(field))?;
    Ok(u16::from_le_bytes(pair))
}

/// Reads a little-endian `u32` at a place.
pub(crate) fn u32_at(bytes: &[u8], at: usize, field: &'static str) -> Result<u32, FrameError> {
    let four = bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).ok_or(FrameError::Short(field))?;
    Ok(u32::from_le_bytes(four))
}

/// Reads sixteen bytes at a place.
pub(crate) fn sixteen_at(bytes: &[u8], at: usize, field: &'static str) -> Result<[u8; 16], FrameError> {
    bytes.get(at..at + 16).and_then(|b| b.try_into().ok()).ok_or(FrameError::Short(field))
}

fn rmcp(class: u8) -> Vec<u8> {
    vec![RMCP_VERSION, 0x00, NO_ACK, class]
}

/// An ASF presence ping (ASF 2.0, section 3.2.4.1): answered by any BMC, without credentials.
#[must_use]
pub fn ping(tag: u8) -> Vec<u8> {
    let mut out = rmcp(CLASS_ASF);
    out.extend(ASF_ENTERPRISE);
    out.extend([0x80, tag, 0x00, 0x00]);
    out
}

/// A message outside any session.
#[must_use]
pub fn sessionless(message: &[u8]) -> Vec<u8> {
    let mut out = rmcp(CLASS_IPMI);
    // Authentication type none, sequence 0, session 0 (section 13.6, table 13-8).
    out.extend([0; 9]);
    out.push(u8::try_from(message.len()).unwrap_or(u8::MAX));
    out.extend(message);
    out
}

/// A packet of RMCP+ outside a session: handshake messages (section 13.20 and on).
#[must_use]
pub fn plain(payload_type: Payload, payload: &[u8]) -> Vec<u8> {
    unprotected(payload_type, 0, 0, payload)
}

/// A packet of a session that neither signs nor encrypts: suite 0, which is opened to show that it can be, and closed.
#[must_use]
pub fn unprotected(payload_type: Payload, session_id: u32, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = rmcp(CLASS_IPMI);
    out.push(FORMAT_V2);
    out.push(payload_type.code());
    out.extend(session_id.to_le_bytes());
    out.extend(sequence.to_le_bytes());
    out.extend(u16::try_from(payload.len()).unwrap_or(u16::MAX).to_le_bytes());
    out.extend(payload);
    out
}

/// A packet of a session, up to and with the fields that its authentication code covers. The code is put behind it.
#[must_use]
pub fn authenticated(payload_type: Payload, session_id: u32, sequence: u32, encrypted_payload: &[u8]) -> Vec<u8> {
    let mut out = rmcp(CLASS_IPMI);
    out.push(FORMAT_V2);
    out.push(payload_type.code() | 0xc0);
    out.extend(session_id.to_le_bytes());
    out.extend(sequence.to_le_bytes());
    out.extend(u16::try_from(encrypted_payload.len()).unwrap_or(u16::MAX).to_le_bytes());
    out.extend(encrypted_payload);
    // Padded so that what is covered, from the format byte to the next-header byte, is a multiple of four.
    let covered = out.len() - 4 + 2;
    let pad = (4 - covered % 4) % 4;
    out.extend(std::iter::repeat_n(0xff, pad));
    out.push(u8::try_from(pad).unwrap_or(0));
    out.push(NEXT_HEADER);
    out
}

/// What the authentication code of a packet made by [`authenticated`] covers.
#[must_use]
pub fn covered(packet: &[u8]) -> &[u8] {
    packet.get(4..).unwrap_or_default()
}

/// Takes a datagram apart. `code_bytes` is how long an authentication code of the session is (12 for suite 3, 16 for
/// suite 17).
///
/// # Errors
/// The bytes are no packet of a kind that we speak.
pub fn parse(datagram: &[u8], code_bytes: usize) -> Result<Packet<'_>, FrameError> {
    let header: [u8; 4] = datagram.get(..4).and_then(|h| h.try_into().ok()).ok_or(FrameError::Short("RMCP header"))?;
    if header[0] != RMCP_VERSION {
        return Err(FrameError::Field("RMCP version"));
    }
    let rest = &datagram[4..];
    match header[3] {
        CLASS_ASF => pong(rest),
        CLASS_IPMI => match rest.first() {
            Some(&FORMAT_V2) => secure(rest, code_bytes).map(Packet::Secure),
            Some(0) => old(rest),
            Some(_) => Err(FrameError::Field("authentication type")),
            None => Err(FrameError::Short("session header")),
        },
        _ => Err(FrameError::Field("RMCP class")),
    }
}

fn pong(rest: &[u8]) -> Result<Packet<'_>, FrameError> {
    if rest.len() < 8 {
        return Err(FrameError::Short("ASF header"));
    }
    if rest[..4] != ASF_ENTERPRISE || rest[4] != ASF_PONG {
        return Err(FrameError::Field("ASF message type"));
    }
    // Data: enterprise number, OEM, supported entities (bit 7: IPMI), interactions (ASF 2.0, section 3.2.4.3).
    let entities = rest.get(16).copied().unwrap_or(0);
    Ok(Packet::Pong { tag: rest[5], ipmi: entities & 0x80 != 0 })
}

fn old(rest: &[u8]) -> Result<Packet<'_>, FrameError> {
    let length = usize::from(*rest.get(9).ok_or(FrameError::Short("session header"))?);
    let message = rest.get(10..10 + length).ok_or(FrameError::Short("message"))?;
    Ok(Packet::Sessionless { message })
}

fn secure(rest: &[u8], code_bytes: usize) -> Result<Secure<'_>, FrameError> {
    let kind = *rest.get(1).ok_or(FrameError::Short("payload type"))?;
    let payload_type = Payload::from_code(kind & 0x3f).ok_or(FrameError::Field("payload type"))?;
    let session_id = u32_at(rest, 2, "session ID")?;
    let sequence = u32_at(rest, 6, "sequence number")?;
    let length = usize::from(u16_at(rest, 10, "payload length")?);
    let end = 12 + length;
    let payload = rest.get(12..end).ok_or(FrameError::Short("payload"))?;
    let (encrypted, authenticated) = (kind & 0x80 != 0, kind & 0x40 != 0);
    if !authenticated {
        return Ok(Secure { payload_type, encrypted, session_id, sequence, payload, covered: &[], code: None });
    }
    // The code is the tail; what is before it is padding, its length and the next header.
    let code_at = rest.len().checked_sub(code_bytes).ok_or(FrameError::Short("authentication code"))?;
    let trailer = rest.get(end..code_at).ok_or(FrameError::Short("session trailer"))?;
    match trailer {
        [pad @ .., length, NEXT_HEADER] if usize::from(*length) == pad.len() && pad.len() < 4 => {}
        _ => return Err(FrameError::Field("session trailer")),
    }
    let (covered, code) = rest.split_at(code_at);
    Ok(Secure { payload_type, encrypted, session_id, sequence, payload, covered, code: Some(code) })
}

/// Two's complement of the sum (section 13.8).
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg()
}

/// A request to the BMC (section 13.8): `sequence` counts 0 to 63.
#[must_use]
pub fn request(net_fn: u8, command: u8, sequence: u8, data: &[u8]) -> Vec<u8> {
    request_to(0, net_fn, command, sequence, data)
}

/// A request to one of the BMC's logical units, 0 to 3.
#[must_use]
pub fn request_to(lun: u8, net_fn: u8, command: u8, sequence: u8, data: &[u8]) -> Vec<u8> {
    let mut out = vec![BMC_ADDRESS, net_fn << 2 | lun & 0x03];
    out.push(checksum(&out));
    let at = out.len();
    out.extend([CONSOLE_ADDRESS, sequence << 2, command]);
    out.extend(data);
    out.push(checksum(&out[at..]));
    out
}

/// A response, its checksums verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response<'a> {
    /// The network function of the request that it answers (even).
    pub net_fn: u8,
    /// The command that it answers.
    pub command: u8,
    /// The sequence number that it answers.
    pub sequence: u8,
    /// The completion code; 0 = done.
    pub completion: u8,
    /// The data behind the completion code.
    pub data: &'a [u8],
}

/// Takes a response apart.
///
/// # Errors
/// It is too short, is no response to a console, or a checksum is wrong.
pub fn response(message: &[u8]) -> Result<Response<'_>, FrameError> {
    let [to, net_fn, first, from, sequence, command, completion, .., last] = *message else {
        return Err(FrameError::Short("message"));
    };
    let body = message.get(3..message.len() - 1).ok_or(FrameError::Short("message"))?;
    if checksum(&[to, net_fn]) != first || checksum(body) != last {
        return Err(FrameError::Checksum);
    }
    // Neither address is judged: some answer from another than they were asked at, and go-ipmi's server addresses its
    // answers to itself. Who answers is settled by the session, what is answered by function, command and sequence.
    let _ = (to, from);
    if net_fn >> 2 & 1 == 0 {
        return Err(FrameError::Field("network function"));
    }
    let data = message.get(7..message.len() - 1).unwrap_or_default();
    Ok(Response { net_fn: (net_fn >> 2) - 1, command, sequence: sequence >> 2, completion, data })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn get_channel_authentication_capabilities_as_every_client_sends_it() {
        // The first packet of an ipmitool lanplus session, as captured (IPMI 2.0, channel 0Eh, administrator).
        let expected = [
            0x06, 0x00, 0xff, 0x07, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x09, 0x20, 0x18, 0xc8, 0x81,
            0x00, 0x38, 0x8e, 0x04, 0xb5,
        ];
        assert_eq!(sessionless(&request(0x06, 0x38, 0, &[0x8e, 0x04])), expected);
    }

    #[test]
    fn a_presence_ping_and_its_pong() {
        assert_eq!(ping(7), [0x06, 0, 0xff, 0x06, 0, 0, 0x11, 0xbe, 0x80, 7, 0, 0]);
        let mut pong = vec![0x06, 0, 0xff, 0x06, 0, 0, 0x11, 0xbe, 0x40, 7, 0, 16];
        pong.extend([0, 0, 0x11, 0xbe, 0, 0, 0, 0, 0x81, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(parse(&pong, 12), Ok(Packet::Pong { tag: 7, ipmi: true }));
    }

    #[test]
    fn a_wrong_checksum_is_refused_in_either_half() {
        let mut good = vec![CONSOLE_ADDRESS, 0x1c];
        good.push(checksum(&good));
        let at = good.len();
        good.extend([BMC_ADDRESS, 4, 0x38, 0, 1, 2]);
        good.push(checksum(&good[at..]));
        let seen = response(&good).unwrap();
        assert_eq!(
            (seen.net_fn, seen.command, seen.sequence, seen.completion, seen.data),
            (6, 0x38, 1, 0, &[1, 2][..])
        );
        for place in 0..good.len() {
            // A changed bit shows in the sum of its half.
            let mut bad = good.clone();
            bad[place] ^= 0x04;
            assert!(response(&bad).is_err(), "byte {place}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..96), code in 0usize..20) {
            let _ = parse(&bytes, code);
            let _ = response(&bytes);
            let mut like = rmcp(CLASS_IPMI);
            like.push(FORMAT_V2);
            like.extend(&bytes);
            let _ = parse(&like, code);
        }

        #[test]
        fn what_is_sent_is_read_back(payload in proptest::collection::vec(any::<u8>(), 0..200), id: u32, sequence: u32) {
            let mut packet = authenticated(Payload::Ipmi, id, sequence, &payload);
            prop_assert_eq!(covered(&packet).len() % 4, 0);
            let signed = covered(&packet).to_vec();
            packet.extend([9; 12]);
            let Packet::Secure(seen) = parse(&packet, 12).unwrap() else { return Err(TestCaseError::fail("kind")) };
            prop_assert_eq!(seen.payload, &payload[..]);
            prop_assert_eq!((seen.session_id, seen.sequence), (id, sequence));
            prop_assert_eq!(seen.covered, &signed[..]);
            prop_assert_eq!(seen.code, Some(&[9; 12][..]));
        }
    }
}
