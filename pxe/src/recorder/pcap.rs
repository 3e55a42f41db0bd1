//! A bounded ring of packets, given out as a pcap file (the classic format, as tcpdump and Wireshark read it).

use crate::mac::Mac;
use std::collections::VecDeque;
use std::time::Duration;

/// How many bytes of one frame are kept.
const SNAP_BYTES: usize = 2048;

/// One frame.
#[derive(Clone, Debug)]
struct Kept {
    /// Since 1970.
    at: Duration,
    /// The host it is about: its sender or its receiver.
    mac: Option<Mac>,
    full_bytes: usize,
    frame: Box<[u8]>,
}

/// The last frames of the boot protocols, oldest first.
#[derive(Debug)]
pub struct PacketRing {
    kept: VecDeque<Kept>,
    bytes: usize,
    limit_bytes: usize,
}

impl PacketRing {
    /// A ring of at most so many bytes of frames.
    #[must_use]
    pub fn new(limit_bytes: usize) -> Self {
        Self { kept: VecDeque::new(), bytes: 0, limit_bytes }
    }

    /// Keeps a frame, and lets the oldest go.
    pub fn keep(&mut self, at: Duration, mac: Option<Mac>, frame: &[u8]) {
        let kept: Box<[u8]> = frame.get(..SNAP_BYTES).unwrap_or(frame).into();
        self.bytes += kept.len();
        self.kept.push_back(Kept { at, mac, full_bytes: frame.len(), frame: kept });
        while self.bytes > self.limit_bytes {
            let Some(oldest) = self.kept.pop_front() else { return };
            self.bytes -= oldest.frame.len();
        }
    }

    /// The frames of one host as a pcap file.
    #[must_use]
    pub fn file(&self, mac: Mac) -> Vec<u8> {
        // Magic of microseconds, version 2.4, no zone, accuracy, snap length, Ethernet.
        let mut file = Vec::new();
        file.extend_from_slice(&0xa1b2_c3d4_u32.to_le_bytes());
        file.extend_from_slice(&[2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        file.extend_from_slice(&u32::try_from(SNAP_BYTES).unwrap_or(u32::MAX).to_le_bytes());
        file.extend_from_slice(&1_u32.to_le_bytes());
        for kept in self.kept.iter().filter(|kept| kept.mac == Some(mac)) {
            let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
            file.extend_from_slice(&number(kept.at.as_secs()));
            file.extend_from_slice(&number(u64::from(kept.at.subsec_micros())));
            file.extend_from_slice(&number(kept.frame.len() as u64));
            file.extend_from_slice(&number(kept.full_bytes as u64));
            file.extend_from_slice(&kept.frame);
        }
        file
    }
}

/// Which host a frame of DHCP is about: the card inside the message, for it also stands there when the frame goes to all
/// or comes from a relay; else the receiver or sender of the frame.
#[must_use]
pub fn about(frame: &[u8], ours: Mac) -> Option<Mac> {
    let (to, rest) = frame.split_first_chunk::<6>()?;
    let (from, _) = rest.split_first_chunk::<6>()?;
    let other = if Mac(*from) == ours { Mac(*to) } else { Mac(*from) };
    crate::dhcp::frame::read(frame)
        .filter(|datagram| datagram.is_dhcp())
        .and_then(|datagram| crate::dhcp::request::Message::read(datagram.payload).ok().map(|message| message.mac))
        .or(Some(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_is_bounded_and_gives_the_frames_of_one_host() {
        let (mine, other) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        let mut ring = PacketRing::new(1000);
        for second in 0..100 {
            ring.keep(Duration::from_secs(second), Some(mine), &[7; 100]);
            ring.keep(Duration::from_secs(second), Some(other), &[8; 100]);
        }
        assert!(ring.bytes <= 1000);
        let file = ring.file(mine);
        assert_eq!(&file[..4], &[0xd4, 0xc3, 0xb2, 0xa1]);
        assert_eq!((file.len() - 24) % 116, 0);
        assert_eq!((file.len() - 24) / 116, 5);
        assert!(!file[24..].windows(100).any(|part| part == [8; 100]));
        ring.keep(Duration::ZERO, Some(mine), &[1; 9000]);
        assert!(ring.bytes <= 1000);
    }
}
