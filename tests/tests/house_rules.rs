//! House rules as tests: file sizes, licences, links, words that do not belong here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

fn read(file: &Path) -> String {
    std::fs::read_to_string(tests::root().join(file)).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

#[test]
fn no_source_file_is_longer_than_900_lines() {
    let long: Vec<String> = tests::files(".rs")
        .iter()
        .map(|file| (file, read(file).lines().count()))
        .filter(|(_, lines)| *lines > 900)
        .map(|(file, lines)| format!("{} has {lines} lines: split it by idea", file.display()))
        .collect();
    assert_eq!(long, Vec::<String>::new());
}

#[test]
fn every_manifest_carries_the_licence_of_the_workspace() {
    for file in tests::files("Cargo.toml") {
        let text = read(&file);
        if text.contains("[package]") {
            assert!(text.contains("license.workspace = true"), "{}", file.display());
        }
    }
}

/// Relative links of a Markdown text.
fn links(text: &str) -> Vec<String> {
    text.split("](").skip(1).filter_map(|rest| rest.split(')').next()).map(str::to_owned).collect()
}

#[test]
fn every_relative_link_in_the_documents_leads_somewhere() {
    let mut broken = Vec::new();
    for file in tests::files(".md") {
        let folder = tests::root().join(&file).parent().unwrap().to_path_buf();
        for link in links(&read(&file)) {
            let path = link.split('#').next().unwrap_or_default();
            if !path.is_empty() && !path.contains("://") && !folder.join(path).exists() {
                broken.push(format!("{}: {link}", file.display()));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
}

#[test]
fn nothing_names_a_path_of_one_machine() {
    let words = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
    let mut found = Vec::new();
    for ending in [".rs", ".md", ".toml", ".sh", "run"] {
        for file in tests::files(ending) {
            let text = read(&file);
            found.extend(words.iter().filter(|w| text.contains(**w)).map(|w| format!("{}: {w}", file.display())));
        }
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn the_readme_names_its_two_commands() {
    let text = read(Path::new("README.md"));
    assert!(text.contains("cargo run --release -- simulate") && text.contains("tests/run"));
}

#[test]
fn decisions_are_numbered_without_a_gap() {
    let mut numbers: Vec<u32> = tests::files(".md")
        .iter()
        .filter(|file| file.starts_with("docs/decisions"))
        .map(|file| file.file_name().unwrap().to_string_lossy()[..3].parse().unwrap())
        .collect();
    numbers.sort_unstable();
    let expected: Vec<u32> = (1..=u32::try_from(numbers.len()).unwrap()).collect();
    assert_eq!(numbers, expected);
    assert!(!numbers.is_empty());
}
