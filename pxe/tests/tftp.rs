//! The TFTP server with clients of others, over good and bad ways.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use pxe::files::TransferEvent;
use pxe::tftp::server::{Limits, TftpServer};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use support::relay::{Faults, Relay};
use support::{Folder, Scratch, has, noise, run};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

async fn serve(folder: Folder, limits: Limits) -> (SocketAddr, Arc<Folder>, tokio_util::sync::DropGuard) {
    let folder = Arc::new(folder);
    let server = TftpServer::bind("127.0.0.1:0".parse().unwrap(), Arc::clone(&folder), limits).await.unwrap();
    let (address, stop) = (server.address(), CancellationToken::new());
    tokio::spawn(server.run(stop.clone()));
    (address, folder, stop.drop_guard())
}

fn atftp(server: SocketAddr, name: &str, to: &std::path::Path, block: usize, window: u16) -> Command {
    let mut command = Command::new("atftp");
    command.args(["--get", "--remote-file", name, "--local-file"]).arg(to);
    command.args(["--option", &format!("blksize {block}"), "--option", &format!("windowsize {window}")]);
    command.args(["--option", "tsize", &server.ip().to_string(), &server.port().to_string()]);
    command
}

#[tokio::test]
async fn curl_gets_files_of_every_length() {
    if !has("curl") {
        return;
    }
    // curl 7.88 itself ends with "getpeername() failed" at an empty file, from every server; atftp shows that one below.
    for length in [1, 511, 512, 513, 1024, 100_000] {
        let bytes = noise(length, 1);
        let (server, folder, _guard) = serve(Folder::of(&[("a/b", bytes.clone())]), Limits::default()).await;
        for block in ["512", "1428"] {
            let mut command = Command::new("curl");
            command.args(["-sS", "--max-time", "20", "--tftp-blksize", block, &format!("tftp://{server}/a/b")]);
            let (good, out, words) = run(command).await;
            assert!(good, "{length} by {block}: {words}");
            assert!(out == bytes, "{length} by {block}: {} bytes came", out.len());
        }
        let ended = |folder: &Folder| {
            folder.notes().iter().filter(|(_, what)| matches!(what, TransferEvent::Ended { .. })).count() == 2
        };
        // The client is gone before the server has read its last acknowledgement.
        let noted = async {
            while !ended(&folder) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), noted).await.expect("both ends are noted");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_arrive_whole_over_bad_ways_and_nothing_grows() {
    if !has("atftp") {
        return;
    }
    const BLOCK: usize = 1000;
    let ways = [
        ("good", Faults::default()),
        ("loss 5 %", Faults { lost_percent: 5, ..Faults::default() }),
        ("loss 10 %", Faults { lost_percent: 10, ..Faults::default() }),
        ("doubled", Faults { doubled_percent: 20, ..Faults::default() }),
        ("swapped", Faults { swapped_percent: 10, ..Faults::default() }),
        ("delayed", Faults { delayed_ms: 20, ..Faults::default() }),
        ("lost OACK", Faults { first_answer_lost: true, ..Faults::default() }),
        ("lost last ACK", Faults { acknowledgement_lost: Some(31), ..Faults::default() }),
    ];
    let scratch = Arc::new(Scratch::new("faults"));
    let mut tasks = tokio::task::JoinSet::new();
    let places = Arc::new(tokio::sync::Semaphore::new(16));
    for (way, (named, faults)) in ways.into_iter().enumerate() {
        for window in [1_u16, 4, 16] {
            for length in [0, BLOCK - 1, BLOCK, 30 * BLOCK, 30 * BLOCK + 7] {
                let (scratch, places) = (Arc::clone(&scratch), Arc::clone(&places));
                tasks.spawn(async move {
                    let _place = places.acquire().await.unwrap();
                    let seed = (way * 1000 + usize::from(window)) as u64 + length as u64;
                    let bytes = noise(length, seed);
                    let (server, _, _guard) = serve(Folder::of(&[("f", bytes.clone())]), Limits::default()).await;
                    let relay = Relay::open(server, faults, seed).await;
                    let to = scratch.0.join(format!("{way}-{window}-{length}"));
                    let (good, _, words) = run(atftp(relay.address, "f", &to, BLOCK, window)).await;
                    let what = format!("{named}, window {window}, {length} bytes");
                    assert!(good, "{what}: {words}");
                    assert!(std::fs::read(&to).unwrap() == bytes, "{what}: other bytes");
                    let sent = relay.from_server.load(Ordering::Relaxed);
                    let ideal = (length / BLOCK + 2) as u64;
                    // With a window of one nothing but a loss, and a swap that is longer than the wait, is sent again. With
                    // windows a client takes what comes twice or out of turn for a gap, and each gap costs a window.
                    let mut hit = 2 * (faults.lost_percent + faults.swapped_percent);
                    if window > 1 {
                        hit += 2 * (faults.swapped_percent + faults.doubled_percent);
                    }
                    let allowed =
                        ideal + ideal * 3 / 10 + ideal * hit * u64::from(window) / 100 + 2 * u64::from(window);
                    assert!(sent <= allowed, "{what}: {sent} packets, ideal {ideal}, allowed {allowed}");
                });
            }
        }
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

/// Block numbers go round once, over ways that are good, double one packet in a hundred, and swap some. Doubled packets
/// make nothing grow when there is one block at a time (the Sorcerer's Apprentice).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_65535_blocks_arrive() {
    if !has("atftp") {
        return;
    }
    let bytes = noise(70_000 * 8 + 5, 3);
    let scratch = Scratch::new("long");
    let doubled = Faults { doubled_percent: 1, ..Faults::default() };
    for (named, faults, window) in [
        ("good", Faults::default(), 1),
        ("good", Faults::default(), 4),
        ("good", Faults::default(), 16),
        ("doubled", doubled, 1),
        ("doubled", doubled, 16),
    ] {
        let (server, _, _guard) = serve(Folder::of(&[("long", bytes.clone())]), Limits::default()).await;
        let relay = Relay::open(server, faults, u64::from(window)).await;
        let to = scratch.0.join(format!("{named}-{window}"));
        let (good, _, words) = run(atftp(relay.address, "long", &to, 8, window)).await;
        assert!(good, "{named}, window {window}: {words}");
        assert!(std::fs::read(&to).unwrap() == bytes, "{named}, window {window}: other bytes");
        let sent = relay.from_server.load(Ordering::Relaxed);
        // Each packet that comes twice costs a client with windows up to a whole window, by the standard.
        let by_windows = if window > 1 { 2 * 700 * u64::from(window) * faults.doubled_percent } else { 0 };
        assert!(sent <= 70_002 * 13 / 10 + by_windows, "{named}, window {window}: {sent} packets for 70,002");
    }
}

/// A way that is slower than the least wait: the server learns it from the first answers, and sends nothing twice after.
#[tokio::test]
async fn a_way_slower_than_the_least_wait_makes_nothing_grow() {
    if !has("atftp") {
        return;
    }
    let bytes = noise(20 * 1000, 5);
    let (server, _, _guard) = serve(Folder::of(&[("f", bytes.clone())]), Limits::default()).await;
    let faults = Faults { delayed_ms: 150, ..Faults::default() };
    let relay = Relay::open(server, faults, 5).await;
    let scratch = Scratch::new("slow");
    let to = scratch.0.join("f");
    let (good, _, words) = run(atftp(relay.address, "f", &to, 1000, 1)).await;
    assert!(good, "{words}");
    assert!(std::fs::read(&to).unwrap() == bytes);
    let sent = relay.from_server.load(Ordering::Relaxed);
    assert!(sent <= 22 * 13 / 10, "{sent} packets for 22");
}

/// What EDK2 does: asks for the size, says ERROR 0 to the answer, and then asks for the file from the same port.
#[tokio::test]
async fn a_probe_for_the_size_and_then_the_file_from_the_same_port() {
    let bytes = noise(700, 1);
    let (server, folder, _guard) = serve(Folder::of(&[("a", bytes.clone())]), Limits::default()).await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let probe = b"\0\x01a\0octet\0tsize\x000\0blksize\x001468\0";
    let mut packet = [0; 2048];
    client.send_to(probe, server).await.unwrap();
    let (length, transfer) = client.recv_from(&mut packet).await.unwrap();
    assert!(packet[..length].windows(10).any(|part| part == b"tsize\x00700\0"), "{:?}", &packet[..length]);
    client.send_to(b"\0\x05\0\0User aborted the transfer\0", transfer).await.unwrap();
    let ended = async {
        while !folder.notes().iter().any(|(_, what)| *what == TransferEvent::OnlySize) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), ended).await.expect("a probe is no failure");
    // The same request again, at once: it is a new transfer, for the old one is over.
    client.send_to(probe, server).await.unwrap();
    let (length, transfer) = client.recv_from(&mut packet).await.unwrap();
    assert_eq!(packet[..2], [0, 6], "{:?}", &packet[..length]);
    client.send_to(&[0, 4, 0, 0], transfer).await.unwrap();
    let (length, _) = client.recv_from(&mut packet).await.unwrap();
    assert_eq!((&packet[..4], &packet[4..length]), (&[0, 3, 0, 1][..], &bytes[..]));
}

#[tokio::test]
async fn two_hundred_half_open_transfers_do_not_keep_others_out() {
    let bytes = noise(100, 1);
    let limits = Limits { per_source: 1000, ..Limits::default() };
    let (server, _, _guard) = serve(Folder::of(&[("a", bytes.clone())]), limits).await;
    let mut packet = [0; 2048];
    let mut silent = Vec::new();
    for _ in 0..200 {
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.send_to(b"\0\x01a\0octet\0tsize\x000\0", server).await.unwrap();
        client.recv_from(&mut packet).await.unwrap();
        silent.push(client);
    }
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.send_to(&request("a"), server).await.unwrap();
    let (length, _) = client.recv_from(&mut packet).await.unwrap();
    assert_eq!(&packet[4..length], &bytes[..]);
}

/// Everything that comes back within a moment. The wait is what is under test: silence has no event to wait for.
async fn answers(socket: &UdpSocket) -> usize {
    let (mut bytes, mut count) = ([0; 2048], 0);
    while tokio::time::timeout(Duration::from_millis(300), socket.recv_from(&mut bytes)).await.is_ok() {
        count += 1;
    }
    count
}

fn request(name: &str) -> Vec<u8> {
    [b"\0\x01", name.as_bytes(), b"\0octet\0"].concat()
}

#[tokio::test]
async fn what_may_not_be_given_is_met_with_silence() {
    let (server, _, _guard) = serve(Folder::of(&[("a", noise(10, 1))]), Limits::default()).await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for silent in [
        request("b"),
        request("../a"),
        request("a\\..\\a"),
        b"\0\x02a\0octet\0".to_vec(),
        b"\0\x01a\0mail\0".to_vec(),
        b"\0\x01a".to_vec(),
        b"\0\x04\0\x01".to_vec(),
        Vec::new(),
    ] {
        client.send_to(&silent, server).await.unwrap();
    }
    assert_eq!(answers(&client).await, 0);
    client.send_to(&request("\\a"), server).await.unwrap();
    assert!(answers(&client).await > 0, "and what may be given is given");
}

/// Error 1, once, in no more bytes than the request had, from a port of its own as every answer (RFC 1350).
#[tokio::test]
async fn who_may_hear_that_a_file_is_not_there_hears_it_at_once() {
    let (server, folder, _guard) = serve(Folder::of(&[("a", noise(10, 1))]), Limits::default()).await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut bytes = [0; 2048];
    for _ in 0..2 {
        client.send_to(&request("not-there"), server).await.unwrap();
        let (length, from) = client.recv_from(&mut bytes).await.unwrap();
        assert_eq!(&bytes[..length], b"\0\x05\0\x01not found\0");
        assert!(length <= request("not-there").len());
        assert_ne!(from, server);
        assert_eq!(answers(&client).await, 0, "and is told once");
    }
    assert_eq!(folder.notes(), Vec::new(), "it is no transfer");
    client.send_to(&request("a"), server).await.unwrap();
    assert!(answers(&client).await > 0);
}

#[tokio::test]
async fn a_request_sent_twice_is_one_transfer_and_a_new_one_replaces_it() {
    let (server, folder, _guard) =
        serve(Folder::of(&[("a", noise(2000, 1)), ("b", noise(2000, 2))]), Limits::default()).await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.send_to(&request("a"), server).await.unwrap();
    client.send_to(&request("a"), server).await.unwrap();
    let mut bytes = [0; 2048];
    let (_, first) = client.recv_from(&mut bytes).await.unwrap();
    client.send_to(&request("b"), server).await.unwrap();
    let (length, second) = client.recv_from(&mut bytes).await.unwrap();
    assert_ne!(first, second);
    assert_eq!(&bytes[4..length], &noise(2000, 2)[..512]);
    let begun = folder.notes().iter().filter(|(_, what)| matches!(what, TransferEvent::Began { .. })).count();
    assert_eq!(begun, 2);
}

#[tokio::test]
async fn one_source_holds_four_transfers_and_not_more() {
    let (server, _, _guard) = serve(Folder::of(&[("a", noise(2000, 1))]), Limits::default()).await;
    let mut served = 0;
    // A client that is gone would give its place back.
    let mut clients = Vec::new();
    for _ in 0..200 {
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.send_to(&request("a"), server).await.unwrap();
        let mut bytes = [0; 600];
        let wait = Duration::from_millis(if served < 4 { 2000 } else { 5 });
        served += usize::from(tokio::time::timeout(wait, client.recv_from(&mut bytes)).await.is_ok());
        clients.push(client);
    }
    assert_eq!(served, 4);
}

#[tokio::test]
async fn a_stranger_does_not_disturb_a_transfer() {
    let (server, _, _guard) = serve(Folder::of(&[("a", noise(1000, 1))]), Limits::default()).await;
    let (client, stranger) =
        (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
    client.send_to(&request("a"), server).await.unwrap();
    let mut bytes = [0; 2048];
    let (_, transfer) = client.recv_from(&mut bytes).await.unwrap();
    stranger.send_to(b"\0\x05\0\0gone\0", transfer).await.unwrap();
    stranger.send_to(b"\0\x04\0\x01", transfer).await.unwrap();
    client.send_to(b"\0\x04\0\x01", transfer).await.unwrap();
    let (length, _) = client.recv_from(&mut bytes).await.unwrap();
    assert_eq!((bytes[3], length), (2, 4 + 488));
}
