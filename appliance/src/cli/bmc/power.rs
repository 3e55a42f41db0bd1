//! Power by hand.

use crate::act::bmc_reading::bridge;
use crate::cli::output::{Exit, Format, data, json, talk};
use bmc::controller::{ALWAYS, BmcError, Controller, Kind};
use bmc::{Power, PowerCommand, Readings};
use clap::ValueEnum;
use healing::fence::{Cause, NotProven, Reading, ReadingSource, Verdict, judge};
use healing::id::MachineId;
use healing::policy::Limits;
use healing::time::{Elapsed, Millis};
use serde::Serialize;
use std::time::{Duration, Instant};

/// How long an orderly shutdown may take.
const GRACEFUL: Duration = Duration::from_secs(300);
/// Between off and on of a cycle, so that capacitors and watchdogs settle.
const OFF_PAUSE: Duration = Duration::from_secs(10);
/// Between two readings.
const READ_EVERY: Duration = Duration::from_millis(1_000);
/// Until the first reading: a login and a few answers of a slow BMC.
const FIRST_READING: Duration = Duration::from_secs(90);
/// Between two orders of the same, when one was refused or lost.
const ORDER_EVERY: Duration = Duration::from_secs(5);
/// Orders of the same at most.
const ORDERS_MAX: u32 = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum What {
    /// Reads it.
    Status,
    /// Switches it on and reads back.
    On,
    /// Forces it off and reads until the readings show it, or a minute is over.
    Off,
    /// Forced off, shown to be off, ten seconds, on.
    Cycle,
    /// Asks the system to shut down and waits for at most five minutes.
    GracefulOff,
    /// Sends a diagnostic interrupt, once.
    Nmi,
}

/// One reading as it is shown.
#[derive(Debug, Serialize)]
struct Shown {
    /// Milliseconds since the verb began.
    at_ms: Millis,
    source: &'static str,
    saw: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<String>,
}

#[derive(Debug, Serialize)]
struct Off {
    proven_off: bool,
    linked: bool,
    witness: &'static str,
    reason: String,
    evidence: Vec<Shown>,
}

#[derive(Debug, Serialize)]
struct Status {
    power: &'static str,
}

pub(super) fn hex(bytes: [u8; 16]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn word(power: Power) -> &'static str {
    match power {
        Power::On => "on",
        Power::Off => "off",
        Power::Transitioning => "transitioning",
        Power::Unknown => "unknown",
    }
}

pub(super) async fn run(client: &mut dyn Controller, what: What, output: Format) -> anyhow::Result<Exit> {
    match what {
        What::Status => status(first(client).await?.main.power, output).map(|()| Exit::Ok),
        What::On => on(client, output).await,
        What::Off => Ok(off(client, output).await?.1),
        What::Cycle => {
            let (_, shown) = off(client, output).await?;
            if shown != Exit::Ok {
                talk("not switched on: it was not shown to be off, so nothing was cycled");
                return Ok(shown);
            }
            tokio::time::sleep(OFF_PAUSE).await;
            on(client, output).await
        }
        What::GracefulOff => {
            client.power(PowerCommand::GracefulOff, ALWAYS).await?;
            let last = until(client, Power::Off, GRACEFUL).await?;
            let reached = last == Power::Off;
            status(last, output)?;
            if !reached {
                talk("the system did not shut down in five minutes; `power off` forces it");
            }
            Ok(if reached { Exit::Ok } else { Exit::Failed })
        }
        What::Nmi => {
            client.power(PowerCommand::Interrupt, ALWAYS).await?;
            Ok(Exit::Ok)
        }
    }
}

fn status(power: Power, output: Format) -> anyhow::Result<()> {
    match output {
        Format::Json => json(&Status { power: word(power) })?,
        Format::Table => data(&format!("{}\n", word(power)))?,
    }
    Ok(())
}

