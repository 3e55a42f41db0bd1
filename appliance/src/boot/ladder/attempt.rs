//! Whether an attempt may still succeed: a pure function of what the flight recorder saw since the host was switched on.

use pxe::gate::Now;
use pxe::recorder::Moment;
use pxe::recorder::event::BootEvent;
use pxe::recorder::verdict::{self, Reached};
use std::time::Duration;

/// A system that asks for an address so long after the power-on, and for no boot, has started from its disk.
const ADDRESS_ONLY: Duration = Duration::from_secs(120);
/// Offers that are answered by asking again, after which the firmware will not take them.
const IGNORED_OFFERS: usize = 2;
/// Between a DISCOVER that follows an offer because several were sent at once, and one that means "not taken".
const ASKED_AGAIN: Duration = Duration::from_secs(2);

/// Where an attempt stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may still succeed.
    Wait {
        /// Where it is, in a sentence.
        sentence: String,
    },
    /// The installer said hello: the method is proven, the rest is the install's.
    Proven,
    /// It will not come: the next method.
    Failed {
        /// How far it came.
        stage: &'static str,
        /// Why it is given up, in a sentence.
        why: String,
    },
}

/// Where an attempt stands at `now`, which began (power on) at `begun`. `post` is how long this host's self test may take.
#[must_use]
pub fn standing<'a>(moments: impl IntoIterator<Item = &'a Moment>, begun: Now, now: Now, post: Duration) -> Standing {
    let moments: Vec<&Moment> = moments.into_iter().filter(|moment| moment.at.elapsed >= begun.elapsed).collect();
    let last = moments.last().map_or(begun.elapsed, |moment| moment.at.elapsed);
    let silent = now.elapsed.saturating_sub(last);
    let verdict = verdict::verdict(moments.iter().map(|moment| &moment.event), silent);
    if verdict.reached >= Reached::Hello {
        return Standing::Proven;
    }
    let since = now.elapsed.saturating_sub(begun.elapsed);
    let stage = stage(verdict.reached);
    let failed = |why: String| Standing::Failed { stage, why };
    match verdict.reached {
        Reached::Nothing if since >= post => failed(format!(
            "nothing was heard of it in the {} s that its self test may take: it does not boot by this method, or was not switched on",
            post.as_secs()
        )),
        Reached::Nothing => Standing::Wait { sentence: verdict.sentence },
        Reached::Media if silent >= post => failed(verdict.sentence),
        // An installer that asks for its address says hello right behind it, and needs no two minutes for that.
        Reached::AddressOnly | Reached::Media
            if asked_first(&moments).is_some_and(|at| now.elapsed.saturating_sub(at) >= ADDRESS_ONLY) =>
        {
            failed(
                "it asks for an address and not to boot: the one-shot boot was not obeyed, it started from its disk"
                    .to_owned(),
            )
        }
        Reached::Offered | Reached::Addressed if ignored_offers(&moments) >= IGNORED_OFFERS => failed(verdict.sentence),
        Reached::AddressOnly => Standing::Wait { sentence: verdict.sentence },
        _ if verdict.stopped => failed(verdict.sentence),
        _ => Standing::Wait { sentence: verdict.sentence },
    }
}

/// How long a BMC may take from "inserted" to the first byte that it reads: it looks at an image before it shows it.
pub const MEDIA_READ: Duration = Duration::from_secs(60);

/// Whether the BMC has begun to read the image for its virtual drive since `begun`.
#[must_use]
pub fn media_read<'a>(moments: impl IntoIterator<Item = &'a Moment>, begun: Now) -> bool {
    let reads = |moment: &Moment| matches!(moment.event, BootEvent::MediaRead { .. });
    moments.into_iter().any(|moment| moment.at.elapsed >= begun.elapsed && reads(moment))
}

/// Whether an installed host's own system was heard since `begun`: it asks for an address, and not to boot.
#[must_use]
pub fn system_heard<'a>(moments: impl IntoIterator<Item = &'a Moment>, begun: Now) -> bool {
    let plain = |moment: &Moment| matches!(moment.event, BootEvent::Discover { class: None, .. });
    moments.into_iter().any(|moment| moment.at.elapsed >= begun.elapsed && plain(moment))
}

fn asked_first(moments: &[&Moment]) -> Option<Duration> {
    let asked = moments.iter().find(|moment| matches!(moment.event, BootEvent::Discover { .. }));
    asked.map(|moment| moment.at.elapsed)
}

/// How often it asked again after an offer, before it asked for any file.
fn ignored_offers(moments: &[&Moment]) -> usize {
    let mut offered = None::<Duration>;
    let mut ignored = 0;
    for moment in moments {
        match &moment.event {
            BootEvent::Offered { .. } => offered = offered.or(Some(moment.at.elapsed)),
            BootEvent::FileBegan { .. } | BootEvent::FileSized { .. } => return 0,
            BootEvent::Discover { class: Some(_), .. } => {
                let late = |then| moment.at.elapsed.saturating_sub(then) >= ASKED_AGAIN;
                ignored += usize::from(offered.take().is_some_and(late));
            }
            _ => {}
        }
    }
    ignored
}

