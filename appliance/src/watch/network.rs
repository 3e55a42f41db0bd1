//! The prober at work: one thread that owns a wire, wakes a hundred times a second, and hands over what it saw.

use super::prober::{Marks, Prober, SLOT_MS};
use super::standing::Standings;
use super::tally::Tally;
use super::target::Roster;
use super::wire::{Frames, Wire, WireError};
use crate::decide_loop::{RunningTime, Signals};
use healing::id::HostId;
use healing::sight::OwnSight;
use healing::time::{Elapsed, Millis, SECOND};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::{oneshot, watch};

/// Looks that may wait for the thread.
const LOOKS_WAITING_MAX: usize = 1_024;

/// Between two tries to open a wire that broke.
const REOPEN_MS: Millis = SECOND;

/// Opens the wire, at the start and whenever it broke.
pub type OpenWire = Box<dyn FnMut() -> Result<Box<dyn Wire>, WireError> + Send>;

/// What the prober of one wire needs.
pub struct Setup {
    /// Opens the wire.
    pub open: OpenWire,
    /// By what answers are known; the wire's filter asks for the same.
    pub marks: Marks,
    /// Who is probed; replaced as a whole.
    pub roster: watch::Receiver<Arc<Roster>>,
    /// Who is looked at faster, such as hosts with an incident, besides those that do not answer.
    pub attended: watch::Receiver<Arc<Vec<HostId>>>,
    /// Where signals go.
    pub signals: Signals,
    /// Where own sight goes: one prober sees its own segment only.
    pub tell_sight: TellSight,
    /// The clock of the loop.
    pub time: RunningTime,
}

/// Takes what is seen of our own place on the network.
pub type TellSight = Box<dyn Fn(OwnSight) + Send>;

impl std::fmt::Debug for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setup").field("marks", &self.marks).finish_non_exhaustive()
    }
}

type Ask = (HostId, oneshot::Sender<Option<(bool, bool)>>);

/// The prober, from outside. The thread ends when this is dropped.
#[derive(Debug)]
pub struct NetworkWatch {
    asks: SyncSender<Ask>,
    tally: Arc<Mutex<Tally>>,
    standings: Standings,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl NetworkWatch {
    /// Opens the wire and starts to probe.
    ///
    /// # Errors
    /// The wire cannot be opened, or no thread be started.
    pub fn start(mut setup: Setup) -> Result<NetworkWatch, WireError> {
        let wire = (setup.open)()?;
        let (asks, asked) = sync_channel(LOOKS_WAITING_MAX);
        let (tally, standings, stop) = (Arc::default(), Standings::default(), Arc::new(AtomicBool::new(false)));
        let mut run = Run {
            setup,
            asked,
            waiting: HashMap::new(),
            number: 0,
            tally: Arc::clone(&tally),
            standings: standings.clone(),
            stop: Arc::clone(&stop),
            frames: Frames::default(),
            sight_at: Elapsed::default(),
        };
        let thread = std::thread::Builder::new().name("network-watch".to_owned()).spawn(move || run.forever(wire));
        let thread = thread.map_err(|source| WireError::System {
            interface: "the wire".to_owned(),
            doing: "starting a thread",
            source,
        })?;
        Ok(NetworkWatch { asks, tally, standings, stop, thread: Some(thread) })
    }

    /// Looks once at a host, now: whether one of three echoes and its kubelet's port answered. `None` if that cannot be
    /// said: the host is not in the roster, a probe did not leave, or answers were lost. Takes at most 1.5 s on a prober
    /// that runs; the caller sets its own deadline.
    pub async fn probe(&self, host: HostId) -> Option<(bool, bool)> {
        let (answer, answered) = oneshot::channel();
        self.asks.try_send((host, answer)).ok()?;
        answered.await.ok().flatten()
    }

    /// What was counted, at most a second ago.
    #[must_use]
    pub fn tally(&self) -> Tally {
        *self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How hosts stand.
    #[must_use]
    pub fn standings(&self) -> Standings {
        self.standings.clone()
    }
}

impl Drop for NetworkWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // Ends within a slot of the schedule; a panic of it was printed already.
            let _ = thread.join();
        }
    }
}

struct Run {
    setup: Setup,
    asked: Receiver<Ask>,
    waiting: HashMap<u64, oneshot::Sender<Option<(bool, bool)>>>,
    number: u64,
    tally: Arc<Mutex<Tally>>,
    standings: Standings,
    stop: Arc<AtomicBool>,
    frames: Frames,
    sight_at: Elapsed,
}

impl Run {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn now(&self) -> Elapsed {
        self.setup.time.now().elapsed
    }

