//! The lie matrix: BMCs that misbehave, each before `rackmedic bmc` with off, on, cycle and a boot override. It must never
//! say *off* of a machine that is not while one witness contradicts, never hang beyond its deadline, never cut twice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use bmc_emulator::{Certificate, Emulator, Misbehaviour, Setup, by_name};
use machine::{BmcFault, Power};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::sync::Semaphore;

/// Processes at the same time: nearly all of their time they wait.
const AT_ONCE: usize = 64;
/// Ninety seconds for the first reading, sixty for the effect, five to close, and some for a busy machine.
const DEADLINE: Duration = Duration::from_secs(175);
/// A cycle is both, with ten seconds between.
const CYCLE_DEADLINE: Duration = Duration::from_secs(340);

/// What is wrong.
#[derive(Debug, Clone, Copy)]
enum Lie {
    Wire(Misbehaviour),
    Bmc(BmcFault),
    /// Both lies at once: the case that one BMC alone cannot show.
    SystemAndChassis,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Redfish,
    Ipmi,
}

const VERBS: [&[&str]; 4] = [&["power", "off"], &["power", "on"], &["power", "cycle"], &["boot", "pxe"]];

fn lies() -> Vec<(Lie, Vec<Protocol>)> {
    use Protocol::{Ipmi, Redfish};
    let wire = Misbehaviour::ALL.iter().filter_map(|wrong| {
        let name = format!("{wrong:?}");
        let both = matches!(wrong, Misbehaviour::ThirtySecondsLate | Misbehaviour::PowerReplyLost);
        match wrong {
            // Alone it is the truth; with the system's lie it is the last case below.
            Misbehaviour::ChassisAgrees => None,
            // Serial over LAN and suite 0 have tests of their own.
            Misbehaviour::IpmiSolNack | Misbehaviour::IpmiSuiteZero => None,
            _ if both => Some((Lie::Wire(*wrong), vec![Redfish, Ipmi])),
            _ if name.starts_with("Ipmi") => Some((Lie::Wire(*wrong), vec![Ipmi])),
            _ => Some((Lie::Wire(*wrong), vec![Redfish])),
        }
    });
    let bmc = [
        BmcFault::SaysOff,
        BmcFault::SaysOffEarly,
        BmcFault::SaysOn,
        BmcFault::IgnoresPower,
        BmcFault::SlowOff(20_000),
        BmcFault::SettlesAfterOff(15_000),
        BmcFault::Stale(20_000),
        BmcFault::LosesReply,
        BmcFault::Conflicts,
        BmcFault::RepeatsPower(4_000),
        BmcFault::SessionsFull,
        BmcFault::Refusing,
        BmcFault::Resetting(8_000),
        BmcFault::Dead,
        BmcFault::ShowsIdentity(0),
        BmcFault::KeepsBoot,
        BmcFault::NoBootChangeInPost,
        BmcFault::Slow(3_000),
    ];
    let bmc = bmc.into_iter().map(|fault| (Lie::Bmc(fault), vec![Redfish, Ipmi]));
    wire.chain(bmc).chain([(Lie::SystemAndChassis, vec![Redfish])]).collect()
}

/// The machine is on in truth, and the bench said *off*: possible only where a BMC that is asked by one protocol tells one
/// consistent lie. The appliance has the network as its witness then, and proves nothing (safety terms).
fn no_witness_left(lie: Lie, protocol: Protocol) -> bool {
    matches!((lie, protocol), (Lie::SystemAndChassis, _) | (Lie::Bmc(BmcFault::SaysOff), Protocol::Ipmi))
}

struct Case {
    lie: Lie,
    protocol: Protocol,
    verb: &'static [&'static str],
}

