//! The client at resources recorded from real BMCs: a PowerEdge R750, a ProLiant DL385 Gen10 Plus v2, a ThinkSystem SR670 V2.
//! The recordings are not part of this repository: `RACKMEDIC_REDFISH_TREES` names the folder that holds `dell`, `hpe` and
//! `lenovo`. Not all that the resources link to was recorded.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use bmc::boot::{BootLasts, BootMode, BootStage};
use bmc::controller::ALWAYS;
use bmc::health::{Sensor, SensorKind};
use bmc::redfish::{Credential, Facts, Fingerprint, NoKeeper, Options, Patience, Redfish, Trust};
use bmc::{Power, PowerCommand, Secret};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";

/// Where one make's recording is; says so if it is not there.
fn recording(make: &str) -> Option<PathBuf> {
    let Some(trees) = std::env::var_os("RACKMEDIC_REDFISH_TREES") else {
        eprintln!("not run: RACKMEDIC_REDFISH_TREES names no folder with recorded Redfish trees");
        return None;
    };
    let folder = PathBuf::from(trees).join(make);
    if !folder.is_dir() {
        eprintln!("not run: there is no folder {}", folder.display());
        return None;
    }
    Some(folder)
}

/// A server of files. What is written to it is noted, accepted, and changes nothing.
struct Recorded {
    address: SocketAddr,
    fingerprint: Fingerprint,
    written: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Recorded {
    async fn serve(folder: PathBuf) -> Recorded {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let fingerprint = Fingerprint(Sha256::digest(certificate.as_ref()).into());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let written = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&written);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, folder, noted) = (acceptor.clone(), folder.clone(), Arc::clone(&noted));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(|request| {
                        let (folder, noted) = (folder.clone(), Arc::clone(&noted));
                        async move { Ok::<_, Infallible>(answer(&folder, &noted, request).await) }
                    });
                    let stream = TokioIo::new(stream);
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await;
                });
            }
        });
        Recorded { address, fingerprint, written }
    }

    fn client(&self) -> Redfish {
        let options = Options {
            trust: Trust::Pin(self.fingerprint),
            patience: Patience { connect: Duration::from_secs(3), answer: Duration::from_secs(5) },
            system: None,
            keep_alive: false,
            keeper: Arc::new(NoKeeper),
            facts: Facts::default(),
        };
        let credential = Credential { user: "root".to_owned(), password: Secret::new(b"any".to_vec()) };
        Redfish::new(self.address, "127.0.0.1", credential, options).unwrap()
    }

    /// The reset types asked for so far, with where.
    fn resets(&self) -> Vec<(String, String)> {
        let written = self.written.lock().unwrap();
        let reset = |(path, body): &(String, Value)| Some((path.clone(), body.get("ResetType")?.as_str()?.to_owned()));
        written.iter().filter_map(reset).collect()
    }
}

