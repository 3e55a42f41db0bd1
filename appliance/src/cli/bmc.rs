//! `rackmedic bmc`: one BMC by hand. A bench tool: what it says of *off* is a verdict over readings, never the proof that
//! the appliance needs.

use super::Usage;
use super::output::{Exit, Format, data, json, talk};
use crate::act::bmc_reading::bridge;
use anyhow::Context;
use bmc::endpoint::{Endpoint, Protocol};
use bmc::ipmi::client::{Client, IpmiError, Patience};
use bmc::ipmi::command::Control;
use bmc::ipmi::crypto::Suite;
use bmc::ipmi::handshake::{Login, Privilege};
use bmc::{Power, Secret};
use clap::{Args, Subcommand, ValueEnum};
use healing::fence::{Cause, NotProven, Reading, Verdict, judge};
use healing::id::MachineId;
use healing::policy::Limits;
use healing::time::{Elapsed, Millis};
use serde::Serialize;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long an orderly shutdown may take.
const GRACEFUL: Duration = Duration::from_secs(300);
/// Between off and on of a cycle, so that capacitors and watchdogs settle.
const OFF_PAUSE: Duration = Duration::from_secs(10);
/// Between two readings.
const READ_EVERY: Duration = Duration::from_millis(1_000);
/// A password file is a line.
const PASSWORD_FILE_BYTES_MAX: u64 = 4_096;

#[derive(Debug, Subcommand)]
pub(super) enum Bmc {
    /// Reads or switches the power; `off` ends well only if the readings show it.
    Power {
        /// What is done.
        #[arg(value_enum)]
        what: What,
        #[command(flatten)]
        place: Place,
    },
    /// Who the BMC says that it and its machine are.
    Identify {
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum What {
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

#[derive(Debug, Args)]
pub(super) struct Place {
    /// The BMC: `ipmi://USER@HOST[:PORT]`.
    #[arg(long, value_name = "URL")]
    url: String,
    /// A file with the password in its first line; without it the environment variable RACKMEDIC_BMC_PASSWORD.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// How the result is written.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
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

#[derive(Debug, Serialize)]
struct Identity {
    guid: Option<String>,
    manufacturer: u32,
    product: u16,
    firmware: String,
    cipher_suite: u8,
}

impl Bmc {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            match self {
                Bmc::Power { what, place } => {
                    let mut client = place.open(Privilege::Operator).await?;
                    let done = power(&mut client, what, place.output).await;
                    client.close().await;
                    done
                }
                Bmc::Identify { place } => {
                    let mut client = place.open(Privilege::User).await?;
                    let done = identify(&mut client, place.output).await;
                    client.close().await;
                    done
                }
            }
        })
    }
}

impl Place {
    async fn open(&self, privilege: Privilege) -> anyhow::Result<Client> {
        let endpoint: Endpoint = self.url.parse().map_err(|why| Usage(format!("--url: {why}")))?;
        if endpoint.protocol == Protocol::Redfish {
            return Err(Usage("--url: this version speaks ipmi:// only; redfish:// follows".to_owned()).into());
        }
        let password = self.password()?;
        let login = Login::new(endpoint.user.clone(), password, privilege).map_err(|why| Usage(why.to_string()))?;
        let found = tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port)).await;
        let address: SocketAddr = found
            .with_context(|| format!("the host {} has no address", endpoint.host))?
            .next()
            .with_context(|| format!("the host {} has no address", endpoint.host))?;
        Ok(Client::open(address, &login, &Suite::PREFERENCE, Patience::default()).await?)
    }

    fn password(&self) -> anyhow::Result<Secret> {
        let bytes = match &self.password_file {
            Some(path) => {
                let cannot = |why: std::io::Error| Usage(format!("--password-file {}: {why}", path.display()));
                if std::fs::metadata(path).map_err(cannot)?.len() > PASSWORD_FILE_BYTES_MAX {
                    return Err(Usage(format!("--password-file {}: too long for a password", path.display())).into());
                }
                std::fs::read(path).map_err(cannot)?
            }
            None => std::env::var_os("RACKMEDIC_BMC_PASSWORD").map(std::ffi::OsString::into_encoded_bytes).ok_or_else(
                || Usage("no password: name a file with --password-file or set RACKMEDIC_BMC_PASSWORD".to_owned()),
            )?,
        };
        let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            return Err(Usage("the password is empty: the account of a BMC without one is not used".to_owned()).into());
        }
        Ok(Secret::new(line.to_vec()))
    }
}

async fn identify(client: &mut Client, output: Format) -> anyhow::Result<Exit> {
    let device = client.device_id().await?;
    let identity = Identity {
        guid: client.reading().await?.identity.map(hex),
        manufacturer: device.manufacturer,
        product: device.product,
        firmware: format!("{}.{:02}", device.firmware_major, device.firmware_minor),
        cipher_suite: client.suite().number(),
    };
    match output {
        Format::Json => json(&identity)?,
        Format::Table => data(&format!(
            "guid          {}\nmanufacturer  {}\nproduct       {}\nfirmware      {}\ncipher suite  {}\n",
            identity.guid.as_deref().unwrap_or("not told"),
            identity.manufacturer,
            identity.product,
            identity.firmware,
            identity.cipher_suite
        ))?,
    }
    Ok(Exit::Ok)
}

