//! The outlets of hosts as steps reach them: all feeds of a host or none, and what is read counts, not what was accepted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bmc::Secret;
use bmc::redfish::{Facts, MemoryKeeper, Trust};
use bmc_emulator::{Certificate, Emulator, Pdu, PduMisbehaviour, PduSetup, Setup, by_name};
use healing::command::{Call, Reply};
use healing::id::HostId;
use healing::signal::BmcTrouble;
use machine::{AcRestore, Machine, Power};
use rackmedic::act::bmcs::Way;
use rackmedic::act::outlets::Outlets;
use std::sync::Arc;

const FIRST: HostId = HostId(1);
const SECOND: HostId = HostId(2);

struct Site {
    hosts: [Emulator; 2],
    pdu: Pdu,
    outlets: Outlets,
}

impl Site {
    /// Two hosts: one on the first outlet, one on the second and third.
    async fn new() -> Site {
        let certificate = Certificate::make().unwrap();
        let mut setup = Setup::of(by_name("supermicro_x12").unwrap());
        setup.spec.ac_restore = AcRestore::LastState;
        let hosts = [
            Emulator::start(setup.clone(), &certificate).await.unwrap(),
            Emulator::start(setup, &certificate).await.unwrap(),
        ];
        let feeds = PduSetup::feeding(&[hosts[0].handle(), hosts[1].handle(), hosts[1].handle()]);
        let pdu = Pdu::start(feeds, &certificate).await.unwrap();
        let way = Way {
            endpoint: format!("redfish://admin@{}", pdu.address()).parse().unwrap(),
            password: Secret::new(b"secret-of-a-pdu".to_vec()),
            trust: Some(Trust::Pin(certificate.fingerprint())),
            keeper: Arc::new(MemoryKeeper::default()),
            system: None,
            facts: Facts::default(),
        };
        let outlets = Outlets::default();
        let link = |number: u32| format!("/redfish/v1/PowerEquipment/RackPDUs/1/Outlets/OUTLET{number}");
        outlets.set(FIRST, way.clone(), vec![link(1)]);
        outlets.set(SECOND, way, vec![link(2), link(3)]);
        Site { hosts, pdu, outlets }
    }

    fn power(&self, host: usize) -> Power {
        self.hosts[host].handle().machine(Machine::power)
    }

    async fn call(&self, host: HostId, call: Call) -> Option<Reply> {
        self.outlets.call(host, call, &|| true).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_feeds_of_a_host_are_switched_and_nobody_elses() {
    let site = Site::new().await;
    assert_eq!(site.call(SECOND, Call::ReadOutlets).await, Some(Reply::Flag(false)));
    assert_eq!(site.call(SECOND, Call::OutletsOff).await, Some(Reply::Ok));
    assert_eq!(site.call(SECOND, Call::ReadOutlets).await, Some(Reply::Flag(true)));
    assert_eq!((site.power(0), site.power(1)), (Power::On, Power::Off));
    assert_eq!(site.call(SECOND, Call::OutletsOn).await, Some(Reply::Ok));
    assert_eq!(site.call(SECOND, Call::ReadOutlets).await, Some(Reply::Flag(false)));
    // A host without outlets has no second proof, and one whose right is withdrawn is left as it is.
    assert_eq!(site.call(HostId(9), Call::ReadOutlets).await, Some(Reply::BmcTrouble(BmcTrouble::Silent)));
    assert_eq!(site.outlets.call(FIRST, Call::OutletsOff, &|| false).await, None);
    assert_eq!(site.power(0), Power::On);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_sticks_is_read_as_what_it_is() {
    let site = Site::new().await;
    site.pdu.handle().set(PduMisbehaviour::SaysOff, true);
    assert_eq!(site.call(FIRST, Call::OutletsOff).await, Some(Reply::Ok));
    assert_eq!(site.call(FIRST, Call::ReadOutlets).await, Some(Reply::Flag(false)), "watts flow: that is not off");
    assert_eq!(site.power(0), Power::On);
}
