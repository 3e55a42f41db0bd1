//! Who it is.

use super::power::hex;
use crate::cli::output::{Exit, Format, data, json};
use bmc::controller::Controller;
use serde::Serialize;

#[derive(Debug, Serialize)]
struct Shown {
    machine: Option<String>,
    serial: Option<String>,
    vendor: Option<String>,
    model: Option<String>,
    firmware: Option<String>,
    spoken: String,
}

pub(super) async fn run(bmc: &mut dyn Controller, output: Format) -> anyhow::Result<Exit> {
    let seen = bmc.identify().await?;
    let shown = Shown {
        machine: seen.machine.map(hex),
        serial: seen.serial,
        vendor: seen.vendor,
        model: seen.model,
        firmware: seen.firmware,
        spoken: seen.spoken,
    };
    match output {
        Format::Json => json(&shown)?,
        Format::Table => {
            let told = |text: &Option<String>| text.clone().unwrap_or_else(|| "not told".to_owned());
            data(&format!(
                "machine   {}\nserial    {}\nvendor    {}\nmodel     {}\nfirmware  {}\nspoken    {}\n",
                told(&shown.machine),
                told(&shown.serial),
                told(&shown.vendor),
                told(&shown.model),
                told(&shown.firmware),
                shown.spoken
            ))?;
        }
    }
    Ok(Exit::Ok)
}
