//! What the watches of one cluster share, and the watch of Leases. It turns what the API sends into signals and into the
//! cluster's tables.
//!
//! A watch is never believed because it is quiet. Either a Lease came, or a read is compared with what the watch brought;
//! after 15 s without either, another endpoint is tried.

use super::client::{self, Trouble};
use super::counters::Counters;
use super::link::Link;
use super::registry::Registry;
use super::state::ClusterState;
use crate::decide_loop::{RunningTime, Signals};
use futures_util::future::BoxFuture;
use futures_util::{Stream, StreamExt};
use healing::signal::{Seen, Signal, Source};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::ListParams;
use kube::runtime::watcher::{self, Event, watcher};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Where kubelets keep their Leases.
pub const LEASE_NAMESPACE: &str = "kube-node-lease";

/// A watch call is ended by the server after this and continued; a dead connection is noticed 5 s later at the latest.
pub(super) const WATCH_S: u32 = 60;
/// A read that proves the watch may take this long.
pub(super) const READ: Duration = Duration::from_secs(4);
/// Objects compared in one read. More than that are never all quiet at once, unless nobody can write.
pub(super) const COMPARED_MAX: u32 = 500;
/// First and longest pause after an error.
const PAUSE_MS: (u64, u64) = (500, 10_000);
/// An error this long ago is forgiven.
const FORGIVEN: Duration = Duration::from_secs(60);
/// Errors in a row after which another endpoint is tried.
const ERRORS_MAX: u32 = 3;

/// What the watches of one cluster share.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    pub(super) link: Arc<Link>,
    pub(super) state: Arc<ClusterState>,
    pub(super) registry: Arc<dyn Registry>,
    pub(super) signals: Signals,
    pub(super) time: RunningTime,
    pub(super) stop: CancellationToken,
}

/// Errors in a row. A listing that worked does not end the row, since the watch behind it may fail for ever.
#[derive(Debug, Default)]
pub(super) struct Errors {
    in_a_row: u32,
    last: Option<Instant>,
}

impl Errors {
    fn count(&mut self) {
        // A quiet watch that worked for a while has begun anew.
        if self.last.is_some_and(|last| last.elapsed() > FORGIVEN) {
            self.in_a_row = 0;
        }
        self.in_a_row += 1;
        self.last = Some(Instant::now());
    }

    pub(super) fn well(&mut self, by_watch: bool) {
        if by_watch {
            self.in_a_row = 0;
        }
    }
}

/// Why a stream was left.
pub(super) enum Left {
    Stopped,
    EndpointChanged,
    /// What it continued from is gone, or what it brought is not all there is.
    ListAnew,
}

pub(super) type Watching<K> = Pin<Box<dyn Stream<Item = watcher::Result<Event<K>>> + Send>>;

impl Watch {
    /// Watches Leases until it is stopped.
    pub(super) async fn leases(self) {
        let mut change = self.link.changes();
        let mut errors = Errors::default();
        loop {
            change.borrow_and_update();
            let api: Api<Lease> = Api::namespaced(self.link.client(), LEASE_NAMESPACE);
            let stream = watcher(api, watcher::Config::default().timeout(WATCH_S)).boxed();
            let left = self.leases_of(stream, &mut change, &mut errors).await;
            match left {
                Left::Stopped => return,
                Left::ListAnew => {}
                Left::EndpointChanged => {
                    let now = self.time.now().elapsed;
                    self.state.tables().proof.switched(now);
                }
            }
        }
    }

