//! One idle TCP connection to each kubelet. An orderly shutdown closes it by FIN or RST while the kernel still answers
//! echoes: a mark, and only a mark (rule 33).
//!
//! A kubelet keeps a connection that says nothing for four hours (its server's read timeout); one that it closes for
//! that is opened again at once, which clears the mark. All connections live in one task.

use super::standing::Standings;
use super::target::{Roster, Target};
use crate::decide_loop::{RunningTime, Signals};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use healing::id::HostId;
use healing::signal::{Seen, Signal, Source};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

/// Time for a connection to be made.
const CONNECT: Duration = Duration::from_secs(3);

/// Between two tries, at first and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Connections that are being made at the same time.
const CONNECTING_MAX: usize = 64;

/// How many connections may be held, of all files that this process may have open.
#[must_use]
pub fn held_max(share_percent: u8) -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX / 100);
    limit / 100 * usize::from(share_percent.min(90))
}

/// The connections.
#[derive(Debug)]
pub struct HeldConnections {
    /// Who is watched; replaced as a whole.
    pub roster: watch::Receiver<Arc<Roster>>,
    /// Whether the kernel of a host answers.
    pub standings: Standings,
    /// Where signals go.
    pub signals: Signals,
    /// The clock of the loop.
    pub time: RunningTime,
    /// How many are held at most; hosts beyond it have none.
    pub most: usize,
    /// How many are open now.
    pub open: Arc<AtomicUsize>,
}

impl HeldConnections {
    /// Holds them until it is dropped.
    pub async fn run(mut self) {
        let connecting = Arc::new(Semaphore::new(CONNECTING_MAX));
        let mut held = FuturesUnordered::new();
        let mut ends: HashMap<HostId, (Target, watch::Sender<()>)> = HashMap::new();
        loop {
            let roster = Arc::clone(&self.roster.borrow_and_update());
            let chosen: Vec<Target> = roster.targets().iter().take(self.most).copied().collect();
            if roster.targets().len() > chosen.len() {
                tracing::warn!(
                    held = chosen.len(),
                    hosts = roster.targets().len(),
                    "fewer connections are held than there are hosts: an orderly shutdown of the others is not seen by \
                     it; raise the limit of open files (LimitNOFILE=) or the share"
                );
            }
            let wanted: HashSet<HostId> = chosen.iter().map(|target| target.host).collect();
            ends.retain(|host, _| wanted.contains(host));
            for target in chosen {
                if ends.get(&target.host).is_some_and(|(known, _)| *known == target) {
                    continue;
                }
                let (end, ended) = watch::channel(());
                ends.insert(target.host, (target, end));
                held.push(Box::pin(self.hold(target, Arc::clone(&connecting), ended)));
            }
            tokio::select! {
                changed = self.roster.changed() => if changed.is_err() { return },
                Some(()) = held.next(), if !held.is_empty() => {}
            }
        }
    }

    /// One host, until `ended`'s other end is dropped.
    fn hold(
        &self,
        target: Target,
        connecting: Arc<Semaphore>,
        mut ended: watch::Receiver<()>,
    ) -> impl Future<Output = ()> + use<> {
        let (standings, signals, time, open) =
            (self.standings.clone(), self.signals.clone(), self.time.clone(), Arc::clone(&self.open));
        async move {
            let keep = async {
                let mut again = AGAIN.0;
                loop {
                    let Some(stream) = connect(target, &connecting).await else {
                        sleep(again).await;
                        again = (again * 2).min(AGAIN.1);
                        continue;
                    };
                    again = AGAIN.0;
                    let tell = |seen| {
                        let at = time.now().elapsed;
                        signals.offer(target.host, Signal::sample(Source::HeldConnection, seen, at));
                    };
                    tell(Seen::Open);
                    let _counted = Counted::new(&open);
                    // By its last echo, at most two seconds old: a quick shutdown has no time for another.
                    if closed_by_them(stream).await && standings.of(target.host).echoes {
                        tell(Seen::Closed);
                    }
                }
            };
            tokio::select! {
                () = keep => {}
                _ = ended.changed() => {}
            }
        }
    }
}

/// Counts an open connection, whatever ends it.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Counted<'a> {
        count.fetch_add(1, Ordering::Relaxed);
        Counted(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn connect(target: Target, connecting: &Semaphore) -> Option<TcpStream> {
    let _turn = connecting.acquire().await.ok()?;
    let address = SocketAddr::from((target.address, target.kubelet_port));
    timeout(CONNECT, TcpStream::connect(address)).await.ok()?.ok()
}

/// Waits until the connection ends. True if the other side ended it by FIN or RST, false if the network did.
async fn closed_by_them(stream: TcpStream) -> bool {
    let mut byte = [0_u8; 64];
    loop {
        if stream.readable().await.is_err() {
            return false;
        }
        match stream.try_read(&mut byte) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(why) if why.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(why) => return why.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}
