//! The control socket: what changes the world. It is a file in the data directory that only the appliance's own user and root
//! may open; orders go to the loop as a person's.

use super::problem::Problem;
use crate::decide_loop::{NotCommitted, Order};
use crate::server::Appliance;
use crate::server::book;
use crate::server::chronicle::kebab;
use crate::server::registrar::NotApplied;
use crate::server::resources::{Applied, Declaration};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use healing::event::{Operator, Scope};
use healing::id::{HostId, IncidentId, MachineId};
use healing::world::incident::Phase;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;

/// What a person orders, by the names that people use.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Asked {
    /// Pause or go on: a cluster, a domain, a host, or everything.
    Pause {
        /// Pause, or go on.
        paused: bool,
        /// A cluster.
        #[serde(default)]
        cluster: Option<String>,
        /// A domain, such as `rack/r1`.
        #[serde(default)]
        domain: Option<String>,
        /// A host.
        #[serde(default)]
        host: Option<String>,
    },
    /// Arm or disarm a cluster.
    Arm {
        /// Which.
        cluster: String,
        /// Armed.
        armed: bool,
    },
    /// Only observe, or act.
    ObserveOnly {
        /// Only observe.
        on: bool,
        /// It acts although the journal could not be read whole, and what was done before is not known.
        #[serde(default)]
        budgets_unknown: bool,
    },
    /// Approve the rung that an incident stands on.
    Approve {
        /// Which incident.
        incident: u64,
        /// The rung that the person saw, as it is shown: while he read, the ladder may have gone on.
        rung: String,
    },
    /// End the ladder of an incident.
    Deny {
        /// Which incident.
        incident: u64,
    },
    /// Confirm by its serial that an unfenced host is off.
    ConfirmOff {
        /// Which incident.
        incident: u64,
        /// What is written on the machine.
        serial: String,
    },
    /// Maintenance of a host for so long, or its end.
    Maintenance {
        /// Which host.
        host: String,
        /// For how long; absent ends it.
        #[serde(default)]
        seconds: Option<u64>,
    },
    /// Begin the ladder of a host anew after a person said no to it, or look at it at once: no rule is waived.
    Heal {
        /// Which host.
        host: String,
    },
    /// Return a quarantined or flapping host to service.
    Return {
        /// Which host.
        host: String,
    },
    /// Prove a spare now, by what is written on it.
    Prove {
        /// Which spare.
        host: String,
        /// What is written on the machine.
        serial: String,
    },
    /// Power-cycle a host that is well and cordoned, to show that it can be.
    Drill {
        /// Which host.
        host: String,
        /// What is written on the machine.
        serial: String,
    },
    /// Reset the breaker.
    ResetBreaker,
    /// Lift the freeze of an identity alarm.
    LiftPowerFreeze,
}

/// Longest maintenance: a window is named, not forgotten.
const MAINTENANCE_MAX_S: u64 = 30 * 24 * 3_600;

impl From<NotCommitted> for Problem {
    fn from(why: NotCommitted) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not-committed", why.to_string())
    }
}

impl From<NotApplied> for Problem {
    fn from(why: NotApplied) -> Problem {
        let (status, code) = match &why {
            NotApplied::Wrong(_) => (StatusCode::UNPROCESSABLE_ENTITY, "wrong-entries"),
            NotApplied::NoSuchHost(_) => (StatusCode::NOT_FOUND, "not-found"),
            NotApplied::Refused(_) | NotApplied::Cluster(_) => (StatusCode::CONFLICT, "refused"),
            NotApplied::Store(_) | NotApplied::NotYet(_) => (StatusCode::SERVICE_UNAVAILABLE, "not-committed"),
        };
        let mut problem = Problem::new(status, code, why.to_string());
        if let NotApplied::Wrong(errors) = why {
            problem.errors = errors;
        }
        problem
    }
}

/// `POST /control/v1/apply`
pub async fn apply(
    State(appliance): State<Arc<Appliance>>,
    Json(declared): Json<Declaration>,
) -> Result<Json<Applied>, Problem> {
    // In a task of its own: a client that goes away, or an answer that takes too long, must not leave it half done.
    let applied = tokio::spawn(async move { appliance.apply(&declared).await }).await;
    let failed = |_| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "fault", "a fault of ours: see the log, and apply it again")
    };
    Ok(Json(applied.map_err(failed)??))
}

/// `GET /control/v1/export`: everything that was declared, without a secret.
pub async fn export(State(appliance): State<Arc<Appliance>>) -> Json<Value> {
    let book = appliance.registrar.book();
    let pools: Vec<_> = book.pools.values().map(|pool| &pool.entry).collect();
    let hosts: Vec<_> = book.hosts.values().map(|host| &host.entry).collect();
    Json(json!({ "pools": pools, "hosts": hosts }))
}

