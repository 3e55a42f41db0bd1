//! The server as people run it: the real binary, configured by files, told of hosts by the command line, read over HTTP, on
//! an emulated rack in another process. Power is counted at the BMCs.
#![cfg(feature = "lab")]
#![allow(clippy::print_stderr, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod configured;
mod declared;
mod rack;

use rack::{Life, Rack, wait_until};
use serde_json::Value;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

/// Until a heal has ended, on a machine that does other things too.
const HEAL: Duration = Duration::from_secs(200);

fn healed_once(rack: &mut Rack, host: &str, log: &str) {
    assert_eq!(rack.powered(host), (1, 1), "{log}");
    for one in rack.truth() {
        assert_eq!(one["working_cuts"], 0, "{one}\n{log}");
        assert!(one["host"] == host || one["offs"] == 0, "{one}\n{log}");
        assert!(one["host"] == "spare-1" || one["power"] == "on", "{one}\n{log}");
    }
}

#[test]
fn a_hung_host_is_healed_with_one_off_and_one_on_and_everything_is_told() {
    let mut rack = Rack::start("heal");
    let life = rack.well(&[]);
    rack.ask("break node-3 hang");
    let incident = life.wait_for_end("node-3", HEAL);
    assert_eq!((&incident["end"], &incident["diagnosis"]), (&Value::from("healed"), &Value::from("kernel-dead")));
    let stages =
        ["detected_s", "confirmed_s", "proven_off_s", "released_s", "powered_on_s", "booted_s", "ready_s", "healed_s"];
    let seconds = stages.map(|stage| incident[stage].as_f64().unwrap_or_else(|| panic!("no {stage}: {incident}")));
    assert!(seconds.is_sorted(), "{incident}");
    eprintln!("seconds from the last sign of life: {stages:?} {seconds:?}");
    healed_once(&mut rack, "node-3", &life.log());

    let (status, whole) = life.get(&format!("/api/v1/incidents/{}", incident["id"]));
    assert_eq!(status, 200);
    assert_eq!(whole["proof_of_off"]["witness"], "bmc");
    assert!(whole["plan"]["rungs"].as_array().unwrap().contains(&Value::from("power-cycle")), "{whole}");
    assert!(!whole["evidence"]["sources"]["icmp"].as_array().unwrap().is_empty(), "{whole}");
    let told = whole["told"].to_string();
    assert!(told.contains("proven off") && told.contains("Ready again"), "{told}");
    let (_, metrics) = life.get("/metrics");
    let metrics = metrics.as_str().unwrap();
    assert!(metrics.contains("rackmedic_incidents_ended_total{end=\"healed\"} 1\n"), "{metrics}");
    assert!(metrics.contains("rackmedic_incident_stage_seconds_count{stage=\"ready\"} 1\n"), "{metrics}");
    let of_incident = |line: &&Value| line["span"]["name"] == "incident" && line["span"]["node"] == "node-3";
    let spoken: Vec<Value> = life.lines().iter().filter(of_incident).cloned().collect();
    assert!(spoken.iter().any(|line| line["code"] == "ended"), "one span an incident, to its end: {}", life.log());

    // The next life knows all of it.
    life.terminate();
    let next = rack.serve(&[]);
    wait_until("the records are read", Duration::from_secs(30), || next.incident("node-3").is_some());
    assert_eq!(next.incident("node-3").unwrap()["end"], "healed");
    assert!(next.get("/metrics").1.as_str().unwrap().contains("rackmedic_incidents_ended_total{end=\"healed\"} 1\n"));
}

#[test]
fn a_pause_holds_within_a_second_and_a_resumed_heal_ends_as_any_other() {
    let mut rack = Rack::start("pause");
    let life = rack.well(&[]);
    rack.ask("break node-3 hang");
    wait_until("it is suspected", Duration::from_secs(60), || life.incident("node-3").is_some());
    let asked = Instant::now();
    rack.done(&["pause", "--host", "node-3"]);
    // The command itself takes a part of it: a process is started for it.
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    // Longer than its whole heal would have taken to the off.
    let until = Instant::now() + Duration::from_secs(50);
    while Instant::now() < until {
        assert_eq!(rack.powered("node-3"), (0, 0), "{}", life.log());
        std::thread::sleep(Duration::from_secs(1));
    }
    let why = rack.json(&["host", "show", "node-3"]);
    assert_eq!(why["summary"]["explanation"]["rule"], 49, "{why}");
    rack.done(&["resume", "--host", "node-3"]);
    assert_eq!(life.wait_for_end("node-3", HEAL)["end"], "healed");
    healed_once(&mut rack, "node-3", &life.log());
}

