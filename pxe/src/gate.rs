//! The gate: whether a machine may take the next step of a network boot. DHCP, ProxyDHCP, router advertisements, TFTP,
//! HTTP and the installer's hello all ask here, and nowhere else (tinkerbell/tinkerbell#951: one route forgot to ask, and
//! hosts reinstalled themselves for ever).
//!
//! Without a ticket nothing is said. A ticket is the right of one card to boot from the network for one job.

use crate::mac::Mac;
use protocol::name::Name;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Both clocks. A right ends by whichever says so first, and at once when they disagree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Now {
    /// Since this machine booted; goes on whatever the wall clock is set to.
    pub elapsed: Duration,
    /// Since 1970, by the wall clock.
    pub wall: Duration,
}

/// How far the two clocks may drift apart before no right is believed any more.
const CLOCK_DISAGREEMENT: Duration = Duration::from_secs(60);
/// From the opening of a ticket to the first hello (rule 35).
pub const TICKET_TTL: Duration = Duration::from_secs(30 * 60);
/// A job that reports lives on while its last report is not older (rule 35).
pub const REPORT_TTL: Duration = Duration::from_secs(5 * 60);
/// No job lives longer (rule 35).
pub const JOB_CAP: Duration = Duration::from_secs(2 * 60 * 60);

impl Now {
    /// How long ago `then` was, by the clock that says more. `None`: the clocks disagree, or one ran backwards.
    #[must_use]
    pub fn since(self, then: Self) -> Option<Duration> {
        let elapsed = self.elapsed.checked_sub(then.elapsed)?;
        let wall = self.wall.checked_sub(then.wall)?;
        (elapsed.abs_diff(wall) <= CLOCK_DISAGREEMENT).then(|| elapsed.max(wall))
    }
}

/// 128 random bits in 32 hexadecimal digits: what is in the path of every file of one ticket.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Token(String);

impl Token {
    /// From 16 random bytes.
    #[must_use]
    pub fn new(random: [u8; 16]) -> Self {
        Self(random.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// From its text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        fits.then(|| Self(text.to_owned()))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Where the job of a ticket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The host is to boot the installer.
    Armed,
    /// The installer runs.
    Installing {
        /// When it last reported.
        last_report: Now,
    },
    /// The disk is written and verified: the host is to boot from it.
    Installed {
        /// Since when.
        since: Now,
    },
}

/// Which first loader a host is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FirstLoader {
    /// iPXE, not signed.
    #[default]
    Ipxe,
    /// The distribution's shim and GRUB, for Secure Boot.
    Shim,
}

/// How a UEFI host is told its file by ProxyDHCP. Firmware differs, and no way fits all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyStyle {
    /// The file stands in the offer, with option 43's "boot this at once".
    #[default]
    Offer,
    /// The offer says only who we are; the file is given on port 4011.
    Port4011,
}

/// The right of one card to boot from the network for one job.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// For which job.
    pub job: Name,
    /// Which card.
    pub mac: Mac,
    /// What is in the path of its files.
    pub token: Token,
    /// When it was opened.
    pub opened: Now,
    /// Where its job is.
    pub phase: Phase,
    /// Its first loader.
    pub first_loader: FirstLoader,
    /// How it is told by ProxyDHCP.
    pub proxy_style: ProxyStyle,
}

/// A step of a network boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// DHCP's boot options, ProxyDHCP, router advertisements.
    Options,
    /// The first and second loader.
    Loader,
    /// The boot script.
    Script,
    /// The installer's kernel and initramfs.
    Kernel,
    /// The installer's hello.
    Hello,
    /// The image's chunk table and content.
    Image,
    /// The image for its virtual drive, which holds loader, script, kernel and initramfs.
    Media,
}

impl Stage {
    /// All stages.
    pub const ALL: [Self; 7] =
        [Self::Options, Self::Loader, Self::Script, Self::Kernel, Self::Hello, Self::Image, Self::Media];
}

/// What a machine that passed is to boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The installer.
    Installer,
    /// Its own disk.
    LocalDisk,
}

