//! Tickets and installs: a job of the decisions is a job file of the boot servers, and what becomes of that file goes back
//! to the loop.
//!
//! The boot servers own a job once it is open; they are spoken to through its files alone, as the bench tools do, so it is
//! of no matter whether they run in this process. A restart finds everything on the disk.

use crate::boot::alive;
use crate::boot::job::{Job, State, Task};
use crate::boot::jobs::{JobError, Jobs};
use crate::decide_loop::{Inbox, Order};
use healing::command::Reply;
use healing::event::InstallReport;
use healing::id::{HostId, IncidentId, JobId, MachineId};
use protocol::install::FailureCode;
use protocol::name::Name;
use pxe::mac::Mac;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio_util::sync::CancellationToken;

/// How often open jobs are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// A job file at most, bytes.
const JOB_BYTES_MAX: u64 = 2 << 20;

/// Who knows what is to be installed on a host.
pub trait InstallPlans: Send + Sync + std::fmt::Debug + 'static {
    /// The card that boots, and what is written onto which disk.
    ///
    /// # Errors
    /// Why this host cannot be installed, in words.
    fn plan(&self, host: HostId) -> Result<(Mac, Task), String>;

    /// The card that boots, and which disk is read, of a spare that is to be proven.
    ///
    /// # Errors
    /// Why this host cannot be proven, in words.
    fn proof(&self, host: HostId) -> Result<(Mac, Task), String>;
}

/// The job files, from the side of the decisions.
#[derive(Debug)]
pub struct Installs {
    folder: PathBuf,
    jobs: Arc<Jobs>,
    plans: Arc<dyn InstallPlans>,
}

/// The job file of a job: which incident, and which try of it.
fn name_of(job: JobId) -> Option<Name> {
    format!("heal-{}-{}", job.0 >> 8, job.0 & 0xff).parse().ok()
}

/// The incident of a job file, if it is one of an incident.
#[must_use]
pub fn incident_of(job: &Name) -> Option<IncidentId> {
    try_of(job).map(|(incident, _)| incident)
}

/// The incident of a job file, and which try of it.
fn try_of(job: &Name) -> Option<(IncidentId, u8)> {
    let (incident, number) = job.as_str().strip_prefix("heal-")?.split_once('-')?;
    Some((IncidentId(incident.parse().ok()?), number.parse().ok()?))
}

/// The card that a job is for.
#[must_use]
pub fn card_of(folder: &Path, job: &Name) -> Option<String> {
    read(folder, job).map(|job| job.task.mac)
}

