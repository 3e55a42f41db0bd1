//! etcd's members, read live from the members themselves by etcd's own JSON gateway (`/v3/cluster/member/list`,
//! `/v3/maintenance/status`), and the removal of one by its ID.
//!
//! With client certificates each member is asked directly; they are read again from their files when a member does not take
//! them. Without them nothing is known of the list, and rule 22 holds; whether a member lives is then told by the API server
//! beside it and by its port.

use super::client::{Answer, ClientError, ask};
use super::config::{ClusterConfig, ControlPlaneConfig, EtcdConfig};
use super::watch::Watch;
use futures_util::future::join_all;
use healing::id::HostId;
use healing::sight::{EtcdMember, EtcdReport};
use healing::signal::{Seen, Signal, Source};
use serde::{Deserialize, Deserializer};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Between two readings: rule 18 wants one at most 10 s old.
const EVERY: Duration = Duration::from_secs(4);
/// A member that has not answered by then has missed.
const DEADLINE: Duration = Duration::from_secs(3);
/// Members kept.
const MEMBERS_MAX: usize = 9;
/// Certificates are read again at most this often.
const RENEW: Duration = Duration::from_secs(15);

/// One member's client side.
#[derive(Clone)]
pub struct Gate {
    /// The Node of its host.
    pub node: String,
    /// Its address, `https://address:2379`.
    pub address: String,
    client: kube::Client,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("node", &self.node).field("address", &self.address).finish_non_exhaustive()
    }
}

/// All members of a cluster that we can speak to. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Etcd {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    cluster: String,
    access: EtcdConfig,
    planes: Vec<ControlPlaneConfig>,
    gates: RwLock<Arc<[Gate]>>,
    renewal: Mutex<Renewal>,
}

/// The certificates in use.
#[derive(Debug)]
struct Renewal {
    /// Digest of the files that the gates were made from.
    made_from: [u8; 32],
    looked_at: Option<Instant>,
    /// What people were told last, so that they are told once.
    told: Option<String>,
}

/// A digest of the files with certificates and key.
fn digest(access: &EtcdConfig) -> Result<[u8; 32], ClientError> {
    let mut digest = Sha256::new();
    for path in [&access.ca_file, &access.cert_file, &access.key_file].into_iter().flatten() {
        let bytes = std::fs::read(path).map_err(|source| ClientError::Read { path: path.clone(), source })?;
        let bytes = Zeroizing::new(bytes);
        digest.update(bytes.len().to_be_bytes());
        digest.update(bytes.as_slice());
    }
    Ok(digest.finalize().into())
}

fn gates(access: &EtcdConfig, planes: &[ControlPlaneConfig]) -> Result<Vec<Gate>, ClientError> {
    let mut gates = Vec::new();
    for plane in planes {
        if let Some(address) = &plane.etcd {
            let client = super::client::etcd_client(address, access)?;
            gates.push(Gate { node: plane.node.clone(), address: address.clone(), client });
        }
    }
    Ok(gates)
}

/// A member as the list shows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Listed {
    /// Its ID.
    #[serde(rename = "ID", deserialize_with = "number")]
    pub id: u64,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Where clients reach it.
    #[serde(default, rename = "clientURLs")]
    pub client_urls: Vec<String>,
    /// It does not vote yet.
    #[serde(default, rename = "isLearner")]
    pub learner: bool,
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    members: Vec<Listed>,
}

/// What a member says of itself.
#[derive(Debug, Clone, Deserialize)]
struct Status {
    header: Header,
    #[serde(default, deserialize_with = "number")]
    leader: u64,
    #[serde(default)]
    errors: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Header {
    #[serde(default, deserialize_with = "number")]
    member_id: u64,
}

/// The gateway writes 64-bit numbers as strings (proto3's JSON mapping), and leaves out what is zero.
fn number<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Text(String),
        Number(u64),
    }
    match Either::deserialize(from)? {
        Either::Text(text) => text.parse().map_err(serde::de::Error::custom),
        Either::Number(number) => Ok(number),
    }
}

/// What one member answered about itself.
enum Told {
    Status(Status),
    /// Its port refuses.
    Refused,
    /// It said something else, or nothing we can read: it lives, and is not well.
    Unwell,
    /// Nothing came; how long after the deadline we noticed.
    Missed,
    /// Certificates: the fault may be ours.
    Ours,
}

/// What became of a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It is no member, or no longer.
    Gone,
    /// etcd refuses: too few would be left, or we may not.
    Refused,
    /// Nobody answered; whether it took effect is unknown.
    Silent,
}