/// Forced off until it reads off, ten seconds, on until it reads on, for a verb that does more than this. What was read goes
/// to standard error, as it is no result.
pub(in crate::cli) async fn cycle_for_boot(client: &mut dyn Controller) -> anyhow::Result<()> {
    let limit = Duration::from_millis(Limits::default().effect_ms);
    let mut order = Order::new(PowerCommand::Off);
    // Minutes may lie between this and the last word with the BMC: a session has idled out, or it is busy. Reading again
    // costs nothing, and without a reading nothing is sent.
    let Some(seen) = first_patiently(client).await? else {
        anyhow::bail!(
            "the BMC did not tell its power within {} s; nothing was switched. Is it overloaded, or restarting?",
            FIRST_READING.as_secs()
        );
    };
    let mut last = seen.main.power;
    let end = Instant::now() + limit;
    while last != Power::Off && Instant::now() < end {
        order.send_if_due(client, end).await?;
        tokio::time::sleep(READ_EVERY).await;
        last = read(client, end).await?.map_or(Power::Unknown, |seen| seen.main.power);
    }
    if last != Power::Off {
        let why = order.refusal.map(|text| format!("; the BMC said: {text}")).unwrap_or_default();
        anyhow::bail!(
            "the host does not read off after a minute{why}, so it was not switched on again: nothing was booted"
        );
    }
    talk("it reads off");
    tokio::time::sleep(OFF_PAUSE).await;
    let mut order = Order::new(PowerCommand::On);
    let end = Instant::now() + limit;
    while last != Power::On && Instant::now() < end {
        order.send_if_due(client, end).await?;
        tokio::time::sleep(READ_EVERY).await;
        last = read(client, end).await?.map_or(Power::Unknown, |seen| seen.main.power);
    }
    if last != Power::On {
        let why = order.refusal.map(|text| format!("; the BMC said: {text}")).unwrap_or_default();
        anyhow::bail!(
            "the host was switched off and does not read on after a minute{why}: look at its power supply and its event log"
        );
    }
    talk("it reads on");
    Ok(())
}

async fn on(client: &mut dyn Controller, output: Format) -> anyhow::Result<Exit> {
    let limit = Duration::from_millis(Limits::default().effect_ms);
    let mut order = Order::new(PowerCommand::On);
    let mut last = first(client).await?.main.power;
    let end = Instant::now() + limit;
    while last != Power::On && Instant::now() < end {
        order.send_if_due(client, end).await?;
        tokio::time::sleep(READ_EVERY).await;
        last = read(client, end).await?.map_or(Power::Unknown, |seen| seen.main.power);
    }
    let reached = last == Power::On;
    status(last, output)?;
    if !reached {
        let why = order.refusal.map(|text| format!("; the BMC said: {text}")).unwrap_or_default();
        talk(&format!("it does not read on after a minute{why}; look at its power supply and its event log"));
    }
    Ok(if reached { Exit::Ok } else { Exit::Failed })
}

/// An order that may be given twice: given once, and again only while it reads otherwise and was refused or lost.
struct Order {
    command: PowerCommand,
    sent_at: Option<Instant>,
    accepted: bool,
    left: u32,
    refusal: Option<String>,
}

impl Order {
    fn new(command: PowerCommand) -> Order {
        Order { command, sent_at: None, accepted: false, left: ORDERS_MAX, refusal: None }
    }

    /// Sends it unless it was accepted, or was sent a moment ago. Whether a refused or lost one was done shows when the
    /// power is read; only what makes reading useless too is an error.
    async fn send_if_due(&mut self, client: &mut dyn Controller, end: Instant) -> anyhow::Result<()> {
        let early = self.sent_at.is_some_and(|at| at.elapsed() < ORDER_EVERY);
        if self.accepted || early || self.left == 0 {
            return Ok(());
        }
        self.left -= 1;
        let sent = tokio::time::timeout_at(end.into(), client.power(self.command, ALWAYS)).await;
        self.sent_at = Some(Instant::now());
        let sent = sent.unwrap_or_else(|_| Err(BmcError::new(Kind::Unknown, "no answer to the command in time")));
        match sent {
            Ok(()) => self.accepted = true,
            Err(why) if read_next(&why) => self.refusal = Some(why.text),
            Err(why) => return Err(why.into()),
        }
        Ok(())
    }
}

