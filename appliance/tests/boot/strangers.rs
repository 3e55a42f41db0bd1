//! Somebody on the boot network knows every secret that went over it in the clear: the token and the nonce. It helps nobody
//! but the host.

use crate::host::{Disk, Firmware, Host};
use crate::network::{Beside, MAC, Network};
use crate::{place, store};
use serde_json::json;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(240);

/// What an installer of this host would say, in another boot of it.
fn hello(job: &serde_json::Value) -> String {
    json!({
        "protocol": protocol::PROTOCOL_VERSION,
        "installer": "0",
        "job": job["name"],
        "nonce": job["nonce"],
        "mac": MAC,
        "boot": "00112233445566778899aabbccddeeff",
        "inventory": {
            "arch": "x86_64", "firmware": "bios", "secure_boot": null, "system_uuid": null, "system_serial": null,
            "product": null, "memory_bytes": 1, "processors": 1, "disks": [],
            "nics": [{ "kernel_name": "eth0", "mac": MAC, "link": true }],
        },
    })
    .to_string()
}

#[test]
fn token_and_nonce_help_no_neighbour_and_a_second_installer_stops_both() {
    let Some(store) = store() else { return };
    let _place = place();
    // Given a host whose installer has said hello, and a neighbour that has read along
    let network = Network::make(Beside::Nobody);
    let appliance = network.serve(store, Firmware::Bios);
    appliance.arm("job", "DISK1", &[]);
    let mut host = Host::start(&network, Firmware::Bios, store, &[Disk::empty("DISK1")]);
    let armed = network.job("job");
    let chunks = format!("http://10.77.0.1/t/{}/image/chunks", armed["token"].as_str().unwrap());
    appliance.wait_for_event(&host, "job", "hello", PATIENCE);

    // When it asks for the image, or says hello itself, under whatever name
    let forged = ["X-Forwarded-For: 10.77.0.50", "Forwarded: for=10.77.0.50", "X-Real-IP: 10.77.0.50"];
    for header in forged {
        assert_eq!(network.neighbour_asks(&chunks, &["--header", header]), "404", "{header}");
        let said = network.neighbour_says_hello(&hello(&armed), &["--header", header]);
        assert_eq!(said.0, "403", "{header}: {}", said.1);
    }
    // Then it gets nothing, and that is in the timeline
    let shown = appliance.show("job");
    assert!(shown["moments"].to_string().contains("\"refused\""), "{shown}");
    assert_ne!(shown["state"], "failed", "a stranger cannot end a job: {shown}");

    // When the host is gone and the neighbour takes its card's address and its IP address
    host.power_off();
    network.neighbour_becomes("10.77.0.50/24");
    let said = network.neighbour_says_hello(&hello(&armed), &[]);
    // Then neither is believed: either the job is over and says so, or it ends here
    let flight = appliance.show("job");
    match said.0.as_str() {
        "409" => assert_eq!(flight["failure"]["code"], "refused", "{flight}"),
        status => assert!(status == "403" && flight["state"] == "installed", "{said:?} {flight}"),
    }
    // And the token of a job that is over opens nothing
    if flight["state"] == "failed" {
        assert_eq!(network.neighbour_asks(&chunks, &[]), "404");
    }
}
