//! What happened, from the server's own records: each incident with its stages, and what people were told, in order.

use crate::store::JournalError;
use crate::store::reading::Records;
use healing::event::Change;
use healing::id::{HostId, IncidentId};
use healing::time::{Elapsed, Now};
use healing::world::incident::{Diagnosis, End, Incident};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Told sentences kept.
const TOLD_MAX: usize = 2_000;

/// One incident as it was last recorded.
#[derive(Debug, Clone)]
pub struct Chapter {
    /// Its record.
    pub incident: Incident,
    /// What it was healed for: the diagnosis at its first permit, else the last.
    pub named: Diagnosis,
    /// Both clocks at its last entry, to convert one into the other.
    at: Now,
}

/// Something that people were told.
#[derive(Debug, Clone)]
pub struct Told {
    /// When, Unix milliseconds.
    pub wall_ms: i64,
    /// About which host.
    pub host: Option<HostId>,
    /// The rule that speaks.
    pub rule: Option<u8>,
    /// The sentence.
    pub sentence: String,
}

/// The records, read while they grow.
#[derive(Debug)]
pub struct Chronicle {
    folder: PathBuf,
    records: Option<Records>,
    chapters: BTreeMap<IncidentId, Chapter>,
    told: Vec<Told>,
}

/// One incident in the demo's JSON.
#[derive(Debug, Clone, Serialize, PartialEq)]
pub struct Line {
    /// The host.
    pub host: String,
    /// What was wrong.
    pub diagnosis: String,
    /// How it ended; `open` if it has not.
    pub end: String,
    /// Seconds from the fault to its first suspicion.
    pub detected_s: Option<f64>,
    /// To the agreement of two planes.
    pub confirmed_s: Option<f64>,
    /// To the proof that it is off.
    pub proven_off_s: Option<f64>,
    /// To the release of its workloads.
    pub released_s: Option<f64>,
    /// To Ready again.
    pub ready_s: Option<f64>,
    /// To its end.
    pub ended_s: Option<f64>,
    /// Why it waits, if it does.
    pub waits: Option<String>,
}

impl Chronicle {
    /// Of a server's data directory; it need not be there yet.
    #[must_use]
    pub fn of(folder: &Path) -> Chronicle {
        Chronicle { folder: folder.to_owned(), records: None, chapters: BTreeMap::new(), told: Vec::new() }
    }

    /// Reads on. Returns what people were told meanwhile.
    ///
    /// # Errors
    /// The records cannot be read.
    pub async fn read_on(&mut self) -> Result<Vec<Told>, JournalError> {
        if self.records.is_none() {
            self.records = Some(Records::open(&self.folder).await?.0);
        }
        let Some(records) = &mut self.records else { return Ok(Vec::new()) };
        let mut fresh = Vec::new();
        loop {
            let entries = records.next().await?;
            if entries.is_empty() {
                break;
            }
            for (_, entry) in entries {
                for change in &entry.changes {
                    if let Change::Incident(incident) | Change::Ended(incident) = change {
                        note(&mut self.chapters, incident, entry.now);
                    }
                }
                fresh.extend(entry.notices.into_iter().map(|notice| Told {
                    wall_ms: notice.at.wall_ms,
                    host: notice.host,
                    rule: notice.explanation.rule.map(|rule| rule.0),
                    sentence: notice.explanation.sentence.into_owned(),
                }));
            }
        }
        self.told.extend(fresh.iter().cloned());
        let surplus = self.told.len().saturating_sub(TOLD_MAX);
        self.told.drain(..surplus);
        Ok(fresh)
    }

    /// The incidents.
    pub fn chapters(&self) -> impl Iterator<Item = &Chapter> {
        self.chapters.values()
    }

    /// The incidents for the JSON, in seconds from a moment.
    #[must_use]
    pub fn lines(&self, since_wall_ms: i64, name: impl Fn(HostId) -> String) -> Vec<Line> {
        self.chapters.values().map(|chapter| chapter.line(since_wall_ms, name(chapter.incident.host))).collect()
    }

    /// All that people were told.
    #[must_use]
    pub fn told(&self) -> &[Told] {
        &self.told
    }
}

fn note(chapters: &mut BTreeMap<IncidentId, Chapter>, incident: &Incident, now: Now) {
    let named = match chapters.get(&incident.id) {
        // Once something was permitted, what follows are consequences: a host that we switched off is powered off.
        Some(known) if known.incident.timings.permitted.is_some() => known.named,
        _ => incident.diagnosis,
    };
    chapters.insert(incident.id, Chapter { incident: incident.clone(), named, at: now });
}

impl Chapter {
    fn wall_ms(&self, at: Elapsed) -> i64 {
        let back = i64::try_from(self.at.elapsed.since(at)).unwrap_or(i64::MAX);
        self.at.wall_ms.saturating_sub(back)
    }

    fn line(&self, since_wall_ms: i64, host: String) -> Line {
        let timings = &self.incident.timings;
        let seconds = |at: Option<Elapsed>| at.map(|at| tenths(self.wall_ms(at) - since_wall_ms));
        let ended = self.incident.end.is_some().then(|| tenths(self.at.wall_ms - since_wall_ms));
        Line {
            host,
            diagnosis: name_of(self.named),
            end: self.incident.end.map_or("open", end_of).to_owned(),
            detected_s: seconds(timings.suspected),
            confirmed_s: seconds(timings.confirmed),
            proven_off_s: seconds(timings.proven_off),
            released_s: seconds(timings.released),
            ready_s: seconds(timings.ready),
            ended_s: ended,
            waits: self
                .incident
                .end
                .is_none()
                .then(|| self.incident.wait.as_ref().map(|wait| wait.why.sentence.to_string()))
                .flatten(),
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "milliseconds of a demo: far below what a double holds exactly")]
fn tenths(ms: i64) -> f64 {
    ((ms as f64) / 100.0).round() / 10.0
}

fn end_of(end: End) -> &'static str {
    match end {
        End::Healed => "healed",
        End::Replaced => "replaced",
        End::Quarantined => "quarantined",
        End::Aborted => "aborted",
    }
}

/// A diagnosis as it is written for people and scripts: `component-failed(kubelet, dead)`.
#[must_use]
pub fn name_of(diagnosis: Diagnosis) -> String {
    let mut name = String::new();
    let mut after_letter = false;
    for character in format!("{diagnosis:?}").chars() {
        if character.is_ascii_uppercase() && after_letter {
            name.push('-');
        }
        after_letter = character.is_ascii_alphanumeric();
        name.push(character.to_ascii_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use healing::signal::{Component, ComponentCause};

    #[test]
    fn diagnoses_are_written_as_the_design_writes_them() {
        assert_eq!(name_of(Diagnosis::KernelDead), "kernel-dead");
        let failed = Diagnosis::ComponentFailed(Component::Kubelet, ComponentCause::Dead);
        assert_eq!(name_of(failed), "component-failed(kubelet, dead)");
    }
}
