//! The audit: append-only rows, each with the hash of the one before. Trimmed only behind a signed checkpoint (rule
//! 56), and signed from time to time as far as it goes.

use super::lock::hex;
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

/// What a checkpoint says of the row that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Says {
    /// It and all before it were trimmed.
    Trimmed,
    /// The chain goes as far as this at least.
    Reached,
}

/// A signed word about the chain up to a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The last row that it covers; 0 = before the first.
    pub upto: i64,
    /// That row's hash.
    pub hash: Vec<u8>,
    /// Ed25519 over both, and over what it says.
    pub signature: Vec<u8>,
}

impl Checkpoint {
    /// What it says, if this public key signed it. One thing cannot be passed off as the other.
    #[must_use]
    pub fn says(&self, key: &[u8; 32]) -> Option<Says> {
        let key = VerifyingKey::from_bytes(key).ok()?;
        let signature: &[u8; 64] = self.signature.as_slice().try_into().ok()?;
        let signature = Signature::from_bytes(signature);
        let said = |says: &Says| key.verify(&message(*says, self.upto, &self.hash), &signature).is_ok();
        [Says::Trimmed, Says::Reached].into_iter().find(said)
    }
}

fn message(says: Says, upto: i64, hash: &[u8]) -> Vec<u8> {
    let about: &[u8] = match says {
        Says::Trimmed => b"rackmedic audit checkpoint v1",
        Says::Reached => b"rackmedic audit reached v1",
    };
    [about, &upto.to_be_bytes(), hash].concat()
}

/// Signs a checkpoint.
#[must_use]
pub fn sign(seed: &[u8; 32], says: Says, upto: i64, hash: &[u8]) -> Checkpoint {
    let signature = SigningKey::from_bytes(seed).sign(&message(says, upto, hash)).to_bytes().to_vec();
    Checkpoint { upto, hash: hash.to_vec(), signature }
}

/// The public key that verifies checkpoints of a seed.
#[must_use]
pub fn public_key(seed: &[u8; 32]) -> [u8; 32] {
    SigningKey::from_bytes(seed).verifying_key().to_bytes()
}

/// A public key from its 64 hexadecimal digits.
#[must_use]
pub fn parse_key(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut key = [0; 32];
    for (byte, pair) in key.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(key)
}

/// Where a chain is broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Break {
    /// The row; 0 = no single one.
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
    /// The row up to which it is signed: to be noted elsewhere, for it never goes back.
    pub signed_to: Option<i64>,
    /// The public key in the database, in hexadecimal digits: to be kept elsewhere.
    pub public_key: Option<String>,
    /// The first break; `None` = whole.
    pub broken: Option<Break>,
}

/// Verifies rows as they come, in order, in constant memory.
#[derive(Debug)]
pub struct ChainVerifier {
    checkpoints: Vec<Checkpoint>,
    next_id: i64,
    previous: Vec<u8>,
    found: Verified,
}

impl ChainVerifier {
    /// Begins behind the checkpoint that covers what was trimmed, if rows were. `key` is the public key in the
    /// database, `known` the one that it should be, where somebody kept it.
    #[must_use]
    pub fn new(
        key: Option<[u8; 32]>,
        known: Option<&[u8; 32]>,
        checkpoints: Vec<Checkpoint>,
        first_id: Option<i64>,
    ) -> ChainVerifier {
        let public_key = key.map(|key| hex(&key));
        let found =
            Verified { rows: 0, checkpoints: checkpoints.len() as u64, signed_to: None, public_key, broken: None };
        let mut verifier = ChainVerifier { next_id: 1, previous: GENESIS.to_vec(), found, checkpoints };
        let first = first_id.unwrap_or(1);
        let mut trimmed = None;
        match &key {
            None => verifier.fail(0, "the public key of its signatures is missing from the database"),
            Some(key) if known.is_some_and(|known| known != key) => {
                verifier.fail(0, "its public key is not the one given: all of it may be written and signed anew");
            }
            Some(key) => trimmed = verifier.read_checkpoints(key, first),
        }
        if first > 1 {
            match trimmed {
                Some(hash) => {
                    verifier.next_id = first;
                    verifier.previous = hash;
                }
                None => verifier.fail(first, "the rows before it are missing without a signed checkpoint"),
            }
        }
        verifier
    }

    /// Checks the signatures. Gives the hash behind which the first row comes, if that is signed.
    fn read_checkpoints(&mut self, key: &[u8; 32], first: i64) -> Option<Vec<u8>> {
        let mut trimmed = None;
        for checkpoint in self.checkpoints.clone() {
            match checkpoint.says(key) {
                None => self.fail(checkpoint.upto, "the signature of its checkpoint is wrong"),
                Some(Says::Trimmed) if checkpoint.upto == first.saturating_sub(1) => trimmed = Some(checkpoint.hash),
                Some(Says::Trimmed) => {}
                Some(Says::Reached) => self.found.signed_to = self.found.signed_to.max(Some(checkpoint.upto)),
            }
        }
        trimmed
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
        self.next_id = row.id.saturating_add(1);
        self.previous.clone_from(&row.hash);
    }

    /// What was found. `counted` is the last row by the database's own count, `entries` how many its journal has: rows
    /// cut off at the end are missing too.
    #[must_use]
    pub fn finish(mut self, counted: Option<i64>, entries: u64) -> Verified {
        let (next, end) = (self.next_id, self.next_id.saturating_sub(1));
        if let Some(signed) = self.found.signed_to.filter(|signed| *signed > end) {
            self.fail(next, &format!("the rows from here to {signed} are missing: that one was signed"));
        }
        match counted {
            Some(counted) if counted > end => self.fail(next, "the rows from here to the end are missing"),
            Some(counted) if counted < end => {
                self.fail(counted.saturating_add(1), "it was added past the appliance, whose own count ends before it");
            }
            None if self.found.rows > 0 => self.fail(end, "the database's own count of its rows is missing"),
            Some(_) | None => {}
        }
        if self.found.rows == 0 && entries > 0 {
            self.fail(1, "all rows are missing, though the journal has entries");
        }
        if self.found.signed_to.is_none() {
            self.fail(0, "no signature says how far it went: it was removed, or no release that signs ran on it yet");
        }
        self.found
    }
}
