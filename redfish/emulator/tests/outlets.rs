//! Our own client at a power distribution unit that feeds two emulated hosts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod support;

use bmc::controller::ALWAYS;
use bmc::redfish::{Credential, Facts, NoKeeper, Options, Patience, Redfish, Trust};
use bmc::{Power, PowerCommand, Secret};
use bmc_emulator::{Certificate, Emulator, Pdu, PduMisbehaviour, PduSetup, Setup, by_name};
use machine::AcRestore;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

struct Rack {
    certificate: Certificate,
    hosts: [Emulator; 2],
    pdu: Pdu,
}

impl Rack {
    /// Two hosts, each on the outlet of its number; the second on a third outlet too.
    async fn new() -> Rack {
        let certificate = Certificate::make().unwrap();
        let mut setup = Setup::of(by_name("supermicro_x12").unwrap());
        setup.spec.ac_restore = AcRestore::LastState;
        let first = Emulator::start(setup.clone(), &certificate).await.unwrap();
        let second = Emulator::start(setup, &certificate).await.unwrap();
        let pdu = PduSetup::feeding(&[first.handle(), second.handle(), second.handle()]);
        let pdu = Pdu::start(pdu, &certificate).await.unwrap();
        Rack { certificate, hosts: [first, second], pdu }
    }

    fn client(&self, address: SocketAddr, password: &str) -> Redfish {
        let options = Options {
            trust: Trust::Pin(self.certificate.fingerprint()),
            patience: Patience { connect: Duration::from_secs(3), answer: Duration::from_secs(5) },
            system: None,
            keep_alive: false,
            keeper: Arc::new(NoKeeper),
            facts: Facts::default(),
        };
        let credential = Credential { user: "admin".to_owned(), password: Secret::new(password.as_bytes().to_vec()) };
        Redfish::new(address, "127.0.0.1", credential, options).unwrap()
    }

    fn unit(&self) -> Redfish {
        self.client(self.pdu.address(), "secret-of-a-pdu")
    }

    fn power(&self, host: usize) -> machine::Power {
        self.hosts[host].handle().machine(machine::Machine::power)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outlet_takes_the_power_and_gives_it_back() {
    let rack = Rack::new().await;
    let mut unit = rack.unit();
    let outlets = unit.outlets().await.unwrap();
    assert_eq!(outlets.len(), 3);
    let on = unit.outlet(&outlets[0]).await.unwrap();
    assert_eq!((on.reading.power, on.name.as_str(), on.watts), (Power::On, "Outlet 1", Some(240.0)));
    unit.switch_outlet(&outlets[0], false, ALWAYS).await.unwrap();
    let off = unit.outlet(&outlets[0]).await.unwrap();
    assert_eq!((off.reading.power, off.watts), (Power::Off, Some(0.0)));
    assert_eq!((rack.power(0), rack.power(1)), (machine::Power::Off, machine::Power::On));
    // The BMC has a feed of its own and says why the host is off; switching it on there is of no use.
    let mut bmc = rack.client(rack.hosts[0].redfish(), "secret-of-a-bmc");
    assert_eq!(bmc.readings().await.unwrap().main.power, Power::Off);
    let _ = bmc.power(PowerCommand::On, ALWAYS).await;
    assert_eq!(rack.power(0), machine::Power::Off);
    unit.switch_outlet(&outlets[0], true, ALWAYS).await.unwrap();
    assert_eq!(rack.power(0), machine::Power::On, "it was on before");
    assert_eq!(unit.outlet(&outlets[0]).await.unwrap().reading.power, Power::On);
    bmc.close().await;
    unit.close().await;
    assert_eq!((rack.pdu.handle().switched(), rack.pdu.handle().sessions_open()), (2, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_on_two_outlets_dies_with_the_second() {
    let rack = Rack::new().await;
    let mut unit = rack.unit();
    let outlets = unit.outlets().await.unwrap();
    assert_eq!(unit.outlet(&outlets[1]).await.unwrap().watts, Some(120.0));
    unit.switch_outlet(&outlets[1], false, ALWAYS).await.unwrap();
    assert_eq!(rack.power(1), machine::Power::On);
    assert_eq!(unit.outlet(&outlets[2]).await.unwrap().watts, Some(240.0), "all through the other one");
    unit.switch_outlet(&outlets[2], false, ALWAYS).await.unwrap();
    assert_eq!(rack.power(1), machine::Power::Off);
    unit.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_lie_of_an_outlet_reads_off_while_the_host_runs() {
    for wrong in [PduMisbehaviour::SaysOff, PduMisbehaviour::IgnoresCommands, PduMisbehaviour::WrongOutlet] {
        let rack = Rack::new().await;
        let mut unit = rack.unit();
        let outlets = unit.outlets().await.unwrap();
        rack.pdu.handle().set(wrong, true);
        unit.switch_outlet(&outlets[0], false, ALWAYS).await.unwrap();
        let read = unit.outlet(&outlets[0]).await.unwrap();
        assert_eq!(rack.power(0), machine::Power::On, "{wrong:?}");
        let wanted = if wrong == PduMisbehaviour::SaysOff { Power::Unknown } else { Power::On };
        assert_eq!((read.reading.power, read.watts), (wanted, Some(240.0)), "{wrong:?}");
        assert_eq!(rack.pdu.handle().is_closed(2), wrong != PduMisbehaviour::WrongOutlet, "{wrong:?}");
        rack.pdu.handle().set(wrong, false);
        unit.switch_outlet(&outlets[0], false, ALWAYS).await.unwrap();
        assert_eq!(rack.power(0), machine::Power::Off, "{wrong:?}");
        unit.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_switches_nothing_and_a_basic_one_reads() {
    let rack = Rack::new().await;
    assert!(rack.client(rack.pdu.address(), "wrong").outlets().await.is_err());
    assert_eq!(rack.pdu.handle().switched(), 0);
    if support::missing("curl") {
        return;
    }
    let url = format!("https://{}/redfish/v1/PowerEquipment/RackPDUs/1/Outlets/OUTLET3", rack.pdu.address());
    let done = support::run("curl", &["-ks", "-u", "admin:secret-of-a-pdu", &url]).await;
    assert!(support::text(&done).contains("\"PowerState\":\"On\""), "{}", support::text(&done));
    let done = support::run("curl", &["-ks", "-u", "admin:wrong", &url]).await;
    assert!(support::text(&done).contains("Log in first"), "{}", support::text(&done));
    // It is no BMC, and a BMC is no unit.
    assert!(rack.client(rack.hosts[0].redfish(), "secret-of-a-bmc").outlets().await.is_err());
}
