//! Which addresses of a subnet have a BMC behind them: asked as a stranger, one after the other, at a limited rate. No
//! credential is sent to anybody.

use crate::ipmi::client::{Patience as IpmiPatience, ping};
use crate::redfish::{Greeting, Patience, greet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;
use thiserror::Error;

/// Addresses of one scan at most: a /16.
pub const ADDRESSES_MAX: u64 = 1 << 16;

/// A range of IPv4 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    first: u32,
    last: u32,
}

/// Why a text is no subnet to scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadSubnet {
    /// It is none.
    #[error("a subnet is written as 10.0.0.0/24")]
    Form,
    /// It is too large.
    #[error("a scan takes a /16 at most; name smaller subnets")]
    Large,
    /// Nobody has a BMC there.
    #[error("this is no subnet of hosts: multicast, broadcast or unspecified")]
    NoHosts,
}

impl FromStr for Subnet {
    type Err = BadSubnet;

    fn from_str(text: &str) -> Result<Subnet, BadSubnet> {
        let (address, bits) = text.split_once('/').unwrap_or((text, "32"));
        let address: Ipv4Addr = address.parse().map_err(|_| BadSubnet::Form)?;
        let bits: u32 = bits.parse().map_err(|_| BadSubnet::Form)?;
        if bits > 32 {
            return Err(BadSubnet::Form);
        }
        if bits < 16 {
            return Err(BadSubnet::Large);
        }
        if address.is_multicast() || address.is_broadcast() || address.is_unspecified() {
            return Err(BadSubnet::NoHosts);
        }
        let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
        let network = u32::from(address) & mask;
        // Network and broadcast address are no hosts', but where there are only one or two.
        let (first, last) = if bits >= 31 { (network, network | !mask) } else { (network + 1, (network | !mask) - 1) };
        Ok(Subnet { first, last })
    }
}

impl Subnet {
    /// Its addresses, one after the other.
    pub fn addresses(self) -> impl Iterator<Item = Ipv4Addr> {
        (self.first..=self.last).map(Ipv4Addr::from)
    }

    /// How many.
    #[must_use]
    pub fn count(self) -> u64 {
        u64::from(self.last - self.first) + 1
    }
}

/// What answers at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where.
    pub address: IpAddr,
    /// It answers presence pings; whether it says that it speaks IPMI.
    pub ipmi: Option<bool>,
    /// It speaks Redfish.
    pub redfish: Option<Greeting>,
}

/// Asks one address. `None`: nothing answers there as a BMC does.
pub async fn ask(address: IpAddr, ipmi_port: u16, redfish_port: u16, wait: Duration) -> Option<Found> {
    let tries = IpmiPatience { retry: wait / 2, tries: 2 };
    let patience = Patience { connect: wait, answer: wait * 2 };
    let host = address.to_string();
    let (ipmi, redfish) = tokio::join!(
        ping(SocketAddr::new(address, ipmi_port), tries),
        greet(SocketAddr::new(address, redfish_port), &host, patience)
    );
    let (ipmi, redfish) = (ipmi.ok().flatten(), redfish.ok());
    (ipmi.is_some() || redfish.is_some()).then_some(Found { address, ipmi, redfish })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn subnets_and_their_hosts() {
        let hosts = |text: &str| text.parse::<Subnet>().unwrap().addresses().map(|a| a.to_string()).collect::<Vec<_>>();
        assert_eq!(hosts("10.0.0.5/30"), ["10.0.0.5", "10.0.0.6"]);
        assert_eq!(hosts("10.0.0.5"), ["10.0.0.5"]);
        assert_eq!(hosts("10.0.0.4/31"), ["10.0.0.4", "10.0.0.5"]);
        assert_eq!("10.1.0.0/16".parse::<Subnet>().unwrap().count(), 65_534);
        for (text, why) in [
            ("10.0.0.0/8", BadSubnet::Large),
            ("10.0.0.0/33", BadSubnet::Form),
            ("10.0.0/24", BadSubnet::Form),
            ("fe80::/64", BadSubnet::Form),
            ("224.0.0.1", BadSubnet::NoHosts),
            ("0.0.0.0/24", BadSubnet::NoHosts),
        ] {
            assert_eq!(text.parse::<Subnet>(), Err(why), "{text}");
        }
    }
}
