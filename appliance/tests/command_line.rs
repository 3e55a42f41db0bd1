//! The command line as a person or a script meets it: the real binary, its exit codes, its two streams.
#![cfg(feature = "lab")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::Value;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

fn rackmedic(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rackmedic")).args(arguments).env_remove("RACKMEDIC_DATA_DIR").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn file(name: &str, content: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id()));
    std::fs::write(&path, content).unwrap();
    path
}

#[test]
fn simulate_ends_with_one_json_value_that_scripts_can_rely_on() {
    let output = rackmedic(&["simulate", "--seeds", "1..2", "--hosts", "12", "--hours", "1", "--output", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for key in ["seeds", "host_hours", "incidents", "healed", "rule_breaks", "healthy_power_cycled"] {
        assert!(report[key].is_u64(), "{key}: {report}");
    }
    assert!(report["real_time_factor"].is_f64());
    assert_eq!((&report["seeds"], &report["host_hours"]), (&Value::from(2), &Value::from(24)));
    assert_eq!((&report["rule_breaks"], &report["healthy_power_cycled"]), (&Value::from(0), &Value::from(0)));
    assert!(output.stderr.is_empty(), "no progress where nobody watches: {}", text(&output.stderr));
}

#[test]
fn the_same_seeds_give_the_same_table_but_for_the_speed() {
    let told = || {
        let output = rackmedic(&["simulate", "--seeds", "3..=4", "--hosts", "12", "--hours", "2"]);
        let lines = text(&output.stdout);
        lines.lines().filter(|line| !line.contains("times real time")).map(str::to_owned).collect::<Vec<_>>()
    };
    let first = told();
    assert!(first[0].starts_with("2 seeds (3..4) of 12 hosts for 2 h: 48 host-hours"), "{}", first[0]);
    assert_eq!(first, told());
}

#[test]
fn a_broken_rule_is_caught_and_shown_with_what_caught_it() {
    let output = rackmedic(&["simulate", "--break", "29", "--output", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rule = &found["rules"][0];
    assert_eq!((&rule["rule"], &rule["caught"]), (&Value::from(29), &Value::from(true)));
    for key in ["owner", "seed", "event"] {
        assert!(rule.get(key).is_some(), "{key}: {rule}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_rackmedic"))
        .args(["simulate", "--trace", "3", "--hosts", "50", "--hours", "2"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0u8; 12];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"00:00:00.000");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn what_is_wrong_on_the_command_line_or_in_its_files_is_said_with_its_place_and_ends_with_2() {
    let unknown = file("unknown.toml", "soak_ms = 300000\nsok_ms = 1\n");
    let beyond = file("beyond.toml", "\nstorm_percent = 80\n");
    let cases: [(&[&str], &str); 9] = [
        (&["simulate", "--seeds", "9..1"], "9..1 holds no seed"),
        (&["simulate", "--seeds", "x"], "`x` is not a whole number"),
        (&["simulate", "--hosts", "3"], "3 is not in 10..=20000"),
        (&["simulate", "--break", "61"], "`61` is no rule"),
        (&["simulate", "--break", "44"], "rule 44"),
        (&["simulate", "--policy", "/nowhere.toml"], "/nowhere.toml cannot be read"),
        (&["simulate", "--policy", unknown.to_str().unwrap()], "unknown.toml:2:1: unknown field `sok_ms`"),
        (&["replay", "--policy", beyond.to_str().unwrap()], "beyond.toml:2:1: storm_percent = 80 is beyond its bound"),
        (&["replay"], "--policy <FILE>"),
    ];
    for (arguments, words) in cases {
        let output = rackmedic(arguments);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {told}");
        assert!(told.contains(words), "{arguments:?}: {told}");
        assert!(output.stdout.is_empty(), "{arguments:?}: talk does not belong on standard output");
    }
}

#[test]
fn a_data_directory_without_a_database_is_a_wrong_argument_with_the_next_step() {
    let policy = file("empty.toml", "");
    let nowhere: [&[&str]; 2] = [
        &["audit", "verify", "--data-dir", "/nowhere"],
        &["replay", "--policy", policy.to_str().unwrap(), "--data-dir", "/nowhere"],
    ];
    for arguments in nowhere {
        let output = rackmedic(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains("name the data directory"), "{}", text(&output.stderr));
    }
}

#[test]
fn a_bmc_is_refused_before_anything_is_sent_and_no_password_is_repeated() {
    let told = |arguments: &[&str], password: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rackmedic"));
        command.args(["bmc", "power", "status", "--url"]).args(arguments).env_remove("RACKMEDIC_BMC_PASSWORD");
        let output = command.envs(password.map(|p| ("RACKMEDIC_BMC_PASSWORD", p))).output().unwrap();
        (output.status.code(), text(&output.stderr))
    };
    let long = "x".repeat(21);
    for (url, password, word) in [
        ("ipmi://admin:hunter2@192.0.2.1", Some("hunter2"), "holds a password"),
        ("ipmi://192.0.2.1", Some("hunter2"), "names no user"),
        ("https://admin@192.0.2.1", Some("hunter2"), "begins with ipmi://"),
        ("redfish://admin@192.0.2.1", Some("hunter2"), "--tls-accept-new"),
        ("ipmi://admin@192.0.2.1", None, "--password-file"),
        ("ipmi://admin@192.0.2.1", Some(""), "password is empty"),
        ("ipmi://admin@192.0.2.1", Some(long.as_str()), "longer than 20 bytes"),
        ("ipmi://an-account-of-17-b@192.0.2.1", Some("hunter2"), "longer than 16 bytes"),
    ] {
        let (code, said) = told(&[url], password);
        assert_eq!(code, Some(2), "{url}: {said}");
        assert!(said.contains(word), "{url}: {said}");
        assert!(!said.contains("hunter2") && !said.contains(&long), "{said}");
    }
    for (arguments, word) in [
        (&["ipmi://admin@192.0.2.1", "--tls-accept-new"][..], "belongs to redfish://"),
        (&["redfish://admin@192.0.2.1", "--tls-pin", "sha256:12"], "64 hexadecimal digits"),
        (&["redfish://admin@192.0.2.1", "--ca", "/nonexistent/ca.pem"], "/nonexistent/ca.pem"),
        (&["redfish://admin@192.0.2.1", "--ca", "/dev/zero"], "longer than"),
        (&["ipmi://admin@192.0.2.1", "--password-file", "/dev/zero"], "longer than"),
    ] {
        let (code, said) = told(arguments, Some("hunter2"));
        assert_eq!(code, Some(2), "{arguments:?}: {said}");
        assert!(said.contains(word) && !said.contains("hunter2"), "{arguments:?}: {said}");
    }
    let (code, said) = told(&["ipmi://admin@192.0.2.1", "--password-file", "/nonexistent/password"], None);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("/nonexistent/password"), "{said}");
}

#[test]
fn rbac_prints_rights_without_a_wildcard_and_refuses_what_is_no_namespace() {
    let output = rackmedic(&["rbac", "--namespace", "medic", "--output", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    let kinds: Vec<&str> = list["items"].as_array().unwrap().iter().filter_map(|item| item["kind"].as_str()).collect();
    assert!(kinds.contains(&"ServiceAccount") && kinds.contains(&"ClusterRole"), "{kinds:?}");
    assert!(!text(&output.stdout).contains('*'));
    assert!(text(&rackmedic(&["rbac"]).stdout).starts_with("---\napiVersion: \"v1\"\nkind: \"Namespace\"\n"));
    assert_eq!(rackmedic(&["rbac", "--namespace", "../etc"]).status.code(), Some(2));
}
