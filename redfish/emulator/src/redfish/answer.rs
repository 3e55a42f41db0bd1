//! What is answered to a request, before it becomes HTTP.

use serde_json::{Value, json};
use std::time::Duration;

/// An answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Option<Value>,
    pub(super) after: Duration,
    /// Done, and never answered.
    pub(super) lost: bool,
}

impl Answer {
    pub(super) fn status(status: u16) -> Answer {
        Answer { status, headers: Vec::new(), body: None, after: Duration::ZERO, lost: false }
    }

    pub(super) fn resource(body: Value) -> Answer {
        Answer { body: Some(body), ..Answer::status(200) }
    }

    /// A refusal with one message.
    pub(super) fn refusal(status: u16, id: &str, text: &str) -> Answer {
        let body = json!({ "error": { "code": "Base.1.12.GeneralError", "message": "See ExtendedInfo.",
            "@Message.ExtendedInfo": [{ "MessageId": id, "Message": text, "Severity": "Critical" }] } });
        Answer { body: Some(body), ..Answer::status(status) }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Answer {
        self.headers.push((name, value.into()));
        self
    }
}
