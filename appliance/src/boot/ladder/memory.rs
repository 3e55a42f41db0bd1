//! What is remembered of the methods, by host and by model: `data_dir/methods.json`. It is JSON for people to read, carry
//! to another site, and delete; a damaged file is named and never overwritten.

use super::Method;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The `version` that this code writes, and the only one it reads.
const VERSION: u32 = 1;
/// The largest file, bytes.
const LIMIT_BYTES: u64 = 16 << 20;
/// Hosts and models that are remembered, each.
const ENTRIES: usize = 20_000;

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The installer said hello.
    Succeeded,
    /// It did not come to that.
    Failed {
        /// How far it came.
        stage: String,
        /// Why, in words.
        why: String,
    },
    /// The BMC cannot do it.
    NotOffered {
        /// The BMC's firmware.
        firmware: String,
    },
}

/// One method's record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tally {
    /// How often the installer said hello.
    pub succeeded: u32,
    /// How often it ended at which stage.
    pub failed_at: BTreeMap<String, u32>,
    /// Failures since the last success.
    pub failed_in_a_row: u32,
    /// The BMC's firmware that did not offer it.
    pub not_offered_by: Option<String>,
    /// Why the last failure was one.
    pub last_failure: Option<String>,
    /// The last attempt, seconds since 1970.
    pub last_unix_s: u64,
}

/// What is remembered of one host or one model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Remembered(BTreeMap<Method, Tally>);

impl Remembered {
    /// Of one method.
    #[must_use]
    pub fn of(&self, method: Method) -> Option<&Tally> {
        self.0.get(&method)
    }

    /// Adds the end of an attempt.
    pub fn note(&mut self, method: Method, outcome: &Outcome, now_unix_s: u64) {
        let tally = self.0.entry(method).or_default();
        tally.last_unix_s = now_unix_s;
        match outcome {
            Outcome::Succeeded => {
                tally.succeeded = tally.succeeded.saturating_add(1);
                tally.failed_in_a_row = 0;
                tally.not_offered_by = None;
            }
            Outcome::Failed { stage, why } => {
                let count = tally.failed_at.entry(stage.clone()).or_default();
                *count = count.saturating_add(1);
                tally.failed_in_a_row = tally.failed_in_a_row.saturating_add(1);
                tally.last_failure = Some(why.clone());
            }
            Outcome::NotOffered { firmware } => tally.not_offered_by = Some(firmware.clone()),
        }
    }
}

/// Why the memory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The file system says no.
    #[error("{path}: {source}; which method worked is not remembered")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
    /// It is not ours.
    #[error(
        "{path} is no memory of boot methods of this release: {message}. It is left as it is; move it away to begin anew"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    hosts: BTreeMap<String, Remembered>,
    models: BTreeMap<String, Remembered>,
}

/// The memory of all hosts.
#[derive(Debug)]
pub struct Memory {
    path: PathBuf,
    content: Content,
}

impl Memory {
    /// The memory in this data folder; empty if there is none yet.
    ///
    /// # Errors
    /// When its file cannot be read or understood.
    pub fn open(data_dir: &Path) -> Result<Self, MemoryError> {
        let path = data_dir.join("methods.json");
        let content = read(&path)?;
        Ok(Self { path, content })
    }

    /// What is remembered of a host (its card) and of its model.
    #[must_use]
    pub fn of(&self, host: &str, model: &str) -> (Remembered, Remembered) {
        let known = |map: &BTreeMap<String, Remembered>, key: &str| map.get(key).cloned().unwrap_or_default();
        (known(&self.content.hosts, host), known(&self.content.models, model))
    }

    /// Adds the end of an attempt. It is on the disk when this returns. Two commands at once take turns.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn note(
        &mut self,
        host: &str,
        model: &str,
        method: Method,
        outcome: &Outcome,
        now_unix_s: u64,
    ) -> Result<(), MemoryError> {
        let failed = |source| MemoryError::Io { path: self.path.clone(), source };
        let lock = File::options().create(true).write(true).truncate(false).open(self.path.with_extension("lock"));
        let lock = lock.map_err(failed)?;
        lock.lock().map_err(failed)?;
        self.content = read(&self.path)?;
        for (map, key) in [(&mut self.content.hosts, host), (&mut self.content.models, model)] {
            if key.is_empty() || (map.len() >= ENTRIES && !map.contains_key(key)) {
                continue;
            }
            map.entry(key.to_owned()).or_default().note(method, outcome, now_unix_s);
        }
        write(&self.path, &self.content)
    }
}

fn read(path: &Path) -> Result<Content, MemoryError> {
    let damaged = |message: String| MemoryError::Damaged { path: path.to_owned(), message };
    let mut text = String::new();
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Content { version: VERSION, ..Content::default() });
        }
        Err(source) => return Err(MemoryError::Io { path: path.to_owned(), source }),
        Ok(file) => {
            let read = file.take(LIMIT_BYTES + 1).read_to_string(&mut text);
            read.map_err(|source| MemoryError::Io { path: path.to_owned(), source })?;
        }
    }
    if text.len() as u64 > LIMIT_BYTES {
        return Err(damaged("it is larger than 16 MiB".to_owned()));
    }
    let content: Content = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
    if content.version != VERSION {
        return Err(damaged(format!("it has version {}, this release reads {VERSION}", content.version)));
    }
    Ok(content)
}

fn write(path: &Path, content: &Content) -> Result<(), MemoryError> {
    let written = || {
        let text = serde_json::to_vec_pretty(content).map_err(io::Error::other)?;
        let beside = path.with_extension("new");
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o644).open(&beside)?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    written().map_err(|source| MemoryError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("rackmedic-methods-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn what_was_noted_is_there_for_the_next_command_and_two_writers_lose_nothing() {
        let folder = folder("noted");
        let (mut one, mut other) = (Memory::open(&folder).unwrap(), Memory::open(&folder).unwrap());
        let failed = Outcome::Failed { stage: "offered".to_owned(), why: "ignored".to_owned() };
        one.note("52:54:00:00:00:01", "Acme X1", Method::Pxe, &failed, 10).unwrap();
        other.note("52:54:00:00:00:02", "Acme X1", Method::Pxe, &failed, 11).unwrap();
        let (host, model) = Memory::open(&folder).unwrap().of("52:54:00:00:00:01", "Acme X1");
        assert_eq!(host.of(Method::Pxe).unwrap().failed_in_a_row, 1);
        assert_eq!(model.of(Method::Pxe).unwrap().failed_at["offered"], 2);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_damaged_file_is_named_and_left_as_it_is() {
        let folder = folder("damaged");
        let path = folder.join("methods.json");
        for text in ["{", r#"{"version":2,"hosts":{},"models":{}}"#, ""] {
            std::fs::write(&path, text).unwrap();
            let error = Memory::open(&folder).unwrap_err().to_string();
            assert!(error.contains("methods.json") && error.contains("left as it is"), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        std::fs::remove_dir_all(folder).unwrap();
    }
}
