//! The truth about a machine, for those who check what others believe.

use crate::At;
use crate::fault::{Cure, Failing};
use crate::host::{Machine, Run};
use crate::install::Disk;
use crate::power::Power;
use serde::{Deserialize, Serialize};

/// The truth, for checkers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Truth {
    /// Power.
    pub power: Power,
    /// The kernel runs its tasks.
    pub kernel_ok: bool,
    /// The kubelet works.
    pub kubelet_ok: bool,
    /// Nothing ails it (of what stops it from serving).
    pub healthy: bool,
    /// The boot it runs, if a kernel runs.
    pub boot: Option<u64>,
    /// Since when nothing answers on the network.
    pub silent_since: Option<At>,
    /// The weakest thing that would bring it back now.
    pub cure: Cure,
}

impl Machine {
    /// The truth, for checkers.
    #[must_use]
    pub fn truth(&self) -> Truth {
        let kernel = matches!(self.run, Run::Kernel { .. });
        let kubelet_ok = self.kubelet_ok();
        Truth {
            power: self.power(),
            kernel_ok: kernel,
            kubelet_ok,
            healthy: kubelet_ok && !self.disk_broken() && self.power() == Power::On,
            boot: kernel.then_some(self.boot),
            silent_since: self.silent_since,
            cure: self.cure(),
        }
    }

    /// The weakest thing that would bring it back now; [`Cure::Nothing`] of a machine that serves and will go on.
    #[must_use]
    pub fn cure(&self) -> Cure {
        let hands = self.hardware.is_some()
            || self.nic_dead
            || self.disk == Disk::Dead
            || self.disk_name != self.spec.system_disk
            || !self.feed
            || !self.supply
            || (self.foreign_data && self.image_is_spent());
        if hands {
            return Cure::Hands;
        }
        if self.image_is_spent() {
            return Cure::Reimage;
        }
        let components = self.components.values().copied().map(Failing::cure).max().unwrap_or(Cure::Nothing);
        let running = match self.run {
            Run::Off => Cure::PowerOn,
            Run::Stuck if self.dump_until.is_none() => Cure::PowerCycle,
            Run::Kernel { .. } if self.userspace_dead => Cure::PowerCycle,
            Run::Kernel { .. } if self.nic_hung => Cure::Reboot,
            // An installer that is done (or refused) stands until somebody cuts the power.
            Run::Installer(install) if install.until.is_none() => Cure::PowerCycle,
            _ if self.off_at.is_some() => Cure::PowerOn,
            Run::Post { .. } | Run::Asking { .. } | Run::Loading { .. } | Run::Installer(_) | Run::Stuck => Cure::Time,
            Run::Kernel { .. } if self.shutdown.is_some() || !self.os_listens() || !self.card_works() => Cure::Time,
            Run::Kernel { .. } => Cure::Nothing,
        };
        running.max(components)
    }

    /// Only another image helps: what is on the disk does not boot, or does not serve for long.
    fn image_is_spent(&self) -> bool {
        let spent = |failing: &Failing| failing.cure() >= Cure::Reimage;
        // An install under way is itself the cure.
        let installing = matches!(self.run, Run::Installer(install) if install.until.is_some());
        !installing
            && (!matches!(self.disk, Disk::Image(_))
                || self.loop_ms.is_some()
                || self.certificate_expiring
                || self.components.values().any(spent))
    }
}
