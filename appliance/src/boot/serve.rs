//! The boot servers together: DHCP, TFTP and HTTP on each link, the installer's HTTPS, and the job files.

use super::config::{BootConfig, JoinConfig, LinkConfig};
use super::identity::{Identity, IdentityError};
use super::installer_api::{FirstBootSource, GivenFiles, InstallerApi};
use super::job::State;
use super::jobs::{JobError, Jobs};
use super::logbook::Logbook;
use super::shelf::{Memory, Ports, Shelf};
use super::stock::{ServedSet, StockError};
use super::{clock, dhcp_thread, sweep};
use crate::cluster::client::{Access, ClientError};
use crate::rejoin::alone::{Alone, JoiningHost, JoiningHosts, Planned};
use crate::rejoin::cluster::{Cluster, ClusterError};
use crate::rejoin::source::JoinFiles;
use protocol::install::{Failure, FailureCode, FirstBoot, InstallStage};
use protocol::name::Name;
use pxe::dhcp::decide::{Answerer, Loaders};
use pxe::dhcp::lease_file::LeaseFile;
use pxe::dhcp::server::{Around, DhcpServer, Link, ServeError};
use pxe::gate::{Refusal, Tickets as _};
use pxe::http::server::{HttpServer, Limits as HttpLimits};
use pxe::interface_mtu::interface_mtu;
use pxe::mac::Mac;
use pxe::peers::Peers;
use pxe::recorder::event::BootEvent;
use pxe::tftp::packet::{LARGEST_BLOCK_BYTES, USUAL_BLOCK_BYTES};
use pxe::tftp::server::{Limits as TftpLimits, TftpServer};
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
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
    /// The way to the cluster that hosts join.
    #[error("[join]: {0}")]
    Cluster(#[from] ClientError),
    /// The cluster that hosts join is none.
    #[error("[join]: {0}")]
    Join(#[from] ClusterError),
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

/// Opens everything and serves until it is cancelled. `further` has files for first boots beside those of the jobs themselves;
/// `ready` is called when every socket is open.
///
/// # Errors
/// Why it cannot serve, or can no longer.
pub async fn serve(
    config: BootConfig,
    further: Option<Arc<dyn FirstBootSource>>,
    stop: CancellationToken,
    ready: impl FnOnce(&[Link]),
) -> Result<(), BootServeError> {
    let folder = jobs_folder(&config.data_dir);
    std::fs::create_dir_all(&folder).map_err(|source| BootServeError::Folder { path: folder.clone(), source })?;
    clear_away(&folder);
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
            (
                link.local,
                Ports { http: config.http_port, installer: config.installer_port, prefix: link.prefix, networks },
            )
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
        reserved: reserved(&config),
        scratch: config.data_dir.clone(),
        memory: Memory::default(),
    });
    let given: Arc<dyn FirstBootSource> = Arc::new(GivenFiles(Arc::clone(&shelf)));
    let joins = match &config.join {
        Some(join) => Some(Arc::new(alone(join, &config.data_dir, &shelf, Arc::clone(&given)).await?)),
        None => None,
    };
    let first_boot = joins.clone().map_or(given, |joins| joins as Arc<dyn FirstBootSource>);
    let first_boot = further.map_or(Arc::clone(&first_boot), |further| Arc::new(Both(first_boot, further)));
    let api = Arc::new(InstallerApi::new(Arc::clone(&shelf), first_boot));

    let config_dir = config.data_dir.clone();
    let tasks = TaskTracker::new();
    let (failed, mut failures) = tokio::sync::mpsc::channel(1);
    for (config_of_link, link) in config.links.iter().zip(&links) {
        let address = SocketAddr::from((link.local, TFTP_PORT));
        let limits = TftpLimits { block_bytes: largest_block_bytes(link), ..TftpLimits::default() };
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
    if let Some(joins) = joins {
        let stop = stop.clone();
        tasks.spawn(async move { joins.follow(stop).await });
    }
    if let Some(address) = config.media.map(SocketAddr::V4).filter(|address| !serves_http(&config, &links, *address)) {
        let http = HttpServer::bind(address, Arc::clone(&shelf), HttpLimits::default()).await;
        let what = "the HTTP server for BMCs ([media])";
        let http = http.map_err(|source| BootServeError::Socket { what, address, source })?;
        tasks.spawn(http.run(stop.clone()));
    }
    ready(&links);
    let mut look = tokio::time::interval(LOOK);
    let mut clearing = tokio::time::interval_at(tokio::time::Instant::now() + sweep::EVERY, sweep::EVERY);
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
            _ = clearing.tick() => clear_away(&folder),
        }
    };
    stop.cancel();
    tasks.close();
    // Everything obeys the token within a packet; a connection that hangs in the kernel must not keep the process.
    let _ = tokio::time::timeout(Duration::from_secs(5), tasks.wait()).await;
    outcome
}

/// The files of the first, then those of the second.
struct Both(Arc<dyn FirstBootSource>, Arc<dyn FirstBootSource>);

impl FirstBootSource for Both {
    fn files<'a>(&'a self, job: &'a Name) -> Pin<Box<dyn Future<Output = Result<FirstBoot, String>> + Send + 'a>> {
        Box::pin(async move {
            let mut all = self.0.files(job).await?;
            all.files.extend(self.1.files(job).await?.files);
            Ok(all)
        })
    }
}

