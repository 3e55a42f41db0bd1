//! One BMC among many: its one session, one request in flight, its manners, and a fence that goes before all others.

use crate::controller::{BmcError, Controller, Kind, Verb};
use crate::discipline::{Discipline, Hold, Purpose};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::time::{sleep_until, timeout_at};

/// Failures in a row after which the connection is not trusted any more and opened anew.
const REOPEN_AFTER: u32 = 2;

/// Opens the way to a BMC: address, credential and trust are its own.
pub trait Dial: Send + Sync {
    /// Opens it.
    fn open(&self) -> Verb<'_, Box<dyn Controller>>;
}

/// Why a poll gave nothing.
#[derive(Debug)]
pub enum Skipped {
    /// It is not to be asked now.
    Hold(Hold),
    /// A fence has it, or took it away.
    Fence,
    /// It was asked and did not do it.
    Failed(BmcError),
}

/// One BMC.
///
/// `'held` of its verbs is what an ask may borrow from its caller beside the controller: the guard of a write.
pub struct Station {
    dial: Box<dyn Dial>,
    seat: tokio::sync::Mutex<Option<Box<dyn Controller>>>,
    discipline: Mutex<Discipline>,
    fences: AtomicUsize,
    fence_came: Notify,
}

impl std::fmt::Debug for Station {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Station").field("discipline", &self.discipline).finish_non_exhaustive()
    }
}

/// Counts a fence in and out, whatever ends it.
struct Coming<'a>(&'a AtomicUsize);

impl<'a> Coming<'a> {
    fn new(count: &'a AtomicUsize) -> Coming<'a> {
        count.fetch_add(1, Ordering::SeqCst);
        Coming(count)
    }
}

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn chance() -> f64 {
    let mut byte = [0u8; 1];
    // Without random numbers all pause alike, which is only less kind.
    let _ = getrandom::fill(&mut byte);
    f64::from(byte[0]) / 255.0
}

impl Station {
    /// A BMC that is not connected yet.
    #[must_use]
    pub fn new(dial: Box<dyn Dial>) -> Station {
        Station {
            dial,
            seat: tokio::sync::Mutex::new(None),
            discipline: Mutex::new(Discipline::default()),
            fences: AtomicUsize::new(0),
            fence_came: Notify::new(),
        }
    }

