//! The watch of Nodes.
//!
//! A small cluster's Nodes are quiet for minutes, and the library passes on no bookmark. So that silence is not taken for "all
//! is as it was", a quiet watch is proven by a read of the Nodes' versions; one that did not bring what a read shows, or
//! brings nothing at all, is listed anew.

use super::client;
use super::counters::Counters;
use super::node;
use super::proof::{OF_NODES, Proof};
use super::state::Tables;
use super::watch::{COMPARED_MAX, Errors, Left, READ, Watch, Watching};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use healing::id::HostId;
use healing::signal::{Seen, Signal, Source};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::ListParams;
use kube::runtime::watcher::{self, Event, watcher};
use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::time::Duration;

/// A watch call is ended by the server after this and continued.
const WATCH_S: u32 = 30;

/// The names that a listing has brought so far; `None` while none is under way.
type Listing = Option<HashSet<String>>;

impl Watch {
    /// Watches Nodes until it is stopped.
    pub(super) async fn nodes(self) {
        let mut change = self.link.changes();
        let mut errors = Errors::default();
        loop {
            change.borrow_and_update();
            let api: Api<Node> = Api::all(self.link.client());
            let stream = watcher(api, watcher::Config::default().timeout(WATCH_S)).boxed();
            if matches!(self.nodes_of(stream, &mut change, &mut errors).await, Left::Stopped) {
                return;
            }
        }
    }

    async fn nodes_of(
        &self,
        mut stream: Watching<Node>,
        change: &mut tokio::sync::watch::Receiver<(usize, u64)>,
        errors: &mut Errors,
    ) -> Left {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        let mut read: Option<BoxFuture<'_, Option<usize>>> = None;
        let mut pause: Option<Pin<Box<tokio::time::Sleep>>> = None;
        let mut listing = Some(HashSet::new());
        self.state.tables().nodes_proof = Proof::new(OF_NODES, self.time.now().elapsed);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return Left::Stopped,
                _ = change.changed() => return Left::EndpointChanged,
                () = async { if let Some(pause) = &mut pause { pause.await } }, if pause.is_some() => pause = None,
                event = stream.next(), if pause.is_none() => match event {
                    Some(Ok(event)) => {
                        errors.well(matches!(event, Event::Apply(_) | Event::Delete(_)));
                        self.node_event(event, &mut listing);
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
                    match missed {
                        // Half of a listing is no fault of the watch.
                        Some(_) if listing.is_some() => {}
                        Some(missed) => {
                            let counters = &self.state.counters;
                            Counters::add(if missed == 0 { &counters.proofs } else { &counters.behind });
                            self.state.tables().nodes_proof.compared(now, missed);
                        }
                        // An API that is slow is not made quicker by listing all Nodes anew.
                        None => self.state.tables().nodes_proof.unread(now),
                    }
                }
                _ = tick.tick() => {
                    let now = self.time.now().elapsed;
                    let mut tables = self.state.tables();
                    // While it pauses after an error there is nothing to hear.
                    if pause.is_none() && tables.nodes_proof.deaf(now) {
                        drop(tables);
                        tracing::warn!(
                            cluster = self.state.name,
                            endpoint = self.link.address(),
                            "the watch of Nodes is deaf: they are listed anew"
                        );
                        return Left::ListAnew;
                    }
                    if listing.is_none() && read.is_none() && tables.nodes_proof.ask_due(now) {
                        tables.nodes_proof.asked(now);
                        drop(tables);
                        read = Some(Box::pin(self.compare_nodes()));
                    }
                }
            }
        }
    }

    /// Reads which versions Nodes have and counts those that changed without the watch having said so.
    async fn compare_nodes(&self) -> Option<usize> {
        let api: Api<Node> = Api::all(self.link.client());
        let before = self.state.tables().node_versions();
        let list = ListParams::default().limit(COMPARED_MAX);
        let page = match tokio::time::timeout(READ, api.list_metadata(&list)).await {
            Ok(Ok(page)) => page,
            Ok(Err(error)) => {
                self.note(client::trouble(&error)).await;
                return None;
            }
            Err(_) => return None,
        };
        let whole = page.metadata.continue_.as_deref().is_none_or(str::is_empty);
        let versions: HashMap<String, String> = page
            .items
            .into_iter()
            .filter_map(|node| Some((node.metadata.name?, node.metadata.resource_version?)))
            .collect();
        let after = self.state.tables().node_versions();
        Some(missed(&before, &after, &versions, whole))
    }

    pub(super) fn node_event(&self, event: Event<Node>, listing: &mut Listing) {
        let mut tables = self.state.tables();
        let at = self.time.now().elapsed;
        match event {
            // Nobody was asked yet, and nothing is known of what changed before.
            Event::Init => {
                *listing = Some(HashSet::new());
                tables.nodes_proof = Proof::new(OF_NODES, at);
            }
            Event::InitDone => {
                Counters::add(&self.state.counters.relists);
                let listed = listing.take().unwrap_or_default();
                let gone: Vec<String> = tables.nodes.keys().filter(|name| !listed.contains(*name)).cloned().collect();
                tables.nodes.retain(|name, _| listed.contains(name));
                tables.nodes_complete = true;
                tables.nodes_proof.heard(at);
                for name in gone {
                    self.tell_node(&tables, &name);
                }
            }
            Event::Delete(node) => {
                tables.nodes_proof.heard(at);
                let Some(name) = node.metadata.name else { return };
                tables.nodes.remove(&name);
                self.tell_node(&tables, &name);
            }
            Event::Apply(node) => {
                Counters::add(&self.state.counters.nodes);
                tables.nodes_proof.heard(at);
                self.node(&mut tables, &node, at);
            }
            Event::InitApply(node) => {
                tables.nodes_proof.sign(at);
                if let (Some(listed), Some(name)) = (listing.as_mut(), &node.metadata.name) {
                    listed.insert(name.clone());
                }
                self.node(&mut tables, &node, at);
            }
        }
    }

    fn node(&self, tables: &mut Tables, node: &Node, at: healing::time::Elapsed) {
        let Some(name) = &node.metadata.name else { return };
        tables.node(name, node::read(node), at);
        self.tell_node(tables, name);
    }

    fn tell_node(&self, tables: &Tables, name: &str) {
        if let Some(host) = self.registry.host_of(self.state.id, name) {
            self.tell_host(tables, name, host);
        }
    }

    /// Says of a host what its Node shows. While the tables are held, by whoever says it: otherwise what another task read a
    /// moment earlier could be said last, and a mark just seen would be forgotten, or a boot seem to come twice.
    pub(super) fn tell_host(&self, tables: &Tables, name: &str, host: HostId) {
        let seen = match (tables.report(name), tables.nodes.get(name)) {
            (Some(report), Some(node)) => {
                self.registry.node_seen(host, &node.seen.facts);
                Seen::Node(report)
            }
            _ => Seen::NoNode,
        };
        self.signals.offer(host, Signal::sample(Source::Node, seen, self.time.now().elapsed));
    }
}

