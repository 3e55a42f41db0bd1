//! The journal as an earlier version wrote it must load for ever: `journal-0.1.jsonl` holds entries of a simulated site
//! with every kind of event, change and order that came up, and the world that they lead to.
//!
//! `RACKMEDIC_UPDATE=1` writes the fixture of the present version; the fixtures of earlier releases stay as they are.
#![cfg(feature = "lab")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use healing::event::{Change, Event};
use healing::policy::{Policy, Site as SitePolicy};
use healing::rules::Enforced;
use healing::world::World;
use rackmedic::store::secret::OuterKey;
use rackmedic::store::sqlite::SqliteJournal;
use rackmedic::store::{Entry, Journal, Ordered};
use serde_json::Value;
use sim::run::{Settings, prepare};
use sim::watch::{Breach, Checker, Decided, GroundTruth};
use sqlx::{Connection, SqliteConnection};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/journal-0.1.jsonl")
}

/// The name of an enum's variant, as its JSON has it.
fn word<T: serde::Serialize>(value: &T) -> String {
    let text = serde_json::to_string(value).unwrap();
    text.split('"').nth(1).unwrap_or_default().to_owned()
}

/// What makes an entry worth keeping: an event, a change, an order or a phase that none before it had.
fn novelties(entry: &Entry) -> Vec<String> {
    let event = match &entry.event {
        Event::Operator(order) => format!("operator {}", word(order)),
        Event::Config(config) => format!("config {}", word(config)),
        Event::StepDone { result, .. } => format!("result {}", word(result)),
        Event::Install { report, .. } => format!("install {report:?}"),
        other => format!("event {}", word(other)),
    };
    let changes = entry.changes.iter().map(|change| match change {
        Change::Incident(incident) => format!("phase {}", word(&incident.phase)),
        Change::Ended(incident) => format!("end {:?}", incident.end),
        other => format!("change {}", word(other)),
    });
    let orders = entry.commands.iter().map(|order| format!("order {}", word(&order.intent)));
    std::iter::once(event).chain(changes).chain(orders).collect()
}

/// Keeps entries that bring something new.
struct Recorder {
    seen: BTreeSet<String>,
    kept: Arc<Mutex<Vec<Entry>>>,
}

impl Checker for Recorder {
    fn decided(&mut self, decided: &Decided<'_>, _: &dyn GroundTruth) -> Vec<Breach> {
        let order =
            |o: &sim::watch::Ordered| Ordered { step: o.step, incident: o.incident, host: o.host, intent: o.intent };
        let entry = Entry {
            now: decided.now,
            event: decided.event.clone(),
            changes: decided.changes.to_vec(),
            commands: decided.ordered.iter().map(order).collect(),
            notices: decided.notices.to_vec(),
        };
        let mut new = false;
        for word in novelties(&entry) {
            new |= self.seen.insert(word);
        }
        if new {
            self.kept.lock().unwrap().push(entry);
        }
        Vec::new()
    }
}

fn record() -> Vec<Entry> {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let mut seen = BTreeSet::new();
    for seed in 1..=30 {
        let recorder = Recorder { seen: std::mem::take(&mut seen), kept: Arc::clone(&kept) };
        let mut simulation = prepare(Enforced, &Settings::new(seed, 30, 3)).watched_by(Box::new(recorder));
        simulation.run_until(3 * healing::time::HOUR);
        kept.lock().unwrap().iter().for_each(|entry| seen.extend(novelties(entry)));
    }
    std::mem::take(&mut kept.lock().unwrap())
}

fn fresh() -> World {
    World::new(&Policy::<SitePolicy>::default())
}

