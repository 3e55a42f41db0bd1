//! The outside of a site: the one implementation of [`Ports`] that the server and the demo run on. What is not configured
//! refuses, and says so once in words where a person looks; nothing is made up.

use super::bmcs::Bmcs;
use super::installs::Installs;
use super::outlets::Outlets;
use super::{Asked, Ports};
use crate::cluster::{ClusterAsked, Clusters};
use crate::decide_loop::RunningTime;
use crate::watch::network::NetworkWatch;
use healing::command::{Call, Reply};
use std::sync::{Arc, OnceLock};

/// Everything that steps reach. The parts that need the loop's time are set once it runs: no step runs before.
#[derive(Debug, Default)]
pub struct Outside {
    /// The BMCs.
    pub bmcs: Arc<Bmcs>,
    /// The outlets.
    pub outlets: Arc<Outlets>,
    /// The clusters.
    pub clusters: OnceLock<Clusters>,
    /// The probers, one for each watched segment.
    pub networks: OnceLock<Vec<NetworkWatch>>,
    /// The boot tickets; not set where no boot servers are configured.
    pub installs: OnceLock<Installs>,
    /// The running time of the loop.
    pub time: OnceLock<RunningTime>,
}

/// The seam lets a driver own what the server also looks at.
impl Ports for Arc<Outside> {
    async fn call(&self, asked: &Asked<'_>) -> Option<Reply> {
        let may_leave = || asked.may_leave();
        match asked.call {
            Call::Bmc(host, call) => self.bmcs.call(host, call, self.time.get()?, &may_leave).await,
            Call::Cluster(call) => {
                let asked = ClusterAsked {
                    call,
                    target: asked.target,
                    incident: asked.incident,
                    intent: asked.intent,
                    began: asked.began,
                    may_leave: &may_leave,
                };
                match self.clusters.get() {
                    Some(clusters) => clusters.call(&asked).await,
                    None => Some(Reply::ApiSilent),
                }
            }
            Call::Probe => self.probe(asked).await,
            Call::OutletsOff | Call::OutletsOn | Call::ReadOutlets => {
                self.outlets.call(asked.target.host, asked.call, &may_leave).await
            }
            // No node agent exists yet that could be asked.
            Call::RestartComponent(_) => Some(Reply::AgentSilent),
            Call::OpenTicket(job) | Call::OpenProofTicket(job) => match self.installs.get() {
                Some(installs) if may_leave() => {
                    let proves = matches!(asked.call, Call::OpenProofTicket(_));
                    Some(installs.open_ticket(asked.target.host, job, proves).await)
                }
                Some(_) => None,
                None => {
                    tracing::warn!(
                        host = asked.target.host.0,
                        "no boot ticket: no boot servers are configured ([boot])"
                    );
                    Some(Reply::ApiRefused)
                }
            },
            Call::CloseTicket(job) => match self.installs.get() {
                Some(installs) => Some(installs.close_ticket(job).await),
                // Without boot servers none was ever opened.
                None => Some(Reply::Ok),
            },
        }
    }
}

impl Outside {
    /// The prober whose segment has the host looks at it.
    async fn probe(&self, asked: &Asked<'_>) -> Option<Reply> {
        for network in self.networks.get()? {
            if let Some((icmp, tcp)) = network.probe(asked.target.host).await {
                return Some(Reply::Probed { icmp, tcp });
            }
        }
        None
    }
}
