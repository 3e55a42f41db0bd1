//! The one writer of the register: a declaration is checked, written in one transaction, and only then told to the loop, to
//! the probers and to the BMCs. What a kill left untold is told at the next start, from what was written.

use super::book::{self, Book, Ground, Numbered, endpoint, uuid};
use super::resources::{Applied, Changed, Declaration, EntryKind, HostEntry, HostGiven, Wrong};
use super::segments::Segments;
use crate::act::bmcs::Way;
use crate::act::ports::Outside;
use crate::cluster::NameTable;
use crate::decide_loop::{HostView, Inbox, NotCommitted, Order};
use crate::store::JournalError;
use crate::store::register::{Batch, RegisterRows};
use crate::store::secret::{Sealer, Secret};
use crate::store::session_keeper::SealedKeeper;
use bmc::redfish::{Facts, Fingerprint, MemoryKeeper, SessionKeeper, Trust};
use futures_util::stream::{self, StreamExt as _};
use healing::event::Config;
use healing::id::{ClusterId, HostId, MachineId};
use healing::world::host::Link;
use pxe::mac::Mac;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::{Mutex, watch};

const HOST: &str = "host/";
const POOL: &str = "pool/";
const LABEL: &str = "label/";
const NEXT: &str = "next";
const CLUSTER: &str = "cluster/";
/// Hosts told to the loop at the same time: a group of it takes as many.
const TOLD_AT_ONCE: usize = 256;
/// Columns of the secrets of a host.
const BMC_PASSWORD: &str = "bmc-password";
const OUTLETS_PASSWORD: &str = "outlets-password";

/// Why a declaration was not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotApplied {
    /// Something in it is wrong: nothing was changed.
    #[error("{} of its entries are wrong: nothing was changed", .0.len())]
    Wrong(Vec<Wrong>),
    /// The configuration lost a cluster that hosts belong to, or gave its number to another.
    #[error("{0}; nothing was started, so that no host changes its cluster without a word")]
    Cluster(String),
    /// There is no such host.
    #[error("there is no host `{0}`: nothing was changed")]
    NoSuchHost(String),
    /// A decision refused it.
    #[error("{0}")]
    Refused(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] JournalError),
    /// The loop did not take it.
    #[error("it is kept and will be in force after the next start, or when it is applied again: {0}")]
    NotYet(#[from] NotCommitted),
}

/// A secret as the BMC client takes it.
fn opened(secret: &Secret) -> bmc::Secret {
    bmc::Secret::new(secret.expose().to_vec())
}

/// See the module.
#[derive(Debug)]
pub struct Registrar {
    rows: Mutex<RegisterRows>,
    book: RwLock<Arc<Book>>,
    ground: Ground,
    sealer: Arc<Sealer>,
    sessions: PathBuf,
    outside: Arc<Outside>,
    names: Arc<NameTable>,
    /// Spares that took a place, with the cluster in which they serve now.
    placed: RwLock<BTreeMap<HostId, ClusterId>>,
    /// Counts changes of BMCs and cards, for who polls them and who shows whose they are.
    bmcs_changed: watch::Sender<u64>,
}

/// What it needs of the server.
#[derive(Debug)]
pub struct Parts {
    /// The rows.
    pub rows: RegisterRows,
    /// What seals the sessions of BMCs.
    pub sealer: Arc<Sealer>,
    /// Where those are kept.
    pub sessions: PathBuf,
    /// What declarations are checked against.
    pub ground: Ground,
    /// Where BMCs and outlets go.
    pub outside: Arc<Outside>,
    /// Where the names of Nodes go.
    pub names: Arc<NameTable>,
}

impl Registrar {
    /// Reads the register, and gives BMCs, outlets and names to those who need them.
    ///
    /// # Errors
    /// The store, a row that this version does not understand, or a cluster that is not what it was.
    pub async fn open(parts: Parts) -> Result<Registrar, NotApplied> {
        let Parts { mut rows, sealer, sessions, ground, outside, names } = parts;
        let book = Arc::new(read(&mut rows).await?);
        keep_clusters(&mut rows, &book, &ground).await?;
        let registrar = Registrar {
            rows: Mutex::new(rows),
            book: RwLock::new(Arc::clone(&book)),
            ground,
            sealer,
            sessions,
            outside,
            names,
            placed: RwLock::default(),
            bmcs_changed: watch::Sender::new(0),
        };
        let mut rows = registrar.rows.lock().await;
        // Data directories from before units were held.
        rows.write(&Batch { bmcs: with_outlets(&book).collect(), ..Batch::default() }).await?;
        for host in book.hosts.values() {
            registrar.give_devices(&mut rows, host).await?;
        }
        drop(rows);
        registrar.give_names(&book);
        Ok(registrar)
    }

