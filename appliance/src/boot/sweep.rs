//! Clearing away: the files of jobs that are long over are deleted, so that the folder of jobs does not grow for ever.
//!
//! Only a file that is understood and says that its job is over is deleted, with what lies beside it.

use super::jobs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How often the folder is cleared.
pub(super) const EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long the files of a job stay after its end.
const KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Jobs that are over, of which files stay, at most: those that ended last.
const KEPT_COUNT: usize = 1_000;
/// What lies beside the file of a job: its log, the packets of its boot, the sign that its installer works, and what
/// was written when a kill came.
const BESIDE: [&str; 4] = ["log", "pcap", "alive", "new"];

/// Deletes the files of jobs that have been over for more than 30 days, and of all but the 1,000 that ended last. Gives
/// how many jobs that were.
///
/// # Errors
/// When the folder cannot be read, or a file cannot be deleted; the others are deleted all the same.
pub(super) fn sweep(folder: &Path, now: SystemTime) -> io::Result<usize> {
    sweep_to(folder, now, KEPT_COUNT)
}

fn sweep_to(folder: &Path, now: SystemTime, kept_count: usize) -> io::Result<usize> {
    let mut over = jobs_over(folder)?;
    over.sort_unstable_by(|one, other| other.cmp(one));
    let mut outcome = Ok(());
    let mut swept = 0_usize;
    for (place, (ended, path)) in over.iter().enumerate() {
        // An end that lies ahead of a clock that was set back is not long ago.
        let long_ago = now.duration_since(*ended).is_ok_and(|age| age > KEPT);
        if !long_ago && place < kept_count {
            continue;
        }
        match delete(path) {
            Ok(()) => swept = swept.saturating_add(1),
            Err(error) => outcome = Err(error),
        }
    }
    outcome.map(|()| swept)
}

/// The files of jobs that are over, each with when it was written last: that was its end.
fn jobs_over(folder: &Path) -> io::Result<Vec<(SystemTime, PathBuf)>> {
    let mut over = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let Ok(ended) = entry.metadata().and_then(|about| about.modified()) else { continue };
        if jobs::read(&path).is_ok_and(|job| !job.is_open()) {
            over.push((ended, path));
        }
    }
    Ok(over)
}

/// The file of the job itself goes last: what a kill leaves is found by it the next time.
fn delete(path: &Path) -> io::Result<()> {
    for extension in BESIDE {
        match std::fs::remove_file(path.with_extension(extension)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    std::fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::super::job::Task;
    use super::super::jobs::Jobs;
    use super::*;
    use protocol::name::Name;
    use pxe::mac::Mac;
    use std::collections::HashMap;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn arm(jobs: &Jobs, name: &str, card: u8) -> Name {
        let (name, mac): (Name, _) = (name.parse().unwrap(), Mac([2, 0, 0, 0, 0, card]));
        jobs.arm(name.clone(), mac, Task::example(mac)).unwrap();
        name
    }

    /// Closes a job, with all that may lie beside it, as of so long ago.
    fn ended(jobs: &Jobs, folder: &Path, name: &Name, ago: Duration) {
        jobs.advance(name, |state| Some(state.closed("disarmed"))).unwrap();
        for extension in BESIDE {
            std::fs::write(folder.join(format!("{name}.{extension}")), "x").unwrap();
        }
        written(folder, name, ago);
    }

    fn written(folder: &Path, name: &Name, ago: Duration) {
        let file = std::fs::File::options().write(true).open(folder.join(format!("{name}.json"))).unwrap();
        file.set_modified(SystemTime::now() - ago).unwrap();
    }

    /// What lies in the folder of these jobs.
    fn left(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
        names.retain(|name| name != "lock" && name != "arming");
        names.sort();
        names
    }

    #[test]
    fn jobs_that_are_long_over_go_with_all_their_files_and_open_ones_never() {
        let folder = std::env::temp_dir().join(format!("rackmedic-sweep-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let jobs = Jobs::open(&folder, HashMap::new()).unwrap();
        let open = arm(&jobs, "open", 1);
        written(&folder, &open, 400 * DAY);
        let old = arm(&jobs, "old.1", 2);
        ended(&jobs, &folder, &old, 31 * DAY);
        let new = arm(&jobs, "new", 3);
        ended(&jobs, &folder, &new, 29 * DAY);
        std::fs::write(folder.join("odd.json"), "{}").unwrap();
        assert_eq!(sweep(&folder, SystemTime::now()).unwrap(), 1);
        let stay = ["new.alive", "new.json", "new.log", "new.new", "new.pcap", "odd.json", "open.json"];
        assert_eq!(left(&folder), stay);
        assert_eq!(sweep(&folder, SystemTime::now() - 365 * DAY).unwrap(), 0, "the clock was set back");
        jobs.refresh().unwrap();
        let known: Vec<String> = jobs.all().iter().map(|job| job.name.to_string()).collect();
        assert_eq!(known, ["new", "open"], "what is gone is forgotten");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn of_jobs_that_are_over_those_stay_that_ended_last() {
        let folder = std::env::temp_dir().join(format!("rackmedic-sweep-count-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let jobs = Jobs::open(&folder, HashMap::new()).unwrap();
        for (name, card, days) in [("a", 1, 3), ("b", 2, 1), ("c", 3, 4), ("d", 4, 2)] {
            let name = arm(&jobs, name, card);
            ended(&jobs, &folder, &name, days * DAY);
        }
        arm(&jobs, "e", 5);
        assert_eq!(sweep_to(&folder, SystemTime::now(), 2).unwrap(), 2);
        let files: Vec<String> = left(&folder).into_iter().filter(|name| name.ends_with(".json")).collect();
        assert_eq!(files, ["b.json", "d.json", "e.json"]);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
