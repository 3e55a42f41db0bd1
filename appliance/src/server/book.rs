//! The register in memory: what was declared, with the numbers that the decisions know it by. Numbers are given once and
//! never again. [`Book::plan`] is pure: it says what a declaration would change, or everything that is wrong with it.

use super::resources::{
    Applied, Changed, Consent, Declaration, DomainEntry, EntryKind, HostEntry, OutletsEntry, PoolEntry, RoleEntry,
    Wrong,
};
use bmc::Endpoint;
use bmc::endpoint::Protocol;
use bmc::redfish::Fingerprint;
use healing::event::Config;
use healing::id::{ClusterId, DomainId, HostId, MachineId, PoolId, StorageId, VersionId};
use healing::world::host::{Host, Lifecycle, Link, Marks, Role};
use healing::world::scope::{self, Domain, DomainKind, Pool};
use protocol::name::Name;
use pxe::mac::Mac;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Most hosts of a site, as the decisions have it.
const HOSTS_MAX: usize = 20_000;
/// Most domains and versions of a host.
const LABELS_MAX: usize = 8;
/// Longest name.
const NAME_MAX: usize = 253;
/// Longest wait for a crash dump.
const CRASH_DUMP_MAX_S: u64 = 600;

/// An entry with its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbered<T> {
    /// Its number.
    pub id: u32,
    /// The entry.
    pub entry: T,
}

/// The next free numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Next {
    host: u32,
    pool: u16,
    label: u32,
}

impl Default for Next {
    fn default() -> Self {
        Next { host: 1, pool: 1, label: 1 }
    }
}

/// What a declaration is checked against beside the book.
#[derive(Debug, Clone, Default)]
pub struct Ground {
    /// The clusters of the configuration, by name.
    pub clusters: BTreeMap<String, ClusterId>,
    /// The networks of the watched segments, and whether a gateway leads beyond.
    pub networks: Vec<(Ipv4Addr, u8)>,
    /// One of the segments has a gateway.
    pub gateway: bool,
    /// Only addresses of loopback may be named: the lab's policy.
    pub loopback_only: bool,
}

/// The register.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Book {
    /// Pools by name.
    pub pools: BTreeMap<String, Numbered<PoolEntry>>,
    /// Hosts by name.
    pub hosts: BTreeMap<String, Numbered<HostEntry>>,
    /// Domains and versions, such as `rack/r1` or `image/node-2`.
    pub labels: BTreeMap<String, u32>,
    /// The next free numbers.
    pub next: Next,
}

/// A change that is ready to be written.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The book as it will be.
    pub book: Book,
    /// What is told.
    pub applied: Applied,
}

/// A UUID as people write it.
#[must_use]
pub fn machine(text: &str) -> Option<MachineId> {
    let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
    let plain = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = plain.then(|| u128::from_str_radix(&digits, 16).ok()).flatten()?;
    Some(MachineId(number)).filter(|machine| !machine.is_placeholder())
}

