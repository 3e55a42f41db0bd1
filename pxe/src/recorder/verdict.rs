//! Where a boot stands, in one plain sentence: a pure function of what was seen.

use super::event::{BootEvent, NAMES_A_BOOT_FILE};
use crate::dhcp::request::BootClass;
use crate::files::Protocol;
use protocol::install::InstallStage;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

/// How far a boot came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reached {
    /// Nothing was heard from it.
    #[default]
    Nothing,
    /// It asked for an address, not for a boot.
    AddressOnly,
    /// It asked for a boot.
    Asked,
    /// It was told what to boot.
    Offered,
    /// It took an address.
    Addressed,
    /// Its BMC reads the image for its virtual drive.
    Media,
    /// It began to fetch its first loader.
    Loader,
    /// It has its first loader.
    LoaderFetched,
    /// The loader asked for its script.
    Script,
    /// It fetches the kernel and the initramfs.
    Kernel,
    /// It has both.
    KernelFetched,
    /// The installer said hello.
    Hello,
    /// The installer is at work.
    Installing,
    /// The disk is written, verified and configured.
    Done,
    /// The node renewed its Lease.
    Joined,
}

/// What is to be said about a boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// How far it came.
    pub reached: Reached,
    /// Whether it stands still: nothing came for longer than this step ever takes.
    pub stopped: bool,
    /// The sentence: what was seen, what it means, what to do.
    pub sentence: String,
}

/// After so long without a word a step stands still. POST of a server can take ten minutes; everything else is quick.
fn patience(reached: Reached) -> Duration {
    Duration::from_secs(match reached {
        // The drive is filled before the power is switched on, so the self test is still to come.
        Reached::Nothing | Reached::AddressOnly | Reached::Media => 600,
        Reached::Done => 900,
        Reached::KernelFetched => 180,
        Reached::Installing => 300,
        // No event comes while a file flows. By GRUB and TFTP an initramfs takes some 25,000 round trips, which are 75 s
        // where one takes 3 ms.
        Reached::Kernel => 120,
        // A loader that resets the card waits for the switch: spanning tree lets nothing through for up to 50 s.
        Reached::Loader | Reached::LoaderFetched | Reached::Script => 60,
        _ => 45,
    })
}

/// Where a boot stands. `silent` is the time since the last event.
#[must_use]
pub fn verdict<'a>(events: impl IntoIterator<Item = &'a BootEvent>, silent: Duration) -> Verdict {
    let mut seen = Seen::default();
    events.into_iter().for_each(|event| seen.add(event));
    let stopped = seen.failed.is_some() || silent >= patience(seen.reached);
    let sentence = seen.failed.clone().unwrap_or_else(|| seen.sentence(stopped, silent));
    Verdict { reached: seen.reached, stopped, sentence }
}

#[derive(Default)]
struct Seen {
    reached: Reached,
    asks: u32,
    asks_after_offer: u32,
    took_other: Option<Ipv4Addr>,
    /// Servers that name a boot file of their own.
    foreign_files: BTreeSet<Ipv4Addr>,
    told_on_4011: bool,
    http_boot: bool,
    stage: Option<InstallStage>,
    failed: Option<String>,
    broken_file: Option<String>,
    refused: Option<String>,
    nothing_for: Option<String>,
    foreign: Option<String>,
}

impl Seen {
    fn reach(&mut self, reached: Reached) {
        self.reached = self.reached.max(reached);
    }

