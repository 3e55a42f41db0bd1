//! Our own client against each make: every verb, and what each make is particular about.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bmc::boot::{BootDevice, BootLasts, BootMode};
use bmc::controller::ALWAYS;
use bmc::redfish::{Credential, EtagUse, Facts, NoKeeper, Options, Patience, Redfish, Trust};
use bmc::{Power, PowerCommand, Rotation, Secret};
use bmc_emulator::{Certificate, Emulator, Setup, by_name};
use std::sync::Arc;
use std::time::{Duration, Instant};

const MODELS: [&str; 6] = ["dell_r750", "hpe_dl385", "lenovo_sr670", "supermicro_x12", "ami_megarac", "openbmc"];

fn client(emulator: &Emulator, certificate: &Certificate, password: &str) -> Redfish {
    let options = Options {
        trust: Trust::Pin(certificate.fingerprint()),
        patience: Patience { connect: Duration::from_secs(3), answer: Duration::from_secs(5) },
        system: None,
        keep_alive: false,
        keeper: Arc::new(NoKeeper),
        facts: Facts::default(),
    };
    let credential = Credential { user: "admin".to_owned(), password: Secret::new(password.as_bytes().to_vec()) };
    Redfish::new(emulator.redfish(), "127.0.0.1", credential, options).unwrap()
}

