//! HTTP: an image from our boot server beside nginx with sendfile, in the same run, over the same cable, with one client.
//!
//! `cargo bench -p tests --bench http [-- quick]` as root; nginx comes from tests/peers/install-boot.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a benchmark")]

mod ground;

use ground::{Ground, Running, Runs, SERVER, wait_until};
use pxe::files::{Body, BootFile, FileRequest, Files, Transfer, Withheld};
use pxe::http::server::{HttpServer, Limits};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const LARGE: u64 = 1 << 30;
const SMALL: u64 = 1 << 20;
const OURS: u16 = 8080;
const NGINX: u16 = 8081;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.first().map(String::as_str) {
        Some("serve") => serve(&arguments[1]),
        Some("load") => load(&arguments[1..]),
        first => compare(first == Some("quick")),
    }
}

#[derive(Debug)]
struct Folder([(&'static str, Arc<File>, u64); 2]);

impl Files for Folder {
    fn open(&self, request: &FileRequest<'_>) -> Result<BootFile, Withheld> {
        let (_, file, length) = self.0.iter().find(|(name, ..)| *name == request.path).ok_or(Withheld::Silence)?;
        let body = Body::File { file: Arc::clone(file), offset: 0, length: *length };
        Ok(BootFile { body, media_type: "application/octet-stream", sha256: None, tag: 0 })
    }

    fn transferred(&self, _transfer: &Transfer<'_>) {}
}

fn serve(folder: &str) {
    let open = |name| Arc::new(File::open(Path::new(folder).join(name)).unwrap());
    let files = Arc::new(Folder([("large", open("large"), LARGE), ("small", open("small"), SMALL)]));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let server = HttpServer::bind(SocketAddr::from((SERVER, OURS)), files, Limits::default()).await.unwrap();
        server.run(CancellationToken::new()).await;
    });
}

/// One request over an open connection; the bytes of the body.
fn get(stream: &mut TcpStream, name: &str, buffer: &mut [u8]) -> u64 {
    stream.write_all(format!("GET /{name} HTTP/1.1\r\nHost: {SERVER}\r\n\r\n").as_bytes()).unwrap();
    let mut head = Vec::new();
    let body = loop {
        let length = stream.read(buffer).unwrap();
        assert!(length > 0, "the server went away");
        head.extend_from_slice(&buffer[..length]);
        if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let text = String::from_utf8_lossy(&head[..body]).to_lowercase();
    assert!(text.starts_with("http/1.1 200"), "{text}");
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let wanted: u64 = length.trim().parse().unwrap();
    let mut got = (head.len() - body) as u64;
    while got < wanted {
        let length = stream.read(buffer).unwrap();
        assert!(length > 0, "{got} of {wanted} bytes");
        got += length as u64;
    }
    got
}

/// Prints the seconds that so many connections took, each for so many requests.
fn load(arguments: &[String]) {
    let number = |index: usize| arguments[index].parse::<usize>().unwrap();
    let (port, connections, requests) = (number(0) as u16, number(2), number(3));
    let name = arguments[1].clone();
    let begun = Instant::now();
    let threads: Vec<_> = (0..connections)
        .map(|_| {
            let name = name.clone();
            std::thread::spawn(move || {
                let mut stream = TcpStream::connect((SERVER, port)).unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                let mut buffer = vec![0; 256 << 10];
                (0..requests).map(|_| get(&mut stream, &name, &mut buffer)).sum::<u64>()
            })
        })
        .collect();
    let bytes: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    println!("{}", bytes as f64 / begun.elapsed().as_secs_f64() / 1e6);
}

fn nginx(ground: &Ground) -> Running {
    let folder = ground.folder.display();
    let text = format!(
        "worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.errors; daemon off; user root;\n\
         events {{ worker_connections 512; }}\n\
         http {{ access_log off; sendfile on; tcp_nopush on; default_type application/octet-stream;\n\
         server {{ listen {SERVER}:{NGINX}; root {folder}; }} }}\n"
    );
    let config = ground.folder.join("nginx.conf");
    std::fs::write(&config, text).unwrap();
    let mut command = ground.at_server("nginx");
    Running::start(command.arg("-c").arg(config), &ground.folder.join("nginx.log"))
}

fn ask(ground: &Ground, port: u16, name: &str, connections: usize, requests: usize) -> Option<f64> {
    let numbers = [port.to_string(), connections.to_string(), requests.to_string()];
    let mut command = ground.ourselves_at_client(&["load", &numbers[0], name, &numbers[1], &numbers[2]]);
    let output = command.stderr(Stdio::null()).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().parse().ok().filter(|_| output.status.success())
}

fn compare(quick: bool) {
    let ground = Ground::new(1500, 1);
    let noise: Vec<u8> = (0..SMALL).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    std::fs::write(ground.folder.join("small"), &noise).unwrap();
    let mut large = File::create(ground.folder.join("large")).unwrap();
    (0..LARGE / SMALL).for_each(|_| large.write_all(&noise).unwrap());
    let mut ours = ground.ourselves_at_server(&["serve", ground.folder.to_str().unwrap()]);
    let _ours = Running::start(&mut ours, &ground.folder.join("ours.log"));
    let _nginx = nginx(&ground);
    for port in [OURS, NGINX] {
        wait_until("an HTTP server", || ask(&ground, port, "small", 1, 1).is_some());
        // Once for the page cache.
        ask(&ground, port, "large", 1, 1).unwrap();
    }
    let runs = if quick { 3 } else { 11 };
    println!("MB/s, median of {runs} interleaved runs (least..most); {}", ground::load());
    println!("| | ours | nginx, sendfile | ours to nginx |\n|---|---|---|---|");
    let cells = [("one stream of 1 GiB", "large", 1, 1), ("16 connections, files of 1 MiB", "small", 16, 64)];
    for (named, name, connections, requests) in cells {
        let (mut ours, mut theirs) = (Runs::default(), Runs::default());
        for _ in 0..runs {
            ours.push(ask(&ground, OURS, name, connections, requests).expect("ours"));
            theirs.push(ask(&ground, NGINX, name, connections, requests).expect("nginx"));
        }
        let ratio = ours.to(&theirs).median();
        println!("| {named} | {} | {} | {ratio:.2} |", ours.shown(), theirs.shown());
    }
    println!("{}", ground::load());
}