async fn run(case: &Case, certificate: &Certificate) -> (String, Option<String>) {
    let Case { lie, protocol, verb } = case;
    // A boot override is tried at one that takes it at the system, after a quick boot.
    let mut setup = Setup::of(by_name("openbmc").unwrap());
    setup.spec.off_ms = (500, 1_500);
    let emulator = Emulator::start(setup, certificate).await.unwrap();
    let handle = emulator.handle();
    match lie {
        Lie::Wire(wrong) => handle.set(*wrong, true),
        Lie::Bmc(fault) => handle.inject_bmc(*fault),
        Lie::SystemAndChassis => {
            handle.inject_bmc(BmcFault::SaysOff);
            handle.set(Misbehaviour::ChassisAgrees, true);
        }
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_rackmedic"));
    command.arg("bmc").args(*verb).args(["--output", "json"]).env("RACKMEDIC_BMC_PASSWORD", "secret-of-a-bmc");
    match protocol {
        Protocol::Redfish => command
            .args(["--url", &format!("redfish://admin@{}", emulator.redfish())])
            .args(["--tls-pin", &certificate.fingerprint().to_string()]),
        Protocol::Ipmi => command.args(["--url", &format!("ipmi://admin@{}", emulator.ipmi())]),
    };
    let begun = Instant::now();
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let (mut said, mut talked) = (String::new(), String::new());
    let deadline = if verb.last() == Some(&"cycle") { CYCLE_DEADLINE } else { DEADLINE };
    let ended = tokio::time::timeout(deadline, async {
        let (_, _, status) = tokio::join!(out.read_to_string(&mut said), err.read_to_string(&mut talked), child.wait());
        status.unwrap().code()
    })
    .await;
    let took = begun.elapsed().as_secs_f64();
    let truth = handle.machine(machine::Machine::power);
    let cuts = handle.machine(|machine| machine.power_ledger().hard_cuts);
    let counted = handle.counted();
    let (target, lasts) = handle.boot();
    let set = match protocol {
        Protocol::Redfish => target == "Pxe" && lasts == "Once",
        Protocol::Ipmi => said.contains(r#""device":"pxe""#) && !matches!(lie, Lie::Wire(Misbehaviour::IpmiBootNotSet)),
    };
    let done = ended == Ok(Some(0));
    let wrong = match verb {
        _ if ended.is_err() => Some("it hung beyond its deadline"),
        _ if !matches!(ended, Ok(Some(0 | 1))) => Some("it ended otherwise than with 0 or 1"),
        _ if counted.restarts > 0 => Some("it sent a restart"),
        _ if counted.offs > 6 || counted.ons > 6 => Some("it sent the same order too often"),
        // One that repeats commands cuts twice by itself.
        _ if cuts > 1 && !matches!(lie, Lie::Bmc(BmcFault::RepeatsPower(_))) => Some("it cut the power twice"),
        ["power", "off"] if done && truth != Power::Off && !no_witness_left(*lie, *protocol) => {
            Some("it said off, and the machine is on")
        }
        ["power", "off"] if done && !said.contains(r#""proven_off":true"#) => Some("exit 0 without the word"),
        ["power", "on" | "cycle"] if done && truth == Power::Off => Some("it said on, and the machine is off"),
        ["boot", ..] if done && !set => Some("it said that the override is set, and it is not"),
        _ => None,
    };
    let word = if done { "done" } else { "refused" };
    let why = talked.lines().last().unwrap_or_default();
    let cell = format!("{lie:?} {protocol:?} {}: {word}, {took:.1} s {why}", verb.join(" "));
    (cell, wrong.map(|wrong| format!("{lie:?}, {protocol:?}, {verb:?}: {wrong} ({ended:?}, truth {truth:?}, cuts {cuts}, {counted:?}): {said} {talked}")))
}

#[test]
fn the_lie_matrix() {
    if std::env::var_os("RACKMEDIC_LIES").is_some_and(|value| value == "elsewhere") {
        eprintln!("not run here: RACKMEDIC_LIES says that it runs elsewhere");
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let certificate = Certificate::make().unwrap();
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let mut running = Vec::new();
        let only = std::env::var("RACKMEDIC_LIE").ok();
        for (lie, protocols) in lies() {
            for protocol in protocols {
                for verb in VERBS {
                    let case = Case { lie, protocol, verb };
                    if only.as_ref().is_some_and(|only| !format!("{lie:?} {protocol:?} {verb:?}").contains(only)) {
                        continue;
                    }
                    let (turns, certificate) = (turns.clone(), certificate.clone());
                    running.push(tokio::spawn(async move {
                        let _turn = turns.acquire_owned().await.unwrap();
                        run(&case, &certificate).await
                    }));
                }
            }
        }
        let (mut cases, mut wrong) = (0, Vec::new());
        for case in running {
            let (cell, bad) = case.await.unwrap();
            eprintln!("{}{cell}", if bad.is_some() { "WRONG " } else { "" });
            cases += 1;
            wrong.extend(bad);
        }
        eprintln!("{cases} cases");
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}
