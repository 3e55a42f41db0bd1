//! A server in front of the real API server that misbehaves on demand. It ends TLS with a certificate of the cluster's own
//! authority, so that the client takes it for one of the cluster's endpoints.

use crate::world::World;
use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How it behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mood {
    /// Passes everything on.
    Honest,
    /// 429 with Retry-After.
    TooMany,
    /// 500.
    Fault,
    /// 410 to each watch.
    Gone,
    /// Takes connections and requests, and never says a word; what flows stops flowing.
    Deaf,
}

const MOODS: [Mood; 5] = [Mood::Honest, Mood::TooMany, Mood::Fault, Mood::Gone, Mood::Deaf];

#[derive(Debug)]
struct Shared {
    mood: AtomicU8,
    cut: watch::Sender<u64>,
    upstream: String,
    client: Arc<rustls::ClientConfig>,
}

impl Shared {
    fn mood(&self) -> Mood {
        MOODS[usize::from(self.mood.load(Ordering::Relaxed))]
    }
}

/// The proxy.
#[derive(Debug)]
pub(crate) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

impl Proxy {
    pub(crate) async fn start(world: &World) -> Proxy {
        let (chain, key) = certificate(world);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(world.plane.authority()).unwrap()).unwrap();
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let shared = Arc::new(Shared {
            mood: AtomicU8::new(0),
            cut: watch::Sender::new(0),
            upstream: world.plane.endpoint(),
            client: Arc::new(client),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
        let serving = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, shared) = (acceptor.clone(), Arc::clone(&serving));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let mut cut = shared.cut.subscribe();
                    let service = service_fn(move |request| answer(Arc::clone(&shared), request));
                    let connection =
                        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                    tokio::select! {
                        _ = connection => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Proxy { port, shared }
    }

    pub(crate) fn address(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    pub(crate) fn set(&self, mood: Mood) {
        self.shared.mood.store(mood as u8, Ordering::Relaxed);
    }

    /// Cuts all connections.
    pub(crate) fn cut(&self) {
        self.shared.cut.send_modify(|count| *count += 1);
    }
}

type Body = BoxBody<Bytes, hyper::Error>;

fn says(status: u16, code: u16, reason: &str) -> Response<Body> {
    let body = format!(
        r#"{{"kind":"Status","apiVersion":"v1","status":"Failure","message":"by the test","reason":"{reason}","code":{code},"details":{{"retryAfterSeconds":1}}}}"#
    );
    let mut response = Response::new(Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    let headers = response.headers_mut();
    headers.insert("content-type", "application/json".parse().unwrap());
    headers.insert("retry-after", "1".parse().unwrap());
    response
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
    let watches = request.uri().query().is_some_and(|query| query.contains("watch=true"));
    match shared.mood() {
        Mood::TooMany => return Ok(says(429, 429, "TooManyRequests")),
        Mood::Fault => return Ok(says(500, 500, "InternalError")),
        Mood::Gone if watches => return Ok(says(410, 410, "Expired")),
        Mood::Deaf => {
            std::future::pending::<()>().await;
        }
        Mood::Honest | Mood::Gone => {}
    }
    let stream = TcpStream::connect(&shared.upstream).await.map_err(|_| ());
    let Ok(stream) = stream else { return Ok(says(502, 502, "BadGateway")) };
    let address = shared.upstream.split(':').next().unwrap().to_owned();
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(&shared.client));
    let Ok(stream) = connector.connect(ServerName::try_from(address).unwrap(), stream).await else {
        return Ok(says(502, 502, "BadGateway"));
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let (parts, body) = request.into_parts();
    let mut onward = Request::from_parts(parts, body.boxed());
    onward.headers_mut().insert("host", shared.upstream.parse().unwrap());
    let response = sender.send_request(onward).await?;
    let (parts, body) = response.into_parts();
    Ok(Response::from_parts(parts, Stoppable { body, shared }.boxed()))
}

/// A body that stops flowing while the proxy is deaf.
struct Stoppable {
    body: Incoming,
    shared: Arc<Shared>,
}

impl hyper::body::Body for Stoppable {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, hyper::Error>>> {
        if self.shared.mood() == Mood::Deaf {
            let waker = context.waker().clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                waker.wake();
            });
            return std::task::Poll::Pending;
        }
        std::pin::Pin::new(&mut self.body).poll_frame(context)
    }
}

/// A server certificate for 127.0.0.1 by the cluster's authority, made by openssl as an administrator makes it.
fn certificate(world: &World) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let folder = world.plane.folder().join("proxy");
    std::fs::create_dir_all(&folder).unwrap();
    let script = "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -subj /CN=vip -out csr.pem \
                  && printf 'subjectAltName=IP:127.0.0.1\\nextendedKeyUsage=serverAuth' > ext \
                  && openssl x509 -req -in csr.pem -CA ../pki/ca.crt -CAkey ../pki/ca.key -CAcreateserial -days 2 -extfile ext \
                     -out cert.pem";
    let made = Command::new("sh").args(["-c", script]).current_dir(&folder).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let chain = vec![CertificateDer::from_pem_file(folder.join("cert.pem")).unwrap()];
    (chain, PrivateKeyDer::from_pem_file(folder.join("key.pem")).unwrap())
}
