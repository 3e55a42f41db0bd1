//! Own sight: whether what we fail to see is the world's fault or ours (rule 4).

use crate::id::{ClusterId, DomainId, HostId, StorageId};
use crate::policy::Limits;
use crate::time::{Elapsed, Now};
use serde::{Deserialize, Serialize};

/// A reference address that should always answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// The physical domain it stands in, if known.
    pub domain: Option<DomainId>,
    /// Whether it answered its last probes.
    pub answers: bool,
}

/// How the Kubernetes API looks from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ApiSight {
    /// Since when neither the VIP nor any direct endpoint answers.
    pub unreachable_since: Option<Elapsed>,
    /// Since when the VIP is silent, whatever the endpoints do.
    pub vip_silent_since: Option<Elapsed>,
    /// Since when the watch has been proven live without a gap.
    pub watch_live_since: Option<Elapsed>,
    /// The last proof that the watch lives (HTTP/2 ping, another Lease, a GET).
    pub watch_proof_at: Elapsed,
}

/// One etcd member as its own endpoint or the others tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtcdMember {
    /// The member's ID in hexadecimal form is for people; this is the number.
    pub id: u64,
    /// The host it runs on, if that could be told.
    pub host: Option<HostId>,
    /// It answers and agrees on the leader.
    pub healthy: bool,
    /// A learner: counts as unhealthy (rule 18).
    pub learner: bool,
}

/// A live read of the etcd member list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EtcdReport {
    /// When it was read.
    pub read_at: Elapsed,
    /// The members, at most 9 are kept.
    pub members: Vec<EtcdMember>,
}

/// Redundancy of a storage system (rule 28).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageReport {
    /// Which system.
    pub system: StorageId,
    /// Since when its redundancy is reduced; `None` is full.
    pub reduced_since: Option<Elapsed>,
    /// The host whose loss reduced it, if the system tells.
    pub reduced_by: Option<HostId>,
}

/// A disruptive action on a control-plane host that was not ours (rule 19).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignAction {
    /// The host concerned.
    pub host: HostId,
    /// When it was last seen.
    pub at: Elapsed,
}

/// What we see of one cluster as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClusterSight {
    /// Which cluster.
    pub cluster: ClusterId,
    /// The API.
    pub api: ApiSight,
    /// The last etcd read; `None` without etcd access (rule 22).
    pub etcd: Option<EtcdReport>,
    /// Storage systems, at most 16 are kept.
    pub storage: Vec<StorageReport>,
    /// Others' control-plane actions of the last 30 minutes, at most 8 are kept.
    pub foreign_actions: Vec<ForeignAction>,
    /// An upgrade is running (CAPI rollout, mixed versions in motion): rule 50.
    pub upgrade_running: bool,
}

/// Own sight at one moment, with that of the cluster concerned. Copied into each host event.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OwnSight {
    /// When it was taken.
    pub at: Elapsed,
    /// Our link has carrier.
    pub link: bool,
    /// Our gateway answers.
    pub gateway: bool,
    /// Reference addresses, at most 8 are kept.
    pub references: Vec<Reference>,
    /// BMCs that answered in the last 10 minutes.
    pub bmcs_recent: u32,
    /// Of those, how many have gone dumb.
    pub bmcs_dumb: u32,
    /// Hosts that are watched.
    pub hosts_watched: u32,
    /// Of those, how many are silent.
    pub hosts_silent: u32,
    /// The cluster of the host concerned.
    pub cluster: Option<ClusterSight>,
}

/// Why we do not trust our own eyes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Doubt {
    /// Our link is down.
    Link,
    /// Our gateway is silent.
    Gateway,
    /// No reference address outside the target's domain answers.
    References,
    /// Half of the BMCs that answered lately have gone dumb.
    Bmcs,
    /// Everybody is silent: it is us.
    Everybody,
    /// The view is older than 10 s.
    Stale,
}

impl OwnSight {
    /// Whether own sight is good for a target in `domains`; an empty list asks for the site as a whole.
    ///
    /// # Errors
    /// The reason for doubt.
    pub fn check(&self, limits: &Limits, domains: &[DomainId], now: Now) -> Result<(), Doubt> {
        if now.elapsed.since(self.at) > limits.sight_age_ms {
            return Err(Doubt::Stale);
        }
        if !self.link {
            return Err(Doubt::Link);
        }
        if !self.gateway {
            return Err(Doubt::Gateway);
        }
        let outside = |r: &Reference| r.domain.is_none_or(|d| !domains.contains(&d));
        if !self.references.iter().any(|r| r.answers && outside(r)) {
            return Err(Doubt::References);
        }
        let dumb = u64::from(self.bmcs_dumb);
        if dumb >= limits.blind_bmc_min && dumb * 100 >= u64::from(self.bmcs_recent) * limits.blind_bmc_percent {
            return Err(Doubt::Bmcs);
        }
        if u64::from(self.hosts_watched) >= limits.blind_hosts_min && self.hosts_silent >= self.hosts_watched {
            return Err(Doubt::Everybody);
        }
        Ok(())
    }

    /// Whether the API of the cluster concerned has been unreachable for the time of rule 7.
    #[must_use]
    pub fn api_unreachable(&self, limits: &Limits, now: Now) -> bool {
        self.cluster
            .as_ref()
            .and_then(|c| c.api.unreachable_since)
            .is_some_and(|since| now.elapsed.since(since) >= limits.api_unreachable_ms)
    }

    /// Since when the watch is proven live, if it is so now (proof at most `watch_proof_ms` old).
    #[must_use]
    pub fn watch_live_since(&self, limits: &Limits, now: Now) -> Option<Elapsed> {
        let api = &self.cluster.as_ref()?.api;
        if now.elapsed.since(api.watch_proof_at) > limits.watch_proof_ms {
            return None;
        }
        api.watch_live_since
    }
}
