//! One-shot boot: set, and read back. Never for more than one boot.

use super::client::{Redfish, Resource};
use super::error::RedfishError;
use super::link::Link;
use super::walk::Walk;
use crate::boot::{BootDevice, BootLasts, BootMode, BootOverride};
use crate::controller::Guard;
use crate::health::tame;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// A task that an override becomes.
const TASK_LIMIT: Duration = Duration::from_secs(30);

/// How much of the Boot object is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Target, duration and mode.
    Whole,
    /// Target and duration.
    Minimal,
}

impl Redfish {
    /// Sets what the machine boots from next time, once, and gives what reads back. The guard is asked right before it
    /// leaves, after all that is read for it.
    ///
    /// # Errors
    /// The guard withheld it, it is refused or not offered, or reads back as another device or as none. An override
    /// that reads back as lasting is given, not an error: the caller must not boot on it.
    pub async fn set_boot_once(
        &mut self,
        device: &BootDevice,
        mode: BootMode,
        guard: Guard<'_>,
    ) -> Result<BootOverride, RedfishError> {
        let (system_link, system) = self.system().await?;
        let boot = system.walk().get("Boot");
        let target = self.target(device, boot)?;
        let settings = self.settings(&system_link, &system).await?;
        let mut form = if self.facts.boot_minimal || self.quirks.boot_minimal { Form::Minimal } else { Form::Whole };
        let mut at_settings = settings.is_some() && (self.facts.boot_at_settings || self.quirks.boot_at_settings);
        // Two things may be learned, each once: the place and the form.
        for _ in 0..3 {
            let link = if at_settings { settings.as_ref().unwrap_or(&system_link) } else { &system_link };
            let body = self.body(device, &target, boot, mode, form);
            match self.patch_if(link, &body, guard).await {
                Ok(written) => {
                    self.facts.boot_minimal |= form == Form::Minimal;
                    self.facts.boot_at_settings |= at_settings;
                    self.finish(written, "the boot override", TASK_LIMIT).await?;
                    return self.read_back(&target).await;
                }
                Err(RedfishError::Refused { ref messages, .. })
                    if !at_settings
                        && settings.is_some()
                        && messages.any(&["OperationSupportedInFutureStateURI", "PropertyNotWritable"]) =>
                {
                    at_settings = true;
                }
                Err(RedfishError::Refused { status: 400 | 422, .. }) if form == Form::Whole => form = Form::Minimal,
                Err(why) => return Err(why),
            }
        }
        let (address, what) = (self.address(), format!("boot once from {target}"));
        Err(RedfishError::NotOffered { address, what, reason: "each form of the request was refused".to_owned() })
    }

    /// Takes an override back.
    ///
    /// # Errors
    /// It is refused.
    pub async fn clear_boot(&mut self) -> Result<BootOverride, RedfishError> {
        let (link, system) = self.system().await?;
        let settings = self.settings(&link, &system).await?;
        let at = settings.filter(|_| self.facts.boot_at_settings || self.quirks.boot_at_settings).unwrap_or(link);
        let body = json!({ "Boot": { "BootSourceOverrideEnabled": "Disabled" } });
        let written = self.patch(&at, &body).await?;
        self.finish(written, "the boot override", TASK_LIMIT).await?;
        self.boot_override().await
    }

