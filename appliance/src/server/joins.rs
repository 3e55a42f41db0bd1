//! How hosts join their clusters again: the drivers of distributions, with the register as the source of who joins.

use super::registrar::Registrar;
use super::{Joins, JoinsBy};
use crate::act::installs::{card_of, incident_of};
use crate::boot::config::JoinConfig;
use crate::boot::installer_api::FirstBootSource;
use crate::boot::serve::{host_and_port, jobs_folder};
use crate::cluster::client::{Access, ClientError};
use crate::cluster::{ClusterConfig, NameTable};
use crate::rejoin::alone::PlanOfAll;
use crate::rejoin::credential::{Lifetime, Secrets};
use crate::rejoin::port::{Drivers, Member, Members, Way};
use crate::rejoin::record::Marks;
use healing::id::{ClusterId, HostId};
use protocol::install::FirstBoot;
use protocol::name::Name;
use pxe::mac::Mac;
use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

/// The folder of rejoin records inside the data folder of the boot servers.
const RECORDS: &str = "joins";

/// Why no driver can be plugged in.
#[derive(Debug, thiserror::Error)]
pub enum NoDriver {
    /// Its cluster is not one of the configuration.
    #[error(
        "[join] of the boot servers: {0}; no host would join again, so nothing was started. \
         Name the cluster there with `cluster = \"…\"`, as a [[cluster]] of rackmedic.toml has it"
    )]
    Cluster(String),
    /// The way to it.
    #[error("[join] of the boot servers: {0}")]
    Access(#[from] ClientError),
    /// Its kubeconfig names no address.
    #[error(
        "[join] of the boot servers: {0} is no address of an API server: write `https://host:port` into the kubeconfig"
    )]
    Address(String),
}

/// The driver that the configuration of the boot servers names, for [`super::Setup::rejoin`].
///
/// # Errors
/// Its cluster is not configured, or the credentials in its kubeconfig cannot be read.
pub async fn plugged(join: &JoinConfig, clusters: &[ClusterConfig], data_dir: &Path) -> Result<JoinsBy, NoDriver> {
    let cluster = chosen(join.cluster.as_deref(), clusters).map_err(NoDriver::Cluster)?;
    let access = Access::of_kubeconfig(&join.kubeconfig).await?;
    let url = access.own_address().unwrap_or_default();
    let client = access.client(&url)?;
    let endpoint = host_and_port(&url).ok_or(NoDriver::Address(url))?;
    let way = Way { driver: join.driver.clone(), endpoint, authorities: access.authorities() };
    let (records, jobs, plan) = (data_dir.join(RECORDS), jobs_folder(data_dir), join.plan.clone());
    Ok(Box::new(move |registrar, names| {
        let drivers = Arc::new(Drivers {
            ways: [(cluster, way)].into(),
            members: Registered { registrar: Arc::clone(&registrar), names, lifetime: plan.lifetime },
            secrets: Arc::new(Secrets::default()),
            records,
            one: tokio::sync::Mutex::default(),
        });
        let files = JoinFiles { drivers: Arc::clone(&drivers), registrar, client, cluster, plan, jobs };
        Joins { rejoin: drivers, first_boot: Some(Arc::new(files)) }
    }))
}

/// The files that make a host join that the step machine has installed.
struct JoinFiles {
    drivers: Arc<Drivers<Registered>>,
    registrar: Arc<Registrar>,
    client: kube::Client,
    cluster: ClusterId,
    plan: PlanOfAll,
    jobs: PathBuf,
}

impl JoinFiles {
    async fn of(&self, job: &Name) -> Result<FirstBoot, String> {
        // A job that was opened by hand joins as its own words say.
        let Some(incident) = incident_of(job) else { return Ok(FirstBoot { files: Vec::new() }) };
        let card = card_of(&self.jobs, job).ok_or("the record of the job cannot be read")?;
        let book = self.registrar.book();
        let has = |mac: &String| mac.parse::<Mac>().ok().is_some_and(|mac| card.parse() == Ok(mac));
        let host = book.hosts.values().find(|host| host.entry.macs.first().is_some_and(has));
        let host = HostId(host.ok_or_else(|| format!("the register has no host whose card is {card}"))?.id);
        let made = self.drivers.first_boot(self.client.clone(), (self.cluster, host, incident), &self.plan).await;
        made.map(|files| FirstBoot { files }).map_err(|error| format!("the host cannot be made to join: {error}"))
    }
}

impl FirstBootSource for JoinFiles {
    fn files<'a>(&'a self, job: &'a Name) -> Pin<Box<dyn Future<Output = Result<FirstBoot, String>> + Send + 'a>> {
        Box::pin(self.of(job))
    }
}

/// The cluster that is meant: by its name, or the only one.
fn chosen(name: Option<&str>, clusters: &[ClusterConfig]) -> Result<ClusterId, String> {
    match (name, clusters) {
        (Some(name), all) => {
            let found = all.iter().find(|cluster| cluster.name == name);
            found.map(ClusterConfig::id).ok_or_else(|| format!("`{name}` is the name of no [[cluster]]"))
        }
        (None, [only]) => Ok(only.id()),
        (None, all) => Err(format!("it is not said which of {} clusters hosts join", all.len())),
    }
}

/// The register, with what Nodes showed, as the source of members.
#[derive(Debug)]
struct Registered {
    registrar: Arc<Registrar>,
    names: Arc<NameTable>,
    lifetime: Lifetime,
}

impl Members for Registered {
    fn member(&self, host: HostId) -> Option<Member> {
        let book = self.registrar.book();
        let entry = book.host(host)?;
        let node = entry.node().parse().ok()?;
        let facts = self.names.facts(host);
        let uid = facts.as_ref().map(|facts| facts.uid.clone()).unwrap_or_default();
        let marks = facts.map(|facts| Marks {
            labels: facts.labels,
            annotations: BTreeMap::new(),
            taints: facts.taints,
            cordoned: false,
        });
        let addresses = entry.address.map(IpAddr::V4).into_iter().collect();
        Some(Member { node, addresses, kubelet: None, lifetime: self.lifetime, marks, uid })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(id: u16, name: &str) -> ClusterConfig {
        serde_json::from_value(serde_json::json!({ "id": id, "name": name })).unwrap()
    }

    #[test]
    fn the_cluster_is_named_or_the_only_one() {
        let (one, two) = (cluster(3, "prod"), cluster(4, "lab"));
        assert_eq!(chosen(None, std::slice::from_ref(&one)), Ok(ClusterId(3)));
        assert_eq!(chosen(Some("lab"), &[one.clone(), two.clone()]), Ok(ClusterId(4)));
        assert!(chosen(None, &[one.clone(), two]).unwrap_err().contains("which of 2"));
        assert!(chosen(Some("other"), &[one]).unwrap_err().contains("`other`"));
    }
}
