//! Everything that is emulated, started: rack, segment, cluster and its API, on real time and on loopback.

use super::api::authority::{Authority, NoAuthority};
use super::api::objects::Objects;
use super::api::server::{self, Gate, Reach, Shared};
use super::handover::{ControlPlane, HandedHost, HandedRole, Handover};
use super::kubernetes::{self, Cluster};
use super::layout;
use super::rack::{Host, NoRack, Rack, USER};
use super::segment::Segment;
use machine::Role;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Between two turns of the cluster's model.
const TURN: Duration = Duration::from_millis(250);

/// The emulated world.
#[derive(Debug)]
pub struct World {
    /// The machines and their BMCs.
    pub rack: Arc<Rack>,
    /// The network between them and us.
    pub segment: Segment,
    /// The objects of the cluster.
    pub objects: Arc<Objects>,
    /// What a server is told.
    pub handover: Handover,
}

/// Why there is no world.
#[derive(Debug, thiserror::Error)]
pub enum NoWorld {
    /// The rack.
    #[error(transparent)]
    Rack(#[from] NoRack),
    /// The authority.
    #[error(transparent)]
    Authority(#[from] NoAuthority),
    /// A port.
    #[error("the emulated Kubernetes API cannot listen on loopback: {0}")]
    Listen(io::Error),
    /// A file.
    #[error("{path} cannot be written: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl World {
    /// Starts it; its files go into a folder that nobody else reads.
    ///
    /// # Errors
    /// Sockets, certificates or files are not to be had.
    pub async fn start(hosts: u32, spares: u32, folder: &Path, stop: CancellationToken) -> Result<World, NoWorld> {
        let rack = Arc::new(Rack::start(layout::places(hosts, spares)).await?);
        let objects = Arc::new(Objects::default());
        let shared = Shared { objects: objects.clone(), authority: Arc::new(Authority::make()?), stop: stop.clone() };
        let mut control_planes = Vec::new();
        for (at, host) in rack.hosts.iter().enumerate().filter(|(_, host)| host.place.role == Role::ControlPlane) {
            let gate = gate_of(&rack, at);
            let address = server::serve(shared.clone(), gate, 0).await.map_err(NoWorld::Listen)?;
            control_planes.push(ControlPlane { node: host.place.name.clone(), api: format!("https://{address}") });
        }
        let behind = rack.clone();
        let gate: Gate = Arc::new(move || virtual_address(&behind));
        let vip = server::serve(shared.clone(), gate, 0).await.map_err(NoWorld::Listen)?;
        let kubeconfig = folder.join("kubeconfig");
        private(&kubeconfig, shared.authority.kubeconfig(vip).as_bytes())?;
        let password_file = folder.join("bmc-password");
        private(&password_file, rack.password.expose())?;
        let handover = Handover {
            kubeconfig,
            vip: format!("https://{vip}"),
            control_planes,
            password_file,
            user: USER.to_owned(),
            pin: rack.certificate.fingerprint().0.iter().map(|byte| format!("{byte:02x}")).collect(),
            wire: None,
            hosts: rack.hosts.iter().map(handed).collect(),
        };
        let mut cluster = Cluster::new(rack.clone(), objects.clone());
        let began = Instant::now();
        tokio::spawn(async move {
            let mut turn = tokio::time::interval(TURN);
            turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    _ = turn.tick() => {}
                }
                cluster.step(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
            }
        });
        let segment = Segment::new(rack.clone());
        Ok(World { rack, segment, objects, handover })
    }
}

fn gate_of(rack: &Arc<Rack>, at: usize) -> Gate {
    let rack = rack.clone();
    Arc::new(move || rack.hosts.get(at).map_or(Reach::Silent, |host| kubernetes::reach(&rack, host)))
}

/// The virtual address stands wherever a server serves.
fn virtual_address(rack: &Rack) -> Reach {
    let planes = rack.hosts.iter().filter(|host| host.place.role == Role::ControlPlane);
    let all: Vec<Reach> = planes.map(|host| kubernetes::reach(rack, host)).collect();
    let order = [Reach::Serves, Reach::NoStore, Reach::Refuses];
    order.into_iter().find(|reach| all.contains(reach)).unwrap_or(Reach::Silent)
}

fn handed(host: &Host) -> HandedHost {
    let place = &host.place;
    let bmc = if place.ipmi {
        format!("ipmi://{USER}@{}", host.emulator.ipmi())
    } else {
        format!("redfish://{USER}@{}", host.emulator.redfish())
    };
    HandedHost {
        id: place.id,
        name: place.name.clone(),
        role: match place.role {
            Role::Worker => HandedRole::Worker,
            Role::ControlPlane => HandedRole::ControlPlane,
            Role::Spare => HandedRole::Spare,
        },
        rack: place.rack,
        address: place.address,
        mac: place.mac.to_string(),
        machine: format!("{:032x}", place.identity),
        bmc,
    }
}

/// Writes a file that only its owner reads.
///
/// # Errors
/// It cannot be written.
pub fn private(path: &Path, bytes: &[u8]) -> Result<(), NoWorld> {
    use std::io::Write as _;
    let failed = |source| NoWorld::Write { path: path.to_owned(), source };
    let mut file =
        std::fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(bytes).map_err(failed)
}
