//! The configuration of the server (`rackmedic.toml`): what belongs to this machine. Hosts and pools are declared with
//! `rackmedic apply`. An error names the file, the line, the column and the key; secrets are named as files only.

use crate::boot::config::{BootConfig, ConfigError as BootConfigError};
use crate::cluster::ClusterConfig;
use serde::Deserialize;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// Most bytes of a configuration.
const FILE_MAX: u64 = 1 << 20;
/// Where the data directory is, unless said otherwise.
pub const DATA_DIR: &str = "/var/lib/rackmedic";

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ServeConfigError {
    /// It cannot be read.
    #[error("{}: {source}; nothing was started", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the file system says.
        source: std::io::Error,
    },
    /// Something in it is wrong.
    #[error("{}:{line}:{column}: {what}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong, with its key, and what to write instead.
        what: String,
    },
    /// The file of the boot servers.
    #[error(transparent)]
    Boot(#[from] BootConfigError),
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogForm {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default = "default_data_dir")]
    data_dir: PathBuf,
    key_file: Option<PathBuf>,
    policy: Option<PathBuf>,
    #[serde(default)]
    log: LogForm,
    #[serde(default)]
    api: ApiFile,
    #[serde(default, rename = "watch")]
    watches: Vec<WatchFile>,
    #[serde(default, rename = "cluster")]
    clusters: Vec<ClusterConfig>,
    boot: Option<BootFile>,
}

fn default_data_dir() -> PathBuf {
    PathBuf::from(DATA_DIR)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ApiFile {
    #[serde(default = "default_listen", deserialize_with = "address_with_port")]
    listen: SocketAddr,
    #[serde(default)]
    unauthenticated_and_read_only: bool,
    #[serde(default)]
    host_names: Vec<String>,
}

impl Default for ApiFile {
    fn default() -> Self {
        ApiFile { listen: default_listen(), unauthenticated_and_read_only: false, host_names: Vec::new() }
    }
}

fn default_listen() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 8420))
}

fn address_with_port<'de, D: serde::Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(from)?;
    let wrong = || format!("`{text}` is no address with a port: write it like 127.0.0.1:8420 or [::1]:8420");
    text.parse().map_err(|_| serde::de::Error::custom(wrong()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WatchFile {
    interface: Option<String>,
    gateway: Option<Ipv4Addr>,
    #[serde(default, rename = "reference")]
    references: Vec<ReferenceConfig>,
    #[cfg(feature = "lab")]
    wire: Option<PathBuf>,
    #[cfg(feature = "lab")]
    network: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BootFile {
    config: PathBuf,
}

/// An address that should always answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceConfig {
    /// Its address.
    pub address: Ipv4Addr,
    /// The physical domain it stands in, such as `rack/r1`: for hosts of that domain it bears no witness.
    pub domain: Option<String>,
}

/// How a segment is reached.
#[derive(Debug, Clone)]
pub enum Place {
    /// Through an interface of this machine.
    Interface(String),
    /// Through a socket of an emulated rack, whose segment has this network.
    #[cfg(feature = "lab")]
    Wire(PathBuf, (Ipv4Addr, u8)),
}

/// A segment that is watched.
#[derive(Debug, Clone)]
pub struct WatchConfig {
    /// How it is reached.
    pub place: Place,
    /// Its gateway.
    pub gateway: Option<Ipv4Addr>,
    /// What should always answer.
    pub references: Vec<ReferenceConfig>,
}

/// The read-only API.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Names besides addresses and `localhost` under which it may be asked for.
    pub host_names: Vec<String>,
}

/// The whole configuration.
#[derive(Debug, Clone)]
pub struct ServeConfig {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// The key that opens the secrets; a credential of systemd goes before it.
    pub key_file: PathBuf,
    /// The numbers of the safety rules, if they are not the defaults.
    pub policy: Option<PathBuf>,
    /// How the log is written.
    pub log: LogForm,
    /// The API.
    pub api: ApiConfig,
    /// What is watched.
    pub watches: Vec<WatchConfig>,
    /// The clusters.
    pub clusters: Vec<ClusterConfig>,
    /// The boot servers.
    pub boot: Option<BootConfig>,
}

/// A step of the way to a key.
#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

/// What is wrong, and the way to its key.
struct Wrong<'a>(Vec<Step<'a>>, String);

