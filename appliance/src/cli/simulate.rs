//! `rackmedic simulate`: whole fleets on virtual time around the decisions of this very binary.

use super::output::{Exit, Format, Progress, data, json, table, talk};
use super::seeds::Seeds;
use super::{Usage, policy_file};
use anyhow::Context;
use clap::Args;
use healing::policy::{Policy, Site};
use healing::rules::{Enforced, Rule};
use sim::breaking::{self, Switched};
use sim::report::Report;
use sim::rule_table::{self, RuleInfo};
use sim::run::{Settings, run};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 nothing broke, 1 a rule broke (or a broken rule was not caught, or `--coverage` was not reached), 2 a wrong argument or policy file."
)]
pub(super) struct Simulate {
    /// Seeds to run, both ends included: `A..B`, `A..=B` or one number.
    #[arg(long, value_name = "A..B", default_value = "1..20")]
    seeds: Seeds,
    /// Hosts of each simulated site.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(10..=20_000))]
    hosts: u32,
    /// Simulated hours of each seed.
    #[arg(long, value_name = "H", default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..=8_760))]
    hours: u64,
    /// A policy file instead of the defaults.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Tell the story of one seed.
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "break_rule"])]
    trace: Option<u64>,
    /// Break one safety rule, or all in turn, and show what notices.
    #[arg(long = "break", value_name = "RULE|all", conflicts_with_all = ["seeds", "hosts", "hours", "policy"])]
    break_rule: Option<Break>,
    /// Fail too if the run did not reach what gives it weight: a fault per ten host-hours, every diagnosis and rung a
    /// hundred times, 99 % of the curable healed, few hosts left waiting. For runs of about 1,000 seeds.
    #[arg(long, conflicts_with_all = ["trace", "break_rule"])]
    coverage: bool,
    /// How the result is written.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// Which rules to break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Break {
    All,
    One(u8),
}

impl std::str::FromStr for Break {
    type Err = String;

    fn from_str(text: &str) -> Result<Break, String> {
        if text == "all" {
            return Ok(Break::All);
        }
        let number = text.parse().ok().filter(|n| (1..=60).contains(n));
        number.map(Break::One).ok_or_else(|| format!("`{text}` is no rule; write a number from 1 to 60, or `all`"))
    }
}

