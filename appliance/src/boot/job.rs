//! One reimage of one host: its record on the disk, and how it moves on.
//!
//! The record is written before what depends on it is said to anybody. It is the once-only record of rule 38: an order to
//! write a disk goes out only after the state that says so is on our disk.

use crate::rejoin::names::NodeName;
use protocol::digest::Sha256;
use protocol::disk::DiskName;
use protocol::install::{Failure, FirstBoot, FirstBootFile, GIVEN_FILES_LIMIT_BYTES, InstallStage, WriteMode};
use protocol::name::Name;
use pxe::gate::{FirstLoader, Now, Phase, ProxyStyle, Ticket, Token};
use pxe::mac::Mac;
use pxe::script::LocalBoot;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use std::time::Duration;

/// The `version` of a record that this code writes, and the only one it reads.
pub const VERSION: u32 = 1;

/// What a job is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// The card that boots.
    pub mac: String,
    /// The image's name in the store; `None` only for a job that writes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Name>,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_version: Option<Name>,
    /// Nothing is written: the disk is read, the card and the machine are shown. An image only says for which code the
    /// machine is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub prove: bool,
    /// The disk.
    pub disk: DiskName,
    /// How it is written.
    pub mode: WriteMode,
    /// A person has approved that foreign data on that disk is lost.
    pub foreign_data_approved: bool,
    /// The files of the first boot.
    #[serde(default)]
    pub first_boot: Vec<FirstBootFile>,
    /// The name under which its host joins the cluster of the boot servers; `None`: it joins nothing by us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<NodeName>,
    /// Who may read an image for a virtual drive that starts the installer; `None`: there is no such image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media: Option<MediaFor>,
}

impl Task {
    /// The image with its version.
    #[must_use]
    pub fn of_image(&self) -> Option<(&Name, &Name)> {
        self.image.as_ref().zip(self.image_version.as_ref())
    }
}

/// That files for a first boot go into one answer to the installer, with room for those of a join. It asks for them
/// when the disk is written, so this has to be known before.
///
/// # Errors
/// They do not, in words.
pub fn go_into_one_answer(files: &[FirstBootFile]) -> Result<(), String> {
    let bytes = FirstBoot::encoded_bytes(files);
    if bytes <= GIVEN_FILES_LIMIT_BYTES {
        return Ok(());
    }
    Err(format!(
        "the files of the first boot have {bytes} bytes as they are sent (in Base64), and an installer takes at most \
         {GIVEN_FILES_LIMIT_BYTES} of them: give fewer or smaller ones, and let the host fetch the rest itself"
    ))
}

/// For whom the image of a virtual drive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MediaFor {
    /// The only address that may read it: the BMC's.
    pub reader: Ipv4Addr,
    /// Our address as the host itself reaches it: where its installer says hello.
    pub appliance: Ipv4Addr,
}

/// Where a job is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum State {
    /// The host is to boot the installer.
    Armed,
    /// The installer was welcomed and told to write. From here on this job gives no such order again.
    Installing {
        /// The boot of the installer, by its own random number.
        boot: String,
        /// The SHA-256 of the session's secret.
        session: Sha256,
        /// The furthest stage it reported.
        stage: InstallStage,
    },
    /// The disk is written, verified and configured.
    Installed,
    /// It failed.
    Failed {
        /// Why.
        failure: Box<Failure>,
    },
    /// It is over.
    Closed {
        /// How, in words.
        how: String,
        /// It was installed before, or proven: only its right has ended. Files from before this field leave it out.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        installed: bool,
    },
}

impl State {
    /// The state of a job that ends here. What it had reached stays known to whoever looks only now.
    #[must_use]
    pub fn closed(&self, how: impl Into<String>) -> Self {
        Self::Closed { how: how.into(), installed: self.is_installed() }
    }

    /// Whether the disk is written, verified and configured (of a proof: all is shown), also when it is over since then.
    #[must_use]
    pub const fn is_installed(&self) -> bool {
        matches!(self, Self::Installed | Self::Closed { installed: true, .. })
    }
}

/// A job as it lies on the disk.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// [`VERSION`].
    pub version: u32,
    /// Its name.
    pub name: Name,
    /// What it is to do.
    pub task: Task,
    /// In the path of its files. A secret.
    pub token: String,
    /// In the path of the image for its virtual drive, and nowhere else: a BMC shows and logs the URL. A secret.
    #[serde(default)]
    pub media_token: String,
    /// Burnt by the first hello. A secret.
    pub nonce: String,
    /// Which boot of this machine `opened` counts from: `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// When it was opened.
    pub opened: Now,
    /// The UUID of the machine that its installer was welcomed on, as the firmware tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_uuid: Option<String>,
    /// Where it is.
    pub state: State,
}

