//! The out-of-band plane: all BMCs in turn, those of suspect hosts each two seconds. Power comes with each look; boot
//! progress and sensors beside it, more seldom.

use super::standing::Standings;
use crate::act::bmc_signal;
use crate::decide_loop::{RunningTime, Signals};
use bmc::poll::{Look, Pace, Poller};
use bmc::station::Station;
use healing::id::HostId;
use healing::signal::{Power, Seen, Signal, Source};
use healing::time::{Elapsed, Millis, SECOND};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Semaphore, watch};

/// Boot progress is asked with each look at a suspect, and this seldom otherwise.
const STAGE_MS: (Millis, Millis) = (60 * SECOND, 2 * SECOND);

/// Sensors: a whole SDR or several pages. Slow BMCs take ten seconds for it.
const SENSORS_MS: (Millis, Millis) = (300 * SECOND, 30 * SECOND);

/// Further questions under way at the same time, of all BMCs.
const FURTHER_MAX: usize = 64;

/// How often it is looked up who is suspect.
const SUSPECTS_MS: Millis = SECOND / 2;

/// The BMCs of hosts.
#[derive(Debug)]
pub struct BmcWatch {
    /// Whose BMC is where. A changed list needs another watch: drop this one.
    pub stations: Vec<(HostId, Arc<Station>)>,
    /// How often.
    pub pace: Pace,
    /// Who does not answer on the network, one list for each prober.
    pub standings: Vec<Standings>,
    /// Who is looked at faster besides.
    pub attended: watch::Receiver<Arc<Vec<HostId>>>,
    /// Where signals go.
    pub signals: Signals,
    /// The clock of the loop.
    pub time: RunningTime,
}

/// When boot progress and sensors of a BMC were last asked for.
#[derive(Debug, Clone, Copy, Default)]
struct Further {
    stage_at: Option<Elapsed>,
    sensors_at: Option<Elapsed>,
}

struct Shared {
    stations: Vec<(HostId, Arc<Station>)>,
    signals: Signals,
    time: RunningTime,
    suspects: Mutex<HashSet<HostId>>,
    further: Mutex<HashMap<HostId, Further>>,
    turns: Arc<Semaphore>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl BmcWatch {
    /// Looks until it is dropped.
    pub async fn run(self) {
        let poller = Poller::new(self.stations.iter().map(|(_, station)| Arc::clone(station)).collect(), self.pace);
        let shared = Arc::new(Shared {
            stations: self.stations,
            signals: self.signals,
            time: self.time,
            suspects: Mutex::default(),
            further: Mutex::default(),
            turns: Arc::new(Semaphore::new(FURTHER_MAX)),
        });
        let saw = {
            let shared = Arc::clone(&shared);
            Arc::new(move |look: Look| shared.saw(&look))
        };
        tokio::select! {
            () = poller.run(saw) => {}
            () = shared.follow(&poller, &self.standings, self.attended.clone()) => {}
        }
    }
}

impl Shared {
    /// Tells the poller who is suspect.
    async fn follow(&self, poller: &Poller, standings: &[Standings], attended: watch::Receiver<Arc<Vec<HostId>>>) {
        let places: HashMap<HostId, usize> =
            self.stations.iter().enumerate().map(|(place, (host, _))| (*host, place)).collect();
        loop {
            let mut now: HashSet<HostId> = standings.iter().flat_map(Standings::suspects).collect();
            now.extend(attended.borrow().iter().copied());
            let before = std::mem::replace(&mut *lock(&self.suspects), now.clone());
            for host in now.symmetric_difference(&before) {
                if let Some(place) = places.get(host) {
                    poller.suspect(*place, now.contains(host));
                }
            }
            tokio::time::sleep(self.time.span(SUSPECTS_MS)).await;
        }
    }

    fn saw(self: &Arc<Self>, look: &Look) {
        let Some((host, station)) = self.stations.get(look.place) else { return };
        let age = u64::try_from(look.at.elapsed().as_millis()).unwrap_or(u64::MAX);
        let at = self.time.now().elapsed.minus(age);
        let seen = match &look.result {
            Ok(readings) => Some(bmc_signal::power(&readings.main)),
            Err(why) => bmc_signal::trouble(why),
        };
        let Some(seen) = seen else { return };
        self.signals.offer(*host, Signal::sample(Source::Power, seen, at));
        if let Seen::Power(power, _) = seen {
            self.ask_further(*host, station, power, at);
        }
    }

    /// Asks for what else a BMC tells, if its time has come and there is a turn free. A later look asks again.
    fn ask_further(self: &Arc<Self>, host: HostId, station: &Arc<Station>, power: Power, at: Elapsed) {
        let Ok(turn) = Arc::clone(&self.turns).try_acquire_owned() else { return };
        let suspect = lock(&self.suspects).contains(&host);
        let (stage, sensors) = {
            let mut further = lock(&self.further);
            let known = further.entry(host).or_default();
            let due = |last: Option<Elapsed>, (well, ill): (Millis, Millis)| {
                last.is_none_or(|last| at.since(last) >= if suspect { ill } else { well })
            };
            // Still fans of a host that is off are no fault.
            let (stage, sensors) =
                (due(known.stage_at, STAGE_MS), power == Power::On && due(known.sensors_at, SENSORS_MS));
            known.stage_at = if stage { Some(at) } else { known.stage_at };
            known.sensors_at = if sensors { Some(at) } else { known.sensors_at };
            (stage, sensors)
        };
        if !stage && !sensors {
            return;
        }
        let (shared, station) = (Arc::clone(self), Arc::clone(station));
        tokio::spawn(async move {
            let _turn = turn;
            let tell = |source, seen| {
                let at = shared.time.now().elapsed;
                shared.signals.offer(host, Signal::sample(source, seen, at));
            };
            // What it does not tell is no trouble of its power.
            if stage && let Ok(told) = station.poll(|bmc| bmc.boot_stage()).await {
                tell(Source::BootProgress, bmc_signal::stage(told));
            }
            if sensors && let Ok(told) = station.poll(|bmc| bmc.sensors()).await {
                tell(Source::Hardware, bmc_signal::hardware(&told));
            }
        });
    }
}