#[test]
fn a_spare_is_started_only_by_its_serial_and_one_that_shows_nothing_is_not_used() {
    let mut rack = Rack::start("prove");
    let life = rack.well(&[]);
    let wrong = rack.verb(&["host", "prove", "spare-1", "--serial", "RM6"]);
    let said = rack::text_of(&wrong.stderr);
    assert!(wrong.status.code() == Some(3) && said.contains("serial typed is not this host's"), "{said}");
    let worker = rack.verb(&["host", "prove", "node-3", "--serial", "RM6"]);
    assert!(rack::text_of(&worker.stderr).contains("no spare"), "{}", rack::text_of(&worker.stderr));
    assert!(life.incident("spare-1").is_none());
    // This server has no boot servers, so that no ticket can be opened: the proof ends before the power is touched.
    rack.done(&["host", "prove", "spare-1", "--serial", "RM7"]);
    let incident = life.wait_for_end("spare-1", HEAL);
    assert_eq!((&incident["end"], &incident["diagnosis"]), (&Value::from("unproven"), &Value::from("proof-due")));
    let shown = rack.json(&["host", "show", "spare-1"]);
    let proof = &shown["known"]["spare_proof"];
    assert!(proof["passed"] == false && proof["at"].is_string() && proof["next_due"].is_string(), "{shown}");
    assert_eq!(
        (&shown["summary"]["state"], &shown["summary"]["link"]),
        (&Value::from("spare"), &Value::from("unbound"))
    );
    assert_eq!(rack.powered("spare-1"), (0, 0), "{}", life.log());
    // It is kept.
    rack.done(&["apply", "-f", "rack.yaml"]);
    assert_eq!(rack.json(&["host", "show", "spare-1"])["known"]["spare_proof"]["at"], proof["at"]);
}

#[test]
fn a_drill_cuts_a_cordoned_host_once_by_its_serial_and_leaves_it_cordoned() {
    let mut rack = Rack::start("drill");
    let life = rack.well(&[]);
    // What is not cordoned is not cut, and the host says why
    rack.done(&["host", "drill", "node-3", "--serial", "RM6"]);
    wait_until("the refusal is shown", Duration::from_secs(20), || {
        rack.json(&["host", "show", "node-3"])["known"]["order_refused"]["rule"] == 50
    });
    let wrong = rack.verb(&["host", "drill", "node-3", "--serial", "RM7"]);
    assert_eq!(wrong.status.code(), Some(3), "{}", rack::text_of(&wrong.stderr));
    let plane = rack.verb(&["host", "drill", "cp-1", "--serial", "RM1"]);
    assert!(rack::text_of(&plane.stderr).contains("control plane"), "{}", rack::text_of(&plane.stderr));
    assert_eq!(rack.powered("node-3"), (0, 0));
    // When a person has cordoned it
    rack.cordon("node-3");
    wait_until("the cordon is seen", Duration::from_secs(20), || {
        !rack.json(&["host", "show", "node-3"])["known"]["marks"]["foreign_since"].is_null()
    });
    rack.done(&["host", "drill", "node-3", "--serial", "RM6"]);
    let incident = life.wait_for_end("node-3", HEAL);
    assert_eq!((&incident["end"], &incident["diagnosis"]), (&Value::from("proven"), &Value::from("drill-ordered")));
    assert_eq!(rack.powered("node-3"), (1, 1), "{}", life.log());
    let shown = rack.json(&["host", "show", "node-3"]);
    assert_eq!(shown["known"]["drill"]["passed"], true, "{shown}");
    assert!(shown["known"]["order_refused"].is_null() && shown["known"]["our_cordon"].is_null(), "{shown}");
    assert!(!shown["known"]["marks"]["foreign_since"].is_null(), "it stays cordoned as it was: {shown}");
}

#[test]
fn what_no_bmc_can_prove_a_person_confirms_by_the_serial_and_by_nothing_else() {
    let mut rack = Rack::start("confirm");
    let life = rack.well(&[]);
    rack.ask("break node-3 hang");
    let phase = |life: &Life| {
        let id = life.incident("node-3").map_or(0, |incident| incident["id"].as_u64().unwrap());
        (id, life.get(&format!("/api/v1/incidents/{id}")).1)
    };
    wait_until("its off is ordered", HEAL, || phase(&life).1["plan"]["phase"] == "powering-off");
    // What was ordered at one machine is not read at another.
    let declared = std::fs::read_to_string(rack.folder.0.join("rack.yaml")).unwrap();
    let (others, of_it) = declared.split_once("name: node-3").unwrap();
    let another_card = of_it.replacen("macs: ['", "macs: ['02:00:00:00:00:99', '", 1);
    rack.folder.write("anew.yaml", &format!("{others}name: node-3{another_card}"));
    let refused = rack.verb(&["apply", "-f", "anew.yaml"]);
    let said = rack::text_of(&refused.stderr);
    assert!(refused.status.code() == Some(2) && said.contains("is under way at node-3"), "{said}");
    // Its BMC dies before anybody could read what became of the off.
    rack.ask("break node-3 bmc-dead");
    wait_until("it is unfenced", HEAL, || phase(&life).1["plan"]["phase"] == "unfenced");
    let (id, incident) = phase(&life);
    assert!(incident["summary"]["released_s"].is_null() && incident["proof_of_off"].is_null(), "rule 27: {incident}");
    let number = id.to_string();
    for wrong in ["RM1", "00000000-0000-0000-0000-000000000001"] {
        let refused = rack.verb(&["incident", "confirm-off", &number, "--serial", wrong]);
        let said = rack::text_of(&refused.stderr);
        assert!(refused.status.code() == Some(3) && said.contains("not this host's"), "{wrong}: {said}");
    }
    assert_eq!(phase(&life).1["plan"]["phase"], "unfenced");
    rack.done(&["incident", "confirm-off", &number, "--serial", "RM6"]);
    wait_until("its workloads are released", Duration::from_secs(60), || {
        phase(&life).1["summary"]["released_s"].is_f64()
    });
    assert_eq!(phase(&life).1["proof_of_off"]["witness"], "human");
}

