//! The doors for people: a read-only API over HTTP, and a control socket for what changes the world.
//!
//! Nobody who reads says who they are yet, so the API listens on loopback unless the configuration says plainly that all
//! may read; and it answers only to names that are its own, so that a page in somebody's browser cannot reach it by a name
//! that is pointed here (DNS rebinding).

pub mod control;
pub mod health;
pub mod hosts;
pub mod incidents;
pub mod listen;
pub mod page;
pub mod problem;

use super::Appliance;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, post};
use problem::Problem;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

/// A declaration at most: 20,000 hosts of a kilobyte and a half.
const DECLARATION_BYTES_MAX: usize = 32 << 20;
/// A question at most: it has no body.
const QUESTION_BYTES_MAX: usize = 4 << 10;
/// A request is answered within this.
const ANSWER: Duration = Duration::from_secs(60);

fn reading() -> Router<Arc<Appliance>> {
    Router::new()
        .route("/api/v1/status", get(health::status))
        .route("/api/v1/hosts", get(hosts::list))
        .route("/api/v1/hosts/{name}", get(hosts::one))
        .route("/api/v1/incidents", get(incidents::list))
        .route("/api/v1/incidents/{id}", get(incidents::one))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
}

/// What everybody may ask who reaches the port.
pub fn public(appliance: Arc<Appliance>, host_names: Vec<String>) -> Router {
    finished(reading(), appliance, QUESTION_BYTES_MAX)
        .layer(middleware::from_fn_with_state(Arc::new(host_names), own_name))
}

/// What may be asked over the control socket.
pub fn control(appliance: Arc<Appliance>) -> Router {
    let writing = Router::new()
        .route("/control/v1/apply", post(control::apply))
        .route("/control/v1/export", get(control::export))
        .route("/control/v1/hosts/{name}", delete(control::remove))
        .route("/control/v1/orders", post(control::order));
    finished(reading().merge(writing), appliance, DECLARATION_BYTES_MAX)
}

fn finished(router: Router<Arc<Appliance>>, appliance: Arc<Appliance>, body_bytes: usize) -> Router {
    router
        .fallback(|| async { Problem::unknown("path") })
        .method_not_allowed_fallback(|| async {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "read-only",
                "this is only for reading; orders go over the control socket",
            )
        })
        .with_state(appliance)
        .layer(DefaultBodyLimit::max(body_bytes))
        .layer(middleware::from_fn(in_time))
}

/// Every answer comes in time, as a problem if need be, and says that it is nobody's to keep or to embed.
async fn in_time(request: Request, next: Next) -> Response {
    let answer = tokio::time::timeout(ANSWER, next.run(request)).await;
    let mut response = answer.unwrap_or_else(|_| {
        Problem::new(StatusCode::GATEWAY_TIMEOUT, "too-slow", "it took too long; ask again, and look at the log")
            .into_response()
    });
    let plain =
        response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain"));
    // What axum itself refuses (a body that is no JSON, or too long) comes as a sentence.
    if plain && response.status().is_client_error() {
        let status = response.status();
        let detail = "the request is not understood: its body must be JSON of the documented shape and size";
        response = Problem::new(status, "bad-request", detail).into_response();
    }
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    );
    response
}

async fn own_name(State(names): State<Arc<Vec<String>>>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| request.uri().authority().map(axum::http::uri::Authority::as_str));
    if host.is_some_and(|host| is_own(host, &names)) {
        return next.run(request).await;
    }
    let detail = "the request names a host that this appliance does not go by: ask by its address, or add the name to `api.host_names`";
    Problem::new(StatusCode::MISDIRECTED_REQUEST, "not-my-name", detail).into_response()
}

/// Addresses cannot be rebound; names can, but for `localhost` and those that the configuration knows.
fn is_own(host: &str, names: &[String]) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => {
            return v6.split_once(']').is_some_and(|(address, _)| address.parse::<Ipv6Addr>().is_ok());
        }
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    name.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || names.iter().any(|own| own.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_names_and_addresses_are_answered() {
        let names = ["rackmedic.example".to_owned()];
        for own in ["127.0.0.1:8420", "localhost", "LOCALHOST:1", "[::1]:8420", "rackmedic.example:8420", "10.0.0.5"] {
            assert!(is_own(own, &names), "{own}");
        }
        for other in
            ["evil.example", "127.0.0.1.evil.example", "[evil]", "", "localhost.evil.example:80", "x@localhost"]
        {
            assert!(!is_own(other, &names), "{other}");
        }
    }
}
