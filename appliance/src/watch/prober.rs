//! The prober without its wire: which probes leave when, what an answer answers, and what is told. Pure but for the key
//! of its cookies; time comes as an argument.
//!
//! **Schedule.** A round is a second of a hundred slots; each host has its slot by its place in the roster, so the second
//! is filled evenly and each segment sees at most `hosts / 100` of each kind in 10 ms (a late prober catches up with at
//! most four slots at a time). ARP and ICMP go each round, SYN each second round and each round for hosts that do not
//! answer or are attended to.
//!
//! **Answers** are matched by card (attached hosts), address, identifier, round and a keyed cookie, so that who does not
//! see the probe cannot answer it, and one host not for another. One that is late still proves life. A SYN/ACK is ended
//! by the kernel's own RST where our address is the kernel's, else by ours; source ports lie above those that Linux gives
//! to programs, so no connection of this machine is ever met.
//!
//! **Misses** are called 800 ms after a probe left, if the receiver was drained since (rule 47). Moments are taken where they
//! cannot flatter: a probe left when the send had returned, and the receiver was drained up to the moment *before* it was
//! read. A turn that came more than 500 ms late makes everything under way void: answers lay there, unread by us.

use super::frame::{self, Heard, Way};
use super::look::Looks;
use super::surroundings::Surroundings;
use super::tally::Tally;
use super::target::{Reach, Roster, Target};
use super::track::{Match, Track};
use super::wire::{Frames, Received};
use healing::id::HostId;
use healing::sight::OwnSight;
use healing::signal::{Seen, Signal, Source};
use healing::time::{Elapsed, Millis, SECOND};
use pxe::mac::Mac;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::Ipv4Addr;

/// Length of a slot of the schedule.
pub const SLOT_MS: Millis = 10;

/// Slots of a round.
const SLOTS: u64 = SECOND / SLOT_MS;

/// How long an answer may take before its probe is called missed.
pub const ANSWER_MS: Millis = 800;

/// How long after that the receiver may be drained at the latest (rule 47).
const DRAINED_MS: Millis = 500;

/// A turn that is later than this makes what is under way void: its answers may have lain unread, or its probes unsent.
const LATE_TURN_MS: Millis = 500;

/// Not run for longer, all evidence is void (rule 47).
pub const STALL_MS: Millis = 2_000;

/// Slots served at once by a prober that is late.
const CATCH_UP_SLOTS: u64 = 4;

/// Rounds after which the runs of a host that answers are told.
const TOLD_EVERY_ROUNDS: u64 = 5;

/// The four kinds of probe, in the order of a host's tracks.
const KINDS: [Source; 4] = [Source::Arp, Source::Icmp, Source::KubeletPort, Source::SecondPort];
const ARP: usize = 0;
const ICMP: usize = 1;
const KUBELET: usize = 2;
const SECOND_PORT: usize = 3;

/// By what answers are known to be ours; the kernel's filter asks for the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// Identifier of the scheduled echoes; the next one is that of single looks.
    pub echo_id: u16,
    /// The first of 256 source ports; above 60,999, where Linux's own begin to end.
    pub first_port: u16,
}

impl Marks {
    /// Source ports of scheduled probes; as many follow for single looks.
    pub const PORTS: u16 = 128;

    /// Marks with an identifier that another appliance on this machine hardly has.
    #[must_use]
    pub fn random() -> Marks {
        let [a, b, ..] = RandomState::new().hash_one("marks").to_be_bytes();
        Marks { echo_id: u16::from_be_bytes([a, b]) & !1, first_port: 61_000 + u16::from(a % 16) * 256 }
    }

    fn port(&self, round: u16) -> u16 {
        self.first_port + round % Self::PORTS
    }
}

/// How a host stands for those who look at it otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// It answered its last echo.
    pub echoes: bool,
    /// Its kubelet's port answered last.
    pub listens: bool,
    /// Something of it does not answer, or it is attended to: look at it faster.
    pub suspect: bool,
}

#[derive(Debug, Clone, Copy)]
struct Watched {
    target: Target,
    tracks: [Track; 4],
    attended: bool,
    standing: Standing,
}

impl Watched {
    fn new(target: Target) -> Watched {
        Watched { target, tracks: [Track::default(); 4], attended: false, standing: Standing::default() }
    }

    fn suspect(&self) -> bool {
        let ill = |track: &Track| matches!(track.verdict(), Some(Seen::Miss | Seen::Refused));
        self.attended || self.tracks.iter().any(ill)
    }

