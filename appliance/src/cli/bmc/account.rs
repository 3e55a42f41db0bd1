//! The account by hand.

use super::place::{Opened, Place, USER, password_of};
use crate::cli::Usage;
use crate::cli::output::{Exit, Format, data, json, talk};
use bmc::Rotation;
use bmc::endpoint::Protocol;
use bmc::ipmi::client::Patience;
use bmc::ipmi::handshake::{Login, Privilege};
use bmc::ipmi::rotate::{accepts, rotate_password};
use clap::ValueEnum;
use std::path::Path;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum What {
    /// Whether it is accepted; tried once.
    Check,
    /// Another password: set, a login with it, else back to the old one.
    Rotate,
}

pub(super) async fn run(place: &Place, what: What, new: Option<&Path>) -> anyhow::Result<Exit> {
    let new = match (what, new) {
        (What::Rotate, Some(path)) => Some(password_of(path, "--new-password-file")?),
        (What::Rotate, None) => {
            return Err(Usage("which password? Name a file with --new-password-file".to_owned()).into());
        }
        (What::Check, Some(_)) => return Err(Usage("`check` takes no new password".to_owned()).into()),
        (What::Check, None) => None,
    };
    if new.as_ref().is_some_and(|new| std::str::from_utf8(new.expose()).is_err()) {
        return Err(Usage("the new password is no UTF-8 text".to_owned()).into());
    }
    let (endpoint, address) = place.endpoint().await?;
    match endpoint.protocol {
        Protocol::Ipmi => {
            let old = place.password()?;
            let patience = Patience::default();
            match &new {
                None => {
                    let login =
                        Login::new(endpoint.user, old, Privilege::User).map_err(|why| Usage(why.to_string()))?;
                    checked(accepts(address, &login, patience).await?, place.output)
                }
                Some(new) => rotated(rotate_password(address, &endpoint.user, &old, new, patience).await, place.output),
            }
        }
        Protocol::Redfish => {
            let Opened::Redfish(mut client) = place.open_as(USER).await? else {
                anyhow::bail!("not a Redfish address");
            };
            let done = match &new {
                None => client.check_account().await.map_err(Into::into).and_then(|yes| checked(yes, place.output)),
                Some(new) => rotated(client.rotate_password(new).await, place.output),
            };
            client.close().await;
            done
        }
    }
}

fn checked(accepted: bool, output: Format) -> anyhow::Result<Exit> {
    match output {
        Format::Json => json(&serde_json::json!({ "accepted": accepted }))?,
        Format::Table => data(if accepted { "accepted\n" } else { "refused\n" })?,
    }
    Ok(if accepted { Exit::Ok } else { Exit::Failed })
}

fn rotated(done: Rotation, output: Format) -> anyhow::Result<Exit> {
    let (word, reason) = match done {
        Rotation::Done => ("done", None),
        Rotation::Unchanged { reason } => ("unchanged", Some(reason.text)),
        Rotation::Unknown { reason } => ("unknown", Some(reason.text)),
    };
    match output {
        Format::Json => json(&serde_json::json!({ "rotation": word, "reason": reason }))?,
        Format::Table => data(&format!("{word}\n"))?,
    }
    match word {
        "done" => return Ok(Exit::Ok),
        "unknown" => {
            talk("which password is in force is not known: keep both, and try each once at the BMC's own page")
        }
        _ => talk("the old password is still in force"),
    }
    talk(&reason.unwrap_or_default());
    Ok(Exit::Failed)
}
