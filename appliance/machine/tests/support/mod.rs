//! What the stories share: a host, a look at its power, and the ways to bring it back.
#![allow(dead_code, unreachable_pub, reason = "each story file uses its own part")]

use machine::{At, BmcReply, BmcRequest, BootOverride, Machine, Power, Spec};

/// One minute.
pub const MINUTE: At = 60_000;

/// A healthy host.
pub fn host() -> Machine {
    Machine::new(Spec::default(), 7)
}

/// What its BMC says about the power.
pub fn power(machine: &mut Machine, at: At) -> Power {
    match machine.bmc_request(at, BmcRequest::ReadPower).result {
        Ok(BmcReply::Power(read)) => read.power,
        other => panic!("no power reading: {other:?}"),
    }
}

/// Off, and time for it to take effect.
pub fn off(machine: &mut Machine, at: At) -> At {
    machine.bmc_request(at, BmcRequest::ForceOff).result.unwrap();
    assert_eq!(power(machine, at + 10_000), Power::Off);
    at + 10_000
}

/// Off, on, and time for a full boot.
pub fn cycle(machine: &mut Machine, at: At) -> At {
    let at = off(machine, at);
    machine.bmc_request(at, BmcRequest::PowerOn).result.unwrap();
    machine.advance(at + 10 * MINUTE);
    at + 10 * MINUTE
}

/// Off, one-shot network boot, on, and time for the self test.
pub fn to_the_network(machine: &mut Machine, at: At) -> At {
    let at = off(machine, at);
    let request = BmcRequest::SetBootOnce(BootOverride::NetworkOnce);
    machine.bmc_request(at, request).result.unwrap();
    machine.bmc_request(at + 1_000, BmcRequest::PowerOn).result.unwrap();
    let mut now = at + 1_000;
    while machine.boot_ask().is_none() {
        now = machine.next_change_at().expect("it goes on by itself");
        assert!(now < at + 10 * MINUTE, "it never asked the network");
        machine.advance(now);
    }
    now
}

/// A whole reimage: to the network, install, power cycle.
pub fn reimage(machine: &mut Machine, at: At) -> At {
    let at = to_the_network(machine, at);
    machine.serve_boot(at, Some(1));
    machine.advance(at + 15 * MINUTE);
    cycle(machine, at + 15 * MINUTE)
}
