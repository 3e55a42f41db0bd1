//! Sessions of the BMC's side: presence ping, opening, RAKP, and the sealed packets within.

use super::command::{self, Answer};
use crate::misbehaviour::Misbehaviour;
use crate::state::Handle;
use bmc::ipmi::crypto::{Digest, Suite, decrypt, encrypt};
use bmc::ipmi::frame::{self, Packet, Payload, Secure};
use machine::BmcError;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Half-open sessions that are kept.
const OPENING_MAX: usize = 32;

/// What is sent back, and when.
pub(super) struct Sent {
    pub(super) datagrams: Vec<Vec<u8>>,
    pub(super) after: Duration,
}

impl Sent {
    fn now(datagram: Vec<u8>) -> Option<Sent> {
        Some(Sent { datagrams: vec![datagram], after: Duration::ZERO })
    }
}

/// The algorithms of a session. Suite 0 has none.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Strength {
    Zero,
    Of(Suite),
}

impl Strength {
    fn triple(self) -> [u8; 3] {
        match self {
            Strength::Zero => [0; 3],
            Strength::Of(suite) => suite.triple(),
        }
    }
}

struct Opening {
    strength: Strength,
    console_id: u32,
    console_random: [u8; 16],
    bmc_random: [u8; 16],
    role: u8,
    user: String,
}

struct Open {
    strength: Strength,
    console_id: u32,
    machine_session: u32,
    k1: Digest,
    k2: Digest,
    next_out: u32,
    highest_in: u32,
    context: command::Context,
    last: Vec<u8>,
}

/// The BMC's side of all sessions.
pub(super) struct Server {
    handle: Handle,
    opening: BTreeMap<u32, Opening>,
    open: BTreeMap<u32, Open>,
    next_id: u32,
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let _ = getrandom::fill(&mut bytes);
    bytes
}

