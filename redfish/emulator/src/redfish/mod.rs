//! Redfish, the BMC's side.

pub(crate) mod answer;
pub(crate) mod http;
mod server;
mod tree;
mod write;

pub(crate) use server::serve;
