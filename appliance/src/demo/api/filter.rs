//! Label and field selectors.

use super::refusal::Refusal;
use serde_json::Value;

/// What an object must be to be listed.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    namespace: Option<String>,
    terms: Vec<Term>,
}

#[derive(Debug, Clone)]
enum Term {
    Field(String, String, bool),
    Label(String, Vec<String>, bool),
    HasLabel(String, bool),
}

/// Terms of one selector at most.
const TERMS_MAX: usize = 32;

impl Filter {
    /// From a namespace, a label selector and a field selector.
    ///
    /// # Errors
    /// A selector is none.
    pub fn parse(namespace: Option<&str>, labels: &str, fields: &str) -> Result<Filter, Refusal> {
        let mut terms = Vec::new();
        for text in fields.split(',').filter(|text| !text.is_empty()) {
            let (path, value, equal) = match text.split_once("!=") {
                Some((path, value)) => (path, value, false),
                None => {
                    let none = || Refusal::bad(format!("`{text}` is no field selector"));
                    let (path, value) = text.split_once('=').ok_or_else(none)?;
                    (path, value.strip_prefix('=').unwrap_or(value), true)
                }
            };
            let known =
                ["metadata.name", "metadata.namespace", "spec.nodeName", "status.phase", "type", "spec.unschedulable"];
            if !known.contains(&path) {
                return Err(Refusal::bad(format!("field label not supported: {path}")));
            }
            terms.push(Term::Field(format!("/{}", path.replace('.', "/")), value.to_owned(), equal));
        }
        for text in label_terms(labels) {
            terms.push(label_term(text)?);
        }
        if terms.len() > TERMS_MAX {
            return Err(Refusal::bad("the selector has too many terms"));
        }
        Ok(Filter { namespace: namespace.map(str::to_owned), terms })
    }

    /// Whether an object is meant.
    #[must_use]
    pub fn takes(&self, object: &Value) -> bool {
        let in_namespace =
            |namespace: &String| object.pointer("/metadata/namespace").and_then(Value::as_str) == Some(namespace);
        self.namespace.as_ref().is_none_or(in_namespace) && self.terms.iter().all(|term| term.takes(object))
    }
}

impl Term {
    fn takes(&self, object: &Value) -> bool {
        let label =
            |name: &str| object.pointer("/metadata/labels").and_then(|labels| labels.get(name)).and_then(Value::as_str);
        match self {
            Term::Field(path, wanted, equal) => {
                let seen = match object.pointer(path) {
                    Some(Value::String(text)) => text.clone(),
                    Some(Value::Bool(flag)) => flag.to_string(),
                    Some(Value::Number(number)) => number.to_string(),
                    _ => String::new(),
                };
                (seen == *wanted) == *equal
            }
            Term::Label(name, values, within) => {
                let seen = label(name).is_some_and(|value| values.iter().any(|wanted| wanted == value));
                seen == *within
            }
            Term::HasLabel(name, has) => label(name).is_some() == *has,
        }
    }
}

/// Splits at commas that stand outside of parentheses.
fn label_terms(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut terms) = (0, 0, Vec::new());
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                terms.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(text[start..].trim());
    terms.retain(|term| !term.is_empty());
    terms
}

fn label_term(text: &str) -> Result<Term, Refusal> {
    let none = || Refusal::bad(format!("`{text}` is no label selector"));
    if let Some((head, tail)) = text.split_once('(') {
        let values = tail.strip_suffix(')').ok_or_else(none)?;
        let values = values.split(',').map(|value| value.trim().to_owned()).collect();
        let (name, operator) = head.trim().rsplit_once(' ').ok_or_else(none)?;
        return match operator {
            "in" => Ok(Term::Label(name.trim().to_owned(), values, true)),
            "notin" => Ok(Term::Label(name.trim().to_owned(), values, false)),
            _ => Err(none()),
        };
    }
    if let Some((name, value)) = text.split_once("!=") {
        return Ok(Term::Label(name.trim().to_owned(), vec![value.trim().to_owned()], false));
    }
    if let Some((name, value)) = text.split_once('=') {
        let value = value.strip_prefix('=').unwrap_or(value);
        return Ok(Term::Label(name.trim().to_owned(), vec![value.trim().to_owned()], true));
    }
    Ok(match text.strip_prefix('!') {
        Some(name) => Term::HasLabel(name.trim().to_owned(), false),
        None => Term::HasLabel(text.to_owned(), true),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_take_what_they_name() {
        let pod = json!({"metadata": {"namespace": "shop", "labels": {"app": "web", "tier": "front"}},
            "spec": {"nodeName": "node-1"}, "status": {"phase": "Running"}});
        let takes = |labels: &str, fields: &str| Filter::parse(Some("shop"), labels, fields).unwrap().takes(&pod);
        assert!(takes("app=web,tier in (front, back),!gone", "spec.nodeName=node-1,status.phase!=Failed"));
        assert!(!takes("app!=web", ""));
        assert!(!takes("app notin (web)", ""));
        assert!(!takes("", "spec.nodeName=node-2"));
        assert!(!Filter::parse(Some("other"), "", "").unwrap().takes(&pod));
        assert_eq!(Filter::parse(None, "", "spec.color=red").unwrap_err().code, 400);
    }
}
