//! `rackmedic boot`: the boot servers alone, and the jobs that open them for one card.

use super::Usage;
use super::output::{Exit, Format, data, json, table, talk};
use crate::boot::config::{BootConfig, ConfigError, LinkConfig};
use crate::boot::job::{Job, MediaFor, State, Task, go_into_one_answer};
use crate::boot::jobs::{JobError, Jobs};
use crate::boot::stock::{ServedImage, ServedSet};
use crate::boot::{clock, logbook, media, serve};
use crate::rejoin::names::NodeName;
use crate::rejoin::port::is_of_incident;
use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand, ValueEnum};
use protocol::disk::DiskName;
use protocol::install::{FirstBootFile, WriteMode};
use protocol::name::Name;
use pxe::dhcp::server::Link;
use pxe::mac::Mac;
use serde::Serialize;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;

#[derive(Debug, Subcommand)]
pub(super) enum Boot {
    /// Serve until a signal says to stop. Every card that no job was armed for meets silence.
    Serve(Serve),
    /// Open a job: for 30 minutes this one card may boot the installer, which then writes this one disk.
    Arm(Arm),
    /// Close a job. An installer that is writing is not told to go on, and nothing further is given to the host.
    Disarm(Named),
    /// All jobs, with where each stands.
    Jobs(List),
    /// One job's timeline, from the first DISCOVER on, and the verdict in a sentence.
    Show(Named),
    /// The packets of one job's boot, for Wireshark.
    Pcap(Pcap),
    /// Open a job and bring its host to boot the installer: one method after the other through its BMC, until the
    /// installer says hello, then follow the install to its end.
    Run(Box<super::boot_run::Run>),
    /// Play every kind of client on a link: who answers what, how fast, and what is wrong. No address is taken. It needs
    /// CAP_NET_RAW.
    Probe(super::boot_probe::Probe),
}

#[derive(Debug, Args)]
struct Configured {
    /// The configuration of the boot servers.
    #[arg(long, value_name = "FILE", default_value = "/etc/rackmedic/boot.toml")]
    config: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    configured: Configured,
}

/// How the disk is written.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    /// What is there is read first, and only what differs is fetched and written.
    Differential,
    /// Everything is fetched and written.
    Plain,
}

#[derive(Debug, Args)]
pub(super) struct Arm {
    #[command(flatten)]
    wanted: Wanted,
    /// How the result is written.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// What a job is to do.
#[derive(Debug, Args)]
pub(super) struct Wanted {
    #[command(flatten)]
    configured: Configured,
    /// The job's name, never used before.
    job: Name,
    /// The card that boots.
    #[arg(long)]
    mac: Mac,
    /// The image in the store.
    #[arg(long, value_name = "NAME")]
    image: Name,
    /// Its version.
    #[arg(long, value_name = "VERSION")]
    image_version: Name,
    /// The serial number of the disk that is written.
    #[arg(long, value_name = "SERIAL")]
    disk_serial: Option<String>,
    /// The World Wide Name of the disk that is written.
    #[arg(long, value_name = "WWN")]
    disk_wwn: Option<String>,
    /// How it is written.
    #[arg(long, value_enum, default_value_t = Mode::Differential)]
    mode: Mode,
    /// Data of others on that disk (LVM, ZFS, Ceph, …) may be lost: a person has decided so.
    #[arg(long)]
    foreign_data_approved: bool,
    /// The address of the host's BMC: from there, and from nowhere else, an image for its virtual drive may be fetched.
    #[arg(long, value_name = "ADDRESS")]
    media_reader: Option<Ipv4Addr>,
    /// The interface of the boot servers through which the host reaches us, when there are several.
    #[arg(long, value_name = "INTERFACE")]
    link: Option<String>,
    /// The name of the Node as which the host joins the cluster of [join] in the configuration.
    #[arg(long, value_name = "NODE")]
    join: Option<NodeName>,
    /// A file for the first boot: its place in the root file system, `=`, the file to read it from. Repeatable.
    #[arg(long, value_name = "PATH=FILE")]
    first_boot_file: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct Named {
    #[command(flatten)]
    configured: Configured,
    /// The job.
    job: Name,
    /// How the result is written.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    configured: Configured,
    /// How the result is written.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Debug, Args)]
pub(super) struct Pcap {
    #[command(flatten)]
    configured: Configured,
    /// The job.
    job: Name,
    /// Where the capture is written.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl Boot {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        match self {
            Self::Serve(verb) => verb.run(),
            Self::Arm(verb) => verb.run(),
            Self::Disarm(verb) => verb.disarm(),
            Self::Jobs(verb) => verb.run(),
            Self::Show(verb) => verb.show(),
            Self::Pcap(verb) => verb.run(),
            Self::Probe(verb) => verb.run(),
            Self::Run(verb) => verb.run(),
        }
    }
}

impl Configured {
    fn read(&self) -> Result<BootConfig, ConfigError> {
        BootConfig::read(&self.config)
    }

