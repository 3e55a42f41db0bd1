//! Which BMC, with which password, and whom to believe.

use crate::cli::output::{Format, talk};
use crate::cli::{Forbidden, Usage};
use crate::store::bmc_registry::holder;
use anyhow::Context;
use bmc::controller::Controller;
use bmc::endpoint::{Endpoint, Protocol};
use bmc::ipmi::client::Client;
use bmc::ipmi::crypto::Suite;
use bmc::ipmi::handshake::{Login, Privilege};
use bmc::redfish::{Credential, Facts, Fingerprint, NoKeeper, Options, Redfish, Trust};
use bmc::{Secret, ipmi, redfish};
use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// A password file is a line.
const PASSWORD_FILE_BYTES_MAX: u64 = 4_096;
/// A file of authorities is a few certificates.
const AUTHORITIES_BYTES_MAX: u64 = 1 << 20;

/// What reading needs.
pub(super) const USER: Privilege = Privilege::User;
/// What the list of users needs.
pub(super) const ADMINISTRATOR: Privilege = Privilege::Administrator;
/// What switching needs.
pub(in crate::cli) const OPERATOR: Privilege = Privilege::Operator;

#[derive(Debug, Args)]
pub(in crate::cli) struct Place {
    /// The BMC: `redfish://USER@HOST[:PORT]` or `ipmi://USER@HOST[:PORT]`.
    #[arg(long, value_name = "URL")]
    url: String,
    /// A file with the password in its first line; without it the environment variable RACKMEDIC_BMC_PASSWORD.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Redfish: the SHA-256 fingerprint of the BMC's certificate, as `sha256:HEX`.
    #[arg(long, value_name = "FINGERPRINT", conflicts_with_all = ["ca", "tls_accept_new"])]
    tls_pin: Option<Fingerprint>,
    /// Redfish: a PEM file with the authorities that sign the BMC's certificate.
    #[arg(long, value_name = "FILE", conflicts_with = "tls_accept_new")]
    ca: Option<PathBuf>,
    /// Redfish: believe the certificate that it shows now, and print its fingerprint.
    #[arg(long)]
    tls_accept_new: bool,
    /// Redfish: which system, where the BMC serves several: its link, Id or UUID.
    #[arg(long, value_name = "SYSTEM")]
    system: Option<String>,
    /// Redfish: the chassis keeps its power while the system is off, as you have seen: it does not count.
    #[arg(long)]
    ignore_chassis: bool,
    /// The data directory of an appliance on this machine: a BMC that it holds is refused here.
    #[arg(long, value_name = "DIR", env = "RACKMEDIC_DATA_DIR", default_value = "/var/lib/rackmedic")]
    data_dir: PathBuf,
    /// How the result is written.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(in crate::cli) output: Format,
}

/// A BMC, open or ready to be asked.
pub(super) enum Opened {
    Ipmi(Box<Client>),
    Redfish(Box<Redfish>),
}

impl Place {
    pub(in crate::cli) async fn open(&self, privilege: Privilege) -> anyhow::Result<Box<dyn Controller>> {
        Ok(match self.open_as(privilege).await? {
            Opened::Ipmi(client) => client,
            Opened::Redfish(client) => client,
        })
    }

    /// The account's name and the address behind the URL.
    pub(in crate::cli) async fn endpoint(&self) -> anyhow::Result<(Endpoint, SocketAddr)> {
        let endpoint: Endpoint = self.url.parse().map_err(|why| Usage(format!("--url: {why}")))?;
        let address = self.free(&endpoint).await?;
        Ok((endpoint, address))
    }

