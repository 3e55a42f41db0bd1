//! In which order the methods are tried: a pure function of what is remembered, what the firmware is, what the site has.

use super::Method;
use super::memory::{Remembered, Tally};

/// Failures in a row after which a method comes last.
const DISTRUST: u32 = 2;

/// What the site and the host's firmware allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// The host starts by UEFI, not by a BIOS.
    pub uefi: bool,
    /// There is an image for its virtual drive.
    pub has_media: bool,
}

/// A method that is left out, and why.
pub type LeftOut = (Method, String);

/// The methods to try, first to last, and those that are left out. `firmware` is the BMC's, as it tells it.
#[must_use]
pub fn order(site: Site, firmware: &str, host: &Remembered, model: &Remembered) -> (Vec<Method>, Vec<LeftOut>) {
    let mut methods = Vec::new();
    let mut left_out = Vec::new();
    for method in Method::ALL {
        let refused_by = [host, model].into_iter().find_map(|about| about.of(method)?.not_offered_by.as_deref());
        let why = match method {
            Method::VirtualMedia if !site.has_media => Some("no image is named for its virtual drive".to_owned()),
            Method::UefiHttp if !site.uefi => Some("the host starts by a BIOS".to_owned()),
            // Another firmware may have learned it.
            _ => refused_by.filter(|by| *by == firmware).map(|by| format!("its BMC does not offer it (firmware {by})")),
        };
        match why {
            Some(why) => left_out.push((method, why)),
            None => methods.push(method),
        }
    }
    // The sort is stable: what nothing is known of stays in the order of the ladder.
    methods.sort_by_key(|method| trust(host.of(*method), model.of(*method)));
    (methods, left_out)
}

/// The smaller, the sooner. What the host itself taught counts more than what others of its model did.
fn trust(host: Option<&Tally>, model: Option<&Tally>) -> u8 {
    let rank = |tally: &Tally, good: u8, bad: u8| {
        if tally.failed_in_a_row >= DISTRUST {
            Some(bad)
        } else if tally.succeeded > 0 && tally.failed_in_a_row == 0 {
            Some(good)
        } else {
            None
        }
    };
    let of_host = host.and_then(|tally| rank(tally, 0, 4));
    let of_model = model.and_then(|tally| rank(tally, 1, 3));
    of_host.or(of_model).unwrap_or(2)
}

#[cfg(test)]
mod tests {
    use super::super::memory::Outcome;
    use super::*;

    const ALL: Site = Site { uefi: true, has_media: true };

    fn after(outcomes: &[(Method, Outcome)]) -> Remembered {
        let mut about = Remembered::default();
        for (method, outcome) in outcomes {
            about.note(*method, outcome, 1);
        }
        about
    }

    fn failed(stage: &str) -> Outcome {
        Outcome::Failed { stage: stage.to_owned(), why: "x".to_owned() }
    }

    fn first(site: Site, host: &Remembered, model: &Remembered) -> Method {
        order(site, "1", host, model).0[0]
    }

    #[test]
    fn nothing_known_means_the_ladder_as_it_stands() {
        let nothing = Remembered::default();
        assert_eq!(order(ALL, "1", &nothing, &nothing).0, Method::ALL);
        let bios = Site { uefi: false, has_media: false };
        assert_eq!(order(bios, "1", &nothing, &nothing).0, [Method::Pxe]);
        assert_eq!(order(bios, "1", &nothing, &nothing).1.len(), 2);
    }

    #[test]
    fn what_worked_comes_first_and_the_hosts_own_word_counts_more_than_its_models() {
        let nothing = Remembered::default();
        let pxe = after(&[(Method::Pxe, Outcome::Succeeded)]);
        let http = after(&[(Method::UefiHttp, Outcome::Succeeded)]);
        assert_eq!(first(ALL, &nothing, &pxe), Method::Pxe);
        assert_eq!(first(ALL, &http, &pxe), Method::UefiHttp);
    }

    #[test]
    fn two_failures_in_a_row_put_a_method_last_and_a_success_puts_it_back() {
        let nothing = Remembered::default();
        let once = after(&[(Method::VirtualMedia, failed("nothing"))]);
        assert_eq!(first(ALL, &once, &nothing), Method::VirtualMedia);
        let twice = after(&[(Method::VirtualMedia, failed("nothing")), (Method::VirtualMedia, failed("offered"))]);
        assert_eq!(order(ALL, "1", &twice, &nothing).0.last(), Some(&Method::VirtualMedia));
        let again = [(Method::Pxe, failed("x")), (Method::Pxe, failed("x")), (Method::Pxe, Outcome::Succeeded)];
        assert_eq!(first(ALL, &after(&again), &nothing), Method::Pxe);
    }

    #[test]
    fn what_a_bmc_does_not_offer_is_left_out_until_its_firmware_changes() {
        let nothing = Remembered::default();
        let none = after(&[(Method::UefiHttp, Outcome::NotOffered { firmware: "1".to_owned() })]);
        assert!(!order(ALL, "1", &nothing, &none).0.contains(&Method::UefiHttp));
        assert!(order(ALL, "2", &nothing, &none).0.contains(&Method::UefiHttp));
    }
}
