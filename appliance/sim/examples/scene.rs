//! Plays one scene and prints its transcript: `cargo run --profile ci -p sim --example scene -- RULE [broken]`.
#![allow(clippy::print_stdout, missing_docs)]

use sim::simulation::Simulation;

fn play<R: healing::rules::Rules>(mut simulation: Simulation<R>, hours: u64) {
    simulation.run_until(hours * 3_600_000);
    simulation.finish();
    if let Some(transcript) = simulation.transcript() {
        print!("{}", transcript.text());
    }
    for breach in simulation.breaches() {
        println!("BREACH {breach:?}");
    }
}

fn main() {
    let rule: u8 = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(3);
    let broken = std::env::args().nth(2).is_some();
    for scene in sim::scenes::for_rule(rule) {
        println!("# {}", scene.name);
        if broken {
            play(scene.build(sim::broken::Broken(healing::rules::Rule(rule))).with_transcript(), scene.hours);
        } else {
            play(scene.build(healing::rules::Enforced).with_transcript(), scene.hours);
        }
    }
}
