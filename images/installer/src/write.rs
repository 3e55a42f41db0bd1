//! From chunks to the disk: compare, write, read back. Reading, hashing, fetching, unpacking and writing overlap.

use crate::fetch::Source;
use crate::target::{Aligned, Target};
use protocol::chunk_table::{Chunk, ChunkTable};
use protocol::digest::Sha256;
use protocol::install::FailureCode;
use protocol::manifest::{Encoding, ImageManifest};
use std::io::{self, Read as _};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

/// Chunks on their way between two threads.
const AHEAD: usize = 4;
/// Chunks that go to the disk in one write, at most.
const AT_ONCE: usize = 4;
/// Buffers between the first thread and the last: two queues, one in each of the two threads' hands, one write's.
const IN_FLIGHT: usize = 2 * AHEAD + 2 + AT_ONCE;
/// Bytes asked for in one range: a lost connection costs at most what was not yet taken of it.
const RANGE_BYTES: u64 = 256 << 20;

/// Why it did not come to its end.
#[derive(Debug, thiserror::Error)]
#[error("{sentence}")]
pub struct WriteError {
    /// What kind.
    pub code: FailureCode,
    /// Cause and consequence.
    pub sentence: String,
}

impl WriteError {
    fn new(code: FailureCode, sentence: impl Into<String>) -> Self {
        Self { code, sentence: sentence.into() }
    }

    fn stopped() -> Self {
        Self::new(FailureCode::Refused, "the appliance said to stop")
    }
}

/// An image whose manifest and table are verified.
#[derive(Debug)]
pub struct Image<'a> {
    /// Its manifest.
    pub manifest: &'a ImageManifest,
    /// Its chunks.
    pub table: &'a ChunkTable,
}

impl Image<'_> {
    fn chunk(&self, number: u64) -> Option<&Chunk> {
        self.table.chunks().get(usize::try_from(number).ok()?)
    }

    /// Where a chunk lies on the disk: first byte and length.
    fn place(&self, number: u64) -> (u64, usize) {
        let size = u64::from(self.manifest.chunks.chunk_bytes);
        let at = number.saturating_mul(size);
        (at, usize::try_from(self.manifest.raw.bytes.saturating_sub(at).min(size)).unwrap_or(0))
    }

    /// Every chunk's number.
    #[must_use]
    pub fn numbers(&self) -> std::ops::Range<u64> {
        0..self.table.chunks().len() as u64
    }
}

/// Reads the whole image's place on the disk and names the chunks that are not as the image says. `progress` is told
/// each chunk's length and says whether to go on.
///
/// # Errors
/// When the disk cannot be read, or it is told to stop.
pub fn differing(
    target: &Target,
    image: &Image<'_>,
    mut progress: impl FnMut(u64) -> bool,
) -> Result<Vec<u64>, WriteError> {
    std::thread::scope(|scope| {
        let (full, filled) = sync_channel::<(u64, io::Result<Aligned>)>(AHEAD);
        let (give_back, spare) = sync_channel::<Aligned>(AHEAD + 2);
        scope.spawn(move || {
            for number in image.numbers() {
                let (at, length) = image.place(number);
                let mut buffer = taken(&spare, length);
                let read = target.read(at, &mut buffer).map(|()| buffer);
                let failed = read.is_err();
                if full.send((number, read)).is_err() || failed {
                    return;
                }
            }
        });
        let mut differing = Vec::new();
        for (number, read) in filled {
            let (at, length) = image.place(number);
            let buffer = read.map_err(|error| {
                let what = format!("the disk could not be read at byte {at}: {error}. It is probably failing");
                WriteError::new(FailureCode::DiskRead, what)
            })?;
            if image.chunk(number).is_none_or(|chunk| Sha256::of(buffer.get()) != chunk.sha256) {
                differing.push(number);
            }
            let _ = give_back.try_send(buffer);
            if !progress(length as u64) {
                return Err(WriteError::stopped());
            }
        }
        Ok(differing)
    })
}

/// What a write did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Bytes on the disk.
    pub written_bytes: u64,
    /// Bytes from the appliance.
    pub fetched_bytes: u64,
}

