//! Whole frames from the link: what the packet tap reads.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pxe::dhcp::frame;
use pxe::mac::Mac;
use pxe::recorder::pcap;
use pxe::router;

fuzz_target!(|bytes: &[u8]| {
    let _ = router::solicitation(bytes);
    let _ = pcap::about(bytes, Mac([2, 0, 0, 0, 0, 1]));
    if let Some(datagram) = frame::read(bytes) {
        assert!(datagram.payload.len() <= bytes.len());
        let _ = datagram.is_dhcp();
    }
});
