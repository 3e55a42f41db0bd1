//! What is seen of a cluster as a whole, put together each second from what its watchers know.

use super::state::{ClusterState, EndpointSight, Tables};
use super::storage;
use super::watch::Watch;
use crate::decide_loop::clock::StallWatch;
use healing::id::HostId;
use healing::sight::{ApiSight, ClusterSight, ForeignAction};
use healing::time::{Elapsed, MINUTE, Millis, SECOND};
use std::time::Duration;

/// A sight is put together this often.
const EVERY: Duration = Duration::from_secs(1);
/// What is known of Nodes is said again this often, so that evidence gathered anew has it.
const AGAIN_MS: Millis = 10 * SECOND;
/// Others' actions on the control plane are remembered this long (rule 19).
const FOREIGN_MS: Millis = 30 * MINUTE;
/// Others' actions kept.
const FOREIGN_MAX: usize = 8;
/// Not to have run for longer than this makes evidence void; so does a clock that stepped by more than that (rule 47).
const STALL_MS: Millis = 2 * SECOND;
const APART_MS: Millis = 5 * SECOND;

/// Since when nobody answers, and since when the virtual address does not.
fn api(endpoints: &[EndpointSight], vip: bool, tables: &Tables, now: Elapsed) -> ApiSight {
    ApiSight {
        unreachable_since: unreachable_since(endpoints),
        vip_silent_since: endpoints.first().filter(|_| vip).and_then(|e| e.failing_since),
        watch_live_since: tables.proof.live_since(now),
        watch_proof_at: tables.proof.at().unwrap_or_default(),
    }
}

fn unreachable_since(endpoints: &[EndpointSight]) -> Option<Elapsed> {
    let all_fail = !endpoints.is_empty() && endpoints.iter().all(|endpoint| endpoint.failing_since.is_some());
    endpoints.iter().filter_map(|e| e.failing_since).max().filter(|_| all_fail)
}

impl ClusterState {
    /// Since when no endpoint of its API answers.
    #[must_use]
    pub fn unreachable_since(&self) -> Option<Elapsed> {
        unreachable_since(&self.tables().endpoints)
    }

    /// The cluster as it is seen now. `vip`: the first endpoint is the virtual address.
    pub(super) fn sight(&self, vip: bool, now: Elapsed, host_of: impl Fn(&str) -> Option<HostId>) -> ClusterSight {
        let mut tables = self.tables();
        let endpoints = tables.endpoints.clone();
        let mut theirs: Vec<String> = tables
            .nodes
            .iter()
            .filter(|(_, n)| n.seen.control_plane && n.seen.foreign_cordon)
            .map(|(n, _)| n.clone())
            .collect();
        let in_hand =
            tables.foreign.nodes.keys().filter(|n| tables.nodes.get(*n).is_some_and(|n| n.seen.control_plane));
        theirs.extend(in_hand.cloned());
        for name in theirs {
            tables.foreign_actions.insert(name, now);
        }
        tables.foreign_actions.retain(|_, at| now.since(*at) < FOREIGN_MS);
        let mut foreign_actions: Vec<ForeignAction> = tables
            .foreign_actions
            .iter()
            .filter_map(|(name, at)| Some(ForeignAction { host: host_of(name)?, at: *at }))
            .collect();
        foreign_actions.sort_by_key(|action| std::cmp::Reverse(action.at));
        foreign_actions.truncate(FOREIGN_MAX);
        ClusterSight {
            cluster: self.id,
            api: api(&endpoints, vip, &tables, now),
            etcd: tables.etcd.clone(),
            storage: tables
                .storage
                .iter()
                .filter(|(_, read_at)| now.since(*read_at) <= storage::GOOD_MS)
                .map(|(report, _)| *report)
                .collect(),
            foreign_actions,
            upgrade_running: tables.foreign.rollout || tables.upgrading(now),
        }
    }
}

impl Watch {
    /// Puts the sight together for ever.
    pub(super) async fn sight(self, vip: bool) {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut stall = StallWatch::new(self.time.now());
        let mut said_at = self.time.now().elapsed;
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let now = self.time.now();
            if let Some(stalled_ms) = stall.turn(now, STALL_MS, APART_MS) {
                self.signals.stalled(stalled_ms);
            }
            let sight = self.state.sight(vip, now.elapsed, |node| self.registry.host_of(self.state.id, node));
            self.signals.cluster_sight(sight);
            if now.elapsed.since(said_at) >= AGAIN_MS {
                said_at = now.elapsed;
                self.say_again();
            }
        }
    }

    /// Says of every registered host what its Node shows, for hosts that were registered since, and for evidence that was
    /// thrown away. Not while what we know may be old: it would count as seen now.
    pub(super) fn say_again(&self) {
        for (name, host) in self.registry.hosts(self.state.id).iter() {
            // Held for one host at a time, so that no other watcher waits for all of them.
            let tables = self.state.tables();
            if !tables.nodes_complete || !tables.nodes_proof.current(self.time.now().elapsed) {
                return;
            }
            self.tell_host(&tables, name, *host);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::node;
    use healing::id::ClusterId;
    use k8s_openapi::api::core::v1::Node;
    use serde_json::json;
    use std::sync::Arc;

    fn state() -> ClusterState {
        ClusterState::new(ClusterId(1), "c", 3, Arc::default(), Elapsed(0))
    }

    fn failing(state: &ClusterState, since: [Option<u64>; 3]) {
        for (endpoint, since) in state.tables().endpoints.iter_mut().zip(since) {
            endpoint.failing_since = since.map(Elapsed);
        }
    }

    #[test]
    fn the_api_is_unreachable_only_when_every_endpoint_fails_and_since_the_last_one_did() {
        let state = state();
        let api = |vip| state.sight(vip, Elapsed(100), |_| None).api;
        failing(&state, [Some(10), Some(40), None]);
        assert_eq!((api(true).unreachable_since, api(true).vip_silent_since), (None, Some(Elapsed(10))));
        failing(&state, [Some(10), Some(40), Some(20)]);
        assert_eq!(api(true).unreachable_since, Some(Elapsed(40)));
        assert_eq!(api(false).vip_silent_since, None);
    }

    #[test]
    fn a_persons_cordon_of_a_control_plane_host_is_remembered_for_half_an_hour() {
        let state = state();
        let set = |cordoned: bool, at: u64| {
            let node: Node = serde_json::from_value(json!({
                "metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}},
                "spec": {"unschedulable": cordoned}
            }))
            .unwrap();
            state.tables().node("cp1", node::read(&node), Elapsed(at));
        };
        let actions = |at: u64| state.sight(false, Elapsed(at), |_| Some(HostId(4))).foreign_actions;
        set(true, 5);
        assert_eq!(actions(10), [ForeignAction { host: HostId(4), at: Elapsed(10) }]);
        set(false, 20);
        assert_eq!(actions(1_000).len(), 1);
        assert!(actions(10 + FOREIGN_MS).is_empty());
    }
}
