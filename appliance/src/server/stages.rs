//! How long each stage of a heal took (rule 57): per incident in seconds from the last sign of life, and over all incidents
//! as histograms.

use super::chronicle::{Chapter, end_of, tenths};
use healing::time::Elapsed;
use healing::world::incident::End;
use serde::Serialize;
use std::fmt::Write as _;

/// Upper bounds of the buckets, in seconds.
const BOUNDS_S: [u32; 14] = [1, 2, 5, 10, 15, 20, 30, 45, 60, 120, 300, 600, 1_800, 7_200];

/// The stages, in their order.
pub const STAGES: [&str; 8] =
    ["detected", "confirmed", "proven_off", "released", "powered_on", "booted", "ready", "healed"];

/// The stages of one incident, in seconds from its last sign of life; what it did not reach is absent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Seconds {
    /// First suspicion.
    pub detected_s: Option<f64>,
    /// Two planes agreed.
    pub confirmed_s: Option<f64>,
    /// Off was proven.
    pub proven_off_s: Option<f64>,
    /// Workloads were released.
    pub released_s: Option<f64>,
    /// Power-on was ordered.
    pub powered_on_s: Option<f64>,
    /// A new boot was seen.
    pub booted_s: Option<f64>,
    /// Ready again.
    pub ready_s: Option<f64>,
    /// It ended healed.
    pub healed_s: Option<f64>,
}

/// In milliseconds, in the order of [`STAGES`].
fn reached(chapter: &Chapter) -> [Option<u64>; STAGES.len()] {
    let timings = &chapter.incident.timings;
    let begin = timings.last_sign_of_life.or(timings.suspected).unwrap_or(chapter.incident.opened_at);
    let since = |at: Option<Elapsed>| at.map(|at| at.since(begin));
    let healed = (chapter.incident.end == Some(End::Healed)).then_some(chapter.at.elapsed);
    [
        timings.suspected,
        timings.confirmed,
        timings.proven_off,
        timings.released,
        timings.power_on,
        chapter.booted,
        timings.ready,
        healed,
    ]
    .map(since)
}

impl Seconds {
    /// Of one incident.
    #[must_use]
    pub fn of(chapter: &Chapter) -> Seconds {
        let tenths = |ms: Option<u64>| ms.map(|ms| tenths(i64::try_from(ms).unwrap_or(i64::MAX)));
        let [detected_s, confirmed_s, proven_off_s, released_s, powered_on_s, booted_s, ready_s, healed_s] =
            reached(chapter).map(tenths);
        Seconds { detected_s, confirmed_s, proven_off_s, released_s, powered_on_s, booted_s, ready_s, healed_s }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Histogram {
    /// Not cumulative; the last is everything above.
    buckets: [u64; BOUNDS_S.len() + 1],
    sum_ms: u64,
}

/// All incidents that ended.
#[derive(Debug, Clone, Default)]
pub struct Stages {
    stages: [Histogram; STAGES.len()],
    ends: [u64; ENDS.len()],
}

const ENDS: [End; 6] = [End::Healed, End::Replaced, End::Quarantined, End::Aborted, End::Proven, End::Unproven];

impl Stages {
    /// Counts one that ended.
    pub fn count(&mut self, chapter: &Chapter) {
        if let Some(place) = ENDS.iter().position(|end| chapter.incident.end == Some(*end)) {
            self.ends[place] += 1;
        }
        for (histogram, ms) in self.stages.iter_mut().zip(reached(chapter)) {
            let Some(ms) = ms else { continue };
            let bucket = BOUNDS_S.iter().position(|bound| ms <= u64::from(*bound) * 1_000).unwrap_or(BOUNDS_S.len());
            histogram.buckets[bucket] += 1;
            histogram.sum_ms += ms;
        }
    }

    /// In the text format of Prometheus.
    pub fn write(&self, text: &mut String) {
        text.push_str("# HELP rackmedic_incidents_ended_total Incidents that ended, by their end.\n");
        text.push_str("# TYPE rackmedic_incidents_ended_total counter\n");
        for (end, count) in ENDS.iter().zip(self.ends) {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "rackmedic_incidents_ended_total{{end=\"{}\"}} {count}", end_of(*end));
        }
        let name = "rackmedic_incident_stage_seconds";
        let _ = writeln!(text, "# HELP {name} Time from the last sign of life to a stage, of incidents that ended.");
        let _ = writeln!(text, "# TYPE {name} histogram");
        for (stage, histogram) in STAGES.iter().zip(&self.stages) {
            let mut below = 0;
            for (bound, count) in BOUNDS_S.iter().zip(histogram.buckets) {
                below += count;
                let _ = writeln!(text, "{name}_bucket{{stage=\"{stage}\",le=\"{bound}\"}} {below}");
            }
            let all: u64 = histogram.buckets.iter().sum();
            let _ = writeln!(text, "{name}_bucket{{stage=\"{stage}\",le=\"+Inf\"}} {all}");
            let (whole, rest) = (histogram.sum_ms / 1_000, histogram.sum_ms % 1_000);
            let _ = writeln!(text, "{name}_sum{{stage=\"{stage}\"}} {whole}.{rest:03}");
            let _ = writeln!(text, "{name}_count{{stage=\"{stage}\"}} {all}");
        }
    }
}
