//! A host whose processors stand still: healed end to end, with the seconds of each stage from the recorder.

use crate::appliance::wait_some;
use crate::rack_of_story::{Power, Scene};
use rack::fault::{self, Fault};
use rack::raised::Raised;
use serde_json::Value;
use std::time::{Duration, Instant};

/// A heal under software emulation, on a machine that does other things besides.
/// Most of it, at the waits that sites have, is the soak of five minutes after Ready.
const HEAL: Duration = Duration::from_secs(900);
const STAGES: [&str; 8] =
    ["detected_s", "confirmed_s", "proven_off_s", "released_s", "powered_on_s", "booted_s", "ready_s", "healed_s"];

pub(crate) fn a_frozen_host_is_healed_end_to_end(scene: &mut Scene) {
    // Given a host with a pod of a Deployment and the pod of a StatefulSet
    let victim = scene.node_of_db();
    let place = scene.place(&victim);
    let (before, old_boot) = (Power::of(&place), scene.raised.boot_id(&victim).unwrap());
    assert!(scene.raised.running("app=web").unwrap().iter().any(|(_, node)| *node == victim));
    let newest = scene.appliance().newest();
    // When its processors stand still
    let began = Instant::now();
    fault::apply(&scene.raised.rack, &place, Fault::Freeze, &scene.raised.hook).unwrap();
    let mut elsewhere: [Option<f64>; 2] = [None, None];
    let incident = scene.appliance().wait("the incident ends", &scene.raised, HEAL, || {
        let incident = scene.appliance().incident(&victim, newest)?;
        let looks = if incident["released"] == true { &mut elsewhere[..] } else { &mut [] };
        for ((selector, wanted), at) in [("app=web", 3), ("app=db", 1)].iter().zip(looks) {
            let moved =
                |pods: Vec<(String, String)>| pods.iter().filter(|(_, node)| *node != victim).count() == *wanted;
            if at.is_none() && scene.raised.running(selector).is_ok_and(moved) {
                *at = Some(began.elapsed().as_secs_f64());
            }
        }
        (incident["summary"]["end"] != "open").then_some(incident)
    });
    // Then it is healed, by one off and one on at its BMC
    healed(scene, &victim, &incident, before, &old_boot);
    let summary = &incident["summary"];
    eprintln!("| stuck host, seconds from its last sign of life | {} |", line(summary));
    let [web, db] = elsewhere.map(|at| at.expect("the pods ran elsewhere before the host was back"));
    eprintln!("| its pods run elsewhere, seconds from the freeze | Deployment {web:.1}, StatefulSet {db:.1} |");
    scene.spread();
}

/// The seconds of a heal in one line.
pub(crate) fn line(summary: &Value) -> String {
    let stages = STAGES.map(|stage| format!("{} {}", stage.trim_end_matches("_s"), summary[stage]));
    stages.join(", ")
}

fn healed(scene: &Scene, victim: &str, incident: &Value, before: Power, old_boot: &str) {
    let summary = &incident["summary"];
    assert_eq!(summary["end"], "healed", "{incident:#}\n{}", scene.appliance().log());
    let stages = STAGES.map(|stage| summary[stage].as_f64().unwrap_or_else(|| panic!("{stage}: {incident:#}")));
    assert!(stages.is_sorted(), "each stage comes after the one before it: {summary}");
    let after = Power::of(&scene.place(victim));
    let ordered =
        (after.told_off - before.told_off, after.told_on - before.told_on, after.told_else - before.told_else);
    assert_eq!(ordered, (1, 1, 0), "one off and one on at the BMC: {after:?}");
    assert_eq!((after.went_off - before.went_off, after.went_on - before.went_on), (1, 1));
    let node = scene.raised.get(&format!("node {victim}")).unwrap();
    assert_ne!(node["status"]["nodeInfo"]["bootID"], old_boot, "it runs a new boot");
    assert!(node["spec"]["unschedulable"].is_null(), "our cordon is gone: {}", node["spec"]);
    assert!(node["spec"]["taints"].is_null(), "our taint is gone: {}", node["spec"]);
    assert!(scene.raised.is_ready(victim));
}

