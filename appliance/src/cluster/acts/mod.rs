//! Acts on a cluster's API: one function per [`ClusterCall`], each idempotent, none retried here. What a person changed
//! meanwhile is never overwritten: every write names the version that it saw, and a conflict is a call that did not get
//! through, to be made again from a fresh reading.

mod canary;
mod nodes;
mod workloads;

pub use workloads::releases;

use super::client::{self, Trouble};
use super::config::ClusterConfig;
use super::counters::Counters;
use super::etcd::{Etcd, Removal};
use super::link::Link;
use super::rejoin_port::{Joining, Rejoin};
use super::state::ClusterState;
use healing::command::{ClusterCall, Intent, Reply, Target};
use healing::id::IncidentId;
use healing::time::Elapsed;
use std::sync::Arc;

/// A call with what must be known of its step.
#[derive(Clone, Copy)]
pub struct ClusterAsked<'a> {
    /// What is asked.
    pub call: ClusterCall,
    /// The host.
    pub target: &'a Target,
    /// The incident: our taint and our cordon carry it.
    pub incident: IncidentId,
    /// The step's intent: a promoted spare joins in the target's place.
    pub intent: Intent,
    /// When the step began: whether the Lease changed is asked from there.
    pub began: Elapsed,
    /// Whether it may leave at this moment; asked right before each request that has an effect.
    pub may_leave: &'a (dyn Fn() -> bool + Send + Sync),
}

impl std::fmt::Debug for ClusterAsked<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterAsked")
            .field("call", &self.call)
            .field("host", &self.target.host)
            .field("incident", &self.incident)
            .finish_non_exhaustive()
    }
}

/// Why a call ended without an answer that it wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// It may not leave: nothing was sent.
    MayNot,
    /// The API did not answer, asked to wait, or somebody was quicker: it may be asked again.
    Silent,
    /// The API refused.
    Refused,
    /// There is no such object.
    NotFound,
}

impl From<kube::Error> for Stop {
    fn from(error: kube::Error) -> Stop {
        let kind = client::trouble(&error);
        if matches!(kind, Trouble::Refused | Trouble::Unauthenticated) {
            tracing::warn!(%error, "the API refused an act: see `rackmedic rbac` for the rights that are needed");
        }
        match kind {
            Trouble::Silent | Trouble::RefusedConnection | Trouble::Tls | Trouble::Conflict | Trouble::Gone => {
                Stop::Silent
            }
            Trouble::Refused | Trouble::Unauthenticated => Stop::Refused,
            Trouble::NotFound => Stop::NotFound,
        }
    }
}

/// Takes "there is no such object" as `None`.
fn found<T>(result: Result<T, kube::Error>) -> Result<Option<T>, Stop> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) => match Stop::from(error) {
            Stop::NotFound => Ok(None),
            stop => Err(stop),
        },
    }
}

/// Acts on one cluster.
#[derive(Debug, Clone)]
pub struct ClusterActs {
    link: Arc<Link>,
    state: Arc<ClusterState>,
    etcd: Option<Etcd>,
    rejoin: Arc<dyn Rejoin>,
    namespace: String,
    canary_image: Option<String>,
}

impl ClusterActs {
    pub(super) fn new(
        config: &ClusterConfig,
        link: Arc<Link>,
        state: Arc<ClusterState>,
        etcd: Option<Etcd>,
        rejoin: Arc<dyn Rejoin>,
    ) -> ClusterActs {
        ClusterActs {
            link,
            state,
            etcd,
            rejoin,
            namespace: config.namespace.clone(),
            canary_image: config.canary_image.clone(),
        }
    }

    /// Makes one call. `None`: it may not leave, and nothing was sent.
    pub async fn call(&self, asked: &ClusterAsked<'_>) -> Option<Reply> {
        let result = match tokio::time::timeout(client::ANSWER, self.make(asked)).await {
            Ok(result) => result,
            Err(_) => Err(Stop::Silent),
        };
        let (reply, counter) = match result {
            Ok(reply @ Reply::ApiSilent) | Ok(reply @ Reply::ApiRefused) => {
                (reply, if reply == Reply::ApiSilent { 1 } else { 2 })
            }
            Ok(reply) => (reply, 0),
            Err(Stop::MayNot) => return None,
            Err(Stop::Silent) => (Reply::ApiSilent, 1),
            Err(Stop::Refused | Stop::NotFound) => (Reply::ApiRefused, 2),
        };
        Counters::add(&self.state.counters.acts[counter]);
        Some(reply)
    }

    async fn make(&self, asked: &ClusterAsked<'_>) -> Result<Reply, Stop> {
        let client = self.link.client();
        let of_rejoin = matches!(
            asked.call,
            ClusterCall::DeleteNode
                | ClusterCall::MintCredential
                | ClusterCall::DeleteCredential
                | ClusterCall::RestoreLabels
        );
        if of_rejoin {
            asked.leaves()?;
            let joining = Joining {
                cluster: self.state.id,
                target: asked.target,
                incident: asked.incident,
                intent: asked.intent,
            };
            if let Some(reply) = self.rejoin.answer(client.clone(), joining, asked.call).await {
                return Ok(reply);
            }
        }
        match asked.call {
            ClusterCall::ReadNode => self.read_node(client, asked).await,
            ClusterCall::Cordon => self.cordon(client, asked).await,
            ClusterCall::Uncordon => self.uncordon(client, asked).await,
            ClusterCall::PutTaint => self.put_taint(client, asked).await,
            ClusterCall::RemoveTaint => self.remove_taint(client, asked).await,
            ClusterCall::DeletePods => self.delete_pods(client, asked).await,
            ClusterCall::DeleteVolumeAttachments => self.delete_attachments(client, asked).await,
            ClusterCall::ReadLeftovers => self.read_leftovers(client, asked).await,
            ClusterCall::DeleteNode => self.delete_node(client, asked).await,
            ClusterCall::RemoveEtcdMember(id) => self.remove_member(id, asked).await,
            // Nobody knows how a host joins here.
            ClusterCall::MintCredential => Ok(Reply::ApiRefused),
            // Nobody minted one.
            ClusterCall::DeleteCredential => Ok(Reply::Ok),
            ClusterCall::RestoreLabels => self.restore(client, asked).await,
            ClusterCall::CreateCanary => self.create_canary(client, asked).await,
            ClusterCall::ReadCanary => self.read_canary(client, asked).await,
            ClusterCall::DeleteCanary => self.delete_canary(client, asked).await,
        }
    }

    /// Rule 20: by its ID only. That the quorum holds was weighed by the decisions; etcd weighs it again.
    async fn remove_member(&self, id: u64, asked: &ClusterAsked<'_>) -> Result<Reply, Stop> {
        let Some(etcd) = &self.etcd else { return Ok(Reply::ApiRefused) };
        asked.leaves()?;
        Ok(match etcd.remove(id, &asked.target.name).await {
            Removal::Gone => Reply::Ok,
            Removal::Refused => Reply::ApiRefused,
            Removal::Silent => Reply::ApiSilent,
        })
    }
}

impl ClusterAsked<'_> {
    fn leaves(&self) -> Result<(), Stop> {
        if (self.may_leave)() { Ok(()) } else { Err(Stop::MayNot) }
    }

    /// The name of the Node, as a path segment: a name that could be anything else is not asked for.
    fn node(&self) -> Result<&str, Stop> {
        let name = self.target.name.as_str();
        let fit = !name.is_empty() && name.len() <= 253;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        if fit && name.chars().all(plain) { Ok(name) } else { Err(Stop::Refused) }
    }
}
