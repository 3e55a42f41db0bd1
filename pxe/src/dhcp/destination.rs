//! Where a reply goes: RFC 2131 section 4.1, in its order. A reply that goes elsewhere is a host that never boots
//! (garybowers/bootimus#129, xcat2/xcat-core#1222).

use super::request::{Message, MessageType};
use crate::mac::Mac;
use std::net::{Ipv4Addr, SocketAddrV4};

/// Where a reply goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To the relay that passed the request on: its address, port 67.
    Relay(Ipv4Addr),
    /// To a client that can answer ARP: its address, port 68.
    Client(Ipv4Addr),
    /// To everyone on the link: 255.255.255.255, port 68.
    Broadcast,
    /// To a client that cannot answer ARP yet: its address in the IP head, its card in the frame, port 68.
    Frame(Ipv4Addr, Mac),
    /// Back to where the request came from (port 4011).
    Back(SocketAddrV4),
}

/// The destination of a reply to a request on port 67 that gives `yiaddr`.
#[must_use]
pub fn destination(request: &Message<'_>, kind: MessageType, yiaddr: Ipv4Addr) -> Destination {
    match () {
        () if !request.giaddr.is_unspecified() => Destination::Relay(request.giaddr),
        // "In all cases, when 'giaddr' is zero, the server broadcasts any DHCPNAK messages".
        () if kind == MessageType::Nak => Destination::Broadcast,
        () if !request.ciaddr.is_unspecified() => Destination::Client(request.ciaddr),
        () if request.wants_broadcast() || yiaddr.is_unspecified() => Destination::Broadcast,
        () => Destination::Frame(yiaddr, request.mac),
    }
}
