//! A UDP socket around the protocol: one BMC, one session, one request in flight.
//!
//! An answer that does not come is *unknown*, not *no*: what may be done twice is sent again, what may not is reported as
//! lost, and the caller reads before it does anything more.

use super::command::{self, Command};
use super::crypto::Suite;
use super::frame::MAX_DATAGRAM;
use super::handshake::{Handshake, Login, LoginError, Privilege, Random, Step};
use super::session::{Incoming, Session};
use crate::reading::{OffCause, Power, Reading, Source};
use std::net::SocketAddr;
use std::time::Duration;
use thiserror::Error;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

/// How long an answer is waited for, and how often a datagram is sent.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// From one sending to the next.
    pub retry: Duration,
    /// Sendings of one datagram at most.
    pub tries: u32,
}

impl Default for Patience {
    /// Two seconds, four times: OpenBMC is known to take five seconds for an answer.
    fn default() -> Patience {
        Patience { retry: Duration::from_secs(2), tries: 4 }
    }
}

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

/// An open session with a BMC.
#[derive(Debug)]
pub struct Client {
    socket: UdpSocket,
    address: SocketAddr,
    patience: Patience,
    session: Session,
}

fn random<const N: usize>() -> Result<[u8; N], IpmiError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(IpmiError::Random)?;
    Ok(bytes)
}

impl Client {
    /// Opens a session with the first of the suites that the BMC accepts, and raises it to the login's privilege.
    ///
    /// # Errors
    /// The BMC is silent, refuses the login, or answers what it was not asked. A refused password is tried with no other
    /// suite: some BMCs lock the account.
    pub async fn open(
        address: SocketAddr,
        login: &Login,
        suites: &[Suite],
        patience: Patience,
    ) -> Result<Client, IpmiError> {
        let mut last = None;
        for (place, suite) in suites.iter().enumerate() {
            let later = suites.get(place + 1..).unwrap_or_default();
            match Client::open_with(address, login, *suite, patience).await {
                Ok(client) => return Ok(client),
                // Some firmware drops a proposal that it does not know instead of refusing it.
                Err(
                    why @ (IpmiError::Login { source: LoginError::SuiteRefused(_), .. }
                    | IpmiError::Silent { stage: "open session", .. }),
                ) => last = Some(why),
                // Firmware that knows one suite only answers with it whatever was asked (pyghmi). That answer is not used;
                // if it is a suite that is allowed too, it is asked for by its own name.
                Err(why @ IpmiError::Login { source: LoginError::Downgraded(triple), .. })
                    if later.iter().any(|allowed| allowed.triple() == triple) =>
                {
                    last = Some(why);
                }
                Err(why) => return Err(why),
            }
        }
        Err(last.unwrap_or(IpmiError::Silent { address, tries: 0, stage: "no cipher suite is allowed" }))
    }

    async fn open_with(
        address: SocketAddr,
        login: &Login,
        suite: Suite,
        patience: Patience,
    ) -> Result<Client, IpmiError> {
        let bind: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
        let socket = UdpSocket::bind(bind).await.map_err(|source| IpmiError::Socket { address, source })?;
        // Connected: the kernel drops what comes from anywhere else.
        socket.connect(address).await.map_err(|source| IpmiError::Socket { address, source })?;
        let numbers =
            Random { console_id: u32::from_le_bytes(random()?), console_random: random()?, tag: random::<1>()?[0] };
        let (mut handshake, mut datagram) = Handshake::begin(login.clone(), suite, numbers);
        let mut stages = ["capabilities", "open session", "RAKP 1", "RAKP 3"].into_iter();
        let mut stage = stages.next().unwrap_or_default();
        let session = loop {
            let step = exchange(&socket, address, patience, &datagram, |bytes| match handshake.accept(bytes) {
                Step::Ignore => None,
                step => Some(step),
            })
            .await?;
            match step {
                Some(Step::Send(next)) => {
                    datagram = next;
                    stage = stages.next().unwrap_or(stage);
                }
                Some(Step::Open(session)) => break *session,
                Some(Step::Failed(source)) => return Err(IpmiError::Login { address, source }),
                Some(Step::Ignore) | None => {
                    return Err(IpmiError::Silent { address, tries: patience.tries, stage });
                }
            }
        };
        let mut client = Client { socket, address, patience, session };
        if login.privilege() > Privilege::User {
            let raise = command::set_privilege(login.privilege() as u8);
            if let Err(why) = client.run(&raise, "set session privilege").await {
                client.close().await;
                return Err(why);
            }
        }
        Ok(client)
    }