impl Installs {
    /// Job files in this folder.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn open(folder: &Path, plans: Arc<dyn InstallPlans>) -> Result<Installs, JobError> {
        // What the site says of a card matters to those who answer it, not to those who open a job.
        let jobs = Arc::new(Jobs::open(folder, HashMap::new())?);
        Ok(Installs { folder: folder.to_owned(), jobs, plans })
    }

    /// Opens the ticket of a job that installs, or `proves` and writes nothing. Again is no harm: a job is opened once, and
    /// one that is open stays. What an earlier job of the same incident has left open is closed.
    pub async fn open_ticket(&self, host: HostId, job: JobId, proves: bool) -> Reply {
        let Some(name) = name_of(job) else { return Reply::ApiRefused };
        let plan = if proves { self.plans.proof(host) } else { self.plans.plan(host) };
        let jobs = Arc::clone(&self.jobs);
        let (mac, task) = match plan {
            Ok(plan) => plan,
            Err(why) => {
                tracing::warn!(host = host.0, %why, "no boot ticket: this host cannot be installed or proven");
                return Reply::ApiRefused;
            }
        };
        let opened = tokio::task::spawn_blocking(move || {
            jobs.refresh()?;
            match jobs.job(&name) {
                Some(known) if known.is_open() => Ok(()),
                Some(_) => Err(JobError::Exists(name)),
                None => {
                    close_earlier(&jobs, &name, mac)?;
                    jobs.arm(name, mac, task).map(drop)
                }
            }
        });
        match opened.await {
            Ok(Ok(())) => Reply::Ok,
            Ok(Err(why)) => {
                tracing::warn!(host = host.0, %why, "no boot ticket was opened");
                Reply::ApiRefused
            }
            Err(_) => Reply::ApiRefused,
        }
    }

    /// Closes the ticket of a job. One that is not there, or is over, is closed already.
    pub async fn close_ticket(&self, job: JobId) -> Reply {
        let Some(name) = name_of(job) else { return Reply::Ok };
        let jobs = Arc::clone(&self.jobs);
        let closed = tokio::task::spawn_blocking(move || {
            jobs.refresh()?;
            jobs.advance(&name, |state| ended(state, "closed by the appliance")).map(drop)
        });
        match closed.await {
            Ok(Ok(()) | Err(JobError::Unknown(_))) => Reply::Ok,
            Ok(Err(why)) => {
                tracing::warn!(%why, "a boot ticket could not be closed; it runs out by itself");
                Reply::ApiRefused
            }
            Err(_) => Reply::ApiRefused,
        }
    }

    /// Tells the loop what becomes of the jobs of its incidents, until it is stopped.
    pub async fn follow(&self, inbox: Inbox, stop: CancellationToken) {
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut told: HashMap<JobId, Sign> = HashMap::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let open: Vec<(HostId, JobId)> = inbox
                .views
                .hosts()
                .iter()
                .filter_map(|view| view.incident.as_ref())
                .filter_map(|incident| incident.job.map(|job| (incident.host, job)))
                .collect();
            told.retain(|job, _| open.iter().any(|(_, other)| other == job));
            for (host, job) in open {
                let Some(sign) = name_of(job).and_then(|name| sign(&self.folder, &name)) else { continue };
                if told.get(&job) == Some(&sign) {
                    continue;
                }
                // A loop whose store fails takes it later: it is told again.
                if inbox.submit(Order::Install { host, job, report: sign.report }).await.is_ok() {
                    told.insert(job, sign);
                }
            }
        }
    }
}

/// Closes what earlier jobs of the same incident have left open for this card. The decisions never have two; one that
/// they gave up would keep the card busy until its ticket runs out.
fn close_earlier(jobs: &Jobs, job: &Name, mac: Mac) -> Result<(), JobError> {
    let Some((incident, number)) = try_of(job) else { return Ok(()) };
    let earlier = |other: &Job| {
        let of = try_of(&other.name).is_some_and(|(of, its)| of == incident && its < number);
        of && other.is_open() && other.mac() == Some(mac)
    };
    for other in jobs.all().into_iter().filter(earlier) {
        let closed = jobs.advance(&other.name, |state| ended(state, "given up: its incident installs anew"))?;
        if closed.is_some() {
            tracing::info!(job = %other.name, by = %job, "a job that was open is closed: its incident installs anew");
        }
    }
    Ok(())
}

/// The state of a job that we end, whatever the boot servers have made of it meanwhile. `None`: it is over, and keeps
/// its end.
fn ended(state: &State, how: &str) -> Option<State> {
    match state {
        State::Armed | State::Installing { .. } | State::Installed => Some(state.closed(how)),
        State::Failed { .. } | State::Closed { .. } => None,
    }
}

/// What a job's files show. A later moment at which its installer came further is another sign of life. Its log is none:
/// it also grows by what a host asks that hangs in its firmware, and not while one long stage goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sign {
    report: InstallReport,
    alive: Option<SystemTime>,
}

fn sign(folder: &Path, name: &Name) -> Option<Sign> {
    let job = read(folder, name)?;
    let report = match job.state {
        // Its right may have run out before the loop took this: it is as installed as before.
        State::Installed | State::Closed { installed: true, .. } if job.task.prove => {
            InstallReport::Proven { machine: job.system_uuid.as_deref().and_then(machine_of) }
        }
        State::Installed | State::Closed { installed: true, .. } => InstallReport::Installed,
        State::Armed | State::Closed { installed: false, .. } => return None,
        State::Installing { .. } => InstallReport::Progress,
        State::Failed { failure } => match failure.code {
            FailureCode::ForeignData => InstallReport::ForeignData,
            FailureCode::NoDisk | FailureCode::ManyDisks => InstallReport::NoSuchDisk,
            _ => InstallReport::Failed,
        },
    };
    let alive = if report == InstallReport::Progress { alive::last(folder, name) } else { None };
    Some(Sign { report, alive })
}

