//! Outlets of a power distribution unit: the second proof that a machine is off, by another device than its BMC
//! (DSP0268, Outlet).

use super::client::Redfish;
use super::error::RedfishError;
use super::link::Link;
use super::walk::Walk;
use crate::controller::Guard;
use crate::health::tame;
use crate::reading::{OffCause, Power, Reading, Source};
use serde_json::json;
use std::time::Instant;

/// Watts that an outlet may measure while nothing flows.
const NOISE_WATTS: f64 = 2.0;

/// An outlet as it reads.
#[derive(Debug, Clone, PartialEq)]
pub struct Outlet {
    /// Its power. The identity is the host's that the caller wired to it: an outlet knows none.
    pub reading: Reading,
    /// What it is called at the unit: a person compares it with the label.
    pub name: String,
    /// What flows, in watts.
    pub watts: Option<f64>,
}

impl Outlet {
    /// Whether current flows for certain, whatever its state says.
    #[must_use]
    pub fn flows(&self) -> bool {
        flows(self.watts)
    }
}

impl Redfish {
    /// Reads an outlet.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn outlet(&mut self, resource: &str) -> Result<Outlet, RedfishError> {
        let link = self.link(resource)?;
        let outlet = self.get(&link).await?;
        let walk = outlet.walk();
        let word = super::power::power(walk.get("PowerState").text());
        let watts = watts(walk);
        // It says off, and something flows: not off.
        let power = if word == Power::Off && flows(watts) { Power::Unknown } else { word };
        let (at, source, off_cause) = (Instant::now(), Source::Outlet, OffCause::Unknown);
        let reading = Reading { at, source, identity: None, power, off_cause };
        let name = walk.get("Name").text().or(walk.get("Id").text()).map(tame).unwrap_or_default();
        Ok(Outlet { reading, name, watts })
    }

    /// Switches an outlet. Its effect is read, not believed. The guard is asked right before the command leaves.
    ///
    /// # Errors
    /// The guard withheld it, or it is refused.
    pub async fn switch_outlet(&mut self, resource: &str, on: bool, guard: Guard<'_>) -> Result<(), RedfishError> {
        let link = self.link(resource)?;
        let outlet = self.get(&link).await?;
        let target = self.outlet_target(&link, outlet.walk())?;
        let word = if on { "On" } else { "Off" };
        self.post_if(&target, &json!({ "PowerState": word }), guard).await.map(drop)
    }

    fn outlet_target(&self, link: &Link, outlet: Walk<'_>) -> Result<Link, RedfishError> {
        let address = self.address();
        match outlet.at(&["Actions", "#Outlet.PowerControl", "target"]).text() {
            Some(text) => self.link(text),
            None => {
                link.under("Actions/Outlet.PowerControl").map_err(|reason| RedfishError::BadLink { address, reason })
            }
        }
    }

    /// The outlets of all units behind this address, as links.
    ///
    /// # Errors
    /// It is no power distribution unit, or cannot be read.
    pub async fn outlets(&mut self) -> Result<Vec<String>, RedfishError> {
        let address = self.address();
        let root = self.service_root().await?;
        let hint = "is this the address of a power distribution unit?";
        let missing = RedfishError::Missing { address, what: "power equipment", hint };
        let equipment = self.link_of(Walk::of(&root).get("PowerEquipment"))?.ok_or(missing)?;
        let equipment = self.get(&equipment).await?;
        let mut found = Vec::new();
        for kind in ["RackPDUs", "FloorPDUs", "TransferSwitches"] {
            let Some(units) = self.link_of(equipment.walk().get(kind))? else { continue };
            for unit in self.members(&units).await? {
                let unit = self.get(&unit).await?;
                let Some(outlets) = self.link_of(unit.walk().get("Outlets"))? else { continue };
                found.extend(self.members(&outlets).await?.iter().map(|link| link.as_str().to_owned()));
            }
        }
        Ok(found)
    }
}

fn flows(watts: Option<f64>) -> bool {
    watts.is_some_and(|watts| watts > NOISE_WATTS)
}

fn watts(outlet: Walk<'_>) -> Option<f64> {
    let power = outlet.get("PowerWatts");
    power.get("Reading").number().or(power.number())
}
