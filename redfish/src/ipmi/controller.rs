//! The verbs over IPMI.

use super::boot_options::{DiskSelector, Habit};
use super::client::Client;
use super::command::Control;
use super::error::IpmiError;
use crate::boot::{BootDevice, BootLasts, BootMode, BootOverride, BootStage};
use crate::controller::{BmcError, Controller, Guard, Identity, Kind, Verb};
use crate::health::{LogEntry, Sensor};
use crate::power::PowerCommand;
use crate::quirk::{Quirks, vendor_of_enterprise};
use crate::reading::Readings;
use std::future::Future;
use std::pin::Pin;

fn not_offered<'a, T: Send + 'a>(what: &'static str) -> Verb<'a, T> {
    let text = format!("IPMI has no {what}; use the BMC's Redfish address for it");
    Box::pin(async move { Err(BmcError::new(Kind::NotOffered, text)) })
}

impl Client {
    /// How this make keeps boot flags.
    async fn boot_habit(&mut self) -> Result<Habit, IpmiError> {
        let vendor = vendor_of_enterprise(self.device_id().await?.manufacturer);
        // Over IPMI the generation is not told; the selector holds for those that boot by UEFI at all.
        let quirks = Quirks::of(vendor, "x12", "");
        let supermicro = quirks.ipmi_disk_selector == Some(0x24);
        let disk = if supermicro { DiskSelector::SupermicroUefi } else { DiskSelector::Standard };
        Ok(Habit { disk, flags_lost: quirks.boot_flags_lost })
    }
}

impl Controller for Client {
    fn identify(&mut self) -> Verb<'_, Identity> {
        Box::pin(async {
            let device = self.device_id().await?;
            let machine = self.reading().await?.identity;
            let vendor = vendor_of_enterprise(device.manufacturer);
            let vendor =
                if vendor.is_empty() { format!("enterprise {}", device.manufacturer) } else { vendor.to_owned() };
            Ok(Identity {
                machine,
                serial: None,
                vendor: Some(vendor),
                model: Some(format!("product {}", device.product)),
                firmware: Some(format!("{}.{:02}", device.firmware_major, device.firmware_minor)),
                spoken: format!("IPMI 2.0, cipher suite {}", self.suite().number()),
            })
        })
    }

    fn readings(&mut self) -> Verb<'_, Readings> {
        Box::pin(async { Ok(Readings { main: self.reading().await?, beside: None }) })
    }

    fn power<'a>(&'a mut self, command: PowerCommand, guard: Guard<'a>) -> Verb<'a, ()> {
        let control = match command {
            PowerCommand::On => Control::On,
            PowerCommand::Off => Control::Off,
            PowerCommand::GracefulOff => Control::Soft,
            PowerCommand::Interrupt => Control::Interrupt,
        };
        Box::pin(async move {
            if !guard() {
                return Err(BmcError::withheld());
            }
            Ok(self.control(control).await?)
        })
    }

    fn set_boot_once<'a>(
        &'a mut self,
        device: &'a BootDevice,
        mode: BootMode,
        guard: Guard<'a>,
    ) -> Verb<'a, BootOverride> {
        Box::pin(async move {
            let habit = self.boot_habit().await?;
            if !guard() {
                return Err(BmcError::withheld());
            }
            Client::set_boot_once(self, device, mode, habit.disk).await?;
            let seen = Client::boot_override(self, habit).await?;
            if seen.device.as_ref() == Some(device) && seen.lasts != BootLasts::Disabled {
                return Ok(seen);
            }
            let word = if seen.word.is_empty() { "none" } else { &seen.word };
            let text = format!("the BMC accepted the boot override, but reads back {word}; it would boot as ever");
            Err(BmcError::new(Kind::Refused, text))
        })
    }

    fn boot_override(&mut self) -> Verb<'_, BootOverride> {
        Box::pin(async {
            let habit = self.boot_habit().await?;
            Ok(Client::boot_override(self, habit).await?)
        })
    }

    fn boot_stage(&mut self) -> Verb<'_, BootStage> {
        Box::pin(async { Ok(BootStage::Unknown) })
    }

    fn event_log(&mut self, count: usize) -> Verb<'_, Vec<LogEntry>> {
        Box::pin(async move {
            // Their names make a log readable; a BMC without records has a log all the same.
            let sensors = match self.sensor_records().await {
                Ok(records) => records.sensors,
                Err(IpmiError::Refused { .. }) => Vec::new(),
                Err(why) => return Err(why.into()),
            };
            let mut entries = Client::event_log(self, &sensors).await?.entries;
            entries.drain(..entries.len().saturating_sub(count));
            Ok(entries)
        })
    }

    fn sensors(&mut self) -> Verb<'_, Vec<Sensor>> {
        Box::pin(async {
            let records = self.sensor_records().await?;
            Ok(Client::sensors(self, &records.sensors).await?)
        })
    }

    fn insert_media<'a>(&'a mut self, _: &'a str) -> Verb<'a, String> {
        not_offered("virtual media")
    }

    fn eject_media(&mut self) -> Verb<'_, ()> {
        not_offered("virtual media")
    }

    fn reset_bmc(&mut self) -> Verb<'_, ()> {
        Box::pin(async { Ok(self.mc_reset_cold().await?) })
    }

    fn keep_alive(&mut self) -> Verb<'_, ()> {
        Box::pin(async { Ok(Client::keep_alive(self).await?) })
    }

    fn learned(&self) -> Vec<String> {
        // What differs over IPMI is asked anew in each session: the suite, the selectors.
        Vec::new()
    }

    fn close(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(Client::close(*self))
    }
}
