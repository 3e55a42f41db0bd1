//! The serial console of a machine on this terminal.

use super::place::{OPERATOR, Opened, Place};
use crate::cli::Usage;
use crate::cli::output::{Exit, talk};
use bmc::endpoint::Protocol;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};
use std::io::{Read as _, Write as _};
use tokio::sync::mpsc;

/// Keystrokes on their way.
const INPUT_MAX: usize = 64;

/// The terminal without echo and line editing; as it was before when this is dropped.
struct RawTerminal(Option<Termios>);

impl RawTerminal {
    fn new() -> RawTerminal {
        let stdin = rustix::stdio::stdin();
        if !isatty(stdin) {
            return RawTerminal(None);
        }
        let Ok(before) = tcgetattr(stdin) else { return RawTerminal(None) };
        let mut raw = before.clone();
        raw.make_raw();
        let changed = tcsetattr(stdin, OptionalActions::Flush, &raw);
        RawTerminal(changed.is_ok().then_some(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Flush, before);
        }
    }
}

/// Finds `~.` at the beginning of a line, as in every serial console since cu.
#[derive(Debug, Default)]
struct Escape {
    within_line: bool,
    tilde: bool,
}

impl Escape {
    /// What goes to the machine of these bytes, and whether the end was asked for.
    fn take(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(bytes.len() + 1);
        for byte in bytes {
            if std::mem::take(&mut self.tilde) {
                match byte {
                    b'.' => return (out, true),
                    // Twice is once.
                    b'~' => {}
                    _ => out.push(b'~'),
                }
                out.push(*byte);
                self.within_line = !matches!(byte, b'\r' | b'\n');
            } else if *byte == b'~' && !self.within_line {
                self.tilde = true;
            } else {
                out.push(*byte);
                self.within_line = !matches!(byte, b'\r' | b'\n');
            }
        }
        (out, false)
    }
}

pub(super) async fn run(place: &Place, take_over: bool) -> anyhow::Result<Exit> {
    let (endpoint, _) = place.endpoint().await?;
    if endpoint.protocol == Protocol::Redfish {
        let text = "--url: Redfish names a console and carries none; use the BMC's ipmi:// address";
        return Err(Usage(text.to_owned()).into());
    }
    let Opened::Ipmi(client) = place.open_as(OPERATOR).await? else { anyhow::bail!("not an IPMI address") };
    let mut console = client.console(take_over).await?;
    talk("connected; `~.` at the beginning of a line ends it");
    // Reading a terminal blocks: a thread of its own, which ends with the process.
    let (typed, mut input) = mpsc::channel::<Vec<u8>>(INPUT_MAX);
    let terminal = RawTerminal::new();
    std::thread::spawn(move || {
        let mut buffer = [0; 256];
        while let Ok(length @ 1..) = std::io::stdin().lock().read(&mut buffer) {
            let bytes = buffer.get(..length).unwrap_or_default().to_vec();
            if typed.blocking_send(bytes).is_err() {
                break;
            }
        }
    });
    let mut escape = Escape::default();
    let ended = loop {
        tokio::select! {
            read = console.read() => match read {
                Ok(bytes) => {
                    let mut out = std::io::stdout().lock();
                    if out.write_all(&bytes).and_then(|()| out.flush()).is_err() {
                        break Ok(());
                    }
                }
                Err(why) => break Err(why),
            },
            typed = input.recv() => {
                let Some(typed) = typed else { break Ok(()) };
                let (bytes, ends) = escape.take(&typed);
                if !bytes.is_empty() && let Err(why) = console.write(&bytes).await {
                    break Err(why);
                }
                if ends {
                    break Ok(());
                }
            }
        }
    };
    drop(terminal);
    console.close().await;
    ended?;
    talk("console closed");
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_escape_works_at_the_beginning_of_a_line_only() {
        let take = |parts: &[&[u8]]| {
            let mut escape = Escape::default();
            let mut out = Vec::new();
            for part in parts {
                let (bytes, ends) = escape.take(part);
                out.extend(bytes);
                if ends {
                    return (out, true);
                }
            }
            (out, false)
        };
        assert_eq!(take(&[b"~."]), (vec![], true));
        assert_eq!(take(&[b"ls\r", b"~", b"."]), (b"ls\r".to_vec(), true));
        assert_eq!(take(&[b"cd ~.\r"]), (b"cd ~.\r".to_vec(), false));
        assert_eq!(take(&[b"~~x"]), (b"~x".to_vec(), false));
        assert_eq!(take(&[b"~a"]), (b"~a".to_vec(), false));
    }
}
