//! Each misbehaviour shows on the wire when it is switched on, and is gone when it is switched off. What an appliance makes
//! of them is tested there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bmc::boot::{BootDevice, BootLasts, BootMode};
use bmc::controller::{ALWAYS, Controller};
use bmc::ipmi::client::{Client, IpmiError, Patience as IpmiPatience};
use bmc::ipmi::crypto::Suite;
use bmc::ipmi::handshake::{Login, LoginError, Privilege};
use bmc::redfish::{Credential, Facts, Fingerprint, NoKeeper, Options, Patience, Redfish, Trust};
use bmc::{PowerCommand, Secret};
use bmc_emulator::{Certificate, Emulator, Misbehaviour, Setup, by_name, serve_control};
use machine::Fault;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn emulator(model: &str) -> (Emulator, Certificate) {
    let certificate = Certificate::make().unwrap();
    let mut setup = Setup::of(by_name(model).unwrap());
    setup.spec.off_ms = (100, 200);
    (Emulator::start(setup, &certificate).await.unwrap(), certificate)
}

fn pinned(emulator: &Emulator, pin: Fingerprint) -> Redfish {
    let options = Options {
        trust: Trust::Pin(pin),
        patience: Patience { connect: Duration::from_secs(2), answer: Duration::from_secs(2) },
        system: None,
        keep_alive: false,
        keeper: Arc::new(NoKeeper),
        facts: Facts::default(),
    };
    let credential = Credential { user: "admin".to_owned(), password: Secret::new(b"secret-of-a-bmc".to_vec()) };
    Redfish::new(emulator.redfish(), "127.0.0.1", credential, options).unwrap()
}

async fn ipmi(emulator: &Emulator) -> Result<Client, IpmiError> {
    let login = Login::new("admin".to_owned(), Secret::new(b"secret-of-a-bmc".to_vec()), Privilege::Operator).unwrap();
    let patience = IpmiPatience { retry: Duration::from_millis(200), tries: 2 };
    Client::open(emulator.ipmi(), &login, &Suite::PREFERENCE, patience).await
}

