//! Redfish, the BMC's side.

mod accounts;
pub(crate) mod answer;
pub(crate) mod http;
mod sensors;
mod server;
mod service;
mod tree;
mod write;

pub(crate) use server::serve;
#[cfg(test)]
pub(crate) use tree::resource;
