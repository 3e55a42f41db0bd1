//! Whether cipher suite 0 opens a session to who knows no password (sections 13.17 to 13.24): the oldest open door of BMCs.

use super::command::APPLICATION;
use super::frame::{self, Packet, Payload, u32_at};
use super::handshake::{Privilege, Random, USER_BYTES_MAX};

/// Whether cipher suite 0, which asks for no password, opens a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SuiteZero {
    /// It does: whoever reaches the BMC has what the account has. Switch suite 0 off.
    Opens,
    /// It was refused with this status of RMCP+ (table 13-15).
    Refused(u8),
    /// No answer.
    Silent,
}

/// What the probe does next.
#[derive(Debug, PartialEq, Eq)]
pub enum ProbeStep {
    /// Sends this, and sends it again if no answer comes.
    Send(Vec<u8>),
    /// Goes on waiting.
    Ignore,
    /// It is open; this closes it again.
    Open(Vec<u8>),
    /// Refused.
    Refused(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Opening,
    Rakp1(u32),
    Rakp3(u32),
    Over,
}

/// Tries to open a session by suite 0 with a name and no password. In the session nothing is sent but its end.
#[derive(Debug)]
pub struct SuiteZeroProbe {
    user: Vec<u8>,
    random: Random,
    stage: Stage,
}

impl SuiteZeroProbe {
    /// Begins: the first datagram to send. `None` if IPMI cannot carry the name.
    #[must_use]
    pub fn begin(user: &str, random: Random) -> Option<(SuiteZeroProbe, Vec<u8>)> {
        if user.len() > USER_BYTES_MAX {
            return None;
        }
        let random = Random { console_id: random.console_id.max(1), ..random };
        let mut open = vec![random.tag, Privilege::User as u8, 0, 0];
        open.extend(random.console_id.to_le_bytes());
        for kind in 0..3 {
            open.extend([kind, 0, 0, 8, 0, 0, 0, 0]);
        }
        let probe = SuiteZeroProbe { user: user.as_bytes().to_vec(), random, stage: Stage::Opening };
        Some((probe, frame::plain(Payload::OpenRequest, &open)))
    }

    /// Takes in a datagram of the BMC's address.
    pub fn accept(&mut self, datagram: &[u8]) -> ProbeStep {
        let Ok(Packet::Secure(packet)) = frame::parse(datagram, 0) else { return ProbeStep::Ignore };
        let [tag, status, ..] = *packet.payload else { return ProbeStep::Ignore };
        let expected = match self.stage {
            Stage::Opening => Payload::OpenResponse,
            Stage::Rakp1(_) => Payload::Rakp2,
            Stage::Rakp3(_) => Payload::Rakp4,
            Stage::Over => return ProbeStep::Ignore,
        };
        if packet.payload_type != expected || tag != self.random.tag {
            return ProbeStep::Ignore;
        }
        if status != 0 {
            self.stage = Stage::Over;
            return ProbeStep::Refused(status);
        }
        if u32_at(packet.payload, 4, "session ID") != Ok(self.random.console_id) {
            return ProbeStep::Ignore;
        }
        match self.stage {
            Stage::Opening => self.opened(packet.payload),
            Stage::Rakp1(bmc_id) => {
                self.stage = Stage::Rakp3(bmc_id);
                // No code: the algorithm is none (section 13.22).
                ProbeStep::Send(frame::plain(Payload::Rakp3, &self.head(bmc_id)))
            }
            Stage::Rakp3(bmc_id) => {
                self.stage = Stage::Over;
                let close = frame::request(APPLICATION, 0x3c, 1, &bmc_id.to_le_bytes());
                ProbeStep::Open(frame::unprotected(Payload::Ipmi, bmc_id, 1, &close))
            }
            Stage::Over => ProbeStep::Ignore,
        }
    }

