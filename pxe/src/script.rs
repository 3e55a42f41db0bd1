//! Boot scripts: askama files in `templates/boot/` whose only inputs are types that cannot hold a character with a
//! meaning for iPXE, GRUB or the kernel's command line.

use crate::gate::Token;
use crate::mac::Mac;
use askama::Template;
use protocol::digest::Sha256;
use protocol::name::Name;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::str::FromStr;

/// Further words for the installer's kernel, such as `console=ttyS1,115200n8`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelArguments(Vec<String>);

/// A word that cannot be passed to the kernel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoArgument {
    /// It holds a character with a meaning for the boot script.
    #[error("'{0}' cannot be passed to the kernel: use only a-z A-Z 0-9 and = , . _ : / @ + - in a word")]
    Character(String),
    /// It would speak for us.
    #[error(
        "'{0}' cannot be passed to the kernel: words that begin with rackmedic. or initrd= are the appliance's own"
    )]
    Ours(String),
    /// Too much.
    #[error("the kernel's arguments are longer than 1,024 bytes")]
    TooLong,
}

impl FromStr for KernelArguments {
    type Err = NoArgument;

    fn from_str(text: &str) -> Result<Self, NoArgument> {
        let mut words = Vec::new();
        for word in text.split_ascii_whitespace() {
            let shown = || word.chars().take(60).flat_map(char::escape_default).collect();
            if !word.bytes().all(|b| b.is_ascii_alphanumeric() || b"=,._:/@+-".contains(&b)) {
                return Err(NoArgument::Character(shown()));
            }
            let lower = word.to_ascii_lowercase();
            if ["rackmedic.", "initrd=", "init=", "rdinit=", "bootif="].iter().any(|own| lower.starts_with(own)) {
                return Err(NoArgument::Ours(shown()));
            }
            words.push(word.to_owned());
        }
        if text.len() > 1024 { Err(NoArgument::TooLong) } else { Ok(Self(words)) }
    }
}

impl fmt::Display for KernelArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" "))
    }
}

/// What the installer's kernel is told.
#[derive(Clone, Debug)]
pub struct InstallerArguments {
    /// Where the installer says hello: HTTPS.
    pub api: SocketAddrV4,
    /// The digest of the public key of the appliance's certificate.
    pub pin: Sha256,
    /// The job.
    pub job: Name,
    /// Burnt by the first hello.
    pub nonce: Token,
    /// The card.
    pub mac: Mac,
    /// What the site adds.
    pub more: KernelArguments,
}

impl fmt::Display for InstallerArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { api, pin, job, nonce, mac, more } = self;
        write!(
            f,
            "rackmedic.url=https://{api} rackmedic.pin=sha256:{pin} rackmedic.job={job} rackmedic.nonce={}",
            nonce.as_str()
        )?;
        write!(f, " rackmedic.mac={mac}")?;
        more.0.iter().try_for_each(|word| write!(f, " {word}"))
    }
}

/// The script that starts the installer.
#[derive(Clone, Debug)]
pub struct Installer {
    /// The boot HTTP server, as the host reaches it.
    pub http: SocketAddrV4,
    /// In the path of every file.
    pub token: Token,
    /// The kernel's file name.
    pub kernel: Name,
    /// The initramfs' file name.
    pub initrd: Name,
    /// What the kernel is told.
    pub arguments: InstallerArguments,
}

/// The address that a host has, for a loader that does not tell it: GRUB knows no netmask.
#[derive(Clone, Copy, Debug)]
pub struct HostAddress {
    /// The host's.
    pub address: Ipv4Addr,
    /// Of its network.
    pub netmask: Ipv4Addr,
    /// The way out of it.
    pub gateway: Option<Ipv4Addr>,
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rackmedic.address={}/{}", self.address, self.netmask)?;
        self.gateway.map_or(Ok(()), |gateway| write!(f, " rackmedic.gateway={gateway}"))
    }
}

#[derive(Template)]
#[template(path = "boot/installer.ipxe")]
struct InstallerIpxe<'a> {
    job: &'a Name,
    mac: Mac,
    http: SocketAddrV4,
    token: &'a str,
    kernel: &'a Name,
    initrd: &'a Name,
    arguments: &'a InstallerArguments,
}

#[derive(Template)]
#[template(path = "boot/grub.cfg")]
struct InstallerGrub<'a> {
    host: HostAddress,
    job: &'a Name,
    mac: Mac,
    tftp: Ipv4Addr,
    token: &'a str,
    kernel: &'a Name,
    initrd: &'a Name,
    arguments: &'a InstallerArguments,
}

