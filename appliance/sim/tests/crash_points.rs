//! Killed at every point of every ladder; then every pair of faults.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use healing::time::SECOND;
use sim::crash_points::{LADDERS, PAIRED, crash_everywhere, pair};

#[test]
fn every_crash_point_of_every_ladder_reaches_the_same_end() {
    let mut points = 0;
    let mut wrong = Vec::new();
    for ladder in LADDERS {
        let (count, found) = crash_everywhere(ladder, 5 * SECOND);
        println!("{}: {count} crash points, {} wrong", ladder.name, found.len());
        points += count;
        wrong.extend(found);
    }
    println!("{points} crash points in {} ladders", LADDERS.len());
    let shown: Vec<String> =
        wrong.iter().take(20).map(|w| format!("{} at {} ({}): {}", w.ladder, w.point, w.during, w.what)).collect();
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), shown.join("\n"));
    assert!(points > 60, "only {points} crash points were found");
}

#[test]
fn every_pair_of_faults_breaks_no_rule() {
    let mut wrong = Vec::new();
    let mut pairs = 0;
    for first in PAIRED {
        for second in PAIRED {
            for apart in [SECOND, 25 * SECOND, 40 * SECOND] {
                pairs += 1;
                for breach in pair(*first, *second, apart) {
                    wrong.push(format!(
                        "{} then {} after {} s: {breach:?}",
                        first.name(),
                        second.name(),
                        apart / SECOND
                    ));
                }
            }
        }
    }
    println!("{pairs} pairs of faults");
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.iter().take(20).cloned().collect::<Vec<_>>().join("\n")
    );
}
