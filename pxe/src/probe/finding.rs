//! What is wrong on a link, in sentences: what was seen, what it does to hosts, what to do.

use super::choice::Way;
use super::client::Client;
use super::fetch::{Fetched, LARGE_FOR_TFTP_BYTES};
use super::run::{BootServer, Interface, Seen};
use crate::dhcp::request::BootClass;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// iPXE waits so long for a proxy after the first offer (`DHCP_DISC_PROXY_TIMEOUT_SEC`), milliseconds.
pub const SLOW_MS: u64 = 2000;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weight {
    /// Good to know.
    Note,
    /// Some hosts will not boot.
    Fault,
}

/// One thing that is wrong, or good to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its name, for scripts.
    pub name: &'static str,
    /// How bad.
    pub weight: Weight,
    /// Which clients meet it.
    pub clients: Vec<Client>,
    /// In words.
    pub sentence: String,
}

/// Everything that can be said of what was seen. `serves_here`: a DHCP server runs on this machine, and does not hear what
/// is sent from it.
#[must_use]
pub fn judge(interface: &Interface, seen: &[Seen], serves_here: bool) -> Vec<Finding> {
    let mut book = Book::default();
    for one in seen {
        servers(one, &mut book);
        boots(one, &mut book);
    }
    silence(seen, serves_here, &mut book);
    if serves_here {
        book.note(
            "server-on-this-machine",
            "a DHCP server runs on this machine; it does not hear what is asked from here: probe from another machine on the link to see it".to_owned(),
        );
    }
    if interface.address.is_none() && seen.iter().any(|one| one.choice.way.is_some()) {
        book.note(
            "no-own-address",
            format!(
                "{} has no IPv4 address, so port 4011 was not asked and no file was looked for: give it one and probe again",
                interface.name
            ),
        );
    }
    mtu(interface, seen, &mut book);
    book.findings()
}

