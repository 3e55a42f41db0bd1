//! The event log over an open session.

use super::client::Client;
use super::error::IpmiError;
use super::sdr::SensorRecord;
use super::sel::{self, FIRST_RECORD, LAST_RECORD, LogInfo};
use crate::health::LogEntry;
use std::collections::{HashSet, VecDeque};

/// Entries kept of one log: the newest.
pub const LOG_ENTRIES_MAX: usize = 4_096;
/// Reservations made anew for one reading: each event that comes meanwhile may cost one.
const RESERVATIONS_MAX: u32 = 32;

const RESERVATION_LOST: u8 = 0xc5;
const NO_SUCH_RECORD: u8 = 0xcb;

/// An event log as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventLog {
    /// Its newest entries, oldest first, at most [`LOG_ENTRIES_MAX`].
    pub entries: Vec<LogEntry>,
    /// It was read to its end. If not, it was cleared meanwhile or leads in a circle.
    pub complete: bool,
}

impl Client {
    /// How full the event log is.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn event_log_info(&mut self) -> Result<LogInfo, IpmiError> {
        let data = self.run(&sel::info(), "SEL info").await?;
        self.read(sel::read_info(&data), "SEL info")
    }

    /// The BMC's clock; `None` if it was never set.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn event_log_time(&mut self) -> Result<Option<i64>, IpmiError> {
        let data = self.run(&sel::time(), "SEL time").await?;
        self.read(sel::read_time(&data), "SEL time")
    }

    /// The event log; `sensors` lend their names. A log of thousands of entries takes minutes: the caller has the
    /// deadline.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn event_log(&mut self, sensors: &[SensorRecord]) -> Result<EventLog, IpmiError> {
        let mut entries = VecDeque::new();
        if self.event_log_info().await?.entries == 0 {
            return Ok(EventLog { entries: Vec::new(), complete: true });
        }
        let mut reservation = self.reserve_log().await?;
        let (mut reservations, mut next, mut seen) = (1, FIRST_RECORD, HashSet::new());
        while next != LAST_RECORD && seen.insert(next) {
            let data = match self.run(&sel::get_entry(reservation, next), "SEL entry").await {
                Ok(data) => data,
                Err(IpmiError::Refused { code: RESERVATION_LOST, .. }) if reservations < RESERVATIONS_MAX => {
                    reservation = self.reserve_log().await?;
                    reservations += 1;
                    seen.remove(&next);
                    continue;
                }
                // It was cleared while it was read.
                Err(IpmiError::Refused { code: NO_SUCH_RECORD, .. }) => break,
                Err(why) => return Err(why),
            };
            let (following, record) = self.read(sel::read_entry(&data), "SEL entry")?;
            if entries.len() == LOG_ENTRIES_MAX {
                entries.pop_front();
            }
            entries.push_back(sel::decode(&record, sensors));
            next = following;
        }
        Ok(EventLog { entries: entries.into(), complete: next == LAST_RECORD })
    }

    /// A BMC without reservations has none to lose: 0 stands for none (section 31.5).
    async fn reserve_log(&mut self) -> Result<u16, IpmiError> {
        match self.run(&sel::reserve(), "reserve SEL").await {
            Ok(data) => self.read(sel::read_reservation(&data), "reserve SEL"),
            Err(IpmiError::Refused { .. }) => Ok(0),
            Err(why) => Err(why),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::scripted::{Asked, Does, answering, done, refused};
    use super::*;

    /// A log of `last` records; record `n` points to `next(n)`.
    fn log(last: u16, next: impl Fn(u16) -> u16 + Send + 'static) -> impl FnMut(Asked) -> Does + Send {
        let (mut reserved, mut asked_times) = (0u16, 0);
        move |asked| match asked.command {
            0x40 => done(&[0x51, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]),
            0x42 => {
                reserved += 1;
                done(&reserved.to_le_bytes())
            }
            _ => {
                asked_times += 1;
                let id = u16::from_le_bytes([asked.data[2], asked.data[3]]).max(1);
                // Each third request finds its reservation gone.
                if asked_times % 3 == 0 || u16::from_le_bytes([asked.data[0], asked.data[1]]) != reserved {
                    return refused(0xc5);
                }
                if id > last {
                    return refused(0xcb);
                }
                let mut answer = next(id).to_le_bytes().to_vec();
                answer.extend(id.to_le_bytes());
                answer.extend([2, 0, 0, 0, 0, 0x20, 0, 4, 0x0c, 0x10, 0x6f, 0x01, 0xff, 0xff]);
                done(&answer)
            }
        }
    }

    async fn ids(next: impl Fn(u16) -> u16 + Send + 'static) -> (Vec<String>, bool) {
        let mut client = answering(log(4, next)).await;
        let read = client.event_log(&[]).await.unwrap();
        (read.entries.into_iter().map(|entry| entry.id).collect(), read.complete)
    }

    #[tokio::test]
    async fn a_lost_reservation_loses_no_entry_and_a_circle_ends() {
        let whole = ids(|id| if id == 4 { LAST_RECORD } else { id + 1 }).await;
        assert_eq!(whole, (["1", "2", "3", "4"].map(str::to_owned).to_vec(), true));
        let (circle, complete) = ids(|id| if id == 3 { 2 } else { id + 1 }).await;
        assert_eq!((&circle[..], complete), (&["1", "2", "3"].map(str::to_owned)[..], false));
        let (cleared, complete) = ids(|id| if id == 2 { 9 } else { id + 1 }).await;
        assert_eq!((&cleared[..], complete), (&["1", "2"].map(str::to_owned)[..], false));
    }

    #[tokio::test]
    async fn of_a_log_without_end_the_newest_are_kept() {
        let mut client = answering(|asked| match asked.command {
            0x40 => done(&[0x51, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]),
            0x42 => done(&[1, 0]),
            _ => {
                let id = u16::from_le_bytes([asked.data[2], asked.data[3]]).max(1);
                let next = if id == 5_000 { LAST_RECORD } else { id + 1 };
                done(&[&next.to_le_bytes()[..], &id.to_le_bytes(), &[2; 14]].concat())
            }
        })
        .await;
        let log = client.event_log(&[]).await.unwrap();
        assert_eq!((log.entries.len(), log.complete), (LOG_ENTRIES_MAX, true));
        assert_eq!(log.entries.last().map(|entry| &entry.id[..]), Some("5000"));
    }

    #[tokio::test]
    async fn a_reservation_that_never_holds_is_given_up() {
        let mut client = answering(|asked| match asked.command {
            0x40 => done(&[0x51, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]),
            0x42 => done(&[1, 0]),
            _ => refused(0xc5),
        })
        .await;
        let lost = client.event_log(&[]).await;
        assert!(matches!(lost, Err(IpmiError::Refused { code: 0xc5, .. })), "{lost:?}");
    }
}
