//! The virtual drive by hand.

use super::boot::check_url;
use crate::cli::Usage;
use crate::cli::output::{Exit, Format, data, json};
use bmc::controller::Controller;
use clap::ValueEnum;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum What {
    /// Puts an image in; what was in is ejected.
    Insert,
    /// Empties the drive.
    Eject,
}

pub(super) fn check(what: What, url: Option<&str>) -> anyhow::Result<()> {
    match (what, url) {
        (What::Insert, Some(url)) => check_url(url),
        (What::Insert, None) => Err(Usage("which image? `media insert URL`".to_owned()).into()),
        (What::Eject, Some(_)) => Err(Usage("`media eject` takes no URL".to_owned()).into()),
        (What::Eject, None) => Ok(()),
    }
}

pub(super) async fn run(
    bmc: &mut dyn Controller,
    what: What,
    url: Option<&str>,
    output: Format,
) -> anyhow::Result<Exit> {
    let drive = match what {
        What::Insert => Some(bmc.insert_media(url.unwrap_or_default()).await?),
        What::Eject => {
            bmc.eject_media().await?;
            None
        }
    };
    match (output, &drive) {
        (Format::Json, _) => json(&serde_json::json!({ "inserted": drive.is_some(), "drive": drive }))?,
        (Format::Table, Some(drive)) => data(&format!("inserted in {drive}\n"))?,
        (Format::Table, None) => data("the drive is empty\n")?,
    }
    Ok(Exit::Ok)
}
