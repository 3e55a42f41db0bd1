//! The audit: append-only rows, each with the hash of the one before. Trimmed only behind a signed checkpoint (rule 56).

use super::{Entry, JournalError};
use ed25519_dalek::{Signature, Signer, SigningKey, Verifier, VerifyingKey};
use healing::event::Event;
use serde::Serialize;
use sha2::{Digest, Sha256};

/// The hash before the first row.
pub const GENESIS: [u8; 32] = [0; 32];

/// A row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its number, from 1, without gaps.
    pub id: i64,
    /// Wall clock, Unix milliseconds.
    pub wall_ms: i64,
    /// What happened, as JSON; never a secret.
    pub body: String,
    /// Hash of the row before.
    pub previous: Vec<u8>,
    /// Hash of this row.
    pub hash: Vec<u8>,
}

/// The hash of a row.
#[must_use]
pub fn hash(id: i64, wall_ms: i64, body: &str, previous: &[u8]) -> [u8; 32] {
    Sha256::new()
        .chain_update(b"rackmedic audit v1")
        .chain_update(previous)
        .chain_update(id.to_be_bytes())
        .chain_update(wall_ms.to_be_bytes())
        .chain_update((body.len() as u64).to_be_bytes())
        .chain_update(body.as_bytes())
        .finalize()
        .into()
}

/// What of an entry belongs into the audit: orders of people, commands, notices and ends. Facts alone do not.
///
/// # Errors
/// It cannot be written as JSON.
pub fn body(entry: &Entry) -> Result<Option<String>, JournalError> {
    #[derive(Serialize)]
    struct Body<'a> {
        event: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        order: Option<&'a Event>,
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        commands: &'a [super::Ordered],
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        notices: &'a [healing::command::Notice],
    }
    let (event, order) = match &entry.event {
        Event::Operator(_) => ("operator", Some(&entry.event)),
        Event::Config(_) => ("config", Some(&entry.event)),
        Event::Started { .. } => ("started", Some(&entry.event)),
        Event::Lease { .. } => ("lease", None),
        Event::Stalled { .. } => ("stalled", Some(&entry.event)),
        Event::Store { .. } => ("store", Some(&entry.event)),
        Event::Fact { .. } => ("fact", None),
        Event::Wake { .. } => ("wake", None),
        Event::StepDone { .. } => ("step-done", None),
        Event::Install { .. } => ("install", None),
        Event::Sight(_) => ("sight", None),
    };
    if order.is_none() && entry.commands.is_empty() && entry.notices.is_empty() {
        return Ok(None);
    }
    let body = Body { event, order, commands: &entry.commands, notices: &entry.notices };
    serde_json::to_string(&body).map(Some).map_err(|e| JournalError::Io(e.to_string()))
}

/// A signed word about the chain up to a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The last row that it covers.
    pub upto: i64,
    /// That row's hash.
    pub hash: Vec<u8>,
    /// Ed25519 over both.
    pub signature: Vec<u8>,
}

fn message(upto: i64, hash: &[u8]) -> Vec<u8> {
    [b"rackmedic audit checkpoint v1".as_slice(), &upto.to_be_bytes(), hash].concat()
}

/// Signs a checkpoint.
#[must_use]
pub fn sign(seed: &[u8; 32], upto: i64, hash: &[u8]) -> Checkpoint {
    let signature = SigningKey::from_bytes(seed).sign(&message(upto, hash)).to_bytes().to_vec();
    Checkpoint { upto, hash: hash.to_vec(), signature }
}

/// The public key that verifies checkpoints of a seed.
#[must_use]
pub fn public_key(seed: &[u8; 32]) -> [u8; 32] {
    SigningKey::from_bytes(seed).verifying_key().to_bytes()
}

/// Where a chain is broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Break {
    /// The row.
    pub id: i64,
    /// What is wrong with it.
    pub what: String,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Rows looked at.
    pub rows: u64,
    /// Checkpoints looked at.
    pub checkpoints: u64,
    /// The first break; `None` = whole.
    pub broken: Option<Break>,
}

/// Verifies rows as they come, in order, in constant memory.
#[derive(Debug)]
pub struct ChainVerifier {
    key: Option<VerifyingKey>,
    checkpoints: Vec<Checkpoint>,
    next_id: i64,
    previous: Vec<u8>,
    found: Verified,
}

impl ChainVerifier {
    /// Begins behind the checkpoint that covers what was trimmed, if rows were.
    #[must_use]
    pub fn new(key: Option<[u8; 32]>, checkpoints: Vec<Checkpoint>, first_id: Option<i64>) -> ChainVerifier {
        let key = key.and_then(|k| VerifyingKey::from_bytes(&k).ok());
        let mut verifier = ChainVerifier {
            key,
            next_id: 1,
            previous: GENESIS.to_vec(),
            found: Verified { rows: 0, checkpoints: checkpoints.len() as u64, broken: None },
            checkpoints,
        };
        let first = first_id.unwrap_or(1);
        if first > 1 {
            match verifier.checkpoints.iter().find(|c| c.upto == first - 1).cloned() {
                Some(checkpoint) => {
                    verifier.next_id = first;
                    verifier.previous = checkpoint.hash;
                }
                None => verifier.fail(first, "the rows before it are missing without a signed checkpoint"),
            }
        }
        verifier.check_signatures();
        verifier
    }

    fn check_signatures(&mut self) {
        let Some(key) = self.key else { return };
        let wrong = self.checkpoints.iter().find(|c| {
            let bytes: Result<[u8; 64], _> = c.signature.as_slice().try_into();
            bytes.map_or(true, |b| key.verify(&message(c.upto, &c.hash), &Signature::from_bytes(&b)).is_err())
        });
        if let Some(upto) = wrong.map(|c| c.upto) {
            self.fail(upto, "the signature of its checkpoint is wrong");
        }
    }

    fn fail(&mut self, id: i64, what: &str) {
        self.found.broken.get_or_insert_with(|| Break { id, what: what.to_owned() });
    }

    /// Takes the next row.
    pub fn row(&mut self, row: &Row) {
        self.found.rows += 1;
        if self.found.broken.is_some() {
            return;
        }
        if row.id != self.next_id {
            self.fail(self.next_id, "this row is missing");
        } else if row.previous != self.previous {
            self.fail(row.id, "it does not follow from the row before it");
        } else if hash(row.id, row.wall_ms, &row.body, &row.previous).as_slice() != row.hash.as_slice() {
            self.fail(row.id, "its text or its time was changed");
        } else if self.checkpoints.iter().any(|c| c.upto == row.id && c.hash != row.hash) {
            self.fail(row.id, "it differs from its signed checkpoint");
        }
        self.next_id = row.id + 1;
        self.previous.clone_from(&row.hash);
    }

    /// What was found. `expected_rows` is the number that the database's own counter names: rows cut off at the end
    /// are missing too.
    #[must_use]
    pub fn finish(mut self, last_id: Option<i64>) -> Verified {
        if let Some(last) = last_id
            && last >= self.next_id
        {
            self.fail(self.next_id, "the rows from here to the end are missing");
        }
        self.found
    }
}
