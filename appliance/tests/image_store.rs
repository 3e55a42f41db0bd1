//! The store of images by its command line: what comes in is what was given, whatever is wrong is refused with its place,
//! and a kill leaves nothing that could be served.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use flate2::Compression;
use flate2::write::GzEncoder;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const RACKMEDIC: &str = env!("CARGO_BIN_EXE_rackmedic");

/// A folder with a key; removed at the end.
struct Bench {
    folder: PathBuf,
    key: String,
}

impl Bench {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("rackmedic-image-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let made = Command::new(RACKMEDIC).args(["image", "key", "--out"]).arg(folder.join("key")).output().unwrap();
        assert!(made.status.success());
        Self { folder, key: String::from_utf8(made.stdout).unwrap().trim().to_owned() }
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(RACKMEDIC);
        command.arg("image").args(arguments).env("RACKMEDIC_STORE", self.folder.join("store")).stdin(Stdio::null());
        command
    }

    fn import(&self, file: &Path, version: &str, more: &[&str]) -> Output {
        let key = self.folder.join("key");
        let given =
            ["import", file.to_str().unwrap(), "--name", "disk", "--image-version", version, "--firmware", "bios"];
        self.command(&[&given, more, &["--key", key.to_str().unwrap()]].concat()).output().unwrap()
    }

    fn verify(&self, version: &str) -> Output {
        self.command(&["verify", "disk", version, "--trusted-key", &self.key]).output().unwrap()
    }

    fn stored(&self, version: &str, name: &str) -> PathBuf {
        self.folder.join("store/images/disk").join(version).join(name)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A disk with one partition: noise, then zeros, then noise, and not a whole number of chunks.
fn disk() -> Vec<u8> {
    let mut state = 1_u64;
    let mut noise = |length: usize| -> Vec<u8> {
        (0..length)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                state.to_le_bytes()[7]
            })
            .collect()
    };
    let mut disk = noise(2_500_000 / 512 * 512);
    disk.resize(disk.len() + (4 << 20), 0);
    disk.extend(noise(512 * 100));
    disk[446..510].fill(0);
    disk[446..462].copy_from_slice(&[0x80, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 16, 0, 0]);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn raw_zst_and_gz_give_the_same_image() {
    let bench = Bench::new("kinds");
    let disk = disk();
    let raw = bench.file("disk.raw", &disk);
    let gz = bench.file("disk.raw.gz", &gzip(&disk));
    let zst = bench.file("disk.raw.zst", &zstd::encode_all(disk.as_slice(), 1).unwrap());
    let mut digests = Vec::new();
    for (version, file, more) in
        [("1", &raw, &[][..]), ("2", &gz, &[]), ("3", &zst, &[]), ("4", &raw, &["--stored", "raw"])]
    {
        let output = bench.import(file, version, more);
        assert!(output.status.success(), "{}", said(&output));
        let output = bench.verify(version);
        assert!(output.status.success(), "{}", said(&output));
        let manifest: serde_json::Value =
            serde_json::from_slice(&fs::read(bench.stored(version, "manifest.json")).unwrap()).unwrap();
        digests.push(manifest["raw"].clone());
    }
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    assert_eq!(digests[0]["bytes"], disk.len());
    // Whoever has zstd can read what is stored, but for chunks of zeros, which are not.
    let unpacked = zstd::decode_all(fs::File::open(bench.stored("1", "content")).unwrap()).unwrap();
    assert!(disk.starts_with(&unpacked[..1 << 20]) && unpacked.len() < disk.len());
    assert_eq!(fs::read(bench.stored("4", "content")).unwrap(), disk);
}

#[test]
fn what_is_cut_or_of_another_kind_is_refused_and_leaves_nothing() {
    let bench = Bench::new("refused");
    let disk = disk();
    let (gz, zst) = (gzip(&disk), zstd::encode_all(disk.as_slice(), 1).unwrap());
    let mut qcow = b"QFI\xfb".to_vec();
    qcow.resize(4096, 0);
    let no_table = vec![0; 1 << 20];
    for (name, bytes, says) in [
        ("cut.gz", &gz[..gz.len() / 2], "cut.gz"),
        ("cut.zst", &zst[..zst.len() / 2], "cut.zst"),
        ("rubbish.gz", &[&gz[..], b"rubbish"].concat(), "rubbish.gz"),
        ("disk.qcow2", &qcow, "qemu-img convert -f qcow2 -O raw"),
        ("filesystem.img", &no_table, "no partition table"),
        ("odd.raw", &disk[..disk.len() - 1], "whole sectors of 512"),
        ("empty.raw", b"", "empty"),
    ] {
        let output = bench.import(&bench.file(name, bytes), "1", &[]);
        assert_eq!(output.status.code(), Some(1), "{name}");
        assert!(said(&output).contains(says), "{name}: {}", said(&output));
        assert!(!bench.stored("1", "manifest.json").exists(), "{name}");
    }
    let raw = bench.file("disk.raw", &disk);
    let output = bench.import(&raw, "1", &["--root-partition", "7"]);
    assert!(said(&output).contains("no partition 7"), "{}", said(&output));
    let left = fs::read_dir(bench.folder.join("store/images/disk")).unwrap().flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).filter(|name| name != ".lock").collect();
    assert!(left.is_empty(), "{left:?}");
}

