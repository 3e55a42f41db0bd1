//! A group: the events decided together, each against the world with the earlier changes applied, that become durable
//! in one transaction. Nothing of it leaves before the commit.

use super::inbox::{Committed, NotCommitted};
use crate::store::{Entry, Ordered};
use healing::command::{Command, Notice, Outcome, Wakeup};
use healing::event::{Change, Event};
use healing::id::{HostId, StepId};
use healing::rules::Enforced;
use healing::time::Now;
use tokio::sync::oneshot;

/// Most events of a group.
pub(super) const EVENTS_MAX: usize = 256;
/// Longest time that a group is gathered, in milliseconds.
pub(super) const GATHER_MS: u64 = 5;

pub(super) type Reply = oneshot::Sender<Result<Committed, NotCommitted>>;

/// Decided, not yet durable.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) entries: Vec<Entry>,
    pub(super) commands: Vec<Command<Enforced>>,
    pub(super) cancels: Vec<StepId>,
    pub(super) wakeups: Vec<Wakeup>,
    /// Hosts whose view is to be replaced.
    pub(super) changed: Vec<HostId>,
    /// Who waits, and for which entry of the group.
    pub(super) replies: Vec<(Reply, usize, Vec<Notice>)>,
    /// Events looked at, with or without an outcome.
    pub(super) looked_at: usize,
}

impl Group {
    /// Takes in one decision. One that changes nothing, orders nothing and says nothing is not journaled unless it is a
    /// fact or somebody waits for it: a waiting incident is looked at every few seconds and would fill the journal.
    pub(super) fn take(&mut self, now: Now, event: Event, outcome: Outcome<Enforced>, reply: Option<Reply>) {
        self.looked_at += 1;
        self.wakeups.extend_from_slice(&outcome.wakeups);
        self.cancels.extend_from_slice(&outcome.cancels);
        let silent = outcome.changes.is_empty()
            && outcome.commands.is_empty()
            && outcome.notices.is_empty()
            && outcome.cancels.is_empty();
        let looks_only = matches!(event, Event::Wake { .. } | Event::Sight(_));
        if silent && looks_only && reply.is_none() {
            return;
        }
        for change in &outcome.changes {
            if let Some(host) = changed_host(change)
                && self.changed.last() != Some(&host)
            {
                self.changed.push(host);
            }
        }
        let commands = outcome.commands.iter().map(ordered).collect();
        if let Some(reply) = reply {
            self.replies.push((reply, self.entries.len(), outcome.notices.clone()));
        }
        self.entries.push(Entry { now, event, changes: outcome.changes, commands, notices: outcome.notices });
        self.commands.extend(outcome.commands);
    }

    pub(super) fn is_full(&self) -> bool {
        self.looked_at >= EVENTS_MAX
    }
}

fn ordered(command: &Command<Enforced>) -> Ordered {
    Ordered { step: command.step, incident: command.incident, host: command.target.host, intent: command.intent() }
}

/// The host whose view a change replaces.
fn changed_host(change: &Change) -> Option<HostId> {
    match change {
        Change::Host(host) => Some(host.id),
        Change::Assessed { host, .. } | Change::RemoveHost(host) => Some(*host),
        Change::Incident(incident) | Change::Ended(incident) => Some(incident.host),
        Change::Limits { .. }
        | Change::Site(_)
        | Change::Cluster(_)
        | Change::Pool(_)
        | Change::Domain(_)
        | Change::Version(_)
        | Change::Acted { .. } => None,
    }
}
