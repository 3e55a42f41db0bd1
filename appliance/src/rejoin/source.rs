//! The files of the first boot for the installer: what was given with the job, and what makes its host join. The
//! installer asks when the image is verified on the disk, so that is when the credential is made.

use super::cluster::Cluster;
use super::credential::{Lifetime, Secrets};
use super::driver::Driver;
use super::first_boot::JoinPlan;
use super::names::NodeName;
use super::record::Record;
use super::{Rejoin, StepError};
use crate::boot::installer_api::FirstBootSource;
use jiff::Timestamp;
use protocol::install::{FirstBoot, FirstBootFile};
use protocol::name::Name;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

/// Which host a job is about.
#[derive(Clone)]
#[allow(missing_debug_implementations, reason = "options of the plan may be secrets")]
pub struct Joiner {
    /// Its Node's name.
    pub node: NodeName,
    /// What is to be known of it.
    pub plan: JoinPlan,
    /// How long its credential lives.
    pub lifetime: Lifetime,
}

/// Who knows which host a job is about; `None` = the job's host joins nothing.
pub trait Joiners: Send + Sync + 'static {
    /// The host of a job.
    fn joiner(&self, job: &Name) -> Option<Joiner>;
}

/// Gives the job's own files, then those of the join.
pub struct JoinFiles<J> {
    /// The files that were given with the job.
    pub given: Arc<dyn FirstBootSource>,
    /// Which host a job is about.
    pub joiners: J,
    /// The cluster.
    pub cluster: Cluster,
    /// What its distribution wants.
    pub driver: Driver,
    /// The secrets that this process has made.
    pub secrets: Arc<Secrets>,
    /// Where the records are.
    pub records: PathBuf,
    /// An installer that asks twice at once must not be given two credentials, of which the first is deleted.
    pub one: tokio::sync::Mutex<()>,
}

impl<J> std::fmt::Debug for JoinFiles<J> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "JoinFiles({:?}, {})", self.cluster, self.driver.name)
    }
}

impl<J: Joiners> JoinFiles<J> {
    async fn join(&self, job: &Name, joiner: &Joiner) -> Result<Vec<FirstBootFile>, StepError> {
        let _one = self.one.lock().await;
        let mut record = Record::open(&self.records, &joiner.node, job)?;
        let (cluster, driver, secrets) = (&self.cluster, &self.driver, &*self.secrets);
        let mut rejoin = Rejoin { cluster, driver, record: &mut record, secrets };
        let token = rejoin.credential(joiner.lifetime, Timestamp::now()).await?;
        Ok(rejoin.first_boot(&joiner.plan, &token)?.files)
    }
}

impl<J: Joiners> FirstBootSource for JoinFiles<J> {
    fn files<'a>(&'a self, job: &'a Name) -> Pin<Box<dyn Future<Output = Result<FirstBoot, String>> + Send + 'a>> {
        Box::pin(async move {
            let mut all = self.given.files(job).await?;
            if let Some(joiner) = self.joiners.joiner(job) {
                let made = self.join(job, &joiner).await;
                all.files.extend(made.map_err(|error| format!("the host cannot be made to join: {error}"))?);
            }
            Ok(all)
        })
    }
}
