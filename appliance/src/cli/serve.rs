//! `rackmedic serve` and `rackmedic lab serve`: the appliance itself.

use super::Usage;
use super::output::Exit;
use super::policy_file;
use crate::server::api::{self, listen};
use crate::server::config::{LogForm, Place, ServeConfig, WatchConfig};
use crate::server::notify::Manager;
use crate::server::segments::{ReferencePlace, Segment};
use crate::server::{self, NobodyJoins, Server, Setup, joins};
use crate::store::secret::OuterKey;
use crate::watch::packet_wire::PacketWire;
use crate::watch::prober::Marks;
use crate::watch::wire::WireError;
use anyhow::Context as _;
use bmc::poll::Pace;
use clap::Args;
use healing::policy::{Kind, Policy, Site};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

/// Answers that wait in the ring of an interface: a second of 10,000 hosts, each with four.
const ANSWERS_MAX: usize = 65_536;

/// What is logged unless `RUST_LOG` says otherwise. The Kubernetes client reports each try of its own as an error; that an API
/// does not answer is said once, by those who watch it.
const LOG: &str = "info,kube_client=off";

#[derive(Debug, Args)]
#[command(
    after_help = "Hosts and pools are declared with `rackmedic apply`; a new cluster is only observed until `rackmedic arm CLUSTER`.\nStops gracefully on SIGTERM or SIGINT; a heal that is under way goes on after the next start.\nExit codes: 0 stopped by a signal, 1 it could not go on, 2 the command line or a file it names is wrong, 3 a rule forbids it."
)]
pub(super) struct Serve {
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = "/etc/rackmedic/rackmedic.toml")]
    config: PathBuf,
    /// Where everything is kept; goes before the configuration's.
    #[arg(long, value_name = "DIR", env = "RACKMEDIC_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Look at everything and touch nothing.
    #[arg(long)]
    observe_only: bool,
}

impl Serve {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let config = ServeConfig::read(&self.config, self.data_dir.as_deref())?;
        #[cfg(feature = "lab")]
        if let Some(index) = config.watches.iter().position(|watch| matches!(watch.place, Place::Wire(..))) {
            let what = format!("watch[{index}].wire: a wire to an emulated segment belongs to `rackmedic lab serve`");
            return Err(Usage(format!("{}: {what}", self.config.display())).into());
        }
        let policy = match &config.policy {
            Some(path) => policy_file::read::<Site>(path)?,
            None => Policy::default(),
        };
        start_log(config.log);
        block_on(run(config, policy, "site", self.observe_only, false))
    }
}

#[cfg(feature = "lab")]
mod lab {
    use super::{Exit, Serve, ServeConfig, block_on, policy_file, run, start_log};
    use crate::cli::Forbidden;
    use crate::cli::output::talk;
    use crate::demo::{server as demo_server, story};
    use crate::server::loopback;
    use clap::Subcommand;
    use healing::policy::Lab as LabPolicy;

    /// What a lab offers.
    #[derive(Debug, Subcommand)]
    pub(in crate::cli) enum Lab {
        /// The same server under the lab's policy: short waits, for emulated hosts on loopback or in a network namespace.
        Serve(Serve),
    }

    impl Lab {
        pub(in crate::cli) fn run(self) -> anyhow::Result<Exit> {
            let Lab::Serve(serve) = self;
            let config = ServeConfig::read(&serve.config, serve.data_dir.as_deref())?;
            let apart = loopback::own_namespace();
            if !apart {
                loopback::inside(&config).map_err(|what| Forbidden(format!("{}: {what}", serve.config.display())))?;
            }
            let policy = match &config.policy {
                Some(path) => policy_file::read::<LabPolicy>(path)?,
                None => demo_server::policy().map_err(anyhow::Error::msg)?,
            };
            start_log(config.log);
            for line in story::policy_lines(policy.limits()) {
                talk(&line);
            }
            block_on(run(config, policy, "lab", serve.observe_only, !apart))
        }
    }
}

#[cfg(feature = "lab")]
pub(super) use lab::Lab;

fn block_on(server: impl Future<Output = anyhow::Result<Exit>>) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("no threads can be started for the server")?;
    let done = runtime.block_on(server);
    // What hangs in the kernel must not keep the process.
    runtime.shutdown_background();
    done
}

/// The log goes to standard error: `RUST_LOG` says how much.
fn start_log(form: LogForm) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(LOG));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second one in this process would be a test's.
    let _ = match form {
        LogForm::Text => log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogForm::Json => log.json().flatten_event(true).try_init(),
    };
}