impl ServeConfig {
    /// Reads and checks a file. `data_dir` of the command line goes before the file's.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn read(path: &Path, data_dir: Option<&Path>) -> Result<ServeConfig, ServeConfigError> {
        let unreadable = |source| ServeConfigError::Read { path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(unreadable)?.len() > FILE_MAX {
            return Err(unreadable(std::io::Error::other(format!("longer than {FILE_MAX} bytes"))));
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let at = |byte: usize, what: String| {
            let (line, column) = place(&text, byte);
            ServeConfigError::Wrong { path: path.to_owned(), line, column, what }
        };
        let malformed = |error: toml::de::Error| {
            let message = error.message().lines().next().unwrap_or_default().to_owned();
            at(error.span().map_or(0, |span| span.start), message)
        };
        let file: File = toml::from_str(&text).map_err(malformed)?;
        let keys = DeTable::parse(&text).map_err(malformed)?;
        let base = path.parent().unwrap_or(Path::new(""));
        let checked = check(file, base, data_dir).map_err(|Wrong(way, what)| {
            let byte = find(keys.get_ref(), &way);
            at(byte, format!("{}: {what}", words(&way)))
        })?;
        let (config, boot) = checked;
        let boot = boot.map(|path| BootConfig::read(&path)).transpose()?;
        Ok(ServeConfig { boot, ..config })
    }
}

fn words(way: &[Step<'_>]) -> String {
    let mut text = String::new();
    for step in way {
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => {
                text.push('.');
                text.push_str(key);
            }
            Step::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

/// Where the last key of a way stands; what is missing is shown where it would belong.
fn find(table: &DeTable<'_>, way: &[Step<'_>]) -> usize {
    let mut found = 0;
    let mut table = table;
    let mut steps = way.iter();
    while let Some(Step::Key(key)) = steps.next() {
        let Some((name, value)) = table.iter().find(|(name, _)| name.get_ref().as_ref() == *key) else { break };
        found = name.span().start;
        let mut inner = value;
        let mut rest = steps.clone();
        if let Some(Step::Index(index)) = rest.next() {
            steps = rest;
            let DeValue::Array(all) = inner.get_ref() else { break };
            let Some(one) = all.get(*index) else { break };
            inner = one;
            found = inner.span().start;
        }
        match inner.get_ref() {
            DeValue::Table(next) => table = next,
            _ => break,
        }
    }
    found
}

/// Line and column of a byte, both from 1.
fn place(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |rest| rest.chars().count()) + 1;
    (line, column)
}

fn check<'a>(file: File, base: &Path, data_dir: Option<&Path>) -> Result<(ServeConfig, Option<PathBuf>), Wrong<'a>> {
    let beside = |path: PathBuf| base.join(path);
    let ApiFile { listen, unauthenticated_and_read_only, host_names } = file.api;
    if !listen.ip().is_loopback() && !unauthenticated_and_read_only {
        let what = format!(
            "{listen} is not on loopback, and nobody who asks there has to say who they are: keep it on loopback behind a proxy \
             that checks people, or write `unauthenticated_and_read_only = true` if whoever reaches it may read everything"
        );
        return Err(Wrong(vec![Step::Key("api"), Step::Key("listen")], what));
    }
    if host_names.iter().any(|name| name.is_empty() || name.contains('/') || name.contains(':')) {
        return Err(Wrong(
            vec![Step::Key("api"), Step::Key("host_names")],
            "write names alone, without port".to_owned(),
        ));
    }
    let mut watches = Vec::new();
    for (index, watch) in file.watches.into_iter().enumerate() {
        watches.push(check_watch(watch, index, base, &watches)?);
    }
    let mut clusters: Vec<ClusterConfig> = Vec::new();
    for (index, mut cluster) in file.clusters.into_iter().enumerate() {
        let wrong = |key: &'a str, what: String| {
            let mut way = vec![Step::Key("cluster"), Step::Index(index)];
            way.extend(key.split('.').map(Step::Key));
            Wrong(way, what)
        };
        cluster.check().map_err(|why| wrong(why.key, why.what))?;
        if clusters.iter().any(|other| other.id == cluster.id) {
            return Err(wrong("id", format!("{} is that of another cluster: give each its own", cluster.id)));
        }
        if cluster.name.is_empty() || clusters.iter().any(|other| other.name == cluster.name) {
            return Err(wrong("name", format!("`{}` is empty or that of another cluster", cluster.name)));
        }
        for path in [&mut cluster.kubeconfig, &mut cluster.ca_file, &mut cluster.token_file].into_iter().flatten() {
            *path = base.join(&*path);
        }
        if let Some(etcd) = &mut cluster.etcd {
            for path in [&mut etcd.ca_file, &mut etcd.cert_file, &mut etcd.key_file].into_iter().flatten() {
                *path = base.join(&*path);
            }
        }
        clusters.push(cluster);
    }
    let data_dir = data_dir.map_or_else(|| beside(file.data_dir), Path::to_owned);
    let config = ServeConfig {
        key_file: file.key_file.map_or_else(|| data_dir.join("key"), beside),
        data_dir,
        policy: file.policy.map(beside),
        log: file.log,
        api: ApiConfig { listen, host_names },
        watches,
        clusters,
        boot: None,
    };
    Ok((config, file.boot.map(|boot| beside(boot.config))))
}

fn check_watch<'a>(
    watch: WatchFile,
    index: usize,
    base: &Path,
    others: &[WatchConfig],
) -> Result<WatchConfig, Wrong<'a>> {
    let wrong = |key: &'a str, what: String| Wrong(vec![Step::Key("watch"), Step::Index(index), Step::Key(key)], what);
    let place = watch_place(&watch, base).map_err(|(key, what)| wrong(key, what))?;
    let same = |other: &WatchConfig| match (&other.place, &place) {
        (Place::Interface(theirs), Place::Interface(ours)) => theirs == ours,
        #[cfg(feature = "lab")]
        (Place::Wire(theirs, _), Place::Wire(ours, _)) => theirs == ours,
        #[cfg(feature = "lab")]
        _ => false,
    };
    if others.iter().any(same) {
        return Err(wrong("interface", "is watched twice".to_owned()));
    }
    let references = others.iter().map(|other| other.references.len()).sum::<usize>() + watch.references.len();
    if references > crate::watch::target::REFERENCES_MAX {
        let what = format!("more than {} in all: keep the most independent ones", crate::watch::target::REFERENCES_MAX);
        return Err(wrong("reference", what));
    }
    if watch.references.is_empty() {
        let what =
            "missing: without an address that always answers, a silent host cannot be told from our own blindness";
        return Err(wrong("reference", what.to_owned()));
    }
    let group = |address: Ipv4Addr| IpAddr::from(address).is_multicast() || address.is_unspecified();
    if watch.gateway.is_some_and(group) {
        return Err(wrong("gateway", "is no address of one host".to_owned()));
    }
    if let Some(bad) = watch.references.iter().find(|reference| group(reference.address)) {
        return Err(wrong("reference", format!("{} is no address of one host", bad.address)));
    }
    Ok(WatchConfig { place, gateway: watch.gateway, references: watch.references })
}

