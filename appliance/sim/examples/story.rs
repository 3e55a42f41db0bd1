//! Prints one scripted story: `cargo run -p sim --example story -- kernel-stuck`.
#![allow(clippy::print_stdout)]

use healing::id::HostId;
use healing::rules::Enforced;
use sim::fault::Fault;
use sim::simulation::Simulation;
use sim::site::Site;

fn main() {
    let site = Site::plain(3, 6, 1, 7);
    let mut simulation = Simulation::new(Enforced, &site).with_transcript();
    for checker in sim::checks::all() {
        simulation = simulation.watched_by(checker);
    }
    let fault = match std::env::args().nth(1).as_deref() {
        Some("os-broken") => Fault::OsBroken,
        Some("nic-dead") => Fault::NicDead,
        Some("reboot") => Fault::PlainReboot,
        Some("userspace") => Fault::UserspaceDead,
        Some("hardware") => Fault::Hardware(healing::signal::HardwareFault::Memory),
        Some("kubelet") => Fault::Component(healing::signal::Component::Kubelet, healing::signal::ComponentCause::Dead),
        _ => Fault::KernelStuck,
    };
    let host = std::env::args().nth(2).and_then(|a| a.parse().ok()).unwrap_or(5);
    simulation.at_fault(10 * 60_000, fault, Some(HostId(host)));
    simulation.run_until(2 * 3_600_000);
    simulation.finish();
    if let Some(transcript) = simulation.transcript() {
        print!("{}", transcript.text());
    }
    for breach in simulation.breaches() {
        println!("BREACH {breach:?}");
    }
}
