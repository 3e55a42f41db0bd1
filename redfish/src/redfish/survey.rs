//! What a BMC can do, found by reading alone: for the person who registers it.

use super::client::Redfish;
use super::error::RedfishError;
use super::walk::Walk;
use crate::health::tame;
use crate::quirk::{Quirks, Row};
use std::time::{Duration, Instant};

/// Readings of which the latency is told.
const LATENCY_READS: usize = 3;

/// What was found.
#[derive(Debug, Clone)]
pub struct Survey {
    /// `RedfishVersion` of the service root.
    pub version: Option<String>,
    /// Reset types that are offered; empty if not told.
    pub resets: Vec<String>,
    /// They stand behind action information.
    pub resets_behind_action_info: bool,
    /// Boot targets that are offered; empty if not told.
    pub boot_targets: Vec<String>,
    /// The override has a mode.
    pub boot_mode: bool,
    /// A settings object holds pending changes.
    pub settings_object: bool,
    /// The boot's progress is told.
    pub boot_progress: bool,
    /// The system's resource carries an ETag.
    pub etag: Option<String>,
    /// The power of the chassis beside the system's, if told.
    pub chassis_power: Option<String>,
    /// The power of the system, as written.
    pub system_power: Option<String>,
    /// Drive for CDs: its resource.
    pub media: Result<String, String>,
    /// Entries of the event log that could be read (at most 10), or why none.
    pub event_log: Result<usize, String>,
    /// Sensors, or why none.
    pub sensors: Result<usize, String>,
    /// A session is used; else the password goes with each request.
    pub session: bool,
    /// The BMC's clock is ahead of ours by so many seconds, if it tells the time.
    pub clock_ahead_s: Option<i64>,
    /// Middle time of a reading of the system.
    pub latency: Duration,
    /// Rows of the quirk table in force.
    pub quirks: Vec<&'static Row>,
}

impl Redfish {
    /// Looks at what it can do. Reads only; nothing is changed.
    ///
    /// # Errors
    /// The system cannot be read.
    pub async fn survey(&mut self) -> Result<Survey, RedfishError> {
        let identity = self.identify().await?;
        let places = self.places().await?;
        let mut times = Vec::new();
        let mut system = self.get(&places.system).await?;
        for _ in 0..LATENCY_READS {
            let begun = Instant::now();
            system = self.get(&places.system).await?;
            times.push(begun.elapsed());
        }
        times.sort();
        let walk = system.walk();
        let action = walk.at(&["Actions", "#ComputerSystem.Reset"]);
        let beside = action.get("ResetType@Redfish.AllowableValues").texts().next().is_some();
        let resets = self.offered(action).await?;
        let boot = walk.get("Boot");
        let boot_targets = boot.get("BootSourceOverrideTarget@Redfish.AllowableValues").texts().map(tame).collect();
        let chassis_power = match &places.chassis {
            Some(chassis) => {
                let chassis = self.get(chassis).await.ok();
                chassis.and_then(|chassis| chassis.walk().get("PowerState").text().map(tame))
            }
            None => None,
        };
        let clock_ahead_s = match &places.manager {
            Some(manager) => {
                let manager = self.get(manager).await.ok();
                let text = manager.and_then(|manager| manager.walk().get("DateTime").text().map(str::to_owned));
                let stamp = text.and_then(|text| text.parse::<jiff::Timestamp>().ok());
                stamp.map(|stamp| stamp.as_second() - jiff::Timestamp::now().as_second())
            }
            None => None,
        };
        let root = self.service_root().await?;
        let product = [&identity.model, &identity.bmc].into_iter().flatten().cloned().collect::<Vec<_>>().join(" ");
        let (vendor, firmware) = (identity.vendor.unwrap_or_default(), identity.firmware.unwrap_or_default());
        let settings_object = walk.at(&["@Redfish.Settings", "SettingsObject"]).is_some();
        let boot_progress =
            walk.at(&["BootProgress", "LastState"]).is_some() || walk.at(&["Oem", "Hpe", "PostState"]).is_some();
        let media = self.media().await.map(|media| media.drive).map_err(|why| why.to_string());
        let event_log = self.event_log(10).await.map(|entries| entries.len()).map_err(|why| why.to_string());
        let sensors = self.sensors().await.map(|sensors| sensors.len()).map_err(|why| why.to_string());
        Ok(Survey {
            version: Walk::of(&root).get("RedfishVersion").text().map(tame),
            resets,
            resets_behind_action_info: !beside && action.get("@Redfish.ActionInfo").is_some(),
            boot_targets,
            boot_mode: boot.get("BootSourceOverrideMode").is_some(),
            settings_object,
            boot_progress,
            etag: system.etag.as_deref().map(tame),
            chassis_power,
            system_power: walk.get("PowerState").text().map(tame),
            media,
            event_log,
            sensors,
            session: self.session().is_some(),
            clock_ahead_s,
            latency: times.get(LATENCY_READS / 2).copied().unwrap_or_default(),
            quirks: Quirks::rows(&vendor, &product, &firmware).collect(),
        })
    }
}
