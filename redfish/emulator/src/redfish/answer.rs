//! What is answered to a request, before it becomes HTTP.

use serde_json::{Value, json};
use std::time::Duration;

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Option<Value>,
    pub(crate) after: Duration,
    /// Done, and never answered.
    pub(crate) lost: bool,
}

impl Answer {
    pub(crate) fn status(status: u16) -> Answer {
        Answer { status, headers: Vec::new(), body: None, after: Duration::ZERO, lost: false }
    }

    pub(crate) fn resource(body: Value) -> Answer {
        Answer { body: Some(body), ..Answer::status(200) }
    }

    /// A refusal with one message.
    pub(crate) fn refusal(status: u16, id: &str, text: &str) -> Answer {
        let body = json!({ "error": { "code": "Base.1.12.GeneralError", "message": "See ExtendedInfo.",
            "@Message.ExtendedInfo": [{ "MessageId": id, "Message": text, "Severity": "Critical" }] } });
        Answer { body: Some(body), ..Answer::status(status) }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Answer {
        self.headers.push((name, value.into()));
        self
    }
}