impl Etcd {
    /// Access to the members that the configuration names; `None` if it gives none.
    ///
    /// # Errors
    /// A file or an address is unusable.
    pub fn open(config: &ClusterConfig) -> Result<Option<Etcd>, ClientError> {
        let Some(access) = &config.etcd else { return Ok(None) };
        // Before the files are used: what is written between the two is then taken for a change.
        let made_from = digest(access)?;
        let gates = gates(access, &config.control_planes)?;
        if gates.is_empty() {
            return Ok(None);
        }
        let shared = Shared {
            cluster: config.name.clone(),
            access: access.clone(),
            planes: config.control_planes.clone(),
            gates: RwLock::new(gates.into()),
            renewal: Mutex::new(Renewal { made_from, looked_at: None, told: None }),
        };
        Ok(Some(Etcd { shared: Arc::new(shared) }))
    }

    fn gates(&self) -> Arc<[Gate]> {
        Arc::clone(&self.shared.gates.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A member and we do not take each other's certificates: takes up those on disk, if they are others than those in use.
    /// Looks once in a while, and tells people once of each change.
    fn renew(&self, now: Instant) {
        let mut renewal = self.shared.renewal.lock().unwrap_or_else(PoisonError::into_inner);
        if renewal.looked_at.is_some_and(|at| now.saturating_duration_since(at) < RENEW) {
            return;
        }
        renewal.looked_at = Some(now);
        let found = digest(&self.shared.access);
        let made = match found {
            Ok(found) if found == renewal.made_from => Ok(None),
            Ok(found) => gates(&self.shared.access, &self.shared.planes).map(|fresh| Some((found, fresh))),
            Err(error) => Err(error),
        };
        let word = match made {
            Ok(Some((found, fresh))) => {
                *self.shared.gates.write().unwrap_or_else(PoisonError::into_inner) = fresh.into();
                renewal.made_from = found;
                renewal.told = None;
                tracing::info!(
                    cluster = self.shared.cluster,
                    "the certificates for etcd changed on disk and are used now"
                );
                return;
            }
            Ok(None) => "those on disk are the ones in use: renew them".to_owned(),
            Err(error) => format!("those on disk cannot be used: {error}"),
        };
        if renewal.told.as_ref() != Some(&word) {
            tracing::warn!(
                cluster = self.shared.cluster,
                why = word,
                "a member of etcd and we do not take each other's certificates: it is not read, and without a live reading no \
                 control-plane host is acted on"
            );
            renewal.told = Some(word);
        }
    }

    /// Members answer, and none for whom our certificates are not good: the next trouble is told anew.
    fn taken(&self) {
        let told = self.shared.renewal.lock().unwrap_or_else(PoisonError::into_inner).told.take();
        if told.is_some() {
            tracing::info!(cluster = self.shared.cluster, "the members of etcd take our certificates again");
        }
    }

    /// Reads the list from the first that gives one, in order, `except` the host that is to go; and who it was.
    async fn list<'a>(gates: &'a [Gate], except: Option<&str>) -> Option<(&'a Gate, Vec<Listed>)> {
        for gate in gates.iter().filter(|gate| except != Some(gate.node.as_str())) {
            // Linearizable: a member cut off from the others must not tell of better days.
            let asked = ask(&gate.client, "/v3/cluster/member/list", Some(b"{\"linearizable\":true}".to_vec()));
            if let Ok(Ok(answer)) = tokio::time::timeout(DEADLINE, asked).await
                && answer.status.is_success()
                && let Ok(list) = serde_json::from_str::<List>(&answer.body)
                && !list.members.is_empty()
            {
                return Some((gate, list.members));
            }
        }
        None
    }

    async fn status(gate: &Gate) -> Told {
        let asked = ask(&gate.client, "/v3/maintenance/status", Some(b"{}".to_vec()));
        match tokio::time::timeout(DEADLINE, asked).await {
            Ok(Ok(Answer { status, body })) if status.is_success() => {
                serde_json::from_str(&body).map_or(Told::Unwell, Told::Status)
            }
            Ok(Ok(answer)) if matches!(answer.status.as_u16(), 401 | 403) => Told::Ours,
            Ok(Ok(_)) => Told::Unwell,
            Ok(Err(error)) => match super::client::trouble(&error) {
                super::client::Trouble::RefusedConnection => Told::Refused,
                super::client::Trouble::Tls => Told::Ours,
                _ => Told::Missed,
            },
            Err(_) => Told::Missed,
        }
    }

    /// Removes a member by its ID, through another member than the one that is to go.
    pub async fn remove(&self, id: u64, node: &str) -> Removal {
        let gates = self.gates();
        let Some((gate, members)) = Etcd::list(&gates, Some(node)).await else { return Removal::Silent };
        if !members.iter().any(|member| member.id == id) {
            return Removal::Gone;
        }
        let body = format!("{{\"ID\":\"{id}\"}}").into_bytes();
        let asked = ask(&gate.client, "/v3/cluster/member/remove", Some(body));
        match tokio::time::timeout(super::client::ANSWER, asked).await {
            Ok(Ok(answer)) if answer.status.is_success() || answer.status.as_u16() == 404 => Removal::Gone,
            // 503 = Unavailable: no leader, or the members are not well enough to agree (--strict-reconfig-check).
            Ok(Ok(answer)) if answer.status.as_u16() == 503 && !answer.body.contains("unhealthy cluster") => {
                Removal::Silent
            }
            Ok(Ok(answer)) if answer.status.as_u16() == 504 => Removal::Silent,
            Ok(Ok(_)) => Removal::Refused,
            Ok(Err(_)) | Err(_) => Removal::Silent,
        }
    }
}

/// Joins the list with what each member said. A member is healthy if it answers without an alarm and names the leader that
/// most of them name.
fn report(
    list: &[Listed],
    told: &BTreeMap<u64, (u64, bool)>,
    hosts: &BTreeMap<u64, HostId>,
    at: healing::time::Elapsed,
) -> EtcdReport {
    let mut votes: BTreeMap<u64, usize> = BTreeMap::new();
    for (leader, _) in told.values().filter(|(leader, _)| *leader != 0) {
        *votes.entry(*leader).or_default() += 1;
    }
    let leader = votes.iter().max_by_key(|(_, count)| **count).map(|(leader, _)| *leader);
    let members = list.iter().take(MEMBERS_MAX).map(|member| EtcdMember {
        id: member.id,
        host: hosts.get(&member.id).copied(),
        healthy: told.get(&member.id).is_some_and(|(theirs, well)| *well && Some(*theirs) == leader),
        learner: member.learner,
    });
    EtcdReport { read_at: at, members: members.collect() }
}

/// The address without its scheme, to compare what the list says with what the configuration says.
fn bare(address: &str) -> &str {
    address.trim_end_matches('/').rsplit("//").next().unwrap_or(address)
}

impl Watch {
    /// Reads the members for ever.
    pub(super) async fn etcd(self, etcd: Etcd) {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // A member that died is still known by what it said of itself before.
        let mut nodes: BTreeMap<u64, String> = BTreeMap::new();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let begun = self.time.now().elapsed;
            let gates = etcd.gates();
            let asked = join_all(gates.iter().map(Etcd::status));
            let (list, all) = tokio::join!(Etcd::list(&gates, None), asked);
            let at = self.time.now().elapsed;
            let deadline_ms = u64::try_from(DEADLINE.as_millis()).unwrap_or(u64::MAX);
            let drained_ms = at.since(begun).saturating_sub(deadline_ms);
            if all.iter().any(|told| matches!(told, Told::Ours)) {
                etcd.renew(Instant::now());
            } else if all.iter().any(|told| matches!(told, Told::Status(_))) {
                etcd.taken();
            }
            let mut told = BTreeMap::new();
            for (gate, told_by) in gates.iter().zip(all) {
                let seen = match told_by {
                    Told::Status(status) => {
                        nodes.retain(|id, node| *id == status.header.member_id || *node != gate.node);
                        nodes.insert(status.header.member_id, gate.node.clone());
                        let well = status.errors.is_empty() && status.leader != 0;
                        told.insert(status.header.member_id, (status.leader, well));
                        Some(if well { Seen::Answer } else { Seen::Refused })
                    }
                    Told::Refused | Told::Unwell => Some(Seen::Refused),
                    Told::Missed => Some(Seen::Miss),
                    Told::Ours => None,
                };
                let host = self.registry.host_of(self.state.id, &gate.node);
                if let (Some(seen), Some(host)) = (seen, host) {
                    let signal =
                        Signal { drained_after_ms: drained_ms, ..Signal::sample(Source::EtcdMember, seen, at) };
                    self.signals.offer(host, signal);
                }
            }
            // A list that nobody gives leaves the last one standing, and it grows old (rule 18).
            let Some((_, list)) = list else { continue };
            for member in &list {
                let gate = gates.iter().find(|gate| {
                    member.name == gate.node || member.client_urls.iter().any(|url| bare(url) == bare(&gate.address))
                });
                if let Some(gate) = gate {
                    nodes.entry(member.id).or_insert_with(|| gate.node.clone());
                }
            }
            nodes.retain(|id, _| list.iter().any(|member| member.id == *id));
            let hosts = nodes
                .iter()
                .filter_map(|(id, node)| Some((*id, self.registry.host_of(self.state.id, node)?)))
                .collect();
            self.state.tables().etcd = Some(report(&list, &told, &hosts, at));
        }
    }

