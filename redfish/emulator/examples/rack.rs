//! Many emulated BMCs in one process, for benchmarks: `rack COUNT DEAD_PERCENT LATE_PERCENT`. Prints the fingerprint, then
//! a line `IPMI_PORT REDFISH_PORT` for each, then `ready`; ends when its input does.
#![allow(clippy::print_stdout, clippy::expect_used, clippy::unwrap_used, clippy::panic)]

use bmc_emulator::{Certificate, Emulator, Misbehaviour, Setup, by_name};
use machine::BmcFault;
use std::io::Read as _;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let numbers: Vec<usize> = std::env::args().skip(1).map(|text| text.parse().expect("a number")).collect();
    let [count, dead, late] = numbers.as_slice() else { panic!("rack COUNT DEAD_PERCENT LATE_PERCENT") };
    let certificate = Certificate::make().expect("a certificate");
    println!("{}", certificate.fingerprint());
    let mut rack = Vec::new();
    for place in 0..*count {
        let mut setup = Setup::of(by_name("dell_r750").expect("a model"));
        setup.seed = place as u64;
        setup.spec.identity = 0x5000 + place as u128;
        let emulator = Emulator::start(setup, &certificate).await.expect("ports are free");
        // Spread evenly: the first of each hundred are the bad ones.
        if place % 100 < *dead {
            emulator.handle().inject_bmc(BmcFault::Dead);
        } else if place % 100 < dead + late {
            emulator.handle().set(Misbehaviour::ThirtySecondsLate, true);
        }
        println!("{} {}", emulator.ipmi().port(), emulator.redfish().port());
        rack.push(emulator);
    }
    println!("ready");
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await.ok();
}
