//! Our own place on the network: the gateway, whose card is learned by ARP, and the reference addresses (rule 4).

use super::frame::{self, BROADCAST, Way};
use super::prober::Marks;
use super::target::{ReferencePoint, Roster};
use super::wire::Frames;
use healing::sight::{OwnSight, Reference};
use healing::time::{Elapsed, Millis, SECOND};
use pxe::mac::Mac;
use std::hash::{BuildHasher, RandomState};
use std::net::Ipv4Addr;

/// Asked each second; one of the last three must have been answered.
const ANSWERED_WITHIN_MS: Millis = 3 * SECOND + 500;

#[derive(Debug, Clone, Copy)]
struct Point {
    address: Ipv4Addr,
    attached: bool,
    card: Option<Mac>,
    answered_at: Option<Elapsed>,
    asked: Option<u16>,
}

impl Point {
    fn new(address: Ipv4Addr, attached: bool) -> Point {
        Point { address, attached, card: None, answered_at: None, asked: None }
    }

    fn answers(&self, now: Elapsed) -> bool {
        self.answered_at.is_some_and(|at| now.since(at) <= ANSWERED_WITHIN_MS)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Surroundings {
    gateway: Option<Point>,
    references: Vec<(ReferencePoint, Point)>,
}

impl Surroundings {
    pub(super) fn replace(&mut self, roster: &Roster) {
        let known = std::mem::take(self);
        self.gateway = roster
            .gateway()
            .map(|address| known.gateway.filter(|g| g.address == address).unwrap_or(Point::new(address, true)));
        let kept = |point: &ReferencePoint| {
            let old = known.references.iter().find(|(old, _)| old == point).map(|(_, state)| *state);
            (*point, old.unwrap_or(Point::new(point.address, point.attached)))
        };
        self.references = roster.references().iter().map(kept).collect();
    }

    fn points(&mut self) -> impl Iterator<Item = &mut Point> {
        self.gateway.iter_mut().chain(self.references.iter_mut().map(|(_, point)| point))
    }

    /// The gateway's card as it last said.
    pub(super) fn gateway_card(&self) -> Option<Mac> {
        self.gateway.and_then(|gateway| gateway.card)
    }

    /// Asks each once. A handful of broadcasts each second: a gateway's card changes when its pair takes over.
    pub(super) fn probe(
        &mut self,
        us: (Mac, Ipv4Addr),
        round: u16,
        marks: Marks,
        key: &RandomState,
        frames: &mut Frames,
    ) {
        let gateway = self.gateway_card();
        for point in self.points() {
            point.asked = Some(round);
            let way = |to| Way { from: us.0, from_address: us.1, to, to_address: point.address };
            if point.attached {
                frame::arp_request(frames, &way(BROADCAST));
            }
            if let Some(card) = if point.attached { point.card } else { gateway } {
                let cookie = key.hash_one(("point", point.address, round));
                frame::echo_request(frames, &way(card), marks.echo_id, round, cookie);
            }
        }
    }

    /// Whether an ARP reply is that of one of them.
    pub(super) fn heard_arp(&mut self, card: Mac, address: Ipv4Addr, now: Elapsed) -> bool {
        let mut ours = false;
        for point in self.points().filter(|p| p.address == address && p.attached && p.asked.is_some()) {
            ours = true;
            point.card = Some(card);
            point.answered_at = Some(now);
        }
        ours
    }

    /// Whether an echo reply is that of one of them.
    pub(super) fn heard_echo(
        &mut self,
        address: Ipv4Addr,
        [id, round]: [u16; 2],
        cookie: u64,
        marks: Marks,
        key: &RandomState,
        now: Elapsed,
    ) -> bool {
        let mut ours = false;
        for point in self.points().filter(|p| p.address == address) {
            let recent = point.asked.is_some_and(|asked| asked.wrapping_sub(round) < 4);
            if id == marks.echo_id && recent && key.hash_one(("point", address, round)) == cookie {
                ours = true;
                point.answered_at = Some(now);
            }
        }
        ours
    }

    /// What it looks like. A segment without a gateway has none that could be silent: the references speak alone.
    pub(super) fn sight(&self, link: bool, now: Elapsed) -> OwnSight {
        let references = self.references.iter();
        OwnSight {
            at: now,
            link,
            gateway: self.gateway.is_none_or(|gateway| gateway.answers(now)),
            references: references.map(|(r, p)| Reference { domain: r.domain, answers: p.answers(now) }).collect(),
            ..OwnSight::default()
        }
    }
}