    fn jobs(&self) -> anyhow::Result<(Jobs, PathBuf)> {
        let config = self.read()?;
        let folder = serve::jobs_folder(&config.data_dir);
        Ok((Jobs::open(&folder, config.ways)?, folder))
    }
}

impl Serve {
    fn run(self) -> anyhow::Result<Exit> {
        let config = self.configured.read()?;
        let filter = tracing_subscriber::EnvFilter::try_from_default_env()
            .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let stop = CancellationToken::new();
        runtime.block_on(async {
            let signals = stop_on_signals(&stop)?;
            let outcome = serve::serve(config, None, stop.clone(), |links| {
                for link in links {
                    talk(&format!("{}: DHCP, TFTP, HTTP and the installer's HTTPS at {}", link.name, link.local));
                }
                talk("ready: every card is met with silence until a job is armed for it");
            })
            .await;
            signals.abort();
            outcome.map_err(anyhow::Error::from)
        })?;
        Ok(Exit::Ok)
    }
}

fn stop_on_signals(stop: &CancellationToken) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = stop.clone();
    Ok(tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        stop.cancel();
    }))
}

impl Arm {
    fn run(self) -> anyhow::Result<Exit> {
        let (config, jobs, wanted) = self.wanted.check()?;
        let image_at = match wanted.task.media {
            Some(_) => Some(HostLink::of(&config, wanted.link.as_deref())?.media(&config)),
            None => None,
        };
        let job = jobs.arm(wanted.job, wanted.mac, wanted.task)?;
        let media_url = image_at.map(|address| media::url(&job, address));
        match self.output {
            Format::Json => {
                #[derive(Serialize)]
                struct Armed<'a> {
                    #[serde(flatten)]
                    job: Shown<'a>,
                    #[serde(skip_serializing_if = "Option::is_none")]
                    media_url: Option<String>,
                }
                json(&Armed { job: Shown::of(&job), media_url })?;
            }
            Format::Table => {
                let text = format!("{} armed for {}: for 30 minutes it may boot the installer\n", job.name, wanted.mac);
                let drive = media_url.map_or_else(String::new, |url| format!("for its virtual drive: {url}\n"));
                data(&(text + &drive))?;
            }
        }
        Ok(Exit::Ok)
    }
}

/// A job that may be opened.
pub(super) struct Checked {
    pub(super) job: Name,
    pub(super) mac: Mac,
    pub(super) task: Task,
    pub(super) link: Option<String>,
}

impl Wanted {
    /// Reads and checks all of it, and opens nothing.
    pub(super) fn check(self) -> anyhow::Result<(BootConfig, Jobs, Checked)> {
        if is_of_incident(&self.job) {
            return Err(
                Usage(format!("--job {}: jobs of incidents are called so; choose another name", self.job)).into()
            );
        }
        let disk = DiskName { serial: self.disk_serial, wwn: self.disk_wwn };
        if !disk.is_given() {
            return Err(Usage(
                "no disk is named: give --disk-serial or --disk-wwn (the installer lists the disks it sees when none fits)"
                    .to_owned(),
            )
            .into());
        }
        let first_boot = first_boot_files(&self.first_boot_file)?;
        let config = self.configured.read()?;
        if self.join.is_some() && config.join.is_none() {
            return Err(Usage("--join needs a cluster: write [join] in the configuration".to_owned()).into());
        }
        let reserved = config.links.iter().any(|link| link.scope.reservations.contains_key(&self.mac));
        if self.join.is_some() && !reserved {
            let text = "--join needs the host's address, for its certificates: write `address` in its [[host]]";
            return Err(Usage(text.to_owned()).into());
        }
        let media = match self.media_reader {
            Some(reader) => Some(MediaFor { reader, appliance: HostLink::of(&config, self.link.as_deref())?.local }),
            None => None,
        };
        // An image that is not there, or is signed by nobody we trust, is better known now than when the host has booted.
        let image = ServedImage::open(&config.store, &self.image, &self.image_version, &config.trusted_keys)?;
        let task = Task {
            mac: self.mac.to_string(),
            image: Some(self.image),
            image_version: Some(self.image_version),
            prove: false,
            disk,
            mode: match self.mode {
                Mode::Differential => WriteMode::Differential,
                Mode::Plain => WriteMode::Plain,
            },
            foreign_data_approved: self.foreign_data_approved,
            first_boot,
            join: self.join,
            media,
        };
        if task.media.is_some() {
            let set = ServedSet::open(&config.store, &config.boot_set, &config.trusted_keys)?;
            if let Some(lacks) = media::lacks(&set, image.manifest.arch) {
                return Err(Usage(format!("--media-reader: {lacks}: build the boot set with this release")).into());
            }
        }
        let jobs = Jobs::open(&serve::jobs_folder(&config.data_dir), config.ways.clone())?;
        Ok((config, jobs, Checked { job: self.job, mac: self.mac, task, link: self.link }))
    }
}

