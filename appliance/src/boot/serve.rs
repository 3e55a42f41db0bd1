//! The boot servers together: DHCP, TFTP and HTTP on each link, the installer's HTTPS, and the job files.

use super::config::{BootConfig, LinkConfig};
use super::identity::{Identity, IdentityError};
use super::installer_api::{FirstBootSource, GivenFiles, InstallerApi};
use super::job::State;
use super::jobs::{JobError, Jobs};
use super::logbook::Logbook;
use super::shelf::{Memory, Ports, Shelf};
use super::stock::{ServedSet, StockError};
use super::{clock, dhcp_thread};
use protocol::install::{Failure, FailureCode, InstallStage};
use protocol::name::Name;
use pxe::dhcp::decide::{Answerer, Loaders};
use pxe::dhcp::lease_file::LeaseFile;
use pxe::dhcp::server::{Around, DhcpServer, Link, ServeError};
use pxe::gate::{Refusal, Tickets as _};
use pxe::http::server::{HttpServer, Limits as HttpLimits};
use pxe::peers::Peers;
use pxe::recorder::event::BootEvent;
use pxe::tftp::packet::{LARGEST_BLOCK_BYTES, USUAL_BLOCK_BYTES};
use pxe::tftp::server::{Limits as TftpLimits, TftpServer};
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Where hosts look for TFTP (RFC 1350); no option of DHCP names another port.
const TFTP_PORT: u16 = 69;
/// How often the folder of jobs is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Why the boot servers do not run.
#[derive(Debug, thiserror::Error)]
pub enum BootServeError {
    /// The data folder.
    #[error("the data folder {path}: {source}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// What the file system says.
        source: io::Error,
    },
    /// The jobs.
    #[error(transparent)]
    Jobs(#[from] JobError),
    /// The store.
    #[error(transparent)]
    Stock(#[from] StockError),
    /// The key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A socket of DHCP or an interface.
    #[error(transparent)]
    Link(#[from] ServeError),
    /// The thread of DHCP.
    #[error("the thread that answers DHCP: {source}")]
    Thread {
        /// What the kernel says.
        source: io::Error,
    },
    /// A socket of TFTP, HTTP or the installer's HTTPS.
    #[error("{what} on {address}: {source}")]
    Socket {
        /// Which server.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// What the kernel says.
        source: io::Error,
    },
}

/// The folder of jobs inside the data folder.
#[must_use]
pub fn jobs_folder(data_dir: &Path) -> PathBuf {
    data_dir.join("jobs")
}

/// Opens everything and serves until it is cancelled. `ready` is called when every socket is open.
///
/// # Errors
/// Why it cannot serve, or can no longer.
pub async fn serve(
    config: BootConfig,
    stop: CancellationToken,
    ready: impl FnOnce(&[Link]),
) -> Result<(), BootServeError> {
    let folder = jobs_folder(&config.data_dir);
    std::fs::create_dir_all(&folder).map_err(|source| BootServeError::Folder { path: folder.clone(), source })?;
    let logbook = Logbook::new(&folder);
    let recorder = Arc::new(logbook.recorder());
    let jobs = Arc::new(Jobs::open(&folder, config.ways.clone())?);
    for job in jobs.all().iter().filter(|job| job.is_open()) {
        logbook.restore(&job.name, &recorder);
    }
    let set = ServedSet::open(&config.store, &config.boot_set, &config.trusted_keys)?;
    let links =
        config.links.iter().map(|link| Link::find(&link.interface, link.address)).collect::<Result<Vec<_>, _>>()?;
    let ports: HashMap<Ipv4Addr, Ports> = config
        .links
        .iter()
        .zip(&links)
        .map(|(config, link)| {
            let configured = config.scope.subnets.iter().map(|subnet| (subnet.network, subnet.prefix, subnet.router));
            let networks = configured.chain([(link.local, link.prefix, None)]).collect();
            (link.local, Ports { http: config.http_port, installer: config.installer_port, networks })
        })
        .collect();
    let shelf = Arc::new(Shelf {
        jobs: Arc::clone(&jobs),
        recorder: Arc::clone(&recorder),
        peers: Arc::new(Peers::default()),
        set,
        store: config.store.clone(),
        trusted: config.trusted_keys.clone(),
        kernel_arguments: config.kernel_arguments.clone(),
        identity: Identity::open(&config.data_dir)?,
        ports,
        memory: Memory::default(),
    });
    let first_boot: Arc<dyn FirstBootSource> = Arc::new(GivenFiles(Arc::clone(&shelf)));
    let api = Arc::new(InstallerApi::new(Arc::clone(&shelf), first_boot));

    let config_dir = config.data_dir.clone();
    let tasks = TaskTracker::new();
    let (failed, mut failures) = tokio::sync::mpsc::channel(1);
    for (config_of_link, link) in config.links.iter().zip(&links) {
        let address = SocketAddr::from((link.local, TFTP_PORT));
        let limits = TftpLimits { block_bytes: largest_block_bytes(&link.name), ..TftpLimits::default() };
        let tftp = TftpServer::bind(address, Arc::clone(&shelf), limits).await;
        let tftp = tftp.map_err(|source| BootServeError::Socket { what: "TFTP", address, source })?;
        tasks.spawn(tftp.run(stop.clone()));
        let address = SocketAddr::from((link.local, config_of_link.http_port));
        let http = HttpServer::bind(address, Arc::clone(&shelf), HttpLimits::default()).await;
        let http = http.map_err(|source| BootServeError::Socket { what: "the boot HTTP server", address, source })?;
        tasks.spawn(http.run(stop.clone()));
        let listener = listen("the installer's HTTPS", link.local, config_of_link.installer_port).await?;
        let (api, stop_api) = (Arc::clone(&api), stop.clone());
        tasks.spawn(async move { api.run(listener, stop_api).await });
        let open = {
            let (config, link) = (config_of_link.clone(), link.clone());
            let (shelf, data_dir) = (Arc::clone(&shelf), config_dir.clone());
            move || dhcp(&config, &link, &shelf, &data_dir)
        };
        let over = dhcp_thread::start(link.name.clone(), open, stop.clone(), failed.clone()).await?;
        tasks.spawn(async move { drop(over.await) });
    }
    ready(&links);
    let mut look = tokio::time::interval(LOOK);
    let mut seen_verdicts = HashMap::new();
    let outcome = loop {
        tokio::select! {
            () = stop.cancelled() => break Ok(()),
            Some(error) = failures.recv() => break Err(error.into()),
            _ = look.tick() => {
                for name in jobs.refresh()? {
                    announce(&shelf, &name);
                }
                expire(&shelf);
                keep_packets(&shelf, &folder, &mut seen_verdicts);
            }
        }
    };
    stop.cancel();
    tasks.close();
    // Everything obeys the token within a packet; a connection that hangs in the kernel must not keep the process.
    let _ = tokio::time::timeout(Duration::from_secs(5), tasks.wait()).await;
    outcome
}

fn dhcp(
    config: &LinkConfig,
    link: &Link,
    shelf: &Arc<Shelf>,
    data_dir: &Path,
) -> Result<DhcpServer<Jobs>, BootServeError> {
    let loaders = Loaders { names: shelf.set.names(), http_port: config.http_port };
    let answerer = Answerer::new(config.scope.clone(), loaders);
    let dynamic = config.scope.subnets.iter().any(|subnet| subnet.range.is_some());
    let (leases, restored) = if dynamic {
        let path = data_dir.join(format!("leases-{}", config.interface.replace('/', "_")));
        let (file, restored) = LeaseFile::open(&path).map_err(ServeError::from)?;
        (Some(file), restored)
    } else {
        (None, Vec::new())
    };
    let around = Around {
        tickets: Arc::clone(&shelf.jobs),
        recorder: Arc::clone(&shelf.recorder),
        peers: Arc::clone(&shelf.peers),
    };
    Ok(DhcpServer::open(link.clone(), config.scope.mode, answerer, leases, restored, around)?)
}

/// The largest TFTP block that leaves this interface in one piece: its MTU without the heads of IPv4, UDP and TFTP.
fn largest_block_bytes(interface: &str) -> u16 {
    let mtu = std::fs::read_to_string(format!("/sys/class/net/{interface}/mtu"));
    let mtu = mtu.ok().and_then(|text| text.trim().parse::<u32>().ok()).unwrap_or(1500);
    u16::try_from(mtu.saturating_sub(32)).unwrap_or(u16::MAX).clamp(USUAL_BLOCK_BYTES, LARGEST_BLOCK_BYTES)
}

async fn listen(what: &'static str, address: Ipv4Addr, port: u16) -> Result<TcpListener, BootServeError> {
    let address = SocketAddr::from((address, port));
    TcpListener::bind(address).await.map_err(|source| BootServeError::Socket { what, address, source })
}

/// A job file has come, or was closed by somebody.
fn announce(shelf: &Shelf, name: &Name) {
    let Some(job) = shelf.jobs.job(name) else { return };
    let Some(mac) = job.mac() else { return };
    if matches!(job.state, State::Armed)
        && let Ok(image) = shelf.image(&job.task.image, &job.task.image_version)
    {
        // Read while the host goes through its self-test; a bad one is said again when its installer says hello.
        let _ = shelf.verdict(&image);
    }
    let event = match &job.state {
        State::Armed => BootEvent::Armed,
        State::Closed { how } => BootEvent::Closed { how: how.clone().into() },
        State::Installing { .. } | State::Installed | State::Failed { .. } => return,
    };
    shelf.recorder.note(name, mac, clock::now(), event);
}

/// Ends jobs whose right has run out, so that what they are is on the disk and on the screen.
fn expire(shelf: &Shelf) {
    for job in shelf.jobs.all() {
        let Some(ticket) = shelf.jobs.ticket(&job.name) else { continue };
        let now = shelf.jobs.now();
        let Err(why) = ticket.alive(now) else { continue };
        let state = match (&job.state, why) {
            (State::Installed, _) => State::Closed { how: "installed".to_owned() },
            (State::Installing { stage, .. }, _) => State::Failed {
                failure: Box::new(Failure {
                    stage: *stage,
                    code: FailureCode::NoNetwork,
                    sentence: format!("{why}: the host is left as it is. Look at its console, then open a new job"),
                    candidates: Vec::new(),
                    disk_touched: *stage >= InstallStage::Write,
                }),
            },
            (_, Refusal::Expired | Refusal::TooOld | Refusal::Silent | Refusal::Clocks) => {
                State::Closed { how: why.to_string() }
            }
            _ => continue,
        };
        let event = match &state {
            State::Failed { failure } => BootEvent::Failed { failure: failure.clone() },
            State::Closed { how } => BootEvent::Closed { how: how.clone().into() },
            State::Armed | State::Installing { .. } | State::Installed => continue,
        };
        match shelf.jobs.advance(&job.name, |_| Some(state)) {
            Ok(_) => shelf.recorder.note(&job.name, ticket.mac, now, event),
            Err(error) => tracing::error!(job = %job.name, %error, "a job that has run out could not be closed"),
        }
    }
}

/// Keeps the packets of a boot that stands still, or is over, beside its log, once for each standstill.
fn keep_packets(shelf: &Shelf, folder: &Path, seen: &mut HashMap<Name, usize>) {
    for job in shelf.jobs.all() {
        let Some(flight) = shelf.recorder.flight(&job.name) else { continue };
        let events = flight.moments.len();
        if seen.get(&job.name) == Some(&events) || (job.is_open() && !flight.verdict(clock::now()).stopped) {
            continue;
        }
        seen.insert(job.name.clone(), events);
        if let Err(error) = std::fs::write(folder.join(format!("{}.pcap", job.name)), shelf.recorder.pcap(flight.mac)) {
            tracing::warn!(job = %job.name, %error, "the packets of this boot could not be kept");
        }
    }
}
