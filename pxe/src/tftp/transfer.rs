//! One transfer: a machine that takes packets and time and says what is to be sent. No socket, no clock.

use super::packet::{FromClient, Options, USUAL_BLOCK_BYTES, error_code, option_acknowledgement};
use crate::files::TransferEvent;
use std::time::Duration;

/// The largest window that is given. RFC 7440 allows more, but beyond this a lost block costs more than is won.
pub const LARGEST_WINDOW: u16 = 64;
/// The least wait before something is sent again, when the client has not asked for another: ROMs that write to slow
/// memory between two blocks are well below.
const LEAST_WAIT: Duration = Duration::from_millis(200);
/// The first wait, before anything is known of the way to the client (RFC 1123 section 4.2.3.2 wants it to adapt).
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait of the exponential back-off.
const LONGEST_WAIT: Duration = Duration::from_secs(8);
/// Waits without any progress, each twice as long as the one before: together 0.2 + 0.4 + … s, at least 12 s.
const TRIES: u8 = 6;

/// What is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Send {
    /// Nothing.
    Nothing,
    /// The acknowledgement of options.
    Options,
    /// These blocks, counted from 1, the last one included.
    Blocks {
        /// The first.
        first: u64,
        /// The last.
        last: u64,
    },
}

/// What comes of a packet or of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What is to be sent.
    pub send: Send,
    /// How the transfer ended, when it has.
    pub ended: Option<TransferEvent>,
}

impl Step {
    const NOTHING: Self = Self { send: Send::Nothing, ended: None };

    const fn send(send: Send) -> Self {
        Self { send, ended: None }
    }

    const fn end(event: TransferEvent) -> Self {
        Self { send: Send::Nothing, ended: Some(event) }
    }
}

/// One transfer to one client.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// Bytes of the file.
    bytes: u64,
    block_bytes: u16,
    window: u16,
    /// The acknowledgement of options, when one is owed.
    options: Option<Vec<u8>>,
    size_asked: bool,
    /// Whether the client has answered to the first packet.
    heard: bool,
    /// Blocks that the client has, all in a row.
    acknowledged: u64,
    /// The last block that was sent.
    sent: u64,
    /// An acknowledgement that brings nothing new causes nothing until this many blocks are acknowledged: what was sent
    /// twice is acknowledged twice, and answering that would send everything twice for ever (RFC 1123 section 4.2.3.1,
    /// the Sorcerer's Apprentice, which windows bring back).
    quiet_until: u64,
    began: Duration,
    sent_at: Duration,
    /// How long a window that was sent once takes to come back, smoothed, and how far the last ones were from it
    /// (RFC 6298 section 2): a busy client answers one window in 0.2 ms and the next in 20.
    round: Option<Duration>,
    deviation: Duration,
    wait: Duration,
    asked_wait: Option<Duration>,
    tries: u8,
    resent: u64,
}

impl Transfer {
    /// A transfer of so many bytes, with the options that were asked for. `largest_block_bytes` is what fits into one
    /// packet of the link: a fragmented block is one that some ROMs never see.
    #[must_use]
    pub fn new(bytes: u64, asked: Options, largest_block_bytes: u16, now: Duration) -> Self {
        let block = asked.block_bytes.map(|block| block.min(largest_block_bytes.max(USUAL_BLOCK_BYTES)));
        let window = asked.window.map(|window| window.min(LARGEST_WINDOW));
        let size = asked.size.then_some(bytes);
        let any = block.is_some() || window.is_some() || size.is_some() || asked.timeout_s.is_some();
        let asked_wait = asked.timeout_s.map(|timeout| Duration::from_secs(timeout.into()));
        Self {
            bytes,
            block_bytes: block.unwrap_or(USUAL_BLOCK_BYTES),
            window: window.unwrap_or(1),
            options: any.then(|| option_acknowledgement(block, size, asked.timeout_s, window)),
            size_asked: asked.size,
            heard: false,
            acknowledged: 0,
            sent: 0,
            quiet_until: 0,
            began: now,
            sent_at: now,
            round: None,
            deviation: Duration::ZERO,
            wait: asked_wait.unwrap_or(FIRST_WAIT),
            asked_wait,
            tries: 0,
            resent: 0,
        }
    }