    fn stands(&self) -> Standing {
        let answers = |kind: usize| self.tracks[kind].verdict() == Some(Seen::Answer);
        Standing { echoes: answers(ICMP), listens: answers(KUBELET), suspect: self.suspect() }
    }
}

/// Probes that left together and become misses together.
#[derive(Debug, Clone, Copy)]
struct Batch {
    from: usize,
    to: usize,
    round: u16,
    sent_at: Elapsed,
    void: bool,
}

/// Whose a frame of the burst is.
#[derive(Debug, Clone, Copy)]
enum Sent {
    Scheduled(usize, usize),
    Look,
    Other,
}

/// What came of a turn, for the rest of the appliance.
#[derive(Debug, Default)]
pub struct Told {
    /// What hosts showed.
    pub signals: Vec<(HostId, Signal)>,
    /// Hosts that stand otherwise than before.
    pub standings: Vec<(HostId, Standing)>,
    /// Looks that ended: by their number, whether echo and port answered.
    pub looks: Vec<(u64, Option<(bool, bool)>)>,
}

/// See the module.
#[derive(Debug)]
pub struct Prober {
    us: (Mac, Ipv4Addr),
    marks: Marks,
    key: RandomState,
    resets: bool,
    watched: Vec<Watched>,
    by_address: HashMap<Ipv4Addr, usize>,
    cards: HashMap<Mac, HostId>,
    attended: HashSet<HostId>,
    surroundings: Surroundings,
    looks: Looks,
    /// The next slot, counted from the beginning; a round is a hundred.
    slot: u64,
    due_at: Elapsed,
    ran_at: Elapsed,
    batches: VecDeque<Batch>,
    sent: Vec<Sent>,
    resets_due: Vec<(Way, u16, u16, u32)>,
    told: Told,
    tally: Tally,
}

impl Prober {
    /// A prober that begins now. `resets`: it must end half-open connections itself.
    #[must_use]
    pub fn new(mac: Mac, address: Ipv4Addr, marks: Marks, resets: bool, now: Elapsed) -> Prober {
        Prober {
            us: (mac, address),
            marks,
            key: RandomState::new(),
            resets,
            watched: Vec::new(),
            by_address: HashMap::new(),
            cards: HashMap::new(),
            attended: HashSet::new(),
            surroundings: Surroundings::default(),
            looks: Looks::default(),
            slot: 0,
            due_at: now,
            ran_at: now,
            batches: VecDeque::new(),
            sent: Vec::new(),
            resets_due: Vec::new(),
            told: Told::default(),
            tally: Tally::default(),
        }
    }

    /// Takes another roster. What is under way to hosts that stay the same may still be answered, and is not missed.
    pub fn replace(&mut self, roster: &Roster) {
        let known: HashMap<HostId, Watched> = self.watched.drain(..).map(|w| (w.target.host, w)).collect();
        let kept = |target: &Target| known.get(&target.host).filter(|w| w.target == *target).copied();
        self.watched = roster.targets().iter().map(|t| kept(t).unwrap_or_else(|| Watched::new(*t))).collect();
        for watched in &mut self.watched {
            watched.attended = self.attended.contains(&watched.target.host);
        }
        self.by_address = self.watched.iter().enumerate().map(|(place, w)| (w.target.address, place)).collect();
        self.cards = roster.cards().collect();
        self.surroundings.replace(roster);
        self.batches.clear();
    }

    /// These hosts are looked at faster, besides those that do not answer.
    pub fn attend(&mut self, hosts: &[HostId]) {
        self.attended = hosts.iter().copied().collect();
        for watched in &mut self.watched {
            watched.attended = self.attended.contains(&watched.target.host);
        }
    }

    /// Looks once at a host, now: three echoes and one SYN. What came of it is told under `number`.
    pub fn look(&mut self, number: u64, host: HostId, now: Elapsed) {
        match self.watched.iter().find(|w| w.target.host == host).map(|w| w.target) {
            Some(target) => self.looks.begin(number, target, now),
            None => self.told.looks.push((number, None)),
        }
    }

    /// When there is next something to do.
    #[must_use]
    pub fn next_at(&self) -> Elapsed {
        self.due_at
    }