async fn run<K: Kind>(
    config: ServeConfig,
    policy: Policy<K>,
    kind: &'static str,
    observe_only: bool,
    loopback_only: bool,
) -> anyhow::Result<Exit> {
    let manager = Manager::of_this_process();
    if config.watches.is_empty() {
        tracing::warn!(
            "no interface is watched ([[watch]]): without the network plane and own sight, nobody is acted on"
        );
    }
    // Before anything is made: a host that could not join again would be found out in the middle of its heal.
    let rejoin = match config.boot.as_ref().and_then(|boot| boot.join.as_ref().map(|join| (join, &boot.data_dir))) {
        Some((join, folder)) => {
            joins::plugged(join, &config.clusters, folder).await.map_err(|why| Usage(why.to_string()))?
        }
        None => NobodyJoins::plugged(),
    };
    // Its files hold a site's whole story, and sealed secrets: nobody else's business.
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&config.data_dir)
        .with_context(|| format!("the data directory {} cannot be made", config.data_dir.display()))?;
    let key = match OuterKey::credential()? {
        Some(key) => key,
        None => OuterKey::file(&config.key_file)?,
    };
    let segments = config.watches.iter().map(segment).collect::<anyhow::Result<Vec<_>>>()?;
    let data_dir = config.data_dir.clone();
    let setup = Setup {
        data_dir: config.data_dir,
        key,
        policy,
        kind,
        observe_only,
        clusters: config.clusters,
        segments,
        boot: config.boot,
        rejoin,
        pace: Pace::default(),
        loopback_only,
    };
    let server = server::start(setup).await?;
    let opened = open_doors(&server, &config.api, &data_dir).await;
    let address = match opened {
        Ok(address) => address,
        Err(why) => {
            server.stop().await;
            return Err(why.into());
        }
    };
    tracing::info!(%address, policy = kind, data_dir = %data_dir.display(), "the appliance serves");
    manager.tell("READY=1");
    follow(server, manager).await
}

async fn open_doors(
    server: &Server,
    config: &server::config::ApiConfig,
    data_dir: &std::path::Path,
) -> Result<std::net::SocketAddr, listen::NoDoor> {
    let appliance = &server.appliance;
    let control = api::control(Arc::clone(appliance));
    listen::socket(&listen::control_socket(data_dir), control, &server.tracker, server.stop.clone())?;
    let public = api::public(Arc::clone(appliance), config.host_names.clone());
    listen::port(config.listen, public, &server.tracker, server.stop.clone()).await
}

/// Until a signal, or until it cannot go on.
async fn follow(mut server: Server, manager: Manager) -> anyhow::Result<Exit> {
    let mut interrupted = signal(SignalKind::interrupt()).context("signals cannot be caught")?;
    let mut terminated = signal(SignalKind::terminate()).context("signals cannot be caught")?;
    let (pulse, time) = (server.appliance.pulse.clone(), server.appliance.time.clone());
    let stop = server.stop.clone();
    let done = tokio::select! {
        _ = interrupted.recv() => Ok(Exit::Ok),
        _ = terminated.recv() => Ok(Exit::Ok),
        ended = &mut server.ended => match ended {
            Ok(Ok(())) => Ok(Exit::Ok),
            Ok(Err(why)) => Err(anyhow::Error::new(why)),
            Err(_) => Err(anyhow::anyhow!("the decision loop ended by a fault of ours: nothing is decided, start it again")),
        },
        ended = &mut server.boot_ended => match ended {
            Ok(Ok(())) => Ok(Exit::Ok),
            Ok(Err(why)) => Err(anyhow::Error::new(why).context("the boot servers ended")),
            Err(_) => Err(anyhow::anyhow!("the boot servers ended by a fault of ours")),
        },
        Some(what) = server.faults.recv() => {
            Err(anyhow::anyhow!("{what} ended by a fault of ours: what it looks after would go unseen, so the appliance stops; start it again and report it"))
        }
        () = manager.feed(pulse, time, stop) => Ok(Exit::Ok),
    };
    tracing::info!("the appliance stops; what is under way goes on after the next start");
    manager.tell("STOPPING=1");
    server.stop().await;
    done
}

fn segment(watch: &WatchConfig) -> anyhow::Result<Segment> {
    let marks = Marks::random();
    let references = watch
        .references
        .iter()
        .map(|reference| ReferencePlace { address: reference.address, domain: reference.domain.clone() })
        .collect();
    Ok(match &watch.place {
        Place::Interface(name) => {
            let interface = name.clone();
            Segment {
                network: network_of(name)?,
                gateway: watch.gateway,
                references,
                marks,
                open: Box::new(move || Ok(Box::new(PacketWire::open(&interface, marks, ANSWERS_MAX)?))),
                connects: true,
            }
        }
        #[cfg(feature = "lab")]
        Place::Wire(path, network) => {
            let cable = crate::demo::cable::Cable::There(path.clone());
            let failed = |source| WireError::System { interface: "the wire".to_owned(), doing: "opening it", source };
            Segment {
                network: *network,
                gateway: watch.gateway,
                references,
                marks,
                open: Box::new(move || cable.open().map_err(failed)),
                connects: false,
            }
        }
    })
}

/// The network of an interface, by its first IPv4 address.
fn network_of(name: &str) -> Result<(Ipv4Addr, u8), WireError> {
    let present = pnet_datalink::interfaces();
    let Some(found) = present.iter().find(|interface| interface.name == name) else {
        let present = present.iter().map(|interface| interface.name.as_str()).collect::<Vec<_>>().join(", ");
        return Err(WireError::NoInterface { interface: name.to_owned(), present });
    };
    let network = found.ips.iter().find_map(|net| match net.ip() {
        IpAddr::V4(address) => Some((address, net.prefix())),
        IpAddr::V6(_) => None,
    });
    network.ok_or(WireError::Lacks { interface: name.to_owned(), what: "IPv4 address" })
}
