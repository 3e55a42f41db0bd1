//! The objects of the emulated cluster: one version counter, optimistic locking, a bounded history for watches.

use super::filter::Filter;
use super::kinds::{KindId, POD};
use super::refusal::Refusal;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Changes kept: whoever watches from further back is told to list again.
const HISTORY_MAX: usize = 8_192;
/// Objects at most: a demo that fills the memory of a laptop is a bad one.
const OBJECTS_MAX: usize = 50_000;

/// Where an object lies.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Its kind.
    pub kind: KindId,
    /// Its namespace; empty for what has none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Key {
    /// A key.
    #[must_use]
    pub fn new(kind: KindId, namespace: &str, name: &str) -> Key {
        Key { kind, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// As messages name it.
    #[must_use]
    pub fn words(&self) -> String {
        let kind = self.kind.get();
        let group = if kind.group.is_empty() { String::new() } else { format!(".{}", kind.group) };
        format!("{}{group} \"{}\"", kind.plural, self.name)
    }
}

/// One change, for watches.
#[derive(Debug, Clone)]
pub struct Change {
    /// The version that it made.
    pub version: u64,
    /// Of what kind.
    pub kind: KindId,
    /// The object before; `None` = it is new.
    pub before: Option<Arc<Value>>,
    /// The object after; of one that is gone, its last state under the version of its end.
    pub after: Arc<Value>,
    /// It is gone.
    pub gone: bool,
}

/// How an object is to be deleted.
#[derive(Debug, Clone, Default)]
pub struct Deletion {
    /// Seconds of grace; `None` = the object's own.
    pub grace_s: Option<u64>,
    /// Only this very object.
    pub uid: Option<String>,
    /// Only this version of it.
    pub version: Option<String>,
}

/// A page of a list.
#[derive(Debug)]
pub struct Page {
    /// The objects.
    pub items: Vec<Arc<Value>>,
    /// The version at which they were read.
    pub version: u64,
    /// Where the next page begins; `None` = this is the last.
    pub next: Option<Key>,
}

#[derive(Debug, Default)]
struct Inner {
    version: u64,
    all: BTreeMap<Key, Arc<Value>>,
    history: VecDeque<Change>,
    names: u64,
}

/// All objects. Shared by the servers and by the model of the cluster.
#[derive(Debug)]
pub struct Objects {
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
}

impl Default for Objects {
    fn default() -> Self {
        Objects { inner: Mutex::new(Inner { version: 1, ..Inner::default() }), changed: watch::Sender::new(1) }
    }
}

impl Objects {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears of each new version.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The version now.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.lock().version
    }

    /// One object.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Arc<Value>> {
        self.lock().all.get(key).cloned()
    }

    /// All objects of a kind.
    #[must_use]
    pub fn of(&self, kind: KindId) -> Vec<(Key, Arc<Value>)> {
        let inner = self.lock();
        let from = Key::new(kind, "", "");
        inner.all.range(from..).take_while(|(key, _)| key.kind == kind).map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    /// A page of a kind, after a key.
    #[must_use]
    pub fn page(&self, kind: KindId, filter: &Filter, after: Option<Key>, limit: Option<usize>) -> Page {
        let inner = self.lock();
        let from = match after {
            Some(key) => Bound::Excluded(key),
            None => Bound::Included(Key::new(kind, "", "")),
        };
        let mut items = Vec::new();
        let mut last = None;
        for (key, object) in inner.all.range((from, Bound::Unbounded)).take_while(|(key, _)| key.kind == kind) {
            if !filter.takes(object) {
                continue;
            }
            if limit.is_some_and(|limit| items.len() >= limit) {
                return Page { items, version: inner.version, next: last };
            }
            items.push(object.clone());
            last = Some(key.clone());
        }
        Page { items, version: inner.version, next: None }
    }

    /// Changes after a version.
    ///
    /// # Errors
    /// They are no longer kept.
    pub fn since(&self, version: u64) -> Result<Vec<Change>, Refusal> {
        let inner = self.lock();
        let oldest = inner.history.front().map_or(inner.version + 1, |change| change.version);
        if version + 1 < oldest || version > inner.version {
            return Err(Refusal::gone());
        }
        let start = inner.history.partition_point(|change| change.version <= version);
        Ok(inner.history.iter().skip(start).cloned().collect())
    }

    /// Makes an object.
    ///
    /// # Errors
    /// There is one, or it has no name.
    pub fn create(&self, kind: KindId, namespace: &str, mut object: Value) -> Result<Arc<Value>, Refusal> {
        let mut inner = self.lock();
        if inner.all.len() >= OBJECTS_MAX {
            return Err(Refusal::invalid("this emulated cluster holds no more objects"));
        }
        inner.names += 1;
        let serial = inner.names;
        let info = kind.get();
        let Some(fields) = object.as_object_mut() else { return Err(Refusal::bad("the body is no object")) };
        fields.insert("kind".to_owned(), json!(info.kind));
        fields.insert("apiVersion".to_owned(), json!(info.api_version()));
        let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
        let Some(metadata) = metadata.as_object_mut() else { return Err(Refusal::bad("metadata is no object")) };
        let given = metadata.get("name").and_then(Value::as_str).filter(|name| !name.is_empty()).map(str::to_owned);
        let prefix = metadata.get("generateName").and_then(Value::as_str);
        let name = match (given, prefix) {
            (Some(name), _) => name,
            (None, Some(prefix)) => format!("{prefix}{:05x}", serial.wrapping_mul(0x9E37_79B9) & 0xf_ffff),
            (None, None) => {
                return Err(Refusal::invalid("metadata.name: Required value: name or generateName is required"));
            }
        };
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.:".contains(c);
        if name.len() > 253 || !name.chars().all(plain) {
            return Err(Refusal::invalid(format!("metadata.name: Invalid value: {name:?}")));
        }
        let key = Key::new(kind, if info.namespaced { namespace } else { "" }, &name);
        if inner.all.contains_key(&key) {
            return Err(Refusal::exists(&key.words()));
        }
        metadata.insert("name".to_owned(), json!(name));
        if info.namespaced {
            metadata.insert("namespace".to_owned(), json!(namespace));
        }
        metadata.insert("uid".to_owned(), json!(uid(serial)));
        metadata.insert("creationTimestamp".to_owned(), json!(now_s()));
        metadata.insert("generation".to_owned(), json!(1));
        if kind == POD && fields.get("status").is_none() {
            fields.insert("status".to_owned(), json!({"phase": "Pending"}));
        }
        let stored = put(&mut inner, key, object, None);
        self.changed.send_replace(inner.version);
        Ok(stored)
    }

    /// Changes an object: `change` is given what is there and makes what shall be there.
    ///
    /// # Errors
    /// There is none, the change names another version, or `change` refuses.
    pub fn change(
        &self,
        key: &Key,
        change: impl FnOnce(&Value) -> Result<Value, Refusal>,
    ) -> Result<Arc<Value>, Refusal> {
        let mut inner = self.lock();
        let before = inner.all.get(key).cloned().ok_or_else(|| Refusal::not_found(&key.words()))?;
        let mut after = change(&before)?;
        let version = &before["metadata"]["resourceVersion"];
        let named = &after["metadata"]["resourceVersion"];
        if !named.is_null() && named != "" && named != version {
            return Err(Refusal::conflict(format!(
                "Operation cannot be fulfilled on {}: the object has been modified; please apply your changes to the latest version and try again",
                key.words()
            )));
        }
        let named = &after["metadata"]["uid"];
        if !named.is_null() && named != "" && *named != before["metadata"]["uid"] {
            return Err(Refusal::conflict(format!(
                "Precondition failed: {} is another object of that name",
                key.words()
            )));
        }
        let Some(fields) = after.as_object_mut() else { return Err(Refusal::bad("the body is no object")) };
        for fixed in ["kind", "apiVersion"] {
            fields.insert(fixed.to_owned(), before[fixed].clone());
        }
        let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
        let Some(metadata) = metadata.as_object_mut() else { return Err(Refusal::bad("metadata is no object")) };
        for fixed in [
            "name",
            "namespace",
            "uid",
            "creationTimestamp",
            "resourceVersion",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "generation",
        ] {
            match before["metadata"].get(fixed) {
                Some(value) => metadata.insert(fixed.to_owned(), value.clone()),
                None => metadata.remove(fixed),
            };
        }
        if after == *before {
            return Ok(before);
        }
        if after.get("spec") != before.get("spec") {
            let generation = before["metadata"]["generation"].as_u64().unwrap_or(1) + 1;
            after["metadata"]["generation"] = json!(generation);
        }
        let stored = if ends(&after) {
            remove(&mut inner, key, after, before)
        } else {
            put(&mut inner, key.clone(), after, Some(before))
        };
        self.changed.send_replace(inner.version);
        Ok(stored)
    }

    /// Deletes an object, or begins to: finalizers and grace keep it a while.
    ///
    /// # Errors
    /// There is none, or it is another one.
    pub fn delete(&self, key: &Key, deletion: &Deletion) -> Result<Arc<Value>, Refusal> {
        let mut inner = self.lock();
        let before = inner.all.get(key).cloned().ok_or_else(|| Refusal::not_found(&key.words()))?;
        let other = |wanted: &Option<String>, field: &str| {
            wanted.as_ref().is_some_and(|wanted| before["metadata"][field].as_str() != Some(wanted))
        };
        if other(&deletion.uid, "uid") || other(&deletion.version, "resourceVersion") {
            return Err(Refusal::conflict(format!(
                "Precondition failed: {} is another object or version",
                key.words()
            )));
        }
        let mut after = (*before).clone();
        let metadata = &mut after["metadata"];
        if metadata["deletionTimestamp"].is_null() {
            metadata["deletionTimestamp"] = json!(now_s());
        }
        // A pod that no kubelet runs needs no grace; one that a kubelet runs goes when the kubelet says so.
        let runs = key.kind == POD && before["spec"]["nodeName"].is_string();
        let own = before["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
        let grace = if runs { deletion.grace_s.unwrap_or(own) } else { 0 };
        let shortest = metadata["deletionGracePeriodSeconds"].as_u64().map_or(grace, |earlier| earlier.min(grace));
        metadata["deletionGracePeriodSeconds"] = json!(shortest);
        let stored = if ends(&after) {
            remove(&mut inner, key, after, before)
        } else if after == *before {
            before
        } else {
            put(&mut inner, key.clone(), after, Some(before))
        };
        self.changed.send_replace(inner.version);
        Ok(stored)
    }
}

/// Whether nothing keeps an object that is being deleted.
fn ends(object: &Value) -> bool {
    let metadata = &object["metadata"];
    let kept = metadata["finalizers"].as_array().is_some_and(|all| !all.is_empty());
    !metadata["deletionTimestamp"].is_null()
        && !kept
        && metadata["deletionGracePeriodSeconds"].as_u64().unwrap_or(0) == 0
}

fn put(inner: &mut Inner, key: Key, mut object: Value, before: Option<Arc<Value>>) -> Arc<Value> {
    inner.version += 1;
    object["metadata"]["resourceVersion"] = json!(inner.version.to_string());
    let object = Arc::new(object);
    note(inner, Change { version: inner.version, kind: key.kind, before, after: object.clone(), gone: false });
    inner.all.insert(key, object.clone());
    object
}

fn remove(inner: &mut Inner, key: &Key, mut object: Value, before: Arc<Value>) -> Arc<Value> {
    inner.version += 1;
    object["metadata"]["resourceVersion"] = json!(inner.version.to_string());
    let object = Arc::new(object);
    let change =
        Change { version: inner.version, kind: key.kind, before: Some(before), after: object.clone(), gone: true };
    note(inner, change);
    inner.all.remove(key);
    object
}

fn note(inner: &mut Inner, change: Change) {
    if inner.history.len() >= HISTORY_MAX {
        inner.history.pop_front();
    }
    inner.history.push_back(change);
}

/// A unique name for an object of this run.
fn uid(serial: u64) -> String {
    format!("{:08x}-0000-4000-8000-{:012x}", serial.wrapping_mul(0x9E37_79B1) & 0xffff_ffff, serial)
}

/// This second, as Kubernetes writes a `Time`.
#[must_use]
pub fn now_s() -> String {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

/// This moment, as Kubernetes writes a `MicroTime`.
#[must_use]
pub fn now_micro() -> String {
    format!("{:.6}", Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::super::kinds::{LEASE, NODE, VOLUME_ATTACHMENT};
    use super::*;

    #[test]
    fn a_write_that_names_another_version_is_refused_and_one_that_changes_nothing_makes_no_version() {
        let objects = Objects::default();
        let node = objects.create(NODE, "", json!({"metadata": {"name": "n1"}, "spec": {}})).unwrap();
        let key = Key::new(NODE, "", "n1");
        let stale = |_: &Value| Ok(json!({"metadata": {"resourceVersion": "1"}, "spec": {"unschedulable": true}}));
        assert_eq!(objects.change(&key, stale).unwrap_err().code, 409);
        let version = objects.version();
        assert_eq!(objects.change(&key, |node| Ok(node.clone())).unwrap(), node);
        assert_eq!(objects.version(), version);
        assert_eq!(objects.create(NODE, "", json!({"metadata": {"name": "n1"}})).unwrap_err().reason, "AlreadyExists");
        assert_eq!(objects.create(LEASE, "x", json!({"metadata": {}})).unwrap_err().code, 422);
    }

    #[test]
    fn a_pod_on_a_node_waits_for_its_kubelet_unless_no_grace_is_given() {
        let objects = Objects::default();
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1"}});
        objects.create(POD, "shop", pod).unwrap();
        let key = Key::new(POD, "shop", "p");
        objects.delete(&key, &Deletion::default()).unwrap();
        assert!(!objects.get(&key).unwrap()["metadata"]["deletionTimestamp"].is_null());
        let other = Deletion { uid: Some("x".to_owned()), ..Deletion::default() };
        assert_eq!(objects.delete(&key, &other).unwrap_err().code, 409);
        objects.delete(&key, &Deletion { grace_s: Some(0), ..Deletion::default() }).unwrap();
        assert!(objects.get(&key).is_none());
    }

    #[test]
    fn a_finalizer_keeps_an_object_until_it_is_taken_away() {
        let objects = Objects::default();
        let held = json!({"metadata": {"name": "v", "finalizers": ["x/y"]}});
        objects.create(VOLUME_ATTACHMENT, "", held).unwrap();
        let key = Key::new(VOLUME_ATTACHMENT, "", "v");
        objects.delete(&key, &Deletion::default()).unwrap();
        assert!(objects.get(&key).is_some());
        let free = |before: &Value| {
            let mut after = before.clone();
            after["metadata"]["finalizers"] = json!([]);
            Ok(after)
        };
        objects.change(&key, free).unwrap();
        assert!(objects.get(&key).is_none());
        let changes = objects.since(1).unwrap();
        assert!(changes.last().unwrap().gone);
    }

    #[test]
    fn who_watches_from_too_far_back_is_told_to_list_again() {
        let objects = Objects::default();
        objects.create(NODE, "", json!({"metadata": {"name": "n1"}, "spec": {}})).unwrap();
        for turn in 0..HISTORY_MAX as u64 + 5 {
            let change = |before: &Value| {
                let mut after = before.clone();
                after["spec"]["turn"] = json!(turn);
                Ok(after)
            };
            objects.change(&Key::new(NODE, "", "n1"), change).unwrap();
        }
        assert_eq!(objects.since(2).unwrap_err().code, 410);
        assert_eq!(objects.since(objects.version()).unwrap().len(), 0);
        assert_eq!(objects.since(objects.version() + 1).unwrap_err().code, 410, "a version that was never given");
    }

    #[test]
    fn moments_are_written_as_kubernetes_does() {
        assert_eq!(now_s().len(), "2026-01-01T00:00:00Z".len());
        assert_eq!(now_micro().len(), "2026-01-01T00:00:00.000000Z".len());
    }
}
