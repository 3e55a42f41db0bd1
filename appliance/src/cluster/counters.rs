//! What a cluster's watchers counted, for `/metrics`.

use super::foreign::KINDS;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds of the buckets of the Lease lag, in milliseconds.
pub const LAG_BOUNDS_MS: [u64; 16] = [1, 2, 5, 10, 20, 30, 50, 75, 100, 150, 250, 500, 1_000, 2_500, 5_000, 10_000];

/// Counters of one cluster.
#[derive(Debug, Default)]
pub struct Counters {
    /// Leases received by the watch.
    pub leases: AtomicU64,
    /// Nodes received by the watch.
    pub nodes: AtomicU64,
    /// Listings that came to their end: the first one of each watch, and each one after a break.
    pub relists: AtomicU64,
    /// Times that a watch had to be listed anew because what it continued from was gone (410).
    pub gone: AtomicU64,
    /// Errors of watches, of any kind.
    pub errors: AtomicU64,
    /// Times that our credential was not taken.
    pub unauthenticated: AtomicU64,
    /// Changes of the endpoint.
    pub switches: AtomicU64,
    /// Reads that proved a silent watch, and reads that found it behind.
    pub proofs: AtomicU64,
    /// Reads that found the watch behind.
    pub behind: AtomicU64,
    /// Requests of acts by result: done, silent, refused.
    pub acts: [AtomicU64; 3],
    /// Readings of what others do, by kind: those that came, and those that did not.
    pub foreign: [[AtomicU64; 2]; KINDS.len()],
    lag: [AtomicU64; LAG_BOUNDS_MS.len() + 1],
    lag_sum_ms: AtomicU64,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one lag between a renewal by the node's clock and its receipt by ours. For people only: a node's clock is never
    /// believed where something is decided.
    pub fn lag(&self, lag_ms: u64) {
        let bucket = LAG_BOUNDS_MS.partition_point(|bound| *bound < lag_ms);
        self.lag[bucket].fetch_add(1, Ordering::Relaxed);
        self.lag_sum_ms.fetch_add(lag_ms, Ordering::Relaxed);
    }

    /// The upper bound of the bucket in which this share (in thousandths) of all lags ends; `None` beyond the last bound or
    /// without any.
    #[must_use]
    pub fn lag_at(&self, thousandths: u64) -> Option<u64> {
        let counts: Vec<u64> = self.lag.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let all: u64 = counts.iter().sum();
        let wanted = (all * thousandths).div_ceil(1_000).max(1);
        let mut seen = 0;
        for (index, count) in counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return LAG_BOUNDS_MS.get(index).copied();
            }
        }
        None
    }

    /// Writes them in the text format of Prometheus.
    pub fn write(&self, cluster: &str, out: &mut String) {
        let cluster = cluster.replace(['\\', '"', '\n'], "_");
        let mut line = |name: &str, labels: &str, value: u64| {
            let _ = writeln!(out, "rackmedic_cluster_{name}{{cluster=\"{cluster}\"{labels}}} {value}");
        };
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        for (name, counter) in [
            ("lease_events_total", &self.leases),
            ("node_events_total", &self.nodes),
            ("watch_relists_total", &self.relists),
            ("watch_gone_total", &self.gone),
            ("watch_errors_total", &self.errors),
            ("unauthenticated_total", &self.unauthenticated),
            ("endpoint_switches_total", &self.switches),
            ("watch_proofs_total", &self.proofs),
            ("watch_behind_total", &self.behind),
        ] {
            line(name, "", read(counter));
        }
        for (result, counter) in ["done", "silent", "refused"].into_iter().zip(&self.acts) {
            line("acts_total", &format!(",result=\"{result}\""), read(counter));
        }
        for (kind, counts) in KINDS.iter().zip(&self.foreign) {
            for (result, counter) in ["read", "failed"].into_iter().zip(counts) {
                let labels = format!(",kind=\"{}\",result=\"{result}\"", kind.name);
                line("foreign_reads_total", &labels, read(counter));
            }
        }
        let mut below = 0;
        for (index, count) in self.lag.iter().enumerate() {
            below += read(count);
            let bound = LAG_BOUNDS_MS.get(index).map_or_else(|| "+Inf".to_owned(), ToString::to_string);
            line("lease_lag_milliseconds_bucket", &format!(",le=\"{bound}\""), below);
        }
        line("lease_lag_milliseconds_sum", "", read(&self.lag_sum_ms));
        line("lease_lag_milliseconds_count", "", below);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_never_read_of_others_doings_shows() {
        let counters = Counters::default();
        Counters::add(&counters.foreign[1][1]);
        let mut text = String::new();
        counters.write("prod", &mut text);
        for line in [
            "{cluster=\"prod\",kind=\"Machine.cluster.x-k8s.io\",result=\"read\"} 0",
            "{cluster=\"prod\",kind=\"Machine.cluster.x-k8s.io\",result=\"failed\"} 1",
        ] {
            assert!(text.contains(&format!("rackmedic_cluster_foreign_reads_total{line}")), "{text}");
        }
    }

    #[test]
    fn the_lag_is_told_by_shares_and_written_as_a_histogram() {
        let counters = Counters::default();
        for _ in 0..99 {
            counters.lag(4);
        }
        counters.lag(20_000);
        assert_eq!((counters.lag_at(500), counters.lag_at(990), counters.lag_at(1_000)), (Some(5), Some(5), None));
        let mut text = String::new();
        counters.write("prod", &mut text);
        assert!(
            text.contains("rackmedic_cluster_lease_lag_milliseconds_bucket{cluster=\"prod\",le=\"5\"} 99"),
            "{text}"
        );
        assert!(text.contains("rackmedic_cluster_lease_lag_milliseconds_bucket{cluster=\"prod\",le=\"+Inf\"} 100"));
    }
}