/// The joins of hosts that these servers install.
async fn alone(
    join: &JoinConfig,
    data_dir: &Path,
    shelf: &Arc<Shelf>,
    given: Arc<dyn FirstBootSource>,
) -> Result<Alone, BootServeError> {
    // Whoever links this as a library may have chosen one already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let access = Access::of_kubeconfig(&join.kubeconfig).await?;
    let url = access.own_address().unwrap_or_default();
    let client = access.client(&url)?;
    let endpoint = host_and_port(&url).ok_or(ClientError::Address(url))?;
    Ok(Alone::new(JoinFiles {
        given,
        joiners: Planned { hosts: Arc::clone(shelf) as Arc<dyn JoiningHosts>, plan: join.plan.clone() },
        cluster: Cluster::new(client, &endpoint, access.authorities())?,
        driver: join.driver.clone(),
        secrets: Arc::default(),
        records: data_dir.join("joins"),
        one: tokio::sync::Mutex::default(),
    }))
}

/// `host:port` of an URL.
pub(crate) fn host_and_port(url: &str) -> Option<String> {
    let uri: hyper::Uri = url.parse().ok()?;
    Some(format!("{}:{}", uri.host()?, uri.port_u16().unwrap_or(443)))
}

impl JoiningHosts for Shelf {
    fn host(&self, job: &Name) -> Result<Option<JoiningHost>, String> {
        let Some((job, node)) = self.jobs.job(job).and_then(|job| Some((job.clone(), job.task.join?))) else {
            return Ok(None);
        };
        let address = job.mac().and_then(|mac| self.reserved.get(&mac));
        let address = *address.ok_or_else(|| {
            format!("{node} has no `address` in the configuration: its certificate would be for any, so it is made for none. Write one in its [[host]]")
        })?;
        let (name, version) = job.task.of_image().ok_or("the job names no image")?;
        let image = self.image(name, version).map_err(|error| error.to_string())?;
        let kubelet = image.manifest.kubelet.clone();
        Ok(Some(JoiningHost { node, address: address.into(), kubelet }))
    }
}

/// The addresses of cards that have one.
fn reserved(config: &BootConfig) -> HashMap<Mac, Ipv4Addr> {
    let all = config.links.iter().flat_map(|link| &link.scope.reservations);
    all.map(|(mac, reservation)| (*mac, reservation.address)).collect()
}

/// Whether the boot HTTP server of a link is there already.
fn serves_http(config: &BootConfig, links: &[Link], address: SocketAddr) -> bool {
    let mut both = config.links.iter().zip(links);
    both.any(|(config, link)| SocketAddr::from((link.local, config.http_port)) == address)
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
fn largest_block_bytes(link: &Link) -> u16 {
    let mtu = interface_mtu(link.index).unwrap_or_else(|error| {
        tracing::warn!(interface = %link.name, %error, "its MTU is not known: TFTP takes that of Ethernet");
        1500
    });
    u16::try_from(mtu.saturating_sub(32)).unwrap_or(u16::MAX).clamp(USUAL_BLOCK_BYTES, LARGEST_BLOCK_BYTES)
}

async fn listen(what: &'static str, address: Ipv4Addr, port: u16) -> Result<TcpListener, BootServeError> {
    let address = SocketAddr::from((address, port));
    TcpListener::bind(address).await.map_err(|source| BootServeError::Socket { what, address, source })
}

/// Deletes what jobs that are long over have left.
fn clear_away(folder: &Path) {
    match sweep::sweep(folder, SystemTime::now()) {
        Ok(0) => {}
        Ok(jobs) => tracing::info!(jobs, "the files of jobs that are long over were deleted"),
        Err(error) => {
            tracing::warn!(folder = %folder.display(), %error, "files of jobs that are long over could not be deleted");
        }
    }
}

/// A job file has come, or was closed by somebody.
fn announce(shelf: &Shelf, name: &Name) {
    let Some(job) = shelf.jobs.job(name) else { return };
    let Some(mac) = job.mac() else { return };
    if matches!(job.state, State::Armed)
        && let Some((name, version)) = job.task.of_image().filter(|_| !job.task.prove)
        && let Ok(image) = shelf.image(name, version)
    {
        // Read while the host goes through its self-test; a bad one is said again when its installer says hello.
        let _ = shelf.verdict(&image);
    }
    let event = match &job.state {
        State::Armed => BootEvent::Armed,
        State::Closed { how, .. } => BootEvent::Closed { how: how.clone().into() },
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
            (State::Installed, _) => job.state.closed("installed"),
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
                job.state.closed(why.to_string())
            }
            _ => continue,
        };
        let event = match &state {
            State::Failed { failure } => BootEvent::Failed { failure: failure.clone() },
            State::Closed { how, .. } => BootEvent::Closed { how: how.clone().into() },
            State::Armed | State::Installing { .. } | State::Installed => continue,
        };
        match shelf.jobs.advance(&job.name, |now| (*now == job.state).then_some(state)) {
            Ok(None) => {}
            Ok(Some(_)) => shelf.recorder.note(&job.name, ticket.mac, now, event),
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
