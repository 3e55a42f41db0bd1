//! What systemd is told (`sd_notify(3)`): that the server is ready, that it stops, and that the decision loop turns. A loop
//! that stands stops the watchdog's feed, whatever else still runs, and the service is started anew.

use crate::decide_loop::{Pulse, RunningTime};
use healing::time::{Millis, SECOND};
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A loop that has not turned for so long stands: it turns ten times a second, and by rule 47 evidence is void after 2 s.
pub const STANDS_MS: Millis = 5 * SECOND;

/// The service manager, if there is one.
#[derive(Debug)]
pub struct Manager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    feed_every: Option<Duration>,
}

impl Manager {
    /// The one of this process, by `NOTIFY_SOCKET` and `WATCHDOG_USEC`.
    #[must_use]
    pub fn of_this_process() -> Manager {
        let named = std::env::var_os("NOTIFY_SOCKET").map(|name| open(name.as_bytes()));
        let socket = named.and_then(|opened| match opened {
            Ok(socket) => Some(socket),
            Err(why) => {
                tracing::warn!(%why, "systemd named a socket that cannot be used: it is told nothing");
                None
            }
        });
        let ours = std::env::var("WATCHDOG_PID").ok().and_then(|pid| pid.parse::<u32>().ok());
        let ours = ours.is_none_or(|pid| pid == std::process::id());
        let limit = std::env::var("WATCHDOG_USEC").ok().and_then(|limit| limit.parse::<u64>().ok());
        // A third of the limit: one word may get lost.
        let feed_every = limit.filter(|limit| ours && *limit > 0).map(|limit| Duration::from_micros(limit / 3));
        Manager { socket, feed_every }
    }

    /// Tells something. One that does not listen is no reason to stop.
    pub fn tell(&self, word: &str) {
        if let Some((socket, address)) = &self.socket
            && let Err(why) = socket.send_to_addr(word.as_bytes(), address)
        {
            tracing::warn!(%why, "systemd could not be told {word}");
        }
    }

    /// Feeds the watchdog as long as the loop turns.
    pub async fn feed(&self, pulse: Pulse, time: RunningTime, stop: CancellationToken) {
        let Some(every) = self.feed_every else { return stop.cancelled().await };
        let mut tick = tokio::time::interval(every);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let age_ms = pulse.age_ms(time.now().elapsed);
            if age_ms > STANDS_MS {
                tracing::error!(age_ms, "the decision loop stands: the watchdog is not fed");
            } else {
                self.tell("WATCHDOG=1");
            }
        }
    }
}

fn open(name: &[u8]) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide_loop::SystemClock;
    use healing::time::Elapsed;
    use std::sync::Arc;

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_stands_is_not_fed_for() {
        let name = format!("rackmedic-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let systemd = UnixDatagram::bind_addr(&address).unwrap();
        systemd.set_nonblocking(true).unwrap();
        let socket = Some(open(format!("@{name}").as_bytes()).unwrap());
        let manager = Manager { socket, feed_every: Some(Duration::from_secs(1)) };
        let time = RunningTime::resume(Arc::new(SystemClock::new()), Elapsed(0));
        let pulse = Pulse::default();
        let heard = || {
            let mut word = [0; 64];
            std::iter::from_fn(|| systemd.recv(&mut word).ok()).count()
        };
        let stop = CancellationToken::new();
        let feeding = tokio::spawn({
            let (pulse, time, stop) = (pulse.clone(), time.clone(), stop.clone());
            async move { manager.feed(pulse, time, stop).await }
        });
        for _ in 0..10 {
            pulse.beat(time.now().elapsed, true);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert!(heard() >= 9);
        tokio::time::sleep(Duration::from_secs(20)).await;
        let last_words = heard();
        assert!(last_words <= 6, "{last_words} words for a loop that stands");
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(heard(), 0);
        stop.cancel();
        feeding.await.unwrap();
    }
}
