//! A policy file: TOML with the numbers of the safety rules by key. What is left out is the default.

use healing::policy::{Kind, Limits, OutOfBound, Policy};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use toml::de::DeTable;

/// Most bytes of a policy file.
const FILE_MAX: u64 = 1024 * 1024;

/// Why a policy file was not taken. Each names the place.
#[derive(Debug, thiserror::Error)]
pub enum PolicyFileError {
    /// It cannot be read.
    #[error("the policy file {} cannot be read, so nothing was run; check the path and its rights", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is larger than any policy is.
    #[error("the policy file {} is larger than {FILE_MAX} bytes and was not read; name a file of numbers, one to a line", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It is not TOML, has an unknown key, or a value that is no whole number.
    #[error("{}:{line}:{column}: {message}; every key is a number of the safety rules, in whole milliseconds, percent, permille or counts", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// Numbers beyond their bounds.
    #[error("{}", beyond(path, found))]
    Beyond {
        /// The file.
        path: PathBuf,
        /// Each with its line, if it stands in the file.
        found: Vec<(usize, usize, OutOfBound)>,
    },
}

fn beyond(path: &Path, found: &[(usize, usize, OutOfBound)]) -> String {
    let mut text = String::new();
    for (index, (line, column, number)) in found.iter().enumerate() {
        let newline = if index == 0 { "" } else { "\n" };
        // Writing to a String cannot fail.
        let _ = write!(text, "{newline}{}:{line}:{column}: {number}", path.display());
    }
    text
}

/// Reads and checks a policy file.
///
/// # Errors
/// It cannot be read, has an unknown key or a wrong value, or a number beyond its bound; each with its place.
pub fn read<K: Kind>(path: &Path) -> Result<Policy<K>, PolicyFileError> {
    let unreadable = |source| PolicyFileError::Unreadable { path: path.to_owned(), source };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > FILE_MAX {
        return Err(PolicyFileError::TooLarge { path: path.to_owned() });
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    parse(path, &text)
}

fn parse<K: Kind>(path: &Path, text: &str) -> Result<Policy<K>, PolicyFileError> {
    let malformed = |error: toml::de::Error| {
        let (line, column) = place(text, error.span().map_or(0, |span| span.start));
        PolicyFileError::Malformed { path: path.to_owned(), line, column, message: one_line(error.message()) }
    };
    let limits: Limits = toml::from_str(text).map_err(malformed)?;
    let keys = DeTable::parse(text).map_err(malformed)?;
    Policy::check(limits).map_err(|numbers| {
        let found = numbers
            .into_iter()
            .map(|number| {
                let at = keys.get_ref().iter().find(|(key, _)| key.get_ref().as_ref() == number.key);
                let (line, column) = place(text, at.map_or(0, |(key, _)| key.span().start));
                (line, column, number)
            })
            .collect();
        PolicyFileError::Beyond { path: path.to_owned(), found }
    })
}

fn one_line(message: &str) -> String {
    // An unknown key lists all hundred known ones; the first words say what is wrong.
    let first = message.lines().next().unwrap_or_default();
    first.split(", expected one of").next().unwrap_or(first).to_owned()
}

/// Line and column of a byte, both from 1.
fn place(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |rest| rest.chars().count()) + 1;
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::*;
    use healing::policy::Site;

    fn error(text: &str) -> String {
        parse::<Site>(Path::new("site.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn what_is_left_out_is_the_default() {
        let policy = parse::<Site>(Path::new("site.toml"), "soak_ms = 600_000\n").unwrap();
        assert_eq!(policy.limits().soak_ms, 600_000);
        assert_eq!(policy.limits().samples_min, 3);
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_column() {
        let message = error("soak_ms = 600000\n\n  sook_ms = 1\n");
        assert!(message.starts_with("site.toml:3:3: unknown field `sook_ms`;"), "{message}");
    }

    #[test]
    fn a_value_that_is_no_number_is_named_with_its_place() {
        let message = error("soak_ms = \"long\"\n");
        assert!(message.starts_with("site.toml:1:11: invalid type: string \"long\""), "{message}");
        assert!(error("soak_ms = -5\n").starts_with("site.toml:1:11: "), "{}", error("soak_ms = -5\n"));
    }

    #[test]
    fn every_number_beyond_its_bound_is_named_with_its_line() {
        let message = error("storm_percent = 60\nsoak_ms = 300000\nsamples_min = 1\n");
        assert!(message.contains("site.toml:1:1: storm_percent = 60 is beyond its bound"), "{message}");
        assert!(message.contains("site.toml:3:1: samples_min = 1 is beyond its bound"), "{message}");
        assert_eq!(message.lines().count(), 2);
    }

    #[test]
    fn broken_syntax_is_named_with_its_place() {
        let message = error("soak_ms = 300000\nwait !\n");
        assert!(message.starts_with("site.toml:2:"), "{message}");
    }

    #[test]
    fn a_file_that_is_not_there_is_an_error_with_its_name() {
        let message = read::<Site>(Path::new("/nowhere/site.toml")).unwrap_err().to_string();
        assert!(message.contains("/nowhere/site.toml"), "{message}");
    }
}
