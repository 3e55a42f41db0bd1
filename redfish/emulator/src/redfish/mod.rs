//! Redfish, the BMC's side.

mod answer;
mod server;
mod tree;
mod write;

pub(crate) use server::serve;
