//! What a cluster's acts need of the rejoin drivers: credentials for one node, and what names a node beyond its Node object.

use super::node::NodeFacts;
use healing::command::{ClusterCall, Intent, Reply, Target};
use healing::id::{ClusterId, HostId, IncidentId};
use std::future::Future;
use std::pin::Pin;

/// A reply on its way; `None`: the call is not of a rejoin.
pub type Replying<'a> = Pin<Box<dyn Future<Output = Option<Reply>> + Send + 'a>>;

/// Who is to join where.
#[derive(Debug, Clone, Copy)]
pub struct Joining<'a> {
    /// The cluster to join.
    pub cluster: ClusterId,
    /// The host whose name is given.
    pub target: &'a Target,
    /// The incident.
    pub incident: IncidentId,
    /// The step's intent.
    pub intent: Intent,
}

impl Joining<'_> {
    /// The host that joins.
    #[must_use]
    pub fn joins(&self) -> HostId {
        self.target.host
    }
}

/// The drivers of distributions (kubeadm and others). Each call is idempotent and retries nothing.
pub trait Rejoin: Send + Sync + std::fmt::Debug + 'static {
    /// Asked first about `DeleteNode`, `MintCredential`, `DeleteCredential` and `RestoreLabels`. With `None` the Node and its
    /// Lease are deleted, recorded labels and taints are restored, there is no credential to delete, and none is minted.
    fn answer<'a>(&'a self, client: kube::Client, joining: Joining<'a>, call: ClusterCall) -> Replying<'a>;
    /// What must be on the Node again: its labels and taints as recorded before it fell ill; `None` if nothing was recorded.
    fn recorded(&self, host: HostId) -> Option<NodeFacts>;
}
