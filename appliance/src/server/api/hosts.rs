//! Hosts as readers see them: what is declared, what is known, and what happens next with its reason.

use super::page::{self, Query};
use super::problem::Problem;
use crate::decide_loop::{HostView, RunningTime};
use crate::server::chronicle::kebab;
use crate::server::resources::HostEntry;
use crate::server::{Appliance, observes};
use axum::Json;
use axum::extract::{Path, State};
use healing::explain::Explanation;
use healing::time::Elapsed;
use healing::world::host::{Host, Lifecycle, Link, Marks, Role, SpareProof};
use healing::world::incident::Incident;
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// One line of the list.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    name: String,
    role: String,
    state: &'static str,
    link: String,
    power: String,
    network: String,
    /// What its firmware tries first, as its boots have shown: a question to the network means an empty disk only of one
    /// that tries the disk first.
    boot_order: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<String>,
    pool: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    incident: Option<u64>,
    /// When the last proof of a spare was made, and whether all of it held.
    #[serde(skip_serializing_if = "Option::is_none")]
    spare_proof_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spare_proof_passed: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<Why>,
}

/// A reason for people and scripts.
#[derive(Debug, Clone, Serialize)]
pub struct Why {
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<u8>,
    code: String,
    sentence: String,
}

impl From<&Explanation> for Why {
    fn from(why: &Explanation) -> Why {
        Why { rule: why.rule.map(|rule| rule.0), code: why.code.to_string(), sentence: why.sentence.to_string() }
    }
}

/// A state in one word, the gravest first.
#[must_use]
pub fn state(view: &HostView, now: Elapsed) -> &'static str {
    let host = &view.host;
    match host.lifecycle {
        Lifecycle::Retired => "retired",
        Lifecycle::Quarantined { .. } => "quarantined",
        Lifecycle::InService => match () {
            () if view.incident.as_ref().is_some_and(Incident::proves) => "being-proven",
            () if view.incident.as_ref().is_some_and(Incident::drills) => "in-a-drill",
            () if view.incident.as_ref().is_some_and(Incident::of_spare) => "taking-a-place",
            () if view.incident.is_some() => "ill",
            () if host.marks.paused => "paused",
            () if in_maintenance(&host.marks, now) => "maintenance",
            () if !host.serves() => "spare",
            () if host.ready() => "ready",
            () => "not-ready",
        },
    }
}

/// Whether its window of maintenance is open, as the gate asks. One that ran out stays in the record until the next.
fn in_maintenance(marks: &Marks, now: Elapsed) -> bool {
    marks.maintenance_until.is_some_and(|until| now < until)
}

/// Why nothing is done for a host that is not well, where the decisions had no occasion to say so: what holds for the site, its
/// cluster or its record (rule 56).
fn stands_back(appliance: &Appliance, view: &HostView) -> Option<Why> {
    let now = appliance.time.now().elapsed;
    if matches!(state(view, now), "ready" | "spare" | "retired") {
        return None;
    }
    let why = |rule: u8, code: &str, sentence: String| Some(Why { rule: Some(rule), code: code.to_owned(), sentence });
    let (site, scopes) = (appliance.inbox.views.site(), appliance.inbox.views.scopes());
    let host = &view.host;
    if matches!(host.lifecycle, Lifecycle::Quarantined { .. }) {
        let sentence = format!(
            "it is in quarantine, cordoned, with its evidence kept: nothing is done with it until a person returns it \
             (`rackmedic host return {}`)",
            host.name
        );
        return why(43, "quarantined", sentence);
    }
    let cluster = host.cluster.and_then(|id| scopes.clusters.get(&id));
    if let Some(only) = &site.observe_only {
        return why(45, "observe-only", format!("nothing is touched: {}", observes(only, now)));
    }
    if site.blind_since.is_some() {
        return why(4, "blind", "own sight is in doubt: nobody is acted on until it is good again".to_owned());
    }
    if site.paused || cluster.is_some_and(|cluster| cluster.paused) || host.marks.paused {
        return why(49, "paused", "a person paused it (`rackmedic resume` ends it)".to_owned());
    }
    if in_maintenance(&host.marks, now) {
        return why(50, "maintenance", "it is in maintenance".to_owned());
    }
    if let Some(cluster) = cluster.filter(|cluster| !cluster.armed) {
        return why(
            52,
            "not-armed",
            format!("its cluster is only observed: `rackmedic arm {}` lets it be acted on", cluster.name),
        );
    }
    if host.link != Link::Linked {
        let sentence =
            "its BMC and its Node are not shown to be of one machine: both must answer, and agree with the record";
        return why(29, "not-linked", sentence.to_owned());
    }
    if !host.history.seen_healthy {
        return why(9, "never-ready", "it was never seen Ready here, so nobody knows that it is ill".to_owned());
    }
    None
}

