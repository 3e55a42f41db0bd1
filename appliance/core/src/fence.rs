//! The fence: from readings of power to a proof that a host is off, or to the reason why it is not one.

use crate::assess::NetworkState;
use crate::evidence::Evidence;
use crate::id::{DomainId, HostId, IncidentId, MachineId};
use crate::policy::Limits;
use crate::rules::{Enforced, Rule, Rules};
use crate::sight::OwnSight;
use crate::signal::{OffCause, Power, Source};
use crate::time::{Elapsed, Now};
use serde::{Deserialize, Serialize};

/// Where a power reading comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadingSource {
    /// The BMC's main protocol.
    Bmc,
    /// The BMC's second protocol, chassis power or watts: can contradict, never prove alone.
    SecondProtocol,
    /// All PDU outlets of the host.
    Outlets,
}

/// One live power reading. Never cached, never derived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// When the answer came.
    pub at: Elapsed,
    /// Who said it.
    pub source: ReadingSource,
    /// The identity read in the same session; `None` = not read.
    pub identity: Option<MachineId>,
    /// What it said.
    pub power: Power,
    /// Why it is off, if it is and if told.
    pub off_cause: OffCause,
    /// Another witness of the same BMC, asked in the same session, says On while this says Off: the chassis beside the
    /// system (decision 007). Such an Off proves nothing.
    #[serde(default)]
    pub contradicted: bool,
}

/// Why the host is expected to be off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// We ordered it; the first command left then.
    Commanded {
        /// When.
        at: Elapsed,
    },
    /// It was found off, and is held under our action lease since.
    FoundOff {
        /// Since when we hold the lease.
        lease: Elapsed,
    },
    /// Its outlets were switched off.
    Outlets,
    /// A human confirmed, by typing the serial.
    Human {
        /// When.
        at: Elapsed,
    },
}

/// Who bore witness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Witness {
    /// The linked BMC, twice.
    Bmc,
    /// PDU outlets.
    Outlets,
    /// A human.
    Human,
}

/// What the network and the cluster said meanwhile.
#[derive(Debug, Clone, Copy)]
pub struct Witnesses<'a> {
    /// The host's evidence.
    pub evidence: &'a Evidence,
    /// Physical domains of the host, for own sight.
    pub domains: &'a [DomainId],
}

/// Why it is not a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NotProven {
    /// Fewer than two Off readings, far enough apart, from the right source.
    TooFewReadings,
    /// The last reading is not Off.
    NotOff,
    /// A reading showed another machine.
    WrongMachine,
    /// The host is not linked.
    NotLinked,
    /// Too early after the first Off.
    TooEarly,
    /// The target answered the network after the first Off.
    Answered,
    /// Its Lease was renewed after the first Off.
    Renewed,
    /// A second protocol says On.
    SecondProtocol,
    /// Own sight is bad.
    Blind,
    /// The readings are too old.
    Stale,
}

/// A verdict of the reading half, for the bench command line: never a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The readings show Off.
    pub off: bool,
    /// The first Off of the final unbroken row.
    pub first_off: Option<Elapsed>,
    /// The last Off.
    pub last_off: Option<Elapsed>,
    /// Why not, if not.
    pub why_not: Option<NotProven>,
}

/// The proof that a host is off. Only [`prove`] makes it; not `Clone`, not `Deserialize`; valid for 30 s.
#[derive(Debug)]
pub struct ProvenOff<R: Rules = Enforced> {
    host: HostId,
    incident: IncidentId,
    at: Elapsed,
    witness: Witness,
    rules: R,
}

impl<R: Rules> ProvenOff<R> {
    /// The host that is off.
    #[must_use]
    pub fn host(&self) -> HostId {
        self.host
    }

    /// The incident in which it was proven.
    #[must_use]
    pub fn incident(&self) -> IncidentId {
        self.incident
    }

    /// When.
    #[must_use]
    pub fn at(&self) -> Elapsed {
        self.at
    }

    /// By whom.
    #[must_use]
    pub fn witness(&self) -> Witness {
        self.witness
    }

    /// The rules under which it was made.
    #[must_use]
    pub fn rules(&self) -> R {
        self.rules
    }

    /// Whether it still holds.
    #[must_use]
    pub fn valid(&self, limits: &Limits, now: Now) -> bool {
        now.elapsed.since(self.at) <= limits.proof_age_ms
    }
}

/// Who is to be proven off.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    /// The host.
    pub host: HostId,
    /// The incident.
    pub incident: IncidentId,
    /// The identity that every reading must show.
    pub machine: MachineId,
    /// It is *linked*.
    pub linked: bool,
}

/// The reading half: do these readings show Off of this machine, twice, far enough apart, after our command?
/// What the bench command prints; it knows no witnesses and yields no proof.
#[must_use]
pub fn judge(machine: Option<MachineId>, cause: Cause, readings: &[Reading], limits: &Limits) -> Verdict {
    judge_under(Enforced, machine, cause, readings, limits)
}