    /// The first packet: the acknowledgement of options, or one block. Never more to an address that may be forged.
    pub fn first(&mut self, now: Duration) -> Step {
        self.sent_at = now;
        if self.options.is_some() { Step::send(Send::Options) } else { self.next_window(now) }
    }

    /// What was agreed on, in words.
    #[must_use]
    pub fn agreed(&self) -> String {
        format!("blksize {}, windowsize {}", self.block_bytes, self.window)
    }

    /// The acknowledgement of options.
    #[must_use]
    pub fn options(&self) -> &[u8] {
        self.options.as_deref().unwrap_or_default()
    }

    /// Where a block's content is: first byte and length.
    #[must_use]
    pub fn content(&self, block: u64) -> (u64, u64) {
        let from = block.saturating_sub(1).saturating_mul(self.block_bytes.into()).min(self.bytes);
        (from, self.bytes.saturating_sub(from).min(self.block_bytes.into()))
    }

    /// The number of the last block: the first one that is not full, be it empty.
    #[must_use]
    pub fn last_block(&self) -> u64 {
        self.bytes / u64::from(self.block_bytes) + 1
    }

    /// Bytes of a full block.
    #[must_use]
    pub const fn block_bytes(&self) -> u16 {
        self.block_bytes
    }

    /// Blocks of a window.
    #[must_use]
    pub const fn window(&self) -> u16 {
        self.window
    }

