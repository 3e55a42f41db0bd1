//! HTTPS to the appliance, whose public key the kernel's command line has pinned. No names, no authorities, no dates: the
//! clock of a machine that just booted may say anything.

use protocol::digest::Sha256;
use protocol::install::{BODY_LIMIT_BYTES, Problem};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, Read, Write as _};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// For a connection, and for each read and write on it.
const PATIENCE: Duration = Duration::from_secs(15);
/// The longest head of an answer that is read.
const HEAD_LIMIT_BYTES: usize = 8 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It may be there later.
    #[error("{0}")]
    Again(String),
    /// Somebody else answers.
    #[error("whoever answers there is not the appliance that started this boot: its key is another one")]
    WrongPin,
    /// It was refused, and will be again.
    #[error("{0}")]
    Refused(String),
    /// The answer has more bytes than are read. The same question would be answered so again.
    #[error("the answer of the appliance has {0} bytes, and at most {limit} are read", limit = BODY_LIMIT_BYTES)]
    TooLong(u64),
}

/// The other side.
#[derive(Clone, Debug)]
pub struct Client {
    api: SocketAddrV4,
    config: Arc<ClientConfig>,
}

#[derive(Debug)]
struct Pinned {
    pin: Sha256,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = webpki::EndEntityCert::try_from(end_entity)
            .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
        if Sha256::of(&certificate.subject_public_key_info()) == self.pin {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only TLS 1.3 is spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl Client {
    /// A client of the appliance with this key.
    ///
    /// # Errors
    /// When the cryptography cannot be set up.
    pub fn new(api: SocketAddrV4, pin: Sha256) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = Arc::new(Pinned { pin, provider: Arc::clone(&provider) });
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Ok(Self { api, config: Arc::new(config) })
    }

    /// Asks once.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn post<T: Serialize, R: DeserializeOwned>(
        &self,
        path: &str,
        session: Option<&str>,
        question: &T,
    ) -> Result<R, ClientError> {
        let again =
            |what: &str, error: &dyn std::fmt::Display| ClientError::Again(format!("{what} {}: {error}", self.api));
        let body = serde_json::to_vec(question).map_err(|error| again("cannot say to", &error))?;
        let stream =
            TcpStream::connect_timeout(&SocketAddr::V4(self.api), PATIENCE).map_err(|e| again("no way to", &e))?;
        let _ = stream.set_nodelay(true);
        let limits = stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
        limits.map_err(|error| again("no way to", &error))?;
        let name = ServerName::IpAddress((*self.api.ip()).into());
        let connection = ClientConnection::new(Arc::clone(&self.config), name);
        let mut stream = StreamOwned::new(connection.map_err(|error| again("no TLS with", &error))?, stream);
        let mut head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n",
            self.api,
            body.len()
        );
        if let Some(session) = session {
            head.push_str("Authorization: Bearer ");
            head.push_str(session);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        let sent =
            stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).and_then(|()| stream.flush());
        sent.map_err(|error| if is_wrong_pin(&error) { ClientError::WrongPin } else { again("cannot ask", &error) })?;
        let (status, answer) = read_answer(&mut stream).map_err(|error| match error {
            ClientError::Again(why) => again("no answer of", &why),
            other => other,
        })?;
        let problem = || match serde_json::from_slice::<Problem>(&answer) {
            Ok(problem) => problem.sentence,
            Err(_) => format!("status {status}"),
        };
        match status {
            200 => serde_json::from_slice(&answer).map_err(|error| again("not understood, the answer of", &error)),
            400..=499 => Err(ClientError::Refused(problem())),
            _ => Err(ClientError::Again(problem())),
        }
    }
}

fn is_wrong_pin(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)))
}

/// Status and body of an answer with `Content-Length`; without one it has no body. One that is too long is not taken
/// for an empty one: that would look like an appliance that is not understood for a moment, and be asked for again.
fn read_answer(stream: &mut impl Read) -> Result<(u16, Vec<u8>), ClientError> {
    let cut = |error: io::Error| ClientError::Again(error.to_string());
    let (status, length, mut body) = read_head(stream).map_err(cut)?;
    let promised = length.unwrap_or(0);
    let length = usize::try_from(promised).ok().filter(|length| *length <= BODY_LIMIT_BYTES);
    let length = length.ok_or(ClientError::TooLong(promised))?;
    let mut portion = [0; 4096];
    while body.len() < length {
        match stream.read(&mut portion).map_err(cut)? {
            0 => return Err(cut(io::ErrorKind::UnexpectedEof.into())),
            count => body.extend_from_slice(portion.get(..count).unwrap_or_default()),
        }
    }
    body.truncate(length);
    Ok((status, body))
}

/// Status, length of the body, and what of the body came with the head.
pub(crate) fn read_head(stream: &mut impl Read) -> io::Result<(u16, Option<u64>, Vec<u8>)> {
    let odd = || io::Error::new(io::ErrorKind::InvalidData, "no HTTP answer");
    let mut bytes = Vec::new();
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut response = httparse::Response::new(&mut headers);
        if let httparse::Status::Complete(head) = response.parse(&bytes).map_err(|_| odd())? {
            let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
            let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse().ok());
            let status = response.code.ok_or_else(odd)?;
            return Ok((status, length, bytes.split_off(head)));
        }
        if bytes.len() >= HEAD_LIMIT_BYTES {
            return Err(odd());
        }
        let mut portion = [0; 2048];
        match stream.read(&mut portion)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => bytes.extend_from_slice(portion.get(..count).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(head: &str, body: &[u8]) -> Result<(u16, Vec<u8>), ClientError> {
        let bytes = [format!("HTTP/1.1 200 OK\r\n{head}\r\n").as_bytes(), body].concat();
        read_answer(&mut bytes.as_slice())
    }

    #[test]
    fn an_answer_that_is_too_long_is_told_from_an_empty_and_a_short_one() {
        assert_eq!(answer("Content-Length: 2\r\n", b"{}").unwrap(), (200, b"{}".to_vec()));
        assert_eq!(answer("", b"").unwrap(), (200, Vec::new()));
        assert!(matches!(answer("Content-Length: 3\r\n", b"{}"), Err(ClientError::Again(_))));
        let longest = vec![b' '; BODY_LIMIT_BYTES];
        assert_eq!(answer(&format!("Content-Length: {BODY_LIMIT_BYTES}\r\n"), &longest).unwrap().1, longest);
        for bytes in [BODY_LIMIT_BYTES as u64 + 1, u64::MAX] {
            let error = answer(&format!("Content-Length: {bytes}\r\n"), &longest).unwrap_err();
            assert!(matches!(error, ClientError::TooLong(told) if told == bytes), "{error}");
            assert!(error.to_string().contains(&bytes.to_string()), "{error}");
        }
    }
}
