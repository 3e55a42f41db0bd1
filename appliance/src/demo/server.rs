//! The product's own server on the emulated rack: what the rack hands over, as its register, its clusters and its one
//! segment, under the lab's policy.

use super::cable::Cable;
use super::handover::{HandedHost, HandedRole, Handover};
use super::layout::{GATEWAY, NETWORK, REFERENCES, SECOND_PORT};
use crate::cluster::ClusterConfig;
use crate::decide_loop::Order;
use crate::server::resources::{
    BmcEntry, Consent, Declaration, DomainEntry, HostEntry, HostGiven, PoolEntry, RoleEntry,
};
use crate::server::segments::{ReferencePlace, Segment};
use crate::server::{self, NoServer, NobodyJoins, Server, Setup, book};
use crate::store::secret::OuterKey;
use crate::watch::prober::Marks;
use crate::watch::wire::WireError;
use bmc::poll::Pace;
use healing::event::Operator;
use healing::id::{ClusterId, MachineId};
use healing::policy::{Lab, Limits, Policy};
use healing::time::SECOND;
use std::path::Path;
use std::time::Duration;

/// The one cluster.
pub const CLUSTER: ClusterId = ClusterId(1);
/// Its name.
pub const CLUSTER_NAME: &str = "demo";

/// The lab's waits, as far as they are shorter than a site's: never the evidence, never the proof.
#[must_use]
pub fn limits() -> Limits {
    Limits {
        start_observe_ms: 5 * SECOND,
        soak_ms: 5 * SECOND,
        component_soak_ms: 5 * SECOND,
        boot_budget_ms: 60 * SECOND,
        cycle_spacing_ms: 5 * SECOND,
        domain_wait_ms: 60 * SECOND,
        pair_wait_ms: 30 * SECOND,
        freeze_clear_ms: 10 * SECOND,
        freeze_stable_ms: 60 * SECOND,
        after_freeze_ms: 10 * SECOND,
        ..Limits::default()
    }
}

/// The lab's policy, unless a file says otherwise.
///
/// # Errors
/// A number is beyond what even a lab may have.
pub fn policy() -> Result<Policy<Lab>, String> {
    Policy::check(limits()).map_err(|beyond| beyond.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

/// Starts the server on a rack, with its records in a folder, and arms the cluster.
///
/// # Errors
/// The journal, the cluster client or the configuration is not to be had.
pub async fn start(handover: &Handover, cable: Cable, folder: &Path) -> Result<Server, NoServer> {
    let setup = Setup {
        data_dir: folder.join("data"),
        key: OuterKey::file(&folder.join("key"))?,
        policy: policy().map_err(NoServer::Rack)?,
        kind: "lab",
        observe_only: false,
        clusters: vec![cluster(handover)?],
        segments: vec![segment(cable)],
        boot: None,
        rejoin: NobodyJoins::plugged(),
        pace: Pace { healthy: Duration::from_secs(15), ..Pace::default() },
        loopback_only: true,
    };
    let server = server::start(setup).await?;
    let appliance = &server.appliance;
    if appliance.inbox.views.hosts().is_empty() {
        appliance.apply(&declaration(handover)?).await?;
        let arm = Operator::Arm { cluster: CLUSTER, armed: true };
        appliance.inbox.submit(Order::Operator(arm)).await?;
    }
    Ok(server)
}

fn segment(cable: Cable) -> Segment {
    let failed = |source| WireError::System { interface: "the cable".to_owned(), doing: "opening it", source };
    Segment {
        network: NETWORK,
        gateway: Some(GATEWAY),
        references: REFERENCES.map(|address| ReferencePlace { address, domain: None }).to_vec(),
        marks: Marks::random(),
        open: Box::new(move || cable.open().map_err(failed)),
        // Frames lead there, this machine's kernel does not.
        connects: false,
    }
}

fn cluster(handover: &Handover) -> Result<ClusterConfig, NoServer> {
    let planes: Vec<_> =
        handover.control_planes.iter().map(|plane| serde_json::json!({"node": plane.node, "api": plane.api})).collect();
    let config = serde_json::json!({
        "id": CLUSTER.0, "name": CLUSTER_NAME, "kubeconfig": handover.kubeconfig, "vip": handover.vip,
        "control_plane": planes,
    });
    serde_json::from_value(config).map_err(|why| NoServer::Rack(why.to_string()))
}

/// The rack as somebody would declare it.
///
/// # Errors
/// The file with the BMCs' password cannot be read.
pub fn declaration(handover: &Handover) -> Result<Declaration, NoServer> {
    let password = std::fs::read_to_string(&handover.password_file)
        .map_err(|why| NoServer::Rack(format!("{}: {why}", handover.password_file.display())))?;
    let pools = ["workers", "control-plane", "spares"].map(|name| PoolEntry {
        name: name.to_owned(),
        soft_reboot: Consent::Ask,
        reimage: Consent::Never,
        replace: Consent::Never,
        runtime_restart: false,
        crash_dump_wait_s: 0,
        image: None,
    });
    let given = |host: &HandedHost| HostGiven {
        entry: entry(host, &handover.pin),
        bmc_password: Some(password.clone()),
        outlets_password: None,
    };
    Ok(Declaration { pools: pools.into(), hosts: handover.hosts.iter().map(given).collect(), dry_run: false })
}

fn entry(host: &HandedHost, pin: &str) -> HostEntry {
    let (role, pool) = match host.role {
        HandedRole::Worker => (RoleEntry::Worker, "workers"),
        HandedRole::ControlPlane => (RoleEntry::ControlPlane, "control-plane"),
        HandedRole::Spare => (RoleEntry::Spare, "spares"),
    };
    let pin = host.bmc.starts_with("redfish").then(|| format!("sha256:{pin}"));
    HostEntry {
        name: host.name.clone(),
        node: None,
        cluster: Some(CLUSTER_NAME.to_owned()),
        pool: pool.to_owned(),
        role,
        serial: None,
        uuid: Some(book::uuid(MachineId(host.identity()))),
        address: Some(host.address),
        macs: vec![host.mac.clone()],
        bmc: Some(BmcEntry { url: host.bmc.clone(), password_file: None, pin, system: None, ignore_chassis: false }),
        domains: [(DomainEntry::Rack, format!("rack-{}", host.rack))].into(),
        versions: Vec::new(),
        storage: None,
        disk: None,
        outlets: None,
        second_port: SECOND_PORT,
        is_self: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_waits_are_within_what_a_lab_may_have() {
        assert!(policy().is_ok());
    }
}
