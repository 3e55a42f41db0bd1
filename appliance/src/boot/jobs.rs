//! The folder of job files, and the tickets that follow from it.
//!
//! One file for each job, written whole beside, synced, and renamed over the old one. A file that cannot be understood
//! opens nothing and is named in the log.

use super::clock;
use super::job::{HostWays, Job, State, Task, VERSION};
use protocol::digest::Sha256;
use protocol::install::InstallStage;
use protocol::name::Name;
use pxe::gate::{Now, Ticket, Tickets, Token};
use pxe::mac::Mac;
use std::collections::HashMap;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

/// Files read from the folder at most.
const JOBS_LIMIT: usize = 10_000;
/// The largest job file, bytes: the files of a first boot are in it.
const JOB_FILE_LIMIT_BYTES: u64 = 2 << 20;

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
}

impl Held {
    fn new(job: Job) -> Self {
        Self { job, touched: clock::now(), progress: None }
    }
}

/// What a file looks like: when it was written, its length, its inode. A file that is renamed over another has a new one.
type Look = (std::time::SystemTime, u64, u64);

fn look(about: &Metadata) -> Look {
    (about.modified().unwrap_or(std::time::UNIX_EPOCH), about.len(), about.ino())
}

#[derive(Debug, Default)]
struct Known {
    jobs: HashMap<Name, Held>,
    /// Files that were read, with what they looked like, so that only changed ones are read again.
    files: HashMap<PathBuf, Look>,
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

    /// Reads files that are new or were changed by somebody else. Only jobs that are new, or that were closed, count: the
    /// state of a job that runs is moved on by this process alone.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn refresh(&self) -> Result<Vec<Name>, JobError> {
        let failed = |source| JobError::Io { path: self.folder.clone(), source };
        let mut news = Vec::new();
        let mut files = 0_usize;
        for entry in std::fs::read_dir(&self.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            files = files.saturating_add(1);
            if files > JOBS_LIMIT {
                tracing::error!(folder = %self.folder.display(), limit = JOBS_LIMIT,
                    "there are more job files than are read: some jobs open nothing. Move those that are over elsewhere");
                break;
            }
            let Ok(about) = entry.metadata() else { continue };
            let look = look(&about);
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            if known.files.get(&path) == Some(&look) {
                continue;
            }
            known.files.insert(path.clone(), look);
            let job = match read(&path) {
                Ok(job) => job,
                Err(error) => {
                    tracing::warn!(%error, "a job file is not used");
                    continue;
                }
            };
            let takes = known
                .jobs
                .get(&job.name)
                .is_none_or(|held| held.job.is_open() && matches!(job.state, State::Closed { .. }));
            if takes {
                news.push(job.name.clone());
                known.jobs.insert(job.name.clone(), Held::new(job));
            }
        }
        Ok(news)
    }

    /// Opens a job: a ticket for its card, for 30 minutes.
    ///
    /// # Errors
    /// When the name or the card is taken, or it cannot be written.
    pub fn arm(&self, name: Name, mac: Mac, task: Task) -> Result<Job, JobError> {
        self.refresh()?;
        let busy = self
            .of_card(mac)
            .filter(|job| job.is_open() && self.ticket(&job.name).is_some_and(|t| t.alive(clock::now()).is_ok()));
        if let Some(job) = busy {
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
        // Others write too (`boot disarm`, the closing of a ticket): one at a time, and each on top of what the last one
        // wrote, or a job that was just closed would run on.
        let _one = self.lock()?;
        let on_disk = path.metadata().ok().map(|about| look(&about));
        let theirs = match on_disk {
            Some(on_disk) if known.files.get(&path) != Some(&on_disk) => Some((read(&path)?, on_disk)),
            _ => None,
        };
        if let Some((_, on_disk)) = theirs {
            known.files.insert(path.clone(), on_disk);
        }
        let held = known.jobs.get_mut(name).ok_or_else(|| JobError::Unknown(name.clone()))?;
        if let Some((job, _)) = theirs {
            *held = Held { job, ..*held };
        }
        let Some(job) = change(&held.job) else { return Ok(None) };
        self.write(&job)?;
        *held = Held::new(job.clone());
        if let Ok(about) = path.metadata() {
            known.files.insert(path, look(&about));
        }
        Ok(Some(job))
    }

    /// Held until it is dropped: no other process or instance writes a job meanwhile.
    fn lock(&self) -> Result<File, JobError> {
        let path = self.folder.join("lock");
        let lock = File::options().create(true).write(true).truncate(false).mode(0o600).open(&path);
        let locked = lock.and_then(|lock| lock.lock().map(|()| lock));
        locked.map_err(|source| JobError::Io { path, source })
    }

    /// The installer of this job says how far it is. Only one that comes further is alive: one that hangs in a disk that
    /// resets for ever repeats itself each second (rule 35). The configuration has no bytes, and its own limit.
    pub fn told(&self, name: &Name, stage: InstallStage, done_bytes: u64) {
        if let Some(held) = self.known.write().unwrap_or_else(PoisonError::into_inner).jobs.get_mut(name)
            && (held.progress != Some((stage, done_bytes)) || stage == InstallStage::Configure)
        {
            held.progress = Some((stage, done_bytes));
            held.touched = clock::now();
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

fn read(path: &Path) -> Result<Job, JobError> {
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