    /// A frame came in.
    pub fn heard(&mut self, bytes: &[u8], now: Elapsed) {
        match frame::read(bytes, self.us.1) {
            Some(Heard::Arp { card, address }) => self.heard_arp(card, address, now),
            Some(Heard::Echo { card, address, id, sequence, cookie }) => {
                self.heard_echo(card, address, [id, sequence], cookie, now);
            }
            Some(Heard::Tcp { card, address, port, to_port, sequence: _, acknowledged, listening }) => {
                self.heard_tcp(card, address, [port, to_port], acknowledged, listening, now);
            }
            Some(Heard::BootRequest { card }) => {
                if let Some(host) = self.cards.get(&card) {
                    self.tally.boot_requests += 1;
                    self.told.signals.push((*host, Signal::sample(Source::BootRequest, Seen::AskedToBoot, now)));
                }
            }
            None => {}
        }
    }

    /// The host that has this address, if it is this card's to answer for it.
    fn place(&mut self, card: Mac, address: Ipv4Addr) -> Option<usize> {
        let place = self.by_address.get(&address).copied().filter(|place| {
            self.watched.get(*place).is_some_and(|watched| match watched.target.reach {
                Reach::Attached(expected) => expected == card,
                Reach::Routed => true,
            })
        });
        if place.is_none() {
            self.tally.foreign += 1;
        }
        place
    }

    fn heard_arp(&mut self, card: Mac, address: Ipv4Addr, now: Elapsed) {
        if self.surroundings.heard_arp(card, address, now) && !self.by_address.contains_key(&address) {
            return;
        }
        let Some(place) = self.place(card, address) else { return };
        let matched = self.watched[place].tracks[ARP].answers_any();
        self.answered(place, ARP, Seen::Answer, matched, None, now);
    }

    fn heard_echo(&mut self, card: Mac, address: Ipv4Addr, [id, sequence]: [u16; 2], cookie: u64, now: Elapsed) {
        if self.surroundings.heard_echo(address, [id, sequence], cookie, self.marks, &self.key, now) {
            return;
        }
        let Some(place) = self.place(card, address) else { return };
        let host = self.watched[place].target.host;
        if id == self.marks.echo_id.wrapping_add(1) {
            if !self.looks.heard_echo(host, sequence, cookie, &self.key) {
                self.tally.foreign += 1;
            }
            return;
        }
        if id != self.marks.echo_id || cookie != self.key.hash_one((host, ICMP, sequence)) {
            self.tally.foreign += 1;
            return;
        }
        let matched = self.watched[place].tracks[ICMP].answers(sequence);
        self.answered(place, ICMP, Seen::Answer, matched, Some(sequence), now);
    }

    fn heard_tcp(
        &mut self,
        card: Mac,
        address: Ipv4Addr,
        [port, to_port]: [u16; 2],
        acknowledged: u32,
        listening: bool,
        now: Elapsed,
    ) {
        let Some(place) = self.place(card, address) else { return };
        let target = self.watched[place].target;
        if listening && self.resets {
            self.resets_due.extend(self.way(&target).map(|way| (way, to_port, port, acknowledged)));
        }
        if self.looks.heard_tcp(target.host, [port, to_port], acknowledged, self.marks, &self.key) {
            return;
        }
        let kind = if port == target.kubelet_port { KUBELET } else { SECOND_PORT };
        let offset = to_port.wrapping_sub(self.marks.first_port);
        let round = self.recent_round(offset);
        let expected = round.map(|round| syn_number(&self.key, target.host, kind, round).wrapping_add(1));
        let ours = port == target.kubelet_port || port == target.second_port;
        let Some(round) = round.filter(|_| ours && expected == Some(acknowledged)) else {
            self.tally.foreign += 1;
            return;
        };
        let seen = if listening { Seen::Answer } else { Seen::Refused };
        let matched = self.watched[place].tracks[kind].answers(round);
        self.answered(place, kind, seen, matched, Some(round), now);
    }

    /// The newest round that used this source port.
    fn recent_round(&self, offset: u16) -> Option<u16> {
        let round = round_of(self.slot.saturating_sub(1));
        let back = round.wrapping_sub(offset) % Marks::PORTS;
        (offset < Marks::PORTS).then(|| round.wrapping_sub(back))
    }

    fn answered(&mut self, place: usize, kind: usize, seen: Seen, matched: Match, round: Option<u16>, now: Elapsed) {
        if matched == Match::Duplicate {
            self.tally.duplicates += 1;
            return;
        }
        self.tally.answered += 1;
        // Its batch is gone once its misses were called.
        let open = |b: &Batch| b.round == round.unwrap_or(b.round) && (b.from..b.to).contains(&place);
        if round.is_some()
            && self.watched[place].tracks[kind].verdict() == Some(Seen::Miss)
            && !self.batches.iter().any(open)
        {
            self.tally.late += 1;
        }
        self.sample(place, kind, seen, now);
    }

