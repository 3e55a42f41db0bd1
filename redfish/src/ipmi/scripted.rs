//! For tests: a BMC at the other end of an open session that answers as a script says.

use super::client::{Client, Patience};
use super::crypto::{Suite, decrypt};
use super::frame::{self, Packet, Payload};
use super::session::Session;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::net::UdpSocket;
use zeroize::Zeroizing;

/// What the BMC was sent.
pub(super) struct Asked {
    pub(super) lun: u8,
    pub(super) net_fn: u8,
    pub(super) command: u8,
    pub(super) data: Vec<u8>,
}

/// What it does.
pub(super) enum Does {
    /// Answers with a completion code and data.
    Answers(u8, Vec<u8>),
    /// Sends these packets of the console.
    Console(Vec<Vec<u8>>),
    /// Says nothing.
    Nothing,
}

/// Done, with data.
pub(super) fn done(data: &[u8]) -> Does {
    Does::Answers(0, data.to_vec())
}

/// Refused.
pub(super) fn refused(code: u8) -> Does {
    Does::Answers(code, Vec::new())
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |s, b| s.wrapping_add(*b)).wrapping_neg()
}

/// An open session with a BMC that does what `messages` makes of each message, and `console` of each console packet.
pub(super) async fn bmc(
    mut messages: impl FnMut(Asked) -> Does + Send + 'static,
    mut console: impl FnMut(Vec<u8>) -> Does + Send + 'static,
) -> Client {
    let suite = Suite::Sha256;
    let digest = |byte: u8| Zeroizing::new(vec![byte; 32]);
    let session = Session::new(suite, 0x1111, 0x2222, digest(1), digest(2));
    let mut theirs = Session::new(suite, 0x2222, 0x1111, digest(1), digest(2));
    let (near, far) = (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let address = far.local_addr().unwrap();
    near.connect(address).await.unwrap();
    far.connect(near.local_addr().unwrap()).await.unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; frame::MAX_DATAGRAM];
        while let Ok(length) = far.recv(&mut buffer).await {
            let Ok(Packet::Secure(packet)) = frame::parse(&buffer[..length], 16) else { continue };
            let plain = decrypt(&[2; 32], packet.payload).unwrap();
            let (does, head) = match packet.payload_type {
                Payload::Sol => (console(plain), [0; 3]),
                _ => {
                    let asked = Asked {
                        lun: plain[1] & 3,
                        net_fn: plain[1] >> 2,
                        command: plain[5],
                        data: plain[6..plain.len() - 1].to_vec(),
                    };
                    (messages(asked), [plain[1], plain[4], plain[5]])
                }
            };
            match does {
                Does::Nothing => {}
                Does::Console(packets) => {
                    for packet in packets {
                        far.send(&theirs.sol([7; 16], &packet)).await.unwrap();
                    }
                }
                Does::Answers(code, data) => {
                    let mut message = vec![frame::CONSOLE_ADDRESS, head[0] | 0x04];
                    message.push(sum(&message));
                    message.extend([frame::BMC_ADDRESS, head[1], head[2], code]);
                    message.extend(data);
                    message.push(sum(&message[3..]));
                    far.send(&theirs.sealed([7; 16], Payload::Ipmi, &message)).await.unwrap();
                }
            }
        }
    });
    let patience = Patience { retry: Duration::from_millis(100), tries: 3 };
    Client { socket: near, address, patience, session, console_packets: VecDeque::new() }
}

/// A BMC without a console.
pub(super) async fn answering(messages: impl FnMut(Asked) -> Does + Send + 'static) -> Client {
    bmc(messages, |_| Does::Nothing).await
}
