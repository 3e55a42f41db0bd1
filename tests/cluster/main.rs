//! The cluster client against a Kubernetes that nobody here wrote: a real etcd, API server, controller manager and scheduler,
//! each test with its own, in namespaces that end with it. Nodes are Node and Lease objects that the test keeps alive, where
//! no kubelet is needed. `RACKMEDIC_KUBERNETES` names the folder of programs (tests/rack/kubernetes/install prints it);
//! without it each test says that it was not run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod acts;
mod etcd;
mod fake_nodes;
mod outages;
mod proxy;
mod sight;
mod world;

/// The programs, in namespaces of the test's own; `None` outside of them, and without programs.
fn alone(test: &str) -> Option<rack::kubernetes::Programs> {
    let Some(programs) = rack::kubernetes::Programs::named().unwrap() else {
        eprintln!("{test}: not run: RACKMEDIC_KUBERNETES names no folder of programs (tests/rack/kubernetes/install)");
        return None;
    };
    rack::kubernetes::alone(test).unwrap().then_some(programs)
}