    fn sample(&mut self, place: usize, kind: usize, seen: Seen, at: Elapsed) {
        let watched = &mut self.watched[place];
        let host = watched.target.host;
        let at_once = seen != Seen::Answer || watched.standing.suspect;
        let signals = &mut self.told.signals;
        watched.tracks[kind].sample(KINDS[kind], seen, at, at_once, &mut |signal| signals.push((host, signal)));
        let standing = watched.stands();
        if standing != watched.standing {
            watched.standing = standing;
            self.told.standings.push((host, standing));
        }
    }

    /// A turn of receiving is over: calls the misses whose time has come. Everything that had arrived by `drained_at` was
    /// handed over; what came between it and `now` may still lie there.
    pub fn received(&mut self, received: Received, drained_at: Elapsed, now: Elapsed) {
        self.tally.lost_frames += u64::try_from(received.lost).unwrap_or(u64::MAX);
        if received.lost > 0 {
            // Which answers were among them nobody knows.
            self.batches.iter_mut().for_each(|batch| batch.void = true);
            self.looks.void();
        }
        if !received.drained {
            return;
        }
        while let Some(batch) = self.batches.front().copied().filter(|b| drained_at >= b.sent_at.plus(ANSWER_MS)) {
            self.batches.pop_front();
            let deadline = batch.sent_at.plus(ANSWER_MS);
            let counts = !batch.void && now.since(deadline) <= DRAINED_MS;
            for place in batch.from..batch.to {
                for kind in [ARP, ICMP, KUBELET, SECOND_PORT] {
                    if !self.watched[place].tracks[kind].missed(batch.round, batch.sent_at) {
                        continue;
                    }
                    if counts {
                        self.tally.missed += 1;
                        self.sample_miss(place, kind, deadline, now.since(deadline));
                    } else {
                        self.tally.void_misses += 1;
                    }
                }
            }
        }
        self.looks.ended(drained_at, &mut self.told.looks);
    }

    fn sample_miss(&mut self, place: usize, kind: usize, deadline: Elapsed, drained_after_ms: Millis) {
        let before = self.told.signals.len();
        self.sample(place, kind, Seen::Miss, deadline);
        for (_, signal) in self.told.signals.iter_mut().skip(before).filter(|(_, s)| s.seen == Seen::Miss) {
            signal.drained_after_ms = drained_after_ms;
        }
    }

    /// Builds the probes that are due. Returns for how long the prober did not run, if that makes all evidence void.
    pub fn due(&mut self, now: Elapsed, frames: &mut Frames) -> Option<Millis> {
        frames.clear();
        self.sent.clear();
        let gap = now.since(self.ran_at);
        self.ran_at = now;
        let stalled = (gap > STALL_MS).then_some(gap);
        if stalled.is_some() {
            self.tally.stalls += 1;
            self.void();
            self.due_at = now;
        } else if gap > LATE_TURN_MS {
            self.tally.late_turns += 1;
            self.batches.iter_mut().for_each(|batch| batch.void = true);
            self.looks.void();
        }
        for (way, from, to, sequence) in std::mem::take(&mut self.resets_due) {
            frame::reset(frames, &way, from, to, sequence);
            self.sent.push(Sent::Other);
        }
        if now.since(self.due_at) > STALL_MS {
            // It runs but cannot keep up: slots are left out rather than sent in a burst.
            self.tally.served(now.since(self.due_at));
            self.due_at = now;
        }
        let mut served = 0;
        while self.due_at <= now && served < CATCH_UP_SLOTS {
            self.tally.served(now.since(self.due_at));
            self.serve_slot(now, frames);
            self.due_at = self.due_at.plus(SLOT_MS);
            self.slot += 1;
            served += 1;
        }
        let (us, marks) = (self.us, self.marks);
        let gateway = self.surroundings.gateway_card();
        self.looks.due(now, marks, &self.key, |target| way_to(us, gateway, target), frames);
        while self.sent.len() < frames.len() {
            self.sent.push(Sent::Look);
        }
        self.tally.sent += u64::try_from(frames.len()).unwrap_or_default();
        stalled
    }

    /// Everything under way is void.
    fn void(&mut self) {
        self.batches.clear();
        self.looks.void();
        for watched in &mut self.watched {
            watched.tracks.iter_mut().for_each(Track::void);
        }
    }

