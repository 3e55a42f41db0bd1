//! The proof of off: every reason why readings are no proof, one by one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use healing::evidence::{Evidence, fold};
use healing::fence::{Cause, Expected, NotProven, Reading, ReadingSource, Witness, Witnesses, judge, prove};
use healing::id::{HostId, IncidentId, MachineId};
use healing::policy::Limits;
use healing::rules::Enforced;
use healing::sight::{OwnSight, Reference};
use healing::signal::{OffCause, Power, Seen, Signal, Source};
use healing::time::{Elapsed, Now};

const MACHINE: MachineId = MachineId(0x1234_5678_9abc_def0_1122_3344_5566_7788);

fn reading(at: u64, power: Power) -> Reading {
    Reading {
        contradicted: false,
        at: Elapsed(at),
        source: ReadingSource::Bmc,
        identity: Some(MACHINE),
        power,
        off_cause: OffCause::Command,
    }
}

fn sight(at: u64) -> OwnSight {
    OwnSight {
        at: Elapsed(at),
        link: true,
        gateway: true,
        references: vec![Reference { domain: None, answers: true }],
        ..OwnSight::default()
    }
}

/// Off was ordered at 100 s; read On, then Off at 103, 106 and 108.5 s; now it is 109 s.
struct Case {
    readings: Vec<Reading>,
    evidence: Evidence,
    sight: OwnSight,
    linked: bool,
    cause: Cause,
    now: u64,
}

impl Case {
    fn good() -> Case {
        Case {
            readings: vec![
                reading(101_000, Power::On),
                reading(103_000, Power::Off),
                reading(106_000, Power::Off),
                reading(108_500, Power::Off),
            ],
            evidence: Evidence::default(),
            sight: sight(109_000),
            linked: true,
            cause: Cause::Commanded { at: Elapsed(100_000) },
            now: 109_000,
        }
    }

    fn judge(&self) -> Result<Witness, NotProven> {
        let expected = Expected { host: HostId(1), incident: IncidentId(1), machine: MACHINE, linked: self.linked };
        let witnesses = Witnesses { evidence: &self.evidence, domains: &[] };
        let now = Now { elapsed: Elapsed(self.now), wall_ms: 0 };
        let limits = Limits::default();
        prove(Enforced, expected, self.cause, &self.readings, witnesses, &self.sight, &limits, now).map(|p| p.witness())
    }

    fn saw(mut self, source: Source, seen: Seen, at: u64) -> Case {
        let now = Now { elapsed: Elapsed(at), wall_ms: 0 };
        fold(&mut self.evidence, &Signal::sample(source, seen, Elapsed(at)), &Limits::default(), now);
        self
    }
}

#[test]
fn an_off_whose_chassis_reads_on_proves_nothing() {
    let mut case = Case::good();
    case.readings[2].contradicted = true;
    assert_eq!(case.judge(), Err(NotProven::SecondProtocol));
}

#[test]
fn off_read_twice_of_the_linked_machine_with_everybody_silent_is_a_proof() {
    assert_eq!(Case::good().judge(), Ok(Witness::Bmc));
}

#[test]
fn one_off_is_none_and_two_must_be_two_seconds_apart() {
    let one = Case { readings: vec![reading(103_000, Power::Off)], ..Case::good() };
    assert_eq!(one.judge(), Err(NotProven::TooFewReadings));
    let close = Case { readings: vec![reading(103_000, Power::Off), reading(104_900, Power::Off)], ..Case::good() };
    assert_eq!(close.judge(), Err(NotProven::TooFewReadings));
}

#[test]
fn an_on_in_between_begins_the_row_anew() {
    let readings = vec![reading(103_000, Power::Off), reading(105_000, Power::On), reading(108_000, Power::Off)];
    assert_eq!(Case { readings, ..Case::good() }.judge(), Err(NotProven::TooFewReadings));
    for last in [Power::On, Power::Transitioning, Power::Unknown] {
        let readings = vec![reading(103_000, Power::Off), reading(106_000, Power::Off), reading(108_000, last)];
        assert_eq!(Case { readings, ..Case::good() }.judge(), Err(NotProven::NotOff));
    }
}

#[test]
fn readings_from_before_our_command_say_nothing() {
    let readings = vec![reading(90_000, Power::Off), reading(95_000, Power::Off)];
    assert_eq!(Case { readings, ..Case::good() }.judge(), Err(NotProven::TooFewReadings));
}

#[test]
fn another_machine_or_none_named_is_no_proof() {
    let mut wrong = Case::good();
    wrong.readings[2].identity = Some(MachineId(7));
    assert_eq!(wrong.judge(), Err(NotProven::WrongMachine));
    let mut unnamed = Case::good();
    unnamed.readings[3].identity = None;
    assert_eq!(unnamed.judge(), Err(NotProven::TooFewReadings), "no name is no other machine's name");
    assert_eq!(Case { linked: false, ..Case::good() }.judge(), Err(NotProven::NotLinked));
}

