//! How we get into a cluster: clients from a kubeconfig or from endpoints with an authority and a token, one per endpoint.
//!
//! Nothing is retried here and nothing waits for ever: who asks knows what may be asked twice.

use super::config::{ClusterConfig, EtcdConfig};
use http_body_util::{BodyExt, Limited};
use hyper::{Method, Request, StatusCode, Uri};
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A connection is there within this, or it is not.
pub const CONNECT: Duration = Duration::from_secs(4);
/// An answer is there within this, or the API is silent.
pub const ANSWER: Duration = Duration::from_secs(10);
/// A connection that brings nothing for this long is dead. Longer than any watch call may be silent, since the server ends
/// each after a minute at most.
const NOTHING_READ: Duration = Duration::from_secs(75);

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The kubeconfig cannot be read or has no usable context.
    #[error("kubeconfig {path}: {source}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<kube::config::KubeconfigError>,
    },
    /// The kubeconfig asks for what we do not do.
    #[error("kubeconfig {path}: {what}")]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What, and what to do instead.
        what: &'static str,
    },
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the file system says.
        source: std::io::Error,
    },
    /// A PEM file has no certificate.
    #[error("{0}: there is no PEM certificate in it: name the authority's certificate")]
    NoCertificate(PathBuf),
    /// An address is none.
    #[error("`{0}` is no address: write https://address:port")]
    Address(String),
    /// The TLS stack or the credential refuses.
    #[error("the client cannot be made: {0}: check the certificates, the key and the token file")]
    Build(Box<kube::Error>),
}

/// The way in: credential and trust, without an address.
#[derive(Debug, Clone)]
pub struct Access {
    base: kube::Config,
}

impl Access {
    /// Reads what the configuration names.
    ///
    /// # Errors
    /// What cannot be read or is unfit.
    pub async fn read(config: &ClusterConfig) -> Result<Access, ClientError> {
        let mut base = match (&config.kubeconfig, &config.ca_file, &config.token_file) {
            (Some(path), ..) => from_kubeconfig(path).await?,
            (None, Some(ca), Some(token)) => {
                let mut base = kube::Config::new(Uri::default());
                base.root_cert = Some(authorities(ca)?);
                base.auth_info =
                    AuthInfo { token_file: Some(token.to_string_lossy().into_owned()), ..AuthInfo::default() };
                base
            }
            _ => return Err(ClientError::Address(config.name.clone())),
        };
        if config.tls_server_name.is_some() {
            base.tls_server_name.clone_from(&config.tls_server_name);
        }
        bound(&mut base);
        Ok(Access { base })
    }

    /// Reads a kubeconfig alone.
    ///
    /// # Errors
    /// It cannot be read or is unfit.
    pub async fn of_kubeconfig(path: &Path) -> Result<Access, ClientError> {
        let mut base = from_kubeconfig(path).await?;
        bound(&mut base);
        Ok(Access { base })
    }

    /// The certificates of the authority that is believed, DER.
    #[must_use]
    pub fn authorities(&self) -> Vec<Vec<u8>> {
        self.base.root_cert.clone().unwrap_or_default()
    }

    /// A client that speaks to this endpoint and no other.
    ///
    /// # Errors
    /// The address is none, or the credential is unusable.
    pub fn client(&self, endpoint: &str) -> Result<kube::Client, ClientError> {
        let mut config = self.base.clone();
        config.cluster_url = address(endpoint)?;
        kube::Client::try_from(config).map_err(|error| ClientError::Build(Box::new(error)))
    }

    /// The address in the kubeconfig itself.
    #[must_use]
    pub fn own_address(&self) -> Option<String> {
        self.base.cluster_url.host().is_some().then(|| self.base.cluster_url.to_string())
    }
}

/// A client for one etcd member's HTTPS side.
///
/// # Errors
/// The address is none, or a file is unusable.
pub fn etcd_client(endpoint: &str, etcd: &EtcdConfig) -> Result<kube::Client, ClientError> {
    let mut config = kube::Config::new(address(endpoint)?);
    if let Some(ca) = &etcd.ca_file {
        config.root_cert = Some(authorities(ca)?);
    }
    let named = |path: &Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
    config.auth_info = AuthInfo {
        client_certificate: named(&etcd.cert_file),
        client_key: named(&etcd.key_file),
        ..AuthInfo::default()
    };
    bound(&mut config);
    kube::Client::try_from(config).map_err(|error| ClientError::Build(Box::new(error)))
}

/// Nothing waits for ever and nothing is asked twice by the library.
fn bound(config: &mut kube::Config) {
    config.connect_timeout = Some(CONNECT);
    config.write_timeout = Some(ANSWER);
    // Without it a request on a connection that died in the pool hangs until TCP gives up, a quarter of an hour later. It
    // counts from the request and not from when the connection fell idle.
    config.read_timeout = Some(NOTHING_READ);
    config.reset_reader_on_write = true;
    config.default_retry = false;
}

fn address(endpoint: &str) -> Result<Uri, ClientError> {
    match endpoint.parse::<Uri>() {
        Ok(uri) if uri.host().is_some() && uri.scheme().is_some() => Ok(uri),
        _ => Err(ClientError::Address(endpoint.to_owned())),
    }
}

