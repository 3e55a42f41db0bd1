//! Questions to a BMC that need no session. Each has a socket of its own.

use super::audit::{self, ChannelCapabilities, CipherSuite, SUITE_PARTS_MAX, SuiteList};
use super::client::{Patience, connect, exchange, random};
use super::error::{IpmiError, meaning};
use super::frame::{self, Packet};
use super::handshake::{BadLogin, Privilege, Random};
use super::suite_zero::{ProbeStep, SuiteZero, SuiteZeroProbe};
use std::net::SocketAddr;
use tokio::net::UdpSocket;

/// Whether something answers an RMCP presence ping, and whether it says that it speaks IPMI. `None` is silence, which says
/// nothing: many BMCs are told not to answer.
///
/// # Errors
/// No packet can be sent.
pub async fn ping(address: SocketAddr, patience: Patience) -> Result<Option<bool>, IpmiError> {
    let socket = connect(address).await?;
    // 0xff asks for no answer (ASF 2.0, section 3.2.4.1).
    let ours = random::<1>()?[0] & 0x7f;
    exchange(&socket, address, patience, &frame::ping(ours), |bytes| match frame::parse(bytes, 0) {
        Ok(Packet::Pong { tag, ipmi }) if tag == ours => Some(ipmi),
        _ => None,
    })
    .await
}

/// What the channel lets in, for a login of this privilege.
///
/// # Errors
/// The BMC is silent, refuses, or answers what cannot be read.
pub async fn auth_capabilities(
    address: SocketAddr,
    privilege: Privilege,
    patience: Patience,
) -> Result<ChannelCapabilities, IpmiError> {
    let socket = connect(address).await?;
    let name = "channel authentication capabilities";
    let data = ask(&socket, address, patience, (0x38, 0), &audit::ask_capabilities(0, privilege), name).await?;
    audit::read_capabilities(&data).map_err(|source| IpmiError::Answer { address, name: name.to_owned(), source })
}

/// The cipher suites that the BMC says it takes.
///
/// # Errors
/// As [`auth_capabilities`]; many BMCs refuse the question.
pub async fn list_suites(address: SocketAddr, patience: Patience) -> Result<Vec<CipherSuite>, IpmiError> {
    let socket = connect(address).await?;
    let mut list = SuiteList::default();
    for part in 0..SUITE_PARTS_MAX {
        let asked = audit::ask_suites(part, part);
        let data = ask(&socket, address, patience, (0x54, part), &asked, "channel cipher suites").await?;
        if !list.add(&data) {
            break;
        }
    }
    Ok(list.suites())
}

/// Whether cipher suite 0 opens a session for this user, without any password. The session is closed at once.
///
/// # Errors
/// No packet can be sent, or IPMI cannot carry the name.
pub async fn suite_zero_open(address: SocketAddr, user: &str, patience: Patience) -> Result<SuiteZero, IpmiError> {
    let numbers =
        Random { console_id: u32::from_le_bytes(random()?), console_random: random()?, tag: random::<1>()?[0] };
    let Some((mut probe, mut datagram)) = SuiteZeroProbe::begin(user, numbers) else {
        return Err(IpmiError::Name { address, source: BadLogin::User });
    };
    let socket = connect(address).await?;
    loop {
        let step = exchange(&socket, address, patience, &datagram, |bytes| match probe.accept(bytes) {
            ProbeStep::Ignore => None,
            step => Some(step),
        })
        .await?;
        match step {
            Some(ProbeStep::Send(next)) => datagram = next,
            Some(ProbeStep::Open(close)) => {
                // Told once; if it is lost, the BMC ends the session by its own timeout.
                let _ = socket.send(&close).await;
                return Ok(SuiteZero::Opens);
            }
            Some(ProbeStep::Refused(status)) => return Ok(SuiteZero::Refused(status)),
            Some(ProbeStep::Ignore) | None => return Ok(SuiteZero::Silent),
        }
    }
}

/// One question outside a session, `(command, sequence)`.
async fn ask(
    socket: &UdpSocket,
    address: SocketAddr,
    patience: Patience,
    (command, sequence): (u8, u8),
    datagram: &[u8],
    name: &'static str,
) -> Result<Vec<u8>, IpmiError> {
    let answer = exchange(socket, address, patience, datagram, |bytes| audit::answer(bytes, command, sequence)).await?;
    match answer {
        Some((0, data)) => Ok(data),
        Some((code, _)) => Err(IpmiError::Refused { address, name: name.to_owned(), code, meaning: meaning(code) }),
        None => Err(IpmiError::Silent { address, tries: patience.tries, stage: name }),
    }
}
