//! Outlets of a power distribution unit by hand.

use super::place::{OPERATOR, Opened, Place};
use crate::cli::Usage;
use crate::cli::output::{Exit, Format, data, json, talk};
use bmc::Power;
use bmc::controller::ALWAYS;
use bmc::endpoint::Protocol;
use bmc::redfish::{Outlet, Redfish};
use clap::ValueEnum;
use std::time::{Duration, Instant};

/// A relay switches within this.
const EFFECT: Duration = Duration::from_secs(15);

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum What {
    /// Their links.
    List,
    /// Reads one.
    Status,
    /// Switches one on and reads back.
    On,
    /// Switches one off and reads back.
    Off,
}

pub(super) async fn run(place: &Place, what: What, outlet: Option<&str>) -> anyhow::Result<Exit> {
    let (endpoint, _) = place.endpoint().await?;
    if endpoint.protocol == Protocol::Ipmi {
        return Err(Usage("--url: power distribution units are spoken to over redfish://".to_owned()).into());
    }
    match (what, outlet) {
        (What::List, Some(_)) => return Err(Usage("`outlet list` takes no outlet".to_owned()).into()),
        (What::Status | What::On | What::Off, None) => {
            return Err(Usage("which outlet? Name its link, as `outlet list` prints it".to_owned()).into());
        }
        _ => {}
    }
    let Opened::Redfish(mut client) = place.open_as(OPERATOR).await? else {
        anyhow::bail!("not a Redfish address");
    };
    let done = work(&mut client, what, outlet.unwrap_or_default(), place.output).await;
    client.close().await;
    done
}

async fn work(client: &mut Redfish, what: What, outlet: &str, output: Format) -> anyhow::Result<Exit> {
    let wanted = match what {
        What::List => {
            let links = client.outlets().await?;
            match output {
                Format::Json => json(&links)?,
                Format::Table => data(&links.iter().map(|link| format!("{link}\n")).collect::<String>())?,
            }
            return Ok(Exit::Ok);
        }
        What::Status => {
            let seen = client.outlet(outlet).await?;
            show(&seen, output)?;
            return Ok(Exit::Ok);
        }
        What::On => Power::On,
        What::Off => Power::Off,
    };
    client.switch_outlet(outlet, wanted == Power::On, ALWAYS).await?;
    let begun = Instant::now();
    let mut seen = client.outlet(outlet).await?;
    while seen.reading.power != wanted && begun.elapsed() < EFFECT {
        tokio::time::sleep(Duration::from_secs(1)).await;
        seen = client.outlet(outlet).await?;
    }
    show(&seen, output)?;
    if seen.reading.power == wanted {
        return Ok(Exit::Ok);
    }
    talk("accepted without effect, or current still flows: look at the unit itself");
    Ok(Exit::Failed)
}

fn show(seen: &Outlet, output: Format) -> anyhow::Result<()> {
    let power = super::power::word(seen.reading.power);
    match output {
        Format::Json => json(&serde_json::json!({ "name": seen.name, "power": power, "watts": seen.watts }))?,
        Format::Table => {
            let watts = seen.watts.map(|watts| format!(", {watts:.0} W")).unwrap_or_default();
            data(&format!("{}: {power}{watts}\n", seen.name))?;
        }
    }
    Ok(())
}
