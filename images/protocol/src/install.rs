//! The conversation of the installer with the appliance.
//!
//! JSON over HTTPS, the appliance's certificate pinned by the kernel command line. The installer asks, the appliance
//! answers:
//!
//! 1. `POST /installer/1/hello` [`Hello`] → [`Welcome`]. The nonce of the command line is burnt by the first hello that
//!    is welcomed; the same installer (the same boot) may repeat it until it has its answer, and not after its first
//!    report of a later stage: the order to write a disk is not given again.
//! 2. `POST /installer/1/report` [`Report`] → [`Answer`], once a second and at each change of stage, with the session.
//! 3. `POST /installer/1/first-boot` (an empty body) → [`FirstBoot`], after the image was verified on the disk: only then
//!    are credentials made.
//!
//! The session goes in the header `Authorization: Bearer SESSION`. An error is an [`Problem`] with a status of 4xx (do not
//! ask again) or 5xx (ask again; the appliance may be starting).

use crate::disk::{Disk, DiskName};
use crate::manifest::{Arch, Firmware};
use crate::name::Name;
use crate::signature::Signature;
use serde::{Deserialize, Serialize};

/// Where hello is said.
pub const HELLO_PATH: &str = "/installer/1/hello";
/// Where reports go.
pub const REPORT_PATH: &str = "/installer/1/report";
/// Where the files of the first boot come from.
pub const FIRST_BOOT_PATH: &str = "/installer/1/first-boot";
/// The largest body of either side, bytes. A [`FirstBoot`] is one, too.
pub const BODY_LIMIT_BYTES: usize = 1 << 20;
/// What the files that are given with a job may take of such a body, bytes. The rest is left to those that make its
/// host join: they are made when the image is on the disk, and then it is too late to find that there is no room.
pub const GIVEN_FILES_LIMIT_BYTES: usize = BODY_LIMIT_BYTES / 4 * 3;

/// A network card as the installer sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// The kernel's name in this boot.
    pub kernel_name: String,
    /// Its hardware address, `52:54:00:12:34:56`.
    pub mac: String,
    /// Whether a cable is seen.
    pub link: bool,
}

/// What the machine is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// For which code it is.
    pub arch: Arch,
    /// What booted it.
    pub firmware: Firmware,
    /// Whether Secure Boot is on. `None`: there is no such thing here.
    pub secure_boot: Option<bool>,
    /// SMBIOS: the system's UUID.
    pub system_uuid: Option<String>,
    /// SMBIOS: the system's serial number.
    pub system_serial: Option<String>,
    /// SMBIOS: vendor and product.
    pub product: Option<String>,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Logical processors.
    pub processors: u32,
    /// The cards.
    pub nics: Vec<Nic>,
    /// The disks.
    pub disks: Vec<Disk>,
}

/// The first word of an installer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`crate::PROTOCOL_VERSION`].
    pub protocol: u32,
    /// The release of the installer.
    pub installer: String,
    /// The job, from the command line.
    pub job: Name,
    /// The nonce, from the command line: 32 hexadecimal digits.
    pub nonce: String,
    /// The card it booted from, from the command line.
    pub mac: String,
    /// Made anew in each boot from the kernel's randomness, 32 hexadecimal digits: who repeats hello is told from a second
    /// installer that has learnt the nonce.
    pub boot: String,
    /// What the machine is.
    pub inventory: Inventory,
    /// It knows [`Order::Prove`]. Installers from before do not say so, and are never given it.
    #[serde(default)]
    pub proves: bool,
}

/// How the disk is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WriteMode {
    /// Each chunk on the disk is read first; only what differs is fetched and written.
    Differential,
    /// Everything is fetched and written.
    Plain,
}

/// Where an image comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSource {
    /// The exact text of `manifest.json`.
    pub manifest: String,
    /// Its signature.
    pub signature: Signature,
    /// Where the chunk table is: a plain HTTP URL.
    pub table_url: String,
    /// Where the stored file is: a plain HTTP URL that takes ranges.
    pub content_url: String,
}

/// What the installer is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "kebab-case")]
pub enum Order {
    /// Write the image, then configure.
    Install(Box<InstallOrder>),
    /// Show the machine and write nothing: the disk is there once and can be read, the card has its cable.
    Prove(Box<ProveOrder>),
}

/// What is to be shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProveOrder {
    /// Which disk. It must fit exactly one, which is opened for reading only.
    pub disk: DiskName,
}

/// What is to be written where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallOrder {
    /// Which disk. It must fit exactly one.
    pub disk: DiskName,
    /// What is written.
    pub image: ImageSource,
    /// How.
    pub mode: WriteMode,
    /// A person has approved that foreign data on that disk is lost.
    pub foreign_data_approved: bool,
    /// Whether an EFI boot entry is set and duplicates are pruned.
    pub set_boot_entry: bool,
}

