//! A real Kubernetes control plane ([`ControlPlane`]) and nodes in namespaces whose kubelets and container runtimes are real
//! ([`Node`]). The programs come from `tests/rack/kubernetes/install`; nothing in here is Go.
//!
//! A test runs [`alone()`]: in namespaces that end with it, so nothing listens outside and nothing is left.

mod alone;
mod control_plane;
mod node;
mod programs;
mod service;

pub use alone::alone;
pub use control_plane::{ADDRESS, ControlPlane, GuestFile, Place};
pub use node::Node;
pub use programs::Programs;
pub use service::{Service, run, wait_for};
