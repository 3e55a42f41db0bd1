//! The network segment of the rack, in memory: whole Ethernet frames in, the answers of the machines out. Nothing of it
//! touches a network interface.
//!
//! ARP (RFC 826), ICMP echo (RFC 792) and the first answer to a SYN (RFC 9293) are answered as the state of each machine says;
//! a host that finds nothing to boot asks by DHCP.

use super::layout::{GATEWAY, REFERENCES, SECOND_PORT};
use super::rack::{Host, Rack};
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

const ARP: u16 = 0x0806;
const IPV4: u16 = 0x0800;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
/// The kubelet's port.
pub const KUBELET_PORT: u16 = 10_250;

/// The segment.
#[derive(Debug, Clone)]
pub struct Segment {
    rack: Arc<Rack>,
    by_address: Arc<HashMap<Ipv4Addr, usize>>,
}

/// Who answers an address.
enum Owner<'a> {
    Host(&'a Host),
    /// The gateway and the references, which never fail.
    Fixture([u8; 6]),
}

impl Segment {
    /// The segment of a rack.
    #[must_use]
    pub fn new(rack: Arc<Rack>) -> Segment {
        let by_address = rack.hosts.iter().enumerate().map(|(at, host)| (host.place.address, at)).collect();
        Segment { rack, by_address: Arc::new(by_address) }
    }

    fn owner(&self, address: Ipv4Addr) -> Option<Owner<'_>> {
        if let Some(at) = self.by_address.get(&address) {
            return self.rack.hosts.get(*at).map(Owner::Host);
        }
        let fixtures = [GATEWAY, REFERENCES[0], REFERENCES[1]];
        fixtures.contains(&address).then(|| Owner::Fixture([0x02, 0x52, 0x4d, 0, 0, address.octets()[3]]))
    }

    /// The answer to one frame of ours, if one comes.
    #[must_use]
    pub fn answer(&self, frame: &[u8]) -> Option<Vec<u8>> {
        let kind = u16::from_be_bytes([*frame.get(12)?, *frame.get(13)?]);
        let payload = frame.get(14..)?;
        let from: [u8; 6] = frame.get(6..12)?.try_into().ok()?;
        match kind {
            ARP => self.arp(payload),
            IPV4 => self.ipv4(frame.get(0..6)?, from, payload),
            _ => None,
        }
    }

    fn arp(&self, packet: &[u8]) -> Option<Vec<u8>> {
        // Ethernet and IPv4, and a request.
        if packet.get(..8)? != [0, 1, 8, 0, 6, 4, 0, 1] {
            return None;
        }
        let (sender, sender_address) = (packet.get(8..14)?, packet.get(14..18)?);
        let wanted: [u8; 4] = packet.get(24..28)?.try_into().ok()?;
        let mac = match self.owner(wanted.into())? {
            Owner::Host(host) => self.rack.answers(host)?.arp.then_some(host.place.mac.0)?,
            Owner::Fixture(mac) => mac,
        };
        let mut reply = Vec::with_capacity(42);
        reply.extend_from_slice(sender);
        reply.extend_from_slice(&mac);
        reply.extend_from_slice(&ARP.to_be_bytes());
        reply.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, 2]);
        reply.extend_from_slice(&mac);
        reply.extend_from_slice(&wanted);
        reply.extend_from_slice(sender);
        reply.extend_from_slice(sender_address);
        Some(reply)
    }

    fn ipv4(&self, to: &[u8], from: [u8; 6], packet: &[u8]) -> Option<Vec<u8>> {
        let header = usize::from(packet.first()? & 0x0f) * 4;
        let length = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
        let body = packet.get(header..length.min(packet.len()))?;
        let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
        let target: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
        let owner = self.owner(target.into())?;
        let (mac, answers) = match &owner {
            Owner::Host(host) => (host.place.mac.0, Some(self.rack.answers(host)?)),
            Owner::Fixture(mac) => (*mac, None),
        };
        if to != mac {
            return None;
        }
        let (protocol, reply) = match *packet.get(9)? {
            ICMP if answers.is_none_or(|answers| answers.icmp) => (ICMP, echo(body)?),
            TCP => {
                let answers = answers?;
                let port = u16::from_be_bytes([*body.get(2)?, *body.get(3)?]);
                let listens = match port {
                    KUBELET_PORT => answers.kubelet_port?,
                    SECOND_PORT => answers.second_port?,
                    _ if answers.icmp && answers.second_port.is_some() => false,
                    _ => return None,
                };
                (TCP, syn(body, listens, target, source)?)
            }
            _ => return None,
        };
        let mut frame = Vec::with_capacity(34 + reply.len());
        frame.extend_from_slice(&from);
        frame.extend_from_slice(&mac);
        frame.extend_from_slice(&IPV4.to_be_bytes());
        frame.extend_from_slice(&ip_header(protocol, target, source, reply.len())?);
        frame.extend_from_slice(&reply);
        Some(frame)
    }

    /// What hosts send unasked: those that find nothing on their disk ask the network for something to boot.
    #[must_use]
    pub fn boot_requests(&self) -> Vec<Vec<u8>> {
        let asking =
            |host: &&Host| !self.rack.is_dark(&host.place) && host.machine(|machine| machine.boot_ask().is_some());
        self.rack.hosts.iter().filter(asking).filter_map(|host| discover(host.place.mac.0, host.place.id)).collect()
    }
}

