//! TLS and HTTP around the resources, and what goes wrong with them.

use super::answer::Answer;
use super::http::{self, Asked};
use super::{service, tree, write};
use crate::certificate::Certificate;
use crate::misbehaviour::Misbehaviour;
use crate::state::{Handle, State};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use machine::BmcError;
use serde_json::Value;
use std::io::{Error, ErrorKind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A client that begins and says nothing is let go.
const CLIENT_LIMIT: Duration = Duration::from_secs(300);

/// Serves until its task is aborted.
pub(crate) async fn serve(listener: TcpListener, handle: Handle, certificate: Certificate) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (handle, certificate) = (handle.clone(), certificate.clone());
        tokio::spawn(async move {
            let _ = tokio::time::timeout(CLIENT_LIMIT, connection(stream, handle, certificate)).await;
        });
    }
}

async fn connection(mut stream: TcpStream, handle: Handle, certificate: Certificate) {
    let at = handle.now();
    let (silent, wrong) = {
        let mut state = handle.lock();
        state.settle(at);
        (matches!(state.machine.bmc_answers(at), Err(BmcError::Silent)), state.wrong.clone())
    };
    if silent {
        return;
    }
    if wrong.contains(&Misbehaviour::OldTlsOnly) {
        // To a greeting that offers nothing as old: alert, fatal, protocol version (RFC 5246, section 7.2).
        let mut greeting = [0; 2_048];
        let _ = stream.read(&mut greeting).await;
        let _ = stream.write_all(&[0x15, 3, 1, 0, 2, 2, 70]).await;
        return;
    }
    if wrong.contains(&Misbehaviour::NoTls) {
        let _ = stream.write_all(b"SSH-2.0-dropbear\r\n\x00\xff\x16\x03").await;
        let mut sink = [0; 256];
        let _ = stream.read(&mut sink).await;
        return;
    }
    let _ = stream.set_nodelay(true);
    let acceptor = if wrong.contains(&Misbehaviour::OtherCertificate) {
        certificate.other()
    } else if wrong.contains(&Misbehaviour::ExpiredCertificate) {
        certificate.expired()
    } else {
        certificate.acceptor()
    };
    let reset_on_reuse = wrong.contains(&Misbehaviour::ResetOnReuse);
    if reset_on_reuse {
        let _ = stream.set_zero_linger();
    }
    let Ok(mut stream) = acceptor.accept(stream).await else { return };
    if let Some(bytes) = raw(&handle) {
        let _ = raw_answer(&mut stream, &handle, bytes).await;
        return;
    }
    let used = AtomicBool::new(false);
    let service = service_fn(move |request| {
        let handle = handle.clone();
        let again = used.swap(true, Ordering::Relaxed);
        async move {
            // The error closes the connection, and without lingering that is a reset.
            if again && reset_on_reuse {
                Err(Error::from(ErrorKind::ConnectionReset))
            } else {
                Ok(serve_one(handle, request).await)
            }
        }
    });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// An answer that no HTTP server would give, written by hand.
enum Raw {
    Reset,
    Cut,
    Endless,
    Drip,
}

fn raw(handle: &Handle) -> Option<Raw> {
    let state = handle.lock();
    [
        (Misbehaviour::Reset, Raw::Reset),
        (Misbehaviour::CutBody, Raw::Cut),
        (Misbehaviour::EndlessBody, Raw::Endless),
        (Misbehaviour::Drip, Raw::Drip),
    ]
    .into_iter()
    .find_map(|(wrong, raw)| state.has(wrong).then_some(raw))
}

async fn raw_answer(
    stream: &mut tokio_rustls::server::TlsStream<TcpStream>,
    handle: &Handle,
    raw: Raw,
) -> std::io::Result<()> {
    let mut head = vec![0; 8_192];
    let length = stream.read(&mut head).await?;
    handle.lock().counted.requests += u64::from(length > 0);
    match raw {
        Raw::Reset => {
            // Closing with bytes unread and no farewell resets the connection.
            stream.get_mut().0.set_zero_linger()
        }
        Raw::Cut => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n{\"PowerState\":\"Off\"}").await?;
            stream.flush().await
        }
        Raw::Endless => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
            let chunk = format!("4000\r\n{}\r\n", " ".repeat(0x4000));
            loop {
                stream.write_all(chunk.as_bytes()).await?;
            }
        }
        Raw::Drip => {
            for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{\"PowerState\":\"Off\"}".iter() {
                stream.write_all(&[*byte]).await?;
                stream.flush().await?;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Ok(())
        }
    }
}

async fn serve_one(handle: Handle, request: Request<Incoming>) -> Response<Full<Bytes>> {
    handle.begins();
    let asked = Asked::read(request).await;
    let answer = judge(&handle, &asked);
    let late = handle.lock().has(Misbehaviour::ThirtySecondsLate);
    tokio::time::sleep(if late { Duration::from_secs(30) } else { answer.after }).await;
    handle.ends();
    if answer.lost {
        // As a BMC that hangs: the client has to give up by itself.
        std::future::pending::<()>().await;
    }
    respond(&handle, answer)
}

fn respond(handle: &Handle, answer: Answer) -> Response<Full<Bytes>> {
    let wrong = handle.lock().wrong.clone();
    let mut bytes = http::bytes(&answer);
    let mut status = answer.status;
    if wrong.contains(&Misbehaviour::HugeBody) {
        bytes = [b"{\"PowerState\":\"".to_vec(), vec![b'x'; 16 << 20], b"\"}".to_vec()].concat();
    } else if wrong.contains(&Misbehaviour::DeepBody) {
        bytes = [b"{\"a\":".to_vec(), vec![b'['; 10_000], vec![b']'; 10_000], b"}".to_vec()].concat();
    } else if wrong.contains(&Misbehaviour::HalfJson) {
        bytes.truncate(bytes.len() / 2);
    } else if wrong.contains(&Misbehaviour::Html) {
        (status, bytes) = (200, b"<html><body>Login</body></html>".to_vec());
    }
    let mut headers = answer.headers;
    if wrong.contains(&Misbehaviour::HugeHeader) {
        headers.push(("x-padding", "x".repeat(256 << 10)));
    }
    http::response(status, &headers, bytes)
}

fn judge(handle: &Handle, asked: &Asked) -> Answer {
    let Asked { method, path, query, token, basic, if_match, odata, body } = asked;
    let (token, basic, if_match) = (token.as_deref(), basic.as_deref(), if_match.as_deref());
    let at = handle.now();
    let mut guard = handle.lock();
    let state = &mut *guard;
    state.settle(at);
    state.counted.credentials += u64::from(token.is_some() || basic.is_some());
    if state.has(Misbehaviour::Redirects) {
        return Answer::status(307).with("Location", "https://203.0.113.9/redfish/v1/");
    }
    if state.has(Misbehaviour::Unavailable) {
        return Answer::status(503).with("Retry-After", "2");
    }
    if let Err(BmcError::Busy) = state.machine.bmc_answers(at) {
        return Answer::refusal(503, "Base.1.12.ServiceTemporarilyUnavailable", "Busy.").with("Retry-After", "5");
    }
    let trimmed = path.trim_end_matches('/');
    let open = method == Method::GET && matches!(trimmed, "/redfish" | "/redfish/v1" | "/redfish/v1/odata");
    let open = open || (method == Method::GET && trimmed == "/redfish/v1/$metadata");
    let sessions = ["/redfish/v1/SessionService/Sessions", "/redfish/v1/SessionService/Sessions/Members"];
    let logs_in = method == Method::POST && sessions.contains(&trimmed);
    if odata.as_deref().is_some_and(|version| version != "4.0") {
        return Answer::refusal(412, "Base.1.12.PreconditionFailed", "Only OData-Version 4.0 is served.");
    }
    if !open && !logs_in {
        let user = if state.has(Misbehaviour::Unauthorized) { None } else { known(state, at, token, basic) };
        let Some(user) = user else {
            let refusal = Answer::refusal(401, "Base.1.12.ResourceAtUriUnauthorized", "Log in first.");
            return refusal.with("WWW-Authenticate", "Basic realm=\"Redfish\"");
        };
        if !service::may(state, &user, method, trimmed, body) {
            return Answer::refusal(
                403,
                "Base.1.12.InsufficientPrivilege",
                "The account lacks the privilege for this.",
            );
        }
    }
    let read = matches!(method.as_str(), "GET" | "HEAD");
    let allow = service::allowed(state, trimmed);
    let answer = match method.as_str() {
        // Before its ETag is looked at.
        "PATCH" if !allow.contains("PATCH") => Answer::status(404),
        _ if read => match service::document(trimmed) {
            Some(document) => document,
            None => look(state, at, path, query),
        },
        "POST" if logs_in => write::login(state, at, body),
        "POST" => write::post(state, at, trimmed, body, if_match),
        "PATCH" => write::patch(state, at, trimmed, body, if_match),
        "DELETE" => write::delete(state, at, trimmed),
        _ => Answer::refusal(405, "Base.1.12.OperationNotAllowed", "No such method."),
    };
    if read || answer.status == 405 {
        return answer.with("Allow", allow);
    }
    // It is there, and does not take this.
    if answer.status == 404 && !allow.contains(method.as_str()) && tree::resource(state, at, path, query).is_some() {
        let refusal = Answer::refusal(405, "Base.1.12.OperationNotAllowed", "It does not take this method.");
        return refusal.with("Allow", allow);
    }
    if answer.status == 404 && answer.body.is_none() {
        return Answer::refusal(404, "Base.1.12.ResourceMissingAtURI", "No such resource.");
    }
    answer
}

fn look(state: &mut State, at: u64, path: &str, query: &str) -> Answer {
    let Some(resource) = tree::resource(state, at, path, query) else {
        return Answer::refusal(404, "Base.1.12.ResourceMissingAtURI", "No such resource.");
    };
    let running = resource.get("TaskState").is_some_and(|word| word == "Running");
    let tag = resource.get("@odata.etag").and_then(Value::as_str).map(str::to_owned);
    let mut answer = Answer::resource(resource);
    if running {
        answer.status = 202;
    }
    match tag {
        Some(tag) => answer.with("ETag", tag),
        None => answer,
    }
}

/// Whose a request is.
fn known(state: &mut State, at: u64, token: Option<&str>, basic: Option<&str>) -> Option<String> {
    if let Some(token) = token {
        let session = state.sessions.iter().find(|session| session.token == token)?.clone();
        let alive = state.machine.bmc_use_session(at, session.id);
        if !alive {
            state.sessions.retain(|known| known.id != session.id);
        }
        return alive.then_some(session.user);
    }
    let (name, password) = basic.and_then(http::credential)?;
    let right = state.right(&name, &password);
    if !right {
        // Counts towards the lock.
        let _ = state.machine.bmc_login(at, false);
    }
    (right && state.machine.bmc_answers(at).is_ok()).then_some(name)
}