/// How many Nodes are otherwise than the watch brought them, of those of which it brought nothing while they were read.
/// `whole`: a Node that was not read is gone.
fn missed(
    before: &HashMap<String, String>,
    after: &HashMap<String, String>,
    read: &HashMap<String, String>,
    whole: bool,
) -> usize {
    let still = |name: &str| before.get(name) == after.get(name);
    let changed = read.iter().filter(|(name, version)| still(name) && after.get(*name) != Some(*version)).count();
    let gone = after.keys().filter(|name| whole && still(name) && !read.contains_key(*name)).count();
    changed + gone
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::config::ClusterConfig;
    use crate::cluster::link::Link;
    use crate::cluster::node::NodeFacts;
    use crate::cluster::registry::{NameTable, Registry};
    use crate::cluster::state::ClusterState;
    use crate::decide_loop::{RunningTime, Signals, SystemClock};
    use healing::id::ClusterId;
    use healing::time::Elapsed;
    use serde_json::json;
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, OnceLock};
    use tokio_util::sync::CancellationToken;

    const KUBECONFIG: &str = r#"{"apiVersion": "v1", "kind": "Config", "current-context": "x",
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}], "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}]}"#;

    /// A watch whose one endpoint nobody asks.
    async fn watch_of(name: &str, registry: Arc<dyn Registry>) -> Watch {
        let kubeconfig = std::env::temp_dir().join(format!("rackmedic-nodes-{name}-{}", std::process::id()));
        std::fs::write(&kubeconfig, KUBECONFIG).unwrap();
        let config: ClusterConfig = serde_json::from_value(json!({
            "id": 1, "name": "c", "kubeconfig": kubeconfig,
            "control_plane": [{"node": "cp1", "api": "http://127.0.0.1:1"}],
        }))
        .unwrap();
        let link = Link::open(&config, Arc::default()).await.unwrap();
        std::fs::remove_file(&kubeconfig).unwrap();
        Watch {
            link: Arc::new(link),
            state: Arc::new(ClusterState::new(ClusterId(1), "c", 1, Arc::default(), Elapsed(0))),
            registry,
            signals: Signals::new(),
            time: RunningTime::resume(Arc::new(SystemClock::new()), Elapsed(0)),
            stop: CancellationToken::new(),
        }
    }

    fn node(version: &str, cordoned: bool) -> Node {
        let node = json!({"metadata": {"name": "n1", "resourceVersion": version}, "spec": {"unschedulable": cordoned}});
        serde_json::from_value(node).unwrap()
    }

    /// Lists `n1` and no other.
    fn listed(watch: &Watch, node: Node) {
        let mut listing = None;
        for event in [Event::Init, Event::InitApply(node), Event::InitDone] {
            watch.node_event(event, &mut listing);
        }
        assert_eq!(listing, None);
    }

    #[tokio::test]
    async fn a_listing_is_believed_at_its_end_and_not_for_having_begun() {
        let watch = watch_of("listing", Arc::new(NameTable::default())).await;
        let proven = || watch.state.tables().nodes_proof.at().is_some();
        let mut listing = None;
        watch.node_event(Event::Init, &mut listing);
        assert!(!proven() && listing.is_some(), "nobody was asked yet");
        watch.node_event(Event::InitApply(node("1", false)), &mut listing);
        assert!(!proven());
        watch.node_event(Event::InitDone, &mut listing);
        assert!(proven() && listing.is_none());
        watch.node_event(Event::Init, &mut listing);
        assert!(!proven(), "what changed since it was last heard is not known");
    }

    #[test]
    fn a_read_shows_what_the_watch_did_not_bring() {
        let of = |all: &[(&str, &str)]| -> HashMap<String, String> {
            all.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())).collect()
        };
        let known = of(&[("n1", "5"), ("n2", "6")]);
        assert_eq!(missed(&known, &known, &known, true), 0);
        assert_eq!(missed(&known, &known, &of(&[("n1", "5"), ("n2", "9")]), true), 1, "changed");
        assert_eq!(missed(&known, &known, &of(&[("n1", "5"), ("n2", "6"), ("n3", "7")]), true), 1, "new");
        assert_eq!(missed(&known, &known, &of(&[("n1", "5")]), true), 1, "gone");
        assert_eq!(missed(&known, &known, &of(&[("n1", "5")]), false), 0, "on another page");
        // The watch was quicker than the read, or than its answer.
        let after = of(&[("n1", "8"), ("n2", "6")]);
        assert_eq!(missed(&known, &after, &of(&[("n1", "7"), ("n2", "6")]), true), 0);
        assert_eq!(missed(&known, &of(&[("n1", "5")]), &known, true), 0);
    }

    /// A register in which a newer Node comes just when what is known is said again.
    #[derive(Debug, Default)]
    struct Busy {
        names: NameTable,
        newer: OnceLock<Watch>,
        once: AtomicBool,
    }

    impl Registry for Busy {
        fn host_of(&self, cluster: ClusterId, node: &str) -> Option<HostId> {
            self.names.host_of(cluster, node)
        }

        fn hosts(&self, cluster: ClusterId) -> Arc<BTreeMap<String, HostId>> {
            self.names.hosts(cluster)
        }

        fn node_seen(&self, _: HostId, _: &NodeFacts) {
            let Some(watch) = self.newer.get().filter(|_| !self.once.swap(true, Ordering::SeqCst)) else { return };
            let watch = watch.clone();
            let comes = std::thread::spawn(move || watch.node_event(Event::Apply(node("2", true)), &mut None));
            // Time enough for it to be told first, if nothing held it back.
            for _ in 0..20 {
                if comes.is_finished() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    #[tokio::test]
    async fn what_is_said_again_never_comes_after_what_is_newer() {
        let registry = Arc::new(Busy::default());
        registry.names.set(ClusterId(1), BTreeMap::from([("n1".to_owned(), HostId(4))]));
        let watch = watch_of("order", Arc::clone(&registry) as Arc<dyn Registry>).await;
        listed(&watch, node("1", false));
        registry.newer.set(watch.clone()).unwrap();
        watch.say_again();
        let mut cordons = Vec::new();
        for _ in 0..300 {
            watch.signals.drain(|_, signals| {
                cordons.extend(signals.iter().map(|signal| matches!(signal.seen, Seen::Node(node) if node.cordoned)));
            });
            if cordons.last() == Some(&true) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(cordons, [false, true]);
    }

    #[tokio::test]
    async fn nothing_is_said_again_of_nodes_that_may_have_changed_unheard() {
        let registry = Arc::new(NameTable::default());
        registry.set(ClusterId(1), BTreeMap::from([("n1".to_owned(), HostId(4))]));
        let watch = watch_of("unheard", registry).await;
        let said = || {
            let mut said = 0;
            watch.signals.drain(|_, signals| said += signals.len());
            said
        };
        watch.say_again();
        assert_eq!(said(), 0, "never listed");
        listed(&watch, node("1", false));
        assert_eq!(said(), 1);
        watch.say_again();
        assert_eq!(said(), 1);
        // That Leases are heard proves nothing of Nodes.
        let now = watch.time.now().elapsed;
        watch.state.tables().proof.heard(now);
        watch.state.tables().nodes_proof.compared(now, 1);
        watch.say_again();
        assert_eq!(said(), 0);
    }
}
