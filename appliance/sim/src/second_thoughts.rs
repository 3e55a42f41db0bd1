//! Stories of what must not outlive its moment: an order that comes between a decision and its command, a person's word
//! about one off that is not one about the next, a release that the API refuses for good.

use crate::fault::Fault;
use crate::operator::Act;
use crate::scenes::{BEGIN, ONE, PLAIN, Scene};
use crate::site::{Site, identity};
use healing::event::{Operator, Scope};
use healing::id::{HostId, IncidentId, MachineId};
use healing::signal::{HardwareFault, OffCause};
use healing::time::{HOUR, MINUTE};
use healing::world::host::BootOrder;
use healing::world::scope::Consent;

/// The seed of every scene's site.
const SEED: u64 = 7;
/// The host that they are about.
pub const ILL: HostId = HostId(6);
/// When its boot ticket is open, and its one-shot boot is set, if its system was broken.
const ARMED: u64 = BEGIN + 186_800;
/// When the off of a host is decided that hangs at the beginning and answers nobody.
const DECIDED: u64 = BEGIN + 23_118;

fn confirm() -> Operator {
    let machine: MachineId = identity(SEED, ILL);
    Operator::ConfirmOff { incident: IncidentId(1), machine }
}

/// No boot of it was watched yet, and everything may be done to it.
fn network_first(site: &mut Site) {
    site.network_first.push(ILL);
    if let Some(host) = site.hosts.get_mut(&ILL) {
        host.history.boot_order = BootOrder::Unknown;
    }
    site.pools.iter_mut().for_each(|pool| pool.reimage = Consent::Automatic);
}

/// The stories.
pub const SECOND_THOUGHTS: &[Scene] = &[
    Scene {
        name: "an API that refuses the deletion of pods for good",
        rule: 25,
        play: |s| {
            s.fault(BEGIN, Fault::DeletionRefused { lasts_ms: HOUR }, Some(6));
            s.fault(BEGIN, Fault::KernelStuck, Some(6));
        },
        ..PLAIN
    },
    Scene {
        name: "an API that refuses the deletion of the pods of a host with a broken disk",
        rule: 36,
        set: |site| site.pools.iter_mut().for_each(|p| p.reimage = Consent::Automatic),
        play: |s| {
            s.fault(BEGIN, Fault::DeletionRefused { lasts_ms: HOUR }, Some(6));
            s.fault(BEGIN, Fault::OsBroken, Some(6));
        },
        ..PLAIN
    },
    Scene {
        name: "disarmed between the decision and the off",
        rule: 52,
        play: |s| {
            s.fault(BEGIN, Fault::KernelStuck, Some(6));
            s.order(DECIDED, Operator::Arm { cluster: ONE, armed: false });
        },
        ..PLAIN
    },
    Scene {
        name: "only observed from between the decision and the off",
        rule: 52,
        play: |s| {
            s.fault(BEGIN, Fault::KernelStuck, Some(6));
            s.order(DECIDED, Operator::ObserveOnly(true));
        },
        ..PLAIN
    },
    Scene {
        name: "paused between the decision and the off",
        rule: 49,
        play: |s| {
            s.fault(BEGIN, Fault::KernelStuck, Some(6));
            s.order(DECIDED, Operator::Pause { scope: Scope::Host(ILL), paused: true });
        },
        ..PLAIN
    },
    Scene {
        name: "a person confirmed an off, and it hangs again with its BMC dead",
        rule: 27,
        hours: 3,
        play: |s| {
            s.fault(BEGIN, Fault::BmcStuck, Some(6));
            s.fault(BEGIN, Fault::KernelStuck, Some(6));
            s.act(BEGIN + 4 * MINUTE, Act::PullPlug(ILL));
            s.order(BEGIN + 5 * MINUTE, confirm());
            s.act(BEGIN + 20 * MINUTE, Act::Repair(ILL));
            s.fault(BEGIN + 80 * MINUTE, Fault::BmcStuck, Some(6));
            s.fault(BEGIN + 80 * MINUTE, Fault::KernelStuck, Some(6));
        },
        ..PLAIN
    },
    Scene {
        name: "back and Ready, but for a while no pod starts on it",
        rule: 42,
        play: |s| {
            s.fault(BEGIN, Fault::PodsDoNotStart { lasts_ms: 20 * MINUTE }, Some(6));
            s.fault(BEGIN, Fault::KernelStuck, Some(6));
        },
        ..PLAIN
    },
    Scene {
        name: "back and Ready, but no pod ever starts on it again",
        rule: 42,
        hours: 3,
        play: |s| {
            s.fault(BEGIN, Fault::PodsDoNotStart { lasts_ms: 3 * HOUR }, Some(6));
            s.fault(BEGIN, Fault::KernelStuck, Some(6));
        },
        ..PLAIN
    },
    Scene {
        name: "paused while its boot ticket is open",
        rule: 35,
        hours: 3,
        play: |s| {
            s.fault(BEGIN, Fault::NoLocalBoot, Some(6));
            s.order(ARMED, Operator::Pause { scope: Scope::Host(ILL), paused: true });
            s.order(ARMED + HOUR, Operator::Pause { scope: Scope::Host(ILL), paused: false });
        },
        ..PLAIN
    },
    Scene {
        name: "a boot order that does not hold leaves no ticket open",
        rule: 35,
        play: |s| {
            s.fault(BEGIN, Fault::BmcIgnoresBoot, Some(6));
            s.fault(BEGIN, Fault::OsBroken, Some(6));
        },
        ..PLAIN
    },
    Scene {
        name: "a host that asks the network before its disk reboots",
        rule: 33,
        set: network_first,
        play: |s| s.fault(BEGIN, Fault::PlainReboot, Some(6)),
        ..PLAIN
    },
    Scene {
        name: "a host that asks the network before its disk hangs",
        rule: 36,
        set: network_first,
        play: |s| s.fault(BEGIN, Fault::KernelStuck, Some(6)),
        ..PLAIN
    },
    Scene {
        name: "a host that asks the network before its disk has lost its system",
        rule: 36,
        set: network_first,
        play: |s| s.fault(BEGIN, Fault::NoLocalBoot, Some(6)),
        ..PLAIN
    },
    Scene {
        name: "denied while switching on waits for approval",
        rule: 31,
        play: |s| {
            s.fault(BEGIN, Fault::PodsStay { lasts_ms: HOUR }, Some(6));
            s.fault(BEGIN, Fault::PowerLost { cause: OffCause::Button, returns_ms: None }, Some(6));
            s.order(BEGIN + 25 * MINUTE, Operator::Deny { incident: IncidentId(1) });
        },
        ..PLAIN
    },
    Scene {
        name: "denied while a replacement waits for approval",
        rule: 51,
        hours: 3,
        spares: 2,
        set: |site| site.pools.iter_mut().for_each(|p| p.replace = Consent::Ask),
        play: |s| {
            s.fault(BEGIN, Fault::Hardware(HardwareFault::Memory), Some(6));
            s.order(BEGIN + 30 * MINUTE, Operator::Deny { incident: IncidentId(1) });
        },
        ..PLAIN
    },
    Scene {
        name: "somebody pressed the button and the pods stay",
        rule: 31,
        play: |s| {
            s.fault(BEGIN, Fault::PodsStay { lasts_ms: HOUR }, Some(6));
            s.fault(BEGIN, Fault::PowerLost { cause: OffCause::Button, returns_ms: None }, Some(6));
        },
        ..PLAIN
    },
];
