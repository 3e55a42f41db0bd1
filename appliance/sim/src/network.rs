//! The networks of the simulated site: the appliance's own link, switches, racks, the management network, and each
//! host's own port. Answers only "does a packet get from here to there and back".

use crate::site::Place;
use crate::watch::WorldTime;
use healing::id::{DomainId, HostId};
use std::collections::BTreeMap;

/// How many active faults hold each thing down. Faults may overlap; the last one to end lets go.
#[derive(Debug, Clone)]
pub struct Holds<K: Ord>(BTreeMap<K, u32>);

impl<K: Ord> Default for Holds<K> {
    fn default() -> Self {
        Holds(BTreeMap::new())
    }
}

impl<K: Ord> Holds<K> {
    /// One more holds it down.
    pub fn hold(&mut self, key: K) {
        *self.0.entry(key).or_insert(0) += 1;
    }

    /// One lets go.
    pub fn release(&mut self, key: &K) {
        if let Some(count) = self.0.get_mut(key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.0.remove(key);
            }
        }
    }

    /// Whether anything holds it down.
    #[must_use]
    pub fn held(&self, key: &K) -> bool {
        !self.0.is_empty() && self.0.contains_key(key)
    }
}

/// The networks.
#[derive(Debug, Clone, Default)]
pub struct Network {
    /// Switches and racks that are dead for everybody.
    pub dead: Holds<DomainId>,
    /// Racks cut off from the appliance only.
    pub cut_from_us: Holds<DomainId>,
    /// Hosts whose port passes nothing (benign silence).
    pub quiet: Holds<HostId>,
    /// Hosts that are not heard by the appliance, but by the API.
    pub unheard: Holds<HostId>,
    /// Packets lost, in percent, by host.
    pub loss: BTreeMap<HostId, u8>,
    /// The appliance is cut off from everything.
    pub appliance_cut: u32,
    /// Since when, if it is.
    pub appliance_cut_at: Option<WorldTime>,
    /// When it was last cut off, and is no more.
    pub appliance_back_at: Option<WorldTime>,
    /// The management network is down.
    pub management_down: u32,
}

impl Network {
    /// Whether packets pass between the appliance and a host's own port and back.
    #[must_use]
    pub fn from_us(&self, host: HostId, place: &Place) -> bool {
        self.appliance_cut == 0
            && self.to_api(host, place)
            && !self.unheard.held(&host)
            && place.rack.is_none_or(|rack| !self.cut_from_us.held(&rack))
    }

    /// Whether packets pass between a host's own port and the control plane.
    #[must_use]
    pub fn to_api(&self, host: HostId, place: &Place) -> bool {
        !self.quiet.held(&host)
            && place.switch.is_none_or(|switch| !self.dead.held(&switch))
            && place.rack.is_none_or(|rack| !self.dead.held(&rack))
    }

    /// Whether packets pass between the appliance and a host's BMC. Management has switches of its own, so that a dead
    /// rack switch does not take the BMCs along; a rack that is cut off from us does.
    #[must_use]
    pub fn to_bmc(&self, place: &Place) -> bool {
        self.appliance_cut == 0
            && self.management_down == 0
            && place.rack.is_none_or(|rack| !self.cut_from_us.held(&rack))
    }

    /// Whether the appliance's link, gateway and references answer.
    #[must_use]
    pub fn own_sight_good(&self) -> bool {
        self.appliance_cut == 0
    }

    /// The share of lost packets of a host.
    #[must_use]
    pub fn loss(&self, host: HostId) -> u8 {
        if self.loss.is_empty() { 0 } else { self.loss.get(&host).copied().unwrap_or(0) }
    }
}
