//! Which address belongs to whom: reservations by card, and a dynamic range where one is configured.
//!
//! Keyed on the hardware address, not on option 61: ROM, iPXE, initramfs and system send different client identifiers for
//! one card (poseidon/matchbox#245), and all must get the same address.

use crate::mac::Mac;
use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::time::Duration;

/// How long an offered address is held for its client.
const OFFER_HOLD: Duration = Duration::from_secs(60);
/// How long a declined address is not given to anybody.
const QUARANTINE: Duration = Duration::from_secs(3600);

/// A change that must be on the disk before the answer that depends on it goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseChange {
    /// The address belongs to the card until then (wall clock).
    Leased {
        /// The address.
        address: Ipv4Addr,
        /// The card.
        mac: Mac,
        /// Until when, since 1970.
        until: Duration,
    },
    /// The card gave it back.
    Released {
        /// The address.
        address: Ipv4Addr,
    },
    /// Somebody else uses it.
    Declined {
        /// The address.
        address: Ipv4Addr,
        /// Until when it is given to nobody, since 1970.
        until: Duration,
    },
}

/// What a card is granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// For how long from now; whole seconds.
    pub time: Duration,
    /// What must be on the disk before the card is told. `None`: what was written for it before says as much.
    pub change: Option<LeaseChange>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// `None`: quarantined.
    mac: Option<Mac>,
    until: Duration,
    /// Only offered so far.
    offered: bool,
}

/// The dynamic addresses of one range.
#[derive(Debug)]
pub struct LeaseBook {
    first: u32,
    last: u32,
    by_address: HashMap<u32, Entry>,
    by_mac: HashMap<Mac, u32>,
    /// By the end of their time, so that the oldest is found without a search.
    by_end: BTreeSet<(Duration, u32)>,
    /// Addresses from here to `last` were never given.
    never_given: u32,
}

impl LeaseBook {
    /// A range, both ends included.
    #[must_use]
    pub fn new(first: Ipv4Addr, last: Ipv4Addr) -> Self {
        Self {
            first: first.into(),
            last: last.into(),
            by_address: HashMap::new(),
            by_mac: HashMap::new(),
            by_end: BTreeSet::new(),
            never_given: first.into(),
        }
    }