impl Simulate {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let policy = match &self.policy {
            Some(path) => policy_file::read::<Site>(path)?,
            None => Policy::default(),
        };
        match (self.break_rule, self.trace) {
            (Some(which), _) => self.break_rules(which),
            (None, Some(seed)) => self.tell(seed, policy),
            (None, None) => self.fleet(&policy),
        }
    }

    fn settings(&self, seed: u64, policy: Policy<Site>) -> Settings {
        let mut settings = Settings::new(seed, self.hosts, self.hours);
        settings.policy = policy;
        settings
    }

    fn fleet(&self, policy: &Policy<Site>) -> anyhow::Result<Exit> {
        let total = self.seeds.count();
        let seeds: Vec<u64> = self.seeds.iter().collect();
        let done = AtomicU64::new(0);
        let summed = Mutex::new((Report::default(), 0.0_f64));
        let (done, whole) = (&done, &summed);
        let work = || {
            let began = cpu_time();
            let mut part = Report::default();
            move |seed: Option<&u64>| match seed {
                Some(&seed) => {
                    part.add(&run(Enforced, &self.settings(seed, policy.clone())));
                    done.fetch_add(1, Ordering::Relaxed);
                }
                None => {
                    let spent = cpu_time().saturating_sub(began);
                    // Held only to add: no thread can panic while it merges.
                    if let Ok(mut whole) = whole.lock() {
                        whole.0.merge(std::mem::take(&mut part));
                        whole.1 += spent.as_secs_f64();
                    }
                }
            }
        };
        let show = || format!("simulating: {} of {total} seeds", done.load(Ordering::Relaxed));
        in_parallel(&seeds, work, show);
        let (mut report, core_seconds) = summed
            .into_inner()
            .map_err(|_| anyhow::anyhow!("a simulating thread failed; run the seeds one by one to find which"))?;
        report.finish(core_seconds);
        if report.seeds != total {
            anyhow::bail!(
                "only {} of {total} seeds came to their end: a simulating thread failed; run the seeds one by one to find which",
                report.seeds
            );
        }
        match self.output {
            Format::Json => json(&report)?,
            Format::Table => data(&fleet_table(&report, self))?,
        }
        for breach in report.breaches.iter().take(20) {
            talk(&format!(
                "seed {}, rule {}, at {} s: {}",
                breach.seed,
                breach.rule,
                breach.at_ms / 1_000,
                breach.what
            ));
        }
        if let Some(breach) = report.breaches.first() {
            talk(&format!("a rule broke; `rackmedic simulate --trace {}` tells that story", breach.seed));
        }
        let gaps = if self.coverage { report.vacuous() } else { Vec::new() };
        for gap in &gaps {
            talk(&format!("not covered: {gap}"));
        }
        let harmless = report.rule_breaks == 0 && report.healthy_power_cycled == 0;
        Ok(if harmless && gaps.is_empty() { Exit::Ok } else { Exit::Failed })
    }

    fn tell(&self, seed: u64, policy: Policy<Site>) -> anyhow::Result<Exit> {
        let mut settings = self.settings(seed, policy);
        settings.transcript = true;
        let told = run(Enforced, &settings);
        let text = told.transcript.as_ref().map(sim::transcript::Transcript::text).unwrap_or_default();
        match self.output {
            Format::Table => data(&text)?,
            Format::Json => json(&serde_json::json!({
                "seed": seed,
                "rule_breaks": told.breaches.len(),
                "story": text.lines().collect::<Vec<_>>(),
            }))?,
        }
        for breach in &told.breaches {
            talk(&format!("{} broke at {} s: {}", breach.rule, breach.at / 1_000, breach.what));
        }
        Ok(if told.breaches.is_empty() { Exit::Ok } else { Exit::Failed })
    }

    fn break_rules(&self, which: Break) -> anyhow::Result<Exit> {
        let chosen: Vec<&'static RuleInfo> = match which {
            Break::All => breaking::switches().collect(),
            Break::One(number) => {
                let info = rule_table::info(Rule(number)).context("the rule table lacks a rule")?;
                if !info.has_switch() {
                    return Err(Usage(format!(
                        "rule {number} ({}) is not decided by the core: it belongs to {} and has no switch here; `--break all` runs those that have",
                        info.title,
                        info.owner.name()
                    ))
                    .into());
                }
                vec![info]
            }
        };
        let total = chosen.len();
        let done = AtomicUsize::new(0);
        let found: Mutex<Vec<Switched>> = Mutex::new(Vec::new());
        let work = || {
            |info: Option<&&'static RuleInfo>| {
                if let Some(info) = info {
                    let switched = breaking::break_rule(info);
                    done.fetch_add(1, Ordering::Relaxed);
                    if let Ok(mut found) = found.lock() {
                        found.push(switched);
                    }
                }
            }
        };
        in_parallel(&chosen, work, || format!("breaking: {} of {total} rules", done.load(Ordering::Relaxed)));
        let mut found = found
            .into_inner()
            .map_err(|_| anyhow::anyhow!("a simulating thread failed; break the rules one by one"))?;
        found.sort_by_key(|switched| switched.rule);
        let elsewhere: Vec<&RuleInfo> = rule_table::RULES.iter().filter(|info| !info.has_switch()).collect();
        match self.output {
            Format::Json => {
                let left: Vec<_> = elsewhere
                    .iter()
                    .map(|info| serde_json::json!({"rule": info.rule, "owner": info.owner.name()}))
                    .collect();
                json(&serde_json::json!({"rules": found, "elsewhere": left}))?;
            }
            Format::Table => data(&break_table(&found, &elsewhere, which))?,
        }
        let uncaught: Vec<String> = found.iter().filter(|s| !s.caught).map(|s| s.rule.to_string()).collect();
        if !uncaught.is_empty() {
            talk(&format!("broken but not caught: {}; the checks are blind there", uncaught.join(", ")));
        }
        if found.len() != total {
            anyhow::bail!("only {} of {total} rules came to their end: a simulating thread failed", found.len());
        }
        Ok(if uncaught.is_empty() { Exit::Ok } else { Exit::Failed })
    }
}

/// Hands items to one worker per core, each taking the next one that nobody took, and shows progress meanwhile. A worker
/// gets `None` at the end.
fn in_parallel<T: Sync, W: FnMut(Option<&T>)>(items: &[T], work: impl Fn() -> W + Sync, show: impl Fn() -> String) {
    let next = AtomicUsize::new(0);
    let running = AtomicUsize::new(0);
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get).min(items.len().max(1));
    let progress = Progress::new();
    thread::scope(|scope| {
        running.store(cores, Ordering::SeqCst);
        let watcher = thread::current();
        for _ in 0..cores {
            let watcher = watcher.clone();
            let (work, next, running) = (&work, &next, &running);
            scope.spawn(move || {
                // Counts down however the thread ends.
                let _left = Countdown { running, watcher };
                let mut worker = work();
                while let Some(item) = items.get(next.fetch_add(1, Ordering::SeqCst)) {
                    worker(Some(item));
                }
                worker(None);
            });
        }
        while running.load(Ordering::SeqCst) > 0 {
            progress.show(&show());
            thread::park_timeout(Duration::from_millis(500));
        }
    });
    progress.done();
}

struct Countdown<'a> {
    running: &'a AtomicUsize,
    watcher: thread::Thread,
}

impl Drop for Countdown<'_> {
    fn drop(&mut self) {
        self.running.fetch_sub(1, Ordering::SeqCst);
        self.watcher.unpark();
    }
}

/// Processor time of this thread, so that a machine with other work does not make the simulator look slow. Linux tells
/// it in nanoseconds as the first word of schedstat; elsewhere the wall clock must do.
fn cpu_time() -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let spent = told.and_then(|text| text.split_whitespace().next()?.parse().ok());
    spent.map_or_else(wall_time, Duration::from_nanos)
}

