//! IPv6 router advertisements (RFC 4861): a host that boots asks for routers, and iPXE goes on only when it is answered
//! or gives up after some 13 seconds. It is told that there are none: a router lifetime of zero, and no prefix.

use crate::gate::{self, Now, Stage, Ticket};
use crate::mac::Mac;
use protocol::name::Name;
use std::net::Ipv6Addr;

const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;
const ICMPV6: u8 = 58;

/// Who asks for routers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its card.
    pub mac: Mac,
    /// Its address; unspecified, when it has none yet.
    pub address: Ipv6Addr,
}

/// What is said to a host that asks, through our card `ours`, and for which job: nothing without a ticket that lets it boot.
#[must_use]
pub fn answer(ours: Mac, asked: Asked, ticket: Option<&Ticket>, now: Now) -> Option<(Name, Vec<u8>)> {
    let ticket = ticket?;
    gate::may_boot(Some(ticket), asked.mac, &ticket.job, Stage::Options, now).ok()?;
    Some((ticket.job.clone(), no_router((ours, link_local(ours)), (asked.mac, asked.address))))
}

/// Reads a router solicitation: who asks, from which address.
#[must_use]
pub fn solicitation(frame: &[u8]) -> Option<Asked> {
    let from = Mac(*frame.get(6..12)?.first_chunk()?);
    let packet = frame.get(14..)?;
    let head = packet.first_chunk::<40>()?;
    let icmp = packet.get(40..)?;
    // RFC 4861 section 6.1.1: hop limit 255, code 0, at least 8 bytes.
    let valid = frame.get(12..14)? == [0x86, 0xdd] && head[0] >> 4 == 6 && head[6] == ICMPV6 && head[7] == 255;
    if !valid || icmp.len() < 8 || icmp.first() != Some(&SOLICITATION) || icmp.get(1) != Some(&0) {
        return None;
    }
    let source: [u8; 16] = *head.get(8..24)?.first_chunk()?;
    Some(Asked { mac: from, address: source.into() })
}

/// "There is no router here", to one host. A host that asked without an address is answered at all-nodes, but in a frame
/// for its card alone.
#[must_use]
pub fn no_router(ours: (Mac, Ipv6Addr), theirs: (Mac, Ipv6Addr)) -> Vec<u8> {
    let to = if theirs.1.is_unspecified() { Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1) } else { theirs.1 };
    // Hop limit unspecified, no flags, lifetime 0, timers unspecified; then the sender's link-layer address.
    let mut icmp = vec![ADVERTISEMENT, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1];
    icmp.extend_from_slice(&ours.0.0);
    let length = u16::try_from(icmp.len()).unwrap_or_default().to_be_bytes();
    let pseudo = [0, 0, length[0], length[1], 0, 0, 0, ICMPV6];
    let sum = crate::dhcp::frame::checksum(&[&ours.1.octets(), &to.octets(), &pseudo, &icmp]);
    if let Some(place) = icmp.get_mut(2..4) {
        place.copy_from_slice(&sum.to_be_bytes());
    }
    let mut frame = Vec::with_capacity(14 + 40 + icmp.len());
    frame.extend_from_slice(&theirs.0.0);
    frame.extend_from_slice(&ours.0.0);
    frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, length[0], length[1], ICMPV6, 255]);
    frame.extend_from_slice(&ours.1.octets());
    frame.extend_from_slice(&to.octets());
    frame.extend_from_slice(&icmp);
    frame
}

/// The link-local address that belongs to a card (RFC 4291 appendix A).
#[must_use]
pub fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, g] = mac.0;
    let pair = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(0xfe80, 0, 0, 0, pair(a ^ 2, b), pair(c, 0xff), pair(0xfe, d), pair(e, g))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_answer_says_no_router_to_one_card_and_its_sum_fits() {
        let (ours, theirs) = (Mac([0x52, 0x54, 0, 0, 0, 9]), Mac([0x52, 0x54, 0, 0, 0, 1]));
        let frame = no_router((ours, link_local(ours)), (theirs, Ipv6Addr::UNSPECIFIED));
        assert_eq!(&frame[..6], &theirs.0);
        let icmp = &frame[54..];
        assert_eq!((icmp[0], &icmp[6..8]), (ADVERTISEMENT, &[0, 0][..]));
        let pseudo = [0, 0, 0, 24, 0, 0, 0, ICMPV6];
        assert_eq!(crate::dhcp::frame::checksum(&[&frame[22..54], &pseudo, icmp]), 0);
        assert_eq!(link_local(ours).to_string(), "fe80::5054:ff:fe00:9");
    }

    proptest! {
        #[test]
        fn any_frame_is_read_without_a_panic(frame in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = solicitation(&frame);
        }
    }
}
