//! Which answers a client takes, and where it goes then: as EDK2, iPXE and PXE 2.1 choose.

use super::answer::Answer;
use super::client::Client;
use crate::dhcp::request::BootClass;
use serde::Serialize;
use std::net::Ipv4Addr;

/// Where a client goes after it has an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "way", rename_all = "kebab-case")]
pub enum Way {
    /// It fetches a file by TFTP.
    Tftp {
        /// From where.
        server: Ipv4Addr,
        /// Which.
        file: String,
    },
    /// It fetches an URL.
    Http {
        /// Which.
        url: String,
    },
    /// It asks a boot server on port 4011.
    BootServer {
        /// Which.
        server: Ipv4Addr,
    },
}

/// What a client makes of its answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Choice {
    /// The answer whose address it takes, counted from 0.
    pub lease: Option<usize>,
    /// The answer that tells it what to boot.
    pub boot: Option<usize>,
    /// Where it goes then; `None`: it does not boot.
    pub way: Option<Way>,
}

/// What this client makes of these answers, which stand in the order in which they came.
#[must_use]
pub fn choose(client: Client, answers: &[Answer]) -> Choice {
    let (lease, boot) = match client {
        Client::Plain => (first(answers, leases), None),
        Client::X64Http | Client::Arm64Http => http(answers),
        Client::X64Pxe | Client::Arm64Pxe => edk2(answers),
        Client::BiosPxe | Client::Ipxe => ipxe(answers),
    };
    let way = lease.and(boot).and_then(|boot| answers.get(boot)).and_then(way);
    Choice { lease, boot, way }
}

fn leases(answer: &Answer) -> bool {
    answer.address.is_some()
}

fn first(answers: &[Answer], fits: impl Fn(&Answer) -> bool) -> Option<usize> {
    answers.iter().position(fits)
}

/// What one answer says to do. On PXE an answer that says `PXEClient` without a file means: ask on port 4011.
#[must_use]
pub fn way(answer: &Answer) -> Option<Way> {
    let server = answer.next_server.unwrap_or(answer.who());
    match &answer.file {
        Some(url) if url.starts_with("http://") || url.starts_with("https://") => Some(Way::Http { url: url.clone() }),
        Some(file) if answer.class != Some(BootClass::Http) => Some(Way::Tftp { server, file: file.clone() }),
        None if answer.class == Some(BootClass::Pxe) => Some(Way::BootServer { server: answer.who() }),
        _ => None,
    }
}

/// EDK2's `HttpBootDxe`: a whole offer, else an address of one and the URI of another. Only offers that say `HTTPClient`
/// count (UEFI 2.5 section 23.7.2.3).
fn http(answers: &[Answer]) -> (Option<usize>, Option<usize>) {
    let boots = |answer: &Answer| answer.class == Some(BootClass::Http) && answer.file.is_some();
    let whole = first(answers, |answer| leases(answer) && boots(answer));
    if whole.is_some() {
        return (whole, whole);
    }
    (first(answers, leases), first(answers, boots))
}

/// EDK2's `PxeBcSelectDhcp4Offer`: offers are collected for some seconds and chosen by kind. Of two whole ones OVMF 2022.11
/// takes the one that came last, as captures of both orders show.
fn edk2(answers: &[Answer]) -> (Option<usize>, Option<usize>) {
    let pxe = |answer: &Answer| answer.class == Some(BootClass::Pxe);
    let whole = answers.iter().rposition(|a| leases(a) && pxe(a) && (a.vendor || a.file.is_some()));
    if whole.is_some() {
        return (whole, whole);
    }
    let plain = first(answers, |a| leases(a) && !pxe(a));
    let proxy = first(answers, |a| !leases(a) && pxe(a) && a.vendor);
    if plain.is_some() && proxy.is_some() {
        return (plain, proxy);
    }
    // An offer with an address that only says PXEClient sends the client to port 4011 of its sender, before a proxy without
    // option 43 is looked at.
    let stray = first(answers, |a| leases(a) && pxe(a));
    if stray.is_some() {
        return (stray, stray);
    }
    let asks = first(answers, |a| !leases(a) && pxe(a));
    if plain.is_some() && asks.is_some() {
        return (plain, asks);
    }
    let filed = first(answers, |a| leases(a) && a.file.is_some());
    (filed.or(plain), filed)
}

