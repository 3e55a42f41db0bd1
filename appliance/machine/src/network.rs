//! What the network sees of the host, and which of its components work.

use crate::At;
use crate::fault::{Component, Failing};
use crate::host::{Machine, Run};
use crate::install::Disk;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A held connection to the kubelet's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Held {
    /// Open, or silently broken: nobody can tell.
    Open,
    /// Closed in good order (FIN): its process ended, or the system shuts down.
    Closed,
    /// Reset (RST) at the next packet: the kernel that answers never knew this connection.
    Reset,
}

/// What the network sees of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    /// ARP is answered.
    pub arp: bool,
    /// Echoes are answered.
    pub icmp: bool,
    /// 10250: `Some(true)` SYN/ACK, `Some(false)` RST, `None` silence.
    pub kubelet_port: Option<bool>,
    /// A second userspace port, the same way.
    pub second_port: Option<bool>,
    /// /healthz of the kubelet answers.
    pub kubelet_health: bool,
    /// A connection that was opened when this kernel started; for any other, [`Machine::held`].
    pub held: Held,
}

impl Answers {
    const SILENT: Answers = Answers {
        arp: false,
        icmp: false,
        kubelet_port: None,
        second_port: None,
        kubelet_health: false,
        held: Held::Open,
    };
}

impl Machine {
    /// What the network sees.
    #[must_use]
    pub fn answers(&self) -> Answers {
        if !self.card_works() {
            return Answers::SILENT;
        }
        let kernel_only = Answers { arp: true, icmp: true, held: self.held(self.kernel_at), ..Answers::SILENT };
        let refusing = Answers { kubelet_port: Some(false), second_port: Some(false), ..kernel_only };
        match self.run {
            // The kernel answers alone when userspace is dead, and refuses while it starts or goes down.
            Run::Kernel { .. } if self.userspace_dead => kernel_only,
            Run::Kernel { userspace_at } if self.at < userspace_at => refusing,
            Run::Kernel { .. } if self.shutdown.is_some() => refusing,
            Run::Kernel { .. } => {
                let kubelet = self.components.get(&Component::Kubelet);
                Answers {
                    kubelet_port: Some(matches!(kubelet, Some(Failing::Hung) | None)),
                    second_port: Some(true),
                    kubelet_health: kubelet.is_none(),
                    ..kernel_only
                }
            }
            // The installer runs in memory and opens no port.
            Run::Installer(install) if Machine::installer_speaks(&install) => refusing,
            Run::Installer(_) | Run::Off | Run::Post { .. } | Run::Asking { .. } | Run::Loading { .. } | Run::Stuck => {
                Answers::SILENT
            }
        }
    }

    /// What became of a connection to the kubelet's port that was opened at `opened_at`.
    #[must_use]
    pub fn held(&self, opened_at: At) -> Held {
        let answering = match self.run {
            Run::Kernel { .. } => true,
            Run::Installer(install) => Machine::installer_speaks(&install),
            Run::Off | Run::Post { .. } | Run::Asking { .. } | Run::Loading { .. } | Run::Stuck => false,
        };
        if !answering || !self.card_works() {
            return Held::Open;
        }
        if matches!(self.run, Run::Installer(_)) || opened_at < self.kernel_at {
            return Held::Reset;
        }
        if self.closed_at.is_some_and(|at| at >= opened_at) { Held::Closed } else { Held::Open }
    }

    pub(crate) fn card_works(&self) -> bool {
        !self.nic_dead && !self.nic_hung && self.at >= self.silent_until
    }

    pub(crate) fn os_listens(&self) -> bool {
        matches!(self.run, Run::Kernel { userspace_at } if userspace_at <= self.at) && !self.userspace_dead
    }

    /// The agent runs and can push its report (as far as the host goes).
    #[must_use]
    pub fn agent_alive(&self) -> bool {
        self.os_listens() && self.shutdown.is_none()
    }

    /// The kubelet works: it renews its Lease if it reaches the API, and its Node is Ready.
    #[must_use]
    pub fn kubelet_ok(&self) -> bool {
        let cni_or_runtime = [Component::Runtime, Component::Cni].iter().any(|c| self.components.contains_key(c));
        self.kubelet_renews() && !cni_or_runtime
    }

    /// The kubelet renews its Lease; Ready may still be False (runtime or CNI down).
    #[must_use]
    pub fn kubelet_renews(&self) -> bool {
        self.agent_alive()
            && self.card_works()
            && !self.components.contains_key(&Component::Kubelet)
            && self.disk != Disk::Dead
    }

    /// A component works. Whether this host is meant to run it is for the caller to know.
    #[must_use]
    pub fn component_ok(&self, component: Component) -> bool {
        self.agent_alive() && !self.components.contains_key(&component)
    }

    /// Components that fail, with how.
    #[must_use]
    pub fn failing(&self) -> &BTreeMap<Component, Failing> {
        &self.components
    }

    /// A certificate runs out soon.
    #[must_use]
    pub fn certificate_expiring(&self) -> bool {
        self.certificate_expiring
    }

    /// An orderly shutdown is under way.
    #[must_use]
    pub fn shutting_down(&self) -> bool {
        self.shutdown.is_some()
    }

    /// The agent restarts a component. Returns whether the agent could.
    pub fn restart_component(&mut self, at: At, component: Component) -> bool {
        self.advance(at);
        if !self.agent_alive() {
            return false;
        }
        if self.components.get(&component).is_some_and(|f| f.restart_cures()) {
            self.components.remove(&component);
        }
        if component == Component::Kubelet {
            self.closed_at = Some(self.at);
        }
        true
    }
}
