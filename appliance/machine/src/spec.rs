//! What a machine is: identity, timings and disks. Times are ranges, drawn from at each use.

use crate::Millis;
use serde::{Deserialize, Serialize};

/// A machine's description.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// SMBIOS UUID as a number; what the BMC shows live.
    pub identity: u128,
    /// Serial of the disk that carries the operating system.
    pub disk_serial: String,
    /// It runs control-plane static pods.
    pub control_plane: bool,
    /// Power-on self test.
    pub post_ms: (Millis, Millis),
    /// From the end of POST to a kernel that answers pings.
    pub kernel_ms: (Millis, Millis),
    /// From the kernel to a kubelet that renews its Lease.
    pub kubelet_ms: (Millis, Millis),
    /// From force-off to no power (vendors: 1 to 6 s).
    pub off_ms: (Millis, Millis),
    /// From an orderly shutdown's begin to its end.
    pub shutdown_ms: (Millis, Millis),
    /// One BMC request.
    pub bmc_ms: (Millis, Millis),
    /// The installer: from its start to its hello, and from hello to written and verified.
    pub install_ms: ((Millis, Millis), (Millis, Millis)),
    /// After AC returns: `true` = on again, `false` = stays off (chassis restore policy).
    pub restores_power: bool,
}

impl Default for Spec {
    fn default() -> Self {
        Spec {
            identity: 1,
            disk_serial: "disk-0".to_owned(),
            control_plane: false,
            post_ms: (60_000, 150_000),
            kernel_ms: (15_000, 30_000),
            kubelet_ms: (15_000, 40_000),
            off_ms: (1_000, 5_000),
            shutdown_ms: (5_000, 25_000),
            bmc_ms: (150, 800),
            install_ms: ((15_000, 30_000), (60_000, 240_000)),
            restores_power: false,
        }
    }
}
