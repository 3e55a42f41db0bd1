//! JSON of a BMC, read without ever failing on a field that is missing, null or of another type: the reader asks for what
//! it needs and gets it or nothing. What is refused is only what would harm us: too long, too deep, too many values.

use serde_json::Value;
use thiserror::Error;

/// A resource is at most so long; the longest seen in the field has 39 kB.
pub(super) const BODY_BYTES_MAX: usize = 4 << 20;
/// Nesting of arrays and objects at most.
pub(super) const DEPTH_MAX: usize = 64;
/// Values in one resource at most: each costs some sixty bytes of memory, however short it is written.
pub(super) const VALUES_MAX: usize = 200_000;
/// Members of a collection that are looked at.
pub(super) const MEMBERS_MAX: usize = 1_000;

/// Why bytes are no resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unreadable {
    /// Longer than 4 MiB.
    #[error("the answer is longer than 4 MiB")]
    Long,
    /// Deeper than 64 levels.
    #[error("the answer nests deeper than 64 levels")]
    Deep,
    /// More than 200,000 values.
    #[error("the answer holds more than 200,000 values")]
    Many,
    /// No JSON.
    #[error("the answer is no JSON (line {line}, column {column})")]
    NotJson {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// JSON, but no object.
    #[error("the answer is no JSON object")]
    NotAnObject,
}

/// Reads a resource.
///
/// # Errors
/// Why it is none.
pub fn parse(bytes: &[u8]) -> Result<Value, Unreadable> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    bounded(bytes)?;
    let value: Value =
        serde_json::from_slice(bytes).map_err(|why| Unreadable::NotJson { line: why.line(), column: why.column() })?;
    if value.is_object() { Ok(value) } else { Err(Unreadable::NotAnObject) }
}

/// Counts before anything is allocated.
fn bounded(bytes: &[u8]) -> Result<(), Unreadable> {
    if bytes.len() > BODY_BYTES_MAX {
        return Err(Unreadable::Long);
    }
    let (mut depth, mut values, mut in_text, mut escaped) = (0usize, 0usize, false, false);
    for byte in bytes {
        if in_text {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_text = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_text = true,
            b'[' | b'{' => {
                depth += 1;
                values += 1;
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' => values += 1,
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Err(Unreadable::Deep);
        }
        if values > VALUES_MAX {
            return Err(Unreadable::Many);
        }
    }
    Ok(())
}

/// A place in a resource, or nothing. Every step from nothing gives nothing.
#[derive(Debug, Clone, Copy)]
pub struct Walk<'a>(Option<&'a Value>);

impl<'a> Walk<'a> {
    /// At the top.
    #[must_use]
    pub fn of(value: &'a Value) -> Walk<'a> {
        Walk(Some(value))
    }

    /// The member of that name.
    #[must_use]
    pub fn get(self, name: &str) -> Walk<'a> {
        Walk(self.0.and_then(|value| value.get(name)))
    }

    /// The member of a member, and so on.
    #[must_use]
    pub fn at(self, names: &[&str]) -> Walk<'a> {
        names.iter().fold(self, |walk, name| walk.get(name))
    }

    /// It is there and not null.
    #[must_use]
    pub fn is_some(self) -> bool {
        self.0.is_some_and(|value| !value.is_null())
    }

    /// A text that is not empty.
    #[must_use]
    pub fn text(self) -> Option<&'a str> {
        self.0.and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    /// A number; a text that is one counts, as some firmware writes them so.
    #[must_use]
    pub fn number(self) -> Option<f64> {
        match self.0? {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        }
        .filter(|number| number.is_finite())
    }

    /// True or false.
    #[must_use]
    pub fn flag(self) -> Option<bool> {
        self.0.and_then(Value::as_bool)
    }

    /// The items of an array, at most a thousand; nothing of anything else.
    pub fn items(self) -> impl Iterator<Item = Walk<'a>> {
        self.0.and_then(Value::as_array).into_iter().flatten().take(MEMBERS_MAX).map(|value| Walk(Some(value)))
    }

    /// The members of an object with their names, at most a thousand.
    pub fn members(self) -> impl Iterator<Item = (&'a str, Walk<'a>)> {
        let object = self.0.and_then(Value::as_object).into_iter().flatten();
        object.take(MEMBERS_MAX).map(|(name, value)| (name.as_str(), Walk(Some(value))))
    }

    /// The texts of an array.
    pub fn texts(self) -> impl Iterator<Item = &'a str> {
        self.items().filter_map(Walk::text)
    }

    /// The `@odata.id` of what is here, as written.
    #[must_use]
    pub fn id(self) -> Option<&'a str> {
        self.get("@odata.id").text()
    }

    /// The value itself.
    #[must_use]
    pub fn value(self) -> Option<&'a Value> {
        self.0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn missing_null_and_mistyped_are_nothing() {
        let value = parse(br#"{"a":null,"b":7,"c":{"d":["x",3,null]},"e":"","f":"21.5"}"#).unwrap();
        let walk = Walk::of(&value);
        assert_eq!(walk.get("a").text(), None);
        assert!(!walk.get("a").is_some());
        assert_eq!(walk.get("b").text(), None);
        assert_eq!(walk.at(&["c", "d"]).texts().collect::<Vec<_>>(), ["x"]);
        assert_eq!(walk.at(&["c", "nothing", "more"]).text(), None);
        assert_eq!(walk.get("e").text(), None);
        assert_eq!(walk.get("f").number(), Some(21.5));
        assert_eq!(walk.get("c").items().count(), 0);
    }

    #[test]
    fn what_would_harm_is_refused() {
        let deep = [vec![b'['; 65], vec![b']'; 65]].concat();
        assert_eq!(parse(&deep), Err(Unreadable::Deep));
        let many = [b"{\"a\":[0".to_vec(), b",0".repeat(VALUES_MAX + 1), b"]}".to_vec()].concat();
        assert_eq!(parse(&many), Err(Unreadable::Many));
        assert_eq!(parse(&vec![b' '; BODY_BYTES_MAX + 1]), Err(Unreadable::Long));
        assert_eq!(parse(b"[]"), Err(Unreadable::NotAnObject));
        assert!(matches!(parse(b"{\"a\":"), Err(Unreadable::NotJson { line: 1, .. })));
        // Brackets within a text do not nest.
        assert!(parse(format!("{{\"a\":\"{}\\\"\"}}", "[".repeat(500)).as_bytes()).is_ok());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(value) = parse(&bytes) {
                let _ = Walk::of(&value).get("a").items().count();
            }
        }
    }
}
