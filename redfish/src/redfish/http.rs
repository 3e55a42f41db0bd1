//! One request at a time to one BMC over TLS: bounded, with a deadline, never redirected, and clear about whether the BMC
//! may have seen a request whose answer did not come.

use super::link::{Link, Origin};
use super::tls::{Fingerprint, Tls, Trust};
use super::unclean::Unclean;
use super::walk::BODY_BYTES_MAX;
use crate::controller::Guard;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use std::net::SocketAddr;
use std::time::Duration;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Headers of an answer at most.
const HEADERS_MAX: usize = 100;
/// Bytes of all headers of an answer at most.
const HEADER_BYTES_MAX: usize = 64 << 10;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum HttpError {
    /// No connection.
    #[error("{address} takes no connection: {source}; check the address, the port and that the BMC runs")]
    Connect {
        /// Where to.
        address: SocketAddr,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// No connection in time.
    #[error("{address} did not take a connection within {seconds} s; check the address and the route")]
    ConnectSlow {
        /// Where to.
        address: SocketAddr,
        /// How long it was waited for.
        seconds: u64,
    },
    /// No TLS.
    #[error("{address} does not speak TLS as it must (1.2 or 1.3, a key of 2,048 bits or more): {reason}")]
    Tls {
        /// Where to.
        address: SocketAddr,
        /// What went wrong.
        reason: String,
    },
    /// A certificate that no authority stands for.
    #[error(
        "{address} shows a certificate that is not trusted ({reason}); nothing was sent to it. Its fingerprint is {seen}: compare it at the BMC, and trust that"
    )]
    Untrusted {
        /// Where to.
        address: SocketAddr,
        /// Why not.
        reason: String,
        /// What it shows.
        seen: Fingerprint,
    },
    /// Another certificate than the one that was pinned.
    #[error(
        "{address} shows another certificate than the one that was trusted: {seen}, not {expected}; nothing was sent to it. If its certificate was renewed, check the fingerprint at the BMC and trust it anew; if not, somebody else answers there"
    )]
    PinChanged {
        /// Where to.
        address: SocketAddr,
        /// The pin.
        expected: Fingerprint,
        /// What it shows.
        seen: Fingerprint,
    },
    /// The request went out, or may have, and no whole answer came.
    #[error("{address}: {reason}; {}", if *.changes { format!("whether {request} was done is not known") } else { format!("{request} is to be asked again") })]
    Lost {
        /// Where to.
        address: SocketAddr,
        /// What was asked.
        request: String,
        /// What went wrong.
        reason: String,
        /// It was to change something.
        changes: bool,
    },
    /// The answer is longer than is read.
    #[error("{address}: the answer to {request} is longer than 4 MiB and was not read")]
    Long {
        /// Where to.
        address: SocketAddr,
        /// What was asked.
        request: String,
        /// It was to change something.
        changes: bool,
    },
    /// Its guard let it leave no more: not a byte of it was sent.
    #[error("{address}: {request} was not sent: it may not leave any more")]
    Withheld {
        /// Where to.
        address: SocketAddr,
        /// What was to be asked.
        request: String,
    },
    /// We made a request that cannot be written.
    #[error("the request {request} cannot be written: {reason}")]
    Request {
        /// What was asked.
        request: String,
        /// Why.
        reason: String,
    },
}

impl HttpError {
    /// The BMC may have acted on it.
    #[must_use]
    pub fn may_have_been_done(&self) -> bool {
        matches!(self, HttpError::Lost { changes: true, .. } | HttpError::Long { changes: true, .. })
    }
}

/// What is asked.
pub(super) struct Request<'a> {
    pub(super) method: Method,
    pub(super) link: &'a Link,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Option<Vec<u8>>,
    /// Asked when the connection is open, before the first byte.
    pub(super) guard: Guard<'a>,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Response {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// How long is waited.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// For a whole answer.
    pub answer: Duration,
}

impl Default for Patience {
    /// Ten seconds and forty: answers after thirty are seen in the field.
    fn default() -> Patience {
        Patience { connect: Duration::from_secs(10), answer: Duration::from_secs(40) }
    }
}

