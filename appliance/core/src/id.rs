//! Identifiers, one type per kind, so that a host's number can never be taken for an incident's.

use serde::{Deserialize, Serialize};

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident($inner:ty);)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);
    )*};
}

ids! {
    /// A host (the machine), unique in a site for ever.
    HostId(u32);
    /// A Kubernetes cluster.
    ClusterId(u16);
    /// A pool: role, policy and image of a set of hosts.
    PoolId(u16);
    /// A failure domain: rack, PDU, switch, chassis.
    DomainId(u32);
    /// A storage system whose redundancy limits what may be done to its hosts (rule 28).
    StorageId(u16);
    /// A version of image, kernel, kubelet or firmware, as numbered by the configuration (rule 15).
    VersionId(u32);
    /// A host's illness from first suspicion to its one terminal state.
    IncidentId(u64);
    /// One execution of one step; never used twice.
    StepId(u64);
    /// A reimage job.
    JobId(u64);
    /// A kernel boot, from `nodeInfo.bootID`, folded to 64 bits by the watcher.
    BootId(u64);
    /// A machine identity: SMBIOS UUID in one byte order, as read live from the BMC or seen in `nodeInfo.systemUUID`.
    MachineId(u128);
}

impl MachineId {
    /// Values that identify nothing: all zero, all F, and placeholders that vendors left in firmware
    /// (terms of the safety rules, *linked*).
    #[must_use]
    pub fn is_placeholder(self) -> bool {
        const KNOWN: [u128; 2] = [
            // AMI and several white-box boards.
            0x0300_0200_0400_0500_0006_0007_0008_0009,
            // Common SMBIOS filler "12345678-1234-5678-90ab-cddeefaabbcc".
            0x1234_5678_1234_5678_90ab_cdde_efaa_bbcc,
        ];
        self.0 == 0 || self.0 == u128::MAX || KNOWN.contains(&self.0)
    }

    /// Whether two identities name the same machine, in either byte order of the first three UUID fields
    /// (SMBIOS 2.6 stores them little-endian, RFC 9562 prints them big-endian).
    #[must_use]
    pub fn same_machine(self, other: MachineId) -> bool {
        !self.is_placeholder() && !other.is_placeholder() && (self == other || self.swapped() == other)
    }

    fn swapped(self) -> MachineId {
        let mut swapped = self.0.to_be_bytes();
        swapped[0..4].reverse();
        swapped[4..6].reverse();
        swapped[6..8].reverse();
        MachineId(u128::from_be_bytes(swapped))
    }
}
