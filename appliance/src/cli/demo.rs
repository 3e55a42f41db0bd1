//! `rackmedic demo`: a whole emulated rack on loopback that breaks and heals.

use super::Usage;
use super::output::{Exit, Format, data, json, table, talk};
use crate::demo::layout::{HOSTS_MAX, HOSTS_MIN};
use crate::demo::scenario::{Goal, Scenario};
use crate::demo::{Asked, Outcome, apart, run};
use anyhow::Context as _;
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// What the run is to come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Until {
    /// Every host that fell ill is healed.
    Healed,
    /// What is wrong is named.
    Diagnosed,
}

#[derive(Debug, Args)]
#[command(
    after_help = "In a terminal it shows the rack and takes commands: `break HOST FAULT`, `switch RACK down`, `scenario NAME`, `quit`.\nEverything is emulated and on loopback; the temporary folder goes with the run.\nExit codes: 0 the goal was reached (or a person ended it), 1 it was not, 2 a wrong argument."
)]
pub(super) struct Demo {
    /// Hosts of the rack: three of the control plane and the rest workers (below 6: one of the control plane).
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(i64::from(HOSTS_MIN)..=i64::from(HOSTS_MAX)))]
    hosts: u32,
    /// Spares beside them, switched off.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=20))]
    spares: u32,
    /// What goes wrong once the rack is up.
    #[arg(long, value_enum, value_name = "NAME")]
    scenario: Option<Scenario>,
    /// No table and no commands: the scenario runs to its goal, the timeline is printed, and the exit code tells.
    #[arg(long, requires = "until", requires = "scenario")]
    headless: bool,
    /// The goal.
    #[arg(long, value_enum, value_name = "GOAL")]
    until: Option<Until>,
    /// Give the goal up after so many seconds from the fault on.
    #[arg(long, value_name = "S", default_value_t = 400, value_parser = clap::value_parser!(u64).range(5..=3_600))]
    limit: u64,
    /// How the result is written.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
    /// Serve the rack alone, with its description in DIR/rack.json, until standard input ends.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["scenario", "until", "headless", "on"])]
    rack_only: Option<PathBuf>,
    /// Run the server alone, on a rack that `--rack-only` serves.
    #[arg(long, value_name = "DIR/rack.json", requires = "data_dir", conflicts_with_all = ["scenario", "until", "headless"])]
    on: Option<PathBuf>,
    /// Where the server alone keeps its records, over restarts.
    #[arg(long, value_name = "DIR", requires = "on")]
    data_dir: Option<PathBuf>,
}

impl Demo {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let until = self.until.map(|until| match until {
            Until::Healed => Goal::Healed,
            Until::Diagnosed => Goal::Diagnosed,
        });
        if until.is_some() && self.scenario.is_none() {
            return Err(Usage("--until needs a --scenario".to_owned()).into());
        }
        if let (Some(Goal::Healed), Some(scenario)) = (until, self.scenario)
            && let Some(why) = scenario.incurable()
        {
            let name = scenario.name();
            return Err(Usage(format!("the scenario {name} ends with `--until diagnosed`: {why}")).into());
        }
        let asked = Asked {
            hosts: self.hosts,
            spares: self.spares,
            scenario: self.scenario,
            until,
            headless: self.headless,
            limit: Duration::from_secs(self.limit),
        };
        let (rack_only, on, data_dir) = (self.rack_only, self.on, self.data_dir);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("no threads can be started for the demo")?;
        if let Some(folder) = rack_only {
            let done = runtime.block_on(apart::rack_only(asked.hosts, asked.spares, &folder));
            runtime.shutdown_background();
            return Ok(done.map(|()| Exit::Ok)?);
        }
        if let (Some(rack), Some(folder)) = (on, data_dir) {
            runtime.block_on(apart::server_on(&rack, &folder))?;
            return Ok(Exit::Ok);
        }
        let outcome = runtime.block_on(run(asked))?;
        // The thread that reads the terminal waits for a line that nobody types.
        runtime.shutdown_background();
        match self.output {
            Format::Json => json(&outcome)?,
            Format::Table => data(&words(&outcome))?,
        }
        if outcome.working_hosts_cut > 0 {
            talk("a working host lost its power: this must never happen; please report it with the timeline above");
        }
        Ok(if outcome.reached { Exit::Ok } else { Exit::Failed })
    }
}

fn words(outcome: &Outcome) -> String {
    let mut text = String::new();
    for line in &outcome.timeline {
        text.push_str(line);
        text.push('\n');
    }
    let seconds = |at: Option<f64>| at.map_or_else(|| "-".to_owned(), |at| format!("{at:.1}"));
    let rows: Vec<Vec<String>> = outcome
        .incidents
        .iter()
        .map(|line| {
            let mut row = vec![line.host.clone(), line.diagnosis.clone(), line.end.clone()];
            row.extend([line.detected_s, line.proven_off_s, line.released_s, line.ready_s, line.ended_s].map(seconds));
            row
        })
        .collect();
    let head = ["HOST", "DIAGNOSIS", "END", "DETECTED S", "PROVEN OFF S", "RELEASED S", "READY S", "ENDED S"];
    text.push_str(&table(&head, &rows));
    for one in &outcome.power_commands {
        text.push_str(&format!(
            "{}: {} off, {} on, {} other power commands\n",
            one.host, one.offs, one.ons, one.others
        ));
    }
    text
}
