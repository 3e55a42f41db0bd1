//! Folding a run of equal samples gives the same evidence as folding its samples; what does not count is dropped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use healing::assess::NetworkState;
use healing::evidence::{Evidence, fold};
use healing::policy::Limits;
use healing::signal::{BmcTrouble, OffCause, Power, Seen, Signal, Source};
use healing::time::{Elapsed, Now};
use proptest::prelude::*;

fn now(at: u64) -> Now {
    Now { elapsed: Elapsed(at), wall_ms: 0 }
}

/// What each source can show.
fn seen() -> impl Strategy<Value = (Source, Seen)> {
    let network = prop_oneof![Just(Seen::Answer), Just(Seen::Miss), Just(Seen::Refused)];
    let port = prop_oneof![Just(Source::Icmp), Just(Source::KubeletPort), Just(Source::SecondPort), Just(Source::Arp)];
    prop_oneof![
        6 => (port, network.clone()),
        2 => Just((Source::Lease, Seen::Renewed)),
        1 => Just((Source::Power, Seen::Power(Power::On, OffCause::Unknown))),
        1 => Just((Source::Power, Seen::Power(Power::Off, OffCause::AcLoss))),
        1 => Just((Source::Power, Seen::Trouble(BmcTrouble::Silent))),
        1 => (prop_oneof![Just(Source::ApiServer), Just(Source::EtcdMember), Just(Source::KubeletHealth)], network),
        1 => Just((Source::HeldConnection, Seen::Closed)),
        1 => Just((Source::HeldConnection, Seen::Open)),
    ]
}

proptest! {
    #[test]
    fn a_run_folds_to_the_same_evidence_as_its_samples(
        runs in prop::collection::vec((seen(), 1u32..12, 500u64..3_000), 1..40)
    ) {
        let limits = Limits::default();
        let (mut whole, mut single) = (Evidence::default(), Evidence::default());
        let mut at = 1_000;
        for ((source, seen), count, period) in runs {
            let last = at + period * u64::from(count - 1);
            fold(&mut whole, &Signal::run(source, seen, Elapsed(at), Elapsed(last), count), &limits, now(last));
            for n in 0..u64::from(count) {
                let moment = at + n * period;
                fold(&mut single, &Signal::sample(source, seen, Elapsed(moment)), &limits, now(moment));
            }
            prop_assert_eq!(&whole, &single);
            at = last + period;
        }
    }

    #[test]
    fn evidence_never_claims_silence_while_a_port_answers(
        runs in prop::collection::vec((seen(), 1u32..6), 1..60)
    ) {
        let limits = Limits::default();
        let mut evidence = Evidence::default();
        let mut at = 1_000;
        for ((source, seen), count) in runs {
            let last = at + 1_000 * u64::from(count);
            fold(&mut evidence, &Signal::run(source, seen, Elapsed(at), Elapsed(last), count), &limits, now(last));
            at = last + 1_000;
            if evidence.assessment.network == NetworkState::Silent {
                let misses = evidence.silence();
                let speaking = [Source::KubeletPort, Source::SecondPort]
                    .iter()
                    .any(|s| evidence.slot(*s).latest().is_some_and(|r| matches!(r.seen, Seen::Answer | Seen::Refused)));
                prop_assert!(!speaking);
                // The newest sample of ICMP may be one that has not yet changed the state back.
                let icmp_back = evidence.slot(Source::Icmp).latest().is_some_and(|r| r.seen != Seen::Miss);
                prop_assert!(misses.is_some() || icmp_back);
            }
        }
    }
}

#[test]
fn a_miss_counts_only_if_the_receiver_was_drained_in_time() {
    let limits = Limits::default();
    let mut evidence = Evidence::default();
    for at in 1..10 {
        for source in [Source::Icmp, Source::KubeletPort, Source::SecondPort] {
            let late = Signal { drained_after_ms: 501, ..Signal::sample(source, Seen::Miss, Elapsed(at * 1_000)) };
            fold(&mut evidence, &late, &limits, now(at * 1_000));
        }
    }
    assert_eq!(evidence.assessment.network, NetworkState::Unknown, "it may have been our own sleep");
    assert_eq!(evidence.silence(), None);
}

#[test]
fn voided_evidence_backs_nothing_until_new_samples_come() {
    let limits = Limits::default();
    let mut evidence = Evidence::default();
    for source in [Source::Icmp, Source::KubeletPort, Source::SecondPort] {
        fold(&mut evidence, &Signal::run(source, Seen::Miss, Elapsed(1_000), Elapsed(9_000), 9), &limits, now(9_000));
    }
    assert_eq!(evidence.assessment.network, NetworkState::Silent);
    evidence.void(now(10_000));
    assert_eq!(evidence.silence(), None);
    // A sample from before the void that arrives late is dropped.
    fold(&mut evidence, &Signal::sample(Source::Icmp, Seen::Miss, Elapsed(9_999)), &limits, now(10_001));
    assert!(evidence.slot(Source::Icmp).latest().is_none());
}

#[test]
fn a_silent_bmc_leaves_no_power_reading_behind() {
    let limits = Limits::default();
    let mut evidence = Evidence::default();
    let on = Seen::Power(Power::On, OffCause::Unknown);
    fold(&mut evidence, &Signal::sample(Source::Power, on, Elapsed(1_000)), &limits, now(1_000));
    let trouble = Seen::Trouble(BmcTrouble::Silent);
    fold(&mut evidence, &Signal::run(Source::Power, trouble, Elapsed(2_000), Elapsed(6_000), 3), &limits, now(6_000));
    assert_eq!(evidence.assessment.power, Power::Unknown, "nothing is derived from its last word");
}
