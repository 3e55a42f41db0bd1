//! Serial over LAN: the conversation in its packets (section 15).
//!
//! Each side has one packet under way and sends it again until it is acknowledged. The machine here owns no clock: its
//! driver tells it when a wait is over.

use super::sol_activation::ConsoleError;
use std::collections::VecDeque;

/// Characters kept that were not sent yet.
pub const UNSENT_MAX: usize = 4_096;
/// Sendings of one packet without any character of it taken.
pub const TRIES_MAX: u32 = 8;

/// Characters a packet: their count is one byte.
pub const COUNT_MAX: usize = 255;
/// A packet seen as old this often is the BMC's new count.
const OLD_SEEN_MAX: u8 = 3;

const NACK: u8 = 0x40;
const UNAVAILABLE: u8 = 0x20;
const DEACTIVATED: u8 = 0x10;
const OVERRUN: u8 = 0x08;
const BREAK_SEEN: u8 = 0x04;
const GENERATE_BREAK: u8 = 0x10;

/// What a packet of the BMC brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// Characters of the console.
    pub characters: Vec<u8>,
    /// To be sent at once: the acknowledgement.
    pub answer: Option<Vec<u8>>,
    /// Characters were lost on their way to us.
    pub overrun: bool,
    /// The machine sent a break.
    pub broke: bool,
    /// The BMC ends the console.
    pub ended: bool,
}

/// A packet of ours under way.
#[derive(Debug, Clone)]
struct Flight {
    sequence: u8,
    characters: Vec<u8>,
    generates_break: bool,
}

impl Flight {
    fn packet(&self) -> Vec<u8> {
        let operation = if self.generates_break { GENERATE_BREAK } else { 0 };
        let mut packet = vec![self.sequence, 0, 0, operation];
        packet.extend(&self.characters);
        packet
    }
}

/// The packet of the BMC that was taken last.
#[derive(Debug, Clone, Copy)]
struct Last {
    sequence: u8,
    characters: usize,
}

/// Our side of the conversation.
#[derive(Debug)]
pub struct Sol {
    characters_max: usize,
    unsent: VecDeque<u8>,
    break_wanted: bool,
    flight: Option<Flight>,
    next_sequence: u8,
    /// The BMC takes nothing for now: nothing new before the next wait is over.
    held: bool,
    tries: u32,
    /// Nothing was acknowledged yet.
    fresh: bool,
    last: Option<Last>,
    old: (u8, u8),
}

/// 1 to 15, then 1 again; 0 numbers packets that are not acknowledged.
fn after(sequence: u8) -> u8 {
    sequence % 15 + 1
}

impl Sol {
    /// A conversation that begins.
    #[must_use]
    pub fn new(characters_max: usize) -> Sol {
        Sol {
            characters_max: characters_max.clamp(1, COUNT_MAX),
            unsent: VecDeque::new(),
            break_wanted: false,
            flight: None,
            next_sequence: 1,
            held: false,
            tries: 0,
            fresh: true,
            last: None,
            old: (0, 0),
        }
    }

    /// Takes characters to send, as many as there is room for; gives how many.
    pub fn write(&mut self, characters: &[u8]) -> usize {
        let room = UNSENT_MAX.saturating_sub(self.unsent.len()).min(characters.len());
        self.unsent.extend(characters.iter().take(room));
        room
    }

    /// Has a break sent: after what is under way, before what is not.
    pub fn generate_break(&mut self) {
        self.break_wanted = true;
    }

