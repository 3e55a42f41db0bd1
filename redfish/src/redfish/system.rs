//! Which system, chassis and manager a BMC is about, and who they say they are.

use super::client::{Redfish, Resource};
use super::error::RedfishError;
use super::facts::EtagUse;
use super::link::Link;
use super::walk::Walk;
use crate::boot::BootStage;
use crate::health::tame;
use crate::quirk::Quirks;

/// Systems that are looked at to find the one that can be switched.
const SYSTEMS_MAX: usize = 64;

/// The resources that the verbs use.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub(super) system: Link,
    /// The chassis, if it is this system's alone.
    pub(super) chassis: Option<Link>,
    pub(super) manager: Option<Link>,
}

/// Who it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// The system's UUID, sixteen bytes in the order of its text.
    pub uuid: Option<[u8; 16]>,
    /// Its serial number.
    pub serial: Option<String>,
    /// Who made it.
    pub vendor: Option<String>,
    /// Which model.
    pub model: Option<String>,
    /// The BMC's name and generation.
    pub bmc: Option<String>,
    /// The BMC's firmware.
    pub firmware: Option<String>,
    /// The system's own firmware.
    pub bios: Option<String>,
    /// The resource that is switched.
    pub resource: String,
}

/// Reads a UUID in its text form.
pub(super) fn uuid(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
    if digits.len() != 32 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    Some(u128::from_str_radix(&digits, 16).ok()?.to_be_bytes())
}

impl Redfish {
    /// Finds the system and what belongs to it; once for a connection.
    pub(super) async fn places(&mut self) -> Result<Places, RedfishError> {
        if let Some(places) = &self.places {
            return Ok(places.clone());
        }
        let (system, resource) = self.find_system().await?;
        let walk = resource.walk();
        let manager = walk.at(&["Links", "ManagedBy"]).items().find_map(|item| self.link_of(item).ok().flatten());
        let all: Vec<Link> =
            walk.at(&["Links", "Chassis"]).items().filter_map(|item| self.link_of(item).ok().flatten()).collect();
        // A chassis of several systems is an enclosure: its power says nothing of one of them.
        let chassis = match all.as_slice() {
            [one] => Some(one.clone()),
            _ => None,
        };
        let places = Places { system, chassis, manager };
        self.places = Some(places.clone());
        let identity = self.identify().await?;
        let product = [&identity.model, &identity.bmc].into_iter().flatten().cloned().collect::<Vec<_>>().join(" ");
        let vendor = identity.vendor.as_deref().unwrap_or_default();
        self.quirks = Quirks::of(vendor, &product, identity.firmware.as_deref().unwrap_or_default());
        if self.quirks.etag_always && self.facts.etag == EtagUse::None {
            self.facts.etag = EtagUse::Fresh;
        }
        Ok(places)
    }

    async fn find_system(&mut self) -> Result<(Link, Resource), RedfishError> {
        let address = self.address();
        let root = self.service_root().await?;
        let collection = match self.link_of(Walk::of(&root).get("Systems"))? {
            Some(link) => link,
            // Seen empty until a reset of the BMC; the place is fixed by custom.
            None => self.link("/redfish/v1/Systems")?,
        };
        let members = self.members(&collection).await?;
        let wanted = self.options.system.clone();
        let mut found = Vec::new();
        for link in members.into_iter().take(SYSTEMS_MAX) {
            let resource = match self.get(&link).await {
                Ok(resource) => resource,
                Err(RedfishError::Refused { .. } | RedfishError::Forbidden { .. }) => continue,
                Err(why) => return Err(why),
            };
            match &wanted {
                Some(wanted) if is_named(wanted, &link, resource.walk()) => return Ok((link, resource)),
                Some(_) => {}
                None => found.push((link, resource)),
            }
        }
        if wanted.is_some() {
            let hint = "look at its /redfish/v1/Systems for the right one";
            return Err(RedfishError::Missing { address, what: "system of that name", hint });
        }
        // A board with accelerators shows systems that have no power button.
        if found.len() > 1 && found.iter().any(|(_, resource)| resets(resource.walk())) {
            found.retain(|(_, resource)| resets(resource.walk()));
        }
        if found.len() > 1 {
            let names: Vec<&str> = found.iter().take(4).map(|(link, _)| link.as_str()).collect();
            return Err(RedfishError::ManySystems { address, count: found.len(), names: names.join(", ") });
        }
        let hint = "the account may lack the right to see it, or the host was never powered on";
        found.pop().ok_or(RedfishError::Missing { address, what: "system", hint })
    }

