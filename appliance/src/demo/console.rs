//! Commands by hand, a line each.

use super::rack::Rack;
use super::scenario::{FAULTS, Scenario, by_hand};
use clap::ValueEnum;
use std::io::BufRead as _;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Longest line that is taken.
const LINE_MAX: usize = 200;

/// What a line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Word {
    /// Done; this is to be said.
    Said(String),
    /// A story was begun.
    Story(Scenario),
    /// The end.
    Quit,
}

/// Lines of standard input, until it ends.
#[must_use]
pub fn lines() -> mpsc::Receiver<String> {
    let (send, lines) = mpsc::channel(8);
    // A thread of its own: a read of a terminal cannot be given up, and must not keep the process from ending.
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if send.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// Carries out a line. An empty one says nothing.
#[must_use]
pub fn carry_out(line: &str, rack: &Arc<Rack>) -> Word {
    let line: String = line.chars().take(LINE_MAX).collect();
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        [] => Word::Said(String::new()),
        ["quit" | "q" | "exit"] => Word::Quit,
        ["break", host, fault] => match rack.host(host) {
            None => Word::Said(format!("there is no host `{host}`")),
            Some(found) if by_hand(found, fault) => Word::Said(format!("{host}: {fault}")),
            Some(_) => Word::Said(format!("`{fault}` is none; one of: {}", faults())),
        },
        ["switch", number, word @ ("down" | "up")] => match number.parse() {
            Ok(number) => {
                rack.darken(number, *word == "down");
                Word::Said(format!("the switch of rack {number} is {word}"))
            }
            Err(_) => Word::Said(format!("`{number}` is no rack")),
        },
        ["scenario", name] => match Scenario::from_str(name, true) {
            Ok(scenario) => {
                scenario.strike(rack);
                Word::Story(scenario)
            }
            Err(_) => {
                let names: Vec<&str> = Scenario::ALL.iter().map(|one| one.name()).collect();
                Word::Said(format!("`{name}` is no scenario; one of: {}", names.join(" ")))
            }
        },
        _ => Word::Said(format!(
            "break HOST FAULT · switch RACK down|up · scenario NAME · quit. FAULT is one of: {}",
            faults()
        )),
    }
}

fn faults() -> String {
    FAULTS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::super::layout::places;
    use super::*;

    #[tokio::test]
    async fn lines_break_what_they_name_and_nothing_else() {
        let rack = Arc::new(Rack::start(places(3, 0)).await.unwrap());
        assert_eq!(carry_out("break node-2 hang", &rack), Word::Said("node-2: hang".to_owned()));
        assert!(!rack.host("node-2").unwrap().machine(|machine| machine.truth().healthy));
        assert!(matches!(carry_out("break node-9 hang", &rack), Word::Said(text) if text.contains("no host")));
        assert!(matches!(carry_out("break node-1 flood", &rack), Word::Said(text) if text.contains("hang panic")));
        assert!(rack.host("node-1").unwrap().machine(|machine| machine.truth().healthy));
        assert_eq!(carry_out("quit", &rack), Word::Quit);
    }
}
