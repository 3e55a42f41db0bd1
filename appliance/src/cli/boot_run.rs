//! `rackmedic boot run`: one host from its BMC to the end of its install. A bench tool: it opens the job, tells the BMC what
//! to boot once, follows the flight recorder, and takes the next method when one does not come to its proof.

mod climb;

use super::Usage;
use super::bmc::place::{OPERATOR, Place};
use super::boot::{Checked, HostLink, Wanted};
use super::output::{Exit, Format, data, json, talk};
use crate::boot::config::BootConfig;
use crate::boot::job::MediaFor;
use crate::boot::ladder::Method;
use crate::boot::ladder::memory::Memory;
use crate::boot::ladder::order::{self, Site};
use crate::boot::stock::{ServedImage, ServedSet};
use crate::boot::{media, serve};
use bmc::boot::BootMode;
use clap::{Args, ValueEnum};
use climb::{About, Climb, Started, Tried};
use protocol::boot_set::Role;
use protocol::name::Name;
use pxe::gate::FirstLoader;
use serde::Serialize;
use std::net::SocketAddrV4;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Which methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Choice {
    /// In the order that this host and its model taught, each until it fails.
    Auto,
    /// The job's own image in the virtual drive.
    Vmedia,
    /// UEFI HTTP boot, with the URL given by the BMC.
    Http,
    /// PXE.
    Pxe,
}

#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    wanted: Wanted,
    #[command(flatten)]
    place: Place,
    /// Which method.
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    method: Choice,
    /// The host starts by legacy BIOS instead of UEFI.
    #[arg(long)]
    legacy: bool,
    /// Force the host off and on for each method. Without it you switch it yourself when it is asked for.
    #[arg(long)]
    power_cycle: bool,
    /// How long its self test may take, seconds.
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(30..=1800))]
    post_s: u64,
}

#[derive(Serialize)]
struct Report {
    job: Name,
    installed: bool,
    /// The job is over, and its right with it.
    closed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<Started>,
    methods: Vec<Tried>,
    left_out: Vec<(Method, String)>,
    verdict: String,
}

/// The signals that ask for the end.
struct Stop {
    term: Signal,
    int: Signal,
}

impl Stop {
    /// From here on they do not end the process by themselves.
    fn listen() -> std::io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    async fn came(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}

impl Run {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let done = runtime.block_on(self.drive());
        // A file system that hangs while the job is closed must not hold the end of the process.
        runtime.shutdown_background();
        done
    }

    async fn drive(self) -> anyhow::Result<Exit> {
        if self.method == Choice::Http && self.legacy {
            return Err(Usage("a BIOS has no HTTP boot: leave out --legacy, or take --method pxe".to_owned()).into());
        }
        let (config, jobs, mut checked) = self.wanted.check()?;
        let link = HostLink::of(&config, checked.link.as_deref())?;
        let (loader, no_media) = loader(&config, &checked, link)?;
        if checked.task.media.is_none()
            && no_media.is_none()
            && let std::net::IpAddr::V4(reader) = self.place.endpoint().await?.1.ip()
        {
            checked.task.media = Some(MediaFor { reader, appliance: link.local });
        }
        if self.method == Choice::Vmedia && (no_media.is_some() || checked.task.media.is_none()) {
            let why = no_media
                .unwrap_or("the BMC has no IPv4 address: name the one it fetches from with --media-reader".to_owned());
            return Err(Usage(format!("--method vmedia: {why}")).into());
        }
        let mut memory = Memory::open(&config.data_dir)?;
        let mut bmc = self.place.open(OPERATOR).await?;
        // Everything that can be wrong is known before the first right is given.
        let identity = bmc.identify().await?;
        let vendor = identity.vendor.clone().unwrap_or_default();
        let model = format!("{vendor} {}", identity.model.clone().unwrap_or_default()).trim().to_owned();
        let firmware = identity.firmware.clone().unwrap_or_default();
        let about = About { host: checked.mac.to_string(), model, firmware };
        let site = Site { uefi: !self.legacy, has_media: checked.task.media.is_some() };
        let (of_host, of_model) = memory.of(&about.host, &about.model);
        let (mut methods, mut left_out) = order::order(site, &about.firmware, &of_host, &of_model);
        let fixed = match self.method {
            Choice::Auto => None,
            Choice::Vmedia => Some(Method::VirtualMedia),
            Choice::Http => Some(Method::UefiHttp),
            Choice::Pxe => Some(Method::Pxe),
        };
        if let Some(method) = fixed {
            methods = vec![method];
            left_out.clear();
        }
        let mut stop = Stop::listen()?;
        let job = jobs.arm(checked.job.clone(), checked.mac, checked.task.clone())?;
        let media = job.task.media.map(|_| media::url(&job, link.media(&config)));
        let words: Vec<&str> = methods.iter().map(|method| method.name()).collect();
        let About { host, model, .. } = &about;
        talk(&format!("{} is open for {host} ({model}); methods: {}", job.name, words.join(", then ")));
        let mut climb = Climb {
            folder: serve::jobs_folder(&config.data_dir),
            job,
            bmc: &mut *bmc,
            mode: if self.legacy { BootMode::Legacy } else { BootMode::Uefi },
            loader,
            media,
            power_cycle: self.power_cycle,
            post: Duration::from_secs(self.post_s),
            lasting: false,
            in_drive: false,
            ordered: None,
            switched_for: None,
            switching: false,
            said: String::new(),
        };
        let ended = tokio::select! {
            ended = climb.climb(methods, &mut memory, &about) => ended,
            name = stop.came() => Err(anyhow::anyhow!("{name} came: the run has ended before its time")),
        };
        if ended.is_err() {
            climb.undo().await;
        }
        let _ = tokio::time::timeout(Duration::from_secs(5), bmc.close()).await;
        let ended = ended?;
        let installed = ended.job.as_ref().is_some_and(|job| job.state.is_installed());
        let closed = ended.job.as_ref().is_some_and(|job| !job.is_open());
        let (job, methods) = (checked.job, ended.tried);
        let report =
            Report { job, installed, closed, started: ended.started, methods, left_out, verdict: ended.verdict };
        match self.place.output {
            Format::Json => json(&report)?,
            Format::Table => {
                let word = if installed { "installed" } else { "NOT installed" };
                data(&format!("{}: {word}; {}\n", report.job, report.verdict))?;
            }
        }
        Ok(if installed { Exit::Ok } else { Exit::Failed })
    }
}

/// Where the first loader is, for a BMC that passes an URL on: all but the right of the job.
struct Loader {
    http: SocketAddrV4,
    name: Name,
}

/// The first loader, and what the boot set lacks for an image of a virtual drive.
fn loader(config: &BootConfig, checked: &Checked, link: HostLink) -> anyhow::Result<(Loader, Option<String>)> {
    let set = ServedSet::open(&config.store, &config.boot_set, &config.trusted_keys)?;
    let task = &checked.task;
    let (name, version) = task.of_image().ok_or_else(|| Usage("the job names no image".to_owned()))?;
    let image = ServedImage::open(&config.store, name, version, &config.trusted_keys)?;
    let shim = config.ways.get(&checked.mac).is_some_and(|ways| ways.first_loader == FirstLoader::Shim);
    let role = if shim { Role::Shim } else { Role::IpxeUefi };
    let name = set.name(role, image.manifest.arch).cloned();
    let name = name.ok_or_else(|| {
        Usage(format!("the boot set {} has no loader for this machine: build one that has", config.boot_set))
    })?;
    let http = SocketAddrV4::new(link.local, link.http_port);
    Ok((Loader { http, name }, media::lacks(&set, image.manifest.arch)))
}
