//! Which card speaks from which address: learnt from DHCP, and from the kernel's neighbour table for the attached links.
//!
//! The token of a path is a secret, but it travels in the clear: a neighbour who has read it must still get nothing.

use crate::mac::Mac;
use std::collections::{HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};

/// Addresses remembered.
const LIMIT: usize = 8192;

#[derive(Debug, Default)]
struct Known {
    cards: HashMap<Ipv4Addr, Mac>,
    order: VecDeque<Ipv4Addr>,
}

/// Who was given which address, as far as this appliance heard.
#[derive(Debug, Default)]
pub struct Peers(Mutex<Known>);

impl Peers {
    /// A card has this address now.
    pub fn learn(&self, address: Ipv4Addr, mac: Mac) {
        if address.is_unspecified() {
            return;
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.cards.insert(address, mac).is_none() {
            known.order.push_back(address);
        }
        if known.order.len() > LIMIT
            && let Some(oldest) = known.order.pop_front()
        {
            known.cards.remove(&oldest);
        }
    }

    /// The card that speaks from this address, as far as is known. The neighbour table of the kernel has the last word where
    /// it has one; a host behind a router is in no such table.
    #[must_use]
    pub fn card(&self, address: Ipv4Addr) -> Option<Mac> {
        let table = std::fs::read_to_string("/proc/net/arp").unwrap_or_default();
        let learnt = || self.0.lock().unwrap_or_else(PoisonError::into_inner).cards.get(&address).copied();
        neighbour(&table, address).or_else(learnt)
    }
}

/// The card of an address in the text of `/proc/net/arp`; only complete entries (flag 2) count.
fn neighbour(table: &str, address: Ipv4Addr) -> Option<Mac> {
    table.lines().skip(1).find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let is_it = words.next()?.parse() == Ok(address);
        let complete = u32::from_str_radix(words.nth(1)?.strip_prefix("0x")?, 16).ok()? & 2 != 0;
        let mac: Mac = words.next()?.parse().ok()?;
        (is_it && complete && mac.is_unicast()).then_some(mac)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "IP address       HW type     Flags       HW address            Mask     Device\n\
        10.77.0.50       0x1         0x2         52:54:00:77:00:01     *        br0\n\
        10.77.0.51       0x1         0x0         00:00:00:00:00:00     *        br0\n";

    #[test]
    fn the_neighbour_table_is_read_and_incomplete_entries_are_not() {
        assert_eq!(neighbour(TABLE, Ipv4Addr::new(10, 77, 0, 50)), Some(Mac([0x52, 0x54, 0, 0x77, 0, 1])));
        assert_eq!(neighbour(TABLE, Ipv4Addr::new(10, 77, 0, 51)), None);
        assert_eq!(neighbour("", Ipv4Addr::new(10, 77, 0, 50)), None);
    }

    #[test]
    fn what_was_learnt_last_is_known() {
        let (peers, address) = (Peers::default(), Ipv4Addr::new(203, 0, 113, 9));
        let (mine, other) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        assert_eq!(peers.card(address), None, "nothing is known yet");
        peers.learn(address, mine);
        assert_eq!(peers.card(address), Some(mine));
        peers.learn(address, other);
        assert_eq!(peers.card(address), Some(other), "the newest word counts");
    }
}
