//! Crash points: every moment of every ladder at which the appliance can be killed, one run each. All must reach the same
//! end, and nothing that is not idempotent may happen twice (rule 44). Then pairs of faults.

use crate::checks;
use crate::fault::Fault;
use crate::simulation::{Crash, Point, Simulation};
use crate::site::{BEGINNING, Site};
use crate::watch::{Breach, Called, Checker, GroundTruth};
use healing::command::{BmcCall, Call, ClusterCall};
use healing::id::{HostId, IncidentId};
use healing::rules::Enforced;
use healing::signal::{Component, ComponentCause, HardwareFault, OffCause, Power};
use healing::time::{DAY, HOUR, MINUTE, Millis, SECOND};
use healing::world::host::{Role, SpareProof};
use healing::world::incident::{End, Rung};
use healing::world::scope::Consent;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// When the fault comes.
const FAULT_AT: Millis = 10 * MINUTE;
/// The host that falls ill.
const ILL: HostId = HostId(6);
/// The spare.
const SPARE: HostId = HostId(10);

/// A ladder to be crashed.
#[derive(Debug, Clone, Copy)]
pub struct Ladder {
    /// Its name.
    pub name: &'static str,
    /// How long it plays.
    pub hours: u64,
    /// Interrupted it is not begun again: it may end otherwise, with the host on and no mark of ours on it.
    once: bool,
    set: fn(&mut Site),
    play: fn(&mut Simulation<Enforced>),
}

/// The single-host ladders.
pub const LADDERS: &[Ladder] = &[
    Ladder {
        name: "component restart",
        hours: 1,
        once: false,
        set: |_| {},
        play: |s| s.at_fault(FAULT_AT, Fault::Component(Component::Kubelet, ComponentCause::Dead), Some(ILL)),
    },
    Ladder {
        name: "soft reboot",
        hours: 2,
        once: false,
        set: |site| site.pools.iter_mut().for_each(|p| p.soft_reboot = Consent::Automatic),
        play: |s| s.at_fault(FAULT_AT, Fault::Component(Component::Kubelet, ComponentCause::Unknown), Some(ILL)),
    },
    Ladder {
        name: "power cycle",
        hours: 2,
        once: false,
        set: |_| {},
        play: |s| s.at_fault(FAULT_AT, Fault::KernelStuck, Some(ILL)),
    },
    Ladder {
        name: "power cycle of a host found off",
        hours: 2,
        once: false,
        set: |_| {},
        play: |s| {
            s.at_fault(FAULT_AT, Fault::PowerLost { cause: OffCause::AcLoss, returns_ms: Some(5 * MINUTE) }, Some(ILL))
        },
    },
    Ladder {
        name: "reimage",
        hours: 3,
        once: false,
        set: |_| {},
        play: |s| s.at_fault(FAULT_AT, Fault::NoLocalBoot, Some(ILL)),
    },
    Ladder {
        name: "power cycles, then reimage",
        hours: 4,
        once: false,
        set: |_| {},
        play: |s| s.at_fault(FAULT_AT, Fault::OsBroken, Some(ILL)),
    },
    Ladder {
        name: "replacement by a spare",
        hours: 3,
        once: false,
        set: |_| {},
        play: |s| s.at_fault(FAULT_AT, Fault::Hardware(HardwareFault::Memory), Some(ILL)),
    },
    Ladder {
        name: "the proof of a spare",
        hours: 1,
        once: false,
        set: |site| {
            for spare in site.hosts.values_mut().filter(|h| h.role == Role::Spare) {
                let at = BEGINNING.minus(3 * DAY).plus(FAULT_AT);
                spare.spare_proof = Some(SpareProof { at, passed: true, at_wall_ms: 0 });
            }
        },
        play: |_| {},
    },
    Ladder {
        name: "a drill",
        hours: 1,
        once: true,
        set: |_| {},
        play: |s| {
            s.at_fault(FAULT_AT, Fault::HumanCordon { lasts_ms: HOUR }, Some(ILL));
            let machine = crate::site::identity(7, ILL);
            s.at_order(FAULT_AT + MINUTE, healing::event::Operator::Drill { host: ILL, machine });
        },
    },
    Ladder {
        name: "a dead BMC, confirmed off by a person",
        hours: 3,
        once: false,
        set: |_| {},
        play: |s| {
            s.at_fault(FAULT_AT, Fault::BmcStuck, Some(ILL));
            s.at_fault(FAULT_AT, Fault::KernelStuck, Some(ILL));
            let machine = crate::site::identity(7, ILL);
            s.at_act(FAULT_AT + 5 * MINUTE, crate::operator::Act::PullPlug(ILL));
            // The order is repeated, as a person would who sees that it was not taken.
            for minute in [6, 8, 10] {
                let order = healing::event::Operator::ConfirmOff { incident: IncidentId(1), machine };
                s.at_order(FAULT_AT + minute * MINUTE, order);
            }
            s.at_act(FAULT_AT + 14 * MINUTE, crate::operator::Act::Repair(ILL));
        },
    },
];

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The end of the last incident on the ill host.
    pub end: Option<End>,
    /// Its power in truth.
    pub power: Power,
    /// A taint or cordon of ours is left on it.
    pub marked: bool,
    /// The end of the last incident on the spare, and its power in truth.
    pub spare: (Option<End>, Power),
    /// Acts that may not happen twice, by name.
    pub acts: BTreeMap<&'static str, u32>,
    /// The rungs on which something was done.
    pub rungs: Vec<Rung>,
}

