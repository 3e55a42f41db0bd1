//! Known-bad switches: each rule of core and step machines is broken alone, and the checks must notice. First the scene
//! made for the rule, if it has one; then seeds of the fleet, one after the other.

use crate::broken::Broken;
use crate::rule_table::{RULES, RuleInfo};
use crate::run::{Settings, prepare};
use crate::scenes;
use crate::simulation::Simulation;
use crate::watch::Breach;
use healing::rules::Rule;
use healing::time::{HOUR, MINUTE, Millis};
use serde::Serialize;

/// Seeds tried per rule.
pub const SEEDS: u64 = 40;
/// Hosts and hours of each.
const HOSTS: u32 = 50;
const HOURS: u64 = 6;
/// How often the checks' findings are looked at.
const LOOK_MS: Millis = 5 * MINUTE;

/// What became of one switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Switched {
    /// The rule's number.
    pub rule: u8,
    /// Who owns it.
    pub owner: &'static str,
    /// The checks noticed.
    pub caught: bool,
    /// The seed, or `None` if its own scene caught it.
    pub seed: Option<u64>,
    /// The scene that caught it.
    pub scene: Option<&'static str>,
    /// Decisions made until it was noticed.
    pub event: u64,
    /// World time until then, in milliseconds.
    pub at_ms: u64,
    /// What was seen.
    pub what: String,
}

fn first(simulation: &mut Simulation<Broken>, rule: Rule, hours: u64) -> Option<(Breach, u64)> {
    let mut at = 0;
    while at < hours * HOUR {
        at += LOOK_MS;
        simulation.run_until(at);
        if let Some(breach) = simulation.breaches().iter().find(|b| b.rule == rule) {
            return Some((breach.clone(), simulation.stats().decisions));
        }
    }
    simulation.finish();
    let decisions = simulation.stats().decisions;
    simulation.breaches().iter().find(|b| b.rule == rule).map(|b| (b.clone(), decisions))
}

/// Breaks one rule until the checks notice, or no scene and no seed is left.
#[must_use]
pub fn break_rule(info: &RuleInfo) -> Switched {
    let mut switched = Switched {
        rule: info.rule.0,
        owner: info.owner.name(),
        caught: false,
        seed: None,
        scene: None,
        event: 0,
        at_ms: 0,
        what: String::new(),
    };
    for scene in scenes::for_rule(info.rule.0) {
        let mut simulation = scene.build(Broken(info.rule));
        if let Some((breach, event)) = first(&mut simulation, info.rule, scene.hours) {
            switched.scene = Some(scene.name);
            return found(switched, &breach, event);
        }
    }
    for seed in 1..=SEEDS {
        let mut simulation = prepare(Broken(info.rule), &Settings::new(seed, HOSTS, HOURS));
        if let Some((breach, event)) = first(&mut simulation, info.rule, HOURS) {
            switched.seed = Some(seed);
            return found(switched, &breach, event);
        }
    }
    switched
}

fn found(mut switched: Switched, breach: &Breach, event: u64) -> Switched {
    switched.caught = true;
    switched.event = event;
    switched.at_ms = breach.at;
    switched.what.clone_from(&breach.what);
    switched
}

/// All rules that have a switch.
pub fn switches() -> impl Iterator<Item = &'static RuleInfo> {
    RULES.iter().filter(|info| info.has_switch())
}
