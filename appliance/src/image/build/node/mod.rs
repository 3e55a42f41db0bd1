//! The node image: Debian with systemd, a container runtime and, where given, Kubernetes' own programs, on a disk that
//! boots by BIOS and by UEFI. Made without mounting anything, from packages, and the same to the byte each time.

mod disk;
mod ext4;
mod grub;
mod root;
mod tree;

use crate::image::build::packages::{self, PackageError};
use crate::image::import::{About, ImportError, Progress, import};
use ed25519_dalek::SigningKey;
use protocol::digest::Sha256;
use protocol::manifest::{Arch, Encoding, Filesystem, Firmware, ImageManifest};
use protocol::name::Name;
use pxe::script::KernelArguments;
use std::path::{Path, PathBuf};

/// The number of the root partition: behind GRUB's own and the EFI system partition.
const ROOT_PARTITION: u32 = 3;
/// What the EFI boot entry names.
const EFI_LOADER: &str = "\\EFI\\debian\\shimx64.efi";

/// What a node image is made from.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Its name in the store.
    pub name: Name,
    /// Its version.
    pub version: Name,
    /// The kernel's package.
    pub kernel: String,
    /// Packages beyond those that every node has.
    pub packages: Vec<String>,
    /// A folder with `kubelet` and `kubeadm`, or `k3s`; and, where they are to be newer than Debian's, `containerd`,
    /// `containerd-shim-runc-v2`, `ctr`, `runc`; and a folder `cni` with plugins.
    pub programs: Option<PathBuf>,
    /// Container images (archives of docker or OCI) for sites without a registry.
    pub container_images: Vec<PathBuf>,
    /// The image of the pods' sandboxes, when it is not the runtime's own choice.
    pub pause_image: Option<String>,
    /// A folder that is laid over the root file system.
    pub overlay: Option<PathBuf>,
    /// Further arguments of the kernel.
    pub kernel_arguments: KernelArguments,
    /// Free space in the root file system, MiB. It grows to the host's disk at the first boot.
    pub free_mib: u64,
    /// How the image is stored.
    pub encoding: Encoding,
    /// Where it is made.
    pub work: PathBuf,
    /// No file of the image is newer, Unix seconds.
    pub epoch_s: u64,
    /// When it was made, RFC 3339.
    pub created: String,
}

/// Why there is no node image.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A package or a program.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// The store.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// Something that was given, or what was made of it.
    #[error("{0}; nothing was added")]
    Content(String),
    /// The file system.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it says.
        source: std::io::Error,
    },
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> BuildError {
    let path = path.to_owned();
    move |source| BuildError::Io { path, source }
}

/// How far it is.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A part begins.
    Begins(&'static str),
    /// Packages that are unpacked and set up, of twice as many as there are.
    Packages {
        /// So many.
        done: u64,
        /// Of so many.
        of: u64,
    },
    /// The finished disk goes into the store.
    Import(Progress),
}

/// How many parts [`Step::Begins`] tells.
pub const PARTS: usize = 6;