#[test]
fn who_only_observes_and_whose_cluster_is_not_armed_touch_nobody() {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut rack = Rack::start("observe");
            let life = rack.serve(&["--observe-only"]);
            rack.done(&["apply", "-f", "rack.yaml"]);
            rack.done(&["arm", "demo"]);
            nobody_is_touched(&mut rack, &life, |status| status["observe_only"] == "ordered");
        });
        scope.spawn(|| {
            let mut rack = Rack::start("unarmed");
            let life = rack.serve(&[]);
            rack.done(&["apply", "-f", "rack.yaml"]);
            nobody_is_touched(&mut rack, &life, |status| status["clusters"][0]["armed"] == false);
        });
    });
}

fn nobody_is_touched(rack: &mut Rack, life: &Life, so: impl Fn(&Value) -> bool) {
    wait_until("all are linked", Duration::from_secs(120), || {
        let (_, page) = life.get("/api/v1/hosts");
        let linked = |host: &&Value| host["link"] == "linked" && host["state"] == "ready";
        page["items"].as_array().unwrap().iter().filter(linked).count() == 6
    });
    rack.ask("break node-3 hang");
    std::thread::sleep(Duration::from_secs(60));
    assert!(so(&life.get("/api/v1/status").1), "{}", life.get("/api/v1/status").1);
    for one in rack.truth() {
        assert_eq!((&one["offs"], &one["ons"], &one["others"]), (&0.into(), &0.into(), &0.into()), "{}", life.log());
    }
    let incident = life.incident("node-3").unwrap();
    assert!(incident["end"] == "open" && incident["waits"]["sentence"].is_string(), "{incident}");
}

/// Where in a heal it is stopped: the phase that is waited for.
fn stopped_at(phase: &'static str, hard: bool) {
    let name = format!("{phase}-{hard}");
    let mut rack = Rack::start(&name);
    let life = rack.well(&[]);
    rack.ask("break node-3 hang");
    wait_until(phase, Duration::from_secs(90), || {
        let (_, host) = life.get("/api/v1/hosts/node-3");
        let incident = &host["summary"]["incident"];
        incident.is_u64() && life.get(&format!("/api/v1/incidents/{incident}")).1["plan"]["phase"] == phase
    });
    let first = life.log();
    if hard {
        life.kill()
    } else {
        life.terminate()
    }
    let second = rack.serve(&[]);
    let incident = second.wait_for_end("node-3", HEAL);
    let both = format!("stopped in {phase}, hard: {hard}\n{first}\n--- next life\n{}", second.log());
    assert_eq!(incident["end"], "healed", "{both}");
    healed_once(&mut rack, "node-3", &both);
}

#[test]
fn stopped_or_killed_in_the_middle_of_a_heal_it_ends_the_same() {
    std::thread::scope(|scope| {
        for phase in ["suspected", "powering-off", "awaiting-ready"] {
            for hard in [true, false] {
                scope.spawn(move || stopped_at(phase, hard));
            }
        }
    });
}

#[test]
fn systemd_is_told_that_it_is_ready_and_fed_while_the_loop_turns() {
    let rack = Rack::start("notify");
    let path = rack.folder.0.join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let environment = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "1500000")];
    let life = Life::start(&rack.folder.0, &[], &environment);
    let heard = || {
        let mut word = [0; 64];
        let length = systemd.recv(&mut word).unwrap();
        String::from_utf8(word[..length].to_vec()).unwrap()
    };
    assert_eq!(heard(), "READY=1");
    for _ in 0..4 {
        assert_eq!(heard(), "WATCHDOG=1");
    }
    life.terminate();
    assert!((0..6).any(|_| heard() == "STOPPING=1"));
}