/// Its usual form.
#[must_use]
pub fn uuid(machine: MachineId) -> String {
    let digits = format!("{:032x}", machine.0);
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

/// Where a BMC is, with its protocol.
///
/// # Errors
/// The URL is none, or names its host by name.
pub fn endpoint(url: &str) -> Result<(Endpoint, SocketAddr), String> {
    let endpoint: Endpoint = url.parse().map_err(|why: bmc::endpoint::BadEndpoint| why.to_string())?;
    let ip: IpAddr = endpoint
        .host
        .parse()
        .map_err(|_| "names its host: write its address, so that a fence never waits for a name server".to_owned())?;
    let address = SocketAddr::new(ip, endpoint.port);
    Ok((endpoint, address))
}

impl Book {
    /// What a declaration would make of this book.
    ///
    /// # Errors
    /// Everything that is wrong with it, in order.
    pub fn plan(&self, declared: &Declaration, ground: &Ground) -> Result<Plan, Vec<Wrong>> {
        let mut book = self.clone();
        let mut applied = Applied { dry_run: declared.dry_run, ..Applied::default() };
        let mut wrong = Vec::new();
        for (index, pool) in declared.pools.iter().enumerate() {
            let mut tell = |field: &str, what: String| {
                wrong.push(Wrong { kind: EntryKind::Pool, index, field: field.to_owned(), what });
            };
            if declared.pools.iter().take(index).any(|other| other.name == pool.name) {
                tell("name", format!("`{}` is declared twice", pool.name));
            }
            check_pool(pool, &mut tell);
            book.put_pool(pool, &mut applied);
        }
        let mut names = BTreeSet::new();
        for (index, given) in declared.hosts.iter().enumerate() {
            let host = &given.entry;
            let mut tell = |field: &str, what: String| {
                wrong.push(Wrong { kind: EntryKind::Host, index, field: field.to_owned(), what });
            };
            if !names.insert(&host.name) {
                tell("name", format!("`{}` is declared twice", host.name));
            }
            let known = self.hosts.get(&host.name);
            check_host(host, &book.pools, ground, &mut tell);
            let kept = |of: fn(&HostEntry) -> Option<&str>| known.and_then(|known| of(&known.entry)).is_some();
            if host.bmc.is_some()
                && given.bmc_password.is_none()
                && !kept(|host| host.bmc.as_ref().map(|b| b.url.as_str()))
            {
                tell("bmc.password_file", "missing: a BMC that is new needs its password".to_owned());
            }
            if host.outlets.is_some()
                && given.outlets_password.is_none()
                && !kept(|host| host.outlets.as_ref().map(|o| o.url.as_str()))
            {
                tell("outlets.password_file", "missing: a unit that is new needs its password".to_owned());
            }
            book.put_host(host, &mut applied);
        }
        book.check_together(declared, &mut wrong);
        if wrong.is_empty() { Ok(Plan { book, applied }) } else { Err(wrong) }
    }

    fn put_pool(&mut self, pool: &PoolEntry, applied: &mut Applied) {
        let known = self.pools.get(&pool.name);
        if known.is_some_and(|known| known.entry == *pool) {
            applied.unchanged += 1;
            return;
        }
        let id = known.map_or(u32::from(self.next.pool), |known| known.id);
        let added = known.is_none();
        self.next.pool += u16::from(added);
        self.pools.insert(pool.name.clone(), Numbered { id, entry: pool.clone() });
        applied.changed.push(Changed { kind: EntryKind::Pool, name: pool.name.clone(), added });
    }

    fn put_host(&mut self, host: &HostEntry, applied: &mut Applied) {
        let mut entry = host.clone();
        // A file is named to be read once; the record does not need it.
        if let Some(bmc) = &mut entry.bmc {
            bmc.password_file = None;
        }
        if let Some(outlets) = &mut entry.outlets {
            outlets.password_file = None;
        }
        for mac in &mut entry.macs {
            *mac = card(mac);
        }
        let known = self.hosts.get(&entry.name);
        if let Some(known) = known {
            // An identity that was learned is not forgotten because the file does not name it.
            entry.uuid = entry.uuid.or_else(|| known.entry.uuid.clone());
            if known.entry == entry {
                applied.unchanged += 1;
                return;
            }
        }
        let id = known.map_or(self.next.host, |known| known.id);
        let added = known.is_none();
        self.next.host += u32::from(added);
        for label in labels(&entry).chain(entry.versions.iter().cloned()) {
            if !self.labels.contains_key(&label) {
                self.labels.insert(label, self.next.label);
                self.next.label += 1;
            }
        }
        applied.changed.push(Changed { kind: EntryKind::Host, name: entry.name.clone(), added });
        self.hosts.insert(entry.name.clone(), Numbered { id, entry });
    }

    /// What two hosts cannot have both.
    fn check_together(&self, declared: &Declaration, wrong: &mut Vec<Wrong>) {
        let mut owners: BTreeMap<(&str, String), &str> = BTreeMap::new();
        let place = |name: &str| declared.hosts.iter().position(|given| given.entry.name == name);
        for (name, host) in &self.hosts {
            let entry = &host.entry;
            let mut all = vec![("node", format!("{}/{}", entry.cluster.as_deref().unwrap_or("-"), entry.node()))];
            all.extend(entry.address.map(|address| ("address", address.to_string())));
            all.extend(entry.macs.iter().map(|mac| ("macs", card(mac))));
            all.extend(entry.uuid.as_deref().and_then(machine).map(|machine| ("uuid", uuid(machine))));
            all.extend(entry.serial.as_ref().map(|serial| ("serial", serial.trim().to_owned())));
            let bmc = entry.bmc.as_ref().and_then(|bmc| endpoint(&bmc.url).ok());
            all.extend(bmc.map(|(_, address)| ("bmc.url", address.to_string())));
            // Nothing at an outlet tells whose it is: one that two hosts name would cut the healthy one.
            let unit = entry.outlets.as_ref().and_then(|outlets| Some((outlets, endpoint(&outlets.url).ok()?.1)));
            let links = unit.into_iter().flat_map(|(outlets, unit)| outlets.links.iter().map(move |link| (unit, link)));
            all.extend(links.map(|(unit, link)| ("outlets.links", format!("{unit}{}", link.trim_end_matches('/')))));
            for (field, value) in all {
                let Some(other) = owners.insert((field, value.clone()), name) else { continue };
                // Whichever of the two was declared now is the one to correct.
                let Some(index) = place(name).or_else(|| place(other)) else { continue };
                let twin = if place(name).is_some() { other } else { name };
                let what = format!("{value} is that of {twin} already: correct one of the two");
                wrong.push(Wrong { kind: EntryKind::Host, index, field: field.to_owned(), what });
            }
        }
        if self.hosts.len() > HOSTS_MAX {
            let what = format!("{} hosts are more than {HOSTS_MAX}", self.hosts.len());
            wrong.push(Wrong { kind: EntryKind::Host, index: 0, field: "name".to_owned(), what });
        }
    }

    /// A host by its number.
    #[must_use]
    pub fn host(&self, id: HostId) -> Option<&HostEntry> {
        self.hosts.values().find(|host| host.id == id.0).map(|host| &host.entry)
    }

    /// The number of a host.
    #[must_use]
    pub fn id_of(&self, name: &str) -> Option<HostId> {
        self.hosts.get(name).map(|host| HostId(host.id))
    }

    /// The pool of a host.
    #[must_use]
    pub fn pool_of(&self, host: &HostEntry) -> Option<&PoolEntry> {
        self.pools.get(&host.pool).map(|pool| &pool.entry)
    }

    /// Everything as the decisions take it, in the order in which it must be known.
    #[must_use]
    pub fn configuration(&self, ground: &Ground) -> Vec<Config> {
        let pools = self.pools.values().map(|pool| Config::Pool(Box::new(pool_record(pool))));
        let mut kinds: BTreeMap<&str, (DomainKind, u32)> = BTreeMap::new();
        for host in self.hosts.values() {
            for label in labels(&host.entry) {
                if let Some((label, id)) = self.labels.get_key_value(&label) {
                    kinds.insert(label, (kind_of(label), *id));
                }
            }
        }
        let domains = kinds.into_iter().map(|(name, (kind, id))| {
            Config::Domain(Box::new(Domain {
                id: DomainId(id),
                name: name.to_owned(),
                kind,
                paused: false,
                correlated: None,
            }))
        });
        let hosts = self.hosts.values().map(|host| Config::Host(Box::new(self.record(host, ground))));
        pools.chain(domains).chain(hosts).collect()
    }

    fn record(&self, host: &Numbered<HostEntry>, ground: &Ground) -> Host {
        let entry = &host.entry;
        let number = |label: &String| self.labels.get(label).copied();
        let role = match entry.role {
            RoleEntry::Worker => Role::Worker,
            RoleEntry::ControlPlane => Role::ControlPlane,
            RoleEntry::Spare => Role::Spare,
        };
        let disk = entry.disk.as_ref().and_then(|disk| disk.serial.clone().or_else(|| disk.wwn.clone()));
        Host {
            id: HostId(host.id),
            name: entry.node().to_owned(),
            cluster: entry.cluster.as_ref().and_then(|name| ground.clusters.get(name)).copied(),
            pool: PoolId(self.pools.get(&entry.pool).and_then(|pool| u16::try_from(pool.id).ok()).unwrap_or_default()),
            role,
            domains: labels(entry).filter_map(|label| number(&label)).map(DomainId).collect(),
            versions: entry.versions.iter().filter_map(number).map(VersionId).collect(),
            storage: entry.storage.map(StorageId),
            machine: entry.uuid.as_deref().and_then(machine).unwrap_or_default(),
            link: Link::Unbound,
            outlets: entry.outlets.is_some(),
            disk,
            lifecycle: Lifecycle::InService,
            marks: Marks { is_self: entry.is_self, ..Marks::default() },
            spare_proof: None,
            drill: None,
            assessment: Default::default(),
            history: Default::default(),
            incident: None,
            our_cordon: None,
            our_taint: None,
            held_off: None,
        }
    }
}

/// A hardware address in its usual form; anything else as it was written, for the check to refuse.
fn card(text: &str) -> String {
    text.parse::<Mac>().map_or_else(|_| text.to_owned(), |card| card.to_string())
}

/// The domains of a host by name; one without any stands in that of its cluster's unlabelled hosts.
fn labels(host: &HostEntry) -> impl Iterator<Item = String> + '_ {
    let unlabelled = host.domains.is_empty() && host.role != RoleEntry::Spare;
    let cluster = host.cluster.as_deref().filter(|_| unlabelled);
    let own = host.domains.iter().map(|(kind, name)| format!("{}/{name}", kind.word()));
    own.chain(cluster.map(|cluster| format!("unlabelled/{cluster}")))
}