/// The secrets are left out.
impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job")
            .field("name", &self.name)
            .field("task", &self.task)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// What the site says of a host.
#[derive(Clone, Debug, Default)]
pub struct HostWays {
    /// Its first loader.
    pub first_loader: FirstLoader,
    /// How it is told by ProxyDHCP.
    pub proxy_style: ProxyStyle,
    /// How it leaves the boot script for its disk.
    pub local_boot: LocalBoot,
}

impl Job {
    /// The card. `None` in a record that somebody changed by hand.
    #[must_use]
    pub fn mac(&self) -> Option<Mac> {
        self.task.mac.parse().ok()
    }

    /// Whether anything is still to come.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(self.state, State::Armed | State::Installing { .. } | State::Installed)
    }

    /// The ticket, as long as the job is open. `touched` is the last sign of life of its installer.
    #[must_use]
    pub fn ticket(&self, ways: &HostWays, touched: Now, boot_id: &str, now: Now) -> Option<Ticket> {
        let phase = match self.state {
            State::Armed => Phase::Armed,
            State::Installing { .. } => Phase::Installing { last_report: touched },
            State::Installed => Phase::Installed { since: touched },
            State::Failed { .. } | State::Closed { .. } => return None,
        };
        Some(Ticket {
            job: self.name.clone(),
            mac: self.mac()?,
            token: Token::parse(&self.token)?,
            opened: self.opened_here(boot_id, now),
            phase,
            first_loader: ways.first_loader,
            proxy_style: ways.proxy_style,
        })
    }

    /// When it was opened, by the clocks of this boot of our machine. After a restart of the machine only the wall clock
    /// can tell; one that runs behind the opening makes the ticket worthless.
    fn opened_here(&self, boot_id: &str, now: Now) -> Now {
        if self.boot_id == boot_id {
            return self.opened;
        }
        let age = now.wall.checked_sub(self.opened.wall);
        // A wall clock that went back shows no age: then none is believed, and the gate refuses.
        let elapsed = age.and_then(|age| now.elapsed.checked_sub(age)).unwrap_or(Duration::MAX);
        Now { elapsed, wall: self.opened.wall }
    }
}

#[cfg(test)]
impl Task {
    /// What a test has installed: one disk, one image, on this card.
    pub(crate) fn example(mac: Mac) -> Task {
        Task {
            mac: mac.to_string(),
            image: Some("node".parse().unwrap()),
            image_version: Some("1".parse().unwrap()),
            prove: false,
            disk: DiskName { serial: Some("S1".to_owned()), wwn: None },
            mode: WriteMode::Plain,
            foreign_data_approved: false,
            first_boot: Vec::new(),
            join: None,
            media: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_bounded_by_what_all_of_them_take_on_their_way() {
        let file = |bytes: usize| FirstBootFile {
            path: "/etc/file".to_owned(),
            mode: 0o600,
            content: "A".repeat(bytes.div_ceil(3) * 4),
        };
        assert_eq!(go_into_one_answer(&[]), Ok(()));
        // The largest file that is read goes alone, and not with another one of a quarter of its size.
        assert_eq!(go_into_one_answer(&[file(512 << 10)]), Ok(()));
        let why = go_into_one_answer(&[file(512 << 10), file(128 << 10)]).unwrap_err();
        assert!(why.contains(&GIVEN_FILES_LIMIT_BYTES.to_string()) && why.contains("fewer or smaller"), "{why}");
    }

    #[test]
    fn a_closed_job_tells_whether_it_was_installed_and_files_from_before_are_read() {
        let of_text = |text: &str| serde_json::from_str::<State>(text).unwrap();
        let before = of_text(r#"{"state": "closed", "how": "disarmed by hand"}"#);
        assert_eq!(before, State::Armed.closed("disarmed by hand"));
        assert!(!before.is_installed());
        let text = serde_json::to_string(&before).unwrap();
        assert_eq!(text, r#"{"state":"closed","how":"disarmed by hand"}"#, "a release from before reads it too");
        let after = State::Installed.closed("its time is over");
        assert_eq!(of_text(&serde_json::to_string(&after).unwrap()), after);
        assert!(after.is_installed() && after.closed("again").is_installed());
    }
}