    fn forever(&mut self, wire: Box<dyn Wire>) {
        let mut next = Some(wire);
        let mut reopened = 0_u64;
        while !self.stopped() {
            let Some(mut wire) = next.take() else {
                self.blind();
                std::thread::sleep(self.setup.time.span(REOPEN_MS));
                match (self.setup.open)() {
                    Ok(wire) => {
                        reopened += 1;
                        next = Some(wire);
                    }
                    Err(why) => tracing::warn!(%why, "the wire cannot be opened again; trying each second"),
                }
                continue;
            };
            let mut prober =
                Prober::new(wire.mac(), wire.address(), self.setup.marks, !wire.resets_by_itself(), self.now());
            (0..reopened).for_each(|_| prober.reopened());
            self.roster(&mut prober);
            while !self.stopped() {
                if let Err(why) = self.turn(&mut prober, &mut *wire) {
                    tracing::warn!(%why, "the wire broke: nothing is seen through it until it is opened again");
                    break;
                }
            }
        }
    }

    /// There is no wire: that is what we see.
    fn blind(&mut self) {
        for (_, waiting) in self.waiting.drain() {
            let _ = waiting.send(None);
        }
        while let Ok((_, answer)) = self.asked.try_recv() {
            let _ = answer.send(None);
        }
        (self.setup.tell_sight)(OwnSight { at: self.now(), ..OwnSight::default() });
    }

    fn roster(&mut self, prober: &mut Prober) {
        let roster = Arc::clone(&self.setup.roster.borrow_and_update());
        prober.attend(&Arc::clone(&self.setup.attended.borrow_and_update()));
        prober.replace(&roster);
        self.standings.keep(&roster.targets().iter().map(|target| target.host).collect::<HashSet<_>>());
    }

    fn turn(&mut self, prober: &mut Prober, wire: &mut dyn Wire) -> std::io::Result<()> {
        let time = self.setup.time.clone();
        let began = self.now();
        let sleeps_ms = prober.next_at().since(began).min(SLOT_MS);
        let wait = time.span(sleeps_ms);
        // One moment serves all frames of a turn: they arrived in the same ten milliseconds.
        let mut moment = None;
        let received = wire.receive(wait, &mut |frame| {
            let at = *moment.get_or_insert_with(|| time.now().elapsed);
            prober.heard(frame, at);
        })?;
        let now = self.now();
        let stalled = prober.due(now, &mut self.frames);
        if let Some(stalled_ms) = stalled {
            // First of all: whatever was seen before counts no more.
            let told = std::mem::take(prober.told());
            self.standings.put(told.standings.into_iter());
            self.end_looks(told.looks);
            self.setup.signals.stalled(stalled_ms);
        }
        // It sleeps at least so long before it reads; how much later it read is not known.
        prober.received(received, began.plus(sleeps_ms), now);
        wire.send(&self.frames, &mut |place| prober.unsent(place))?;
        prober.left(now, self.now());
        self.hand_over(prober);
        if self.setup.roster.has_changed().unwrap_or(false) || self.setup.attended.has_changed().unwrap_or(false) {
            self.changed(prober);
        }
        while let Ok((host, answer)) = self.asked.try_recv() {
            self.number += 1;
            self.waiting.insert(self.number, answer);
            prober.look(self.number, host, now);
        }
        if now.since(self.sight_at) >= SECOND {
            self.sight_at = now;
            let sight = prober.own_sight(wire.carrier(), now);
            (self.setup.tell_sight)(sight);
            *self.tally.lock().unwrap_or_else(PoisonError::into_inner) = prober.tally();
        }
        Ok(())
    }

    fn changed(&mut self, prober: &mut Prober) {
        if self.setup.roster.has_changed().unwrap_or(false) {
            self.roster(prober);
        } else {
            prober.attend(&Arc::clone(&self.setup.attended.borrow_and_update()));
        }
    }

    fn hand_over(&mut self, prober: &mut Prober) {
        let told = prober.told();
        for (host, signal) in told.signals.drain(..) {
            self.setup.signals.offer(host, signal);
        }
        if !told.standings.is_empty() {
            self.standings.put(told.standings.drain(..));
        }
        let looks = std::mem::take(&mut told.looks);
        self.end_looks(looks);
    }

    fn end_looks(&mut self, looks: Vec<(u64, Option<(bool, bool)>)>) {
        for (number, seen) in looks {
            if let Some(answer) = self.waiting.remove(&number) {
                // Who asked may have given up.
                let _ = answer.send(seen);
            }
        }
    }
}