/// Where a host reaches the boot servers.
#[derive(Clone, Copy, Debug)]
pub(super) struct HostLink {
    pub(super) local: Ipv4Addr,
    pub(super) http_port: u16,
}

impl HostLink {
    /// The link of this name, or the only one.
    pub(super) fn of(config: &BootConfig, wanted: Option<&str>) -> anyhow::Result<Self> {
        let fits = |link: &&LinkConfig| wanted.is_none_or(|name| link.interface == name);
        let fitting: Vec<_> = config.links.iter().filter(fits).collect();
        let link = match fitting.as_slice() {
            [link] => *link,
            [] => return Err(Usage("--link names no interface of the configuration".to_owned()).into()),
            _ => {
                let text = "the boot servers have several interfaces: name the one that the host reaches with --link";
                return Err(Usage(text.to_owned()).into());
            }
        };
        let local = match link.address {
            Some(address) => address,
            None => Link::find(&link.interface, None)?.local,
        };
        Ok(Self { local, http_port: link.http_port })
    }

    /// Where BMCs fetch images for virtual drives.
    pub(super) fn media(self, config: &BootConfig) -> SocketAddrV4 {
        config.media.unwrap_or(SocketAddrV4::new(self.local, self.http_port))
    }
}

/// The largest file for a first boot that is read, bytes. What all of them may have is [`go_into_one_answer`]'s.
const FIRST_BOOT_FILE_LIMIT_BYTES: u64 = 512 * 1024;

fn first_boot_files(texts: &[String]) -> anyhow::Result<Vec<FirstBootFile>> {
    let files = texts.iter().map(|text| first_boot_file(text)).collect::<anyhow::Result<Vec<_>>>()?;
    go_into_one_answer(&files).map_err(|why| Usage(format!("--first-boot-file: {why}")))?;
    Ok(files)
}

fn first_boot_file(text: &str) -> anyhow::Result<FirstBootFile> {
    let usage = |what: String| anyhow::Error::from(Usage(what));
    let (path, from) = text.split_once('=').ok_or_else(|| {
        usage(format!("--first-boot-file {text}: write the place in the root file system, =, the file"))
    })?;
    let plain = path.starts_with('/') && path.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."));
    if !plain {
        return Err(usage(format!("--first-boot-file {path}: not an absolute path without '.' and '..'")));
    }
    let from = Path::new(from);
    let about = from.metadata().with_context(|| format!("--first-boot-file {}", from.display()))?;
    if about.len() > FIRST_BOOT_FILE_LIMIT_BYTES {
        let what = format!("{}: {} bytes, at most {FIRST_BOOT_FILE_LIMIT_BYTES}", from.display(), about.len());
        return Err(usage(what));
    }
    let content = std::fs::read(from).with_context(|| format!("--first-boot-file {}", from.display()))?;
    let mode = std::os::unix::fs::PermissionsExt::mode(&about.permissions()) & 0o777;
    Ok(FirstBootFile { path: path.to_owned(), mode, content: STANDARD.encode(content) })
}

/// What a job does, in words.
fn what(task: &Task) -> String {
    match task.of_image() {
        _ if task.prove => "a proof, nothing is written".to_owned(),
        Some((name, version)) => format!("{name} {version}"),
        None => String::new(),
    }
}

/// A job without its secrets.
#[derive(Serialize)]
struct Shown<'a> {
    job: &'a Name,
    mac: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<&'a Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_version: Option<&'a Name>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    prove: bool,
    disk: &'a DiskName,
    mode: WriteMode,
    opened_unix_s: u64,
    #[serde(flatten)]
    state: ShownState<'a>,
}

#[derive(Serialize)]
struct ShownState<'a> {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'a protocol::install::Failure>,
}

impl<'a> Shown<'a> {
    fn of(job: &'a Job) -> Self {
        let (state, detail, failure) = match &job.state {
            State::Armed => ("armed", None, None),
            State::Installing { stage, .. } => ("installing", Some(stage.to_string()), None),
            State::Installed => ("installed", None, None),
            State::Failed { failure } => ("failed", Some(failure.sentence.clone()), Some(failure.as_ref())),
            State::Closed { how, .. } => ("closed", Some(how.clone()), None),
        };
        Self {
            job: &job.name,
            mac: &job.task.mac,
            image: job.task.image.as_ref(),
            image_version: job.task.image_version.as_ref(),
            prove: job.task.prove,
            disk: &job.task.disk,
            mode: job.task.mode,
            opened_unix_s: job.opened.wall.as_secs(),
            state: ShownState { state, detail, failure },
        }
    }
}

