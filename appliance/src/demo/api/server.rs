//! Sockets of the emulated API: TLS, HTTP, the token; and whether this server serves at all, which its host decides.

use super::answer::{Answer, Asked};
use super::authority::Authority;
use super::discovery;
use super::objects::Objects;
use super::path::{Place, query};
use super::refusal::Refusal;
use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// A request's body at most.
const BODY_BYTES_MAX: usize = 4 << 20;
/// How often a silent host is looked at again.
const LOOK: Duration = Duration::from_millis(100);

/// What a client meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// It serves.
    Serves,
    /// It serves, and its store does not answer.
    NoStore,
    /// The host's kernel answers, its API server does not run.
    Refuses,
    /// Nothing answers.
    Silent,
}

/// Says what a client meets now.
pub type Gate = Arc<dyn Fn() -> Reach + Send + Sync>;

type Body = BoxBody<Bytes, Infallible>;

/// What all servers of the cluster share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The objects.
    pub objects: Arc<Objects>,
    /// Who is let in.
    pub authority: Arc<Authority>,
    /// Ends everything.
    pub stop: CancellationToken,
}

/// Serves on a port of loopback; 0 = any.
///
/// # Errors
/// The port is taken.
pub async fn serve(shared: Shared, gate: Gate, port: u16) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = shared.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(LOOK).await;
                continue;
            };
            let (shared, gate) = (shared.clone(), gate.clone());
            tokio::spawn(async move {
                let stop = shared.stop.clone();
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = connection(stream, shared, gate) => {}
                }
            });
        }
    });
    Ok(address)
}

/// Waits while the host is silent. True when it serves again.
async fn awake(gate: &Gate) -> bool {
    let mut reach = gate();
    while reach == Reach::Silent {
        tokio::time::sleep(LOOK).await;
        reach = gate();
    }
    reach != Reach::Refuses
}

async fn connection(stream: TcpStream, shared: Shared, gate: Gate) {
    let _ = stream.set_nodelay(true);
    let born_silent = gate() == Reach::Silent;
    // A host that comes back knows nothing of a connection that began while it was away.
    if !awake(&gate).await || born_silent {
        let _ = stream.set_zero_linger();
        return;
    }
    let Ok(stream) = shared.authority.tls().accept(stream).await else { return };
    let serving = gate.clone();
    let service = service_fn(move |request| {
        let (shared, gate) = (shared.clone(), serving.clone());
        async move { Ok::<_, Infallible>(respond(request, &shared, &gate).await) }
    });
    let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        _ = served => {}
        () = dies(&gate) => {}
    }
}

/// Returns once the connections of this server are gone: its process ended, or its host came back from a silence.
async fn dies(gate: &Gate) {
    let mut was_silent = false;
    loop {
        match gate() {
            Reach::Refuses => return,
            Reach::Silent => was_silent = true,
            Reach::Serves | Reach::NoStore if was_silent => return,
            Reach::Serves | Reach::NoStore => {}
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn respond(request: Request<Incoming>, shared: &Shared, gate: &Gate) -> Response<Body> {
    awake(gate).await;
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (authorization, media_type) = (header("authorization"), header("content-type").unwrap_or_default());
    let (method, path) = (request.method().as_str().to_owned(), request.uri().path().to_owned());
    let parameters = query(request.uri().query().unwrap_or_default());
    if !shared.authority.admits(authorization.as_deref()) {
        return refused(&Refusal::unauthorized());
    }
    if let "/readyz" | "/livez" | "/healthz" = path.as_str() {
        return health(&path, gate() != Reach::NoStore);
    }
    if let Some(value) = discovery::answer(&path) {
        return object(200, &value);
    }
    let Some(place) = Place::parse(&path) else { return refused(&Refusal::no_such_path()) };
    let body = match Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(why) => return refused(&Refusal::bad(format!("the body cannot be read: {why}"))),
    };
    let body = if body.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(&body) };
    let body = match body {
        Ok(body) => body,
        Err(why) => return refused(&Refusal::bad(format!("the body is no JSON: {why}"))),
    };
    if gate() == Reach::NoStore {
        return refused(&Refusal::no_quorum());
    }
    let asked = Asked { method: &method, query: parameters, media_type: &media_type, body };
    match asked.answer(&place, &shared.objects) {
        Ok(Answer::Object(status, value)) => object(status, &value),
        Ok(Answer::Watch(watching)) => {
            let lines = watching.start(shared.objects.clone());
            let body = StreamBody::new(stream::unfold((lines, gate.clone()), next_line));
            whole(200, "application/json", BodyExt::boxed(body))
        }
        Err(refusal) => refused(&refusal),
    }
}

/// The next line of a watch, once the host lets it out.
async fn next_line(
    (mut lines, gate): (mpsc::Receiver<Bytes>, Gate),
) -> Option<(Result<Frame<Bytes>, Infallible>, (mpsc::Receiver<Bytes>, Gate))> {
    let line = lines.recv().await?;
    while gate() != Reach::Serves {
        tokio::time::sleep(LOOK).await;
    }
    Some((Ok(Frame::data(line)), (lines, gate)))
}

fn health(path: &str, store: bool) -> Response<Body> {
    let (status, mark, word) = if store { (200, "[+]", "ok") } else { (500, "[-]", "failed: reason withheld") };
    let end = if store { "passed" } else { "failed" };
    let name = path.trim_start_matches('/');
    // The process lives whatever its store does.
    if name == "livez" {
        return text(200, "[+]ping ok\nlivez check passed\n".to_owned());
    }
    text(status, format!("[+]ping ok\n[+]log ok\n{mark}etcd {word}\n{name} check {end}\n"))
}

fn refused(refusal: &Refusal) -> Response<Body> {
    object(refusal.code, &refusal.status())
}

fn object(status: u16, value: &Value) -> Response<Body> {
    whole(status, "application/json", Full::new(Bytes::from(value.to_string())).boxed())
}

fn text(status: u16, text: String) -> Response<Body> {
    whole(status, "text/plain; charset=utf-8", Full::new(Bytes::from(text)).boxed())
}

fn whole(status: u16, media_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static(media_type));
    response
}
