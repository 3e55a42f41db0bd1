//! The intake of signals. Volatile, never journaled and never queued: for each host and source the latest runs wait
//! here until the loop folds them, and a source that speaks faster than the loop listens only lengthens its run.

use healing::evidence::RUNS_PER_SOURCE;
use healing::id::{ClusterId, HostId};
use healing::sight::{ClusterSight, OwnSight};
use healing::signal::{Seen, Signal};
use healing::time::Millis;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Locks of the table, so that probers do not wait for each other.
const SHARDS: usize = 32;

/// The longest time that a receiver may take to be drained for a miss to count under any policy (rule 47).
const DRAINED_MAX_MS: Millis = 500;

/// Where probers and watchers put what they see. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Signals {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    shards: [Mutex<HashMap<HostId, Vec<Signal>>>; SHARDS],
    sight: Mutex<Option<OwnSight>>,
    clusters: Mutex<BTreeMap<ClusterId, ClusterSight>>,
    stalled_ms: AtomicU64,
    news: Notify,
}

/// A panic of a prober between two writes cannot leave a run half written, so a poisoned lock is still good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for Signals {
    fn default() -> Self {
        Signals::new()
    }
}

impl Signals {
    /// An empty intake.
    #[must_use]
    pub fn new() -> Signals {
        Signals {
            shared: Arc::new(Shared {
                shards: std::array::from_fn(|_| Mutex::new(HashMap::new())),
                sight: Mutex::new(None),
                clusters: Mutex::new(BTreeMap::new()),
                stalled_ms: AtomicU64::new(0),
                news: Notify::new(),
            }),
        }
    }

    /// Puts one signal. Never waits for the loop and never grows beyond three runs per source of a host.
    pub fn offer(&self, host: HostId, signal: Signal) {
        // A miss whose receiver was not drained in time may be our own sleep, under every policy (rule 47).
        if signal.seen == Seen::Miss && signal.drained_after_ms > DRAINED_MAX_MS {
            return;
        }
        {
            let mut shard = lock(&self.shared.shards[host.0 as usize % SHARDS]);
            put(shard.entry(host).or_default(), signal);
        }
        self.shared.news.notify_one();
    }

    /// Puts what we see of our own link, gateway and references. The counts of hosts and BMCs and the clusters' part
    /// are filled in by the loop, which knows them.
    pub fn own_sight(&self, sight: OwnSight) {
        *lock(&self.shared.sight) = Some(sight);
        self.shared.news.notify_one();
    }

    /// Puts what we see of a cluster as a whole.
    pub fn cluster_sight(&self, sight: ClusterSight) {
        lock(&self.shared.clusters).insert(sight.cluster, sight);
        self.shared.news.notify_one();
    }

    /// A prober or watcher says that it did not run for this long: all evidence is void (rule 47).
    pub fn stalled(&self, stalled_ms: Millis) {
        self.shared.stalled_ms.fetch_max(stalled_ms, Ordering::AcqRel);
        self.shared.news.notify_one();
    }

    /// Waits until something was put since the last call.
    pub(super) async fn news(&self) {
        self.shared.news.notified().await;
    }

    /// Takes all waiting signals of some hosts at a time and hands them to `take`. Who takes them is their one reader.
    pub fn drain(&self, mut take: impl FnMut(HostId, Vec<Signal>)) {
        for shard in &self.shared.shards {
            let waiting = std::mem::take(&mut *lock(shard));
            for (host, signals) in waiting {
                take(host, signals);
            }
        }
    }

    /// Throws away what waits: it was seen before evidence became void.
    pub(super) fn discard(&self) {
        for shard in &self.shared.shards {
            lock(shard).clear();
        }
    }

    /// Takes what was last seen of our own place on the network.
    pub fn take_sight(&self) -> Option<OwnSight> {
        lock(&self.shared.sight).take()
    }

    /// Takes what was last seen of each cluster.
    #[must_use]
    pub fn take_clusters(&self) -> BTreeMap<ClusterId, ClusterSight> {
        std::mem::take(&mut *lock(&self.shared.clusters))
    }

    /// Takes for how long a prober said that it did not run.
    pub fn take_stalled(&self) -> Option<Millis> {
        match self.shared.stalled_ms.swap(0, Ordering::AcqRel) {
            0 => None,
            stalled => Some(stalled),
        }
    }
}

/// Lengthens the newest run of this source, or begins one; only as many runs are kept as evidence keeps.
fn put(waiting: &mut Vec<Signal>, signal: Signal) {
    let mut of_source = 0;
    let mut oldest = None;
    for (index, run) in waiting.iter_mut().enumerate().rev().filter(|(_, run)| run.source == signal.source) {
        if of_source == 0 && run.seen == signal.seen {
            run.first = run.first.min(signal.first);
            run.last = run.last.max(signal.last);
            run.count = run.count.saturating_add(signal.count);
            run.drained_after_ms = run.drained_after_ms.max(signal.drained_after_ms);
            return;
        }
        of_source += 1;
        oldest = Some(index);
    }
    if let Some(index) = oldest.filter(|_| of_source >= RUNS_PER_SOURCE) {
        waiting.remove(index);
    }
    waiting.push(signal);
}

#[cfg(test)]
mod tests {
    use super::*;
    use healing::signal::Source;
    use healing::time::Elapsed;

    fn drained(signals: &Signals) -> Vec<(HostId, Vec<Signal>)> {
        let mut all = Vec::new();
        signals.drain(|host, runs| all.push((host, runs)));
        all
    }

    #[test]
    fn a_million_equal_samples_wait_as_one_run() {
        let signals = Signals::new();
        for second in 0..1_000_000 {
            signals.offer(HostId(7), Signal::sample(Source::Icmp, Seen::Answer, Elapsed(second)));
        }
        let all = drained(&signals);
        assert_eq!(
            all,
            [(HostId(7), vec![Signal::run(Source::Icmp, Seen::Answer, Elapsed(0), Elapsed(999_999), 1_000_000)])]
        );
        assert!(drained(&signals).is_empty());
    }

    #[test]
    fn a_source_that_bounces_keeps_only_its_last_three_runs_and_spares_the_others() {
        let signals = Signals::new();
        signals.offer(HostId(1), Signal::sample(Source::Lease, Seen::Renewed, Elapsed(5)));
        for turn in 0..10 {
            let seen = if turn % 2 == 0 { Seen::Answer } else { Seen::Miss };
            signals.offer(HostId(1), Signal::sample(Source::Icmp, seen, Elapsed(turn)));
        }
        let all = drained(&signals);
        let firsts: Vec<u64> = all[0].1.iter().map(|run| run.first.0).collect();
        assert_eq!(firsts, [5, 7, 8, 9]);
    }

    #[test]
    fn a_miss_that_may_be_our_own_sleep_is_not_taken_in() {
        let signals = Signals::new();
        let late = Signal { drained_after_ms: 501, ..Signal::sample(Source::Icmp, Seen::Miss, Elapsed(1)) };
        signals.offer(HostId(1), late);
        assert!(drained(&signals).is_empty());
    }
}
