//! Joining without the healing server: the boot servers alone make a host that they installed join again. What the step
//! machine orders elsewhere happens here by itself, one host after the other: the old identity goes when the image is
//! verified on the disk, the credential is made, and when the host is back its marks are given back and the credential is
//! deleted.
//!
//! That the old system does not run is proven here by the installer: it runs on the host's own card, and has rewritten its disk.

use super::calls::Around;
use super::credential::Lifetime;
use super::first_boot::JoinPlan;
use super::names::NodeName;
use super::record::{self, Content, Record};
use super::source::{JoinFiles, Joiner, Joiners};
use super::{Progress, Rejoin, StepError, port, stop};
use crate::boot::installer_api::FirstBootSource;
use healing::command::{ClusterCall, Reply};
use jiff::{SignedDuration, Timestamp};
use protocol::install::FirstBoot;
use protocol::name::Name;
use std::collections::BTreeSet;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How often hosts that are to come back are looked for.
const LOOK: Duration = Duration::from_secs(3);
/// A credential that has run out opens nothing; it is deleted a little later, when nobody can be in the middle of a join.
const GRACE: SignedDuration = SignedDuration::from_mins(5);
/// How long after the end of its credential a host is still looked for: it may have joined in time and be Ready late, for
/// want of its cluster's network.
const FOLLOWED: SignedDuration = SignedDuration::from_hours(24);
/// How often such a host is looked for.
const LATE_LOOK: Duration = Duration::from_secs(60);

/// Joins hosts that nobody else lets join.
pub struct Alone {
    /// Makes credential and files when the name is free. Its lock is taken for every work on a record: two at once would
    /// not see each other's writes.
    pub files: JoinFiles<Planned>,
}

/// The hosts with what is the same for all of them.
pub struct Planned {
    /// Which Node a job's host is, and its address.
    pub hosts: Arc<dyn JoiningHosts>,
    /// What is to be known to join, but for the address.
    pub plan: PlanOfAll,
}

impl Joiners for Planned {
    fn joiner(&self, job: &Name) -> Option<Joiner> {
        let host = self.hosts.host(job).ok()??;
        let (endpoint, options) = (self.plan.endpoint.clone(), self.plan.options.clone());
        let plan = JoinPlan { address: host.address, endpoint, options };
        Some(Joiner { node: host.node, plan, lifetime: self.plan.lifetime })
    }
}

/// What is the same for all hosts.
#[derive(Clone)]
#[allow(missing_debug_implementations, reason = "options may be secrets")]
pub struct PlanOfAll {
    /// As [`JoinPlan::endpoint`].
    pub endpoint: Option<super::names::Endpoint>,
    /// As [`JoinPlan::options`].
    pub options: std::collections::BTreeMap<String, super::first_boot::OptionValue>,
    /// How long a credential lives.
    pub lifetime: Lifetime,
}

/// A job's host as it joins.
#[derive(Clone, Debug)]
pub struct JoiningHost {
    /// The name of its Node.
    pub node: NodeName,
    /// Its address.
    pub address: IpAddr,
    /// The kubelet's version that its image promises.
    pub kubelet: Option<String>,
}

/// Who knows which host a job is about.
pub trait JoiningHosts: Send + Sync {
    /// The host; `Ok(None)`: it joins nothing.
    ///
    /// # Errors
    /// It is to join, and cannot: in words.
    fn host(&self, job: &Name) -> Result<Option<JoiningHost>, String>;
}

impl std::fmt::Debug for Planned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Planned")
    }
}

impl std::fmt::Debug for Alone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Alone({:?})", self.files)
    }
}

impl FirstBootSource for Alone {
    fn files<'a>(&'a self, job: &'a Name) -> Pin<Box<dyn Future<Output = Result<FirstBoot, String>> + Send + 'a>> {
        Box::pin(async move {
            if let Some(host) = self.files.joiners.hosts.host(job)? {
                let freed = self.free_the_name(job, &host).await;
                freed.map_err(|error| format!("the host cannot be made to join: {error}"))?;
            }
            self.files.files(job).await
        })
    }
}

