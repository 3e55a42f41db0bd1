//! The folder of job files, and the tickets that follow from it.
//!
//! One file for each job, written whole beside, synced, and renamed over the old one. A file that cannot be understood
//! opens nothing and is named in the log.

use super::alive;
use super::clock;
use super::job::{HostWays, Job, State, Task, VERSION};
use protocol::digest::Sha256;
use protocol::install::InstallStage;
use protocol::name::Name;
use pxe::gate::{Now, REPORT_TTL, Ticket, Tickets, Token};
use pxe::mac::Mac;
use std::collections::{HashMap, HashSet};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

/// Files of jobs that are not over, read from the folder at most.
const JOBS_LIMIT: usize = 10_000;
/// The largest job file, bytes: the files of a first boot are in it.
const JOB_FILE_LIMIT_BYTES: u64 = 2 << 20;
/// How often it is shown on the disk that an installer comes further.
const ALIVE_EVERY: Duration = Duration::from_secs(10);
/// How long an installer asks for the files of the first boot before it gives up by itself: for so long it is alive
/// without coming further.
const CONFIGURE_WAIT: Duration = Duration::from_secs(10 * 60);

/// Why a job cannot be opened or moved on.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The file system says no.
    #[error("the job file {path}: {source}; nothing was given to the host")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
    /// There is one of this name.
    #[error("there is a job {0} already: a job is opened once, choose another name")]
    Exists(Name),
    /// The card has an open job.
    #[error("{mac} has an open job, {job}: close it first (`rackmedic boot disarm {job}`)")]
    Busy {
        /// The card.
        mac: Mac,
        /// Its job.
        job: Name,
    },
    /// There is none of this name.
    #[error("there is no job {0}")]
    Unknown(Name),
    /// No randomness.
    #[error("the kernel gives no random numbers, so no ticket can be opened: {0}")]
    Random(getrandom::Error),
    /// A file is not a job.
    #[error("{path} is no job of this release: {message}; it opens nothing until it is put right or removed")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}

#[derive(Debug)]
struct Held {
    job: Job,
    /// The last time that its installer came further.
    touched: Now,
    /// How far it was then: the stage, and the bytes that are done of it.
    progress: Option<(InstallStage, u64)>,
    /// Since when the job is in this state, and its installer in this stage.
    since: Now,
    /// When it was last shown on the disk that its installer came further.
    shown: Option<Now>,
}

impl Held {
    fn new(job: Job) -> Self {
        let now = clock::now();
        Self { job, touched: now, progress: None, since: now, shown: None }
    }

    /// Whether this report is one of an installer that comes further. One that hangs in a disk that resets for ever
    /// repeats itself each second (rule 35). While it waits for the files of the first boot there is nothing to count.
    fn comes_further(&mut self, stage: InstallStage, done_bytes: u64, now: Now) -> bool {
        let waits = stage == InstallStage::Configure && now.elapsed.saturating_sub(self.since.elapsed) < CONFIGURE_WAIT;
        if self.progress == Some((stage, done_bytes)) && !waits {
            return false;
        }
        self.progress = Some((stage, done_bytes));
        self.touched = now;
        true
    }

    /// Whether that is to be shown on the disk now: not each second.
    fn shows(&mut self, now: Now) -> bool {
        let due = self.shown.is_none_or(|then| now.elapsed.saturating_sub(then.elapsed) >= ALIVE_EVERY);
        if due {
            self.shown = Some(now);
        }
        due
    }
}

/// What a file looks like: when it was written, its length, its inode. A file that is renamed over another has a new one.
type Look = (SystemTime, u64, u64);

fn look(about: &Metadata) -> Look {
    (about.modified().unwrap_or(SystemTime::UNIX_EPOCH), about.len(), about.ino())
}

#[derive(Debug, Default)]
struct Known {
    jobs: HashMap<Name, Held>,
    /// Files that were read, with what they looked like, so that only changed ones are read again.
    files: HashMap<PathBuf, Look>,
}

impl Known {
    /// Reads a file that is new or was changed by somebody else. Gives the job, if something of it is news.
    fn take(&mut self, path: &Path, look: Look) -> Option<Name> {
        if self.files.get(path) == Some(&look) {
            return None;
        }
        self.files.insert(path.to_owned(), look);
        let job = match read(path) {
            Ok(job) => job,
            Err(error) => {
                tracing::warn!(%error, "a job file is not used");
                return None;
            }
        };
        // What is over here stays over, whatever a file says.
        let takes = self.jobs.get(&job.name).is_none_or(|held| held.job.is_open() && !job.is_open());
        takes.then(|| {
            let name = job.name.clone();
            self.jobs.insert(name.clone(), Held::new(job));
            name
        })
    }

