//! A small HTTP service on loopback, without TLS and without a password, to look at an emulator and make it misbehave:
//! `GET /state`, `PUT /misbehaviours/NAME` with `{"on":true}`, `POST /behave`, and `POST /host/faults` or `/bmc/faults` with a
//! [`machine::Fault`] or [`machine::BmcFault`] as `"Button"` or `{"Slow":3000}`.

use crate::emulator::Failed;
use crate::misbehaviour::Misbehaviour;
use crate::state::Handle;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use machine::Power;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Serves the control of an emulator until the task is aborted.
///
/// # Errors
/// The address is not of loopback, or is taken.
pub async fn serve_control(handle: Handle, address: SocketAddr) -> Result<(SocketAddr, JoinHandle<()>), Failed> {
    if !address.ip().is_loopback() {
        return Err(Failed::NotLoopback(address));
    }
    let listener = TcpListener::bind(address).await.map_err(|source| Failed::Listen { address, source })?;
    let bound = listener.local_addr().map_err(|source| Failed::Listen { address, source })?;
    let task = tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let handle = handle.clone();
            let service = service_fn(move |request| {
                let handle = handle.clone();
                async move { Ok::<_, Infallible>(answer(&handle, request).await) }
            });
            tokio::spawn(async move {
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Ok((bound, task))
}

const HELP: &str = "GET /state, PUT /misbehaviours/NAME, POST /behave, POST /host/faults, POST /bmc/faults";

async fn answer(handle: &Handle, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (method, path) = (request.method().as_str().to_owned(), request.uri().path().to_owned());
    let body = Limited::new(request.into_body(), 4_096).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let (status, value) = match (method.as_str(), path.as_str()) {
        ("GET", "/state") => (200, state(handle)),
        ("POST", "/behave") => {
            handle.behave();
            (200, state(handle))
        }
        ("PUT", path) => match path.strip_prefix("/misbehaviours/").and_then(Misbehaviour::by_name) {
            Some(wrong) => {
                handle.set(wrong, body.get("on").and_then(Value::as_bool).unwrap_or(true));
                (200, state(handle))
            }
            None => (404, json!({ "error": "no such misbehaviour", "known": names() })),
        },
        ("POST", "/host/faults") => injected(handle, serde_json::from_value(body).map(|fault| handle.inject(fault))),
        ("POST", "/bmc/faults") => injected(handle, serde_json::from_value(body).map(|fault| handle.inject_bmc(fault))),
        _ => (404, json!({ "error": HELP })),
    };
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.body(Full::new(Bytes::from(value.to_string()))).unwrap_or_default()
}

fn injected(handle: &Handle, done: serde_json::Result<()>) -> (u16, Value) {
    match done {
        Ok(()) => (200, state(handle)),
        Err(why) => (400, json!({ "error": format!("no such fault: {why}") })),
    }
}

fn names() -> Vec<String> {
    Misbehaviour::ALL.iter().map(|wrong| wrong.name()).collect()
}

fn state(handle: &Handle) -> Value {
    let (power, boots, cuts) =
        handle.machine(|machine| (machine.power(), machine.boots(), machine.power_ledger().hard_cuts));
    let wrong: Vec<String> = handle.lock().wrong.iter().map(|wrong| wrong.name()).collect();
    let counted = handle.counted();
    json!({
        "power": match power { Power::On => "on", Power::Off => "off", Power::GoingOff => "going-off" },
        "boots": boots, "hard_cuts": cuts, "misbehaviours": wrong, "sessions_open": handle.sessions_open(),
        "requests": counted.requests, "offs": counted.offs, "ons": counted.ons, "restarts": counted.restarts,
        "shutdowns": counted.shutdowns, "interrupts": counted.interrupts,
    })
}