#[derive(Debug, Clone, Default)]
struct Acts(Rc<RefCell<BTreeMap<&'static str, u32>>>);

impl Checker for Acts {
    fn called(&mut self, called: &Called<'_>, _truth: &dyn GroundTruth) -> Vec<Breach> {
        let name = match called.call {
            Call::Bmc(_, BmcCall::GracefulRestart) => "orderly reboot",
            // Cutting a machine that runs: a repeated force-off of one that is off has no effect.
            Call::Bmc(_, BmcCall::ForceOff) if called.was_power == Power::On => "power cut",
            Call::OutletsOff => "outlets off",
            Call::Cluster(ClusterCall::RemoveEtcdMember(_)) => "etcd member removed",
            _ => return Vec::new(),
        };
        *self.0.borrow_mut().entry(name).or_insert(0) += 1;
        Vec::new()
    }
}

/// One run, perhaps killed at a point.
#[derive(Debug)]
pub struct Played {
    /// What it came to.
    pub outcome: Outcome,
    /// What broke.
    pub breaches: Vec<Breach>,
    /// The points passed between the fault and the end, if they were recorded.
    pub points: Vec<(u64, Point, String)>,
}

/// Plays a ladder.
#[must_use]
pub fn play(ladder: &Ladder, crash: Option<Crash>) -> Played {
    play_kept(ladder, crash, false).0
}

/// Plays a ladder and tells it.
#[must_use]
pub fn play_with_transcript(ladder: &Ladder, crash: Option<Crash>) -> (Played, String) {
    play_kept(ladder, crash, true)
}

fn play_kept(ladder: &Ladder, crash: Option<Crash>, tell: bool) -> (Played, String) {
    let mut site = Site::plain(3, 6, 1, 7);
    (ladder.set)(&mut site);
    let acts = Acts::default();
    let mut simulation = Simulation::new(Enforced, &site).watched_by(Box::new(acts.clone()));
    for checker in checks::all() {
        simulation = simulation.watched_by(checker);
    }
    simulation = match crash {
        Some(crash) => simulation.with_crash(crash),
        None => simulation.with_points(),
    };
    if tell {
        simulation = simulation.with_transcript();
    }
    (ladder.play)(&mut simulation);
    simulation.run_until(ladder.hours * HOUR);
    let stats = simulation.finish().clone();
    let of_host: Vec<_> = stats.incidents.iter().filter(|i| i.host == ILL).collect();
    let of_spare = stats.incidents.iter().rev().find(|i| i.host == SPARE);
    let node = simulation.reality.node(ILL);
    let mut counted = acts.0.borrow().clone();
    counted.insert("disk written", simulation.reality.disk_writes(ILL));
    counted.insert("disk of the spare written", simulation.reality.disk_writes(SPARE));
    let mut rungs: Vec<Rung> = of_host.iter().flat_map(|i| i.rungs.iter().copied()).collect();
    rungs.sort_unstable();
    rungs.dedup();
    let outcome = Outcome {
        end: of_host.iter().rev().find(|i| i.end != Some(End::Aborted)).and_then(|i| i.end),
        power: simulation.reality.power(ILL),
        marked: node.is_some_and(|n| n.taint.is_some() || n.our_cordon),
        spare: (of_spare.and_then(|i| i.end), simulation.reality.power(SPARE)),
        acts: counted,
        rungs,
    };
    let until = of_host.iter().chain(&of_spare).map(|i| i.ended_at).max().unwrap_or(0);
    let points = simulation
        .passed()
        .iter()
        .filter(|p| p.at >= FAULT_AT && p.at <= until)
        .map(|p| (p.number, p.point, p.during.clone()))
        .collect();
    let text = simulation.transcript().map(crate::transcript::Transcript::text).unwrap_or_default();
    (Played { outcome, breaches: simulation.breaches().to_vec(), points }, text)
}

/// What was wrong with one crash.
#[derive(Debug, Clone)]
pub struct Wrong {
    /// The ladder.
    pub ladder: &'static str,
    /// The point.
    pub point: u64,
    /// Its kind and what was being done.
    pub during: String,
    /// What was wrong.
    pub what: String,
}

/// Crashes a ladder at every one of its points. Gives how many there were, and what went wrong.
#[must_use]
pub fn crash_everywhere(ladder: &Ladder, down_ms: Millis) -> (usize, Vec<Wrong>) {
    let reference = play(ladder, None);
    let mut wrong = Vec::new();
    let mut say = |point, during: &str, what: String| {
        wrong.push(Wrong { ladder: ladder.name, point, during: during.to_owned(), what });
    };
    for breach in &reference.breaches {
        say(0, "without a crash", format!("{breach:?}"));
    }
    for (point, kind, during) in &reference.points {
        let crashed = play(ladder, Some(Crash { point: *point, down_ms }));
        let during = format!("{kind:?}: {during}");
        for breach in &crashed.breaches {
            say(*point, &during, format!("{breach:?}"));
        }
        let (want, got) = (&reference.outcome, &crashed.outcome);
        let as_it_may = ladder.once && (want.power, want.marked) == (got.power, got.marked);
        if !as_it_may && (want.end, want.power, want.marked, want.spare) != (got.end, got.power, got.marked, got.spare)
        {
            say(*point, &during, format!("ended as {got:?}, not as {want:?}"));
        }
        for (act, count) in &got.acts {
            let allowed = want.acts.get(act).copied().unwrap_or(0);
            if *count > allowed {
                say(*point, &during, format!("{act}: {count} times, {allowed} without the crash"));
            }
        }
    }
    (reference.points.len(), wrong)
}

/// Faults of which every pair is played.
pub const PAIRED: &[Fault] = &[
    Fault::KernelStuck,
    Fault::UserspaceDead,
    Fault::PlainReboot,
    Fault::NoLocalBoot,
    Fault::NicHung,
    Fault::Component(Component::Kubelet, ComponentCause::Dead),
    Fault::BmcStuck,
    Fault::BmcSlow { delay_ms: 2 * SECOND },
    Fault::BmcSessionsFull { lasts_ms: 5 * MINUTE },
    Fault::BmcResetting { lasts_ms: 3 * MINUTE },
    Fault::BmcIgnoresPower,
    Fault::ForeignOff,
    Fault::FirmwareTask { lasts_ms: 10 * MINUTE },
    Fault::PodsStay { lasts_ms: 5 * MINUTE },
    Fault::DeletionRefused { lasts_ms: 5 * MINUTE },
    Fault::PodsDoNotStart { lasts_ms: 15 * MINUTE },
    Fault::AttachmentsStay { lasts_ms: 5 * MINUTE },
    Fault::AppliancePartition { lasts_ms: 3 * MINUTE },
    Fault::Killed { down_ms: 20 * SECOND },
    Fault::Stopped { lasts_ms: 30 * SECOND },
    Fault::StoreFails { lasts_ms: 3 * MINUTE },
    Fault::ClockStepped { by_ms: 3_600_000 },
];

/// Plays a pair: the first fault, and the second so much later. Gives what broke.
#[must_use]
pub fn pair(first: Fault, second: Fault, apart_ms: Millis) -> Vec<Breach> {
    let site = Site::plain(3, 6, 1, 7);
    let mut simulation = Simulation::new(Enforced, &site).with_person(crate::operator::Person::new(7));
    for checker in checks::all() {
        simulation = simulation.watched_by(checker);
    }
    simulation.at_fault(FAULT_AT, first, Some(ILL));
    simulation.at_fault(FAULT_AT + apart_ms, second, Some(ILL));
    simulation.run_until(3 * HOUR);
    let harmed = simulation.finish().healthy_power_cycled;
    let mut breaches = simulation.breaches().to_vec();
    if harmed > 0 {
        breaches.push(Breach {
            rule: healing::rules::Rule(1),
            at: 0,
            host: Some(ILL),
            what: format!("{harmed} healthy hosts power-cycled"),
        });
    }
    breaches
}
