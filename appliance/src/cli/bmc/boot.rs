//! One-shot boot by hand.

use crate::cli::Usage;
use crate::cli::output::{Exit, Format, data, json, talk};
use bmc::boot::{BootDevice, BootLasts, BootMode, BootOverride};
use bmc::controller::{ALWAYS, Controller};
use clap::ValueEnum;
use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum What {
    /// Network boot by PXE.
    Pxe,
    /// Network boot by UEFI HTTP.
    Http,
    /// The virtual drive.
    Cd,
    /// The first disk.
    Disk,
    /// Reads it.
    Status,
}

#[derive(Debug, Serialize)]
struct Shown {
    device: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    uri: Option<String>,
    lasts: &'static str,
    mode: &'static str,
    word: String,
}

pub(super) fn check(what: What, url: Option<&str>) -> anyhow::Result<()> {
    match (what, url) {
        (What::Http | What::Cd, Some(url)) => check_url(url),
        (What::Pxe | What::Disk | What::Status, Some(_)) => {
            Err(Usage("a URL goes with `http` and `cd` only".to_owned()).into())
        }
        _ => Ok(()),
    }
}

/// A URL that a BMC fetches: no spaces, no password in it, one of the schemes that BMCs know.
pub(in crate::cli) fn check_url(url: &str) -> anyhow::Result<()> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let plain = url.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'<' | b'>' | b'\\'));
    match rest {
        Some(rest) if plain && !rest.is_empty() && !rest.split('/').next().unwrap_or_default().contains('@') => Ok(()),
        _ => {
            Err(Usage("the URL must be http:// or https:// with a host and no user, spaces or quotes".to_owned())
                .into())
        }
    }
}

pub(super) async fn run(
    bmc: &mut dyn Controller,
    what: What,
    url: Option<&str>,
    legacy: bool,
    output: Format,
) -> anyhow::Result<Exit> {
    let device = match what {
        What::Pxe => BootDevice::Pxe,
        What::Http => BootDevice::Http { uri: url.map(str::to_owned) },
        What::Cd => BootDevice::Cd,
        What::Disk => BootDevice::Disk,
        What::Status => {
            let seen = bmc.boot_override().await?;
            return show(&seen, output).map(|()| Exit::Ok);
        }
    };
    if let (What::Cd, Some(url)) = (what, url) {
        let drive = bmc.insert_media(url).await?;
        talk(&format!("inserted in {drive}"));
    }
    let mode = if legacy { BootMode::Legacy } else { BootMode::Uefi };
    let seen = bmc.set_boot_once(&device, mode, ALWAYS).await?;
    show(&seen, output)?;
    Ok(match seen.lasts {
        BootLasts::Once | BootLasts::Unknown => Exit::Ok,
        BootLasts::Always => {
            talk(
                "asked for one boot, but it reads back as lasting: do not rely on it; a host that always boots so is reinstalled for ever",
            );
            Exit::Failed
        }
        BootLasts::Disabled => Exit::Failed,
    })
}

fn show(seen: &BootOverride, output: Format) -> anyhow::Result<()> {
    let uri = match &seen.device {
        Some(BootDevice::Http { uri }) => uri.clone(),
        _ => None,
    };
    let shown = Shown {
        device: match &seen.device {
            Some(BootDevice::Pxe) => "pxe",
            Some(BootDevice::Http { .. }) => "http",
            Some(BootDevice::Cd) => "cd",
            Some(BootDevice::Disk) => "disk",
            None => "none",
        },
        uri,
        lasts: match seen.lasts {
            BootLasts::Once => "once",
            BootLasts::Always => "always",
            BootLasts::Disabled => "disabled",
            BootLasts::Unknown => "unknown",
        },
        mode: match seen.mode {
            Some(BootMode::Uefi) => "uefi",
            Some(BootMode::Legacy) => "legacy",
            None => "unknown",
        },
        word: seen.word.clone(),
    };
    match output {
        Format::Json => json(&shown)?,
        Format::Table => {
            let uri = shown.uri.as_deref().map(|uri| format!(" {uri}")).unwrap_or_default();
            data(&format!("{}{uri}, {}, {}\n", shown.device, shown.lasts, shown.mode))?;
        }
    }
    Ok(())
}