/// Fetches and writes these chunks, in their order. `progress` is told what was done and says whether to go on.
///
/// # Errors
/// When a chunk cannot be had as it was signed, or cannot be written.
pub fn write(
    target: &Target,
    image: &Image<'_>,
    numbers: &[u64],
    source: &Source,
    mut progress: impl FnMut(Written) -> bool,
) -> Result<Written, WriteError> {
    std::thread::scope(|scope| {
        let (fetched, to_unpack) = sync_channel::<(u64, Result<Aligned, WriteError>)>(AHEAD);
        let (unpacked, to_write) = sync_channel::<(u64, u64, Result<Aligned, WriteError>)>(AHEAD);
        // Memory goes round: a fresh page costs more than what is done with it. What is stored as it is on the disk is
        // fetched into the buffer that is written.
        let (give_back_raw, spare_raw) = sync_channel::<Aligned>(IN_FLIGHT);
        let (give_back_stored, spare_stored) = sync_channel::<Aligned>(IN_FLIGHT);
        let as_stored = image.manifest.stored.encoding == Encoding::Raw;
        let (spare_fetched, spare_unpacked) =
            if as_stored { (spare_raw, spare_stored) } else { (spare_stored, spare_raw) };
        scope.spawn(move || {
            let send = |number, bytes| fetched.send((number, bytes)).is_ok();
            fetch(image, numbers, source, &spare_fetched, send);
        });
        scope.spawn(move || {
            for (number, bytes) in to_unpack {
                let length = bytes.as_ref().map_or(0, |bytes| bytes.get().len() as u64);
                let (_, raw_bytes) = image.place(number);
                let raw = bytes.and_then(|stored| {
                    if as_stored || length == 0 {
                        return verified(image, number, stored, source);
                    }
                    let raw = unpack(image, number, stored.get(), taken(&spare_unpacked, raw_bytes), source);
                    let _ = give_back_stored.try_send(stored);
                    raw
                });
                let failed = raw.is_err();
                if unpacked.send((number, length, raw)).is_err() || failed {
                    return;
                }
            }
        });
        let mut written = Written::default();
        let mut behind = None;
        while let Some((number, fetched_bytes, raw)) = behind.take().or_else(|| to_write.recv().ok()) {
            let (at, length) = image.place(number);
            let mut run = vec![raw?];
            let (mut end, mut fetched) = (at.saturating_add(length as u64), fetched_bytes);
            // What follows on the disk and is ready goes out in the same write: disks are quicker with fewer, larger ones.
            while run.len() < AT_ONCE
                && let Ok((number, fetched_bytes, raw)) = to_write.try_recv()
            {
                match raw {
                    Ok(buffer) if image.place(number).0 == end => {
                        end = end.saturating_add(buffer.get().len() as u64);
                        fetched = fetched.saturating_add(fetched_bytes);
                        run.push(buffer);
                    }
                    raw => {
                        behind = Some((number, fetched_bytes, raw));
                        break;
                    }
                }
            }
            target.write(at, &run).map_err(|error| {
                let what = format!("the disk could not be written at byte {at}: {error}. It is probably failing");
                WriteError::new(FailureCode::DiskWrite, what)
            })?;
            written.written_bytes = written.written_bytes.saturating_add(end.saturating_sub(at));
            written.fetched_bytes = written.fetched_bytes.saturating_add(fetched);
            for buffer in run {
                let _ = give_back_raw.try_send(buffer);
            }
            if !progress(written) {
                return Err(WriteError::stopped());
            }
        }
        target.sync().map_err(|error| {
            WriteError::new(FailureCode::DiskWrite, format!("the disk did not keep what was written: {error}"))
        })?;
        Ok(written)
    })
}

/// Fetches the stored bytes of chunks, as few requests as possible, again and again as long as something comes.
fn fetch(
    image: &Image<'_>,
    numbers: &[u64],
    source: &Source,
    spare: &Receiver<Aligned>,
    mut send: impl FnMut(u64, Result<Aligned, WriteError>) -> bool,
) {
    let mut next = 0_usize;
    let mut alive = Instant::now();
    while let Some(rest) = numbers.get(next..).filter(|rest| !rest.is_empty()) {
        let outcome = fetch_run(image, rest, source, spare, |number, bytes| {
            next += 1;
            alive = Instant::now();
            send(number, Ok(bytes))
        });
        match outcome {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) if alive.elapsed() < source.patience.without_a_chunk => {
                crate::kernel::say(&format!("the image: {error}; trying again"));
                std::thread::sleep(Duration::from_secs(1));
            }
            Err(error) => {
                let number = numbers.get(next).copied().unwrap_or_default();
                let waited_s = source.patience.without_a_chunk.as_secs();
                let what = format!("no chunk could be fetched for {waited_s} s: {error}");
                send(number, Err(WriteError::new(FailureCode::Fetch, what)));
                return;
            }
        }
    }
}

