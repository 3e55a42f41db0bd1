//! A serial console over an open session.

use super::client::{Client, random};
use super::error::IpmiError;
use super::frame::MAX_DATAGRAM;
use super::session::Incoming;
use super::sol::Sol;
use super::sol_activation::{self, ConsoleError};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// A BMC ends a session that is idle for a minute (section 6.12.15).
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Characters kept while nobody reads; more is left to the BMC, which sends it again or tells an overrun.
const UNREAD_MAX: usize = 64 * 1_024;

/// What went by on the line beside characters, since it was asked last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Notices {
    /// Characters of the machine were lost.
    pub overrun: bool,
    /// The machine sent a break.
    pub broke: bool,
}

/// An open console. Dropped without [`Console::close`], it blocks others until the BMC ends the session.
#[derive(Debug)]
pub struct Console {
    client: Client,
    sol: Sol,
    unread: Vec<u8>,
    notices: Notices,
    ended: bool,
    keep_alive: Duration,
    /// When something was last sent.
    sent_at: Instant,
    /// When the packet under way was last sent.
    flown_at: Instant,
}

impl Client {
    /// Opens the serial console. `take_over` ends another session's, if there is one.
    ///
    /// # Errors
    /// Another session has it, it is switched off, it would be unprotected or elsewhere, or as [`Client::run`]. The session
    /// is closed then.
    pub async fn console(mut self, take_over: bool) -> Result<Console, IpmiError> {
        match self.activate(take_over).await {
            Ok(characters_max) => Ok(Console {
                client: self,
                sol: Sol::new(characters_max),
                unread: Vec::new(),
                notices: Notices::default(),
                ended: false,
                keep_alive: KEEP_ALIVE,
                sent_at: Instant::now(),
                flown_at: Instant::now(),
            }),
            Err(why) => {
                self.close().await;
                Err(why)
            }
        }
    }

    async fn activate(&mut self, take_over: bool) -> Result<usize, IpmiError> {
        let mut granted = self.run(&sol_activation::activate(), "activate payload").await;
        if take_over && matches!(granted, Err(IpmiError::Refused { code: 0x80, .. })) {
            // Refused where the other session ended by itself meanwhile.
            match self.run(&sol_activation::deactivate(), "deactivate payload").await {
                Ok(_) | Err(IpmiError::Refused { .. }) => {}
                Err(why) => return Err(why),
            }
            granted = self.run(&sol_activation::activate(), "activate payload").await;
        }
        let address = self.address;
        let data = granted.map_err(|why| match why {
            IpmiError::Refused { code, .. } => match sol_activation::refusal(code) {
                Some(source) => IpmiError::Console { address, source },
                None => why,
            },
            _ => why,
        })?;
        let granted = self.read(sol_activation::read_activated(&data), "activate payload")?;
        if granted.port != 0 && granted.port != address.port() {
            let _ = self.run(&sol_activation::deactivate(), "deactivate payload").await;
            return Err(IpmiError::Console { address, source: ConsoleError::OtherPort(granted.port) });
        }
        Ok(granted.characters_max)
    }
}

impl Console {
    /// Waits for characters of the machine. May be dropped while it waits: nothing is lost by that.
    ///
    /// # Errors
    /// The BMC ended the console or takes nothing any more, or the session is lost.
    pub async fn read(&mut self) -> Result<Vec<u8>, IpmiError> {
        while self.unread.is_empty() {
            self.step().await?;
        }
        Ok(std::mem::take(&mut self.unread))
    }

    /// Sends characters and waits until the BMC took them all. Dropped before, the rest is sent by the next call.
    ///
    /// # Errors
    /// As [`Console::read`].
    pub async fn write(&mut self, characters: &[u8]) -> Result<(), IpmiError> {
        let mut rest = characters;
        loop {
            let taken = self.sol.write(rest);
            rest = rest.get(taken..).unwrap_or_default();
            if rest.is_empty() && self.sol.is_idle() {
                return Ok(());
            }
            self.step().await?;
        }
    }

    /// Sends a break, for the kernel's magic keys, and waits until the BMC took it.
    ///
    /// # Errors
    /// As [`Console::read`].
    pub async fn generate_break(&mut self) -> Result<(), IpmiError> {
        self.sol.generate_break();
        self.write(&[]).await
    }

    /// What went by beside characters since the last call.
    pub fn notices(&mut self) -> Notices {
        std::mem::take(&mut self.notices)
    }