async fn until(client: &mut Redfish, power: Power) {
    let begun = Instant::now();
    while client.readings().await.unwrap().main.power != power {
        assert!(begun.elapsed() < Duration::from_secs(10), "never {power:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_verb_at_every_make() {
    for model in MODELS {
        let certificate = Certificate::make().unwrap();
        let emulator = Emulator::start(Setup::of(by_name(model).unwrap()), &certificate).await.unwrap();
        let mut client = client(&emulator, &certificate, "secret-of-a-bmc");
        let identity = client.identify().await.unwrap();
        assert_eq!(identity.uuid, Some(0x1111_2222_3333_4444_5555_6666_7777_8888u128.to_be_bytes()), "{model}");
        client.power(PowerCommand::Off, ALWAYS).await.unwrap();
        until(&mut client, Power::Off).await;
        // Off of what is off: accepted or refused, it reads off.
        let again = client.power(PowerCommand::Off, ALWAYS).await;
        assert_eq!(again.is_err(), matches!(model, "dell_r750" | "hpe_dl385"), "{model}: {again:?}");
        let seen = client.readings().await.unwrap();
        assert_eq!((seen.main.power, seen.beside.unwrap().power), (Power::Off, Power::Off), "{model}");

        let set = client.set_boot_once(&BootDevice::Pxe, BootMode::Uefi, ALWAYS).await.unwrap();
        assert_eq!((set.device, set.lasts), (Some(BootDevice::Pxe), BootLasts::Once), "{model}");
        assert_eq!(set.mode, Some(bmc::boot::BootMode::Uefi), "{model}");
        assert_eq!(emulator.handle().boot(), ("Pxe".to_owned(), "Once".to_owned()), "{model}");
        let cleared = client.clear_boot().await.unwrap();
        assert_eq!(cleared.lasts, BootLasts::Disabled, "{model}");

        let media = client.insert_media("http://192.0.2.1/a.iso").await.unwrap();
        assert!(media.inserted, "{model}");
        // Another one: what is in is ejected first.
        client.insert_media("http://192.0.2.1/b.iso").await.unwrap();
        assert_eq!(emulator.handle().media().as_deref(), Some("http://192.0.2.1/b.iso"), "{model}");
        let cd = client.set_boot_once(&BootDevice::Cd, BootMode::Uefi, ALWAYS).await.unwrap();
        assert_eq!(cd.word, if model == "supermicro_x12" { "UsbCd" } else { "Cd" }, "{model}");
        client.eject_media().await.unwrap();
        assert_eq!(emulator.handle().media(), None, "{model}");

        client.power(PowerCommand::On, ALWAYS).await.unwrap();
        until(&mut client, Power::On).await;
        let log = client.event_log(100).await.unwrap();
        assert!(log.iter().any(|entry| entry.text.contains("powered off")), "{model}: {log:?}");
        let sensors = client.sensors().await.unwrap();
        assert!(sensors.iter().any(|sensor| sensor.name == "CPU1 Temp" && sensor.value.is_some()), "{model}");
        assert!(!sensors.iter().any(|sensor| sensor.name == "CPU2 Temp"), "{model}: an absent one is none");
        client.boot_stage().await.unwrap();
        let wanted = match model {
            "lenovo_sr670" | "ami_megarac" => EtagUse::Fresh,
            _ => EtagUse::None,
        };
        assert_eq!(client.facts().etag, wanted, "{model}");
        assert_eq!(emulator.handle().sessions_open(), 1, "{model}");
        let counted = emulator.handle().counted();
        assert_eq!((counted.offs, counted.ons, counted.restarts), (2, 1, 0), "{model}");
        assert_eq!(counted.overlap_most, 1, "{model}: one request in flight");
        client.close().await;
        assert_eq!(emulator.handle().sessions_open(), 0, "{model}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_boot_uses_the_override_up() {
    let certificate = Certificate::make().unwrap();
    let mut setup = Setup { off: true, ..Setup::of(by_name("dell_r750").unwrap()) };
    setup.spec.post_ms = (100, 200);
    setup.spec.network_boot_wait_ms = 100;
    setup.spec.kernel_ms = (100, 200);
    let emulator = Emulator::start(setup, &certificate).await.unwrap();
    let mut client = client(&emulator, &certificate, "secret-of-a-bmc");
    let device = BootDevice::Http { uri: Some("http://192.0.2.1/x.efi".to_owned()) };
    client.set_boot_once(&device, BootMode::Uefi, ALWAYS).await.unwrap();
    client.power(PowerCommand::On, ALWAYS).await.unwrap();
    until(&mut client, Power::On).await;
    let begun = Instant::now();
    while client.boot_override().await.unwrap().lasts != BootLasts::Disabled {
        assert!(begun.elapsed() < Duration::from_secs(10), "the boot did not use it up");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_changed_only_when_the_new_one_is_accepted() {
    for model in ["dell_r750", "lenovo_sr670"] {
        let certificate = Certificate::make().unwrap();
        let emulator = Emulator::start(Setup::of(by_name(model).unwrap()), &certificate).await.unwrap();
        let mut first = client(&emulator, &certificate, "secret-of-a-bmc");
        assert!(first.check_account().await.unwrap());
        let short = first.rotate_password(&Secret::new(b"short".to_vec())).await;
        assert!(matches!(short, Rotation::Unchanged { .. }), "{short:?}");
        assert!(first.check_account().await.unwrap(), "the old one still is");
        let done = first.rotate_password(&Secret::new(b"another-secret".to_vec())).await;
        assert!(matches!(done, Rotation::Done), "{model}: {done:?}");
        first.readings().await.unwrap();
        first.close().await;
        let mut old = client(&emulator, &certificate, "secret-of-a-bmc");
        assert!(!old.check_account().await.unwrap());
        let mut new = client(&emulator, &certificate, "another-secret");
        new.readings().await.unwrap();
        new.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_changed_over_ipmi_too() {
    use bmc::ipmi::client::Patience;
    use bmc::ipmi::rotate::rotate_password;
    let certificate = Certificate::make().unwrap();
    let emulator = Emulator::start(Setup::of(by_name("dell_r750").unwrap()), &certificate).await.unwrap();
    let secret = |text: &str| Secret::new(text.as_bytes().to_vec());
    let patience = Patience { retry: Duration::from_millis(500), tries: 3 };
    let (old, new) = (secret("secret-of-a-bmc"), secret("another-secret-of-20"));
    let long = rotate_password(emulator.ipmi(), "admin", &old, &secret("longer than twenty bytes"), patience).await;
    assert!(matches!(long, Rotation::Unchanged { .. }), "{long:?}");
    let done = rotate_password(emulator.ipmi(), "admin", &old, &new, patience).await;
    assert!(matches!(done, Rotation::Done), "{done:?}");
    let again = rotate_password(emulator.ipmi(), "admin", &old, &new, patience).await;
    assert!(matches!(again, Rotation::Unchanged { .. }), "{again:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_a_killed_process_left_goes_with_its_idle_time() {
    use bmc::ipmi::client::{Client, IpmiError, Patience};
    use bmc::ipmi::crypto::Suite;
    use bmc::ipmi::handshake::{Login, LoginError, Privilege};
    let certificate = Certificate::make().unwrap();
    let mut setup = Setup::of(by_name("dell_r750").unwrap());
    (setup.spec.bmc_sessions_max, setup.spec.bmc_session_idle_ms) = (1, 2_000);
    let emulator = Emulator::start(setup, &certificate).await.unwrap();
    let login = Login::new("admin".to_owned(), Secret::new(b"secret-of-a-bmc".to_vec()), Privilege::Operator).unwrap();
    let open = || Client::open(emulator.ipmi(), &login, &Suite::PREFERENCE, Patience::default());
    // Dropped without a word, as by a kill.
    drop(open().await.unwrap());
    let full = open().await;
    assert!(matches!(full, Err(IpmiError::Login { source: LoginError::NoSessions, .. })), "{full:?}");
    tokio::time::sleep(Duration::from_millis(2_200)).await;
    open().await.unwrap().close().await;
    open().await.unwrap().close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_whose_place_points_elsewhere_is_closed_at_the_bmc_all_the_same() {
    let certificate = Certificate::make().unwrap();
    let emulator = Emulator::start(Setup::of(by_name("dell_r750").unwrap()), &certificate).await.unwrap();
    emulator.handle().set(bmc_emulator::Misbehaviour::ForeignLocation, true);
    let mut client = client(&emulator, &certificate, "secret-of-a-bmc");
    client.readings().await.unwrap();
    assert_eq!(emulator.handle().sessions_open(), 1);
    client.close().await;
    assert_eq!(emulator.handle().sessions_open(), 0);
}