impl Alone {
    /// The joins that are made with these files.
    #[must_use]
    pub fn new(files: JoinFiles<Planned>) -> Self {
        Self { files }
    }

    fn rejoin<'a>(&'a self, record: &'a mut Record) -> Rejoin<'a> {
        let JoinFiles { cluster, driver, secrets, .. } = &self.files;
        Rejoin { cluster, driver, record, secrets }
    }

    /// Saves what people gave the old Node, and removes its identity.
    async fn free_the_name(&self, job: &Name, host: &JoiningHost) -> Result<(), StepError> {
        let _one = self.files.one.lock().await;
        let mut record = Record::open(&self.files.records, &host.node, job)?;
        let mut rejoin = self.rejoin(&mut record);
        rejoin.save().await?;
        match rejoin.remove_identity().await? {
            Progress::NotYet(what) => Err(stop(format!("its old identity is not gone yet: {what}"))),
            Progress::Done | Progress::AlreadySo => Ok(()),
        }
    }

    /// Follows the hosts that were given a credential: until it has run out, and those that are not back by then for a day more.
    pub async fn follow(&self, stop: CancellationToken) {
        let mut missing: BTreeSet<Name> = BTreeSet::new();
        let mut late_look: Option<Instant> = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let open = match record::all(&self.files.records) {
                Ok(all) => all,
                Err(error) => {
                    tracing::error!(%error, "hosts that are to come back cannot be followed");
                    continue;
                }
            };
            let late = late_look.is_none_or(|at| at.elapsed() >= LATE_LOOK);
            if late {
                late_look = Some(Instant::now());
            }
            missing.retain(|job| open.iter().any(|(_, open)| open == job));
            for (node, job) in open {
                if let Err(error) = self.follow_one(&node, &job, late, &mut missing).await {
                    tracing::warn!(%node, %job, %error, "a host that is to come back");
                }
            }
        }
    }

    /// Whether a job is one that was opened by hand. In `rackmedic serve` the records of incidents lie in the same folder: those
    /// are the step machine's, which knows how long a credential is to live and when a host is whole.
    fn is_own(&self, job: &Name) -> bool {
        !port::is_of_incident(job) || !matches!(self.files.joiners.hosts.host(job), Ok(None))
    }

    /// One look at one host. `late`: also at those whose credential is closed. `missing` are the jobs whose host was asked for
    /// and is not whole: it may lack no more than its certificate, which its record does not tell.
    async fn follow_one(
        &self,
        node: &NodeName,
        job: &Name,
        late: bool,
        missing: &mut BTreeSet<Name>,
    ) -> Result<(), StepError> {
        if !self.is_own(job) {
            return Ok(());
        }
        let _one = self.files.one.lock().await;
        // Not begun anew: another job may have begun for this host since the records were listed.
        let Some(mut record) = Record::existing(&self.files.records, node, job)? else { return Ok(()) };
        let now = Timestamp::now();
        let stands = standing(record.content(), missing.contains(job), now);
        let mut rejoin = self.rejoin(&mut record);
        match stands {
            Standing::Over => return Ok(()),
            Standing::Late if !late => return Ok(()),
            Standing::RunOut => {
                rejoin.delete_credential().await?;
                tracing::error!(%node, %job, "it was not back before its credential ran out: look at its console; what its Node had is given back if it is Ready within a day, else begin another job");
                return Ok(());
            }
            Standing::Awaited | Standing::Late => {}
        }
        // A host that its configuration has forgotten meanwhile is not approved for whatever address it has.
        let Ok(Some(host)) = self.files.joiners.hosts.host(job) else { return Ok(()) };
        let addresses: BTreeSet<IpAddr> = [host.address].into();
        let lifetime = self.files.joiners.plan.lifetime;
        let around = Around { etcd: None, addresses: &addresses, kubelet: host.kubelet.as_deref(), lifetime, now };
        if rejoin.answer(ClusterCall::RestoreLabels, around).await == Some(Reply::Ok) {
            missing.remove(job);
            rejoin.delete_credential().await?;
            tracing::info!(%node, %job, "it has joined: Ready in a new boot, marks given back, credential deleted");
        } else {
            missing.insert(job.clone());
        }
        Ok(())
    }
}

