//! Named incidents as golden transcripts. Each scene is played under all rules; reviewers read the difference of a story,
//! not of code alone. A story also asserts its point, in `points` below.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use healing::id::HostId;
use healing::rules::Enforced;
use healing::signal::Power;
use healing::world::host::{Lifecycle, Link, Role};
use healing::world::incident::End;
use sim::drill_stories::{DRILLED, DRILLS};
use sim::incidents::INCIDENTS;
use sim::scenes::{SCENES, Scene};
use sim::second_thoughts::{ILL, SECOND_THOUGHTS};
use sim::simulation::Simulation;
use sim::site::BEGINNING;
use sim::spare_stories::SPARES;
use sim::watch::GroundTruth as _;

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
        for scene in SCENES.iter().chain(INCIDENTS).chain(SPARES).chain(SECOND_THOUGHTS) {
            let (simulation, text) = story(scene);
            assert_eq!(simulation.breaches(), &[], "{}", scene.name);
            assert_eq!(simulation.stats().healthy_power_cycled, 0, "{}", scene.name);
            insta::assert_snapshot!(file_name(scene), text);
        }
    });
}

/// A drill cuts a host that is well, once, and nobody else; whatever comes between, the host is on at the end.
#[test]
fn every_drill_is_told_as_before_and_breaks_no_rule() {
    let told = |name: &str| {
        let scene = DRILLS.iter().find(|scene| scene.name == name).expect("a scene");
        let (simulation, text) = story(scene);
        assert_eq!(simulation.breaches(), &[], "{name}");
        assert_eq!(simulation.reality.power(DRILLED), Power::On, "{name}");
        insta::with_settings!({prepend_module_to_snapshot => false, omit_expression => true}, {
            insta::assert_snapshot!(file_name(scene), text);
        });
        let stats = simulation.stats();
        let ends: Vec<Option<End>> = stats.incidents.iter().filter(|i| i.host == DRILLED).map(|i| i.end).collect();
        (stats.healthy_power_cycled, ends.first().copied().flatten())
    };
    assert_eq!(told("a drill of a cordoned host"), (1, Some(End::Proven)));
    for refused in [
        "a drill of a host that nobody cordoned",
        "a drill with the serial of another host",
        "a drill while the API is away",
    ] {
        assert_eq!(told(refused), (0, None), "{refused}");
    }
    assert_eq!(told("a drill of a host whose BMC is silent"), (0, Some(End::Unproven)));
    assert_eq!(told("a drill of a host that does not come back"), (1, Some(End::Unproven)));
    for cut_short in ["paused right after the off of a drill", "the BMC of a drilled host falls silent after its off"] {
        assert_eq!(told(cut_short), (1, Some(End::Unproven)), "{cut_short}");
    }
    assert_eq!(told("paused while a drilled host is off"), (1, Some(End::Unproven)));
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

/// A story of spares with the ends of the incidents on a host.
fn of_spares(name: &str, host: u32) -> (Simulation<Enforced>, Vec<Option<End>>) {
    let scene = SPARES.iter().find(|s| s.name == name).expect("a scene");
    let (simulation, _) = story(scene);
    let ends = simulation.stats().incidents.iter().filter(|i| i.host.0 == host).map(|i| i.end).collect();
    (simulation, ends)
}

#[test]
fn a_spare_shows_power_boot_disk_and_card_and_is_off_again_with_nothing_written() {
    let (simulation, ends) = of_spares("a spare is due to be proven", 13);
    assert_eq!(ends, [Some(End::Proven)]);
    let spare = &simulation.world().hosts[&HostId(13)];
    assert!(spare.spare_proof.is_some_and(|p| p.passed && p.at > BEGINNING));
    assert_eq!((simulation.reality.power(HostId(13)), simulation.reality.disk_writes(HostId(13))), (Power::Off, 0));
}

#[test]
fn the_first_boot_of_a_spare_links_it_and_needs_the_serial_of_that_machine() {
    let (simulation, ends) = of_spares("a spare that is not linked is proven by order of a person", 13);
    assert_eq!(ends, [Some(End::Proven)], "the wrong serial starts nothing");
    assert_eq!(simulation.world().hosts[&HostId(13)].link, Link::Linked);
}

#[test]
fn a_spare_that_shows_less_is_off_again_and_not_used() {
    for name in ["a spare whose card is dead is proven", "a spare whose BMC is silent when it is due"] {
        let (simulation, ends) = of_spares(name, 13);
        assert_eq!(ends, [Some(End::Unproven)], "{name}: once, and not again in a loop");
        assert!(simulation.world().hosts[&HostId(13)].spare_proof.is_some_and(|p| !p.passed), "{name}");
        assert_eq!(simulation.reality.power(HostId(13)), Power::Off, "{name}");
    }
}

#[test]
fn a_pause_does_not_fail_a_proof_nor_a_promotion() {
    assert_eq!(of_spares("paused while a spare is proven", 13).1, [Some(End::Proven)]);
    let (simulation, ends) = of_spares("paused while a spare takes a place", 13);
    assert_eq!(ends, [Some(End::Healed)]);
    assert!(simulation.stats().incidents.iter().any(|i| i.host.0 == 6 && i.end == Some(End::Replaced)));
}

#[test]
fn a_spare_that_cannot_be_installed_is_quarantined_with_the_host_that_needed_it() {
    let (simulation, ends) = of_spares("a spare that cannot be installed", 13);
    assert_eq!(ends, [Some(End::Quarantined)]);
    let of = |id| simulation.world().hosts[&HostId(id)].clone();
    for host in [6, 13] {
        assert!(matches!(of(host).lifecycle, Lifecycle::Quarantined { .. }), "{host}");
    }
    assert_eq!(of(13).role, Role::Spare);
}

/// A scene of second thoughts: its story, how many offs reached a BMC, and how the ill host's incidents ended.
fn second_thought(name: &str) -> (String, u64, Vec<Option<End>>) {
    let scene = SECOND_THOUGHTS.iter().find(|s| s.name == name).expect("a scene");
    let (simulation, text) = story(scene);
    let stats = simulation.stats();
    let ends = stats.incidents.iter().filter(|i| i.host == ILL).map(|i| i.end).collect();
    (text, stats.power_offs, ends)
}

#[test]
fn what_a_person_orders_between_the_decision_and_the_off_stops_the_off() {
    for name in [
        "disarmed between the decision and the off",
        "only observed from between the decision and the off",
        "paused between the decision and the off",
    ] {
        let (text, offs, _) = second_thought(name);
        assert_eq!(offs, 0, "{name}\n{text}");
        let decided = text.find("orders   force off").unwrap_or_else(|| panic!("{name}: nothing decided\n{text}"));
        assert!(text.find(" person ").is_some_and(|at| at > decided), "{name}: it came too early\n{text}");
    }
}

#[test]
fn an_api_that_refuses_a_release_keeps_a_host_off_for_two_minutes_and_never_lets_its_disk_be_written() {
    let (text, offs, ends) = second_thought("an API that refuses the deletion of pods for good");
    assert_eq!((offs, ends.as_slice()), (1, &[Some(End::Healed)][..]), "{text}");
    let refused = "an API that refuses the deletion of the pods of a host with a broken disk";
    let scene = SECOND_THOUGHTS.iter().find(|s| s.name == refused).expect("a scene");
    let (simulation, _) = story(scene);
    let whole = simulation.transcript().expect("a transcript is kept").text();
    let at = |what: &str| whole.lines().position(|line| line.contains(what));
    let over = at("over     deletion-refused").expect("it ends within the story");
    assert!(at("orders   arm network boot").is_none_or(|armed| armed > over), "{whole}");
}

#[test]
fn a_persons_word_about_one_off_proves_no_later_one() {
    let (_, _, ends) = second_thought("a person confirmed an off, and it hangs again with its BMC dead");
    assert_eq!(ends, [Some(End::Healed), None], "the second one waits for a person again");
}

#[test]
fn a_host_that_somebody_switched_off_stays_off_though_its_release_came_to_nothing() {
    let scene = SECOND_THOUGHTS.iter().find(|s| s.name == "somebody pressed the button and the pods stay");
    let (simulation, text) = story(scene.expect("a scene"));
    assert_eq!(simulation.reality.power(ILL), Power::Off, "{text}");
}

#[test]
fn no_host_is_started_for_its_own_system_with_its_boot_ticket_open() {
    let (text, _, _) = second_thought("paused while its boot ticket is open");
    let at = |what: &str| text.lines().position(|line| line.contains(what)).unwrap_or_else(|| panic!("{what}\n{text}"));
    let paused = at("paused: true");
    let after: Vec<&str> = text.lines().skip(paused).filter(|line| line.contains("orders")).take(2).collect();
    assert!(at("orders   arm network boot") < paused, "{text}");
    assert!(after[0].contains("close ticket") && after[1].contains("power on"), "{after:?}\n{text}");
}

#[test]
fn a_host_that_asks_the_network_before_its_disk_is_left_to_boot_from_it() {
    let scene = |name: &str| {
        let scene = SECOND_THOUGHTS.iter().find(|s| s.name == name).expect("a scene");
        let (simulation, _) = story(scene);
        let text = simulation.transcript().expect("a transcript is kept").text();
        let asked = text.matches("asks the network for something to boot").count();
        assert!(asked > 0, "{text}");
        let orders = |what: &str| text.lines().filter(|line| line.contains("orders") && line.contains(what)).count();
        (orders("force off"), simulation.reality.disk_writes(ILL), text.clone())
    };
    let (offs, writes, text) = scene("a host that asks the network before its disk reboots");
    assert_eq!((offs, writes), (0, 0), "{text}");
    let (offs, writes, text) = scene("a host that asks the network before its disk hangs");
    assert_eq!((offs, writes), (1, 0), "{text}");
    // Also such a host is known to have nothing, once it had the time to come up.
    let (_, writes, text) = scene("a host that asks the network before its disk has lost its system");
    assert!(writes > 0, "{text}");
}

#[test]
fn a_person_who_says_no_ends_the_ladder_where_it_stands() {
    let scene = SECOND_THOUGHTS.iter().find(|s| s.name == "denied while a replacement waits for approval");
    let (simulation, text) = story(scene.expect("a scene"));
    let end = simulation.stats().incidents.iter().find(|i| i.host == ILL).and_then(|i| i.end);
    assert_eq!((end, simulation.reality.power(ILL)), (Some(End::Aborted), Power::On), "{text}");
    // What others switched off stays off.
    let scene = SECOND_THOUGHTS.iter().find(|s| s.name == "denied while switching on waits for approval");
    let (simulation, text) = story(scene.expect("a scene"));
    let end = simulation.stats().incidents.iter().find(|i| i.host == ILL).and_then(|i| i.end);
    assert_eq!((end, simulation.reality.power(ILL)), (Some(End::Aborted), Power::Off), "{text}");
}
