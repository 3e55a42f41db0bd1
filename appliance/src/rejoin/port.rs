//! The drivers behind the cluster client's own door for them: one rejoin for each host and incident, opened from its record
//! at each call, so that a crash between two calls costs nothing.

use super::alone::PlanOfAll;
use super::calls::Around;
use super::cluster::Cluster;
use super::credential::{Lifetime, Secrets};
use super::driver::Driver;
use super::first_boot::JoinPlan;
use super::names::NodeName;
use super::record::{self, Content, Marks, Record};
use super::{Rejoin, StepError};
use crate::act::installs::incident_of;
use crate::cluster::node::NodeFacts;
use crate::cluster::{Joining, Replying, rejoin_port};
use healing::command::{ClusterCall, Reply};
use healing::id::{ClusterId, HostId, IncidentId};
use jiff::Timestamp;
use protocol::install::FirstBootFile;
use protocol::name::{Name, NoName};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// What the register knows of a host that joins.
#[derive(Debug, Clone)]
pub struct Member {
    /// The name of its Node.
    pub node: NodeName,
    /// Its own addresses: a serving certificate may name no others.
    pub addresses: BTreeSet<IpAddr>,
    /// The kubelet's version that its image promises.
    pub kubelet: Option<String>,
    /// How long its credential lives.
    pub lifetime: Lifetime,
    /// What people had given its Node, as it was seen last. Used when there is no Node to read it from any more.
    pub marks: Option<Marks>,
    /// The UID of the Node that showed them.
    pub uid: String,
}

/// Who knows the hosts that join.
pub trait Members: Send + Sync + fmt::Debug + 'static {
    /// A host; `None`: its Node is not known, and nothing is done for it.
    fn member(&self, host: HostId) -> Option<Member>;
}

/// How hosts join one cluster.
#[derive(Debug, Clone)]
pub struct Way {
    /// What its distribution wants.
    pub driver: Driver,
    /// `host:port` of its API, as hosts reach it.
    pub endpoint: String,
    /// The certificates of its authority, DER.
    pub authorities: Vec<Vec<u8>>,
}

/// The drivers of all clusters.
#[derive(Debug)]
pub struct Drivers<M> {
    /// By cluster; one that is not there has no driver.
    pub ways: BTreeMap<ClusterId, Way>,
    /// The hosts.
    pub members: M,
    /// The secrets that this process has made: the same that the files of the first boot are made with.
    pub secrets: Arc<Secrets>,
    /// Where the records are.
    pub records: PathBuf,
    /// Two calls about one record at once would not see each other's writes.
    pub one: tokio::sync::Mutex<()>,
}

/// The job under which the rejoin of an incident is recorded: the step machine's calls and the files of the first boot must
/// name the same one.
///
/// # Errors
/// Never: `incident-` and a number are a name.
pub fn job_of(incident: IncidentId) -> Result<Name, NoName> {
    format!("incident-{}", incident.0).parse()
}

/// Whether a job is one of an incident, and so the step machine's: [`job_of`] names it, or its install is called so.
#[must_use]
pub fn is_of_incident(job: &Name) -> bool {
    let number = job.as_str().strip_prefix("incident-");
    number.is_some_and(|number| number.parse::<u64>().is_ok()) || incident_of(job).is_some()
}

impl<M: Members> Drivers<M> {
    async fn call(&self, client: kube::Client, joining: Joining<'_>, call: ClusterCall) -> Option<Reply> {
        let way = self.ways.get(&joining.cluster)?;
        let Some(member) = self.members.member(joining.joins()) else {
            tracing::warn!(host = joining.joins().0, "the Node of a host that is to join is not known: register it");
            return None;
        };
        let _one = self.one.lock().await;
        if matches!(call, ClusterCall::RestoreLabels | ClusterCall::DeleteCredential)
            && !self.joined_anew(joining, &member)
        {
            // The step machine orders it when the labels are restored, and never before.
            if call == ClusterCall::DeleteCredential
                && let Err(error) = self.settle(&member.node)
            {
                tracing::error!(node = %member.node, %error, "that its Node has back what was owed is not recorded");
            }
            return None;
        }
        let answered = self.ask(client, joining, call, way, &member).await;
        answered.unwrap_or_else(|error| {
            tracing::error!(node = %member.node, ?call, %error, "the rejoin stops");
            Some(Reply::ApiRefused)
        })
    }

