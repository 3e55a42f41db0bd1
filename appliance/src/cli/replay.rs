//! `rackmedic replay`: recorded events decided again under another policy, open loop. The world stays the recorded one,
//! so in each incident only the *first* difference means something: what would have followed it was never observed.

use super::output::{Exit, Format, data, json, table, talk};
use super::policy_file;
use crate::decide_loop::{Clock, SystemClock};
use crate::store::Entry;
use crate::store::reading::Records;
use clap::Args;
use healing::command::Outcome;
use healing::decide::decide;
use healing::event::Change;
use healing::id::{HostId, IncidentId};
use healing::policy::{Limits, Policy, Site};
use healing::rules::Enforced;
use healing::time::{DAY, Elapsed, HOUR, MINUTE, Millis, SECOND};
use healing::world::World;
use healing::world::incident::Incident;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Two records of a host further apart than this leave room for a decision that was never recorded.
const COARSE_MS: Millis = 10 * SECOND;

#[derive(Debug, Args)]
#[command(
    after_help = "Events are decided again one by one against the recorded world (open loop). Per incident only the first difference is shown: what would have followed was never observed."
)]
pub(super) struct Replay {
    /// The policy to try.
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// How far back: a number with d, h or m.
    #[arg(long, value_name = "SPAN", default_value = "30d", value_parser = span)]
    since: Millis,
    /// The data directory.
    #[arg(long, value_name = "DIR", env = "RACKMEDIC_DATA_DIR", default_value = "/var/lib/rackmedic")]
    data_dir: PathBuf,
    /// How the result is written.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

fn span(text: &str) -> Result<Millis, String> {
    let wrong = || format!("`{text}` is no span; write a number with d, h or m, for example 30d");
    let unit = match text.chars().last() {
        Some('d') => DAY,
        Some('h') => HOUR,
        Some('m') => MINUTE,
        _ => return Err(wrong()),
    };
    let number: u64 = text.get(..text.len() - 1).and_then(|n| n.parse().ok()).ok_or_else(wrong)?;
    number.checked_mul(unit).filter(|ms| *ms > 0 && *ms <= 3_650 * DAY).ok_or_else(wrong)
}

/// The first difference in one incident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Difference {
    /// The incident; 0 if the other policy opens one where none was.
    pub(super) incident: u64,
    /// The host.
    pub(super) host: u32,
    /// Its name.
    pub(super) name: String,
    /// The journal's number of the event.
    pub(super) seq: u64,
    /// When, Unix milliseconds.
    pub(super) at_wall_ms: i64,
    /// What the recorded policy does there.
    pub(super) recorded: Vec<String>,
    /// What the other one does.
    pub(super) other: Vec<String>,
    /// How long before this event nothing of the host was recorded, if that is long: the other policy may have differed
    /// anywhere in it.
    pub(super) coarse_ms: Option<Millis>,
}

/// What a replay found.
#[derive(Debug, Default, Serialize)]
pub(super) struct Found {
    /// Events decided again.
    pub(super) events: u64,
    /// Incidents seen.
    pub(super) incidents: u64,
    /// First differences, one per incident.
    pub(super) differences: Vec<Difference>,
    /// Events that this version decides differently from what was recorded, under the recorded policy: a newer core.
    pub(super) decided_differently_by_this_version: u64,
    /// Incidents in which records lie further apart than 10 s somewhere, so that a difference may have been missed.
    pub(super) coarse_incidents: Vec<u64>,
    /// Events that this version cannot read.
    pub(super) unreadable: u64,
}

impl Replay {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let policy = policy_file::read::<Site>(&self.policy)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let found = runtime.block_on(self.replay(&policy))?;
        match self.output {
            Format::Json => json(&found)?,
            Format::Table => data(&shown(&found))?,
        }
        Ok(Exit::Ok)
    }

    async fn replay(&self, policy: &Policy<Site>) -> anyhow::Result<Found> {
        let since_wall_ms = SystemClock::new().wall_ms().saturating_sub_unsigned(self.since);
        let (mut records, world) = Records::open(&self.data_dir).await?;
        let mut comparison = Comparison::new(world, policy.limits().clone());
        loop {
            let entries = records.next().await?;
            if entries.is_empty() {
                break;
            }
            for (seq, entry) in entries {
                comparison.take(seq, &entry, entry.now.wall_ms >= since_wall_ms);
            }
        }
        let mut found = comparison.finish();
        found.unreadable = records.unreadable();
        if found.events == 0 {
            talk("no recorded event lies in that time; the journal keeps what its three snapshots need");
        }
        Ok(found)
    }
}

/// Decides recorded events again, under the recorded numbers and under others.
struct Comparison {
    recorded: World,
    other: World,
    found: Found,
    seen: BTreeSet<IncidentId>,
    differed: BTreeSet<IncidentId>,
    coarse: BTreeSet<u64>,
    looked_at: BTreeMap<HostId, Elapsed>,
    /// Hosts without an incident on which the other policy already differed, until one opens.
    differed_hosts: BTreeSet<HostId>,
}

impl Comparison {
    fn new(world: World, limits: Limits) -> Comparison {
        let mut other = world.clone();
        other.limits = limits;
        Comparison {
            recorded: world,
            other,
            found: Found::default(),
            seen: BTreeSet::new(),
            differed: BTreeSet::new(),
            coarse: BTreeSet::new(),
            looked_at: BTreeMap::new(),
            differed_hosts: BTreeSet::new(),
        }
    }