fn kind_of(label: &str) -> DomainKind {
    let kinds = [
        (DomainEntry::Rack, DomainKind::Rack),
        (DomainEntry::Pdu, DomainKind::Pdu),
        (DomainEntry::Switch, DomainKind::Switch),
        (DomainEntry::Chassis, DomainKind::Chassis),
    ];
    let word = label.split('/').next().unwrap_or_default();
    kinds.iter().find(|(entry, _)| entry.word() == word).map_or(DomainKind::Unlabelled, |(_, kind)| *kind)
}

fn pool_record(pool: &Numbered<PoolEntry>) -> Pool {
    let consent = |consent| match consent {
        Consent::Automatic => scope::Consent::Automatic,
        Consent::Ask => scope::Consent::Ask,
        Consent::Never => scope::Consent::Never,
    };
    let entry = &pool.entry;
    Pool {
        id: PoolId(u16::try_from(pool.id).unwrap_or_default()),
        name: entry.name.clone(),
        soft_reboot: consent(entry.soft_reboot),
        reimage: consent(entry.reimage),
        replace: consent(entry.replace),
        runtime_restart: entry.runtime_restart,
        crash_dump_wait_ms: entry.crash_dump_wait_s * 1_000,
    }
}

fn check_name(field: &str, name: &str, tell: &mut impl FnMut(&str, String)) {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    if name.len() > NAME_MAX || !name.chars().all(plain) || !ends(name.chars().next()) || !ends(name.chars().last()) {
        let what = format!("`{}` is no name: use a-z, 0-9, - and ., as Kubernetes does", shown(name));
        tell(field, what);
    }
}

