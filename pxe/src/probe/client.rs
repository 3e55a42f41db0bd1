//! The kinds of client that are played, and what each sends.

use crate::dhcp::options::{self, code};
use crate::dhcp::request::{BootClass, COOKIE, HEAD_BYTES, MessageType};
use crate::mac::Mac;
use std::net::Ipv4Addr;

/// A kind of client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Client {
    /// An operating system that wants an address.
    Plain,
    /// A BIOS with a PXE ROM.
    BiosPxe,
    /// UEFI on x64, PXE.
    X64Pxe,
    /// UEFI on x64, HTTP boot.
    X64Http,
    /// UEFI on arm64, PXE.
    Arm64Pxe,
    /// UEFI on arm64, HTTP boot.
    Arm64Http,
    /// iPXE, already running on x64 UEFI.
    Ipxe,
}

impl Client {
    /// All of them, in the order in which they are played.
    pub const ALL: [Self; 7] =
        [Self::Plain, Self::BiosPxe, Self::X64Pxe, Self::X64Http, Self::Arm64Pxe, Self::Arm64Http, Self::Ipxe];

    /// Its name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain DHCP",
            Self::BiosPxe => "BIOS PXE",
            Self::X64Pxe => "x64 UEFI PXE",
            Self::X64Http => "x64 UEFI HTTP",
            Self::Arm64Pxe => "arm64 UEFI PXE",
            Self::Arm64Http => "arm64 UEFI HTTP",
            Self::Ipxe => "iPXE",
        }
    }

    /// What it says in option 93.
    #[must_use]
    pub const fn arch_code(self) -> Option<u16> {
        match self {
            Self::Plain => None,
            Self::BiosPxe => Some(0),
            Self::X64Pxe | Self::Ipxe => Some(7),
            Self::X64Http => Some(16),
            Self::Arm64Pxe => Some(11),
            Self::Arm64Http => Some(19),
        }
    }

    /// How it wants to boot.
    #[must_use]
    pub const fn class(self) -> Option<BootClass> {
        match self {
            Self::Plain => None,
            Self::X64Http | Self::Arm64Http => Some(BootClass::Http),
            Self::BiosPxe | Self::X64Pxe | Self::Arm64Pxe | Self::Ipxe => Some(BootClass::Pxe),
        }
    }

    /// A DISCOVER. It asks for broadcast answers: the card that it names is not on this machine.
    #[must_use]
    pub fn discover(self, mac: Mac, xid: u32, secs: u16) -> Vec<u8> {
        self.message(MessageType::Discover, mac, xid, secs, Ipv4Addr::UNSPECIFIED)
    }

    /// What it asks on port 4011, from the address that it has.
    #[must_use]
    pub fn boot_request(self, mac: Mac, xid: u32, own: Ipv4Addr) -> Vec<u8> {
        self.message(MessageType::Request, mac, xid, 0, own)
    }

    fn message(self, kind: MessageType, mac: Mac, xid: u32, secs: u16, ciaddr: Ipv4Addr) -> Vec<u8> {
        let mut bytes = vec![0_u8; HEAD_BYTES - COOKIE.len()];
        bytes[..4].copy_from_slice(&[1, 1, 6, 0]);
        bytes[4..8].copy_from_slice(&xid.to_be_bytes());
        bytes[8..10].copy_from_slice(&secs.to_be_bytes());
        if kind == MessageType::Discover {
            bytes[10] = 0x80;
        }
        bytes[12..16].copy_from_slice(&ciaddr.octets());
        bytes[28..34].copy_from_slice(&mac.0);
        bytes.extend_from_slice(&COOKIE);
        options::write(&mut bytes, code::MESSAGE_TYPE, &[kind as u8]);
        options::write(&mut bytes, code::MAX_SIZE, &1472_u16.to_be_bytes());
        let mut wanted = vec![1, 3, 6, 12, 15, 26, 28, 51, 54, 58, 59];
        if let (Some(class), Some(arch)) = (self.class(), self.arch_code()) {
            wanted.extend_from_slice(&[43, 60, 66, 67, 97, 128, 129, 130, 131, 132, 133, 134, 135, 150, 175]);
            options::write(&mut bytes, code::ARCH, &arch.to_be_bytes());
            // UNDI 3.16, as EDK2 and iPXE say.
            options::write(&mut bytes, code::INTERFACE, &[1, 3, 16]);
            // Of a machine that does not exist: type 0, and sixteen bytes that end with the card.
            let mut machine = [0_u8; 17];
            machine[11..].copy_from_slice(&mac.0);
            options::write(&mut bytes, code::MACHINE, &machine);
            let word = match class {
                BootClass::Pxe => "PXEClient",
                BootClass::Http => "HTTPClient",
            };
            options::write(&mut bytes, code::CLASS, format!("{word}:Arch:{arch:05}:UNDI:003016").as_bytes());
        }
        if self == Self::Ipxe {
            options::write(&mut bytes, code::USER_CLASS, b"iPXE");
            // HTTP, TFTP, bzImage, EFI, menus, as its builds of the distributions say.
            let features = [0x13, 1, 1, 0x15, 1, 1, 0x18, 1, 1, 0x24, 1, 1, 0x27, 1, 1];
            options::write(&mut bytes, code::IPXE, &features);
        }
        options::write(&mut bytes, code::PARAMETERS, &wanted);
        bytes.push(255);
        // BOOTP's smallest packet (RFC 951): relays drop shorter ones.
        bytes.resize(bytes.len().max(300), 0);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::{self, Client as Firmware};
    use crate::dhcp::request::Message;
    use protocol::manifest::Arch;

    const CARD: Mac = Mac([2, 0, 0, 0, 0, 1]);

    #[test]
    fn each_client_is_read_by_our_server_as_what_it_plays() {
        for client in Client::ALL {
            let bytes = client.discover(CARD, 7, 3);
            let message = Message::read(&bytes).unwrap();
            assert_eq!((message.kind, message.xid, message.secs, message.mac), (MessageType::Discover, 7, 3, CARD));
            assert!(message.wants_broadcast() && bytes.len() >= 300);
            assert_eq!(message.boot_class(), client.class(), "{}", client.name());
            assert_eq!(message.is_ipxe(), client == Client::Ipxe);
            let firmware = match client {
                Client::Plain => None,
                Client::BiosPxe => Some(Firmware::Bios),
                Client::X64Pxe | Client::Ipxe => Some(Firmware::Uefi(Arch::X86_64)),
                Client::X64Http => Some(Firmware::UefiHttp(Arch::X86_64)),
                Client::Arm64Pxe => Some(Firmware::Uefi(Arch::Aarch64)),
                Client::Arm64Http => Some(Firmware::UefiHttp(Arch::Aarch64)),
            };
            assert_eq!(arch::choose(message.arch_codes()), firmware);
        }
        let bytes = Client::Ipxe.discover(CARD, 7, 0);
        let features = Message::read(&bytes).unwrap().ipxe_features();
        assert!(features.http && features.kernel);
    }

    #[test]
    fn nothing_that_is_sent_can_take_a_lease() {
        for client in Client::ALL {
            let bytes = client.boot_request(CARD, 7, Ipv4Addr::new(10, 0, 0, 9));
            let message = Message::read(&bytes).unwrap();
            // No address is asked for, and no server is chosen: a DHCP server that gets it by mistake has nothing to give.
            assert!(message.options.get(code::REQUESTED).is_none() && message.options.get(code::SERVER).is_none());
            let bytes = client.discover(CARD, 7, 0);
            assert!(Message::read(&bytes).unwrap().options.get(code::REQUESTED).is_none());
        }
    }
}
