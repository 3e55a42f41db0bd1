//! TFTP, read only (RFC 1350, 1123 section 4.2.3, 2347, 2348, 2349, 7440), for those whom the gate lets in.
//!
//! In rings: the bytes of a packet, one transfer as a machine of packets and time, the sockets. Nothing is read from a
//! file system, and whoever may not have a file hears nothing.

pub mod packet;
mod segments;
pub mod server;
pub mod transfer;
