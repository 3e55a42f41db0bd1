//! The segments that are watched: which hosts are probed through which, and the watchers themselves.

use super::book::{Book, holds};
use super::resources::HostEntry;
use crate::decide_loop::{Inbox, RunningTime, Signals};
use crate::watch::held::{HeldConnections, held_max};
use crate::watch::kubelet::KubeletWatch;
use crate::watch::network::{NetworkWatch, OpenWire, Setup, TellSight};
use crate::watch::prober::Marks;
use crate::watch::target::{BadRoster, KUBELET_PORT, REFERENCES_MAX, Reach, ReferencePoint, Roster, Target};
use crate::watch::wire::WireError;
use healing::id::{DomainId, HostId};
use healing::sight::OwnSight;
use pxe::mac::Mac;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Share of all files that this process may have open which connections to kubelets may take.
const HELD_SHARE_PERCENT: u8 = 60;

/// An address that should always answer, and where it stands.
#[derive(Debug, Clone)]
pub struct ReferencePlace {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its physical domain, by name.
    pub domain: Option<String>,
}

/// A segment, before it is opened.
pub struct Segment {
    /// Its network: hosts within it must answer with their own card.
    pub network: (Ipv4Addr, u8),
    /// Its gateway.
    pub gateway: Option<Ipv4Addr>,
    /// What should always answer on it or behind it.
    pub references: Vec<ReferencePlace>,
    /// By what answers are known to be ours.
    pub marks: Marks,
    /// Opens its wire.
    pub open: OpenWire,
    /// The kernel of this machine reaches its hosts too: kubelets are asked over TLS, and connections to them held.
    pub connects: bool,
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Segment")
            .field("network", &self.network)
            .field("gateway", &self.gateway)
            .finish_non_exhaustive()
    }
}

/// What a roster is made of, kept for when the register changes.
#[derive(Debug, Clone)]
struct Shape {
    network: (Ipv4Addr, u8),
    gateway: Option<Ipv4Addr>,
    references: Vec<ReferencePlace>,
}

/// All segments at work.
#[derive(Debug)]
pub struct Segments {
    rosters: Vec<(Shape, watch::Sender<Arc<Roster>>)>,
}

/// Why segments cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum NoSegments {
    /// The wire.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The hosts cannot be probed.
    #[error(transparent)]
    Roster(#[from] BadRoster),
}

/// What the watchers share with the rest.
#[derive(Debug, Clone)]
pub struct Near {
    /// The doors into the loop.
    pub inbox: Inbox,
    /// Its running time.
    pub time: RunningTime,
    /// Who has an incident.
    pub attended: watch::Receiver<Arc<Vec<HostId>>>,
    /// Ends everything.
    pub stop: CancellationToken,
}

impl Segments {
    /// Opens every wire and starts to watch. Gives the probers beside.
    ///
    /// # Errors
    /// A wire cannot be opened, or the hosts cannot be told apart.
    pub fn start(
        segments: Vec<Segment>,
        book: &Book,
        near: &Near,
        tracker: &TaskTracker,
    ) -> Result<(Segments, Vec<NetworkWatch>), NoSegments> {
        let shapes: Vec<Shape> = segments
            .iter()
            .map(|segment| Shape {
                network: segment.network,
                gateway: segment.gateway,
                references: segment.references.clone(),
            })
            .collect();
        let sights = Arc::new(Sights::new(shapes.len(), near.inbox.signals.clone()));
        let all = rosters(&shapes, book)?;
        let (mut kept, mut networks) = (Vec::new(), Vec::new());
        for (index, ((segment, shape), roster)) in segments.into_iter().zip(shapes).zip(all).enumerate() {
            let (tell, roster) = watch::channel(Arc::new(roster));
            let sights = Arc::clone(&sights);
            let tell_sight: TellSight = Box::new(move |sight| sights.put(index, sight));
            let network = NetworkWatch::start(Setup {
                open: segment.open,
                marks: segment.marks,
                roster: roster.clone(),
                attended: near.attended.clone(),
                signals: near.inbox.signals.clone(),
                tell_sight,
                time: near.time.clone(),
            })?;
            if segment.connects {
                connect(&network, roster, near, tracker);
            }
            kept.push((shape, tell));
            networks.push(network);
        }
        Ok((Segments { rosters: kept }, networks))
    }

    /// Whether the hosts of a register can be told apart on the wire.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, book: &Book) -> Result<(), BadRoster> {
        self.made_of(book).map(drop)
    }

    fn made_of(&self, book: &Book) -> Result<Vec<Roster>, BadRoster> {
        let shapes: Vec<Shape> = self.rosters.iter().map(|(shape, _)| shape.clone()).collect();
        rosters(&shapes, book)
    }

    /// The register changed.
    ///
    /// # Errors
    /// The hosts could not be told apart; then everything stays as it was.
    pub fn replace(&self, book: &Book) -> Result<(), BadRoster> {
        for ((_, tell), roster) in self.rosters.iter().zip(self.made_of(book)?) {
            tell.send_if_modified(|known| {
                let changed = **known != roster;
                if changed {
                    *known = Arc::new(roster);
                }
                changed
            });
        }
        Ok(())
    }
}

/// The slow looks at kubelets, beside the prober's.
fn connect(network: &NetworkWatch, roster: watch::Receiver<Arc<Roster>>, near: &Near, tracker: &TaskTracker) {
    let kubelets = KubeletWatch {
        roster: roster.clone(),
        standings: network.standings(),
        signals: near.inbox.signals.clone(),
        time: near.time.clone(),
    };
    let stop = near.stop.clone();
    tracker.spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            done = kubelets.run() => {
                if let Err(why) = done {
                    tracing::error!(%why, "kubelets are not asked over TLS: a hung one behind a listening port is not seen");
                }
            }
        }
    });
    let held = HeldConnections {
        roster,
        standings: network.standings(),
        signals: near.inbox.signals.clone(),
        time: near.time.clone(),
        most: held_max(HELD_SHARE_PERCENT),
        open: Arc::default(),
    };
    let stop = near.stop.clone();
    tracker.spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = held.run() => {}
        }
    });
}

