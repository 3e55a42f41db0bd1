//! The reserve: a file laid while there was space, written when the database cannot be (rule 48). Frames one after the
//! other; each is its length, a checksum, and a group of entries as JSON. A torn frame ends the file.

use super::lock::io;
use super::{Entry, JournalError};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Size of the reserve in bytes: room for the ends of some hundred holds.
pub const SIZE: u64 = 4 * 1024 * 1024;
/// Length, then checksum.
const HEAD: usize = 4 + 32;

/// A group in the reserve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Under which epoch.
    pub epoch: u64,
    /// The number of its first entry less one.
    pub expected: u64,
    /// The entries.
    pub entries: Vec<Entry>,
}

/// The reserve of a data directory.
#[derive(Debug)]
pub struct Reserve {
    path: PathBuf,
    end: u64,
}

impl Reserve {
    /// Lays the reserve if it is not there, and finds its end.
    ///
    /// # Errors
    /// There is no space to lay it, or it cannot be read.
    pub fn open(directory: &Path) -> Result<Reserve, JournalError> {
        let path = directory.join("reserve");
        let mut file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path).map_err(|e| io(&e))?;
        let length = file.metadata().map_err(|e| io(&e))?.len();
        if length < SIZE {
            // Written, not merely sized: a hole would need new blocks on the day that there are none.
            file.seek(SeekFrom::Start(length)).map_err(|e| io(&e))?;
            let zeros = vec![0u8; 64 * 1024];
            let mut left = SIZE - length;
            while left > 0 {
                let part = usize::try_from(left).unwrap_or(usize::MAX).min(zeros.len());
                file.write_all(zeros.get(..part).unwrap_or(&zeros)).map_err(|e| io(&e))?;
                left -= part as u64;
            }
            file.sync_all().map_err(|e| io(&e))?;
        }
        let mut reserve = Reserve { path, end: 0 };
        reserve.end = reserve.read()?.1;
        Ok(reserve)
    }

    /// All whole frames.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn frames(&self) -> Result<Vec<Frame>, JournalError> {
        Ok(self.read()?.0)
    }

    fn read(&self) -> Result<(Vec<Frame>, u64), JournalError> {
        let mut bytes = Vec::new();
        File::open(&self.path).and_then(|f| f.take(SIZE).read_to_end(&mut bytes)).map_err(|e| io(&e))?;
        let mut frames = Vec::new();
        let mut at = 0;
        while let Some((frame, length)) = bytes.get(at..).and_then(parse) {
            frames.push(frame);
            at += length;
        }
        Ok((frames, at as u64))
    }

    /// Appends a frame, durably, without needing a new block.
    ///
    /// # Errors
    /// It does not fit, or even this file cannot be written.
    pub fn append(&mut self, frame: &Frame) -> Result<(), JournalError> {
        let body = serde_json::to_vec(frame).map_err(|e| JournalError::Reserve(e.to_string()))?;
        let length = u32::try_from(body.len()).map_err(|_| JournalError::Reserve("too long".to_owned()))?;
        let end = self.end + HEAD as u64 + u64::from(length);
        if end + 4 > SIZE {
            return Err(JournalError::Reserve("it is full".to_owned()));
        }
        let mut bytes = Vec::with_capacity(HEAD + body.len() + 4);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&Sha256::digest(&body));
        bytes.extend_from_slice(&body);
        // What stood here before must not be taken for the next frame.
        bytes.extend_from_slice(&[0; 4]);
        let mut file = OpenOptions::new().write(true).open(&self.path).map_err(|e| io(&e))?;
        file.seek(SeekFrom::Start(self.end))
            .and_then(|_| file.write_all(&bytes))
            .and_then(|()| file.sync_data())
            .map_err(|e| JournalError::Reserve(e.to_string()))?;
        self.end = end;
        Ok(())
    }

    /// Keeps a copy beside, for people, and empties it.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn set_aside(&mut self) -> Result<PathBuf, JournalError> {
        let aside = self.path.with_extension("aside");
        std::fs::copy(&self.path, &aside).map_err(|e| io(&e))?;
        self.clear()?;
        Ok(aside)
    }

    /// Empties it: what it held stands in the database.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn clear(&mut self) -> Result<(), JournalError> {
        let mut file = OpenOptions::new().write(true).open(&self.path).map_err(|e| io(&e))?;
        file.write_all(&[0; HEAD]).and_then(|()| file.sync_data()).map_err(|e| io(&e))?;
        self.end = 0;
        Ok(())
    }
}

/// One frame at the head of `bytes`, and how long it is; `None` at the end or at a torn frame.
fn parse(bytes: &[u8]) -> Option<(Frame, usize)> {
    let (head, rest) = bytes.split_at_checked(HEAD)?;
    let (length, sum) = head.split_at_checked(4)?;
    let length = u32::from_be_bytes(length.try_into().ok()?) as usize;
    let body = rest.get(..length).filter(|body| !body.is_empty())?;
    if Sha256::digest(body).as_slice() != sum {
        return None;
    }
    Some((serde_json::from_slice(body).ok()?, HEAD + length))
}
