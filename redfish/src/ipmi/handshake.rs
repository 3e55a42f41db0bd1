//! How a session is opened: capabilities, Open Session, RAKP 1 to 4, privilege (sections 13.14, 13.17 to 13.24, 22.13).
//!
//! The machine is fed datagrams and tells what to send. Its random numbers are given to it. What it gets is verified
//! against what it asked: its own IDs and tags, the triple of the suite, and both of the BMC's codes. A BMC that cannot
//! show that it knows the password gets no answer to RAKP 2, hence nothing that tells more than RAKP 1 did.

use super::crypto::{Digest, Suite};
use super::frame::{self, FrameError, Packet, Payload, sixteen_at, u32_at};
use super::session::Session;
use crate::Secret;
use thiserror::Error;

/// The longest user name (section 13.20).
pub const USER_BYTES_MAX: usize = 16;
/// The longest password (section 22.30). Some BMCs silently cut at 16.
pub const PASSWORD_BYTES_MAX: usize = 20;

/// The level of a session (section 6.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Privilege {
    /// Reads.
    User = 2,
    /// Power.
    Operator = 3,
    /// Media, users, boot options on most machines.
    Administrator = 4,
}

/// Who logs in.
#[derive(Debug, Clone)]
pub struct Login {
    user: String,
    password: Secret,
    privilege: Privilege,
}

/// Why a login cannot be tried at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadLogin {
    /// Too long for IPMI.
    #[error("the user name is longer than {USER_BYTES_MAX} bytes: IPMI cannot carry it; use a shorter one or Redfish")]
    User,
    /// Too long for IPMI.
    #[error(
        "the password is longer than {PASSWORD_BYTES_MAX} bytes: IPMI cannot carry it; use a shorter one or Redfish"
    )]
    Password,
    /// The anonymous account.
    #[error("the user name is empty: the anonymous account of a BMC is not used; name a user")]
    Anonymous,
}

impl Login {
    /// Checks that IPMI can carry it. Nothing is ever cut off.
    ///
    /// # Errors
    /// A name or password that is too long, or no name.
    pub fn new(user: String, password: Secret, privilege: Privilege) -> Result<Login, BadLogin> {
        if user.is_empty() {
            return Err(BadLogin::Anonymous);
        }
        if user.len() > USER_BYTES_MAX {
            return Err(BadLogin::User);
        }
        if password.expose().len() > PASSWORD_BYTES_MAX {
            return Err(BadLogin::Password);
        }
        Ok(Login { user, password, privilege })
    }

    /// The level that the session is to have.
    #[must_use]
    pub fn privilege(&self) -> Privilege {
        self.privilege
    }
}

/// Fresh random numbers of one handshake.
#[derive(Debug, Clone, Copy)]
pub struct Random {
    /// Our session ID; zero is made one.
    pub console_id: u32,
    /// Our random number.
    pub console_random: [u8; 16],
    /// The tag of our messages.
    pub tag: u8,
}

/// Why no session was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LoginError {
    /// It speaks IPMI 1.5 alone.
    #[error("the BMC speaks IPMI 1.5 only, which protects nothing: it is not used; register it by Redfish")]
    NoVersion2,
    /// It wants a second key.
    #[error("the BMC demands a BMC key (Kg), which is not supported; clear it on the BMC or register it by Redfish")]
    KeyDemanded,
    /// The suite is not allowed there.
    #[error("the BMC does not offer cipher suite {0}")]
    SuiteRefused(u8),
    /// It answered with other algorithms than were asked: a downgrade.
    #[error(
        "the BMC answered with other algorithms than asked, {0:?}: refused as a downgrade; check who answers there"
    )]
    Downgraded([u8; 3]),
    /// No session is free.
    #[error("all sessions of the BMC are taken; wait until one times out")]
    NoSessions,
    /// Refused name, or privilege too high for the account.
    #[error("the BMC refuses the user name or the privilege; check the account")]
    UserRefused,
    /// It refuses our password, or does not know it itself.
    #[error("the password is wrong, or it is not the BMC that was registered; nothing more is tried with it")]
    PasswordWrong,
    /// Another status.
    #[error("the BMC refused the session with status {0:#04x}")]
    Status(u8),
    /// Its message makes no sense.
    #[error("the BMC's answer cannot be read: {0}")]
    Frame(#[from] FrameError),
}

/// What the driver does next.
#[derive(Debug)]
pub enum Step {
    /// Sends this, and sends it again if no answer comes.
    Send(Vec<u8>),
    /// Goes on waiting: the datagram was not for this handshake.
    Ignore,
    /// Open. The privilege is to be raised with the first request.
    Open(Box<Session>),
    /// Over.
    Failed(LoginError),
}