fn u32_of(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

impl Server {
    pub(super) fn new(handle: Handle) -> Server {
        Server { handle, opening: BTreeMap::new(), open: BTreeMap::new(), next_id: 0x0102_0300 }
    }

    /// Takes in a datagram.
    pub(super) fn accept(&mut self, datagram: &[u8], _from: SocketAddr) -> Option<Sent> {
        {
            let at = self.handle.now();
            let mut state = self.handle.lock();
            state.settle(at);
            let dead = matches!(state.machine.bmc_answers(at), Err(BmcError::Silent));
            if dead || state.has(Misbehaviour::IpmiSilent) {
                return None;
            }
        }
        if let Some(pong) = pong(datagram) {
            return Sent::now(pong);
        }
        // The length of a signature depends on the session, which stands before it.
        let session_id = u32_of(datagram, 6).unwrap_or(0);
        let code_bytes = match self.open.get(&session_id).map(|open| open.strength) {
            Some(Strength::Of(suite)) => suite.packet_code_bytes(),
            _ => 12,
        };
        match frame::parse(datagram, code_bytes).ok()? {
            Packet::Sessionless { message } => self.sessionless(message),
            Packet::Secure(packet) => match packet.payload_type {
                Payload::OpenRequest => self.open_request(packet.payload),
                Payload::Rakp1 => self.rakp1(packet.payload),
                Payload::Rakp3 => self.rakp3(packet.payload),
                Payload::Ipmi if packet.session_id == 0 => self.sessionless_v2(packet.payload),
                Payload::Ipmi => self.command(&packet),
                _ => None,
            },
            Packet::Pong { .. } => None,
        }
    }

    fn sessionless(&self, message: &[u8]) -> Option<Sent> {
        let request = Request::read(message)?;
        let answer = command::sessionless(&self.handle, request.net_fn, request.command, request.data);
        Sent::now(frame::sessionless(&request.answer(&answer)))
    }

    /// The same in the format of 2.0, as ipmitool asks for cipher suites.
    fn sessionless_v2(&self, message: &[u8]) -> Option<Sent> {
        let request = Request::read(message)?;
        let answer = command::sessionless(&self.handle, request.net_fn, request.command, request.data);
        Sent::now(frame::plain(Payload::Ipmi, &request.answer(&answer)))
    }

    fn open_request(&mut self, payload: &[u8]) -> Option<Sent> {
        let (tag, role) = (*payload.first()?, *payload.get(1)?);
        let console_id = u32_of(payload, 4)?;
        let algorithm = |at: usize| payload.get(at).map(|byte| byte & 0x3f);
        let asked = [algorithm(12)?, algorithm(20)?, algorithm(28)?];
        let state = self.handle.lock();
        let known = Suite::PREFERENCE.into_iter().find(|suite| suite.triple() == asked).map(Strength::Of);
        let zero = (asked == [0; 3] && state.has(Misbehaviour::IpmiSuiteZero)).then_some(Strength::Zero);
        let downgrades = state.has(Misbehaviour::IpmiDowngrades);
        drop(state);
        let Some(strength) = known.or(zero) else {
            let mut refusal = vec![tag, 0x11, role, 0];
            refusal.extend(console_id.to_le_bytes());
            return Sent::now(frame::plain(Payload::OpenResponse, &refusal));
        };
        if self.opening.len() >= OPENING_MAX {
            self.opening.pop_first();
        }
        self.next_id = self.next_id.wrapping_add(1).max(1);
        let id = self.next_id;
        let (console_random, bmc_random) = ([0; 16], random());
        let opening = Opening { strength, console_id, console_random, bmc_random, role, user: String::new() };
        self.opening.insert(id, opening);
        let mut answer = vec![tag, 0, if role == 0 { 4 } else { role }, 0];
        answer.extend(console_id.to_le_bytes());
        answer.extend(id.to_le_bytes());
        // Weaker than asked: authentication by RAKP-none, no integrity, no encryption.
        let shown = if downgrades { [1, 0, 0] } else { strength.triple() };
        for (kind, algorithm) in shown.into_iter().enumerate() {
            answer.extend([u8::try_from(kind).unwrap_or(0), 0, 0, 8, algorithm, 0, 0, 0]);
        }
        Sent::now(frame::plain(Payload::OpenResponse, &answer))
    }

    fn rakp1(&mut self, payload: &[u8]) -> Option<Sent> {
        let tag = *payload.first()?;
        let id = u32_of(payload, 4)?;
        let opening = self.opening.get_mut(&id)?;
        opening.console_random = payload.get(8..24)?.try_into().ok()?;
        opening.role = *payload.get(24)?;
        let length = usize::from(*payload.get(27)?);
        opening.user = String::from_utf8_lossy(payload.get(28..28 + length)?).into_owned();
        let mut answer = vec![tag, 0, 0, 0];
        answer.extend(opening.console_id.to_le_bytes());
        let mut state = self.handle.lock();
        state.counted.credentials += 1;
        let guid = state.machine.bmc_identity().to_be_bytes();
        let Some(account) = state.account(&opening.user) else {
            if let Some(status) = answer.get_mut(1) {
                *status = 0x0d;
            }
            return Sent::now(frame::plain(Payload::Rakp2, &answer));
        };
        answer.extend(opening.bmc_random);
        answer.extend(guid);
        if let Strength::Of(suite) = opening.strength {
            let (console, bmc) = (opening.console_id.to_le_bytes(), id.to_le_bytes());
            let (role, length) = ([opening.role], [u8::try_from(opening.user.len()).unwrap_or(0)]);
            let user = opening.user.as_bytes();
            let parts: [&[u8]; 8] =
                [&console, &bmc, &opening.console_random, &opening.bmc_random, &guid, &role, &length, user];
            answer.extend(suite.hmac(account.password.expose(), &parts).iter());
        }
        Sent::now(frame::plain(Payload::Rakp2, &answer))
    }

    fn rakp3(&mut self, payload: &[u8]) -> Option<Sent> {
        let (tag, status) = (*payload.first()?, *payload.get(1)?);
        let id = u32_of(payload, 4)?;
        let opening = self.opening.remove(&id)?;
        let mut answer = vec![tag, 0, 0, 0];
        answer.extend(opening.console_id.to_le_bytes());
        let refuse = |mut answer: Vec<u8>, code: u8| {
            if let Some(status) = answer.get_mut(1) {
                *status = code;
            }
            Sent::now(frame::plain(Payload::Rakp4, &answer))
        };
        if status != 0 {
            return None;
        }
        let at = self.handle.now();
        let mut state = self.handle.lock();
        let account = state.account(&opening.user)?.clone();
        let guid = state.machine.bmc_identity().to_be_bytes();
        let (console, length) = (opening.console_id.to_le_bytes(), [u8::try_from(opening.user.len()).unwrap_or(0)]);
        let (role, user) = ([opening.role], opening.user.as_bytes());
        let empty = Digest::new(Vec::new());
        let (k1, k2, right) = match opening.strength {
            Strength::Zero => (empty.clone(), empty, true),
            Strength::Of(suite) => {
                let key = account.password.expose();
                let expected = suite.hmac(key, &[&opening.bmc_random, &console, &role, &length, user]);
                let shown = payload.get(8..).unwrap_or_default();
                let right = suite.fits(&expected, shown, suite.rakp_code_bytes());
                let parts: [&[u8]; 5] = [&opening.console_random, &opening.bmc_random, &role, &length, user];
                let sik = suite.hmac(key, &parts);
                let proof = suite.hmac(&sik, &[&opening.console_random, &id.to_le_bytes(), &guid]);
                answer.extend(proof.iter().take(suite.packet_code_bytes()));
                (suite.hmac(&sik, &[&[1; 20]]), suite.hmac(&sik, &[&[2; 20]]), right)
            }
        };
        let machine_session = match state.machine.bmc_login(at, right) {
            Ok(session) => session,
            Err(BmcError::Busy) => return refuse(answer.get(..8)?.to_vec(), 0x01),
            Err(BmcError::Silent | BmcError::ReplyLost) => return None,
            Err(BmcError::Refused) => return refuse(answer.get(..8)?.to_vec(), 0x0f),
        };
        state.counted.sessions_opened += 1;
        drop(state);
        let open = Open {
            strength: opening.strength,
            console_id: opening.console_id,
            machine_session,
            k1,
            k2,
            next_out: 1,
            highest_in: 0,
            context: command::Context::new(account.privilege, opening.role & 0x0f),
            last: Vec::new(),
        };
        self.open.insert(id, open);
        Sent::now(frame::plain(Payload::Rakp4, &answer))
    }

    fn command(&mut self, packet: &Secure<'_>) -> Option<Sent> {
        let at = self.handle.now();
        let id = packet.session_id;
        {
            let open = self.open.get(&id)?;
            if !self.handle.lock().machine.bmc_use_session(at, open.machine_session) {
                self.open.remove(&id);
                return None;
            }
        }
        let open = self.open.get_mut(&id)?;
        let plain = match open.strength {
            Strength::Zero => packet.payload.to_vec(),
            Strength::Of(suite) => {
                let (code, true) = (packet.code?, packet.encrypted) else { return None };
                let expected = suite.hmac(&open.k1, &[packet.covered]);
                if !suite.fits(&expected, code, suite.packet_code_bytes()) || packet.sequence <= open.highest_in {
                    return None;
                }
                open.highest_in = packet.sequence;
                decrypt(&open.k2, packet.payload)?
            }
        };
        let request = Request::read(&plain)?;
        self.handle.begins();
        let answer = command::run(&self.handle, &mut open.context, request.net_fn, request.command, request.data);
        self.handle.ends();
        let closes = (request.net_fn, request.command) == (0x06, 0x3c) && answer.code == 0;
        let wrong = self.handle.lock().wrong.clone();
        let power = (request.net_fn, request.command) == (0x00, 0x02);
        let sent = if power && wrong.contains(&Misbehaviour::PowerReplyLost) || answer.lost {
            None
        } else {
            let mut message = if wrong.contains(&Misbehaviour::IpmiOtherCommand) {
                Request { command: request.command ^ 0x40, ..request }.answer(&answer)
            } else {
                request.answer(&answer)
            };
            if wrong.contains(&Misbehaviour::IpmiCut) {
                message.truncate(message.len() / 2);
            }
            let mut datagram = open.seal(&message, wrong.contains(&Misbehaviour::IpmiOtherSession));
            if wrong.contains(&Misbehaviour::IpmiForged)
                && let Some(last) = datagram.last_mut()
            {
                *last ^= 1;
            }
            let mut datagrams = Vec::new();
            if wrong.contains(&Misbehaviour::IpmiReplays) && !open.last.is_empty() {
                datagrams.push(open.last.clone());
            }
            open.last.clone_from(&datagram);
            datagrams.push(datagram.clone());
            if wrong.contains(&Misbehaviour::IpmiTwice) {
                datagrams.push(datagram);
            }
            Some(Sent { datagrams, after: answer.after })
        };
        if closes && let Some(open) = self.open.remove(&id) {
            self.handle.lock().machine.bmc_logout(at, open.machine_session);
        }
        sent
    }
}

impl Open {
    fn seal(&mut self, message: &[u8], other_session: bool) -> Vec<u8> {
        let session = if other_session { self.console_id ^ 0x55 } else { self.console_id };
        let sequence = self.next_out;
        self.next_out += 1;
        match self.strength {
            Strength::Zero => {
                let mut packet = frame::plain(Payload::Ipmi, message);
                // Unsealed packets of a session still carry its number and sequence.
                for (at, byte) in session.to_le_bytes().into_iter().chain(sequence.to_le_bytes()).enumerate() {
                    if let Some(place) = packet.get_mut(6 + at) {
                        *place = byte;
                    }
                }
                packet
            }
            Strength::Of(suite) => {
                let encrypted = encrypt(&self.k2, random(), message);
                let mut packet = frame::authenticated(Payload::Ipmi, session, sequence, &encrypted);
                let code = suite.packet_code(&self.k1, frame::covered(&packet));
                packet.extend(code);
                packet
            }
        }
    }
}

/// A request of a client.
#[derive(Clone, Copy)]
struct Request<'a> {
    from: u8,
    from_lun: u8,
    lun: u8,
    net_fn: u8,
    sequence: u8,
    command: u8,
    data: &'a [u8],
}

fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg()
}

impl<'a> Request<'a> {
    fn read(message: &'a [u8]) -> Option<Request<'a>> {
        let [to, net_fn, first, from, sequence, command, .., last] = *message else { return None };
        let body = message.get(3..message.len() - 1)?;
        if checksum(&[to, net_fn]) != first || checksum(body) != last {
            return None;
        }
        let data = message.get(6..message.len() - 1)?;
        Some(Request {
            from,
            from_lun: sequence & 3,
            lun: net_fn & 3,
            net_fn: net_fn >> 2,
            sequence: sequence >> 2,
            command,
            data,
        })
    }

    fn answer(&self, answer: &Answer) -> Vec<u8> {
        let mut message = vec![self.from, (self.net_fn + 1) << 2 | self.from_lun];
        message.push(checksum(&message));
        let body_at = message.len();
        message.extend([frame::BMC_ADDRESS, self.sequence << 2 | self.lun, self.command, answer.code]);
        message.extend(&answer.data);
        message.push(checksum(message.get(body_at..).unwrap_or_default()));
        message
    }
}

/// Answers an ASF presence ping (ASF 2.0, section 3.2.4.2).
fn pong(datagram: &[u8]) -> Option<Vec<u8>> {
    let [6, _, _, 6, 0, 0, 0x11, 0xbe, 0x80, tag, ..] = *datagram else { return None };
    let mut pong = vec![6, 0, 0xff, 6, 0, 0, 0x11, 0xbe, 0x40, tag, 0, 16];
    pong.extend([0, 0, 0x11, 0xbe, 0, 0, 0, 0, 0x81, 0, 0, 0, 0, 0, 0, 0]);
    Some(pong)
}
