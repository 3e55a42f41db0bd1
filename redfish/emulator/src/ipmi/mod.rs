//! IPMI 2.0 over LAN, the BMC's side: suites 3 and 17, sessions with a cap, chassis, boot options, event log, sensors,
//! serial console.

mod chassis;
mod command;
mod dcmi;
mod fru;
mod lan;
mod message;
mod open;
mod payload;
mod sel;
mod sensors;
mod session;
mod sol;
mod sol_config;
mod users;

use crate::misbehaviour::Misbehaviour;
use crate::state::Handle;
use session::{Sent, Server};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;

/// Longest datagram.
const DATAGRAM_MAX: usize = 1_472;

/// How often the console is looked at while nothing comes.
const TICK: Duration = Duration::from_millis(20);
/// The same while nobody has the console: a thousand emulators that only wait must cost nothing.
const IDLE_TICK: Duration = Duration::from_secs(60);

/// Serves until its task is aborted.
pub(crate) async fn serve(socket: UdpSocket, handle: Handle) {
    let port = socket.local_addr().map_or(0, |address| address.port());
    let socket = Arc::new(socket);
    let mut server = Server::new(handle.clone(), port);
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        let tick = if server.has_console() { TICK } else { IDLE_TICK };
        let sent = match tokio::time::timeout(tick, socket.recv_from(&mut buffer)).await {
            Ok(Ok((length, from))) => server.accept(buffer.get(..length).unwrap_or_default(), from),
            Ok(Err(_)) => {
                // A client's closed port shows here; it is no fault of ours.
                tokio::task::yield_now().await;
                continue;
            }
            Err(_) => server.tick(),
        };
        let (late, other_port) = {
            let state = handle.lock();
            (state.has(Misbehaviour::ThirtySecondsLate), state.has(Misbehaviour::IpmiOtherPort))
        };
        let mut speaks = Arc::clone(&socket);
        if other_port && let Ok(other) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await {
            speaks = Arc::new(other);
        }
        for sent in sent {
            let wait = if late { Duration::from_secs(30) } else { sent.after };
            if wait.is_zero() {
                send(&speaks, sent).await;
            } else {
                let socket = Arc::clone(&speaks);
                tokio::spawn(async move {
                    tokio::time::sleep(wait).await;
                    send(&socket, sent).await;
                });
            }
        }
    }
}

async fn send(socket: &UdpSocket, Sent { datagrams, to, .. }: Sent) {
    for datagram in datagrams {
        let _ = socket.send_to(&datagram, to).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_datagram_makes_it_panic(datagrams in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 0..20)) {
            let mut server = Server::new(Handle::of_test(), 623);
            for mut datagram in datagrams {
                server.accept(&datagram, ([127, 0, 0, 1], 1).into());
                // As far as the header goes it is one of RMCP+.
                for (place, byte) in datagram.iter_mut().zip([6, 0, 0xff, 7, 6]) {
                    *place = byte;
                }
                server.accept(&datagram, ([127, 0, 0, 1], 1).into());
            }
        }

        #[test]
        fn no_command_makes_it_panic(asked in proptest::collection::vec((0usize..7, 0u8..0x62, proptest::collection::vec(any::<u8>(), 0..24)), 0..60)) {
            let handle = Handle::of_test();
            let (mut payloads, mut context) = (payload::Payloads::default(), command::Context::new(4, 4));
            command::run(&handle, &mut context, 0x06, 0x3b, &[4]);
            for (place, number, data) in asked {
                let net_fn = [0x00, 0x04, 0x06, 0x0a, 0x0c, 0x2c, 0x2e][place];
                let asker = payload::Asker { session: 1, encrypted: true, port: 623 };
                payload::run(&mut payloads, asker, net_fn, number, &data);
                command::run(&handle, &mut context, net_fn, number, &data);
                if let Some(console) = payloads.console.as_mut() {
                    let mut state = handle.lock();
                    console.sol.accept(&mut state, 0, &data);
                    console.sol.outgoing(&mut state.serial, 1_000_000, payloads.config.timing());
                }
            }
        }
    }
}
