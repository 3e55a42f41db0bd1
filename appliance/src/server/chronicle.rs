//! What happened, from the server's own records: each incident with its stages, and what people were told, in order.

use super::stages::Stages;
use crate::store::Entry;
use crate::store::JournalError;
use crate::store::reading::{Records, ended};
use healing::assess::Assessment;
use healing::event::{Change, Event};
use healing::evidence::Evidence;
use healing::id::{HostId, IncidentId};
use healing::time::{Elapsed, Now};
use healing::world::incident::{Diagnosis, End, Incident};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Told sentences kept.
const TOLD_MAX: usize = 2_000;
/// Ended incidents kept at hand; the store keeps more.
const ENDED_MAX: usize = 1_000;

/// One incident as it was last recorded.
#[derive(Debug, Clone)]
pub struct Chapter {
    /// Its record.
    pub incident: Incident,
    /// What it was healed for: the diagnosis at its first permit, else the last.
    pub named: Diagnosis,
    /// The evidence that its last decision rested on.
    pub evidence: Option<Arc<Evidence>>,
    /// The first boot that was seen after it was switched on.
    pub booted: Option<Elapsed>,
    /// Both clocks at its last entry, to convert one into the other.
    pub at: Now,
}

/// Something that people were told.
#[derive(Debug, Clone)]
pub struct Told {
    /// When, Unix milliseconds.
    pub wall_ms: i64,
    /// About which host.
    pub host: Option<HostId>,
    /// In which incident.
    pub incident: Option<IncidentId>,
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
    stages: Stages,
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
        Chronicle {
            folder: folder.to_owned(),
            records: None,
            chapters: BTreeMap::new(),
            told: Vec::new(),
            stages: Stages::default(),
        }
    }

    /// Reads on. Returns what people were told meanwhile.
    ///
    /// # Errors
    /// The records cannot be read.
    pub async fn read_on(&mut self) -> Result<Vec<Told>, JournalError> {
        let first = self.records.is_none();
        if first {
            let (records, world) = Records::open(&self.folder).await?;
            for incident in world.incidents.values() {
                note(
                    &mut self.chapters,
                    incident,
                    Now { elapsed: incident.opened_at, wall_ms: incident.opened_wall_ms },
                );
            }
            self.records = Some(records);
        }
        let mut fresh = Vec::new();
        while let Some(records) = &mut self.records {
            let entries = records.next().await?;
            if entries.is_empty() {
                break;
            }
            for (_, entry) in entries {
                self.take(&entry);
                fresh.extend(entry.notices.into_iter().map(|notice| Told {
                    wall_ms: notice.at.wall_ms,
                    host: notice.host,
                    incident: notice.incident,
                    rule: notice.explanation.rule.map(|rule| rule.0),
                    sentence: notice.explanation.sentence.into_owned(),
                }));
            }
        }
        if first {
            self.add_older().await?;
        }
        self.told.extend(fresh.iter().cloned());
        let surplus = self.told.len().saturating_sub(TOLD_MAX);
        self.told.drain(..surplus);
        Ok(fresh)
    }

    /// Incidents that ended before what the journal still holds.
    async fn add_older(&mut self) -> Result<(), JournalError> {
        for (incident, wall_ms) in ended(&self.folder, ENDED_MAX).await? {
            if self.chapters.contains_key(&incident.id) {
                continue;
            }
            let at = Now { elapsed: incident.phase_since, wall_ms };
            note(&mut self.chapters, &incident, at);
            if let Some(chapter) = self.chapters.get(&incident.id) {
                self.stages.count(chapter);
            }
        }
        Ok(())
    }

    fn take(&mut self, entry: &Entry) {
        for change in &entry.changes {
            match change {
                Change::Incident(incident) => note(&mut self.chapters, incident, entry.now),
                Change::Ended(incident) => {
                    let again = self.chapters.get(&incident.id).is_some_and(|known| known.incident.end.is_some());
                    note(&mut self.chapters, incident, entry.now);
                    if let Some(chapter) = self.chapters.get(&incident.id).filter(|_| !again) {
                        self.stages.count(chapter);
                    }
                }
                Change::Host(host) => self.see_boot(host.id, &host.assessment, entry.now),
                Change::Assessed { host, assessment } => self.see_boot(*host, assessment, entry.now),
                _ => {}
            }
        }
        if let Event::Fact { host, view } | Event::Wake { host, view } | Event::StepDone { host, view, .. } =
            &entry.event
        {
            let open = |chapter: &&mut Chapter| chapter.incident.host == *host && chapter.incident.end.is_none();
            if let Some(chapter) = self.chapters.values_mut().rev().find(open) {
                chapter.evidence = Some(Arc::new(view.evidence.clone()));
                chapter.at = entry.now;
            }
        }
        let ended = self.chapters.values().filter(|chapter| chapter.incident.end.is_some()).count();
        if ended > ENDED_MAX {
            let oldest = self.chapters.iter().find(|(_, chapter)| chapter.incident.end.is_some()).map(|(id, _)| *id);
            oldest.and_then(|id| self.chapters.remove(&id));
        }
    }

    /// A boot other than the one that fell ill, after it was switched on.
    fn see_boot(&mut self, host: HostId, seen: &Assessment, now: Now) {
        let Some(node) = seen.node else { return };
        let open = |chapter: &&mut Chapter| chapter.incident.host == host && chapter.incident.end.is_none();
        let Some(chapter) = self.chapters.values_mut().rev().find(open) else { return };
        let switched_on = chapter.incident.timings.power_on.is_some();
        let another = chapter.incident.boot_before.is_some_and(|before| before != node.boot);
        if switched_on && another && chapter.booted.is_none() {
            chapter.booted = Some(now.elapsed);
        }
    }

    /// How long each stage took, of all that ended.
    #[must_use]
    pub fn stages(&self) -> &Stages {
        &self.stages
    }

    /// One incident.
    #[must_use]
    pub fn chapter(&self, id: IncidentId) -> Option<&Chapter> {
        self.chapters.get(&id)
    }

    /// The incidents, oldest first.
    pub fn chapters(&self) -> impl DoubleEndedIterator<Item = &Chapter> {
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
    let (evidence, booted) = chapters.get(&incident.id).map(|c| (c.evidence.clone(), c.booted)).unwrap_or_default();
    chapters.insert(incident.id, Chapter { incident: incident.clone(), named, evidence, booted, at: now });
}

impl Chapter {
    /// A moment of its running time on the wall clock, Unix milliseconds.
    #[must_use]
    pub fn wall_ms(&self, at: Elapsed) -> i64 {
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        self.at
            .wall_ms
            .saturating_sub(signed(self.at.elapsed.since(at)))
            .saturating_add(signed(at.since(self.at.elapsed)))
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
pub(crate) fn tenths(ms: i64) -> f64 {
    ((ms as f64) / 100.0).round() / 10.0
}

/// An end as it is written.
#[must_use]
pub fn end_of(end: End) -> &'static str {
    match end {
        End::Healed => "healed",
        End::Replaced => "replaced",
        End::Quarantined => "quarantined",
        End::Aborted => "aborted",
        End::Proven => "proven",
        End::Unproven => "unproven",
    }
}

/// A diagnosis as it is written for people and scripts: `component-failed(kubelet, dead)`.
#[must_use]
pub fn name_of(diagnosis: Diagnosis) -> String {
    kebab(&format!("{diagnosis:?}"))
}

/// A name of the core's own types as it is written for people and scripts.
#[must_use]
pub fn kebab(written: &str) -> String {
    let mut name = String::new();
    let mut after_letter = false;
    for character in written.chars() {
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