    /// What is declared.
    #[must_use]
    pub fn book(&self) -> Arc<Book> {
        Arc::clone(&self.book.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What declarations are checked against.
    #[must_use]
    pub fn ground(&self) -> &Ground {
        &self.ground
    }

    /// Wakes when a BMC was added, changed or removed.
    #[must_use]
    pub fn bmcs_changed(&self) -> watch::Receiver<u64> {
        self.bmcs_changed.subscribe()
    }

    /// Tells the loop all that it does not know yet.
    ///
    /// # Errors
    /// The loop could not take it.
    pub async fn tell_all(&self, inbox: &Inbox) -> Result<(), NotApplied> {
        tell(inbox, news(self.book().configuration(&self.ground), &[], inbox)).await
    }

    /// Takes a declaration, all of it or nothing.
    ///
    /// # Errors
    /// What is wrong with it, or why it could not be taken.
    pub async fn apply(
        &self,
        declared: &Declaration,
        inbox: &Inbox,
        segments: Option<&Segments>,
    ) -> Result<Applied, NotApplied> {
        let mut rows = self.rows.lock().await;
        let before = self.book();
        let plan = before.plan(declared, &self.ground).map_err(NotApplied::Wrong)?;
        let (book, mut applied) = (plan.book, plan.applied);
        let mut batch = difference(&before, &book);
        let (mut fresh, mut rewired, mut unbound) = (Vec::new(), Vec::new(), Vec::new());
        let mut wrong = Vec::new();
        for (index, given) in declared.hosts.iter().enumerate() {
            let Some(host) = book.hosts.get(&given.entry.name) else { continue };
            let known = before.hosts.get(&given.entry.name);
            let changed = known != Some(host);
            let secrets = fresh_secrets(&mut rows, host.id, given).await?;
            if !changed && !secrets.is_empty() {
                applied.unchanged = applied.unchanged.saturating_sub(1);
                applied.changed.push(Changed { kind: EntryKind::Host, name: given.entry.name.clone(), added: false });
            }
            // A BMC that stays keeps its session and its one request in flight: a fence may be under way.
            let wires = |host: &Numbered<HostEntry>| (host.entry.bmc.clone(), host.entry.outlets.clone());
            if !secrets.is_empty() || known.map(wires) != Some(wires(host)) {
                rewired.push(host.clone());
            }
            let id = HostId(host.id);
            // A record that is applied again as it is was looked at by a person: a contradiction is looked at anew.
            let rests = |view: &HostView| view.incident.as_ref().is_none_or(|incident| incident.running.is_none());
            let mismatch = inbox.views.host(id).filter(|view| view.host.link == Link::Mismatch && rests(view));
            let mismatch = mismatch.is_some().then_some("bmc");
            let fields = known.iter().flat_map(|known| others(&known.entry, &host.entry)).chain(mismatch);
            for field in fields {
                if let Some(what) = stays(inbox, id, field) {
                    wrong.push(Wrong { kind: EntryKind::Host, index, field: field.to_owned(), what });
                } else if field != "outlets" && unbound.last() != Some(&id) {
                    unbound.push(id);
                }
            }
            if changed {
                fresh.push(host.clone());
            }
            batch.secrets.extend(secrets);
        }
        if !wrong.is_empty() {
            return Err(NotApplied::Wrong(wrong));
        }
        if let Some(segments) = segments {
            segments.check(&book).map_err(|why| NotApplied::Refused(format!("{why}; nothing was changed")))?;
        }
        if declared.dry_run {
            return Ok(applied);
        }
        let devices_changed = !rewired.is_empty() || !unbound.is_empty();
        // What their Nodes showed before is not theirs any more either.
        unbound.iter().for_each(|host| self.names.forget(*host));
        // Before anything is written: a kill after it leaves a link that is shown again, one before it leaves the old record.
        // The other way round, the new BMC would be taken for one that was shown to be this machine's.
        tell(inbox, unbound.into_iter().map(|host| Config::Link { host, link: Link::Unbound })).await?;
        let before_them = fresh.iter().filter_map(|host| before.hosts.get(&host.entry.name));
        let units = before_them.chain(&fresh).any(|host| host.entry.outlets.is_some());
        batch.bmcs =
            fresh.iter().map(held_for).chain(units.then(|| with_outlets(&book)).into_iter().flatten()).collect();
        if !batch.rows.is_empty() || !batch.secrets.is_empty() {
            rows.write(&batch).await?;
        }
        let book = Arc::new(book);
        for host in &rewired {
            self.give_devices(&mut rows, host).await?;
        }
        self.put(&book, devices_changed);
        let known = before.configuration(&self.ground);
        tell(inbox, news(book.configuration(&self.ground), &known, inbox)).await?;
        if let Some(segments) = segments {
            segments.replace(&book).map_err(|why| NotApplied::Refused(why.to_string()))?;
        }
        Ok(applied)
    }

    /// Removes a host. The decisions refuse one with an open incident.
    ///
    /// # Errors
    /// It is not there, or it stays.
    pub async fn remove(&self, name: &str, inbox: &Inbox, segments: Option<&Segments>) -> Result<(), NotApplied> {
        let mut rows = self.rows.lock().await;
        let before = self.book();
        let Some(host) = before.hosts.get(name) else { return Err(NotApplied::NoSuchHost(name.to_owned())) };
        let id = HostId(host.id);
        let committed = inbox.submit(Order::Config(Config::RemoveHost(id))).await?;
        if let Some(notice) = committed.notices.iter().find(|n| n.explanation.code == "host-in-incident") {
            return Err(NotApplied::Refused(notice.explanation.sentence.to_string()));
        }
        let mut book = (*before).clone();
        book.hosts.remove(name);
        let mut batch = difference(&before, &book);
        let row = format!("{HOST}{}", id.0);
        batch.secrets = [BMC_PASSWORD, OUTLETS_PASSWORD].map(|column| (row.clone(), column.to_owned(), None)).into();
        let units = host.entry.outlets.is_some().then(|| with_outlets(&book)).into_iter().flatten();
        batch.bmcs = std::iter::once((id, Vec::new())).chain(units).collect();
        rows.write(&batch).await?;
        self.outside.bmcs.remove(id);
        self.outside.outlets.remove(id);
        let book = Arc::new(book);
        self.put(&book, true);
        if let Some(segments) = segments {
            segments.replace(&book).map_err(|why| NotApplied::Refused(why.to_string()))?;
        }
        Ok(())
    }

    /// BMC and Node agreed on the machine of a host whose record named none: from now on it is the record. What was found
    /// before the last of [`Self::bmcs_changed`] is of things that may not be its own any more: it is dropped.
    ///
    /// # Errors
    /// The store, or the loop.
    pub async fn learn(&self, id: HostId, machine: MachineId, found_at: u64, inbox: &Inbox) -> Result<(), NotApplied> {
        let mut rows = self.rows.lock().await;
        if *self.bmcs_changed.borrow() != found_at {
            return Ok(());
        }
        let before = self.book();
        let mut book = (*before).clone();
        let Some(host) = book.hosts.values_mut().find(|host| host.id == id.0 && host.entry.uuid.is_none()) else {
            return Ok(());
        };
        host.entry.uuid = Some(uuid(machine));
        rows.write(&difference(&before, &book)).await?;
        let book = Arc::new(book);
        self.put(&book, false);
        let all = book.configuration(&self.ground).into_iter();
        tell(inbox, all.filter(|config| matches!(config, Config::Host(host) if host.id == id))).await
    }

    /// Says how BMC and record of a host stand to each other. As for [`Self::learn`], what was found too early is dropped.
    ///
    /// # Errors
    /// The loop.
    pub async fn link(&self, host: HostId, link: Link, found_at: u64, inbox: &Inbox) -> Result<(), NotApplied> {
        let _declarations_wait = self.rows.lock().await;
        if *self.bmcs_changed.borrow() != found_at {
            return Ok(());
        }
        tell(inbox, std::iter::once(Config::Link { host, link })).await
    }

    /// Says which spares took a place, and in which cluster: their Nodes are theirs from now on.
    pub fn place(&self, placed: BTreeMap<HostId, ClusterId>) {
        let mut known = self.placed.write().unwrap_or_else(PoisonError::into_inner);
        if *known == placed {
            return;
        }
        *known = placed;
        drop(known);
        self.give_names(&self.book());
    }

    fn put(&self, book: &Arc<Book>, bmcs: bool) {
        *self.book.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(book);
        self.give_names(book);
        if bmcs {
            self.bmcs_changed.send_modify(|count| *count += 1);
        }
    }

    /// Which Node is which host.
    fn give_names(&self, book: &Book) {
        let mut by_cluster: BTreeMap<ClusterId, BTreeMap<String, HostId>> =
            self.ground.clusters.values().map(|id| (*id, BTreeMap::new())).collect();
        let placed = self.placed.read().unwrap_or_else(PoisonError::into_inner).clone();
        for host in book.hosts.values() {
            let spare = host.entry.role == super::resources::RoleEntry::Spare;
            let declared = host.entry.cluster.as_ref().filter(|_| !spare);
            let declared = declared.and_then(|name| self.ground.clusters.get(name));
            let cluster = placed.get(&HostId(host.id)).or(declared);
            let Some(names) = cluster.and_then(|id| by_cluster.get_mut(id)) else { continue };
            names.insert(host.entry.node().to_owned(), HostId(host.id));
        }
        for (cluster, names) in by_cluster {
            self.names.set(cluster, names);
        }
    }

    /// The ways to the BMC and to the outlets of a host.
    async fn give_devices(&self, rows: &mut RegisterRows, host: &Numbered<HostEntry>) -> Result<(), JournalError> {
        let id = HostId(host.id);
        let row = format!("{HOST}{}", host.id);
        let password = rows.secret(&row, BMC_PASSWORD).await?;
        match (&host.entry.bmc, password) {
            (Some(bmc), Some(password)) => match self.way(&bmc.url, bmc.pin.as_deref(), &password) {
                Some(way) => {
                    let facts = Facts { chassis_unrelated: bmc.ignore_chassis, ..Facts::default() };
                    self.outside.bmcs.set(id, Way { system: bmc.system.clone(), facts, ..way });
                }
                None => self.outside.bmcs.remove(id),
            },
            _ => self.outside.bmcs.remove(id),
        }
        let password = rows.secret(&row, OUTLETS_PASSWORD).await?;
        match (&host.entry.outlets, password) {
            (Some(outlets), Some(password)) => match self.way(&outlets.url, outlets.pin.as_deref(), &password) {
                Some(way) => self.outside.outlets.set(id, way, outlets.links.clone()),
                None => self.outside.outlets.remove(id),
            },
            _ => self.outside.outlets.remove(id),
        }
        Ok(())
    }

    fn way(&self, url: &str, pin: Option<&str>, password: &Secret) -> Option<Way> {
        let (endpoint, address) = endpoint(url).ok()?;
        let pin: Option<Fingerprint> = pin.and_then(|pin| pin.parse().ok());
        let kept = SealedKeeper::new(&self.sessions, &format!("{address}"), Arc::clone(&self.sealer));
        let keeper: Arc<dyn SessionKeeper> = match kept {
            Ok(keeper) => Arc::new(keeper),
            Err(why) => {
                tracing::warn!(%why, "sessions of BMCs cannot be kept over a restart");
                Arc::new(MemoryKeeper::default())
            }
        };
        Some(Way {
            endpoint,
            password: opened(password),
            trust: pin.map(Trust::Pin),
            keeper,
            system: None,
            facts: Facts::default(),
        })
    }
}

/// Whether a host's record says what was declared; what the decisions learned of it is theirs.
fn stands(known: &healing::world::host::Host, declared: &healing::world::host::Host) -> bool {
    let place = |host: &healing::world::host::Host| {
        // One that took another's place keeps it.
        let place = (!known.history.was_spare).then_some((host.cluster, host.pool, host.role));
        (host.name.clone(), place, host.domains.clone(), host.versions.clone(), host.storage)
    };
    place(known) == place(declared)
        && (known.machine, known.outlets, &known.disk, known.marks.is_self)
            == (declared.machine, declared.outlets, &declared.disk, declared.marks.is_self)
}

/// Tells the loop in this order. Hosts come last and do not rest on each other: they are told side by side, so that thousands
/// share their commits.
async fn tell(inbox: &Inbox, all: impl Iterator<Item = Config>) -> Result<(), NotApplied> {
    let (hosts, scopes): (Vec<Config>, Vec<Config>) = all.partition(|config| matches!(config, Config::Host(_)));
    for config in scopes {
        inbox.submit(Order::Config(config)).await?;
    }
    let submitted = hosts.into_iter().map(|config| inbox.submit(Order::Config(config)));
    let mut answers = stream::iter(submitted).buffered(TOLD_AT_ONCE);
    let mut refused = None;
    while let Some(committed) = answers.next().await {
        let notices = committed?.notices;
        let notice = notices.into_iter().find(|notice| notice.explanation.code == "host-refused");
        refused = refused.or(notice.map(|notice| notice.explanation.sentence.to_string()));
    }
    refused.map_or(Ok(()), |why| Err(NotApplied::Refused(why)))
}

/// What of a configuration the decisions do not have yet.
fn news(all: Vec<Config>, before: &[Config], inbox: &Inbox) -> impl Iterator<Item = Config> {
    let before: Vec<Config> = before.iter().filter(|config| !matches!(config, Config::Host(_))).cloned().collect();
    let inbox = inbox.clone();
    all.into_iter().filter(move |config| match config {
        // A host that stands as declared is not told again: the journal would grow by a fleet each time. One that a kill or a
        // failing store left untold is.
        Config::Host(host) => inbox.views.host(host.id).is_none_or(|view| !stands(&view.host, host)),
        _ => !before.contains(config),
    })
}

/// What of a host is another now than what was shown to be its own: whose it is must be shown again (rule 29). Of outlets
/// nothing is shown, but they are not changed in the middle of a fence either.
fn others(known: &HostEntry, declared: &HostEntry) -> impl Iterator<Item = &'static str> + use<> {
    // However it is written: a file that was read by an earlier release must not make every host a stranger.
    let cards = |host: &HostEntry| host.macs.iter().map(|mac| mac.parse::<Mac>()).collect::<Vec<_>>();
    let machine = |host: &HostEntry| host.uuid.as_deref().and_then(book::machine);
    let same = match (machine(known), machine(declared)) {
        (Some(known), Some(declared)) => known.same_machine(declared),
        (known, declared) => known == declared,
    };
    [
        ("node", known.node() != declared.node() || known.cluster != declared.cluster),
        ("address", known.address != declared.address),
        ("uuid", !same),
        ("macs", cards(known) != cards(declared)),
        ("bmc", known.bmc != declared.bmc),
        ("outlets", known.outlets != declared.outlets),
    ]
    .into_iter()
    .filter_map(|(field, other)| other.then_some(field))
}

/// Why it cannot be another right now: what was ordered at one would be read, or taken back, at the other.
fn stays(inbox: &Inbox, host: HostId, field: &str) -> Option<String> {
    let view = inbox.views.host(host)?;
    let incident = view.incident.as_ref();
    let name = &view.host.name;
    if let Some(incident) = incident.filter(|incident| incident.running.is_some()) {
        let id = incident.id.0;
        return Some(format!(
            "a step of incident {id} is under way at {name}: its {field} stays until it ends; apply this again in a minute"
        ));
    }
    if field == "node" && (view.host.our_cordon.is_some() || view.host.our_taint.is_some()) {
        return Some(format!(
            "our cordon or taint is on the Node of {name}: it would stay there; apply this again when its incident is over"
        ));
    }
    if field == "outlets" && incident.is_some_and(|incident| incident.fence.outlets_off) {
        return Some(format!(
            "the outlets of {name} were switched off: these are switched on again first; apply this again then"
        ));
    }
    None
}

/// The addresses that are held for a host: its BMC's, and that of the unit whose outlets feed it (rule 60).
fn held_for(host: &Numbered<HostEntry>) -> (HostId, Vec<std::net::SocketAddr>) {
    let urls = host.entry.bmc.iter().map(|bmc| &bmc.url).chain(host.entry.outlets.iter().map(|outlets| &outlets.url));
    (HostId(host.id), urls.filter_map(|url| endpoint(url).ok()).map(|(_, address)| address).collect())
}

/// The same of all hosts with outlets: a unit is that of many, and stays held when one of them leaves it.
fn with_outlets(book: &Book) -> impl Iterator<Item = (HostId, Vec<std::net::SocketAddr>)> + '_ {
    book.hosts.values().filter(|host| host.entry.outlets.is_some()).map(held_for)
}