/// The server is killed when the heal has come to a phase, and started again; it ends the same, without a doubled order.
pub(crate) fn a_killed_appliance_ends_the_same(scene: &mut Scene) {
    for (phase, victim) in [("suspected", "n1"), ("powering-off", "n2"), ("awaiting-ready", "n3")] {
        let place = scene.place(victim);
        // What it turned bad in before is another chapter's (rule 8).
        scene.appliance().done(&["host", "return", victim]);
        let (before, old_boot) = (Power::of(&place), scene.raised.boot_id(victim).unwrap());
        let newest = scene.appliance().newest();
        fault::apply(&scene.raised.rack, &place, Fault::Freeze, &scene.raised.hook).unwrap();
        scene.appliance().wait(phase, &scene.raised, HEAL, || {
            scene.appliance().incident(victim, newest).filter(|incident| incident["plan"]["phase"] == phase)
        });
        scene.appliance.take().unwrap().kill();
        scene.restart();
        let incident = scene.appliance().wait("the incident ends", &scene.raised, HEAL, || {
            scene.appliance().incident(victim, newest).filter(|incident| incident["summary"]["end"] != "open")
        });
        assert_eq!(incident["summary"]["end"], "healed", "killed in {phase}: {incident:#}");
        healed_without_doubles(scene, victim, before, &old_boot);
        eprintln!("| killed in {phase} | {} |", line(&incident["summary"]));
        scene.settled();
    }
}

fn healed_without_doubles(scene: &Scene, victim: &str, before: Power, old_boot: &str) {
    let after = Power::of(&scene.place(victim));
    let ordered =
        (after.told_off - before.told_off, after.told_on - before.told_on, after.told_else - before.told_else);
    assert_eq!(ordered, (1, 1, 0), "one off and one on at the BMC: {after:?}");
    assert_ne!(scene.raised.boot_id(victim).unwrap(), old_boot);
}

/// The same freeze without the appliance. Pods of a Deployment run elsewhere when their toleration of five minutes is over; that
/// of a StatefulSet waits for a host that nobody switches off.
pub(crate) fn kubernetes_alone(raised: &Raised) {
    let all_run = || {
        let web = raised.running("app=web").ok().filter(|pods| pods.len() == 3)?;
        raised.running("app=db").ok().filter(|pods| pods.len() == 1).map(|db| (web, db))
    };
    let patient = |what: &str, limit: u64, is_so: &mut dyn FnMut() -> bool| {
        wait_some(what, Duration::from_secs(limit), || {
            std::thread::sleep(Duration::from_secs(1));
            is_so().then_some(())
        });
    };
    patient("all pods run", 240, &mut || all_run().is_some());
    let victim = all_run().unwrap().1[0].1.clone();
    let place = raised.host(&victim).unwrap().clone();
    let began = Instant::now();
    fault::apply(&raised.rack, &place, Fault::Freeze, &raised.hook).unwrap();
    patient("the Node is NotReady", 180, &mut || !raised.is_ready(&victim));
    let not_ready = began.elapsed().as_secs_f64();
    let elsewhere = |selector: &str| {
        raised.running(selector).map_or(0, |pods| pods.iter().filter(|(_, node)| *node != victim).count())
    };
    patient("the pods of the Deployment run elsewhere", 600, &mut || elsewhere("app=web") == 3);
    let web = began.elapsed().as_secs_f64();
    // Its old pod is marked to be deleted by now, and nobody there does it.
    let db = raised.get("pod db-0").unwrap();
    assert_eq!(db["spec"]["nodeName"], victim.as_str(), "{db:#}");
    assert_eq!(elsewhere("app=db"), 0);
    eprintln!(
        "| Kubernetes alone, seconds from the freeze | NotReady {not_ready:.1}, Deployment elsewhere {web:.1}, StatefulSet not until the host is back |"
    );
    assert_eq!(Power::of(&place).told_off, 0);
}
