//! Doing, as a pure step machine: from a step and what was observed to the next call. The simulator and the production
//! executors drive this same code; they add only I/O.
//!
//! Each step is precheck, act, verify. A step begun again after a crash starts with its precheck and so finds what is
//! already so; nothing but force-off and power-on, which are idempotent, is ever sent twice. Every step ends by itself.
//!
//! Rules enforced here: 23 and 25 (release), 26 (taint removed on every way out), 29 (identity before each power
//! write), 30 (read before write, read back), 31 (found off, foreign changes), 33 (firmware tasks), 34 (one-shot boot
//! read back), 40 and 41 (order of rejoin), 44 (no non-idempotent repetition), 49 (cancel).
//!
//! Executors take only what was made under all rules:
//!
//! ```compile_fail,E0308
//! use healing::perform::StepRun;
//! use healing::rules::{Enforced, Rule, Rules};
//! #[derive(Debug, Clone, Copy)]
//! struct Broken(Rule);
//! impl Rules for Broken {
//!     fn enforces(&self, rule: Rule) -> bool { rule != self.0 }
//! }
//! fn execute(_run: StepRun<Enforced>) {}
//! fn cheat(run: StepRun<Broken>) { execute(run) }
//! ```
//!
//! A proof can be neither copied nor read back from a file:
//!
//! ```compile_fail,E0599
//! fn copy(proof: &healing::fence::ProvenOff) -> healing::fence::ProvenOff { proof.clone() }
//! fn copy_inner(permit: healing::budget::Permit) -> (healing::budget::Permit, healing::budget::Permit) {
//!     (permit.clone(), permit)
//! }
//! ```
//!
//! ```compile_fail,E0277
//! fn read<T: serde::de::DeserializeOwned>() {}
//! read::<healing::budget::Permit>();
//! ```

mod look;
mod off;
mod on;
mod release;
mod sequence;
#[cfg(test)]
mod tests;

use crate::command::{Command, Failure, Intent, NextCall, Observation, StepResult, Target};
use crate::fence::Reading;
use crate::id::{IncidentId, MachineId, StepId};
use crate::rules::{Enforced, Rule, Rules};
use crate::time::{Elapsed, Millis, Now, SECOND};

/// Readings kept per step.
const READINGS_MAX: usize = 32;
/// Between two reads while an effect is awaited.
const POLL_MS: Millis = SECOND;
/// Times that an idempotent power write is sent at most.
const SENDS_MAX: u8 = 3;
/// A power write without visible effect is not sent again before this: effects take up to 6 s.
const RESEND_MS: Millis = 8 * SECOND;

/// Where a run stands.
#[derive(Debug)]
enum State {
    Look(look::Look),
    Off(off::Off),
    On(on::On),
    Release(release::Release),
    Sequence(sequence::Sequence),
}

/// One execution of one step.
#[derive(Debug)]
pub struct StepRun<R: Rules = Enforced> {
    rules: R,
    command: Command<R>,
    began: Elapsed,
    last_write: Option<Elapsed>,
    state: State,
    result: Option<StepResult>,
}

impl<R: Rules> StepRun<R> {
    /// Takes a command, with the warrant in it.
    #[must_use]
    pub fn new(rules: R, command: Command<R>, now: Now) -> StepRun<R> {
        let state = Self::fresh(&command);
        StepRun { rules, command, began: now.elapsed, last_write: None, state, result: None }
    }

    fn fresh(command: &Command<R>) -> State {
        match command.intent() {
            Intent::LastLook { .. } => State::Look(look::Look::default()),
            Intent::ForceOff { found_off } => State::Off(off::Off::new(off::Way::of(found_off))),
            Intent::ProveOff => State::Off(off::Off::new(off::Way::ReadOnly)),
            Intent::PowerOn { .. } => State::On(on::On::default()),
            Intent::Release { .. } => State::Release(release::Release::default()),
            Intent::RestartComponent(_)
            | Intent::Cordon
            | Intent::SoftReboot
            | Intent::OutletsOff
            | Intent::ArmBoot(_)
            | Intent::ArmProof(_)
            | Intent::CloseTicket(_)
            | Intent::RemoveIdentity { .. }
            | Intent::MintCredential(_)
            | Intent::Promote(_)
            | Intent::Canary
            | Intent::Return
            | Intent::Withdraw { .. } => State::Sequence(sequence::Sequence::default()),
        }
    }

    /// The step's number.
    #[must_use]
    pub fn step(&self) -> StepId {
        self.command.step
    }

    /// The incident.
    #[must_use]
    pub fn incident(&self) -> IncidentId {
        self.command.incident
    }

    /// The host and what must be known of it.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.command.target
    }

    /// What is done.
    #[must_use]
    pub fn intent(&self) -> Intent {
        self.command.intent()
    }

    fn enforces(&self, rule: u8) -> bool {
        self.rules.enforces(Rule(rule))
    }

    fn age(&self, now: Now) -> Millis {
        now.elapsed.since(self.began)
    }

    /// Whether a write may leave now, or when (rule 32: writes at least a second apart).
    fn write_at(&self, now: Now) -> Option<Elapsed> {
        let earliest = self.last_write?.plus(self.command.target.action_spacing_ms);
        (now.elapsed < earliest).then_some(earliest)
    }
}

/// Takes an observation to the next call. After `Done` it answers `Done` for ever.
pub fn perform<R: Rules>(run: &mut StepRun<R>, observation: &Observation, now: Now) -> NextCall {
    if let Some(result) = &run.result {
        return NextCall::Done(result.clone());
    }
    if *observation == Observation::Begin {
        run.began = now.elapsed;
        run.state = StepRun::fresh(&run.command);
    }
    let next = match &run.state {
        State::Look(_) => look::next(run, observation, now),
        State::Off(_) => off::next(run, observation, now),
        State::On(_) => on::next(run, observation, now),
        State::Release(_) => release::next(run, observation, now),
        State::Sequence(_) => sequence::next(run, observation, now),
    };
    if let NextCall::Done(result) = &next {
        run.result = Some(result.clone());
    }
    next
}

fn failed(why: Failure, readings: &[Reading], sent: bool) -> NextCall {
    NextCall::Done(StepResult::Failed { why, readings: readings.to_vec(), sent })
}

/// Whether a live identity is that of the machine meant (rule 29). No identity is none.
fn right_machine(seen: Option<MachineId>, machine: MachineId) -> bool {
    seen.is_some_and(|seen| seen.same_machine(machine))
}

/// All outlets of the target read off.
fn outlets_read_off(now: Now) -> Reading {
    Reading {
        contradicted: false,
        at: now.elapsed,
        source: crate::fence::ReadingSource::Outlets,
        identity: None,
        power: crate::signal::Power::Off,
        off_cause: crate::signal::OffCause::Command,
    }
}

fn keep(readings: &mut Vec<Reading>, reading: Reading) {
    if readings.len() >= READINGS_MAX {
        readings.remove(0);
    }
    readings.push(reading);
}
