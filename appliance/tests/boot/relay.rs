//! A relay of others that adds the Relay Agent Information option (RFC 3046): ISC's `dhcrelay -a`. What it added comes back to
//! it byte for byte, or it could not tell for whom the answer is.

use crate::host::Firmware;
use crate::network::{Beside, MAC, Network};
use crate::{place, store};

/// Every message of a capture with its kind and its relay information, as tcpdump reads them.
fn messages(capture: &str) -> Vec<(String, Option<String>)> {
    let mut all: Vec<(String, Option<String>)> = Vec::new();
    let mut lines = capture.lines().peekable();
    while let Some(line) = lines.next() {
        let line = line.trim();
        if let Some(kind) = line.strip_prefix("DHCP-Message") {
            all.push((kind.rsplit(' ').next().unwrap_or_default().to_owned(), None));
        }
        if line.starts_with("Agent-Information") {
            let mut whole = vec![line.to_owned()];
            while let Some(more) = lines.next_if(|more| more.contains("SubOption")) {
                whole.push(more.trim().to_owned());
            }
            all.last_mut().expect("behind its message").1 = Some(whole.join(" "));
        }
    }
    all
}

#[test]
fn what_a_real_relay_adds_about_itself_comes_back_to_it_byte_for_byte() {
    let Some(store) = store() else { return };
    let _place = place();
    let network = Network::make(Beside::Relay);
    let _appliance = network.serve(store, Firmware::Bios);
    let mut said = String::new();
    let capture = network.between_relay_and_us(|| said = network.dhclient_behind_the_relay(MAC));
    assert!(said.contains("bound to 10.78.0.50"), "{said}\n{capture}");
    let seen = messages(&capture);
    let of = |kind: &str| seen.iter().filter(|(name, _)| name == kind).collect::<Vec<_>>();
    let added = of("Discover").first().and_then(|(_, added)| added.clone()).unwrap_or_else(|| panic!("{capture}"));
    assert!(added.contains("Circuit-ID SubOption 1") && added.contains("br1"), "the relay adds its port: {added}");
    for kind in ["Discover", "Offer", "Request", "ACK"] {
        let all = of(kind);
        assert!(!all.is_empty(), "no {kind}:\n{capture}");
        for (_, information) in all {
            assert_eq!(information.as_deref(), Some(added.as_str()), "{kind}");
        }
    }
}
