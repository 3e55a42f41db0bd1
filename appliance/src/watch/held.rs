//! One idle TCP connection to each kubelet. An orderly shutdown closes it by FIN or RST while the kernel still answers
//! echoes: a mark, and only a mark (rule 33).
//!
//! A kubelet keeps a connection that says nothing for four hours (its server's read timeout); one that it closes for
//! that is soon opened again, which clears the mark. All connections live in one task.
//!
//! A host that crashes says neither. The kernel asks after a silent connection and ends it when nobody answers, which is no
//! mark: otherwise it would stay open here for ever, and the host's next orderly shutdown would not be seen.

use super::standing::Standings;
use super::target::{Roster, Target};
use crate::decide_loop::{RunningTime, Signals};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use healing::id::HostId;
use healing::signal::{Seen, Signal, Source};
use socket2::{SockRef, TcpKeepalive};
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};

/// Time for a connection to be made.
const CONNECT: Duration = Duration::from_secs(3);

/// Between two tries, at first and at most. A connection that stood for longer than the latter has ended a row of tries.
const AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// How a connection on which nobody speaks is asked after: after this long, this often, and so many times without an answer
/// until it is given up.
const ASKED_AFTER: Duration = Duration::from_secs(10);
const ASKED_EVERY: Duration = Duration::from_secs(5);
const ASKED_TIMES: u32 = 3;

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
                let tell = |seen| {
                    let at = time.now().elapsed;
                    signals.offer(target.host, Signal::sample(Source::HeldConnection, seen, at));
                };
                loop {
                    if let Some(stream) = connect(target, &connecting).await {
                        let since = Instant::now();
                        tell(Seen::Open);
                        let _counted = Counted::new(&open);
                        // By its last echo, at most two seconds old: a quick shutdown has no time for another.
                        if closed_by_them(stream).await && standings.of(target.host).echoes {
                            tell(Seen::Closed);
                        }
                        // A port that takes connections and closes them is no better than one that takes none.
                        if since.elapsed() >= AGAIN.1 {
                            again = AGAIN.0;
                        }
                    }
                    sleep(again).await;
                    again = (again * 2).min(AGAIN.1);
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
    let stream = timeout(CONNECT, TcpStream::connect(address)).await.ok()?.ok()?;
    // One whose end would not be noticed is worth nothing.
    let asked = TcpKeepalive::new().with_time(ASKED_AFTER).with_interval(ASKED_EVERY).with_retries(ASKED_TIMES);
    SockRef::from(&stream).set_tcp_keepalive(&asked).ok()?;
    Some(stream)
}

/// Waits until the connection ends. True if the other side ended it by FIN or RST, false if the network did.
async fn closed_by_them(stream: TcpStream) -> bool {
    let mut byte = [0_u8; 64];
    loop {
        if stream.readable().await.is_err() {
            return false;
        }
        if let Some(by_them) = ended(&stream.try_read(&mut byte)) {
            return by_them;
        }
    }
}

/// Whether a read shows the end of a connection, and if so whether the other side ended it.
fn ended(read: &io::Result<usize>) -> Option<bool> {
    match read {
        Ok(0) => Some(true),
        Ok(_) => None,
        Err(why) if why.kind() == io::ErrorKind::WouldBlock => None,
        // Given up by our own kernel (ETIMEDOUT, EHOSTUNREACH), or refused by a kernel that does not know it (a crash kernel, one
        // that kexec started, a machine that boots in seconds): whoever fell silent has said no goodbye.
        Err(_) => Some(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide_loop::SystemClock;
    use crate::watch::target::Reach;
    use healing::time::Elapsed;
    use std::net::Ipv4Addr;
    use tokio::net::TcpListener;

    fn at_port(kubelet_port: u16) -> Target {
        Target { host: HostId(1), address: Ipv4Addr::LOCALHOST, reach: Reach::Routed, kubelet_port, second_port: 22 }
    }

    #[test]
    fn only_the_other_side_says_goodbye() {
        let failed = |kind: io::ErrorKind| -> io::Result<usize> { Err(kind.into()) };
        assert_eq!(ended(&Ok(0)), Some(true));
        use io::ErrorKind::{ConnectionReset, HostUnreachable, NetworkUnreachable, TimedOut};
        for silent in [ConnectionReset, TimedOut, HostUnreachable, NetworkUnreachable] {
            assert_eq!(ended(&failed(silent)), Some(false), "{silent:?}");
        }
        assert_eq!((ended(&Ok(7)), ended(&failed(io::ErrorKind::WouldBlock))), (None, None));
    }

    #[tokio::test]
    async fn a_connection_on_which_nobody_speaks_is_asked_after() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = at_port(listener.local_addr().unwrap().port());
        let stream = connect(target, &Semaphore::new(1)).await.unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), ASKED_AFTER);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), ASKED_EVERY);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), ASKED_TIMES);
    }

    #[tokio::test]
    async fn a_port_that_takes_connections_and_closes_them_is_not_asked_without_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = at_port(listener.local_addr().unwrap().port());
        let (_roster, roster) = watch::channel(Arc::new(Roster::default()));
        let held = HeldConnections {
            roster,
            standings: Standings::default(),
            signals: Signals::new(),
            time: RunningTime::resume(Arc::new(SystemClock::new()), Elapsed(0)),
            most: 1,
            open: Arc::default(),
        };
        let (_end, until) = watch::channel(());
        let mut taken = 0;
        let closing = async {
            while let Ok((stream, _)) = listener.accept().await {
                drop(stream);
                taken += 1;
            }
        };
        let both = async {
            tokio::join!(closing, held.hold(target, Arc::new(Semaphore::new(1)), until));
        };
        // Pauses of a half, one and two seconds.
        assert!(timeout(Duration::from_secs(1), both).await.is_err());
        assert!((1..=3).contains(&taken), "{taken}");
    }
}
