//! The authority of the emulated cluster, the certificates that it signs, and the kubeconfig that trusts it.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// A new authority and the token of its administrator; both live as long as the demo.
pub struct Authority {
    pem: String,
    token: String,
    tls: TlsAcceptor,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
#[error("no certificate can be made for the emulated cluster: {0}")]
pub struct NoAuthority(String);

impl Authority {
    /// Makes one, with a certificate for servers on loopback.
    ///
    /// # Errors
    /// The library or the random generator refuses.
    pub fn make() -> Result<Authority, NoAuthority> {
        let failed = |why: rcgen::Error| NoAuthority(why.to_string());
        let mut root = CertificateParams::new(Vec::new()).map_err(failed)?;
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        root.distinguished_name.push(DnType::CommonName, "rackmedic demo");
        let root_key = KeyPair::generate().map_err(failed)?;
        let pem = root.self_signed(&root_key).map_err(failed)?.pem();
        let issuer = Issuer::new(root, root_key);
        let names = ["127.0.0.1", "localhost", "kubernetes"].map(str::to_owned).to_vec();
        let key = KeyPair::generate().map_err(failed)?;
        let mut server = CertificateParams::new(names).map_err(failed)?;
        server.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        let server = server.signed_by(&key, &issuer).map_err(failed)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![server.der().clone()], key))
            .map_err(|why| NoAuthority(why.to_string()))?;
        let mut random = [0; 24];
        getrandom::fill(&mut random).map_err(|why| NoAuthority(why.to_string()))?;
        let token = random.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Authority { pem, token, tls: TlsAcceptor::from(Arc::new(config)) })
    }

    /// For listeners.
    #[must_use]
    pub fn tls(&self) -> TlsAcceptor {
        self.tls.clone()
    }

    /// Whether a header `Authorization` carries the token.
    #[must_use]
    pub fn admits(&self, header: Option<&str>) -> bool {
        use subtle::ConstantTimeEq;
        header
            .and_then(|header| header.strip_prefix("Bearer "))
            .is_some_and(|token| token.as_bytes().ct_eq(self.token.as_bytes()).into())
    }

    /// A kubeconfig for a server. It holds the token: whoever writes it keeps others from reading it.
    #[must_use]
    pub fn kubeconfig(&self, server: SocketAddr) -> String {
        use base64::Engine as _;
        let authority = base64::engine::general_purpose::STANDARD.encode(&self.pem);
        // JSON is YAML.
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "demo",
            "clusters": [{"name": "demo", "cluster": {"server": format!("https://{server}"), "certificate-authority-data": authority}}],
            "users": [{"name": "demo", "user": {"token": self.token}}],
            "contexts": [{"name": "demo", "context": {"cluster": "demo", "user": "demo"}}],
        })
        .to_string()
    }
}
