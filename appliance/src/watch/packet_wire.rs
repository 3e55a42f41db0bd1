//! The wire of `serve`: one interface through a packet socket, with a kernel filter that lets only answers through.
//!
//! Frames come in by a memory ring that is shared with the kernel: it holds a second of answers, needs no larger
//! `net.core.rmem_max`, and is emptied without a system call. Raw frames do not touch the kernel's neighbour table, so its
//! limits (`net.ipv4.neigh.default.gc_thresh*`) do not matter here, as they do for programs that let the kernel resolve.

use super::packet_ring::PacketRing;
use super::prober::Marks;
use super::wire::{Frames, Received, Wire, WireError};
use pnet_datalink::NetworkInterface;
use pxe::mac::Mac;
use socket2::SockFilter;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// See the module.
#[derive(Debug)]
pub struct PacketWire {
    ring: PacketRing,
    mac: Mac,
    address: Ipv4Addr,
}

impl PacketWire {
    /// Opens it on an interface, with room for `answers_max` frames that wait; a second's worth is right. Needs CAP_NET_RAW.
    ///
    /// # Errors
    /// What is missing and what to do.
    pub fn open(interface: &str, marks: Marks, answers_max: usize) -> Result<PacketWire, WireError> {
        let system = |doing, source| WireError::System { interface: interface.to_owned(), doing, source };
        let present = pnet_datalink::interfaces();
        let Some(found) = present.iter().find(|i| i.name == interface) else {
            let present = present.iter().map(|i| i.name.as_str()).collect::<Vec<_>>().join(", ");
            return Err(WireError::NoInterface { interface: interface.to_owned(), present });
        };
        let lacks = |what| WireError::Lacks { interface: interface.to_owned(), what };
        let address = address(found).ok_or_else(|| lacks("IPv4 address"))?;
        let mac = found.mac.map(|m| Mac([m.0, m.1, m.2, m.3, m.4, m.5])).filter(|m| m.is_unicast());
        let mac = mac.ok_or_else(|| lacks("hardware address"))?;
        let ring = PacketRing::open(interface, found.index, &filter(address, marks), answers_max);
        let ring = ring.map_err(|(doing, why)| match why.kind() {
            io::ErrorKind::PermissionDenied => WireError::NotPermitted { interface: interface.to_owned() },
            _ => system(doing, why),
        })?;
        Ok(PacketWire { ring, mac, address })
    }
}

fn address(interface: &NetworkInterface) -> Option<Ipv4Addr> {
    interface.ips.iter().find_map(|net| match net.ip() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    })
}

impl Wire for PacketWire {
    fn mac(&self) -> Mac {
        self.mac
    }

    fn address(&self) -> Ipv4Addr {
        self.address
    }

    fn carrier(&mut self) -> bool {
        self.ring.carrier()
    }

    fn send(&mut self, frames: &Frames, unsent: &mut dyn FnMut(usize)) -> io::Result<()> {
        self.ring.send(frames, unsent)
    }

    fn receive(&mut self, wait: Duration, take: &mut dyn FnMut(&[u8])) -> io::Result<Received> {
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
        self.ring.receive(take)
    }
}

/// What the kernel lets through, as a classic BPF program (`Documentation/networking/filter.rst`): ARP replies to us, echo
/// replies with our identifiers, TCP to our source ports, and DHCP to servers.
fn filter(us: Ipv4Addr, marks: Marks) -> Vec<SockFilter> {
    const LDW: u16 = 0x20; // word at a fixed place
    const LDH: u16 = 0x28; // half word at a fixed place
    const LDB: u16 = 0x30; // byte at a fixed place
    const LDH_X: u16 = 0x48; // half word behind the IP head
    const LDX_HEAD: u16 = 0xb1; // X = length of the IP head
    const JEQ: u16 = 0x15;
    const JGE: u16 = 0x35;
    const JSET: u16 = 0x45;
    const RET: u16 = 0x06;
    const KEEP: u8 = 29;
    const DROP: u8 = 30;
    let us = u32::from(us);
    let (id, port) = (u32::from(marks.echo_id), u32::from(marks.first_port));
    // Operation, line to jump to when true, when false, operand.
    let lines = [
        (LDH, 0, 0, 12),
        (JEQ, 2, 6, 0x0806),
        (LDH, 0, 0, 20), // 2: ARP
        (JEQ, 4, DROP, 2),
        (LDW, 0, 0, 38),
        (JEQ, KEEP, DROP, us),
        (JEQ, 7, DROP, 0x0800), // 6
        (LDH, 0, 0, 20),
        (JSET, DROP, 9, 0x3fff), // fragments answer nothing
        (LDX_HEAD, 0, 0, 14),    // 9
        (LDB, 0, 0, 23),
        (JEQ, 24, 12, 17),
        (LDW, 0, 0, 30), // 12: for us only
        (JEQ, 14, DROP, us),
        (LDB, 0, 0, 23), // 14
        (JEQ, 16, 21, 1),
        (LDH_X, 0, 0, 14), // 16: ICMP type and code
        (JEQ, 18, DROP, 0),
        (LDH_X, 0, 0, 18), // 18: identifier
        (JEQ, KEEP, 20, id),
        (JEQ, KEEP, DROP, id.wrapping_add(1) & 0xffff),
        (JEQ, 22, DROP, 6), // 21: TCP
        (LDH_X, 0, 0, 16),
        (JGE, 28, DROP, port),
        (LDH_X, 0, 0, 16), // 24: UDP to the server's port
        (JEQ, 26, DROP, 67),
        (LDH_X, 0, 0, 14),
        (JEQ, KEEP, DROP, 68),
        (JGE, DROP, KEEP, port + 2 * u32::from(Marks::PORTS)), // 28
        (RET, 0, 0, 0x0004_0000),
        (RET, 0, 0, 0),
    ];
    let jump = |at: usize, to: u8| usize::from(to).checked_sub(at + 1).and_then(|n| u8::try_from(n).ok()).unwrap_or(0);
    lines
        .iter()
        .enumerate()
        .map(|(at, &(code, yes, no, k))| SockFilter::new(code, jump(at, yes), jump(at, no), k))
        .collect()
}