/// Why a machine may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// There is no ticket.
    #[error("no ticket is open")]
    NoTicket,
    /// The ticket is for another card.
    #[error("the ticket is for another card")]
    OtherMac,
    /// The ticket is for another job.
    #[error("the ticket is for another job")]
    OtherJob,
    /// Not this host's BMC asks for the image of its virtual drive.
    #[error("the image for the virtual drive is for the BMC of this host alone, and another address asked for it")]
    OtherReader,
    /// No hello came in 30 minutes.
    #[error("the ticket has expired: no hello came within 30 minutes")]
    Expired,
    /// The installer fell silent.
    #[error("the installer fell silent or came no further: its last progress is more than 5 minutes old")]
    Silent,
    /// The job takes too long.
    #[error("the job is older than 2 hours")]
    TooOld,
    /// The clocks disagree.
    #[error("the clocks disagree: no right is believed until it is given anew")]
    Clocks,
    /// Not now.
    #[error("not in this phase of the job: a host that installs is not given its loader again")]
    Phase,
    /// It is to start from its disk, and silence is what leads it there.
    #[error("the disk is written: a host that starts by shim and GRUB is led on to it by silence")]
    Written,
}

impl Ticket {
    /// Whether it has run out.
    ///
    /// # Errors
    /// Why it is worth nothing any more.
    pub fn alive(&self, now: Now) -> Result<(), Refusal> {
        let age = now.since(self.opened).ok_or(Refusal::Clocks)?;
        if age >= JOB_CAP {
            return Err(Refusal::TooOld);
        }
        match self.phase {
            Phase::Armed if age >= TICKET_TTL => Err(Refusal::Expired),
            Phase::Armed => Ok(()),
            Phase::Installing { last_report: last } | Phase::Installed { since: last } => {
                let silent = now.since(last).ok_or(Refusal::Clocks)?;
                if silent >= REPORT_TTL { Err(Refusal::Silent) } else { Ok(()) }
            }
        }
    }
}

/// Whether this card may take this step for this job now, and what it is to boot.
///
/// # Errors
/// Why not.
pub fn may_boot(ticket: Option<&Ticket>, mac: Mac, job: &Name, stage: Stage, now: Now) -> Result<Target, Refusal> {
    let ticket = ticket.ok_or(Refusal::NoTicket)?;
    if ticket.mac != mac {
        return Err(Refusal::OtherMac);
    }
    if ticket.job != *job {
        return Err(Refusal::OtherJob);
    }
    ticket.alive(now)?;
    match (ticket.phase, stage) {
        (
            Phase::Armed,
            Stage::Options | Stage::Loader | Stage::Script | Stage::Kernel | Stage::Hello | Stage::Media,
        ) => Ok(Target::Installer),
        // A repeated hello of the same boot is answered again: its answer may have been lost.
        (Phase::Installing { .. }, Stage::Hello | Stage::Image) => Ok(Target::Installer),
        // GRUB cannot tell UEFI that it failed (2.06: `exit` takes no status), and to EDK II's boot manager a program that
        // ends well has booted: it shows its menu. A network boot that nobody answers leads to the next entry.
        (Phase::Installed { .. }, Stage::Options | Stage::Loader | Stage::Script)
            if ticket.first_loader == FirstLoader::Shim =>
        {
            Err(Refusal::Written)
        }
        (Phase::Installed { .. }, Stage::Options | Stage::Loader | Stage::Script) => Ok(Target::LocalDisk),
        (Phase::Armed, Stage::Image)
        // A drive shows what was read of it already; from hello on the installer is in memory and reads no drive.
        | (Phase::Installing { .. }, Stage::Options | Stage::Loader | Stage::Script | Stage::Kernel | Stage::Media)
        | (Phase::Installed { .. }, Stage::Kernel | Stage::Hello | Stage::Image | Stage::Media) => Err(Refusal::Phase),
    }
}

