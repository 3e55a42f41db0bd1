//! Serial over LAN, the BMC's side of the conversation (section 15): one packet under way in each direction, sent again
//! until it is acknowledged.

use super::sol_config::Timing;
use crate::misbehaviour::Misbehaviour;
use crate::serial::Serial;
use crate::state::State;

/// Characters a packet to the BMC, as it grants them.
pub(super) const GRANTED_CHARACTERS: u8 = 128;
/// Characters that its line takes at once: of a longer packet it takes the beginning alone.
const LINE_CHARACTERS: usize = 96;
/// Characters a packet of the BMC.
const PACKET_CHARACTERS: usize = 200;

const NACK: u8 = 0x40;
const UNAVAILABLE: u8 = 0x20;
const DEACTIVATED: u8 = 0x10;
const OVERRUN: u8 = 0x08;
const GENERATE_BREAK: u8 = 0x10;
const FLUSH: u8 = 0x01;

/// The packet that tells a session that its console was taken away.
pub(super) const DEACTIVATION: [u8; 4] = [0, 0, 0, DEACTIVATED];

/// A packet under way to the client.
#[derive(Debug)]
struct Flight {
    sequence: u8,
    characters: Vec<u8>,
    /// Characters before these were lost.
    overrun: bool,
    sent_at_ms: u64,
    tries: u32,
}

/// The conversation.
#[derive(Debug, Default)]
pub(super) struct Sol {
    last_sequence: u8,
    flight: Option<Flight>,
    /// The client took nothing: nothing new before then.
    held_until_ms: u64,
    /// Number of the client's packet that was taken last, and how much of it was.
    taken: Option<(u8, u8)>,
    /// Characters were given up.
    lost: bool,
}

impl Flight {
    fn packet(&self) -> Vec<u8> {
        let status = if self.overrun { OVERRUN } else { 0 };
        let mut packet = vec![self.sequence, 0, 0, status];
        packet.extend(&self.characters);
        packet
    }
}

impl Sol {
    /// Takes in a packet and gives the acknowledgement, if one is due.
    pub(super) fn accept(&mut self, state: &mut State, at: u64, packet: &[u8]) -> Option<Vec<u8>> {
        let [sequence, acknowledged, count, operation, ref characters @ ..] = *packet else { return None };
        self.acknowledge(&mut state.serial, at, acknowledged & 0x0f, usize::from(count), operation);
        if operation & FLUSH != 0 {
            state.serial.flush();
        }
        let sequence = sequence & 0x0f;
        if sequence == 0 {
            return None;
        }
        if let Some((last, taken)) = self.taken
            && last == sequence
        {
            return Some(vec![0, sequence, taken, 0]);
        }
        state.settle(at);
        if state.has(Misbehaviour::IpmiSolNack) {
            return Some(vec![0, sequence, 0, NACK]);
        }
        if !state.serial.is_powered() {
            return Some(vec![0, sequence, 0, NACK | UNAVAILABLE]);
        }
        let characters = characters.get(..LINE_CHARACTERS).unwrap_or(characters);
        if operation & GENERATE_BREAK != 0 {
            state.serial.broken(&state.machine);
        }
        state.serial.typed(&state.machine, characters);
        let taken = u8::try_from(characters.len()).unwrap_or(0);
        self.taken = Some((sequence, taken));
        Some(vec![0, sequence, taken, 0])
    }

    fn acknowledge(&mut self, serial: &mut Serial, at: u64, sequence: u8, count: usize, operation: u8) {
        let Some(flight) = self.flight.take_if(|flight| sequence != 0 && flight.sequence == sequence) else { return };
        // What was not taken becomes a packet of its own (section 15.11).
        serial.put_back(flight.characters.get(count..).unwrap_or_default());
        if operation & NACK != 0 || count == 0 {
            self.held_until_ms = at + 100;
        }
    }

