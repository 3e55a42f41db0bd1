//! A whole seeded run: a uniform site, faults by chance, a person on duty, every check watching.

use crate::checks;
use crate::generator::Generator;
use crate::operator::Person;
use crate::simulation::Simulation;
use crate::site::Site;
use crate::stats::Stats;
use crate::transcript::Transcript;
use crate::watch::{Breach, WorldTime};
use healing::policy::{self, Policy};
use healing::rules::Rules;
use healing::time::{HOUR, MINUTE};

/// What to run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The seed.
    pub seed: u64,
    /// Hosts of the site.
    pub hosts: u32,
    /// Hours of world time.
    pub hours: u64,
    /// A second appliance stands by.
    pub standby: bool,
    /// Keep a transcript.
    pub transcript: bool,
    /// The policy.
    pub policy: Policy<policy::Site>,
}

impl Settings {
    /// A seed with its defaults: default policy; every eighth seed has a second appliance.
    #[must_use]
    pub fn new(seed: u64, hosts: u32, hours: u64) -> Settings {
        Settings { seed, hosts, hours, standby: seed.is_multiple_of(8), transcript: false, policy: Policy::default() }
    }
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Run {
    /// The counts.
    pub stats: Stats,
    /// What broke.
    pub breaches: Vec<Breach>,
    /// The transcript, if one was kept.
    pub transcript: Option<Transcript>,
}

/// The last part of a run in which no new faults come, so that what began can end.
#[must_use]
pub fn quiet_from(hours: u64) -> WorldTime {
    (hours * HOUR).saturating_sub((hours * HOUR / 3).min(100 * MINUTE))
}

/// Makes the simulation of a seeded run, not yet started.
#[must_use]
pub fn prepare<R: Rules>(rules: R, settings: &Settings) -> Simulation<R> {
    let site = Site::uniform(settings.hosts, settings.seed);
    let mut simulation = Simulation::with_policy(rules, &site, &settings.policy)
        .with_generator(Generator::new(
            settings.seed,
            settings.hosts,
            quiet_from(settings.hours),
            settings.hours * HOUR,
        ))
        .with_person(Person::new(settings.seed));
    for checker in checks::all() {
        simulation = simulation.watched_by(checker);
    }
    if settings.transcript {
        simulation = simulation.with_transcript();
    }
    if settings.standby {
        simulation = simulation.with_standby();
    }
    simulation
}

/// Runs a seed to its end.
#[must_use]
pub fn run<R: Rules>(rules: R, settings: &Settings) -> Run {
    let mut simulation = prepare(rules, settings);
    simulation.run_until(settings.hours * HOUR);
    let stats = simulation.finish().clone();
    Run { stats, breaches: simulation.breaches().to_vec(), transcript: simulation.transcript().cloned() }
}