fn shown(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_default).collect()
}

fn check_pool(pool: &PoolEntry, tell: &mut impl FnMut(&str, String)) {
    check_name("name", &pool.name, tell);
    if pool.crash_dump_wait_s > CRASH_DUMP_MAX_S {
        tell("crash_dump_wait_s", format!("{} is not 0 to {CRASH_DUMP_MAX_S} seconds", pool.crash_dump_wait_s));
    }
    for (field, text) in
        pool.image.iter().flat_map(|image| [("image.name", &image.name), ("image.version", &image.version)])
    {
        if let Err(why) = text.parse::<Name>() {
            tell(field, why.to_string());
        }
    }
    if pool.image.is_none() && pool.reimage != Consent::Never {
        tell("reimage", "its hosts can only be rewritten with an `image`".to_owned());
    }
    if pool.image.is_none() && pool.replace != Consent::Never {
        tell("replace", "a spare takes a place by being installed with the `image` of its pool".to_owned());
    }
}

fn check_host(
    host: &HostEntry,
    pools: &BTreeMap<String, Numbered<PoolEntry>>,
    ground: &Ground,
    tell: &mut impl FnMut(&str, String),
) {
    check_name("name", &host.name, tell);
    if let Some(node) = &host.node {
        check_name("node", node, tell);
    }
    if !pools.contains_key(&host.pool) {
        tell("pool", format!("there is no pool `{}`: declare it in the same file", shown(&host.pool)));
    }
    match &host.cluster {
        Some(name) if !ground.clusters.contains_key(name) => {
            let known: Vec<&str> = ground.clusters.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            tell(
                "cluster",
                format!("there is no cluster `{}` in the server's configuration: it has {known}", shown(name)),
            );
        }
        None if host.role != RoleEntry::Spare => {
            tell("cluster", "missing: only a spare belongs to none".to_owned());
        }
        _ => {}
    }
    if let Some(uuid) = host.uuid.as_deref().filter(|text| machine(text).is_none()) {
        tell("uuid", format!("`{}` is no UUID of one machine", shown(uuid)));
    }
    if host.serial.as_ref().is_some_and(|serial| serial.trim().is_empty() || serial.len() > 128) {
        tell("serial", "is empty or longer than 128 characters".to_owned());
    }
    for mac in &host.macs {
        match mac.parse::<Mac>() {
            Ok(card) if card.is_unicast() => {}
            Ok(_) => tell("macs", format!("{mac} names a group, not a card")),
            Err(_) => tell("macs", format!("`{}` is no hardware address", shown(mac))),
        }
    }
    check_address(host, ground, tell);
    if host.second_port == 0 || host.second_port == crate::watch::target::KUBELET_PORT {
        tell("second_port", "must be another port than the kubelet's, and above 0".to_owned());
    }
    if let Some(bmc) = &host.bmc {
        let redfish = bmc.url.starts_with("redfish://");
        if !redfish && (bmc.system.is_some() || bmc.ignore_chassis) {
            tell("bmc.system", "`system` and `ignore_chassis` belong to redfish://".to_owned());
        }
        check_device("bmc", &bmc.url, bmc.pin.as_deref(), false, ground, tell);
    }
    if let Some(OutletsEntry { url, pin, links, .. }) = &host.outlets {
        check_device("outlets", url, pin.as_deref(), true, ground, tell);
        if links.is_empty() || links.iter().any(|link| !link.starts_with('/')) {
            tell("outlets.links", "name each outlet by its link, as `rackmedic bmc outlet list` prints it".to_owned());
        }
    }
    let fine = |label: &String| !label.is_empty() && label.len() <= 64 && !label.chars().any(char::is_control);
    if !host.domains.values().all(fine) {
        tell("domains", "a name is empty, longer than 64 characters or not printable".to_owned());
    }
    if host.versions.len() > LABELS_MAX || !host.versions.iter().all(fine) {
        tell(
            "versions",
            format!("more than {LABELS_MAX}, or one is empty, longer than 64 characters or not printable"),
        );
    }
    if host.disk.as_ref().is_some_and(|disk| !disk.is_given()) {
        tell("disk", "an empty name would fit every disk: write `serial` or `wwn`".to_owned());
    }
}

