//! All other answers of IPMI: chassis, identity, boot flags, accounts, channel, cipher suites, suite 0.
#![no_main]

use bmc::ipmi::boot_options::{DiskSelector, Habit, read_boot_flags};
use bmc::ipmi::handshake::Random;
use bmc::ipmi::suite_zero::SuiteZeroProbe;
use bmc::ipmi::{audit, command, sol_activation, users};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = command::read_chassis_status(data);
    if let Ok(device) = command::read_device_id(data) {
        assert!(device.manufacturer < 1 << 20);
    }
    let _ = command::read_guid(data);
    for selector in [DiskSelector::Standard, DiskSelector::SupermicroUefi] {
        let _ = read_boot_flags(data, Habit { disk: selector, flags_lost: true });
    }
    let _ = users::read_access(data);
    assert!(!users::read_name(data).chars().any(char::is_control));
    if let Ok(channel) = audit::read_capabilities(data) {
        let _ = channel.weaknesses();
    }
    let _ = audit::answer(data, 0x38, 0);
    let _ = sol_activation::read_activated(data);
    let mut list = audit::SuiteList::default();
    for part in data.chunks(17) {
        if !list.add(part) {
            break;
        }
    }
    for suite in list.suites() {
        let _ = suite.weakness();
    }
    let random = Random { console_id: 5, console_random: [1; 16], tag: 2 };
    if let Some((mut probe, _)) = SuiteZeroProbe::begin("admin", random) {
        for datagram in data.chunks(60) {
            let _ = probe.accept(datagram);
        }
    }
});
