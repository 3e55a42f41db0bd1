//! The key and certificate of the installer's HTTPS: made once, kept in the data folder, pinned on the kernel's command
//! line. No authority stands behind it, and none is asked.

use protocol::digest::Sha256;
use rcgen::{CertificateParams, KeyPair, PublicKeyData as _};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The key file.
    #[error("the installer's key {path}: {source}; no installer can be welcomed without it")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the file system says.
        source: io::Error,
    },
    /// The key is of no use.
    #[error("the installer's key {path} is damaged ({what}): move it away, and a new one is made at the next start")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// Who we are to an installer.
#[derive(Clone)]
pub struct Identity {
    /// The SHA-256 of the public key (SubjectPublicKeyInfo, DER).
    pub pin: Sha256,
    /// For the TLS listener.
    pub tls: Arc<ServerConfig>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.pin)
    }
}

impl Identity {
    /// The identity in this folder, made if there is none.
    ///
    /// # Errors
    /// When it cannot be read, written or used.
    pub fn open(folder: &Path) -> Result<Self, IdentityError> {
        let path = folder.join("installer-key.pem");
        let failed = |source| IdentityError::Io { path: path.clone(), source };
        let damaged = |what: String| IdentityError::Damaged { path: path.clone(), what };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let text = KeyPair::generate().map_err(|e| damaged(e.to_string()))?.serialize_pem();
                let beside = path.with_extension("new");
                let write = || {
                    let mut file =
                        OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&beside)?;
                    file.write_all(text.as_bytes())?;
                    file.sync_all()?;
                    std::fs::rename(&beside, &path)
                };
                write().map_err(failed)?;
                text
            }
            Err(e) => return Err(failed(e)),
        };
        let key = KeyPair::from_pem(&text).map_err(|e| damaged(e.to_string()))?;
        let pin = Sha256::of(&key.subject_public_key_info());
        let certificate =
            CertificateParams::new(vec!["rackmedic".to_owned()]).and_then(|params| params.self_signed(&key));
        let certificate = certificate.map_err(|e| damaged(e.to_string()))?;
        let private = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|e| damaged(e.to_string()))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let chain = vec![CertificateDer::from(certificate.der().to_vec())];
        let tls = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
            .map_err(|e| damaged(e.to_string()))?;
        Ok(Self { pin, tls: Arc::new(tls) })
    }
}
