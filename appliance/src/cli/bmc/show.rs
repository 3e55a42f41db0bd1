//! Event log and sensors.

use crate::cli::output::{Exit, Format, data, json, table};
use bmc::controller::Controller;
use bmc::health::{LogEntry, Sensor, SensorKind, Severity};
use serde::Serialize;

#[derive(Debug, Serialize)]
struct ShownEntry {
    id: String,
    at_unix_s: Option<i64>,
    severity: &'static str,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sensor: Option<String>,
}

#[derive(Debug, Serialize)]
struct ShownSensor {
    name: String,
    kind: &'static str,
    value: Option<f64>,
    unit: String,
    severity: &'static str,
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Ok => "ok",
        Severity::Warning => "warning",
        Severity::Critical => "critical",
    }
}

pub(super) async fn event_log(bmc: &mut dyn Controller, count: usize, output: Format) -> anyhow::Result<Exit> {
    let entries: Vec<ShownEntry> = bmc.event_log(count).await?.into_iter().map(entry).collect();
    match output {
        Format::Json => json(&entries)?,
        Format::Table => {
            let rows: Vec<Vec<String>> = entries
                .iter()
                .map(|entry| {
                    let at = entry.at_unix_s.and_then(|s| jiff::Timestamp::from_second(s).ok());
                    let at = at.map_or_else(|| "unknown".to_owned(), |at| at.to_string());
                    vec![entry.id.clone(), at, entry.severity.to_owned(), entry.text.clone()]
                })
                .collect();
            data(&table(&["id", "at", "severity", "what"], &rows))?;
        }
    }
    Ok(Exit::Ok)
}

fn entry(entry: LogEntry) -> ShownEntry {
    let LogEntry { id, at_unix_s, severity, text, sensor } = entry;
    ShownEntry { id, at_unix_s, severity: word(severity), text, sensor }
}

pub(super) async fn sensors(bmc: &mut dyn Controller, output: Format) -> anyhow::Result<Exit> {
    let sensors: Vec<ShownSensor> = bmc.sensors().await?.into_iter().map(sensor).collect();
    match output {
        Format::Json => json(&sensors)?,
        Format::Table => {
            let rows: Vec<Vec<String>> = sensors
                .iter()
                .map(|sensor| {
                    let value =
                        sensor.value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1} {}", sensor.unit));
                    vec![sensor.name.clone(), value, sensor.severity.to_owned()]
                })
                .collect();
            data(&table(&["sensor", "value", "state"], &rows))?;
        }
    }
    Ok(Exit::Ok)
}

fn sensor(sensor: Sensor) -> ShownSensor {
    let kind = match sensor.kind {
        SensorKind::Temperature => "temperature",
        SensorKind::Voltage => "voltage",
        SensorKind::Current => "current",
        SensorKind::Fan => "fan",
        SensorKind::Power => "power",
        SensorKind::Discrete => "discrete",
        SensorKind::Other => "other",
    };
    let severity = word(sensor.severity);
    ShownSensor { name: sensor.name, kind, value: sensor.value, unit: sensor.unit, severity }
}