    /// Gives the console and the session back.
    pub async fn close(mut self) {
        // A console that we lost may be another's by now, and deactivating would end that one.
        if !self.ended {
            let _ = self.client.run(&sol_activation::deactivate(), "deactivate payload").await;
        }
        self.client.close().await;
    }

    /// Sends what may be sent, then waits for one datagram, for the end of a wait, or for the time of a keep-alive.
    async fn step(&mut self) -> Result<(), IpmiError> {
        if let Some(packet) = self.sol.outgoing() {
            self.flown_at = Instant::now();
            self.send(&packet).await?;
        }
        if let Some(payload) = self.client.console_packets.pop_front() {
            return self.take(&payload).await;
        }
        if self.ended {
            return Err(self.error(ConsoleError::Ended));
        }
        let keep_alive_at = self.sent_at + self.keep_alive;
        let again_at = self.flown_at + self.client.patience.retry;
        let until = if self.sol.is_waiting() { again_at.min(keep_alive_at) } else { keep_alive_at };
        let mut buffer = [0; MAX_DATAGRAM];
        match timeout_at(until, self.client.socket.recv(&mut buffer)).await {
            Ok(Ok(length)) => {
                let datagram = buffer.get(..length).unwrap_or_default();
                if let Ok(Incoming::Sol(payload)) = self.client.session.accept(datagram) {
                    self.take(&payload).await?;
                }
                Ok(())
            }
            // A port that is closed is silence; how long is borne, the tries and the keep-alive say.
            Ok(Err(why)) if why.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
            Ok(Err(source)) => Err(IpmiError::Socket { address: self.client.address, source }),
            Err(_) => self.waited().await,
        }
    }

    async fn waited(&mut self) -> Result<(), IpmiError> {
        let now = Instant::now();
        if now >= self.flown_at + self.client.patience.retry {
            match self.sol.again() {
                Ok(Some(packet)) => {
                    self.flown_at = now;
                    return self.send(&packet).await;
                }
                Ok(None) => {}
                Err(why) => {
                    self.ended = true;
                    return Err(self.error(why));
                }
            }
        }
        if now >= self.sent_at + self.keep_alive {
            self.sent_at = now;
            self.client.keep_alive().await?;
        }
        Ok(())
    }

    async fn take(&mut self, payload: &[u8]) -> Result<(), IpmiError> {
        let taken = match *payload {
            // Its characters are left to the BMC; what it says about ours counts.
            [_, acknowledged, count, status, ..] if self.unread.len() > UNREAD_MAX => {
                self.sol.accept(&[0, acknowledged, count, status])
            }
            _ => self.sol.accept(payload),
        };
        self.unread.extend(taken.characters);
        self.notices.overrun |= taken.overrun;
        self.notices.broke |= taken.broke;
        self.ended |= taken.ended;
        match taken.answer {
            Some(answer) => self.send(&answer).await,
            None => Ok(()),
        }
    }

    async fn send(&mut self, payload: &[u8]) -> Result<(), IpmiError> {
        self.sent_at = Instant::now();
        let datagram = self.client.session.sol(random()?, payload);
        match self.client.socket.send(&datagram).await {
            Ok(_) => Ok(()),
            Err(why) if why.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
            Err(source) => Err(IpmiError::Socket { address: self.client.address, source }),
        }
    }