    /// When [`Self::late`] is due.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.sent_at.saturating_add(self.wait)
    }

    /// Bytes that the client has.
    #[must_use]
    pub fn acknowledged_bytes(&self) -> u64 {
        self.acknowledged.saturating_mul(self.block_bytes.into()).min(self.bytes)
    }

    /// Whether the client may have everything, and only its last word is missing.
    #[must_use]
    pub fn all_sent(&self) -> bool {
        self.sent == self.last_block()
    }

    /// Its end, as good.
    #[must_use]
    pub fn ended(&self, now: Duration) -> TransferEvent {
        let took = now.saturating_sub(self.began);
        TransferEvent::Ended { bytes: self.bytes, took, sent_again: self.resent }
    }

    /// A packet of the client.
    pub fn packet(&mut self, packet: &FromClient, now: Duration) -> Step {
        let number = match packet {
            FromClient::Error { code, .. }
                if self.size_asked
                    && self.acknowledged == 0
                    && matches!(*code, error_code::NOT_DEFINED | error_code::OPTIONS) =>
            {
                return Step::end(TransferEvent::OnlySize);
            }
            FromClient::Error { code, message } => {
                let why = format!("the peer says: {message} (error {code})");
                return Step::end(TransferEvent::Failed { bytes: self.acknowledged_bytes(), why });
            }
            FromClient::Acknowledged(number) => *number,
        };
        if !self.heard {
            let expected = if self.options.is_some() { 0 } else { 1 };
            if number != expected {
                return Step::NOTHING;
            }
            self.heard = true;
            self.learn(now);
            if self.options.is_some() {
                return self.next_window(now);
            }
        }
        // Which block is meant: of those under way only one has this number, a window being far shorter than 65,536.
        let step = number.wrapping_sub(wire(self.acknowledged));
        let ahead = u64::from(step);
        if ahead > self.sent.saturating_sub(self.acknowledged) {
            return Step::NOTHING;
        }
        if ahead == 0 {
            // The first block of a window is missing there (RFC 7440 section 4). With a window of one this is the duplicate
            // that must not be answered.
            if self.window == 1 || self.acknowledged < self.quiet_until || self.sent == self.acknowledged {
                return Step::NOTHING;
            }
            return self.again(now);
        }
        let whole = self.acknowledged.saturating_add(ahead) == self.sent;
        self.acknowledged = self.acknowledged.saturating_add(ahead);
        if self.acknowledged >= self.last_block() {
            return Step::end(self.ended(now));
        }
        if whole {
            self.learn(now);
            self.next_window(now)
        } else if self.acknowledged < self.quiet_until && now.saturating_sub(self.sent_at) < self.longest_round() {
            // It cannot be an answer to what was just sent again: that is still under way. But the client counts a whole
            // window from here, so what is missing of it goes out; nothing that was sent goes out once more.
            self.rest_of_window()
        } else {
            self.learn_nothing();
            self.again(now)
        }
    }

    /// [`Self::deadline`] has come.
    pub fn late(&mut self, now: Duration) -> Step {
        if now < self.deadline() {
            return Step::NOTHING;
        }
        self.tries = self.tries.saturating_add(1);
        if self.tries >= TRIES {
            let why = format!("no acknowledgement after {TRIES} tries");
            return Step::end(TransferEvent::Failed { bytes: self.acknowledged_bytes(), why });
        }
        let wait = self.wait.saturating_mul(2).min(LONGEST_WAIT.max(self.asked_wait.unwrap_or_default()));
        let step = if self.heard || self.options.is_none() {
            self.again(now)
        } else {
            self.resent = self.resent.saturating_add(1);
            self.sent_at = now;
            Step::send(Send::Options)
        };
        self.wait = wait;
        step
    }

    fn next_window(&mut self, now: Duration) -> Step {
        let first = self.acknowledged.saturating_add(1);
        let last = self.acknowledged.saturating_add(self.window.into()).min(self.last_block());
        self.sent = last;
        self.sent_at = now;
        Step::send(Send::Blocks { first, last })
    }

    fn rest_of_window(&mut self) -> Step {
        let first = self.sent.saturating_add(1);
        let last = self.acknowledged.saturating_add(self.window.into()).min(self.last_block());
        if first > last {
            return Step::NOTHING;
        }
        self.sent = last;
        Step::send(Send::Blocks { first, last })
    }

    fn again(&mut self, now: Duration) -> Step {
        let before = self.sent;
        let step = self.next_window(now);
        self.resent = self.resent.saturating_add(before.saturating_sub(self.acknowledged).min(self.window.into()));
        self.quiet_until = self.sent.saturating_add(1);
        step
    }

    /// A window came back whole: what is known of the time that takes. A window that was sent twice says nothing, for
    /// nobody knows which copy was answered (Karn's algorithm).
    fn learn(&mut self, now: Duration) {
        if self.tries == 0 {
            let took = now.saturating_sub(self.sent_at);
            let round = self.round.unwrap_or(took);
            let off = if self.round.is_some() { round.abs_diff(took) } else { took.saturating_mul(2) };
            self.deviation = (self.deviation.saturating_mul(3).saturating_add(off)) / 4;
            self.round = Some((round.saturating_mul(7).saturating_add(took)) / 8);
            self.wait = self.asked_wait.unwrap_or_else(|| took.saturating_mul(4).clamp(LEAST_WAIT, FIRST_WAIT));
        }
        self.learn_nothing();
    }

    /// Until when an answer is more likely to an earlier copy than to the last one.
    fn longest_round(&self) -> Duration {
        self.round.unwrap_or_default().saturating_add(self.deviation.saturating_mul(4))
    }

    fn learn_nothing(&mut self) {
        if self.tries > 0 {
            self.wait = self.asked_wait.unwrap_or(FIRST_WAIT);
        }
        self.tries = 0;
    }
}

