//! What the file servers (TFTP and HTTP) ask before they say a word: is there a file of this name for this peer, now?
//!
//! The servers know nothing of tickets; whoever implements [`Files`] asks the gate. There is no file system behind it:
//! a name is looked up, never opened as a path.

use bytes::Bytes;
use std::fs::File;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// By which protocol a file is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// RFC 1350.
    Tftp,
    /// RFC 9112.
    Http,
}

/// One request for a file.
#[derive(Clone, Copy, Debug)]
pub struct FileRequest<'a> {
    /// By which protocol.
    pub protocol: Protocol,
    /// Who asks.
    pub peer: SocketAddr,
    /// Which of our addresses was asked.
    pub local: SocketAddr,
    /// The name, without a leading `/`; never empty, without `.` and `..` as a part, control bytes or backslashes.
    pub path: &'a str,
}

/// Where the bytes of a file are.
#[derive(Clone, Debug)]
pub enum Body {
    /// In memory.
    Bytes(Bytes),
    /// In an open file, from `offset`, `length` bytes. Sent without a copy through this process where the protocol can.
    File {
        /// The file, opened for reading. It must not shrink while it is served.
        file: Arc<File>,
        /// Where the body begins in the file, bytes.
        offset: u64,
        /// How long it is, bytes.
        length: u64,
    },
}

impl Body {
    /// The length, bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { length, .. } => *length,
        }
    }
}

/// A file that may be given to the one who asked.
#[derive(Clone, Debug)]
pub struct BootFile {
    /// Its bytes.
    pub body: Body,
    /// The media type for HTTP, such as `application/efi`.
    pub media_type: &'static str,
    /// What identifies these bytes for HTTP's validators: the SHA-256 of the whole file, when it is known.
    pub sha256: Option<[u8; 32]>,
    /// For whom this is: comes back in every [`Transfer`] about it.
    pub tag: u64,
}

/// What became of a transfer, for the flight recorder.
#[derive(Clone, Debug)]
pub struct Transfer<'a> {
    /// By which protocol.
    pub protocol: Protocol,
    /// The tag of the [`BootFile`].
    pub tag: u64,
    /// To whom.
    pub peer: SocketAddr,
    /// The name that was asked for.
    pub path: &'a str,
    /// What happened.
    pub what: TransferEvent,
}

/// One moment of a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransferEvent {
    /// It begins. For TFTP with the options that were agreed on; for HTTP the range that was asked for.
    Began {
        /// The first byte that is sent (0 but for a range).
        from_byte: u64,
        /// How many bytes are to be sent.
        bytes: u64,
        /// What was agreed on, in words: `blksize 1428, windowsize 4` or `range 100-199`.
        agreed: String,
    },
    /// The peer has everything (TFTP: its last acknowledgement; HTTP: the kernel took the last byte).
    Ended {
        /// Bytes of the file that were sent, each counted once.
        bytes: u64,
        /// From the request to this moment.
        took: Duration,
        /// Data packets sent again (0 for HTTP).
        sent_again: u64,
    },
    /// The peer only asked for the size, and ended the transfer then (RFC 2349 section 2; usual before the real one).
    OnlySize,
    /// It ended before its end.
    Failed {
        /// Bytes that the peer acknowledged, or that the kernel took.
        bytes: u64,
        /// Why, in words: `no acknowledgement after 6 tries`, `the peer says: disk full`.
        why: String,
    },
}

/// Why a file is not given. HTTP answers both with the 404 of every other name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withheld {
    /// Nothing may be given to this peer now. TFTP says nothing at all: an answer would tell an unarmed host that somebody
    /// is here.
    Silence,
    /// This peer may load files now, and there is none of this name. TFTP says so (RFC 1350, error 1): shim and GRUB ask for
    /// files that are optional, and wait about half a minute for each that nobody answers about.
    NotThere,
}

/// Who knows which peer may have which file.
pub trait Files: Send + Sync + 'static {
    /// The file, if this peer may have it now.
    ///
    /// # Errors
    /// Whether it hears that there is none, or nothing.
    fn open(&self, request: &FileRequest<'_>) -> Result<BootFile, Withheld>;

    /// A line for the flight recorder. Called from the servers' tasks: it must not wait.
    fn transferred(&self, transfer: &Transfer<'_>);
}
