//! The doors into the loop: a bounded channel whose senders wait, and a lane that overtakes it for an operator's pause
//! and for the results of commands.

use super::signals::Signals;
use super::views::Views;
use healing::command::{Notice, StepResult};
use healing::event::{Config, Event, InstallReport, Operator};
use healing::id::{HostId, IncidentId, JobId, StepId};
use healing::time::Elapsed;
use tokio::sync::{mpsc, oneshot};

/// Submissions that may wait in each lane; further senders wait outside.
pub const LANE: usize = 1_024;

/// What comes in from outside the loop. Events about a host get its evidence from the loop itself.
#[derive(Debug)]
pub enum Order {
    /// A person or an API call.
    Operator(Operator),
    /// Configuration.
    Config(Config),
    /// The installer reported.
    Install {
        /// The host.
        host: HostId,
        /// The job.
        job: JobId,
        /// What.
        report: InstallReport,
    },
    /// The appliance lease was renewed or lost.
    Lease {
        /// When it ends, running time.
        until: Elapsed,
        /// Its epoch.
        epoch: u64,
    },
    /// An executor finished a step.
    Finished {
        /// The host.
        host: HostId,
        /// The incident.
        incident: IncidentId,
        /// The step.
        step: StepId,
        /// The result.
        result: Box<StepResult>,
    },
}

impl Order {
    /// Whether it overtakes: see [`Event::overtakes`].
    fn overtakes(&self) -> bool {
        match self {
            Order::Operator(order) => Event::Operator(order.clone()).overtakes(),
            Order::Finished { .. } => true,
            Order::Config(_) | Order::Install { .. } | Order::Lease { .. } => false,
        }
    }
}

/// The answer to a submission: it is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Its number in the journal.
    pub seq: u64,
    /// What the decision had to say about it, refusals included.
    pub notices: Vec<Notice>,
}

/// Why a submission was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotCommitted {
    /// The store could not write it.
    #[error(
        "the store cannot be written, so nothing was changed and the appliance only observes; free space or replace the disk, then send it again"
    )]
    Store,
    /// The loop is stopping or gone.
    #[error("the appliance is stopping, so nothing was changed; send it again when it runs")]
    Stopping,
}

pub(super) struct Submission {
    pub(super) order: Order,
    pub(super) reply: Option<oneshot::Sender<Result<Committed, NotCommitted>>>,
}

/// How the rest of the appliance speaks to the loop. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Inbox {
    ordinary: mpsc::Sender<Submission>,
    overtaking: mpsc::Sender<Submission>,
    /// The intake of signals.
    pub signals: Signals,
    /// What readers see.
    pub views: Views,
}

impl std::fmt::Debug for Submission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Submission").field("order", &self.order).finish_non_exhaustive()
    }
}

/// The loop's side of the lanes.
#[derive(Debug)]
pub(super) struct Outlets {
    ordinary: mpsc::Receiver<Submission>,
    overtaking: mpsc::Receiver<Submission>,
    /// Taken out by `ready`, so that waiting for either lane loses nothing.
    waiting: (Option<Submission>, Option<Submission>),
}

impl Outlets {
    /// Waits until either lane holds something.
    pub(super) async fn ready(&mut self) {
        if self.waiting.0.is_some() || self.waiting.1.is_some() {
            return;
        }
        tokio::select! {
            biased;
            Some(submission) = self.overtaking.recv() => self.waiting.0 = Some(submission),
            Some(submission) = self.ordinary.recv() => self.waiting.1 = Some(submission),
            else => std::future::pending().await,
        }
    }

    /// The next submission that overtakes.
    pub(super) fn overtaking(&mut self) -> Option<Submission> {
        self.waiting.0.take().or_else(|| self.overtaking.try_recv().ok())
    }

    /// The next one that does not.
    pub(super) fn ordinary(&mut self) -> Option<Submission> {
        self.waiting.1.take().or_else(|| self.ordinary.try_recv().ok())
    }
}

impl Inbox {
    pub(super) fn new() -> (Inbox, Outlets) {
        let (ordinary, ordinary_out) = mpsc::channel(LANE);
        let (overtaking, overtaking_out) = mpsc::channel(LANE);
        let inbox = Inbox { ordinary, overtaking, signals: Signals::new(), views: Views::default() };
        (inbox, Outlets { ordinary: ordinary_out, overtaking: overtaking_out, waiting: (None, None) })
    }

    /// Submits and waits until it is durable. Waits outside while the lane is full.
    ///
    /// # Errors
    /// The store could not write it, or the loop is stopping.
    pub async fn submit(&self, order: Order) -> Result<Committed, NotCommitted> {
        let (reply, committed) = oneshot::channel();
        self.send(Submission { order, reply: Some(reply) }).await?;
        committed.await.unwrap_or(Err(NotCommitted::Stopping))
    }

    /// Hands in the result of a step. Nobody waits for its commit: if it is lost, the step is observed again.
    pub(super) async fn finished(&self, host: HostId, incident: IncidentId, step: StepId, result: StepResult) {
        let order = Order::Finished { host, incident, step, result: Box::new(result) };
        // A stopping loop needs no result: the open intent is re-observed after the next start (rule 44).
        let _ = self.send(Submission { order, reply: None }).await;
    }

    async fn send(&self, submission: Submission) -> Result<(), NotCommitted> {
        let lane = if submission.order.overtakes() { &self.overtaking } else { &self.ordinary };
        lane.send(submission).await.map_err(|_| NotCommitted::Stopping)
    }
}
