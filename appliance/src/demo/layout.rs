//! What the emulated rack is made of: hosts, roles, names, racks and addresses, all from the number of hosts.

use machine::{DiskName, Mac, Role, Spec};
use std::net::Ipv4Addr;

/// Hosts at most: beyond it the sockets of one process run out on an ordinary machine.
pub const HOSTS_MAX: u32 = 400;
/// Fewest hosts: a control plane and two workers, so that pods have somewhere to go.
pub const HOSTS_MIN: u32 = 3;
/// Our own address on the segment.
pub const OUR_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 5);
/// Our own hardware address there.
pub const OUR_MAC: [u8; 6] = [0x02, 0x52, 0x4d, 0, 0, 5];
/// The network of the segment.
pub const NETWORK: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 64, 0, 0), 16);
/// The gateway of the segment.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 1);
/// What always answers beside the hosts, in no rack of theirs.
pub const REFERENCES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 64, 0, 2), Ipv4Addr::new(10, 64, 0, 3)];
/// The second port of userspace.
pub const SECOND_PORT: u16 = 22;

/// One host.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its number, from 1.
    pub id: u32,
    /// Its name and its Node's.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Its rack, from 1.
    pub rack: u32,
    /// Its address on the segment.
    pub address: Ipv4Addr,
    /// Its card.
    pub mac: Mac,
    /// Its SMBIOS UUID.
    pub identity: u128,
    /// Its BMC speaks IPMI to us, else Redfish.
    pub ipmi: bool,
}

/// The rack's hosts: every second BMC speaks IPMI, so that both protocols are at work.
#[must_use]
pub fn places(hosts: u32, spares: u32) -> Vec<Place> {
    let hosts = hosts.clamp(HOSTS_MIN, HOSTS_MAX);
    // Three control-plane hosts as soon as there are three workers beside them.
    let planes = if hosts >= 6 { 3 } else { 1 };
    let racks = (hosts / 16).max(3);
    let mut all = Vec::new();
    for number in 0..hosts + spares {
        let (role, name) = if number < planes {
            (Role::ControlPlane, format!("cp-{}", number + 1))
        } else if number < hosts {
            (Role::Worker, format!("node-{}", number - planes + 1))
        } else {
            (Role::Spare, format!("spare-{}", number - hosts + 1))
        };
        let [.., high, low] = number.to_be_bytes();
        all.push(Place {
            id: number + 1,
            name,
            role,
            rack: number % racks + 1,
            address: Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 64, 1, 1)) + number),
            mac: Mac([0x02, 0x52, 0x4d, 1, high, low]),
            identity: 0x5241_434b_4d45_4449_8000_0000_0000_0000 + u128::from(number + 1),
            ipmi: number % 2 == 1,
        });
    }
    all
}

impl Place {
    /// A quick machine: what takes minutes in a rack takes seconds here.
    #[must_use]
    pub fn spec(&self, vendor: &str, model: &str) -> Spec {
        Spec {
            identity: self.identity,
            serial: format!("RM{:05}", self.id),
            vendor: vendor.to_owned(),
            model: model.to_owned(),
            macs: vec![self.mac],
            role: self.role,
            system_disk: DiskName {
                serial: format!("disk-{}", self.id),
                wwn: 0x5000_0000_0000_0000 + u64::from(self.id),
            },
            post_ms: (3_000, 5_000),
            kernel_ms: (2_000, 3_000),
            kubelet_ms: (2_000, 4_000),
            off_ms: (1_000, 2_000),
            shutdown_ms: (2_000, 4_000),
            network_boot_wait_ms: 10_000,
            bmc_ms: (20, 80),
            ..Spec::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn nothing_is_given_twice() {
        let all = places(HOSTS_MAX, 4);
        let count = |what: BTreeSet<String>| assert_eq!(what.len(), all.len());
        count(all.iter().map(|place| place.name.clone()).collect());
        count(all.iter().map(|place| place.address.to_string()).collect());
        count(all.iter().map(|place| place.mac.to_string()).collect());
        count(all.iter().map(|place| place.identity.to_string()).collect());
    }

    #[test]
    fn six_hosts_are_three_of_the_control_plane_and_three_workers_in_three_racks() {
        let all = places(6, 1);
        let names: Vec<&str> = all.iter().map(|place| place.name.as_str()).collect();
        assert_eq!(names, ["cp-1", "cp-2", "cp-3", "node-1", "node-2", "node-3", "spare-1"]);
        assert_eq!(all.iter().map(|place| place.rack).collect::<Vec<_>>(), [1, 2, 3, 1, 2, 3, 1]);
    }
}
