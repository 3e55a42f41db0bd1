//! What must not be touched, and what the API says about it.

use crate::appliance::declaration;
use crate::rack_of_story::{Power, Scene};
use rack::fault::{self, Fault};
use rack::network::plugged;
use serde_json::Value;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(90);
const BACK: Duration = Duration::from_secs(300);

fn long() -> bool {
    std::env::var_os("RACKMEDIC_LONG").is_some()
}

fn strike(scene: &Scene, host: &str, fault: Fault) {
    fault::apply(&scene.raised.rack, &scene.place(host), fault, &scene.raised.hook).unwrap();
}

/// For so long no BMC is told anything: the time itself is what is asked for.
fn nothing_for(scene: &Scene, what: &str, long: Duration, before: &[Power]) {
    let end = Instant::now() + long;
    while Instant::now() < end {
        assert_eq!(scene.powers(), before, "{what}: a BMC was told something\n{}", scene.appliance().log());
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// The rule with which the API explains why nothing is done for a host.
fn rule(host: &Value) -> u64 {
    host["explanation"]["rule"].as_u64().unwrap_or(0)
}

/// Waits until the API explains a host by this rule, and says the sentence.
fn explained(scene: &Scene, host: &str, by: u64, what: &str) -> Value {
    let shown = scene.appliance().wait(&format!("{host} is explained by rule {by}"), &scene.raised, SOON, || {
        Some(scene.appliance().host(host)).filter(|shown| rule(shown) == by)
    });
    eprintln!("| {what} | 0 power actions | rule {by}: {} |", shown["explanation"]["sentence"]);
    shown
}

pub(crate) fn a_killed_kubelet_is_named_within_six_seconds(scene: &mut Scene) {
    let before = scene.powers();
    let newest = scene.appliance().newest();
    // The clock begins when the shell has begun the line, before the kubelet is dead.
    rack::console::send(&scene.place("n3"), "systemctl kill -s KILL kubelet; systemctl stop kubelet").unwrap();
    let began = Instant::now();
    let incident = scene.appliance().wait("the kubelet is named", &scene.raised, SOON, || {
        let incident = scene.appliance().incident("n3", newest)?;
        let named = incident["diagnosis_now"].as_str().is_some_and(|name| name.starts_with("component-failed(kubelet"));
        named.then_some(incident)
    });
    let took = began.elapsed().as_secs_f64();
    eprintln!("| kubelet killed | named {} after {took:.1} s |", incident["diagnosis_now"]);
    assert!(took <= 6.0, "{took} s: {incident:#}");
    rack::console::shell(&scene.place("n3"), "systemctl start kubelet", Duration::from_secs(30)).unwrap();
    scene.settled();
    assert_eq!(scene.powers(), before, "a dead kubelet costs nobody his power");
}

pub(crate) fn a_reboot_by_somebody_is_left_alone(scene: &mut Scene) {
    let before = scene.powers();
    let diagnosis = reboot(scene, "n2");
    assert_eq!(scene.powers(), before);
    eprintln!("| a plain reboot | 0 power actions | diagnosis {diagnosis} |");
}

/// Somebody reboots it in good order: what it was called meanwhile.
fn reboot(scene: &mut Scene, host: &str) -> Value {
    let old = scene.raised.boot_id(host).unwrap();
    let newest = scene.appliance().newest();
    strike(scene, host, Fault::Reboot);
    // An emulated host takes its time to shut down.
    let incident = scene.appliance().wait("it is seen that it reboots", &scene.raised, BACK, || {
        let incident = scene.appliance().incident(host, newest)?;
        (incident["diagnosis_now"] == "rebooting" || incident["summary"]["diagnosis"] == "rebooting")
            .then_some(incident)
    });
    scene
        .appliance()
        .wait("it is back", &scene.raised, BACK, || scene.raised.boot_id(host).ok().filter(|boot| *boot != old));
    scene.settled();
    incident["diagnosis_now"].clone()
}

pub(crate) fn a_host_that_a_person_cordoned_is_left_alone(scene: &mut Scene) {
    let before = scene.powers();
    scene.raised.control.kubectl(&["cordon", "n3"]).unwrap();
    strike(scene, "n3", Fault::Freeze);
    explained(scene, "n3", 50, "cordoned by a person, then frozen");
    nothing_for(scene, "cordoned by a person", Duration::from_secs(30), &before);
    strike(scene, "n3", Fault::Mend);
    scene.raised.control.kubectl(&["uncordon", "n3"]).unwrap();
    scene.settled();
    assert_eq!(scene.powers(), before);
}

pub(crate) fn an_api_that_is_down_moves_nobody(scene: &mut Scene) {
    let before = scene.powers();
    scene.raised.control.stop_api_server();
    let down = Duration::from_secs(if long() { 300 } else { 60 });
    nothing_for(scene, "the API server is down", down, &before);
    let api = scene.appliance().get("/api/v1/status")["clusters"][0]["api"].clone();
    scene.raised.control.start_api_server().unwrap();
    scene.settled();
    assert_eq!(scene.powers(), before);
    assert_eq!(api["explanation"]["rule"], 7, "{api}");
    assert!(api["unreachable_s"].as_u64().is_some_and(|away| away + 30 >= down.as_secs()), "{api}");
    eprintln!("| the API server was down for {} s | 0 power actions | {} |", down.as_secs(), api["explanation"]);
}

pub(crate) fn a_cut_uplink_is_blindness(scene: &mut Scene) {
    let before = scene.powers();
    plugged(&scene.raised.rack, "appliance", false).unwrap();
    scene.appliance().wait("it says that it is blind", &scene.raised, SOON, || {
        (scene.appliance().get("/api/v1/status")["blind"] == true).then_some(())
    });
    nothing_for(scene, "the uplink is cut", Duration::from_secs(60), &before);
    let shown = scene.appliance().get("/api/v1/hosts");
    plugged(&scene.raised.rack, "appliance", true).unwrap();
    scene.settled();
    assert_eq!(scene.powers(), before);
    eprintln!("| the appliance's uplink was cut | 0 power actions | blind; {} |", shown["items"][0]["explanation"]);
}

pub(crate) fn a_dark_switch_is_an_outage_of_its_domain(scene: &mut Scene) {
    let before = scene.powers();
    for host in ["n1", "n2"] {
        strike(scene, host, Fault::LinkDown);
    }
    for host in ["n1", "n2"] {
        explained(scene, host, 5, "both hosts of a switch are cut");
    }
    // Less than the wait of rule 5, after which one of them may be tried.
    let dark = Duration::from_secs(if long() { 600 } else { 15 });
    nothing_for(scene, "a switch is dark", dark, &before);
    eprintln!("| all hosts of a switch were cut for {} s | 0 power actions |", dark.as_secs());
    for host in ["n1", "n2"] {
        plugged(&scene.raised.rack, &scene.place(host).tap(), true).unwrap();
    }
    scene.settled();
    assert_eq!(scene.powers(), before);
}

pub(crate) fn swapped_bmcs_are_noticed(scene: &mut Scene) {
    let before = scene.powers();
    let (first, second) = (scene.place("n1"), scene.place("n2"));
    let swapped = declaration(&scene.raised, &|host| match host.number {
        1 => second.bmc_address().to_string(),
        2 => first.bmc_address().to_string(),
        _ => host.bmc_address().to_string(),
    });
    std::fs::write(scene.folder.join("swapped.yaml"), swapped).unwrap();
    scene.appliance().done(&["apply", "-f", "swapped.yaml"]);
    scene.appliance().wait("it is seen that the BMC is another machine's", &scene.raised, SOON, || {
        (scene.appliance().host("n1")["link"] != "linked").then_some(())
    });
    strike(scene, "n1", Fault::Freeze);
    explained(scene, "n1", 29, "BMCs swapped, then frozen");
    nothing_for(scene, "the BMCs are swapped", Duration::from_secs(45), &before);
    strike(scene, "n1", Fault::Mend);
    scene.appliance().done(&["apply", "-f", "rack.yaml"]);
    scene.settled();
    assert_eq!(scene.powers(), before);
}

pub(crate) fn a_bmc_that_obeys_in_words_alone_leaves_it_unfenced(scene: &mut Scene) {
    let place = scene.place("n3");
    // It turned bad in chapters before: on a fast machine that is flapping, whose power a person must approve (rule 8).
    scene.appliance().done(&["host", "return", "n3"]);
    let before = Power::of(&place);
    let pods = scene.raised.get("pods --field-selector spec.nodeName=n3").unwrap()["items"].as_array().unwrap().len();
    let newest = scene.appliance().newest();
    strike(scene, "n3", Fault::BmcNoEffect);
    strike(scene, "n3", Fault::Freeze);
    let incident = scene.appliance().wait("it is unfenced", &scene.raised, Duration::from_secs(240), || {
        scene.appliance().incident("n3", newest).filter(|incident| incident["plan"]["phase"] == "unfenced")
    });
    let end = Instant::now() + Duration::from_secs(30);
    while Instant::now() < end {
        let now = Power::of(&place);
        let (off, on) = (now.told_off - before.told_off, now.told_on - before.told_on);
        assert_eq!((off, on, now.told_else - before.told_else), (1, 0, 0), "{}", scene.appliance().log());
        let taints = scene.raised.get("node n3").unwrap()["spec"]["taints"].to_string();
        assert!(!taints.contains("out-of-service"), "{taints}");
        let now =
            scene.raised.get("pods --field-selector spec.nodeName=n3").unwrap()["items"].as_array().unwrap().len();
        assert_eq!(now, pods, "nothing is released before the proof");
        std::thread::sleep(Duration::from_secs(1));
    }
    eprintln!("| success without effect | one off, nothing released | {} |", incident["waits"]["why"]);
    strike(scene, "n3", Fault::Mend);
    scene.settled();
}

pub(crate) fn a_bmc_that_says_off_of_a_living_host_moves_nobody(scene: &mut Scene) {
    let before = scene.powers();
    strike(scene, "n2", Fault::BmcSaysOff);
    scene.appliance().wait("the BMC's word is seen", &scene.raised, SOON, || {
        (scene.appliance().host("n2")["power"] == "off").then_some(())
    });
    nothing_for(scene, "a BMC says off of a living host", Duration::from_secs(30), &before);
    let shown = scene.appliance().host("n2");
    strike(scene, "n2", Fault::Mend);
    scene.settled();
    assert_eq!(scene.powers(), before);
    eprintln!("| a BMC said off of a living host | 0 power actions | {shown} |");
}
