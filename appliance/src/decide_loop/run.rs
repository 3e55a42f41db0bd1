//! The loop itself: one task that owns the world and the evidence, decides, makes durable, and only then lets anything
//! out.

mod keep;

use super::clock::{RunningTime, StallWatch};
use super::evidence_table::EvidenceTable;
use super::executor::{Executor, Ward};
use super::group::{GATHER_MS, Group};
use super::inbox::{Committed, Inbox, NotCommitted, Order, Outlets, Submission};
use super::pulse::Pulse;
use super::timers::Timers;
use super::views::Explain;
use crate::store::{Journal, JournalError};
use healing::command::{Command, Loudness, Outcome, StepResult, WakeTarget, Wakeup};
use healing::event::{Change, Event};
use healing::id::{HostId, IncidentId, StepId};
use healing::rules::Enforced;
use healing::sight::Doubt;
use healing::time::{Elapsed, MINUTE, Millis, Now, SECOND};
use healing::world::World;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, Span};

/// The loop turns at least this often: it notices its own stalls, and makes Leases late by time alone.
const TURN_MS: Millis = 100;
/// How often the fleet is counted for own sight.
const COUNT_MS: Millis = SECOND;
/// How often a store that failed is tried again.
const STORE_RETRY_MS: Millis = 5 * SECOND;
/// The world is written whole after this many events.
pub const SNAPSHOT_EVENTS: u64 = 10_000;
/// Snapshots that are kept.
pub const SNAPSHOTS_KEPT: usize = 3;
/// Life of the appliance lease, and when it is renewed (rule 46).
pub(super) const LEASE_MS: Millis = 5 * MINUTE;
const LEASE_RENEW_MS: Millis = 2 * MINUTE;
/// Steps get this long to end safely when the appliance stops.
const STOP_MS: Millis = 3 * SECOND;

/// What decides. Production has one: `healing::decide::decide` under all rules.
pub type Decide = fn(&World, &Event, Now) -> Outcome<Enforced>;

/// How the loop ended.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// Another appliance took the lease: this one must touch nothing any more.
    #[error(
        "another appliance took over the site (lease epoch {theirs}, ours was {ours}), so this one stops; start it again only as a standby"
    )]
    Superseded {
        /// Our epoch.
        ours: u64,
        /// Theirs.
        theirs: u64,
    },
}

/// How well the store keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keeping {
    /// Everything is journaled.
    Whole,
    /// The store failed: only what ends our own holds goes to the reserve (rule 48).
    Reserve {
        /// When the store is tried again.
        retry_at: Elapsed,
    },
    /// Not even the reserve: nothing is decided, people are told.
    Nothing {
        /// When the store is tried again.
        retry_at: Elapsed,
    },
}

pub(super) struct Parts<J, X> {
    pub(super) journal: J,
    pub(super) executor: Arc<X>,
    pub(super) time: RunningTime,
    pub(super) decide: Decide,
    pub(super) explain: Explain,
    pub(super) world: World,
    pub(super) seq: u64,
    pub(super) epoch: u64,
    pub(super) inbox: Inbox,
    pub(super) pulse: Pulse,
    pub(super) outlets: Outlets,
    pub(super) tracker: TaskTracker,
    pub(super) stop: CancellationToken,
}

/// The state of the running loop.
pub(super) struct Running<J, X> {
    parts: Parts<J, X>,
    table: EvidenceTable,
    timers: Timers,
    watch: StallWatch,
    ward: Arc<Ward>,
    keeping: Keeping,
    /// Steps that executors work on.
    steps: HashMap<StepId, CancellationToken>,
    /// Results whose commit failed: they are about the world outside and are decided again.
    again: VecDeque<Order>,
    stalled: Option<Millis>,
    doubt: Option<Doubt>,
    sight_changed: bool,
    counted_at: Elapsed,
    lease_until: Elapsed,
    snapshot_at: u64,
    /// One span of the log for each open incident.
    spans: HashMap<IncidentId, Span>,
    /// Whose turn it is among the sources of events that do not overtake.
    turn: u8,
}

impl<J: Journal, X: Executor> Running<J, X> {
    /// Begins: everything starts with the event of the start, so that open intents are re-observed (rules 44, 45).
    pub(super) fn new(parts: Parts<J, X>) -> Self {
        let now = parts.time.now();
        let ward = Arc::new(Ward::default());
        let mut running = Running {
            table: EvidenceTable::of(&parts.world, now),
            timers: Timers::default(),
            watch: StallWatch::new(now),
            ward,
            keeping: Keeping::Whole,
            steps: HashMap::new(),
            again: VecDeque::new(),
            stalled: None,
            doubt: None,
            sight_changed: true,
            counted_at: now.elapsed,
            lease_until: now.elapsed,
            snapshot_at: parts.seq,
            spans: HashMap::new(),
            turn: 0,
            parts,
        };
        running.publish_all();
        running
    }

