//! `docs/SAFETY.md` and the table of rules are one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use sim::rule_table::{RULES, markdown, path};
use std::path::Path;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().parent().unwrap()
}

#[test]
fn all_sixty_rules_stand_in_order() {
    let numbers: Vec<u8> = RULES.iter().map(|info| info.rule.0).collect();
    assert_eq!(numbers, (1..=60).collect::<Vec<u8>>());
}

#[test]
fn the_document_shows_the_table() {
    let file = root().join("docs/SAFETY.md");
    let text = std::fs::read_to_string(&file).unwrap();
    let (before, rest) = text.split_once("<!-- table -->\n").expect("the table's begin is marked");
    let (shown, after) = rest.split_once("<!-- end of table -->").expect("the table's end is marked");
    if std::env::var_os("RACKMEDIC_UPDATE").is_some() {
        let fresh = format!("{before}<!-- table -->\n{}<!-- end of table -->{after}", markdown());
        std::fs::write(&file, fresh).unwrap();
        return;
    }
    assert_eq!(shown, markdown(), "run this test with RACKMEDIC_UPDATE=1 and read the difference");
}

#[test]
fn every_place_in_the_table_exists() {
    let places = RULES.iter().flat_map(|info| [info.enforced, info.checked]).filter(|p| !p.is_empty());
    let missing: Vec<String> = places.map(path).filter(|p| !root().join(p).exists()).collect();
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn every_rule_of_core_and_steps_is_asked_for_in_the_code_that_enforces_it() {
    // A switch that no code asks about would break nothing.
    let mut sources = String::new();
    let mut folders = vec![root().join("appliance/core/src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() { folders.push(path) } else { sources.push_str(&std::fs::read_to_string(path).unwrap()) }
        }
    }
    for info in RULES.iter().filter(|info| info.has_switch()) {
        let n = info.rule.0;
        let asked =
            [format!("enforces({n})"), format!("enforces(Rule({n}))"), format!("enforces(crate::rules::Rule({n}))")];
        let by_variable = [45, 46, 47, 48, 17, 52].contains(&n);
        assert!(by_variable || asked.iter().any(|a| sources.contains(a.as_str())), "no switch for rule {n}");
    }
}
