//! The record of one rejoin: what the old Node was, and what is done. One file for each host, written whole beside, synced
//! and renamed. It holds no secret.

use super::StepError;
use super::names::NodeName;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Taint;
use protocol::name::Name;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Longest record that is read.
const RECORD_MAX: u64 = 1 << 20;

/// One write at a time: whoever writes has just looked whose record it is.
static WRITING: Mutex<()> = Mutex::new(());

/// What people gave the old Node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Marks {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its taints, but for those that say how a Node fares.
    pub taints: Vec<Taint>,
    /// A person had cordoned it.
    pub cordoned: bool,
}

/// Which Node it was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The object's UID.
    pub uid: String,
    /// The boot that its kubelet told last.
    pub boot_id: String,
    /// The machine that its kubelet told.
    pub machine_id: String,
    /// The address ranges of its Pods.
    pub pod_ranges: Vec<String>,
}

/// A credential, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Its ID.
    pub id: String,
    /// When it was made first. Whatever is done for it, it never lives longer than half an hour from then (rule 40). Earlier
    /// records do not say it: theirs lives no longer than it does.
    #[serde(default)]
    pub made: Timestamp,
    /// Until when it lives, by this appliance's clock.
    pub until: Timestamp,
    /// The cluster said that it is there.
    pub created: bool,
    /// An installer was given it, so it lies on the host's disk, and no other would get there. Earlier records do not say
    /// it, and theirs may.
    #[serde(default = "may_be")]
    pub handed_out: bool,
}

fn may_be() -> bool {
    true
}

/// The content of a record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    version: u32,
    /// The Node's name.
    pub node: NodeName,
    /// The job of which this is the rejoin.
    pub job: Name,
    /// What people gave the old Node. Kept from an earlier job whose restore was never reached.
    pub marks: Option<Marks>,
    /// The old Node was looked for; it is in `old`, if there was one.
    pub saved: bool,
    /// The old Node.
    pub old: Option<Identity>,
    /// The old Node itself is gone, though other things may still bear its name. Earlier records do not say it.
    #[serde(default)]
    pub gone: bool,
    /// `marks` are of a Node that is gone, of this job or an earlier one. Earlier records do not say it.
    #[serde(default)]
    pub owed: bool,
    /// Its identity is gone from the cluster.
    pub removed: bool,
    /// The credential; its secret is in the cluster alone.
    pub token: Option<TokenRecord>,
    /// The credential of an earlier job that was never deleted.
    pub stale_token_id: Option<String>,
    /// The new Node, found Ready in a new boot.
    pub new: Option<Identity>,
    /// Labels and taints are as they were.
    pub restored: bool,
    /// The credential is gone.
    pub credential_deleted: bool,
}

impl Content {
    /// What people gave a Node that is gone, until it is given back. Marks of a Node that was only looked at are not owed: it
    /// has them itself, or people took them away.
    #[must_use]
    pub fn owed_marks(&self) -> Option<&Marks> {
        self.marks.as_ref().filter(|_| (self.owed || self.removed) && !self.restored)
    }
}

/// A record with its place.
#[derive(Debug)]
pub struct Record {
    path: PathBuf,
    content: Content,
}

const VERSION: u32 = 1;

impl Record {
    /// Opens the record of a host for a job, or begins it. Of an earlier job's record what people gave the Node is kept, if
    /// it was not given back.
    ///
    /// # Errors
    /// It cannot be read or written, or is of a later version.
    pub fn open(folder: &Path, node: &NodeName, job: &Name) -> Result<Record, StepError> {
        std::fs::create_dir_all(folder).map_err(|e| odd(folder, e.to_string()))?;
        let path = place(folder, node);
        let _one = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
        let earlier = read(&path)?;
        if let Some(content) = earlier.as_ref().filter(|content| content.job == *job) {
            return Ok(Record { path, content: content.clone() });
        }
        let stale_token_id = earlier.as_ref().and_then(|earlier| {
            let live = earlier.token.as_ref().filter(|_| !earlier.credential_deleted);
            live.map(|token| token.id.clone()).or_else(|| earlier.stale_token_id.clone())
        });
        let owed = earlier.as_ref().is_some_and(|earlier| earlier.owed_marks().is_some());
        let content = Content {
            version: VERSION,
            node: node.clone(),
            job: job.clone(),
            marks: earlier.filter(|earlier| !earlier.restored).and_then(|earlier| earlier.marks),
            saved: false,
            old: None,
            gone: false,
            owed,
            removed: false,
            token: None,
            stale_token_id,
            new: None,
            restored: false,
            credential_deleted: false,
        };
        write(&path, &content)?;
        Ok(Record { path, content })
    }

    /// Opens the record of a host if it is of this job; nothing is begun, whichever job has it now.
    ///
    /// # Errors
    /// It cannot be read, or is of a later version.
    pub fn existing(folder: &Path, node: &NodeName, job: &Name) -> Result<Option<Record>, StepError> {
        let path = place(folder, node);
        let content = read(&path)?.filter(|content| content.job == *job);
        Ok(content.map(|content| Record { path, content }))
    }

    /// What it says.
    #[must_use]
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// Changes it; when this returns, the change is on the disk.
    ///
    /// # Errors
    /// It cannot be written, or a later job has the record; then nothing is changed.
    pub fn change(&mut self, change: impl FnOnce(&mut Content)) -> Result<(), StepError> {
        let _one = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
        // The boot servers alone and the step machine each have a lock of their own: what one has begun for a host, the other
        // does not write over.
        if let Some(later) = read(&self.path)?.filter(|there| there.job != self.content.job) {
            return Err(StepError::Stop(format!(
                "job {} has begun for {} meanwhile: job {} does nothing more for it",
                later.job, self.content.node, self.content.job
            )));
        }
        let mut content = self.content.clone();
        change(&mut content);
        write(&self.path, &content)?;
        self.content = content;
        Ok(())
    }
}