#[derive(Debug)]
enum Stage {
    Capabilities,
    Opening,
    Rakp1 { bmc_id: u32 },
    Rakp3 { bmc_id: u32, guid: [u8; 16], keys: Keys },
    Over,
}

struct Keys {
    sik: Digest,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(..)")
    }
}

/// A session being opened with one suite.
#[derive(Debug)]
pub struct Handshake {
    login: Login,
    suite: Suite,
    random: Random,
    stage: Stage,
}

impl Handshake {
    /// Begins: the first datagram to send.
    #[must_use]
    pub fn begin(login: Login, suite: Suite, random: Random) -> (Handshake, Vec<u8>) {
        let random = Random { console_id: random.console_id.max(1), ..random };
        // Channel 0Eh is the one that we speak on; bit 7 asks for the fields of IPMI 2.0 (section 22.13).
        let first = frame::sessionless(&frame::request(0x06, 0x38, 0, &[0x8e, login.privilege as u8]));
        (Handshake { login, suite, random, stage: Stage::Capabilities }, first)
    }

    /// Takes in a datagram of the BMC's address.
    pub fn accept(&mut self, datagram: &[u8]) -> Step {
        let packet = match frame::parse(datagram, self.suite.packet_code_bytes()) {
            Ok(packet) => packet,
            Err(_) => return Step::Ignore,
        };
        let step = match (&self.stage, packet) {
            (Stage::Capabilities, Packet::Sessionless { message }) => self.capabilities(message),
            (Stage::Opening, Packet::Secure(p)) if p.payload_type == Payload::OpenResponse => self.opened(p.payload),
            (Stage::Rakp1 { bmc_id }, Packet::Secure(p)) if p.payload_type == Payload::Rakp2 => {
                self.rakp2(*bmc_id, p.payload)
            }
            (Stage::Rakp3 { .. }, Packet::Secure(p)) if p.payload_type == Payload::Rakp4 => self.rakp4(p.payload),
            // The answer to a request that was sent twice, or somebody else's.
            _ => Ok(Step::Ignore),
        };
        step.unwrap_or_else(|why| {
            self.stage = Stage::Over;
            Step::Failed(why)
        })
    }

    fn capabilities(&mut self, message: &[u8]) -> Result<Step, LoginError> {
        let Ok(answer) = frame::response(message) else { return Ok(Step::Ignore) };
        if (answer.net_fn, answer.command, answer.sequence) != (0x06, 0x38, 0) {
            return Ok(Step::Ignore);
        }
        if answer.completion != 0 {
            // Old firmware refuses the bit that asks for IPMI 2.0.
            return Err(LoginError::NoVersion2);
        }
        let byte = |at: usize| answer.data.get(at).copied().ok_or(FrameError::Short("channel capabilities"));
        if byte(1)? & 0x80 == 0 || byte(3)? & 0x02 == 0 {
            return Err(LoginError::NoVersion2);
        }
        if byte(2)? & 0x20 != 0 {
            return Err(LoginError::KeyDemanded);
        }
        let [auth, integrity, confidentiality] = self.suite.triple();
        let mut open = vec![self.random.tag, self.login.privilege as u8, 0, 0];
        open.extend(self.random.console_id.to_le_bytes());
        for (kind, algorithm) in [(0, auth), (1, integrity), (2, confidentiality)] {
            open.extend([kind, 0, 0, 8, algorithm, 0, 0, 0]);
        }
        self.stage = Stage::Opening;
        Ok(Step::Send(frame::plain(Payload::OpenRequest, &open)))
    }

    fn opened(&mut self, answer: &[u8]) -> Result<Step, LoginError> {
        let [tag, status, ..] = *answer else { return Ok(Step::Ignore) };
        if tag != self.random.tag {
            return Ok(Step::Ignore);
        }
        if status != 0 {
            return Err(self.status(status));
        }
        if u32_at(answer, 4, "Open Session Response")? != self.random.console_id {
            return Ok(Step::Ignore);
        }
        let bmc_id = u32_at(answer, 8, "Open Session Response")?;
        let algorithm = |at: usize| answer.get(at).map(|a| a & 0x3f).ok_or(FrameError::Short("Open Session Response"));
        let triple = [algorithm(16)?, algorithm(24)?, algorithm(32)?];
        if triple != self.suite.triple() {
            return Err(LoginError::Downgraded(triple));
        }
        if bmc_id == 0 {
            return Err(FrameError::Field("session ID").into());
        }
        let mut rakp1 = vec![self.random.tag, 0, 0, 0];
        rakp1.extend(bmc_id.to_le_bytes());
        rakp1.extend(self.random.console_random);
        rakp1.extend([self.role(), 0, 0]);
        rakp1.push(self.user_length());
        rakp1.extend(self.login.user.as_bytes());
        self.stage = Stage::Rakp1 { bmc_id };
        Ok(Step::Send(frame::plain(Payload::Rakp1, &rakp1)))
    }

