//! The verbs over Redfish.

use super::client::Redfish;
use crate::boot::{BootDevice, BootMode, BootOverride, BootStage};
use crate::controller::{Controller, Guard, Identity, Verb};
use crate::health::{LogEntry, Sensor};
use crate::power::PowerCommand;
use crate::reading::Readings;
use std::future::Future;
use std::pin::Pin;

impl Controller for Redfish {
    fn identify(&mut self) -> Verb<'_, Identity> {
        Box::pin(async {
            let seen = Redfish::identify(self).await?;
            let how = if self.session().is_some() { "session" } else { "Basic on each request" };
            let bmc = seen.bmc.unwrap_or_default();
            let spoken = format!("Redfish, {how}");
            let firmware = seen.firmware.map(|version| format!("{bmc} {version}").trim().to_owned());
            let (vendor, model) = (seen.vendor, seen.model);
            Ok(Identity { machine: seen.uuid, serial: seen.serial, vendor, model, firmware, spoken })
        })
    }

    fn readings(&mut self) -> Verb<'_, Readings> {
        Box::pin(async { Ok(Redfish::readings(self).await?) })
    }

    fn power<'a>(&'a mut self, command: PowerCommand, guard: Guard<'a>) -> Verb<'a, ()> {
        Box::pin(async move { Ok(Redfish::power(self, command, guard).await?) })
    }

    fn set_boot_once<'a>(
        &'a mut self,
        device: &'a BootDevice,
        mode: BootMode,
        guard: Guard<'a>,
    ) -> Verb<'a, BootOverride> {
        Box::pin(async move { Ok(Redfish::set_boot_once(self, device, mode, guard).await?) })
    }

    fn boot_override(&mut self) -> Verb<'_, BootOverride> {
        Box::pin(async { Ok(Redfish::boot_override(self).await?) })
    }

    fn boot_stage(&mut self) -> Verb<'_, BootStage> {
        Box::pin(async { Ok(Redfish::boot_stage(self).await?) })
    }

    fn event_log(&mut self, count: usize) -> Verb<'_, Vec<LogEntry>> {
        Box::pin(async move { Ok(Redfish::event_log(self, count).await?) })
    }

    fn sensors(&mut self) -> Verb<'_, Vec<Sensor>> {
        Box::pin(async { Ok(Redfish::sensors(self).await?) })
    }

    fn insert_media<'a>(&'a mut self, url: &'a str) -> Verb<'a, String> {
        Box::pin(async move { Ok(Redfish::insert_media(self, url).await?.drive) })
    }

    fn eject_media(&mut self) -> Verb<'_, ()> {
        Box::pin(async { Ok(Redfish::eject_media(self).await.map(drop)?) })
    }

    fn reset_bmc(&mut self) -> Verb<'_, ()> {
        Box::pin(async { Ok(Redfish::reset_bmc(self).await?) })
    }

    fn keep_alive(&mut self) -> Verb<'_, ()> {
        // A session lives thirty minutes and is opened anew when it is gone.
        Box::pin(async { Ok(()) })
    }

    fn learned(&self) -> Vec<String> {
        self.facts().words()
    }

    fn close(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(Redfish::close(*self))
    }
}
