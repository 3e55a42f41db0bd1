//! IPMI 2.0 over LAN, the BMC's side: suites 3 and 17, sessions with a cap, chassis, boot options, event log, sensors.

mod command;
mod session;
mod storage;

use crate::misbehaviour::Misbehaviour;
use crate::state::Handle;
use session::{Sent, Server};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;

/// Longest datagram.
const DATAGRAM_MAX: usize = 1_472;

/// Serves until its task is aborted.
pub(crate) async fn serve(socket: UdpSocket, handle: Handle) {
    let socket = Arc::new(socket);
    let mut server = Server::new(handle.clone());
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            // A client's closed port shows here; it is no fault of ours.
            tokio::task::yield_now().await;
            continue;
        };
        let Some(datagram) = buffer.get(..length) else { continue };
        let Some(Sent { datagrams, after }) = server.accept(datagram, from) else { continue };
        let late = handle.lock().has(Misbehaviour::ThirtySecondsLate);
        let wait = if late { Duration::from_secs(30) } else { after };
        if wait.is_zero() {
            for datagram in datagrams {
                let _ = socket.send_to(&datagram, from).await;
            }
            continue;
        }
        let socket = socket.clone();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            for datagram in datagrams {
                let _ = socket.send_to(&datagram, from).await;
            }
        });
    }
}