/// The answer to hello.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// [`crate::PROTOCOL_VERSION`].
    pub protocol: u32,
    /// Names this conversation in all that follows. A secret.
    pub session: String,
    /// What to do.
    pub order: Order,
}

impl std::fmt::Debug for Welcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Welcome").field("order", &self.order).finish_non_exhaustive()
    }
}

/// The stages of an install, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstallStage {
    /// Finding the card, taking an address, saying hello.
    Hello,
    /// Finding the one disk, and looking for foreign data on it.
    Disk,
    /// Verifying the manifest and the chunk table.
    Image,
    /// Reading the chunks that are on the disk (differential only).
    Compare,
    /// Writing.
    Write,
    /// Reading everything back.
    Verify,
    /// Moving the backup of the partition table, having the kernel read it again.
    Partitions,
    /// Writing the files of the first boot.
    Configure,
    /// Setting the EFI boot entry.
    BootEntry,
    /// Everything is done: waiting to be switched off.
    Done,
}

impl std::fmt::Display for InstallStage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Hello => "hello",
            Self::Disk => "disk",
            Self::Image => "image",
            Self::Compare => "compare",
            Self::Write => "write",
            Self::Verify => "verify",
            Self::Partitions => "partitions",
            Self::Configure => "configure",
            Self::BootEntry => "boot-entry",
            Self::Done => "done",
        })
    }
}

/// What kind of failure ended an install. A code for machines; the sentence is for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureCode {
    /// No card has the MAC of the command line.
    NoBootNic,
    /// No address, no route, or no answer from the appliance.
    NoNetwork,
    /// The appliance's certificate is not the pinned one.
    WrongPin,
    /// The appliance refused.
    Refused,
    /// No disk fits.
    NoDisk,
    /// More than one disk fits.
    ManyDisks,
    /// The disk is read-only, or the kernel or something else holds it.
    DiskBusy,
    /// The disk is smaller than the image.
    DiskTooSmall,
    /// Foreign data is on the disk and nobody approved its loss.
    ForeignData,
    /// The manifest is not trusted.
    UntrustedManifest,
    /// The image is for another kind of machine.
    WrongArch,
    /// The chunk table does not fit the manifest.
    BadTable,
    /// The image could not be fetched.
    Fetch,
    /// A chunk was not what was promised.
    BadChunk,
    /// The disk could not be read.
    DiskRead,
    /// The disk could not be written.
    DiskWrite,
    /// What was read back is not what was written.
    VerifyFailed,
    /// The partition table is wrong, is none for the blocks of this disk, or was not read again.
    Partitions,
    /// The files of the first boot could not be written.
    Configure,
    /// The boot entry could not be set.
    BootEntry,
    /// Something of ours is wrong.
    Internal,
}

/// Why an install ended before its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// In which stage.
    pub stage: InstallStage,
    /// What kind.
    pub code: FailureCode,
    /// Cause, consequence and next step.
    pub sentence: String,
    /// The disks that could have been meant, when that was the question.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<Disk>,
    /// Whether anything was written to the disk.
    pub disk_touched: bool,
}

/// What a differential write found and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteCount {
    /// Chunks of the image.
    pub chunks: u64,
    /// Chunks that were not as the image says.
    pub differing_chunks: u64,
    /// Bytes that were written to the disk.
    pub written_bytes: u64,
    /// Bytes that were fetched.
    pub fetched_bytes: u64,
}

/// Where an install is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// In which stage.
    pub stage: InstallStage,
    /// Since the installer began, milliseconds.
    pub since_start_ms: u64,
    /// What is done of the stage, bytes.
    pub done_bytes: u64,
    /// What there is to do in the stage, bytes. 0: unknown.
    pub total_bytes: u64,
    /// What the write did so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<WriteCount>,
    /// The first chunks that differed, by number (at most 64).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differing: Vec<u64>,
    /// Why it ended, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// The answer to a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// Go on.
    Continue,
    /// Stop at once, write nothing more, and wait to be switched off.
    Stop {
        /// Why, in words.
        why: String,
    },
}

/// One file of the first boot.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstBootFile {
    /// Its absolute path in the root file system, without `.` and `..`.
    pub path: String,
    /// Its permissions, such as `0o600`.
    pub mode: u32,
    /// Its content, Base64.
    pub content: String,
}

/// The content may be a credential: only its place and length are shown.
impl std::fmt::Debug for FirstBootFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} characters)", self.path, self.content.len())
    }
}

/// What is written to the root file system before the first boot. It may hold a join credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstBoot {
    /// The files, written in this order.
    pub files: Vec<FirstBootFile>,
}

impl FirstBoot {
    /// How much of a body these files take, bytes.
    #[must_use]
    pub fn encoded_bytes(files: &[FirstBootFile]) -> usize {
        serde_json::to_vec(files).map_or(usize::MAX, |text| text.len())
    }
}

/// An answer of 4xx or 5xx.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A code for machines.
    pub code: Name,
    /// Cause, consequence and next step.
    pub sentence: String,
}
