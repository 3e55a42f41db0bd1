//! The client of the control socket: how every verb that asks a running appliance reaches it.

use super::Forbidden;
use crate::server::api::listen::control_socket;
use crate::server::api::problem::Problem;
use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::UnixStream;

/// An answer at most: 20,000 hosts, exported.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Until the answer is there.
const LIMIT: Duration = Duration::from_secs(90);

/// Which appliance is asked.
#[derive(Debug, Args)]
pub(super) struct Appliance {
    /// The data directory of the running appliance.
    #[arg(long, value_name = "DIR", env = "RACKMEDIC_DATA_DIR", default_value = "/var/lib/rackmedic")]
    data_dir: PathBuf,
}

/// What the appliance said no to, as it said it.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.detail)]
pub(super) struct SaidNo(pub(super) Problem);

impl Appliance {
    /// Asks for something.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.ask(Method::GET, path, Bytes::new())
    }

    /// Tells something.
    pub(super) fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> anyhow::Result<T> {
        self.ask(Method::POST, path, Bytes::from(serde_json::to_vec(body)?))
    }

    /// Removes something.
    pub(super) fn delete(&self, path: &str) -> anyhow::Result<()> {
        self.ask::<serde_json::Value>(Method::DELETE, path, Bytes::new()).map(drop)
    }

    /// All pages of a list.
    pub(super) fn all(&self, path: &str) -> anyhow::Result<Vec<serde_json::Value>> {
        let mut all = Vec::new();
        let mut after = String::new();
        loop {
            let page: serde_json::Value = self.get(&format!("{path}?limit=1000{after}"))?;
            all.extend(page["items"].as_array().cloned().unwrap_or_default());
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return Ok(all),
            }
        }
    }

    fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (status, body) = runtime.block_on(async {
            tokio::time::timeout(LIMIT, self.send(method, path, body))
                .await
                .context("the appliance did not answer in time; look at its log")?
        })?;
        if status.is_success() {
            let body = if body.is_empty() { Bytes::from_static(b"null") } else { body };
            return serde_json::from_slice(&body)
                .context("the appliance answered something else; is it of this version?");
        }
        let problem = serde_json::from_slice(&body)
            .unwrap_or_else(|_| Problem::new(status, "unknown", format!("the appliance answered {status}")));
        Err(if status == StatusCode::CONFLICT { Forbidden(problem.detail).into() } else { SaidNo(problem).into() })
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<(StatusCode, Bytes)> {
        let socket = control_socket(&self.data_dir);
        let stream = UnixStream::connect(&socket).await.with_context(|| {
            format!(
                "no appliance can be asked at {}: start `rackmedic serve`, name its directory with --data-dir, or ask as its own user or root",
                socket.display()
            )
        })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        let answer = sender.send_request(request).await.context("the appliance broke off; look at its log")?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|why| anyhow::anyhow!("the answer cannot be read: {why}"))?;
        Ok((status, body.to_bytes()))
    }
}
