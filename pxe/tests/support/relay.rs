//! A UDP relay between TFTP clients and a server that loses, doubles and swaps packets by a seed.

use super::Random;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What is done to the packets of one flow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Packets lost, of a hundred.
    pub lost_percent: u64,
    /// Packets that come twice, of a hundred; never the acknowledgement of options.
    pub doubled_percent: u64,
    /// Packets that come after their successor, of a hundred.
    pub swapped_percent: u64,
    /// The first packet of the server is lost.
    pub first_answer_lost: bool,
    /// How long each packet is under way, one behind the other, milliseconds.
    pub delayed_ms: u64,
    /// Every packet of the client that acknowledges this block is lost once.
    pub acknowledgement_lost: Option<u16>,
}

/// A relay that runs until it is dropped.
#[derive(Debug)]
pub struct Relay {
    /// Where clients send to.
    pub address: SocketAddr,
    /// Packets that the server has sent.
    pub from_server: Arc<AtomicU64>,
    stop: CancellationToken,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Relay {
    /// A relay to this server, for one client.
    pub async fn open(server: SocketAddr, faults: Faults, seed: u64) -> Self {
        let front = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = front.local_addr().unwrap();
        let (stop, from_server) = (CancellationToken::new(), Arc::new(AtomicU64::new(0)));
        let (own_stop, count) = (stop.clone(), Arc::clone(&from_server));
        tokio::spawn(async move {
            tokio::select! {
                () = own_stop.cancelled() => {}
                () = flow(front, server, faults, seed, &count) => {}
            }
        });
        Self { address, from_server, stop }
    }
}

async fn flow(front: UdpSocket, server: SocketAddr, mut faults: Faults, seed: u64, count: &AtomicU64) {
    // What the client takes for the transfer's own port, and what the server takes for the client.
    let down = Way::open(faults.delayed_ms).await;
    let up = Way::open(faults.delayed_ms).await;
    let (mut client, mut transfer) = (None, server);
    let mut random = Random(seed);
    let (mut to_client, mut to_server) = (Vec::new(), Vec::new());
    let (mut one, mut two, mut three) = ([0; 2048], [0; 2048], [0; 2048]);
    loop {
        tokio::select! {
            Ok((length, from)) = front.recv_from(&mut one) => {
                client = Some(from);
                // A request is passed on whole: it is the answers that are under test.
                up.send(&one[..length], server).await;
            }
            Ok((length, from)) = up.socket.recv_from(&mut two) => {
                count.fetch_add(1, Ordering::Relaxed);
                transfer = from;
                let first = std::mem::take(&mut faults.first_answer_lost);
                let Some(client) = client else { continue };
                // atftp gives up when the acknowledgement of options comes twice; that is not what is under test.
                if two[1] == 6 && !first {
                    down.send(&two[..length], client).await;
                    continue;
                }
                for packet in damage(&two[..length], first, &mut to_client, &mut random, faults) {
                    down.send(&packet, client).await;
                }
            }
            Ok((length, _)) = down.socket.recv_from(&mut three) => {
                let number = u16::from_be_bytes([three[2], three[3]]);
                if number == 0 {
                    // Were it lost, the acknowledgement of options would come again.
                    up.send(&three[..length], transfer).await;
                    continue;
                }
                let lost = faults.acknowledgement_lost == Some(number) && three[1] == 4;
                if lost {
                    faults.acknowledgement_lost = None;
                }
                for packet in damage(&three[..length], lost, &mut to_server, &mut random, faults) {
                    up.send(&packet, transfer).await;
                }
            }
            // A packet that waits for a successor which never comes is late, not lost.
            () = tokio::time::sleep(Duration::from_millis(20)), if !(to_client.is_empty() && to_server.is_empty()) => {
                if let Some(client) = client {
                    for packet in to_client.drain(..) {
                        down.send(&packet, client).await;
                    }
                }
                for packet in to_server.drain(..) {
                    up.send(&packet, transfer).await;
                }
            }
        }
    }
}

/// A socket whose packets are under way for a while, in their order.
struct Way {
    socket: Arc<UdpSocket>,
    late: Option<UnboundedSender<(Instant, Vec<u8>, SocketAddr)>>,
}

impl Way {
    async fn open(delayed_ms: u64) -> Self {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let late = (delayed_ms > 0).then(|| {
            let (late, mut due) = unbounded_channel::<(Instant, Vec<u8>, SocketAddr)>();
            let socket = Arc::clone(&socket);
            tokio::spawn(async move {
                while let Some((sent, packet, to)) = due.recv().await {
                    tokio::time::sleep_until(sent + Duration::from_millis(delayed_ms)).await;
                    let _ = socket.send_to(&packet, to).await;
                }
            });
            late
        });
        Self { socket, late }
    }

    async fn send(&self, packet: &[u8], to: SocketAddr) {
        match &self.late {
            Some(late) => drop(late.send((Instant::now(), packet.to_vec(), to))),
            None => drop(self.socket.send_to(packet, to).await),
        }
    }
}

/// What comes out for one packet that goes in.
fn damage(packet: &[u8], lost: bool, held: &mut Vec<Vec<u8>>, random: &mut Random, faults: Faults) -> Vec<Vec<u8>> {
    if lost || random.percent(faults.lost_percent) {
        return Vec::new();
    }
    if held.is_empty() && random.percent(faults.swapped_percent) {
        held.push(packet.to_vec());
        return Vec::new();
    }
    let mut out = vec![packet.to_vec()];
    if random.percent(faults.doubled_percent) {
        out.push(packet.to_vec());
    }
    out.append(held);
    out
}
