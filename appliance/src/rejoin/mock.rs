//! An API server in memory, for the tests of the steps: objects by their paths, without schema or versions.

use super::cluster::Cluster;
use futures_util::future::BoxFuture;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

type Request = hyper::Request<Body>;
type Response = hyper::Response<Body>;

/// What the steps list.
const LISTS: [&str; 2] = ["/volumeattachments", "/certificatesigningrequests"];

#[derive(Clone, Default)]
pub(super) struct Server(Arc<Mutex<BTreeMap<String, Value>>>);

impl Server {
    /// The cluster of this server.
    pub(super) fn cluster(&self) -> Cluster {
        Cluster::new(Client::new(self.clone(), "default"), "10.0.0.1:6443", vec![vec![0]]).unwrap()
    }

    pub(super) fn put(&self, path: &str, object: Value) {
        self.held().insert(path.to_owned(), object);
    }

    pub(super) fn get(&self, path: &str) -> Option<Value> {
        self.held().get(path).cloned()
    }

    pub(super) fn take(&self, path: &str) {
        self.held().remove(path).unwrap();
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<String, Value>> {
        self.0.lock().unwrap()
    }

    fn answer(&self, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
        let status = |code: u16| (code, json!({ "kind": "Status", "code": code }));
        let mut held = self.held();
        match method {
            "DELETE" => status(if held.remove(path).is_some() { 200 } else { 404 }),
            "PATCH" => match held.get_mut(path) {
                Some(object) => {
                    merge(object, serde_json::from_slice(body).unwrap());
                    (200, object.clone())
                }
                None => status(404),
            },
            "GET" if LISTS.iter().any(|list| path.ends_with(list)) => {
                let under = format!("{path}/");
                let items: Vec<&Value> = held.iter().filter(|(at, _)| at.starts_with(&under)).map(|(_, o)| o).collect();
                (200, json!({ "kind": "List", "apiVersion": "v1", "metadata": {}, "items": items }))
            }
            "GET" => held.get(path).map_or_else(|| status(404), |object| (200, object.clone())),
            _ => panic!("{method} {path}: no step does this here"),
        }
    }
}

/// RFC 7386.
fn merge(into: &mut Value, patch: Value) {
    match (into, patch) {
        (Value::Object(fields), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    fields.remove(&key);
                } else {
                    merge(fields.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (into, patch) => *into = patch,
    }
}

impl tower_service::Service<Request> for Server {
    type Response = Response;
    type Error = std::io::Error;
    type Future = BoxFuture<'static, Result<Response, std::io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), std::io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let server = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await.map_err(std::io::Error::other)?;
            let (code, answer) = server.answer(parts.method.as_str(), parts.uri.path(), &body);
            let response = hyper::Response::builder().status(code).body(Body::from(answer.to_string().into_bytes()));
            response.map_err(std::io::Error::other)
        })
    }
}

/// A Node as its kubelet tells it.
pub(super) fn node(name: &str, uid: &str, boot_id: &str, ready: bool) -> Value {
    let condition = json!({ "type": "Ready", "status": if ready { "True" } else { "Unknown" } });
    json!({
        "metadata": { "name": name, "uid": uid, "labels": { "kubernetes.io/hostname": name } },
        "spec": {},
        "status": {
            "conditions": [condition],
            "nodeInfo": {
                "architecture": "amd64", "bootID": boot_id, "containerRuntimeVersion": "", "kernelVersion": "",
                "kubeProxyVersion": "", "kubeletVersion": "v1.36.2", "machineID": "machine-1", "operatingSystem": "linux",
                "osImage": "", "systemUUID": "",
            },
        },
    })
}