    /// The override as it reads now: where it is pending, or else at the system.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn boot_override(&mut self) -> Result<BootOverride, RedfishError> {
        let (link, system) = self.system().await?;
        let here = read(system.walk().get("Boot"));
        if here.device.is_some() || !matches!(here.lasts, BootLasts::Disabled | BootLasts::Unknown) {
            return Ok(here);
        }
        let Some(settings) = self.settings(&link, &system).await? else { return Ok(here) };
        let pending = self.get(&settings).await?;
        let pending = read(pending.walk().get("Boot"));
        Ok(if pending.device.is_some() { pending } else { here })
    }

    async fn read_back(&mut self, target: &str) -> Result<BootOverride, RedfishError> {
        let seen = self.boot_override().await?;
        if seen.word == target && seen.lasts != BootLasts::Disabled {
            return Ok(seen);
        }
        let lasts = if seen.lasts == BootLasts::Disabled { " (disabled)" } else { "" };
        let word = if seen.word.is_empty() { "none" } else { &seen.word };
        Err(RedfishError::NotSet {
            address: self.address(),
            what: format!("to boot once from {target}"),
            seen: format!("{word}{lasts}"),
        })
    }

    /// The settings object, if it holds a boot override.
    async fn settings(&mut self, link: &Link, system: &Resource) -> Result<Option<Link>, RedfishError> {
        let announced = self.link_of(system.walk().at(&["@Redfish.Settings", "SettingsObject"]))?;
        let wanted = self.facts.boot_at_settings || self.quirks.boot_at_settings;
        let settings = match announced {
            Some(settings) => settings,
            // AMI has it without announcing it.
            None if wanted => match link.under("SD") {
                Ok(settings) => settings,
                Err(_) => return Ok(None),
            },
            None => return Ok(None),
        };
        match self.get(&settings).await {
            Ok(resource) => {
                let boot = resource.walk().get("Boot");
                let holds = boot.members().any(|(name, _)| name.starts_with("BootSourceOverride"));
                Ok(holds.then_some(settings))
            }
            Err(RedfishError::Refused { .. }) => Ok(None),
            Err(why) => Err(why),
        }
    }

    /// The BMC's word for a device.
    fn target(&self, device: &BootDevice, boot: Walk<'_>) -> Result<String, RedfishError> {
        let wanted: &[&str] = match device {
            BootDevice::Pxe => &["Pxe"],
            BootDevice::Http { .. } => &["UefiHttp"],
            BootDevice::Cd if self.quirks.cd_is_usb => &["UsbCd", "Cd"],
            BootDevice::Cd => &["Cd", "UsbCd"],
            BootDevice::Disk => &["Hdd"],
        };
        let offered: Vec<&str> = boot.get("BootSourceOverrideTarget@Redfish.AllowableValues").texts().collect();
        let word = wanted.iter().find(|word| offered.is_empty() || offered.contains(word));
        word.map(|word| (*word).to_owned()).ok_or_else(|| RedfishError::NotOffered {
            address: self.address(),
            what: format!("boot once from {}", wanted.join(" or ")),
            reason: format!("it offers {}", tame(&offered.join(", "))),
        })
    }

    fn body(&self, device: &BootDevice, target: &str, boot: Walk<'_>, mode: BootMode, form: Form) -> Value {
        let mut fields = Map::new();
        fields.insert("BootSourceOverrideEnabled".to_owned(), json!("Once"));
        fields.insert("BootSourceOverrideTarget".to_owned(), json!(target));
        let has_mode = boot.get("BootSourceOverrideMode").is_some();
        let wants_mode = self.quirks.boot_mode_always || (has_mode && form == Form::Whole);
        if wants_mode && !self.quirks.boot_mode_never {
            let word = match mode {
                BootMode::Uefi => "UEFI",
                BootMode::Legacy => "Legacy",
            };
            fields.insert("BootSourceOverrideMode".to_owned(), json!(word));
        }
        if let BootDevice::Http { uri: Some(uri) } = device {
            fields.insert("HttpBootUri".to_owned(), json!(uri));
        }
        json!({ "Boot": fields })
    }
}

/// Reads an override.
fn read(boot: Walk<'_>) -> BootOverride {
    let word = boot.get("BootSourceOverrideTarget").text().map(tame).unwrap_or_default();
    let uri = || boot.get("HttpBootUri").text().filter(|uri| *uri != "None").map(tame);
    let device = match word.as_str() {
        "Pxe" => Some(BootDevice::Pxe),
        "UefiHttp" => Some(BootDevice::Http { uri: uri() }),
        "Cd" | "UsbCd" => Some(BootDevice::Cd),
        "Hdd" => Some(BootDevice::Disk),
        _ => None,
    };
    let lasts = match boot.get("BootSourceOverrideEnabled").text() {
        Some("Once") => BootLasts::Once,
        Some("Continuous") => BootLasts::Always,
        Some("Disabled") => BootLasts::Disabled,
        _ => BootLasts::Unknown,
    };
    let mode = match boot.get("BootSourceOverrideMode").text() {
        Some("UEFI") => Some(BootMode::Uefi),
        Some("Legacy") => Some(BootMode::Legacy),
        _ => None,
    };
    BootOverride { device, lasts, mode, word }
}
