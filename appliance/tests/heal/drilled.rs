//! A drill: the power of a host that is well, cut by order of a person who has cordoned and drained it.

use crate::rack_of_story::{Power, Scene};
use crate::stuck::line;
use serde_json::Value;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(90);
/// One boot under software emulation.
const DRILL: Duration = Duration::from_secs(400);

fn known(scene: &Scene, host: &str) -> Value {
    scene.appliance().get(&format!("/api/v1/hosts/{host}"))["known"].clone()
}

/// Drills a host that was cordoned just now, to the end: its incident.
pub(crate) fn drill(scene: &mut Scene, host: &str, serial: &str) -> Value {
    let newest = scene.appliance().newest();
    scene.appliance().wait("the cordon is seen", &scene.raised, SOON, || {
        (!known(scene, host)["marks"]["foreign_since"].is_null()).then_some(())
    });
    scene.appliance().done(&["host", "drill", host, "--serial", serial]);
    scene.appliance().wait("the drill ends", &scene.raised, DRILL, || {
        scene.appliance().incident(host, newest).filter(|incident| incident["summary"]["end"] != "open")
    })
}

pub(crate) fn a_drill_of_a_drained_host(scene: &mut Scene) {
    let place = scene.place("n3");
    let (before, old_boot) = (Power::of(&place), scene.raised.boot_id("n3").unwrap());
    // What nobody cordoned is not cut, nor what has another serial.
    scene.appliance().done(&["host", "drill", "n3", "--serial", "RM3"]);
    scene.appliance().wait("the drill is refused", &scene.raised, SOON, || {
        (known(scene, "n3")["order_refused"]["rule"] == 50).then_some(())
    });
    let (accepted, said) = scene.appliance().verb(&["host", "drill", "n3", "--serial", "RM2"]);
    assert!(!accepted && !said.is_empty(), "{said}");
    assert_eq!(Power::of(&place), before);
    // When a person has taken its pods away and orders it
    let drain = ["drain", "n3", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=240s"];
    scene.raised.control.kubectl(&drain).unwrap();
    let incident = drill(scene, "n3", "RM3");
    // Then it was off and on once, is Ready by a new boot, and cordoned as it was
    let summary = &incident["summary"];
    assert_eq!((&summary["end"], &summary["diagnosis"]), (&"proven".into(), &"drill-ordered".into()), "{incident:#}");
    let after = Power::of(&place);
    let ordered =
        (after.told_off - before.told_off, after.told_on - before.told_on, after.told_else - before.told_else);
    assert_eq!(ordered, (1, 1, 0), "{after:?}");
    assert_eq!((after.went_off - before.went_off, after.went_on - before.went_on), (1, 1));
    assert_ne!(scene.raised.boot_id("n3").unwrap(), old_boot);
    let node = scene.raised.get("node n3").unwrap();
    assert_eq!(node["spec"]["unschedulable"], true, "{}", node["spec"]);
    assert!(!node["spec"]["taints"].to_string().contains("out-of-service"), "{}", node["spec"]);
    assert_eq!(known(scene, "n3")["drill"]["passed"], true);
    eprintln!("| a drill, seconds from its order | {} |", line(summary));
    scene.raised.control.kubectl(&["uncordon", "n3"]).unwrap();
    scene.spread();
}
