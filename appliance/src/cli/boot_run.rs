//! `rackmedic boot run`: one host from its BMC to the end of its install. A bench tool: it opens the job, tells the BMC what
//! to boot once, follows the flight recorder, and takes the next method when one does not come to its proof.

use super::Usage;
use super::bmc::place::{OPERATOR, Place};
use super::bmc::power;
use super::boot::{Checked, HostLink, Wanted};
use super::output::{Exit, Format, data, json, talk};
use crate::boot::config::BootConfig;
use crate::boot::job::{Job, MediaFor, State};
use crate::boot::jobs::{JobError, Jobs};
use crate::boot::ladder::Method;
use crate::boot::ladder::attempt::{self, Standing};
use crate::boot::ladder::memory::{Memory, Outcome};
use crate::boot::ladder::order::{self, Site};
use crate::boot::stock::{ServedImage, ServedSet};
use crate::boot::{clock, logbook, media, serve};
use bmc::boot::{BootDevice, BootLasts, BootMode};
use bmc::controller::{ALWAYS, BmcError, Controller, Kind};
use clap::{Args, ValueEnum};
use protocol::boot_set::Role;
use protocol::name::Name;
use pxe::gate::{FirstLoader, Now};
use serde::Serialize;
use std::net::SocketAddrV4;
use std::path::Path;
use std::time::Duration;

/// How often the job is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How long boot servers may take to read a new job: they look four times a second.
const SERVERS_NOTE: Duration = Duration::from_secs(10);
/// The BMC verbs of one method: an image is fetched before it counts as inserted.
const BMC_LIMIT: Duration = Duration::from_secs(400);

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
struct Tried {
    method: Method,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    took_s: u64,
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

impl Run {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.drive())
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
        let host = checked.mac.to_string();
        let site = Site { uefi: !self.legacy, has_media: checked.task.media.is_some() };
        let (of_host, of_model) = memory.of(&host, &model);
        let (mut methods, mut left_out) = order::order(site, &firmware, &of_host, &of_model);
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
        let job = jobs.arm(checked.job.clone(), checked.mac, checked.task.clone())?;
        let media = job.task.media.map(|_| media::url(&job, link.media(&config)));
        let words: Vec<&str> = methods.iter().map(|method| method.name()).collect();
        talk(&format!("{} is open for {host} ({model}); methods: {}", job.name, words.join(", then ")));
        let mut climb = Climb {
            folder: serve::jobs_folder(&config.data_dir),
            jobs,
            job,
            bmc: &mut *bmc,
            mode: if self.legacy { BootMode::Legacy } else { BootMode::Uefi },
            loader,
            media,
            power_cycle: self.power_cycle,
            post: Duration::from_secs(self.post_s),
            lasting: false,
            said: String::new(),
        };
        if !climb.servers_know().await {
            climb.give_up()?;
            anyhow::bail!(
                "no boot servers took note of the job within {} s, so nothing was switched and the job is closed: start `rackmedic boot serve` with this configuration",
                SERVERS_NOTE.as_secs()
            );
        }
        let mut tried = Vec::new();
        let mut proven = false;
        for method in methods {
            let begun = clock::now();
            let outcome = climb.attempt(method).await;
            if method == Method::VirtualMedia {
                climb.take_back_the_order().await;
                // From hello on the installer is in memory; and the next method's boot must not find a CD.
                climb.empty_the_drive().await;
            }
            let outcome = outcome?;
            let took_s = clock::now().elapsed.saturating_sub(begun.elapsed).as_secs();
            let noted = match &outcome {
                End::Proven => Outcome::Succeeded,
                End::Failed { stage, why } => Outcome::Failed { stage: (*stage).to_owned(), why: why.clone() },
                End::NotOffered { .. } => Outcome::NotOffered { firmware: firmware.clone() },
                End::Over => break,
            };
            memory.note(&host, &model, method, &noted, begun.wall.as_secs())?;
            tried.push(outcome.tried(method, took_s));
            if outcome == End::Proven {
                proven = true;
                break;
            }
            if let Some(Tried { why: Some(why), .. }) = tried.last() {
                talk(&format!("{}: {why}", method.name()));
            }
        }
        let mut job = if proven { climb.follow_install().await? } else { climb.give_up()? };
        let installed = job.as_ref().is_some_and(|job| job.state.is_installed());
        let started = if installed { Some(climb.start_from_disk().await?) } else { None };
        if installed {
            job = climb.close_installed()?;
        }
        let closed = job.as_ref().is_some_and(|job| !job.is_open());
        let verdict = match started {
            None => climb.verdict(),
            Some(Started::Heard) => "is installed and verified, and its system has started from the disk".to_owned(),
            Some(Started::Silent) => format!(
                "is installed and verified, and switched on; its system was not heard within {} s: one that asks for no address is not, look at its console",
                self.post_s
            ),
        };
        let _ = tokio::time::timeout(Duration::from_secs(5), bmc.close()).await;
        let report = Report { job: checked.job, installed, closed, started, methods: tried, left_out, verdict };
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

/// What was heard of an installed host after it was switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Started {
    /// Its system asked for an address.
    Heard,
    /// Nothing.
    Silent,
}

