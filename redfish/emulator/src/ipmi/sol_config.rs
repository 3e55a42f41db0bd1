//! Parameters of serial over LAN (section 26).

use super::command::{Answer, LENGTH};

/// No such parameter.
const UNKNOWN: u8 = 0x80;
/// It cannot be written.
const READ_ONLY: u8 = 0x82;
/// Revision of the parameters.
const REVISION: u8 = 0x11;

/// How often and when a packet is sent again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    pub(super) retry_ms: u64,
    pub(super) retries: u32,
}

/// The parameters.
#[derive(Debug)]
pub(super) struct SolConfig {
    pub(super) enabled: bool,
    /// Encryption and authentication are forced; the privilege may change.
    privilege: u8,
    accumulate: [u8; 2],
    retry: [u8; 2],
    bit_rates: [u8; 2],
}

impl Default for SolConfig {
    /// Seven times, half a second apart, 115.2 kbit/s.
    fn default() -> SolConfig {
        SolConfig { enabled: true, privilege: 2, accumulate: [4, 200], retry: [7, 50], bit_rates: [0x0a; 2] }
    }
}

impl SolConfig {
    pub(super) fn timing(&self) -> Timing {
        let [retries, interval] = self.retry;
        Timing { retry_ms: u64::from(interval).max(1) * 10, retries: u32::from(retries & 7) }
    }

    /// Get SOL Configuration Parameters (section 26.3).
    pub(super) fn get(&self, data: &[u8], port: u16) -> Answer {
        let [channel, parameter, ..] = *data else { return Answer::no(LENGTH) };
        let mut answer = vec![REVISION];
        if channel & 0x80 != 0 {
            return Answer::of(answer);
        }
        match parameter {
            0 => answer.push(0),
            1 => answer.push(u8::from(self.enabled)),
            2 => answer.push(0xc0 | self.privilege),
            3 => answer.extend(self.accumulate),
            4 => answer.extend(self.retry),
            5 => answer.push(self.bit_rates[0]),
            6 => answer.push(self.bit_rates[1]),
            7 => answer.push(1),
            8 => answer.extend(port.to_le_bytes()),
            _ => return Answer::no(UNKNOWN),
        }
        Answer::of(answer)
    }

    /// Set SOL Configuration Parameters (section 26.2).
    pub(super) fn set(&mut self, data: &[u8]) -> Answer {
        match *data {
            // Set in progress: taken, and nothing waits for it.
            [_, 0, _] => {}
            [_, 1, enabled] => self.enabled = enabled & 1 != 0,
            [_, 2, authentication] => self.privilege = (authentication & 0x0f).clamp(2, 4),
            [_, 3, interval, threshold] => self.accumulate = [interval.max(1), threshold],
            [_, 4, count, interval] => self.retry = [count & 7, interval],
            [_, 5, rate] => self.bit_rates[0] = rate & 0x0f,
            [_, 6, rate] => self.bit_rates[1] = rate & 0x0f,
            [_, 7 | 8, ..] => return Answer::no(READ_ONLY),
            [_, 0..=6, ..] | [] | [_] => return Answer::no(LENGTH),
            _ => return Answer::no(UNKNOWN),
        }
        Answer::of([])
    }
}
