//! Stories of spares: proven when they are due or ordered to be, installed in the place of a dead host, and what becomes
//! of both when that fails.

use crate::fault::Fault;
use crate::scenes::{BEGIN, PLAIN, Scene};
use crate::site::{BEGINNING, Site, identity};
use healing::event::Operator;
use healing::id::{HostId, MachineId};
use healing::signal::HardwareFault;
use healing::time::{DAY, HOUR, MINUTE, SECOND};
use healing::world::host::{Link, Role, SpareProof};

/// The seed of every scene's site.
const SEED: u64 = 7;
/// The first spare of a site with three control-plane hosts and nine workers.
const SPARE: u32 = 13;

fn spares(site: &mut Site, change: impl Fn(&mut healing::world::host::Host)) {
    site.hosts.values_mut().filter(|h| h.role == Role::Spare).for_each(change);
}

/// Proven so long ago that the next proof comes right when the scene begins.
fn due_at_begin(site: &mut Site) {
    spares(site, |h| {
        h.spare_proof = Some(SpareProof { at: BEGINNING.minus(3 * DAY).plus(BEGIN), passed: true, at_wall_ms: 0 })
    });
}

fn prove(spare: u32, machine: MachineId) -> Operator {
    Operator::Prove { host: HostId(spare), machine }
}

/// The stories.
pub const SPARES: &[Scene] = &[
    Scene {
        name: "a spare is due to be proven",
        rule: 43,
        spares: 1,
        set: due_at_begin,
        play: |s| s.fault(BEGIN - SECOND, Fault::BenignSilence { lasts_ms: SECOND }, Some(6)),
        ..PLAIN
    },
    Scene {
        name: "a spare that is not linked is proven by order of a person",
        rule: 43,
        spares: 1,
        set: |site| {
            spares(site, |h| {
                h.link = Link::Unbound;
                h.spare_proof = None;
            });
        },
        play: |s| {
            s.order(BEGIN, prove(SPARE, MachineId(0x1234)));
            s.order(BEGIN + MINUTE, prove(SPARE, identity(SEED, HostId(SPARE))));
        },
        ..PLAIN
    },
    Scene {
        name: "a spare whose card is dead is proven",
        rule: 43,
        spares: 1,
        set: due_at_begin,
        play: |s| s.fault(BEGIN - SECOND, Fault::NicDead, Some(SPARE)),
        ..PLAIN
    },
    Scene {
        name: "a spare whose BMC is silent when it is due",
        rule: 43,
        spares: 1,
        set: due_at_begin,
        play: |s| s.fault(BEGIN - MINUTE, Fault::BmcStuck, Some(SPARE)),
        ..PLAIN
    },
    Scene {
        name: "paused while a spare is proven",
        rule: 43,
        spares: 1,
        set: due_at_begin,
        play: |s| {
            let scope = healing::event::Scope::Site;
            s.order(BEGIN + 4 * MINUTE, Operator::Pause { scope, paused: true });
            s.order(BEGIN + 14 * MINUTE, Operator::Pause { scope, paused: false });
        },
        ..PLAIN
    },
    Scene {
        name: "a spare that cannot be installed",
        rule: 43,
        hours: 6,
        spares: 2,
        play: |s| {
            s.fault(BEGIN, Fault::Hardware(HardwareFault::Memory), Some(6));
            s.fault(BEGIN, Fault::NicDead, Some(SPARE));
        },
        ..PLAIN
    },
    Scene {
        name: "paused while a spare takes a place",
        rule: 43,
        hours: 4,
        spares: 2,
        play: |s| {
            let scope = healing::event::Scope::Site;
            s.fault(BEGIN, Fault::Hardware(HardwareFault::Memory), Some(6));
            s.order(BEGIN + 3 * MINUTE, Operator::Pause { scope, paused: true });
            s.order(BEGIN + HOUR, Operator::Pause { scope, paused: false });
        },
        ..PLAIN
    },
];