/// A word for the memory.
const fn stage(reached: Reached) -> &'static str {
    match reached {
        Reached::Nothing => "nothing",
        Reached::AddressOnly => "address-only",
        Reached::Asked => "asked",
        Reached::Offered => "offered",
        Reached::Addressed => "addressed",
        Reached::Media => "media",
        Reached::Loader => "loader",
        Reached::LoaderFetched => "loader-fetched",
        Reached::Script => "script",
        Reached::Kernel => "kernel",
        Reached::KernelFetched => "kernel-fetched",
        Reached::Hello => "hello",
        Reached::Installing => "installing",
        Reached::Done => "done",
        Reached::Joined => "joined",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pxe::dhcp::request::BootClass;

    const POST: Duration = Duration::from_secs(600);

    fn at(seconds: u64) -> Now {
        Now { elapsed: Duration::from_secs(1000 + seconds), wall: Duration::from_secs(1_800_000_000 + seconds) }
    }

    fn moments(events: &[(u64, BootEvent)]) -> Vec<Moment> {
        events.iter().map(|(second, event)| Moment { at: at(*second), event: event.clone() }).collect()
    }

    fn asks() -> BootEvent {
        BootEvent::Discover { class: Some(BootClass::Pxe), client: "x64 UEFI".into(), ipxe: false }
    }

    fn offered() -> BootEvent {
        BootEvent::Offered { address: None, file: Some("snponly.efi".to_owned()) }
    }

    fn stands(events: &[(u64, BootEvent)], now: u64) -> Standing {
        standing(&moments(events), at(0), at(now), POST)
    }

    fn stage_of(standing: &Standing) -> &'static str {
        match standing {
            Standing::Failed { stage, .. } => stage,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_slow_self_test_is_waited_for_and_no_longer() {
        assert!(matches!(stands(&[], 599), Standing::Wait { .. }));
        assert_eq!(stage_of(&stands(&[], 600)), "nothing");
    }

    #[test]
    fn an_offer_that_is_ignored_twice_ends_the_attempt_at_once() {
        let once = [(30, asks()), (30, offered()), (34, asks()), (34, offered())];
        assert!(matches!(stands(&once, 35), Standing::Wait { .. }));
        let twice = [&once[..], &[(42, asks()), (42, offered())]].concat();
        let standing = stands(&twice, 43);
        assert_eq!(stage_of(&standing), "offered");
        assert!(matches!(standing, Standing::Failed { why, .. } if why.contains("asked again")));
    }

    #[test]
    fn a_disk_that_boots_in_place_of_the_network_is_told_by_its_plain_request() {
        let plain = BootEvent::Discover { class: None, client: "".into(), ipxe: false };
        assert!(matches!(stands(&[(40, plain.clone())], 60), Standing::Wait { .. }));
        assert_eq!(stage_of(&stands(&[(40, plain)], 170)), "address-only");
    }

    #[test]
    fn hello_proves_it_and_what_was_before_the_power_on_counts_for_nothing() {
        assert_eq!(stands(&[(30, asks()), (50, BootEvent::Hello)], 51), Standing::Proven);
        let old = Moment { at: at(0), event: BootEvent::Hello };
        assert!(matches!(standing([&old], at(5), at(6), POST), Standing::Wait { .. }));
    }

    #[test]
    fn a_drive_that_is_read_gives_the_self_test_its_time_and_a_disk_that_boots_instead_none() {
        let read = BootEvent::MediaRead { bytes: 0 };
        let inserted = moments(&[(0, read.clone())]);
        assert!(
            media_read(&inserted, at(0))
                && !media_read(&inserted, at(1))
                && !media_read(&moments(&[(5, asks())]), at(0))
        );
        assert!(matches!(stands(&[(200, read.clone())], 799), Standing::Wait { .. }));
        assert_eq!(stage_of(&stands(&[(200, read.clone())], 800)), "media");
        let plain = BootEvent::Discover { class: None, client: "".into(), ipxe: false };
        assert!(matches!(stands(&[(20, read.clone()), (40, plain.clone())], 159), Standing::Wait { .. }));
        assert_eq!(stage_of(&stands(&[(20, read), (40, plain)], 160)), "media");
    }

    #[test]
    fn a_standstill_of_the_loader_is_the_recorders_verdict() {
        let began = BootEvent::FileBegan {
            protocol: pxe::files::Protocol::Tftp,
            file: "snponly.efi".to_owned(),
            bytes: 1,
            agreed: String::new(),
        };
        let events = [(30, asks()), (30, offered()), (31, began)];
        assert!(matches!(stands(&events, 90), Standing::Wait { .. }));
        assert_eq!(stage_of(&stands(&events, 91)), "loader");
    }
}
