//! What the DHCP server of one interface is told: its mode, its subnets, who has which address.

use crate::mac::Mac;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Whether we give addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// We are the link's DHCP server.
    Server,
    /// Another server gives addresses; we only tell what to boot.
    Proxy,
}

/// A subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// Its first address.
    pub network: Ipv4Addr,
    /// The length of its prefix.
    pub prefix: u8,
    /// Its router.
    pub router: Option<Ipv4Addr>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// Addresses for cards without a reservation, both ends included. Without it only reservations are given.
    pub range: Option<(Ipv4Addr, Ipv4Addr)>,
    /// How long an address is given.
    pub lease: Duration,
    /// The relays that may pass requests on for this subnet. Empty: those whose own address lies in it.
    pub relays: Vec<Ipv4Addr>,
}

impl Subnet {
    /// The mask.
    #[must_use]
    pub fn mask(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(self.prefix.min(32))).unwrap_or(0))
    }

    /// Whether the address lies in it.
    #[must_use]
    pub fn holds(&self, address: Ipv4Addr) -> bool {
        let mask = u32::from(self.mask());
        u32::from(address) & mask == u32::from(self.network) & mask
    }

    /// Whether this relay may speak for it.
    #[must_use]
    pub fn trusts(&self, relay: Ipv4Addr) -> bool {
        if self.relays.is_empty() { self.holds(relay) } else { self.relays.contains(&relay) }
    }
}

/// An address that belongs to one card for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// The address.
    pub address: Ipv4Addr,
    /// The host's name.
    pub host_name: Option<String>,
}

/// What an interface serves.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Whether we give addresses.
    pub mode: Mode,
    /// The subnets. In proxy mode only their relays matter.
    pub subnets: Vec<Subnet>,
    /// The reservations.
    pub reservations: HashMap<Mac, Reservation>,
}
