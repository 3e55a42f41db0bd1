//! Looks at all BMCs in turn: each at its own pace, none waiting for another.

use crate::reading::Readings;
use crate::schedule::Schedule;
use crate::station::{Skipped, Station};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
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
struct Watched {
    station: Arc<Station>,
    under_way: AtomicBool,
}

/// Frees a BMC for its next look, whatever ended this one.
struct UnderWay(Arc<Watched>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.store(false, Ordering::SeqCst);
    }
}

/// All of them.
#[derive(Debug)]
pub struct Poller {
    watched: Vec<Arc<Watched>>,
    pace: Pace,
    changes: Mutex<Vec<(usize, bool)>>,
    changed: Notify,
}

impl Poller {
    /// Of these.
    #[must_use]
    pub fn new(stations: Vec<Arc<Station>>, pace: Pace) -> Poller {
        let watched =
            stations.into_iter().map(|station| Arc::new(Watched { station, under_way: AtomicBool::new(false) }));
        Poller { watched: watched.collect(), pace, changes: Mutex::new(Vec::new()), changed: Notify::new() }
    }

    /// Looks at this one in the pace of suspects, or in the healthy one again.
    pub fn suspect(&self, place: usize, suspect: bool) {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).push((place, suspect));
        self.changed.notify_one();
    }

    /// Looks until it is dropped. `saw` is told each look, from several tasks, and must not block.
    pub async fn run(&self, saw: Arc<dyn Fn(Look) + Send + Sync>) {
        let turns = Arc::new(Semaphore::new(self.pace.at_once_max.max(1)));
        let mut schedule = Schedule::new(self.watched.len(), self.pace, Instant::now());
        let mut looks = tokio::task::JoinSet::new();
        loop {
            while looks.try_join_next().is_some() {}
            let Some(at) = schedule.next_at() else {
                self.changed.notified().await;
                continue;
            };
            tokio::select! {
                () = sleep_until(at.into()) => {}
                () = self.changed.notified() => {}
            }
            let now = Instant::now();
            let changes = std::mem::take(&mut *self.changes.lock().unwrap_or_else(PoisonError::into_inner));
            for (place, suspect) in changes {
                schedule.suspect(place, suspect, now);
            }
            let Some(place) = schedule.take(now, f64::from(small_random()) / 255.0) else { continue };
            let Some(watched) = self.watched.get(place) else { continue };
            // Its last look is still under way: a slow one costs nobody else a turn.
            if watched.under_way.swap(true, Ordering::SeqCst) {
                continue;
            }
            let (under_way, turns, saw) = (UnderWay(watched.clone()), turns.clone(), saw.clone());
            looks.spawn(async move {
                let Ok(_turn) = turns.acquire_owned().await else { return };
                let asked_at = Instant::now();
                let result = under_way.0.station.poll(|bmc| bmc.readings()).await;
                drop(under_way);
                saw(Look { place, asked_at, at: Instant::now(), result });
            });
        }
    }
}

fn small_random() -> u8 {
    let mut byte = [0u8; 1];
    let _ = getrandom::fill(&mut byte);
    byte[0]
}