#[derive(Debug)]
struct Open {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The way to one BMC.
#[derive(Debug)]
pub(super) struct Transport {
    address: SocketAddr,
    origin: Origin,
    tls: Tls,
    patience: Patience,
    /// Kept between requests only where a BMC is known to bear it.
    pub(super) keep_alive: bool,
    open: Option<Open>,
}

impl Transport {
    pub(super) fn new(
        address: SocketAddr,
        origin: Origin,
        trust: Option<&Trust>,
        patience: Patience,
    ) -> Result<Transport, HttpError> {
        let tls = Tls::new(trust).map_err(|why| HttpError::Tls { address, reason: why.to_string() })?;
        Ok(Transport { address, origin, tls, patience, keep_alive: false, open: None })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Sends a request and reads the whole answer.
    ///
    /// `answer_within` shortens the patience: a power command is better read after than waited for.
    pub(super) async fn send(
        &mut self,
        request: Request<'_>,
        answer_within: Option<Duration>,
    ) -> Result<Response, HttpError> {
        let limit = answer_within.unwrap_or(self.patience.answer).min(self.patience.answer);
        let name = format!("{} {}", request.method, request.link);
        let repeatable = request.method == Method::GET;
        let mut reused = self.open.is_some();
        let guard = request.guard;
        let mut request = self.build(request, &name)?;
        loop {
            let mut open = match self.open.take() {
                Some(open) if open.sender.is_ready() => open,
                _ => {
                    reused = false;
                    timeout(self.patience.connect, self.connect()).await.map_err(|_| HttpError::ConnectSlow {
                        address: self.address,
                        seconds: self.patience.connect.as_secs(),
                    })??
                }
            };
            // Here and no earlier: a connection to a BMC may take seconds.
            if !guard() {
                return Err(HttpError::Withheld { address: self.address, request: name });
            }
            let spare = repeatable.then(|| request.clone());
            let sent = timeout(limit, exchange(&mut open, request, self.address, &name)).await;
            match (sent, spare) {
                (Ok(Ok(response)), _) => {
                    if self.keep_alive && open.sender.is_ready() {
                        self.open = Some(open);
                    }
                    return Ok(response);
                }
                // A kept connection may be closed by the other side at any time; only what may be asked twice is.
                (Ok(Err(HttpError::Lost { .. })), Some(spare)) if reused => request = spare,
                (Ok(Err(why)), _) => return Err(why),
                (Err(_), _) => {
                    let reason = format!("no whole answer within {} s", limit.as_secs());
                    return Err(HttpError::Lost { address: self.address, request: name, reason, changes: !repeatable });
                }
            }
        }
    }

    fn build(&self, request: Request<'_>, name: &str) -> Result<hyper::Request<Full<Bytes>>, HttpError> {
        let cannot = |reason: String| HttpError::Request { request: name.to_owned(), reason };
        let mut built = hyper::Request::builder().method(request.method).uri(request.link.as_str());
        if let Some(headers) = built.headers_mut() {
            let host = HeaderValue::from_str(&self.origin.authority()).map_err(|why| cannot(why.to_string()))?;
            headers.insert(header::HOST, host);
            headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
            headers.insert("OData-Version", HeaderValue::from_static("4.0"));
            headers.insert(header::USER_AGENT, HeaderValue::from_static("rackmedic"));
            if !self.keep_alive {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            if request.body.is_some() {
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            }
            for (header, value) in request.headers {
                headers.insert(header, value);
            }
        }
        let body = Full::new(Bytes::from(request.body.unwrap_or_default()));
        built.body(body).map_err(|why| cannot(why.to_string()))
    }

    async fn connect(&mut self) -> Result<Open, HttpError> {
        let address = self.address;
        let stream = TcpStream::connect(address).await.map_err(|source| HttpError::Connect { address, source })?;
        let _ = stream.set_nodelay(true);
        let tls = |reason: String| HttpError::Tls { address, reason };
        let name = ServerName::try_from(self.origin.host.clone()).map_err(|why| tls(why.to_string()))?;
        let connector = tokio_rustls::TlsConnector::from(self.tls.config.clone());
        let stream = connector.connect(name, stream).await.map_err(|why| match (self.tls.pin(), self.tls.seen()) {
            (Some(expected), Some(seen)) if expected != seen => HttpError::PinChanged { address, expected, seen },
            (None, Some(seen)) if is_about_certificate(&why) => {
                HttpError::Untrusted { address, reason: why.to_string(), seen }
            }
            _ => tls(why.to_string()),
        })?;
        let (sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEADER_BYTES_MAX)
            .handshake(TokioIo::new(Unclean(stream)))
            .await
            .map_err(|why| tls(why.to_string()))?;
        let driver = tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Open { sender, driver })
    }

    /// The certificate shown at the last handshake.
    pub(super) fn seen(&self) -> Option<Fingerprint> {
        self.tls.seen()
    }

    /// Opens a connection and closes it again: to see the certificate.
    pub(super) async fn touch(&mut self) -> Result<(), HttpError> {
        let slow = HttpError::ConnectSlow { address: self.address, seconds: self.patience.connect.as_secs() };
        timeout(self.patience.connect, self.connect()).await.map_err(|_| slow)?.map(drop)
    }
}

async fn exchange(
    open: &mut Open,
    request: hyper::Request<Full<Bytes>>,
    address: SocketAddr,
    name: &str,
) -> Result<Response, HttpError> {
    let changes = request.method() != Method::GET;
    let lost = |reason: String| HttpError::Lost { address, request: name.to_owned(), reason, changes };
    let response = open.sender.send_request(request).await.map_err(|why| lost(reason(&why)))?;
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|why| {
        if why.downcast_ref::<LengthLimitError>().is_some() {
            HttpError::Long { address, request: name.to_owned(), changes }
        } else {
            lost(format!("the answer broke off: {why}"))
        }
    })?;
    Ok(Response { status: parts.status, headers: parts.headers, body: body.to_bytes() })
}

fn is_about_certificate(why: &std::io::Error) -> bool {
    let inner = why.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidCertificate(_)))
}

/// A cause in words, with what stands behind it.
fn reason(why: &hyper::Error) -> String {
    let mut text = format!("no answer that is HTTP: {why}");
    let mut behind = std::error::Error::source(why);
    while let Some(cause) = behind {
        text = format!("{text}: {cause}");
        behind = cause.source();
    }
    text
}
