//! What keeps the loop's memory and its journal at one: lease, snapshots, and what is done when the store fails (rules 46, 48).

use super::answer_none;
use super::{Ended, Keeping, LEASE_MS, LEASE_RENEW_MS, Running, SNAPSHOT_EVENTS, SNAPSHOTS_KEPT, STORE_RETRY_MS};
use crate::decide_loop::executor::Executor;
use crate::decide_loop::group::Group;
use crate::decide_loop::inbox::{NotCommitted, Order};
use crate::store::{Journal, JournalError};
use healing::command::StepResult;
use healing::event::Event;
use healing::time::Now;

impl<J: Journal, X: Executor> Running<J, X> {
    /// The world in memory is ahead of the journal: it is dropped and read again, and only safe completion goes on
    /// (rule 48).
    pub(super) async fn store_failed(&mut self, group: Group) {
        let again: Vec<Order> = group.entries.iter().filter_map(finished).collect();
        answer_none(group, NotCommitted::Store);
        self.again.extend(again);
        let now = self.parts.time.now();
        let retry_at = now.elapsed.plus(STORE_RETRY_MS);
        let was = std::mem::replace(&mut self.keeping, Keeping::Nothing { retry_at });
        if !self.reload(now).await {
            return;
        }
        if was != Keeping::Whole {
            // The reserve failed too: people are told, nothing else is done.
            tracing::error!("the journal's reserve cannot be written either: nothing is done until the store works");
            return;
        }
        self.keeping = Keeping::Reserve { retry_at };
        let mut group = Group::default();
        self.decide(now, Event::Store { healthy: false }, None, &mut group);
        let (epoch, seq) = (self.parts.epoch, self.parts.seq);
        match self.parts.journal.commit_reserve(epoch, seq, &group.entries).await {
            Ok(seq) => {
                self.parts.seq = seq;
                self.let_out(group);
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "no journal reserve: people are paged, nothing is done"
                );
                // Readers must see that nothing is done, though nothing could be written down.
                self.parts.inbox.views.publish(&self.parts.world, &[], self.parts.explain, self.parts.seq);
                self.keeping = Keeping::Nothing { retry_at };
            }
        }
    }

    /// Reads the world as the journal has it. Evidence of the outside stays; it is ours, not the journal's.
    async fn reload(&mut self, now: Now) -> bool {
        match self.parts.journal.load().await {
            Ok(loaded) => {
                self.parts.world = loaded.world;
                self.parts.seq = loaded.seq;
                self.timers.clear();
                self.orphans();
                for host in self.parts.world.hosts.values() {
                    self.table.know(host, now);
                }
                self.publish_all();
                true
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the journal cannot be read back: nothing is done until it can"
                );
                false
            }
        }
    }

    /// Steps that the journal holds as running but that no executor was given: their group was durable although its
    /// commit reported a failure. Nothing of them was sent.
    fn orphans(&mut self) {
        for incident in self.parts.world.incidents.values() {
            let Some(running) = incident.running.as_ref().filter(|r| !self.steps.contains_key(&r.step)) else {
                continue;
            };
            let awaited = |order: &Order| matches!(order, Order::Finished { step, .. } if *step == running.step);
            if !self.again.iter().any(awaited) {
                let result = Box::new(StepResult::Failed {
                    why: healing::command::Failure::Cancelled,
                    readings: Vec::new(),
                    sent: false,
                });
                let (host, incident, step) = (incident.host, incident.id, running.step);
                self.again.push_back(Order::Finished { host, incident, step, result });
            }
        }
    }

    /// Tries a store that failed; when it works, what the reserve holds is already part of it.
    pub(super) async fn retry_store(&mut self, now: Now) -> Result<(), Ended> {
        let (Keeping::Reserve { retry_at } | Keeping::Nothing { retry_at }) = self.keeping else {
            return Ok(());
        };
        if now.elapsed < retry_at {
            return Ok(());
        }
        let again_at = now.elapsed.plus(STORE_RETRY_MS);
        self.keeping = match self.keeping {
            Keeping::Reserve { .. } => Keeping::Reserve { retry_at: again_at },
            Keeping::Nothing { .. } | Keeping::Whole => Keeping::Nothing { retry_at: again_at },
        };
        if let Err(error) = self.parts.journal.recover().await {
            tracing::warn!(error = &error as &dyn std::error::Error, "the store still fails");
            return Ok(());
        }
        if !self.reload(now).await {
            return Ok(());
        }
        tracing::info!("the store works again: observing before acting");
        self.keeping = Keeping::Whole;
        let mut group = Group::default();
        self.decide(now, Event::Store { healthy: true }, None, &mut group);
        self.commit(group).await
    }

    /// Keeps the appliance lease (rule 46). A lease that cannot be renewed runs out, and the world is told when it does.
    pub(super) async fn renew_lease(&mut self, now: Now) -> Result<(), Ended> {
        if self.lease_until.since(now.elapsed) > LEASE_MS - LEASE_RENEW_MS || self.keeping != Keeping::Whole {
            return Ok(());
        }
        let epoch = self.parts.epoch;
        let until = now.elapsed.plus(LEASE_MS);
        match self.parts.journal.renew_lease(epoch, until).await {
            Ok(()) => {
                self.lease_until = until;
                let mut group = Group::default();
                self.decide(now, Event::Lease { until, epoch }, None, &mut group);
                self.commit(group).await
            }
            Err(JournalError::Superseded { theirs }) => {
                self.cancel_all();
                Err(Ended::Superseded { ours: epoch, theirs })
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the appliance lease cannot be renewed");
                self.store_failed(Group::default()).await;
                Ok(())
            }
        }
    }

    /// Writes the world whole from time to time, so that a start reads little.
    pub(super) async fn snapshot_if_due(&mut self) {
        if self.keeping != Keeping::Whole || self.parts.seq < self.snapshot_at.saturating_add(SNAPSHOT_EVENTS) {
            return;
        }
        self.snapshot_at = self.parts.seq;
        let written = self.parts.journal.snapshot(self.parts.seq, &self.parts.world, SNAPSHOTS_KEPT).await;
        if let Err(error) = written {
            // The journal itself is whole: a start only reads more of it. The next commit will show a failing disk.
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "no snapshot was written; starting will take longer"
            );
        }
    }

    pub(super) fn refuse_waiting(&mut self) {
        while let Some(submission) = self.parts.outlets.ordinary() {
            if let Some(reply) = submission.reply {
                // A sender that gave up needs no answer.
                let _ = reply.send(Err(NotCommitted::Store));
            }
        }
        while let Some(submission) = self.parts.outlets.overtaking() {
            match (submission.order, submission.reply) {
                (order @ Order::Finished { .. }, _) => self.again.push_back(order),
                (_, Some(reply)) => {
                    // Even when nothing can be written, a pause stops what has not been sent (rule 49).
                    for token in self.steps.values() {
                        token.cancel();
                    }
                    let _ = reply.send(Err(NotCommitted::Store));
                }
                (_, None) => {}
            }
        }
    }
}

/// The order behind a journal entry that must not be lost with it: a result is about the world outside.
fn finished(entry: &crate::store::Entry) -> Option<Order> {
    match &entry.event {
        Event::StepDone { host, incident, step, result, .. } => {
            Some(Order::Finished { host: *host, incident: *incident, step: *step, result: result.clone() })
        }
        _ => None,
    }
}
