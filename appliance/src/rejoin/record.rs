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

/// Longest record that is read.
const RECORD_MAX: u64 = 1 << 20;

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
        let path = folder.join(format!("{node}.json"));
        let earlier = read(&path)?;
        if let Some(content) = earlier.as_ref().filter(|content| content.job == *job) {
            return Ok(Record { path, content: content.clone() });
        }
        let stale_token_id = earlier.as_ref().and_then(|earlier| {
            let live = earlier.token.as_ref().filter(|_| !earlier.credential_deleted);
            live.map(|token| token.id.clone()).or_else(|| earlier.stale_token_id.clone())
        });
        let content = Content {
            version: VERSION,
            node: node.clone(),
            job: job.clone(),
            marks: earlier.filter(|earlier| !earlier.restored).and_then(|earlier| earlier.marks),
            saved: false,
            old: None,
            removed: false,
            token: None,
            stale_token_id,
            new: None,
            restored: false,
            credential_deleted: false,
        };
        let mut record = Record { path, content };
        record.change(|_| ())?;
        Ok(record)
    }

    /// What it says.
    #[must_use]
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// Changes it; when this returns, the change is on the disk.
    ///
    /// # Errors
    /// It cannot be written; then nothing is changed.
    pub fn change(&mut self, change: impl FnOnce(&mut Content)) -> Result<(), StepError> {
        let mut content = self.content.clone();
        change(&mut content);
        let mut bytes = serde_json::to_vec_pretty(&content).map_err(|e| odd(&self.path, e.to_string()))?;
        bytes.push(b'\n');
        let beside = self.path.with_extension("new");
        let written = (|| {
            let mut file = File::create(&beside)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            std::fs::rename(&beside, &self.path)?;
            self.path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
        })();
        written.map_err(|e: std::io::Error| odd(&self.path, e.to_string()))?;
        self.content = content;
        Ok(())
    }
}

/// The record of a host, if there is one; nothing is begun.
///
/// # Errors
/// It cannot be read, or is of a later version.
pub fn look(folder: &Path, node: &NodeName) -> Result<Option<Content>, StepError> {
    read(&folder.join(format!("{node}.json")))
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
        assert!(!record.content().saved);
        // When the second gave them back, then the third begins with none
        record.change(|c| c.restored = true).unwrap();
        assert_eq!(Record::open(&folder, &node, &third).unwrap().content().marks, None);
        // A record that is no record is never taken for an empty one
        std::fs::write(folder.join("n1.json"), b"{").unwrap();
        assert!(matches!(Record::open(&folder, &node, &third), Err(StepError::Record { .. })));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
