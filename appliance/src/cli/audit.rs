//! `rackmedic audit verify`: whether the audit chain of a data directory is whole.

use super::output::{Exit, Format, data, json, talk};
use crate::store::sqlite::verify_audit;
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(super) enum Audit {
    /// Recompute the hash chain and check the signed checkpoints; beside a running appliance if need be.
    Verify(Verify),
}

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// The data directory.
    #[arg(long, value_name = "DIR", env = "RACKMEDIC_DATA_DIR", default_value = "/var/lib/rackmedic")]
    data_dir: PathBuf,
    /// How the result is written.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

impl Audit {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let Audit::Verify(verify) = self;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let found = runtime.block_on(verify_audit(&verify.data_dir))?;
        match verify.output {
            Format::Json => json(&found)?,
            Format::Table => match &found.broken {
                None => data(&format!("whole: {} audit rows, {} signed checkpoints\n", found.rows, found.checkpoints))?,
                Some(broken) => {
                    data(&format!("broken: {broken:?}\n"))?;
                    talk(
                        "the audit was changed outside the appliance: rows from there on prove nothing; keep the database as it is and restore a backup beside it",
                    );
                }
            },
        }
        Ok(if found.broken.is_none() { Exit::Ok } else { Exit::Failed })
    }
}