/// One request: the chunks that lie one behind the other in the stored file. Whether to go on.
fn fetch_run(
    image: &Image<'_>,
    numbers: &[u64],
    source: &Source,
    spare: &Receiver<Aligned>,
    mut send: impl FnMut(u64, Aligned) -> bool,
) -> io::Result<bool> {
    let mut run: Vec<(u64, u32)> = Vec::new();
    let (mut from, mut to) = (None, 0_u64);
    for number in numbers {
        let Some(chunk) = image.chunk(*number) else { break };
        if chunk.stored_bytes > 0 {
            let start = *from.get_or_insert(chunk.stored_offset);
            let end = chunk.stored_offset.saturating_add(chunk.stored_bytes.into());
            if (to != 0 && chunk.stored_offset != to) || end.saturating_sub(start) > RANGE_BYTES {
                break;
            }
            to = end;
        }
        run.push((*number, chunk.stored_bytes));
    }
    let mut body = match from {
        Some(from) => Some(source.range(from, to)?),
        None => None,
    };
    for (number, length) in run {
        let mut bytes = taken(spare, length as usize);
        if let Some(body) = body.as_mut().filter(|_| length > 0) {
            body.read_exact(bytes.get_mut())?;
        }
        if !send(number, bytes) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A buffer of this length, used before if there is one.
fn taken(spare: &Receiver<Aligned>, length: usize) -> Aligned {
    match spare.try_recv() {
        Ok(buffer) => buffer.resized(length),
        Err(_) => Aligned::new(length),
    }
}

/// A chunk that was fetched as it comes to lie on the disk, or that is all zeros and was not fetched.
fn verified(image: &Image<'_>, number: u64, mut stored: Aligned, source: &Source) -> Result<Aligned, WriteError> {
    let (_, raw_bytes) = image.place(number);
    let right = |bytes: &[u8]| image.chunk(number).is_some_and(|chunk| Sha256::of(bytes) == chunk.sha256);
    if stored.get().is_empty() {
        stored = stored.resized(raw_bytes);
        stored.get_mut().fill(0);
    }
    if stored.get().len() == raw_bytes && right(stored.get()) {
        return Ok(stored);
    }
    let wrong = stored.get().to_vec();
    unpack(image, number, &wrong, stored.resized(raw_bytes), source)
}

/// A chunk as it comes to lie on the disk. A damaged one is fetched twice more: a bit that turned on the way is no reason
/// to give a host up, and one that is wrong three times is wrong in the store.
fn unpack(
    image: &Image<'_>,
    number: u64,
    stored: &[u8],
    mut buffer: Aligned,
    source: &Source,
) -> Result<Aligned, WriteError> {
    let bad = |what: String| WriteError::new(FailureCode::BadChunk, what);
    let chunk = image.chunk(number).ok_or_else(|| bad(format!("there is no chunk {number}")))?;
    let mut again;
    let mut stored = stored;
    for _ in 0..3 {
        let raw = buffer.get_mut();
        let length = match (image.manifest.stored.encoding, stored.len()) {
            (_, 0) => {
                raw.fill(0);
                Ok(raw.len())
            }
            (Encoding::Raw, length) if length == raw.len() => {
                raw.copy_from_slice(stored);
                Ok(length)
            }
            (Encoding::Raw, length) => Ok(length),
            (Encoding::Zstd, _) => zstd::bulk::decompress_to_buffer(stored, raw),
        };
        if length.is_ok_and(|length| length == buffer.get().len()) && Sha256::of(buffer.get()) == chunk.sha256 {
            return Ok(buffer);
        }
        let to = chunk.stored_offset.saturating_add(chunk.stored_bytes.into());
        let mut bytes = Vec::new();
        let fetched = source.range(chunk.stored_offset, to).and_then(|mut body| body.read_to_end(&mut bytes));
        if fetched.is_err() {
            bytes.clear();
        }
        again = bytes;
        stored = &again;
    }
    Err(bad(format!(
        "chunk {number} came three times with another content than was signed: the image in the store is damaged (`rackmedic image verify`)"
    )))
}