    fn serve_slot(&mut self, now: Elapsed, frames: &mut Frames) {
        let (round, in_round) = (round_of(self.slot), self.slot % SLOTS);
        if in_round == 0 {
            self.surroundings.probe(self.us, round, self.marks, &self.key, frames);
            while self.sent.len() < frames.len() {
                self.sent.push(Sent::Other);
            }
        }
        let hosts = self.watched.len() as u64;
        let edge = |slot: u64| usize::try_from(hosts * slot / SLOTS).unwrap_or(usize::MAX);
        let (from, to) = (edge(in_round), edge(in_round + 1));
        if from == to {
            return;
        }
        for place in from..to {
            self.probe(place, round, frames);
            let watched = &mut self.watched[place];
            if (self.slot / SLOTS + place as u64).is_multiple_of(TOLD_EVERY_ROUNDS) {
                let (host, signals) = (watched.target.host, &mut self.told.signals);
                for (track, source) in watched.tracks.iter_mut().zip(KINDS) {
                    track.flush(source, &mut |signal| signals.push((host, signal)));
                }
            }
        }
        self.batches.push_back(Batch { from, to, round, sent_at: now, void: false });
    }

    fn probe(&mut self, place: usize, round: u16, frames: &mut Frames) {
        let target = self.watched[place].target;
        let Some(way) = self.way(&target) else { return };
        let even = (u64::from(round) + place as u64).is_multiple_of(2);
        let ports = even || self.watched[place].standing.suspect || self.watched[place].attended;
        let Watched { tracks, .. } = &mut self.watched[place];
        if target.reach != Reach::Routed {
            frame::arp_request(frames, &way);
            tracks[ARP].sends(round);
            self.sent.push(Sent::Scheduled(place, ARP));
        }
        let cookie = self.key.hash_one((target.host, ICMP, round));
        frame::echo_request(frames, &way, self.marks.echo_id, round, cookie);
        tracks[ICMP].sends(round);
        self.sent.push(Sent::Scheduled(place, ICMP));
        if ports {
            for (kind, port) in [(KUBELET, target.kubelet_port), (SECOND_PORT, target.second_port)] {
                let number = syn_number(&self.key, target.host, kind, round);
                frame::syn(frames, &way, self.marks.port(round), port, number);
                tracks[kind].sends(round);
                self.sent.push(Sent::Scheduled(place, kind));
            }
        }
    }

    fn way(&self, target: &Target) -> Option<Way> {
        way_to(self.us, self.surroundings.gateway_card(), target)
    }

    /// The burst that was built at `built_at` has left, all of it, at this moment. One that took long to leave proves nothing
    /// by silence: how long its first probe was under way is not known.
    pub fn left(&mut self, built_at: Elapsed, now: Elapsed) {
        let slow = now.since(built_at) > LATE_TURN_MS;
        for batch in self.batches.iter_mut().rev().take_while(|batch| batch.sent_at >= built_at) {
            batch.sent_at = batch.sent_at.max(now);
            batch.void |= slow;
        }
        if slow {
            self.tally.late_turns += 1;
            self.looks.void();
        }
    }

    /// The frame of this place in the last burst did not leave.
    pub fn unsent(&mut self, place: usize) {
        self.tally.unsent += 1;
        self.tally.sent = self.tally.sent.saturating_sub(1);
        match self.sent.get(place) {
            Some(Sent::Scheduled(host, kind)) => self.watched[*host].tracks[*kind].unsent(),
            Some(Sent::Look) => self.looks.void(),
            Some(Sent::Other) | None => {}
        }
    }

    /// What was seen since the last call.
    pub fn told(&mut self) -> &mut Told {
        &mut self.told
    }

    /// What we see of our own place on the network. The counts are the loop's to fill in.
    #[must_use]
    pub fn own_sight(&self, link: bool, now: Elapsed) -> OwnSight {
        self.surroundings.sight(link, now)
    }

    /// What was counted.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    pub(super) fn reopened(&mut self) {
        self.tally.reopened += 1;
    }
}

/// The card to send to, if it is known.
fn way_to(us: (Mac, Ipv4Addr), gateway: Option<Mac>, target: &Target) -> Option<Way> {
    let to = match target.reach {
        Reach::Attached(card) => card,
        Reach::Routed => gateway?,
    };
    Some(Way { from: us.0, from_address: us.1, to, to_address: target.address })
}

fn round_of(slot: u64) -> u16 {
    u16::try_from(slot / SLOTS % 0x1_0000).unwrap_or_default()
}

fn syn_number(key: &RandomState, host: HostId, kind: usize, round: u16) -> u32 {
    let [a, b, c, d, ..] = key.hash_one((host, kind, round)).to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

#[cfg(test)]
#[path = "prober_tests.rs"]
mod tests;
