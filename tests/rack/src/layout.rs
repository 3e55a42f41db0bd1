//! Who is where: names, addresses and identities, all derived from a host's number.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// Password of every BMC of the rack. It protects nothing: the BMCs are emulated and reached from a namespace alone.
pub const BMC_PASSWORD: &str = "rack-lab";
/// User of every BMC.
pub const BMC_USER: &str = "admin";
/// The appliance's own address.
pub const APPLIANCE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Where the control plane listens.
pub const CONTROL_PLANE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// The gateway, which is also a reference for the appliance's own sight.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 254);

/// One rack: the prefix of its namespaces and the folder of its state.
#[derive(Clone, Debug)]
pub struct Rack {
    /// Prefix of its namespaces, so that two racks do not meet.
    pub prefix: String,
    /// Where its state lies.
    pub folder: PathBuf,
}

impl Rack {
    /// A rack by its prefix; nothing is made yet.
    #[must_use]
    pub fn new(prefix: &str, folder: &Path) -> Self {
        Self { prefix: prefix.to_owned(), folder: folder.to_owned() }
    }

    /// The namespace of the switch: bridges and taps.
    #[must_use]
    pub fn wire(&self) -> String {
        format!("{}-wire", self.prefix)
    }

    /// The namespace of the appliance.
    #[must_use]
    pub fn appliance(&self) -> String {
        format!("{}-appliance", self.prefix)
    }

    /// The namespace of the control plane.
    #[must_use]
    pub fn control(&self) -> String {
        format!("{}-control", self.prefix)
    }

    /// The namespace of the BMCs.
    #[must_use]
    pub fn bmcs(&self) -> String {
        format!("{}-bmc", self.prefix)
    }

    /// A host of it.
    #[must_use]
    pub fn host(&self, number: u8) -> HostPlace {
        HostPlace { number, folder: self.folder.join("hosts").join(format!("n{number}")), wire: self.wire() }
    }
}

/// One host's place in the rack.
#[derive(Clone, Debug)]
pub struct HostPlace {
    /// From 1.
    pub number: u8,
    /// Where its disk, console and pid lie.
    pub folder: PathBuf,
    /// The namespace of its tap.
    pub wire: String,
}

impl HostPlace {
    /// Its name, and its Node's.
    #[must_use]
    pub fn name(&self) -> String {
        format!("n{}", self.number)
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, 50 + self.number)
    }

    /// Its BMC's address.
    #[must_use]
    pub fn bmc_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, 100 + self.number)
    }

    /// Its card.
    #[must_use]
    pub fn mac(&self) -> String {
        format!("52:54:00:77:00:{:02x}", self.number)
    }

    /// Its tap.
    #[must_use]
    pub fn tap(&self) -> String {
        format!("tap{}", self.number)
    }

    /// Its SMBIOS UUID, and the GUID of its BMC.
    #[must_use]
    pub fn uuid(&self) -> String {
        format!("7ac40000-0b0c-4d00-8e00-0000000000{:02x}", self.number)
    }

    /// The serial number of its disk.
    #[must_use]
    pub fn disk_serial(&self) -> String {
        format!("RACKDISK{:02}", self.number)
    }
}
