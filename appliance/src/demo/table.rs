//! The rack for people: a live table in a terminal, plain lines elsewhere.

use crate::decide_loop::{HostView, Views};
use crate::server::chronicle::name_of;
use healing::assess::{BmcState, LeaseState, NetworkState};
use healing::signal::Power;
use healing::world::host::Role;
use healing::world::incident::Incident;
use std::io::{IsTerminal, Write as _};
use std::sync::Arc;

/// Hosts shown one by one; of more only those that are ill.
const ROWS_MAX: usize = 16;
/// Columns drawn when the terminal does not tell.
const COLUMNS: usize = 80;

/// How the table is drawn.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// Escape sequences may be used to draw over what was drawn.
    pub live: bool,
    /// Colours may be used.
    pub colour: bool,
    /// Width.
    pub columns: usize,
}

impl Style {
    /// What standard error allows: nothing but plain lines if it is no terminal, no colour under `NO_COLOR`.
    #[must_use]
    pub fn of_terminal(headless: bool) -> Style {
        let terminal = std::io::stderr().is_terminal();
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        let columns = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok()).unwrap_or(COLUMNS);
        Style {
            live: terminal && !headless && !dumb,
            colour: terminal && !no_colour && !dumb,
            columns: columns.clamp(60, 200),
        }
    }

    fn paint(self, text: &str, code: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// What is told beside the hosts.
#[derive(Debug, Clone, Default)]
pub struct Around {
    /// The line on top.
    pub title: String,
    /// The newest sentences, oldest first.
    pub told: Vec<String>,
    /// Pods that run, and that are wanted.
    pub pods: (usize, usize),
    /// Running time now, milliseconds.
    pub now_ms: u64,
}

/// The lines of the table.
#[must_use]
pub fn lines(views: &Views, around: &Around, style: Style) -> Vec<String> {
    let hosts = views.hosts();
    let ill = |view: &Arc<HostView>| view.incident.is_some() || (view.host.serves() && !view.host.ready());
    let (all, bad) = (hosts.len(), hosts.iter().filter(|view| ill(view)).count());
    let mut lines = vec![style.paint(&cut(&around.title, style.columns), "1")];
    let site = views.site();
    let state = match (&site.power_freeze, &site.observe_only, site.paused, site.blind_since) {
        (Some(why), ..) => style.paint(&format!("power frozen: {}", why.sentence), "31;1"),
        (_, Some(only), ..) => style.paint(&format!("only observing: {only:?}"), "33"),
        (_, _, true, _) => style.paint("paused", "33"),
        (.., Some(_)) => style.paint("blind", "33"),
        _ => style.paint("armed", "32"),
    };
    let (running, wanted) = around.pods;
    lines.push(format!("{all} hosts, {bad} not well · pods {running}/{wanted} running · {state}"));
    lines.push(String::new());
    let head = format!("{:<9}{:<13}{:<9}{:<10}{:<12}{}", "HOST", "NETWORK", "LEASE", "NODE", "POWER", "WHAT");
    lines.push(style.paint(&head, "2"));
    for view in hosts.iter().filter(|view| all <= ROWS_MAX || ill(view)).take(ROWS_MAX * 2) {
        lines.extend(row(view, around.now_ms, style));
    }
    lines.push(String::new());
    lines.extend(around.told.iter().map(|told| cut(told, style.columns)));
    lines
}

fn row(view: &HostView, now_ms: u64, style: Style) -> Vec<String> {
    let seen = &view.host.assessment;
    let spare = view.host.role == Role::Spare;
    let network = match seen.network {
        NetworkState::Unknown => ("-", ""),
        NetworkState::Alive => ("alive", "32"),
        NetworkState::KernelOnly => ("kernel only", "33"),
        NetworkState::ProcessDead => ("port refuses", "33"),
        NetworkState::Silent if spare => ("silent", ""),
        NetworkState::Silent => ("silent", "31"),
    };
    let lease = match seen.lease {
        LeaseState::Never => ("-", ""),
        LeaseState::Fresh => ("fresh", "32"),
        LeaseState::Late => ("late", "33"),
        LeaseState::Stale => ("stale", "33"),
        LeaseState::Overdue => ("overdue", "31"),
        LeaseState::Expired => ("expired", "31"),
    };
    let node = match seen.node {
        None => ("-".to_owned(), ""),
        Some(node) => {
            let (word, code) = match node.ready {
                Some(true) => ("Ready", "32"),
                Some(false) => ("NotReady", "33"),
                None => ("Unknown", "31"),
            };
            (if node.cordoned { format!("{word}*") } else { word.to_owned() }, code)
        }
    };
    let power = match (seen.bmc, seen.power) {
        (BmcState::Trouble(trouble), _) => (format!("bmc {trouble:?}").to_lowercase(), "33"),
        (_, Power::On) => ("on".to_owned(), "32"),
        (_, Power::Off) => ("off".to_owned(), if spare { "" } else { "31" }),
        (_, Power::Transitioning) => ("changing".to_owned(), "33"),
        (_, Power::Unknown) => ("?".to_owned(), ""),
    };
    let what = match (&view.incident, spare) {
        (Some(incident), _) => stage(incident),
        (None, true) => "spare".to_owned(),
        (None, false) if view.host.ready() => String::new(),
        (None, false) => "not well".to_owned(),
    };
    let cell = |text: &str, code: &str, width: usize| {
        let text = cut(text, width - 1);
        let room = width - text.chars().count();
        let painted = if code.is_empty() { text } else { style.paint(&text, code) };
        format!("{painted}{}", " ".repeat(room))
    };
    let mut line = cell(&view.host.name, "", 9);
    line += &cell(network.0, network.1, 13);
    line += &cell(lease.0, lease.1, 9);
    line += &cell(&node.0, node.1, 10);
    line += &cell(&power.0, power.1, 12);
    line += &cut(&what, style.columns.saturating_sub(53));
    let mut lines = vec![line];
    if let Some(why) = why(view, now_ms) {
        lines.push(style.paint(&cut(&format!("         └ {why}"), style.columns), "2"));
    }
    lines
}

/// What is wrong, and where its healing stands.
fn stage(incident: &Incident) -> String {
    let words = name_of_phase(&format!("{:?}", incident.phase));
    format!("{}: {words}", name_of(incident.diagnosis))
}

/// Why it stands there, with the rule, and for how long.
fn why(view: &HostView, now_ms: u64) -> Option<String> {
    let incident = view.incident.as_ref()?;
    let said = view.explanation.as_ref().or(incident.wait.as_ref().map(|wait| &wait.why));
    let since_s = now_ms.saturating_sub(incident.phase_since.0) / 1_000;
    let deadline = incident.running.as_ref().map(|running| running.deadline.0.saturating_sub(now_ms) / 1_000);
    let left = deadline.map(|left| format!(", {left} s left")).unwrap_or_default();
    match said {
        Some(why) => {
            let rule = why.rule.map(|rule| format!(" [rule {}]", rule.0)).unwrap_or_default();
            Some(format!("{since_s} s{left}: {}{rule}", why.sentence))
        }
        None => Some(format!("{since_s} s{left}")),
    }
}

fn name_of_phase(camel: &str) -> String {
    let mut words = String::new();
    for character in camel.chars() {
        if character.is_ascii_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(character.to_ascii_lowercase());
    }
    words
}

/// At most so many characters, none of which drives a terminal.
fn cut(text: &str, width: usize) -> String {
    let tame: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if tame.chars().count() <= width {
        return tame;
    }
    let mut short: String = tame.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// Draws over what was drawn before and leaves the line of the prompt alone.
pub fn draw(lines: &[String], whole: bool) {
    let mut out = std::io::stderr().lock();
    let mut text = String::new();
    if whole {
        text.push_str("\x1b[2J\x1b[H\x1b[1;1H> \x1b7");
    } else {
        text.push_str("\x1b7");
    }
    // The prompt stands in the first line, so that what is typed is never drawn over.
    for (at, line) in lines.iter().enumerate() {
        text.push_str(&format!("\x1b[{};1H{line}\x1b[K", at + 2));
    }
    text.push_str("\x1b[J\x1b8");
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_hostile_words_are_cut_and_tamed() {
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(cut("a\x1b[2Jb", 10), "a [2Jb");
        assert_eq!(name_of_phase("AwaitingReady"), "awaiting ready");
    }

    #[test]
    fn without_colour_no_escape_is_written() {
        let style = Style { live: false, colour: false, columns: 80 };
        let around = Around { title: "x".repeat(200), ..Around::default() };
        let all = lines(&Views::default(), &around, style);
        assert!(all.iter().all(|line| !line.contains('\x1b') && line.chars().count() <= 80), "{all:?}");
    }
}
