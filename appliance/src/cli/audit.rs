//! `rackmedic audit verify`: whether the audit chain of a data directory is whole.

use super::output::{Exit, Format, data, json, talk};
use crate::store::audit::{Verified, parse_key};
use crate::store::sqlite::verify_audit_by;
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(super) enum Audit {
    /// Recompute the hash chain and check the signed checkpoints; beside a running appliance if need be.
    ///
    /// It shows that nobody without the signing key changed, removed or added rows up to the signed one that it names;
    /// the rows after it are only chained, and are signed with the next start or snapshot. Note the public key and that
    /// row elsewhere: with --public-key a database that was signed anew by somebody else is found, and a row that went
    /// back means that an older state was put back. Who has root on the appliance has the signing key too.
    Verify(Verify),
}

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// The data directory.
    #[arg(long, value_name = "DIR", env = "RACKMEDIC_DATA_DIR", default_value = "/var/lib/rackmedic")]
    data_dir: PathBuf,
    /// The public key that the audit must be signed by, as this verb printed it before; without it the one in the
    /// database is believed.
    #[arg(long, value_name = "HEX", value_parser = key_of)]
    public_key: Option<[u8; 32]>,
    /// How the result is written.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

fn key_of(text: &str) -> Result<[u8; 32], String> {
    parse_key(text).ok_or_else(|| "a public key has 64 hexadecimal digits".to_owned())
}

impl Audit {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let Audit::Verify(verify) = self;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let found = runtime.block_on(verify_audit_by(&verify.data_dir, verify.public_key.as_ref()))?;
        match verify.output {
            Format::Json => json(&found)?,
            Format::Table => data(&words(&found))?,
        }
        if found.broken.is_some() && verify.output == Format::Table {
            talk(
                "the audit was changed outside the appliance: rows from there on prove nothing; keep the database as it is and restore a backup beside it",
            );
        }
        Ok(if found.broken.is_none() { Exit::Ok } else { Exit::Failed })
    }
}

fn words(found: &Verified) -> String {
    let mut text = match &found.broken {
        None => format!("whole: {} audit rows, {} signed checkpoints\n", found.rows, found.checkpoints),
        Some(broken) if broken.id > 0 => format!("broken at row {}: {}\n", broken.id, broken.what),
        Some(broken) => format!("broken: {}\n", broken.what),
    };
    if let Some(signed_to) = found.signed_to {
        text += &format!("signed up to row {signed_to}\n");
    }
    if let Some(key) = &found.public_key {
        text += &format!("public key {key}\n");
    }
    text
}
