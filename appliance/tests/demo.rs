//! The demo of the real binary: each story is told to its goal, nobody who works loses power, and nothing stays behind.
#![cfg(feature = "lab")]
#![allow(clippy::print_stderr, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn folder(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("demo-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn demo(temporary: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rackmedic"));
    command.arg("demo").env("NO_COLOR", "1").env("TMPDIR", temporary).stdin(Stdio::null());
    command
}

/// A story told to its goal.
struct Told {
    outcome: Value,
    talk: String,
}

fn tell(scenario: &str, until: &str) -> Told {
    let temporary = folder(scenario);
    let output = demo(&temporary)
        .args(["--headless", "--until", until, "--scenario", scenario, "--output", "json"])
        .output()
        .unwrap();
    let talk = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{scenario}: {talk}");
    let outcome: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(outcome["working_hosts_cut"], 0, "{scenario}: {talk}");
    let left: Vec<_> = std::fs::read_dir(&temporary).unwrap().collect();
    assert!(left.is_empty(), "{scenario} left {left:?}");
    std::fs::remove_dir_all(&temporary).unwrap();
    Told { outcome, talk }
}

impl Told {
    fn incident(&self, host: &str) -> &Value {
        let all = self.outcome["incidents"].as_array().unwrap();
        all.iter().find(|incident| incident["host"] == host).unwrap_or_else(|| panic!("none of {host}: {}", self.talk))
    }

    /// (offs, ons) that a host's BMC received.
    fn powered(&self, host: &str) -> (u64, u64) {
        let all = self.outcome["power_commands"].as_array().unwrap();
        let of = all.iter().find(|commands| commands["host"] == host);
        of.map_or((0, 0), |commands| (commands["offs"].as_u64().unwrap(), commands["ons"].as_u64().unwrap()))
    }

    fn nobody_was_touched(&self) {
        assert_eq!(self.outcome["power_commands"], serde_json::json!([]), "{}", self.talk);
    }

    /// The one host that fell ill went off and on once, and its pods were free in between.
    fn healed_by_one_cycle(&self, host: &str) {
        let incident = self.incident(host);
        assert_eq!((incident["end"].as_str(), self.powered(host)), (Some("healed"), (1, 1)), "{}", self.talk);
        let at = |name: &str| incident[name].as_f64().unwrap_or_else(|| panic!("no {name}: {incident}"));
        let order = ["detected_s", "confirmed_s", "proven_off_s", "released_s", "ready_s", "ended_s"].map(at);
        assert!(order.is_sorted(), "{incident}");
        assert_eq!(self.outcome["power_commands"].as_array().unwrap().len(), 1, "{}", self.talk);
    }
}

#[test]
fn a_hung_host_is_proven_off_within_45_s_and_healed_within_90_s() {
    let told = tell("hang", "healed");
    told.healed_by_one_cycle("node-3");
    let incident = told.incident("node-3");
    assert_eq!(incident["diagnosis"], "kernel-dead");
    assert!(incident["proven_off_s"].as_f64().unwrap() < 45.0, "{incident}");
    assert!(incident["ended_s"].as_f64().unwrap() < 90.0, "{incident}");
    assert!(told.talk.contains("lab policy") && told.talk.contains("rule 42"), "{}", told.talk);
}

#[test]
fn a_panicked_host_is_healed() {
    tell("panic", "healed").healed_by_one_cycle("node-3");
}

#[test]
fn a_host_whose_userspace_died_is_healed_after_the_minute_that_its_pings_earn_it() {
    let told = tell("userspace", "healed");
    told.healed_by_one_cycle("node-3");
    let incident = told.incident("node-3");
    assert_eq!(incident["diagnosis"], "host-hung");
    assert!(incident["proven_off_s"].as_f64().unwrap() >= 60.0, "rule 1 holds in a lab too: {incident}");
}

#[test]
fn a_control_plane_host_is_healed() {
    tell("control-plane", "healed").healed_by_one_cycle("cp-3");
}

#[test]
fn a_host_that_lost_its_mains_is_released_and_switched_on_without_an_off() {
    let told = tell("power", "healed");
    let incident = told.incident("node-3");
    assert_eq!((incident["diagnosis"].as_str(), incident["end"].as_str()), (Some("powered-off"), Some("healed")));
    assert_eq!(told.powered("node-3"), (0, 1), "{}", told.talk);
}

#[test]
fn what_the_demo_cannot_cure_is_named_and_nobody_is_touched() {
    // They mostly wait: side by side they take the time of the slowest.
    let stories = [
        ("kubelet", "component-failed(kubelet, dead)"),
        ("disk", "boot-failed(no-local-boot)"),
        ("reboot", "rebooting"),
    ];
    std::thread::scope(|scope| {
        for (scenario, diagnosis) in stories {
            scope.spawn(move || {
                let told = tell(scenario, "diagnosed");
                assert_eq!(told.incident("node-3")["diagnosis"], diagnosis, "{}", told.talk);
                told.nobody_was_touched();
            });
        }
    });
}

#[test]
fn what_befalls_many_is_no_reason_to_cut_anybody() {
    std::thread::scope(|scope| {
        scope.spawn(|| tell("domain", "diagnosed").nobody_was_touched());
        scope.spawn(|| tell("storm", "diagnosed").nobody_was_touched());
    });
}

#[test]
fn a_bmc_that_accepts_an_off_and_does_nothing_leaves_its_host_unfenced_and_its_pods_where_they_are() {
    let told = tell("liar", "diagnosed");
    let incident = told.incident("node-3");
    assert!(incident["proven_off_s"].is_null() && incident["released_s"].is_null(), "{incident}");
    assert_eq!((told.powered("node-3"), incident["end"].as_str()), ((1, 0), Some("open")), "{}", told.talk);
    assert!(told.talk.contains("nothing is released") && told.talk.contains("rule 27"), "{}", told.talk);
}

#[test]
fn a_cure_that_the_demo_does_not_have_is_a_wrong_argument() {
    let temporary = folder("usage");
    let output = demo(&temporary).args(["--headless", "--until", "healed", "--scenario", "kubelet"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("node agent"));
}

fn started(temporary: &Path) -> (Child, PathBuf) {
    let mut child = demo(temporary).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        if let Some((_, path)) = line.unwrap().split_once("KUBECONFIG=") {
            return (child, PathBuf::from(path));
        }
    }
    panic!("it never came up: {:?}", child.wait());
}

fn ends_within(child: &mut Child, limit: Duration) -> std::process::ExitStatus {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < end, "it did not end");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn an_interrupt_ends_it_cleanly_and_its_folder_is_gone() {
    let temporary = folder("interrupt");
    let (mut child, kubeconfig) = started(&temporary);
    assert!(kubeconfig.exists());
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(ends_within(&mut child, Duration::from_secs(20)).code(), Some(0));
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0);
}

#[test]
fn the_kubeconfig_that_holds_a_token_is_read_by_nobody_else() {
    use std::os::unix::fs::PermissionsExt as _;
    let temporary = folder("private");
    let (mut child, kubeconfig) = started(&temporary);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&kubeconfig), mode(kubeconfig.parent().unwrap())), (0o600, 0o700));
    // Killed: what is left is one folder among the temporary files.
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 1);
    std::fs::remove_dir_all(&temporary).unwrap();
}
