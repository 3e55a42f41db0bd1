//! What the tests of the file servers share.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    dead_code,
    unreachable_pub,
    reason = "tests; not each uses all of it"
)]

pub mod relay;

use bytes::Bytes;
use pxe::files::{Body, BootFile, FileRequest, Files, Transfer, TransferEvent, Withheld};
use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;

/// Files by name, and what was noted of their transfers.
#[derive(Debug, Default)]
pub struct Folder {
    /// The files.
    pub files: HashMap<String, Body>,
    /// The name that everybody is told not to be there; of others nothing is said.
    pub not_there: &'static str,
    /// What was noted: name and event.
    pub noted: Mutex<Vec<(String, TransferEvent)>>,
}

impl Folder {
    /// With these bytes by these names.
    pub fn of(files: &[(&str, Bytes)]) -> Self {
        let files = files.iter().map(|(name, bytes)| ((*name).to_owned(), Body::Bytes(bytes.clone()))).collect();
        Self { files, not_there: "not-there", noted: Mutex::default() }
    }

    /// Notes so far.
    pub fn notes(&self) -> Vec<(String, TransferEvent)> {
        self.noted.lock().unwrap().clone()
    }
}

impl Files for Folder {
    fn open(&self, request: &FileRequest<'_>) -> Result<BootFile, Withheld> {
        if request.path == self.not_there {
            return Err(Withheld::NotThere);
        }
        let body = self.files.get(request.path).ok_or(Withheld::Silence)?.clone();
        Ok(BootFile { body, media_type: "application/octet-stream", sha256: Some([7; 32]), tag: 1 })
    }

    fn transferred(&self, transfer: &Transfer<'_>) {
        self.noted.lock().unwrap().push((transfer.path.to_owned(), transfer.what.clone()));
    }
}

/// Bytes that no two blocks have in common.
pub fn noise(length: usize, seed: u64) -> Bytes {
    let mut random = Random(seed);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, seeded, the same everywhere.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// True in so many of a hundred cases.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

/// Whether a program is there. With `RACKMEDIC_PEERS` set it has to be: then the peers were installed.
pub fn has(program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()));
    if !found {
        assert!(std::env::var_os("RACKMEDIC_PEERS").is_none(), "{program} is missing: run tests/peers/install-boot");
        eprintln!("not run: {program} is not here (tests/peers/install-boot brings it)");
    }
    found
}

/// A folder of this test, removed at its end.
#[derive(Debug)]
pub struct Scratch(pub PathBuf);

impl Scratch {
    /// A new one.
    pub fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("rackmedic-pxe-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs a client to its end; its standard output, and whether it ended well.
pub async fn run(mut command: Command) -> (bool, Vec<u8>, String) {
    tokio::task::spawn_blocking(move || {
        let output = command.output().unwrap();
        (output.status.success(), output.stdout, String::from_utf8_lossy(&output.stderr).into_owned())
    })
    .await
    .unwrap()
}
