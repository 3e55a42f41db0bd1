//! The main job on things that nobody here wrote: the real server heals hosts in QEMU that are Nodes of a real cluster by
//! their own kubelets, each behind a BMC of OpenIPMI; and it does no harm where it must not.
//!
//! Needs root, the programs of `tests/rack/kubernetes/install` (`RACKMEDIC_KUBERNETES`), the image of `tests/rack/image`
//! (`RACKMEDIC_RACK_IMAGE`) and the rack's own program beside this build's. Without them each story says that it was not run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "tests")]

mod appliance;
mod booting;
mod harmless;
mod rack_of_story;
mod stuck;
mod wiped;

use rack_of_story::{story, story_of_kubernetes_alone, story_with_boot};

/// The one story of the ring: everything on one rack, since raising it costs minutes.
#[test]
fn a_rack_is_healed_and_not_harmed() {
    story("a_rack_is_healed_and_not_harmed", 3, |scene| {
        stuck::a_frozen_host_is_healed_end_to_end(scene);
        harmless::a_killed_kubelet_is_named_within_six_seconds(scene);
        harmless::a_reboot_by_somebody_is_left_alone(scene);
        harmless::a_host_that_a_person_cordoned_is_left_alone(scene);
        harmless::an_api_that_is_down_moves_nobody(scene);
    });
}

/// What takes longer.
#[test]
fn what_is_not_to_be_touched_is_not_touched() {
    if std::env::var_os("RACKMEDIC_LONG").is_none() {
        eprintln!("not run without RACKMEDIC_LONG=1");
        return;
    }
    story("what_is_not_to_be_touched_is_not_touched", 3, |scene| {
        harmless::a_cut_uplink_is_blindness(scene);
        harmless::a_dark_switch_is_an_outage_of_its_domain(scene);
        harmless::swapped_bmcs_are_noticed(scene);
        harmless::a_bmc_that_obeys_in_words_alone_leaves_it_unfenced(scene);
        harmless::a_bmc_that_says_off_of_a_living_host_moves_nobody(scene);
    });
}

/// From an empty disk to a Node again: boot servers, installer and join driver in the one server.
#[test]
fn a_wiped_disk_is_installed_anew() {
    if std::env::var_os("RACKMEDIC_LONG").is_none() {
        eprintln!("not run without RACKMEDIC_LONG=1");
        return;
    }
    story_with_boot("a_wiped_disk_is_installed_anew", 3, wiped::a_wiped_host_is_installed_and_joins_again);
}

/// SIGKILL at three moments of a heal.
#[test]
fn a_killed_appliance_ends_the_heal_the_same_way() {
    if std::env::var_os("RACKMEDIC_LONG").is_none() {
        eprintln!("not run without RACKMEDIC_LONG=1");
        return;
    }
    story("a_killed_appliance_ends_the_heal_the_same_way", 3, stuck::a_killed_appliance_ends_the_same);
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
