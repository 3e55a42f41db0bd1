//! The verbs over IPMI.

use super::client::Client;
use super::command::Control;
use crate::boot::{BootDevice, BootMode, BootOverride, BootStage};
use crate::controller::{BmcError, Controller, Identity, Kind, Verb};
use crate::health::{LogEntry, Sensor};
use crate::power::PowerCommand;
use crate::quirk::vendor_of_enterprise;
use crate::reading::Readings;
use std::future::Future;
use std::pin::Pin;

fn not_offered<'a, T: Send + 'a>(what: &'static str) -> Verb<'a, T> {
    let text = format!("IPMI has no {what}; use the BMC's Redfish address for it");
    Box::pin(async move { Err(BmcError::new(Kind::NotOffered, text)) })
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

    fn power(&mut self, command: PowerCommand) -> Verb<'_, ()> {
        let control = match command {
            PowerCommand::On => Control::On,
            PowerCommand::Off => Control::Off,
            PowerCommand::GracefulOff => Control::Soft,
            PowerCommand::Interrupt => Control::Interrupt,
        };
        Box::pin(async move { Ok(self.control(control).await?) })
    }

    fn set_boot_once<'a>(&'a mut self, _: &'a BootDevice, _: BootMode) -> Verb<'a, BootOverride> {
        not_offered("boot override in this version")
    }

    fn boot_override(&mut self) -> Verb<'_, BootOverride> {
        not_offered("boot override in this version")
    }

    fn boot_stage(&mut self) -> Verb<'_, BootStage> {
        Box::pin(async { Ok(BootStage::Unknown) })
    }

    fn event_log(&mut self, _: usize) -> Verb<'_, Vec<LogEntry>> {
        not_offered("event log in this version")
    }

    fn sensors(&mut self) -> Verb<'_, Vec<Sensor>> {
        not_offered("sensors in this version")
    }

    fn insert_media<'a>(&'a mut self, _: &'a str) -> Verb<'a, String> {
        not_offered("virtual media")
    }

    fn eject_media(&mut self) -> Verb<'_, ()> {
        not_offered("virtual media")
    }

    fn reset_bmc(&mut self) -> Verb<'_, ()> {
        not_offered("restart of the BMC in this version")
    }

    fn keep_alive(&mut self) -> Verb<'_, ()> {
        Box::pin(async { Ok(self.device_id().await.map(drop)?) })
    }

    fn close(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(Client::close(*self))
    }
}
