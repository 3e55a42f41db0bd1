//! Pods and VolumeAttachments of nodes in trouble, watched while somebody asks for them and not otherwise: a healthy cluster's
//! pods are nobody's business here.

use super::acts::releases;
use super::watch::Watch;
use futures_util::stream::{BoxStream, select_all};
use futures_util::{StreamExt, stream};
use healing::time::Elapsed;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::Api;
use kube::runtime::watcher::{self, Event, watcher};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Nodes watched at a time. More than that in one cluster is a storm, and nobody reads their pods one by one.
pub const NODES_MAX: usize = 32;
/// A watch call is ended by the server after this and continued.
const WATCH_S: u32 = 60;
/// Between an error and the next try.
const PAUSE: Duration = Duration::from_secs(2);

/// What still holds on to a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Held {
    /// Pods to be released, by namespace and name, and whether their deletion is under way.
    pub pods: BTreeMap<(String, String), bool>,
    /// VolumeAttachments by name, and whether their deletion is under way.
    pub attachments: BTreeMap<String, bool>,
    /// When everything was listed first; `None` until then.
    pub listed_at: Option<Elapsed>,
}

/// The nodes asked for, and what holds on to them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Trouble {
    wanted: watch::Sender<BTreeSet<String>>,
    held: Arc<Mutex<BTreeMap<String, Held>>>,
}

impl Default for Trouble {
    fn default() -> Self {
        Trouble { wanted: watch::Sender::new(BTreeSet::new()), held: Arc::default() }
    }
}

impl Trouble {
    /// Says which nodes are in trouble; of more than [`NODES_MAX`] the first by name.
    pub fn set(&self, nodes: impl IntoIterator<Item = String>) {
        let mut nodes: BTreeSet<String> = nodes.into_iter().collect();
        while nodes.len() > NODES_MAX {
            nodes.pop_last();
        }
        self.wanted.send_if_modified(|wanted| {
            let differs = *wanted != nodes;
            *wanted = nodes;
            differs
        });
    }

    /// What holds on to a node; `None` if it is not watched or not listed yet.
    #[must_use]
    pub fn held(&self, node: &str) -> Option<Held> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(node).filter(|held| held.listed_at.is_some()).cloned()
    }

    fn change(&self, node: &str, change: impl FnOnce(&mut Held)) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = held.get_mut(node) {
            change(held);
        }
    }
}

enum News {
    Pod(String, Box<watcher::Result<Event<Pod>>>),
    Attachment(Box<watcher::Result<Event<VolumeAttachment>>>),
}

impl Watch {
    /// Watches what is asked for, for ever.
    pub(super) async fn trouble(self, trouble: Trouble) {
        let mut wanted = trouble.wanted.subscribe();
        let mut change = self.link.changes();
        loop {
            change.borrow_and_update();
            let nodes = wanted.borrow_and_update().clone();
            {
                let mut held = trouble.held.lock().unwrap_or_else(PoisonError::into_inner);
                held.retain(|node, _| nodes.contains(node));
                for node in &nodes {
                    held.insert(node.clone(), Held::default());
                }
            }
            let mut news = self.news(&nodes);
            loop {
                let next = tokio::select! {
                    () = self.stop.cancelled() => return,
                    _ = wanted.changed() => break,
                    _ = change.changed() => break,
                    next = news.next() => next,
                };
                let failed = match next {
                    Some(News::Pod(node, event)) => match *event {
                        Ok(event) => {
                            self.pod(&trouble, &node, event);
                            false
                        }
                        Err(_) => true,
                    },
                    Some(News::Attachment(event)) => match *event {
                        Ok(event) => {
                            attachment(&trouble, event);
                            false
                        }
                        Err(_) => true,
                    },
                    None => true,
                };
                if failed {
                    tokio::select! {
                        () = self.stop.cancelled() => return,
                        () = tokio::time::sleep(PAUSE) => {}
                    }
                    // Begun anew rather than continued: a version that is gone is not asked for twice.
                    break;
                }
            }
        }
    }

    fn news(&self, nodes: &BTreeSet<String>) -> BoxStream<'static, News> {
        if nodes.is_empty() {
            return stream::pending().boxed();
        }
        let client = self.link.client();
        let mut all: Vec<BoxStream<'static, News>> = nodes
            .iter()
            .map(|node| {
                let of_node = watcher::Config::default().timeout(WATCH_S).fields(&format!("spec.nodeName={node}"));
                let node = node.clone();
                watcher(Api::<Pod>::all(client.clone()), of_node)
                    .map(move |event| News::Pod(node.clone(), Box::new(event)))
                    .boxed()
            })
            .collect();
        // Attachments cannot be asked for by node: one watch for all, kept only for those in trouble.
        let whole = watcher::Config::default().timeout(WATCH_S);
        all.push(
            watcher(Api::<VolumeAttachment>::all(client), whole).map(|event| News::Attachment(Box::new(event))).boxed(),
        );
        select_all(all).boxed()
    }

    fn pod(&self, trouble: &Trouble, node: &str, event: Event<Pod>) {
        let key = |pod: &Pod| Some((pod.metadata.namespace.clone()?, pod.metadata.name.clone()?));
        match event {
            Event::Init => trouble.change(node, |held| held.pods.clear()),
            Event::InitDone => {
                let at = self.time.now().elapsed;
                trouble.change(node, |held| held.listed_at = held.listed_at.or(Some(at)));
            }
            Event::Apply(pod) | Event::InitApply(pod) => {
                let Some(key) = key(&pod) else { return };
                let going = pod.metadata.deletion_timestamp.is_some();
                trouble.change(node, |held| {
                    if releases(&pod) {
                        held.pods.insert(key, going)
                    } else {
                        held.pods.remove(&key)
                    };
                });
            }
            Event::Delete(pod) => {
                let Some(key) = key(&pod) else { return };
                trouble.change(node, |held| {
                    held.pods.remove(&key);
                });
            }
        }
    }
}

fn attachment(trouble: &Trouble, event: Event<VolumeAttachment>) {
    match event {
        Event::Init => {
            let mut held = trouble.held.lock().unwrap_or_else(PoisonError::into_inner);
            held.values_mut().for_each(|held| held.attachments.clear());
        }
        Event::InitDone => {}
        Event::Apply(attachment) | Event::InitApply(attachment) => {
            let Some(name) = attachment.metadata.name else { return };
            let going = attachment.metadata.deletion_timestamp.is_some();
            trouble.change(&attachment.spec.node_name, |held| {
                held.attachments.insert(name, going);
            });
        }
        Event::Delete(attachment) => {
            let Some(name) = attachment.metadata.name else { return };
            trouble.change(&attachment.spec.node_name, |held| {
                held.attachments.remove(&name);
            });
        }
    }
}
