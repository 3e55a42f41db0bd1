//! Single looks at a host, for the last look before power and for the witness of a proof: three echoes and one SYN.

use super::frame::{self, Way};
use super::prober::Marks;
use super::target::Target;
use super::wire::Frames;
use healing::id::HostId;
use healing::time::{Elapsed, Millis};
use std::hash::{BuildHasher, RandomState};

/// Echoes of a look.
const ECHOES: u16 = 3;

/// Time between them.
const SPACING_MS: Millis = 300;

/// Time for the last answer. Looks fit into the three seconds of the last look.
const ANSWER_MS: Millis = 800;

/// Looks under way at the same time. More are refused: whoever asks so much has lost count.
const LOOKS_MAX: usize = 1_024;

#[derive(Debug)]
struct Look {
    number: u64,
    target: Target,
    /// Distinguishes looks at the same host.
    turn: u16,
    sent: u16,
    next_at: Elapsed,
    icmp: bool,
    tcp: bool,
    /// A probe did not leave, or answers were lost: silence would say nothing.
    void: bool,
}

/// Those under way.
#[derive(Debug, Default)]
pub(super) struct Looks {
    under_way: Vec<Look>,
    turn: u16,
}

impl Looks {
    pub(super) fn begin(&mut self, number: u64, target: Target, now: Elapsed) {
        self.turn = self.turn.wrapping_add(1);
        let void = self.under_way.len() >= LOOKS_MAX;
        let look = Look { number, target, turn: self.turn, sent: 0, next_at: now, icmp: false, tcp: false, void };
        self.under_way.push(look);
    }

    /// Builds the probes that are due.
    pub(super) fn due(
        &mut self,
        now: Elapsed,
        marks: Marks,
        key: &RandomState,
        way: impl Fn(&Target) -> Option<Way>,
        frames: &mut Frames,
    ) {
        for look in self.under_way.iter_mut().filter(|look| look.next_at <= now && look.sent < ECHOES && !look.void) {
            let Some(way) = way(&look.target) else {
                look.void = true;
                continue;
            };
            let sequence = sequence(look.turn, look.sent);
            frame::echo_request(
                frames,
                &way,
                marks.echo_id.wrapping_add(1),
                sequence,
                echo_cookie(key, look, sequence),
            );
            if look.sent == 0 {
                let from = marks.first_port + Marks::PORTS + look.turn % Marks::PORTS;
                frame::syn(frames, &way, from, look.target.kubelet_port, syn_number(key, look));
            }
            look.sent += 1;
            look.next_at = now.plus(if look.sent < ECHOES { SPACING_MS } else { ANSWER_MS });
        }
    }

    /// Whether an echo reply is that of a look.
    pub(super) fn heard_echo(&mut self, host: HostId, number: u16, cookie: u64, key: &RandomState) -> bool {
        let ours = |look: &&mut Look| {
            look.target.host == host
                && (0..look.sent).any(|n| sequence(look.turn, n) == number)
                && echo_cookie(key, look, number) == cookie
        };
        self.under_way.iter_mut().find(ours).map(|look| look.icmp = true).is_some()
    }

    /// Whether a SYN/ACK or RST is that of a look. Both are signs of life.
    pub(super) fn heard_tcp(
        &mut self,
        host: HostId,
        [port, to_port]: [u16; 2],
        acknowledged: u32,
        marks: Marks,
        key: &RandomState,
    ) -> bool {
        let ours = |look: &&mut Look| {
            look.target.host == host
                && look.target.kubelet_port == port
                && marks.first_port + Marks::PORTS + look.turn % Marks::PORTS == to_port
                && syn_number(key, look).wrapping_add(1) == acknowledged
        };
        self.under_way.iter_mut().find(ours).map(|look| look.tcp = true).is_some()
    }

    /// Silence says nothing for those under way.
    pub(super) fn void(&mut self) {
        self.under_way.iter_mut().for_each(|look| look.void = true);
    }

    /// Takes out those that are over.
    pub(super) fn ended(&mut self, now: Elapsed, told: &mut Vec<(u64, Option<(bool, bool)>)>) {
        self.under_way.retain(|look| {
            let answered = look.icmp && look.tcp;
            let over = look.void || answered || (look.sent >= ECHOES && look.next_at <= now);
            if over {
                // An answer is an answer, whatever else was lost.
                let known = !look.void || look.icmp || look.tcp;
                told.push((look.number, known.then_some((look.icmp, look.tcp))));
            }
            !over
        });
    }
}

fn sequence(turn: u16, n: u16) -> u16 {
    turn.wrapping_mul(ECHOES).wrapping_add(n)
}

fn echo_cookie(key: &RandomState, look: &Look, sequence: u16) -> u64 {
    key.hash_one(("look", look.target.host, look.number, sequence))
}

fn syn_number(key: &RandomState, look: &Look) -> u32 {
    let [a, b, c, d, ..] = key.hash_one(("look", look.target.host, look.number)).to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}
