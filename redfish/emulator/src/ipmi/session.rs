//! Sessions of the BMC's side: presence ping, opening, RAKP, and the sealed packets within.

use super::command::{self, Answer};
use super::message::{Request, pong};
use super::open::{Open, random};
use super::payload::{self, Payloads};
use super::sol;
use crate::misbehaviour::Misbehaviour;
use crate::state::Handle;
use bmc::ipmi::crypto::{Digest, Suite};
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
    pub(super) to: SocketAddr,
    pub(super) after: Duration,
}

impl Sent {
    fn now(datagram: Vec<u8>, to: SocketAddr) -> Sent {
        Sent { datagrams: vec![datagram], to, after: Duration::ZERO }
    }
}

/// The algorithms of a session. Suite 0 has none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Strength {
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

/// The BMC's side of all sessions.
pub(super) struct Server {
    handle: Handle,
    opening: BTreeMap<u32, Opening>,
    open: BTreeMap<u32, Open>,
    next_id: u32,
    /// Its own UDP port: a console is served there and nowhere else.
    port: u16,
    payloads: Payloads,
    /// To be sent.
    waiting: Vec<Sent>,
}

fn u32_of(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

impl Server {
    pub(super) fn new(handle: Handle, port: u16) -> Server {
        Server {
            handle,
            opening: BTreeMap::new(),
            open: BTreeMap::new(),
            next_id: 0x0102_0300,
            port,
            payloads: Payloads::default(),
            waiting: Vec::new(),
        }
    }

    /// Takes in a datagram.
    pub(super) fn accept(&mut self, datagram: &[u8], from: SocketAddr) -> Vec<Sent> {
        if !self.is_dead()
            && let Some(sent) = self.take(datagram, from)
        {
            self.waiting.push(sent);
        }
        self.tick()
    }

    fn take(&mut self, datagram: &[u8], from: SocketAddr) -> Option<Sent> {
        if let Some(pong) = pong(datagram) {
            return Some(Sent::now(pong, from));
        }
        // The length of a signature depends on the session, which stands before it.
        let session_id = u32_of(datagram, 6).unwrap_or(0);
        let code_bytes = match self.open.get(&session_id).map(|open| open.strength) {
            Some(Strength::Of(suite)) => suite.packet_code_bytes(),
            _ => 12,
        };
        let answer = match frame::parse(datagram, code_bytes).ok()? {
            Packet::Sessionless { message } => self.sessionless(message),
            Packet::Secure(packet) => match packet.payload_type {
                Payload::OpenRequest => self.open_request(packet.payload),
                Payload::Rakp1 => self.rakp1(packet.payload),
                Payload::Rakp3 => self.rakp3(packet.payload, from),
                Payload::Ipmi if packet.session_id == 0 => self.sessionless_v2(packet.payload),
                Payload::Ipmi => return self.command(&packet, from),
                Payload::Sol => {
                    self.console_packet(&packet, from);
                    None
                }
                _ => None,
            },
            Packet::Pong { .. } => None,
        };
        answer.map(|datagram| Sent::now(datagram, from))
    }

    fn sessionless(&self, message: &[u8]) -> Option<Vec<u8>> {
        let request = Request::read(message)?;
        let answer = command::sessionless(&self.handle, request.net_fn, request.command, request.data);
        Some(frame::sessionless(&request.answer(&answer)))
    }

    /// The same in the format of 2.0, as ipmitool asks for cipher suites.
    fn sessionless_v2(&self, message: &[u8]) -> Option<Vec<u8>> {
        let request = Request::read(message)?;
        let answer = command::sessionless(&self.handle, request.net_fn, request.command, request.data);
        Some(frame::plain(Payload::Ipmi, &request.answer(&answer)))
    }

    fn open_request(&mut self, payload: &[u8]) -> Option<Vec<u8>> {
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
            return Some(frame::plain(Payload::OpenResponse, &refusal));
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
        Some(frame::plain(Payload::OpenResponse, &answer))
    }

    fn rakp1(&mut self, payload: &[u8]) -> Option<Vec<u8>> {
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
        let guid = state.identity().to_be_bytes();
        let Some(account) = state.ipmi_account(&opening.user) else {
            if let Some(status) = answer.get_mut(1) {
                *status = 0x0d;
            }
            return Some(frame::plain(Payload::Rakp2, &answer));
        };
        answer.extend(opening.bmc_random);
        answer.extend(guid);
        if let Strength::Of(suite) = opening.strength {
            let (console, bmc) = (opening.console_id.to_le_bytes(), id.to_le_bytes());
            let (role, length) = ([opening.role], [u8::try_from(opening.user.len()).unwrap_or(0)]);
            let user = opening.user.as_bytes();
            let parts: [&[u8]; 8] =
                [&console, &bmc, &opening.console_random, &opening.bmc_random, &guid, &role, &length, user];
            let code = suite.hmac(account.password.expose(), &parts);
            // An impostor knows no password: what it shows is noise.
            let noise = u8::from(state.has(Misbehaviour::IpmiImpostor));
            answer.extend(code.iter().map(|byte| byte ^ noise));
        }
        Some(frame::plain(Payload::Rakp2, &answer))
    }

    fn rakp3(&mut self, payload: &[u8], from: SocketAddr) -> Option<Vec<u8>> {
        let (tag, status) = (*payload.first()?, *payload.get(1)?);
        let id = u32_of(payload, 4)?;
        let opening = self.opening.remove(&id)?;
        let mut answer = vec![tag, 0, 0, 0];
        answer.extend(opening.console_id.to_le_bytes());
        let refuse = |mut answer: Vec<u8>, code: u8| {
            if let Some(status) = answer.get_mut(1) {
                *status = code;
            }
            Some(frame::plain(Payload::Rakp4, &answer))
        };
        if status != 0 {
            return None;
        }
        let at = self.handle.now();
        let mut state = self.handle.lock();
        let account = state.ipmi_account(&opening.user)?.clone();
        let guid = state.identity().to_be_bytes();
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
            from,
            used_at_ms: at,
        };
        self.open.insert(id, open);
        Some(frame::plain(Payload::Rakp4, &answer))
    }

    /// The session of a packet and what the packet carries, if both hold.
    fn unseal(&mut self, packet: &Secure<'_>, from: SocketAddr) -> Option<(u32, Vec<u8>)> {
        let (at, id) = (self.handle.now(), packet.session_id);
        let open = self.open.get_mut(&id)?;
        if !self.handle.lock().machine.bmc_use_session(at, open.machine_session) {
            self.open.remove(&id);
            return None;
        }
        let plain = open.unseal(packet)?;
        (open.from, open.used_at_ms) = (from, at);
        Some((id, plain))
    }

    fn command(&mut self, packet: &Secure<'_>, from: SocketAddr) -> Option<Sent> {
        let (id, plain) = self.unseal(packet, from)?;
        let at = self.handle.now();
        let request = Request::read(&plain)?;
        self.handle.begins();
        let answer = self.answer(id, &request)?;
        self.handle.ends();
        let open = self.open.get_mut(&id)?;
        let closes = (request.net_fn, request.command) == (0x06, 0x3c) && answer.code == 0;
        let wrong = self.handle.lock().wrong.clone();
        let power = (request.net_fn, request.command) == (0x00, 0x02);
        let sent = if power && wrong.contains(&Misbehaviour::PowerReplyLost) || answer.lost {
            None
        } else {
            let mut answered = request;
            if wrong.contains(&Misbehaviour::IpmiOtherCommand) {
                answered.command ^= 0x40;
            }
            let mut message = answered.answer(&answer);
            if wrong.contains(&Misbehaviour::IpmiCut) {
                message.truncate(message.len() / 2);
            }
            let datagrams = open.deliver(Payload::Ipmi, &message, &wrong);
            Some(Sent { datagrams, to: from, after: answer.after })
        };
        if closes && let Some(open) = self.open.remove(&id) {
            self.handle.lock().machine.bmc_logout(at, open.machine_session);
        }
        sent
    }

    /// Does what a session asks: commands about payloads here, as they are about all sessions, the others elsewhere.
    fn answer(&mut self, id: u32, request: &Request<'_>) -> Option<Answer> {
        let open = self.open.get_mut(&id)?;
        let Request { net_fn, command, data, .. } = *request;
        if !payload::is_one(net_fn, command) {
            return Some(command::run(&self.handle, &mut open.context, net_fn, command, data));
        }
        if let Some(refusal) = command::refusal(&self.handle, &open.context, net_fn, command) {
            return Some(refusal);
        }
        let encrypted = open.strength != Strength::Zero;
        self.forget_lost_console();
        let asker = payload::Asker { session: id, encrypted, port: self.port };
        let done = payload::run(&mut self.payloads, asker, net_fn, command, data);
        if let Some(lost) = done.taken_from
            && let Some(open) = self.open.get_mut(&lost)
        {
            let wrong = self.handle.lock().wrong.clone();
            let datagrams = open.deliver(Payload::Sol, &sol::DEACTIVATION, &wrong);
            self.waiting.push(Sent { datagrams, to: open.from, after: Duration::ZERO });
        }
        Some(done.answer)
    }

    fn console_packet(&mut self, packet: &Secure<'_>, from: SocketAddr) {
        let Some((id, payload)) = self.unseal(packet, from) else { return };
        let at = self.handle.now();
        let Some(console) = self.payloads.console.as_mut().filter(|console| console.session == id) else { return };
        let mut state = self.handle.lock();
        if let Some(answer) = console.sol.accept(&mut state, at, &payload)
            && let Some(open) = self.open.get_mut(&id)
        {
            let datagrams = open.deliver(Payload::Sol, &answer, &state.wrong);
            self.waiting.push(Sent { datagrams, to: from, after: Duration::ZERO });
        }
    }

    /// Somebody has the console.
    pub(super) fn has_console(&self) -> bool {
        self.payloads.console.is_some()
    }

    /// Lets time pass: what the host has printed meanwhile, and what was not acknowledged.
    pub(super) fn tick(&mut self) -> Vec<Sent> {
        self.forget_lost_console();
        if !self.is_dead() {
            self.console_out();
        }
        std::mem::take(&mut self.waiting)
    }

    fn console_out(&mut self) {
        let at = self.handle.now();
        let timing = self.payloads.config.timing();
        let Some(console) = self.payloads.console.as_mut() else { return };
        let Some(open) = self.open.get_mut(&console.session) else { return };
        let mut state = self.handle.lock();
        let state = &mut *state;
        while let Some(packet) = console.sol.outgoing(&mut state.serial, at, timing) {
            let datagrams = open.deliver(Payload::Sol, &packet, &state.wrong);
            self.waiting.push(Sent { datagrams, to: open.from, after: Duration::ZERO });
        }
    }

    /// A console ends with its session, however that ended.
    fn forget_lost_console(&mut self) {
        let at = self.handle.now();
        let state = self.handle.lock();
        if state.machine.bmc_sessions() == 0 {
            self.open.clear();
        }
        let idle_ms = state.machine.spec().bmc_session_idle_ms;
        let lives = |id: u32| self.open.get(&id).is_some_and(|open| at < open.used_at_ms + idle_ms);
        self.payloads.console.take_if(|console| !lives(console.session));
    }

    /// Nothing is answered at all.
    fn is_dead(&self) -> bool {
        let at = self.handle.now();
        let mut state = self.handle.lock();
        state.settle(at);
        matches!(state.machine.bmc_answers(at), Err(BmcError::Silent)) || state.has(Misbehaviour::IpmiSilent)
    }
}
