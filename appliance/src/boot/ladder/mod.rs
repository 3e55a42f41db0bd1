//! How a host is brought to boot the installer: a ladder of methods, each with a proof and a deadline, in an order that is
//! learned by host and by model.
//!
//! Pure: [`order`] (which method first) and [`attempt`] (whether one still may succeed). [`memory`] is the file.

pub mod attempt;
pub mod memory;
pub mod order;

use serde::{Deserialize, Serialize};

/// A way to make a host boot the installer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Its BMC shows it an image as a CD. Needs nothing of the network's other servers.
    VirtualMedia,
    /// Its BMC tells the firmware an URL: no DHCP answer can lead it elsewhere.
    UefiHttp,
    /// It asks the network: PXE, with us as server or proxy.
    Pxe,
}

impl Method {
    /// From the one that depends on the least to the one that depends on the most.
    pub const ALL: [Self; 3] = [Self::VirtualMedia, Self::UefiHttp, Self::Pxe];

    /// In words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::VirtualMedia => "virtual media",
            Self::UefiHttp => "UEFI HTTP",
            Self::Pxe => "PXE",
        }
    }
}
