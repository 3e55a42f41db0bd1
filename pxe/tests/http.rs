//! The HTTP boot server with clients of others and with hostile ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use pxe::files::{Body, TransferEvent};
use pxe::http::server::{HttpServer, Limits};
use std::fs::File;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use support::{Folder, Scratch, has, noise, run};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

async fn serve(folder: Folder, limits: Limits) -> (SocketAddr, Arc<Folder>, tokio_util::sync::DropGuard) {
    let folder = Arc::new(folder);
    let server = HttpServer::bind("127.0.0.1:0".parse().unwrap(), Arc::clone(&folder), limits).await.unwrap();
    let (address, stop) = (server.address().unwrap(), CancellationToken::new());
    tokio::spawn(server.run(stop.clone()));
    (address, folder, stop.drop_guard())
}

fn curl(arguments: &[&str]) -> Command {
    let mut command = Command::new("curl");
    command.args(["-sS", "--fail", "--max-time", "20"]).args(arguments);
    command
}

/// What comes back for these bytes until the server ends the connection.
async fn talk(server: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn curl_gets_the_whole_a_range_the_rest_and_the_size() {
    if !has("curl") {
        return;
    }
    let scratch = Scratch::new("http");
    let bytes = noise(5_000_000, 1);
    // A body in the middle of a file, as nothing else shows that the offset is kept.
    let path = scratch.0.join("content");
    std::fs::write(&path, [&noise(4096, 2)[..], &bytes[..], b"behind"].concat()).unwrap();
    let mut folder = Folder::of(&[("memory", bytes.clone())]);
    let body = Body::File { file: Arc::new(File::open(&path).unwrap()), offset: 4096, length: bytes.len() as u64 };
    folder.files.insert("file".to_owned(), body);
    let (server, folder, _guard) = serve(folder, Limits::default()).await;
    for name in ["memory", "file"] {
        let url = format!("http://{server}/{name}");
        let (good, out, words) = run(curl(&[&url])).await;
        assert!(good && out == bytes, "{name}: {words}");
        let (good, out, words) = run(curl(&["-r", "1000000-1999999", &url])).await;
        assert!(good && out == bytes[1_000_000..2_000_000], "{name}: {words}");
        let (good, out, words) = run(curl(&["-r", "-17", &url, &url])).await;
        assert!(good && out == [&bytes[4_999_983..]; 2].concat(), "{name}: {words}");
        let half = scratch.0.join("half");
        std::fs::write(&half, &bytes[..2_500_000]).unwrap();
        let (good, _, words) = run(curl(&["-C", "-", "-o", half.to_str().unwrap(), &url])).await;
        assert!(good && std::fs::read(&half).unwrap() == bytes, "{name}: {words}");
        let (good, out, words) = run(curl(&["-I", &url])).await;
        let head = String::from_utf8(out).unwrap();
        assert!(good && head.contains("Content-Length: 5000000\r\n"), "{name}: {head}{words}");
    }
    assert!(folder.notes().iter().any(|(name, what)| name == "file" && *what == TransferEvent::OnlySize));
}

#[tokio::test]
async fn everything_that_is_not_open_gets_the_same_bytes() {
    let (server, _, _guard) = serve(Folder::of(&[("a", noise(10, 1))]), Limits::default()).await;
    let mut seen = Vec::new();
    for target in ["/b", "/", "/../a", "/a/..", "/%00", "*", "/t/0123/boot.ipxe", &format!("/{}", "x".repeat(2000))] {
        for method in ["GET", "HEAD"] {
            seen.push(
                talk(server, format!("{method} {target} HTTP/1.1\r\nConnection: close\r\n\r\n").as_bytes()).await,
            );
        }
    }
    seen.dedup();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert!(seen[0].starts_with("HTTP/1.1 404 "));
}

#[tokio::test]
async fn requests_in_a_row_are_answered_in_their_order() {
    let (server, _, _guard) = serve(Folder::of(&[("a", "aaa".into()), ("b", "bb".into())]), Limits::default()).await;
    let answer = talk(
        server,
        b"GET /a HTTP/1.1\r\n\r\nHEAD /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\nGET /x HTTP/1.1\r\n\r\nGET /a HTTP/1.1\r\n\r\n",
    )
    .await;
    // The answer to a name that is not there is the last on its connection.
    let bodies = (answer.find("\r\n\r\naaa"), answer.find("\r\n\r\nbb"), answer.find("HTTP/1.1 404 "));
    assert!(bodies.0.is_some() && bodies.0 < bodies.1 && bodies.1 < bodies.2, "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 3, "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 404 ").count(), 1, "{answer}");
}

#[tokio::test]
async fn what_is_no_request_for_a_file_is_refused_and_the_connection_ends() {
    let (server, _, _guard) = serve(Folder::of(&[("a", noise(10, 1))]), Limits::default()).await;
    for (bytes, status) in [
        (&b"POST /a HTTP/1.1\r\n\r\n"[..], "405"),
        (b"DELETE /b HTTP/1.1\r\n\r\n", "405"),
        (b"GET /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "413"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "400"),
        (b"GET /a HTTP/3.0\r\n\r\n", "400"),
        (&[b"GET /a HTTP/1.1\r\nX: ", vec![b'x'; 9000].as_slice()].concat(), "431"),
    ] {
        let answer = talk(server, bytes).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
}

#[tokio::test]
async fn one_address_has_no_more_connections_than_its_share_and_slow_ones_end() {
    let limits = Limits { per_source: 3, head: Duration::from_millis(300), ..Limits::default() };
    let (server, _, _guard) = serve(Folder::of(&[("a", noise(10, 1))]), limits).await;
    let mut slow = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(server).await.unwrap();
        stream.write_all(b"GET /a HT").await.unwrap();
        slow.push(stream);
    }
    let mut fourth = TcpStream::connect(server).await.unwrap();
    let refused = fourth.read(&mut [0; 1]).await;
    assert!(matches!(refused, Ok(0) | Err(_)), "no place for the fourth: {refused:?}");
    for mut stream in slow {
        let end = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut [0; 1])).await.unwrap();
        assert!(matches!(end, Ok(0)), "a head that does not come ends the connection");
    }
    assert!(
        talk(server, b"GET /a HTTP/1.0\r\n\r\n").await.starts_with("HTTP/1.1 200"),
        "and the places are free again"
    );
}

#[tokio::test]
async fn a_peer_that_goes_or_stands_still_is_noted_with_what_it_took() {
    let limits = Limits { stalled: Duration::from_millis(300), ..Limits::default() };
    let bytes = noise(50_000_000, 1);
    let (server, folder, _guard) = serve(Folder::of(&[("a", bytes)]), limits).await;
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_all(b"GET /a HTTP/1.1\r\n\r\n").await.unwrap();
    let failed = async {
        loop {
            let notes = folder.notes();
            if let Some((_, TransferEvent::Failed { bytes, why })) = notes.last() {
                break (*bytes, why.clone());
            }
            tokio::task::yield_now().await;
        }
    };
    let (sent, why) = tokio::time::timeout(Duration::from_secs(10), failed).await.unwrap();
    assert!(sent > 0 && sent < 50_000_000 && why.contains("took no byte"), "{sent}: {why}");
}