    /// The packet that is to be sent now, if one is.
    pub(super) fn outgoing(&mut self, serial: &mut Serial, at: u64, timing: Timing) -> Option<Vec<u8>> {
        if let Some(flight) = &mut self.flight {
            if at < flight.sent_at_ms + timing.retry_ms {
                return None;
            }
            if flight.tries < timing.retries {
                (flight.tries, flight.sent_at_ms) = (flight.tries + 1, at);
                return Some(flight.packet());
            }
            // It gives up and says so with the next one.
            (self.flight, self.lost) = (None, true);
        }
        if at < self.held_until_ms {
            return None;
        }
        let characters = serial.take(PACKET_CHARACTERS);
        self.lost |= serial.take_overrun();
        if characters.is_empty() {
            return None;
        }
        self.last_sequence = self.last_sequence % 15 + 1;
        let overrun = std::mem::take(&mut self.lost);
        let flight = Flight { sequence: self.last_sequence, characters, overrun, sent_at_ms: at, tries: 0 };
        Some(self.flight.insert(flight).packet())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TIMING: Timing = Timing { retry_ms: 500, retries: 2 };

    #[test]
    fn a_packet_is_sent_again_until_it_is_acknowledged_and_then_given_up() {
        let (mut sol, mut serial) = (Sol::default(), Serial::printing("one"));
        assert_eq!(sol.outgoing(&mut serial, 0, TIMING).unwrap(), b"\x01\0\0\0one");
        assert_eq!(sol.outgoing(&mut serial, 499, TIMING), None);
        assert_eq!(sol.outgoing(&mut serial, 500, TIMING).unwrap(), b"\x01\0\0\0one");
        assert_eq!(sol.outgoing(&mut serial, 1_000, TIMING).unwrap(), b"\x01\0\0\0one");
        serial.print("two");
        assert_eq!(sol.outgoing(&mut serial, 1_500, TIMING).unwrap(), b"\x02\0\0\x08two", "what was lost is told");
    }

    #[test]
    fn what_the_client_did_not_take_comes_again_under_a_new_number() {
        let (mut sol, mut serial) = (Sol::default(), Serial::printing("abcdef"));
        sol.outgoing(&mut serial, 0, TIMING).unwrap();
        sol.acknowledge(&mut serial, 0, 1, 2, 0);
        assert_eq!(sol.outgoing(&mut serial, 0, TIMING).unwrap(), b"\x02\0\0\0cdef");
        sol.acknowledge(&mut serial, 0, 2, 0, NACK);
        assert_eq!(sol.outgoing(&mut serial, 99, TIMING), None, "held");
        assert_eq!(sol.outgoing(&mut serial, 100, TIMING).unwrap(), b"\x03\0\0\0cdef");
        sol.acknowledge(&mut serial, 0, 3, 4, 0);
        assert_eq!(sol.outgoing(&mut serial, 200, TIMING), None);
    }

    #[test]
    fn a_packet_that_comes_again_is_acknowledged_again_and_typed_once() {
        let handle = crate::state::Handle::of_test();
        let mut state = handle.lock();
        let mut sol = Sol::default();
        for _ in 0..3 {
            assert_eq!(sol.accept(&mut state, 1, b"\x01\0\0\0ls").unwrap(), [0, 1, 2, 0]);
        }
        assert_eq!(state.serial.take(usize::MAX), b"ls");
        // Longer than the line takes: the beginning, and the count says so.
        let long = [&b"\x02\0\0\0"[..], &[b'x'; 128]].concat();
        assert_eq!(sol.accept(&mut state, 1, &long).unwrap(), [0, 2, 96, 0]);
        assert_eq!(state.serial.take(usize::MAX), [b'x'; 96]);
        // Refused: nothing of it is typed, and the next number is taken.
        state.wrong.insert(Misbehaviour::IpmiSolNack);
        assert_eq!(sol.accept(&mut state, 1, b"\x03\0\0\0no").unwrap(), [0, 3, 0, NACK]);
        state.wrong.clear();
        assert_eq!(sol.accept(&mut state, 1, b"\x04\0\0\0yes").unwrap(), [0, 4, 3, 0]);
        assert_eq!(state.serial.take(usize::MAX), b"yes");
        state.machine.inject(2, machine::Fault::Button);
        assert_eq!(sol.accept(&mut state, 3, b"\x05\0\0\0gone").unwrap(), [0, 5, 0, NACK | UNAVAILABLE]);
        // An acknowledgement alone asks for none.
        assert_eq!(sol.accept(&mut state, 4, &[0, 9, 1, 0]), None);
    }
}