#[derive(Template)]
#[template(path = "boot/media-isolinux.cfg")]
struct MediaIsolinux<'a> {
    host: Option<HostAddress>,
    job: &'a Name,
    mac: Mac,
    arguments: &'a InstallerArguments,
}

#[derive(Template)]
#[template(path = "boot/media-grub.cfg")]
struct MediaGrub<'a> {
    host: Option<HostAddress>,
    job: &'a Name,
    mac: Mac,
    arguments: &'a InstallerArguments,
}

#[derive(Template)]
#[template(path = "boot/local.ipxe")]
struct LocalIpxe<'a> {
    job: &'a Name,
    exit: bool,
}

#[derive(Template)]
#[template(path = "boot/refused.ipxe")]
struct RefusedIpxe<'a> {
    job: &'a Name,
    why: &'static str,
}

/// How a host leaves the boot script for its own disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LocalBoot {
    /// UEFI goes on with its boot order; a BIOS starts the first disk.
    #[default]
    Usual,
    /// Always back to the firmware: for BIOSes whose first disk is not the one with the system.
    Exit,
}

/// A script could not be made: a defect of ours.
#[derive(Debug, thiserror::Error)]
#[error("the boot script could not be written: {0}; the host gets none and waits")]
pub struct ScriptError(#[from] askama::Error);

impl Installer {
    /// For iPXE.
    ///
    /// # Errors
    /// When the template fails.
    pub fn ipxe(&self) -> Result<String, ScriptError> {
        let arguments = &self.arguments;
        let Self { http, token, kernel, initrd, .. } = self;
        let token = token.as_str();
        Ok(InstallerIpxe { job: &arguments.job, mac: arguments.mac, http: *http, token, kernel, initrd, arguments }
            .render()?)
    }

    /// For GRUB, on a host that has this address. All files come by TFTP: Debian's signed GRUB has no HTTP.
    ///
    /// # Errors
    /// When the template fails.
    pub fn grub(&self, host: HostAddress) -> Result<String, ScriptError> {
        let arguments = &self.arguments;
        let Self { http, token, kernel, initrd, .. } = self;
        let token = token.as_str();
        Ok(InstallerGrub {
            host,
            job: &arguments.job,
            mac: arguments.mac,
            tftp: *http.ip(),
            token,
            kernel,
            initrd,
            arguments,
        }
        .render()?)
    }
}

/// What starts the installer from a CD, where kernel and initramfs lie beside it and no network has been spoken to yet.
#[derive(Clone, Debug)]
pub struct MediaInstaller {
    /// What the kernel is told.
    pub arguments: InstallerArguments,
    /// The host's address, where it is known. Without it the installer asks for one by DHCP.
    pub host: Option<HostAddress>,
}

impl MediaInstaller {
    /// For isolinux, which a BIOS starts.
    ///
    /// # Errors
    /// When the template fails.
    pub fn isolinux(&self) -> Result<String, ScriptError> {
        let Self { arguments, host } = self;
        Ok(MediaIsolinux { host: *host, job: &arguments.job, mac: arguments.mac, arguments }.render()?)
    }

    /// For GRUB, which UEFI starts through shim.
    ///
    /// # Errors
    /// When the template fails.
    pub fn grub(&self) -> Result<String, ScriptError> {
        let Self { arguments, host } = self;
        Ok(MediaGrub { host: *host, job: &arguments.job, mac: arguments.mac, arguments }.render()?)
    }
}

/// The script that starts a host from its disk.
///
/// # Errors
/// When the template fails.
pub fn local(job: &Name, how: LocalBoot) -> Result<String, ScriptError> {
    Ok(LocalIpxe { job, exit: how == LocalBoot::Exit }.render()?)
}

/// The script for a host that asks for its script again and again (ipxe/ipxe#922): it says why, waits and leaves.
///
/// # Errors
/// When the template fails.
pub fn refused(job: &Name, why: &'static str) -> Result<String, ScriptError> {
    Ok(RefusedIpxe { job, why }.render()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn installer(job: &str, mac: [u8; 6], address: [u8; 4], port: u16, random: [u8; 16], more: &str) -> Installer {
        let api = SocketAddrV4::new(Ipv4Addr::from(address), port);
        Installer {
            http: api,
            token: Token::new(random),
            kernel: "vmlinuz".parse().unwrap(),
            initrd: "initrd.img".parse().unwrap(),
            arguments: InstallerArguments {
                api,
                pin: Sha256::of(&random),
                job: job.parse().unwrap(),
                nonce: Token::new(random),
                mac: Mac(mac),
                more: more.parse().unwrap(),
            },
        }
    }

    fn host(address: [u8; 4]) -> HostAddress {
        let gateway = Some(Ipv4Addr::new(10, 77, 0, 254));
        HostAddress { address: address.into(), netmask: Ipv4Addr::new(255, 255, 255, 0), gateway }
    }

    #[test]
    fn the_scripts_are_as_they_were_read_by_people() {
        let script =
            installer("heal-7", [0x52, 0x54, 0, 0x77, 0, 1], [10, 77, 0, 1], 8080, [0xab; 16], "console=ttyS0");
        insta::assert_snapshot!("installer.ipxe", script.ipxe().unwrap());
        insta::assert_snapshot!("grub.cfg", script.grub(host([10, 77, 0, 50])).unwrap());
        let media = |host| MediaInstaller { arguments: script.arguments.clone(), host };
        insta::assert_snapshot!("media-grub.cfg", media(Some(host([10, 77, 0, 50]))).grub().unwrap());
        insta::assert_snapshot!("media-isolinux.cfg", media(None).isolinux().unwrap());
        let job = "heal-7".parse().unwrap();
        insta::assert_snapshot!("local.ipxe", local(&job, LocalBoot::Usual).unwrap());
        insta::assert_snapshot!("refused.ipxe", refused(&job, "three times in a minute").unwrap());
    }

    #[test]
    fn what_would_speak_for_us_or_to_the_script_is_no_argument() {
        for wrong in [
            "a;b",
            "a|b",
            "${net0/mac}",
            "a&&b",
            "a\"b",
            "a'b",
            "a\\b",
            "a#b",
            "rackmedic.url=x",
            "RackMedic.x=1",
            "initrd=x",
            "init=/x",
        ] {
            assert!(wrong.parse::<KernelArguments>().is_err(), "{wrong}");
        }
        assert!("console=ttyS0,115200n8 ip=10.0.0.1:x nomodeset".parse::<KernelArguments>().is_ok());
    }

    proptest! {
        /// Whatever may stand in the inputs, the script has the lines of the template and no other directive.
        #[test]
        fn no_input_adds_a_line_a_control_byte_or_a_directive(
            job in "[a-zA-Z0-9][a-zA-Z0-9._+-]{0,63}", mac: [u8; 6], address: [u8; 4], port: u16, random: [u8; 16],
            more in "([a-zA-Z0-9=,._:/@+-]{1,12}[ \t\n\r]{1,2}){0,5}",
        ) {
            prop_assume!(more.parse::<KernelArguments>().is_ok());
            let plain = installer("x", [2, 0, 0, 0, 0, 1], [10, 0, 0, 1], 80, [0; 16], "");
            let script = installer(&job, mac, address, port, random, &more);
            let media = |of: &Installer, address| MediaInstaller { arguments: of.arguments.clone(), host: Some(host(address)) };
            let (odd_media, plain_media) = (media(&script, address), media(&plain, [10, 0, 0, 2]));
            for (odd, plain) in [
                (script.ipxe().unwrap(), plain.ipxe().unwrap()),
                (script.grub(host(address)).unwrap(), plain.grub(host([10, 0, 0, 2])).unwrap()),
                (odd_media.grub().unwrap(), plain_media.grub().unwrap()),
                (odd_media.isolinux().unwrap(), plain_media.isolinux().unwrap()),
            ] {
                prop_assert!(odd.bytes().all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)), "a control byte");
                prop_assert_eq!(odd.lines().count(), plain.lines().count());
                for (odd, plain) in odd.lines().zip(plain.lines()) {
                    prop_assert_eq!(odd.split(' ').next(), plain.split(' ').next(), "another directive");
                    for sign in ["||", "&&", "${", "#", "\"", ";", "{", "("] {
                        prop_assert_eq!(odd.matches(sign).count(), plain.matches(sign).count(), "{}", sign);
                    }
                }
            }
        }

        #[test]
        fn any_text_is_an_argument_or_refused(text in ".{0,80}") {
            if let Ok(KernelArguments(words)) = text.parse() {
                for word in words {
                    let odd = word.contains(['$', '{', '|', '&', ';', '"', '\'', '\\', '#']);
                    prop_assert!(!odd, "{}", word);
                }
            }
        }
    }
}
