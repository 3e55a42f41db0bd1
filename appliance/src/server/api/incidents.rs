//! Incidents as readers see them: the evidence, the plan with its present step, the rule that blocks, and how long each
//! stage took.

use super::hosts::{Why, rfc3339};
use super::page::{self, Query};
use super::problem::Problem;
use crate::server::Appliance;
use crate::server::book::Book;
use crate::server::chronicle::{Chapter, end_of, kebab, name_of};
use crate::server::stages::Seconds;
use axum::Json;
use axum::extract::{Path, State};
use healing::evidence::Evidence;
use healing::id::{HostId, IncidentId};
use healing::signal::Source;
use healing::time::Elapsed;
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// One line of the list.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    id: u64,
    host: String,
    diagnosis: String,
    end: &'static str,
    opened_at: String,
    rung: String,
    phase: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    waits: Option<Why>,
    #[serde(flatten)]
    seconds: Seconds,
}

fn host(book: &Book, id: HostId) -> String {
    let found = book.hosts.iter().find(|(_, host)| host.id == id.0);
    found.map_or_else(|| format!("host-{}", id.0), |(name, _)| name.clone())
}

fn row(chapter: &Chapter, book: &Book) -> Row {
    let incident = &chapter.incident;
    Row {
        id: incident.id.0,
        host: host(book, incident.host),
        diagnosis: name_of(chapter.named),
        end: incident.end.map_or("open", end_of),
        opened_at: rfc3339(incident.opened_wall_ms),
        rung: kebab(&format!("{:?}", incident.current_rung())),
        phase: kebab(&format!("{:?}", incident.phase)),
        waits: incident.wait.as_ref().filter(|_| incident.end.is_none()).map(|wait| Why::from(&wait.why)),
        seconds: Seconds::of(chapter),
    }
}

/// `GET /api/v1/incidents`: the newest first.
pub async fn list(State(appliance): State<Arc<Appliance>>, query: Query) -> Result<Json<page::Page<Row>>, Problem> {
    let asked = page::asked(query)?;
    let before = match asked.after.as_deref().map(str::parse::<u64>) {
        None => u64::MAX,
        Some(Ok(number)) => number,
        Some(Err(_)) => {
            let detail = "`after` is the number of an incident, as `next` gave it";
            return Err(Problem::new(axum::http::StatusCode::BAD_REQUEST, "bad-query", detail));
        }
    };
    let book = appliance.registrar.book();
    let chronicle = appliance.chronicle.lock().await;
    let rest = chronicle.chapters().rev().filter(|chapter| chapter.incident.id.0 < before);
    Ok(Json(asked.page(rest, |chapter| chapter.incident.id.0.to_string(), |chapter| row(chapter, &book))))
}

/// `GET /api/v1/incidents/{id}`
pub async fn one(State(appliance): State<Arc<Appliance>>, Path(id): Path<String>) -> Result<Json<Value>, Problem> {
    let id = id.parse().map(IncidentId).map_err(|_| Problem::unknown("incident"))?;
    let book = appliance.registrar.book();
    let chronicle = appliance.chronicle.lock().await;
    let chapter = chronicle.chapter(id).ok_or_else(|| Problem::unknown("incident"))?;
    let incident = &chapter.incident;
    let at = |at: Elapsed| rfc3339(chapter.wall_ms(at));
    let open = incident.end.is_none();
    let view = appliance.inbox.views.host(incident.host).filter(|view| view.host.incident == Some(id));
    let explanation = view.and_then(|view| view.explanation.as_ref().map(Why::from));
    let step = incident.running.as_ref().map(|running| {
        json!({ "does": running.intent, "ordered_at": at(running.issued_at), "due_at": at(running.deadline) })
    });
    let told: Vec<Value> = chronicle
        .told()
        .iter()
        .filter(|told| told.incident == Some(id))
        .map(|told| json!({ "at": rfc3339(told.wall_ms), "rule": told.rule, "sentence": told.sentence }))
        .collect();
    let blocked = incident.blocked_ms.iter().map(|(rule, ms)| json!({ "rule": rule.0, "seconds": ms / 1_000 }));
    Ok(Json(json!({
        "summary": row(chapter, &book),
        "diagnosis_now": name_of(incident.diagnosis),
        "plan": {
            "rungs": incident.rungs.iter().map(|rung| kebab(&format!("{rung:?}"))).collect::<Vec<_>>(),
            "rung": incident.rung,
            "phase": kebab(&format!("{:?}", incident.phase)),
            "phase_since": at(incident.phase_since),
            "step": step,
        },
        "waits": incident.wait.as_ref().filter(|_| open).map(|wait| json!({
            "why": Why::from(&wait.why), "since": at(wait.since), "paged_at": wait.paged_at.map(at),
        })),
        "explanation": explanation.filter(|_| open),
        "proof_of_off": incident.proof.map(|proof| json!({
            "at": at(proof.at), "witness": kebab(&format!("{:?}", proof.witness)),
        })),
        "released": incident.released,
        "blocked": blocked.collect::<Vec<_>>(),
        "evidence": chapter.evidence.as_deref().map(|evidence| shown(evidence, at)),
        "told": told,
    })))
}

/// The runs of every source that said something, newest first.
fn shown(evidence: &Evidence, at: impl Fn(Elapsed) -> String) -> Value {
    let sources = Source::ALL.iter().filter(|source| evidence.slot(**source).latest().is_some());
    let runs = sources.map(|source| {
        let runs: Vec<Value> = evidence
            .slot(*source)
            .runs()
            .map(|run| json!({ "saw": run.seen, "first": at(run.first), "last": at(run.last), "count": run.count }))
            .collect();
        (kebab(&format!("{source:?}")), Value::from(runs))
    });
    json!({ "void_before": at(evidence.void_before), "sources": runs.collect::<serde_json::Map<_, _>>(), "means": evidence.assessment })
}
