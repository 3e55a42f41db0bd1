//! The cluster as the rejoin sees it: a client that somebody made, the authority that a host is to believe, and what an
//! answer means. Nothing waits longer than [`CALL_TIMEOUT`], and nothing is sent again by itself: the caller knows which
//! calls may be repeated.

use kube::Client;
use std::future::Future;
use std::time::Duration;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The longest that one call may take.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a cluster did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The way to it is no way.
    #[error("{0}: no host can be made to join; correct how the cluster is reached")]
    Access(String),
    /// No answer, or one that says "later".
    #[error("{what}: the API server gave no answer ({why}); the effect is unknown, ask again")]
    Silent {
        /// What was asked.
        what: String,
        /// What happened instead.
        why: String,
    },
    /// It refused.
    #[error(
        "{what}: the API server refused ({code} {reason}): {message}; give the appliance that right, or look at who forbids it"
    )]
    Refused {
        /// What was asked.
        what: String,
        /// The status code.
        code: u16,
        /// Its reason.
        reason: String,
        /// Its words.
        message: String,
    },
    /// Somebody else changed it meanwhile, or it is there already.
    #[error("{what}: it changed meanwhile ({message}); nothing was done, read it again")]
    Conflict {
        /// What was asked.
        what: String,
        /// The server's words.
        message: String,
    },
    /// It is not there.
    #[error("{what}: it is not there")]
    Missing {
        /// What was asked.
        what: String,
    },
}

/// One cluster.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    endpoint: String,
    authorities: Vec<Vec<u8>>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cluster({})", self.endpoint)
    }
}

impl Cluster {
    /// A cluster at `endpoint` (`host:port`), whose authority has these certificates (DER).
    ///
    /// # Errors
    /// No authority is named: a host that joined could be led anywhere.
    pub fn new(client: Client, endpoint: &str, authorities: Vec<Vec<u8>>) -> Result<Cluster, ClusterError> {
        if authorities.is_empty() {
            return Err(ClusterError::Access("no certificate authority of the cluster is named".to_owned()));
        }
        Ok(Cluster { client, endpoint: endpoint.to_owned(), authorities })
    }

    /// The client of all typed calls.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// `host:port` of the API server.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The certificates of the authority, DER.
    #[must_use]
    pub fn authorities(&self) -> &[Vec<u8>] {
        &self.authorities
    }

    /// The public keys of the authority, DER, of which kubeadm's pins are digests.
    ///
    /// # Errors
    /// A certificate cannot be read.
    pub fn authority_keys(&self) -> Result<Vec<Vec<u8>>, ClusterError> {
        let key = |der: &Vec<u8>| {
            let (_, certificate) = X509Certificate::from_der(der)
                .map_err(|e| ClusterError::Access(format!("the certificate of the cluster's authority: {e}")))?;
            Ok(certificate.public_key().raw.to_vec())
        };
        self.authorities.iter().map(key).collect()
    }
}

/// Makes one call within [`CALL_TIMEOUT`] and says what its answer means.
///
/// # Errors
/// As [`ClusterError`] names them.
pub async fn ask<T>(what: &str, call: impl Future<Output = kube::Result<T>>) -> Result<T, ClusterError> {
    let silent = |why: String| ClusterError::Silent { what: what.to_owned(), why };
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Err(_) => Err(silent(format!("nothing within {} s", CALL_TIMEOUT.as_secs()))),
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) => Err(match status.code {
            404 => ClusterError::Missing { what: what.to_owned() },
            409 => ClusterError::Conflict { what: what.to_owned(), message: status.message.clone() },
            // Too many requests, and all that a server says of itself: later is another matter.
            429 | 500.. => silent(format!("{} {}", status.code, status.message)),
            code => ClusterError::Refused {
                what: what.to_owned(),
                code,
                reason: status.reason.clone(),
                message: status.message.clone(),
            },
        }),
        Ok(Err(error)) => Err(silent(chain(&error))),
    }
}

/// Like [`ask`], where an absence is an answer.
///
/// # Errors
/// As [`ClusterError`] names them.
pub async fn ask_for<T>(what: &str, call: impl Future<Output = kube::Result<T>>) -> Result<Option<T>, ClusterError> {
    match ask(what, call).await {
        Ok(found) => Ok(Some(found)),
        Err(ClusterError::Missing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}