/// A disk whose rest is zeros for ever: what a bomb is made of.
fn bomb(name: &str, gib: u64, packer: &mut dyn Write) {
    packer.write_all(&disk()).unwrap();
    let zeros = vec![0; 16 << 20];
    for _ in 0..gib * 64 {
        packer.write_all(&zeros).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn a_small_file_that_unpacks_to_no_end_is_refused_and_costs_neither_memory_nor_the_disk() {
    let bench = Bench::new("bomb");
    // Given two files of a few MiB that unpack to more than a GiB
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    bomb("gz", 1, &mut gz);
    let mut zst = zstd::Encoder::new(Vec::new(), 1).unwrap();
    bomb("zst", 1, &mut zst);
    let gz = bench.file("bomb.raw.gz", &gz.finish().unwrap());
    let zst = bench.file("bomb.raw.zst", &zst.finish().unwrap());
    for (file, stored) in [(&gz, "zstd"), (&zst, "zstd"), (&zst, "raw")] {
        let bytes = fs::metadata(file).unwrap().len();
        assert!(bytes < 12 << 20, "{bytes}");
        // When it is imported where no disk has more than one
        let key = bench.folder.join("key");
        let given = ["import", file.to_str().unwrap(), "--name", "disk", "--image-version", "1", "--firmware", "bios"];
        let more = ["--largest-gib", "1", "--stored", stored, "--key", key.to_str().unwrap()];
        let mut child =
            bench.command(&[&given[..], &more].concat()).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let status = format!("/proc/{}/status", child.id());
        let mut peak = 0;
        while child.try_wait().unwrap().is_none() {
            let text = fs::read_to_string(&status).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            peak = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(peak);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let output = child.wait_with_output().unwrap();
        // Then it is refused by its name, with little memory, and nothing of it is left
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        let words = said(&output);
        assert!(words.contains("unpacks to more than 1 GiB") && words.contains("--largest-gib"), "{words}");
        assert!((1..200 << 10).contains(&peak), "{peak} KiB of memory");
        let left = fs::read_dir(bench.folder.join("store/images/disk")).unwrap().flatten();
        let left: Vec<_> = left.map(|entry| entry.file_name()).filter(|name| name != ".lock").collect();
        assert!(left.is_empty(), "{left:?}");
    }
    // And a file that is too large as it lies there is not even read
    let sparse = fs::File::create(bench.folder.join("large.raw")).unwrap();
    sparse.set_len(2 << 30).unwrap();
    let begun = std::time::Instant::now();
    let output = bench.import(&bench.folder.join("large.raw"), "1", &["--largest-gib", "1"]);
    assert!(said(&output).contains("has more than 1 GiB"), "{}", said(&output));
    assert!(begun.elapsed() < std::time::Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn a_version_is_never_overwritten_and_a_key_that_others_can_read_is_not_used() {
    let bench = Bench::new("twice");
    let raw = bench.file("disk.raw", &disk());
    assert!(bench.import(&raw, "1", &[]).status.success());
    let before = fs::read(bench.stored("1", "manifest.json")).unwrap();
    let output = bench.import(&raw, "1", &["--kubelet", "v1.36.2"]);
    assert!(said(&output).contains("never overwritten"), "{}", said(&output));
    assert_eq!(fs::read(bench.stored("1", "manifest.json")).unwrap(), before);
    let key = bench.folder.join("key");
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    let output = bench.import(&raw, "2", &[]);
    assert!(said(&output).contains("chmod 600"), "{}", said(&output));
    let output = bench.command(&["key", "--out", key.to_str().unwrap()]).output().unwrap();
    assert!(said(&output).contains("never overwritten"), "{}", said(&output));
}

#[test]
fn one_byte_anywhere_is_found_and_its_chunk_is_named() {
    let bench = Bench::new("damage");
    let raw = bench.file("disk.raw", &disk());
    assert!(bench.import(&raw, "1", &["--stored", "raw"]).status.success());
    for (name, at, says) in [
        ("content", (1 << 20) + 5, "chunk 1 (bytes 1048576 to 2097152 of the disk) is damaged"),
        ("chunks", 20, "chunk table is not the one"),
        ("manifest.json", 40, "changed after it was signed"),
        ("manifest.json.sig", 120, ""),
    ] {
        let path = bench.stored("1", name);
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&path, &bad).unwrap();
        let output = bench.verify("1");
        assert_eq!(output.status.code(), Some(1), "{name}");
        assert!(said(&output).contains(says), "{name}: {}", said(&output));
        fs::write(&path, &good).unwrap();
    }
    assert!(bench.verify("1").status.success());
    let stranger = Bench::new("stranger");
    let output = bench.command(&["verify", "disk", "1", "--trusted-key", &stranger.key]).output().unwrap();
    assert!(said(&output).contains("not trusted here"), "{}", said(&output));
}

#[test]
fn a_kill_in_the_middle_leaves_nothing_and_the_next_import_succeeds() {
    let bench = Bench::new("kill");
    // Noise from a pipe that never ends would do; a large file does as well, and is sure to be in the middle.
    let mut large = disk();
    large.resize(600 << 20, 7);
    let raw = bench.file("disk.raw", &large);
    let key = bench.folder.join("key");
    let given =
        ["import", raw.to_str().unwrap(), "--name", "disk", "--image-version", "1", "--firmware", "bios", "--key"];
    let mut child = bench
        .command(&[&given[..], &[key.to_str().unwrap()]].concat())
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let unfinished = bench.folder.join("store/images/disk/.new-1/content");
    while !unfinished.metadata().is_ok_and(|about| about.len() > 0) {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be killed");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let listed = bench.command(&["list", "--output", "json"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&listed.stdout).trim(), "[]");
    fs::write(&raw, disk()).unwrap();
    assert!(bench.import(&raw, "1", &[]).status.success());
    assert!(bench.verify("1").status.success());
    assert!(!unfinished.exists());
}

#[test]
fn another_key_signs_what_a_trusted_key_had_signed() {
    let (bench, other) = (Bench::new("sign"), Bench::new("other"));
    let raw = bench.file("disk.raw", &disk());
    assert!(bench.import(&raw, "1", &[]).status.success());
    let key = other.folder.join("key");
    let sign = |trusted: &str| {
        bench
            .command(&["sign", "disk", "1", "--trusted-key", trusted, "--key", key.to_str().unwrap()])
            .output()
            .unwrap()
    };
    assert!(!sign(&other.key).status.success(), "nobody here had vouched for it");
    assert!(sign(&bench.key).status.success());
    assert!(!bench.verify("1").status.success());
    assert!(bench.command(&["verify", "disk", "1", "--trusted-key", &other.key]).status().unwrap().success());
}
