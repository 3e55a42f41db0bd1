//! What a server must be told of a rack that it is to watch: where everything is, and who may touch it.

use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// A rack from outside.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Handover {
    /// A file with a kubeconfig that gets in.
    pub kubeconfig: PathBuf,
    /// The virtual address of the API.
    pub vip: String,
    /// Each control-plane host with its own API server.
    pub control_planes: Vec<ControlPlane>,
    /// A file with the password of every BMC.
    pub password_file: PathBuf,
    /// The account of every BMC.
    pub user: String,
    /// The SHA-256 of the BMCs' certificate, in hexadecimal.
    pub pin: String,
    /// A socket through which frames go to the segment, if the rack runs in another process.
    pub wire: Option<PathBuf>,
    /// The hosts.
    pub hosts: Vec<HandedHost>,
}

/// A control-plane host's own endpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ControlPlane {
    /// Its Node.
    pub node: String,
    /// Its own API server.
    pub api: String,
}

/// What a host is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HandedRole {
    /// A worker.
    Worker,
    /// Of the control plane.
    ControlPlane,
    /// A spare.
    Spare,
}

/// One host.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HandedHost {
    /// Its number.
    pub id: u32,
    /// Its name and its Node's.
    pub name: String,
    /// What it is for.
    pub role: HandedRole,
    /// Its rack.
    pub rack: u32,
    /// Its address on the segment.
    pub address: Ipv4Addr,
    /// Its card.
    pub mac: String,
    /// Its SMBIOS UUID as 32 hexadecimal digits.
    pub machine: String,
    /// Its BMC: `ipmi://USER@ADDRESS:PORT` or `redfish://USER@ADDRESS:PORT`.
    pub bmc: String,
}

impl HandedHost {
    /// Its SMBIOS UUID.
    #[must_use]
    pub fn identity(&self) -> u128 {
        u128::from_str_radix(&self.machine, 16).unwrap_or(0)
    }
}
