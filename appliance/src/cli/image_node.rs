//! `rackmedic image build node`: a node image from packages.

use super::image::{Kept, Store, Told, created, size};
use super::output::{Exit, Format, data, json, talk};
use crate::image::build::node::{PARTS, Recipe, Step, build};
use crate::image::key;
use clap::Args;
use protocol::manifest::Encoding;
use protocol::name::Name;
use protocol::signature::PublicKey;
use pxe::script::KernelArguments;
use std::path::PathBuf;
use std::time::Instant;

/// Dates of files when nothing else is said: an image is to be the same whenever it is made.
const EPOCH_S: u64 = 1_735_689_600;

#[derive(Debug, Args)]
pub(super) struct BuildNode {
    #[command(flatten)]
    store: Store,
    /// Its name in the store.
    #[arg(long)]
    name: Name,
    /// Its version.
    #[arg(long = "image-version", value_name = "VERSION")]
    version: Name,
    /// The kernel's package. `linux-image-cloud-amd64` is smaller and starts faster, with drivers for virtual machines only.
    #[arg(long, value_name = "PACKAGE", default_value = "linux-image-amd64")]
    kernel: String,
    /// A further package of Debian 12, such as openssh-server. Repeatable.
    #[arg(long, value_name = "NAME")]
    package: Vec<String>,
    /// A folder with kubelet and kubeadm, or k3s; a newer containerd, runc and so on; CNI plugins in a folder `cni`.
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// An archive of container images that the node imports at its first boot, for sites without a registry. Repeatable.
    #[arg(long, value_name = "FILE")]
    container_image: Vec<PathBuf>,
    /// The image of the pods' sandboxes, if it is not to be the runtime's own choice.
    #[arg(long, value_name = "NAME")]
    pause_image: Option<String>,
    /// A folder that is laid over the root file system.
    #[arg(long, value_name = "DIR")]
    overlay: Option<PathBuf>,
    /// Further arguments of the kernel.
    #[arg(long, value_name = "WORDS", default_value = "")]
    kernel_arguments: KernelArguments,
    /// Free space in the root file system, MiB. It grows to the host's disk at the first boot.
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    free_mib: u64,
    /// How it is stored.
    #[arg(long, value_enum, default_value_t = Kept::Zstd)]
    stored: Kept,
    /// The signing key.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Where packages are unpacked and the disk is put together.
    #[arg(long, value_name = "DIR", default_value = "/var/cache/rackmedic/build")]
    work: PathBuf,
    /// How the result is written.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

impl BuildNode {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let signing = key::read(&self.key)?;
        let epoch = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok());
        let recipe = Recipe {
            name: self.name,
            version: self.version,
            kernel: self.kernel,
            packages: self.package,
            programs: self.programs,
            container_images: self.container_image,
            pause_image: self.pause_image,
            overlay: self.overlay,
            kernel_arguments: self.kernel_arguments,
            free_mib: self.free_mib,
            encoding: match self.stored {
                Kept::Zstd => Encoding::Zstd,
                Kept::Raw => Encoding::Raw,
            },
            work: self.work,
            epoch_s: epoch.unwrap_or(EPOCH_S),
            created: created(),
        };
        std::fs::create_dir_all(&recipe.work)?;
        let (began, mut number, mut told) = (Instant::now(), 0, Told::new());
        let manifest = build(&recipe, &signing, &self.store.store, |step| match step {
            Step::Begins(part) => {
                told.line.done();
                number += 1;
                talk(&format!("[{number}/{PARTS}] {part} ({:.0} s)", began.elapsed().as_secs_f64()));
            }
            Step::Packages { done, of } => told.count("packages", done, of),
            Step::Import(at) => told.tell("importing", at.read_bytes, at.file_bytes, at.raw_bytes),
        });
        told.line.done();
        let manifest = manifest?;
        match self.output {
            Format::Json => json(&manifest)?,
            Format::Table => data(&format!(
                "{} {}: {} on the disk, {} in the store, kernel {}, {}, signed by {}\n",
                manifest.name,
                manifest.version,
                size(manifest.raw.bytes),
                size(manifest.stored.bytes),
                manifest.kernel.as_deref().unwrap_or("?"),
                manifest.kubelet.as_ref().map_or("no kubelet".to_owned(), |version| format!("kubelet {version}")),
                PublicKey::of(&signing).id()
            ))?,
        }
        Ok(Exit::Ok)
    }
}