const NO_INTERFACE: &str = "missing: name the interface through which hosts are probed";

#[cfg(not(feature = "lab"))]
fn watch_place(watch: &WatchFile, _: &Path) -> Result<Place, (&'static str, String)> {
    watch.interface.clone().map(Place::Interface).ok_or_else(|| ("interface", NO_INTERFACE.to_owned()))
}

#[cfg(feature = "lab")]
fn watch_place(watch: &WatchFile, base: &Path) -> Result<Place, (&'static str, String)> {
    match (&watch.interface, &watch.wire, &watch.network) {
        (Some(interface), None, None) => Ok(Place::Interface(interface.clone())),
        (None, Some(wire), Some(network)) => {
            let parsed = network.split_once('/').and_then(|(address, prefix)| {
                let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
                Some((address.parse().ok()?, prefix))
            });
            let network =
                parsed.ok_or_else(|| ("network", format!("`{network}` is no network: write 10.64.0.0/16")))?;
            Ok(Place::Wire(base.join(wire), network))
        }
        (None, Some(_), None) => Err(("network", "missing: an emulated segment has no interface to ask".to_owned())),
        (None, None, _) => Err(("interface", NO_INTERFACE.to_owned())),
        (Some(_), ..) => Err(("interface", "a segment has either an interface or a wire".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ServeConfig, String> {
        let thread = format!("{:?}", std::thread::current().id());
        let folder = std::env::temp_dir().join(format!("rackmedic-serve-config-{}-{thread}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("rackmedic.toml");
        std::fs::write(&path, text).unwrap();
        let read = ServeConfig::read(&path, None);
        let read = read.map_err(|why| why.to_string().replace(&format!("{}/", folder.display()), ""));
        std::fs::remove_dir_all(&folder).unwrap();
        read
    }

    const GOOD: &str = r#"data_dir = "data"
policy = "policy.toml"

[api]
listen = "127.0.0.1:8420"

[[watch]]
interface = "eth0"
gateway = "10.0.0.1"
reference = [{ address = "10.0.0.2", domain = "rack/r1" }]

[[cluster]]
id = 1
name = "prod"
kubeconfig = "kubeconfig"

[[cluster.control_plane]]
node = "cp1"
api = "https://10.0.0.11:6443"
"#;

    #[test]
    fn a_good_file_is_read_and_its_paths_are_beside_it() {
        let config = read(GOOD).unwrap();
        assert!(config.data_dir.is_absolute() && config.data_dir.ends_with("data"));
        assert_eq!(config.key_file, config.data_dir.join("key"));
        assert!(config.clusters[0].kubeconfig.as_ref().unwrap().is_absolute());
        assert_eq!(config.watches.len(), 1);
    }

    #[test]
    fn what_is_wrong_is_said_with_line_column_and_key() {
        for (from, to, says) in [
            ("[api]\n", "[api]\nlisten_on = 1\n", "rackmedic.toml:5:1: unknown field `listen_on`"),
            ("127.0.0.1:8420", "127.0.0.1", "rackmedic.toml:5:10: `127.0.0.1` is no address with a port"),
            ("127.0.0.1:8420", "0.0.0.0:8420", "rackmedic.toml:5:1: api.listen: 0.0.0.0:8420 is not on loopback"),
            ("interface = \"eth0\"\n", "", "rackmedic.toml:7:1: watch[0].interface: missing"),
            ("reference = [", "reference = [] #", "rackmedic.toml:10:1: watch[0].reference: missing"),
            ("kubeconfig = \"kubeconfig\"\n", "", "cluster[0].kubeconfig: missing"),
            ("https://10.0.0.11", "http://10.0.0.11", "write https://address:port"),
            ("id = 1", "id = \"one\"", "rackmedic.toml:13:6: invalid type"),
            ("data_dir = ", "data_dir ", "rackmedic.toml:1:"),
            ("[[watch]]\n", "[boot]\nconfig = \"no.toml\"\n[[watch]]\n", "no.toml"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let error = read(&GOOD.replace(from, to)).unwrap_err();
            assert!(error.contains(says), "{to}: {error}");
        }
    }

    #[test]
    fn who_says_plainly_that_all_may_read_may_listen_anywhere() {
        let text =
            GOOD.replace("listen = \"127.0.0.1:8420\"", "listen = \"0.0.0.0:1\"\nunauthenticated_and_read_only = true");
        assert!(read(&text).is_ok());
    }

    #[test]
    fn two_clusters_of_one_number_are_refused_where_the_second_says_it() {
        let second = GOOD.split("[[cluster]]").nth(1).unwrap().replace("prod", "test");
        let error = read(&format!("{GOOD}\n[[cluster]]{second}")).unwrap_err();
        assert!(error.contains(":22:1: cluster[1].id: 1 is that of another cluster"), "{error}");
    }
}
