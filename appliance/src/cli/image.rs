//! `rackmedic image`: the store of images and boot sets.

use super::output::{Exit, Format, Progress, data, json, table, talk};
use crate::image::build::boot_set::{self, Recipe};
use crate::image::import::{About, import};
use crate::image::{key, verify};
use clap::{Args, Subcommand, ValueEnum};
use protocol::manifest::{Arch, Encoding, Filesystem, Firmware};
use protocol::name::Name;
use protocol::signature::PublicKey;
use serde::Serialize;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

#[derive(Debug, Subcommand)]
pub(super) enum Image {
    /// Make a key that signs images and boot sets. Its public half goes into `trusted_keys` of the boot servers.
    Key(Key),
    /// Take a disk image (raw, .zst, .gz) into the store, and sign it.
    Import(Import),
    /// Everything in the store.
    List(List),
    /// Read an image to its last byte and compare it with what was signed.
    Verify(Verify),
    /// Write an image into a file as it comes to lie on a disk, verified on the way.
    Export(Export),
    /// Sign an image with another key.
    Sign(Sign),
    /// Make what hosts boot, from packages of the distribution.
    #[command(subcommand)]
    Build(Build),
}

#[derive(Debug, Subcommand)]
pub(super) enum Build {
    /// Loaders, kernel and installer: a boot set, signed, in the store.
    BootSet(BuildBootSet),
    /// Debian with systemd, a container runtime and, where given, Kubernetes' programs: a disk image, signed, in the store.
    Node(super::image_node::BuildNode),
}