    fn add(&mut self, event: &BootEvent) {
        match event {
            // A new power-on begins a new story.
            BootEvent::PoweredOn => *self = Self::default(),
            BootEvent::Armed | BootEvent::Acknowledged { .. } if self.reached < Reached::Addressed => {
                if matches!(event, BootEvent::Acknowledged { .. }) && self.reached >= Reached::Offered {
                    self.reach(Reached::Addressed);
                }
            }
            BootEvent::Armed
            | BootEvent::Acknowledged { .. }
            | BootEvent::RouterAsked
            | BootEvent::FileNotThere { .. }
            | BootEvent::FileSized { .. } => {}
            BootEvent::Discover { class: None, .. } => self.reach(Reached::AddressOnly),
            BootEvent::Discover { class: Some(class), .. } => {
                self.http_boot |= *class == BootClass::Http;
                self.asks += 1;
                if self.reached >= Reached::Offered && self.reached < Reached::Loader {
                    self.asks_after_offer += 1;
                }
                self.reach(Reached::Asked);
            }
            BootEvent::Offered { .. } => self.reach(Reached::Offered),
            BootEvent::TookOther { server, .. } => {
                self.took_other = Some(*server);
                if self.reached >= Reached::Offered {
                    self.reach(Reached::Addressed);
                }
            }
            BootEvent::MediaRead { .. } => self.reach(Reached::Media),
            BootEvent::BootServer { .. } => {
                self.told_on_4011 = true;
                self.reach(Reached::Addressed);
            }
            BootEvent::Denied { address } => {
                self.refused = Some(format!("asked for {address}, which belongs to another card"))
            }
            BootEvent::Refused { stage, why } => self.refused = Some(format!("was not given {stage:?}: {why}")),
            BootEvent::NothingFor { why } => self.nothing_for = Some(why.to_string()),
            BootEvent::FileBegan { file, .. } => self.reach(if is_kernel(file) {
                Reached::Kernel
            } else if file.ends_with(".ipxe") || file.ends_with(".cfg") {
                Reached::Script
            } else {
                Reached::Loader
            }),
            BootEvent::FileEnded { file, .. } => {
                self.broken_file = None;
                if file.starts_with("initrd") || file.starts_with("installer") {
                    self.reach(Reached::KernelFetched);
                } else if !is_kernel(file) && !file.ends_with(".ipxe") && !file.ends_with(".cfg") {
                    self.reach(Reached::LoaderFetched);
                }
            }
            BootEvent::FileFailed { protocol, file, why, .. } => {
                let by = match protocol {
                    Protocol::Tftp => "TFTP",
                    Protocol::Http => "HTTP",
                };
                self.broken_file = Some(format!("{file} by {by} broke off: {why}"));
            }
            BootEvent::Foreign { server, what } => {
                if what == NAMES_A_BOOT_FILE {
                    self.foreign_files.insert(*server);
                }
                self.foreign = Some(format!("{server}: {what}"));
            }
            BootEvent::Hello => self.reach(Reached::Hello),
            BootEvent::Stage { stage, .. } => {
                self.stage = Some(*stage);
                self.reach(if *stage == InstallStage::Done { Reached::Done } else { Reached::Installing });
            }
            BootEvent::Written { .. } => self.reach(Reached::Installing),
            BootEvent::Failed { failure } => {
                self.failed = Some(format!("the install failed in stage {:?}: {}", failure.stage, failure.sentence));
            }
            BootEvent::FirstLease => self.reach(Reached::Joined),
            BootEvent::Closed { how } => self.failed = self.failed.take().or_else(|| Some(format!("closed: {how}"))),
        }
    }

    fn sentence(&self, stopped: bool, silent: Duration) -> String {
        let mut sentence = self.cause();
        if stopped && self.reached != Reached::Joined {
            sentence.push_str(&format!(" (nothing for {} s)", silent.as_secs()));
        }
        let named = self.took_other.is_some_and(|server| self.foreign_files.contains(&server));
        if let Some(foreign) = self.foreign.as_ref().filter(|_| self.reached < Reached::Loader && !named) {
            sentence.push_str(&format!("; another DHCP server interferes, {foreign}"));
        }
        sentence
    }

    fn cause(&self) -> String {
        if let Some(broken) = &self.broken_file {
            return format!("{broken}: look for a bad cable, a duplex or MTU mismatch on its port");
        }
        if let Some(why) = &self.nothing_for {
            return format!("asks to boot, but there is nothing for it: {why}");
        }
        if let Some(refused) = self.refused.as_ref().filter(|_| self.reached <= Reached::Asked) {
            return refused.clone();
        }
        if let Some(server) =
            self.took_other.filter(|server| self.reached == Reached::Addressed && self.foreign_files.contains(server))
        {
            return format!(
                "took the whole offer of {server}, which names a boot file of its own, and boots what that says: it came first. Take options 60, 66 and 67 out of {server} at least for this host, or use HTTP boot by its BMC, or virtual media"
            );
        }
        let text = match self.reached {
            Reached::Nothing => {
                "has not asked for anything yet: its firmware is still starting, or it does not boot from this network card"
            }
            Reached::AddressOnly => {
                "asks for an address, but not to boot: network boot is off in its firmware, or it started what is on its disk"
            }
            Reached::Asked => "asks to boot and was not answered: no address of this subnet is reserved for it",
            Reached::Offered if self.asks_after_offer >= 1 => {
                "got the offer and asked again instead of taking it: its ROM ignores offers of a proxy without an address, or the answer does not reach it. Use server mode with a reservation, HTTP boot by its BMC, or virtual media"
            }
            Reached::Offered => "got the offer and has not taken it yet",
            Reached::Addressed if self.told_on_4011 => {
                "was told its file on port 4011 and never asked for it: its ROM cannot reach TFTP here"
            }
            Reached::Addressed if self.took_other.is_some() => {
                "got the offer, took its address from the other server, never asked for the file: its ROM ignores split offers. Use server mode with a reservation, HTTP boot by its BMC, or virtual media"
            }
            Reached::Addressed if self.http_boot => {
                "got the offer, took the address, never asked for the file: its firmware refuses plain HTTP, or the URL"
            }
            Reached::Addressed => {
                "got the offer, took the address, never asked for the file: TFTP is blocked on the way to us"
            }
            Reached::Media => {
                "its BMC reads the image for its virtual drive; the installer has not said hello: it is still starting, its firmware does not boot from that drive, or it lacks a driver for the network card"
            }
            Reached::Loader => "fetches its first loader",
            Reached::LoaderFetched => {
                "has its first loader, but the loader never asked for its script: it was not started (Secure Boot is on, or another architecture), or it lost the network card"
            }
            Reached::Script => "the loader fetched its script, but not the kernel",
            Reached::Kernel => "fetches the installer",
            Reached::KernelFetched => {
                "has the installer's kernel and initramfs, but the installer has not said hello: it lacks a driver for the network card, or the kernel does not start"
            }
            Reached::Hello => "the installer said hello and has not begun yet",
            Reached::Installing => {
                return match self.stage {
                    Some(stage) => format!("the installer is at work, in stage {stage:?}"),
                    None => "the installer is at work".to_owned(),
                };
            }
            Reached::Done => "is installed, verified and configured; it has not come back as a node yet",
            Reached::Joined => "is back: its node renewed its Lease",
        };
        text.to_owned()
    }
}

