//! What the configuration says about a cluster: how to get in, where each control-plane host answers by itself, and which
//! storage systems limit what may be done to its hosts.

use healing::id::{ClusterId, StorageId};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// The namespace of our ServiceAccount and of canary pods, unless the configuration names another.
pub const DEFAULT_NAMESPACE: &str = "rackmedic";

/// Most control-plane hosts of one cluster: etcd is not run with more than nine members.
const PLANES_MAX: usize = 9;

/// Most storage systems of one cluster that are reported.
const STORAGE_MAX: usize = 16;

/// One cluster.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterConfig {
    /// Its number, never given to another cluster.
    pub id: u16,
    /// Its name, for people.
    pub name: String,
    /// A kubeconfig whose current context gets in; or `ca_file` with `token_file`.
    pub kubeconfig: Option<PathBuf>,
    /// PEM of the authority that signed the API servers' certificates.
    pub ca_file: Option<PathBuf>,
    /// A ServiceAccount's token; read again each minute, so it may be rotated.
    pub token_file: Option<PathBuf>,
    /// The API's virtual address, `https://…`, if there is one.
    pub vip: Option<String>,
    /// The name in the API servers' certificates, where their addresses are not in them.
    pub tls_server_name: Option<String>,
    /// Every control-plane host with its own endpoint. Mandatory: behind a virtual address nobody can tell which one died.
    #[serde(default, rename = "control_plane")]
    pub control_planes: Vec<ControlPlaneConfig>,
    /// Access to etcd. Without it the ladder of a control-plane host ends at the power cycle.
    pub etcd: Option<EtcdConfig>,
    /// Storage systems whose redundancy is read before a host of theirs is touched.
    #[serde(default)]
    pub storage: Vec<StorageConfig>,
    /// Where canary pods run.
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// What a canary runs, where no Node lists a pause image.
    pub canary_image: Option<String>,
}

fn default_namespace() -> String {
    DEFAULT_NAMESPACE.to_owned()
}

/// A control-plane host.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlPlaneConfig {
    /// Its Node's name.
    pub node: String,
    /// Its own API server, `https://address:6443`.
    pub api: String,
    /// Its own etcd member's client address, `https://address:2379`.
    pub etcd: Option<String>,
}

/// Client certificates for etcd.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EtcdConfig {
    /// PEM of etcd's authority; absent only where etcd speaks plain HTTP.
    pub ca_file: Option<PathBuf>,
    /// Our certificate.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
}

/// Which kind of storage system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StorageKind {
    /// Ceph under Rook: a `CephCluster`.
    Rook,
    /// Longhorn: its `Volume`s and `Replica`s.
    Longhorn,
}

/// A storage system.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StorageConfig {
    /// Its number, as hosts name it.
    pub id: u16,
    /// Its kind.
    pub kind: StorageKind,
    /// Its namespace.
    pub namespace: String,
}

impl StorageConfig {
    /// Its number.
    #[must_use]
    pub fn id(&self) -> StorageId {
        StorageId(self.id)
    }
}

/// Why a cluster's configuration is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("cluster `{cluster}`: {key}: {what}")]
pub struct ClusterConfigError {
    /// Which cluster.
    pub cluster: String,
    /// Which key.
    pub key: &'static str,
    /// What is wrong, and what to write instead.
    pub what: String,
}

impl ClusterConfig {
    /// Its number.
    #[must_use]
    pub fn id(&self) -> ClusterId {
        ClusterId(self.id)
    }

    /// Whether it contradicts itself.
    ///
    /// # Errors
    /// The first contradiction, by key.
    pub fn check(&self) -> Result<(), ClusterConfigError> {
        let wrong = |key, what: String| Err(ClusterConfigError { cluster: self.name.clone(), key, what });
        match (&self.kubeconfig, &self.ca_file, &self.token_file) {
            (Some(_), None, None) | (None, Some(_), Some(_)) => {}
            (Some(_), ..) => return wrong("kubeconfig", "write either it or `ca_file` with `token_file`".to_owned()),
            (None, ..) => return wrong("kubeconfig", "missing: write it, or `ca_file` with `token_file`".to_owned()),
        }
        if self.control_planes.is_empty() {
            let what = "missing: each control-plane host needs a [[cluster.control_plane]] with `node` and `api`";
            return wrong("control_plane", what.to_owned());
        }
        if self.control_planes.len() > PLANES_MAX {
            return wrong("control_plane", format!("at most {PLANES_MAX} hosts"));
        }
        let names: BTreeSet<&str> = self.control_planes.iter().map(|plane| plane.node.as_str()).collect();
        if names.len() != self.control_planes.len() {
            return wrong("control_plane.node", "two hosts have the same name".to_owned());
        }
        for url in self.vip.iter().chain(self.control_planes.iter().map(|plane| &plane.api)) {
            if !url.starts_with("https://") {
                return wrong("api", format!("`{url}`: write https://address:port"));
            }
        }
        if let Some(etcd) = &self.etcd
            && etcd.cert_file.is_some() != etcd.key_file.is_some()
        {
            return wrong("etcd", "`cert_file` and `key_file` belong together".to_owned());
        }
        if self.storage.len() > STORAGE_MAX {
            return wrong("storage", format!("at most {STORAGE_MAX} systems"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> ClusterConfig {
        toml::from_str(text).unwrap()
    }

    const GOOD: &str = "id = 1\nname = 'prod'\nkubeconfig = 'k'\nvip = 'https://10.84.0.1:6443'\n\
         [[control_plane]]\nnode = 'cp1'\napi = 'https://10.84.0.11:6443'\netcd = 'https://10.84.0.11:2379'\n";

    #[test]
    fn a_whole_configuration_is_taken_and_an_unknown_key_is_not() {
        assert_eq!(read(GOOD).check(), Ok(()));
        assert!(toml::from_str::<ClusterConfig>(&format!("passwd = 'x'\n{GOOD}")).is_err());
    }

    #[test]
    fn a_cluster_without_direct_endpoints_is_refused() {
        let error =
            read("id = 1\nname = 'prod'\nkubeconfig = 'k'\nvip = 'https://10.84.0.1:6443'").check().unwrap_err();
        assert_eq!(error.key, "control_plane");
    }

    #[test]
    fn half_a_credential_is_refused() {
        let error = read(&GOOD.replace("kubeconfig = 'k'", "ca_file = 'ca'")).check().unwrap_err();
        assert_eq!(error.key, "kubeconfig");
        let error = read(&GOOD.replace("kubeconfig = 'k'", "kubeconfig = 'k'\ntoken_file = 't'")).check().unwrap_err();
        assert_eq!(error.key, "kubeconfig");
    }
}