    /// Runs until it is stopped or superseded.
    pub(super) async fn run(mut self, started: Event) -> Result<(), Ended> {
        if let Event::Started { lease_until, .. } = &started {
            self.lease_until = *lease_until;
        }
        let mut group = Group::default();
        let now = self.parts.time.now();
        self.decide(now, started, None, &mut group);
        self.wake_the_ill(now);
        self.commit(group).await?;
        let mut stopping: Option<Elapsed> = None;
        loop {
            self.wait(stopping.is_some()).await;
            let now = self.parts.time.now();
            self.look(now);
            self.parts.pulse.beat(now.elapsed, self.keeping == Keeping::Whole);
            self.renew_lease(now).await?;
            self.retry_store(now).await?;
            let group = self.gather(now);
            self.commit(group).await?;
            self.snapshot_if_due().await;
            if self.parts.stop.is_cancelled() {
                // Executors got the same token: steps end safely, and their results are still taken in.
                let since = *stopping.get_or_insert(now.elapsed);
                if self.steps.is_empty() || now.elapsed.since(since) > STOP_MS {
                    return Ok(());
                }
            }
        }
    }

    /// Sleeps until there is something to do, but never longer than one turn.
    async fn wait(&mut self, stopping: bool) {
        let busy = match self.keeping {
            Keeping::Whole => self.table.has_facts() || !self.again.is_empty(),
            Keeping::Reserve { .. } => !self.again.is_empty(),
            Keeping::Nothing { .. } => false,
        };
        if busy {
            return;
        }
        let now = self.parts.time.now().elapsed;
        let due = self.timers.next().filter(|_| !matches!(self.keeping, Keeping::Nothing { .. }));
        let next = due.map_or(TURN_MS, |at| at.since(now).min(TURN_MS));
        if next == 0 {
            return;
        }
        let turn = tokio::time::sleep(self.parts.time.span(next));
        let outlets = &mut self.parts.outlets;
        tokio::select! {
            biased;
            () = self.parts.stop.cancelled(), if !stopping => {}
            () = outlets.ready() => {}
            () = self.parts.inbox.signals.news() => {}
            () = turn => {}
        }
    }

    /// Takes in what was seen since the last turn. The stall is noticed before anything else is believed.
    fn look(&mut self, now: Now) {
        let limits = self.parts.world.limits.clone();
        let signals = self.parts.inbox.signals.clone();
        let own = self.watch.turn(now, limits.stall_ms, limits.clock_apart_ms);
        if let Some(stalled) = own.max(signals.take_stalled()) {
            self.ward.stalled();
            signals.discard();
            self.table.void(now);
            self.stalled = Some(self.stalled.map_or(stalled, |before| before.max(stalled)));
        }
        self.ward.beat(now.elapsed, limits.stall_ms, self.lease_until, limits.lease_margin_ms);
        if let Some(sight) = signals.take_sight() {
            self.table.see_sight(sight);
        }
        for sight in signals.take_clusters().into_values() {
            self.table.see_cluster(sight);
        }
        signals.drain(|host, runs| self.table.fold(host, &runs, &limits, now));
        self.table.pass_time(&limits, now);
        if now.elapsed.since(self.counted_at) >= COUNT_MS {
            self.counted_at = now.elapsed;
            self.table.count_for_sight(&limits, now);
        }
        let doubt = self.table.sight().check(&limits, &[], now).err();
        if doubt != self.doubt {
            self.doubt = doubt;
            self.sight_changed = true;
        }
    }

    /// Decides what there is: a stall first, then what overtakes, then the rest in turn.
    fn gather(&mut self, began: Now) -> Group {
        let mut group = Group::default();
        if matches!(self.keeping, Keeping::Nothing { .. }) {
            self.refuse_waiting();
            return group;
        }
        if let Some(stalled_ms) = self.stalled.take() {
            self.decide(began, Event::Stalled { stalled_ms }, None, &mut group);
        }
        while !group.is_full() {
            let now = self.parts.time.now();
            if now.elapsed.since(began.elapsed) > GATHER_MS && group.looked_at > 0 {
                break;
            }
            if let Some(submission) = self.overtaking() {
                self.decide_submission(now, submission, &mut group);
            } else if !self.decide_next(now, &mut group) {
                break;
            }
        }
        group
    }