    fn error(&self, source: ConsoleError) -> IpmiError {
        IpmiError::Console { address: self.client.address, source }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::scripted::{Asked, Does, bmc, done, refused};
    use super::*;
    use std::sync::{Arc, Mutex};

    /// Grants a console of eight characters a packet at this port.
    fn granted(port: u16) -> Does {
        let mut data = vec![0, 0, 0, 0, 12, 0, 12, 0];
        data.extend(port.to_le_bytes());
        data.extend([0xff, 0xff]);
        done(&data)
    }

    fn grants(asked: Asked) -> Does {
        if asked.command == 0x48 { granted(0) } else { done(&[]) }
    }

    #[tokio::test]
    async fn an_echo_that_loses_refuses_and_doubles_packets_still_echoes() {
        let (mut seen, mut own, mut last) = (0u32, 0u8, 0u8);
        let echo = move |packet: Vec<u8>| {
            seen += 1;
            let (sequence, characters) = (packet[0], &packet[4..]);
            if sequence == 0 || seen % 5 == 0 {
                return Does::Nothing;
            }
            if seen % 7 == 0 {
                return Does::Console(vec![vec![0, sequence, 0, 0x60]]);
            }
            if sequence == last {
                return Does::Console(vec![vec![0, sequence, u8::try_from(characters.len()).unwrap(), 0]]);
            }
            last = sequence;
            own = own % 15 + 1;
            let mut answer = vec![own, sequence, u8::try_from(characters.len()).unwrap(), 0];
            answer.extend(characters);
            Does::Console(vec![answer.clone(), answer])
        };
        let client = bmc(grants, echo).await;
        let mut console = client.console(false).await.unwrap();
        let text = b"the quick brown fox jumps over the lazy dog, twice a day";
        console.write(text).await.unwrap();
        let mut heard = Vec::new();
        while heard.len() < text.len() {
            heard.extend(console.read().await.unwrap());
        }
        assert_eq!(heard, text);
        console.close().await;
    }

    #[tokio::test]
    async fn a_console_that_another_has_is_taken_over_on_demand_only() {
        let owned = || {
            let mut free = false;
            move |asked: Asked| match asked.command {
                0x48 if free => granted(0),
                0x48 => refused(0x80),
                0x49 => {
                    free = true;
                    done(&[])
                }
                _ => done(&[]),
            }
        };
        let busy = bmc(owned(), |_| Does::Nothing).await.console(false).await;
        assert!(matches!(busy, Err(IpmiError::Console { source: ConsoleError::Busy, .. })), "{busy:?}");
        let mut mine = bmc(owned(), |_| Does::Console(vec![vec![0, 1, 0, 0]])).await.console(true).await.unwrap();
        mine.generate_break().await.unwrap();
        mine.close().await;
    }

    #[tokio::test]
    async fn another_port_is_refused_and_given_back() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&asked);
        let elsewhere = move |message: Asked| {
            noted.lock().unwrap().push(message.command);
            if message.command == 0x48 { granted(9) } else { done(&[]) }
        };
        let refused = bmc(elsewhere, |_| Does::Nothing).await.console(false).await;
        assert!(matches!(refused, Err(IpmiError::Console { source: ConsoleError::OtherPort(9), .. })), "{refused:?}");
        assert_eq!(*asked.lock().unwrap(), [0x48, 0x49, 0x3c]);
    }

    #[tokio::test]
    async fn the_end_is_told_after_what_came_before_it() {
        let ends = |packet: Vec<u8>| match packet[0] {
            0 => Does::Nothing,
            sequence => Does::Console(vec![[&[1, sequence, 1, 0x18][..], b"bye"].concat()]),
        };
        let mut console = bmc(grants, ends).await.console(false).await.unwrap();
        console.write(b"x").await.unwrap();
        assert_eq!(console.read().await.unwrap(), b"bye");
        assert_eq!(console.notices(), Notices { overrun: true, broke: false });
        let end = console.read().await;
        assert!(matches!(end, Err(IpmiError::Console { source: ConsoleError::Ended, .. })), "{end:?}");
    }

    #[tokio::test]
    async fn an_idle_console_shows_that_it_is_wanted_until_nobody_answers() {
        let mut asked = 0;
        let lives_for_three = move |message: Asked| match message.command {
            0x01 if asked < 3 => {
                asked += 1;
                done(&[0x20, 1, 9, 8, 2, 0x9f, 0x91, 0x12, 0, 2, 0x0f])
            }
            0x01 => Does::Nothing,
            _ => grants(message),
        };
        let mut console = bmc(lives_for_three, |_| Does::Nothing).await.console(false).await.unwrap();
        console.keep_alive = Duration::from_millis(30);
        let begun = Instant::now();
        let lost = console.read().await;
        assert!(matches!(lost, Err(IpmiError::ReplyLost { .. })), "{lost:?}");
        assert!(begun.elapsed() >= Duration::from_millis(120));
    }

    #[tokio::test]
    async fn a_bmc_that_takes_nothing_ends_a_write_and_keeps_what_may_be_anothers() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&asked);
        let noting = move |message: Asked| {
            noted.lock().unwrap().push(message.command);
            grants(message)
        };
        let mut console = bmc(noting, |_| Does::Nothing).await.console(false).await.unwrap();
        let stalled = console.write(b"x").await;
        assert!(matches!(stalled, Err(IpmiError::Console { source: ConsoleError::Stalled, .. })), "{stalled:?}");
        let over = console.read().await;
        assert!(matches!(over, Err(IpmiError::Console { source: ConsoleError::Ended, .. })), "{over:?}");
        console.close().await;
        assert_eq!(*asked.lock().unwrap(), [0x48, 0x3c]);
    }
}
