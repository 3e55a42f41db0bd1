//! The files of the first boot, written into the root file system that the image brought. A path can never lead out of
//! it, whatever links the image holds.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::install::FirstBoot;
use protocol::manifest::Filesystem;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::mount::{MountFlags, UnmountFlags};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the kernel may take to show the partitions of a disk that was read again.
const PARTITION_WAIT: Duration = Duration::from_secs(10);

/// The device of a partition.
#[must_use]
pub fn partition_device(sys: &Path, dev: &Path, disk: &str, number: u32) -> Option<PathBuf> {
    let until = Instant::now() + PARTITION_WAIT;
    loop {
        let entries = std::fs::read_dir(sys.join("block").join(disk)).ok()?;
        let partition = entries.flatten().find(|entry| {
            crate::inventory::text(&entry.path().join("partition")).and_then(|text| text.parse().ok()) == Some(number)
        });
        if let Some(partition) = partition {
            let device = dev.join(partition.file_name());
            if device.exists() {
                return Some(device);
            }
        }
        if Instant::now() >= until {
            return None;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Mounts the partition, writes the files, unmounts it.
///
/// # Errors
/// What could not be written, and why.
pub fn write(device: &Path, filesystem: Filesystem, files: &FirstBoot, mount_at: &Path) -> Result<(), String> {
    std::fs::create_dir_all(mount_at).map_err(|error| error.to_string())?;
    let kind = match filesystem {
        Filesystem::Ext4 => "ext4",
        Filesystem::Vfat => "vfat",
    };
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount(device, mount_at, kind, flags, None)
        .map_err(|error| format!("{} could not be mounted as {kind}: {error}", device.display()))?;
    let written = write_all(mount_at, files);
    let unmounted = rustix::mount::unmount(mount_at, UnmountFlags::empty())
        .map_err(|error| format!("{} could not be unmounted: {error}", device.display()));
    written.and(unmounted)
}

/// Writes the files below a root folder.
///
/// # Errors
/// What could not be written, and why.
pub fn write_all(root: &Path, files: &FirstBoot) -> Result<(), String> {
    let root = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| format!("the root file system: {error}"))?;
    for file in &files.files {
        let content = STANDARD.decode(&file.content).map_err(|_| format!("{}: its content is no Base64", file.path))?;
        write_one(&root, &file.path, file.mode & 0o7777, &content)
            .map_err(|error| format!("{}: {error}", file.path))?;
    }
    Ok(())
}

fn write_one(root: &OwnedFd, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
    let odd = || io::Error::from(io::ErrorKind::InvalidInput);
    let parts: Vec<&str> = path.strip_prefix('/').ok_or_else(odd)?.split('/').collect();
    if parts.iter().any(|part| matches!(*part, "" | "." | "..")) {
        return Err(odd());
    }
    // Links of the image are followed as the image itself will see them: with its own root.
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let mut place = String::new();
    let (name, parents) = parts.split_last().ok_or_else(odd)?;
    let folder_flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut folder: OwnedFd = rustix::fs::openat2(root, ".", folder_flags, Mode::empty(), inside)?;
    for part in parents {
        match rustix::fs::mkdirat(&folder, *part, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        place.push_str(part);
        place.push('/');
        folder = rustix::fs::openat2(root, place.as_str(), folder_flags, Mode::empty(), inside)?;
    }
    // What is there is replaced, not followed: a link would lead elsewhere, and a hard link would change another file.
    let beside = format!(".{name}.rackmedic");
    let _ = rustix::fs::unlinkat(&folder, beside.as_str(), rustix::fs::AtFlags::empty());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&folder, beside.as_str(), flags, Mode::from_raw_mode(0o600))?;
    let mut file = File::from(file);
    file.write_all(content)?;
    // FAT keeps no permissions; that is known where it was chosen.
    let _ = rustix::fs::fchmod(&file, Mode::from_raw_mode(mode));
    file.sync_all()?;
    rustix::fs::renameat(&folder, beside.as_str(), &folder, *name)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::install::FirstBootFile;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn file(path: &str) -> FirstBoot {
        FirstBoot { files: vec![FirstBootFile { path: path.to_owned(), mode: 0o640, content: STANDARD.encode("new") }] }
    }

    #[test]
    fn links_of_the_image_stay_inside_of_it() {
        let base = std::env::temp_dir().join(format!("rackmedic-first-boot-{}", std::process::id()));
        let (root, outside) = (base.join("root"), base.join("outside"));
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::write(outside.join("secret"), "old").unwrap();
        symlink(&outside, root.join("absolute")).unwrap();
        symlink("../../../../..", root.join("climbs")).unwrap();
        symlink(outside.join("secret"), root.join("etc/link")).unwrap();
        write_all(&root, &file("/etc/rackmedic/deep/hostname")).unwrap();
        let written = root.join("etc/rackmedic/deep/hostname");
        assert_eq!(std::fs::read_to_string(&written).unwrap(), "new");
        assert_eq!(written.metadata().unwrap().permissions().mode() & 0o777, 0o640);
        // A link to an absolute place means a place below the image's own root, which is not there.
        assert!(write_all(&root, &file("/absolute/secret")).is_err());
        write_all(&root, &file("/climbs/file")).unwrap();
        assert!(root.join("file").exists());
        write_all(&root, &file("/etc/link")).unwrap();
        assert_eq!(std::fs::read_to_string(outside.join("secret")).unwrap(), "old");
        for odd in ["etc/x", "/etc/../x", "/", "/a//b", "/a/./b"] {
            assert!(write_all(&root, &file(odd)).is_err(), "{odd}");
        }
        std::fs::remove_dir_all(&base).unwrap();
    }
}
