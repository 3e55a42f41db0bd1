//! Whether what a client is told to fetch is there: a TFTP request with options up to the first block, an HTTP HEAD.

use super::choice::Way;
use crate::tftp::packet::error_code;
use serde::Serialize;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::time::timeout;

/// One wait for an answer. Firmware asks again after one to four seconds, and so does this.
const WAIT: Duration = Duration::from_secs(1);
/// How often it asks.
const TRIES: u32 = 3;
/// The longest head of an HTTP answer, bytes.
const HEAD_BYTES: usize = 8192;
/// Above this a file takes long by TFTP and some clients' block numbers run out (512-byte blocks: 32 MiB).
pub const LARGE_FOR_TFTP_BYTES: u64 = 32 << 20;

/// What came of a fetch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Fetched {
    /// It is there.
    There {
        /// Its size, where told, bytes.
        bytes: Option<u64>,
        /// From the request to the first byte of it, milliseconds.
        after_ms: u64,
    },
    /// The server says no.
    Refused {
        /// Its words.
        why: String,
    },
    /// Nobody answers there.
    Silent {
        /// What was seen.
        why: String,
    },
    /// Small packets come, a full block does not: it is dropped on the way.
    LargeLost {
        /// The block that never came, bytes.
        block_bytes: u16,
    },
    /// It was not tried.
    NotTried {
        /// Why.
        why: String,
    },
}

/// Follows a way from this address as far as the first byte.
pub async fn fetch(way: &Way, from: Ipv4Addr, mtu: u16) -> Fetched {
    match way {
        Way::Tftp { server, file } => {
            let block = mtu.saturating_sub(32).clamp(512, 1468);
            tftp(SocketAddrV4::new(*server, 69), file, from, block).await
        }
        Way::Http { url } => head(url, from).await,
        Way::BootServer { .. } => Fetched::NotTried { why: "port 4011 is asked first".to_owned() },
    }
}

/// The first packets of a TFTP transfer.
async fn tftp(server: SocketAddrV4, file: &str, from: Ipv4Addr, block_bytes: u16) -> Fetched {
    let silent = |why: String| Fetched::Silent { why };
    match first_block(server, file, from, block_bytes).await {
        Ok(Block::Lost { size }) if block_bytes > 512 => match first_block(server, file, from, 512).await {
            Ok(Block::Came { .. }) => Fetched::LargeLost { block_bytes },
            Ok(_) => silent(format!("it agrees to send {} bytes and then sends nothing", size.unwrap_or(0))),
            Err(error) => silent(error.to_string()),
        },
        Ok(Block::Lost { .. }) => silent("it agrees to send the file and then sends nothing".to_owned()),
        Ok(Block::Came { size, after }) => Fetched::There { bytes: size, after_ms: millis(after) },
        Ok(Block::Refused(why)) => Fetched::Refused { why },
        Err(error) => silent(error.to_string()),
    }
}

enum Block {
    Came { size: Option<u64>, after: Duration },
    Lost { size: Option<u64> },
    Refused(String),
}

async fn first_block(server: SocketAddrV4, file: &str, from: Ipv4Addr, block_bytes: u16) -> io::Result<Block> {
    let socket = UdpSocket::bind((from, 0)).await?;
    let mut request = vec![0, 1];
    for part in [file, "octet", "tsize", "0", "blksize", &block_bytes.to_string()] {
        request.extend_from_slice(part.as_bytes());
        request.push(0);
    }
    let begun = Instant::now();
    let mut buffer = vec![0_u8; 2048];
    // The transfer's own port at the server, once it has spoken (RFC 1350 section 4).
    let mut peer = None::<(SocketAddr, Option<u64>)>;
    for _ in 0..TRIES {
        match peer {
            None => socket.send_to(&request, SocketAddr::V4(server)).await?,
            Some((peer, _)) => socket.send_to(&[0, 4, 0, 0], peer).await?,
        };
        let until = Instant::now() + WAIT;
        while let Ok(got) =
            timeout(until.saturating_duration_since(Instant::now()), socket.recv_from(&mut buffer)).await
        {
            let (length, source) = got?;
            if source.ip() != *server.ip() || peer.is_some_and(|(peer, _)| peer != source) {
                continue;
            }
            match buffer.get(..length).unwrap_or_default() {
                [0, 6, options @ ..] => {
                    peer = Some((source, size_of_file(options)));
                    socket.send_to(&[0, 4, 0, 0], source).await?;
                }
                [0, 3, ..] => {
                    // Error 8 is how a client that only wanted to know ends a transfer (RFC 2347).
                    let bye = [&[0, 5, 0, error_code::OPTIONS.to_be_bytes()[1]][..], b"only looking\0"].concat();
                    socket.send_to(&bye, source).await?;
                    return Ok(Block::Came { size: peer.and_then(|(_, size)| size), after: begun.elapsed() });
                }
                [0, 5, _, code, words @ ..] => {
                    let words = String::from_utf8_lossy(words.split(|byte| *byte == 0).next().unwrap_or_default());
                    let words: String = words.chars().filter(|c| !c.is_control()).take(100).collect();
                    return Ok(Block::Refused(format!("error {code}, \"{words}\"")));
                }
                _ => {}
            }
        }
    }
    match peer {
        Some((peer, size)) => {
            socket.send_to(b"\0\x05\0\0gone\0", peer).await?;
            Ok(Block::Lost { size })
        }
        None => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer in {} s", WAIT.as_secs() * u64::from(TRIES)),
        )),
    }
}

