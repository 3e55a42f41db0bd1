//! Named incidents as golden transcripts. Each scene is played under all rules; reviewers read the difference of a story,
//! not of code alone. A story also asserts its point, in `points` below.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use healing::rules::Enforced;
use healing::world::incident::End;
use sim::incidents::INCIDENTS;
use sim::scenes::{SCENES, Scene};
use sim::simulation::Simulation;

/// Plays a scene and gives its story: from the first fault on, without the healthy hosts' chatter.
fn story(scene: &Scene) -> (Simulation<Enforced>, String) {
    let mut simulation = scene.build(Enforced).with_transcript();
    simulation.run_until(scene.hours * 3_600_000);
    simulation.finish();
    let text = simulation.transcript().expect("a transcript is kept").text();
    let told: Vec<&str> = text
        .lines()
        .skip_while(|line| !["fault", "person", "starts"].iter().any(|verb| line.contains(verb)))
        .filter(|line| !line.contains(" calls ") && !line.contains("agent silent") && !line.contains("agent well"))
        .take(160)
        .collect();
    let text = format!("# {} (rule {})\n{}\n", scene.name, scene.rule, told.join("\n"));
    (simulation, text)
}

fn file_name(scene: &Scene) -> String {
    let words: String = scene.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    format!("rule-{:02}-{words}", scene.rule)
}

#[test]
fn every_story_is_told_as_before_and_breaks_no_rule() {
    assert!(SCENES.len() >= 40, "only {} stories", SCENES.len());
    insta::with_settings!({prepend_module_to_snapshot => false, omit_expression => true}, {
        for scene in SCENES.iter().chain(INCIDENTS) {
            let (simulation, text) = story(scene);
            assert_eq!(simulation.breaches(), &[], "{}", scene.name);
            assert_eq!(simulation.stats().healthy_power_cycled, 0, "{}", scene.name);
            insta::assert_snapshot!(file_name(scene), text);
        }
    });
}

/// The end of the last incident on a host of a scene.
fn end_of(rule: u8, host: u32) -> Option<End> {
    let scene = SCENES.iter().find(|s| s.rule == rule).expect("a scene");
    let (simulation, _) = story(scene);
    simulation.stats().incidents.iter().rev().find(|i| i.host.0 == host).and_then(|i| i.end)
}

fn offs_of(rule: u8) -> u64 {
    let scene = SCENES.iter().find(|s| s.rule == rule).expect("a scene");
    story(scene).0.stats().power_offs
}

#[test]
fn a_silent_host_is_healed() {
    assert_eq!(end_of(3, 6), Some(End::Healed));
    assert_eq!(end_of(25, 6), Some(End::Healed), "also when its volumes take a while to go");
}

#[test]
fn a_host_that_answers_pings_only_is_healed_after_its_minute() {
    assert_eq!(end_of(1, 6), Some(End::Healed));
}

#[test]
fn nobody_is_touched_through_a_pause_a_cordon_or_an_unarmed_cluster_nor_the_host_that_carries_us() {
    for rule in [49, 50, 52, 59] {
        assert_eq!(offs_of(rule), 0, "rule {rule}");
    }
}

#[test]
fn an_appliance_that_sees_nobody_acts_on_nobody() {
    assert_eq!(offs_of(4), 0);
}

#[test]
fn a_host_that_dies_with_its_bmc_is_released_by_nobody() {
    assert_eq!(end_of(27, 6), None, "it waits, unfenced, for a person");
}

#[test]
fn a_bmc_that_accepts_an_off_and_does_nothing_gets_one_and_its_host_stays_unfenced() {
    let scene = SCENES.iter().find(|s| s.name == "a BMC that accepts an off and does nothing").expect("a scene");
    let (simulation, text) = story(scene);
    let incident = simulation.stats().incidents.iter().rev().find(|i| i.host.0 == 6).expect("an incident");
    assert_eq!((incident.end, text.matches("force-off ordered").count()), (None, 1), "{text}");
    assert!(!text.contains("proven off") && text.contains("force-off was accepted without effect"), "{text}");
}

#[test]
fn swapped_cables_cost_no_healthy_host_its_power() {
    assert_eq!(offs_of(29), 0);
}

#[test]
fn a_dead_machine_is_replaced_by_a_proven_spare_and_the_last_spare_is_kept() {
    assert_eq!(end_of(16, 6), Some(End::Replaced));
    assert_eq!(end_of(16, 10), None, "it waits, off and released, for a person or another spare");
}

#[test]
fn a_host_that_lost_its_disk_image_is_reimaged_and_healed() {
    assert_eq!(end_of(41, 6), Some(End::Healed));
}

#[test]
fn a_start_a_stall_and_a_full_disk_delay_a_heal_and_do_not_spoil_it() {
    for rule in [45, 47, 48] {
        assert_eq!(end_of(rule, 6), Some(End::Healed), "rule {rule}");
    }
}

#[test]
fn a_component_that_dies_again_and_again_is_restarted_three_times_in_half_an_hour() {
    let scene = SCENES.iter().find(|s| s.rule == 53).expect("a scene");
    let (simulation, _) = story(scene);
    let restarts = simulation.stats().rungs.iter().filter(|(r, _)| format!("{r:?}").starts_with("RestartComponent"));
    assert!(restarts.map(|(_, n)| n).sum::<u64>() >= 3);
}

fn incident(name: &str) -> Simulation<Enforced> {
    let scene = INCIDENTS.iter().find(|s| s.name.starts_with(name)).unwrap_or_else(|| panic!("no incident {name}"));
    story(scene).0
}

#[test]
fn what_hurts_no_host_costs_no_host_its_power() {
    for name in ["01", "02", "04", "07", "13", "a plain reboot", "every BMC"] {
        assert_eq!(incident(name).stats().power_offs, 0, "{name}");
    }
}

#[test]
fn what_we_can_cure_is_cured() {
    for name in ["05", "06", "12", "14", "16", "24", "25", "the appliance sleeps", "the wall clock", "the network card"]
    {
        let simulation = incident(name);
        let healed = simulation.stats().incidents.iter().any(|i| i.end == Some(End::Healed));
        assert!(
            healed,
            "{name}: {:?}",
            simulation.stats().incidents.iter().map(|i| (i.host, i.end)).collect::<Vec<_>>()
        );
    }
}

#[test]
fn a_ten_minute_sleep_leads_to_no_act_on_old_evidence() {
    let simulation = incident("the appliance sleeps");
    let first = simulation.stats().incidents.iter().find_map(|i| i.timings.off_ordered);
    // Asleep from 10:20 to 20:20; then two minutes of looking.
    assert!(first.is_some_and(|at| at.0 >= 22 * 60_000), "{first:?}");
}

#[test]
fn a_host_that_nothing_helps_ends_with_a_person_and_not_in_a_loop() {
    let simulation = incident("22");
    assert!(simulation.stats().incidents.iter().any(|i| i.end == Some(End::Quarantined)));
    assert!(simulation.stats().power_offs <= 8, "{}", simulation.stats().power_offs);
}