    fn manners<T>(&self, with: impl FnOnce(&mut Discipline) -> T) -> T {
        with(&mut self.discipline.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How it has behaved.
    #[must_use]
    pub fn discipline(&self) -> Discipline {
        self.manners(|discipline| discipline.clone())
    }

    /// Another credential was given.
    pub async fn credential_changed(&self) {
        self.manners(Discipline::credential_changed);
        self.hang_up().await;
    }

    /// Asks it something, if nobody else does; a fence that comes takes it away at once.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn poll<'held, T: Send>(
        &self,
        ask: impl for<'a> FnOnce(&'a mut (dyn Controller + 'held)) -> Verb<'a, T> + Send,
    ) -> Result<T, Skipped> {
        // Told of before the count is looked at, so that none is missed between the two.
        let fence_came = self.fence_came.notified();
        if self.fences.load(Ordering::SeqCst) > 0 {
            return Err(Skipped::Fence);
        }
        self.manners(|discipline| discipline.may(Purpose::Poll, Instant::now())).map_err(Skipped::Hold)?;
        let Ok(mut seat) = self.seat.try_lock() else { return Err(Skipped::Fence) };
        tokio::select! {
            biased;
            () = fence_came => Err(Skipped::Fence),
            answer = self.ask(&mut seat, ask) => answer.map_err(Skipped::Failed),
        }
    }

    /// Does something that can wait its turn: for the manners, and for fences.
    ///
    /// # Errors
    /// It was not done, or may not be now.
    pub async fn write<'held, T: Send>(
        &self,
        limit: Duration,
        act: impl for<'a> FnOnce(&'a mut (dyn Controller + 'held)) -> Verb<'a, T> + Send,
    ) -> Result<T, BmcError> {
        self.act(Purpose::Write, true, limit, act).await
    }

    /// Goes before all others: a poll under way is given up. `writes` says whether it changes something.
    ///
    /// # Errors
    /// It was not done, or may not be now.
    pub async fn fence<'held, T: Send>(
        &self,
        writes: bool,
        limit: Duration,
        act: impl for<'a> FnOnce(&'a mut (dyn Controller + 'held)) -> Verb<'a, T> + Send,
    ) -> Result<T, BmcError> {
        let _coming = Coming::new(&self.fences);
        self.fence_came.notify_waiters();
        self.act(Purpose::Fence, writes, limit, act).await
    }

    async fn act<'held, T: Send>(
        &self,
        purpose: Purpose,
        writes: bool,
        limit: Duration,
        act: impl for<'a> FnOnce(&'a mut (dyn Controller + 'held)) -> Verb<'a, T> + Send,
    ) -> Result<T, BmcError> {
        let end = tokio::time::Instant::now() + limit;
        let slow = || {
            BmcError::new(Kind::Unknown, format!("not done within {} s; read before anything else", limit.as_secs()))
        };
        // A fence must not wait for one that only waits: pauses are made without the seat.
        let (mut seat, fence_came) = loop {
            self.pause(purpose, end).await?;
            let seat = timeout_at(end, self.seat.lock()).await.map_err(|_| slow())?;
            // Told of before the count is looked at, so that none is missed between the two.
            let fence_came = self.fence_came.notified();
            if purpose == Purpose::Write && self.fences.load(Ordering::SeqCst) > 0 {
                drop(seat);
                tokio::task::yield_now().await;
                continue;
            }
            // Somebody may have written or failed meanwhile.
            if self.manners(|discipline| discipline.may(purpose, Instant::now())).is_ok() {
                break (seat, fence_came);
            }
        };
        if writes {
            self.manners(|discipline| discipline.writes(Instant::now()));
        }
        let done = tokio::select! {
            biased;
            // What can wait is given up: whether it was done shows when it is read again.
            () = fence_came, if purpose == Purpose::Write => {
                return Err(BmcError::new(Kind::Unknown, "given up for a fence; read before anything else"));
            }
            done = timeout_at(end, self.ask(&mut seat, act)) => done,
        };
        if writes {
            // From its end too: a slow one was written to late.
            self.manners(|discipline| discipline.writes(Instant::now()));
        }
        done.unwrap_or_else(|_| {
            self.manners(|discipline| discipline.ended(Err(Kind::Unknown), Instant::now(), chance()));
            Err(slow())
        })
    }

    /// Waits until it may be asked, or says why it may not within the time.
    async fn pause(&self, purpose: Purpose, end: tokio::time::Instant) -> Result<(), BmcError> {
        loop {
            match self.manners(|discipline| discipline.may(purpose, Instant::now())) {
                Ok(()) => return Ok(()),
                Err(Hold::Until(until)) if tokio::time::Instant::from_std(until) < end => {
                    sleep_until(until.into()).await;
                }
                Err(Hold::Until(_)) => {
                    let text = "the BMC is given a pause that is longer than the time for this";
                    return Err(BmcError::new(Kind::Busy(None), text));
                }
                Err(Hold::Credential(_)) => {
                    let text = "its credential was refused before and is not tried again now, as BMCs lock accounts; give the right one";
                    return Err(BmcError::new(Kind::Credential, text));
                }
            }
        }
    }

    async fn ask<'held, T>(
        &self,
        seat: &mut Option<Box<dyn Controller>>,
        ask: impl for<'a> FnOnce(&'a mut (dyn Controller + 'held)) -> Verb<'a, T>,
    ) -> Result<T, BmcError> {
        let answer = async {
            if seat.is_none() {
                *seat = Some(self.dial.open().await?);
            }
            match seat.as_mut() {
                Some(controller) => ask(&mut **controller).await,
                None => Err(BmcError::new(Kind::Unreachable, "not connected")),
            }
        };
        let answer = answer.await;
        let result = answer.as_ref().map(drop).map_err(|why| why.kind);
        let failures = self.manners(|discipline| {
            discipline.ended(result, Instant::now(), chance());
            discipline.failures()
        });
        if failures >= REOPEN_AFTER || matches!(result, Err(Kind::Credential | Kind::Pin)) {
            *seat = None;
        }
        answer
    }

    /// Gives its session back.
    pub async fn hang_up(&self) {
        if let Some(controller) = self.seat.lock().await.take() {
            controller.close().await;
        }
    }
}
