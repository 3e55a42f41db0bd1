//! Network boot: DHCP, ProxyDHCP, TFTP and HTTP boot behind one gate.
//!
//! Silent until a ticket is open: what may be said to whom is decided in one place (`gate`), and every server asks it.
//! The crate never knows of clusters, BMCs, incidents or policies: a ticket is all it is told.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod arch;
pub mod dhcp;
pub mod files;
pub mod gate;
pub mod grub;
pub mod http;
pub mod interface_mtu;
pub mod mac;
pub mod peers;
pub mod probe;
pub mod recorder;
pub mod router;
pub mod script;
pub mod tftp;