fn row(appliance: &Appliance, name: &str, entry: &HostEntry, view: Option<&HostView>) -> Row {
    let (cluster, pool) = (entry.cluster.clone(), entry.pool.clone());
    let Some(view) = view else {
        return Row {
            name: name.to_owned(),
            role: kebab(&format!("{:?}", entry.role)),
            state: "being-registered",
            link: "unbound".to_owned(),
            power: "unknown".to_owned(),
            network: "unknown".to_owned(),
            boot_order: "unknown".to_owned(),
            cluster,
            pool,
            incident: None,
            spare_proof_at: None,
            spare_proof_passed: None,
            explanation: None,
        };
    };
    let Host { role, link, assessment, incident, .. } = &view.host;
    let (cluster, pool) = if view.host.history.was_spare { placed(appliance, &view.host) } else { (cluster, pool) };
    let proof = view.host.spare_proof.filter(|_| *role == Role::Spare);
    Row {
        name: name.to_owned(),
        role: kebab(&format!("{role:?}")),
        state: state(view, appliance.time.now().elapsed),
        link: kebab(&format!("{link:?}")),
        power: kebab(&format!("{:?}", assessment.power)),
        network: kebab(&format!("{:?}", assessment.network)),
        boot_order: kebab(&format!("{:?}", view.host.history.boot_order)),
        cluster,
        pool,
        incident: incident.map(|id| id.0),
        spare_proof_at: proof.map(|proof| shown_at(appliance, proof)),
        spare_proof_passed: proof.map(|proof| proof.passed),
        explanation: view.explanation.as_ref().map(Why::from).or_else(|| stands_back(appliance, view)),
    }
}

/// Cluster and pool in which a spare serves now, which are not those that it was declared with.
fn placed(appliance: &Appliance, host: &Host) -> (Option<String>, String) {
    let book = appliance.registrar.book();
    let scopes = appliance.inbox.views.scopes();
    let cluster = host.cluster.and_then(|id| scopes.clusters.get(&id)).map(|cluster| cluster.name.clone());
    let pool = book.pools.values().find(|pool| pool.id == u32::from(host.pool.0)).map(|pool| pool.entry.name.clone());
    (cluster, pool.unwrap_or_default())
}

/// `GET /api/v1/hosts`
pub async fn list(State(appliance): State<Arc<Appliance>>, query: Query) -> Result<Json<page::Page<Row>>, Problem> {
    let asked = page::asked(query)?;
    let book = appliance.registrar.book();
    let after = asked.after.clone().unwrap_or_default();
    let rest = book.hosts.iter().filter(|(name, _)| **name > after);
    let view = |id: u32| appliance.inbox.views.host(healing::id::HostId(id));
    let page = asked.page(
        rest,
        |(name, _)| (*name).clone(),
        |(name, host)| row(&appliance, name, &host.entry, view(host.id).as_deref()),
    );
    Ok(Json(page))
}

/// A moment of the running time as the wall clock has it, in RFC 3339.
#[must_use]
pub fn wall(time: &RunningTime, at: Elapsed) -> String {
    let now = time.now();
    let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
    let wall_ms =
        now.wall_ms.saturating_sub(signed(now.elapsed.since(at))).saturating_add(signed(at.since(now.elapsed)));
    rfc3339(wall_ms)
}