    fn rakp2(&mut self, bmc_id: u32, answer: &[u8]) -> Result<Step, LoginError> {
        let [tag, status, ..] = *answer else { return Ok(Step::Ignore) };
        if tag != self.random.tag {
            return Ok(Step::Ignore);
        }
        if status != 0 {
            return Err(self.status(status));
        }
        if u32_at(answer, 4, "RAKP 2")? != self.random.console_id {
            return Ok(Step::Ignore);
        }
        let bmc_random = sixteen_at(answer, 8, "RAKP 2")?;
        let guid = sixteen_at(answer, 24, "RAKP 2")?;
        let code = answer.get(40..).unwrap_or_default();
        let (console, bmc) = (self.random.console_id.to_le_bytes(), bmc_id.to_le_bytes());
        let (role, length) = ([self.role()], [self.user_length()]);
        let user = self.login.user.as_bytes();
        let key = self.login.password.expose();
        let expected = self
            .suite
            .hmac(key, &[&console, &bmc, &self.random.console_random, &bmc_random, &guid, &role, &length, user]);
        if !self.suite.fits(&expected, code, self.suite.rakp_code_bytes()) {
            return Err(LoginError::PasswordWrong);
        }
        let proof = self.suite.hmac(key, &[&bmc_random, &console, &role, &length, user]);
        let sik = self.suite.hmac(key, &[&self.random.console_random, &bmc_random, &role, &length, user]);
        let mut rakp3 = vec![self.random.tag, 0, 0, 0];
        rakp3.extend(bmc);
        rakp3.extend(proof.iter());
        self.stage = Stage::Rakp3 { bmc_id, guid, keys: Keys { sik } };
        Ok(Step::Send(frame::plain(Payload::Rakp3, &rakp3)))
    }

    fn rakp4(&mut self, answer: &[u8]) -> Result<Step, LoginError> {
        let [tag, status, ..] = *answer else { return Ok(Step::Ignore) };
        if tag != self.random.tag {
            return Ok(Step::Ignore);
        }
        let Stage::Rakp3 { bmc_id, guid, keys } = std::mem::replace(&mut self.stage, Stage::Over) else {
            return Ok(Step::Ignore);
        };
        if status != 0 {
            return Err(self.status(status));
        }
        if u32_at(answer, 4, "RAKP 4")? != self.random.console_id {
            self.stage = Stage::Rakp3 { bmc_id, guid, keys };
            return Ok(Step::Ignore);
        }
        let code = answer.get(8..).unwrap_or_default();
        let expected = self.suite.hmac(&keys.sik, &[&self.random.console_random, &bmc_id.to_le_bytes(), &guid]);
        if !self.suite.fits(&expected, code, self.suite.packet_code_bytes()) {
            return Err(LoginError::PasswordWrong);
        }
        // The constants are twenty bytes long whatever the hash (section 13.32).
        let k1 = self.suite.hmac(&keys.sik, &[&[1; 20]]);
        let k2 = self.suite.hmac(&keys.sik, &[&[2; 20]]);
        Ok(Step::Open(Box::new(Session::new(self.suite, self.random.console_id, bmc_id, k1, k2))))
    }

    /// The role in RAKP 1: the privilege, and bit 4 so that the account is looked up by its name alone.
    fn role(&self) -> u8 {
        0x10 | self.login.privilege as u8
    }

    fn user_length(&self) -> u8 {
        u8::try_from(self.login.user.len()).unwrap_or(0)
    }

    /// Status codes of RMCP+ (table 13-15).
    fn status(&self, status: u8) -> LoginError {
        match status {
            0x01 => LoginError::NoSessions,
            0x03..=0x05 | 0x10 | 0x11 => LoginError::SuiteRefused(self.suite.number()),
            0x09 | 0x0a | 0x0c | 0x0d => LoginError::UserRefused,
            0x0f => LoginError::PasswordWrong,
            other => LoginError::Status(other),
        }
    }
}