#[derive(Debug, Args)]
pub(super) struct BuildBootSet {
    #[command(flatten)]
    store: Store,
    /// Its version.
    #[arg(long = "set-version", value_name = "VERSION")]
    version: Name,
    /// The kernel's package. `linux-image-cloud-amd64` is smaller and starts faster, with drivers for virtual machines only.
    #[arg(long, value_name = "PACKAGE", default_value = "linux-image-amd64")]
    kernel: String,
    /// A further module of the kernel. Repeatable.
    #[arg(long, value_name = "NAME")]
    module: Vec<String>,
    /// The installer's static program (images/build-installer makes it).
    #[arg(long, value_name = "FILE", default_value = "/usr/lib/rackmedic/installer-x86_64")]
    installer: PathBuf,
    /// Public keys whose images the installer writes; the signing key's own is always among them. Repeatable.
    #[arg(long, value_name = "KEY")]
    trusted_key: Vec<PublicKey>,
    /// The signing key.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Where packages are fetched to and unpacked.
    #[arg(long, value_name = "DIR", default_value = "/var/cache/rackmedic/build")]
    work: PathBuf,
    /// How the result is written.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Debug, Args)]
pub(super) struct Key {
    /// The file to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// How the result is written.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Debug, Args)]
pub(super) struct Store {
    /// The store.
    #[arg(long, value_name = "DIR", env = "RACKMEDIC_STORE", default_value = "/var/lib/rackmedic/store")]
    pub(super) store: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Machine {
    /// x86-64.
    #[value(name = "x86_64")]
    X86_64,
    /// 64-bit ARM.
    Aarch64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Start {
    /// The boot sector.
    Bios,
    /// An EFI system partition.
    Uefi,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RootFilesystem {
    /// ext4.
    Ext4,
    /// FAT.
    Vfat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Kept {
    /// Compressed chunk by chunk.
    Zstd,
    /// As it comes to lie on the disk.
    Raw,
}

#[derive(Debug, Args)]
pub(super) struct Import {
    /// The disk image.
    file: PathBuf,
    #[command(flatten)]
    store: Store,
    /// Its name in the store.
    #[arg(long)]
    name: Name,
    /// Its version.
    #[arg(long = "image-version", value_name = "VERSION")]
    version: Name,
    /// For which machines it is.
    #[arg(long, value_enum, default_value_t = Machine::X86_64)]
    arch: Machine,
    /// Which firmware can start it.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Start::Bios, Start::Uefi])]
    firmware: Vec<Start>,
    /// The number of the partition that takes the files of the first boot.
    #[arg(long, value_name = "N")]
    root_partition: Option<u32>,
    /// Its file system.
    #[arg(long, value_enum, default_value_t = RootFilesystem::Ext4)]
    root_filesystem: RootFilesystem,
    /// The loader on the EFI system partition that the host's boot entry is to name, such as `\EFI\debian\shimx64.efi`.
    #[arg(long, value_name = "PATH")]
    efi_loader: Option<String>,
    /// The release of the kernel inside.
    #[arg(long)]
    kernel: Option<String>,
    /// The version of the kubelet inside.
    #[arg(long)]
    kubelet: Option<String>,
    /// How it is stored.
    #[arg(long, value_enum, default_value_t = Kept::Zstd)]
    stored: Kept,
    /// The largest disk that is taken, GiB: a small file may unpack to any size.
    #[arg(long, value_name = "GIB", default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=1024))]
    largest_gib: u64,
    /// The signing key.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// How the result is written.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    store: Store,
    /// Public keys that are trusted here: with them every signature is judged. Repeatable.
    #[arg(long, value_name = "KEY")]
    trusted_key: Vec<PublicKey>,
    /// How the result is written.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Debug, Args)]
pub(super) struct Verify {
    #[command(flatten)]
    store: Store,
    /// The image's name.
    name: Name,
    /// Its version.
    version: Name,
    /// Public keys that are trusted here. Repeatable.
    #[arg(long, value_name = "KEY", required = true)]
    trusted_key: Vec<PublicKey>,
    /// How the result is written.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Debug, Args)]
pub(super) struct Export {
    #[command(flatten)]
    store: Store,
    /// The image's name.
    name: Name,
    /// Its version.
    version: Name,
    /// Public keys that are trusted here. Repeatable.
    #[arg(long, value_name = "KEY", required = true)]
    trusted_key: Vec<PublicKey>,
    /// The file to write; it must not be there yet.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Sign {
    #[command(flatten)]
    store: Store,
    /// The image's name.
    name: Name,
    /// Its version.
    version: Name,
    /// Public keys that are trusted here: one of them has to have signed it before. Repeatable.
    #[arg(long, value_name = "KEY", required = true)]
    trusted_key: Vec<PublicKey>,
    /// The key that signs it from now on.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

impl Image {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        match self {
            Self::Key(verb) => verb.run(),
            Self::Import(verb) => verb.run(),
            Self::List(verb) => verb.run(),
            Self::Verify(verb) => verb.run(),
            Self::Export(verb) => verb.run(),
            Self::Sign(verb) => verb.run(),
            Self::Build(Build::BootSet(verb)) => verb.run(),
            Self::Build(Build::Node(verb)) => verb.run(),
        }
    }
}

impl Key {
    fn run(self) -> anyhow::Result<Exit> {
        let public = PublicKey::of(&key::create(&self.out)?);
        #[derive(Serialize)]
        struct Made {
            public_key: String,
            id: String,
        }
        match self.output {
            Format::Json => json(&Made { public_key: public.to_string(), id: public.id() })?,
            Format::Table => data(&format!("{public}\n"))?,
        }
        talk(&format!("{} can have any disk of this site written: keep it where images are made", self.out.display()));
        Ok(Exit::Ok)
    }
}

/// A line that is written over on a terminal, and one line every ten seconds elsewhere.
pub(super) struct Told {
    pub(super) line: Progress,
    terminal: bool,
    began: Instant,
    last: Instant,
    /// The share that was shown last: a count whose end grows is not shown running backwards.
    share: u64,
}

impl Told {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            line: Progress::new(),
            terminal: std::io::IsTerminal::is_terminal(&std::io::stderr()),
            began: now,
            last: now,
            share: 0,
        }
    }

    /// As [`Told::tell`], for things that are counted.
    pub(super) fn count(&mut self, what: &str, done: u64, of: u64) {
        let every = Duration::from_millis(if self.terminal { 200 } else { 10_000 });
        if self.last.elapsed() < every {
            return;
        }
        self.last = Instant::now();
        self.share = self.share.max((done.min(of) * 100).checked_div(of).unwrap_or(0)).min(99);
        let text = format!("{what}: {:3} %", self.share);
        if self.terminal { self.line.show(&text) } else { talk(&text) }
    }

    pub(super) fn tell(&mut self, what: &str, done: u64, total: u64, raw: u64) {
        let every = Duration::from_millis(if self.terminal { 200 } else { 10_000 });
        if self.last.elapsed() < every {
            return;
        }
        self.last = Instant::now();
        if done <= 1 << 20 {
            self.began = self.last;
        }
        let took = self.began.elapsed().as_secs_f64();
        let (share, left) = match (done, total) {
            (0, _) | (_, 0) => (0.0, 0.0),
            (done, total) => (done as f64 / total as f64, took * (total.saturating_sub(done)) as f64 / done as f64),
        };
        let rate = raw as f64 / took / 1e6;
        let text =
            format!("{what}: {:3.0} %, {} of the disk, {rate:.0} MB/s, {left:.0} s left", share * 100.0, size(raw));
        if self.terminal { self.line.show(&text) } else { talk(&text) }
    }
}

pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{bytes} B"),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

/// Now, or the instant that a reproducible build is given (reproducible-builds.org, SOURCE_DATE_EPOCH).
pub(super) fn created() -> String {
    let given = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse::<i64>().ok());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let seconds = given.unwrap_or(i64::try_from(now).unwrap_or(0));
    jiff::Timestamp::from_second(seconds).unwrap_or_default().to_string()
}

impl Import {
    fn run(self) -> anyhow::Result<Exit> {
        let about = About {
            name: self.name,
            version: self.version,
            arch: match self.arch {
                Machine::X86_64 => Arch::X86_64,
                Machine::Aarch64 => Arch::Aarch64,
            },
            firmware: self
                .firmware
                .iter()
                .map(|start| match start {
                    Start::Bios => Firmware::Bios,
                    Start::Uefi => Firmware::Uefi,
                })
                .collect(),
            root: self.root_partition.map(|partition| {
                let filesystem = match self.root_filesystem {
                    RootFilesystem::Ext4 => Filesystem::Ext4,
                    RootFilesystem::Vfat => Filesystem::Vfat,
                };
                (partition, filesystem)
            }),
            efi_loader: self.efi_loader,
            kernel: self.kernel,
            kubelet: self.kubelet,
            encoding: match self.stored {
                Kept::Zstd => Encoding::Zstd,
                Kept::Raw => Encoding::Raw,
            },
            created: created(),
            largest_bytes: self.largest_gib << 30,
        };
        let signing = key::read(&self.key)?;
        let mut told = Told::new();
        let manifest = import(&self.file, &about, &signing, &self.store.store, |at| {
            told.tell("importing", at.read_bytes, at.file_bytes, at.raw_bytes);
        });
        told.line.done();
        let manifest = manifest?;
        match self.output {
            Format::Json => json(&manifest)?,
            Format::Table => data(&format!(
                "{} {}: {} on the disk, {} in the store, signed by {}\n",
                manifest.name,
                manifest.version,
                size(manifest.raw.bytes),
                size(manifest.stored.bytes),
                PublicKey::of(&signing).id()
            ))?,
        }
        Ok(Exit::Ok)
    }
}

impl List {
    fn run(self) -> anyhow::Result<Exit> {
        let all = verify::list(&self.store.store, &self.trusted_key)?;
        match self.output {
            Format::Json => json(&all)?,
            Format::Table if all.is_empty() => talk(&format!("{} is empty", self.store.store.display())),
            Format::Table => {
                let row = |item: &verify::Listed| {
                    let kubelet = item.kubelet.clone().unwrap_or_default();
                    let problem = item.problem.clone().unwrap_or_default();
                    let (name, version) = (item.name.clone(), item.version.clone());
                    vec![
                        item.kind.to_owned(),
                        name,
                        version,
                        size(item.bytes),
                        size(item.stored_bytes),
                        item.signed_by.clone(),
                        kubelet,
                        problem,
                    ]
                };
                let head = ["kind", "name", "version", "size", "stored", "signed by", "kubelet", ""];
                data(&table(&head, &all.iter().map(row).collect::<Vec<_>>()))?;
            }
        }
        let good = all.iter().all(|item| item.problem.is_none());
        Ok(if good { Exit::Ok } else { Exit::Failed })
    }
}

impl Verify {
    fn run(self) -> anyhow::Result<Exit> {
        let mut told = Told::new();
        let verified =
            verify::verify(&self.store.store, &self.name, &self.version, &self.trusted_key, |done, total| {
                told.tell("verifying", done, total, done);
            });
        told.line.done();
        let manifest = verified?;
        match self.output {
            Format::Json => json(&manifest)?,
            Format::Table => {
                data(&format!("{} {} is whole: {} as signed\n", self.name, self.version, size(manifest.raw.bytes)))?
            }
        }
        Ok(Exit::Ok)
    }
}

impl Export {
    fn run(self) -> anyhow::Result<Exit> {
        let (store, mut told) = (&self.store.store, Told::new());
        let written = verify::export(store, &self.name, &self.version, &self.trusted_key, &self.out, |done, total| {
            told.tell("writing", done, total, done);
        });
        told.line.done();
        let manifest = written?;
        data(&format!("{}: {} as signed\n", self.out.display(), size(manifest.raw.bytes)))?;
        Ok(Exit::Ok)
    }
}

impl Sign {
    fn run(self) -> anyhow::Result<Exit> {
        let signing = key::read(&self.key)?;
        verify::sign_anew(&self.store.store, &self.name, &self.version, &self.trusted_key, &signing)?;
        data(&format!("{} {} is signed by {}\n", self.name, self.version, PublicKey::of(&signing).id()))?;
        Ok(Exit::Ok)
    }
}

impl BuildBootSet {
    fn run(self) -> anyhow::Result<Exit> {
        let signing = key::read(&self.key)?;
        let mut trusted = self.trusted_key;
        let own = PublicKey::of(&signing);
        if !trusted.contains(&own) {
            trusted.push(own);
        }
        let recipe = Recipe {
            version: self.version,
            kernel: self.kernel,
            modules: self.module,
            installer: self.installer,
            trusted,
            work: self.work,
            created: created(),
        };
        std::fs::create_dir_all(&recipe.work)?;
        let began = Instant::now();
        let mut number = 0;
        let set = boot_set::build(&recipe, &signing, &self.store.store, |step| {
            number += 1;
            talk(&format!("[{number}/6] {step} ({:.0} s)", began.elapsed().as_secs_f64()));
        })?;
        match self.output {
            Format::Json => json(&set)?,
            Format::Table => {
                let row = |file: &protocol::boot_set::BootSetFile| {
                    let sbat = file.sbat.iter().map(|entry| format!("{} {}", entry.component, entry.generation));
                    vec![
                        file.name.to_string(),
                        size(file.bytes),
                        file.source.clone(),
                        sbat.collect::<Vec<_>>().join(", "),
                    ]
                };
                data(&table(&["file", "size", "from", "SBAT"], &set.files.iter().map(row).collect::<Vec<_>>()))?;
            }
        }
        Ok(Exit::Ok)
    }
}