async fn answer(
    folder: &Path,
    noted: &Mutex<Vec<(String, Value)>>,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let path = request.uri().path().trim_end_matches('/').to_owned();
    let plain = |status: u16, body: &[u8]| {
        let response = Response::builder().status(status).header("content-type", "application/json");
        response.body(Full::new(Bytes::copy_from_slice(body))).unwrap()
    };
    match *request.method() {
        Method::GET => {
            let clean = path.split('/').all(|part| part != "..");
            match std::fs::read(folder.join(path.trim_start_matches('/')).join("index.json")) {
                Ok(body) if clean => plain(200, &body),
                _ => plain(404, br#"{"error":{"code":"Base.1.8.ResourceMissingAtURI","message":"not recorded"}}"#),
            }
        }
        Method::POST if path == SESSIONS => Response::builder()
            .status(201)
            .header("x-auth-token", "0123456789abcdef")
            .header("location", format!("{SESSIONS}/1"))
            .body(Full::default())
            .unwrap(),
        _ => {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            noted.lock().unwrap().push((path, serde_json::from_slice(&body).unwrap_or_default()));
            Response::builder().status(204).body(Full::default()).unwrap()
        }
    }
}

/// What is known of a recording.
struct Known {
    make: &'static str,
    uuid: u128,
    serial: &'static str,
    vendor: &'static str,
    model: &'static str,
    system: &'static str,
    sensors_least: usize,
    temperature: (&'static str, f64),
    log_least: usize,
    drive: &'static str,
    stage: BootStage,
}

fn uuid(text: &str) -> u128 {
    u128::from_str_radix(&text.replace('-', ""), 16).unwrap()
}

async fn every_verb(known: Known) {
    let make = known.make;
    let Some(folder) = recording(make) else { return };
    let recorded = Recorded::serve(folder).await;
    let mut client = recorded.client();
    let identity = client.identify().await.unwrap();
    assert_eq!(identity.uuid, Some(known.uuid.to_be_bytes()), "{make}");
    assert_eq!(identity.serial.as_deref(), Some(known.serial), "{make}");
    assert_eq!(identity.vendor.as_deref(), Some(known.vendor), "{make}");
    assert_eq!(identity.model.as_deref(), Some(known.model), "{make}");
    assert!(identity.firmware.is_some() && identity.bios.is_some(), "{make}: {identity:?}");

    let readings = client.readings().await.unwrap();
    assert_eq!((readings.main.power, readings.main.identity), (Power::On, identity.uuid), "{make}");
    assert!(readings.beside.is_none(), "{make}: the chassis is asked about an off only");
    assert_eq!(client.boot_stage().await.unwrap(), known.stage, "{make}");
    let boot = client.boot_override().await.unwrap();
    assert_eq!((boot.lasts, boot.mode), (BootLasts::Disabled, Some(BootMode::Uefi)), "{make}: {boot:?}");

    let sensors = client.sensors().await.unwrap();
    assert!(sensors.len() >= known.sensors_least, "{make}: {} sensors", sensors.len());
    let of = |kind: SensorKind| sensors.iter().filter(|sensor| sensor.kind == kind).collect::<Vec<&Sensor>>();
    for kind in [SensorKind::Temperature, SensorKind::Fan] {
        assert!(of(kind).iter().any(|sensor| sensor.value.is_some()), "{make}: {kind:?}");
    }
    let (name, value) = known.temperature;
    assert!(sensors.iter().any(|sensor| sensor.name == name && sensor.value == Some(value)), "{make}: {sensors:?}");

    let log = client.event_log(1_000).await.unwrap();
    assert!(log.len() >= known.log_least, "{make}: {} entries", log.len());
    assert!(log.is_sorted_by_key(|entry| entry.at_unix_s), "{make}");
    assert!(log.iter().all(|entry| !entry.text.is_empty()), "{make}: {log:?}");
    assert!(client.event_log(1).await.unwrap().len() <= 1, "{make}");

    let media = client.media().await.unwrap();
    assert_eq!((media.drive.as_str(), media.inserted), (known.drive, false), "{make}");

    // Each is among the offered ones, is sent to the right place once, and none of them is believed.
    for command in [PowerCommand::Off, PowerCommand::On, PowerCommand::GracefulOff, PowerCommand::Interrupt] {
        client.power(command, ALWAYS).await.unwrap();
        assert_eq!(client.readings().await.unwrap().main.power, Power::On, "{make}: {command:?}");
    }
    let target = format!("{}/Actions/ComputerSystem.Reset", known.system);
    let wanted = ["ForceOff", "On", "GracefulShutdown", "Nmi"].map(|word| (target.clone(), word.to_owned()));
    assert_eq!(recorded.resets(), wanted, "{make}");
    client.close().await;
}

#[tokio::test]
async fn a_poweredge_r750() {
    every_verb(Known {
        make: "dell",
        uuid: uuid("4c4c4544-0035-3410-8050-c6c04f314733"),
        serial: "CNIVC0014M0388",
        vendor: "Dell",
        model: "PowerEdge R750",
        system: "/redfish/v1/Systems/System.Embedded.1",
        sensors_least: 60,
        temperature: ("System Board Inlet Temp", 25.0),
        log_least: 5,
        drive: "/redfish/v1/Systems/System.Embedded.1/VirtualMedia/1",
        stage: BootStage::Unknown,
    })
    .await;
}

#[tokio::test]
async fn a_proliant_dl385() {
    every_verb(Known {
        make: "hpe",
        uuid: uuid("34383350-3131-584d-5133-303230393953"),
        serial: "MXQ302099S",
        vendor: "HPE",
        model: "ProLiant DL385 Gen10 Plus v2",
        system: "/redfish/v1/Systems/1",
        sensors_least: 50,
        temperature: ("01-Inlet Ambient", 20.0),
        log_least: 5,
        drive: "/redfish/v1/Managers/1/VirtualMedia/2",
        stage: BootStage::Unknown,
    })
    .await;
}

#[tokio::test]
async fn a_thinksystem_sr670() {
    every_verb(Known {
        make: "lenovo",
        uuid: uuid("6173ecec-6ef5-11ee-834a-0a8fc3a58a71"),
        serial: "J105958B",
        vendor: "Lenovo",
        model: "ThinkSystem SR670 V2",
        system: "/redfish/v1/Systems/1",
        sensors_least: 40,
        temperature: ("Ambient Temp", 19.0),
        log_least: 5,
        drive: "/redfish/v1/Systems/1/VirtualMedia/EXT1",
        stage: BootStage::Unknown,
    })
    .await;
}
