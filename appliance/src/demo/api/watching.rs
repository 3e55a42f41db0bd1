//! Watches: what is there at the beginning if it is asked for, then each change in order, bookmarks in between.

use super::filter::Filter;
use super::kinds::KindId;
use super::objects::{Change, Objects};
use super::refusal::Refusal;
use bytes::Bytes;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Between two bookmarks.
const BOOKMARK: Duration = Duration::from_secs(20);
/// A watch that names no end ends after this.
const LONGEST: Duration = Duration::from_secs(600);
/// Events that wait for a slow client.
const LANE: usize = 64;

/// What is watched.
#[derive(Debug, Clone)]
pub struct Watching {
    /// The kind.
    pub kind: KindId,
    /// Of these objects.
    pub filter: Filter,
    /// From this version on; `None` = from what is there now, each of them told first.
    pub from: Option<u64>,
    /// A bookmark says when everything that was there is told.
    pub marks_initial: bool,
    /// Bookmarks are wanted.
    pub bookmarks: bool,
    /// It ends after this.
    pub lasts: Duration,
}

impl Watching {
    /// How long a watch lasts that asks for so many seconds.
    #[must_use]
    pub fn lasting(seconds: Option<u64>) -> Duration {
        seconds.map_or(LONGEST, |seconds| Duration::from_secs(seconds).min(LONGEST))
    }

    /// Begins. The lines come out of the channel until the watch ends or nobody takes them.
    #[must_use]
    pub fn start(self, objects: Arc<Objects>) -> mpsc::Receiver<Bytes> {
        let (lines, out) = mpsc::channel(LANE);
        tokio::spawn(async move {
            let end = Instant::now() + self.lasts;
            // A client that takes nothing is let go with the end of its watch.
            let _ = tokio::time::timeout_at(end, self.run(&objects, &lines)).await;
        });
        out
    }

    async fn run(self, objects: &Objects, lines: &mpsc::Sender<Bytes>) -> Option<()> {
        let mut changed = objects.changed();
        let mut at = match self.from {
            Some(version) => version,
            None => {
                let page = objects.page(self.kind, &self.filter, None, None);
                for object in &page.items {
                    send(lines, "ADDED", object).await?;
                }
                if self.marks_initial {
                    send(lines, "BOOKMARK", &self.bookmark(page.version, true)).await?;
                }
                page.version
            }
        };
        let mut bookmark_at = Instant::now() + BOOKMARK;
        loop {
            changed.borrow_and_update();
            let changes = match objects.since(at) {
                Ok(changes) => changes,
                Err(gone) => {
                    send(lines, "ERROR", &gone.status()).await?;
                    return None;
                }
            };
            for change in changes {
                at = change.version;
                if let Some((word, object)) = self.tells(&change) {
                    send(lines, word, &object).await?;
                }
            }
            tokio::select! {
                done = changed.changed() => done.ok()?,
                () = lines.closed() => return None,
                () = tokio::time::sleep_until(bookmark_at) => {
                    bookmark_at = Instant::now() + BOOKMARK;
                    if self.bookmarks {
                        send(lines, "BOOKMARK", &self.bookmark(at, false)).await?;
                    }
                }
            }
        }
    }

    fn bookmark(&self, version: u64, initial: bool) -> Value {
        let kind = self.kind.get();
        let mut metadata = json!({"resourceVersion": version.to_string()});
        if initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        json!({"kind": kind.kind, "apiVersion": kind.api_version(), "metadata": metadata})
    }

    /// An object that comes to fit the selector is added, one that no longer fits is deleted, whatever really happened to it.
    fn tells(&self, change: &Change) -> Option<(&'static str, Arc<Value>)> {
        if change.kind != self.kind {
            return None;
        }
        let fitted = change.before.as_ref().is_some_and(|before| self.filter.takes(before));
        let fits = !change.gone && self.filter.takes(&change.after);
        let word = match (fitted, fits) {
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
            (false, false) => return None,
        };
        Some((word, change.after.clone()))
    }
}

async fn send(lines: &mpsc::Sender<Bytes>, word: &str, object: &Value) -> Option<()> {
    let mut line = json!({"type": word, "object": object}).to_string();
    line.push('\n');
    lines.send(Bytes::from(line)).await.ok()
}

/// Reads the version from which a watch is to go on. `None` = any.
///
/// # Errors
/// It is no version of ours.
pub fn version(text: Option<&String>) -> Result<Option<u64>, Refusal> {
    match text.map(String::as_str) {
        None | Some("" | "0") => Ok(None),
        Some(text) => {
            text.parse().map(Some).map_err(|_| Refusal::invalid(format!("resourceVersion: Invalid value: {text:?}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::kinds::NODE;
    use super::super::objects::Key;
    use super::*;

    #[tokio::test]
    async fn an_object_that_leaves_the_selector_is_told_as_deleted() {
        let objects = Arc::new(Objects::default());
        let node = json!({"metadata": {"name": "n1", "labels": {"app": "web"}}, "spec": {}});
        objects.create(NODE, "", node).unwrap();
        let watching = Watching {
            kind: NODE,
            filter: Filter::parse(None, "app=web", "").unwrap(),
            from: None,
            marks_initial: true,
            bookmarks: true,
            lasts: Duration::from_secs(5),
        };
        let mut lines = watching.start(objects.clone());
        let mut next = async || {
            let line: Value = serde_json::from_slice(&lines.recv().await.unwrap()).unwrap();
            line["type"].as_str().unwrap().to_owned()
        };
        assert_eq!(next().await, "ADDED");
        assert_eq!(next().await, "BOOKMARK");
        let relabel = |before: &Value| {
            let mut after = before.clone();
            after["metadata"]["labels"]["app"] = json!("db");
            Ok(after)
        };
        objects.change(&Key::new(NODE, "", "n1"), relabel).unwrap();
        assert_eq!(next().await, "DELETED");
    }

    #[tokio::test]
    async fn a_version_that_is_no_longer_kept_ends_the_watch_with_410() {
        let objects = Arc::new(Objects::default());
        let watching = Watching {
            kind: NODE,
            filter: Filter::default(),
            from: Some(99),
            marks_initial: false,
            bookmarks: false,
            lasts: Duration::from_secs(5),
        };
        let mut lines = watching.start(objects);
        let line: Value = serde_json::from_slice(&lines.recv().await.unwrap()).unwrap();
        assert_eq!((line["type"].as_str(), line["object"]["code"].as_u64()), (Some("ERROR"), Some(410)));
        assert!(lines.recv().await.is_none());
    }
}