    /// Without client certificates: whether the member's port is there at all.
    pub(super) async fn etcd_port(self, node: String, address: String) {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let target = bare(&address).to_owned();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let begun = self.time.now().elapsed;
            let tried = tokio::time::timeout(DEADLINE, tokio::net::TcpStream::connect(&target)).await;
            let at = self.time.now().elapsed;
            let deadline_ms = u64::try_from(DEADLINE.as_millis()).unwrap_or(u64::MAX);
            let seen = match tried {
                // A port that takes a connection says nothing of the member behind it.
                Ok(Ok(_)) => continue,
                Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => Seen::Refused,
                Ok(Err(_)) | Err(_) => Seen::Miss,
            };
            if let Some(host) = self.registry.host_of(self.state.id, &node) {
                let drained_after_ms = at.since(begun).saturating_sub(deadline_ms);
                let signal = Signal { drained_after_ms, ..Signal::sample(Source::EtcdMember, seen, at) };
                self.signals.offer(host, signal);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use healing::time::Elapsed;
    use serde_json::json;

    const LIST: &str = r#"{"header":{"cluster_id":"1","member_id":"13803658152347727308","raft_term":"4"},"members":[
        {"ID":"13803658152347727308","name":"cp1","peerURLs":["https://10.84.0.11:2380"],"clientURLs":["https://10.84.0.11:2379"]},
        {"ID":"9372538179322589801","name":"cp2","peerURLs":["https://10.84.0.12:2380"],"clientURLs":["https://10.84.0.12:2379"]},
        {"ID":"7","name":"cp3","peerURLs":["https://10.84.0.13:2380"],"clientURLs":["https://10.84.0.13:2379"],"isLearner":true}]}"#;