fn write() {
    let entries = record();
    let mut world = fresh();
    let mut text = String::new();
    for entry in &entries {
        entry.changes.iter().for_each(|change| world.apply(change));
        // Columns as the table has them: text, in which 128-bit numbers stay whole.
        let columns = serde_json::json!({
            "elapsed_ms": entry.now.elapsed.0,
            "wall_ms": entry.now.wall_ms,
            "event": serde_json::to_string(&entry.event).unwrap(),
            "changes": serde_json::to_string(&entry.changes).unwrap(),
            "commands": serde_json::to_string(&entry.commands).unwrap(),
            "notices": serde_json::to_string(&entry.notices).unwrap(),
        });
        text.push_str(&columns.to_string());
        text.push('\n');
    }
    text.push_str(&serde_json::to_string(&world).unwrap());
    text.push('\n');
    std::fs::create_dir_all(fixture().parent().unwrap()).unwrap();
    std::fs::write(fixture(), text).unwrap();
}

/// Every leaf of the old value is in the new one; a later version may know more, never less.
fn lost(path: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in old {
                lost(&format!("{path}/{key}"), value, new.get(key).unwrap_or(&Value::Null), found);
            }
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            for (index, (old, new)) in old.iter().zip(new).enumerate() {
                lost(&format!("{path}/{index}"), old, new, found);
            }
        }
        (old, new) if old == new => {}
        (old, new) => found.push(format!("{path}: {old} became {new}")),
    }
}

#[tokio::test]
async fn the_journal_of_an_earlier_version_loads_whole() {
    if std::env::var_os("RACKMEDIC_UPDATE").is_some() {
        write();
    }
    let text = std::fs::read_to_string(fixture()).expect("the fixture is in the tree");
    let mut lines: Vec<&str> = text.lines().collect();
    let expected: Value = serde_json::from_str(lines.pop().unwrap()).unwrap();
    assert!(lines.len() > 40, "a fixture of {} entries shows little", lines.len());

    let directory = std::env::temp_dir().join(format!("rackmedic-fixture-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).unwrap();
    let key = OuterKey::file(&directory.join("key")).unwrap();
    let data = directory.join("data");
    drop(SqliteJournal::open(&data, &key, fresh()).await.unwrap());
    // The rows as that version wrote them, without passing through the types of this one.
    let url = format!("sqlite://{}", data.join("rackmedic.db").display());
    let mut connection = SqliteConnection::connect(&url).await.unwrap();
    for (index, line) in lines.iter().enumerate() {
        let entry: Value = serde_json::from_str(line).unwrap();
        sqlx::query(
            "INSERT INTO journal (seq, epoch, elapsed_ms, wall_ms, core_version, policy_version, event, changes, commands, notices) \
             VALUES (?, 1, ?, ?, '0.1.0', 0, ?, ?, ?, ?)",
        )
        .bind(i64::try_from(index + 1).unwrap())
        .bind(entry["elapsed_ms"].as_i64().unwrap())
        .bind(entry["wall_ms"].as_i64().unwrap())
        .bind(entry["event"].as_str().unwrap().to_owned())
        .bind(entry["changes"].as_str().unwrap().to_owned())
        .bind(entry["commands"].as_str().unwrap().to_owned())
        .bind(entry["notices"].as_str().unwrap().to_owned())
        .execute(&mut connection)
        .await
        .unwrap();
    }
    sqlx::query("INSERT OR REPLACE INTO meta (key, value) VALUES ('seq', ?)")
        .bind(lines.len().to_string())
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();

    let mut journal = SqliteJournal::open(&data, &key, fresh()).await.unwrap();
    let loaded = journal.load().await.unwrap();
    assert!(!loaded.corrupt, "an entry of the earlier version is not understood");
    assert_eq!(loaded.seq, lines.len() as u64);
    let mut found = Vec::new();
    let world = serde_json::to_string(&loaded.world).unwrap();
    lost("", &expected, &serde_json::from_str(&world).unwrap(), &mut found);
    assert_eq!(found, Vec::<String>::new());
    // Commands and notices too, which a start does not read.
    let (entries, unreadable) = journal.read_from(0, u32::MAX).await.unwrap();
    assert_eq!((entries.len(), unreadable), (lines.len(), 0));
    drop(journal);
    std::fs::remove_dir_all(directory).unwrap();
}
