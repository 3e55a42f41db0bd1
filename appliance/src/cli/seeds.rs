//! A range of seeds on the command line. Both ends belong to it.

use std::num::ParseIntError;
use std::str::FromStr;

/// Seeds from `first` to `last`, both included. `A..B` and `A..=B` mean the same; a single number is one seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seeds {
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
}

/// Why a range was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeedsError {
    /// A part is no number.
    #[error("`{part}` is not a whole number; write `A..B` with both ends included, for example `1..20`, or one number")]
    NotANumber {
        /// The part.
        part: String,
        /// Why.
        #[source]
        source: ParseIntError,
    },
    /// The end lies before the beginning.
    #[error("{first}..{last} holds no seed; write the smaller number first")]
    Empty {
        /// The first.
        first: u64,
        /// The last.
        last: u64,
    },
    /// More than anybody runs.
    #[error("{0} seeds are more than the {max} of one run; split the range", max = Seeds::MAX)]
    TooMany(u64),
}

impl Seeds {
    /// Most seeds of a run.
    pub const MAX: u64 = 1_000_000;

    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.last - self.first + 1
    }

    /// Each.
    pub fn iter(&self) -> impl Iterator<Item = u64> + use<> {
        self.first..=self.last
    }
}

impl std::fmt::Display for Seeds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}..{}", self.first, self.last) }
    }
}

impl FromStr for Seeds {
    type Err = SeedsError;

    fn from_str(text: &str) -> Result<Seeds, SeedsError> {
        let number =
            |part: &str| part.trim().parse().map_err(|source| SeedsError::NotANumber { part: part.to_owned(), source });
        let (first, last) = match text.split_once("..") {
            Some((first, last)) => (number(first)?, number(last.strip_prefix('=').unwrap_or(last))?),
            None => {
                let one = number(text)?;
                (one, one)
            }
        };
        if last < first {
            return Err(SeedsError::Empty { first, last });
        }
        let count = (last - first).saturating_add(1);
        if count > Seeds::MAX {
            return Err(SeedsError::TooMany(count));
        }
        Ok(Seeds { first, last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_belong_to_the_range() {
        for text in ["1..20", "1..=20", " 1 .. 20"] {
            let seeds: Seeds = text.parse().unwrap();
            assert_eq!((seeds.first, seeds.last, seeds.count()), (1, 20, 20), "{text}");
        }
        assert_eq!("7".parse::<Seeds>().unwrap().count(), 1);
        assert_eq!("7..7".parse::<Seeds>().unwrap().to_string(), "7");
    }

    #[test]
    fn what_is_no_range_is_refused_with_the_part_that_is_wrong() {
        assert!("a..3".parse::<Seeds>().unwrap_err().to_string().contains("`a`"));
        assert!("1..".parse::<Seeds>().unwrap_err().to_string().contains("``"));
        assert_eq!("9..1".parse::<Seeds>(), Err(SeedsError::Empty { first: 9, last: 1 }));
        assert!(matches!("0..2000000".parse::<Seeds>(), Err(SeedsError::TooMany(2_000_001))));
        assert!("0..18446744073709551615".parse::<Seeds>().is_err());
        assert!("-3".parse::<Seeds>().is_err());
    }
}