    /// The cipher suite in use.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.session.suite()
    }

    /// Runs a command and gives the data behind its completion code.
    ///
    /// # Errors
    /// The answer was lost, or is no.
    pub async fn run(&mut self, command: &Command, name: &str) -> Result<Vec<u8>, IpmiError> {
        let address = self.address;
        let (key, first) = self.session.request(random()?, command.net_fn, command.command, &command.data);
        let tries = if command.repeatable { self.patience.tries.max(1) } else { 1 };
        // What must not be done twice has all the time that the others have for all their tries.
        let wait =
            if command.repeatable { self.patience.retry } else { self.patience.retry * self.patience.tries.max(1) };
        let once = Patience { retry: wait, tries: 1 };
        let mut datagram = first;
        for left in (0..tries).rev() {
            let session = &mut self.session;
            let reply = exchange(&self.socket, address, once, &datagram, |bytes| match session.accept(bytes) {
                Ok(Incoming::Reply(reply)) if reply.key == key => Some(reply),
                _ => None,
            })
            .await?;
            if let Some(reply) = reply {
                return match reply.completion {
                    0 => Ok(reply.data),
                    code => Err(IpmiError::Refused { address, name: name.to_owned(), code, meaning: meaning(code) }),
                };
            }
            if left > 0 {
                datagram = self.session.again(random()?, key, &command.data);
            }
        }
        Err(IpmiError::ReplyLost { address, name: name.to_owned() })
    }

    /// The power and what is known about it.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn chassis_status(&mut self) -> Result<command::ChassisStatus, IpmiError> {
        let data = self.run(&command::chassis_status(), "chassis status").await?;
        self.read(command::read_chassis_status(&data), "chassis status")
    }

    /// Who made the BMC and what it runs.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn device_id(&mut self) -> Result<command::DeviceId, IpmiError> {
        let data = self.run(&command::device_id(), "device ID").await?;
        self.read(command::read_device_id(&data), "device ID")
    }

    /// The machine's GUID, bytes as sent.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn system_guid(&mut self) -> Result<[u8; 16], IpmiError> {
        let data = self.run(&command::system_guid(), "system GUID").await?;
        self.read(command::read_guid(&data), "system GUID")
    }

    /// The power, with the identity that this session gives: both asked anew.
    ///
    /// # Errors
    /// As [`Client::run`]. A BMC that tells no GUID gives a reading without identity, not an error.
    pub async fn reading(&mut self) -> Result<Reading, IpmiError> {
        let identity = match self.system_guid().await {
            Ok(guid) => Some(guid),
            Err(IpmiError::Refused { .. } | IpmiError::Answer { .. }) => None,
            Err(why) => return Err(why),
        };
        let status = self.chassis_status().await?;
        let off_cause = match status {
            command::ChassisStatus { lost_ac: true, .. } => OffCause::AcLoss,
            command::ChassisStatus { fault, overload, interlock, .. } if fault || overload || interlock => {
                OffCause::Fault
            }
            _ => OffCause::Unknown,
        };
        let power = if status.on { Power::On } else { Power::Off };
        Ok(Reading { at: std::time::Instant::now(), source: Source::System, identity, power, off_cause })
    }

    /// Sends a power command. That it was accepted says nothing about its effect: read.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn control(&mut self, control: command::Control) -> Result<(), IpmiError> {
        self.run(&command::chassis_control(control), "chassis control").await.map(drop)
    }

    fn read<T>(&self, read: Result<T, super::frame::FrameError>, name: &str) -> Result<T, IpmiError> {
        read.map_err(|source| IpmiError::Answer { address: self.address, name: name.to_owned(), source })
    }

    /// Closes the session; a BMC has few. Told once, without waiting long: it times out there by itself.
    pub async fn close(mut self) {
        let close = command::close_session(self.session.bmc_id());
        self.patience = Patience { retry: Duration::from_millis(500), tries: 1 };
        let _ = self.run(&close, "close session").await;
    }
}

/// Sends a datagram, again after each wait, until `take` takes an answer or the tries are used up.
async fn exchange<T>(
    socket: &UdpSocket,
    address: SocketAddr,
    patience: Patience,
    datagram: &[u8],
    mut take: impl FnMut(&[u8]) -> Option<T>,
) -> Result<Option<T>, IpmiError> {
    let mut buffer = [0; MAX_DATAGRAM];
    for _ in 0..patience.tries.max(1) {
        // A port that is closed shows as a refused connection at the next call: no answer, like silence.
        match socket.send(datagram).await {
            Ok(_) => {}
            Err(why) if why.kind() == std::io::ErrorKind::ConnectionRefused => {}
            Err(source) => return Err(IpmiError::Socket { address, source }),
        }
        let until = Instant::now() + patience.retry;
        loop {
            match timeout_at(until, socket.recv(&mut buffer)).await {
                Err(_) => break,
                Ok(Ok(length)) => {
                    if let Some(taken) = buffer.get(..length).and_then(&mut take) {
                        return Ok(Some(taken));
                    }
                }
                Ok(Err(why)) if why.kind() == std::io::ErrorKind::ConnectionRefused => {
                    tokio::time::sleep_until(until).await;
                    break;
                }
                Ok(Err(source)) => return Err(IpmiError::Socket { address, source }),
            }
        }
    }
    Ok(None)
}