fn judge_under<R: Rules>(
    rules: R,
    machine: Option<MachineId>,
    cause: Cause,
    readings: &[Reading],
    limits: &Limits,
) -> Verdict {
    let (source, not_before, gap) = match cause {
        Cause::Commanded { at } => (ReadingSource::Bmc, at, limits.off_gap_ms),
        Cause::FoundOff { lease } => (ReadingSource::Bmc, lease, limits.found_off_gap_ms),
        Cause::Outlets => (ReadingSource::Outlets, Elapsed::default(), 0),
        Cause::Human { at } => {
            return Verdict { off: true, first_off: Some(at), last_off: Some(at), why_not: None };
        }
    };
    let no = |why| Verdict { off: false, first_off: None, last_off: None, why_not: Some(why) };
    if rules.enforces(Rule(29))
        && let Some(machine) = machine
        && readings
            .iter()
            .any(|r| r.source == ReadingSource::Bmc && r.identity.is_some_and(|i| !i.same_machine(machine)))
    {
        return no(NotProven::WrongMachine);
    }
    let own: Vec<&Reading> = readings.iter().filter(|r| r.source == source && r.at >= not_before).collect();
    let Some(last) = own.last() else {
        return no(NotProven::TooFewReadings);
    };
    if last.power != Power::Off {
        return no(NotProven::NotOff);
    }
    // The final unbroken row of Off readings, each of which named the machine.
    let row: Vec<&&Reading> = own.iter().rev().take_while(|r| r.power == Power::Off).collect();
    let Some(first) = row.last() else {
        return no(NotProven::NotOff);
    };
    let named = source == ReadingSource::Outlets || machine.is_none() || row.iter().all(|r| r.identity.is_some());
    if rules.enforces(Rule(29)) && !named {
        // A machine that is not named is none that is known to be another: it is read again.
        return no(NotProven::TooFewReadings);
    }
    let enough = row.len() >= 2 && last.at.since(first.at) >= gap;
    if source == ReadingSource::Bmc && !enough {
        return no(NotProven::TooFewReadings);
    }
    let second = |r: &Reading| r.source == ReadingSource::SecondProtocol && r.power == Power::On;
    if readings.iter().any(|r| r.at >= first.at && (r.contradicted || second(r))) {
        return no(NotProven::SecondProtocol);
    }
    Verdict { off: true, first_off: Some(first.at), last_off: Some(last.at), why_not: None }
}

/// Makes the proof, or says why there is none (safety terms *proven off*, rules 23, 27, 29, 31).
///
/// # Errors
/// The first reason why this is no proof.
#[allow(clippy::too_many_arguments)] // Each is a different kind of knowledge; bundling them would only hide one.
pub fn prove<R: Rules>(
    rules: R,
    expected: Expected,
    cause: Cause,
    readings: &[Reading],
    witnesses: Witnesses<'_>,
    sight: &OwnSight,
    limits: &Limits,
    now: Now,
) -> Result<ProvenOff<R>, NotProven> {
    let bmc = matches!(cause, Cause::Commanded { .. } | Cause::FoundOff { .. });
    if bmc && rules.enforces(Rule(29)) && !expected.linked {
        return Err(NotProven::NotLinked);
    }
    if !rules.enforces(Rule(23)) || !rules.enforces(Rule(27)) {
        // The switches of the simulator: an off that was ordered is believed, or one that cannot be proven.
        return Ok(ProvenOff {
            host: expected.host,
            incident: expected.incident,
            at: now.elapsed,
            witness: Witness::Bmc,
            rules,
        });
    }
    let verdict = judge_under(rules, Some(expected.machine), cause, readings, limits);
    if let Some(why) = verdict.why_not {
        return Err(why);
    }
    let (Some(first_off), Some(last_off)) = (verdict.first_off, verdict.last_off) else {
        return Err(NotProven::TooFewReadings);
    };
    if bmc && now.elapsed.since(last_off) > limits.proof_age_ms {
        return Err(NotProven::Stale);
    }
    let commanded = matches!(cause, Cause::Commanded { .. });
    if commanded && rules.enforces(Rule(29)) && now.elapsed.since(first_off) < limits.proof_not_before_ms {
        return Err(NotProven::TooEarly);
    }
    // The rest of a packet's way: an answer that left before the power fell may arrive just after the first Off.
    let evidence = witnesses.evidence;
    {
        if evidence.last_answer().is_some_and(|at| at > first_off) {
            return Err(NotProven::Answered);
        }
        if evidence.last_renewal().is_some_and(|at| at > first_off) {
            return Err(NotProven::Renewed);
        }
        let speaking = matches!(evidence.assessment.network, NetworkState::Alive | NetworkState::KernelOnly);
        if speaking && evidence.slot(Source::Icmp).latest().is_some_and(|run| run.last > first_off) {
            return Err(NotProven::Answered);
        }
    }
    if let Cause::Human { at } = cause {
        // A person's word has no reading behind it: whoever spoke right before it was given was not off then.
        let since = |span: u64| Elapsed(at.0.saturating_sub(span));
        if evidence.last_answer().is_some_and(|seen| seen > since(limits.silent_ms)) {
            return Err(NotProven::Answered);
        }
        if evidence.last_renewal().is_some_and(|seen| seen > since(limits.lease_late_ms)) {
            return Err(NotProven::Renewed);
        }
    }
    if rules.enforces(Rule(4)) && sight.check(limits, witnesses.domains, now).is_err() {
        return Err(NotProven::Blind);
    }
    let witness = match cause {
        Cause::Commanded { .. } | Cause::FoundOff { .. } => Witness::Bmc,
        Cause::Outlets => Witness::Outlets,
        Cause::Human { .. } => Witness::Human,
    };
    Ok(ProvenOff { host: expected.host, incident: expected.incident, at: now.elapsed, witness, rules })
}