    /// The system's resource, read now.
    pub(super) async fn system(&mut self) -> Result<(Link, Resource), RedfishError> {
        let link = self.places().await?.system;
        let resource = self.get(&link).await?;
        Ok((link, resource))
    }

    /// Who the machine and its BMC say they are, read now.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn identify(&mut self) -> Result<Identity, RedfishError> {
        let places = Box::pin(self.places()).await?;
        let system = self.get(&places.system).await?;
        let manager = match &places.manager {
            Some(link) => self.get(link).await.ok(),
            None => None,
        };
        let root = self.service_root().await?;
        let (root, system) = (Walk::of(&root), system.walk());
        let kept = |walk: Walk<'_>| walk.text().map(tame);
        let manager = manager.as_ref().map(Resource::walk);
        let of_manager = |name: &str| manager.and_then(|walk| kept(walk.get(name)));
        let product = kept(root.get("Product"));
        let model = of_manager("Model");
        let bmc = match (product, model) {
            (Some(product), Some(model)) if product != model => Some(format!("{} {model}", generation(&product))),
            (Some(product), _) => Some(generation(&product)),
            (None, model) => model,
        };
        // The service root names no vendor on older firmware; its OEM part does, by its name.
        let oem = || root.get("Oem").members().next().map(|(name, _)| tame(name));
        let vendor = kept(root.get("Vendor")).or_else(|| kept(system.get("Manufacturer"))).or_else(oem);
        Ok(Identity {
            uuid: system.get("UUID").text().and_then(uuid),
            serial: kept(system.get("SerialNumber")),
            vendor,
            model: kept(system.get("Model")),
            bmc,
            firmware: of_manager("FirmwareVersion"),
            bios: kept(system.get("BiosVersion")),
            resource: places.system.as_str().to_owned(),
        })
    }

    /// How far the boot has come, where it is told.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn boot_stage(&mut self) -> Result<BootStage, RedfishError> {
        let (_, resource) = self.system().await?;
        let walk = resource.walk();
        let word = walk.at(&["BootProgress", "LastState"]).text();
        // iLO tells its self test apart from the standard's field.
        let post = walk.at(&["Oem", "Hpe", "PostState"]).text().or(walk.at(&["Oem", "Hp", "PostState"]).text());
        Ok(match (word, post) {
            (Some("OSRunning"), _) => BootStage::OsRunning,
            (Some("OSBootStarted"), _) => BootStage::OsLoading,
            (Some("SetupEntered"), _) => BootStage::Setup,
            (_, Some("InPost" | "InPostDiscoveryComplete")) => BootStage::Post,
            (Some("None" | "OEM") | None, _) => BootStage::Unknown,
            (Some(_), _) => BootStage::Post,
        })
    }
}

/// Has a power button.
fn resets(system: Walk<'_>) -> bool {
    system.at(&["Actions", "#ComputerSystem.Reset"]).is_some()
}

fn is_named(wanted: &str, link: &Link, system: Walk<'_>) -> bool {
    link.as_str().trim_end_matches('/') == wanted.trim_end_matches('/')
        || system.get("Id").text() == Some(wanted)
        || system.get("UUID").text().is_some_and(|uuid| uuid.eq_ignore_ascii_case(wanted))
}

/// The name under which rows of the quirk table know a BMC.
fn generation(product: &str) -> String {
    product.replace("Integrated Dell Remote Access Controller", "iDRAC").replace("XClarity Controller", "XCC")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn uuids_in_their_text_form() {
        let bytes = uuid("4C4C4544-0035-3410-8050-c6c04f314733").unwrap();
        assert_eq!(&bytes[..4], b"LLED");
        for bad in ["", "4C4C4544", "zzzzzzzz-0035-3410-8050-c6c04f314733", "+C4C45440035341080500c6c04f31473"] {
            assert_eq!(uuid(bad), None, "{bad}");
        }
    }
}