#[derive(Default)]
struct Book(BTreeMap<(&'static str, String), (Weight, BTreeSet<Client>)>);

impl Book {
    fn add(&mut self, name: &'static str, weight: Weight, client: Option<Client>, sentence: String) {
        let entry = self.0.entry((name, sentence)).or_insert((weight, BTreeSet::new()));
        entry.1.extend(client);
    }

    fn fault(&mut self, name: &'static str, client: Client, sentence: String) {
        self.add(name, Weight::Fault, Some(client), sentence);
    }

    fn note(&mut self, name: &'static str, sentence: String) {
        self.add(name, Weight::Note, None, sentence);
    }

    /// The worst first.
    fn findings(self) -> Vec<Finding> {
        let finding = |((name, sentence), (weight, clients)): ((&'static str, String), (Weight, BTreeSet<Client>))| {
            Finding { name, weight, clients: clients.into_iter().collect(), sentence }
        };
        let mut findings: Vec<Finding> = self.0.into_iter().map(finding).collect();
        findings.sort_by(|a, b| b.weight.cmp(&a.weight).then(a.name.cmp(b.name)));
        findings
    }
}

fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(" and ")
}

/// Who gives addresses, and how fast.
fn servers(one: &Seen, book: &mut Book) {
    let giving: BTreeMap<Ipv4Addr, _> =
        one.answers.iter().filter(|answer| answer.address.is_some()).map(|answer| (answer.who(), answer)).collect();
    if giving.len() > 1 {
        let who = list(giving.values().map(|answer| format!("{} ({})", answer.who(), answer.from_mac)));
        book.fault(
            "rogue-server",
            one.client,
            format!(
                "{who} all give addresses here: a host takes whichever comes first and may end with an address, a router or a boot file of the wrong one. If they are no pair by design, find the one you do not know by its card's address in the switch and switch it off"
            ),
        );
    }
    for answer in one.answers.iter().filter(|answer| answer.after_ms > SLOW_MS) {
        book.fault(
            "slow-offer",
            one.client,
            format!(
                "{} takes more than two seconds to answer: iPXE stops waiting for a boot answer two seconds after the first offer, and firmware asks only a few times. Look for a ping check before each offer, a relay that waits (`secs`), a spanning tree that blocks the port, or a busy server",
                answer.who()
            ),
        );
    }
    for answer in &one.answers {
        let stray = answer.address.is_some() && answer.class == Some(BootClass::Pxe) && !answer.vendor;
        if stray && answer.file.is_none() {
            book.fault(
                "stray-option-60",
                one.client,
                format!(
                    "{} gives addresses and says `PXEClient` (option 60) without saying what to boot: UEFI hosts turn to its port 4011 and to nobody else. Take option 60 out of its configuration (a leftover of a deployment server that once ran there)",
                    answer.who()
                ),
            );
        }
    }
    // Several that name different things to boot.
    let mut naming = BTreeMap::<String, BTreeSet<Ipv4Addr>>::new();
    for answer in &one.answers {
        if let Some(file) = &answer.file {
            naming.entry(file.clone()).or_default().insert(answer.who());
        }
    }
    if naming.len() > 1 && naming.values().flatten().collect::<BTreeSet<_>>().len() > 1 {
        let takes = one.choice.boot.and_then(|boot| one.answers.get(boot));
        let takes = takes.map_or_else(String::new, |answer| format!("; this client takes that of {}", answer.who()));
        let named = list(naming.iter().map(|(file, who)| format!("{} names {}", list(who), shorten(file))));
        book.fault(
            "foreign-boot-file",
            one.client,
            format!(
                "two servers say what to boot: {named}{takes}. Take options 60, 66 and 67 out of the one that should only give addresses, at least for the hosts that are booted from the other"
            ),
        );
    }
}

/// Where this client ends.
fn boots(one: &Seen, book: &mut Book) {
    if let (Some(asked), Some(Way::BootServer { server })) = (&one.boot_server, &one.choice.way) {
        let lost = match asked {
            BootServer::Answered { answer } if answer.file.is_some() => None,
            BootServer::Answered { .. } => Some("answers on port 4011 without naming a file"),
            BootServer::Closed => Some("has its port 4011 closed"),
            BootServer::Silent => Some("says nothing on its port 4011"),
            BootServer::NotAsked { .. } => None,
        };
        if let Some(what) = lost {
            book.fault(
                "dead-port-4011",
                one.client,
                format!(
                    "{server} {what}, and this client is sent there by its offer: it waits some seconds and gives network boot up. Take option 60 out of that server's configuration, or start the boot server that belongs to it"
                ),
            );
        }
    }
    let Some(way) = &one.fetches else { return };
    let what = match way {
        Way::Tftp { server, file } => format!("{} by TFTP from {server}", shorten(file)),
        Way::Http { url } => shorten(url),
        Way::BootServer { .. } => return,
    };
    match &one.fetched {
        Some(Fetched::Refused { why }) => book.fault(
            "file-missing",
            one.client,
            format!("{what} is what this client is told to fetch, and the server refuses it: {why}. The host ends with a boot error. Put the file there, or correct the name in the offer"),
        ),
        Some(Fetched::Silent { why }) => book.fault(
            "next-server-unreachable",
            one.client,
            format!("{what} is what this client is told to fetch, and nobody answers there: {why}. The host waits, then gives up. Start that server, open the way to it (UDP 69 and high ports, TCP 80), or correct the next server in the offer"),
        ),
        Some(Fetched::LargeLost { block_bytes }) => book.fault(
            "large-packets-lost",
            one.client,
            format!("{what} begins, but a block of {block_bytes} bytes never comes while one of 512 does: something on the way has a smaller MTU and drops what is larger. Hosts that ask for large blocks hang at the first one. Give all switches and tunnels on the way the same MTU"),
        ),
        Some(Fetched::There { bytes: Some(bytes), .. })
            if matches!(way, Way::Tftp { .. }) && *bytes >= LARGE_FOR_TFTP_BYTES =>
        {
            book.fault(
                "large-for-tftp",
                one.client,
                format!("{what} has {bytes} bytes: block numbers of clients that ask for 512-byte blocks run out at 32 MiB, and some stop there. Give a small loader by TFTP and the rest by HTTP"),
            );
        }
        Some(Fetched::NotTried { why }) => {
            book.add("not-tried", Weight::Note, Some(one.client), format!("{what} was not looked for: {why}"));
        }
        Some(Fetched::There { .. }) | None => {}
    }
}

fn silence(seen: &[Seen], serves_here: bool, book: &mut Book) {
    if seen.is_empty() {
        return;
    }
    if seen.iter().all(|one| one.answers.is_empty()) {
        let sentence = "nobody answers any DISCOVER of this card: there is no DHCP server on this link, the relay of this network is not there, the switch port blocks (spanning tree, an access list, DHCP snooping, another VLAN), or the server only knows cards that are registered. Compare with --mac of a registered card";
        let (weight, client) = if serves_here { (Weight::Note, None) } else { (Weight::Fault, None) };
        book.add("no-offer", weight, client, sentence.to_owned());
        for one in seen {
            book.add("no-offer", weight, Some(one.client), sentence.to_owned());
        }
        return;
    }
    for one in seen {
        if one.answers.iter().all(|answer| answer.address.is_none()) {
            let sentence = if one.answers.is_empty() {
                "is not answered at all while others are: a server that decides by architecture or vendor class leaves it out, and such hosts cannot start here"
            } else {
                "is told what to boot, but nobody gives it an address: it cannot boot. Register the card, or start the DHCP server that belongs to this network"
            };
            book.fault("no-address", one.client, format!("this client {sentence}"));
        } else if one.client.class().is_some() && one.choice.boot.is_none() {
            book.add(
                "nothing-to-boot",
                Weight::Note,
                Some(one.client),
                "this client gets an address and nothing to boot: as it should be for a card without an open job. To see its boot, open one for the card (`rackmedic boot arm`) and probe with --mac".to_owned(),
            );
        }
    }
}

fn mtu(interface: &Interface, seen: &[Seen], book: &mut Book) {
    for one in seen {
        for answer in &one.answers {
            if let Some(mtu) = answer.mtu.filter(|mtu| *mtu != interface.mtu) {
                book.fault(
                    "mtu-differs",
                    one.client,
                    format!(
                        "{} tells hosts an MTU of {mtu}, while {} here has {}: large packets between machines of both kinds are lost and transfers hang. Give all of them the same",
                        answer.who(),
                        interface.name,
                        interface.mtu
                    ),
                );
            }
        }
    }
}

/// A name as it is shown: the right that stands in a path of ours is a secret.
fn shorten(name: &str) -> String {
    let name = crate::recorder::event::file_name(name);
    if name.chars().count() > 80 { name.chars().take(80).chain(['…']).collect() } else { name }
}
