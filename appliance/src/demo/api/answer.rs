//! Requests and what they come to, apart from sockets.

use super::change::{Form, Part, changed};
use super::filter::Filter;
use super::kinds::{Kind, KindId, SIGNING_REQUEST};
use super::objects::{Deletion, Key, Objects};
use super::path::Place;
use super::refusal::Refusal;
use super::watching::{Watching, version};
use base64::Engine as _;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is asked.
#[derive(Debug)]
pub struct Asked<'a> {
    /// GET, POST, PUT, PATCH or DELETE.
    pub method: &'a str,
    /// The parameters.
    pub query: BTreeMap<String, String>,
    /// The media type of the body.
    pub media_type: &'a str,
    /// The body; null if there is none.
    pub body: Value,
}

/// What it comes to.
#[derive(Debug)]
pub enum Answer {
    /// An object or a list.
    Object(u16, Value),
    /// A watch.
    Watch(Box<Watching>),
}

/// Most objects of one page.
const PAGE_MAX: usize = 10_000;

impl Asked<'_> {
    fn is_watch(&self) -> bool {
        matches!(self.query.get("watch").map(String::as_str), Some("true" | "1"))
    }

    fn filter(&self, place: &Place) -> Result<Filter, Refusal> {
        let text = |name: &str| self.query.get(name).map(String::as_str).unwrap_or_default();
        Filter::parse(place.namespace.as_deref(), text("labelSelector"), text("fieldSelector"))
    }

    /// Carries it out.
    ///
    /// # Errors
    /// What the API says no with.
    pub fn answer(&self, place: &Place, objects: &Arc<Objects>) -> Result<Answer, Refusal> {
        let kind = place.kind;
        match (self.method, &place.name, place.sub.as_deref()) {
            ("GET", None, None) if self.is_watch() => self.watch(place),
            ("GET", None, None) => self.list(place, objects),
            ("GET", Some(name), None | Some("status")) => {
                let key = place.key(name);
                let object = objects.get(&key).ok_or_else(|| Refusal::not_found(&key.words()))?;
                Ok(Answer::Object(200, (*object).clone()))
            }
            ("POST", None, None) => {
                let namespace = match &place.namespace {
                    Some(namespace) => namespace.as_str(),
                    None if kind.get().namespaced => {
                        return Err(Refusal::bad("an object of this kind is made within a namespace"));
                    }
                    None => "",
                };
                let made = objects.create(kind, namespace, self.body.clone())?;
                Ok(Answer::Object(201, (*made).clone()))
            }
            ("PUT" | "PATCH", Some(name), sub) => {
                let part = part(kind, sub)?;
                let form = if self.method == "PUT" { Form::Whole } else { Form::of_patch(self.media_type)? };
                let after = objects.change(&place.key(name), |before| changed(before, &self.body, form, part))?;
                Ok(Answer::Object(200, (*after).clone()))
            }
            ("DELETE", Some(name), None) => {
                let gone = objects.delete(&place.key(name), &self.deletion()?)?;
                Ok(Answer::Object(200, (*gone).clone()))
            }
            ("DELETE", None, None) => self.delete_all(place, objects),
            _ => Err(Refusal::method()),
        }
    }

    fn list(&self, place: &Place, objects: &Objects) -> Result<Answer, Refusal> {
        let limit = match self.query.get("limit").map(String::as_str) {
            None | Some("" | "0") => None,
            Some(text) => {
                let limit: usize = text.parse().map_err(|_| Refusal::bad("limit is no number"))?;
                Some(limit.clamp(1, PAGE_MAX))
            }
        };
        let after = match self.query.get("continue").filter(|text| !text.is_empty()) {
            Some(text) => Some(open_token(place.kind, text).ok_or_else(Refusal::gone)?),
            None => None,
        };
        let page = objects.page(place.kind, &self.filter(place)?, after, limit);
        let kind = place.kind.get();
        let items: Vec<&Value> = page.items.iter().map(|item| &**item).collect();
        let mut metadata = json!({"resourceVersion": page.version.to_string()});
        if let Some(next) = page.next {
            metadata["continue"] = json!(token(&next));
        }
        Ok(Answer::Object(200, list_of(kind, metadata, items)))
    }

    fn watch(&self, place: &Place) -> Result<Answer, Refusal> {
        let flag = |name: &str| self.query.get(name).is_some_and(|value| value == "true" || value == "1");
        let initial = flag("sendInitialEvents");
        let from = version(self.query.get("resourceVersion"))?;
        let lasts = self.query.get("timeoutSeconds").and_then(|text| text.parse().ok());
        Ok(Answer::Watch(Box::new(Watching {
            kind: place.kind,
            filter: self.filter(place)?,
            from: if initial { None } else { from },
            marks_initial: initial,
            bookmarks: flag("allowWatchBookmarks"),
            lasts: Watching::lasting(lasts),
        })))
    }

    fn deletion(&self) -> Result<Deletion, Refusal> {
        let text = |path: &str| self.body.pointer(path).and_then(Value::as_str).map(str::to_owned);
        let asked = self.query.get("gracePeriodSeconds").map(|text| text.parse());
        let grace_s = match (self.body.pointer("/gracePeriodSeconds").and_then(Value::as_u64), asked) {
            (Some(grace), _) => Some(grace),
            (None, Some(grace)) => Some(grace.map_err(|_| Refusal::bad("gracePeriodSeconds is no number"))?),
            (None, None) => None,
        };
        Ok(Deletion { grace_s, uid: text("/preconditions/uid"), version: text("/preconditions/resourceVersion") })
    }

    fn delete_all(&self, place: &Place, objects: &Objects) -> Result<Answer, Refusal> {
        let deletion = self.deletion()?;
        let page = objects.page(place.kind, &self.filter(place)?, None, None);
        let mut gone = Vec::new();
        for item in &page.items {
            let text = |path: &str| item.pointer(path).and_then(Value::as_str).unwrap_or_default();
            let key = Key::new(place.kind, text("/metadata/namespace"), text("/metadata/name"));
            match objects.delete(&key, &deletion) {
                Ok(object) => gone.push(object),
                // Somebody was quicker.
                Err(refusal) if refusal.code == 404 => {}
                Err(refusal) => return Err(refusal),
            }
        }
        let items: Vec<&Value> = gone.iter().map(|item| &**item).collect();
        let metadata = json!({"resourceVersion": objects.version().to_string()});
        Ok(Answer::Object(200, list_of(place.kind.get(), metadata, items)))
    }
}

