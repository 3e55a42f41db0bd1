//! A cable that changes what goes over it: QEMU's card speaks datagrams to us, and we pass its frames to the switch and the
//! switch's to it, with a byte of some of them changed and their checksum made to fit. Whoever changes a byte on purpose does
//! the same; a checksum of TCP protects nobody.

use crate::network::Network;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::net::UdpSocket;
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// QEMU's end, ours towards it, ours towards the switch, and the switch's, on the loopback of the host's namespace.
const PORTS: [u16; 4] = [7100, 7101, 7102, 7103];

/// For QEMU: how the host's card is plugged into this cable.
pub(crate) fn netdev() -> String {
    let [qemu, towards_qemu, ..] = PORTS;
    format!(
        "dgram,id=n0,local.type=inet,local.host=127.0.0.1,local.port={qemu},remote.type=inet,remote.host=127.0.0.1,remote.port={towards_qemu}"
    )
}

/// What is changed in a segment of TCP towards the host: gives the place in its payload of the byte whose lowest bit turns.
pub(crate) type Change = Box<dyn Fn(u16, &[u8]) -> Option<usize> + Send>;

/// The cable; pulled when it is dropped.
pub(crate) struct Wire {
    switch: Child,
    stop: Arc<AtomicBool>,
    changed: Arc<AtomicU32>,
    threads: Vec<JoinHandle<()>>,
}

impl Wire {
    /// Plugs it in. At most `most` segments are changed.
    pub(crate) fn plug(network: &Network, most: u32, change: Change) -> Self {
        let [qemu, towards_qemu, towards_switch, switch] = PORTS;
        let namespace = format!("/run/netns/{}", network.host_namespace);
        let (stop, changed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        // Sockets belong to the namespace of the thread that makes them.
        let sockets = std::thread::spawn({
            let namespace = namespace.clone();
            move || {
                let place = std::fs::File::open(namespace).unwrap();
                move_into_link_name_space(place.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                [towards_qemu, towards_switch].map(|port| {
                    let socket = UdpSocket::bind(("127.0.0.1", port)).unwrap();
                    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
                    Arc::new(socket)
                })
            }
        });
        let [to_host, to_switch] = sockets.join().unwrap();
        let tap = "TUN,tun-name=wire0,tun-type=tap,iff-no-pi,iff-up";
        let datagrams = format!("UDP4:127.0.0.1:{towards_switch},bind=127.0.0.1:{switch}");
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={namespace}")).args(["socat", tap, &datagrams]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let until = Instant::now() + Duration::from_secs(5);
        let plugged = || {
            let words = ["-n", &network.host_namespace, "link", "set", "wire0", "master", "br0"];
            Command::new("ip").args(words).stderr(Stdio::null()).status().unwrap().success()
        };
        while !plugged() {
            assert!(Instant::now() < until, "socat makes no interface: is it installed (tests/peers/install-boot)?");
            std::thread::sleep(Duration::from_millis(50));
        }
        let outwards = std::thread::spawn({
            let (from, to, stop) = (Arc::clone(&to_host), Arc::clone(&to_switch), Arc::clone(&stop));
            move || pass(&from, &to, switch, &stop, |_| ())
        });
        let inwards = std::thread::spawn({
            let (stop, changed) = (Arc::clone(&stop), Arc::clone(&changed));
            move || {
                pass(&to_switch, &to_host, qemu, &stop, |frame| {
                    if changed.load(Ordering::SeqCst) < most && turn(frame, &change) {
                        changed.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        Self { switch: child, stop, changed, threads: vec![outwards, inwards] }
    }

    /// How many segments were changed.
    pub(crate) fn changed(&self) -> u32 {
        self.changed.load(Ordering::SeqCst)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = self.switch.kill();
        let _ = self.switch.wait();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn pass(from: &UdpSocket, to: &UdpSocket, port: u16, stop: &AtomicBool, change: impl Fn(&mut [u8])) {
    let mut frame = vec![0; 65_536];
    while !stop.load(Ordering::SeqCst) {
        if let Ok((length, _)) = from.recv_from(&mut frame) {
            change(&mut frame[..length]);
            let _ = to.send_to(&frame[..length], ("127.0.0.1", port));
        }
    }
}

/// Turns a bit of a segment where the change wants it.
fn turn(frame: &mut [u8], change: &Change) -> bool {
    if frame.len() < 54 || frame[12..14] != [8, 0] || frame[23] != 6 {
        return false;
    }
    let head = 14 + usize::from(frame[14] & 15) * 4;
    let end = 14 + usize::from(u16::from_be_bytes([frame[16], frame[17]]));
    let body = head + usize::from(frame[head + 12] >> 4) * 4;
    if end > frame.len() || body >= end {
        return false;
    }
    let from = u16::from_be_bytes([frame[head], frame[head + 1]]);
    let Some(at) = change(from, &frame[body..end]) else { return false };
    frame[body + at] ^= 1;
    frame[head + 16..head + 18].fill(0);
    let length = u16::try_from(end - head).unwrap().to_be_bytes();
    let pseudo = [&frame[26..34], &[0, 6], &length].concat();
    let words = pseudo.chunks(2).chain(frame[head..end].chunks(2));
    let mut sum: u32 = words.map(|word| u32::from(u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = !u16::try_from(sum).unwrap();
    frame[head + 16..head + 18].copy_from_slice(&sum.to_be_bytes());
    true
}
