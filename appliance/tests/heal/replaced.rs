//! A host that nothing starts any more: a spare that was proven takes its place, installed by the network and joined by kubeadm.

use crate::rack_of_story::{Power, Scene};
use rack::fault::{self, Fault};
use serde_json::Value;
use std::time::Duration;

/// One boot into the installer and the look around there, under software emulation.
const PROOF: Duration = Duration::from_secs(600);
/// A cycle without effect to the end of its boot budget, an installation, two boots, and a join.
const SWAP: Duration = Duration::from_secs(1500);
const STAGES: [&str; 4] = ["detected_s", "confirmed_s", "proven_off_s", "released_s"];

pub(crate) fn a_dead_host_is_replaced_by_a_spare(scene: &mut Scene) {
    if !scene.folder.join("boot.toml").exists() {
        eprintln!("not run: the folder of RACKMEDIC_RACK_IMAGE has no boot set (tests/rack/image with an installer)");
        return;
    }
    let spare = scene.place("n3");
    spare_is_proven(scene);
    let proven = Power::of(&spare);
    assert_eq!((proven.told_off, proven.told_on), (1, 1), "one boot to prove it: {proven:?}");
    assert!(!spare.is_on());

    // A host that falls silent within 15 s of our off of another one is an identity alarm (rule 29), and rightly so.
    std::thread::sleep(Duration::from_secs(20));

    // When a host dies for good
    let victim = scene.node_of_db();
    let survivor = if victim == "n1" { "n2" } else { "n1" };
    let place = scene.place(&victim);
    let (before, alive) = (Power::of(&place), Power::of(&scene.place(survivor)));
    let newest = scene.appliance().newest();
    fault::apply(&scene.raised.rack, &place, Fault::Dead, &scene.raised.hook).unwrap();
    let incident = scene.appliance().wait("its place is taken", &scene.raised, SWAP, || {
        scene.raised.approve_serving();
        scene.appliance().incident(&victim, newest).filter(|incident| incident["summary"]["end"] != "open")
    });

    // Then it is proven off and stays off, the spare is a Node, and the pods run
    let summary = &incident["summary"];
    assert_eq!(summary["end"], "replaced", "{incident:#}\n{}", scene.appliance().log());
    let stages = STAGES.map(|stage| summary[stage].as_f64().unwrap_or_else(|| panic!("{stage}: {incident:#}")));
    assert!(stages.is_sorted(), "{summary}");
    eprintln!("| dead host, seconds from its last sign of life | {} |", crate::stuck::line(summary));
    assert!(scene.raised.get(&format!("node {victim}")).is_err(), "the Node of the dead host is gone");
    assert!(scene.raised.is_ready("n3"));
    let now = Power::of(&place);
    // The ladder of a dead kernel has two power cycles; then it is switched off for good.
    assert_eq!((now.told_off - before.told_off, now.told_on - before.told_on), (3, 2), "{now:?}");
    let now = Power::of(&spare);
    let ordered = (now.told_off - proven.told_off, now.told_on - proven.told_on, now.told_else);
    assert_eq!(ordered, (1, 2, 0), "on into the installer, off, on into its disk: {now:?}");
    assert_eq!(Power::of(&scene.place(survivor)), alive, "nobody else was touched");
    let taken = scene.appliance().wait("the spare's own incident ends", &scene.raised, PROOF, || {
        scene.appliance().incident("n3", newest).filter(|incident| incident["summary"]["end"] != "open")
    });
    assert_eq!(taken["summary"]["end"], "healed", "{taken:#}");
    eprintln!("| the spare in its place | {} |", crate::stuck::line(&taken["summary"]));
    scene.appliance().wait("all pods run on the two that are left", &scene.raised, PROOF, || {
        let on = |selector: &str| scene.raised.running(selector).ok();
        let (web, db) = (on("app=web")?, on("app=db")?);
        (web.len() == 3 && db.len() == 1 && web.iter().chain(&db).all(|(_, node)| *node != victim)).then_some(())
    });
    let dead = scene.appliance().host(&victim);
    assert_eq!((&dead["state"], &dead["explanation"]["rule"]), (&"quarantined".into(), &43.into()), "{dead:#}");
    eprintln!("| the dead host | {} |", dead["explanation"]);
}

/// The first boot of a machine that is not linked yet is ordered by somebody who stands before it.
fn spare_is_proven(scene: &Scene) {
    scene.appliance().done(&["host", "prove", "n3", "--serial", "RM3"]);
    let shown: Value = scene.appliance().wait("the spare is proven", &scene.raised, PROOF, || {
        let host = scene.appliance().get("/api/v1/hosts/n3");
        let passed = host["known"]["spare_proof"]["passed"] == true;
        let over = host["summary"]["incident"].is_null();
        (passed && over).then_some(host)
    });
    assert_eq!(shown["summary"]["link"], "linked", "{shown:#}");
    eprintln!("| a spare proven | {} |", shown["known"]["spare_proof"]);
}