/// The passwords of a host that are not those that are kept.
async fn fresh_secrets(
    rows: &mut RegisterRows,
    id: u32,
    given: &HostGiven,
) -> Result<Vec<(String, String, Option<Secret>)>, JournalError> {
    let row = format!("{HOST}{id}");
    let mut fresh = Vec::new();
    for (column, password) in [(BMC_PASSWORD, &given.bmc_password), (OUTLETS_PASSWORD, &given.outlets_password)] {
        let Some(password) = password else { continue };
        let kept = rows.secret(&row, column).await?;
        if kept.is_none_or(|kept| kept.expose() != password.as_bytes()) {
            fresh.push((row.clone(), column.to_owned(), Some(Secret::new(password.clone().into_bytes()))));
        }
    }
    Ok(fresh)
}

/// The rows that make one book of another.
fn difference(before: &Book, after: &Book) -> Batch {
    let mut batch = Batch::default();
    changed(&mut batch, POOL, &before.pools, &after.pools);
    changed(&mut batch, HOST, &before.hosts, &after.hosts);
    changed(&mut batch, LABEL, &before.labels, &after.labels);
    if before.next != after.next {
        batch.rows.push((NEXT.to_owned(), serde_json::to_string(&after.next).ok()));
    }
    batch
}

fn changed<T: PartialEq + serde::Serialize>(
    batch: &mut Batch,
    begins: &str,
    before: &BTreeMap<String, T>,
    after: &BTreeMap<String, T>,
) {
    for (name, value) in after.iter().filter(|(name, value)| before.get(*name) != Some(value)) {
        if let Ok(text) = serde_json::to_string(value) {
            batch.rows.push((format!("{begins}{name}"), Some(text)));
        }
    }
    let gone = before.keys().filter(|name| !after.contains_key(*name));
    batch.rows.extend(gone.map(|name| (format!("{begins}{name}"), None)));
}

