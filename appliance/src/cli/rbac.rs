//! `rackmedic rbac`: the rights that the appliance needs in a cluster, to be applied by a person.

use super::Usage;
use super::output::{self, Exit};
use crate::cluster::rbac;
use clap::{Args, ValueEnum};

/// How the manifest is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Written {
    /// YAML documents, as a person reviews them.
    Yaml,
    /// One JSON list.
    Json,
}

/// `rbac`.
#[derive(Debug, Args)]
pub(super) struct Rbac {
    /// The namespace of the ServiceAccount and of canary pods.
    #[arg(long, default_value = rbac::NAMESPACE)]
    namespace: String,
    /// How it is written.
    #[arg(long, value_enum, default_value = "yaml")]
    output: Written,
}

impl Rbac {
    pub(super) fn run(&self) -> anyhow::Result<Exit> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let fit = (1..=63).contains(&self.namespace.len())
            && self.namespace.chars().all(plain)
            && !self.namespace.starts_with('-')
            && !self.namespace.ends_with('-');
        if !fit {
            let what =
                format!("`{}` is no namespace: lower-case letters, digits and dashes, at most 63", self.namespace);
            return Err(Usage(what).into());
        }
        match self.output {
            Written::Yaml => output::data(&rbac::yaml(&self.namespace))?,
            Written::Json => output::json(&rbac::list(&self.namespace))?,
        }
        Ok(Exit::Ok)
    }
}