/// `DELETE /control/v1/hosts/{name}`
pub async fn remove(State(appliance): State<Arc<Appliance>>, Path(name): Path<String>) -> Result<StatusCode, Problem> {
    let removed = tokio::spawn(async move { appliance.remove_host(&name).await }).await;
    let failed =
        |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "fault", "a fault of ours: see the log, and try again");
    removed.map_err(failed)??;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /control/v1/orders`
pub async fn order(State(appliance): State<Arc<Appliance>>, Json(asked): Json<Asked>) -> Result<Json<Value>, Problem> {
    let order = understood(&appliance, &asked)?;
    tracing::info!(order = ?order, "a person ordered");
    let committed = appliance.inbox.submit(Order::Operator(order)).await?;
    let refused = ["no-such-cluster", "no-such-host", "no-such-incident", "refused", "cold-start-nobody"];
    let notices: Vec<&str> = committed.notices.iter().map(|notice| &*notice.explanation.sentence).collect();
    match committed.notices.iter().find(|notice| refused.contains(&&*notice.explanation.code)) {
        Some(notice) => Err(Problem::new(StatusCode::CONFLICT, "refused", notice.explanation.sentence.to_string())),
        None => Ok(Json(json!({ "entry": committed.seq, "notices": notices }))),
    }
}

fn understood(appliance: &Appliance, asked: &Asked) -> Result<Operator, Problem> {
    let host = |name: &String| appliance.registrar.book().id_of(name).ok_or_else(|| Problem::unknown("host"));
    let cluster = |name: &String| {
        let found = appliance.registrar.ground().clusters.get(name);
        found.copied().ok_or_else(|| Problem::unknown("cluster"))
    };
    Ok(match asked {
        Asked::Pause { paused, cluster: of_cluster, domain, host: of_host } => {
            let scope = match (of_cluster, domain, of_host) {
                (None, None, None) => Scope::Site,
                (Some(name), None, None) => Scope::Cluster(cluster(name)?),
                (None, Some(name), None) => Scope::Domain(domain_of(appliance, name)?),
                (None, None, Some(name)) => Scope::Host(host(name)?),
                _ => {
                    let detail = "name one cluster, one domain or one host, or nothing for everything";
                    return Err(Problem::new(StatusCode::BAD_REQUEST, "bad-order", detail));
                }
            };
            Operator::Pause { scope, paused: *paused }
        }
        Asked::Arm { cluster: name, armed } => Operator::Arm { cluster: cluster(name)?, armed: *armed },
        Asked::ObserveOnly { on: false, budgets_unknown: true } => Operator::AcceptUnknownBudgets,
        Asked::ObserveOnly { on, .. } => Operator::ObserveOnly(*on),
        Asked::Approve { incident, rung } => {
            let id = IncidentId(*incident);
            let present = open_incident(appliance, id)?.current_rung();
            let stands = kebab(&format!("{present:?}"));
            if stands != *rung {
                let detail = format!(
                    "incident {incident} stands on `{stands}` now, not on `{rung}`: nothing was approved; look at it again \
                     (`rackmedic incident show {incident}`)"
                );
                return Err(Problem::new(StatusCode::CONFLICT, "other-rung", detail));
            }
            Operator::Approve { incident: id, rung: present }
        }
        Asked::Deny { incident } => Operator::Deny { incident: IncidentId(*incident) },
        Asked::ConfirmOff { incident, serial } => confirm_off(appliance, IncidentId(*incident), serial)?,
        Asked::Maintenance { host: name, seconds } => {
            if seconds.is_some_and(|seconds| seconds == 0 || seconds > MAINTENANCE_MAX_S) {
                let detail = format!("a maintenance lasts 1 to {MAINTENANCE_MAX_S} seconds");
                return Err(Problem::new(StatusCode::BAD_REQUEST, "bad-order", detail));
            }
            let now = appliance.time.now().elapsed;
            let until = seconds.map(|seconds| now.plus(seconds * 1_000));
            Operator::Maintenance { host: host(name)?, until }
        }
        Asked::Heal { host: name } => Operator::RequestHeal(host(name)?),
        Asked::Return { host: name } => Operator::ReturnHost(host(name)?),
        Asked::Prove { host: name, serial } => {
            let host = host(name)?;
            Operator::Prove { host, machine: typed(appliance, host, serial)?.0 }
        }
        Asked::Drill { host: name, serial } => {
            let host = host(name)?;
            Operator::Drill { host, machine: typed(appliance, host, serial)?.0 }
        }
        Asked::ResetBreaker => Operator::ResetBreaker,
        Asked::LiftPowerFreeze => Operator::LiftPowerFreeze,
    })
}

fn domain_of(appliance: &Appliance, name: &str) -> Result<healing::id::DomainId, Problem> {
    let scopes = appliance.inbox.views.scopes();
    let found = scopes.domains.values().find(|domain| domain.name == name);
    found.map(|domain| domain.id).ok_or_else(|| Problem::unknown("domain"))
}

fn open_incident(appliance: &Appliance, id: IncidentId) -> Result<healing::world::incident::Incident, Problem> {
    let views = appliance.inbox.views.hosts();
    let found = views.iter().filter_map(|view| view.incident.as_ref()).find(|incident| incident.id == id);
    found.cloned().ok_or_else(|| Problem::unknown("open incident"))
}

/// The machine that a typed serial names, and whether anything is recorded to compare it with. The record's own serial
/// names the record's machine; anything else names none, and the decisions say no.
fn typed(appliance: &Appliance, host: HostId, serial: &str) -> Result<(MachineId, bool), Problem> {
    let known = appliance.inbox.views.host(host).ok_or_else(|| Problem::unknown("host"))?;
    let book = appliance.registrar.book();
    let record = book.host(host).and_then(|entry| entry.serial.as_deref());
    let typed = serial.trim();
    let same = record.is_some_and(|record| record.trim() == typed);
    let machine = if same { known.host.machine } else { book::machine(typed).unwrap_or(MachineId(0)) };
    Ok((machine, record.is_some() || book::machine(typed).is_some()))
}

/// Rule 27.
fn confirm_off(appliance: &Appliance, id: IncidentId, serial: &str) -> Result<Operator, Problem> {
    let incident = open_incident(appliance, id)?;
    let (machine, comparable) = typed(appliance, incident.host, serial)?;
    if !comparable && incident.phase == Phase::Unfenced {
        let detail = "no serial is recorded for this host: type its SMBIOS UUID, or declare its `serial` first";
        return Err(Problem::new(StatusCode::CONFLICT, "no-serial", detail));
    }
    Ok(Operator::ConfirmOff { incident: id, machine })
}
