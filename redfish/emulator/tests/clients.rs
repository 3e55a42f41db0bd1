//! The emulator as clients see it that nobody here wrote: ipmitool, FreeIPMI, fence-agents, sushy. A client that is not
//! installed is said to be missing and left out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod support;

use bmc_emulator::Emulator;
use machine::Power;
use std::path::PathBuf;
use std::time::Duration;
use support::{PASSWORD, emulator, ipmitool, missing, run, text};

/// Waits until the host's power is so in truth.
async fn truly(emulator: &Emulator, power: Power) {
    for _ in 0..100 {
        if emulator.handle().machine(machine::Machine::power) == power {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("never {power:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ipmitool_by_both_suites() {
    if missing("ipmitool") {
        return;
    }
    for suite in ["17", "3"] {
        let emulator = emulator("supermicro_x12").await;
        assert!(ipmitool(&emulator, suite, &["power", "status"]).await.contains("Power is on"));
        ipmitool(&emulator, suite, &["power", "off"]).await;
        truly(&emulator, Power::Off).await;
        assert!(ipmitool(&emulator, suite, &["power", "status"]).await.contains("Power is off"));
        ipmitool(&emulator, suite, &["power", "on"]).await;
        truly(&emulator, Power::On).await;
        ipmitool(&emulator, suite, &["chassis", "bootdev", "pxe", "options=efiboot"]).await;
        let flags = ipmitool(&emulator, suite, &["chassis", "bootparam", "get", "5"]).await;
        assert!(flags.contains("Force PXE") && flags.contains("BIOS EFI boot"), "{flags}");
        let log = ipmitool(&emulator, suite, &["sel", "list"]).await;
        assert!(log.contains("System ACPI Power State"), "{log}");
        let sensors = ipmitool(&emulator, suite, &["sensor"]).await;
        assert!(sensors.contains("CPU1 Temp") && sensors.contains("48.000"), "{sensors}");
        assert!(sensors.contains("7200.000") && sensors.contains("12.060"), "{sensors}");
        let users = ipmitool(&emulator, suite, &["user", "list", "1"]).await;
        assert!(users.contains("admin") && users.contains("ADMINISTRATOR"), "{users}");
        let device = ipmitool(&emulator, suite, &["mc", "info"]).await;
        assert!(device.contains("10876"), "{device}");
        let suites = ipmitool(&emulator, suite, &["channel", "getciphers", "ipmi"]).await;
        assert!(suites.contains("hmac_sha256"), "{suites}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_opens_nothing() {
    if missing("ipmitool") {
        return;
    }
    let emulator = emulator("dell_r750").await;
    let port = emulator.ipmi().port().to_string();
    for suite in ["17", "3", "0"] {
        let arguments = ["-I", "lanplus", "-C", suite, "-H", "127.0.0.1", "-p", &port, "-U", "admin", "-P", "wrong"];
        let done = run("ipmitool", &[&arguments[..], &["power", "status"]].concat()).await;
        assert!(!done.status.success(), "suite {suite}: {}", text(&done));
    }
    emulator.handle().set(bmc_emulator::Misbehaviour::IpmiSuiteZero, true);
    let arguments = ["-I", "lanplus", "-C", "0", "-H", "127.0.0.1", "-p", &port, "-U", "admin", "-P", "wrong"];
    let done = run("ipmitool", &[&arguments[..], &["power", "status"]].concat()).await;
    assert!(done.status.success(), "the hole of suite 0 must be there when asked for: {}", text(&done));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn freeipmi_by_both_suites() {
    if missing("ipmipower") || missing("ipmi-sensors") || missing("ipmi-sel") {
        return;
    }
    for suite in ["17", "3"] {
        let emulator = emulator("dell_r750").await;
        let host = format!("127.0.0.1:{}", emulator.ipmi().port());
        let base = ["-D", "LAN_2_0", "-I", suite, "-h", &host, "-u", "admin", "-p", PASSWORD];
        for (verb, power) in
            [(&["--stat"][..], Power::On), (&["--off", "--wait-until-off"], Power::Off), (&["--on"], Power::On)]
        {
            let done = run("ipmipower", &[&base, verb].concat()).await;
            assert!(done.status.success(), "{verb:?}: {}", text(&done));
            truly(&emulator, power).await;
        }
        let folder = std::env::temp_dir().join(format!("rackmedic-sdr-{}-{suite}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let cache = format!("--sdr-cache-directory={}", folder.display());
        let done = run("ipmi-sensors", &[&base[..], &["-l", "USER", &cache]].concat()).await;
        assert!(text(&done).contains("CPU1 Temp") && text(&done).contains("48.00"), "{}", text(&done));
        let done = run("ipmi-sel", &[&base[..], &["-l", "USER", &cache]].concat()).await;
        assert!(text(&done).contains("Power State"), "{}", text(&done));
        let _ = std::fs::remove_dir_all(&folder);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fence_ipmilan_fences_it() {
    if missing("fence_ipmilan") {
        return;
    }
    let emulator = emulator("hpe_dl385").await;
    let port = emulator.ipmi().port().to_string();
    for (verb, power) in [("status", Power::On), ("off", Power::Off), ("on", Power::On), ("reboot", Power::On)] {
        let arguments = [
            "-P",
            "-C",
            "17",
            "-a",
            "127.0.0.1",
            "-u",
            &port,
            "-l",
            "admin",
            "-p",
            PASSWORD,
            "-L",
            "OPERATOR",
            "-o",
            verb,
        ];
        let done = run("fence_ipmilan", &arguments).await;
        assert!(done.status.success(), "{verb}: {}", text(&done));
        truly(&emulator, power).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fence_redfish_fences_every_make() {
    if missing("fence_redfish") {
        return;
    }
    for model in ["dell_r750", "hpe_dl385", "lenovo_sr670", "supermicro_x12", "ami_megarac", "openbmc"] {
        let emulator = emulator(model).await;
        let port = emulator.redfish().port().to_string();
        for (verb, power) in [("status", Power::On), ("off", Power::Off), ("on", Power::On)] {
            let arguments =
                ["-a", "127.0.0.1", "-u", &port, "-l", "admin", "-p", PASSWORD, "-z", "--ssl-insecure", "-o", verb];
            let done = run("fence_redfish", &arguments).await;
            assert!(done.status.success(), "{model}: {verb}: {}", text(&done));
            truly(&emulator, power).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sushy_uses_every_make() {
    let python = std::env::var_os("RACKMEDIC_PEERS").map(|peers| PathBuf::from(peers).join("python-1/bin/python"));
    let Some(python) = python.filter(|python| python.is_file()) else {
        eprintln!("not run: RACKMEDIC_PEERS names no folder with Python's peers (tests/peers/install)");
        return;
    };
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/drive_with_sushy.py");
    for model in ["dell_r750", "hpe_dl385", "lenovo_sr670", "supermicro_x12", "ami_megarac", "openbmc"] {
        let emulator = emulator(model).await;
        let url = format!("https://127.0.0.1:{}", emulator.redfish().port());
        let done = run(python.to_str().unwrap(), &[script.to_str().unwrap(), &url, "admin", PASSWORD]).await;
        assert!(done.status.success(), "{model}: {}", text(&done));
        assert_eq!(emulator.handle().sessions_open(), 0, "{model}: sushy closes its session");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pyghmi_uses_it() {
    let python = std::env::var_os("RACKMEDIC_PEERS").map(|peers| PathBuf::from(peers).join("python-1/bin/python"));
    let Some(python) = python.filter(|python| python.is_file()) else {
        eprintln!("not run: RACKMEDIC_PEERS names no folder with Python's peers (tests/peers/install)");
        return;
    };
    let emulator = emulator("openbmc").await;
    let port = emulator.ipmi().port().to_string();
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/drive_with_pyghmi.py");
    let done = run(python.to_str().unwrap(), &[script.to_str().unwrap(), &port, "admin", PASSWORD]).await;
    assert!(done.status.success(), "{}", text(&done));
    truly(&emulator, Power::On).await;
    let counted = emulator.handle().counted();
    assert_eq!((counted.offs, counted.ons), (1, 1));
}
