//! The configuration of the boot servers (`boot.toml`). An error names the file, the line and the key.

use super::job::HostWays;
use crate::rejoin::alone::PlanOfAll;
use crate::rejoin::credential::Lifetime;
use crate::rejoin::driver::{Driver, DriverFile, Preset};
use crate::rejoin::first_boot::OptionValue;
use crate::rejoin::names::Endpoint;
use protocol::name::Name;
use protocol::signature::PublicKey;
use pxe::dhcp::decide::LONGEST_LEASE;
use pxe::dhcp::scope::{Mode, Reservation, Scope, Subnet};
use pxe::gate::{FirstLoader, ProxyStyle};
use pxe::mac::Mac;
use pxe::script::{KernelArguments, LocalBoot};
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the file system says.
        source: std::io::Error,
    },
    /// It is no TOML, or has a key of another kind or name.
    #[error("{path}: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and key.
        message: String,
    },
    /// It contradicts itself.
    #[error("{path}: {key}: {what}")]
    Content {
        /// The file.
        path: PathBuf,
        /// Which key.
        key: String,
        /// What is wrong, and what to write instead.
        what: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    data_dir: PathBuf,
    store: PathBuf,
    boot_set: String,
    trusted_keys: Vec<String>,
    #[serde(default)]
    kernel_arguments: String,
    media: Option<MediaFile>,
    join: Option<JoinFile>,
    #[serde(default, rename = "link")]
    links: Vec<LinkFile>,
    #[serde(default, rename = "host")]
    hosts: Vec<HostFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MediaFile {
    address: Ipv4Addr,
    #[serde(default = "default_http")]
    port: u16,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JoinFile {
    cluster: Option<String>,
    kubeconfig: PathBuf,
    preset: Option<Preset>,
    driver: Option<PathBuf>,
    endpoint: Option<Endpoint>,
    #[serde(default)]
    slow: bool,
    #[serde(default)]
    options: BTreeMap<String, OptionValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkFile {
    interface: String,
    mode: String,
    address: Option<Ipv4Addr>,
    #[serde(default = "default_http")]
    http_port: u16,
    #[serde(default = "default_installer")]
    installer_port: u16,
    #[serde(default, rename = "subnet")]
    subnets: Vec<SubnetFile>,
}

const fn default_http() -> u16 {
    80
}

const fn default_installer() -> u16 {
    8443
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SubnetFile {
    network: String,
    router: Option<Ipv4Addr>,
    #[serde(default)]
    dns: Vec<Ipv4Addr>,
    range: Option<[Ipv4Addr; 2]>,
    lease_s: Option<u64>,
    #[serde(default)]
    relays: Vec<Ipv4Addr>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HostFile {
    name: String,
    mac: String,
    address: Option<Ipv4Addr>,
    #[serde(default)]
    first_loader: String,
    #[serde(default)]
    proxy_style: String,
    #[serde(default)]
    local_boot: String,
}

/// One interface.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// Its name.
    pub interface: String,
    /// Our address on it, when it has several.
    pub address: Option<Ipv4Addr>,
    /// What DHCP serves on it.
    pub scope: Scope,
    /// The port of the boot HTTP server.
    pub http_port: u16,
    /// The port of the installer's HTTPS.
    pub installer_port: u16,
}

/// The cluster that hosts join, and how.
#[derive(Clone)]
pub struct JoinConfig {
    /// Its name in the configuration of the server, where that has several.
    pub cluster: Option<String>,
    /// How its API is reached.
    pub kubeconfig: PathBuf,
    /// What its distribution wants.
    pub driver: Driver,
    /// What is the same for all hosts.
    pub plan: PlanOfAll,
}

/// Its options may be secrets.
impl std::fmt::Debug for JoinConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinConfig")
            .field("kubeconfig", &self.kubeconfig)
            .field("driver", &self.driver.name)
            .finish_non_exhaustive()
    }
}

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct BootConfig {
    /// Where jobs, leases and keys are kept.
    pub data_dir: PathBuf,
    /// Where images and boot sets are.
    pub store: PathBuf,
    /// The version of the boot set that is served.
    pub boot_set: Name,
    /// Who may sign images and boot sets.
    pub trusted_keys: Vec<PublicKey>,
    /// Further arguments for the installer's kernel.
    pub kernel_arguments: KernelArguments,
    /// Where BMCs fetch images for virtual drives; `None`: where hosts fetch theirs.
    pub media: Option<SocketAddrV4>,
    /// The cluster that hosts join.
    pub join: Option<JoinConfig>,
    /// The interfaces.
    pub links: Vec<LinkConfig>,
    /// What is special about some hosts.
    pub ways: HashMap<Mac, HostWays>,
}

impl BootConfig {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let file: File = toml::from_str(&text)
            .map_err(|e| ConfigError::Syntax { path: path.to_owned(), message: e.to_string().trim_end().to_owned() })?;
        check(file, path.parent().unwrap_or(Path::new("."))).map_err(|(key, what)| ConfigError::Content {
            path: path.to_owned(),
            key,
            what,
        })
    }
}

type Wrong = (String, String);

fn wrong(key: impl Into<String>, what: impl ToString) -> Wrong {
    (key.into(), what.to_string())
}

fn check(file: File, base: &Path) -> Result<BootConfig, Wrong> {
    let trusted_keys = file.trusted_keys.iter().enumerate();
    let trusted_keys = trusted_keys
        .map(|(index, text)| text.parse().map_err(|e| wrong(format!("trusted_keys[{index}]"), e)))
        .collect::<Result<Vec<PublicKey>, _>>()?;
    if trusted_keys.is_empty() {
        return Err(wrong(
            "trusted_keys",
            "nobody is trusted, so no image can be installed: name the key that signs yours",
        ));
    }
    if file.links.is_empty() {
        return Err(wrong("link", "no interface is served: write [[link]] with interface and mode"));
    }
    let (ways, reservations) = hosts(&file.hosts)?;
    let mut links = Vec::new();
    for (index, link) in file.links.iter().enumerate() {
        if file.links.iter().take(index).any(|other| other.interface == link.interface) {
            return Err(wrong(format!("link[{index}].interface"), format!("{} is there twice", link.interface)));
        }
        links.push(check_link(link, index, &reservations)?);
    }
    Ok(BootConfig {
        data_dir: base.join(file.data_dir),
        store: base.join(file.store),
        boot_set: file.boot_set.parse().map_err(|e| wrong("boot_set", e))?,
        trusted_keys,
        kernel_arguments: file.kernel_arguments.parse().map_err(|e| wrong("kernel_arguments", e))?,
        join: file.join.map(|join| check_join(join, base)).transpose()?,
        media: file.media.map(|media| SocketAddrV4::new(media.address, media.port)),
        links,
        ways,
    })
}

fn check_join(join: JoinFile, base: &Path) -> Result<JoinConfig, Wrong> {
    let driver = match (join.preset, join.driver) {
        (Some(preset), None) => preset.driver().map_err(|e| wrong("join.preset", e))?,
        (None, Some(place)) => {
            let place = base.join(place);
            let failed = |what: String| wrong("join.driver", format!("{}: {what}", place.display()));
            let text = std::fs::read_to_string(&place).map_err(|e| failed(e.to_string()))?;
            let file: DriverFile = toml::from_str(&text).map_err(|e| failed(e.to_string().trim_end().to_owned()))?;
            file.driver(place.parent().unwrap_or(base)).map_err(|e| failed(e.to_string()))?
        }
        _ => {
            return Err(wrong(
                "join.preset",
                "write either `preset` (kubeadm, k3s, rke2, talos) or `driver`, its file",
            ));
        }
    };
    let lifetime = if join.slow { Lifetime::SLOW } else { Lifetime::USUAL };
    let plan = PlanOfAll { endpoint: join.endpoint, options: join.options, lifetime };
    Ok(JoinConfig { cluster: join.cluster, kubeconfig: base.join(join.kubeconfig), driver, plan })
}

type Hosts = (HashMap<Mac, HostWays>, HashMap<Mac, Reservation>);

fn hosts(hosts: &[HostFile]) -> Result<Hosts, Wrong> {
    let (mut ways, mut reservations) = (HashMap::new(), HashMap::<Mac, Reservation>::new());
    for (index, host) in hosts.iter().enumerate() {
        let key = |field: &str| format!("host[{index}].{field}");
        let name: Name = host.name.parse().map_err(|e| wrong(key("name"), e))?;
        let mac: Mac = host.mac.parse().map_err(|e| wrong(key("mac"), e))?;
        if !mac.is_unicast() {
            return Err(wrong(key("mac"), format!("{mac} names a group, not a card")));
        }
        let first_loader = match host.first_loader.as_str() {
            "" | "ipxe" => FirstLoader::Ipxe,
            "shim" => FirstLoader::Shim,
            other => return Err(wrong(key("first_loader"), format!("'{other}' is neither ipxe nor shim"))),
        };
        let proxy_style = match host.proxy_style.as_str() {
            "" | "offer" => ProxyStyle::Offer,
            "port-4011" => ProxyStyle::Port4011,
            other => return Err(wrong(key("proxy_style"), format!("'{other}' is neither offer nor port-4011"))),
        };
        let local_boot = match host.local_boot.as_str() {
            "" | "usual" => LocalBoot::Usual,
            "exit" => LocalBoot::Exit,
            other => return Err(wrong(key("local_boot"), format!("'{other}' is neither usual nor exit"))),
        };
        if ways.insert(mac, HostWays { first_loader, proxy_style, local_boot }).is_some() {
            return Err(wrong(key("mac"), format!("{mac} belongs to an earlier host already")));
        }
        if let Some(address) = host.address {
            if let Some((other, _)) = reservations.iter().find(|(_, r)| r.address == address) {
                return Err(wrong(key("address"), format!("{address} is reserved for {other} already")));
            }
            reservations.insert(mac, Reservation { address, host_name: Some(name.to_string()) });
        }
    }
    Ok((ways, reservations))
}

fn check_link(link: &LinkFile, index: usize, reservations: &HashMap<Mac, Reservation>) -> Result<LinkConfig, Wrong> {
    let key = |field: &str| format!("link[{index}].{field}");
    let mode = match link.mode.as_str() {
        "server" => Mode::Server,
        "proxy" => Mode::Proxy,
        other => return Err(wrong(key("mode"), format!("'{other}' is neither server nor proxy"))),
    };
    let mut subnets = Vec::new();
    for (number, subnet) in link.subnets.iter().enumerate() {
        subnets.push(check_subnet(subnet, &key(&format!("subnet[{number}]")))?);
    }
    if mode == Mode::Server && subnets.is_empty() {
        return Err(wrong(key("subnet"), "a DHCP server needs at least one [[link.subnet]] with its network"));
    }
    if link.http_port == link.installer_port {
        return Err(wrong(key("installer_port"), "the installer's HTTPS needs another port than the boot HTTP server"));
    }
    Ok(LinkConfig {
        interface: link.interface.clone(),
        address: link.address,
        scope: Scope { mode, subnets, reservations: reservations.clone() },
        http_port: link.http_port,
        installer_port: link.installer_port,
    })
}

fn check_subnet(subnet: &SubnetFile, key: &str) -> Result<Subnet, Wrong> {
    let parsed = subnet.network.split_once('/').and_then(|(network, prefix)| {
        let prefix: u8 = prefix.parse().ok().filter(|prefix| (8..=30).contains(prefix))?;
        Some((network.parse::<Ipv4Addr>().ok()?, prefix))
    });
    let Some((network, prefix)) = parsed else {
        return Err(wrong(
            format!("{key}.network"),
            format!("'{}' is no network: write 10.77.0.0/24 (8 to 30)", subnet.network),
        ));
    };
    let lease = subnet.lease_s.unwrap_or(3600);
    let checked = Subnet {
        network,
        prefix,
        router: subnet.router,
        dns: subnet.dns.clone(),
        range: subnet.range.map(|[first, last]| (first, last)),
        lease: Duration::from_secs(lease),
        relays: subnet.relays.clone(),
    };
    if u32::from(network) & !u32::from(checked.mask()) != 0 {
        return Err(wrong(format!("{key}.network"), format!("{network} is not the first address of a /{prefix}")));
    }
    if !(60..=LONGEST_LEASE.as_secs()).contains(&lease) {
        return Err(wrong(format!("{key}.lease_s"), format!("{lease} is not 60 to {}", LONGEST_LEASE.as_secs())));
    }
    if let Some((first, last)) = checked.range
        && (first > last || !checked.holds(first) || !checked.holds(last))
    {
        return Err(wrong(format!("{key}.range"), format!("{first} to {last} does not lie in {}", subnet.network)));
    }
    if let Some(router) = subnet.router.filter(|router| !checked.holds(*router)) {
        return Err(wrong(format!("{key}.router"), format!("{router} does not lie in {}", subnet.network)));
    }
    Ok(checked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::signature::PublicKey;

    fn read(text: &str) -> Result<BootConfig, String> {
        let folder = std::env::temp_dir().join(format!(
            "rackmedic-boot-config-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("boot.toml");
        std::fs::write(&path, text).unwrap();
        let read = BootConfig::read(&path).map_err(|e| e.to_string().replace(&path.display().to_string(), "boot.toml"));
        std::fs::remove_dir_all(&folder).unwrap();
        read
    }

    fn good() -> String {
        let key = PublicKey::of(&ed25519_dalek::SigningKey::from_bytes(&[1; 32]));
        format!(
            r#"data_dir = "/tmp/x"
store = "/tmp/y"
boot_set = "1"
trusted_keys = ["{key}"]
[[link]]
interface = "eth0"
mode = "server"
[[link.subnet]]
network = "10.77.0.0/24"
range = ["10.77.0.100", "10.77.0.200"]
[[host]]
name = "n1"
mac = "52:54:00:77:00:01"
address = "10.77.0.50"
"#
        )
    }

    #[test]
    fn a_good_file_is_read() {
        let config = read(&good()).unwrap();
        assert_eq!(config.links[0].scope.reservations.len(), 1);
        assert_eq!(config.links[0].http_port, 80);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (from, to, says) in [
            ("mode = \"server\"", "mode = \"both\"", "link[0].mode: 'both' is neither server nor proxy"),
            ("mode = \"server\"", "mode = \"server\"\nspeed = 1", "line 8"),
            ("/24", "/33", "link[0].subnet[0].network"),
            ("10.77.0.0/24", "10.77.0.7/24", "not the first address"),
            ("10.77.0.200", "10.78.0.200", "does not lie in"),
            ("52:54:00:77:00:01", "ff:ff:ff:ff:ff:ff", "names a group"),
            ("52:54:00:77:00:01", "52:54", "host[0].mac"),
            ("rackmedic-key-1:", "key:", "trusted_keys[0]"),
            ("boot_set = \"1\"", "boot_set = \"../1\"", "boot_set"),
            ("boot_set = \"1\"", "boot_set = \"1\"\nkernel_arguments = \"a;b\"", "kernel_arguments"),
            ("[[link]]", "[join]\nkubeconfig = \"k\"\n[[link]]", "join.preset: write either"),
            ("[[link]]", "[join]\nkubeconfig = \"k\"\ndriver = \"none.toml\"\n[[link]]", "join.driver"),
            ("[[link]]", "[join]\nkubeconfig = \"k\"\npreset = \"kops\"\n[[link]]", "unknown variant"),
            ("[[link]]", "[media]\naddress = \"x\"\n[[link]]", "line 6"),
        ] {
            let text = good();
            assert!(text.contains(from), "{from}");
            let error = read(&text.replace(from, to)).unwrap_err();
            assert!(error.contains(says), "{to}: {error}");
        }
    }
}
