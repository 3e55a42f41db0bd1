//! The climb of one host: method after method until an installer says hello, then its install to the end. It also knows
//! what must be undone when it ends before its time.

use super::Loader;
use crate::boot::job::{Job, State};
use crate::boot::jobs::{JobError, Jobs};
use crate::boot::ladder::Method;
use crate::boot::ladder::attempt::{self, Standing};
use crate::boot::ladder::memory::{Memory, Outcome};
use crate::boot::{clock, logbook};
use crate::cli::bmc::power;
use crate::cli::output::talk;
use bmc::boot::{BootDevice, BootLasts, BootMode};
use bmc::controller::{ALWAYS, BmcError, Controller, Kind};
use protocol::name::Name;
use pxe::gate::{JOB_CAP, Now};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often the job is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How long boot servers may take to read a new job: they look four times a second.
const SERVERS_NOTE: Duration = Duration::from_secs(10);
/// The BMC verbs of one method: an image is fetched before it counts as inserted.
const BMC_LIMIT: Duration = Duration::from_secs(400);
/// A first answer of a BMC that was not spoken to for minutes: a login, and a few answers of a slow one.
const FIRST_ANSWER: Duration = Duration::from_secs(90);
/// For closing the job of a run that ends before its time.
const UNDO_JOB: Duration = Duration::from_secs(10);
/// For the virtual drive then.
const UNDO_DRIVE: Duration = Duration::from_secs(60);

/// Of whom it is remembered what worked.
pub(super) struct About {
    pub(super) host: String,
    pub(super) model: String,
    pub(super) firmware: String,
}

#[derive(Serialize)]
pub(super) struct Tried {
    method: Method,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    took_s: u64,
}

/// What was heard of an installed host after it was switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Started {
    /// Its system asked for an address.
    Heard,
    /// Nothing.
    Silent,
}

/// How it ended.
pub(super) struct Ended {
    /// As it was then.
    pub(super) job: Option<Job>,
    pub(super) started: Option<Started>,
    pub(super) tried: Vec<Tried>,
    pub(super) verdict: String,
}

/// How one method ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Proven,
    /// An installer said hello before the host was switched for this method: an earlier start was only slow.
    Late,
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
            Self::Late => ("not-tried", None, Some("the installer of an earlier start said hello".to_owned())),
            Self::Failed { stage, why } => ("failed", Some((*stage).to_owned()), Some(why.clone())),
            Self::NotOffered { why } => ("not-offered", None, Some(why.clone())),
            Self::Over => ("over", None, None),
        };
        Tried { method, outcome, stage, why, took_s }
    }
}

pub(super) struct Climb<'a> {
    pub(super) folder: PathBuf,
    pub(super) job: Job,
    pub(super) bmc: &'a mut dyn Controller,
    pub(super) mode: BootMode,
    pub(super) loader: Loader,
    pub(super) media: Option<String>,
    pub(super) power_cycle: bool,
    pub(super) post: Duration,
    /// The BMC keeps the order to start from its virtual drive.
    pub(super) lasting: bool,
    /// Its virtual drive was or is being filled.
    pub(super) in_drive: bool,
    /// What the BMC was last told to boot once.
    pub(super) ordered: Option<Method>,
    /// For which method the host was last switched.
    pub(super) switched_for: Option<Method>,
    /// It is being switched off and on: it may be off.
    pub(super) switching: bool,
    /// What was said last, so that it is said once.
    pub(super) said: String,
}