fn authorities(path: &Path) -> Result<Vec<Vec<u8>>, ClientError> {
    let pem = std::fs::read(path).map_err(|source| ClientError::Read { path: path.to_owned(), source })?;
    let found: Vec<Vec<u8>> =
        CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).map(|der| der.to_vec()).collect();
    if found.is_empty() {
        return Err(ClientError::NoCertificate(path.to_owned()));
    }
    Ok(found)
}

async fn from_kubeconfig(path: &Path) -> Result<kube::Config, ClientError> {
    let failed = |source| ClientError::Kubeconfig { path: path.to_owned(), source: Box::new(source) };
    let file = Kubeconfig::read_from(path).map_err(failed)?;
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(failed)?;
    let unfit = |what| Err(ClientError::Unfit { path: path.to_owned(), what });
    if config.auth_info.exec.is_some() || config.auth_info.auth_provider.is_some() {
        return unfit("it runs a program to get a credential: use a token or a client certificate");
    }
    if config.accept_invalid_certs {
        return unfit("it accepts any certificate (insecure-skip-tls-verify): name the authority instead");
    }
    Ok(config)
}

/// An answer over HTTP that is no Kubernetes object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The body, cut off at the limit.
    pub body: String,
}

/// Most bytes of such an answer.
const BODY_MAX: usize = 256 * 1024;

/// Asks for a path, or posts JSON to it.
///
/// # Errors
/// Nobody answered, or with more than 256 KiB.
pub async fn ask(client: &kube::Client, path: &str, json: Option<Vec<u8>>) -> Result<Answer, kube::Error> {
    let method = if json.is_some() { Method::POST } else { Method::GET };
    let mut request = Request::builder().method(method).uri(path);
    if json.is_some() {
        request = request.header("Content-Type", "application/json");
    }
    let request = request.body(json.unwrap_or_default().into()).map_err(kube::Error::HttpError)?;
    let response = client.send(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), BODY_MAX).collect().await.map_err(kube::Error::Service)?.to_bytes();
    Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
}

/// What became of a request that gave no object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Nobody answered, too late, or with a fault of the server (5xx, 429): it may be asked again.
    Silent,
    /// The port refuses: the host lives, its API server does not.
    RefusedConnection,
    /// TLS did not come about: a certificate that is expired or not the one expected.
    Tls,
    /// Our credential is not taken (401).
    Unauthenticated,
    /// We may not (403), or the request is refused (400, 422).
    Refused,
    /// There is no such object.
    NotFound,
    /// Somebody changed it meanwhile (409).
    Conflict,
    /// What we asked from is too old (410): list again.
    Gone,
}

/// Sorts an error.
#[must_use]
pub fn trouble(error: &kube::Error) -> Trouble {
    if let kube::Error::Api(status) = error {
        return match status.code {
            401 => Trouble::Unauthenticated,
            404 => Trouble::NotFound,
            409 => Trouble::Conflict,
            410 => Trouble::Gone,
            429 | 500..=599 | 0 => Trouble::Silent,
            _ => Trouble::Refused,
        };
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            if io.kind() == std::io::ErrorKind::ConnectionRefused {
                return Trouble::RefusedConnection;
            }
            if io.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
                return Trouble::Tls;
            }
        }
        if error.is::<rustls::Error>() {
            return Trouble::Tls;
        }
        cause = error.source();
    }
    Trouble::Silent
}

/// How long the server asks us to wait, if it does.
#[must_use]
pub fn retry_after(error: &kube::Error) -> Option<Duration> {
    let kube::Error::Api(status) = error else { return None };
    let wait_s = status.details.as_ref()?.retry_after_seconds;
    // A server that asks for more than a minute is asked again after a minute.
    (wait_s > 0).then(|| Duration::from_secs(u64::from(wait_s.min(60))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16) -> kube::Error {
        kube::Error::Api(Box::new(kube::core::Status { code, ..kube::core::Status::failure("x", "y") }))
    }

    #[test]
    fn what_may_be_asked_again_is_told_from_what_is_refused() {
        assert_eq!(trouble(&status(429)), Trouble::Silent);
        assert_eq!(trouble(&status(503)), Trouble::Silent);
        assert_eq!(trouble(&status(403)), Trouble::Refused);
        assert_eq!(trouble(&status(422)), Trouble::Refused);
        assert_eq!(trouble(&status(401)), Trouble::Unauthenticated);
        assert_eq!(trouble(&status(409)), Trouble::Conflict);
    }

    #[test]
    fn a_dead_connection_is_given_up_and_a_quiet_watch_is_not() {
        let mut config = kube::Config::new("https://127.0.0.1:6443".parse().unwrap());
        bound(&mut config);
        let quiet = Duration::from_secs(super::super::watch::WATCH_S.into());
        assert!(config.read_timeout.is_some_and(|given_up| given_up > quiet + Duration::from_secs(10)));
        assert!(config.reset_reader_on_write && !config.default_retry);
    }

    #[tokio::test]
    async fn a_port_that_refuses_is_told_from_one_that_is_silent() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let etcd = EtcdConfig { ca_file: None, cert_file: None, key_file: None };
        let client = etcd_client(&format!("http://127.0.0.1:{port}"), &etcd).unwrap();
        let error = ask(&client, "/readyz", None).await.unwrap_err();
        assert_eq!(trouble(&error), Trouble::RefusedConnection);
    }
}
