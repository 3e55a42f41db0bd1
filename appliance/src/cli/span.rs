//! A span of time as people write it: `30s`, `90m`, `8h`, `2d`.

use std::str::FromStr;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) seconds: u64,
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        let wrong = || format!("'{text}' is no span of time: write a number and s, m, h or d, such as 90m");
        let unit = text.chars().last().ok_or_else(wrong)?;
        let factor = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            _ => return Err(wrong()),
        };
        let number: u64 = text.strip_suffix(unit).and_then(|number| number.parse().ok()).ok_or_else(wrong)?;
        let seconds = number.checked_mul(factor).filter(|seconds| *seconds > 0).ok_or_else(wrong)?;
        Ok(Span { seconds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_anything_else_is_refused() {
        assert_eq!("90m".parse(), Ok(Span { seconds: 5_400 }));
        assert_eq!("2d".parse(), Ok(Span { seconds: 172_800 }));
        for wrong in ["", "m", "90", "-1h", "1w", "0s", "99999999999999999999d", "9é"] {
            assert!(wrong.parse::<Span>().is_err(), "{wrong}");
        }
    }
}
