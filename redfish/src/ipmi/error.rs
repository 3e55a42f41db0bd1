//! Why a BMC did not do what was asked, in words that tell the next step.

use super::handshake::LoginError;
use std::net::SocketAddr;
use thiserror::Error;

/// Why a request was not answered, or answered with no.
#[derive(Debug, Error)]
pub enum IpmiError {
    /// The socket.
    #[error("no packet can be sent to {address}: {source}; check the route and the address")]
    Socket {
        /// Where to.
        address: SocketAddr,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Nothing came back before the session was open.
    #[error(
        "{address} does not answer IPMI ({tries} tries, {stage}); check the address, the port and that IPMI over LAN is enabled"
    )]
    Silent {
        /// Where to.
        address: SocketAddr,
        /// Tries made.
        tries: u32,
        /// What was asked.
        stage: &'static str,
    },
    /// It refused the login.
    #[error("{address}: {source}")]
    Login {
        /// Where to.
        address: SocketAddr,
        /// Why.
        source: LoginError,
    },
    /// The answer was lost; whether it was done is not known.
    #[error("{address}: no answer to {name}; whether it was done is not known: read before anything else is sent")]
    ReplyLost {
        /// Where to.
        address: SocketAddr,
        /// What was asked.
        name: String,
    },
    /// A completion code that says no.
    #[error("{address}: {name} was refused: {meaning} (completion code {code:#04x})")]
    Refused {
        /// Where to.
        address: SocketAddr,
        /// What was asked.
        name: String,
        /// The code.
        code: u8,
        /// What it means.
        meaning: &'static str,
    },
    /// The answer makes no sense.
    #[error("{address}: the answer to {name} cannot be read: {source}")]
    Answer {
        /// Where to.
        address: SocketAddr,
        /// What was asked.
        name: String,
        /// Why.
        source: super::frame::FrameError,
    },
    /// IPMI has no words for the boot that was asked for.
    #[error("{address}: {source}")]
    BootDevice {
        /// Where to.
        address: SocketAddr,
        /// Why.
        source: super::boot_options::NotExpressible,
    },
    /// IPMI cannot carry the name or the password.
    #[error("{address}: {source}")]
    Name {
        /// Where to.
        address: SocketAddr,
        /// Why.
        source: super::handshake::BadLogin,
    },
    /// The serial console never began, or ended.
    #[error("{address}: the serial console: {source}")]
    Console {
        /// Where to.
        address: SocketAddr,
        /// Why.
        source: super::sol_activation::ConsoleError,
    },
    /// The operating system gives no random numbers.
    #[error("the operating system gives no random numbers ({0}): no session is opened without them")]
    Random(getrandom::Error),
}

/// What a completion code means (table 5-2).
#[must_use]
pub fn meaning(code: u8) -> &'static str {
    match code {
        0xc0 => "the BMC is busy",
        0xc1 => "the BMC does not know the command",
        0xc3 => "the BMC ran out of time",
        0xc4 => "the BMC is out of space",
        0xc5 => "the reservation was lost",
        0xc9 | 0xcc => "a value is out of range",
        0xcb => "there is no such sensor, record or parameter",
        0xce => "the BMC could not give an answer",
        0xd2 => "the BMC is restarting",
        0xd4 => "the account's privilege is too low",
        0xd5 => "it is not possible in the present state",
        0xd6 => "the function is switched off on the BMC",
        _ => "of its own reasons",
    }
}