fn check_address(host: &HostEntry, ground: &Ground, tell: &mut impl FnMut(&str, String)) {
    let Some(address) = host.address else { return };
    if address.is_unspecified() || address.is_multicast() || address.is_broadcast() || address.is_loopback() {
        tell("address", format!("{address} is no address of one host"));
        return;
    }
    if ground.networks.is_empty() {
        return;
    }
    let attached = ground.networks.iter().any(|network| holds(*network, address));
    if attached && host.macs.is_empty() {
        tell("macs", "missing: on a watched segment the card that must answer is to be known".to_owned());
    }
    if !attached && !ground.gateway {
        tell("address", format!("{address} lies beyond every watched segment, and none has a `gateway`"));
    }
}

/// Whether a network has an address.
#[must_use]
pub fn holds((network, prefix): (Ipv4Addr, u8), address: Ipv4Addr) -> bool {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
    u32::from(network) & mask == u32::from(address) & mask
}

fn check_device(
    field: &str,
    url: &str,
    pin: Option<&str>,
    redfish_only: bool,
    ground: &Ground,
    tell: &mut impl FnMut(&str, String),
) {
    let (endpoint, address) = match endpoint(url) {
        Ok(found) => found,
        Err(why) => return tell(&format!("{field}.url"), why),
    };
    if ground.loopback_only && !address.ip().is_loopback() {
        let what =
            format!("{} is not on loopback, and the lab's short waits are for emulated hosts only", address.ip());
        tell(&format!("{field}.url"), what);
    }
    match (endpoint.protocol, pin) {
        (Protocol::Redfish, None) => {
            let what =
                "missing: see it with `rackmedic bmc identify --tls-accept-new` and compare it with the BMC's own page";
            tell(&format!("{field}.pin"), what.to_owned());
        }
        (Protocol::Redfish, Some(pin)) if pin.parse::<Fingerprint>().is_err() => {
            tell(&format!("{field}.pin"), "is no fingerprint: write sha256: and 64 hexadecimal digits".to_owned());
        }
        (Protocol::Ipmi, Some(_)) => tell(&format!("{field}.pin"), "belongs to redfish://".to_owned()),
        (Protocol::Ipmi, None) if redfish_only => {
            tell(&format!("{field}.url"), "power distribution units are spoken to over redfish://".to_owned());
        }
        _ => {}
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
