//! Where the lab's policy may be used: its short waits are for emulated hosts, so everything that is named must be on
//! loopback, unless the process runs in a network namespace of its own, from which no real machine is reached by mistake.

use super::config::{Place, ServeConfig};
use std::io;
use std::net::SocketAddr;

/// Inode of the network namespace in which the first process of a machine runs (`PROC_NET_INIT_INO` is not exported; the
/// link of process 1 is).
fn namespaces() -> io::Result<(std::path::PathBuf, std::path::PathBuf)> {
    Ok((std::fs::read_link("/proc/self/ns/net")?, std::fs::read_link("/proc/1/ns/net")?))
}

/// Whether this process has a network namespace of its own. When it cannot be told, it has none.
#[must_use]
pub fn own_namespace() -> bool {
    namespaces().is_ok_and(|(ours, first)| ours != first)
}

/// Everything outside of loopback that a configuration names, by key.
///
/// # Errors
/// The first of them, in words.
pub fn inside(config: &ServeConfig) -> Result<(), String> {
    let outside = |key: String, what: &str| {
        Err(format!(
            "{key}: {what} is not on loopback, and the lab's short waits are for emulated hosts only: \
             run it in a network namespace of its own (`ip netns exec`), or use `rackmedic serve`"
        ))
    };
    for (index, watch) in config.watches.iter().enumerate() {
        // Beyond an interface, be it `lo`, addresses are the kernel's to route; behind a wire there is only what is emulated.
        if let Place::Interface(name) = &watch.place {
            return outside(format!("watch[{index}].interface"), name);
        }
    }
    for (index, cluster) in config.clusters.iter().enumerate() {
        let planes = cluster.control_planes.iter().flat_map(|plane| std::iter::once(&plane.api).chain(&plane.etcd));
        for url in cluster.vip.iter().chain(planes) {
            let place = url.rsplit_once("//").map_or(url.as_str(), |(_, rest)| rest).trim_end_matches('/');
            if !place.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback()) {
                return outside(format!("cluster[{index}]"), url);
            }
        }
    }
    if config.boot.is_some() {
        return outside("boot".to_owned(), "a boot server");
    }
    Ok(())
}