    #[test]
    fn the_gateways_numbers_are_read_whole() {
        let list: List = serde_json::from_str(LIST).unwrap();
        assert_eq!(list.members[0].id, 13_803_658_152_347_727_308);
        assert!(list.members[2].learner && !list.members[0].learner);
        let status: Status =
            serde_json::from_str(r#"{"header":{"member_id":"7","raft_term":"4"},"leader":"9372538179322589801"}"#)
                .unwrap();
        assert_eq!((status.header.member_id, status.leader), (7, 9_372_538_179_322_589_801));
    }

    #[test]
    fn a_member_is_healthy_when_it_agrees_with_most_on_the_leader() {
        let list: List = serde_json::from_str(LIST).unwrap();
        let (one, two) = (list.members[0].id, list.members[1].id);
        let told = BTreeMap::from([(one, (one, true)), (two, (one, true)), (7, (0, false))]);
        let hosts = BTreeMap::from([(one, HostId(1))]);
        let report = report(&list.members, &told, &hosts, Elapsed(5));
        let healthy: Vec<bool> = report.members.iter().map(|m| m.healthy).collect();
        assert_eq!(healthy, [true, true, false]);
        assert_eq!((report.members[0].host, report.members[1].host), (Some(HostId(1)), None));
    }

    #[tokio::test]
    async fn certificates_that_were_renewed_on_disk_are_taken_up_and_those_that_were_not_are_told_of_once() {
        let folder = std::env::temp_dir().join(format!("rackmedic-etcd-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
        let issue = || {
            let made = rcgen::generate_simple_self_signed(vec!["etcd".to_owned()]).unwrap();
            write("ca", &made.cert.pem());
            write("cert", &made.cert.pem());
            write("key", &made.signing_key.serialize_pem());
        };
        issue();
        let config: ClusterConfig = serde_json::from_value(json!({
            "id": 1, "name": "c", "kubeconfig": "k",
            "control_plane": [{"node": "cp1", "api": "https://127.0.0.1:1", "etcd": "https://127.0.0.1:2"}],
            "etcd": {"ca_file": folder.join("ca"), "cert_file": folder.join("cert"), "key_file": folder.join("key")},
        }))
        .unwrap();
        let etcd = Etcd::open(&config).unwrap().unwrap();
        let told = || etcd.shared.renewal.lock().unwrap().told.clone();
        let (first, begun) = (etcd.gates(), Instant::now());
        etcd.renew(begun);
        assert!(Arc::ptr_eq(&first, &etcd.gates()) && told().is_some_and(|word| word.contains("renew them")));

        issue();
        etcd.renew(begun + RENEW / 2);
        assert!(Arc::ptr_eq(&first, &etcd.gates()), "not at once");
        etcd.renew(begun + RENEW);
        let second = etcd.gates();
        assert!(!Arc::ptr_eq(&first, &second) && told().is_none());

        // Half written: what is in use stays, and it is tried again.
        write("key", "");
        etcd.renew(begun + 2 * RENEW);
        assert!(Arc::ptr_eq(&second, &etcd.gates()) && told().is_some_and(|word| word.contains("cannot be used")));
        issue();
        etcd.renew(begun + 3 * RENEW);
        assert!(!Arc::ptr_eq(&second, &etcd.gates()));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
