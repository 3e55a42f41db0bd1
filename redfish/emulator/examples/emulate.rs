//! One emulated BMC, and a power distribution unit that feeds its host, by hand:
//! `cargo run -p bmc-emulator --example emulate -- MODEL REDFISH_PORT IPMI_PORT CONTROL_PORT PDU_PORT`.
#![allow(clippy::print_stdout, clippy::expect_used, clippy::unwrap_used)]

use bmc_emulator::{Certificate, Emulator, Pdu, PduSetup, Setup, by_name, serve_control};

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let model = arguments.first().map_or("dell_r750", String::as_str);
    let port = |at: usize, default: u16| arguments.get(at).map_or(default, |text| text.parse().expect("a port"));
    let certificate = Certificate::make().expect("a certificate");
    let mut setup = Setup::of(by_name(model).expect("a model"));
    (setup.redfish_port, setup.ipmi_port) = (port(1, 18_443), port(2, 18_623));
    let emulator = Emulator::start(setup, &certificate).await.expect("the ports are free");
    let control = serve_control(emulator.handle().clone(), ([127, 0, 0, 1], port(3, 18_080)).into()).await;
    let unit = PduSetup { port: port(4, 18_444), ..PduSetup::feeding(&[emulator.handle()]) };
    let pdu = Pdu::start(unit, &certificate).await.expect("the port is free");
    println!("redfish://admin@{} --tls-pin {}", emulator.redfish(), certificate.fingerprint());
    println!("ipmi://admin@{}", emulator.ipmi());
    println!("control http://{}", control.expect("the port is free").0);
    println!("password secret-of-a-bmc");
    println!("pdu https://admin@{}/redfish/v1/PowerEquipment, password secret-of-a-pdu", pdu.address());
    std::future::pending::<()>().await;
}
