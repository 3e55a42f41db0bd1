//! Where words go: standard output is data, standard error is talk, and a reader that went away is no failure.

use clap::ValueEnum;
use serde::Serialize;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

/// Exit codes of every verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok,
    /// It failed, or a rule was broken.
    Failed,
    /// The command line or a file it names is wrong.
    Usage,
    /// A rule forbids it.
    Refused,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        match exit {
            Exit::Ok => ExitCode::SUCCESS,
            Exit::Failed => ExitCode::from(1),
            Exit::Usage => ExitCode::from(2),
            Exit::Refused => ExitCode::from(3),
        }
    }
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For scripts: one JSON value.
    Json,
}

/// Writes data to standard output.
///
/// # Errors
/// It cannot be written, for another reason than that the reader went away.
pub fn data(text: &str) -> io::Result<()> {
    broken_pipe_is_fine(|| {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    })
}

/// Writes a value as one line of JSON to standard output.
///
/// # Errors
/// As [`data`].
pub fn json(value: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_string(value).map_err(io::Error::other)?;
    data(&(text + "\n"))
}

fn broken_pipe_is_fine(write: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    match write() {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Says something to the person at the terminal. A closed standard error is nobody's concern.
pub fn talk(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A line that is written over and over while something runs; only if a person watches.
#[derive(Debug)]
pub struct Progress {
    shown: bool,
}

impl Progress {
    /// Shows progress if standard error is a terminal.
    #[must_use]
    pub fn new() -> Progress {
        Progress { shown: io::stderr().is_terminal() }
    }

    /// Replaces the line.
    pub fn show(&self, text: &str) {
        if self.shown {
            let _ = write!(io::stderr().lock(), "\r\x1b[2K{text}");
        }
    }

    /// Removes the line.
    pub fn done(&self) {
        self.show("");
    }
}

impl Default for Progress {
    fn default() -> Self {
        Progress::new()
    }
}

/// A table in plain columns: the first is left-aligned, the rest too, but for those that hold numbers only.
#[must_use]
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let columns = head.len();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let numeric = |column: usize| {
        let mut cells = rows.iter().filter_map(|row| row.get(column)).filter(|cell| !cell.is_empty()).peekable();
        let begins = |cell: &String| cell.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '.');
        let some = cells.peek().is_some();
        some && cells.all(begins)
    };
    let right: Vec<bool> = (0..columns).map(|column| column > 0 && numeric(column)).collect();
    let line = |cells: Vec<&str>| {
        let mut text = String::new();
        for (column, cell) in cells.iter().enumerate().take(columns) {
            let pad = " ".repeat(widths[column].saturating_sub(cell.chars().count()));
            let cell = if right[column] { format!("  {pad}{cell}") } else { format!("  {cell}{pad}") };
            text.push_str(&cell);
        }
        text.truncate(text.trim_end().len());
        text + "\n"
    };
    let mut text = line(head.to_vec());
    for row in rows {
        text.push_str(&line(row.iter().map(String::as_str).collect()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_went_away_is_success_and_any_other_failure_is_not() {
        assert!(broken_pipe_is_fine(|| Err(io::ErrorKind::BrokenPipe.into())).is_ok());
        assert!(broken_pipe_is_fine(|| Err(io::ErrorKind::StorageFull.into())).is_err());
    }

    #[test]
    fn a_table_aligns_words_left_and_numbers_right() {
        let rows = vec![vec!["kernel-dead".to_owned(), "7".to_owned()], vec!["blind".to_owned(), "123".to_owned()]];
        assert_eq!(table(&["diagnosis", "n"], &rows), "  diagnosis      n\n  kernel-dead    7\n  blind        123\n");
        let rows = vec![vec!["fan".to_owned(), "ok".to_owned()], vec!["psu".to_owned(), "critical".to_owned()]];
        assert_eq!(table(&["sensor", "state"], &rows), "  sensor  state\n  fan     ok\n  psu     critical\n");
    }
}