/// Makes it and puts it into the store.
///
/// # Errors
/// Why not. Then nothing is in the store.
pub fn build(
    recipe: &Recipe,
    key: &SigningKey,
    store: &Path,
    mut step: impl FnMut(Step),
) -> Result<ImageManifest, BuildError> {
    if !rustix::process::geteuid().is_root() {
        let why = "the files of a node image belong to root and other users: run this as root";
        return Err(BuildError::Content(why.to_owned()));
    }
    // Programs are run in folders of their own, so a relative path would mean another place there.
    let mut recipe = recipe.clone();
    recipe.work = std::fs::canonicalize(&recipe.work).map_err(io(&recipe.work))?;
    if let Some(overlay) = recipe.overlay.take() {
        recipe.overlay = Some(std::fs::canonicalize(&overlay).map_err(io(&overlay))?);
    }
    let recipe = &recipe;
    let programs = tree::Programs::find(recipe)?;
    let work = recipe.work.join(format!("node-{}-{}", recipe.name, recipe.version));
    if work.exists() {
        std::fs::remove_dir_all(&work).map_err(io(&work))?;
    }
    std::fs::create_dir_all(&work).map_err(io(&work))?;
    step(Step::Begins("packages"));
    let tar = root::bootstrap(recipe, &programs, &work, |done, of| step(Step::Packages { done, of }))?;
    step(Step::Begins("our files"));
    let root = work.join("root");
    std::fs::create_dir_all(&root).map_err(io(&root))?;
    let (from, to) = (tar.display().to_string(), root.display().to_string());
    packages::run("tar", &["-C", &to, "--exclude=./dev/*", "--xattrs", "--numeric-owner", "-xf", &from], &work)?;
    std::fs::remove_file(&tar).map_err(io(&tar))?;
    let identity = Identity::of(recipe);
    let kernel = tree::fill(recipe, &programs, &root, &identity)?;
    tree::date(&root, recipe.epoch_s)?;
    step(Step::Begins("the root file system"));
    let filesystem = ext4::make(recipe, &root, &work, &identity)?;
    step(Step::Begins("the EFI system partition"));
    let efi = disk::efi_system(recipe, &work, &identity)?;
    step(Step::Begins("the disk"));
    let raw = disk::assemble(&work, &root, &efi, &filesystem, &identity)?;
    step(Step::Begins("the store"));
    let about = About {
        name: recipe.name.clone(),
        version: recipe.version.clone(),
        arch: Arch::X86_64,
        firmware: vec![Firmware::Bios, Firmware::Uefi],
        root: Some((ROOT_PARTITION, Filesystem::Ext4)),
        efi_loader: Some(EFI_LOADER.to_owned()),
        kernel: Some(kernel),
        kubelet: programs.kubelet_version.clone(),
        encoding: recipe.encoding,
        created: recipe.created.clone(),
        largest_bytes: protocol::manifest::IMAGE_LIMIT_BYTES,
    };
    let manifest = import(&raw, &about, key, store, |progress| step(Step::Import(progress)))?;
    std::fs::remove_dir_all(&work).map_err(io(&work))?;
    Ok(manifest)
}

/// The numbers that a file system or a table calls unique: drawn from name and version, so that a second build has the
/// same and another image has others.
#[derive(Clone, Debug)]
struct Identity {
    seed: String,
}

impl Identity {
    fn of(recipe: &Recipe) -> Self {
        Self { seed: format!("{}\n{}", recipe.name, recipe.version) }
    }

    fn digest(&self, what: &str) -> [u8; 32] {
        Sha256::of(format!("rackmedic node image\n{}\n{what}", self.seed).as_bytes()).0
    }

    /// A UUID of version 8, "vendor specific" (RFC 9562 section 5.8).
    fn uuid(&self, what: &str) -> String {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(self.digest(what).get(..16).unwrap_or(&[0; 16]));
        bytes[6] = bytes[6] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        [(0, 8), (8, 12), (12, 16), (16, 20), (20, 32)]
            .map(|(from, to)| hex.get(from..to).unwrap_or_default())
            .join("-")
    }

    /// The serial number of a FAT file system, eight hexadecimal digits.
    fn volume(&self) -> String {
        self.digest("efi").iter().take(4).map(|byte| format!("{byte:02X}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_image_has_the_same_numbers_and_another_has_others() {
        let of = |seed: &str| Identity { seed: seed.to_owned() };
        assert_eq!(of("a\n1").uuid("root"), of("a\n1").uuid("root"));
        assert_ne!(of("a\n1").uuid("root"), of("a\n2").uuid("root"));
        assert_ne!(of("a\n1").uuid("root"), of("a\n1").uuid("disk"));
        let uuid = of("a\n1").uuid("root");
        assert_eq!(uuid.len(), 36);
        assert_eq!(uuid.get(14..15), Some("8"));
        assert_eq!(of("a\n1").volume().len(), 8);
    }
}
