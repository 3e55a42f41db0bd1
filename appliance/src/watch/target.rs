//! Who is probed, where and for what. The roster is replaced as a whole: the configuration changes, never one entry.

use healing::id::{DomainId, HostId};
use pxe::mac::Mac;
use std::collections::HashSet;
use std::net::Ipv4Addr;
use thiserror::Error;

/// The kubelet's port.
pub const KUBELET_PORT: u16 = 10_250;

/// Most reference addresses; own sight keeps as many.
pub const REFERENCES_MAX: usize = 8;

/// How a host is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// On our own segment: this is the card that must answer, for ARP and for everything else.
    Attached(Mac),
    /// Behind our gateway, whose card the prober learns. There is no ARP, and answers are known by address and content.
    Routed,
}

/// One host as it is probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Who it is.
    pub host: HostId,
    /// Its node's address.
    pub address: Ipv4Addr,
    /// How it is reached.
    pub reach: Reach,
    /// Where its kubelet listens.
    pub kubelet_port: u16,
    /// A second userspace port, such as 22. A listening port that dies with userspace and not with the kubelet.
    pub second_port: u16,
}

/// An address that should always answer an echo, for own sight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReferencePoint {
    /// Its address. It is asked for by ARP if it is on our segment, else through the gateway.
    pub address: Ipv4Addr,
    /// The physical domain it stands in, if known.
    pub domain: Option<DomainId>,
    /// Whether it is on our segment.
    pub attached: bool,
}

/// Everything that the prober of one wire looks at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roster {
    targets: Vec<Target>,
    cards: Vec<(Mac, HostId)>,
    gateway: Option<Ipv4Addr>,
    references: Vec<ReferencePoint>,
}

/// Why a list of hosts cannot be probed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadRoster {
    /// An answer could not be told from another host's.
    #[error("two hosts, {0:?} and {1:?}, have the address {2}: answers could not be told apart; give each its own")]
    SameAddress(HostId, HostId, Ipv4Addr),
    /// A host is named twice.
    #[error("host {0:?} is listed twice; keep one entry")]
    SameHost(HostId),
    /// A boot request could not be told from another host's.
    #[error("two hosts, {0:?} and {1:?}, have the card {2}: one of the records is wrong; correct it")]
    SameCard(HostId, HostId, Mac),
    /// Not an address of one host.
    #[error("the address {1} of host {0:?} is no address of one host; correct its record")]
    NoHostAddress(HostId, Ipv4Addr),
    /// Port 0, or the same port twice: two looks at one port are not two witnesses.
    #[error("the ports of host {0:?} must be two different ones above 0: one dead process must not look like two")]
    Ports(HostId),
    /// A host is to be reached through a gateway that is not named.
    #[error("host {0:?} is reached through a gateway, but none is configured; name the gateway of the interface")]
    NoGateway(HostId),
    /// More than own sight keeps.
    #[error("{0} reference addresses are more than {REFERENCES_MAX}; keep the most independent ones")]
    TooManyReferences(usize),
}

impl Roster {
    /// Checks and takes a list. `cards` are further cards of hosts that may ask for something to boot.
    ///
    /// # Errors
    /// What in the list would make answers ambiguous.
    pub fn new(
        targets: Vec<Target>,
        cards: Vec<(Mac, HostId)>,
        gateway: Option<Ipv4Addr>,
        references: Vec<ReferencePoint>,
    ) -> Result<Roster, BadRoster> {
        let mut addresses = std::collections::HashMap::new();
        let mut hosts = HashSet::new();
        let mut owners = std::collections::HashMap::new();
        for target in &targets {
            let Target { host, address, .. } = *target;
            if address.is_unspecified() || address.is_multicast() || address.is_broadcast() || address.is_loopback() {
                return Err(BadRoster::NoHostAddress(host, address));
            }
            if let Some(other) = addresses.insert(address, host) {
                return Err(BadRoster::SameAddress(other, host, address));
            }
            if !hosts.insert(host) {
                return Err(BadRoster::SameHost(host));
            }
            if target.kubelet_port == 0 || target.second_port == 0 || target.kubelet_port == target.second_port {
                return Err(BadRoster::Ports(host));
            }
            if target.reach == Reach::Routed && gateway.is_none() {
                return Err(BadRoster::NoGateway(host));
            }
        }
        let own = targets.iter().filter_map(|target| match target.reach {
            Reach::Attached(mac) => Some((mac, target.host)),
            Reach::Routed => None,
        });
        for (mac, host) in own.chain(cards.iter().copied()) {
            if let Some(other) = owners.insert(mac, host).filter(|other| *other != host) {
                return Err(BadRoster::SameCard(other, host, mac));
            }
        }
        if references.len() > REFERENCES_MAX {
            return Err(BadRoster::TooManyReferences(references.len()));
        }
        let cards = owners.into_iter().collect();
        Ok(Roster { targets, cards, gateway, references })
    }

    /// The hosts, in the order given.
    #[must_use]
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Whose card it is.
    pub fn cards(&self) -> impl Iterator<Item = (Mac, HostId)> {
        self.cards.iter().copied()
    }

    /// Our gateway.
    #[must_use]
    pub fn gateway(&self) -> Option<Ipv4Addr> {
        self.gateway
    }

    /// The reference addresses.
    #[must_use]
    pub fn references(&self) -> &[ReferencePoint] {
        &self.references
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(number: u32) -> Target {
        Target {
            host: HostId(number),
            address: Ipv4Addr::from(0x0a53_0000 + number),
            reach: Reach::Attached(Mac([2, 0, 0, 0, 0, u8::try_from(number).unwrap()])),
            kubelet_port: KUBELET_PORT,
            second_port: 22,
        }
    }

    fn taken(targets: Vec<Target>) -> Result<Roster, BadRoster> {
        Roster::new(targets, Vec::new(), None, Vec::new())
    }

    #[test]
    fn a_list_that_makes_answers_ambiguous_is_refused() {
        assert!(taken(vec![target(1), target(2)]).is_ok());
        let same_address = Target { address: target(1).address, ..target(2) };
        assert!(matches!(taken(vec![target(1), same_address]), Err(BadRoster::SameAddress(..))));
        let same_host = Target { host: HostId(1), ..target(2) };
        assert!(matches!(taken(vec![target(1), same_host]), Err(BadRoster::SameHost(_))));
        let same_card = Target { reach: target(1).reach, ..target(2) };
        assert!(matches!(taken(vec![target(1), same_card]), Err(BadRoster::SameCard(..))));
        let one_port = Target { second_port: KUBELET_PORT, ..target(1) };
        assert!(matches!(taken(vec![one_port]), Err(BadRoster::Ports(_))));
        let routed = Target { reach: Reach::Routed, ..target(1) };
        assert!(matches!(taken(vec![routed]), Err(BadRoster::NoGateway(_))));
        let group = Target { address: Ipv4Addr::new(224, 0, 0, 1), ..target(1) };
        assert!(matches!(taken(vec![group]), Err(BadRoster::NoHostAddress(..))));
    }
}