/// iPXE's `dhcp_discovery_rx`: it goes on as soon as it has an address and an answer that says `PXEClient`, which one whole
/// offer is already; of two that came before, the one of higher priority counts, of two equals the later one.
fn ipxe(answers: &[Answer]) -> (Option<usize>, Option<usize>) {
    let (mut lease, mut proxy) = (None::<usize>, None::<usize>);
    let priority = |index: Option<usize>| index.and_then(|index| answers.get(index)).map_or(0, |a| a.ipxe_priority);
    for (index, answer) in answers.iter().enumerate() {
        if leases(answer) && answer.ipxe_priority >= priority(lease) {
            lease = Some(index);
        }
        if answer.class == Some(BootClass::Pxe) && answer.ipxe_priority >= priority(proxy) {
            proxy = Some(index);
        }
        let alone = lease.and_then(|lease| answers.get(lease)).is_some_and(|answer| answer.ipxe_no_proxy);
        if lease.is_some() && (alone || proxy.is_some()) {
            break;
        }
    }
    let filed = lease.filter(|lease| answers.get(*lease).is_some_and(|answer| answer.file.is_some()));
    (lease, proxy.or(filed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mac::Mac;

    const THEIRS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
    const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    fn answer(from: Ipv4Addr) -> Answer {
        Answer {
            from_mac: Mac([2, 0, 0, 0, 0, from.octets()[3]]),
            from,
            server: Some(from),
            relay: None,
            address: None,
            next_server: Some(from),
            class: None,
            vendor: false,
            file: None,
            mtu: None,
            ipxe_priority: 0,
            ipxe_no_proxy: false,
            after_ms: 1,
        }
    }

    fn lease() -> Answer {
        Answer { address: Some(Ipv4Addr::new(10, 0, 0, 9)), next_server: None, ..answer(THEIRS) }
    }

    fn proxy() -> Answer {
        Answer { class: Some(BootClass::Pxe), vendor: true, file: Some("a.efi".to_owned()), ..answer(OURS) }
    }

    fn ours() -> Option<Way> {
        Some(Way::Tftp { server: OURS, file: "a.efi".to_owned() })
    }

    #[test]
    fn uefi_takes_a_proxy_beside_a_plain_server_in_either_order() {
        for answers in [[lease(), proxy()], [proxy(), lease()]] {
            assert_eq!(choose(Client::X64Pxe, &answers).way, ours());
            assert_eq!(choose(Client::BiosPxe, &answers).way, ours());
        }
    }

    #[test]
    fn a_stray_option_60_draws_uefi_to_the_port_4011_of_its_sender() {
        let stray = Answer { class: Some(BootClass::Pxe), ..lease() };
        let choice = choose(Client::X64Pxe, &[proxy(), stray.clone()]);
        assert_eq!(choice.way, Some(Way::BootServer { server: THEIRS }));
        // Unless somebody makes one whole offer.
        let whole = Answer { address: Some(Ipv4Addr::new(10, 0, 0, 50)), ..proxy() };
        assert_eq!(choose(Client::X64Pxe, &[stray, whole]).way, ours());
    }

    #[test]
    fn of_two_whole_offers_uefi_takes_the_last() {
        let foreign = Answer { class: Some(BootClass::Pxe), file: Some("x.0".to_owned()), ..lease() };
        let whole = Answer { address: Some(Ipv4Addr::new(10, 0, 0, 50)), ..proxy() };
        assert_eq!(choose(Client::X64Pxe, &[foreign.clone(), whole.clone()]).way, ours());
        assert_eq!(choose(Client::X64Pxe, &[whole, foreign]).boot, Some(1));
    }

    #[test]
    fn ipxe_goes_on_with_the_first_whole_offer_and_minds_priority_before_it() {
        let foreign = Answer { class: Some(BootClass::Pxe), file: Some("x.0".to_owned()), ..lease() };
        let preferred = Answer { ipxe_priority: 20, ..proxy() };
        assert_eq!(choose(Client::Ipxe, &[preferred.clone(), foreign.clone()]).way, ours());
        assert_ne!(choose(Client::Ipxe, &[proxy(), foreign.clone()]).way, ours());
        assert_ne!(choose(Client::Ipxe, &[foreign, preferred]).way, ours());
    }

    #[test]
    fn uefi_http_minds_only_who_says_so() {
        let url = "http://10.0.0.1/a.efi";
        let http = Answer { class: Some(BootClass::Http), file: Some(url.to_owned()), ..answer(OURS) };
        let foreign = Answer { class: Some(BootClass::Pxe), file: Some("x.0".to_owned()), ..lease() };
        let choice = choose(Client::X64Http, &[foreign.clone(), http]);
        assert_eq!((choice.lease, choice.way), (Some(0), Some(Way::Http { url: url.to_owned() })));
        assert_eq!(choose(Client::X64Http, &[foreign]).way, None);
    }
}
