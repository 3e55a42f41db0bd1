//! The installer's write beside `dd` with `O_DIRECT`, onto files of the same disk, in the same run.
//!
//! `cargo bench -p tests --bench image_write [-- quick | -- paced MB_PER_S]`. `paced` holds both to what a disk of that
//! speed takes (control group of this run, `blkio.throttle.write_bps_device`): without it the virtual disk of a machine is
//! often memory, and the figure is that of the processor's digests. What differs: dd copies a file that lies in the page cache and
//! checks nothing. The installer fetches the same bytes by HTTP from our boot server on this machine, in ranges, compares
//! each chunk with its SHA-256 and writes it. Both write past the page cache and end with a synchronisation; both write
//! onto a file whose blocks are there already, as a disk's are.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a benchmark")]

mod ground;

use ground::{Ground, Running, Runs, SERVER, wait_until};
use installer::fetch::Source;
use installer::target::Target;
use installer::write::{Image, differing, write};
use protocol::chunk_table::{Chunk, ChunkTable};
use protocol::digest::Sha256;
use protocol::manifest::{Arch, Chunks, Content, Encoding, FORMAT, Firmware, ImageManifest, Stored};
use pxe::files::{Body, BootFile, FileRequest, Files, Transfer, Withheld};
use pxe::http::server::{HttpServer, Limits};
use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

const PORT: u16 = 8080;
const CHUNK_BYTES: u32 = 4 << 20;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.first().map(String::as_str) {
        Some("serve") => serve(&arguments[1]),
        Some("install") => install(Path::new(&arguments[1]), &arguments[2]),
        Some("paced") => {
            let pace = Pace::hold(arguments.get(1).and_then(|number| number.parse().ok()).expect("paced MB_PER_S"));
            compare(false, pace.0);
        }
        first => compare(first == Some("quick"), 0),
    }
}

/// This process and its children write no faster than this, MB/s, to the disk that holds temporary files.
struct Pace(u64);

const GROUP: &str = "/sys/fs/cgroup/blkio/rackmedic-image-write";

impl Pace {
    fn hold(megabytes_per_s: u64) -> Self {
        std::fs::create_dir_all(GROUP).expect("control groups of version 1 with blkio, and root");
        let device = std::fs::metadata(std::env::temp_dir()).unwrap().dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let limit = format!("{major}:{minor} {}", megabytes_per_s * 1_000_000);
        std::fs::write(format!("{GROUP}/blkio.throttle.write_bps_device"), limit).unwrap();
        std::fs::write(format!("{GROUP}/cgroup.procs"), std::process::id().to_string()).unwrap();
        Self(megabytes_per_s)
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        let _ = std::fs::write("/sys/fs/cgroup/blkio/cgroup.procs", std::process::id().to_string());
        let _ = std::fs::remove_dir(GROUP);
    }
}

#[derive(Debug)]
struct One(Arc<File>, u64);

impl Files for One {
    fn open(&self, _request: &FileRequest<'_>) -> Result<BootFile, Withheld> {
        let body = Body::File { file: Arc::clone(&self.0), offset: 0, length: self.1 };
        Ok(BootFile { body, media_type: "application/octet-stream", sha256: None, tag: 0 })
    }

    fn transferred(&self, _transfer: &Transfer<'_>) {}
}

fn serve(image: &str) {
    let file = File::open(image).unwrap();
    let length = file.metadata().unwrap().len();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let files = Arc::new(One(Arc::new(file), length));
        let server = HttpServer::bind(SocketAddr::from((SERVER, PORT)), files, Limits::default()).await.unwrap();
        server.run(CancellationToken::new()).await;
    });
}

