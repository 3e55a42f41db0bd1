//! Resources of Redfish: bounded before they are read, and no walk through them fails.
#![no_main]

use bmc::redfish::{Walk, parse};
use libfuzzer_sys::fuzz_target;

fn all(walk: Walk<'_>, depth: usize) {
    assert!(depth <= 70, "deeper than it may be");
    let _ = (walk.text(), walk.flag(), walk.id(), walk.is_some());
    assert!(walk.number().is_none_or(f64::is_finite));
    for item in walk.items() {
        all(item, depth + 1);
    }
    for (_, member) in walk.members() {
        all(member, depth + 1);
    }
}

fuzz_target!(|data: &[u8]| {
    if let Ok(value) = parse(data) {
        all(Walk::of(&value), 0);
        let walk = Walk::of(&value);
        let _ = walk.at(&["Actions", "#ComputerSystem.Reset", "target"]).text();
        let _ = walk.get("Members").items().filter_map(Walk::id).count();
    }
});
