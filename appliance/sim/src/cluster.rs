//! A Kubernetes cluster as far as a healer meets it: API endpoints and their virtual address, Nodes with their Leases,
//! pods and VolumeAttachments, etcd members, and what Kubernetes' own controllers do about a lost node.

use crate::watch::{MemberTruth, NodeTruth, WorldTime};
use healing::id::{BootId, ClusterId, HostId, IncidentId};
use healing::time::{Millis, SECOND};
use std::collections::BTreeMap;

/// A kubelet renews its Lease this often (`nodeLeaseDurationSeconds` 40, renewed at a quarter of it).
pub const LEASE_PERIOD_MS: Millis = 10 * SECOND;

/// After this long without a renewal the node lifecycle controller sets Ready to Unknown
/// (`--node-monitor-grace-period`, 50 s since Kubernetes 1.32).
pub const GRACE_MS: Millis = 50 * SECOND;

/// A canary pod that was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Canary {
    /// When it will run, if the node can run it.
    pub runs_at: WorldTime,
}

/// A Node object and what hangs on it.
#[derive(Debug, Clone, Default)]
pub struct Node {
    /// It exists.
    pub exists: bool,
    /// Condition Ready.
    pub ready: Option<bool>,
    /// Its kubelet said that it is shutting down.
    pub shutting_down: bool,
    /// The boot it reports.
    pub boot: BootId,
    /// Our cordon.
    pub our_cordon: bool,
    /// Cordons and marks of others.
    pub foreign: u32,
    /// Our out-of-service taint.
    pub taint: Option<IncidentId>,
    /// Pods bound to it.
    pub pods: u32,
    /// VolumeAttachments of it.
    pub attachments: u32,
    /// Pods that keep a finalizer.
    pub sticky_pods: u32,
    /// The API refuses to delete its pods, for so many reasons.
    pub undeletable: u32,
    /// No pod starts on it, for so many reasons.
    pub unstartable: u32,
    /// VolumeAttachments that stay.
    pub sticky_attachments: u32,
    /// The first renewal of the present unbroken row; later ones follow each 10 s.
    pub renewing_from: Option<WorldTime>,
    /// The last renewal before the row broke.
    pub renewed_at: WorldTime,
    /// Set while deletion of attachments is under way: when they are gone.
    pub detached_at: Option<WorldTime>,
    /// A join credential was minted for it.
    pub credential: bool,
    /// The canary pod.
    pub canary: Option<Canary>,
    /// Recorded labels and taints are on it.
    pub labelled: bool,
}

impl Node {
    /// When the Lease was last renewed.
    #[must_use]
    pub fn lease_at(&self, now: WorldTime) -> WorldTime {
        match self.renewing_from {
            Some(first) if now >= first => now - (now - first) % LEASE_PERIOD_MS,
            _ => self.renewed_at,
        }
    }

    /// Stops or starts the row of renewals. A kubelet that can renew again does so at once.
    pub fn renew(&mut self, yes: bool, now: WorldTime, after_ms: Millis) {
        match (yes, self.renewing_from) {
            (true, None) => self.renewing_from = Some(now + after_ms),
            (false, Some(_)) => {
                self.renewed_at = self.lease_at(now.saturating_sub(1)).max(self.renewed_at);
                self.renewing_from = None;
            }
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// As it is in truth.
    #[must_use]
    pub fn truth(&self, now: WorldTime) -> Option<NodeTruth> {
        self.exists.then(|| NodeTruth {
            ready: self.ready,
            boot: self.boot,
            our_cordon: self.our_cordon,
            foreign_mark: self.foreign > 0,
            taint: self.taint,
            pods: self.pods,
            attachments: self.attachments,
            lease_at: self.lease_at(now),
        })
    }
}

/// A cluster.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Its number.
    pub id: ClusterId,
    /// We hold etcd access.
    pub etcd_access: bool,
    /// Its control-plane hosts.
    pub planes: Vec<HostId>,
    /// All its hosts that carry or carried a Node.
    pub hosts: Vec<HostId>,
    /// The control-plane host that holds the virtual address.
    pub vip: Option<HostId>,
    /// A hung kernel still holds the virtual address: nobody takes it over.
    pub vip_stuck: bool,
    /// Faults that keep every endpoint down.
    pub down: u32,
    /// Added to each reply.
    pub slow_ms: Millis,
    /// Faults that keep our watch stale.
    pub watch_stale: u32,
    /// Faults that keep Leases from being written.
    pub lease_storm: u32,
    /// Upgrades running.
    pub upgrades: u32,
    /// etcd members: ID and host.
    pub members: BTreeMap<u64, HostId>,
    /// Members whose process stopped though the host runs.
    pub member_stopped: Vec<HostId>,
    /// Learners that joined.
    pub learners: u32,
    /// The next member's ID.
    pub next_member: u64,
    /// The last disruptive action of others on a control-plane host.
    pub foreign_action: Option<(HostId, WorldTime)>,

    /// Whether some endpoint worked at the last look, and since when it is so.
    pub api_up: bool,
    /// When the API last changed between up and down.
    pub api_changed_at: WorldTime,
    /// Whether the virtual address worked at the last look.
    pub vip_up: bool,
    /// When it last changed.
    pub vip_changed_at: WorldTime,
    /// Whether our watch delivered at the last look.
    pub watch_live: bool,
    /// When it last changed.
    pub watch_changed_at: WorldTime,
    /// Healthy members as etcd told them before the last change, and the change.
    pub members_before: (WorldTime, Vec<MemberTruth>),
    /// Members as they are.
    pub members_now: Vec<MemberTruth>,
}

impl Cluster {
    /// Whether etcd has its quorum: more than half of the voters are healthy.
    #[must_use]
    pub fn quorum(members: &[MemberTruth]) -> bool {
        let voters = members.iter().filter(|m| !m.learner).count();
        let healthy = members.iter().filter(|m| !m.learner && m.healthy).count();
        voters > 0 && healthy > voters / 2
    }
}