    /// The files that make a host join at its first boot, with the credential of the incident in which it is installed.
    ///
    /// # Errors
    /// It is not registered, has no address, its old identity is not gone yet, or the cluster does not make the credential.
    pub async fn first_boot(
        &self,
        client: kube::Client,
        (cluster, host, incident): (ClusterId, HostId, IncidentId),
        plan: &PlanOfAll,
    ) -> Result<Vec<FirstBootFile>, StepError> {
        let way = self.ways.get(&cluster).ok_or_else(|| super::stop("its cluster has no driver"))?;
        let member = self.members.member(host).ok_or_else(|| super::stop("the register does not know its Node"))?;
        let address = *member.addresses.first().ok_or_else(|| {
            super::stop(format!(
                "{} has no `address` in the register: its certificate would be for any, so it is made for none",
                member.node
            ))
        })?;
        let _one = self.one.lock().await;
        let cluster = Cluster::new(client, &way.endpoint, way.authorities.clone())?;
        let job = job_of(incident).map_err(|error| super::stop(error.to_string()))?;
        let mut record = Record::open(&self.records, &member.node, &job)?;
        let mut rejoin = Rejoin { cluster: &cluster, driver: &way.driver, record: &mut record, secrets: &self.secrets };
        let token = rejoin.credential(member.lifetime, Timestamp::now()).await?;
        let plan = JoinPlan { address, endpoint: plan.endpoint.clone(), options: plan.options.clone() };
        Ok(rejoin.first_boot(&plan, &token)?.files)
    }

    /// Whether this incident took the host's old identity away. One that was only power-cycled comes back as the Node that it was:
    /// there is nothing of a rejoin to be verified, and nothing to be recorded.
    fn joined_anew(&self, joining: Joining<'_>, member: &Member) -> bool {
        match record::look(&self.records, &member.node) {
            Ok(content) => content
                .is_some_and(|content| content.removed && job_of(joining.incident).is_ok_and(|job| job == content.job)),
            // What cannot be read is told by whoever opens it.
            Err(_) => true,
        }
    }

    /// The cluster client has put back what was owed to this Node, by whichever incident: from here on a person may take it away.
    fn settle(&self, node: &NodeName) -> Result<(), StepError> {
        // Annotations and a person's cordon are given back by a join alone: while there are any, they stay owed.
        let all_given = |marks: &Marks| marks.annotations.is_empty() && !marks.cordoned;
        let owing = record::look(&self.records, node)?.filter(|content| content.owed_marks().is_some_and(all_given));
        let Some(content) = owing else { return Ok(()) };
        let Some(mut record) = Record::existing(&self.records, node, &content.job)? else { return Ok(()) };
        record.change(|content| {
            content.owed = false;
            // A join whose removal was never complete is not over: it may yet remove the Node that has it all again.
            content.restored = content.removed;
        })
    }

    async fn ask(
        &self,
        client: kube::Client,
        joining: Joining<'_>,
        call: ClusterCall,
        way: &Way,
        member: &Member,
    ) -> Result<Option<Reply>, StepError> {
        let cluster = Cluster::new(client, &way.endpoint, way.authorities.clone())?;
        let job = job_of(joining.incident).map_err(|error| super::stop(error.to_string()))?;
        let mut record = Record::open(&self.records, &member.node, &job)?;
        let mut rejoin = Rejoin { cluster: &cluster, driver: &way.driver, record: &mut record, secrets: &self.secrets };
        if call == ClusterCall::DeleteNode {
            rejoin.save_or(member.marks.as_ref()).await?;
        }
        let around = Around {
            // Its member is removed through the cluster client's own access to etcd.
            etcd: None,
            addresses: &member.addresses,
            kubelet: member.kubelet.as_deref(),
            lifetime: member.lifetime,
            now: Timestamp::now(),
        };
        Ok(rejoin.answer(call, around).await)
    }
}

