//! What a refusal says: the extended information of Redfish (DSP0266, section 8.6), in its present and its old form.

use super::walk::{Walk, parse};
use crate::health::tame;

/// Messages of one answer that are kept.
const MESSAGES_MAX: usize = 8;

/// The messages of a refusal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Messages {
    /// Message IDs: registry, version and name, as `Base.1.8.PropertyValueNotInList`.
    pub ids: Vec<String>,
    /// What it says for people, made fit to show.
    pub text: String,
}

impl Messages {
    /// Reads the body of a refusal; one that is no JSON gives its own first words.
    #[must_use]
    pub fn read(body: &[u8]) -> Messages {
        let Ok(value) = parse(body) else {
            return Messages { ids: Vec::new(), text: tame(&String::from_utf8_lossy(body.get(..400).unwrap_or(body))) };
        };
        let error = Walk::of(&value).get("error");
        // iLO 4 writes `Messages` beside the error, others `@Message.ExtendedInfo` within it; some send one object, no array.
        let places = [
            error.get("@Message.ExtendedInfo"),
            Walk::of(&value).get("@Message.ExtendedInfo"),
            Walk::of(&value).get("Messages"),
            error.get("Messages"),
        ];
        let mut messages = Messages::default();
        let mut texts = Vec::new();
        for place in places {
            let several = place.items();
            let one = Some(place).filter(|place| place.value().is_some_and(serde_json::Value::is_object));
            for message in several.chain(one).take(MESSAGES_MAX) {
                let id = message.get("MessageId").text().or(message.get("MessageID").text());
                messages.ids.extend(id.map(tame));
                texts.extend(message.get("Message").text().map(tame));
            }
        }
        messages.ids.extend(error.get("code").text().map(tame));
        if texts.is_empty() {
            texts.extend(error.get("message").text().map(tame));
        }
        texts.dedup();
        messages.text = tame(&texts.join("; "));
        messages
    }

    /// Whether one of the messages has this name, whatever its registry and version.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.ids.iter().any(|id| id.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case(name)))
            || self.ids.iter().any(|id| id.eq_ignore_ascii_case(name))
    }

    /// Whether one of several has.
    #[must_use]
    pub fn any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.has(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_refusal_are_read() {
        let new = br#"{"error":{"code":"Base.1.8.GeneralError","message":"see","@Message.ExtendedInfo":[
            {"MessageId":"IDRAC.2.7.SYS518","Message":"The server is not ready."}]}}"#;
        let seen = Messages::read(new);
        assert!(seen.has("SYS518") && seen.has("GeneralError") && !seen.has("YS518"));
        assert_eq!(seen.text, "The server is not ready.");
        let ilo4 = br#"{"Messages":[{"MessageID":"iLO.0.10.InvalidOperationForSystemState"}],"Name":"Extended Error"}"#;
        assert!(Messages::read(ilo4).has("InvalidOperationForSystemState"));
        let one =
            br#"{"error":{"@Message.ExtendedInfo":{"MessageId":"Base.1.0.PreconditionRequired","Message":null}}}"#;
        assert!(Messages::read(one).any(&["PreconditionFailed", "PreconditionRequired"]));
        assert_eq!(Messages::read(b"<h1>500</h1>\x1b[2J").text, "<h1>500</h1> [2J");
        assert_eq!(Messages::read(b""), Messages::default());
    }
}
