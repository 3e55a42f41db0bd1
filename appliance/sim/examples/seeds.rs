//! Runs seeds and prints raw counts: `cargo run --release -p sim --example seeds -- FIRST LAST HOSTS HOURS [trace]`.
#![allow(clippy::print_stdout, clippy::disallowed_methods)]

use healing::rules::Enforced;
use sim::run::{Settings, run};
use std::collections::BTreeMap;

fn main() {
    let args: Vec<u64> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let arg = |n: usize, or: u64| args.get(n).copied().unwrap_or(or);
    let (first, last, hosts, hours) = (arg(0, 1), arg(1, 20), arg(2, 50), arg(3, 6));
    let trace = std::env::args().any(|a| a == "trace");
    let begun = std::time::Instant::now();
    let (mut world_ms, mut decisions, mut calls, mut healthy) = (0u64, 0, 0, 0);
    let mut ends: BTreeMap<String, u64> = BTreeMap::new();
    let mut open: BTreeMap<String, u64> = BTreeMap::new();
    let mut diagnoses: BTreeMap<String, u64> = BTreeMap::new();
    let mut rungs: BTreeMap<String, u64> = BTreeMap::new();
    let mut faults: BTreeMap<&str, u64> = BTreeMap::new();
    let mut operator: BTreeMap<&str, u64> = BTreeMap::new();
    let mut uncured: BTreeMap<String, u64> = BTreeMap::new();
    let mut by_cure: BTreeMap<String, u64> = BTreeMap::new();
    let mut breaches: BTreeMap<String, u64> = BTreeMap::new();
    let mut spans: BTreeMap<String, Vec<(u64, u64, u64)>> = BTreeMap::new();
    let mut proven: Vec<u64> = Vec::new();
    for seed in first..=last {
        let mut settings = Settings::new(seed, u32::try_from(hosts).unwrap_or(50), hours);
        settings.transcript = trace;
        let done = run(Enforced, &settings);
        let stats = &done.stats;
        world_ms += stats.world_ms;
        decisions += stats.decisions;
        calls += stats.calls;
        healthy += stats.healthy_power_cycled;
        for (at, host) in &stats.healthy_cycled_at {
            println!("seed {seed} HEALTHY at {at} host {}", host.0);
        }
        for incident in &stats.incidents {
            *ends.entry(format!("{:?}", incident.end)).or_insert(0) += 1;
            *by_cure
                .entry(format!("{} / {:?} -> {:?}", incident.fault.unwrap_or("-"), incident.cure, incident.end))
                .or_insert(0) += 1;
            if incident.end.is_none() {
                let key = format!(
                    "seed {seed} host {} {:?} {:?}{} {:?}",
                    incident.host.0,
                    incident.diagnosis,
                    incident.phase,
                    if incident.permit { " PERMIT" } else { "" },
                    incident.waiting_for
                );
                *open.entry(key).or_insert(0) += 1;
            }
            if incident.curable() && !incident.healed() {
                println!(
                    "seed {seed} NOT HEALED host {} {:?} {:?} fault {:?} rungs {:?} blocked {:?} open {} ended {}",
                    incident.host.0,
                    incident.end,
                    incident.diagnosis,
                    incident.fault,
                    incident.rungs,
                    incident.blocked_ms,
                    incident.opened_at,
                    incident.ended_at
                );
            }
            if !incident.held_up()
                && let (Some(permit), Some(released)) = (incident.permit_ms, incident.released_ms)
            {
                let key = format!("{} {:?}", incident.fault.unwrap_or("-"), incident.diagnosis);
                spans.entry(key).or_default().push((permit, incident.proven_ms.unwrap_or(0), released));
            }
            proven.extend(incident.proven_ms);
        }
        for (diagnosis, n) in &stats.diagnoses {
            *diagnoses.entry(format!("{diagnosis:?}").split('(').next().unwrap_or("").to_owned()).or_insert(0) += n;
        }
        for (rung, n) in &stats.rungs {
            *rungs.entry(format!("{rung:?}").split('(').next().unwrap_or("").to_owned()).or_insert(0) += n;
        }
        for (fault, n) in &stats.faults {
            *faults.entry(fault).or_insert(0) += n;
        }
        for (act, n) in &stats.operator {
            *operator.entry(act).or_insert(0) += n;
        }
        for (host, fault) in &stats.unhealthy_at_end {
            *uncured.entry(format!("seed {seed} host {} {fault:?}", host.0)).or_insert(0) += 1;
        }
        for breach in &done.breaches {
            *breaches.entry(format!("{} ", breach.rule)).or_insert(0) += 1;
            println!("seed {seed} BREACH {} at {} host {:?}: {}", breach.rule, breach.at, breach.host, breach.what);
        }
        if let Some(transcript) = &done.transcript {
            print!("{}", transcript.text());
        }
    }
    let took = begun.elapsed();
    println!(
        "took {took:?}, {:.0} x real time, decisions {decisions}, calls {calls}",
        world_ms as f64 / took.as_millis() as f64
    );
    println!("healthy power-cycled {healthy}");
    println!("breaches {breaches:?}");
    println!("ends {ends:?}");
    println!("diagnoses {diagnoses:?}");
    println!("rungs {rungs:?}");
    println!("faults {faults:?}");
    println!("operator {operator:?}");
    for (key, n) in &by_cure {
        println!("  {key}: {n}");
    }
    println!("open at end:");
    for (key, n) in &open {
        println!("  {key}: {n}");
    }
    println!("unhealthy at end:");
    for (key, n) in &uncured {
        println!("  {key}: {n}");
    }
    proven.sort_unstable();
    let at = |p: usize| proven.get(proven.len().saturating_sub(1) * p / 100).copied().unwrap_or(0);
    println!("silence to permit, proof, release, where nothing held it up (count, p50, p95):");
    for (key, all) in &spans {
        let at = |pick: fn(&(u64, u64, u64)) -> u64, p: usize| {
            let mut sorted: Vec<u64> = all.iter().map(pick).collect();
            sorted.sort_unstable();
            sorted[(sorted.len() - 1) * p / 100]
        };
        println!(
            "  {key}: {} permit {} {} proof {} {} release {} {}",
            all.len(),
            at(|s| s.0, 50),
            at(|s| s.0, 95),
            at(|s| s.1, 50),
            at(|s| s.1, 95),
            at(|s| s.2, 50),
            at(|s| s.2, 95)
        );
    }
    println!("silence to proof: n {} p50 {} p95 {}", proven.len(), at(50), at(95));
}