    /// How many files were read that are not those of jobs that are over.
    fn files_not_over(&self) -> usize {
        self.files.keys().filter(|path| !self.is_over(path)).count()
    }

    /// Whether this is the file of a job that is known to be over.
    fn is_over(&self, path: &Path) -> bool {
        let name = path.file_stem().and_then(|stem| stem.to_str()?.parse::<Name>().ok());
        name.and_then(|name| self.jobs.get(&name)).is_some_and(|held| !held.job.is_open())
    }
}

/// All jobs.
#[derive(Debug)]
pub struct Jobs {
    folder: PathBuf,
    boot_id: String,
    ways: HashMap<Mac, HostWays>,
    known: RwLock<Known>,
}

impl Jobs {
    /// The jobs in this folder, which is made if it is not there.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(folder: &Path, ways: HashMap<Mac, HostWays>) -> Result<Self, JobError> {
        let failed = |source| JobError::Io { path: folder.to_owned(), source };
        std::fs::create_dir_all(folder).map_err(failed)?;
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(failed)?.trim().to_owned();
        let jobs = Self { folder: folder.to_owned(), boot_id, ways, known: RwLock::default() };
        jobs.refresh()?;
        Ok(jobs)
    }

    /// Reads files that are new or were changed by somebody else. Only jobs that are new, or that are over by now, count:
    /// each change of a job that runs reads its file anyway. Jobs that are over and whose files are gone are forgotten.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn refresh(&self) -> Result<Vec<Name>, JobError> {
        self.refresh_within(JOBS_LIMIT)
    }

    fn refresh_within(&self, limit: usize) -> Result<Vec<Name>, JobError> {
        let failed = |source| JobError::Io { path: self.folder.clone(), source };
        let (mut news, mut there) = (Vec::new(), HashSet::new());
        let mut counted = self.known.read().unwrap_or_else(PoisonError::into_inner).files_not_over();
        let mut left_out = 0_usize;
        for entry in std::fs::read_dir(&self.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let Ok(about) = entry.metadata() else { continue };
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            let new = !known.files.contains_key(&path);
            if new && counted >= limit {
                left_out = left_out.saturating_add(1);
                continue;
            }
            news.extend(known.take(&path, look(&about)));
            if new && !known.is_over(&path) {
                counted = counted.saturating_add(1);
            }
            there.insert(path);
        }
        if left_out > 0 {
            tracing::error!(folder = %self.folder.display(), limit, left_out,
                "there are more files of jobs that are not over than are read: some jobs open nothing. Move files that \
                 are no jobs elsewhere, and close jobs that nobody needs");
        }
        self.forget_gone(&there);
        Ok(news)
    }

    /// Forgets jobs that are over and whose files are not there any more.
    fn forget_gone(&self, there: &HashSet<PathBuf>) {
        // A listing may miss a file that is replaced at that moment.
        let gone = |path: &Path| !there.contains(path) && path.try_exists().is_ok_and(|exists| !exists);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.files.retain(|path, _| !gone(path));
        known.jobs.retain(|name, held| held.job.is_open() || !gone(&self.path(name)));
    }

    /// Opens a job: a ticket for its card, for 30 minutes.
    ///
    /// # Errors
    /// When the name or the card is taken, or it cannot be written.
    pub fn arm(&self, name: Name, mac: Mac, task: Task) -> Result<Job, JobError> {
        // One at a time: two who both find the card free would both open a ticket for it. A lock of its own, since it is held
        // while what is known is read and changed.
        let _one = self.lock("arming")?;
        self.refresh()?;
        if let Some(job) = self.of_card(mac).filter(|job| self.holds(job)) {
            return Err(JobError::Busy { mac, job: job.name });
        }
        let job = Job {
            version: VERSION,
            name: name.clone(),
            task,
            token: Token::new(random()?).as_str().to_owned(),
            media_token: Token::new(random()?).as_str().to_owned(),
            nonce: Token::new(random()?).as_str().to_owned(),
            boot_id: self.boot_id.clone(),
            opened: clock::now(),
            system_uuid: None,
            state: State::Armed,
        };
        let path = self.path(&name);
        if path.exists() {
            return Err(JobError::Exists(name));
        }
        self.write(&job)?;
        self.keep(job.clone());
        Ok(job)
    }

    /// Whether the card is this open job's still: its ticket lives, or its installer works, which only the instance knows
    /// to which it reports.
    fn holds(&self, job: &Job) -> bool {
        self.ticket(&job.name).is_some_and(|ticket| ticket.alive(clock::now()).is_ok())
            || alive::within(&self.folder, &job.name, REPORT_TTL)
    }

    /// Moves a job on. The new state is on the disk when this returns, and only then in force.
    ///
    /// # Errors
    /// When there is no such job, or it cannot be written.
    pub fn advance(&self, name: &Name, change: impl FnOnce(&State) -> Option<State>) -> Result<Option<Job>, JobError> {
        self.change(name, |job| Some(Job { state: change(&job.state)?, ..job.clone() }))
    }

    fn change(&self, name: &Name, change: impl FnOnce(&Job) -> Option<Job>) -> Result<Option<Job>, JobError> {
        let path = self.path(name);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let known = &mut *known;
        let held = known.jobs.get_mut(name).ok_or_else(|| JobError::Unknown(name.clone()))?;
        // Others write too (`boot disarm`, the closing of a ticket): one at a time, and each on top of what the last one
        // wrote, or a job that was just closed would run on. Its file is always read: what it looks like may be known
        // while the state in it was not taken.
        let _one = self.lock("lock")?;
        if let Ok(about) = path.metadata() {
            let job = read(&path)?;
            known.files.insert(path.clone(), look(&about));
            // What is over here stays over.
            if held.job.is_open() || !job.is_open() {
                *held = Held { job, ..*held };
            }
        }
        let Some(job) = change(&held.job) else { return Ok(None) };
        self.write(&job)?;
        *held = Held::new(job.clone());
        if let Ok(about) = path.metadata() {
            known.files.insert(path, look(&about));
        }
        Ok(Some(job))
    }

    /// Held until it is dropped: no other process or instance does the same meanwhile. `lock` is for the writing of a job.
    fn lock(&self, name: &str) -> Result<File, JobError> {
        let path = self.folder.join(name);
        let lock = File::options().create(true).write(true).truncate(false).mode(0o600).open(&path);
        let locked = lock.and_then(|lock| lock.lock().map(|()| lock));
        locked.map_err(|source| JobError::Io { path, source })
    }

    /// The installer of this job says how far it is. Only one that comes further is alive; that it is, is shown on the
    /// disk as well, to whoever opened the job from another instance ([`alive::last`]).
    pub fn told(&self, name: &Name, stage: InstallStage, done_bytes: u64) {
        let now = clock::now();
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let held = known.jobs.get_mut(name);
        let shows = held.is_some_and(|held| held.comes_further(stage, done_bytes, now) && held.shows(now));
        drop(known);
        if shows && let Err(error) = alive::show(&self.folder, name) {
            tracing::warn!(job = %name, %error,
                "that the installer works could not be shown: who waits for it may give it up");
        }
    }

    /// A job.
    #[must_use]
    pub fn job(&self, name: &Name) -> Option<Job> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).jobs.get(name).map(|held| held.job.clone())
    }

    /// All jobs, by name.
    #[must_use]
    pub fn all(&self) -> Vec<Job> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let mut jobs: Vec<Job> = known.jobs.values().map(|held| held.job.clone()).collect();
        jobs.sort_by(|a, b| a.name.cmp(&b.name));
        jobs
    }

    /// What the site says of a card.
    #[must_use]
    pub fn ways(&self, mac: Mac) -> HostWays {
        self.ways.get(&mac).cloned().unwrap_or_default()
    }

    /// The ticket of a job, alive or not.
    #[must_use]
    pub fn ticket(&self, name: &Name) -> Option<Ticket> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.jobs.get(name).and_then(|held| self.ticket_of(held))
    }

    /// The job for whose virtual drive this token is, with its ticket.
    #[must_use]
    pub fn of_media(&self, token: &Token) -> Option<(Job, Ticket)> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let held = known.jobs.values().find(|held| held.job.media_token == token.as_str())?;
        Some((held.job.clone(), self.ticket_of(held)?))
    }

    fn ticket_of(&self, held: &Held) -> Option<Ticket> {
        let ways = self.ways(held.job.mac()?);
        held.job.ticket(&ways, held.touched, &self.boot_id, clock::now())
    }

    /// The open job of a card; the youngest, if somebody put two files there by hand.
    fn of_card(&self, mac: Mac) -> Option<Job> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let of_card = known.jobs.values().filter(|held| held.job.is_open() && held.job.mac() == Some(mac));
        of_card.max_by_key(|held| held.job.opened.wall).map(|held| held.job.clone())
    }

    fn keep(&self, job: Job) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.jobs.insert(job.name.clone(), Held::new(job));
    }

    fn path(&self, name: &Name) -> PathBuf {
        self.folder.join(format!("{name}.json"))
    }

    fn write(&self, job: &Job) -> Result<(), JobError> {
        let path = self.path(&job.name);
        let text = serde_json::to_vec_pretty(job)
            .map_err(|e| JobError::Damaged { path: path.clone(), message: e.to_string() })?;
        let beside = path.with_extension("new");
        let write = || {
            // Token, nonce and the files of the first boot are secrets.
            let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&beside)?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&beside, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|source| JobError::Io { path: path.clone(), source })
    }
}