impl Climb<'_> {
    /// All of it. Where it fails or is dropped, [`Self::undo`] is to follow.
    pub(super) async fn climb(
        &mut self,
        methods: Vec<Method>,
        memory: &mut Memory,
        about: &About,
    ) -> anyhow::Result<Ended> {
        if !self.servers_know().await {
            anyhow::bail!(
                "no boot servers took note of the job within {} s, so nothing was switched: start `rackmedic boot serve` with this configuration",
                SERVERS_NOTE.as_secs()
            );
        }
        let mut tried = Vec::new();
        let mut proven = false;
        for method in methods {
            let begun = clock::now();
            let outcome = self.attempt(method).await;
            if method == Method::VirtualMedia {
                self.take_back_the_order().await;
                // From hello on the installer is in memory; and the next method's boot must not find a CD.
                self.empty_the_drive().await;
            }
            let outcome = outcome?;
            let took_s = clock::now().elapsed.saturating_sub(begun.elapsed).as_secs();
            if outcome == End::Over {
                break;
            }
            self.remember(memory, about, method, &outcome, begun);
            tried.push(outcome.tried(method, took_s));
            if let Some(Tried { why: Some(why), .. }) = tried.last() {
                talk(&format!("{}: {why}", method.name()));
            }
            proven = matches!(outcome, End::Proven | End::Late);
            if proven {
                break;
            }
        }
        let mut job = if proven { None } else { self.give_up()? };
        if let Some(method) = self.switched_for.filter(|_| job.as_ref().is_some_and(at_work)) {
            // It said hello after the last look: nothing was closed, and nothing was in vain.
            self.remember(memory, about, method, &End::Late, clock::now());
        }
        if proven || job.as_ref().is_some_and(at_work) {
            job = self.follow_install().await?;
        }
        let installed = job.as_ref().is_some_and(|job| job.state.is_installed());
        let started = if installed { Some(self.start_from_disk().await?) } else { None };
        if installed {
            job = advance(&self.folder, &self.job.name, is_done)?;
        }
        let verdict = match started {
            None if job.as_ref().is_some_and(at_work) => {
                "its installer was not seen to end within the 2 hours that a job may take, and no boot servers closed it: do they run? Look at its console"
                    .to_owned()
            }
            None => self.verdict(),
            Some(Started::Heard) => "is installed and verified, and its system has started from the disk".to_owned(),
            Some(Started::Silent) => format!(
                "is installed and verified, and switched on; its system was not heard within {} s: one that asks for no address is not, look at its console",
                self.post.as_secs()
            ),
        };
        Ok(Ended { job, started, tried, verdict })
    }

    /// Notes how a method ended. That it cannot be noted is said, and ends nothing: an install may run by now.
    fn remember(&self, memory: &mut Memory, about: &About, method: Method, end: &End, begun: Now) {
        let noted = match end {
            End::Proven => Some((method, Outcome::Succeeded)),
            // What the host was switched for works, though it was given up before.
            End::Late => self.switched_for.map(|method| (method, Outcome::Succeeded)),
            End::Failed { stage, why } => {
                Some((method, Outcome::Failed { stage: (*stage).to_owned(), why: why.clone() }))
            }
            End::NotOffered { .. } => Some((method, Outcome::NotOffered { firmware: about.firmware.clone() })),
            End::Over => None,
        };
        let Some((method, outcome)) = noted else { return };
        if let Err(error) = memory.note(&about.host, &about.model, method, &outcome, begun.wall.as_secs()) {
            talk(&error.to_string());
        }
    }

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
        if self.power_cycle {
            // Whatever is slow about its BMC comes before the look at the job, not between that and the order. Whether
            // it answered shows when it is switched.
            let _ = tokio::time::timeout(FIRST_ANSWER, self.bmc.readings()).await;
        }
        // Before the power: a firmware that is quick must not have asked before the attempt began.
        let begun = clock::now();
        // The BMC took its time, and the host may have started by an earlier order meanwhile: an installer that writes
        // must not be cut off.
        match self.refreshed()?.map(|job| job.state) {
            Some(State::Armed) => {}
            Some(State::Installing { .. } | State::Installed) => return Ok(End::Late),
            Some(State::Failed { .. } | State::Closed { .. }) | None => return Ok(End::Over),
        }
        if self.power_cycle {
            self.cycle().await?;
        } else {
            talk("switch the host off and on now (or restart it); its boot is waited for");
        }
        self.switched_for = Some(method);
        self.proof(begun).await
    }

    /// Forces it off and on. Where that fails, the host may be off.
    async fn cycle(&mut self) -> anyhow::Result<()> {
        self.switching = true;
        power::cycle_for_boot(self.bmc).await?;
        self.switching = false;
        Ok(())
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
                self.in_drive = true;
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
        self.ordered = Some(method);
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
        if !self.lasting {
            return;
        }
        let told = tokio::time::timeout(BMC_LIMIT, self.bmc.set_boot_once(&BootDevice::Disk, self.mode, ALWAYS)).await;
        self.lasting = false;
        let why = match told {
            Ok(Ok(_)) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        talk(&format!(
            "the order to start from the virtual drive lasts ({why}): take it back by `rackmedic bmc boot disk`"
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
        self.in_drive = false;
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

    /// Follows the install until the job is over, or has no right any more and no boot servers say so.
    async fn follow_install(&mut self) -> anyhow::Result<Option<Job>> {
        loop {
            let job = self.refreshed()?;
            if job.as_ref().is_none_or(|job| !matches!(job.state, State::Armed | State::Installing { .. })) {
                return Ok(job);
            }
            if clock::now().elapsed.saturating_sub(self.job.opened.elapsed) >= JOB_CAP + SERVERS_NOTE {
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
            self.cycle().await?;
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

    /// Takes the right back: the host must not boot the installer a day later. Not of a job whose installer is at work.
    fn give_up(&self) -> Result<Option<Job>, JobError> {
        advance(&self.folder, &self.job.name, is_in_vain)
    }

    /// Undoes what can be when the run ends before its time, each part within its own time, and says what was not
    /// undone. An installer that is at work is left alone: half a disk would be worse.
    pub(super) async fn undo(&mut self) {
        let (folder, name) = (self.folder.clone(), self.job.name.clone());
        // It waits for a lock and for the disk: where those hang, this task must not.
        let closing = tokio::task::spawn_blocking(move || advance(&folder, &name, is_left));
        let state = match tokio::time::timeout(UNDO_JOB, closing).await {
            Ok(Ok(Ok(job))) => Ok(job.map(|job| job.state)),
            Ok(Ok(Err(error))) => Err(error.to_string()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("not done within {} s", UNDO_JOB.as_secs())),
        };
        talk(&left_behind(&self.job.name, &state));
        if self.in_drive {
            let emptied = async {
                self.take_back_the_order().await;
                self.empty_the_drive().await;
            };
            if tokio::time::timeout(UNDO_DRIVE, emptied).await.is_err() {
                talk(
                    "the virtual drive was not emptied in time: do it by `rackmedic bmc media eject`, and tell the host to start from its disk by `rackmedic bmc boot disk`",
                );
            }
        }
        if let Some(method) = self.ordered.filter(|_| !matches!(state, Ok(Some(State::Installing { .. })))) {
            talk(&format!(
                "its BMC was told to boot once by {}, and that was not taken back: `rackmedic bmc boot status` shows whether it still stands",
                method.name()
            ));
        }
        if self.switching {
            talk("the host was being switched off and on, and may be off: `rackmedic bmc power status` shows it");
        }
    }

    /// The job as the boot servers have left it on the disk.
    fn refreshed(&self) -> Result<Option<Job>, JobError> {
        // A fresh look: what another process moves on is read anew.
        Ok(Jobs::open(&self.folder, std::collections::HashMap::new())?.job(&self.job.name))
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

/// Whether an installer has this job: it works, or is done and waits to be switched off.
fn at_work(job: &Job) -> bool {
    matches!(job.state, State::Installing { .. } | State::Installed)
}

/// Moves the job on from what lies on the disk now; gives it as it is then.
fn advance(folder: &Path, name: &Name, change: fn(&State) -> Option<State>) -> Result<Option<Job>, JobError> {
    let jobs = Jobs::open(folder, std::collections::HashMap::new())?;
    jobs.advance(name, change)?;
    Ok(jobs.job(name))
}

/// The end of a job that no method brought to its installer.
fn is_in_vain(state: &State) -> Option<State> {
    matches!(state, State::Armed).then(|| state.closed("no method made the host boot the installer"))
}

/// The end of a job that is done: of its right.
fn is_done(state: &State) -> Option<State> {
    matches!(state, State::Installed).then(|| state.closed("installed"))
}

/// The end of a job whose run ended before its time. One whose installer works goes on.
fn is_left(state: &State) -> Option<State> {
    match state {
        State::Armed => Some(state.closed("the run that opened it ended before its time")),
        State::Installed => is_done(state),
        State::Installing { .. } | State::Failed { .. } | State::Closed { .. } => None,
    }
}

/// What became of the job of a run that ended before its time, in words.
fn left_behind(name: &Name, state: &Result<Option<State>, String>) -> String {
    let open = |why: &str| {
        format!(
            "{name} could not be closed ({why}): until it is, for 30 minutes from its opening, the host's next start by the network is installed; close it by `rackmedic boot disarm {name}`"
        )
    };
    match state {
        Ok(Some(State::Installing { .. })) => format!(
            "the installer is at work on the host and goes on by itself: {name} stays open, do not switch the host off; `rackmedic boot show {name}` tells how it goes"
        ),
        Ok(Some(State::Closed { installed: true, .. })) => {
            format!("the host is installed and verified, and {name} is closed: it is still to be started from its disk")
        }
        Ok(Some(State::Failed { .. } | State::Closed { .. })) => {
            format!("{name} is closed: the host is not given the installer any more")
        }
        Ok(Some(State::Armed | State::Installed)) => open("it is open as before"),
        Ok(None) => format!("there is no job {name} any more"),
        Err(why) => open(why),
    }
}

/// An URL of ours without the token in its path.
fn without_right(url: &str) -> String {
    url.split_once("/t/").map_or_else(String::new, |(server, _)| server.to_owned())
}

#[cfg(test)]
mod tests;
