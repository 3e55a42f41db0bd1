//! The kubelet behind its listening port: TLS and `GET /healthz`, sparingly. A kubelet that is stuck still listens.
//!
//! Nothing secret is sent, so any certificate will do: what is asked is whether somebody is at home. 401 is an answer.

use super::standing::Standings;
use super::target::{Roster, Target};
use crate::decide_loop::{RunningTime, Signals};
use healing::signal::{Seen, Signal, Source};
use healing::time::{Elapsed, Millis, SECOND};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Between two looks at a host that is well, and at one that is not.
const PACE_MS: (Millis, Millis) = (60 * SECOND, 2 * SECOND);

/// Handshakes in a second at most.
pub const HANDSHAKES_MAX: u64 = 200;

/// Looks at the same time at most.
const AT_ONCE_MAX: usize = 128;

/// Time for the connection, and again for TLS and answer: the kubelet's own /healthz answers in milliseconds.
const ANSWER: Duration = Duration::from_secs(3);

/// A look never takes longer than this while we run.
const LONGEST: Duration = Duration::from_secs(6);

/// The schedule is served so often; each time a fair part of the handshakes of a second.
const TURN_MS: Millis = 50;

/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64;

/// Looks at kubelets.
#[derive(Debug)]
pub struct KubeletWatch {
    /// Who is watched; replaced as a whole.
    pub roster: watch::Receiver<Arc<Roster>>,
    /// Who is suspect, and whose port listens at all.
    pub standings: Standings,
    /// Where signals go.
    pub signals: Signals,
    /// The clock of the loop.
    pub time: RunningTime,
}

/// When each is next looked at.
#[derive(Debug, Default)]
struct Schedule {
    next: Vec<(Target, Elapsed)>,
    at: usize,
}

impl Schedule {
    /// Hosts that stay keep their turn; new ones are spread over the pace.
    fn replace(&mut self, roster: &Roster, now: Elapsed) {
        let known: std::collections::HashMap<_, _> =
            self.next.iter().map(|(target, at)| (target.host, (*target, *at))).collect();
        let count = roster.targets().len().max(1) as u64;
        let turn = |(place, target): (usize, &Target)| {
            let spread = now.plus(PACE_MS.0 * place as u64 / count);
            let kept = known.get(&target.host).filter(|(old, _)| old == target).map(|(_, at)| *at);
            (*target, kept.unwrap_or(spread))
        };
        self.next = roster.targets().iter().enumerate().map(turn).collect();
        self.at = 0;
    }

    /// Those whose turn it is, at most `most`, going on where it stopped: who waits is not passed over.
    fn due(&mut self, most: u64, now: Elapsed, standings: &Standings) -> Vec<Target> {
        let mut due = Vec::new();
        for _ in 0..self.next.len() {
            let count = self.next.len();
            let Some((target, at)) = self.next.get_mut(self.at) else { break };
            let standing = standings.of(target.host);
            let pace = if standing.suspect { PACE_MS.1 } else { PACE_MS.0 };
            // Behind a port that does not listen there is nobody to ask: the port's own probe says so.
            if now.plus(pace) < *at {
                *at = now.plus(pace);
            }
            if *at <= now && standing.listens {
                if due.len() as u64 >= most {
                    return due;
                }
                *at = now.plus(pace);
                due.push(*target);
            }
            self.at = (self.at + 1) % count;
        }
        due
    }
}

impl KubeletWatch {
    /// Looks until it is dropped.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub async fn run(mut self) -> Result<(), rustls::Error> {
        let connector = TlsConnector::from(Arc::new(anybody()?));
        let at_once = Arc::new(Semaphore::new(AT_ONCE_MAX));
        let mut schedule = Schedule::default();
        schedule.replace(&self.roster.borrow_and_update().clone(), self.time.now().elapsed);
        let mut looks = tokio::task::JoinSet::new();
        loop {
            tokio::time::sleep(self.time.span(TURN_MS)).await;
            while looks.try_join_next().is_some() {}
            match self.roster.has_changed() {
                Ok(true) => schedule.replace(&self.roster.borrow_and_update().clone(), self.time.now().elapsed),
                Ok(false) => {}
                Err(_) => return Ok(()),
            }
            let free = at_once.available_permits() as u64;
            let most = (HANDSHAKES_MAX * TURN_MS / SECOND).min(free);
            for target in schedule.due(most, self.time.now().elapsed, &self.standings) {
                let Ok(turn) = Arc::clone(&at_once).try_acquire_owned() else { break };
                let (connector, signals, time) = (connector.clone(), self.signals.clone(), self.time.clone());
                looks.spawn(async move {
                    let address = SocketAddr::from((target.address, target.kubelet_port));
                    let began = tokio::time::Instant::now();
                    let seen = ask(&connector, address).await;
                    drop(turn);
                    let at = time.now().elapsed;
                    if let Some(seen) = seen {
                        // What took longer than its time took it because we did not run: no miss (rule 47).
                        let late = began.elapsed().saturating_sub(LONGEST);
                        let drained_after_ms = u64::try_from(late.as_millis()).unwrap_or(u64::MAX);
                        let signal = Signal::sample(Source::KubeletHealth, seen, at);
                        signals.offer(target.host, Signal { drained_after_ms, ..signal });
                    }
                });
            }
        }
    }
}