fn random() -> Result<[u8; 16], JobError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(JobError::Random)?;
    Ok(bytes)
}

/// The job in a file.
///
/// # Errors
/// When it cannot be read, or is no job that this release understands.
pub(super) fn read(path: &Path) -> Result<Job, JobError> {
    let failed = |source| JobError::Io { path: path.to_owned(), source };
    let damaged = |message: String| JobError::Damaged { path: path.to_owned(), message };
    if path.metadata().map_err(failed)?.len() > JOB_FILE_LIMIT_BYTES {
        return Err(damaged("it is larger than 2 MiB".to_owned()));
    }
    let job: Job = serde_json::from_slice(&std::fs::read(path).map_err(failed)?).map_err(|e| damaged(e.to_string()))?;
    if job.version != VERSION {
        return Err(damaged(format!("it has version {}, this release reads {VERSION}", job.version)));
    }
    let named = path.file_stem().is_some_and(|stem| stem == job.name.as_str());
    if !named
        || job.mac().is_none_or(|mac| !mac.is_unicast())
        || Token::parse(&job.token).is_none()
        || !job.task.disk.is_given()
        || (job.task.of_image().is_none() && !job.task.prove)
    {
        return Err(damaged("its name, card, token, disk or image is missing or odd".to_owned()));
    }
    Ok(job)
}