/// An echo reply.
fn echo(request: &[u8]) -> Option<Vec<u8>> {
    // Type 8 is a request, code 0.
    if request.get(..2)? != [8, 0] {
        return None;
    }
    let mut reply = request.to_vec();
    reply[0] = 0;
    reply[2..4].fill(0);
    let sum = checksum(&[&reply]);
    reply[2..4].copy_from_slice(&sum.to_be_bytes());
    Some(reply)
}

/// SYN/ACK or RST to a SYN.
fn syn(segment: &[u8], listens: bool, from: [u8; 4], to: [u8; 4]) -> Option<Vec<u8>> {
    let flags = *segment.get(13)?;
    if flags & (SYN | RST | ACK) != SYN {
        return None;
    }
    let sequence = u32::from_be_bytes(segment.get(4..8)?.try_into().ok()?);
    let mut reply = vec![0; 20];
    reply[0..2].copy_from_slice(segment.get(2..4)?);
    reply[2..4].copy_from_slice(segment.get(0..2)?);
    // Any sequence will do: nobody goes on from here.
    if listens {
        reply[4..8].copy_from_slice(&0x524d_0001_u32.to_be_bytes());
    }
    reply[8..12].copy_from_slice(&sequence.wrapping_add(1).to_be_bytes());
    reply[12] = 5 << 4;
    reply[13] = if listens { SYN | ACK } else { RST | ACK };
    if listens {
        reply[14..16].copy_from_slice(&64_240_u16.to_be_bytes());
    }
    let length = u16::try_from(reply.len()).ok()?;
    let [high, low] = length.to_be_bytes();
    let sum = checksum(&[&from, &to, &[0, TCP, high, low], &reply]);
    reply[16..18].copy_from_slice(&sum.to_be_bytes());
    Some(reply)
}

fn ip_header(protocol: u8, from: [u8; 4], to: [u8; 4], payload: usize) -> Option<[u8; 20]> {
    let mut header = [0; 20];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&u16::try_from(payload + 20).ok()?.to_be_bytes());
    header[6] = 0x40;
    header[8] = 64;
    header[9] = protocol;
    header[12..16].copy_from_slice(&from);
    header[16..20].copy_from_slice(&to);
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    Some(header)
}

/// The internet checksum (RFC 1071) over parts of even length, the last of any.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// A DHCPDISCOVER as firmware sends it (RFC 2131), of class `PXEClient` for x86-64 UEFI (RFC 4578).
fn discover(mac: [u8; 6], id: u32) -> Option<Vec<u8>> {
    let mut dhcp = vec![0; 240];
    dhcp[0..4].copy_from_slice(&[1, 1, 6, 0]);
    dhcp[4..8].copy_from_slice(&id.to_be_bytes());
    dhcp[10] = 0x80;
    dhcp[28..34].copy_from_slice(&mac);
    dhcp[236..240].copy_from_slice(&[99, 130, 83, 99]);
    dhcp.extend_from_slice(&[53, 1, 1]);
    let class = b"PXEClient:Arch:00007:UNDI:003016";
    dhcp.extend_from_slice(&[60, u8::try_from(class.len()).ok()?]);
    dhcp.extend_from_slice(class);
    dhcp.extend_from_slice(&[93, 2, 0, 7, 255]);
    let mut udp = Vec::with_capacity(8 + dhcp.len());
    udp.extend_from_slice(&68_u16.to_be_bytes());
    udp.extend_from_slice(&67_u16.to_be_bytes());
    udp.extend_from_slice(&u16::try_from(8 + dhcp.len()).ok()?.to_be_bytes());
    // Zero: no checksum, which IPv4 allows (RFC 768).
    udp.extend_from_slice(&[0, 0]);
    udp.extend_from_slice(&dhcp);
    let mut frame = vec![0xff; 6];
    frame.extend_from_slice(&mac);
    frame.extend_from_slice(&IPV4.to_be_bytes());
    frame.extend_from_slice(&ip_header(17, [0; 4], [255; 4], udp.len())?);
    frame.extend_from_slice(&udp);
    Some(frame)
}

