//! The wires: one switch, to which appliance, control plane and BMCs are plugged by veth and hosts by tap.

use crate::layout::{APPLIANCE, CONTROL_PLANE, GATEWAY, Rack};
use crate::run::run;
use anyhow::Result;

fn ip(words: &str) -> Result<()> {
    run("ip", &words.split(' ').collect::<Vec<_>>()).map(drop)
}

/// Plugs a namespace of its own into the switch.
fn plug(rack: &Rack, namespace: &str, port: &str) -> Result<()> {
    ip(&format!("netns add {namespace}"))?;
    ip(&format!("-n {namespace} link set lo up"))?;
    ip(&format!("-n {} link add {port} type veth peer name eth0 netns {namespace}", rack.wire()))?;
    ip(&format!("-n {} link set {port} master br0 up", rack.wire()))?;
    ip(&format!("-n {namespace} link set eth0 up"))
}

/// Makes all of it, with taps and BMC addresses for hosts 1 to `hosts`.
///
/// # Errors
/// What `ip` says, above all that it is not run by root or that the rack is there already.
pub fn make(rack: &Rack, hosts: u8) -> Result<()> {
    ip(&format!("netns add {}", rack.wire()))?;
    ip(&format!("-n {} link set lo up", rack.wire()))?;
    ip(&format!("-n {} link add br0 type bridge stp_state 0 forward_delay 0", rack.wire()))?;
    ip(&format!("-n {} addr add {GATEWAY}/24 dev br0", rack.wire()))?;
    ip(&format!("-n {} link set br0 up", rack.wire()))?;
    plug(rack, &rack.appliance(), "appliance")?;
    ip(&format!("-n {} addr add {APPLIANCE}/24 dev eth0", rack.appliance()))?;
    plug(rack, &rack.control(), "control")?;
    ip(&format!("-n {} addr add {CONTROL_PLANE}/24 dev eth0", rack.control()))?;
    plug(rack, &rack.bmcs(), "bmc")?;
    for namespace in [rack.appliance(), rack.control(), rack.bmcs()] {
        // The BMCs have no address of the switch's own yet, so their route waits for the first one below.
        if namespace != rack.bmcs() {
            ip(&format!("-n {namespace} route add default via {GATEWAY}"))?;
        }
    }
    for host in (1..=hosts).map(|number| rack.host(number)) {
        ip(&format!("-n {} addr add {}/24 dev eth0", rack.bmcs(), host.bmc_address()))?;
        ip(&format!("-n {} tuntap add {} mode tap", rack.wire(), host.tap()))?;
        ip(&format!("-n {} link set {} master br0 up", rack.wire(), host.tap()))?;
    }
    Ok(())
}

/// Takes the namespaces away, whatever of them is there.
pub fn remove(rack: &Rack) {
    for namespace in [rack.appliance(), rack.control(), rack.bmcs(), rack.wire()] {
        let _ = ip(&format!("netns del {namespace}"));
    }
}

/// Pulls or plugs a port of the switch: `appliance`, `control`, `bmc` or a host's tap.
///
/// # Errors
/// There is no such port.
pub fn plugged(rack: &Rack, port: &str, up: bool) -> Result<()> {
    ip(&format!("-n {} link set {port} {}", rack.wire(), if up { "up" } else { "down" }))
}