/// Asks once. A connection that cannot be made says nothing here: that is the matter of the port's own probe.
async fn ask(connector: &TlsConnector, address: SocketAddr) -> Option<Seen> {
    let stream = timeout(ANSWER, TcpStream::connect(address)).await.ok()?.ok()?;
    let name = ServerName::IpAddress(address.ip().into());
    let answer = async {
        let mut stream = match connector.connect(name, stream).await {
            Ok(stream) => stream,
            // It lives and says why not: a kubelet whose serving certificate nobody has approved yet answers like this.
            Err(error) if is_alert(&error) => return Some(()),
            Err(_) => return None,
        };
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: kubelet\r\nConnection: close\r\n\r\n").await.ok()?;
        let mut head = [0; ANSWER_BYTES_MAX];
        let mut filled = 0;
        while filled < head.len() && !head[..filled].contains(&b'\n') {
            match stream.read(head.get_mut(filled..)?).await.ok()? {
                0 => break,
                read => filled += read,
            }
        }
        let status = head.get(..12)?;
        // Ok, and what a kubelet says to strangers. Anything else is a kubelet that knows itself ill.
        matches!(
            status.strip_prefix(b"HTTP/1.1 ").or(status.strip_prefix(b"HTTP/1.0 ")),
            Some(b"200" | b"401" | b"403")
        )
        .then_some(())
    };
    Some(if timeout(ANSWER, answer).await.ok().flatten().is_some() { Seen::Answer } else { Seen::Miss })
}

/// Believes anybody; see the module. The signature is checked all the same: a wrong one is no TLS server.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

/// The other side ended the handshake by an alert of its own (RFC 8446, section 6.2).
fn is_alert(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::AlertReceived(_)))
}

fn anybody() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth())
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::prober::Standing;
    use crate::watch::target::Reach;
    use healing::id::HostId;
    use pxe::mac::Mac;
    use std::net::Ipv4Addr;

    fn roster(hosts: u32) -> Roster {
        let target = |n: u32| Target {
            host: HostId(n),
            address: Ipv4Addr::from(0x0a53_0000 + n),
            reach: Reach::Attached(Mac([2, 0, 0, 0, (n >> 8) as u8, n as u8])),
            kubelet_port: 10_250,
            second_port: 22,
        };
        Roster::new((1..=hosts).map(target).collect(), Vec::new(), None, Vec::new()).unwrap()
    }

    #[test]
    fn ten_thousand_are_looked_at_in_their_minute_below_the_rate_and_suspects_each_two_seconds() {
        let standings = Standings::default();
        let well = Standing { echoes: true, listens: true, suspect: false };
        let ill = Standing { suspect: true, ..well };
        standings.put((1..=10_000).map(|n| (HostId(n), if n <= 20 { ill } else { well })));
        let mut schedule = Schedule::default();
        schedule.replace(&roster(10_000), Elapsed(0));
        let (mut looks, mut of_suspect) = (vec![0; 10_001], Vec::new());
        for turn in 0..2_400_u64 {
            for target in schedule.due(10, Elapsed(turn * TURN_MS), &standings) {
                looks[target.host.0 as usize] += 1;
                if target.host == HostId(20) {
                    of_suspect.push(turn * TURN_MS);
                }
            }
        }
        assert!(looks[21..].iter().all(|n| (1..=3).contains(n)), "{:?}", looks[21..].iter().min());
        assert!(of_suspect.windows(2).all(|pair| pair[1] - pair[0] <= 3_500), "{of_suspect:?}");
        assert!(of_suspect.len() >= 40, "{}", of_suspect.len());
    }

    #[derive(Debug)]
    struct NoCertificate;

    impl rustls::server::ResolvesServerCert for NoCertificate {
        fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<rustls::sign::CertifiedKey>> {
            None
        }
    }

    #[tokio::test]
    async fn one_without_a_certificate_lives_and_one_that_says_nothing_hangs() {
        let connector = TlsConnector::from(Arc::new(anybody().unwrap()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config =
            rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_cert_resolver(Arc::new(NoCertificate));
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let server = tokio::spawn(async move {
            let (first, _) = listener.accept().await.unwrap();
            assert!(acceptor.accept(first).await.is_err());
            // The second is taken and never answered.
            listener.accept().await.unwrap()
        });
        assert_eq!(ask(&connector, address).await, Some(Seen::Answer));
        assert_eq!(ask(&connector, address).await, Some(Seen::Miss));
        drop(server.await.unwrap());
    }
}
