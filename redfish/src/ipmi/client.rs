//! A UDP socket around the protocol: one BMC, one session, one request in flight.
//!
//! An answer that does not come is *unknown*, not *no*: what may be done twice is sent again, what may not is reported as
//! lost, and the caller reads before it does anything more.

pub use super::client_audit::{auth_capabilities, list_suites, ping, suite_zero_open};
use super::command::{self, Command};
use super::crypto::Suite;
pub use super::error::{IpmiError, meaning};
use super::frame::MAX_DATAGRAM;
use super::handshake::{Handshake, Login, LoginError, Privilege, Random, Step};
use super::session::{Incoming, Reply, Session};
use crate::reading::{OffCause, Power, Reading, Source};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;
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

/// An open session with a BMC.
#[derive(Debug)]
pub struct Client {
    pub(super) socket: UdpSocket,
    pub(super) address: SocketAddr,
    pub(super) patience: Patience,
    pub(super) session: Session,
    /// Console packets that came while an answer was waited for.
    pub(super) console_packets: VecDeque<Vec<u8>>,
}

/// Completion code of a BMC that has no room for the command now (table 5-2).
const BUSY: u8 = 0xc0;
/// Console packets kept while an answer is waited for; the BMC has one under way and sends it again.
const CONSOLE_PACKETS_MAX: usize = 16;

pub(super) fn random<const N: usize>() -> Result<[u8; N], IpmiError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(IpmiError::Random)?;
    Ok(bytes)
}

/// A socket that the kernel gives nothing to but what comes from the address.
pub(super) async fn connect(address: SocketAddr) -> Result<UdpSocket, IpmiError> {
    let bind: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(bind).await.map_err(|source| IpmiError::Socket { address, source })?;
    socket.connect(address).await.map_err(|source| IpmiError::Socket { address, source })?;
    Ok(socket)
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
        let socket = connect(address).await?;
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
        let mut client = Client { socket, address, patience, session, console_packets: VecDeque::new() };
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

    /// Runs a command and gives the data behind its completion code. What may be done twice is asked again if no answer
    /// comes or the BMC is busy.
    ///
    /// # Errors
    /// The answer was lost, or is no.
    pub async fn run(&mut self, command: &Command, name: &str) -> Result<Vec<u8>, IpmiError> {
        let address = self.address;
        let Command { lun, net_fn, command: number, ref data, repeatable } = *command;
        let (mut key, mut datagram) = self.session.request(random()?, lun, net_fn, number, data);
        let tries = if repeatable { self.patience.tries.max(1) } else { 1 };
        // What must not be done twice has all the time that the others have for all their tries.
        let wait = if repeatable { self.patience.retry } else { self.patience.retry * self.patience.tries.max(1) };
        let once = Patience { retry: wait, tries: 1 };
        for left in (0..tries).rev() {
            let (session, console_packets) = (&mut self.session, &mut self.console_packets);
            let reply = exchange(&self.socket, address, once, &datagram, |bytes| match session.accept(bytes) {
                Ok(Incoming::Reply(reply)) if reply.key == key => Some(reply),
                Ok(Incoming::Sol(payload)) => {
                    if console_packets.len() < CONSOLE_PACKETS_MAX {
                        console_packets.push_back(payload);
                    }
                    None
                }
                _ => None,
            })
            .await?;
            match reply {
                Some(Reply { completion: 0, data, .. }) => return Ok(data),
                Some(Reply { completion: BUSY, .. }) if left > 0 => {
                    tokio::time::sleep(self.patience.retry / 4).await;
                    // A number of its own: under the old one the BMC may give its old answer.
                    (key, datagram) = self.session.request(random()?, lun, net_fn, number, data);
                }
                Some(Reply { completion: code, .. }) => {
                    return Err(IpmiError::Refused { address, name: name.to_owned(), code, meaning: meaning(code) });
                }
                None if left > 0 => datagram = self.session.again(random()?, lun, key, data),
                None => {}
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

    pub(super) fn read<T>(&self, read: Result<T, super::frame::FrameError>, name: &str) -> Result<T, IpmiError> {
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
pub(super) async fn exchange<T>(
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::scripted::{Asked, Does, answering, done, refused};
    use super::*;

    /// Silent once, busy once, then done; counts what it was asked.
    fn hesitant() -> impl FnMut(Asked) -> Does + Send {
        let mut asked = 0;
        move |_| {
            asked += 1;
            match asked {
                1 => Does::Nothing,
                2 => refused(BUSY),
                _ => done(&[asked]),
            }
        }
    }

    #[tokio::test]
    async fn what_may_be_done_twice_is_asked_until_it_is_answered() {
        let mut client = answering(hesitant()).await;
        assert_eq!(client.run(&command::chassis_status(), "x").await.unwrap(), [3]);
        let mut client = answering(hesitant()).await;
        let once = client.run(&command::chassis_control(command::Control::Cycle), "x").await;
        assert!(matches!(once, Err(IpmiError::ReplyLost { .. })), "{once:?}");
        let mut client = answering(|_| refused(BUSY)).await;
        let busy = client.run(&command::chassis_status(), "x").await;
        assert!(matches!(busy, Err(IpmiError::Refused { code: BUSY, .. })), "{busy:?}");
    }

    #[test]
    fn its_work_may_move_between_threads() {
        fn may<T: Send>(_: impl Fn(Client) -> T) {}
        may(|mut client: Client| async move { client.event_log(&[]).await });
        may(|mut client: Client| async move { client.sensor_records().await });
        may(|mut client: Client| async move { client.sensors(&[]).await });
        may(|client: Client| client.console(false));
    }
}
