//! Many BMCs at once through stations and the poller: pace, slow and dead ones, fences, sessions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bmc::boot::{BootDevice, BootMode};
use bmc::controller::{ALWAYS, BmcError, Controller, Guard, Kind, Verb};
use bmc::ipmi::client::{Client, Patience as IpmiPatience};
use bmc::ipmi::crypto::Suite;
use bmc::ipmi::handshake::{Login, Privilege};
use bmc::poll::{Look, Pace, Poller};
use bmc::redfish::{Credential, Facts, MemoryKeeper, Options, Patience, Redfish, Trust};
use bmc::station::{Dial, Skipped, Station};
use bmc::{Power, PowerCommand, Secret};
use bmc_emulator::{Certificate, Emulator, Misbehaviour, Setup, by_name};
use machine::BmcFault;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

struct OverIpmi(SocketAddr, &'static str);

impl Dial for OverIpmi {
    fn open(&self) -> Verb<'_, Box<dyn Controller>> {
        Box::pin(async {
            let password = Secret::new(self.1.as_bytes().to_vec());
            let login = Login::new("admin".to_owned(), password, Privilege::Operator).unwrap();
            let patience = IpmiPatience { retry: Duration::from_millis(300), tries: 3 };
            let client = Client::open(self.0, &login, &Suite::PREFERENCE, patience).await?;
            Ok(Box::new(client) as Box<dyn Controller>)
        })
    }
}

struct OverRedfish(SocketAddr, Trust, Arc<MemoryKeeper>);

impl Dial for OverRedfish {
    fn open(&self) -> Verb<'_, Box<dyn Controller>> {
        Box::pin(async {
            let options = Options {
                trust: self.1.clone(),
                patience: Patience { connect: Duration::from_secs(3), answer: Duration::from_secs(40) },
                system: None,
                keep_alive: false,
                keeper: self.2.clone(),
                facts: Facts::default(),
            };
            let password = Secret::new(b"secret-of-a-bmc".to_vec());
            let credential = Credential { user: "admin".to_owned(), password };
            Ok(Box::new(Redfish::new(self.0, "127.0.0.1", credential, options)?) as Box<dyn Controller>)
        })
    }
}

