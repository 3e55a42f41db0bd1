//! A packet to port 67 or 4011: read, and asked everything that the servers ask of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pxe::arch;
use pxe::dhcp::foreign;
use pxe::dhcp::options::{Options, code};
use pxe::dhcp::request::Message;
use pxe::dhcp::scope::Mode;

fuzz_target!(|bytes: &[u8]| {
    let Ok(message) = Message::read(bytes) else { return };
    assert!(message.mac.is_unicast());
    let _ = (message.boot_class(), message.is_ipxe(), message.ipxe_features(), message.machine(), message.max_size());
    let _ = arch::of(message.arch_codes(), message.mac);
    for sub in [code::VENDOR, code::RELAY, code::IPXE] {
        let options = Options::encapsulated(message.options.get(sub).unwrap_or_default());
        let _ = (options.address(5), options.get(71), options.is_empty());
    }
    for mode in [Mode::Server, Mode::Proxy] {
        let _ = foreign::judge(&message, (message.mac, message.siaddr), mode);
    }
});
