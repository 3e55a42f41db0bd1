//! A wire: where whole Ethernet frames go out and come in. `serve` speaks through a packet socket
//! ([`super::packet_wire::PacketWire`]); the demo has one in this process, which needs no rights and no network.

use pxe::mac::Mac;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;
use thiserror::Error;

/// Frames that leave together. One buffer, so that a burst of hundreds costs no allocation of its own.
#[derive(Debug, Default, Clone)]
pub struct Frames {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Frames {
    /// Adds one whole frame, from the destination's address on, without the check sequence.
    pub fn push(&mut self, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
        self.ends.push(self.bytes.len());
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, place: usize) -> Option<&[u8]> {
        let end = *self.ends.get(place)?;
        let start = place.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        self.bytes.get(start..end)
    }

    /// All, in the order in which they leave.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).filter_map(|place| self.get(place))
    }

    /// Forgets all and keeps the room.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

/// What one turn of receiving came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Received {
    /// Frames handed over.
    pub frames: usize,
    /// Frames that were lost before they could be handed over since the last turn: the buffer was full.
    pub lost: usize,
    /// Nothing that had arrived was left behind. If it is false, what is missing may still come, and no probe may be
    /// called unanswered (rule 47).
    pub drained: bool,
}

/// Why a wire cannot be opened.
#[derive(Debug, Error)]
pub enum WireError {
    /// The right is missing.
    #[error(
        "frames may not be sent and received on {interface}: the right CAP_NET_RAW is missing, so no host can be probed; \
         start the service with AmbientCapabilities=CAP_NET_RAW, or run `setcap cap_net_raw+ep` on the program"
    )]
    NotPermitted {
        /// On which.
        interface: String,
    },
    /// There is no such interface.
    #[error("there is no interface {interface}, so no host behind it can be probed; there are: {present}")]
    NoInterface {
        /// Which.
        interface: String,
        /// Those that are there.
        present: String,
    },
    /// It cannot carry probes.
    #[error("interface {interface} has no {what}, so no host behind it can be probed; give it one")]
    Lacks {
        /// Which.
        interface: String,
        /// `IPv4 address` or `hardware address`.
        what: &'static str,
    },
    /// The system refuses.
    #[error("frames cannot be sent and received on {interface} ({doing}), so no host behind it can be probed")]
    System {
        /// Which.
        interface: String,
        /// What was tried.
        doing: &'static str,
        /// What it said.
        source: io::Error,
    },
}

/// Where whole frames go out and come in. Used by one thread.
pub trait Wire: Send {
    /// Our hardware address on it.
    fn mac(&self) -> Mac;

    /// Our address on it.
    fn address(&self) -> Ipv4Addr;

    /// Whether the link has carrier now.
    fn carrier(&mut self) -> bool;

    /// Sends the frames in order and tells for each, by its place, whether it did *not* leave: `unsent` is called once for
    /// each that stayed. A probe that did not leave can never be missed (rule 47).
    ///
    /// # Errors
    /// The wire as a whole does not work, such as an interface that is gone; then none is taken to have left.
    fn send(&mut self, frames: &Frames, unsent: &mut dyn FnMut(usize)) -> io::Result<()>;

    /// Sleeps for `wait`, then hands over all frames that have arrived, oldest first, without waiting for more. It sleeps
    /// through arrivals on purpose: one waking serves hundreds of answers. A frame may be cut behind its first 440 bytes.
    ///
    /// # Errors
    /// The wire as a whole does not work.
    fn receive(&mut self, wait: Duration, take: &mut dyn FnMut(&[u8])) -> io::Result<Received>;

    /// Whether something on this machine answers a SYN/ACK that nobody asked for with RST by itself. The kernel does so for
    /// its own addresses (RFC 9293, 3.10.7.1), which ends the half-open connection that a probe made. Where nobody does,
    /// the prober sends the RST.
    fn resets_by_itself(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in() {
        let mut frames = Frames::default();
        for frame in [&b"first"[..], b"", b"third"] {
            frames.push(frame);
        }
        assert_eq!(frames.iter().collect::<Vec<_>>(), [&b"first"[..], b"", b"third"]);
        assert_eq!((frames.len(), frames.get(3)), (3, None));
        frames.clear();
        assert!(frames.is_empty());
    }
}
