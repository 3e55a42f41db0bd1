//! Each endpoint's own `/readyz`, asked directly: which API server lives, and whether its etcd does.
//!
//! An endpoint that does not take our credential, or whose certificate we do not take, lives all the same: it is neither an
//! answer nor a miss for its host, since the fault may be ours.

use super::client::{Answer, Trouble, ask, trouble};
use super::link::Endpoint;
use super::watch::Watch;
use healing::signal::{Seen, Signal, Source};
use healing::time::{Elapsed, Millis};
use std::time::Duration;

/// Between two questions to one endpoint.
const EVERY: Duration = Duration::from_secs(5);
/// An endpoint that has not answered by then has missed.
const DEADLINE: Duration = Duration::from_secs(4);

/// What one question came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heard {
    /// For the host's own API server; `None` says nothing.
    pub(super) server: Option<Seen>,
    /// For the etcd member that this API server speaks to; `None` says nothing.
    pub(super) etcd: Option<Seen>,
    /// Somebody answered, whatever it was.
    pub(super) reachable: bool,
    /// It is ready, and takes us.
    pub(super) ready: bool,
}

/// Reads `/readyz?verbose`.
pub(super) fn judge(result: &Result<Answer, kube::Error>) -> Heard {
    let nothing = Heard { server: None, etcd: None, reachable: true, ready: false };
    match result {
        Ok(answer) if answer.status.is_success() => {
            Heard { server: Some(Seen::Answer), etcd: etcd_line(&answer.body), reachable: true, ready: true }
        }
        Ok(answer) if answer.status.is_server_error() || answer.status.as_u16() == 429 => {
            // It lives and says that it is not ready. Overload (429) is no fault of its host.
            let server = answer.status.is_server_error().then_some(Seen::Refused);
            Heard { server, etcd: etcd_line(&answer.body), reachable: answer.status.as_u16() == 429, ready: false }
        }
        // 401, 403 and the like: it lives, and the credential is ours.
        Ok(_) => nothing,
        Err(error) => match trouble(error) {
            Trouble::RefusedConnection => Heard { server: Some(Seen::Refused), reachable: false, ..nothing },
            Trouble::Silent => Heard { server: Some(Seen::Miss), reachable: false, ..nothing },
            Trouble::Tls => Heard { reachable: false, ..nothing },
            _ => nothing,
        },
    }
}

/// What the verbose answer says of etcd: each API server of a stacked control plane asks the member beside it.
fn etcd_line(body: &str) -> Option<Seen> {
    let line = body.lines().find(|line| line.get(3..).is_some_and(|rest| rest.trim_start().starts_with("etcd ")))?;
    match line.get(..3)? {
        "[+]" => Some(Seen::Answer),
        "[-]" => Some(Seen::Refused),
        _ => None,
    }
}

impl Watch {
    /// Asks one endpoint for ever. `etcd_by_readyz`: without client certificates this is how its member is seen.
    pub(super) async fn readyz(self, index: usize, etcd_by_readyz: bool) {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let Some(endpoint) = self.link.endpoints().into_iter().nth(index) else { return };
            let begun = self.time.now().elapsed;
            let result = tokio::select! {
                () = self.stop.cancelled() => return,
                result = tokio::time::timeout(DEADLINE, ask(&endpoint.client, "/readyz?verbose", None)) => result,
            };
            let at = self.time.now().elapsed;
            let deadline_ms = u64::try_from(DEADLINE.as_millis()).unwrap_or(u64::MAX);
            // After the deadline it is we who were late (rule 47).
            let drained_ms = at.since(begun).saturating_sub(deadline_ms);
            let heard = match &result {
                Ok(result) => judge(result),
                Err(_) => Heard { server: Some(Seen::Miss), etcd: None, reachable: false, ready: false },
            };
            if matches!(&result, Ok(Ok(answer)) if answer.status.as_u16() == 401) {
                super::counters::Counters::add(&self.state.counters.unauthenticated);
                self.link.renew().await;
            }
            self.heard(index, &endpoint, heard, begun, at, drained_ms);
            if etcd_by_readyz && let Some(seen) = heard.etcd {
                self.offer_plane(&endpoint, Source::EtcdMember, seen, at, 0);
            }
        }
    }

    fn heard(&self, index: usize, endpoint: &Endpoint, heard: Heard, begun: Elapsed, at: Elapsed, drained_ms: Millis) {
        if let Some(sight) = self.state.tables().endpoints.get_mut(index) {
            sight.asked = true;
            sight.ready = heard.ready;
            sight.failing_since = if heard.reachable { None } else { sight.failing_since.or(Some(begun)) };
        }
        if let Some(seen) = heard.server {
            self.offer_plane(endpoint, Source::ApiServer, seen, at, drained_ms);
        }
    }

    pub(super) fn offer_plane(&self, endpoint: &Endpoint, source: Source, seen: Seen, at: Elapsed, drained_ms: Millis) {
        let host = endpoint.node.as_deref().and_then(|node| self.registry.host_of(self.state.id, node));
        if let Some(host) = host {
            let signal = Signal { drained_after_ms: drained_ms, ..Signal::sample(source, seen, at) };
            self.signals.offer(host, signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::StatusCode;

    fn answered(status: u16, body: &str) -> Heard {
        judge(&Ok(Answer { status: StatusCode::from_u16(status).unwrap(), body: body.to_owned() }))
    }

    #[test]
    fn a_ready_server_answers_for_itself_and_its_etcd() {
        let heard = answered(200, "[+]ping ok\n[+]log ok\n[+]etcd ok\n[+]etcd-readiness ok\nreadyz check passed\n");
        assert_eq!((heard.server, heard.etcd, heard.ready), (Some(Seen::Answer), Some(Seen::Answer), true));
    }

    #[test]
    fn a_server_without_its_etcd_says_so() {
        let heard = answered(500, "[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed\n");
        assert_eq!((heard.server, heard.etcd), (Some(Seen::Refused), Some(Seen::Refused)));
        assert!(!heard.reachable);
    }

    #[test]
    fn a_credential_that_is_not_taken_is_no_fault_of_the_host() {
        for status in [401, 403] {
            let heard = answered(status, "");
            assert_eq!((heard.server, heard.etcd, heard.reachable, heard.ready), (None, None, true, false));
        }
        assert_eq!(answered(429, "").server, None);
    }
}