/// A block's number on the wire.
const fn wire(block: u64) -> u16 {
    let [.., high, low] = block.to_be_bytes();
    u16::from_be_bytes([high, low])
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn asked(block: u16, window: u16) -> Options {
        Options { block_bytes: Some(block), window: Some(window), ..Options::default() }
    }

    fn blocks(step: &Step) -> Option<(u64, u64)> {
        match step.send {
            Send::Blocks { first, last } => Some((first, last)),
            _ => None,
        }
    }

    #[test]
    fn without_options_one_block_of_512_goes_out_at_a_time() {
        let mut transfer = Transfer::new(1024, Options::default(), 1468, ms(0));
        assert_eq!(blocks(&transfer.first(ms(0))), Some((1, 1)));
        assert_eq!(blocks(&transfer.packet(&FromClient::Acknowledged(1), ms(1))), Some((2, 2)));
        assert_eq!(blocks(&transfer.packet(&FromClient::Acknowledged(2), ms(2))), Some((3, 3)));
        assert_eq!(transfer.content(3), (1024, 0), "a multiple of the block ends with an empty one");
        let end = transfer.packet(&FromClient::Acknowledged(3), ms(3)).ended;
        assert_eq!(end, Some(TransferEvent::Ended { bytes: 1024, took: ms(3), sent_again: 0 }));
    }

    #[test]
    fn a_second_acknowledgement_of_the_same_block_sends_nothing() {
        let mut transfer = Transfer::new(5000, Options::default(), 1468, ms(0));
        transfer.first(ms(0));
        transfer.packet(&FromClient::Acknowledged(1), ms(1));
        assert_eq!(transfer.packet(&FromClient::Acknowledged(1), ms(2)), Step::NOTHING);
        assert_eq!(transfer.packet(&FromClient::Acknowledged(9), ms(2)), Step::NOTHING);
    }

    #[test]
    fn a_gap_in_a_window_starts_it_anew_once() {
        let mut transfer = Transfer::new(100_000, asked(1000, 4), 1468, ms(0));
        assert_eq!(transfer.first(ms(0)).send, Send::Options);
        assert_eq!(blocks(&transfer.packet(&FromClient::Acknowledged(0), ms(1))), Some((1, 4)));
        assert_eq!(blocks(&transfer.packet(&FromClient::Acknowledged(2), ms(2))), Some((3, 6)));
        assert_eq!(transfer.packet(&FromClient::Acknowledged(2), ms(2)), Step::NOTHING);
        assert_eq!(blocks(&transfer.packet(&FromClient::Acknowledged(6), ms(3))), Some((7, 10)));
        assert_eq!(transfer.packet(&FromClient::Acknowledged(6), ms(3)), Step::NOTHING, "the echo of the copies");
        assert_eq!(blocks(&transfer.packet(&FromClient::Acknowledged(10), ms(4))), Some((11, 14)));
        assert_eq!(blocks(&transfer.packet(&FromClient::Acknowledged(10), ms(5))), Some((11, 14)), "its first is lost");
        assert_eq!(transfer.packet(&FromClient::Acknowledged(10), ms(5)), Step::NOTHING);
    }

    #[test]
    fn the_wait_doubles_and_ends() {
        let mut transfer = Transfer::new(100, Options::default(), 1468, ms(0));
        transfer.first(ms(0));
        let mut waits = Vec::new();
        let mut now = ms(0);
        loop {
            waits.push((transfer.deadline() - now).as_millis());
            now = transfer.deadline();
            let step = transfer.late(now);
            if let Some(TransferEvent::Failed { bytes: 0, why }) = step.ended {
                assert!(why.contains("6 tries"));
                break;
            }
            assert_eq!(blocks(&step), Some((1, 1)));
        }
        assert_eq!(waits, [1000, 2000, 4000, 8000, 8000, 8000]);
    }

    #[test]
    fn a_client_that_only_wants_the_size_is_no_failure() {
        let options = Options { size: true, ..Options::default() };
        for code in [0, 8] {
            let mut transfer = Transfer::new(77, options, 1468, ms(0));
            transfer.first(ms(0));
            assert_eq!(transfer.options(), b"\0\x06tsize\x0077\0");
            let error = FromClient::Error { code, message: "User aborted".to_owned() };
            assert_eq!(transfer.packet(&error, ms(1)).ended, Some(TransferEvent::OnlySize));
        }
        let mut transfer = Transfer::new(77, options, 1468, ms(0));
        transfer.first(ms(0));
        let full = FromClient::Error { code: 3, message: "full".to_owned() };
        assert!(matches!(transfer.packet(&full, ms(1)).ended, Some(TransferEvent::Failed { .. })));
    }

    #[test]
    fn options_never_grow() {
        let transfer = Transfer::new(9, asked(65464, 65535), 1468, ms(0));
        assert_eq!(transfer.options(), b"\0\x06blksize\x001468\0windowsize\x0064\0");
    }

    #[test]
    fn block_numbers_go_round() {
        let mut transfer = Transfer::new(70_000 * 8 + 3, asked(8, 1), 1468, ms(0));
        transfer.first(ms(0));
        let mut step = transfer.packet(&FromClient::Acknowledged(0), ms(0));
        let mut expected = 1_u64;
        while step.ended.is_none() {
            assert_eq!(blocks(&step), Some((expected, expected)));
            step = transfer.packet(&FromClient::Acknowledged(wire(expected)), ms(0));
            expected += 1;
        }
        assert_eq!(expected, 70_002);
    }
}