fn is_kernel(file: &str) -> bool {
    file.starts_with("vmlinuz") || file.starts_with("initrd") || file.starts_with("installer")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(events: &[BootEvent], silent_s: u64) -> Verdict {
        verdict(events, Duration::from_secs(silent_s))
    }

    fn asks() -> BootEvent {
        BootEvent::Discover { class: Some(BootClass::Pxe), client: "x64 UEFI".into(), ipxe: false }
    }

    fn offered() -> BootEvent {
        BootEvent::Offered { address: None, file: Some("snponly.efi".to_owned()) }
    }

    #[test]
    fn a_rom_that_ignores_split_offers_is_named() {
        let other = BootEvent::TookOther { server: Ipv4Addr::new(10, 0, 0, 1), address: None };
        let verdict = said(&[BootEvent::Armed, asks(), offered(), other], 60);
        assert!(verdict.stopped);
        assert!(verdict.sentence.contains("ROM ignores split offers"), "{}", verdict.sentence);

        let again = said(&[asks(), offered(), asks(), offered()], 60);
        assert!(again.sentence.contains("asked again"), "{}", again.sentence);
    }

    #[test]
    fn a_host_that_took_the_whole_offer_of_another_server_is_not_told_that_its_rom_is_to_blame() {
        let (winner, third) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 9));
        let names = |server| BootEvent::Foreign { server, what: NAMES_A_BOOT_FILE.into() };
        let took = BootEvent::TookOther { server: winner, address: None };
        let sentence = said(&[asks(), offered(), names(winner), took.clone()], 60).sentence;
        assert!(sentence.contains("whole offer of 10.0.0.1") && !sentence.contains("ROM"), "{sentence}");
        // Another one names a file as well, but it took its address from one that does not.
        let sentence = said(&[asks(), offered(), names(third), took], 60).sentence;
        assert!(sentence.contains("ROM ignores split offers") && sentence.contains("10.0.0.9"), "{sentence}");
    }

    #[test]
    fn a_slow_post_is_no_standstill_and_a_new_power_on_begins_anew() {
        assert!(!said(&[BootEvent::Armed, BootEvent::PoweredOn], 300).stopped);
        assert!(said(&[BootEvent::Armed, BootEvent::PoweredOn], 700).stopped);
        let verdict = said(&[asks(), offered(), BootEvent::PoweredOn], 1);
        assert_eq!(verdict.reached, Reached::Nothing);
    }

    #[test]
    fn a_loader_that_never_speaks_again_points_at_secure_boot() {
        let ended = BootEvent::FileEnded {
            protocol: Protocol::Tftp,
            file: "snponly.efi".to_owned(),
            bytes: 1,
            took_ms: 1,
            sent_again: 0,
        };
        let verdict = said(&[asks(), offered(), ended], 60);
        assert_eq!(verdict.reached, Reached::LoaderFetched);
        assert!(verdict.sentence.contains("Secure Boot"), "{}", verdict.sentence);
    }

    #[test]
    fn a_file_that_flows_slowly_and_a_switch_that_holds_packets_back_are_no_standstill() {
        let began = |file: &str| BootEvent::FileBegan {
            protocol: Protocol::Tftp,
            file: file.to_owned(),
            bytes: 25_000 * 1_024,
            agreed: String::new(),
        };
        for (file, reached, waited_s, too_long_s) in [
            ("snponly.efi", Reached::Loader, 55, 60),
            ("grub.cfg", Reached::Script, 55, 60),
            ("initrd.img", Reached::Kernel, 75, 120),
        ] {
            let events = [asks(), offered(), began(file)];
            assert_eq!(said(&events, 0).reached, reached, "{file}");
            assert!(!said(&events, waited_s).stopped && said(&events, too_long_s).stopped, "{file}");
        }
    }

    #[test]
    fn a_broken_transfer_is_named_until_it_is_made_good() {
        let failed = BootEvent::FileFailed {
            protocol: Protocol::Tftp,
            file: "snponly.efi".to_owned(),
            bytes: 512,
            why: "no acknowledgement after 6 tries".to_owned(),
        };
        let verdict = said(&[asks(), offered(), failed], 60);
        assert!(verdict.sentence.contains("no acknowledgement after 6 tries"), "{}", verdict.sentence);
    }
}
