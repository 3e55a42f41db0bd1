//! What can happen in a network boot, as the flight recorder keeps it. No secret is in it: files are named without the
//! token of their path.

use crate::dhcp::request::BootClass;
use crate::files::Protocol;
use crate::gate::{Refusal, Stage};
use protocol::install::{Failure, InstallStage, WriteCount};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::net::Ipv4Addr;

/// What [`BootEvent::Foreign`] says of a server that names a boot file: by this a verdict knows whose file a host took.
pub const NAMES_A_BOOT_FILE: &str = "it names a boot file of its own";

/// One moment of a boot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum BootEvent {
    /// The right to boot was given.
    Armed,
    /// The host's power was switched on, or it was restarted.
    PoweredOn,
    /// It asked for an address.
    Discover {
        /// As what kind of network boot; `None`: as an ordinary system.
        class: Option<BootClass>,
        /// What firmware it says it is.
        client: Cow<'static, str>,
        /// Whether iPXE asks.
        ipxe: bool,
    },
    /// We offered: an address, a file, or both.
    Offered {
        /// The address, in server mode.
        address: Option<Ipv4Addr>,
        /// The file.
        file: Option<String>,
    },
    /// It took the address that another server offers.
    TookOther {
        /// The other server.
        server: Ipv4Addr,
        /// The address.
        address: Option<Ipv4Addr>,
    },
    /// We confirmed its address.
    Acknowledged {
        /// The address.
        address: Ipv4Addr,
        /// The file.
        file: Option<String>,
    },
    /// We refused the address it asked for.
    Denied {
        /// The address.
        address: Ipv4Addr,
    },
    /// It asked on port 4011 and was answered.
    BootServer {
        /// The file.
        file: Option<String>,
    },
    /// Something it asked for was not given.
    Refused {
        /// What.
        stage: Stage,
        /// Why.
        why: Refusal,
    },
    /// There is nothing for it to boot.
    NothingFor {
        /// Why, in words.
        why: Cow<'static, str>,
    },
    /// A file began to flow.
    FileBegan {
        /// By which protocol.
        protocol: Protocol,
        /// Which.
        file: String,
        /// How many bytes.
        bytes: u64,
        /// What was agreed on.
        agreed: String,
    },
    /// It only asked for the size.
    FileSized {
        /// Which file.
        file: String,
    },
    /// It asked for a file that there is not, and was told so. Loaders ask for several that are optional.
    FileNotThere {
        /// Which.
        file: String,
    },
    /// It has the file.
    FileEnded {
        /// By which protocol.
        protocol: Protocol,
        /// Which.
        file: String,
        /// How many bytes.
        bytes: u64,
        /// How long it took, milliseconds.
        took_ms: u64,
        /// Packets that went twice.
        sent_again: u64,
    },
    /// The transfer broke off.
    FileFailed {
        /// By which protocol.
        protocol: Protocol,
        /// Which.
        file: String,
        /// How far it came, bytes.
        bytes: u64,
        /// Why.
        why: String,
    },
    /// Its BMC reads the image for its virtual drive.
    MediaRead {
        /// How much of it so far, bytes; parts that it reads twice count twice.
        bytes: u64,
    },
    /// The host asked where the routers of IPv6 are, and was told that there are none.
    RouterAsked,
    /// Another DHCP server spoke to this host.
    Foreign {
        /// Who.
        server: Ipv4Addr,
        /// What is wrong about it.
        what: Cow<'static, str>,
    },
    /// The installer said hello.
    Hello,
    /// The installer reached a stage.
    Stage {
        /// Which.
        stage: InstallStage,
        /// By the installer's own clock, milliseconds since it began.
        since_start_ms: u64,
    },
    /// What the write found and did.
    Written {
        /// The figures.
        count: WriteCount,
    },
    /// The install failed.
    Failed {
        /// Why.
        failure: Box<Failure>,
    },
    /// The first renewal of the node's Lease after the install.
    FirstLease,
    /// The job is over.
    Closed {
        /// How, in words.
        how: Cow<'static, str>,
    },
}

