//! IPMI messages as they stand in a packet, and the presence ping before all of them.

use super::command::Answer;
use bmc::ipmi::frame;

/// A request of a client.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    from: u8,
    from_lun: u8,
    lun: u8,
    pub(super) net_fn: u8,
    sequence: u8,
    pub(super) command: u8,
    pub(super) data: &'a [u8],
}

/// What makes the sum of all bytes zero.
pub(super) fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg()
}

impl<'a> Request<'a> {
    pub(super) fn read(message: &'a [u8]) -> Option<Request<'a>> {
        let [to, net_fn, first, from, sequence, command, .., last] = *message else { return None };
        let body = message.get(3..message.len() - 1)?;
        if checksum(&[to, net_fn]) != first || checksum(body) != last {
            return None;
        }
        let data = message.get(6..message.len() - 1)?;
        Some(Request {
            from,
            from_lun: sequence & 3,
            lun: net_fn & 3,
            net_fn: net_fn >> 2,
            sequence: sequence >> 2,
            command,
            data,
        })
    }

    pub(super) fn answer(&self, answer: &Answer) -> Vec<u8> {
        let mut message = vec![self.from, (self.net_fn + 1) << 2 | self.from_lun];
        message.push(checksum(&message));
        let body_at = message.len();
        message.extend([frame::BMC_ADDRESS, self.sequence << 2 | self.lun, self.command, answer.code]);
        message.extend(&answer.data);
        message.push(checksum(message.get(body_at..).unwrap_or_default()));
        message
    }
}

/// Answers an ASF presence ping (ASF 2.0, section 3.2.4.2).
pub(super) fn pong(datagram: &[u8]) -> Option<Vec<u8>> {
    let [6, _, _, 6, 0, 0, 0x11, 0xbe, 0x80, tag, ..] = *datagram else { return None };
    let mut pong = vec![6, 0, 0xff, 6, 0, 0, 0x11, 0xbe, 0x40, tag, 0, 16];
    pong.extend([0, 0, 0x11, 0xbe, 0, 0, 0, 0, 0x81, 0, 0, 0, 0, 0, 0, 0]);
    Some(pong)
}
