//! What people declare of a site: pools and hosts, as they are written in `rack.yaml`, sent over the control socket, kept in
//! the register and printed by `export`. Secrets travel beside an entry, never in it.

use protocol::disk::DiskName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// What a pool lets us do without asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consent {
    /// By itself.
    Automatic,
    /// After a person's approval.
    #[default]
    Ask,
    /// Never.
    Never,
}

/// A pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolEntry {
    /// Its name.
    pub name: String,
    /// Soft reboot of a living host whose node stays NotReady.
    #[serde(default)]
    pub soft_reboot: Consent,
    /// Rewriting the disk.
    #[serde(default = "never")]
    pub reimage: Consent,
    /// A spare takes the place of a host that cannot be healed.
    #[serde(default = "never")]
    pub replace: Consent,
    /// A restart of the container runtime may kill containers.
    #[serde(default)]
    pub runtime_restart: bool,
    /// Wait so long for a crash dump before power is cut, 0 to 600 seconds.
    #[serde(default)]
    pub crash_dump_wait_s: u64,
    /// What is installed on its hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageEntry>,
}

const fn never() -> Consent {
    Consent::Never
}

/// An image of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageEntry {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Everything is written anew, instead of only what differs.
    #[serde(default)]
    pub plain: bool,
}

/// What a host is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RoleEntry {
    /// A worker node.
    #[default]
    Worker,
    /// A control-plane node.
    ControlPlane,
    /// A spare: carries no Node.
    Spare,
}

/// A kind of physical failure domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DomainEntry {
    /// A rack.
    Rack,
    /// A power distribution unit.
    Pdu,
    /// A switch.
    Switch,
    /// A chassis.
    Chassis,
}

impl DomainEntry {
    /// How it is written.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            DomainEntry::Rack => "rack",
            DomainEntry::Pdu => "pdu",
            DomainEntry::Switch => "switch",
            DomainEntry::Chassis => "chassis",
        }
    }
}

/// A BMC, or a power distribution unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BmcEntry {
    /// `redfish://USER@ADDRESS[:PORT]` or `ipmi://USER@ADDRESS[:PORT]`.
    pub url: String,
    /// The file with its password, read when it is applied; relative to the file that names it. Never kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<String>,
    /// The certificate that is believed, `sha256:HEX`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<String>,
    /// Which system behind a Redfish service, where there are several: its link, its `Id` or its UUID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Its chassis keeps its power whatever the system does, and bears no witness (docs/decisions/007).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ignore_chassis: bool,
}

/// The outlets that feed a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutletsEntry {
    /// The unit, `redfish://USER@ADDRESS[:PORT]`.
    pub url: String,
    /// The file with its password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<String>,
    /// The certificate that is believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<String>,
    /// Their links, as `rackmedic bmc outlet list` prints them. All of them must be off for the host to be.
    pub links: Vec<String>,
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostEntry {
    /// Its name.
    pub name: String,
    /// Its Node's name, where that is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Its cluster, by the name in the configuration. A spare may have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Its pool.
    pub pool: String,
    /// What it is for.
    #[serde(default)]
    pub role: RoleEntry,
    /// Its serial number, which a person types to confirm what cannot be proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Its SMBIOS UUID. Where it is left out, it is learned once BMC and Node agree on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// Its node's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    /// Its cards; the first is the one of that address, and the one that boots.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub macs: Vec<String>,
    /// Its BMC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bmc: Option<BmcEntry>,
    /// Its physical failure domains.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub domains: BTreeMap<DomainEntry, String>,
    /// Versions it runs, such as `image/node-2` or `firmware/U46`: what fails twice on one is not tried further on it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<String>,
    /// The storage system it serves, by its number in the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<u16>,
    /// The one disk that may be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskName>,
    /// Its outlets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outlets: Option<OutletsEntry>,
    /// A second port of its userspace that is probed.
    #[serde(default = "ssh", skip_serializing_if = "is_ssh")]
    pub second_port: u16,
    /// It carries this appliance, its database or its network path: never acted on.
    #[serde(default, rename = "self", skip_serializing_if = "std::ops::Not::not")]
    pub is_self: bool,
}

const fn ssh() -> u16 {
    22
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
const fn is_ssh(port: &u16) -> bool {
    *port == 22
}

impl HostEntry {
    /// The name of its Node.
    #[must_use]
    pub fn node(&self) -> &str {
        self.node.as_deref().unwrap_or(&self.name)
    }
}

/// A host with the secrets that travel beside it. Over the control socket alone.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostGiven {
    /// The host.
    pub entry: HostEntry,
    /// The password of its BMC; absent = the one that is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bmc_password: Option<String>,
    /// The password of its outlets' unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outlets_password: Option<String>,
}

/// The secrets are left out.
impl std::fmt::Debug for HostGiven {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostGiven").field("entry", &self.entry).finish_non_exhaustive()
    }
}

/// What is to be declared together: all of it or nothing.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Declaration {
    /// Pools.
    #[serde(default)]
    pub pools: Vec<PoolEntry>,
    /// Hosts.
    #[serde(default)]
    pub hosts: Vec<HostGiven>,
    /// Say what would change, and change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// Which kind of entry is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntryKind {
    /// A pool.
    Pool,
    /// A host.
    Host,
}

/// Something that is wrong with an entry, with its place in the declaration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wrong {
    /// Which list.
    pub kind: EntryKind,
    /// Which entry of it, from 0.
    pub index: usize,
    /// Which field, by its path in the entry.
    pub field: String,
    /// What is wrong, and what to write instead.
    pub what: String,
}

/// What became of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Which list.
    pub kind: EntryKind,
    /// Its name.
    pub name: String,
    /// It was not there before.
    pub added: bool,
}

/// What became of a declaration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Applied {
    /// Entries that changed.
    pub changed: Vec<Changed>,
    /// Entries that were so already.
    pub unchanged: usize,
    /// Nothing was written: it was asked what would change.
    pub dry_run: bool,
}
