//! What a machine is: identity, timings and disks. Times are ranges, drawn from at each use.

use crate::Millis;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A MAC address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// What a disk is called: a job names one by its serial or its WWN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskName {
    /// Serial as the disk reports it.
    pub serial: String,
    /// World-wide name.
    pub wwn: u64,
}

/// What the chassis does when AC returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AcRestore {
    /// It stays off.
    StayOff,
    /// On, if it was on when AC went.
    LastState,
    /// On in any case.
    On,
}

/// What the machine was bought for. The machine itself behaves the same; emulators and worlds read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// A worker.
    Worker,
    /// It runs control-plane static pods.
    ControlPlane,
    /// A spare.
    Spare,
}

/// A machine's description.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// SMBIOS UUID as a number; what the BMC shows live.
    pub identity: u128,
    /// Serial of the chassis.
    pub serial: String,
    /// Vendor as the BMC tells it.
    pub vendor: String,
    /// Model as the BMC tells it.
    pub model: String,
    /// Network cards; the first one boots.
    pub macs: Vec<Mac>,
    /// What it was bought for.
    pub role: Role,
    /// The disk that carries the operating system.
    pub system_disk: DiskName,
    /// Disks that nobody may write.
    pub data_disks: Vec<DiskName>,
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
    /// Its firmware asks the network before its disk, at every boot.
    pub network_first: bool,
    /// How long a network boot before the disk that nobody answers waits before it falls back to the disk.
    pub network_boot_wait_ms: Millis,
    /// The installer: from its start to its hello, and from hello to written and verified.
    pub install_ms: ((Millis, Millis), (Millis, Millis)),
    /// What happens when AC returns.
    pub ac_restore: AcRestore,
    /// One BMC request.
    pub bmc_ms: (Millis, Millis),
    /// The BMC hangs on the host's feed and dies with it.
    pub bmc_shares_feed: bool,
    /// From the BMC's own start to its first answer.
    pub bmc_boot_ms: (Millis, Millis),
    /// Sessions that the BMC holds at once.
    pub bmc_sessions_max: u8,
    /// After so long without use the BMC forgets a session.
    pub bmc_session_idle_ms: Millis,
    /// After so many wrong passwords in a row the BMC refuses everybody for a while.
    pub bmc_lockout_after: u32,
    /// That while.
    pub bmc_lockout_ms: Millis,
}

impl Default for Spec {
    fn default() -> Self {
        Spec {
            identity: 1,
            serial: "SN-0001".to_owned(),
            vendor: "Generic".to_owned(),
            model: "Server".to_owned(),
            macs: vec![Mac([0x02, 0, 0, 0, 0, 1])],
            role: Role::Worker,
            system_disk: DiskName { serial: "disk-0".to_owned(), wwn: 0x5000_0000_0000_0001 },
            data_disks: Vec::new(),
            post_ms: (60_000, 150_000),
            kernel_ms: (15_000, 30_000),
            kubelet_ms: (15_000, 40_000),
            off_ms: (1_000, 5_000),
            shutdown_ms: (5_000, 25_000),
            network_first: false,
            network_boot_wait_ms: 60_000,
            install_ms: ((15_000, 30_000), (60_000, 240_000)),
            ac_restore: AcRestore::StayOff,
            bmc_ms: (150, 800),
            bmc_shares_feed: false,
            bmc_boot_ms: (45_000, 90_000),
            bmc_sessions_max: 8,
            bmc_session_idle_ms: 300_000,
            bmc_lockout_after: 5,
            bmc_lockout_ms: 600_000,
        }
    }
}
