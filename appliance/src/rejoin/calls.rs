//! What the step machine's cluster calls mean here. `DeleteVolumeAttachments` and whatever touches Pods, cordons and our
//! own taint are another's.

use super::cluster::ClusterError;
use super::credential::Lifetime;
use super::{EtcdMembers, Progress, Rejoin, StepError};
use healing::command::{ClusterCall, Reply};
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// What the calls need beyond the rejoin itself.
#[derive(Clone, Copy)]
#[allow(missing_debug_implementations, reason = "a borrowed trait object")]
pub struct Around<'a> {
    /// etcd, where there is access to it.
    pub etcd: Option<&'a dyn EtcdMembers>,
    /// The host's addresses.
    pub addresses: &'a BTreeSet<IpAddr>,
    /// The version that its image promised.
    pub kubelet: Option<&'a str>,
    /// How long its credential lives.
    pub lifetime: Lifetime,
    /// The moment.
    pub now: Timestamp,
}

impl Rejoin<'_> {
    /// Makes one call of the step machine; `None` if it is not of the rejoin.
    ///
    /// What is not yet so is answered as silence: the step machine asks again, within its limit. A stop is answered as a
    /// refusal, and its sentence is logged: the step fails and nothing further is tried.
    pub async fn answer(&mut self, call: ClusterCall, around: Around<'_>) -> Option<Reply> {
        let done = match call {
            ClusterCall::DeleteNode => match self.save().await {
                Ok(_) => self.remove_identity().await,
                Err(error) => Err(error),
            },
            ClusterCall::RemoveEtcdMember(member) => match around.etcd {
                Some(etcd) => self.remove_etcd_member(member, etcd).await,
                None => Err(super::stop("there is no access to this cluster's etcd: its member is not removed")),
            },
            ClusterCall::MintCredential => self.mint(around.lifetime, around.now).await,
            ClusterCall::DeleteCredential => self.delete_credential().await,
            ClusterCall::RestoreLabels => self.come_back(around).await,
            _ => return None,
        };
        let node = &self.record.content().node;
        Some(match done {
            Ok(Progress::Done | Progress::AlreadySo) => Reply::Ok,
            Ok(Progress::NotYet(what)) => {
                tracing::info!(%node, ?call, %what, "not yet");
                Reply::ApiSilent
            }
            Err(StepError::Cluster(error @ (ClusterError::Silent { .. } | ClusterError::Conflict { .. }))) => {
                tracing::warn!(%node, ?call, %error, "the cluster did not do it");
                Reply::ApiSilent
            }
            Err(error) => {
                tracing::error!(%node, ?call, %error, "the rejoin stops");
                Reply::ApiRefused
            }
        })
    }

    /// From the first sign of the new Node to its labels: approve, verify, restore.
    async fn come_back(&mut self, around: Around<'_>) -> Result<Progress, StepError> {
        let approved = self.approve(around.addresses).await?;
        if let not_yet @ Progress::NotYet(_) = self.verify(around.kubelet).await? {
            return Ok(not_yet);
        }
        let restored = self.restore().await?;
        // Ready without a serving certificate is Ready; whoever wants logs of its Pods wants the certificate too.
        if let Progress::NotYet(what) = approved {
            return Ok(Progress::NotYet(what));
        }
        Ok(restored)
    }
}