    pub(super) async fn open_as(&self, privilege: Privilege) -> anyhow::Result<Opened> {
        let endpoint: Endpoint = self.url.parse().map_err(|why| Usage(format!("--url: {why}")))?;
        let password = self.password()?;
        match endpoint.protocol {
            Protocol::Ipmi => {
                for (given, name) in [
                    (self.tls_pin.is_some(), "--tls-pin"),
                    (self.ca.is_some(), "--ca"),
                    (self.tls_accept_new, "--tls-accept-new"),
                    (self.system.is_some(), "--system"),
                    (self.ignore_chassis, "--ignore-chassis"),
                ] {
                    if given {
                        return Err(Usage(format!("{name} belongs to redfish://; IPMI has no such thing")).into());
                    }
                }
                let login =
                    Login::new(endpoint.user.clone(), password, privilege).map_err(|why| Usage(why.to_string()))?;
                let address = self.free(&endpoint).await?;
                let patience = ipmi::client::Patience::default();
                Ok(Opened::Ipmi(Box::new(Client::open(address, &login, &Suite::PREFERENCE, patience).await?)))
            }
            Protocol::Redfish => {
                std::str::from_utf8(password.expose())
                    .map_err(|_| Usage("the password is no UTF-8 text".to_owned()))?;
                let roots = self.authorities()?;
                if roots.is_none() && self.tls_pin.is_none() && !self.tls_accept_new {
                    let text = "whom to believe? Name the certificate with --tls-pin sha256:HEX, its authorities with --ca FILE, \
                                or see and believe what it shows now with --tls-accept-new";
                    return Err(Usage(text.to_owned()).into());
                }
                let address = self.free(&endpoint).await?;
                let patience = redfish::Patience::default();
                let trust = match (roots, self.tls_pin) {
                    (Some(roots), _) => Trust::Authorities(Arc::new(roots)),
                    (None, Some(pin)) => Trust::Pin(pin),
                    (None, None) => {
                        let seen = redfish::look(address, &endpoint.host, patience).await?;
                        talk(&format!("believed as shown, compare it with the BMC's own page: --tls-pin {seen}"));
                        Trust::Pin(seen)
                    }
                };
                let credential = Credential { user: endpoint.user.clone(), password };
                let options = Options {
                    trust,
                    patience,
                    system: self.system.clone(),
                    keep_alive: false,
                    keeper: Arc::new(NoKeeper),
                    facts: Facts { chassis_unrelated: self.ignore_chassis, ..Facts::default() },
                };
                Ok(Opened::Redfish(Box::new(Redfish::new(address, &endpoint.host, credential, options)?)))
            }
        }
    }

    /// The address, unless an appliance here holds that BMC (rule 60): past its journal and its lease nobody presses its
    /// buttons.
    async fn free(&self, endpoint: &Endpoint) -> anyhow::Result<SocketAddr> {
        let address = resolve(endpoint).await?;
        match holder(&self.data_dir, address).await {
            Ok(None) => Ok(address),
            Ok(Some(host)) => Err(Forbidden(format!(
                "the appliance of {} holds this BMC, for host {}: switch it through the appliance, which keeps its journal and its rules",
                self.data_dir.display(),
                host.0
            ))
            .into()),
            Err(why) => Err(Forbidden(format!(
                "whether the appliance of {} holds this BMC cannot be read ({why}); repair that, or name another --data-dir if it is not of this machine",
                self.data_dir.display()
            ))
            .into()),
        }
    }

    fn authorities(&self) -> anyhow::Result<Option<bmc::redfish::Authorities>> {
        let Some(path) = &self.ca else { return Ok(None) };
        let cannot = |why: &dyn std::fmt::Display| Usage(format!("--ca {}: {why}", path.display()));
        let pem = limited(path, AUTHORITIES_BYTES_MAX).map_err(|why| cannot(&why))?;
        Ok(Some(bmc::redfish::authorities(&pem).map_err(|why| cannot(&why))?))
    }

    pub(super) fn password(&self) -> anyhow::Result<Secret> {
        match &self.password_file {
            Some(path) => password_of(path, "--password-file"),
            None => {
                let told = std::env::var_os("RACKMEDIC_BMC_PASSWORD").map(std::ffi::OsString::into_encoded_bytes);
                let missing = "no password: name a file with --password-file or set RACKMEDIC_BMC_PASSWORD";
                first_line(&told.ok_or_else(|| Usage(missing.to_owned()))?)
            }
        }
    }
}

/// A password in the first line of a file; `option` is named where it cannot be read.
pub(super) fn password_of(path: &std::path::Path, option: &str) -> anyhow::Result<Secret> {
    let bytes =
        limited(path, PASSWORD_FILE_BYTES_MAX).map_err(|why| Usage(format!("{option} {}: {why}", path.display())))?;
    first_line(&bytes)
}

fn first_line(bytes: &[u8]) -> anyhow::Result<Secret> {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Err(Usage("the password is empty: the account of a BMC without one is not used".to_owned()).into());
    }
    Ok(Secret::new(line.to_vec()))
}

/// Reads a small file; a pipe or device that never ends is cut off.
fn limited(path: &std::path::Path, bytes_max: u64) -> Result<Vec<u8>, std::io::Error> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(std::io::Error::other(format!("longer than {bytes_max} bytes, which no such file is")));
    }
    Ok(bytes)
}

async fn resolve(endpoint: &Endpoint) -> anyhow::Result<SocketAddr> {
    let nothing = || format!("the host {} has no address", endpoint.host);
    let mut found = tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port)).await.with_context(nothing)?;
    found.next().with_context(nothing)
}