/// The machine that a UUID names, as firmware and kernel write it.
fn machine_of(uuid: &str) -> Option<MachineId> {
    let digits: String = uuid.trim().chars().filter(|c| *c != '-').collect();
    let plain = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    plain.then(|| u128::from_str_radix(&digits, 16).ok().map(MachineId)).flatten()
}

fn read(folder: &Path, name: &Name) -> Option<Job> {
    let path = folder.join(format!("{name}.json"));
    if std::fs::metadata(&path).ok()?.len() > JOB_BYTES_MAX {
        return None;
    }
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::jobs::HelloState;
    use protocol::install::{Failure, InstallStage};

    #[derive(Debug)]
    struct OneDisk;

    impl InstallPlans for OneDisk {
        fn plan(&self, host: HostId) -> Result<(Mac, Task), String> {
            if host != HostId(1) {
                return Err("it has no disk".to_owned());
            }
            let mac = Mac([2, 0, 0, 0, 0, 1]);
            Ok((mac, Task::example(mac)))
        }

        fn proof(&self, host: HostId) -> Result<(Mac, Task), String> {
            let (mac, task) = self.plan(host)?;
            Ok((mac, Task { image: None, image_version: None, prove: true, ..task }))
        }
    }

    fn failed(code: FailureCode) -> State {
        let failure = Failure {
            stage: InstallStage::Hello,
            code,
            sentence: "LVM".to_owned(),
            candidates: Vec::new(),
            disk_touched: false,
        };
        State::Failed { failure: Box::new(failure) }
    }

    fn empty_folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("rackmedic-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        folder
    }

    #[tokio::test]
    async fn a_ticket_is_opened_once_shows_what_became_of_it_and_is_never_opened_again() {
        let folder = std::env::temp_dir().join(format!("rackmedic-installs-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let installs = Installs::open(&folder, Arc::new(OneDisk)).unwrap();
        let job = JobId((7 << 8) | 1);
        assert_eq!(installs.open_ticket(HostId(2), job, false).await, Reply::ApiRefused);
        assert_eq!(installs.open_ticket(HostId(1), job, false).await, Reply::Ok);
        assert_eq!(installs.open_ticket(HostId(1), job, false).await, Reply::Ok);
        let name = name_of(job).unwrap();
        assert_eq!(name.as_str(), "heal-7-1");
        assert_eq!((incident_of(&name), incident_of(&"by-hand".parse().unwrap())), (Some(IncidentId(7)), None));
        assert_eq!(card_of(&folder, &name).as_deref(), Some("02:00:00:00:00:01"));
        assert!(sign(&folder, &name).is_none(), "an armed job has shown nothing");
        // The boot servers, in another process.
        let theirs = Jobs::open(&folder, HashMap::new()).unwrap();
        theirs.hello(&name, "b", protocol::digest::Sha256::of(b"s"), None).unwrap();
        assert_eq!(sign(&folder, &name).unwrap().report, InstallReport::Progress);
        theirs.advance(&name, |_| Some(failed(FailureCode::ForeignData))).unwrap();
        assert_eq!(sign(&folder, &name).unwrap().report, InstallReport::ForeignData);
        assert_eq!(installs.close_ticket(job).await, Reply::Ok);
        assert_eq!(sign(&folder, &name).unwrap().report, InstallReport::ForeignData, "its end stays");
        let second = Installs::open(&folder, Arc::new(OneDisk)).unwrap();
        assert_eq!(second.open_ticket(HostId(1), job, false).await, Reply::ApiRefused, "rule 38");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn reports_that_come_further_are_signs_of_life_and_a_longer_log_is_none() {
        let folder = empty_folder("signs");
        let installs = Installs::open(&folder, Arc::new(OneDisk)).unwrap();
        let job = JobId((7 << 8) | 1);
        assert_eq!(installs.open_ticket(HostId(1), job, false).await, Reply::Ok);
        let name = name_of(job).unwrap();
        let theirs = Jobs::open(&folder, HashMap::new()).unwrap();
        theirs.hello(&name, "b", protocol::digest::Sha256::of(b"s"), None).unwrap();
        let hello = sign(&folder, &name).unwrap();
        assert_eq!(hello, Sign { report: InstallReport::Progress, alive: None });
        std::fs::write(folder.join(format!("{name}.log")), "its firmware asks for a loader\n").unwrap();
        assert_eq!(sign(&folder, &name), Some(hello));
        theirs.told(&name, InstallStage::Write, 1 << 20);
        let writes = sign(&folder, &name).unwrap();
        assert!(writes.alive.is_some() && writes.report == InstallReport::Progress);
        // Within the same seconds, and then one that hangs
        theirs.told(&name, InstallStage::Write, 2 << 20);
        theirs.told(&name, InstallStage::Write, 2 << 20);
        assert_eq!(sign(&folder, &name), Some(writes));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn after_a_failed_install_the_next_one_of_its_incident_has_its_ticket_at_once() {
        let folder = empty_folder("again");
        let installs = Installs::open(&folder, Arc::new(OneDisk)).unwrap();
        let (first, second) = (JobId((7 << 8) | 1), JobId((7 << 8) | 2));
        assert_eq!(installs.open_ticket(HostId(1), first, false).await, Reply::Ok);
        let name = name_of(first).unwrap();
        let theirs = Jobs::open(&folder, HashMap::new()).unwrap();
        theirs.hello(&name, "b", protocol::digest::Sha256::of(b"s"), None).unwrap();
        theirs.advance(&name, |_| Some(failed(FailureCode::DiskWrite))).unwrap();
        assert_eq!(installs.open_ticket(HostId(1), second, false).await, Reply::Ok);
        assert_eq!(sign(&folder, &name).unwrap().report, InstallReport::Failed, "its end stays");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn a_job_that_hangs_is_closed_by_the_next_one_of_its_incident_and_by_no_other() {
        let folder = empty_folder("hangs");
        let installs = Installs::open(&folder, Arc::new(OneDisk)).unwrap();
        let (first, second) = (JobId((7 << 8) | 1), JobId((7 << 8) | 2));
        assert_eq!(installs.open_ticket(HostId(1), first, false).await, Reply::Ok);
        let name = name_of(first).unwrap();
        let theirs = Jobs::open(&folder, HashMap::new()).unwrap();
        let hello = |name: &Name| theirs.hello(name, "b", protocol::digest::Sha256::of(b"s"), None).unwrap();
        assert_eq!(hello(&name), HelloState::First);
        let other = JobId((8 << 8) | 2);
        assert_eq!(installs.open_ticket(HostId(1), other, false).await, Reply::ApiRefused, "another incident's");
        assert_eq!(installs.open_ticket(HostId(1), second, false).await, Reply::Ok);
        assert_eq!(hello(&name), HelloState::Over);
        assert!(sign(&folder, &name).is_none(), "closed and not installed");
        assert_eq!(installs.close_ticket(second).await, Reply::Ok);
        assert_eq!(installs.open_ticket(HostId(1), other, false).await, Reply::Ok);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn closing_what_failed_meanwhile_makes_its_end_known() {
        let folder = empty_folder("failed");
        let installs = Installs::open(&folder, Arc::new(OneDisk)).unwrap();
        let (first, other) = (JobId((7 << 8) | 1), JobId((8 << 8) | 1));
        assert_eq!(installs.open_ticket(HostId(1), first, false).await, Reply::Ok);
        let name = name_of(first).unwrap();
        let theirs = Jobs::open(&folder, HashMap::new()).unwrap();
        theirs.advance(&name, |_| Some(failed(FailureCode::DiskWrite))).unwrap();
        assert_eq!(installs.close_ticket(first).await, Reply::Ok);
        assert!(!installs.jobs.job(&name).unwrap().is_open());
        assert_eq!(installs.open_ticket(HostId(1), other, false).await, Reply::Ok, "the card is free");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn what_was_installed_or_proven_is_told_also_when_its_right_has_run_out() {
        let folder = empty_folder("late");
        let installs = Installs::open(&folder, Arc::new(OneDisk)).unwrap();
        let theirs = Jobs::open(&folder, HashMap::new()).unwrap();
        let proven = InstallReport::Proven { machine: None };
        for (incident, proves, report) in [(7, false, InstallReport::Installed), (8, true, proven)] {
            let job = JobId((incident << 8) | 1);
            assert_eq!(installs.open_ticket(HostId(1), job, proves).await, Reply::Ok);
            let name = name_of(job).unwrap();
            theirs.refresh().unwrap();
            theirs.hello(&name, "b", protocol::digest::Sha256::of(b"s"), None).unwrap();
            theirs.advance(&name, |_| Some(State::Installed)).unwrap();
            let told = sign(&folder, &name);
            assert_eq!(told.unwrap().report, report);
            theirs.advance(&name, |state| Some(state.closed("installed"))).unwrap();
            assert_eq!(sign(&folder, &name), told, "and it is told once");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn our_closing_keeps_what_the_boot_servers_had_written() {
        let folder = empty_folder("kept");
        let installs = Installs::open(&folder, Arc::new(OneDisk)).unwrap();
        let job = JobId((7 << 8) | 1);
        assert_eq!(installs.open_ticket(HostId(1), job, false).await, Reply::Ok);
        let name = name_of(job).unwrap();
        let theirs = Jobs::open(&folder, HashMap::new()).unwrap();
        theirs.hello(&name, "b", protocol::digest::Sha256::of(b"s"), Some("u")).unwrap();
        theirs.advance(&name, |_| Some(State::Installed)).unwrap();
        assert_eq!(installs.close_ticket(job).await, Reply::Ok);
        let closed = read(&folder, &name).unwrap();
        assert!(!closed.is_open() && closed.state.is_installed() && closed.system_uuid.as_deref() == Some("u"));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn what_another_closed_stays_closed_whoever_writes_next() {
        let folder = std::env::temp_dir().join(format!("rackmedic-closed-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let installs = Installs::open(&folder, Arc::new(OneDisk)).unwrap();
        let theirs = Jobs::open(&folder, HashMap::new()).unwrap();
        let hello = |name: &Name| theirs.hello(name, "b", protocol::digest::Sha256::of(b"s"), None).unwrap();
        for (number, said_before) in [(1, false), (2, true)] {
            let job = JobId((9 << 8) | number);
            assert_eq!(installs.open_ticket(HostId(1), job, false).await, Reply::Ok);
            let name = name_of(job).unwrap();
            theirs.refresh().unwrap();
            if said_before {
                assert_eq!(hello(&name), HelloState::First);
            }
            // Closed in the instant before the boot servers look again
            assert_eq!(installs.close_ticket(job).await, Reply::Ok);
            assert_eq!(hello(&name), HelloState::Over, "its installer is not taken in");
            assert!(matches!(read(&folder, &name).unwrap().state, State::Closed { .. }));
            assert!(matches!(theirs.job(&name).unwrap().state, State::Closed { .. }));
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn the_job_of_a_proof_names_no_image_and_tells_whose_firmware_it_ran_under() {
        let folder = std::env::temp_dir().join(format!("rackmedic-proofs-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let installs = Installs::open(&folder, Arc::new(OneDisk)).unwrap();
        let job = JobId((8 << 8) | 1);
        assert_eq!(installs.open_ticket(HostId(1), job, true).await, Reply::Ok);
        let name = name_of(job).unwrap();
        let theirs = Jobs::open(&folder, HashMap::new()).unwrap();
        let uuid = "01234567-89ab-cdef-0123-456789abcdef";
        theirs.hello(&name, "b", protocol::digest::Sha256::of(b"s"), Some(uuid)).unwrap();
        assert_eq!(sign(&folder, &name).unwrap().report, InstallReport::Progress);
        theirs.advance(&name, |_| Some(State::Installed)).unwrap();
        let machine = Some(MachineId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef));
        assert_eq!(sign(&folder, &name).unwrap().report, InstallReport::Proven { machine });
        // Without an image nothing can be taken for a job that writes.
        let path = folder.join(format!("{name}.json"));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("\"image\"") && text.contains("\"prove\": true"), "{text}");
        std::fs::write(&path, text.replace("\"prove\": true,", "")).unwrap();
        assert!(Jobs::open(&folder, HashMap::new()).unwrap().job(&name).is_none());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