    fn overtaking(&mut self) -> Option<Submission> {
        if let Some(order) = self.again.pop_front() {
            return Some(Submission { order, reply: None });
        }
        self.parts.outlets.overtaking()
    }

    /// One event of a source that does not overtake; each source in turn, so that none starves another.
    fn decide_next(&mut self, now: Now, group: &mut Group) -> bool {
        let whole = self.keeping == Keeping::Whole;
        for _ in 0..4 {
            self.turn = (self.turn + 1) % 4;
            match self.turn {
                0 if std::mem::take(&mut self.sight_changed) => {
                    let sight = Box::new(self.table.sight().clone());
                    self.decide(now, Event::Sight(sight), None, group);
                    return true;
                }
                1 => {
                    if let Some(target) = self.timers.take_due(now.elapsed) {
                        self.decide_wake(now, target, group);
                        return true;
                    }
                }
                // The reserve is for ending our own holds: new facts and orders wait for the store.
                2 if whole => {
                    if let Some(host) = self.table.next_fact() {
                        let view = Box::new(self.table.view(host));
                        self.decide(now, Event::Fact { host, view }, None, group);
                        return true;
                    }
                }
                3 => {
                    if let Some(submission) = self.parts.outlets.ordinary() {
                        if whole {
                            self.decide_submission(now, submission, group);
                        } else if let Some(reply) = submission.reply {
                            // A sender that gave up needs no answer.
                            let _ = reply.send(Err(NotCommitted::Store));
                        }
                        return true;
                    }
                }
                _ => {}
            }
        }
        false
    }

    fn decide_wake(&mut self, now: Now, target: WakeTarget, group: &mut Group) {
        match target {
            WakeTarget::Site => {
                let sight = Box::new(self.table.sight().clone());
                self.decide(now, Event::Sight(sight), None, group);
            }
            WakeTarget::Host(host) => {
                let view = Box::new(self.table.view(host));
                self.decide(now, Event::Wake { host, view }, None, group);
            }
        }
    }

    fn decide_submission(&mut self, now: Now, submission: Submission, group: &mut Group) {
        let event = match submission.order {
            Order::Operator(order) => Event::Operator(order),
            Order::Config(config) => Event::Config(config),
            Order::Lease { until, epoch } => Event::Lease { until, epoch },
            Order::Install { host, job, report } => {
                Event::Install { host, job, report, view: Box::new(self.table.view(host)) }
            }
            Order::Finished { host, incident, step, result } => {
                self.steps.remove(&step);
                Event::StepDone { host, incident, step, result, view: Box::new(self.table.view(host)) }
            }
        };
        self.decide(now, event, submission.reply, group);
    }

    /// One decision against the world with all earlier ones applied.
    fn decide(&mut self, now: Now, event: Event, reply: Option<super::group::Reply>, group: &mut Group) {
        let outcome = (self.parts.decide)(&self.parts.world, &event, now);
        for change in &outcome.changes {
            self.parts.world.apply(change);
            match change {
                Change::Host(host) => self.table.know(host, now),
                Change::RemoveHost(host) => self.table.forget(*host),
                _ => {}
            }
        }
        group.take(now, event, outcome, reply);
    }

