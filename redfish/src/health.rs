//! Event log and sensors in one form for both protocols. Text is the BMC's: bounded and without control characters, but
//! still foreign; who shows it escapes it.

/// Longest text kept of a BMC's own words, in characters.
pub const TEXT_MAX: usize = 512;

/// How bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// For the record.
    Ok,
    /// Beyond a limit that harms nothing yet.
    Warning,
    /// Beyond a limit that harms.
    Critical,
}

/// One entry of an event log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// The BMC's name of it.
    pub id: String,
    /// Seconds since 1970 by the BMC's clock, which may be wrong; `None` before it was set, or unreadable.
    pub at_unix_s: Option<i64>,
    /// How bad.
    pub severity: Severity,
    /// What.
    pub text: String,
    /// The sensor, where told.
    pub sensor: Option<String>,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SensorKind {
    /// Degrees Celsius.
    Temperature,
    /// Volts.
    Voltage,
    /// Amperes.
    Current,
    /// Revolutions a minute, or percent.
    Fan,
    /// Watts.
    Power,
    /// States, not a number.
    Discrete,
    /// Something else.
    Other,
}

/// One sensor, read.
#[derive(Debug, Clone, PartialEq)]
pub struct Sensor {
    /// Its name.
    pub name: String,
    /// What it measures.
    pub kind: SensorKind,
    /// The value; `None` if it is absent, switched off or being read for the first time.
    pub value: Option<f64>,
    /// Its unit as written: `C`, `V`, `A`, `RPM`, `W`, `%` or the BMC's own.
    pub unit: String,
    /// How bad, by the BMC's own thresholds.
    pub severity: Severity,
}

/// A BMC's words made fit to keep: no control characters (terminal escapes), white space folded, at most [`TEXT_MAX`].
#[must_use]
pub fn tame(text: &str) -> String {
    let mut tamed = String::with_capacity(text.len().min(TEXT_MAX));
    for c in text.chars().take(TEXT_MAX) {
        match c {
            // Bidirectional overrides rewrite what a person reads around them.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' => {}
            c if c.is_control() || c.is_whitespace() => {
                if !tamed.is_empty() && !tamed.ends_with(' ') {
                    tamed.push(' ');
                }
            }
            c => tamed.push(c),
        }
    }
    if tamed.ends_with(' ') {
        tamed.pop();
    }
    tamed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_bmc_lose_what_drives_a_terminal() {
        assert_eq!(tame("  Fan\t1 \x1b[2Jlow\r\n"), "Fan 1 [2Jlow");
        assert_eq!(tame("safe\u{202e}kcatta"), "safekcatta");
        assert_eq!(tame(&"x".repeat(9_000)).chars().count(), TEXT_MAX);
    }
}
