//! The assessment: what each source means under policy, small enough to compare and to keep per host.
//! A change of it is a *fact*, and facts are what the journal sees.

use crate::signal::{AgentReport, BmcTrouble, BootStage, HardwareFault, NodeReport, OffCause, Power};
use crate::time::Elapsed;
use serde::{Deserialize, Serialize};

/// Network state of a host (terms of the safety rules). ARP alone neither proves life nor death.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum NetworkState {
    /// Not enough samples yet.
    #[default]
    Unknown,
    /// A userspace port answers.
    Alive,
    /// ICMP answers; 10250 and the second port hang.
    KernelOnly,
    /// A port refuses: the process is dead, the kernel lives.
    ProcessDead,
    /// No ICMP and no TCP.
    Silent,
}

/// Lease of a node by *our* receipt of its changes, never by the node's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum LeaseState {
    /// No Lease was ever received: no Node here, or not yet.
    #[default]
    Never,
    /// Younger than 12 s.
    Fresh,
    /// Older than 12 s.
    Late,
    /// Older than 20 s: no longer Ready.
    Stale,
    /// Older than 22 s.
    Overdue,
    /// Older than 40 s.
    Expired,
}

/// State of the BMC as a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum BmcState {
    /// Never read.
    #[default]
    Unknown,
    /// It answers.
    Answers,
    /// It gave no reading, three times.
    Trouble(BmcTrouble),
}

/// Something seen or missed directly on a control-plane host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Probe {
    /// Never probed (not a control-plane host, or no access).
    #[default]
    Unknown,
    /// Ok.
    Ok,
    /// Failing by at least three samples.
    Failing,
}

/// What all sources together mean right now. Changes of it are facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Assessment {
    /// Network plane.
    pub network: NetworkState,
    /// Since when the network state is so: for `Silent` the first miss of the source that went last.
    pub network_since: Elapsed,
    /// Cluster plane: the Lease.
    pub lease: LeaseState,
    /// Cluster plane: the Node as last seen; `None` while there is no Node of that name.
    pub node: Option<NodeReport>,
    /// Control-plane hosts: /readyz.
    pub api_server: Probe,
    /// Control-plane hosts: the etcd member.
    pub etcd_member: Probe,
    /// Out-of-band plane: power as last read live.
    pub power: Power,
    /// Why it is off.
    pub off_cause: OffCause,
    /// The BMC itself.
    pub bmc: BmcState,
    /// Boot progress.
    pub stage: BootStage,
    /// Hardware.
    pub hardware: Option<HardwareFault>,
    /// Agent plane; `None` while no report is younger than 15 s.
    pub agent: Option<AgentReport>,
    /// The kubelet's TLS endpoint hangs behind a listening port.
    pub kubelet_hung: bool,
    /// When the held connection was last closed while ICMP answered (rule 33's mark); cleared by a reconnect.
    pub closed_mark: Option<Elapsed>,
    /// It asked the network for something to boot, and when last.
    pub asked_to_boot: Option<Elapsed>,
}

impl Assessment {
    /// *Ready*: condition True and Lease younger than 20 s; for a control-plane host also its own /readyz.
    #[must_use]
    pub fn ready(&self, control_plane: bool) -> bool {
        self.node.is_some_and(|n| n.ready == Some(true))
            && matches!(self.lease, LeaseState::Fresh | LeaseState::Late)
            && (!control_plane || self.api_server != Probe::Failing)
    }

    /// *Bad* of rule 5: silent, or not ready on two planes. A late Lease alone is never bad.
    #[must_use]
    pub fn bad(&self, control_plane: bool) -> bool {
        match self.network {
            NetworkState::Silent => true,
            NetworkState::KernelOnly | NetworkState::ProcessDead => self.node.is_some() && !self.ready(control_plane),
            NetworkState::Alive | NetworkState::Unknown => false,
        }
    }

    /// Whether it answers in any way above ARP.
    #[must_use]
    pub fn answers(&self) -> bool {
        match self.network {
            NetworkState::Alive | NetworkState::KernelOnly | NetworkState::ProcessDead => true,
            NetworkState::Silent | NetworkState::Unknown => false,
        }
    }

    /// Everything the decisions compare: `closed_mark` and times included, since their change is a fact too.
    #[must_use]
    pub fn differs(&self, other: &Assessment) -> bool {
        self != other
    }
}
