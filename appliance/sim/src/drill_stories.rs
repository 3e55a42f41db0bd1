//! Stories of drills: ordered by a person on a host that he has cordoned, passed, refused, interrupted, and what it shows of a
//! BMC that cannot be relied on.

use crate::fault::Fault;
use crate::scenes::{BEGIN, ONE, PLAIN, Scene, Stage};
use crate::site::identity;
use healing::event::{Operator, Scope};
use healing::id::{HostId, MachineId};
use healing::time::{HOUR, MINUTE, SECOND};

/// The host.
pub const DRILLED: HostId = HostId(6);
/// The seed of every scene's site.
const SEED: u64 = 7;

fn cordoned(s: &mut dyn Stage) {
    s.fault(BEGIN - MINUTE, Fault::HumanCordon { lasts_ms: 3 * HOUR }, Some(DRILLED.0));
}

fn drill() -> Operator {
    Operator::Drill { host: DRILLED, machine: identity(SEED, DRILLED) }
}

/// The stories.
pub const DRILLS: &[Scene] = &[
    Scene {
        name: "a drill of a cordoned host",
        rule: 50,
        hours: 1,
        play: |s| {
            cordoned(s);
            s.order(BEGIN, drill());
        },
        ..PLAIN
    },
    Scene {
        name: "a drill of a host that nobody cordoned",
        rule: 50,
        hours: 1,
        play: |s| s.order(BEGIN, drill()),
        ..PLAIN
    },
    Scene {
        name: "a drill with the serial of another host",
        rule: 51,
        hours: 1,
        play: |s| {
            cordoned(s);
            s.order(BEGIN, Operator::Drill { host: DRILLED, machine: MachineId(0x1234) });
        },
        ..PLAIN
    },
    Scene {
        name: "a drill of a host whose BMC is silent",
        rule: 27,
        hours: 1,
        play: |s| {
            cordoned(s);
            s.fault(BEGIN - MINUTE, Fault::BmcStuck, Some(DRILLED.0));
            s.order(BEGIN, drill());
        },
        ..PLAIN
    },
    Scene {
        name: "a drill of a host that does not come back",
        rule: 42,
        hours: 2,
        play: |s| {
            cordoned(s);
            s.order(BEGIN, drill());
            s.fault(BEGIN + 8 * SECOND, Fault::NoLocalBoot, Some(DRILLED.0));
        },
        ..PLAIN
    },
    Scene {
        name: "paused while a drilled host is off",
        rule: 49,
        hours: 1,
        play: |s| {
            cordoned(s);
            s.order(BEGIN, drill());
            s.order(BEGIN + 6 * SECOND, Operator::Pause { scope: Scope::Site, paused: true });
            s.order(BEGIN + 20 * MINUTE, Operator::Pause { scope: Scope::Site, paused: false });
        },
        ..PLAIN
    },
    Scene {
        name: "paused right after the off of a drill",
        rule: 49,
        hours: 1,
        play: |s| {
            cordoned(s);
            s.order(BEGIN, drill());
            s.order(BEGIN + 1_000, Operator::Pause { scope: Scope::Site, paused: true });
            s.order(BEGIN + 20 * MINUTE, Operator::Pause { scope: Scope::Site, paused: false });
        },
        ..PLAIN
    },
    Scene {
        name: "the BMC of a drilled host falls silent after its off",
        rule: 55,
        hours: 2,
        play: |s| {
            cordoned(s);
            s.order(BEGIN, drill());
            s.fault(BEGIN + 2 * SECOND, Fault::BmcSessionsFull { lasts_ms: 5 * MINUTE }, Some(DRILLED.0));
            s.order(BEGIN + 2 * MINUTE, Operator::Pause { scope: Scope::Site, paused: true });
            s.order(BEGIN + 20 * MINUTE, Operator::Pause { scope: Scope::Site, paused: false });
        },
        ..PLAIN
    },
    Scene {
        name: "a drill while the API is away",
        rule: 7,
        hours: 1,
        play: |s| {
            cordoned(s);
            s.fault(BEGIN - MINUTE, Fault::ApiDown { cluster: ONE, lasts_ms: 10 * MINUTE }, None);
            s.order(BEGIN, drill());
        },
        ..PLAIN
    },
];
