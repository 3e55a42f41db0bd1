//! Problems as RFC 9457 has them: a code, the cause and the next step. No secret and no text of a client is in one.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

/// A problem. `title` says what is wrong in general, `detail` what it is here and what to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Problem {
    /// `about:blank` has no page behind it: the code names the kind.
    #[serde(rename = "type")]
    pub kind: Box<str>,
    /// The status of the answer.
    pub status: u16,
    /// A code in kebab case that stays the same.
    pub code: Box<str>,
    /// The kind in words.
    pub title: Box<str>,
    /// What it is here, and the next step.
    pub detail: String,
    /// What is wrong with a declaration, entry by entry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<crate::server::resources::Wrong>,
}

impl Problem {
    /// A problem.
    #[must_use]
    pub fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Problem {
        Problem {
            kind: "about:blank".into(),
            status: status.as_u16(),
            code: code.into(),
            title: status.canonical_reason().unwrap_or("Error").into(),
            detail: detail.into(),
            errors: Vec::new(),
        }
    }

    /// There is nothing of this name.
    #[must_use]
    pub fn unknown(what: &str) -> Problem {
        Problem::new(
            StatusCode::NOT_FOUND,
            "not-found",
            format!("there is no such {what}; list them to see what there is"),
        )
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        let media_type = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, media_type);
        response
    }
}