#[test]
fn proof_comes_no_earlier_than_five_seconds_after_the_first_off() {
    let early =
        Case { now: 107_900, sight: sight(107_900), readings: Case::good().readings[..3].to_vec(), ..Case::good() };
    assert_eq!(early.judge(), Err(NotProven::TooEarly));
}

#[test]
fn whoever_speaks_after_the_first_off_is_not_off() {
    let answered = Case::good().saw(Source::Icmp, Seen::Answer, 104_000);
    assert_eq!(answered.judge(), Err(NotProven::Answered));
    let refused = Case::good().saw(Source::KubeletPort, Seen::Refused, 104_000);
    assert_eq!(refused.judge(), Err(NotProven::Answered));
    let renewed = Case::good().saw(Source::Lease, Seen::Renewed, 104_000);
    assert_eq!(renewed.judge(), Err(NotProven::Renewed));
    // An answer from before the power fell is no contradiction.
    assert!(Case::good().saw(Source::Icmp, Seen::Answer, 102_000).judge().is_ok());
}

#[test]
fn a_second_protocol_that_says_on_contradicts_and_never_proves() {
    let mut contradicted = Case::good();
    contradicted.readings.push(Reading { source: ReadingSource::SecondProtocol, ..reading(108_600, Power::On) });
    assert_eq!(contradicted.judge(), Err(NotProven::SecondProtocol));
    let mut alone = Case::good();
    for reading in &mut alone.readings {
        reading.source = ReadingSource::SecondProtocol;
    }
    assert_eq!(alone.judge(), Err(NotProven::TooFewReadings));
}

#[test]
fn the_blind_prove_nothing_and_old_readings_neither() {
    let blind = Case { sight: OwnSight { gateway: false, ..sight(109_000) }, ..Case::good() };
    assert_eq!(blind.judge(), Err(NotProven::Blind));
    assert_eq!(Case { now: 139_000, sight: sight(139_000), ..Case::good() }.judge(), Err(NotProven::Stale));
}

#[test]
fn a_host_found_off_is_read_ten_seconds_apart() {
    let found = Cause::FoundOff { lease: Elapsed(100_000) };
    let close = Case { cause: found, ..Case::good() };
    assert_eq!(close.judge(), Err(NotProven::TooFewReadings));
    let readings = vec![reading(98_000, Power::Off), reading(100_500, Power::Off), reading(110_600, Power::Off)];
    let apart = Case { cause: found, readings, now: 111_000, sight: sight(111_000), ..Case::good() };
    assert_eq!(apart.judge(), Ok(Witness::Bmc));
}

#[test]
fn outlets_and_a_human_are_proofs_of_their_own_but_not_against_signs_of_life() {
    let outlets = vec![Reading { source: ReadingSource::Outlets, identity: None, ..reading(104_000, Power::Off) }];
    let case = Case { cause: Cause::Outlets, readings: outlets, ..Case::good() };
    assert_eq!(case.judge(), Ok(Witness::Outlets));
    let human = Case { cause: Cause::Human { at: Elapsed(105_000) }, readings: Vec::new(), ..Case::good() };
    assert_eq!(human.judge(), Ok(Witness::Human));
    let alive = Case { cause: Cause::Human { at: Elapsed(105_000) }, readings: Vec::new(), ..Case::good() };
    assert_eq!(alive.saw(Source::Icmp, Seen::Answer, 107_000).judge(), Err(NotProven::Answered));
}

#[test]
fn a_persons_word_does_not_stand_against_who_spoke_right_before_it() {
    let said = Case { cause: Cause::Human { at: Elapsed(105_000) }, readings: Vec::new(), ..Case::good() };
    assert_eq!(said.saw(Source::Icmp, Seen::Answer, 104_500).judge(), Err(NotProven::Answered));
    let said = Case { cause: Cause::Human { at: Elapsed(105_000) }, readings: Vec::new(), ..Case::good() };
    assert_eq!(said.saw(Source::Lease, Seen::Renewed, 95_000).judge(), Err(NotProven::Renewed));
    let said = Case { cause: Cause::Human { at: Elapsed(105_000) }, readings: Vec::new(), ..Case::good() };
    assert_eq!(said.saw(Source::Icmp, Seen::Answer, 90_000).judge(), Ok(Witness::Human), "the plug was pulled since");
}

#[test]
fn the_bench_command_gets_a_verdict_and_never_a_proof() {
    let limits = Limits::default();
    let cause = Cause::Commanded { at: Elapsed(100_000) };
    let verdict = judge(Some(MACHINE), cause, &Case::good().readings, &limits);
    assert!(verdict.off && verdict.first_off == Some(Elapsed(103_000)));
    assert!(!judge(Some(MACHINE), cause, &[reading(101_000, Power::On)], &limits).off);
}
