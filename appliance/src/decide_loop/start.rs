//! The start: the world is the last snapshot and the changes applied since; past events are never decided again by a
//! newer version.

use super::clock::{Clock, RunningTime};
use super::executor::Executor;
use super::inbox::Inbox;
use super::pulse::Pulse;
use super::run::{Decide, Ended, LEASE_MS, Parts, Running};
use crate::store::{Journal, JournalError};
use healing::event::Event;
use healing::rules::Enforced;
use std::sync::Arc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What the loop is made of.
#[derive(Debug)]
pub struct Setup<J, X> {
    /// The open journal.
    pub journal: J,
    /// Who does the steps.
    pub executor: Arc<X>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Only look, never act: by order of the command line, or because the journal could not be understood.
    pub observe_only: bool,
}

/// A running loop.
#[derive(Debug)]
pub struct Handle {
    /// The doors into it.
    pub inbox: Inbox,
    /// Its running time, which continues the journal's: probers and executors stamp what they see with it.
    pub time: RunningTime,
    /// Whether it turns.
    pub pulse: Pulse,
    /// Its end.
    pub ended: JoinHandle<Result<(), Ended>>,
}

/// Starts the loop on the task tracker; `stop` ends it gracefully.
///
/// # Errors
/// The journal cannot be read, or another appliance holds the lease.
pub async fn start<J: Journal, X: Executor>(
    setup: Setup<J, X>,
    tracker: &TaskTracker,
    stop: CancellationToken,
) -> Result<Handle, JournalError> {
    let decide: Decide = |world, event, now| healing::decide::decide(Enforced, world, event, now);
    let Setup { mut journal, executor, clock, observe_only } = setup;
    // What a reserve still holds goes into the journal first: under the epoch that begins now its entries would be another's.
    journal.recover().await?;
    let loaded = journal.load().await?;
    let time = RunningTime::resume(clock, loaded.last.elapsed);
    let until = time.now().elapsed.plus(LEASE_MS);
    let epoch = journal.acquire_lease(until).await?;
    let (inbox, outlets) = Inbox::new();
    let pulse = Pulse::default();
    let parts = Parts {
        journal,
        executor,
        time: time.clone(),
        decide,
        explain: healing::decide::explain,
        world: loaded.world,
        seq: loaded.seq,
        epoch,
        inbox: inbox.clone(),
        pulse: pulse.clone(),
        outlets,
        tracker: tracker.clone(),
        stop,
    };
    let started =
        Event::Started { restored: loaded.restored, corrupt: loaded.corrupt, observe_only, lease_until: until, epoch };
    let ended = tracker.spawn(Running::new(parts).run(started));
    Ok(Handle { inbox, time, pulse, ended })
}