/// How one method ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Proven,
    Failed {
        stage: &'static str,
        why: String,
    },
    NotOffered {
        why: String,
    },
    /// The job is over: somebody closed it, or its time has run out.
    Over,
}

impl End {
    fn tried(&self, method: Method, took_s: u64) -> Tried {
        let (outcome, stage, why) = match self {
            Self::Proven => ("proven", None, None),
            Self::Failed { stage, why } => ("failed", Some((*stage).to_owned()), Some(why.clone())),
            Self::NotOffered { why } => ("not-offered", None, Some(why.clone())),
            Self::Over => ("over", None, None),
        };
        Tried { method, outcome, stage, why, took_s }
    }
}

struct Climb<'a> {
    folder: std::path::PathBuf,
    jobs: Jobs,
    job: Job,
    bmc: &'a mut dyn Controller,
    mode: BootMode,
    loader: Loader,
    media: Option<String>,
    power_cycle: bool,
    post: Duration,
    /// The BMC keeps the order to start from its virtual drive.
    lasting: bool,
    /// What was said last, so that it is said once.
    said: String,
}

impl Climb<'_> {
    /// Prepares one method, has the host switched, and waits for its proof.
    async fn attempt(&mut self, method: Method) -> anyhow::Result<End> {
        talk(&format!("{}: telling the BMC", method.name()));
        let prepared = tokio::time::timeout(BMC_LIMIT, self.prepare(method)).await;
        match prepared {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(end))) => return Ok(end),
            Ok(Err(error)) if error.kind == Kind::NotOffered => return Ok(End::NotOffered { why: error.text }),
            Ok(Err(error)) if matches!(error.kind, Kind::Refused | Kind::Busy(_) | Kind::Unknown) => {
                return Ok(End::Failed { stage: "prepare", why: error.text });
            }
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => {
                let why = format!("the BMC took more than {} s to take the order", BMC_LIMIT.as_secs());
                return Ok(End::Failed { stage: "prepare", why });
            }
        }
        // Before the power: a firmware that is quick must not have asked before the attempt began.
        let begun = clock::now();
        if self.power_cycle {
            power::cycle_for_boot(self.bmc).await?;
        } else {
            talk("switch the host off and on now (or restart it); its boot is waited for");
        }
        self.proof(begun).await
    }

    /// `Some`: it cannot be relied on.
    async fn prepare(&mut self, method: Method) -> Result<Option<End>, BmcError> {
        let device = match method {
            Method::Pxe => BootDevice::Pxe,
            Method::UefiHttp => {
                let Loader { http, name } = &self.loader;
                BootDevice::Http { uri: Some(format!("http://{http}/t/{}/{name}", self.job.token)) }
            }
            Method::VirtualMedia => {
                let Some(url) = self.media.clone() else {
                    let why = "there is no image for its drive".to_owned();
                    return Ok(Some(End::Failed { stage: "prepare", why }));
                };
                let begun = clock::now();
                self.bmc.insert_media(&url).await?;
                if !self.reads_the_image(begun).await {
                    let why = format!(
                        "its BMC says that the image is in the drive, and did not read a byte of it within {} s: it does not reach us at {url}, or shows an empty drive",
                        attempt::MEDIA_READ.as_secs(),
                        url = without_right(&url)
                    );
                    return Ok(Some(End::Failed { stage: "media-unread", why }));
                }
                BootDevice::Cd
            }
        };
        let seen = self.bmc.set_boot_once(&device, self.mode, ALWAYS).await?;
        if seen.lasts == BootLasts::Always && device == BootDevice::Cd {
            // The drive is emptied at hello, and the image starts no second install: a host that tries it goes on to its disk.
            talk("its BMC keeps the order for every boot: it is told to start from its disk afterwards");
            self.lasting = true;
        } else if seen.lasts == BootLasts::Always {
            let why = "asked for one boot, but the order reads back as lasting: a host that always boots so is reinstalled for ever";
            return Ok(Some(End::Failed { stage: "prepare", why: why.to_owned() }));
        }
        if let BootDevice::Http { uri: Some(wanted) } = &device
            && !matches!(&seen.device, Some(BootDevice::Http { uri: Some(read) }) if read == wanted)
        {
            // It can still boot by the URL that DHCP gives.
            talk("the BMC does not read the URL back: DHCP has to name it");
        }
        Ok(None)
    }

    /// Whether boot servers run that have read the job: only they can answer a host, or a BMC that fetches its image at once.
    async fn servers_know(&mut self) -> bool {
        let begun = clock::now();
        while logbook::read(&self.folder, &self.job.name).is_none() {
            if clock::now().elapsed.saturating_sub(begun.elapsed) >= SERVERS_NOTE {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        true
    }

    /// Whether the BMC fetches the image: an answer of its own proves nothing.
    async fn reads_the_image(&mut self, begun: Now) -> bool {
        loop {
            let flight = logbook::read(&self.folder, &self.job.name);
            if attempt::media_read(flight.iter().flat_map(|flight| flight.moments.iter()), begun) {
                return true;
            }
            if clock::now().elapsed.saturating_sub(begun.elapsed) >= attempt::MEDIA_READ {
                return false;
            }
            self.say("the image is in the drive; its BMC has not read it yet".to_owned());
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn take_back_the_order(&mut self) {
        if !std::mem::take(&mut self.lasting) {
            return;
        }
        let told = tokio::time::timeout(BMC_LIMIT, self.bmc.set_boot_once(&BootDevice::Disk, self.mode, ALWAYS)).await;
        let why = match told {
            Ok(Ok(_)) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        talk(&format!(
            "the order to start from the virtual drive lasts ({why}): take it back by `rackmedic bmc boot set disk`"
        ));
    }

    async fn empty_the_drive(&mut self) {
        match tokio::time::timeout(BMC_LIMIT, self.bmc.eject_media()).await {
            // One without a drive has nothing in it.
            Ok(Ok(())) => {}
            Ok(Err(error)) if error.kind == Kind::NotOffered => {}
            Ok(Err(error)) => {
                talk(&format!("the virtual drive could not be emptied: {error}; do it by `rackmedic bmc media eject`"));
            }
            Err(_) => talk("the BMC does not empty the virtual drive: do it by `rackmedic bmc media eject`"),
        }
    }

    async fn proof(&mut self, begun: Now) -> anyhow::Result<End> {
        loop {
            if self.refreshed()?.is_none_or(|job| !job.is_open()) {
                return Ok(End::Over);
            }
            let flight = logbook::read(&self.folder, &self.job.name);
            let moments = flight.iter().flat_map(|flight| flight.moments.iter());
            match attempt::standing(moments, begun, clock::now(), self.post) {
                Standing::Proven => return Ok(End::Proven),
                Standing::Failed { stage, why } => return Ok(End::Failed { stage, why }),
                Standing::Wait { sentence } => self.say(sentence),
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Follows the install until the job is over.
    async fn follow_install(&mut self) -> anyhow::Result<Option<Job>> {
        loop {
            let job = self.refreshed()?;
            if job.as_ref().is_none_or(|job| !matches!(job.state, State::Armed | State::Installing { .. })) {
                return Ok(job);
            }
            let verdict = self.verdict();
            self.say(verdict);
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The installer waits to be switched off. Then the host starts from its disk: the order for one boot is used up.
    async fn start_from_disk(&mut self) -> anyhow::Result<Started> {
        let begun = clock::now();
        if self.power_cycle {
            talk("installed and verified: switching it off and on, so that it starts from its disk");
            power::cycle_for_boot(self.bmc).await?;
        } else {
            talk("installed and verified: switch it off and on now, so that it starts from its disk");
        }
        while clock::now().elapsed.saturating_sub(begun.elapsed) < self.post {
            let flight = logbook::read(&self.folder, &self.job.name);
            let moments = flight.iter().flat_map(|flight| flight.moments.iter());
            if attempt::system_heard(moments, begun) {
                return Ok(Started::Heard);
            }
            if self.refreshed()?.is_none_or(|job| !job.is_open()) {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(Started::Silent)
    }

    /// Ends the right of a job that is done.
    fn close_installed(&mut self) -> Result<Option<Job>, JobError> {
        self.jobs = Jobs::open(&self.folder, std::collections::HashMap::new())?;
        self.jobs
            .advance(&self.job.name, |state| matches!(state, State::Installed).then(|| state.closed("installed")))?;
        Ok(self.jobs.job(&self.job.name))
    }

    /// Takes the right back: the host must not boot the installer a day later.
    fn give_up(&mut self) -> Result<Option<Job>, JobError> {
        self.jobs = Jobs::open(&self.folder, std::collections::HashMap::new())?;
        self.jobs.advance(&self.job.name, |state| {
            matches!(state, State::Armed).then(|| state.closed("no method made the host boot the installer"))
        })?;
        Ok(self.jobs.job(&self.job.name))
    }

    /// The job as the boot servers have left it on the disk.
    fn refreshed(&mut self) -> Result<Option<Job>, JobError> {
        read_job(&self.folder, &self.job.name)
    }

    fn verdict(&self) -> String {
        let flight = logbook::read(&self.folder, &self.job.name);
        flight.map_or_else(
            || {
                "the boot servers saw nothing of it: does `rackmedic boot serve` run with this configuration?"
                    .to_owned()
            },
            |flight| flight.verdict(clock::now()).sentence,
        )
    }

    fn say(&mut self, sentence: String) {
        if self.said != sentence {
            talk(&sentence);
            self.said = sentence;
        }
    }
}

/// An URL of ours without the token in its path.
fn without_right(url: &str) -> String {
    url.split_once("/t/").map_or_else(String::new, |(server, _)| server.to_owned())
}

/// A fresh look: what another process moves on is read anew.
fn read_job(folder: &Path, name: &Name) -> Result<Option<Job>, JobError> {
    Ok(Jobs::open(folder, std::collections::HashMap::new())?.job(name))
}
