//! What the API says no with.

use serde_json::{Value, json};

/// A refusal, as a Kubernetes `Status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub code: u16,
    /// Kubernetes' word for it.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl Refusal {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Refusal {
        Refusal { code, reason, message: message.into() }
    }

    /// 404.
    #[must_use]
    pub fn not_found(what: &str) -> Refusal {
        Refusal::new(404, "NotFound", format!("{what} not found"))
    }

    /// 404 for a path that nobody serves.
    #[must_use]
    pub fn no_such_path() -> Refusal {
        Refusal::new(404, "NotFound", "the server could not find the requested resource")
    }

    /// 409: somebody was quicker.
    #[must_use]
    pub fn conflict(message: impl Into<String>) -> Refusal {
        Refusal::new(409, "Conflict", message)
    }

    /// 409: there is one already.
    #[must_use]
    pub fn exists(what: &str) -> Refusal {
        Refusal::new(409, "AlreadyExists", format!("{what} already exists"))
    }

    /// 400.
    #[must_use]
    pub fn bad(message: impl Into<String>) -> Refusal {
        Refusal::new(400, "BadRequest", message)
    }

    /// 422.
    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Refusal {
        Refusal::new(422, "Invalid", message)
    }

    /// 410: what was asked from is no longer kept.
    #[must_use]
    pub fn gone() -> Refusal {
        Refusal::new(410, "Expired", "The resourceVersion is too old: list again")
    }

    /// 401.
    #[must_use]
    pub fn unauthorized() -> Refusal {
        Refusal::new(401, "Unauthorized", "Unauthorized")
    }

    /// 405.
    #[must_use]
    pub fn method() -> Refusal {
        Refusal::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    /// 415.
    #[must_use]
    pub fn media_type(seen: &str) -> Refusal {
        Refusal::new(415, "UnsupportedMediaType", format!("the body of type {seen} is not understood here"))
    }

    /// 504: the store behind the API does not answer.
    #[must_use]
    pub fn no_quorum() -> Refusal {
        Refusal::new(504, "Timeout", "etcdserver: request timed out")
    }

    /// As the API writes it.
    #[must_use]
    pub fn status(&self) -> Value {
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        })
    }
}