async fn emulator(certificate: &Certificate) -> Emulator {
    Emulator::start(Setup::of(by_name("openbmc").unwrap()), certificate).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_or_dead_one_delays_nobody() {
    let certificate = Certificate::make().unwrap();
    let mut emulators = Vec::new();
    for _ in 0..20 {
        emulators.push(emulator(&certificate).await);
    }
    emulators[3].handle().inject_bmc(BmcFault::Dead);
    emulators[7].handle().set(Misbehaviour::ThirtySecondsLate, true);
    let stations: Vec<Arc<Station>> = emulators
        .iter()
        .enumerate()
        .map(|(place, emulator)| {
            let dial: Box<dyn Dial> = if place % 2 == 0 {
                Box::new(OverIpmi(emulator.ipmi(), "secret-of-a-bmc"))
            } else {
                let trust = Trust::Pin(certificate.fingerprint());
                Box::new(OverRedfish(emulator.redfish(), trust, Arc::default()))
            };
            Arc::new(Station::new(dial))
        })
        .collect();
    let pace = Pace { healthy: Duration::from_secs(1), suspect: Duration::from_millis(200), ..Pace::default() };
    let poller = Arc::new(Poller::new(stations.clone(), pace));
    let looks: Arc<Mutex<Vec<(usize, Instant, bool)>>> = Arc::default();
    let (noted, running) = (looks.clone(), poller.clone());
    let saw = Arc::new(move |look: Look| {
        let on = matches!(&look.result, Ok(seen) if seen.main.power == Power::On);
        noted.lock().unwrap().push((look.place, look.at, on));
    });
    let task = tokio::spawn(async move { running.run(saw).await });
    tokio::time::sleep(Duration::from_secs(4)).await;
    poller.suspect(5, true);
    tokio::time::sleep(Duration::from_secs(4)).await;
    task.abort();
    let looks = looks.lock().unwrap().clone();
    for place in (0..20).filter(|place| ![3, 7].contains(place)) {
        let own: Vec<Instant> = looks.iter().filter(|(p, _, on)| *p == place && *on).map(|(_, at, _)| *at).collect();
        let longest = own.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        assert!(longest < Duration::from_millis(1_400), "BMC {place} waited {longest:?}");
        let wanted = if place == 5 { 18 } else { 7 };
        assert!(own.len() >= wanted, "BMC {place} was looked at {} times", own.len());
    }
    assert!(!looks.iter().any(|(place, _, on)| [3, 7].contains(place) && *on));
    for (place, emulator) in emulators.iter().enumerate() {
        assert!(emulator.handle().counted().overlap_most <= 1, "BMC {place}: one request in flight");
        assert!(emulator.handle().sessions_open() <= 1, "BMC {place}");
    }
    for station in &stations {
        tokio::time::timeout(Duration::from_millis(300), station.hang_up()).await.ok();
    }
    let left: usize = emulators.iter().map(|emulator| emulator.handle().sessions_open()).sum();
    assert_eq!(left, 0, "sessions are given back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_takes_a_slow_poll_away_at_once() {
    let certificate = Certificate::make().unwrap();
    let emulator = emulator(&certificate).await;
    let trust = Trust::Pin(certificate.fingerprint());
    let station = Arc::new(Station::new(Box::new(OverRedfish(emulator.redfish(), trust, Arc::default()))));
    station.poll(|bmc| bmc.readings()).await.unwrap();
    emulator.handle().set(Misbehaviour::ThirtySecondsLate, true);
    let polling = station.clone();
    let poll = tokio::spawn(async move { polling.poll(|bmc| bmc.readings()).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    emulator.handle().set(Misbehaviour::ThirtySecondsLate, false);
    let begun = Instant::now();
    station.fence(true, Duration::from_secs(20), |bmc| bmc.power(PowerCommand::Off, ALWAYS)).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "the fence took {:?}", begun.elapsed());
    assert!(matches!(poll.await.unwrap(), Err(Skipped::Fence)));
    assert_eq!(emulator.handle().counted().offs, 1);
    // The next write keeps its distance.
    let again = Instant::now();
    station.fence(true, Duration::from_secs(20), |bmc| bmc.power(PowerCommand::On, ALWAYS)).await.unwrap();
    assert!(again.elapsed() >= Duration::from_millis(900), "the second write came after {:?}", again.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_waits_for_no_write_and_no_pause_of_others() {
    let certificate = Certificate::make().unwrap();
    let emulator = emulator(&certificate).await;
    let trust = Trust::Pin(certificate.fingerprint());
    let station = Arc::new(Station::new(Box::new(OverRedfish(emulator.redfish(), trust, Arc::default()))));
    station.poll(|bmc| bmc.readings()).await.unwrap();
    // A write that takes half a minute.
    emulator.handle().set(Misbehaviour::ThirtySecondsLate, true);
    let writing = station.clone();
    let write =
        tokio::spawn(async move { writing.write(Duration::from_secs(60), |bmc| bmc.event_log(10)).await.map(drop) });
    tokio::time::sleep(Duration::from_millis(300)).await;
    emulator.handle().set(Misbehaviour::ThirtySecondsLate, false);
    let begun = Instant::now();
    station.fence(false, Duration::from_secs(20), |bmc| bmc.readings()).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(1_500), "the fence took {:?}", begun.elapsed());
    assert!(matches!(write.await.unwrap(), Err(BmcError { kind: Kind::Unknown, .. })));
    // A write that waits for a BMC which asked for time.
    emulator.handle().set(Misbehaviour::Unavailable, true);
    let _ = station.poll(|bmc| bmc.readings()).await;
    let waiting = station.clone();
    let write = tokio::spawn(async move { waiting.write(Duration::from_secs(30), |bmc| bmc.readings()).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    emulator.handle().set(Misbehaviour::Unavailable, false);
    let begun = Instant::now();
    station.fence(false, Duration::from_secs(20), |bmc| bmc.readings()).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(4), "the fence took {:?}", begun.elapsed());
    write.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_that_ends_before_a_write_leaves_keeps_it_back() {
    let certificate = Certificate::make().unwrap();
    let limit = Duration::from_secs(20);
    for redfish in [false, true] {
        let emulator = emulator(&certificate).await;
        let (handle, trust) = (emulator.handle(), Trust::Pin(certificate.fingerprint()));
        let dial: Box<dyn Dial> = if redfish {
            Box::new(OverRedfish(emulator.redfish(), trust, Arc::default()))
        } else {
            Box::new(OverIpmi(emulator.ipmi(), "secret-of-a-bmc"))
        };
        let station = Station::new(dial);
        let boot = handle.boot();
        let read = AtomicU64::new(0);
        // Notes what was sent before it was asked, and says no.
        let ended: Guard<'_> = &|| {
            read.store(handle.counted().requests, Ordering::SeqCst);
            false
        };
        let off = station.fence(true, limit, |bmc| bmc.power(PowerCommand::Off, ended)).await;
        assert!(matches!(off, Err(BmcError { kind: Kind::Unreachable, .. })), "{off:?}");
        let first = read.load(Ordering::SeqCst);
        assert!(first > 0, "it is asked after the login and all reads");
        assert_eq!((handle.counted().requests, handle.counted().offs), (first, 0), "nothing is sent after it");
        let set = station.fence(true, limit, |bmc| bmc.set_boot_once(&BootDevice::Pxe, BootMode::Uefi, ended)).await;
        assert!(matches!(set, Err(BmcError { kind: Kind::Unreachable, .. })), "{set:?}");
        let second = read.load(Ordering::SeqCst);
        assert!(second > first, "it is asked after the reads of the boot settings");
        assert_eq!((handle.counted().requests, handle.boot()), (second, boot), "nothing is sent after it");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_tried_once() {
    let certificate = Certificate::make().unwrap();
    let emulator = emulator(&certificate).await;
    let station = Station::new(Box::new(OverIpmi(emulator.ipmi(), "not-the-password")));
    let first = station.poll(|bmc| bmc.readings()).await;
    assert!(matches!(first, Err(Skipped::Failed(BmcError { kind: Kind::Credential, .. }))), "{first:?}");
    let credentials = emulator.handle().counted().credentials;
    for _ in 0..20 {
        assert!(matches!(station.poll(|bmc| bmc.readings()).await, Err(Skipped::Hold(_))));
        let fence = station.fence(true, Duration::from_secs(2), |bmc| bmc.power(PowerCommand::Off, ALWAYS)).await;
        assert!(matches!(fence, Err(BmcError { kind: Kind::Credential, .. })));
    }
    assert_eq!(emulator.handle().counted().credentials, credentials, "nothing more was sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_requests_need_one_session() {
    let certificate = Certificate::make().unwrap();
    let emulator = emulator(&certificate).await;
    let trust = Trust::Pin(certificate.fingerprint());
    let station = Station::new(Box::new(OverRedfish(emulator.redfish(), trust, Arc::default())));
    for round in 0..1_000 {
        station.poll(|bmc| bmc.readings()).await.unwrap();
        // Now and then the BMC forgets it, as they do.
        if round % 250 == 249 {
            emulator.handle().set(Misbehaviour::Reset, true);
            for _ in 0..2 {
                let _ = station.fence(false, Duration::from_secs(2), |bmc| bmc.readings()).await;
            }
            emulator.handle().set(Misbehaviour::Reset, false);
            station.fence(false, Duration::from_secs(5), |bmc| bmc.readings()).await.unwrap();
        }
    }
    let counted = emulator.handle().counted();
    assert_eq!((counted.sessions_opened, emulator.handle().sessions_open()), (1, 1));
    station.hang_up().await;
    assert_eq!(emulator.handle().sessions_open(), 0);
}
