//! The architecture codes of option 93 (IANA "Processor Architecture Types") and which loader each is given.

use crate::mac::Mac;
use protocol::boot_set::Role;
use protocol::manifest::Arch;

/// What a code means for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// x86 with a BIOS.
    Bios,
    /// UEFI on a machine we have loaders for.
    Uefi(Arch),
    /// UEFI's HTTP boot on a machine we have loaders for.
    UefiHttp(Arch),
    /// Something we have no loader for; in words.
    Unsupported(&'static str),
}

/// What a code of option 93 means.
///
/// 9 is EBC by the registry, but x64 in the field: RFC 4578 swapped 7 and 9 (erratum 4624), and firmware of both
/// readings exists. A 64-bit loader is never given to a 32-bit machine.
#[must_use]
pub const fn client(code: u16) -> Client {
    match code {
        0 => Client::Bios,
        7 | 9 => Client::Uefi(Arch::X86_64),
        16 | 17 => Client::UefiHttp(Arch::X86_64),
        11 => Client::Uefi(Arch::Aarch64),
        19 => Client::UefiHttp(Arch::Aarch64),
        1 => Client::Unsupported("NEC PC-98"),
        2 => Client::Unsupported("Itanium"),
        3 => Client::Unsupported("DEC Alpha"),
        4 => Client::Unsupported("Arc x86"),
        5 => Client::Unsupported("Intel Lean Client"),
        6 | 15 => Client::Unsupported("32-bit x86 UEFI"),
        8 => Client::Unsupported("XScale"),
        10 | 18 => Client::Unsupported("32-bit ARM UEFI"),
        12..=14 => Client::Unsupported("POWER"),
        20 => Client::Unsupported("BIOS with HTTP boot"),
        21..=24 => Client::Unsupported("U-Boot"),
        25..=30 => Client::Unsupported("RISC-V"),
        31 | 32 => Client::Unsupported("s390"),
        37..=40 => Client::Unsupported("LoongArch"),
        41 => Client::Unsupported("Raspberry Pi ROM"),
        _ => Client::Unsupported("an architecture that is not known here"),
    }
}

impl Client {
    /// The machine.
    #[must_use]
    pub const fn arch(self) -> Option<Arch> {
        match self {
            Self::Bios => Some(Arch::X86_64),
            Self::Uefi(arch) | Self::UefiHttp(arch) => Some(arch),
            Self::Unsupported(_) => None,
        }
    }

    /// Which first loader it is given, when Secure Boot is on (`shim`) or not.
    #[must_use]
    pub const fn loader(self, shim: bool) -> Option<(Role, Arch)> {
        match self {
            Self::Bios => Some((Role::IpxeBios, Arch::X86_64)),
            Self::Uefi(arch) | Self::UefiHttp(arch) if shim => Some((Role::Shim, arch)),
            Self::Uefi(arch) | Self::UefiHttp(arch) => Some((Role::IpxeUefi, arch)),
            Self::Unsupported(_) => None,
        }
    }
}

/// The first code that is supported, else the first.
#[must_use]
pub fn choose(codes: impl Iterator<Item = u16>) -> Option<Client> {
    let mut first = None;
    for code in codes {
        let client = client(code);
        if client.arch().is_some() {
            return Some(client);
        }
        first = first.or(Some(client));
    }
    first
}

/// The prefixes of Raspberry Pi's cards (IEEE registry). Its ROM claims code 0, which is a PC's BIOS.
const RASPBERRY_PI: [[u8; 3]; 7] = [
    [0xb8, 0x27, 0xeb],
    [0xdc, 0xa6, 0x32],
    [0xe4, 0x5f, 0x01],
    [0xd8, 0x3a, 0xdd],
    [0x28, 0xcd, 0xc1],
    [0x2c, 0xcf, 0x67],
    [0x88, 0xa2, 0x9e],
];

/// What a client is that sends these codes from this card: [`choose`], but for a Raspberry Pi that calls itself a PC. It
/// would fetch a loader for x86 and stop with it.
#[must_use]
pub fn of(codes: impl Iterator<Item = u16>, mac: Mac) -> Option<Client> {
    match choose(codes)? {
        Client::Bios if RASPBERRY_PI.iter().any(|prefix| mac.0.starts_with(prefix)) => Some(client(41)),
        client => Some(client),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_supported_code_of_several_counts() {
        assert_eq!(choose([6, 7].into_iter()), Some(Client::Uefi(Arch::X86_64)));
        assert_eq!(choose([9, 0].into_iter()), Some(Client::Uefi(Arch::X86_64)));
        assert_eq!(choose([6, 41].into_iter()), Some(Client::Unsupported("32-bit x86 UEFI")));
        assert_eq!(choose([].into_iter()), None);
    }

    #[test]
    fn a_raspberry_pi_is_no_pc_whatever_it_says() {
        let pi = Mac([0xdc, 0xa6, 0x32, 1, 2, 3]);
        assert_eq!(of([0].into_iter(), pi), Some(client(41)));
        assert_eq!(
            of([11].into_iter(), pi),
            Some(Client::Uefi(Arch::Aarch64)),
            "with UEFI on it, it is one like others"
        );
        assert_eq!(of([0].into_iter(), Mac([0x52, 0x54, 0, 1, 2, 3])), Some(Client::Bios));
    }

    #[test]
    fn no_code_gets_a_loader_of_another_machine() {
        for code in 0..=u16::MAX {
            match (client(code), client(code).loader(false)) {
                (Client::Uefi(arch) | Client::UefiHttp(arch), Some((role, given))) => {
                    assert_eq!((arch, role), (given, Role::IpxeUefi));
                }
                (Client::Bios, Some(given)) => assert_eq!(given, (Role::IpxeBios, Arch::X86_64)),
                (Client::Unsupported(_), None) => {}
                other => panic!("{code}: {other:?}"),
            }
        }
    }
}