    fn opened(&mut self, answer: &[u8]) -> ProbeStep {
        let Ok(bmc_id) = u32_at(answer, 8, "session ID") else { return ProbeStep::Ignore };
        // Another triple than was asked for is a refusal in other words: what opens then is not suite 0.
        let algorithm = |at: usize| answer.get(at).map_or(0xff, |a| a & 0x3f);
        if [algorithm(16), algorithm(24), algorithm(32)] != [0, 0, 0] {
            self.stage = Stage::Over;
            return ProbeStep::Refused(0x11);
        }
        let mut rakp1 = self.head(bmc_id);
        rakp1.extend(self.random.console_random);
        // Bit 4: the account is looked up by its name alone (section 13.20).
        rakp1.extend([0x10 | Privilege::User as u8, 0, 0, u8::try_from(self.user.len()).unwrap_or(0)]);
        rakp1.extend(&self.user);
        self.stage = Stage::Rakp1(bmc_id);
        ProbeStep::Send(frame::plain(Payload::Rakp1, &rakp1))
    }

    fn head(&self, bmc_id: u32) -> Vec<u8> {
        let mut head = vec![self.random.tag, 0, 0, 0];
        head.extend(bmc_id.to_le_bytes());
        head
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn suite_zero_opens_only_if_every_step_is_granted() {
        let random = Random { console_id: 0x11, console_random: [2; 16], tag: 5 };
        let begin = || SuiteZeroProbe::begin("admin", random).unwrap();
        let open = |triple: [u8; 3], status| {
            let mut answer = vec![5, status, 4, 0, 0x11, 0, 0, 0, 0x22, 0, 0, 0];
            for (kind, algorithm) in (0..).zip(triple) {
                answer.extend([kind, 0, 0, 8, algorithm, 0, 0, 0]);
            }
            frame::plain(Payload::OpenResponse, &answer)
        };
        let (mut probe, first) = begin();
        assert_eq!(first[4..6], [0x06, 0x10]);
        let ProbeStep::Send(rakp1) = probe.accept(&open([0, 0, 0], 0)) else { unreachable!() };
        assert_eq!(rakp1[rakp1.len() - 9..], [0x12, 0, 0, 5, b'a', b'd', b'm', b'i', b'n']);
        let rakp2: Vec<u8> = [&[5, 0, 0, 0, 0x11, 0, 0, 0][..], &[9; 32]].concat();
        let ProbeStep::Send(rakp3) = probe.accept(&frame::plain(Payload::Rakp2, &rakp2)) else { unreachable!() };
        assert_eq!(rakp3[16..], [5, 0, 0, 0, 0x22, 0, 0, 0]);
        let rakp4 = frame::plain(Payload::Rakp4, &[5, 0, 0, 0, 0x11, 0, 0, 0]);
        let ProbeStep::Open(close) = probe.accept(&rakp4) else { unreachable!() };
        assert_eq!(close[4..16], [0x06, 0x00, 0x22, 0, 0, 0, 1, 0, 0, 0, 11, 0]);
        assert_eq!(probe.accept(&rakp4), ProbeStep::Ignore);

        assert_eq!(begin().0.accept(&open([0, 0, 0], 0x11)), ProbeStep::Refused(0x11));
        assert_eq!(begin().0.accept(&open([1, 1, 1], 0)), ProbeStep::Refused(0x11));
        assert!(SuiteZeroProbe::begin("a name of seventeen", random).is_none());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(data in proptest::collection::vec(any::<u8>(), 0..64), kind in 0usize..3) {
            let random = Random { console_id: 0x11, console_random: [2; 16], tag: 5 };
            let (mut probe, _) = SuiteZeroProbe::begin("", random).unwrap();
            probe.stage = [Stage::Opening, Stage::Rakp1(1), Stage::Rakp3(1)][kind];
            for payload in [Payload::OpenResponse, Payload::Rakp2, Payload::Rakp4] {
                let _ = probe.accept(&frame::plain(payload, &data));
            }
            let _ = probe.accept(&data);
        }
    }
}