    /// Everything was sent and acknowledged.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.flight.is_none() && self.unsent.is_empty() && !self.break_wanted
    }

    /// A packet is under way, or waits for the BMC to take something again.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.flight.is_some() || self.held
    }

    /// The next packet, if one may be sent now.
    pub fn outgoing(&mut self) -> Option<Vec<u8>> {
        if self.flight.is_some() || self.held || self.is_idle() {
            return None;
        }
        let generates_break = std::mem::take(&mut self.break_wanted);
        let count = if generates_break { 0 } else { self.unsent.len().min(self.characters_max) };
        let characters = self.unsent.drain(..count).collect();
        let flight = Flight { sequence: self.next_sequence, characters, generates_break };
        self.next_sequence = after(self.next_sequence);
        let packet = flight.packet();
        self.flight = Some(flight);
        Some(packet)
    }

    /// A wait is over: the packet under way again, or the first after a hold.
    ///
    /// # Errors
    /// The BMC took nothing for too long.
    pub fn again(&mut self) -> Result<Option<Vec<u8>>, ConsoleError> {
        if !self.is_waiting() {
            return Ok(None);
        }
        self.tries += 1;
        if self.tries >= TRIES_MAX {
            return Err(ConsoleError::Stalled);
        }
        self.held = false;
        match &self.flight {
            Some(flight) => Ok(Some(flight.packet())),
            None => Ok(self.outgoing()),
        }
    }

    /// Takes in a payload of the BMC.
    pub fn accept(&mut self, payload: &[u8]) -> Taken {
        let [sequence, acknowledged, count, status, ref characters @ ..] = *payload else { return Taken::default() };
        self.acknowledge(acknowledged & 0x0f, usize::from(count), status);
        let mut taken = Taken {
            overrun: status & OVERRUN != 0,
            broke: status & BREAK_SEEN != 0,
            ended: status & DEACTIVATED != 0,
            ..Taken::default()
        };
        let sequence = sequence & 0x0f;
        if sequence != 0 {
            self.take(sequence, characters, &mut taken);
        }
        taken
    }

    /// What the BMC says about our packet.
    fn acknowledge(&mut self, sequence: u8, count: usize, status: u8) {
        let refused = status & (NACK | UNAVAILABLE) != 0;
        let Some(flight) = self.flight.take_if(|flight| sequence != 0 && flight.sequence == sequence) else { return };
        // More than was sent: the BMC takes our first packet for the last of the console before, which had its number, and
        // has dropped it (ipmi_sim 2.0.33 does).
        let fresh = std::mem::take(&mut self.fresh);
        let count = if fresh && count > flight.characters.len() { 0 } else { count.min(flight.characters.len()) };
        if count > 0 {
            self.tries = 0;
        }
        let rest = flight.characters.get(count..).unwrap_or_default();
        if rest.is_empty() && status & NACK == 0 {
            self.tries = 0;
            self.held = false;
            return;
        }
        // The rest becomes a packet of its own, with a number of its own (section 15.11).
        for character in rest.iter().rev() {
            self.unsent.push_front(*character);
        }
        self.break_wanted |= flight.generates_break;
        // A BMC that takes nothing and does not say so is not asked in a tight circle either.
        self.held = refused || (count == 0 && !fresh);
    }

    /// What the machine wrote.
    fn take(&mut self, sequence: u8, characters: &[u8], taken: &mut Taken) {
        // The rest of a packet that is too long to be counted is sent again by the BMC.
        let characters = characters.get(..COUNT_MAX).unwrap_or(characters);
        let last = self.last;
        let seen = match last {
            // Again, perhaps with characters that came meanwhile.
            Some(last) if last.sequence == sequence => last.characters,
            Some(last) if (sequence + 15 - last.sequence) % 15 > 7 && !self.is_new_count(sequence) => return,
            _ => 0,
        };
        self.old = (0, 0);
        taken.characters = characters.get(seen..).unwrap_or_default().to_vec();
        self.last = Some(Last { sequence, characters: seen.max(characters.len()) });
        taken.answer = Some(vec![0, sequence, u8::try_from(characters.len()).unwrap_or(u8::MAX), 0]);
    }

    /// A late copy of an old packet comes once; a BMC that began to count anew says the same number until it is
    /// acknowledged.
    fn is_new_count(&mut self, sequence: u8) -> bool {
        let (old, times) = self.old;
        let times = if old == sequence { times + 1 } else { 1 };
        self.old = (sequence, times);
        times >= OLD_SEEN_MAX
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn flown(sol: &mut Sol, text: &[u8]) -> Vec<u8> {
        assert_eq!(sol.write(text), text.len());
        sol.outgoing().unwrap()
    }

    #[test]
    fn one_packet_is_under_way_until_it_is_acknowledged() {
        let mut sol = Sol::new(4);
        assert_eq!(flown(&mut sol, b"uname\n"), [1, 0, 0, 0, b'u', b'n', b'a', b'm']);
        assert_eq!(sol.outgoing(), None);
        assert_eq!(sol.again().unwrap().unwrap()[0], 1, "the same number again");
        sol.accept(&[0, 1, 4, 0]);
        assert_eq!(sol.outgoing().unwrap(), [2, 0, 0, 0, b'e', b'\n']);
        sol.accept(&[0, 1, 4, 0]);
        assert!(!sol.is_idle(), "an old acknowledgement settles nothing");
        sol.accept(&[0, 2, 2, 0]);
        assert!(sol.is_idle());
        assert_eq!(sol.again(), Ok(None));
    }

    #[test]
    fn what_was_not_taken_is_sent_again_under_a_new_number() {
        let mut sol = Sol::new(8);
        flown(&mut sol, b"abcdef");
        sol.accept(&[0, 1, 2, 0]);
        assert_eq!(sol.outgoing().unwrap(), [2, 0, 0, 0, b'c', b'd', b'e', b'f']);
        // Refused whole: not before the wait is over.
        sol.accept(&[0, 2, 0, NACK | UNAVAILABLE]);
        assert_eq!(sol.outgoing(), None);
        assert_eq!(sol.again().unwrap().unwrap(), [3, 0, 0, 0, b'c', b'd', b'e', b'f']);
        sol.accept(&[0, 3, 4, 0]);
        assert!(sol.is_idle());
    }

    #[test]
    fn a_bmc_that_remembers_the_console_before_gets_the_first_packet_again() {
        let mut sol = Sol::new(8);
        flown(&mut sol, b"again");
        sol.accept(&[0, 1, 10, 0]);
        assert_eq!(sol.outgoing().unwrap(), [2, 0, 0, 0, b'a', b'g', b'a', b'i', b'n']);
        sol.accept(&[0, 2, 10, 0]);
        assert!(sol.is_idle(), "later, a count that is too high is the BMC's way to count");
    }

    #[test]
    fn a_bmc_that_takes_nothing_is_given_up() {
        let mut silent = Sol::new(8);
        flown(&mut silent, b"x");
        let sent = (0..100).take_while(|_| silent.again().is_ok()).count();
        assert_eq!(sent, TRIES_MAX as usize - 1);
        let mut refusing = Sol::new(8);
        flown(&mut refusing, b"x");
        let mut refused = 0;
        let last = loop {
            refusing.accept(&[0, refusing.flight.as_ref().unwrap().sequence, 0, NACK]);
            refused += 1;
            if let Err(why) = refusing.again() {
                break why;
            }
        };
        assert_eq!((last, refused), (ConsoleError::Stalled, TRIES_MAX));
    }

    #[test]
    fn characters_are_taken_once_however_often_they_come() {
        let mut sol = Sol::new(8);
        let first = sol.accept(&[1, 0, 0, 0, b'o', b'k']);
        assert_eq!((&first.characters[..], first.answer), (&b"ok"[..], Some(vec![0, 1, 2, 0])));
        let again = sol.accept(&[1, 0, 0, 0, b'o', b'k']);
        assert_eq!((again.characters.len(), again.answer), (0, Some(vec![0, 1, 2, 0])));
        let longer = sol.accept(&[1, 0, 0, 0, b'o', b'k', b'!']);
        assert_eq!((&longer.characters[..], longer.answer), (&b"!"[..], Some(vec![0, 1, 3, 0])));
        assert_eq!(sol.accept(&[2, 0, 0, 0, b'>']).characters, b">");
        // A late copy of number 1 is of no use, nor acknowledged; a BMC that counts anew insists.
        assert_eq!(sol.accept(&[1, 0, 0, 0, b'o', b'k']), Taken::default());
        assert_eq!(sol.accept(&[1, 0, 0, 0, b'o', b'k']), Taken::default());
        assert_eq!(sol.accept(&[1, 0, 0, 0, b'n', b'e', b'w']).characters, b"new");
        // One was given up by the BMC: the next is taken.
        assert_eq!(sol.accept(&[3, 0, 0, 0, b'z']).characters, b"z");
        // Number 0 carries no characters.
        assert_eq!(sol.accept(&[0, 0, 0, 0, b'z']), Taken::default());
    }

    #[test]
    fn fifteen_is_followed_by_one_on_both_sides() {
        let mut sol = Sol::new(1);
        for round in 0..40u8 {
            let sequence = round % 15 + 1;
            assert_eq!(flown(&mut sol, b"k")[0], sequence);
            let taken = sol.accept(&[sequence, sequence, 1, 0, b'e']);
            assert_eq!((&taken.characters[..], sol.is_idle()), (&b"e"[..], true));
        }
    }

    #[test]
    fn breaks_overruns_and_the_end_are_seen() {
        let mut sol = Sol::new(8);
        sol.generate_break();
        assert_eq!(sol.outgoing().unwrap(), [1, 0, 0, GENERATE_BREAK]);
        sol.accept(&[0, 1, 0, 0]);
        assert!(sol.is_idle());
        let taken = sol.accept(&[0, 0, 0, OVERRUN | BREAK_SEEN | DEACTIVATED]);
        assert!(taken.overrun && taken.broke && taken.ended && taken.answer.is_none());
    }

    #[test]
    fn a_long_packet_is_taken_as_far_as_it_can_be_counted() {
        let mut sol = Sol::new(8);
        let taken = sol.accept(&[&[1, 0, 0, 0][..], &[b'x'; 300]].concat());
        assert_eq!((taken.characters.len(), taken.answer), (255, Some(vec![0, 1, 255, 0])));
        assert_eq!(sol.write(&[b'y'; UNSENT_MAX + 1]), UNSENT_MAX);
        assert_eq!(sol.write(b"z"), 0);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..12), 0..40)) {
            let mut sol = Sol::new(3);
            for packet in packets {
                sol.write(b"abcd");
                let _ = (sol.outgoing(), sol.accept(&packet), sol.again());
            }
        }

        /// A wire that loses and doubles packets in both directions changes nothing of what comes out.
        #[test]
        fn what_is_written_arrives_once_and_in_order(text in proptest::collection::vec(any::<u8>(), 1..60), luck in proptest::collection::vec(any::<u8>(), 400)) {
            let (mut here, mut there) = (Sol::new(5), Sol::new(5));
            let mut arrived: Vec<u8> = Vec::new();
            here.write(&text);
            let mut luck = luck.into_iter().chain(std::iter::repeat(5));
            while !here.is_idle() {
                here.tries = 0;
                let Some(packet) = here.outgoing().or_else(|| here.again().unwrap()) else { continue };
                for _ in 0..luck.next().unwrap() % 3 {
                    let taken = there.accept(&packet);
                    arrived.extend(&taken.characters);
                    if let (Some(answer), true) = (taken.answer, luck.next().unwrap() % 4 > 0) {
                        here.accept(&answer);
                    }
                }
            }
            prop_assert_eq!(arrived, text);
        }
    }
}