/// How far a host is that was given a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It is back, or was not within its time.
    Over,
    /// It is to come back.
    Awaited,
    /// It is not back, and its credential has run out.
    RunOut,
    /// Its credential is closed, and it is not whole.
    Late,
}

fn standing(content: &Content, missing: bool, now: Timestamp) -> Standing {
    let Some(token) = &content.token else { return Standing::Over };
    let over = now.duration_since(token.until);
    match content.credential_deleted {
        false if over > GRACE => Standing::RunOut,
        false => Standing::Awaited,
        true if over <= FOLLOWED && (missing || !content.restored) => Standing::Late,
        true => Standing::Over,
    }
}

#[cfg(test)]
mod tests {
    use super::super::credential::Secrets;
    use super::super::driver::Preset;
    use super::super::mock;
    use super::super::record::{Identity, Marks, TokenRecord};
    use super::*;
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};

    const NODE: &str = "/api/v1/nodes/n1";
    const SECRET: &str = "/api/v1/namespaces/kube-system/secrets/bootstrap-token-abcdef";

    /// The boot servers alone, with one job that was opened by hand.
    struct Scene {
        server: mock::Server,
        alone: Alone,
        folder: PathBuf,
    }

    struct ByHand;

    impl JoiningHosts for ByHand {
        fn host(&self, job: &Name) -> Result<Option<JoiningHost>, String> {
            let address = "10.0.0.7".parse().unwrap();
            let host = JoiningHost { node: "n1".parse().unwrap(), address, kubelet: None };
            Ok((job.as_str() == "by-hand").then_some(host))
        }
    }

    struct NoFiles;

    impl FirstBootSource for NoFiles {
        fn files<'a>(&'a self, _: &'a Name) -> Pin<Box<dyn Future<Output = Result<FirstBoot, String>> + Send + 'a>> {
            Box::pin(async { Ok(FirstBoot { files: Vec::new() }) })
        }
    }

    impl Scene {
        /// A driver that approves certificates, or one that need not.
        fn new(name: &str, preset: Preset) -> Scene {
            let folder = std::env::temp_dir().join(format!("rackmedic-alone-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&folder);
            let server = mock::Server::default();
            let plan = PlanOfAll { endpoint: None, options: BTreeMap::new(), lifetime: Lifetime::USUAL };
            let alone = Alone::new(JoinFiles {
                given: Arc::new(NoFiles),
                joiners: Planned { hosts: Arc::new(ByHand), plan },
                cluster: server.cluster(),
                driver: preset.driver().unwrap(),
                secrets: Arc::new(Secrets::default()),
                records: folder.clone(),
                one: tokio::sync::Mutex::default(),
            });
            Scene { server, alone, folder }
        }

        /// As [`ran_out`], and the credential is in the cluster.
        fn ran_out(&self, job: &str, minutes: i64) -> Record {
            self.server.put(SECRET, serde_json::json!({}));
            ran_out(&self.folder, job, minutes)
        }

        /// One look at whatever is recorded. Gives what the record says then.
        async fn look(&self, late: bool, missing: &mut BTreeSet<Name>) -> Content {
            for (node, job) in record::all(&self.folder).unwrap() {
                self.alone.follow_one(&node, &job, late, missing).await.unwrap();
            }
            record::look(&self.folder, &"n1".parse().unwrap()).unwrap().unwrap()
        }
    }

    impl Drop for Scene {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }

    /// A job whose host was given a credential that ran out so many minutes ago.
    fn ran_out(folder: &Path, job: &str, minutes: i64) -> Record {
        let until = Timestamp::now() - SignedDuration::from_mins(minutes);
        let token = TokenRecord { id: "abcdef".to_owned(), made: until, until, created: true, handed_out: true };
        let mut marks = Marks { cordoned: true, ..Marks::default() };
        marks.labels.insert("pool".to_owned(), "fast".to_owned());
        let mut record = Record::open(folder, &"n1".parse().unwrap(), &job.parse().unwrap()).unwrap();
        let change = record.change(|content| {
            content.old = Some(Identity { uid: "old".to_owned(), ..Identity::default() });
            (content.marks, content.token) = (Some(marks), Some(token));
            (content.saved, content.removed) = (true, true);
        });
        change.unwrap();
        record
    }

    #[tokio::test]
    async fn the_records_of_incidents_are_left_to_the_step_machine() {
        let scene = Scene::new("incident", Preset::K3s);
        scene.server.put(NODE, mock::node("n1", "new", "new", true));
        for job in ["incident-7", "heal-7-1"] {
            let record = scene.ran_out(job, 60);
            assert_eq!(&scene.look(true, &mut BTreeSet::new()).await, record.content(), "{job}");
        }
        assert!(scene.server.get(SECRET).is_some());
        // One that was opened by hand is closed
        scene.ran_out("by-hand", 60);
        assert!(scene.look(true, &mut BTreeSet::new()).await.credential_deleted);
        assert!(scene.server.get(SECRET).is_none());
    }

    #[tokio::test]
    async fn a_host_that_is_ready_late_gets_back_what_it_had() {
        let scene = Scene::new("late", Preset::K3s);
        let mut missing = BTreeSet::new();
        scene.server.put(NODE, mock::node("n1", "new", "new", false));
        // Given a host that joined in time and is not Ready when its credential is closed
        scene.ran_out("by-hand", 6);
        let content = scene.look(true, &mut missing).await;
        assert!(content.credential_deleted && !content.restored);
        assert!(!scene.look(true, &mut missing).await.restored);
        // When it is Ready, then it is seen at the next look at such hosts
        scene.server.put(NODE, mock::node("n1", "new", "new", true));
        assert!(!scene.look(false, &mut missing).await.restored);
        assert!(scene.look(true, &mut missing).await.restored);
        let node = scene.server.get(NODE).unwrap();
        assert_eq!(node["metadata"]["labels"]["pool"], "fast");
        assert_eq!(node["spec"]["unschedulable"], true);
        assert!(missing.is_empty());
    }

    #[tokio::test]
    async fn a_host_that_lacks_only_its_certificate_is_looked_for_further() {
        let scene = Scene::new("certificate", Preset::Kubeadm);
        let mut missing = BTreeSet::new();
        scene.server.put(NODE, mock::node("n1", "new", "new", true));
        let mut record = scene.ran_out("by-hand", 6);
        record.change(|content| content.credential_deleted = true).unwrap();
        let content = scene.look(true, &mut missing).await;
        assert!(content.restored && missing.contains(&content.job));
        assert_eq!(standing(&content, true, Timestamp::now()), Standing::Late);
    }

    #[test]
    fn a_host_is_looked_for_until_it_is_back_or_a_day_has_gone() {
        let folder = std::env::temp_dir().join(format!("rackmedic-alone-standing-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let mut record = ran_out(&folder, "by-hand", 0);
        let until = record.content().token.as_ref().unwrap().until;
        let at = |record: &Record, missing, minutes: i64| {
            standing(record.content(), missing, until + SignedDuration::from_mins(minutes))
        };
        let seen = [-10, 5, 6].map(|minutes| at(&record, false, minutes));
        assert_eq!(seen, [Standing::Awaited, Standing::Awaited, Standing::RunOut]);
        record.change(|content| content.credential_deleted = true).unwrap();
        let seen = [6, 1440, 1441].map(|minutes| at(&record, false, minutes));
        assert_eq!(seen, [Standing::Late, Standing::Late, Standing::Over]);
        record.change(|content| content.restored = true).unwrap();
        assert_eq!([false, true].map(|missing| at(&record, missing, 6)), [Standing::Over, Standing::Late]);
        record.change(|content| content.token = None).unwrap();
        assert_eq!(at(&record, true, 0), Standing::Over);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
