//! A host whose disk is empty: named by its own request to boot, installed by the network, and a Node again.

use crate::drilled::drill;
use crate::rack_of_story::{Power, Scene};
use rack::fault::{self, Fault};
use serde_json::json;
use std::time::Duration;

/// A heal with an installation under software emulation.
const INSTALL: Duration = Duration::from_secs(900);

pub(crate) fn a_wiped_host_is_installed_and_joins_again(scene: &mut Scene) {
    if !scene.folder.join("boot.toml").exists() {
        eprintln!("not run: the folder of RACKMEDIC_RACK_IMAGE has no boot set (tests/rack/image with an installer)");
        return;
    }
    let victim = "n2";
    let place = scene.place(victim);
    // Given a host of which a boot was watched, from its power on: it asks the network after its disk, not before
    if scene.appliance().host(victim)["boot_order"] != "disk-first" {
        scene.raised.control.kubectl(&["cordon", victim]).unwrap();
        drill(scene, victim, "RM2");
        scene.raised.control.kubectl(&["uncordon", victim]).unwrap();
        scene.settled();
        assert_eq!(scene.appliance().host(victim)["boot_order"], "disk-first");
    }
    let before = Power::of(&place);
    let node = scene.raised.get(&format!("node {victim}")).unwrap();
    let (uid, boot) = (node["metadata"]["uid"].clone(), node["status"]["nodeInfo"]["bootID"].clone());
    let label = format!("node/{victim}");
    scene.raised.control.kubectl(&["label", &label, "site.example/shelf=7"]).unwrap();
    let newest = scene.appliance().newest();
    // When the beginning of its disk is gone and something restarts it
    fault::apply(&scene.raised.rack, &place, Fault::DiskWiped, &scene.raised.hook).unwrap();
    rack::qmp::command(&place.qmp(), "system_reset", json!({})).unwrap();
    // Then it is known for what it is before anybody touches it
    let named = scene.appliance().wait("its empty disk is named", &scene.raised, Duration::from_secs(180), || {
        let incident = scene.appliance().incident(victim, newest)?;
        incident["diagnosis_now"].as_str().is_some_and(|name| name.starts_with("boot-failed")).then_some(incident)
    });
    eprintln!("| wiped disk | named {} |", named["diagnosis_now"]);
    let mut approved = false;
    let incident = scene.appliance().wait("the incident ends", &scene.raised, INSTALL, || {
        let incident = scene.appliance().incident(victim, newest)?;
        // After the chapters before this one it may have turned bad too often for anything but a person's word (rule 8).
        if !approved && incident["waits"]["why"]["rule"] == 8 {
            let (id, rung) = (incident["summary"]["id"].to_string(), incident["summary"]["rung"].as_str().unwrap());
            scene.appliance().done(&["incident", "approve", &id, "--rung", rung]);
            approved = true;
        }
        (incident["summary"]["end"] != "open").then_some(incident)
    });
    // And it is a Node of the same name, with its label, from its own disk
    let summary = &incident["summary"];
    assert_eq!(summary["end"], "healed", "{incident:#}\n{}", scene.appliance().log());
    let node = scene.raised.get(&format!("node {victim}")).unwrap();
    assert_ne!(node["metadata"]["uid"], uid, "it is another Node of that name");
    assert_ne!(node["status"]["nodeInfo"]["bootID"], boot);
    assert_eq!(node["metadata"]["labels"]["site.example/shelf"], "7", "what people gave it is given back");
    assert!(node["spec"]["unschedulable"].is_null() && node["spec"]["taints"].is_null(), "{}", node["spec"]);
    let after = Power::of(&place);
    let ordered =
        (after.told_off - before.told_off, after.told_on - before.told_on, after.told_else - before.told_else);
    assert_eq!(ordered, (2, 2, 0), "off and on into the installer, off and on into its disk: {after:?}");
    eprintln!("| wiped disk, seconds from its last sign of life | {} |", crate::stuck::line(summary));
    for stage in incident["boot"].as_array().map(Vec::as_slice).unwrap_or_default() {
        eprintln!("|  {stage} |");
    }
    let jobs = scene.folder.join("boot/jobs");
    for entry in std::fs::read_dir(jobs).unwrap().filter_map(Result::ok) {
        if entry.path().extension().is_some_and(|extension| extension == "log") {
            let log = std::fs::read_to_string(entry.path()).unwrap();
            eprintln!(
                "{}",
                log.lines().rev().take(12).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
            );
        }
    }
    scene.settled();
}
