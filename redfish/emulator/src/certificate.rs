//! Certificates of emulated BMCs: the right one, another one, and one whose time is over.

use crate::emulator::Failed;
use bmc::redfish::Fingerprint;
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// A certificate with its key, and two wrong ones beside it; shared by as many emulators as wanted.
#[derive(Clone)]
pub struct Certificate {
    right: TlsAcceptor,
    other: TlsAcceptor,
    expired: TlsAcceptor,
    fingerprint: Fingerprint,
    expired_fingerprint: Fingerprint,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

impl Certificate {
    /// Makes self-signed ones for loopback.
    ///
    /// # Errors
    /// The library refuses.
    pub fn make() -> Result<Certificate, Failed> {
        let (right, fingerprint) = acceptor(false)?;
        let (other, _) = acceptor(false)?;
        let (expired, expired_fingerprint) = acceptor(true)?;
        Ok(Certificate { right, other, expired, fingerprint, expired_fingerprint })
    }

    /// Of the right one.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Of the one whose time is over: who pinned it may go on.
    #[must_use]
    pub fn expired_fingerprint(&self) -> Fingerprint {
        self.expired_fingerprint
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.right.clone()
    }

    pub(crate) fn other(&self) -> TlsAcceptor {
        self.other.clone()
    }

    pub(crate) fn expired(&self) -> TlsAcceptor {
        self.expired.clone()
    }
}

fn acceptor(expired: bool) -> Result<(TlsAcceptor, Fingerprint), Failed> {
    let failed = |why: &dyn std::fmt::Display| Failed::Certificate(why.to_string());
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let mut parameters = rcgen::CertificateParams::new(names).map_err(|why| failed(&why))?;
    if expired {
        parameters.not_before = rcgen::date_time_ymd(2014, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2024, 1, 1);
    }
    let key = rcgen::KeyPair::generate().map_err(|why| failed(&why))?;
    let certificate = parameters.self_signed(&key).map_err(|why| failed(&why))?.der().clone();
    let fingerprint = Fingerprint(Sha256::digest(certificate.as_ref()).into());
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|why| failed(&why))?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .map_err(|why| failed(&why))?;
    Ok((TlsAcceptor::from(Arc::new(config)), fingerprint))
}
