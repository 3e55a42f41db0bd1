//! Incidents by name: the hardest that operators of other healers have met, and those of our own rules. Told as golden
//! transcripts beside the scenes; `docs/STORIES.md` says which scenario each one is.

use crate::fault::Fault;
use crate::scenes::{BEGIN, ONE, PLAIN, Scene};
use healing::event::Operator;
use healing::id::{DomainId, HostId};
use healing::signal::{Component, ComponentCause, HardwareFault, OffCause};
use healing::time::{HOUR, MINUTE, SECOND};

/// The second rack, with workers 5 to 8, its PDU and its switch.
const RACK: DomainId = DomainId(1_001);
const PDU: DomainId = DomainId(20_001);
const SWITCH: DomainId = DomainId(40_001);

/// All of them.
pub const INCIDENTS: &[Scene] = &[
    Scene {
        name: "01 the path to the API breaks while all hosts are fine",
        rule: 7,
        play: |s| s.fault(BEGIN, Fault::ApiDown { cluster: ONE, lasts_ms: 20 * MINUTE }, None),
        ..PLAIN
    },
    Scene {
        name: "02 a rack is cut off from us and not from the API",
        rule: 5,
        play: |s| s.fault(BEGIN, Fault::RackPartition { rack: RACK, lasts_ms: 10 * MINUTE }, None),
        ..PLAIN
    },
    Scene {
        name: "03 a storm that ends unevenly",
        rule: 6,
        hours: 4,
        workers: 17,
        play: |s| s.fault(BEGIN, Fault::ShareLost { cluster: ONE, percent: 40 }, None),
        ..PLAIN
    },
    Scene {
        name: "04 every Lease comes late for a while",
        rule: 2,
        play: |s| s.fault(BEGIN, Fault::LeaseStorm { cluster: ONE, lasts_ms: 5 * MINUTE }, None),
        ..PLAIN
    },
    Scene {
        name: "05 the old appliance wakes up after the other took over",
        rule: 46,
        standby: true,
        play: |s| {
            s.fault(BEGIN, Fault::Stopped { lasts_ms: 5 * MINUTE }, None);
            s.fault(BEGIN + 2 * SECOND, Fault::KernelStuck, Some(6));
        },
        ..PLAIN
    },
    Scene {
        name: "06 one of three workers is dead",
        rule: 11,
        planes: 1,
        workers: 3,
        play: |s| s.fault(BEGIN, Fault::KernelStuck, Some(3)),
        ..PLAIN
    },
    Scene {
        name: "07 a health signal lies while the host works",
        rule: 1,
        play: |s| s.fault(BEGIN, Fault::OneWay { lasts_ms: 20 * MINUTE }, Some(6)),
        ..PLAIN
    },
    Scene {
        name: "08 a BMC says Off of a host that is on",
        rule: 23,
        play: |s| {
            s.fault(BEGIN, Fault::BmcSaysOff, Some(6));
            s.fault(BEGIN + MINUTE, Fault::UserspaceDead, Some(6));
        },
        ..PLAIN
    },
    Scene {
        name: "09 it was off already",
        rule: 31,
        play: |s| s.fault(BEGIN, Fault::PowerLost { cause: OffCause::AcLoss, returns_ms: Some(2 * MINUTE) }, Some(6)),
        ..PLAIN
    },
    Scene {
        name: "10 the BMC dies with its host's power",
        rule: 27,
        play: |s| {
            s.fault(BEGIN, Fault::BmcSideband, Some(6));
            s.fault(
                BEGIN + SECOND,
                Fault::PowerLost { cause: OffCause::AcLoss, returns_ms: Some(30 * MINUTE) },
                Some(6),
            );
        },
        ..PLAIN
    },
    Scene {
        name: "11 pods keep a finalizer during the release",
        rule: 25,
        play: |s| {
            s.fault(BEGIN, Fault::PodsStay { lasts_ms: 10 * MINUTE }, Some(6));
            s.fault(BEGIN, Fault::KernelStuck, Some(6));
        },
        ..PLAIN
    },
    Scene {
        name: "12 volumes stay after a real power off",
        rule: 25,
        play: |s| {
            s.fault(BEGIN, Fault::AttachmentsStay { lasts_ms: 30 * MINUTE }, Some(6));
            s.fault(BEGIN, Fault::KernelStuck, Some(6));
        },
        ..PLAIN
    },
    Scene {
        name: "13 the host comes back just before the off",
        rule: 42,
        play: |s| s.fault(BEGIN, Fault::BenignSilence { lasts_ms: 22 * SECOND }, Some(6)),
        ..PLAIN
    },
    Scene {
        name: "14 the appliance dies between off and on",
        rule: 45,
        play: |s| {
            s.fault(BEGIN, Fault::KernelStuck, Some(6));
            s.fault(BEGIN + 30 * SECOND, Fault::Killed { down_ms: MINUTE }, None);
        },
        ..PLAIN
    },
    Scene {
        name: "15 somebody else presses the power while nobody asked",
        rule: 31,
        play: |s| s.fault(BEGIN, Fault::ForeignOff, Some(6)),
        ..PLAIN
    },
    Scene {
        name: "16 a slow BMC",
        rule: 1,
        play: |s| {
            s.fault(BEGIN, Fault::BmcSlow { delay_ms: 2 * SECOND }, Some(6));
            s.fault(BEGIN, Fault::KernelStuck, Some(6));
        },
        ..PLAIN
    },
    Scene {
        name: "18 the kubelet of a control-plane host dies",
        rule: 53,
        play: |s| s.fault(BEGIN, Fault::Component(Component::Kubelet, ComponentCause::Dead), Some(1)),
        ..PLAIN
    },
    Scene {
        name: "19 the virtual address sits on a hung control-plane host",
        rule: 18,
        play: |s| s.fault(BEGIN, Fault::VipOnDeadHost { cluster: ONE }, None),
        ..PLAIN
    },
    Scene {
        name: "20 a learner among the members while a voter dies",
        rule: 18,
        play: |s| {
            s.fault(BEGIN, Fault::LearnerAdded { cluster: ONE, lasts_ms: HOUR }, None);
            s.fault(BEGIN + MINUTE, Fault::KernelStuck, Some(1));
        },
        ..PLAIN
    },
    Scene {
        name: "21 a dead machine and no spare",
        rule: 43,
        play: |s| s.fault(BEGIN, Fault::Hardware(HardwareFault::Processor), Some(6)),
        ..PLAIN
    },
    Scene {
        name: "22 nothing helps",
        rule: 14,
        hours: 6,
        play: |s| {
            s.fault(BEGIN, Fault::BmcIgnoresBoot, Some(6));
            s.fault(BEGIN, Fault::OsBroken, Some(6));
        },
        ..PLAIN
    },
    Scene {
        name: "24 an upgrade is running",
        rule: 50,
        play: |s| {
            s.fault(BEGIN, Fault::UpgradeRunning { cluster: ONE, lasts_ms: 30 * MINUTE }, None);
            s.fault(BEGIN + MINUTE, Fault::KernelStuck, Some(6));
        },
        ..PLAIN
    },
    Scene {
        name: "25 the system on the disk is gone",
        rule: 36,
        hours: 3,
        play: |s| s.fault(BEGIN, Fault::NoLocalBoot, Some(6)),
        ..PLAIN
    },
    Scene {
        name: "a plain reboot without a cordon",
        rule: 33,
        play: |s| s.fault(BEGIN, Fault::PlainReboot, Some(6)),
        ..PLAIN
    },
    Scene {
        name: "a switch dies with a whole rack behind it",
        rule: 5,
        hours: 3,
        play: |s| s.fault(BEGIN, Fault::SwitchDown { switch: SWITCH, lasts_ms: 25 * MINUTE }, None),
        ..PLAIN
    },
    Scene {
        name: "a PDU loses its feed",
        rule: 5,
        hours: 3,
        play: |s| s.fault(BEGIN, Fault::DomainPower { domain: PDU, lasts_ms: 10 * MINUTE }, None),
        ..PLAIN
    },
    Scene {
        name: "the site loses power and is started by a person",
        rule: 58,
        hours: 3,
        play: |s| {
            s.fault(BEGIN, Fault::SitePower { lasts_ms: 5 * MINUTE }, None);
            s.order(BEGIN + 10 * MINUTE, Operator::ColdStart { hosts: (1..13).map(HostId).collect() });
        },
        ..PLAIN
    },
    Scene {
        name: "sixty percent of the workers are lost for real",
        rule: 6,
        hours: 5,
        workers: 17,
        person: true,
        play: |s| s.fault(BEGIN, Fault::ShareLost { cluster: ONE, percent: 60 }, None),
        ..PLAIN
    },
    Scene {
        name: "the appliance sleeps for ten minutes with a silent host",
        rule: 47,
        play: |s| {
            s.fault(BEGIN, Fault::KernelStuck, Some(6));
            s.fault(BEGIN + 20 * SECOND, Fault::Stopped { lasts_ms: 10 * MINUTE }, None);
        },
        ..PLAIN
    },
    Scene {
        name: "the wall clock jumps by an hour",
        rule: 47,
        play: |s| {
            s.fault(BEGIN, Fault::KernelStuck, Some(6));
            s.fault(BEGIN + 15 * SECOND, Fault::ClockStepped { by_ms: 3_600_000 }, None);
        },
        ..PLAIN
    },
    Scene {
        name: "a kernel panics and writes its dump",
        rule: 33,
        play: |s| s.fault(BEGIN, Fault::KernelPanic { dump_ms: Some(MINUTE) }, Some(6)),
        ..PLAIN
    },
    Scene {
        name: "a certificate has expired",
        rule: 53,
        play: |s| s.fault(BEGIN, Fault::Component(Component::Kubelet, ComponentCause::CertificateExpired), Some(6)),
        ..PLAIN
    },
    Scene {
        name: "the etcd quorum is lost",
        rule: 18,
        hours: 3,
        play: |s| s.fault(BEGIN, Fault::QuorumLost { cluster: ONE }, None),
        ..PLAIN
    },
    Scene {
        name: "every BMC is out of reach while hosts are fine",
        rule: 4,
        play: |s| s.fault(BEGIN, Fault::ManagementDown { lasts_ms: 20 * MINUTE }, None),
        ..PLAIN
    },
    Scene { name: "the network card hangs", rule: 3, play: |s| s.fault(BEGIN, Fault::NicHung, Some(6)), ..PLAIN },
];
