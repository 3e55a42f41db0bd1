//! TLS to a BMC: by the pin of its certificate, as a person saw it once, or by an authority. A certificate that is neither
//! stops everything before a credential is sent.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use subtle::ConstantTimeEq;
use thiserror::Error;

/// SHA-256 of a whole certificate, as `openssl x509 -fingerprint -sha256` prints it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    fn of(certificate: &CertificateDer<'_>) -> Fingerprint {
        Fingerprint(Sha256::digest(certificate.as_ref()).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is no fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a fingerprint is written as sha256: and 64 hexadecimal digits, with or without colons between the bytes")]
pub struct BadFingerprint;

impl FromStr for Fingerprint {
    type Err = BadFingerprint;

    fn from_str(text: &str) -> Result<Fingerprint, BadFingerprint> {
        let digits = text.get(..7).filter(|p| p.eq_ignore_ascii_case("sha256:")).ok_or(BadFingerprint)?.len();
        let digits: String = text.get(digits..).unwrap_or_default().chars().filter(|c| *c != ':').collect();
        if digits.len() != 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(BadFingerprint);
        }
        let mut bytes = [0; 32];
        for (place, byte) in bytes.iter_mut().enumerate() {
            let pair = digits.get(place * 2..place * 2 + 2).ok_or(BadFingerprint)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| BadFingerprint)?;
        }
        Ok(Fingerprint(bytes))
    }
}

/// Roots that sign certificates.
pub type Authorities = RootCertStore;

/// Why a file holds no authorities.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadAuthorities {
    /// It is no PEM.
    #[error("it is no PEM file: {0}")]
    NotPem(String),
    /// One of its certificates is none.
    #[error("certificate {number} in it cannot be used: {reason}")]
    Certificate {
        /// Which, from 1.
        number: usize,
        /// Why.
        reason: String,
    },
    /// It holds none.
    #[error("it holds no certificate")]
    Empty,
}

/// Reads the certificates of authorities from PEM.
///
/// # Errors
/// There is none, or one of them cannot be used.
pub fn authorities(pem: &[u8]) -> Result<Authorities, BadAuthorities> {
    let mut roots = RootCertStore::empty();
    for (place, certificate) in CertificateDer::pem_slice_iter(pem).enumerate() {
        let certificate = certificate.map_err(|why| BadAuthorities::NotPem(why.to_string()))?;
        roots
            .add(certificate)
            .map_err(|why| BadAuthorities::Certificate { number: place + 1, reason: why.to_string() })?;
    }
    if roots.is_empty() { Err(BadAuthorities::Empty) } else { Ok(roots) }
}

/// Whom to believe.
#[derive(Debug, Clone)]
pub enum Trust {
    /// This very certificate.
    Pin(Fingerprint),
    /// What these authorities signed, for the name or address that is asked.
    Authorities(Arc<RootCertStore>),
}

/// A configuration that believes as told, and what it saw last.
#[derive(Clone)]
pub(super) struct Tls {
    pub(super) config: Arc<ClientConfig>,
    verifier: Arc<Verifier>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("rule", &self.verifier.rule).finish_non_exhaustive()
    }
}

impl Tls {
    /// `None` believes any certificate, to look at it: for a connection on which nothing secret is sent.
    pub(super) fn new(trust: Option<&Trust>) -> Result<Tls, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let rule = match trust {
            None => Rule::Look,
            Some(Trust::Pin(pin)) => Rule::Pin(*pin),
            Some(Trust::Authorities(roots)) => Rule::Authorities(
                WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone())
                    .build()
                    .map_err(|why| rustls::Error::General(why.to_string()))?,
            ),
        };
        let verifier = Arc::new(Verifier { rule, provider: provider.clone(), seen: Mutex::new(None) });
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_no_client_auth();
        // A handshake costs an old BMC a second of its time; one configuration serves one BMC.
        config.resumption = Resumption::in_memory_sessions(2);
        Ok(Tls { config: Arc::new(config), verifier })
    }

    /// The certificate that was shown last.
    pub(super) fn seen(&self) -> Option<Fingerprint> {
        *self.verifier.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn pin(&self) -> Option<Fingerprint> {
        match self.verifier.rule {
            Rule::Pin(pin) => Some(pin),
            _ => None,
        }
    }
}

#[derive(Debug)]
enum Rule {
    Look,
    Pin(Fingerprint),
    Authorities(Arc<WebPkiServerVerifier>),
}

#[derive(Debug)]
struct Verifier {
    rule: Rule,
    provider: Arc<CryptoProvider>,
    seen: Mutex<Option<Fingerprint>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = Fingerprint::of(end_entity);
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
        match &self.rule {
            Rule::Look => Ok(ServerCertVerified::assertion()),
            Rule::Pin(pin) if bool::from(pin.0.ct_eq(&shown.0)) => Ok(ServerCertVerified::assertion()),
            Rule::Pin(_) => Err(CertificateError::ApplicationVerificationFailure.into()),
            Rule::Authorities(verifier) => {
                verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
        }
    }

    // A pinned certificate is public: who shows it must also prove that he holds its key.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_as_people_paste_them() {
        let plain = format!("sha256:{}", "ab".repeat(32));
        let seen: Fingerprint = plain.parse().unwrap();
        assert_eq!(seen.to_string(), plain);
        let colons = format!("SHA256:{}", vec!["AB"; 32].join(":"));
        assert_eq!(colons.parse::<Fingerprint>().unwrap(), seen);
        for bad in ["", "sha256:", "sha256:abcd", &"ab".repeat(32), &format!("sha256:{}", "zz".repeat(32)), "shä256:x"]
        {
            assert_eq!(bad.parse::<Fingerprint>(), Err(BadFingerprint), "{bad}");
        }
    }
}