impl List {
    fn run(self) -> anyhow::Result<Exit> {
        let (jobs, _) = self.configured.jobs()?;
        let all = jobs.all();
        match self.output {
            Format::Json => json(&all.iter().map(Shown::of).collect::<Vec<_>>())?,
            Format::Table if all.is_empty() => talk("no job: every card is met with silence"),
            Format::Table => {
                let row = |job: &Job| {
                    let shown = Shown::of(job);
                    let image = what(&job.task);
                    let detail = shown.state.detail.unwrap_or_default();
                    vec![job.name.to_string(), shown.mac.to_owned(), image, shown.state.state.to_owned(), detail]
                };
                data(&table(&["job", "card", "image", "state", ""], &all.iter().map(row).collect::<Vec<_>>()))?;
            }
        }
        Ok(Exit::Ok)
    }
}

impl Named {
    fn disarm(self) -> anyhow::Result<Exit> {
        let (jobs, _) = self.configured.jobs()?;
        let closed = jobs.advance(&self.job, |state| {
            let open = matches!(state, State::Armed | State::Installing { .. } | State::Installed);
            open.then(|| state.closed("disarmed by hand"))
        })?;
        match (&closed, self.output) {
            (Some(job), Format::Json) => json(&Shown::of(job))?,
            (Some(_), Format::Table) => data(&format!("{} is closed\n", self.job))?,
            (None, _) => {
                talk(&format!("{} was over already", self.job));
            }
        }
        Ok(Exit::Ok)
    }

    fn show(self) -> anyhow::Result<Exit> {
        let (jobs, folder) = self.configured.jobs()?;
        let job = jobs.job(&self.job).ok_or_else(|| JobError::Unknown(self.job.clone()))?;
        let flight = logbook::read(&folder, &self.job);
        let verdict = flight.as_ref().map(|flight| flight.verdict(clock::now()));
        if self.output == Format::Json {
            #[derive(Serialize)]
            struct Whole<'a> {
                #[serde(flatten)]
                job: Shown<'a>,
                verdict: Option<String>,
                stopped: bool,
                moments: Vec<&'a pxe::recorder::Moment>,
            }
            json(&Whole {
                job: Shown::of(&job),
                stopped: verdict.as_ref().is_some_and(|verdict| verdict.stopped),
                verdict: verdict.map(|verdict| verdict.sentence),
                moments: flight.as_ref().map(|flight| flight.moments.iter().collect()).unwrap_or_default(),
            })?;
            return Ok(Exit::Ok);
        }
        let mut text = format!("{}: {}, {}\n", job.name, job.task.mac, what(&job.task));
        if let Some(flight) = &flight {
            let began = flight.moments.front().map(|moment| moment.at.elapsed).unwrap_or_default();
            for moment in &flight.moments {
                let at = moment.at.elapsed.saturating_sub(began).as_secs_f64();
                text.push_str(&format!("{at:>9.3} s  {}\n", moment.event));
            }
        }
        if let Some(verdict) = verdict {
            text.push_str(&format!("{}\n", verdict.sentence));
        }
        data(&text)?;
        Ok(Exit::Ok)
    }
}

impl Pcap {
    fn run(self) -> anyhow::Result<Exit> {
        let (jobs, folder) = self.configured.jobs()?;
        let job = jobs.job(&self.job).ok_or_else(|| JobError::Unknown(self.job.clone()))?;
        let from = folder.join(format!("{}.pcap", job.name));
        if !from.exists() {
            return Err(Usage(format!(
                "there are no packets of {}: they are kept when its boot stands still or is over",
                job.name
            ))
            .into());
        }
        std::fs::copy(&from, &self.out).with_context(|| format!("{} to {}", from.display(), self.out.display()))?;
        talk(&format!("written to {}", self.out.display()));
        Ok(Exit::Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_first_boot_that_no_answer_holds_are_refused_before_a_job_is_opened() {
        let file = std::env::temp_dir().join(format!("rackmedic-first-boot-sum-{}", std::process::id()));
        std::fs::write(&file, vec![7_u8; 400 << 10]).unwrap();
        let given = |count: usize| -> Vec<String> {
            (0..count).map(|number| format!("/etc/file{number}={}", file.display())).collect()
        };
        let one = first_boot_files(&given(1)).unwrap();
        assert_eq!((one.len(), one[0].path.as_str()), (1, "/etc/file0"));
        // Each of them is small enough by itself.
        let error = first_boot_files(&given(2)).unwrap_err();
        assert!(error.is::<Usage>() && error.to_string().contains("--first-boot-file"), "{error}");
        std::fs::remove_file(&file).unwrap();
    }
}