    /// Makes a group durable; then, and only then, lets its commands and answers out.
    async fn commit(&mut self, group: Group) -> Result<(), Ended> {
        if group.entries.is_empty() {
            self.let_out(group);
            return Ok(());
        }
        let (epoch, seq) = (self.parts.epoch, self.parts.seq);
        let written = match self.keeping {
            Keeping::Whole => self.parts.journal.commit(epoch, seq, &group.entries).await,
            Keeping::Reserve { .. } => self.parts.journal.commit_reserve(epoch, seq, &group.entries).await,
            Keeping::Nothing { .. } => return Ok(()),
        };
        match written {
            Ok(seq) => {
                self.parts.seq = seq;
                self.let_out(group);
                Ok(())
            }
            Err(JournalError::Superseded { theirs }) => {
                answer_none(group, NotCommitted::Stopping);
                self.cancel_all();
                Err(Ended::Superseded { ours: epoch, theirs })
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the journal cannot be written: observe-only"
                );
                self.store_failed(group).await;
                Ok(())
            }
        }
    }

    fn let_out(&mut self, group: Group) {
        let now = self.parts.time.now();
        for wakeup in &group.wakeups {
            // Never at once: a target that always asks for this very moment must not hold the loop.
            self.timers.set(Wakeup { at: wakeup.at.max(now.elapsed.plus(1)), ..*wakeup });
        }
        if !group.changed.is_empty() || !group.entries.is_empty() {
            self.parts.inbox.views.publish(&self.parts.world, &group.changed, self.parts.explain, self.parts.seq);
        }
        self.write_log(&group);
        // Stopped between decision and here: what the decision rested on is old (rule 47).
        let limits = &self.parts.world.limits;
        let fresh = group.entries.first().is_none_or(|first| now.elapsed.since(first.now.elapsed) <= limits.stall_ms);
        for command in group.commands {
            self.hand_over(command, fresh);
        }
        // A step may have been ordered and cancelled in the same group.
        for step in &group.cancels {
            if let Some(token) = self.steps.get(step) {
                token.cancel();
            }
        }
        let first_seq = self.parts.seq.saturating_sub(group.entries.len() as u64);
        for (reply, index, notices) in group.replies {
            // A sender that gave up needs no answer.
            let _ = reply.send(Ok(Committed { seq: first_seq + index as u64 + 1, notices }));
        }
    }

    /// What people are told goes into the log within the span of its incident.
    fn write_log(&mut self, group: &Group) {
        for entry in &group.entries {
            for change in &entry.changes {
                if let Change::Incident(incident) = change
                    && !self.spans.contains_key(&incident.id)
                {
                    let host = self.parts.world.hosts.get(&incident.host).map_or("", |host| host.name.as_str());
                    let span = tracing::info_span!("incident", incident = incident.id.0, node = host);
                    self.spans.insert(incident.id, span);
                }
            }
            for notice in &entry.notices {
                // The last word of an incident is said when it has left the world already.
                let ended = entry.changes.iter().find_map(|change| match change {
                    Change::Ended(incident) if Some(incident.host) == notice.host => Some(incident.id),
                    _ => None,
                });
                let span = notice.incident.or(ended).and_then(|id| self.spans.get(&id));
                span.map_or_else(|| log(notice), |span| span.in_scope(|| log(notice)));
            }
            for change in &entry.changes {
                if let Change::Ended(incident) = change {
                    self.spans.remove(&incident.id);
                }
            }
        }
    }

    /// Gives a command to its executor; the result comes back by the lane that overtakes.
    fn hand_over(&mut self, command: Command<Enforced>, fresh: bool) {
        let (host, incident, step) = (command.target.host, command.incident, command.step);
        if !fresh || self.parts.stop.is_cancelled() {
            let result =
                StepResult::Failed { why: healing::command::Failure::Cancelled, readings: Vec::new(), sent: false };
            self.again.push_back(Order::Finished { host, incident, step, result: Box::new(result) });
            return;
        }
        let token = self.parts.stop.child_token();
        self.steps.insert(step, token.clone());
        let right = self.ward.right(self.ward.generation(), token);
        let (executor, inbox) = (Arc::clone(&self.parts.executor), self.parts.inbox.clone());
        let span = self.spans.get(&incident).cloned().unwrap_or_else(Span::none);
        let work = async move {
            let result = executor.run(command, right).await;
            inbox.finished(host, incident, step, result).await;
        };
        self.parts.tracker.spawn(work.instrument(span));
    }

    /// Hosts that are ill get a look of their own soon after a start, whether or not anything new is seen of them.
    fn wake_the_ill(&mut self, now: Now) {
        let first_look = now.elapsed.plus(self.parts.world.limits.start_observe_ms);
        let ill: Vec<HostId> =
            self.parts.world.hosts.values().filter(|host| host.bad() || !host.ready()).map(|host| host.id).collect();
        for host in ill {
            let target = WakeTarget::Host(host);
            if !self.timers.has(target) {
                self.timers.set(Wakeup { target, at: first_look });
            }
        }
    }

    fn cancel_all(&mut self) {
        self.ward.stalled();
        for token in self.steps.values() {
            token.cancel();
        }
    }

    fn publish_all(&mut self) {
        let all: Vec<HostId> = self.parts.world.hosts.keys().copied().collect();
        self.parts.inbox.views.publish(&self.parts.world, &all, self.parts.explain, self.parts.seq);
    }
}

fn log(notice: &healing::command::Notice) {
    let host = notice.host.map(|host| host.0);
    let rule = notice.explanation.rule.map(|rule| rule.0);
    match notice.loudness {
        Loudness::Log => tracing::info!(host, rule, code = %notice.explanation.code, "{}", notice.explanation.sentence),
        Loudness::Page => {
            tracing::warn!(host, rule, code = %notice.explanation.code, "{}", notice.explanation.sentence)
        }
    }
}

fn answer_none(group: Group, why: NotCommitted) {
    for (reply, _, _) in group.replies {
        // A sender that gave up needs no answer.
        let _ = reply.send(Err(why));
    }
}