fn wall_time() -> Duration {
    use crate::decide_loop::{Clock, SystemClock};
    static START: std::sync::LazyLock<SystemClock> = std::sync::LazyLock::new(SystemClock::new);
    Duration::from_millis(START.monotonic_ms())
}

fn seconds(ms: u64) -> String {
    #[allow(clippy::cast_precision_loss)] // A figure for people.
    let seconds = ms as f64 / 1_000.0;
    if seconds < 120.0 { format!("{seconds:.1} s") } else { format!("{:.1} min", seconds / 60.0) }
}

fn counts(title: &str, of: &std::collections::BTreeMap<String, u64>) -> String {
    let rows: Vec<Vec<String>> = of.iter().map(|(word, count)| vec![word.clone(), count.to_string()]).collect();
    table(&[title, "count"], &rows)
}

fn fleet_table(report: &Report, asked: &Simulate) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "{} seeds ({}) of {} hosts for {} h: {} host-hours, {} faults, {} incidents\n",
        report.seeds, asked.seeds, asked.hosts, asked.hours, report.host_hours, report.faults, report.incidents
    );
    text.push_str(&counts("diagnosis", &report.by_diagnosis));
    text.push('\n');
    text.push_str(&counts("rung taken", &report.by_rung));
    text.push('\n');
    text.push_str(&counts("end", &report.by_end));
    text.push('\n');
    let spreads = [
        ("opening to healed (power)", &report.time_to_heal),
        ("silence to permission", &report.silence_to_permission),
        ("silence to release", &report.silence_to_release),
        ("kernel only, to permission", &report.slow_to_permission),
        ("kernel only, to release", &report.slow_to_release),
    ];
    let rows: Vec<Vec<String>> = spreads
        .iter()
        .map(|(name, s)| {
            vec![(*name).to_owned(), s.count.to_string(), seconds(s.p50_ms), seconds(s.p95_ms), seconds(s.p99_ms)]
        })
        .collect();
    text.push_str(&table(&["time", "count", "p50", "p95", "p99"], &rows));
    text.push('\n');
    if !report.blocked_by_rule.is_empty() {
        text.push_str(&counts("blocked at the end by", &report.blocked_by_rule));
        text.push('\n');
    }
    let rows = [
        ("curable incidents not held back", report.curable.to_string()),
        ("of those, healed", report.curable_healed.to_string()),
        ("hosts ill", report.hosts_ill.to_string()),
        ("of those, waiting at the end", report.hosts_blocked.to_string()),
        ("healthy hosts power-cycled", report.healthy_power_cycled.to_string()),
        ("rule breaks", report.rule_breaks.to_string()),
        ("times real time, per core", format!("{:.0}", report.real_time_factor)),
    ];
    let rows: Vec<Vec<String>> = rows.iter().map(|(name, value)| vec![(*name).to_owned(), value.clone()]).collect();
    text.push_str(&table(&["result", "value"], &rows));
    text
}

fn break_table(found: &[Switched], elsewhere: &[&RuleInfo], which: Break) -> String {
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|s| {
            let by = match (s.scene, s.seed) {
                (Some(scene), _) => format!("scene {scene}"),
                (None, Some(seed)) => format!("seed {seed}"),
                (None, None) => "-".to_owned(),
            };
            vec![format!("rule {}", s.rule), if s.caught { "yes" } else { "NO" }.to_owned(), by, s.event.to_string()]
        })
        .collect();
    let mut text = table(&["broken", "caught", "by", "at event"], &rows);
    if which != Break::All {
        for switched in found.iter().filter(|s| s.caught) {
            let _ = writeln!(text, "\nrule {}, {}: {}", switched.rule, seconds(switched.at_ms), switched.what);
        }
        return text;
    }
    let caught = found.iter().filter(|s| s.caught).count();
    let left: Vec<String> = elsewhere.iter().map(|info| info.rule.0.to_string()).collect();
    let _ = writeln!(
        text,
        "\n{caught} of {} caught; owned by loop, store or later work and tested there: {}",
        found.len(),
        left.join(", ")
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_to_break_is_a_number_of_the_sixty_or_all() {
        assert_eq!("all".parse(), Ok(Break::All));
        assert_eq!("29".parse(), Ok(Break::One(29)));
        assert!("0".parse::<Break>().is_err());
        assert!("61".parse::<Break>().unwrap_err().contains("1 to 60"));
        assert!("x".parse::<Break>().is_err());
    }

    #[test]
    fn every_item_is_worked_on_once_whatever_the_number_of_cores() {
        let items: Vec<u64> = (1..=1_000).collect();
        let (sum, ended) = (AtomicU64::new(0), AtomicU64::new(0));
        let work = || {
            |item: Option<&u64>| match item {
                Some(item) => drop(sum.fetch_add(*item, Ordering::SeqCst)),
                None => drop(ended.fetch_add(1, Ordering::SeqCst)),
            }
        };
        in_parallel(&items, work, String::new);
        assert_eq!(sum.load(Ordering::SeqCst), 500_500);
        assert!(ended.load(Ordering::SeqCst) >= 1);
    }
}