/// Who knows the open tickets: the appliance's world, or the small file of the bench.
pub trait Tickets: Send + Sync + 'static {
    /// The ticket of a card.
    fn of_mac(&self, mac: Mac) -> Option<Arc<Ticket>>;
    /// The ticket with this token.
    fn of_token(&self, token: &Token) -> Option<Arc<Ticket>>;
    /// Both clocks.
    fn now(&self) -> Now;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn at(seconds: u64) -> Now {
        Now { elapsed: Duration::from_secs(seconds), wall: Duration::from_secs(1_800_000_000 + seconds) }
    }

    fn job(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn ticket(phase: Phase) -> Ticket {
        Ticket {
            job: job("job-1"),
            mac: MAC,
            token: Token::new([7; 16]),
            opened: at(100),
            phase,
            first_loader: FirstLoader::Ipxe,
            proxy_style: ProxyStyle::Offer,
        }
    }

    #[test]
    fn without_a_ticket_no_stage_is_open() {
        for stage in Stage::ALL {
            assert_eq!(may_boot(None, MAC, &job("job-1"), stage, at(0)), Err(Refusal::NoTicket));
        }
    }

    #[test]
    fn another_card_or_another_job_gets_nothing() {
        let ticket = ticket(Phase::Armed);
        for stage in Stage::ALL {
            let other = Mac([2, 0, 0, 0, 0, 2]);
            assert_eq!(may_boot(Some(&ticket), other, &job("job-1"), stage, at(101)), Err(Refusal::OtherMac));
            assert_eq!(may_boot(Some(&ticket), MAC, &job("job-2"), stage, at(101)), Err(Refusal::OtherJob));
        }
    }

    #[test]
    fn the_image_is_given_only_to_an_installer_that_was_welcomed() {
        let armed = ticket(Phase::Armed);
        assert_eq!(may_boot(Some(&armed), MAC, &job("job-1"), Stage::Image, at(101)), Err(Refusal::Phase));
        let running = ticket(Phase::Installing { last_report: at(200) });
        assert_eq!(may_boot(Some(&running), MAC, &job("job-1"), Stage::Image, at(201)), Ok(Target::Installer));
    }

    #[test]
    fn an_installed_host_that_asks_again_is_sent_to_its_disk_and_never_to_the_installer() {
        let installed = ticket(Phase::Installed { since: at(200) });
        for stage in Stage::ALL {
            assert_ne!(
                may_boot(Some(&installed), MAC, &job("job-1"), stage, at(201)),
                Ok(Target::Installer),
                "{stage:?}"
            );
        }
        assert_eq!(may_boot(Some(&installed), MAC, &job("job-1"), Stage::Script, at(201)), Ok(Target::LocalDisk));
        let by_shim = Ticket { first_loader: FirstLoader::Shim, ..installed };
        for stage in [Stage::Options, Stage::Loader, Stage::Script] {
            assert_eq!(may_boot(Some(&by_shim), MAC, &job("job-1"), stage, at(201)), Err(Refusal::Written));
        }
    }

    #[test]
    fn clocks_that_disagree_end_every_right() {
        let ticket = ticket(Phase::Armed);
        let back = Now { elapsed: Duration::from_secs(200), wall: Duration::from_secs(1_700_000_000) };
        let ahead = Now { elapsed: Duration::from_secs(200), wall: Duration::from_secs(1_800_000_900) };
        for now in [back, ahead] {
            assert_eq!(may_boot(Some(&ticket), MAC, &job("job-1"), Stage::Options, now), Err(Refusal::Clocks));
        }
    }

    proptest! {
        /// Rule 35 in its own words: 30 minutes to the first hello; a reporting job lives on while its last report is at
        /// most 5 minutes old; never more than 2 hours.
        #[test]
        fn no_stage_is_open_beyond_the_times_of_rule_35(age in 0_u64..20_000, silent in 0_u64..20_000, phase in 0..3) {
            prop_assume!(silent <= age);
            let now = at(100 + age);
            let last = at(100 + age - silent);
            let phase = match phase {
                0 => Phase::Armed,
                1 => Phase::Installing { last_report: last },
                _ => Phase::Installed { since: last },
            };
            let ticket = ticket(phase);
            let dead = age >= 7200 || match phase { Phase::Armed => age >= 1800, _ => silent >= 300 };
            let open = Stage::ALL.iter().any(|stage| may_boot(Some(&ticket), MAC, &job("job-1"), *stage, now).is_ok());
            prop_assert_eq!(open, !dead);
        }
    }
}
