//! From HTTP to what is asked and back, for everything here that serves Redfish.

use super::answer::Answer;
use base64::Engine as _;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response};
use serde_json::Value;

/// A request's body.
const BODY_BYTES_MAX: usize = 64 << 10;

/// What is asked.
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) token: Option<String>,
    pub(crate) basic: Option<String>,
    pub(crate) if_match: Option<String>,
    pub(crate) odata: Option<String>,
    /// Null if it is no JSON.
    pub(crate) body: Value,
}

impl Asked {
    pub(crate) async fn read(request: Request<Incoming>) -> Asked {
        let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (token, basic, if_match) = (header("x-auth-token"), header("authorization"), header("if-match"));
        let odata = header("odata-version");
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let query = request.uri().query().unwrap_or_default().to_owned();
        let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await.map(|body| body.to_bytes());
        let body = serde_json::from_slice(&body.unwrap_or_default()).unwrap_or(Value::Null);
        Asked { method, path, query, token, basic, if_match, odata, body }
    }
}

/// Name and password of a Basic credential.
pub(crate) fn credential(header: &str) -> Option<(String, Vec<u8>)> {
    let text = header.strip_prefix("Basic ")?;
    let decoded = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
    let (name, password) = decoded.split_at(decoded.iter().position(|byte| *byte == b':')?);
    Some((String::from_utf8_lossy(name).into_owned(), password.get(1..).unwrap_or_default().to_vec()))
}

/// A token of a session that nobody guesses.
pub(crate) fn token() -> String {
    let mut bytes = [0u8; 16];
    let _ = getrandom::fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An answer as HTTP.
pub(crate) fn response(status: u16, headers: &[(&'static str, String)], body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::builder()
        .status(status)
        .header("odata-version", "4.0")
        .header("cache-control", "no-cache")
        .header("link", "</redfish/v1/$metadata>; rel=describedby");
    let typed = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    for (name, value) in headers {
        response = response.header(*name, value);
    }
    if !body.is_empty() && !typed {
        response = response.header("content-type", "application/json");
    }
    response.body(Full::new(Bytes::from(body))).unwrap_or_default()
}

/// The bytes of a body: JSON, or the text itself if it has a type of its own.
pub(crate) fn bytes(answer: &Answer) -> Vec<u8> {
    let typed = answer.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    match &answer.body {
        Some(Value::String(text)) if typed => text.clone().into_bytes(),
        Some(value) => value.to_string().into_bytes(),
        None => Vec::new(),
    }
}