impl Tickets for Jobs {
    fn of_mac(&self, mac: Mac) -> Option<Arc<Ticket>> {
        let job = self.of_card(mac)?;
        self.ticket(&job.name).map(Arc::new)
    }

    fn of_token(&self, token: &Token) -> Option<Arc<Ticket>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let held = known.jobs.values().find(|held| held.job.token == token.as_str())?;
        self.ticket_of(held).map(Arc::new)
    }

    fn now(&self) -> Now {
        clock::now()
    }
}

/// What comes of a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelloState {
    /// The first one: the state is on the disk, the order may go out.
    First,
    /// The same installer repeats it.
    Again,
    /// Another installer says it while the first one lives.
    Second,
    /// The job is over.
    Over,
}

impl Jobs {
    /// Burns the nonce: the job is now this installer's, on the machine that it says it is.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn hello(
        &self,
        name: &Name,
        boot: &str,
        session: Sha256,
        system_uuid: Option<&str>,
    ) -> Result<HelloState, JobError> {
        let mut seen = HelloState::Second;
        // A UUID has 36 characters; more is nobody's.
        let system_uuid = system_uuid.filter(|text| text.len() <= 64).map(str::to_owned);
        self.change(name, |job| {
            let stage = match &job.state {
                State::Armed => {
                    seen = HelloState::First;
                    InstallStage::Hello
                }
                State::Installing { boot: known, stage, .. } if known == boot => {
                    seen = HelloState::Again;
                    *stage
                }
                State::Installing { .. } => return None,
                State::Installed | State::Failed { .. } | State::Closed { .. } => {
                    seen = HelloState::Over;
                    return None;
                }
            };
            let state = State::Installing { boot: boot.to_owned(), session, stage };
            Some(Job { state, system_uuid, ..job.clone() })
        })?;
        Ok(seen)
    }
}

#[cfg(test)]
mod tests;