    /// Whether the range holds the address.
    #[must_use]
    pub fn holds(&self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&u32::from(address))
    }

    /// The address that this card has or was offered.
    #[must_use]
    pub fn of(&self, mac: Mac) -> Option<Ipv4Addr> {
        self.by_mac.get(&mac).map(|address| Ipv4Addr::from(*address))
    }

    /// An address for a card, held for it for a minute: the one it has, else the one it asks for if that is free, else one
    /// that nobody ever had, else the one whose time ended longest ago. `taken` are addresses that are reserved.
    pub fn offer(
        &mut self,
        mac: Mac,
        asked: Option<Ipv4Addr>,
        now: Duration,
        taken: impl Fn(Ipv4Addr) -> bool,
    ) -> Option<Ipv4Addr> {
        if let Some(address) = self.by_mac.get(&mac).copied().filter(|address| !taken(Ipv4Addr::from(*address))) {
            if self.by_address.get(&address).is_some_and(|entry| entry.offered || entry.until <= now) {
                self.set(address, Some(mac), now + OFFER_HOLD, true);
            }
            return Some(address.into());
        }
        let free = |book: &Self, address: u32| {
            book.by_address.get(&address).is_none_or(|entry| entry.until <= now) && !taken(Ipv4Addr::from(address))
        };
        let asked = asked.filter(|a| self.holds(*a)).map(u32::from).filter(|a| free(self, *a));
        let address = asked.or_else(|| self.fresh(&taken)).or_else(|| self.oldest(now, &taken))?;
        self.set(address, Some(mac), now + OFFER_HOLD, true);
        Some(address.into())
    }

    fn fresh(&mut self, taken: &impl Fn(Ipv4Addr) -> bool) -> Option<u32> {
        while self.never_given <= self.last {
            let address = self.never_given;
            self.never_given = self.never_given.checked_add(1)?;
            if !self.by_address.contains_key(&address) && !taken(Ipv4Addr::from(address)) {
                return Some(address);
            }
        }
        None
    }

    fn oldest(&self, now: Duration, taken: &impl Fn(Ipv4Addr) -> bool) -> Option<u32> {
        let ended = self.by_end.iter().take_while(|(until, _)| *until <= now);
        ended.map(|(_, address)| *address).find(|address| !taken(Ipv4Addr::from(*address)))
    }

    /// Gives the card the address it was offered or has. `None`: it is not its own.
    ///
    /// A lease that would hardly end later is granted for what it has left, and nothing is written: whoever asks again and
    /// again does not make the file grow, and nobody is told a longer time than the disk knows.
    pub fn lease(&mut self, mac: Mac, address: Ipv4Addr, now: Duration, time: Duration) -> Option<Grant> {
        let number = u32::from(address);
        if self.by_mac.get(&mac) != Some(&number) {
            return None;
        }
        if let Some(time) = self.left(mac, address, now, time) {
            return Some(Grant { time, change: None });
        }
        let until = end(now, time);
        self.set(number, Some(mac), until, false);
        Some(Grant { time, change: Some(LeaseChange::Leased { address, mac, until }) })
    }

    /// What the card's lease has left, if one that begins now would end at most a tenth of its time later.
    #[must_use]
    pub fn left(&self, mac: Mac, address: Ipv4Addr, now: Duration, time: Duration) -> Option<Duration> {
        let entry =
            self.by_address.get(&u32::from(address)).filter(|entry| entry.mac == Some(mac) && !entry.offered)?;
        // One that ends later than it may now (its time was made shorter, the clock was set back) is written anew.
        let later = end(now, time).checked_sub(entry.until)?;
        (later <= time / 10).then(|| Duration::from_secs(entry.until.saturating_sub(now).as_secs()))
    }

    /// The card gives its address back.
    pub fn release(&mut self, mac: Mac, address: Ipv4Addr) -> Option<LeaseChange> {
        let number = u32::from(address);
        (self.by_mac.get(&mac) == Some(&number)).then(|| {
            self.forget(number);
            LeaseChange::Released { address }
        })
    }

    /// The address is in use by somebody else.
    pub fn decline(&mut self, mac: Mac, address: Ipv4Addr, now: Duration) -> Option<LeaseChange> {
        let number = u32::from(address);
        (self.by_mac.get(&mac) == Some(&number)).then(|| {
            self.set(number, None, now + QUARANTINE, false);
            LeaseChange::Declined { address, until: now + QUARANTINE }
        })
    }

    /// Applies what was read from the disk.
    pub fn restore(&mut self, change: LeaseChange) {
        match change {
            LeaseChange::Leased { address, mac, until } if self.holds(address) => {
                self.set(address.into(), Some(mac), until, false)
            }
            LeaseChange::Declined { address, until } if self.holds(address) => {
                self.set(address.into(), None, until, false)
            }
            LeaseChange::Released { address } => self.forget(address.into()),
            LeaseChange::Leased { .. } | LeaseChange::Declined { .. } => {}
        }
    }

    /// All leases and quarantines, for a new file.
    pub fn all(&self) -> impl Iterator<Item = LeaseChange> + '_ {
        self.by_address.iter().filter(|(_, entry)| !entry.offered).map(|(address, entry)| {
            let address = Ipv4Addr::from(*address);
            match entry.mac {
                Some(mac) => LeaseChange::Leased { address, mac, until: entry.until },
                None => LeaseChange::Declined { address, until: entry.until },
            }
        })
    }

    fn set(&mut self, address: u32, mac: Option<Mac>, until: Duration, offered: bool) {
        self.forget(address);
        if let Some(mac) = mac {
            if let Some(before) = self.by_mac.get(&mac).copied() {
                self.forget(before);
            }
            self.by_mac.insert(mac, address);
        }
        self.by_end.insert((until, address));
        self.by_address.insert(address, Entry { mac, until, offered });
    }

    fn forget(&mut self, address: u32) {
        if let Some(entry) = self.by_address.remove(&address) {
            self.by_end.remove(&(entry.until, address));
            if let Some(mac) = entry.mac {
                self.by_mac.remove(&mac);
            }
        }
    }
}

