//! A store with one small image and a boot set, made by the product itself.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The store, and what is known of it.
#[derive(Debug)]
pub(crate) struct Store {
    /// Where everything of this run lies.
    pub(crate) folder: PathBuf,
    /// The public key that signs.
    pub(crate) key: String,
    /// The name of its image.
    pub(crate) image_name: &'static str,
    /// The image as it was imported. Empty for a node image, which is large.
    pub(crate) image: Vec<u8>,
}

/// The program under test.
pub(crate) const RACKMEDIC: &str = env!("CARGO_BIN_EXE_rackmedic");

pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Store {
    /// Makes it; `None` when something that is needed is not here.
    pub(crate) fn make() -> Option<Self> {
        let installer = std::env::var("RACKMEDIC_INSTALLER").ok();
        let root = rustix::process::geteuid().is_root();
        let (Some(installer), true, Some(_)) = (installer, root, std::env::var_os("RACKMEDIC_PEERS")) else {
            eprintln!("not run: real firmware needs root, RACKMEDIC_PEERS and RACKMEDIC_INSTALLER (see tests/run)");
            return None;
        };
        let folder = std::env::temp_dir().join(format!("rackmedic-boot-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let place = |name: &str| folder.join(name).display().to_string();
        let key = run(RACKMEDIC, &["image", "key", "--out", &place("key")]).trim().to_owned();
        let image = disk(&folder);
        let store = place("store");
        run(
            RACKMEDIC,
            &[
                "image",
                "import",
                &place("disk.raw"),
                "--name",
                "small",
                "--image-version",
                "1",
                "--root-partition",
                "2",
                "--efi-loader",
                "\\EFI\\BOOT\\BOOTX64.EFI",
                "--key",
                &place("key"),
                "--store",
                &store,
            ],
        );
        run(
            RACKMEDIC,
            &[
                "image",
                "build",
                "boot-set",
                "--set-version",
                "1",
                "--kernel",
                "linux-image-cloud-amd64",
                "--installer",
                &installer,
                "--key",
                &place("key"),
                "--store",
                &store,
                "--work",
                &place("work"),
            ],
        );
        Some(Self { folder, key, image_name: "small", image })
    }

    /// A store of its own, for a test that damages it.
    pub(crate) fn copy(&self, name: &str) -> Self {
        let folder = self.folder.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let (from, to) = (self.place().display().to_string(), folder.display().to_string());
        run("cp", &["-a", &from, &to]);
        Self { folder, key: self.key.clone(), image_name: self.image_name, image: self.image.clone() }
    }

    pub(crate) fn place(&self) -> PathBuf {
        self.folder.join("store")
    }
}

/// A disk with an EFI system partition and a root file system.
fn disk(folder: &Path) -> Vec<u8> {
    let place = |name: &str| folder.join(name).display().to_string();
    std::fs::create_dir_all(folder.join("root/etc")).unwrap();
    std::fs::write(folder.join("root/etc/hostname"), "image\n").unwrap();
    run("truncate", &["-s", "8M", &place("root.img")]);
    run("mke2fs", &["-q", "-t", "ext4", "-d", &place("root"), &place("root.img")]);
    run("mkfs.vfat", &["-F", "32", "-C", &place("esp.img"), "33792"]);
    run("truncate", &["-s", "44M", &place("disk.raw")]);
    let layout = format!("printf 'label: gpt\\nsize=33M, type=U\\nsize=8M\\n' | sfdisk -q {}", place("disk.raw"));
    run("sh", &["-c", &layout]);
    let mut disk = std::fs::read(folder.join("disk.raw")).unwrap();
    for (name, at) in [("esp.img", 1 << 20), ("root.img", 34 << 20)] {
        let part = std::fs::read(folder.join(name)).unwrap();
        disk[at..at + part.len()].copy_from_slice(&part);
    }
    disk[..BOOT_CODE.len()].copy_from_slice(BOOT_CODE);
    disk[BOOT_CODE.len()..BOOT_CODE.len() + STARTED.len() + 1].copy_from_slice(&[STARTED.as_bytes(), &[0]].concat());
    std::fs::write(folder.join("disk.raw"), &disk).unwrap();
    disk
}

/// What the disk says on the first serial port when a BIOS starts it.
pub(crate) const STARTED: &str = "THE DISK HAS STARTED";

/// Boot code of the PC (loaded at 0x7c00): writes the text behind it to COM1 (0x3f8), then halts for ever.
const BOOT_CODE: &[u8] = &[
    0xfa, // cli
    0x31, 0xc0, // xor ax, ax
    0x8e, 0xd8, // mov ds, ax
    0xbe, 0x16, 0x7c, // mov si, 0x7c16: behind this code
    0xac, // lodsb
    0x84, 0xc0, // test al, al
    0x74, 0x06, // jz to hlt
    0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0xee, // out dx, al
    0xeb, 0xf5, // jmp to lodsb
    0xf4, // hlt
    0xeb, 0xfd, // jmp to hlt
];
