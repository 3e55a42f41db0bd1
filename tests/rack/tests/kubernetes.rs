//! The harness itself: a host joins by hand, as an administrator would do it with kubeadm's own commands.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "tests")]

use rack::kubernetes::{ControlPlane, Node, Programs, alone, run, wait_for};
use std::time::{Duration, Instant};

#[test]
fn a_host_joins_a_real_control_plane_by_kubeadm() {
    let Some(programs) = Programs::named().unwrap() else {
        eprintln!("not run: RACKMEDIC_KUBERNETES names no folder of programs");
        return;
    };
    if !alone("a_host_joins_a_real_control_plane_by_kubeadm").unwrap() {
        return;
    }
    let begun = Instant::now();
    let rack = ControlPlane::start(&programs).unwrap();
    eprintln!("control plane ready after {:.1} s", begun.elapsed().as_secs_f64());

    let kubeconfig = rack.kubeconfig();
    let print = ["token", "create", "--print-join-command", "--kubeconfig", kubeconfig.to_str().unwrap()];
    let join = run(programs.command("kubeadm").args(print)).unwrap();
    let mut host = Node::new(&rack, "n1", 1).unwrap();
    host.reimage().unwrap();
    host.power_on().unwrap();
    let begun = Instant::now();
    let mut words: Vec<&str> = join.split_whitespace().collect();
    words.extend(["--node-name", "n1", "--ignore-preflight-errors=all"]);
    let said = host.run(&words).unwrap_or_else(|e| panic!("{e}\n{}", host.log_tail("kubelet")));
    assert!(said.contains("This node has joined the cluster"), "{said}");
    wait_for(Duration::from_secs(60), "n1 is Ready", || {
        let conditions =
            rack.kubectl(&["get", "node", "n1", "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].status}"]);
        (conditions.ok()? == "True").then_some(())
    })
    .unwrap_or_else(|e| panic!("{e}\n{}\n{}", host.log_tail("kubelet"), host.log_tail("containerd")));
    eprintln!("joined and Ready after {:.1} s", begun.elapsed().as_secs_f64());

    // The Node says which boot it runs: the host's own, not this machine's.
    let boot_id = rack.kubectl(&["get", "node", "n1", "-o", "jsonpath={.status.nodeInfo.bootID}"]).unwrap();
    assert_eq!(Some(boot_id.as_str()), host.boot_id());
}
