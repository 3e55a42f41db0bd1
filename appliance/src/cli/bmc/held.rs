//! The BMCs and units of outlets that an appliance on this machine holds.

use crate::cli::output::{Exit, Format, data, json, table};
use crate::store::bmc_registry::held;
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(in crate::cli) struct List {
    /// The data directory of the appliance.
    #[arg(long, value_name = "DIR", env = "RACKMEDIC_DATA_DIR", default_value = "/var/lib/rackmedic")]
    data_dir: PathBuf,
    /// How the result is written.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Debug, Serialize)]
struct Shown {
    address: String,
    port: u16,
    host: u32,
}

impl List {
    pub(super) async fn run(&self) -> anyhow::Result<Exit> {
        let all: Vec<Shown> = held(&self.data_dir)
            .await?
            .into_iter()
            .map(|one| Shown { address: one.address, port: one.port, host: one.host.0 })
            .collect();
        match self.output {
            Format::Json => json(&all)?,
            Format::Table => {
                let row = |one: &Shown| vec![one.address.clone(), one.port.to_string(), one.host.to_string()];
                let rows: Vec<Vec<String>> = all.iter().map(row).collect();
                data(&table(&["address", "port", "host"], &rows))?;
            }
        }
        Ok(Exit::Ok)
    }
}