/// The `tsize` of an option acknowledgement.
fn size_of_file(options: &[u8]) -> Option<u64> {
    let mut strings = options.split(|byte| *byte == 0);
    while let (Some(name), Some(value)) = (strings.next(), strings.next()) {
        if name.eq_ignore_ascii_case(b"tsize") {
            return std::str::from_utf8(value).ok()?.parse().ok();
        }
    }
    None
}

async fn head(url: &str, from: Ipv4Addr) -> Fetched {
    let Some((address, host, path)) = split(url) else {
        let why = if url.starts_with("https://") {
            "HTTPS is not tried: it is the firmware's list of authorities that counts".to_owned()
        } else {
            "it is no URL with an IPv4 address: a name has to be resolved, which some firmware cannot".to_owned()
        };
        return Fetched::NotTried { why };
    };
    let begun = Instant::now();
    let asked = timeout(WAIT * TRIES, async {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((from, 0)))?;
        let mut stream = socket.connect(SocketAddr::V4(address)).await?;
        let request = format!(
            "HEAD {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: UefiHttpBoot/1.0\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut head = Vec::new();
        let mut part = [0_u8; 1024];
        while head.len() < HEAD_BYTES && !head.windows(4).any(|four| four == b"\r\n\r\n") {
            match stream.read(&mut part).await? {
                0 => break,
                length => head.extend_from_slice(part.get(..length).unwrap_or_default()),
            }
        }
        Ok::<_, io::Error>(head)
    });
    match asked.await {
        Err(_) => Fetched::Silent { why: format!("no answer in {} s", (WAIT * TRIES).as_secs()) },
        Ok(Err(error)) => Fetched::Silent { why: error.to_string() },
        Ok(Ok(head)) => answer(&head, begun.elapsed()),
    }
}

fn answer(head: &[u8], after: Duration) -> Fetched {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    if response.parse(head).is_err() {
        return Fetched::Refused { why: "it answers, but not in HTTP".to_owned() };
    }
    let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse().ok());
    match (response.code, length) {
        (Some(200), Some(bytes)) => Fetched::There { bytes: Some(bytes), after_ms: millis(after) },
        // EDK2's HTTP boot sizes its memory by it and ends without it.
        (Some(200), None) => Fetched::Refused { why: "it does not say how long the file is".to_owned() },
        (Some(code @ 300..=399), _) => {
            Fetched::Refused { why: format!("it redirects ({code}), which firmware does not follow") }
        }
        (Some(code), _) => Fetched::Refused { why: format!("HTTP {code}") },
        (None, _) => Fetched::Refused { why: "its answer is cut off".to_owned() },
    }
}

/// Address, host and path of a plain URL with an IPv4 literal.
fn split(url: &str) -> Option<(SocketAddrV4, &str, &str)> {
    let rest = url.strip_prefix("http://")?;
    let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let address = host.parse().or_else(|_| host.parse().map(|address| SocketAddrV4::new(address, 80))).ok()?;
    Some((address, host, path))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_plain_url_with_an_address_is_split_and_no_other() {
        let (address, host, path) = split("http://10.0.0.1:8080/a/b.efi").unwrap();
        assert_eq!((address.to_string().as_str(), host, path), ("10.0.0.1:8080", "10.0.0.1:8080", "/a/b.efi"));
        assert_eq!(split("http://10.0.0.1").unwrap().0.port(), 80);
        for other in ["https://10.0.0.1/x", "http://boot/x", "http://10.0.0.1/a b", "http://10.0.0.1/a\r\nX: y", ""] {
            assert_eq!(split(other), None, "{other}");
        }
    }

    #[test]
    fn what_firmware_cannot_use_is_refused_in_words() {
        let said = |text: &str| answer(text.as_bytes(), Duration::ZERO);
        assert_eq!(
            said("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"),
            Fetched::There { bytes: Some(7), after_ms: 0 }
        );
        for (text, why) in [
            ("HTTP/1.1 404 Not Found\r\n\r\n", "404"),
            ("HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n", "redirects"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "how long"),
            ("SSH-2.0\r\n", "not in HTTP"),
        ] {
            assert!(matches!(said(text), Fetched::Refused { why: said } if said.contains(why)), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = answer(&bytes, Duration::ZERO);
            let _ = size_of_file(&bytes);
        }
    }
}
