//! The event log.

use super::client::Redfish;
use super::error::RedfishError;
use super::link::Link;
use super::walk::Walk;
use crate::health::{LogEntry, Severity, tame};

/// Log services that hold hardware events, the best first, by the ends of their names.
/// XClarity keeps its history in `PlatformLog`; its `ActiveLog` holds what is wrong at the moment, and that may be nothing.
const NAMES: [&str; 8] = ["SEL", "Sel", "IML", "EventLog", "Event", "Log1", "PlatformLog", "ActiveLog"];
/// Pages of a log at most.
const PAGES_MAX: usize = 200;

impl Redfish {
    /// The newest entries of the hardware event log, oldest first, at most `count`.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub async fn event_log(&mut self, count: usize) -> Result<Vec<LogEntry>, RedfishError> {
        let address = self.address();
        let hint = "ask over IPMI";
        let mut services = Vec::new();
        let (_, system) = self.system().await?;
        services.extend(self.link_of(system.walk().get("LogServices"))?);
        if let Some(manager) = self.places().await?.manager {
            let manager = self.get(&manager).await?;
            services.extend(self.link_of(manager.walk().get("LogServices"))?);
        }
        let mut logs = Vec::new();
        for collection in services {
            logs.extend(self.members(&collection).await?);
        }
        let rank = |log: &Link| {
            let name = log.as_str().trim_end_matches('/').rsplit('/').next().unwrap_or_default();
            NAMES.iter().position(|known| *known == name)
        };
        let mut logs: Vec<(usize, Link)> =
            logs.into_iter().filter_map(|log| rank(&log).map(|rank| (rank, log))).collect();
        logs.sort();
        let mut refused = None;
        for (_, log) in &logs {
            let read = match self.get(log).await {
                // XClarity has a SEL that can be cleared and has no entries.
                Ok(service) => match self.link_of(service.walk().get("Entries"))? {
                    Some(entries) => self.entries(entries, count).await,
                    None => continue,
                },
                Err(why) => Err(why),
            };
            match read {
                Err(why @ RedfishError::Refused { .. }) => refused = refused.or(Some(why)),
                read => return read,
            }
        }
        let missing = RedfishError::Missing { address, what: "hardware event log", hint };
        match (refused, logs.into_iter().next()) {
            (Some(why), _) => Err(why),
            // None says where its entries are: they are there by custom.
            (None, Some((_, log))) => {
                let entries = log.under("Entries").map_err(|reason| RedfishError::BadLink { address, reason })?;
                self.entries(entries, count).await
            }
            (None, None) => Err(missing),
        }
    }

    async fn entries(&mut self, first: Link, count: usize) -> Result<Vec<LogEntry>, RedfishError> {
        let mut found: Vec<LogEntry> = Vec::new();
        let mut page = Some(first);
        let mut seen = Vec::new();
        while let Some(link) = page.take() {
            let resource = self.get(&link).await?;
            let members: Vec<Walk<'_>> = resource.walk().get("Members").items().collect();
            for member in members {
                if member.get("Message").is_some() || member.get("Created").is_some() {
                    found.push(entry(member));
                } else if let Ok(Some(link)) = self.link_of(member)
                    && found.len() < count
                {
                    // Only named, not contained: read one by one.
                    let one = self.get(&link).await?;
                    found.push(entry(one.walk()));
                }
            }
            seen.push(link);
            if seen.len() < PAGES_MAX {
                page = self.next_page(resource.walk(), &seen)?;
            }
            newest(&mut found, count);
        }
        found.sort_by_key(|entry| (entry.at_unix_s, number(&entry.id)));
        Ok(found)
    }
}

/// Some logs begin with the newest entry, others with the oldest: time decides, and the number where there is none.
fn newest(entries: &mut Vec<LogEntry>, count: usize) {
    if entries.len() > count {
        entries.sort_by_key(|entry| std::cmp::Reverse((entry.at_unix_s, number(&entry.id))));
        entries.truncate(count);
    }
}

fn number(id: &str) -> Option<u64> {
    id.parse().ok()
}

fn entry(walk: Walk<'_>) -> LogEntry {
    let severity = match walk.get("Severity").text() {
        Some("Critical" | "Fatal") => Severity::Critical,
        Some("Warning") => Severity::Warning,
        _ => Severity::Ok,
    };
    let sensor = walk.get("SensorType").text().filter(|word| *word != "None").map(tame);
    LogEntry {
        id: walk.get("Id").text().map(tame).unwrap_or_default(),
        at_unix_s: walk.get("Created").text().or(walk.get("EventTimestamp").text()).and_then(unix_s),
        severity,
        text: walk.get("Message").text().or(walk.get("Name").text()).map(tame).unwrap_or_default(),
        sensor,
    }
}

/// A time as BMCs write it; `0000-00-00T…` and other impossible ones are none.
fn unix_s(text: &str) -> Option<i64> {
    let text = text.trim();
    let stamp = text.parse::<jiff::Timestamp>().or_else(|_| format!("{text}Z").parse()).ok()?;
    // Before 2000 the clock was never set.
    Some(stamp.as_second()).filter(|second| *second > 946_684_800)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_bmcs_write_them() {
        assert_eq!(unix_s("2023-11-14T22:13:20Z"), Some(1_700_000_000));
        assert_eq!(unix_s("2023-11-14T23:13:20+01:00"), Some(1_700_000_000));
        assert_eq!(unix_s("2023-11-14T22:13:20"), Some(1_700_000_000));
        for bad in ["0000-00-00T00:00:00Z", "1970-01-01T00:00:05Z", "", "yesterday"] {
            assert_eq!(unix_s(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_newest_stay_whatever_the_order() {
        let made = |id: &str, at| LogEntry {
            id: id.to_owned(),
            at_unix_s: Some(at),
            severity: Severity::Ok,
            text: String::new(),
            sensor: None,
        };
        let mut entries = vec![made("1", 10), made("3", 30), made("2", 20)];
        newest(&mut entries, 2);
        let ids: Vec<&str> = entries.iter().map(|entry| entry.id.as_str()).collect();
        assert_eq!(ids, ["3", "2"]);
    }
}