fn hex(bytes: [u8; 16]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn word(power: Power) -> &'static str {
    match power {
        Power::On => "on",
        Power::Off => "off",
        Power::Transitioning => "transitioning",
        Power::Unknown => "unknown",
    }
}

async fn power(client: &mut Client, what: What, output: Format) -> anyhow::Result<Exit> {
    match what {
        What::Status => status(client.reading().await?.power, output).map(|()| Exit::Ok),
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
            client.control(Control::Soft).await?;
            let last = until(client, Power::Off, GRACEFUL).await?;
            let reached = last == Power::Off;
            status(last, output)?;
            if !reached {
                talk("the system did not shut down in five minutes; `power off` forces it");
            }
            Ok(if reached { Exit::Ok } else { Exit::Failed })
        }
        What::Nmi => {
            client.control(Control::Interrupt).await?;
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

async fn on(client: &mut Client, output: Format) -> anyhow::Result<Exit> {
    let limits = Limits::default();
    if client.reading().await?.power != Power::On {
        lost_is_read(client.control(Control::On).await)?;
    }
    let last = until(client, Power::On, Duration::from_millis(limits.effect_ms)).await?;
    let reached = last == Power::On;
    status(last, output)?;
    if !reached {
        talk("accepted without effect: it does not read on after a minute; look at its power supply and its event log");
    }
    Ok(if reached { Exit::Ok } else { Exit::Failed })
}

/// A lost answer is no failure: the power is read next. Everything else is one, but a refusal because it is so already.
fn lost_is_read(sent: Result<(), IpmiError>) -> Result<(), IpmiError> {
    match sent {
        Ok(()) | Err(IpmiError::ReplyLost { .. } | IpmiError::Refused { code: 0xd5, .. }) => Ok(()),
        Err(why) => Err(why),
    }
}

/// Reads until it is as wanted or the time is over, and gives what was read last.
async fn until(client: &mut Client, wanted: Power, limit: Duration) -> anyhow::Result<Power> {
    let begun = Instant::now();
    loop {
        let last = match client.reading().await {
            Ok(reading) => reading.power,
            Err(IpmiError::ReplyLost { .. }) => Power::Unknown,
            Err(why) => return Err(why.into()),
        };
        if last == wanted || begun.elapsed() >= limit {
            return Ok(last);
        }
        tokio::time::sleep(READ_EVERY).await;
    }
}

/// Forces it off and reads until the verdict is *off*, or the time for the effect is over.
async fn off(client: &mut Client, output: Format) -> anyhow::Result<(Verdict, Exit)> {
    let limits = Limits::default();
    let began = Instant::now();
    let first = client.reading().await?;
    let mut readings = vec![bridge(&first, began)];
    let machine = readings.first().and_then(|r| r.identity).filter(|m| !m.is_placeholder());
    let found_off = first.power == Power::Off;
    let cause = if found_off {
        Cause::FoundOff { lease: Elapsed(0) }
    } else {
        lost_is_read(client.control(Control::Off).await)?;
        Cause::Commanded { at: Elapsed(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)) }
    };
    let limit = Duration::from_millis(limits.effect_ms);
    let verdict = loop {
        tokio::time::sleep(READ_EVERY).await;
        match client.reading().await {
            Ok(reading) => readings.push(bridge(&reading, began)),
            Err(IpmiError::ReplyLost { .. }) => {}
            Err(why) => return Err(why.into()),
        }
        let verdict = judge(machine, cause, &readings, &limits);
        // Not before the time in which a wrong machine would have shown itself (rule 29).
        let settled = match (verdict.first_off, verdict.last_off) {
            (Some(first), Some(last)) => found_off || last.since(first) >= limits.proof_not_before_ms,
            _ => false,
        };
        let other = verdict.why_not == Some(NotProven::WrongMachine);
        if (verdict.off && settled) || other || began.elapsed() >= limit {
            break verdict;
        }
    };
    let shown = machine.is_some() && verdict.off;
    let exit = if shown { Exit::Ok } else { Exit::Failed };
    say_off(&verdict, machine, shown, found_off, &readings, output)?;
    Ok((verdict, exit))
}

fn say_off(
    verdict: &Verdict,
    machine: Option<MachineId>,
    shown: bool,
    found_off: bool,
    readings: &[Reading],
    output: Format,
) -> anyhow::Result<()> {
    let reason = match (verdict.why_not, machine) {
        (_, None) => "the BMC names no machine: whose power was read is not known".to_owned(),
        (Some(NotProven::NotOff), _) => "it does not read off: the command was accepted without effect".to_owned(),
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
            source: "bmc",
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
            for reading in &off.evidence {
                text += &format!("  {:>6.1} s  {}\n", Duration::from_millis(reading.at_ms).as_secs_f64(), reading.saw);
            }
            text += "by its BMC alone, which is not linked to a host here: no proof for an appliance\n";
            data(&text)?;
        }
    }
    Ok(())
}