/// When a lease that begins now ends: a whole second, as the file writes it, and none before the card's own time is over.
fn end(now: Duration, time: Duration) -> Duration {
    let end = now + time;
    Duration::from_secs(end.as_secs() + u64::from(end.subsec_nanos() > 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, last)
    }

    fn mac(last: u8) -> Mac {
        Mac([2, 0, 0, 0, 0, last])
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_card_keeps_its_address_and_a_full_range_gives_what_ended_first() {
        let mut book = LeaseBook::new(address(10), address(11));
        let none = |_: Ipv4Addr| false;
        assert_eq!(book.offer(mac(1), None, SECOND, none), Some(address(10)));
        assert!(book.lease(mac(1), address(10), SECOND, SECOND * 100).is_some());
        assert_eq!(book.offer(mac(1), Some(address(11)), SECOND, none), Some(address(10)));
        assert_eq!(book.offer(mac(2), Some(address(10)), SECOND, none), Some(address(11)));
        assert!(book.lease(mac(2), address(11), SECOND, SECOND * 50).is_some());
        assert_eq!(book.offer(mac(3), None, SECOND * 40, none), None);
        assert_eq!(book.offer(mac(3), None, SECOND * 60, none), Some(address(11)));
    }

    #[test]
    fn a_declined_address_rests_and_a_foreign_one_cannot_be_declined_or_released() {
        let mut book = LeaseBook::new(address(10), address(11));
        let none = |_: Ipv4Addr| false;
        book.offer(mac(1), None, SECOND, none);
        assert_eq!(book.decline(mac(2), address(10), SECOND), None);
        assert_eq!(book.release(mac(2), address(10)), None);
        assert!(book.decline(mac(1), address(10), SECOND).is_some());
        assert_eq!(book.offer(mac(1), Some(address(10)), SECOND * 2, none), Some(address(11)));
    }

    #[test]
    fn a_lease_that_would_hardly_change_is_not_written_and_never_told_longer_than_it_is_written() {
        let mut book = LeaseBook::new(address(10), address(11));
        let time = SECOND * 600;
        let at = |seconds: u64| Duration::from_millis(1_000_250 + seconds * 1000);
        book.offer(mac(1), None, at(0), |_| false);
        // The first is written, to the end of the second in which the card's time is over
        let until = SECOND * 1601;
        let leased = |until| Some(LeaseChange::Leased { address: address(10), mac: mac(1), until });
        assert_eq!(book.lease(mac(1), address(10), at(0), time), Some(Grant { time, change: leased(until) }));
        // Within a tenth of its time it is told what it has left
        for seconds in [0, 1, 30, 60] {
            let grant = book.lease(mac(1), address(10), at(seconds), time).unwrap();
            assert_eq!(grant, Grant { time: time - SECOND * u32::try_from(seconds).unwrap(), change: None });
            assert!(at(seconds) + grant.time <= until);
        }
        assert!(book.all().eq(leased(until)));
        // Later it is written anew; so is one that ends later than it may by now
        let anew = Some(Grant { time, change: leased(SECOND * 1662) });
        assert_eq!(book.lease(mac(1), address(10), at(61), time), anew);
        let short = book.lease(mac(1), address(10), at(62), SECOND * 60).unwrap();
        assert_eq!(short, Grant { time: SECOND * 60, change: leased(SECOND * 1123) });
        // What is another's, or only offered, has nothing left
        assert_eq!(book.left(mac(2), address(10), at(62), SECOND * 60), None);
        book.offer(mac(2), None, at(62), |_| false);
        assert_eq!(book.left(mac(2), address(11), at(62), OFFER_HOLD), None);
    }

    proptest! {
        #[test]
        fn no_address_belongs_to_two_cards(steps in proptest::collection::vec((0..4_u8, 1..6_u8, 10..14_u8, 0..90_u64), 1..200)) {
            let mut book = LeaseBook::new(address(10), address(13));
            let mut now = SECOND;
            let mut held: HashMap<Ipv4Addr, (Mac, Duration)> = HashMap::new();
            for (what, card, asked, wait) in steps {
                now += SECOND * u32::try_from(wait).unwrap();
                let card = mac(card);
                match what {
                    0 | 1 => {
                        if let Some(given) = book.offer(card, Some(address(asked)), now, |a| a == address(12)) {
                            prop_assert!(given != address(12), "a reserved address was offered");
                            if let Some((owner, until)) = held.get(&given) {
                                prop_assert!(*owner == card || *until <= now, "{given} is {owner}'s until {until:?}, now {now:?}");
                            }
                            if let Some(grant) = book.lease(card, given, now, SECOND * 100) {
                                prop_assert!(grant.time >= SECOND * 90 && grant.time <= SECOND * 100);
                                held.retain(|_, (owner, _)| *owner != card);
                                held.insert(given, (card, now + grant.time));
                            }
                        }
                    }
                    2 => {
                        if book.release(card, address(asked)).is_some() { held.remove(&address(asked)); }
                    }
                    _ => {
                        if book.decline(card, address(asked), now).is_some() { held.remove(&address(asked)); }
                    }
                }
                let mut copy = LeaseBook::new(address(10), address(13));
                book.all().for_each(|change| copy.restore(change));
                prop_assert_eq!(copy.all().count(), book.all().count());
            }
        }
    }
}