#[cfg(test)]
mod tests {
    use super::super::layout::{OUR_ADDRESS, OUR_MAC, places};
    use super::*;
    use machine::{Component, Failing, Fault};

    async fn segment() -> Segment {
        Segment::new(Arc::new(Rack::start(places(3, 0)).await.unwrap()))
    }

    fn packet(mac: [u8; 6], protocol: u8, to: Ipv4Addr, body: &[u8]) -> Vec<u8> {
        let mut frame = mac.to_vec();
        frame.extend_from_slice(&OUR_MAC);
        frame.extend_from_slice(&IPV4.to_be_bytes());
        frame.extend_from_slice(&ip_header(protocol, OUR_ADDRESS.octets(), to.octets(), body.len()).unwrap());
        frame.extend_from_slice(body);
        frame
    }

    /// A SYN to a port.
    fn open(port: u16) -> [u8; 20] {
        let mut segment = [0; 20];
        segment[0..2].copy_from_slice(&40_000_u16.to_be_bytes());
        segment[2..4].copy_from_slice(&port.to_be_bytes());
        segment[4..8].copy_from_slice(&7_u32.to_be_bytes());
        segment[12] = 5 << 4;
        segment[13] = SYN;
        segment
    }

    #[tokio::test]
    async fn a_living_host_answers_and_a_stuck_one_is_silent() {
        let segment = segment().await;
        let host = &segment.rack.hosts[1];
        let ping = packet(host.place.mac.0, ICMP, host.place.address, &[8, 0, 0, 0, 1, 2, 3, 4, 9]);
        let reply = segment.answer(&ping).unwrap();
        assert_eq!(&reply[0..6], OUR_MAC);
        assert_eq!(&reply[34..36], [0, 0]);
        assert_eq!(checksum(&[&reply[34..]]), 0, "the checksum holds");
        assert_eq!(checksum(&[&reply[14..34]]), 0);
        let syn = packet(host.place.mac.0, TCP, host.place.address, &open(KUBELET_PORT));
        let reply = segment.answer(&syn).unwrap();
        assert_eq!((reply[47], &reply[42..46]), (SYN | ACK, &8_u32.to_be_bytes()[..]));
        host.inject(Fault::Component(Component::Kubelet, Failing::Dead));
        assert_eq!(segment.answer(&syn).unwrap()[47], RST | ACK);
        host.inject(Fault::KernelStuck);
        assert!(segment.answer(&ping).is_none() && segment.answer(&syn).is_none());
        assert!(segment.answer(&packet([2; 6], ICMP, GATEWAY, &[8, 0, 0, 0])).is_none(), "another card's frame");
        let gateway = packet([0x02, 0x52, 0x4d, 0, 0, 1], ICMP, GATEWAY, &[8, 0, 0, 0, 0, 0, 0, 0]);
        assert!(segment.answer(&gateway).is_some());
    }

    #[tokio::test]
    async fn nobody_answers_behind_a_switch_that_is_down() {
        let segment = segment().await;
        let host = &segment.rack.hosts[0];
        let mut arp = vec![0xff; 6];
        arp.extend_from_slice(&OUR_MAC);
        arp.extend_from_slice(&ARP.to_be_bytes());
        arp.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
        arp.extend_from_slice(&OUR_MAC);
        arp.extend_from_slice(&OUR_ADDRESS.octets());
        arp.extend_from_slice(&[0; 6]);
        arp.extend_from_slice(&host.place.address.octets());
        assert_eq!(&segment.answer(&arp).unwrap()[22..28], host.place.mac.0);
        segment.rack.darken(host.place.rack, true);
        assert!(segment.answer(&arp).is_none());
    }

    #[tokio::test]
    async fn no_frame_makes_it_fall_over() {
        let segment = segment().await;
        let whole = packet(segment.rack.hosts[0].place.mac.0, TCP, segment.rack.hosts[0].place.address, &open(22));
        for length in 0..whole.len() {
            let _ = segment.answer(&whole[..length]);
        }
        for place in 0..whole.len() {
            for value in [0, 0x0f, 0x40, 0xff] {
                let mut frame = whole.clone();
                frame[place] = value;
                let _ = segment.answer(&frame);
            }
        }
    }
}
