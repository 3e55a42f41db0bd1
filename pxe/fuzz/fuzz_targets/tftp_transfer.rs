//! A request and then any packets at any times: a transfer ends, never sends a block that there is not, and never more
//! than one window for one packet.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pxe::tftp::packet::{from_client, read_request};
use pxe::tftp::transfer::{LARGEST_WINDOW, Send, Transfer};
use std::time::Duration;

fuzz_target!(|bytes: &[u8]| {
    let Some(([high, low, request_bytes], rest)) = bytes.split_first_chunk::<3>() else { return };
    let (request, mut rest) = rest.split_at(usize::from(*request_bytes).min(rest.len()));
    let Some(read) = read_request(request) else { return };
    let length = u64::from(u16::from_be_bytes([*high, *low])) * 37;
    let mut now = Duration::ZERO;
    let mut transfer = Transfer::new(length, read.options, 1468, now);
    let mut step = transfer.first(now);
    loop {
        if let Send::Blocks { first, last } = step.send {
            assert!(first >= 1 && first <= last && last <= transfer.last_block());
            assert!(last - first < u64::from(LARGEST_WINDOW));
            let (from, bytes) = transfer.content(last);
            assert!(from + bytes <= length);
        }
        assert!(transfer.acknowledged_bytes() <= length);
        if step.ended.is_some() {
            return;
        }
        let Some(([wait, size], more)) = rest.split_first_chunk::<2>() else { break };
        let (packet, more) = more.split_at(usize::from(size % 16).min(more.len()));
        rest = more;
        now += Duration::from_millis(u64::from(*wait) * 40);
        step = match from_client(packet) {
            Some(packet) => transfer.packet(&packet, now),
            None => transfer.late(now),
        };
    }
    // With nobody there it gives up.
    for _ in 0..16 {
        now = transfer.deadline();
        if transfer.late(now).ended.is_some() {
            return;
        }
    }
    panic!("the transfer never ends");
});
