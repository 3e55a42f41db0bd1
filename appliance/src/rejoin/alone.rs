//! Joining without the healing server: the boot servers alone make a host that they installed join again. What the step
//! machine orders elsewhere happens here by itself, one host after the other: the old identity goes when the image is
//! verified on the disk, the credential is made, and when the host is back its marks are given back and the credential is
//! deleted.
//!
//! That the old system does not run is proven here by the installer: it runs on the host's own card, and has rewritten its disk.

use super::calls::Around;
use super::cluster::Cluster;
use super::credential::{Lifetime, Secrets};
use super::driver::Driver;
use super::first_boot::JoinPlan;
use super::names::NodeName;
use super::record::{self, Record};
use super::{Progress, Rejoin, StepError, stop};
use crate::boot::installer_api::FirstBootSource;
use healing::command::{ClusterCall, Reply};
use jiff::{SignedDuration, Timestamp};
use protocol::install::FirstBoot;
use protocol::name::Name;
use std::collections::BTreeSet;
use std::future::Future;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often hosts that are to come back are looked for.
const LOOK: Duration = Duration::from_secs(3);
/// A credential that has run out opens nothing; it is deleted a little later, when nobody can be in the middle of a join.
const GRACE: SignedDuration = SignedDuration::from_mins(5);

/// Joins hosts that nobody else lets join.
pub struct Alone {
    /// The job's own files.
    pub given: Arc<dyn FirstBootSource>,
    /// Which Node a job's host is, and its address.
    pub hosts: Arc<dyn JoiningHosts>,
    /// The cluster.
    pub cluster: Cluster,
    /// What its distribution wants.
    pub driver: Driver,
    /// What is to be known to join, but for the address.
    pub plan: PlanOfAll,
    /// The secrets that this process has made.
    pub secrets: Arc<Secrets>,
    /// Where the records are.
    pub records: PathBuf,
    /// Two that work on one record at once would not see each other's writes.
    pub one: tokio::sync::Mutex<()>,
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

impl std::fmt::Debug for Alone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Alone({:?}, {})", self.cluster, self.driver.name)
    }
}

impl FirstBootSource for Alone {
    fn files<'a>(&'a self, job: &'a Name) -> Pin<Box<dyn Future<Output = Result<FirstBoot, String>> + Send + 'a>> {
        Box::pin(async move {
            let mut all = self.given.files(job).await?;
            if let Some(host) = self.hosts.host(job)? {
                let made = self.join(job, &host).await;
                let made = made.map_err(|error| format!("the host cannot be made to join: {error}"))?;
                all.files.extend(made.files);
            }
            Ok(all)
        })
    }
}

impl Alone {
    /// Frees the name, makes the credential, and makes the files. An installer that asks twice is given the same.
    async fn join(&self, job: &Name, host: &JoiningHost) -> Result<FirstBoot, StepError> {
        let _one = self.one.lock().await;
        let mut record = Record::open(&self.records, &host.node, job)?;
        let (cluster, driver, secrets) = (&self.cluster, &self.driver, &*self.secrets);
        let mut rejoin = Rejoin { cluster, driver, record: &mut record, secrets };
        rejoin.save().await?;
        if let Progress::NotYet(what) = rejoin.remove_identity().await? {
            return Err(stop(format!("its old identity is not gone yet: {what}")));
        }
        let token = rejoin.credential(self.plan.lifetime, Timestamp::now()).await?;
        let plan = JoinPlan {
            address: host.address,
            endpoint: self.plan.endpoint.clone(),
            options: self.plan.options.clone(),
        };
        rejoin.first_boot(&plan, &token)
    }

    /// Follows the hosts that were given a credential until they are back or it has run out.
    pub async fn follow(&self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let open = match record::all(&self.records) {
                Ok(all) => all,
                Err(error) => {
                    tracing::error!(%error, "hosts that are to come back cannot be followed");
                    continue;
                }
            };
            for (node, job) in open {
                if let Err(error) = self.follow_one(&node, &job).await {
                    tracing::warn!(%node, %job, %error, "a host that is to come back");
                }
            }
        }
    }

    async fn follow_one(&self, node: &NodeName, job: &Name) -> Result<(), StepError> {
        let _one = self.one.lock().await;
        let mut record = Record::open(&self.records, node, job)?;
        let Some(token) = record.content().token.clone().filter(|_| !record.content().credential_deleted) else {
            return Ok(());
        };
        let (cluster, driver, secrets) = (&self.cluster, &self.driver, &*self.secrets);
        let mut rejoin = Rejoin { cluster, driver, record: &mut record, secrets };
        let now = Timestamp::now();
        if now.duration_since(token.until) > GRACE {
            rejoin.delete_credential().await?;
            tracing::error!(%node, %job, "it was not back before its credential ran out: look at its console, then begin another job");
            return Ok(());
        }
        // A host that its configuration has forgotten meanwhile is not approved for whatever address it has.
        let Ok(Some(host)) = self.hosts.host(job) else { return Ok(()) };
        let addresses: BTreeSet<IpAddr> = [host.address].into();
        let lifetime = self.plan.lifetime;
        let around = Around { etcd: None, addresses: &addresses, kubelet: host.kubelet.as_deref(), lifetime, now };
        if rejoin.answer(ClusterCall::RestoreLabels, around).await == Some(Reply::Ok) {
            rejoin.delete_credential().await?;
            tracing::info!(%node, %job, "it has joined: Ready in a new boot, marks given back, credential deleted");
        }
        Ok(())
    }
}