    fn take(&mut self, seq: u64, entry: &Entry, wanted: bool) {
        if wanted {
            self.found.events += 1;
            if let Some(host) = entry.event.host() {
                self.compare(seq, host, entry);
            }
        }
        for change in &entry.changes {
            self.recorded.apply(change);
            // The other policy's numbers stand, whatever the records changed them to.
            if !matches!(change, Change::Limits { .. }) {
                self.other.apply(change);
            }
            if let Change::Incident(incident) = change {
                self.seen.insert(incident.id);
                self.differed_hosts.remove(&incident.host);
            }
        }
    }

    fn compare(&mut self, seq: u64, host: HostId, entry: &Entry) {
        let before = self.looked_at.insert(host, entry.now.elapsed);
        let gap = before.map(|at| entry.now.elapsed.since(at)).filter(|gap| *gap > COARSE_MS);
        let incident = self.recorded.hosts.get(&host).and_then(|h| h.incident);
        if let (Some(_), Some(id)) = (gap, incident) {
            self.coarse.insert(id.0);
        }
        let done = match incident {
            Some(id) => self.differed.contains(&id),
            None => self.differed_hosts.contains(&host),
        };
        if done {
            return;
        }
        let recorded = acts(&self.recorded, host, &decide(Enforced, &self.recorded, &entry.event, entry.now));
        let other = acts(&self.other, host, &decide(Enforced, &self.other, &entry.event, entry.now));
        let kept: Vec<String> = entry.commands.iter().map(|c| format!("{:?}", c.intent)).collect();
        let again: Vec<&String> = recorded.iter().filter(|act| act.starts_with("order ")).collect();
        let same_orders = kept.len() == again.len()
            && kept.iter().zip(&again).all(|(kept, again)| again.strip_prefix("order ") == Some(kept));
        self.found.decided_differently_by_this_version += u64::from(!same_orders);
        if recorded == other {
            return;
        }
        match incident {
            Some(id) => self.differed.insert(id),
            None => self.differed_hosts.insert(host),
        };
        let name = self.recorded.hosts.get(&host).map(|h| h.name.clone()).unwrap_or_default();
        self.found.differences.push(Difference {
            incident: incident.map_or(0, |id| id.0),
            host: host.0,
            name,
            seq,
            at_wall_ms: entry.now.wall_ms,
            recorded,
            other,
            coarse_ms: gap,
        });
    }

    fn finish(mut self) -> Found {
        self.found.incidents = self.seen.len() as u64;
        self.found.coarse_incidents = self.coarse.into_iter().collect();
        self.found
    }
}

/// What an outcome does, in words that can be compared: orders, opening and end, rung and the rule waited for.
fn acts(world: &World, host: HostId, outcome: &Outcome<Enforced>) -> Vec<String> {
    let before = world.hosts.get(&host).and_then(|h| h.incident).and_then(|id| world.incidents.get(&id));
    let mut acts: Vec<String> =
        outcome.commands.iter().map(|command| format!("order {:?}", command.intent())).collect();
    for change in &outcome.changes {
        match change {
            Change::Incident(incident) if incident.host == host => {
                if before.is_none() {
                    acts.push(format!("open {:?}", incident.diagnosis));
                }
                if outcome.commands.is_empty() {
                    acts.extend(standing(incident));
                }
            }
            Change::Ended(incident) if incident.host == host => acts.push(format!("end {:?}", incident.end)),
            _ => {}
        }
    }
    acts
}

fn standing(incident: &Incident) -> Option<String> {
    let wait = incident.wait.as_ref()?;
    let rule = wait.why.rule.map(|rule| format!(" ({rule})")).unwrap_or_default();
    Some(format!("wait {}{rule}", wait.why.code))
}

fn shown(found: &Found) -> String {
    let mut text = format!(
        "{} events of {} incidents decided again; the first decision differs in {}\n",
        found.events,
        found.incidents,
        found.differences.len()
    );
    if !found.differences.is_empty() {
        let words = |acts: &[String]| if acts.is_empty() { "nothing".to_owned() } else { acts.join(", ") };
        let rows: Vec<Vec<String>> = found
            .differences
            .iter()
            .map(|d| {
                let incident = if d.incident == 0 { "new".to_owned() } else { d.incident.to_string() };
                let coarse = d.coarse_ms.map_or_else(|| "-".to_owned(), |ms| format!("{} s", ms / SECOND));
                vec![d.name.clone(), incident, d.seq.to_string(), words(&d.recorded), words(&d.other), coarse]
            })
            .collect();
        text.push('\n');
        text.push_str(&table(&["host", "incident", "entry", "recorded policy", "this policy", "unseen before"], &rows));
    }
    if !found.coarse_incidents.is_empty() {
        let ids: Vec<String> = found.coarse_incidents.iter().map(u64::to_string).collect();
        text.push_str(&format!(
            "\nrecords too coarse to be sure (more than {} s between two looks) in incidents {}\n",
            COARSE_MS / SECOND,
            ids.join(", ")
        ));
    }
    if found.decided_differently_by_this_version > 0 {
        text.push_str(&format!(
            "\n{} events are decided differently by this version under the recorded policy too; their differences are not the policy's\n",
            found.decided_differently_by_this_version
        ));
    }
    if found.unreadable > 0 {
        text.push_str(&format!("\n{} events cannot be read by this version\n", found.unreadable));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_a_number_with_its_unit() {
        assert_eq!(span("30d"), Ok(30 * DAY));
        assert_eq!(span("12h"), Ok(12 * HOUR));
        assert_eq!(span("5m"), Ok(5 * MINUTE));
        for wrong in ["", "d", "0d", "30", "-3d", "30s", "99999999999999999999d", "4000d", "3é"] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
    }
}
