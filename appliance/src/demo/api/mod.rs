//! An emulated Kubernetes API: objects, list and watch, patches, refusals, over TLS with an authority of its own.
//!
//! It knows no machine: what a client meets at each server is told by its gate. Real clients (kube, kubectl) check that it
//! is an API at all.

pub mod answer;
pub mod authority;
pub mod change;
pub mod discovery;
pub mod filter;
pub mod kinds;
pub mod objects;
pub mod path;
pub mod refusal;
pub mod server;
pub mod watching;
