//! What the kernel's command line says to the installer.

use protocol::digest::Sha256;
use protocol::name::Name;
use std::net::{Ipv4Addr, SocketAddrV4};

/// An address with its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Ours.
    pub address: Ipv4Addr,
    /// The mask.
    pub netmask: Ipv4Addr,
    /// The way out, if there is one.
    pub gateway: Option<Ipv4Addr>,
}

/// All that is said.
#[derive(Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// Where to say hello.
    pub api: SocketAddrV4,
    /// The SHA-256 of the appliance's public key.
    pub pin: Sha256,
    /// The job.
    pub job: Name,
    /// A secret that the first hello burns.
    pub nonce: String,
    /// The card.
    pub mac: String,
    /// The address that the loader had. Without it one is asked for by DHCP.
    pub address: Option<Address>,
}

/// The nonce is left out.
impl std::fmt::Debug for CommandLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CommandLine")
            .field("api", &self.api)
            .field("job", &self.job)
            .field("mac", &self.mac)
            .finish_non_exhaustive()
    }
}

/// What is missing or odd.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the kernel's command line has no good rackmedic.{0}: this machine was not started by a boot script of the appliance"
)]
pub struct Missing(pub &'static str);

impl CommandLine {
    /// Reads it.
    ///
    /// # Errors
    /// The first word that is missing or odd.
    pub fn parse(text: &str) -> Result<Self, Missing> {
        // The last word of a name counts, as the kernel itself reads it.
        let word = |name: &'static str| {
            let given = |word: &&str| {
                word.strip_prefix("rackmedic.").and_then(|w| w.strip_prefix(name)).is_some_and(|w| w.starts_with('='))
            };
            let word = text.split_ascii_whitespace().rfind(given)?;
            word.split_once('=').map(|(_, value)| value)
        };
        fn good<T>(name: &'static str, value: Option<T>) -> Result<T, Missing> {
            value.ok_or(Missing(name))
        }
        let hexadecimal =
            |text: &&str| text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let gateway = word("gateway").and_then(|text| text.parse().ok());
        Ok(Self {
            api: good("url", word("url").and_then(|url| url.strip_prefix("https://")?.parse().ok()))?,
            pin: good("pin", word("pin").and_then(|pin| pin.strip_prefix("sha256:")?.parse().ok()))?,
            job: good("job", word("job").and_then(|job| job.parse().ok()))?,
            nonce: good("nonce", word("nonce").filter(hexadecimal))?.to_owned(),
            mac: good("mac", word("mac").filter(|mac| is_mac(mac)))?.to_ascii_lowercase(),
            // iPXE leaves out what it does not know; then it is as if it had not been said.
            address: word("address").and_then(|text| address(text, gateway)),
        })
    }
}

fn is_mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    parts.len() == 6 && parts.iter().all(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// `10.0.0.5/24` or, as iPXE writes it, `10.0.0.5/255.255.255.0`.
fn address(text: &str, gateway: Option<Ipv4Addr>) -> Option<Address> {
    let (address, mask) = text.split_once('/')?;
    let netmask = match mask.parse::<u32>() {
        Ok(prefix @ 1..=32) => Ipv4Addr::from(u32::MAX.checked_shl(32 - prefix).unwrap_or(0)),
        Ok(_) => return None,
        Err(_) => mask.parse().ok()?,
    };
    let bits = u32::from(netmask);
    let contiguous = bits.leading_ones() + bits.trailing_zeros() == 32;
    let address: Ipv4Addr = address.parse().ok()?;
    (contiguous && !address.is_unspecified()).then_some(Address { address, netmask, gateway })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn good() -> String {
        format!(
            "BOOT_IMAGE=x rackmedic.url=https://10.77.0.1:8443 rackmedic.pin=sha256:{} rackmedic.job=heal-7 rackmedic.nonce={} \
             rackmedic.mac=52:54:00:77:00:0A console=ttyS0 rackmedic.address=10.77.0.50/255.255.255.0 rackmedic.gateway=",
            "ab".repeat(32),
            "0f".repeat(16)
        )
    }

    #[test]
    fn what_the_boot_script_writes_is_read() {
        let line = CommandLine::parse(&good()).unwrap();
        assert_eq!(line.mac, "52:54:00:77:00:0a");
        let netmask = Ipv4Addr::new(255, 255, 255, 0);
        assert_eq!(line.address, Some(Address { address: Ipv4Addr::new(10, 77, 0, 50), netmask, gateway: None }));
        let line =
            CommandLine::parse(&good().replace("/255.255.255.0 rackmedic.gateway=", "/16 rackmedic.gateway=10.77.0.1"))
                .unwrap();
        assert_eq!(line.address.unwrap().netmask, Ipv4Addr::new(255, 255, 0, 0));
        assert_eq!(line.address.unwrap().gateway, Some(Ipv4Addr::new(10, 77, 0, 1)));
    }

    #[test]
    fn what_is_missing_is_named() {
        for name in ["url", "pin", "job", "nonce", "mac"] {
            let error = CommandLine::parse(&good().replace(&format!("rackmedic.{name}="), "x=")).unwrap_err();
            assert_eq!(error, Missing(name));
        }
        assert!(CommandLine::parse(&good().replace("/255.255.255.0", "/255.0.255.0")).unwrap().address.is_none());
        assert!(CommandLine::parse(&good().replace("https:", "http:")).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,300}") {
            let _ = CommandLine::parse(&text);
            let _ = address(&text, None);
        }
    }
}