/// In a process of its own, as on a host. Prints the seconds; the digests are known before, as a signed table is.
fn install(folder: &Path, what: &str) {
    let image = std::fs::read(folder.join("image")).unwrap();
    let bytes = image.len() as u64;
    let chunks: Vec<Chunk> = image
        .chunks(CHUNK_BYTES as usize)
        .zip(0_u64..)
        .map(|(raw, number)| Chunk {
            stored_offset: number * u64::from(CHUNK_BYTES),
            stored_bytes: raw.len() as u32,
            sha256: Sha256::of(raw),
        })
        .collect();
    let table = ChunkTable::new(chunks);
    let none = Content { bytes: 0, sha256: Sha256([0; 32]) };
    let manifest = ImageManifest {
        format: FORMAT,
        name: "bench".parse().unwrap(),
        version: "1".parse().unwrap(),
        arch: Arch::X86_64,
        firmware: vec![Firmware::Bios],
        raw: Content { bytes, ..none },
        stored: Stored { encoding: Encoding::Raw, bytes, sha256: none.sha256 },
        chunks: Chunks { chunk_bytes: CHUNK_BYTES, table: none },
        root: None,
        efi_loader: None,
        kernel: None,
        kubelet: None,
        created: String::new(),
    };
    drop(image);
    let image = Image { manifest: &manifest, table: &table };
    let target = Target::open(&folder.join("target-ours")).unwrap();
    let begun = Instant::now();
    if what == "compare" {
        let differs = differing(&target, &image, |_| true).unwrap();
        assert_eq!(differs, Vec::<u64>::new());
    } else {
        let source = Source::parse(&format!("http://{SERVER}:{PORT}/image")).unwrap();
        let numbers: Vec<u64> = image.numbers().collect();
        let written = write(&target, &image, &numbers, &source, |_| true).unwrap();
        assert_eq!(written.written_bytes, bytes);
    }
    println!("{}", begun.elapsed().as_secs_f64());
}

fn compare(quick: bool, paced: u64) {
    let ground = Ground::new(1500, 1);
    let bytes: u64 = if quick { 256 << 20 } else { 1 << 30 };
    let place = |name: &str| ground.folder.join(name);
    {
        let mut seed = 1_u64;
        let mut file = std::io::BufWriter::new(File::create(place("image")).unwrap());
        for _ in 0..bytes / 8 {
            seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            file.write_all(&seed.to_le_bytes()).unwrap();
        }
        file.flush().unwrap();
        for target in ["target-ours", "target-dd"] {
            std::fs::copy(place("image"), place(target)).unwrap();
            File::options().write(true).open(place(target)).unwrap().sync_all().unwrap();
        }
    }
    let mut server = ground.ourselves_at_server(&["serve", place("image").to_str().unwrap()]);
    let _server = Running::start(&mut server, &place("ours.log"));
    let install = |what: &str| {
        // The same namespace: the host's network is not what is measured.
        let mut command = ground.ourselves_at_server(&["install", ground.folder.to_str().unwrap(), what]);
        let output = command.stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "the installer's write failed");
        bytes as f64 / String::from_utf8_lossy(&output.stdout).trim().parse::<f64>().unwrap() / 1e6
    };
    let dd = || {
        let mut command = ground.at_server("dd");
        let (from, to) = (place("image"), place("target-dd"));
        command.args([format!("if={}", from.display()), format!("of={}", to.display())]);
        command.args(["bs=4M", "oflag=direct", "conv=notrunc,fsync", "status=none"]);
        let begun = Instant::now();
        assert!(command.status().unwrap().success(), "dd");
        bytes as f64 / begun.elapsed().as_secs_f64() / 1e6
    };
    wait_until("our server", || reachable(&ground));
    let runs = if quick || paced > 0 { 3 } else { 7 };
    if paced > 0 {
        println!("both held to a disk that takes {paced} MB/s");
    }
    let [mut ours, mut theirs, mut compared] = [Runs::default(), Runs::default(), Runs::default()];
    println!("MB/s, {} MiB, median of {runs} interleaved runs (least..most); {}", bytes >> 20, ground::load());
    for _ in 0..runs {
        ours.push(install("write"));
        theirs.push(dd());
        compared.push(install("compare"));
    }
    assert!(std::fs::read(place("target-ours")).unwrap() == std::fs::read(place("image")).unwrap(), "other bytes");
    println!(
        "| installer: fetch, compare with digests, write | dd O_DIRECT | installer to dd | installer: read back and compare |"
    );
    println!("|---|---|---|---|");
    println!("| {} | {} | {:.2} | {} |", ours.shown(), theirs.shown(), ours.to(&theirs).median(), compared.shown());
    println!("{}", ground::load());
}

fn reachable(ground: &Ground) -> bool {
    let mut command = ground.at_server("curl");
    command.args(["-sf", "-o", "/dev/null", "-r", "0-0", &format!("http://{SERVER}:{PORT}/image")]);
    command.status().is_ok_and(|status| status.success())
}
