//! What breaks: each fault is done to the machine, its wire or its BMC, never to the appliance's view of it.

use crate::bmc;
use crate::layout::{HostPlace, Rack};
use crate::{console, network, qmp};
use anyhow::Result;
use serde_json::json;
use std::fs;
use std::time::Duration;

const SHELL: Duration = Duration::from_secs(20);

/// A fault of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    /// The processors stand still; the power stays on.
    Freeze,
    /// The kernel panics and stays there.
    Panic,
    /// All processes but the kernel stop; the kernel still answers echoes.
    Userspace,
    /// The kubelet is killed and stays away.
    KubeletKilled,
    /// The kubelet hangs.
    KubeletStopped,
    /// Its mainboard is dead: no order starts it any more, while its BMC lives and says what it was told.
    Dead,
    /// The cable is out.
    LinkDown,
    /// The beginning of the disk is gone; shows at the next boot.
    DiskWiped,
    /// An orderly restart by somebody at the console.
    Reboot,
    /// The BMC is dead.
    BmcDead,
    /// The BMC says success and does nothing.
    BmcNoEffect,
    /// The BMC says off although the host runs.
    BmcSaysOff,
    /// Everything above that can be mended from outside is mended.
    Mend,
}

/// Does it.
///
/// # Errors
/// The host has no power, or does not obey.
pub fn apply(rack: &Rack, host: &HostPlace, fault: Fault, program: &std::path::Path) -> Result<()> {
    let lie = host.folder.join("lie");
    match fault {
        Fault::Freeze => qmp::command(&host.qmp(), "stop", json!({})).map(drop),
        // The image of the rack boots with unknown_nmi_panic.
        Fault::Panic => qmp::command(&host.qmp(), "inject-nmi", json!({})).map(drop),
        Fault::Userspace => console::send(host, "kill -STOP -1; kill -STOP 1; kill -STOP $$"),
        Fault::KubeletKilled => {
            console::shell(host, "systemctl kill -s KILL kubelet; systemctl stop kubelet", SHELL).map(drop)
        }
        Fault::KubeletStopped => console::shell(host, "systemctl kill -s STOP kubelet", SHELL).map(drop),
        Fault::Dead => host.die(),
        Fault::LinkDown => network::plugged(rack, &host.tap(), false),
        Fault::DiskWiped => {
            let wipe = "dd if=/dev/zero of=/dev/vda bs=1M count=64 conv=fsync oflag=direct";
            console::shell(host, wipe, SHELL).map(drop)
        }
        Fault::Reboot => console::send(host, "systemctl reboot"),
        Fault::BmcDead => {
            bmc::stop(host);
            Ok(())
        }
        Fault::BmcNoEffect => Ok(fs::write(lie, "no-effect")?),
        Fault::BmcSaysOff => Ok(fs::write(lie, "says-off")?),
        Fault::Mend => {
            let _ = fs::remove_file(lie);
            host.live()?;
            let _ = qmp::command(&host.qmp(), "cont", json!({}));
            network::plugged(rack, &host.tap(), true)?;
            bmc::start(rack, host, program)
        }
    }
}