fn place(folder: &Path, node: &NodeName) -> PathBuf {
    folder.join(format!("{node}.json"))
}

fn write(path: &Path, content: &Content) -> Result<(), StepError> {
    let mut bytes = serde_json::to_vec_pretty(content).map_err(|e| odd(path, e.to_string()))?;
    bytes.push(b'\n');
    let beside = path.with_extension("new");
    let written = (|| {
        let mut file = File::create(&beside)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    })();
    written.map_err(|e: std::io::Error| odd(path, e.to_string()))
}

/// The record of a host, if there is one; nothing is begun.
///
/// # Errors
/// It cannot be read, or is of a later version.
pub fn look(folder: &Path, node: &NodeName) -> Result<Option<Content>, StepError> {
    read(&place(folder, node))
}

/// Node and job of every record in a folder.
///
/// # Errors
/// The folder cannot be read.
pub fn all(folder: &Path) -> Result<Vec<(NodeName, Name)>, StepError> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(odd(folder, error.to_string())),
    };
    let mut all = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "json"))
    {
        if let Some(content) = read(&path)? {
            all.push((content.node, content.job));
        }
    }
    all.sort();
    Ok(all)
}

fn odd(path: &Path, why: String) -> StepError {
    StepError::Record { path: path.display().to_string(), why }
}

fn read(path: &Path) -> Result<Option<Content>, StepError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(odd(path, error.to_string())),
    };
    let mut bytes = Vec::new();
    file.take(RECORD_MAX).read_to_end(&mut bytes).map_err(|e| odd(path, e.to_string()))?;
    let content: Content = serde_json::from_slice(&bytes).map_err(|e| odd(path, e.to_string()))?;
    if content.version != VERSION {
        return Err(odd(path, format!("it is of version {}, this appliance knows {VERSION}", content.version)));
    }
    Ok(Some(content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_of_an_earlier_record_counts_as_handed_out_and_as_old() {
        let text = r#"{"id": "abcdef", "until": "2026-11-29T10:00:00Z", "created": true}"#;
        let token: TokenRecord = serde_json::from_str(text).unwrap();
        assert!(token.created && token.handed_out);
        assert_eq!(token.made, Timestamp::UNIX_EPOCH);
        let written = TokenRecord { handed_out: false, made: token.until, ..token };
        let read: TokenRecord = serde_json::from_str(&serde_json::to_string(&written).unwrap()).unwrap();
        assert_eq!(read, written);
    }

    #[test]
    fn marks_that_were_not_given_back_survive_into_the_next_job() {
        let folder = std::env::temp_dir().join(format!("rackmedic-record-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let node: NodeName = "n1".parse().unwrap();
        let [first, second, third] = ["a", "b", "c"].map(|job| job.parse::<Name>().unwrap());
        let mut marks = Marks::default();
        marks.labels.insert("pool".to_owned(), "fast".to_owned());

        // Given a first job that saved the marks and never came further
        let mut record = Record::open(&folder, &node, &first).unwrap();
        record.change(|c| (c.marks, c.saved) = (Some(marks.clone()), true)).unwrap();
        assert_eq!(Record::open(&folder, &node, &first).unwrap().content(), record.content());
        // When a second begins, then it has them, and nothing else
        let mut record = Record::open(&folder, &node, &second).unwrap();
        assert_eq!(record.content().marks, Some(marks));
        assert!(!record.content().saved && !record.content().owed, "its Node was never removed");
        // When the second gave them back, then the third begins with none
        record.change(|c| c.restored = true).unwrap();
        assert_eq!(Record::open(&folder, &node, &third).unwrap().content().marks, None);
        // A record that is no record is never taken for an empty one
        std::fs::write(folder.join("n1.json"), b"{").unwrap();
        assert!(matches!(Record::open(&folder, &node, &third), Err(StepError::Record { .. })));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn marks_are_owed_from_the_removal_until_they_are_given_back_over_all_jobs_between() {
        let folder = std::env::temp_dir().join(format!("rackmedic-record-owed-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let node: NodeName = "n1".parse().unwrap();
        let open = |job: &str| Record::open(&folder, &node, &job.parse().unwrap()).unwrap();
        let mut record = open("a");
        record.change(|c| (c.marks, c.saved) = (Some(Marks::default()), true)).unwrap();
        assert_eq!(record.content().owed_marks(), None);
        // A record from before `owed` says it by `removed`
        record.change(|c| c.removed = true).unwrap();
        assert_eq!(record.content().owed_marks(), Some(&Marks::default()));
        assert!(open("b").content().owed && open("c").content().owed);
        let mut record = open("d");
        record.change(|c| c.restored = true).unwrap();
        assert_eq!(record.content().owed_marks(), None);
        assert!(!open("e").content().owed);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn an_earlier_job_writes_nothing_over_a_later_one() {
        let folder = std::env::temp_dir().join(format!("rackmedic-record-later-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let node: NodeName = "n1".parse().unwrap();
        let [first, second] = ["a", "b"].map(|job| job.parse::<Name>().unwrap());
        let mut earlier = Record::open(&folder, &node, &first).unwrap();
        let later = Record::open(&folder, &node, &second).unwrap();
        assert!(matches!(earlier.change(|c| c.saved = true), Err(StepError::Stop(_))));
        assert!(!earlier.content().saved);
        assert_eq!(look(&folder, &node).unwrap().as_ref(), Some(later.content()));
        // Nor is it begun anew by whoever only follows it
        assert!(Record::existing(&folder, &node, &first).unwrap().is_none());
        assert!(Record::existing(&folder, &node, &second).unwrap().is_some());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