/// What people set on a cluster (armed, paused) is kept by its number: a number never goes over to another cluster, and no
/// host's cluster vanishes.
async fn keep_clusters(rows: &mut RegisterRows, book: &Book, ground: &Ground) -> Result<(), NotApplied> {
    let kept: BTreeMap<String, u16> = table(rows, CLUSTER).await?;
    for (name, id) in &ground.clusters {
        if let Some(number) = kept.get(name).filter(|number| **number != id.0) {
            let what =
                format!("cluster `{name}` has the number {} in the configuration, and had {number} before", id.0);
            return Err(NotApplied::Cluster(what));
        }
        if let Some((other, _)) = kept.iter().find(|(other, number)| **number == id.0 && *other != name) {
            let what =
                format!("cluster `{name}` has the number {} in the configuration, which was that of `{other}`", id.0);
            return Err(NotApplied::Cluster(what));
        }
    }
    let lost = book
        .hosts
        .iter()
        .find(|(_, host)| host.entry.cluster.as_ref().is_some_and(|cluster| !ground.clusters.contains_key(cluster)));
    if let Some((name, host)) = lost {
        let cluster = host.entry.cluster.as_deref().unwrap_or_default();
        return Err(NotApplied::Cluster(format!(
            "host {name} belongs to cluster `{cluster}`, which the configuration does not have any more"
        )));
    }
    let fresh = ground.clusters.iter().filter(|(name, _)| !kept.contains_key(*name));
    let rows_new = fresh.map(|(name, id)| (format!("{CLUSTER}{name}"), Some(id.0.to_string()))).collect();
    Ok(rows.write(&Batch { rows: rows_new, ..Batch::default() }).await?)
}

async fn read(rows: &mut RegisterRows) -> Result<Book, JournalError> {
    let next = rows.rows(NEXT).await?.into_iter().find(|(key, _)| key == NEXT);
    let next = match next {
        Some((key, text)) => parse(&key, &text)?,
        None => Default::default(),
    };
    Ok(Book {
        pools: table(rows, POOL).await?,
        hosts: table(rows, HOST).await?,
        labels: table(rows, LABEL).await?,
        next,
    })
}

async fn table<T: serde::de::DeserializeOwned>(
    rows: &mut RegisterRows,
    begins: &str,
) -> Result<BTreeMap<String, T>, JournalError> {
    let all = rows.rows(begins).await?;
    all.iter().map(|(key, text)| Ok((key.replacen(begins, "", 1), parse(key, text)?))).collect()
}

/// A row that is not understood is never skipped: a host that is left out would be nobody's without a word.
fn parse<T: serde::de::DeserializeOwned>(key: &str, text: &str) -> Result<T, JournalError> {
    serde_json::from_str(text).map_err(|why| JournalError::Corrupt(format!("the register's row {key}: {why}")))
}