    async fn leases_of(
        &self,
        mut stream: Watching<Lease>,
        change: &mut tokio::sync::watch::Receiver<(usize, u64)>,
        errors: &mut Errors,
    ) -> Left {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        let mut read: Option<BoxFuture<'_, Option<usize>>> = None;
        let mut pause: Option<Pin<Box<tokio::time::Sleep>>> = None;
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return Left::Stopped,
                _ = change.changed() => return Left::EndpointChanged,
                () = async { if let Some(pause) = &mut pause { pause.await } }, if pause.is_some() => pause = None,
                event = stream.next(), if pause.is_none() => match event {
                    Some(Ok(event)) => {
                        errors.well(matches!(event, Event::Apply(_) | Event::Delete(_)));
                        self.lease_event(event);
                    }
                    Some(Err(error)) => {
                        let (wait, anew) = self.after_error(&error, errors).await;
                        if anew {
                            wait.await;
                            return Left::ListAnew;
                        }
                        pause = Some(wait);
                    }
                    None => return Left::EndpointChanged,
                },
                missed = async { match &mut read { Some(read) => read.await, None => None } }, if read.is_some() => {
                    read = None;
                    let now = self.time.now().elapsed;
                    if let Some(missed) = missed {
                        Counters::add(if missed == 0 { &self.state.counters.proofs } else { &self.state.counters.behind });
                        self.state.tables().proof.compared(now, missed);
                    }
                }
                _ = tick.tick() => {
                    let now = self.time.now().elapsed;
                    let mut tables = self.state.tables();
                    if tables.proof.deaf(now) {
                        let ready: Vec<bool> = tables.endpoints.iter().map(|e| e.ready).collect();
                        tables.proof.switched(now);
                        drop(tables);
                        tracing::warn!(
                            cluster = self.state.name,
                            endpoint = self.link.address(),
                            "the watch of Leases is deaf: another endpoint is tried"
                        );
                        self.link.switch(|index| ready.get(index).copied().unwrap_or(false));
                    } else if read.is_none() && tables.proof.ask_due(now) {
                        tables.proof.asked(now);
                        drop(tables);
                        read = Some(Box::pin(self.compare()));
                    }
                }
            }
        }
    }

    fn lease_event(&self, event: Event<Lease>) {
        let now = self.time.now();
        let at = now.elapsed;
        match event {
            Event::Apply(lease) => {
                Counters::add(&self.state.counters.leases);
                self.state.tables().proof.heard(at);
                if let Some(renewed) = renewal(&lease) {
                    let lag = now.wall_ms.saturating_sub(renewed.as_millisecond());
                    self.state.counters.lag(u64::try_from(lag).unwrap_or(0));
                }
                self.lease(&lease, at);
            }
            Event::Delete(lease) => {
                self.state.tables().proof.heard(at);
                if let Some(name) = &lease.metadata.name {
                    self.state.tables().leases.remove(name);
                }
            }
            Event::InitApply(lease) => self.lease(&lease, at),
            Event::Init => {}
            Event::InitDone => {
                Counters::add(&self.state.counters.relists);
                self.state.tables().proof.heard(at);
            }
        }
    }

    fn lease(&self, lease: &Lease, at: healing::time::Elapsed) {
        let Some(name) = &lease.metadata.name else { return };
        if self.state.tables().lease(name, renewal(lease), at)
            && let Some(host) = self.registry.host_of(self.state.id, name)
        {
            self.signals.offer(host, Signal::sample(Source::Lease, Seen::Renewed, at));
        }
    }

    /// Reads Leases and counts those that changed without the watch having said so. What it finds renewed is taken as
    /// renewed: a node that lives is not to suffer from our deafness.
    async fn compare(&self) -> Option<usize> {
        let api: Api<Lease> = Api::namespaced(self.link.client(), LEASE_NAMESPACE);
        let known_before: std::collections::HashMap<String, Option<Timestamp>> = {
            let tables = self.state.tables();
            tables.leases.iter().map(|(name, seen)| (name.clone(), seen.renewed)).collect()
        };
        let list = ListParams::default().limit(COMPARED_MAX);
        let page = match tokio::time::timeout(READ, api.list(&list)).await {
            Ok(Ok(page)) => page,
            Ok(Err(error)) => {
                self.note(client::trouble(&error)).await;
                return None;
            }
            Err(_) => return None,
        };
        let at = self.time.now().elapsed;
        let mut missed = 0;
        for lease in &page {
            let Some(name) = &lease.metadata.name else { continue };
            // What the watch brought while the read was under way is not missed.
            let now_known = self.state.tables().leases.get(name).map(|seen| seen.renewed);
            let renewed = renewal(lease);
            if known_before.get(name) != Some(&renewed) && now_known != Some(renewed) {
                missed += 1;
                self.lease(lease, at);
            }
        }
        Some(missed)
    }

    /// Counts an error and says how long to wait before the watch is asked again, and whether it must be begun anew: the
    /// watcher lists anew by itself when a 410 comes within a stream, but a 410 that comes as the answer's status it asks
    /// again for ever (kube-runtime 5.0).
    pub(super) async fn after_error(
        &self,
        error: &watcher::Error,
        errors: &mut Errors,
    ) -> (Pin<Box<tokio::time::Sleep>>, bool) {
        Counters::add(&self.state.counters.errors);
        errors.count();
        let (kind, after) = match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => (client::trouble(error), client::retry_after(error)),
            watcher::Error::WatchError(status) if status.code == 410 => (Trouble::Gone, None),
            watcher::Error::WatchError(_) | watcher::Error::NoResourceVersion => (Trouble::Silent, None),
        };
        tracing::debug!(cluster = self.state.name, endpoint = self.link.address(), %error, "a watch failed");
        self.note(kind).await;
        if kind == Trouble::Gone {
            Counters::add(&self.state.counters.gone);
        }
        // What it continued from is gone: it is listed anew, at once unless that happens again and again.
        let wait = match (kind, after) {
            (Trouble::Gone, _) if errors.in_a_row == 1 => Duration::ZERO,
            (_, Some(after)) => after,
            _ => pause(errors.in_a_row),
        };
        let elsewhere = matches!(kind, Trouble::Silent | Trouble::RefusedConnection | Trouble::Tls);
        if errors.in_a_row >= ERRORS_MAX && elsewhere && self.link.endpoints().len() > 1 {
            *errors = Errors::default();
            let ready: Vec<bool> = self.state.tables().endpoints.iter().map(|e| e.ready).collect();
            self.link.switch(|index| ready.get(index).copied().unwrap_or(false));
        }
        let anew = kind == Trouble::Gone && matches!(error, watcher::Error::WatchStartFailed(_));
        (Box::pin(tokio::time::sleep(wait)), anew)
    }

    pub(super) async fn note(&self, kind: Trouble) {
        if matches!(kind, Trouble::Unauthenticated | Trouble::Tls) {
            Counters::add(&self.state.counters.unauthenticated);
            self.link.renew().await;
        }
    }
}

/// A pause that doubles with each error, half of it drawn from the clock's own jitter so that watchers do not march in step.
fn pause(errors: u32) -> Duration {
    let whole = PAUSE_MS.0.saturating_mul(1 << errors.clamp(1, 8).saturating_sub(1)).min(PAUSE_MS.1);
    let mut random = [0; 2];
    // Without randomness the pause is merely the longest one.
    let share = if getrandom::fill(&mut random).is_ok() { u64::from(u16::from_be_bytes(random)) } else { 65_535 };
    Duration::from_millis(whole / 2 + whole / 2 * share / 65_535)
}

fn renewal(lease: &Lease) -> Option<Timestamp> {
    lease.spec.as_ref()?.renew_time.as_ref().map(|time| time.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end_at_ten_seconds() {
        for (errors, longest) in [(1, 500), (2, 1_000), (3, 2_000), (20, 10_000)] {
            let pause = u64::try_from(pause(errors).as_millis()).unwrap();
            assert!((longest / 2..=longest).contains(&pause), "{errors}: {pause}");
        }
    }
}
