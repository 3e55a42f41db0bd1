//! Looks at all BMCs in turn: each at its own pace, none waiting for another.

use crate::reading::Readings;
use crate::station::{Skipped, Station};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, Semaphore};
use tokio::time::sleep_until;

/// How often, and how many at once.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// A BMC whose host is well.
    pub healthy: Duration,
    /// One whose host is suspect.
    pub suspect: Duration,
    /// Requests under way at the same time, of all BMCs.
    pub at_once_max: usize,
    /// Suspects looked at in their pace at the same time; the others wait in the healthy one.
    pub suspects_max: usize,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { healthy: Duration::from_secs(30), suspect: Duration::from_secs(2), at_once_max: 256, suspects_max: 32 }
    }
}

/// One look.
#[derive(Debug)]
pub struct Look {
    /// Which BMC, by its place in the list.
    pub place: usize,
    /// When it was asked.
    pub asked_at: Instant,
    /// When the answer was there.
    pub at: Instant,
    /// What came of it.
    pub result: Result<Readings, Skipped>,
}

/// A BMC that is looked at.
#[derive(Debug)]
pub struct Watched {
    /// It.
    pub station: Arc<Station>,
    suspect: AtomicBool,
    under_way: AtomicBool,
}

/// All of them.
#[derive(Debug)]
pub struct Poller {
    watched: Vec<Arc<Watched>>,
    pace: Pace,
    changed: Notify,
}

impl Poller {
    /// Of these.
    #[must_use]
    pub fn new(stations: Vec<Arc<Station>>, pace: Pace) -> Poller {
        let watched = stations.into_iter().map(|station| {
            Arc::new(Watched { station, suspect: AtomicBool::new(false), under_way: AtomicBool::new(false) })
        });
        Poller { watched: watched.collect(), pace, changed: Notify::new() }
    }

    /// Looks at this one in the pace of suspects, or in the healthy one again.
    pub fn suspect(&self, place: usize, suspect: bool) {
        if let Some(watched) = self.watched.get(place) {
            watched.suspect.store(suspect, Ordering::Relaxed);
            self.changed.notify_one();
        }
    }

    /// Looks until it is dropped. `saw` is told each look, from several tasks, and must not block.
    pub async fn run(&self, saw: Arc<dyn Fn(Look) + Send + Sync>) {
        let turns = Arc::new(Semaphore::new(self.pace.at_once_max.max(1)));
        let mut due: BinaryHeap<Reverse<(Instant, usize)>> = BinaryHeap::new();
        let begun = Instant::now();
        let count = u32::try_from(self.watched.len().max(1)).unwrap_or(u32::MAX);
        // Spread over one period: never all at once.
        for place in 0..self.watched.len() {
            let offset = self.pace.healthy.mul_f64(place as f64 / f64::from(count));
            due.push(Reverse((begun + offset, place)));
        }
        let mut looks = tokio::task::JoinSet::new();
        let mut suspects: Vec<Option<Instant>> = vec![None; self.watched.len()];
        loop {
            while looks.try_join_next().is_some() {}
            let Some(Reverse((at, place))) = due.peek().copied() else {
                self.changed.notified().await;
                continue;
            };
            tokio::select! {
                () = sleep_until(at.into()) => {}
                () = self.changed.notified() => {
                    self.new_suspects(&mut due, &mut suspects);
                    continue;
                }
            }
            due.pop();
            let Some(watched) = self.watched.get(place) else { continue };
            let now = Instant::now();
            let suspect = watched.suspect.load(Ordering::Relaxed);
            let mut in_pace = suspects.iter().flatten().count();
            if let Some(slot) = suspects.get_mut(place) {
                // Not this entry's moment any more: another one stands for it.
                if slot.is_some_and(|next| next > at) {
                    continue;
                }
                in_pace -= usize::from(slot.is_some());
                *slot = None;
                let quick = suspect && in_pace < self.pace.suspects_max;
                // A little early or late each time, so that equal machines drift apart.
                let period = if quick { self.pace.suspect } else { self.pace.healthy };
                let next = now + period.mul_f64(0.95 + 0.1 * f64::from(small_random()) / 255.0);
                if quick {
                    *slot = Some(next);
                }
                due.push(Reverse((next, place)));
            }
            // Its last look is still under way: a slow one costs nobody else a turn.
            if watched.under_way.swap(true, Ordering::SeqCst) {
                continue;
            }
            let (watched, turns, saw) = (watched.clone(), turns.clone(), saw.clone());
            looks.spawn(async move {
                let Ok(_turn) = turns.acquire_owned().await else { return };
                let asked_at = Instant::now();
                let result = watched.station.poll(|bmc| bmc.readings()).await;
                watched.under_way.store(false, Ordering::SeqCst);
                saw(Look { place, asked_at, at: Instant::now(), result });
            });
        }
    }

    /// Those that became suspect are looked at now, not at the end of their healthy period.
    fn new_suspects(&self, due: &mut BinaryHeap<Reverse<(Instant, usize)>>, suspects: &mut [Option<Instant>]) {
        let now = Instant::now();
        let mut in_pace = suspects.iter().flatten().count();
        for (place, watched) in self.watched.iter().enumerate() {
            let Some(slot) = suspects.get_mut(place) else { continue };
            if watched.suspect.load(Ordering::Relaxed) && slot.is_none() && in_pace < self.pace.suspects_max {
                *slot = Some(now);
                in_pace += 1;
                due.push(Reverse((now, place)));
            }
        }
    }
}

fn small_random() -> u8 {
    let mut byte = [0u8; 1];
    let _ = getrandom::fill(&mut byte);
    byte[0]
}
