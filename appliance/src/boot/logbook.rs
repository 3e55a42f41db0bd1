//! The flight recorder on the disk: one file of JSON lines for each job, read again after a restart.

use protocol::name::Name;
use pxe::mac::Mac;
use pxe::recorder::{Flight, Moment, Recorder};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The largest log of one job, bytes: a boot loop must not fill the disk.
const LOG_LIMIT_BYTES: u64 = 4 << 20;

#[derive(Serialize, Deserialize)]
struct Line {
    mac: String,
    #[serde(flatten)]
    moment: Moment,
}

/// The folder of logs.
#[derive(Debug)]
pub struct Logbook {
    folder: PathBuf,
    open: Mutex<HashMap<Name, (File, u64)>>,
}

impl Logbook {
    /// Logs in this folder.
    #[must_use]
    pub fn new(folder: &Path) -> Arc<Self> {
        Arc::new(Self { folder: folder.to_owned(), open: Mutex::default() })
    }

    /// A recorder that writes here.
    #[must_use]
    pub fn recorder(self: &Arc<Self>) -> Recorder {
        let book = Arc::clone(self);
        Recorder::new(8 << 20, Some(Box::new(move |job, mac, moment| book.write(job, mac, moment))))
    }

    fn write(&self, job: &Name, mac: Mac, moment: &Moment) {
        let Ok(mut text) = serde_json::to_vec(&Line { mac: mac.to_string(), moment: moment.clone() }) else { return };
        text.push(b'\n');
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if !open.contains_key(job) {
            if open.len() > 64 {
                open.clear();
            }
            let path = path(&self.folder, job);
            let Ok(file) = OpenOptions::new().create(true).append(true).open(&path) else {
                tracing::warn!(%job, "the flight recorder cannot write its file: its timeline ends with this process");
                return;
            };
            let length = file.metadata().map_or(0, |about| about.len());
            open.insert(job.clone(), (file, length));
        }
        let Some((file, length)) = open.get_mut(job) else { return };
        if *length + text.len() as u64 <= LOG_LIMIT_BYTES && file.write_all(&text).is_ok() {
            *length += text.len() as u64;
        }
    }

    /// Reads a job's log back into a recorder.
    pub fn restore(&self, job: &Name, recorder: &Recorder) {
        for line in lines(&self.folder, job) {
            if let Ok(mac) = line.mac.parse() {
                recorder.restore(job, mac, line.moment);
            }
        }
    }
}

/// A job's flight as it lies on the disk, for a person to read.
#[must_use]
pub fn read(folder: &Path, job: &Name) -> Option<Flight> {
    let recorder = Recorder::default();
    for line in lines(folder, job) {
        recorder.restore(job, line.mac.parse().ok()?, line.moment);
    }
    recorder.flight(job)
}

fn lines(folder: &Path, job: &Name) -> Vec<Line> {
    let Ok(file) = File::open(path(folder, job)) else { return Vec::new() };
    // A line that was cut by a kill is left out; so is one of a newer release.
    let lines = BufReader::new(file).lines().map_while(Result::ok).take(100_000);
    lines.filter_map(|line| serde_json::from_str(&line).ok()).collect()
}

fn path(folder: &Path, job: &Name) -> PathBuf {
    folder.join(format!("{job}.log"))
}
