//! Throws the switches and prints what caught each: `cargo run --profile ci -p sim --example breaks -- [RULE...]`.
#![allow(clippy::print_stdout, missing_docs)]

fn main() {
    let wanted: Vec<u8> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    for scene in sim::scenes::SCENES.iter().filter(|s| wanted.is_empty() || wanted.contains(&s.rule)) {
        let mut simulation = scene.build(healing::rules::Enforced);
        simulation.run_until(scene.hours * 3_600_000);
        simulation.finish();
        for breach in simulation.breaches() {
            println!("UNDER ALL RULES scene {:?}: {breach:?}", scene.name);
        }
    }
    for info in sim::breaking::switches().filter(|i| wanted.is_empty() || wanted.contains(&i.rule.0)) {
        let found = sim::breaking::break_rule(info);
        println!(
            "{:>2} caught {} seed {:?} scene {:?} event {} {}",
            found.rule, found.caught, found.seed, found.scene, found.event, found.what
        );
    }
}