impl Place {
    /// The key of an object here.
    #[must_use]
    pub fn key(&self, name: &str) -> Key {
        Key::new(self.kind, self.namespace.as_deref().unwrap_or_default(), name)
    }
}

fn list_of(kind: &Kind, metadata: Value, items: Vec<&Value>) -> Value {
    json!({"kind": format!("{}List", kind.kind), "apiVersion": kind.api_version(), "metadata": metadata, "items": items})
}

fn part(kind: KindId, sub: Option<&str>) -> Result<Part, Refusal> {
    match sub {
        None if kind.get().status => Ok(Part::Object),
        None => Ok(Part::All),
        Some("status") if kind.get().status => Ok(Part::Status),
        Some("approval") if kind == SIGNING_REQUEST => Ok(Part::Status),
        Some(_) => Err(Refusal::no_such_path()),
    }
}

fn token(key: &Key) -> String {
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(format!("{}/{}", key.namespace, key.name))
}

fn open_token(kind: KindId, token: &str) -> Option<Key> {
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (namespace, name) = text.split_once('/')?;
    Some(Key::new(kind, namespace, name))
}

#[cfg(test)]
mod tests {
    use super::super::path::query;
    use super::*;

    fn ask(objects: &Arc<Objects>, method: &str, path: &str, body: Value) -> Result<Value, Refusal> {
        let (path, parameters) = path.split_once('?').unwrap_or((path, ""));
        let place = Place::parse(path).ok_or_else(Refusal::no_such_path)?;
        let media_type = "application/merge-patch+json";
        let asked = Asked { method, query: query(parameters), media_type, body };
        match asked.answer(&place, objects)? {
            Answer::Object(_, value) => Ok(value),
            Answer::Watch(_) => panic!("no watch was asked for"),
        }
    }

    #[test]
    fn lists_come_in_pages_that_join_without_a_gap() {
        let objects = Arc::new(Objects::default());
        for name in ["a", "b", "c", "d", "e"] {
            ask(&objects, "POST", "/api/v1/nodes", json!({"metadata": {"name": name}})).unwrap();
        }
        let (mut seen, mut rest) = (Vec::new(), String::new());
        loop {
            let page = ask(&objects, "GET", &format!("/api/v1/nodes?limit=2&continue={rest}"), Value::Null).unwrap();
            seen.extend(page["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].clone()));
            match page["metadata"]["continue"].as_str() {
                Some(next) => rest = next.to_owned(),
                None => break,
            }
        }
        assert_eq!(seen, ["a", "b", "c", "d", "e"]);
        assert_eq!(ask(&objects, "GET", "/api/v1/nodes?continue=%21", Value::Null).unwrap_err().code, 410);
    }

    #[test]
    fn a_status_is_changed_only_at_its_own_place() {
        let objects = Arc::new(Objects::default());
        ask(&objects, "POST", "/api/v1/nodes", json!({"metadata": {"name": "n"}, "spec": {}})).unwrap();
        let patch = json!({"spec": {"unschedulable": true}, "status": {"x": 1}});
        let node = ask(&objects, "PATCH", "/api/v1/nodes/n", patch.clone()).unwrap();
        assert!(node["status"]["x"].is_null() && node["spec"]["unschedulable"] == true);
        let node = ask(
            &objects,
            "PATCH",
            "/api/v1/nodes/n/status",
            json!({"spec": {"unschedulable": false}, "status": {"x": 1}}),
        )
        .unwrap();
        assert!(node["status"]["x"] == 1 && node["spec"]["unschedulable"] == true);
        assert_eq!(ask(&objects, "PATCH", "/api/v1/nodes/n/scale", patch).unwrap_err().code, 404);
    }

    #[test]
    fn a_collection_is_deleted_by_its_selector() {
        let objects = Arc::new(Objects::default());
        for (name, app) in [("a", "x"), ("b", "y")] {
            let pod = json!({"metadata": {"name": name, "labels": {"app": app}}, "spec": {}});
            ask(&objects, "POST", "/api/v1/namespaces/shop/pods", pod).unwrap();
        }
        ask(&objects, "DELETE", "/api/v1/namespaces/shop/pods?labelSelector=app%3Dx", Value::Null).unwrap();
        let left = ask(&objects, "GET", "/api/v1/pods", Value::Null).unwrap();
        assert_eq!(left["items"].as_array().unwrap().len(), 1);
    }
}
