//! DHCP in server mode, ProxyDHCP on ports 67 and 4011: RFC 2131, 2132, 3046, 4578, PXE 2.1, UEFI 2.5 (HTTP boot).
//!
//! Rings: bytes ([`options`], [`request`], [`reply`]) → what to answer ([`decide`], a pure function of the request, the
//! ticket and the leases) → sockets ([`server`]).

pub mod decide;
pub mod destination;
pub mod foreign;
pub mod frame;
pub mod lease;
pub mod lease_file;
pub mod options;
pub(crate) mod packet_socket;
pub mod reply;
pub mod request;
pub mod scope;
pub mod server;