/// One roster for each segment: a host belongs to the segment whose network has its address, else to the first with a
/// gateway.
fn rosters(shapes: &[Shape], book: &Book) -> Result<Vec<Roster>, BadRoster> {
    let mut targets: Vec<Vec<Target>> = vec![Vec::new(); shapes.len()];
    let mut cards: Vec<Vec<(Mac, HostId)>> = vec![Vec::new(); shapes.len()];
    let behind = shapes.iter().position(|shape| shape.gateway.is_some());
    for host in book.hosts.values() {
        let entry = &host.entry;
        let own: Vec<Mac> = entry.macs.iter().filter_map(|mac| mac.parse().ok()).collect();
        let Some(address) = entry.address else { continue };
        let attached = shapes.iter().position(|shape| holds(shape.network, address));
        let reach = match (attached, own.first()) {
            (Some(_), Some(card)) => Reach::Attached(*card),
            _ => Reach::Routed,
        };
        let Some(place) = attached.or(behind) else { continue };
        targets[place].push(target(HostId(host.id), entry, address, reach));
        cards[place].extend(own.into_iter().map(|card| (card, HostId(host.id))));
    }
    let point = |shape: &Shape, place: &ReferencePlace| ReferencePoint {
        address: place.address,
        domain: place.domain.as_ref().and_then(|name| book.labels.get(name)).map(|id| DomainId(*id)),
        attached: holds(shape.network, place.address),
    };
    shapes
        .iter()
        .zip(targets.into_iter().zip(cards))
        .map(|(shape, (targets, cards))| {
            let references = shape.references.iter().map(|place| point(shape, place)).collect();
            Roster::new(targets, cards, shape.gateway, references)
        })
        .collect()
}

fn target(host: HostId, entry: &HostEntry, address: Ipv4Addr, reach: Reach) -> Target {
    Target { host, address, reach, kubelet_port: KUBELET_PORT, second_port: entry.second_port }
}

/// Own sight of all segments together: doubt on one is doubt on all, since a decision asks once.
#[derive(Debug)]
struct Sights {
    all: Mutex<BTreeMap<usize, OwnSight>>,
    segments: usize,
    signals: Signals,
}

impl Sights {
    fn new(segments: usize, signals: Signals) -> Sights {
        Sights { all: Mutex::default(), segments, signals }
    }

    fn put(&self, index: usize, sight: OwnSight) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(index, sight);
        // Until every segment was looked at, nothing is known of the whole.
        if all.len() == self.segments
            && let Some(sight) = together(all.values())
        {
            self.signals.own_sight(sight);
        }
    }
}

fn together<'a>(all: impl Iterator<Item = &'a OwnSight>) -> Option<OwnSight> {
    let mut all = all.cloned();
    let mut whole = all.next()?;
    for sight in all {
        whole.at = whole.at.min(sight.at);
        whole.link &= sight.link;
        whole.gateway &= sight.gateway;
        whole.references.extend(sight.references);
    }
    whole.references.truncate(REFERENCES_MAX);
    Some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::book::Numbered;
    use healing::sight::Reference;
    use healing::time::Elapsed;

    fn host(id: u32, name: &str, address: &str, mac: &str) -> (String, Numbered<HostEntry>) {
        let entry = serde_json::json!({"name": name, "pool": "p", "address": address, "macs": [mac]});
        (name.to_owned(), Numbered { id, entry: serde_json::from_value(entry).unwrap() })
    }

    #[test]
    fn a_host_is_probed_on_its_own_segment_and_others_through_the_gateway() {
        let book = Book {
            hosts: [
                host(1, "near", "10.1.0.9", "02:00:00:00:00:01"),
                host(2, "other", "10.2.0.9", "02:00:00:00:00:02"),
                host(3, "far", "10.9.0.9", "02:00:00:00:00:03"),
            ]
            .into(),
            ..Book::default()
        };
        let shape = |network: [u8; 4], gateway: Option<[u8; 4]>| Shape {
            network: (network.into(), 24),
            gateway: gateway.map(Ipv4Addr::from),
            references: Vec::new(),
        };
        let shapes = [shape([10, 1, 0, 0], None), shape([10, 2, 0, 0], Some([10, 2, 0, 1]))];
        let all = rosters(&shapes, &book).unwrap();
        let of = |place: usize| all[place].targets().iter().map(|t| (t.host.0, t.reach)).collect::<Vec<_>>();
        assert_eq!(of(0), [(1, Reach::Attached(Mac([2, 0, 0, 0, 0, 1])))]);
        let mut second = of(1);
        second.sort_by_key(|(host, _)| *host);
        assert_eq!(second, [(2, Reach::Attached(Mac([2, 0, 0, 0, 0, 2]))), (3, Reach::Routed)]);
    }

    #[test]
    fn doubt_on_one_segment_is_doubt_on_all() {
        let well = OwnSight {
            at: Elapsed(9),
            link: true,
            gateway: true,
            references: vec![Reference { domain: None, answers: true }],
            ..OwnSight::default()
        };
        let ill = OwnSight { at: Elapsed(7), link: false, ..well.clone() };
        let whole = together([&well, &ill].into_iter()).unwrap();
        assert_eq!((whole.at, whole.link, whole.gateway, whole.references.len()), (Elapsed(7), false, true, 2));
    }
}
