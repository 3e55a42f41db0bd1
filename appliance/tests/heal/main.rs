//! The main job on things that nobody here wrote: the real server heals hosts in QEMU that are Nodes of a real cluster by
//! their own kubelets, each behind a BMC of OpenIPMI; and it does no harm where it must not.
//!
//! Needs root, the programs of `tests/rack/kubernetes/install` (`RACKMEDIC_KUBERNETES`), the image of `tests/rack/image`
//! (`RACKMEDIC_RACK_IMAGE`) and the rack's own program beside this build's. Without them each story says that it was not run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "tests")]

mod appliance;
mod booting;
mod drilled;
mod harmless;
mod rack_of_story;
mod replaced;
mod stuck;
mod wiped;

use appliance::Waits;
use rack_of_story::{Scene, story, story_of_kubernetes_alone};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// Everything on one rack, since raising it costs minutes. `RACKMEDIC_CHAPTERS` names those that are told, by parts of their
/// names; without it and without `RACKMEDIC_LONG` only the first five are.
#[test]
fn a_rack_is_healed_and_not_harmed() {
    let name = "a_rack_is_healed_and_not_harmed";
    let chosen = std::env::var("RACKMEDIC_CHAPTERS").ok();
    let long = std::env::var_os("RACKMEDIC_LONG").is_some();
    let told: Vec<&Chapter> = match &chosen {
        Some(names) => CHAPTERS.iter().filter(|(name, _)| names.split(',').any(|part| name.contains(part))).collect(),
        None if long => CHAPTERS.iter().collect(),
        None => CHAPTERS.iter().take(5).collect(),
    };
    story(name, 3, 0, Waits::Lab, |scene| {
        let mut failed = Vec::new();
        for (chapter, tell) in told {
            eprintln!("--- {chapter}");
            let began = Instant::now();
            if catch_unwind(AssertUnwindSafe(|| tell(scene))).is_err() {
                failed.push(*chapter);
                scene.mend();
            }
            eprintln!("--- {chapter}: {:.0} s", began.elapsed().as_secs_f64());
        }
        assert!(failed.is_empty(), "not as told: {failed:?}");
    });
}

type Chapter = (&'static str, fn(&mut Scene));

const CHAPTERS: &[Chapter] = &[
    ("a_frozen_host_is_healed", stuck::a_frozen_host_is_healed_end_to_end),
    ("a_killed_kubelet_is_named", harmless::a_killed_kubelet_is_named_within_six_seconds),
    ("a_reboot_is_left_alone", harmless::a_reboot_by_somebody_is_left_alone),
    ("a_cordoned_host_is_left_alone", harmless::a_host_that_a_person_cordoned_is_left_alone),
    ("an_api_that_is_down_moves_nobody", harmless::an_api_that_is_down_moves_nobody),
    // From here on in the long run: what takes longer, needs the boot servers, or kills the server.
    ("a_wiped_disk_is_installed_anew", wiped::a_wiped_host_is_installed_and_joins_again),
    ("a_cut_uplink_is_blindness", harmless::a_cut_uplink_is_blindness),
    ("a_dark_switch_is_an_outage", harmless::a_dark_switch_is_an_outage_of_its_domain),
    ("swapped_bmcs_are_noticed", harmless::swapped_bmcs_are_noticed),
    ("a_bmc_without_effect_leaves_it_unfenced", harmless::a_bmc_that_obeys_in_words_alone_leaves_it_unfenced),
    ("a_bmc_that_says_off", harmless::a_bmc_that_says_off_of_a_living_host_moves_nobody),
    ("a_drill_of_a_drained_host", drilled::a_drill_of_a_drained_host),
    ("a_killed_appliance_ends_the_same", stuck::a_killed_appliance_ends_the_same),
];

/// A host whose mainboard is dead, and a spare that was proven before. The pool tries no second installation of a host that does
/// not start: a spare stands there.
#[test]
fn a_dead_host_is_replaced_by_a_spare() {
    if std::env::var_os("RACKMEDIC_LONG").is_none() {
        eprintln!("not run without RACKMEDIC_LONG=1");
        return;
    }
    story("a_dead_host_is_replaced_by_a_spare", 2, 1, Waits::Lab, replaced::a_dead_host_is_replaced_by_a_spare);
}

/// The same heal with nothing configured: every wait is the one that sites have.
#[test]
fn a_frozen_host_is_healed_at_default_waits() {
    if std::env::var_os("RACKMEDIC_LONG").is_none() {
        eprintln!("not run without RACKMEDIC_LONG=1");
        return;
    }
    let name = "a_frozen_host_is_healed_at_default_waits";
    story(name, 3, 0, Waits::Default, stuck::a_frozen_host_is_healed_end_to_end);
}

/// The same freeze with nobody there: what Kubernetes does by itself, at its defaults.
#[test]
fn kubernetes_alone_evicts_late_and_never_frees_a_stateful_pod() {
    if std::env::var_os("RACKMEDIC_LONG").is_none() {
        eprintln!("not run without RACKMEDIC_LONG=1");
        return;
    }
    let name = "kubernetes_alone_evicts_late_and_never_frees_a_stateful_pod";
    story_of_kubernetes_alone(name, 3, stuck::kubernetes_alone);
}