impl fmt::Display for BootEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Armed => write!(f, "armed: may boot from the network"),
            Self::PoweredOn => write!(f, "powered on"),
            Self::Discover { class, client, ipxe } => {
                let class = match class {
                    Some(BootClass::Pxe) => "PXE",
                    Some(BootClass::Http) => "HTTP boot",
                    None => "an address only",
                };
                write!(f, "asks for {class} ({client}{})", if *ipxe { ", iPXE" } else { "" })
            }
            Self::Offered { address, file } => {
                write!(f, "offered {}", what(*address, file.as_deref()))
            }
            Self::TookOther { server, address: Some(address) } => write!(f, "took {address} from {server}"),
            Self::TookOther { server, address: None } => write!(f, "took the offer of {server}"),
            Self::Acknowledged { address, file } => write!(f, "confirmed {}", what(Some(*address), file.as_deref())),
            Self::Denied { address } => write!(f, "refused the address {address}: it is not this card's"),
            Self::BootServer { file } => write!(f, "asked the boot server, told {}", what(None, file.as_deref())),
            Self::Refused { stage, why } => write!(f, "not given ({stage:?}): {why}"),
            Self::NothingFor { why } => write!(f, "nothing to give: {why}"),
            Self::FileBegan { protocol, file, bytes, agreed } => {
                write!(
                    f,
                    "{} {file}: {bytes} bytes begin{}{agreed}",
                    name(*protocol),
                    if agreed.is_empty() { "" } else { ", " }
                )
            }
            Self::FileSized { file } => write!(f, "asked for the size of {file}"),
            Self::FileNotThere { file } => write!(f, "asked for {file}, told that there is none"),
            Self::FileEnded { protocol, file, bytes, took_ms, sent_again } => {
                write!(f, "{} {file}: {bytes} bytes in {took_ms} ms", name(*protocol))?;
                if *sent_again > 0 { write!(f, ", {sent_again} packets sent again") } else { Ok(()) }
            }
            Self::FileFailed { protocol, file, bytes, why } => {
                write!(f, "{} {file}: broke off after {bytes} bytes: {why}", name(*protocol))
            }
            Self::MediaRead { bytes: 0 } => write!(f, "its BMC reads the image for the virtual drive"),
            Self::MediaRead { bytes } => {
                write!(f, "its BMC reads the image for the virtual drive, {bytes} bytes so far")
            }
            Self::RouterAsked => write!(f, "asked for IPv6 routers, told that there are none"),
            Self::Foreign { server, what } => write!(f, "another DHCP server, {server}: {what}"),
            Self::Hello => write!(f, "the installer says hello"),
            Self::Stage { stage, since_start_ms } => write!(f, "installer: {stage:?} (its clock: {since_start_ms} ms)"),
            Self::Written { count } => write!(
                f,
                "{} of {} chunks differed; {} bytes written, {} fetched",
                count.differing_chunks, count.chunks, count.written_bytes, count.fetched_bytes
            ),
            Self::Failed { failure } => {
                write!(f, "install failed ({:?}, {:?}): {}", failure.stage, failure.code, failure.sentence)
            }
            Self::FirstLease => write!(f, "the node renewed its Lease"),
            Self::Closed { how } => write!(f, "closed: {how}"),
        }
    }
}

fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tftp => "TFTP",
        Protocol::Http => "HTTP",
    }
}

fn what(address: Option<Ipv4Addr>, file: Option<&str>) -> String {
    match (address, file) {
        (Some(address), Some(file)) => format!("{address} and {file}"),
        (Some(address), None) => format!("{address}, no file"),
        (None, Some(file)) => file.to_owned(),
        (None, None) => "who we are, no file".to_owned(),
    }
}

/// The last part of a path: what a person may see of `t/TOKEN/snponly.efi`.
#[must_use]
pub fn file_name(path: &str) -> String {
    path.rsplit('/').next().unwrap_or_default().to_owned()
}