/// After this failure the power may still be read.
fn read_next(why: &BmcError) -> bool {
    matches!(why.kind, Kind::Unknown | Kind::Busy(_) | Kind::Refused | Kind::Hostile | Kind::Unreachable)
}

/// The first reading: without it nothing is sent.
async fn first(client: &mut dyn Controller) -> anyhow::Result<Readings> {
    match tokio::time::timeout(FIRST_READING, client.readings()).await {
        Ok(seen) => Ok(seen?),
        Err(_) => anyhow::bail!(
            "the BMC did not tell its power within {} s; nothing was sent. Is it overloaded, or restarting?",
            FIRST_READING.as_secs()
        ),
    }
}

/// The first reading, asked for again and again until its time is over.
async fn first_patiently(client: &mut dyn Controller) -> anyhow::Result<Option<Readings>> {
    let end = Instant::now() + FIRST_READING;
    loop {
        let seen = read(client, end).await?;
        if seen.is_some() || Instant::now() >= end {
            return Ok(seen);
        }
        tokio::time::sleep(READ_EVERY).await;
    }
}

/// Reads; an answer that does not come, or that nobody can read, is none. It is never *off*.
async fn read(client: &mut dyn Controller, until: Instant) -> anyhow::Result<Option<Readings>> {
    match tokio::time::timeout_at(until.into(), client.readings()).await {
        Ok(Ok(seen)) => Ok(Some(seen)),
        Ok(Err(why)) if read_next(&why) => Ok(None),
        Ok(Err(why)) => Err(why.into()),
        Err(_) => Ok(None),
    }
}

/// Reads until it is as wanted or the time is over, and gives what was read last.
async fn until(client: &mut dyn Controller, wanted: Power, limit: Duration) -> anyhow::Result<Power> {
    let end = Instant::now() + limit;
    loop {
        let last = read(client, end).await?.map_or(Power::Unknown, |seen| seen.main.power);
        if last == wanted || Instant::now() >= end {
            return Ok(last);
        }
        tokio::time::sleep(READ_EVERY).await;
    }
}

