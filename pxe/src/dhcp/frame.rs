//! Ethernet frames with IPv4 and UDP: written for clients that cannot answer ARP yet, read by the packet tap.

use crate::mac::Mac;
use std::net::Ipv4Addr;

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const UDP: u8 = 17;

/// A datagram inside a frame.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// The frame's sender.
    pub from_mac: Mac,
    /// The sender's address.
    pub source: Ipv4Addr,
    /// The receiver's address.
    pub target: Ipv4Addr,
    /// The sender's port.
    pub source_port: u16,
    /// The receiver's port.
    pub target_port: u16,
    /// What it carries.
    pub payload: &'a [u8],
}

impl Datagram<'_> {
    /// Whether it is of DHCP or of PXE's boot server.
    #[must_use]
    pub const fn is_dhcp(&self) -> bool {
        matches!(self.source_port, 67 | 68 | 4011) || matches!(self.target_port, 67 | 68 | 4011)
    }
}

/// Reads a frame; `None` for all that is no whole UDP datagram over IPv4. One VLAN tag is stepped over.
#[must_use]
pub fn read(frame: &[u8]) -> Option<Datagram<'_>> {
    let from_mac = Mac(*frame.get(6..12)?.first_chunk()?);
    let (ethertype, rest) = frame.get(12..)?.split_first_chunk::<2>()?;
    let packet = match *ethertype {
        ETHERTYPE_IPV4 => rest,
        [0x81, 0x00] if rest.get(2..4)? == ETHERTYPE_IPV4 => rest.get(4..)?,
        _ => return None,
    };
    let head = packet.first_chunk::<20>()?;
    let head_bytes = usize::from(head[0] & 15) * 4;
    let total = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let fragmented = u16::from_be_bytes([head[6], head[7]]) & 0x3fff != 0;
    if head[0] >> 4 != 4 || head[9] != UDP || fragmented || head_bytes < 20 {
        return None;
    }
    let segment = packet.get(head_bytes..total)?;
    let (udp, payload) = segment.split_first_chunk::<8>()?;
    let length = usize::from(u16::from_be_bytes([udp[4], udp[5]]));
    Some(Datagram {
        from_mac,
        source: Ipv4Addr::new(head[12], head[13], head[14], head[15]),
        target: Ipv4Addr::new(head[16], head[17], head[18], head[19]),
        source_port: u16::from_be_bytes([udp[0], udp[1]]),
        target_port: u16::from_be_bytes([udp[2], udp[3]]),
        payload: payload.get(..length.checked_sub(8)?)?,
    })
}

/// Writes a frame from port 67 to port 68. `None`: the payload is too long for one packet.
#[must_use]
pub fn write(from: (Mac, Ipv4Addr), to: (Mac, Ipv4Addr), payload: &[u8]) -> Option<Vec<u8>> {
    write_between(from, to, (67, 68), payload)
}

/// Writes the frame in which a client without an address asks everybody: from port 68 to port 67.
#[must_use]
pub fn write_question(from: Mac, payload: &[u8]) -> Option<Vec<u8>> {
    write_between((from, Ipv4Addr::UNSPECIFIED), (Mac([0xff; 6]), Ipv4Addr::BROADCAST), (68, 67), payload)
}

fn write_between(from: (Mac, Ipv4Addr), to: (Mac, Ipv4Addr), ports: (u8, u8), payload: &[u8]) -> Option<Vec<u8>> {
    let udp_bytes = u16::try_from(payload.len() + 8).ok()?;
    let total = udp_bytes.checked_add(20)?;
    let mut frame = Vec::with_capacity(usize::from(total) + 14);
    frame.extend_from_slice(&to.0.0);
    frame.extend_from_slice(&from.0.0);
    frame.extend_from_slice(&ETHERTYPE_IPV4);
    let mut head = [0_u8; 20];
    head[0] = 0x45;
    // Precedence of network control, as every DHCP server sends.
    head[1] = 0xc0;
    head[2..4].copy_from_slice(&total.to_be_bytes());
    head[8] = 64;
    head[9] = UDP;
    head[12..16].copy_from_slice(&from.1.octets());
    head[16..20].copy_from_slice(&to.1.octets());
    let check = checksum(&[&head]);
    head[10..12].copy_from_slice(&check.to_be_bytes());
    frame.extend_from_slice(&head);
    let mut udp = [0, ports.0, 0, ports.1, 0, 0, 0, 0];
    udp[4..6].copy_from_slice(&udp_bytes.to_be_bytes());
    let [high, low] = udp_bytes.to_be_bytes();
    let pseudo = [0, UDP, high, low];
    // A sum of zero means "none" in UDP over IPv4 (RFC 768); its other form is all ones.
    let sum = match checksum(&[&from.1.octets(), &to.1.octets(), &pseudo, &udp, payload]) {
        0 => u16::MAX,
        sum => sum,
    };
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    frame.extend_from_slice(&udp);
    frame.extend_from_slice(payload);
    Some(frame)
}

/// The Internet checksum (RFC 1071). All parts but the last have an even length.
pub(crate) fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u64;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_frame_is_read_without_a_panic(frame in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&frame);
        }

        #[test]
        fn what_is_written_is_read_and_its_sums_fit(payload in proptest::collection::vec(any::<u8>(), 0..600), from: [u8; 4], to: [u8; 4]) {
            let (ours, theirs) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
            let frame = write((ours, from.into()), (theirs, to.into()), &payload).unwrap();
            let datagram = read(&frame).unwrap();
            prop_assert_eq!((datagram.source, datagram.target), (from.into(), to.into()));
            prop_assert_eq!(datagram.payload, &payload[..]);
            prop_assert_eq!(checksum(&[&frame[14..34]]), 0);
            let length = u16::try_from(payload.len() + 8).unwrap().to_be_bytes();
            prop_assert_eq!(checksum(&[&from, &to, &[0, 17], &length, &frame[34..]]), 0);
        }
    }
}
