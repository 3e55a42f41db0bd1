//! Orders of people to a running appliance: pause, arm, approve, deny, confirm. They go over the control socket, into the
//! journal and the audit; none of them waives a rule.

use super::host::word;
use super::output::{Exit, Format, data, json, table};
use super::socket::Appliance;
use crate::server::api::control::Asked;
use clap::{Args, Subcommand};
use serde_json::Value;

/// Gives an order, and says what was said to it.
pub(super) fn order(appliance: &Appliance, asked: &Asked, output: Format) -> anyhow::Result<Exit> {
    let answer: Value = appliance.post("/control/v1/orders", asked)?;
    match output {
        Format::Json => json(&answer)?,
        Format::Table => {
            let mut text = format!("ordered (journal entry {})\n", answer["entry"]);
            for notice in answer["notices"].as_array().into_iter().flatten() {
                text.push_str(&format!("{}\n", word(notice)));
            }
            data(&text)?;
        }
    }
    Ok(Exit::Ok)
}

#[derive(Debug, Args)]
struct To {
    #[command(flatten)]
    appliance: Appliance,
    /// How the result is written.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// `rackmedic pause` and `rackmedic resume`.
#[derive(Debug, Args)]
pub(super) struct Pause {
    /// A cluster.
    #[arg(long, conflicts_with_all = ["domain", "host"])]
    cluster: Option<String>,
    /// A physical domain, such as `rack/r1`.
    #[arg(long, conflicts_with = "host")]
    domain: Option<String>,
    /// A host.
    #[arg(long)]
    host: Option<String>,
    #[command(flatten)]
    to: To,
}

impl Pause {
    pub(super) fn run(self, paused: bool) -> anyhow::Result<Exit> {
        let asked = Asked::Pause { paused, cluster: self.cluster, domain: self.domain, host: self.host };
        order(&self.to.appliance, &asked, self.to.output)
    }
}

/// `rackmedic arm` and `rackmedic disarm`.
#[derive(Debug, Args)]
pub(super) struct Arm {
    /// The cluster.
    cluster: String,
    #[command(flatten)]
    to: To,
}

impl Arm {
    pub(super) fn run(self, armed: bool) -> anyhow::Result<Exit> {
        order(&self.to.appliance, &Asked::Arm { cluster: self.cluster, armed }, self.to.output)
    }
}

/// `rackmedic site`.
#[derive(Debug, Subcommand)]
pub(super) enum Site {
    /// What holds for the whole site.
    Status(Asking),
    /// Only observe from now on.
    Observe(Asking),
    /// Act again, after a time of observing; also after a restored backup.
    Act(Act),
    /// Reset the breaker that three failed heals in a row or an identity alarm tripped.
    ResetBreaker(Asking),
    /// Lift the freeze of all power that an identity alarm set.
    LiftPowerFreeze(Asking),
}

#[derive(Debug, Args)]
pub(super) struct Act {
    /// Also when the journal could not be read whole, so that nobody knows what was done before: what counts cycles and
    /// reimages begins at none.
    #[arg(long)]
    budgets_unknown: bool,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Debug, Args)]
pub(super) struct Asking {
    #[command(flatten)]
    to: To,
}

impl Site {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let (asking, asked) = match self {
            Site::Status(asking) => return asking.status(),
            Site::Observe(asking) => (asking, Asked::ObserveOnly { on: true, budgets_unknown: false }),
            Site::Act(Act { asking, budgets_unknown }) => (asking, Asked::ObserveOnly { on: false, budgets_unknown }),
            Site::ResetBreaker(asking) => (asking, Asked::ResetBreaker),
            Site::LiftPowerFreeze(asking) => (asking, Asked::LiftPowerFreeze),
        };
        order(&asking.to.appliance, &asked, asking.to.output)
    }
}

impl Asking {
    fn status(self) -> anyhow::Result<Exit> {
        let shown: Value = self.to.appliance.get("/api/v1/status")?;
        match self.to.output {
            Format::Json => json(&shown)?,
            Format::Table => data(&(serde_saphyr::to_string(&shown)? + "\n"))?,
        }
        Ok(Exit::Ok)
    }
}

/// `rackmedic incident`.
#[derive(Debug, Subcommand)]
pub(super) enum Incident {
    /// All incidents, the newest first, with the seconds of each stage.
    List(Asking),
    /// One incident: evidence, plan, the present step, what blocks it, what people were told.
    Show(One),
    /// Approve the rung that it stands on, for 15 minutes and only as things stand now.
    Approve(Approve),
    /// End its ladder: the host is left as it is, powered on.
    Deny(One),
    /// Confirm that its host is off, by what is written on the machine.
    ConfirmOff(Confirm),
}

#[derive(Debug, Args)]
pub(super) struct One {
    /// Its number.
    incident: u64,
    #[command(flatten)]
    to: To,
}

#[derive(Debug, Args)]
pub(super) struct Approve {
    #[command(flatten)]
    one: One,
    /// What is approved, as `incident list` shows it: power-cycle, reimage, … If the ladder has gone on since, nothing is.
    #[arg(long)]
    rung: String,
}

#[derive(Debug, Args)]
pub(super) struct Confirm {
    #[command(flatten)]
    one: One,
    /// The serial number on the machine that you see switched off.
    #[arg(long)]
    serial: String,
}

impl Incident {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        match self {
            Incident::List(asking) => asking.incidents(),
            Incident::Show(one) => one.show(),
            Incident::Approve(Approve { one, rung }) => one.order(|incident| Asked::Approve { incident, rung }),
            Incident::Deny(one) => one.order(|incident| Asked::Deny { incident }),
            Incident::ConfirmOff(confirm) => {
                let serial = confirm.serial;
                confirm.one.order(|incident| Asked::ConfirmOff { incident, serial })
            }
        }
    }
}

impl One {
    fn show(self) -> anyhow::Result<Exit> {
        let shown: Value = self.to.appliance.get(&format!("/api/v1/incidents/{}", self.incident))?;
        match self.to.output {
            Format::Json => json(&shown)?,
            Format::Table => data(&(serde_saphyr::to_string(&shown)? + "\n"))?,
        }
        Ok(Exit::Ok)
    }

    fn order(self, asked: impl FnOnce(u64) -> Asked) -> anyhow::Result<Exit> {
        order(&self.to.appliance, &asked(self.incident), self.to.output)
    }
}

impl Asking {
    fn incidents(self) -> anyhow::Result<Exit> {
        let all = self.to.appliance.all("/api/v1/incidents")?;
        if self.to.output == Format::Json {
            json(&all)?;
            return Ok(Exit::Ok);
        }
        let keys = [
            "id",
            "host",
            "diagnosis",
            "end",
            "phase",
            "rung",
            "detected_s",
            "proven_off_s",
            "released_s",
            "ready_s",
            "healed_s",
        ];
        let rows: Vec<Vec<String>> = all
            .iter()
            .map(|incident| {
                let mut row: Vec<String> = keys.map(|key| word(&incident[key])).into();
                row.push(word(&incident["waits"]["sentence"]));
                row
            })
            .collect();
        let head = [
            "ID",
            "HOST",
            "DIAGNOSIS",
            "END",
            "PHASE",
            "RUNG",
            "DETECTED S",
            "PROVEN OFF S",
            "RELEASED S",
            "READY S",
            "HEALED S",
            "WAITS",
        ];
        data(&table(&head, &rows))?;
        Ok(Exit::Ok)
    }
}