/// Forces it off and reads until the verdict is *off*, or the time for the effect is over.
async fn off(client: &mut dyn Controller, output: Format) -> anyhow::Result<(Verdict, Exit)> {
    let limits = Limits::default();
    let began = Instant::now();
    let mut readings = Vec::new();
    let first = first(client).await?;
    let end = Instant::now() + Duration::from_millis(limits.effect_ms);
    let mut keep = |seen: &Readings| {
        readings.push(bridge(&seen.main, began));
        readings.extend(seen.beside.as_ref().map(|beside| bridge(beside, began)));
        readings.clone()
    };
    let mut all = keep(&first);
    let machine = first.main.identity.map(|guid| MachineId(u128::from_be_bytes(guid))).filter(|m| !m.is_placeholder());
    let found_off = first.main.power == Power::Off;
    let mut order = Order::new(PowerCommand::Off);
    let cause = if found_off {
        Cause::FoundOff { lease: Elapsed(0) }
    } else {
        let at = Elapsed(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
        Cause::Commanded { at }
    };
    let verdict = loop {
        if !found_off {
            let last = all.iter().rev().find(|reading| reading.source == ReadingSource::Bmc);
            if last.is_none_or(|reading| reading.power != healing::signal::Power::Off) {
                order.send_if_due(client, end).await?;
            }
        }
        tokio::time::sleep(READ_EVERY).await;
        if let Some(seen) = read(client, end).await? {
            all = keep(&seen);
        }
        let verdict = judge(machine, cause, &all, &limits);
        // Not before the time in which a wrong machine would have shown itself (rule 29).
        let settled = match (verdict.first_off, verdict.last_off) {
            (Some(first), Some(last)) => found_off || last.since(first) >= limits.proof_not_before_ms,
            _ => false,
        };
        let other = verdict.why_not == Some(NotProven::WrongMachine);
        if (verdict.off && settled) || other || Instant::now() >= end {
            break verdict;
        }
    };
    let shown = machine.is_some() && verdict.off;
    let exit = if shown { Exit::Ok } else { Exit::Failed };
    say_off(&verdict, machine, shown, found_off, order.refusal.as_deref(), &all, output)?;
    Ok((verdict, exit))
}

fn say_off(
    verdict: &Verdict,
    machine: Option<MachineId>,
    shown: bool,
    found_off: bool,
    refusal: Option<&str>,
    readings: &[Reading],
    output: Format,
) -> anyhow::Result<()> {
    let reason = match (verdict.why_not, machine) {
        (None, None) => "the BMC names no machine: whose power was read is not known".to_owned(),
        (Some(NotProven::NotOff), _) => match refusal {
            Some(text) => format!("it does not read off, and the BMC said: {text}"),
            None => "it does not read off: the command was accepted without effect".to_owned(),
        },
        (Some(NotProven::SecondProtocol), _) => {
            "the system reads off, but its chassis reads on: which of them is wrong is not known. If you have seen this chassis \
             stay powered while its system is off, say so with --ignore-chassis"
                .to_owned()
        }
        (Some(NotProven::WrongMachine), _) => "a reading named another machine than the first".to_owned(),
        (Some(NotProven::TooFewReadings), _) => "too few readings of off in the time allowed".to_owned(),
        (Some(why), _) => format!("{why:?}"),
        (None, Some(_)) if found_off => "it was off before, read twice at least ten seconds apart".to_owned(),
        (None, Some(_)) => "forced off, read off twice at least two seconds apart, five seconds long".to_owned(),
    };
    let evidence: Vec<Shown> = readings
        .iter()
        .map(|reading| Shown {
            at_ms: reading.at.0,
            source: match reading.source {
                ReadingSource::Bmc => "bmc",
                ReadingSource::SecondProtocol => "chassis",
                ReadingSource::Outlets => "outlet",
            },
            saw: match reading.power {
                healing::signal::Power::On => "on",
                healing::signal::Power::Off => "off",
                healing::signal::Power::Transitioning => "transitioning",
                healing::signal::Power::Unknown => "unknown",
            },
            identity: reading.identity.map(|machine| hex(machine.0.to_be_bytes())),
        })
        .collect();
    let off = Off { proven_off: shown, linked: false, witness: "bmc-only", reason, evidence };
    match output {
        Format::Json => json(&off)?,
        Format::Table => {
            let mut text = format!("{}: {}\n", if shown { "off" } else { "NOT shown to be off" }, off.reason);
            for run in runs(&off.evidence) {
                text += &run;
            }
            text += "by its BMC alone, which is not linked to a host here: no proof for an appliance\n";
            data(&text)?;
        }
    }
    Ok(())
}

/// The readings as lines, equal ones of a source together.
fn runs(evidence: &[Shown]) -> Vec<String> {
    let mut sources: Vec<&'static str> = Vec::new();
    for reading in evidence {
        if !sources.contains(&reading.source) {
            sources.push(reading.source);
        }
    }
    let mut lines = Vec::new();
    for source in sources {
        let own: Vec<&Shown> = evidence.iter().filter(|reading| reading.source == source).collect();
        for run in own.chunk_by(|a, b| a.saw == b.saw && a.identity == b.identity) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            let seconds = |at_ms: Millis| Duration::from_millis(at_ms).as_secs_f64();
            let span = match run.len() {
                1 => format!("{:>5.1} s", seconds(first.at_ms)),
                _ => format!("{:>5.1} to {:.1} s", seconds(first.at_ms), seconds(last.at_ms)),
            };
            lines.push(format!("  {source:<7}  {:<13}  {span} ({} read)\n", first.saw, run.len()));
        }
    }
    lines
}
