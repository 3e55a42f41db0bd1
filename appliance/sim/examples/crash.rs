//! Plays a ladder, killed at a point: `cargo run --profile ci -p sim --example crash -- LADDER [POINT]`.
#![allow(clippy::print_stdout, missing_docs)]

fn main() {
    let args: Vec<u64> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let ladder = usize::try_from(args.first().copied().unwrap_or(0)).unwrap_or(0);
    let crash = args.get(1).map(|p| sim::simulation::Crash { point: *p, down_ms: 5_000 });
    if let Some(ladder) = sim::crash_points::LADDERS.get(ladder) {
        let (played, text) = sim::crash_points::play_with_transcript(ladder, crash);
        print!("{text}");
        println!("{:?}\n{:?}", played.outcome, played.breaches);
    }
}