impl<M: Members> rejoin_port::Rejoin for Drivers<M> {
    fn answer<'a>(&'a self, client: kube::Client, joining: Joining<'a>, call: ClusterCall) -> Replying<'a> {
        Box::pin(self.call(client, joining, call))
    }

    fn recorded(&self, host: HostId) -> Option<NodeFacts> {
        let member = self.members.member(host)?;
        let content = match record::look(&self.records, &member.node) {
            Ok(content) => content,
            Err(error) => {
                tracing::error!(node = %member.node, %error, "what its Node had is not known");
                None
            }
        };
        // A record is kept for ever: it counts while the Node that it tells of is gone and no other was given what that one had.
        let owed = content.as_ref().and_then(Content::owed_marks).cloned();
        let (marks, uid) = match owed {
            Some(marks) => (marks, String::new()),
            None => (member.marks?, member.uid),
        };
        Some(NodeFacts {
            machine: None,
            labels: marks.labels,
            taints: marks.taints,
            addresses: member.addresses.into_iter().collect(),
            uid,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Rejoin as _;

    const HOST: HostId = HostId(7);

    /// The register knows one host.
    #[derive(Debug)]
    struct One(Member);

    impl Members for One {
        fn member(&self, _: HostId) -> Option<Member> {
            Some(self.0.clone())
        }
    }

    fn marked(pool: &str) -> Marks {
        Marks { labels: [("pool".to_owned(), pool.to_owned())].into(), ..Marks::default() }
    }

    #[test]
    fn what_a_node_had_is_told_while_it_is_gone_and_no_other_has_it() {
        let folder = std::env::temp_dir().join(format!("rackmedic-port-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let node: NodeName = "n1".parse().unwrap();
        let member = Member {
            node: node.clone(),
            addresses: BTreeSet::new(),
            kubelet: None,
            lifetime: Lifetime::USUAL,
            marks: Some(marked("today")),
            uid: "stands".to_owned(),
        };
        let drivers = Drivers {
            ways: BTreeMap::new(),
            members: One(member),
            secrets: Arc::new(Secrets::default()),
            records: folder.clone(),
            one: tokio::sync::Mutex::default(),
        };
        let told = || {
            let facts = drivers.recorded(HOST).unwrap();
            (facts.labels["pool"].clone(), facts.uid)
        };
        let (today, before) = (("today".to_owned(), "stands".to_owned()), ("before".to_owned(), String::new()));
        assert_eq!(told(), today);
        // Given a job that read the Node, then nothing of it is owed
        let mut record = Record::open(&folder, &node, &job_of(IncidentId(1)).unwrap()).unwrap();
        record.change(|content| (content.marks, content.saved) = (Some(marked("before")), true)).unwrap();
        assert_eq!(told(), today);
        // When the Node is gone, then it is, until the join gave it back
        record.change(|content| (content.gone, content.owed) = (true, true)).unwrap();
        assert_eq!(told(), before);
        record.change(|content| content.removed = true).unwrap();
        assert_eq!(told(), before);
        record.change(|content| content.restored = true).unwrap();
        assert_eq!(told(), today);
        // Or until a later return to service did
        record.change(|content| content.restored = false).unwrap();
        assert_eq!(told(), before);
        drivers.settle(&node).unwrap();
        assert_eq!(told(), today);
        // Also before all that bore its name was gone
        record.change(|content| content.removed = false).unwrap();
        assert_eq!(told(), before);
        drivers.settle(&node).unwrap();
        assert_eq!(told(), today);
        assert!(!record::look(&folder, &node).unwrap().unwrap().restored);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn the_jobs_of_incidents_are_told_from_those_of_people() {
        let is = |name: &str| is_of_incident(&name.parse().unwrap());
        assert!(is(job_of(IncidentId(41)).unwrap().as_str()) && is("heal-41-2"));
        assert!(!is("incident-report") && !is("heal-n1") && !is("n1-2026"));
    }
}
