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
use super::record::{self, Record};
use super::source::{JoinFiles, Joiner, Joiners};
use super::{Progress, Rejoin, StepError, stop};
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
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often hosts that are to come back are looked for.
const LOOK: Duration = Duration::from_secs(3);
/// A credential that has run out opens nothing; it is deleted a little later, when nobody can be in the middle of a join.
const GRACE: SignedDuration = SignedDuration::from_mins(5);

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

    /// Follows the hosts that were given a credential until they are back or it has run out.
    pub async fn follow(&self, stop: CancellationToken) {
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
            for (node, job) in open {
                if let Err(error) = self.follow_one(&node, &job).await {
                    tracing::warn!(%node, %job, %error, "a host that is to come back");
                }
            }
        }
    }

    async fn follow_one(&self, node: &NodeName, job: &Name) -> Result<(), StepError> {
        let _one = self.files.one.lock().await;
        let mut record = Record::open(&self.files.records, node, job)?;
        let Some(token) = record.content().token.clone().filter(|_| !record.content().credential_deleted) else {
            return Ok(());
        };
        let mut rejoin = self.rejoin(&mut record);
        let now = Timestamp::now();
        if now.duration_since(token.until) > GRACE {
            rejoin.delete_credential().await?;
            tracing::error!(%node, %job, "it was not back before its credential ran out: look at its console, then begin another job");
            return Ok(());
        }
        // A host that its configuration has forgotten meanwhile is not approved for whatever address it has.
        let Ok(Some(host)) = self.files.joiners.hosts.host(job) else { return Ok(()) };
        let addresses: BTreeSet<IpAddr> = [host.address].into();
        let lifetime = self.files.joiners.plan.lifetime;
        let around = Around { etcd: None, addresses: &addresses, kubelet: host.kubelet.as_deref(), lifetime, now };
        if rejoin.answer(ClusterCall::RestoreLabels, around).await == Some(Reply::Ok) {
            rejoin.delete_credential().await?;
            tracing::info!(%node, %job, "it has joined: Ready in a new boot, marks given back, credential deleted");
        }
        Ok(())
    }
}
