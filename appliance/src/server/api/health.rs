//! Whether it runs, whether it can act, and what it counts.

use super::hosts::Why;
use super::problem::Problem;
use crate::server::Appliance;
use crate::server::api::hosts;
use crate::server::chronicle::kebab;
use crate::server::notify::STANDS_MS;
use crate::watch::tally::Tally;
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use healing::explain::Explanation;
use healing::time::Millis;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

/// `GET /healthz`: the decision loop turns.
pub async fn healthz(State(appliance): State<Arc<Appliance>>) -> Result<&'static str, Problem> {
    let age_ms = appliance.pulse.age_ms(appliance.time.now().elapsed);
    if age_ms <= STANDS_MS {
        return Ok("ok\n");
    }
    let detail =
        format!("the decision loop has not turned for {} s: restart the service and report it", age_ms / 1_000);
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "loop-stands", detail))
}

/// `GET /readyz`: it turns, and what it decides is kept.
pub async fn readyz(state: State<Arc<Appliance>>) -> Result<&'static str, Problem> {
    let keeps = state.pulse.keeps();
    healthz(state).await?;
    if keeps {
        return Ok("ok\n");
    }
    let detail = "the store cannot be written, so the appliance only observes: free space or replace the disk";
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "store-fails", detail))
}

/// `GET /api/v1/status`: what holds for the whole site.
pub async fn status(State(appliance): State<Arc<Appliance>>) -> Json<Value> {
    let (site, scopes) = (appliance.inbox.views.site(), appliance.inbox.views.scopes());
    let now = appliance.time.now().elapsed;
    let clusters: Vec<Value> = scopes
        .clusters
        .values()
        .map(|cluster| {
            let watched = appliance.outside.clusters.get().and_then(|clusters| clusters.get(cluster.id));
            let away = watched.and_then(|watched| watched.state.unreachable_since());
            json!({
                "name": cluster.name, "api": away.map(|since| api_away(now.since(since))), "armed": cluster.armed, "paused": cluster.paused,
                "frozen": cluster.freeze.is_some(), "etcd_access": cluster.etcd_access,
            })
        })
        .collect();
    let paused: Vec<&str> =
        scopes.domains.values().filter(|domain| domain.paused).map(|domain| domain.name.as_str()).collect();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "policy": appliance.kind,
        "observe_only": site.observe_only.as_ref().map(|why| kebab(format!("{why:?}").split(' ').next().unwrap_or_default())),
        "paused": site.paused,
        "breaker": site.breaker.as_ref().map(Why::from),
        "power_freeze": site.power_freeze.as_ref().map(Why::from),
        "blind": site.blind_since.is_some(),
        "clusters": clusters,
        "paused_domains": paused,
        "hosts": counts(&appliance),
        "missing": appliance.missing(),
    }))
}

/// What an API that does not answer means.
fn api_away(away_ms: Millis) -> Value {
    let away_s = away_ms / 1_000;
    let sentence = format!(
        "no endpoint of its API has answered for {away_s} s: what Nodes and Leases last said is old, so no worker is cut and \
         none is released on it"
    );
    json!({ "unreachable_s": away_s, "explanation": Why::from(&Explanation::refusal(7, "api-away", sentence)) })
}

fn counts(appliance: &Appliance) -> BTreeMap<&'static str, usize> {
    let now = appliance.time.now().elapsed;
    let mut counts = BTreeMap::new();
    for view in appliance.inbox.views.hosts() {
        *counts.entry(hosts::state(&view, now)).or_insert(0) += 1;
    }
    counts
}

/// `GET /metrics`, in the text format of Prometheus.
pub async fn metrics(State(appliance): State<Arc<Appliance>>) -> impl IntoResponse {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut gauge = |name: &str, help: &str, lines: Vec<(String, String)>| {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (labels, value) in lines {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    };
    let site = appliance.inbox.views.site();
    let flag = |on: bool| vec![(String::new(), u8::from(on).to_string())];
    let version = format!("{{version=\"{}\",policy=\"{}\"}}", env!("CARGO_PKG_VERSION"), appliance.kind);
    gauge("rackmedic_build_info", "The version that runs.", vec![(version, "1".to_owned())]);
    let by_state = counts(&appliance).into_iter().map(|(state, n)| (format!("{{state=\"{state}\"}}"), n.to_string()));
    gauge("rackmedic_hosts", "Hosts by state.", by_state.collect());
    gauge("rackmedic_observe_only", "Nothing outside may be touched.", flag(site.observe_only.is_some()));
    gauge("rackmedic_paused", "A person paused everything.", flag(site.paused));
    gauge("rackmedic_breaker_open", "The breaker waits for a person.", flag(site.breaker.is_some()));
    gauge("rackmedic_power_frozen", "An identity alarm waits for a person.", flag(site.power_freeze.is_some()));
    gauge("rackmedic_blind", "Own sight is in doubt.", flag(site.blind_since.is_some()));
    gauge("rackmedic_store_whole", "Everything that is decided is journaled.", flag(appliance.pulse.keeps()));
    let age = appliance.pulse.age_ms(appliance.time.now().elapsed);
    let age = format!("{}.{:03}", age / 1_000, age % 1_000);
    gauge("rackmedic_loop_age_seconds", "Since the decision loop last turned.", vec![(String::new(), age)]);
    let seq = *appliance.inbox.views.committed().borrow();
    gauge("rackmedic_journal_entries", "Number of the last journal entry.", vec![(String::new(), seq.to_string())]);
    appliance.chronicle.lock().await.stages().write(&mut text);
    for (segment, network) in appliance.outside.networks.get().into_iter().flatten().enumerate() {
        prober(&mut text, segment, &network.tally());
    }
    if let Some(clusters) = appliance.outside.clusters.get() {
        text.push_str(&clusters.metrics());
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

fn prober(text: &mut String, segment: usize, tally: &Tally) {
    let counters = [
        ("sent", tally.sent),
        ("unsent", tally.unsent),
        ("answered", tally.answered),
        ("late", tally.late),
        ("missed", tally.missed),
        ("void_misses", tally.void_misses),
        ("foreign", tally.foreign),
        ("lost_frames", tally.lost_frames),
        ("late_turns", tally.late_turns),
        ("stalls", tally.stalls),
        ("reopened", tally.reopened),
        ("boot_requests", tally.boot_requests),
        ("duplicates", tally.duplicates),
    ];
    if segment == 0 {
        text.push_str("# HELP rackmedic_prober_total What the prober of a segment counted.\n");
        text.push_str("# TYPE rackmedic_prober_total counter\n");
    }
    for (what, count) in counters {
        let _ = writeln!(text, "rackmedic_prober_total{{segment=\"{segment}\",what=\"{what}\"}} {count}");
    }
}
