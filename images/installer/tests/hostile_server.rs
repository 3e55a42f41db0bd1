//! A server of images that stalls, cuts, lies or turns a bit: none of it ever counts as a written disk.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use installer::fetch::{Patience, Source};
use installer::target::Target;
use installer::write::{Image, differing, write};
use protocol::chunk_table::{Chunk, ChunkTable};
use protocol::digest::Sha256;
use protocol::install::FailureCode;
use protocol::manifest::{Arch, Chunks, Content, Encoding, FORMAT, Firmware, ImageManifest, Stored};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const CHUNK_BYTES: usize = 64 * 1024;
const CHUNKS: usize = 12;

/// What a server does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    /// Nothing.
    Right,
    /// Half of the image comes, then nothing more, on an open connection.
    StallsAtHalf,
    /// Half of the image comes, then the connection ends, each time.
    CutsAtHalf,
    /// 206, of the right length, from one chunk further on.
    OtherRange,
    /// One bit of the image is another.
    TurnsBit,
    /// The whole file with 200, as servers do that know no ranges.
    NoRanges,
    /// More bytes than were asked for, and it says so.
    TooMuch,
    /// The length that was asked for is promised, and more is sent behind it.
    SendsOn,
    /// An answer that is no HTTP.
    Rubbish,
    /// A head without an end.
    EndlessHead,
}

fn content() -> Vec<u8> {
    (0..CHUNK_BYTES * CHUNKS).map(|at| (at / 7 + at / CHUNK_BYTES * 31) as u8).collect()
}

/// Serves until the test's process ends.
fn serve(does: Does) -> Source {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let content = Arc::new(content());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let content = Arc::clone(&content);
            std::thread::spawn(move || answer(stream, &content, does));
        }
    });
    let patience = Patience { silence: Duration::from_millis(300), without_a_chunk: Duration::from_secs(2) };
    Source::parse(&format!("http://{address}/content")).unwrap().with_patience(patience)
}

fn answer(mut stream: TcpStream, content: &[u8], does: Does) {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
        request.push(byte[0]);
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let Some((_, range)) = request.split_once("Range: bytes=") else { return };
    let (from, last) = range.lines().next().unwrap().split_once('-').unwrap();
    let (from, to): (usize, usize) = (from.parse().unwrap(), last.parse::<usize>().unwrap() + 1);
    let half = content.len() / 2;
    let mut body = content[from..to].to_vec();
    let (mut status, mut length) = ("206 Partial Content", body.len());
    match does {
        Does::Right => {}
        Does::StallsAtHalf | Does::CutsAtHalf => body.truncate(half.saturating_sub(from)),
        Does::OtherRange => {
            let shifted = (from + CHUNK_BYTES) % content.len();
            body = content.iter().cycle().skip(shifted).take(length).copied().collect();
        }
        Does::TurnsBit => {
            if (from..to).contains(&(5 * CHUNK_BYTES + 77)) {
                body[5 * CHUNK_BYTES + 77 - from] ^= 1;
            }
        }
        Does::NoRanges => {
            body = content.to_vec();
            (status, length) = ("200 OK", body.len());
        }
        Does::TooMuch => {
            body.extend_from_slice(&[0; 4096]);
            length = body.len();
        }
        Does::SendsOn => body.extend_from_slice(&[0xff; 100_000]),
        Does::Rubbish => {
            let _ = stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n");
            return;
        }
        Does::EndlessHead => {
            let _ = stream.write_all(b"HTTP/1.1 206 Partial Content\r\nX: ");
            while stream.write_all(&[b'a'; 4096]).is_ok() {}
            return;
        }
    }
    let head = format!("HTTP/1.1 {status}\r\nContent-Range: bytes {from}-{last}/{}\r\n", content.len());
    let _ = stream.write_all(format!("{head}Content-Length: {length}\r\n\r\n").as_bytes());
    let _ = stream.write_all(&body);
    if does == Does::StallsAtHalf {
        // Until the other side gives up.
        let _ = stream.read(&mut byte);
    }
}

/// A file in the place of a disk; gone when dropped.
struct Disk(PathBuf);

impl Disk {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("rackmedic-hostile-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        File::create(&path).unwrap().set_len(2 * (CHUNK_BYTES * CHUNKS) as u64).unwrap();
        Self(path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn image() -> (ImageManifest, ChunkTable) {
    let content = content();
    let chunks = content.chunks(CHUNK_BYTES).enumerate().map(|(number, bytes)| Chunk {
        stored_offset: (number * CHUNK_BYTES) as u64,
        stored_bytes: CHUNK_BYTES as u32,
        sha256: Sha256::of(bytes),
    });
    let table = ChunkTable::new(chunks.collect());
    let bytes = table.to_bytes();
    let whole = Content { bytes: content.len() as u64, sha256: Sha256::of(&content) };
    let manifest = ImageManifest {
        format: FORMAT,
        name: "disk".parse().unwrap(),
        version: "1".parse().unwrap(),
        arch: Arch::X86_64,
        firmware: vec![Firmware::Bios],
        raw: whole,
        stored: Stored { encoding: Encoding::Raw, bytes: whole.bytes, sha256: whole.sha256 },
        chunks: Chunks {
            chunk_bytes: CHUNK_BYTES as u32,
            table: Content { bytes: bytes.len() as u64, sha256: Sha256::of(&bytes) },
        },
        root: None,
        efi_loader: None,
        kernel: None,
        kubelet: None,
        created: "2026-01-01T00:00:00Z".to_owned(),
    };
    (manifest, table)
}

/// What the write says, and how many chunks of the disk are then not as the image says.
fn install_from(does: Does) -> (Result<u64, FailureCode>, usize) {
    let (manifest, table) = image();
    let image = Image { manifest: &manifest, table: &table };
    let disk = Disk::new();
    let target = Target::open(&disk.0).unwrap();
    let numbers: Vec<u64> = image.numbers().collect();
    let written = write(&target, &image, &numbers, &serve(does), |_| true);
    let wrong = differing(&target, &image, |_| true).unwrap();
    (written.map(|written| written.written_bytes).map_err(|error| error.code), wrong.len())
}

#[test]
fn a_server_that_does_right_fills_the_disk() {
    assert_eq!(install_from(Does::Right), (Ok((CHUNK_BYTES * CHUNKS) as u64), 0));
}

#[test]
fn bytes_behind_the_promised_length_are_not_taken() {
    assert_eq!(install_from(Does::SendsOn), (Ok((CHUNK_BYTES * CHUNKS) as u64), 0));
}

#[test]
fn whatever_else_a_server_does_is_no_success() {
    let cases = [
        (Does::StallsAtHalf, FailureCode::Fetch, CHUNKS / 2),
        (Does::CutsAtHalf, FailureCode::Fetch, CHUNKS / 2),
        (Does::OtherRange, FailureCode::BadChunk, CHUNKS),
        (Does::TurnsBit, FailureCode::BadChunk, CHUNKS - 5),
        (Does::NoRanges, FailureCode::Fetch, CHUNKS),
        (Does::TooMuch, FailureCode::Fetch, CHUNKS),
        (Does::Rubbish, FailureCode::Fetch, CHUNKS),
        (Does::EndlessHead, FailureCode::Fetch, CHUNKS),
    ];
    // Side by side: most of it is waiting for a server that says nothing.
    let running = cases.map(|(does, code, wrong)| (does, code, wrong, std::thread::spawn(move || install_from(does))));
    for (does, code, wrong, case) in running {
        assert_eq!(case.join().unwrap(), (Err(code), wrong), "{does:?}");
    }
}