async fn until_off(emulator: &Emulator) {
    let begun = Instant::now();
    while emulator.handle().machine(machine::Machine::power) != machine::Power::Off {
        assert!(begun.elapsed() < Duration::from_secs(5), "never off");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_that_is_wrong() {
    let (emulator, certificate) = emulator("openbmc").await;
    let handle = emulator.handle();
    let reads = async |pin| pinned(&emulator, pin).identify().await.is_ok();
    assert!(reads(certificate.fingerprint()).await);
    handle.set(Misbehaviour::ExpiredCertificate, true);
    assert!(!reads(certificate.fingerprint()).await, "another certificate is shown");
    assert!(reads(certificate.expired_fingerprint()).await, "who pinned it goes on");
    handle.set(Misbehaviour::ExpiredCertificate, false);
    let before = handle.counted().credentials;
    for wrong in [Misbehaviour::OldTlsOnly, Misbehaviour::NoTls, Misbehaviour::OtherCertificate] {
        handle.set(wrong, true);
        assert!(!reads(certificate.fingerprint()).await, "{wrong:?}");
        handle.set(wrong, false);
    }
    assert_eq!(handle.counted().credentials, before, "no credential went to any of them");
    assert!(reads(certificate.fingerprint()).await, "all is well again");
}

/// Believes any certificate: what is looked at here is the connection.
#[derive(Debug)]
struct Anybody;

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
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// Sends these over one connection, one after the other; the status of each answer, 0 for none.
async fn over_one_connection(emulator: &Emulator, requests: &[&str]) -> Vec<u16> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.dangerous().with_custom_certificate_verifier(Arc::new(Anybody)).with_no_client_auth();
    let stream = TcpStream::connect(emulator.redfish()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    let mut statuses = Vec::new();
    for line in requests {
        // admin:secret-of-a-bmc
        let head = "Host: x\r\nContent-Length: 0\r\nAuthorization: Basic YWRtaW46c2VjcmV0LW9mLWEtYm1j";
        let written = stream.write_all(format!("{line} HTTP/1.1\r\n{head}\r\n\r\n").as_bytes()).await;
        let mut answer = vec![0; 16_384];
        let length = if written.is_ok() { stream.read(&mut answer).await.unwrap_or(0) } else { 0 };
        let text = String::from_utf8_lossy(&answer[..length]).into_owned();
        statuses.push(text.split(' ').nth(1).map_or(0, |status| status.parse().unwrap()));
    }
    statuses
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_comes_with_the_second_request_of_a_connection() {
    let (emulator, _) = emulator("openbmc").await;
    let twice = ["GET /redfish/v1/", "GET /redfish/v1/"];
    assert_eq!(over_one_connection(&emulator, &twice).await, [200, 200]);
    emulator.handle().set(Misbehaviour::ResetOnReuse, true);
    assert_eq!(over_one_connection(&emulator, &twice).await, [200, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_cleared_over_redfish_is_empty_over_ipmi() {
    let (emulator, _) = emulator("openbmc").await;
    emulator.handle().inject(Fault::Button);
    let mut client = ipmi(&emulator).await.unwrap();
    assert!(client.event_log_info().await.unwrap().entries > 0);
    let clear = "POST /redfish/v1/Systems/system/LogServices/SEL/Actions/LogService.ClearLog";
    assert_eq!(over_one_connection(&emulator, &[clear]).await, [204]);
    assert_eq!(client.event_log_info().await.unwrap().entries, 0);
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_and_links_that_are_wrong() {
    let (emulator, certificate) = emulator("openbmc").await;
    let handle = emulator.handle();
    let mut client = pinned(&emulator, certificate.fingerprint());
    client.identify().await.unwrap();
    handle.set(Misbehaviour::HugeHeader, true);
    assert!(client.identify().await.is_err());
    handle.set(Misbehaviour::HugeHeader, false);
    handle.set(Misbehaviour::EndlessLog, true);
    client.power(PowerCommand::Off, ALWAYS).await.unwrap();
    until_off(&emulator).await;
    let log = tokio::time::timeout(Duration::from_secs(10), client.event_log(1_000)).await.expect("a circle ends");
    assert!(!log.unwrap().is_empty());
    client.close().await;
    handle.set(Misbehaviour::ForeignLocation, true);
    let mut stranger = pinned(&emulator, certificate.fingerprint());
    stranger.identify().await.unwrap();
    // The place is not followed; the session is this BMC's all the same, and is closed here.
    assert_eq!((stranger.session(), handle.sessions_open()), (Some(true), 1));
    stranger.close().await;
    assert_eq!(handle.sessions_open(), 0);
    handle.set(Misbehaviour::ForeignLocation, false);
    let mut friend = pinned(&emulator, certificate.fingerprint());
    friend.identify().await.unwrap();
    assert_eq!(friend.session(), Some(true));
    friend.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_identity_that_changes_with_the_next_power_command() {
    let (emulator, certificate) = emulator("openbmc").await;
    let mut client = pinned(&emulator, certificate.fingerprint());
    client.power(PowerCommand::On, ALWAYS).await.unwrap();
    emulator.handle().set(Misbehaviour::IdentityChanges, true);
    let before = client.identify().await.unwrap().uuid;
    let mut over_ipmi = ipmi(&emulator).await.unwrap();
    assert_eq!(Some(over_ipmi.system_guid().await.unwrap()), before);
    client.power(PowerCommand::Off, ALWAYS).await.unwrap();
    let after = client.identify().await.unwrap().uuid;
    assert!(after.is_some() && after != before, "{after:?}");
    assert_eq!(Some(over_ipmi.system_guid().await.unwrap()), after, "both protocols tell the same");
    over_ipmi.close().await;
    emulator.handle().behave();
    assert_eq!(client.identify().await.unwrap().uuid, before);
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_override_that_is_set_for_ever() {
    let (emulator, certificate) = emulator("openbmc").await;
    emulator.handle().set(Misbehaviour::BootSetForever, true);
    let mut client = pinned(&emulator, certificate.fingerprint());
    let _ = client.set_boot_once(&BootDevice::Pxe, BootMode::Uefi, ALWAYS).await;
    assert_eq!(emulator.handle().boot(), ("Pxe".to_owned(), "Continuous".to_owned()));
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_override_over_ipmi_that_is_set_for_ever() {
    let (emulator, _) = emulator("openbmc").await;
    let mut client = ipmi(&emulator).await.unwrap();
    let once = Controller::set_boot_once(&mut client, &BootDevice::Pxe, BootMode::Uefi, ALWAYS).await.unwrap();
    assert_eq!(once.lasts, BootLasts::Once);
    emulator.handle().set(Misbehaviour::IpmiBootSetForever, true);
    let _ = Controller::set_boot_once(&mut client, &BootDevice::Pxe, BootMode::Uefi, ALWAYS).await;
    let read = Controller::boot_override(&mut client).await.unwrap();
    assert_eq!((read.device, read.lasts), (Some(BootDevice::Pxe), BootLasts::Always));
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_that_are_wrong() {
    let (emulator, _) = emulator("openbmc").await;
    let handle = emulator.handle();
    handle.set(Misbehaviour::IpmiImpostor, true);
    let opened = ipmi(&emulator).await;
    assert!(matches!(opened, Err(IpmiError::Login { source: LoginError::PasswordWrong, .. })), "{opened:?}");
    handle.behave();
    handle.set(Misbehaviour::IpmiOtherPort, true);
    let opened = ipmi(&emulator).await;
    assert!(matches!(opened, Err(IpmiError::Silent { .. })), "{opened:?}");
    handle.behave();
    let mut client = ipmi(&emulator).await.unwrap();
    client.chassis_status().await.unwrap();
    handle.set(Misbehaviour::IpmiUnsealed, true);
    let read = client.chassis_status().await;
    assert!(matches!(read, Err(IpmiError::ReplyLost { .. } | IpmiError::Silent { .. })), "{read:?}");
    handle.behave();
    let mut client = ipmi(&emulator).await.unwrap();
    assert!(!client.event_log_info().await.unwrap().overflowed);
    handle.set(Misbehaviour::IpmiLogOverflows, true);
    assert!(client.event_log_info().await.unwrap().overflowed);
    client.close().await;
}

async fn ask(address: std::net::SocketAddr, method: &str, path: &str, body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(format!("{request}{body}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_can_be_switched_over_http() {
    let (emulator, _) = emulator("openbmc").await;
    let (control, task) = serve_control(emulator.handle().clone(), ([127, 0, 0, 1], 0).into()).await.unwrap();
    for wrong in Misbehaviour::ALL {
        let path = format!("/misbehaviours/{}", wrong.name());
        let (status, state) = ask(control, "PUT", &path, r#"{"on":true}"#).await;
        assert_eq!((status, &state["misbehaviours"][0]), (200, &Value::from(wrong.name())), "{wrong:?}");
        let (_, state) = ask(control, "PUT", &path, r#"{"on":false}"#).await;
        assert_eq!(state["misbehaviours"], Value::Array(Vec::new()), "{wrong:?}");
    }
    assert_eq!(ask(control, "PUT", "/misbehaviours/none", "").await.0, 404);
    let (_, state) = ask(control, "POST", "/host/faults", r#""Button""#).await;
    assert_eq!((&state["power"], &state["hard_cuts"]), (&Value::from("off"), &Value::from(1)));
    assert_eq!(ask(control, "POST", "/host/faults", r#""Nonsense""#).await.0, 400);
    assert_eq!(ask(control, "POST", "/bmc/faults", r#"{"ShowsIdentity":0}"#).await.0, 200);
    assert_eq!(ask(control, "POST", "/bmc/faults", r#""Dead""#).await.0, 200);
    assert!(ipmi(&emulator).await.is_err(), "dead");
    assert_eq!(ask(control, "POST", "/behave", "").await.0, 200);
    ipmi(&emulator).await.unwrap().close().await;
    let foreign = serve_control(emulator.handle().clone(), ([0, 0, 0, 0], 0).into()).await;
    assert!(foreign.is_err(), "loopback only");
    task.abort();
}