/// Unix milliseconds in RFC 3339.
#[must_use]
pub fn rfc3339(wall_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(wall_ms).map_or_else(|_| wall_ms.to_string(), |moment| moment.to_string())
}

/// When something was shown, by the clock of then if it is known: running time stands still while the appliance is down.
fn shown_at(appliance: &Appliance, proof: SpareProof) -> String {
    match proof.at_wall_ms {
        0 => wall(&appliance.time, proof.at),
        at => rfc3339(at),
    }
}

/// The last proof of a spare, and when the next is due; `null` of everybody else.
fn spare_proof(host: &Host, appliance: &Appliance) -> Value {
    if host.role != Role::Spare {
        return Value::Null;
    }
    let again = appliance.inbox.views.scopes().spare_prove_again_ms;
    match host.spare_proof {
        Some(proof) => json!({
            "at": shown_at(appliance, proof),
            "passed": proof.passed,
            // Due by running time, which stands still while the appliance is down.
            "next_due": wall(&appliance.time, proof.at.plus(again)),
        }),
        None => json!({"at": null, "passed": null, "next_due": null}),
    }
}

/// What holds on to the Node of a host with an incident, and whether its deletion is under way; `null` of everybody else, and
/// until it was listed.
fn holds_on(host: &Host, appliance: &Appliance) -> Value {
    let clusters = appliance.outside.clusters.get();
    let cluster = clusters.zip(host.cluster).and_then(|(clusters, id)| clusters.get(id));
    let Some(held) = cluster.and_then(|cluster| cluster.trouble.held(&host.name)) else { return Value::Null };
    let pod = |((namespace, name), deleted): (&(String, String), &bool)| json!({"pod": format!("{namespace}/{name}"), "deleted": deleted});
    let volume = |(name, deleted): (&String, &bool)| json!({"attachment": name, "deleted": deleted});
    json!(held.pods.iter().map(pod).chain(held.attachments.iter().map(volume)).collect::<Vec<_>>())
}

/// `GET /api/v1/hosts/{name}`
pub async fn one(State(appliance): State<Arc<Appliance>>, Path(name): Path<String>) -> Result<Json<Value>, Problem> {
    let book = appliance.registrar.book();
    let host = book.hosts.get(&name).ok_or_else(|| Problem::unknown("host"))?;
    let view = appliance.inbox.views.host(healing::id::HostId(host.id));
    let entry = &host.entry;
    let mut shown = json!({
        "name": name,
        "summary": row(&appliance, &name, entry, view.as_deref()),
        "declared": entry,
    });
    if let Some(view) = view {
        let known = &view.host;
        let at = |at: Elapsed| wall(&appliance.time, at);
        let all = |list: &[Elapsed]| list.iter().map(|moment| at(*moment)).collect::<Vec<_>>();
        let history = &known.history;
        shown["known"] = json!({
            "seen": known.assessment,
            "marks": {
                "paused": known.marks.paused,
                "maintenance_until": known.marks.maintenance_until.map(at),
                "foreign_since": known.marks.foreign_since.map(at),
                "self": known.marks.is_self,
            },
            "holds_on": holds_on(known, &appliance),
            "our_cordon": known.our_cordon,
            "our_taint": known.our_taint,
            "held_off": known.held_off,
            "spare_proof": spare_proof(known, &appliance),
            "order_refused": known.history.order_refused.as_ref().map(Why::from),
            "drill": known.drill.map(|drill| json!({"at": shown_at(&appliance, drill), "passed": drill.passed})),
            "history": {
                "cycles": all(&history.cycles),
                "reimages": all(&history.reimages),
                "heals": all(&history.heals),
                "boots": all(&history.boots),
                "component_restarts": all(&history.component_restarts),
            },
        });
    }
    Ok(Json(shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_of_maintenance_that_ran_out_is_none() {
        let marks = Marks { maintenance_until: Some(Elapsed(2_000)), ..Marks::default() };
        assert!(in_maintenance(&marks, Elapsed(1_999)));
        assert!(!in_maintenance(&marks, Elapsed(2_000)), "the gate acts again from there");
        assert!(!in_maintenance(&Marks::default(), Elapsed(0)));
    }
}
