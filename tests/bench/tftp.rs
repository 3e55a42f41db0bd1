//! TFTP: our server beside tftpd-hpa, atftpd and dnsmasq, in the same run, over the same veth, with the same client.
//!
//! `cargo bench -p tests --bench tftp [-- quick | -- clients 128]` as root; the peers come from tests/peers/install-boot, whose folder
//! `RACKMEDIC_PEERS` names. Each cell is the median of interleaved runs, the ratio the median of the runs' ratios.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a benchmark")]

mod ground;

use bytes::Bytes;
use ground::{Ground, Running, Runs, SERVER, address, wait_until};
use pxe::files::{Body, BootFile, FileRequest, Files, Transfer, Withheld};
use pxe::tftp::server::{Limits, TftpServer};
use socket2::{Domain, Socket, Type};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const LARGE: usize = 16 << 20;
const SMALL: usize = 1 << 20;
/// Each has an address of its own, so that all of them run while one is asked.
const SERVERS: [&str; 4] = ["ours", "tftpd-hpa", "atftpd", "dnsmasq"];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.first().map(String::as_str) {
        Some("serve") => serve(&arguments[1]),
        Some("load") => load(&arguments[1..]),
        Some("half-open") => half_open(),
        Some("clients") => compare(false, arguments.get(1).and_then(|number| number.parse().ok())),
        first => compare(first == Some("quick"), None),
    }
}

#[derive(Debug)]
struct Folder(Vec<(String, Bytes)>);

impl Files for Folder {
    fn open(&self, request: &FileRequest<'_>) -> Result<BootFile, Withheld> {
        let (_, bytes) = self.0.iter().find(|(name, _)| name == request.path).ok_or(Withheld::Silence)?;
        let body = Body::Bytes(bytes.clone());
        Ok(BootFile { body, media_type: "application/octet-stream", sha256: None, tag: 0 })
    }

    fn transferred(&self, _transfer: &Transfer<'_>) {}
}

/// Ours, in the server's namespace.
fn serve(folder: &str) {
    let file = |name: &str| (name.to_owned(), Bytes::from(std::fs::read(Path::new(folder).join(name)).unwrap()));
    let folder = Arc::new(Folder(vec![file("large"), file("small")]));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // All clients have one address here.
        let limits = Limits { transfers: 1000, per_source: 1000, block_bytes: 8968 };
        let server = TftpServer::bind(format!("{SERVER}:69").parse().unwrap(), folder, limits).await.unwrap();
        server.run(CancellationToken::new()).await;
    });
}

/// Gets one file; its length, and the window that was agreed on. Panics when something is lost: this way loses nothing.
fn get(server: SocketAddr, name: &str, block: usize, window: usize) -> (usize, usize) {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    socket.set_recv_buffer_size(4 << 20).unwrap();
    let socket: UdpSocket = socket.into();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut request = [b"\0\x01", name.as_bytes(), b"\0octet\0"].concat();
    let mut option = |name: &str, value: usize| request.extend_from_slice(format!("{name}\0{value}\0").as_bytes());
    if block != 512 {
        option("blksize", block);
    }
    if window != 1 {
        option("windowsize", window);
    }
    socket.send_to(&request, server).unwrap();
    let mut packet = vec![0; block + 4];
    let (mut total, mut expected, mut agreed, mut peer) = (0, 1_u16, 1, None);
    let mut since = 0;
    loop {
        let length = match peer {
            None => {
                let (length, from) = socket.recv_from(&mut packet).expect("an answer");
                socket.connect(from).unwrap();
                peer = Some(from);
                length
            }
            Some(_) => socket.recv(&mut packet).expect("the next block"),
        };
        match packet[1] {
            6 => {
                let text = String::from_utf8_lossy(&packet[2..length]).to_lowercase();
                let mut words = text.split('\0');
                while let Some(word) = words.next() {
                    if word == "windowsize" {
                        agreed = words.next().unwrap().parse().unwrap();
                    }
                }
                socket.send(&[0, 4, 0, 0]).unwrap();
            }
            3 => {
                let number = u16::from_be_bytes([packet[2], packet[3]]);
                if number != expected {
                    continue;
                }
                expected = expected.wrapping_add(1);
                total += length - 4;
                since += 1;
                let last = length - 4 < block;
                if since == agreed || last {
                    since = 0;
                    let [high, low] = number.to_be_bytes();
                    socket.send(&[0, 4, high, low]).unwrap();
                }
                if last {
                    return (total, agreed);
                }
            }
            _ => panic!("the server says: {}", String::from_utf8_lossy(&packet[4..length])),
        }
    }
}

/// Clients at once; prints seconds and the window.
fn load(arguments: &[String]) {
    let number = |index: usize| arguments[index].parse::<usize>().unwrap();
    let server: SocketAddr = format!("{}:69", arguments[0]).parse().unwrap();
    let (clients, block, window) = (number(1), number(2), number(3));
    let (name, length) = if clients == 1 { ("large", LARGE) } else { ("small", SMALL) };
    let begun = Instant::now();
    let threads: Vec<_> = (0..clients).map(|_| std::thread::spawn(move || get(server, name, block, window))).collect();
    let mut agreed = 0;
    for thread in threads {
        let (total, window) = thread.join().unwrap();
        assert_eq!(total, length);
        agreed = window;
    }
    println!("{} {agreed}", begun.elapsed().as_secs_f64());
}

/// 500 clients that ask and then say no more, until somebody closes our standard input.
fn half_open() {
    let sockets: Vec<UdpSocket> = (0..500)
        .map(|_| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            socket.send_to(b"\0\x01large\0octet\0blksize\x001428\0windowsize\x0064\0", format!("{SERVER}:69")).unwrap();
            let (_, from) = socket.recv_from(&mut [0; 600]).expect("an acknowledgement of options");
            socket.send_to(&[0, 4, 0, 0], from).unwrap();
            socket
        })
        .collect();
    println!("{}", sockets.len());
    let _ = std::io::stdin().read(&mut [0]);
}

fn command(ground: &Ground, place: u8) -> Command {
    let folder = ground.folder.to_str().unwrap();
    let peers = std::env::var_os("RACKMEDIC_PEERS").map(PathBuf::from).unwrap_or_default();
    let own = address(place).to_string();
    let (program, arguments) = match SERVERS[usize::from(place)] {
        "ours" => (std::env::current_exe().unwrap(), format!("serve {folder}")),
        "tftpd-hpa" => {
            ("in.tftpd".into(), format!("--foreground --listen --user root --address {own}:69 --secure {folder}"))
        }
        "atftpd" => (
            peers.join("atftpd-0.8.0-3/usr/sbin/atftpd"),
            format!(
                "--daemon --no-fork --bind-address {own} --port 69 --maxthread 1000 --user root --group root {folder}"
            ),
        ),
        _ => (
            "dnsmasq".into(),
            format!(
                "--keep-in-foreground --conf-file=/dev/null --port=0 --pid-file= --user=root --enable-tftp \
                 --listen-address={own} --bind-interfaces --tftp-max=1000 --tftp-root={folder}"
            ),
        ),
    };
    let mut command = ground.at_server(program);
    command.args(arguments.split(' '));
    command
}

fn start(ground: &Ground, place: u8) -> Running {
    let server = SERVERS[usize::from(place)];
    let running = Running::start(&mut command(ground, place), &ground.folder.join(format!("{server}.log")));
    wait_until(server, || ask(ground, place, (1, 1428, 1)).is_some());
    running
}

/// Clients, block, window.
type Cell = (usize, usize, usize);

/// Seconds and the window that was agreed on.
fn ask(ground: &Ground, place: u8, (clients, block, window): Cell) -> Option<(f64, usize)> {
    let own = address(place).to_string();
    let numbers = [clients.to_string(), block.to_string(), window.to_string()];
    let mut command = ground.ourselves_at_client(&["load", &own, &numbers[0], &numbers[1], &numbers[2]]);
    let output = command.stderr(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (seconds, window) = text.trim().split_once(' ')?;
    output.status.success().then_some((seconds.parse().ok()?, window.parse().ok()?))
}

/// All of it, a part of it, or the cells with so many clients.
fn compare(quick: bool, clients: Option<usize>) {
    let ground = Ground::new(9000, 4);
    let noise: Vec<u8> = (0..LARGE as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    std::fs::write(ground.folder.join("large"), &noise).unwrap();
    std::fs::write(ground.folder.join("small"), &noise[..SMALL]).unwrap();
    let runs = if quick { 3 } else { 5 };
    let mut cells: Vec<Cell> = Vec::new();
    for clients in [1, 128].into_iter().filter(|number| clients.is_none_or(|clients| clients == *number)) {
        for block in [512, 1428, 8192] {
            for window in [1, 4, 16, 64] {
                cells.push((clients, block, window));
            }
        }
    }
    if quick {
        cells.retain(|(_, block, window)| *block != 8192 && [1, 16].contains(window));
    }
    let running: Vec<Running> = (0_u8..4).map(|place| start(&ground, place)).collect();
    println!("MB/s, median of {runs} interleaved runs (least..most), server's CPU ms per MiB; {}", ground::load());
    println!("| clients | blksize | windowsize | ours | tftpd-hpa | atftpd | dnsmasq | ours to the best |");
    println!("|---|---|---|---|---|---|---|---|");
    for cell in cells {
        measure(&ground, &running, cell, runs);
    }
    println!("{}", ground::load());
    drop(running);
    memory(&ground);
}

fn measure(ground: &Ground, running: &[Running], cell: Cell, runs: usize) {
    let (clients, block, window) = cell;
    let bytes = if clients == 1 { LARGE } else { SMALL * clients };
    let mut rates = vec![Runs::default(); SERVERS.len()];
    let mut work = [0.0; SERVERS.len()];
    for _ in 0..runs {
        for place in 0_u8..4 {
            let before = running[usize::from(place)].processor_ms();
            let asked = ask(ground, place, cell);
            work[usize::from(place)] += running[usize::from(place)].processor_ms() - before;
            // A server that gives no window is not measured under that name.
            if let Some((took, agreed)) = asked
                && agreed == window
            {
                rates[usize::from(place)].push(bytes as f64 / took / 1e6);
            }
        }
    }
    assert_eq!(rates[0].len(), runs, "ours failed at {cell:?}");
    let whole = rates[1..].iter().filter(|rates| rates.len() == runs);
    let best = whole.max_by(|one, other| one.median().total_cmp(&other.median()));
    let ratio = best.map_or("-".to_owned(), |best| format!("{:.2}", rates[0].to(best).median()));
    let per_mib = |place: usize| work[place] / (bytes as f64 / f64::from(1 << 20)) / runs as f64;
    let cell = |(place, rates): (usize, &Runs)| match rates.len() == runs {
        // tftpd-hpa does not wait for its children: theirs is not known.
        true if per_mib(place) > 0.0 => format!("{}, {:.1}", rates.shown(), per_mib(place)),
        true => format!("{}, ?", rates.shown()),
        false => "-".to_owned(),
    };
    let shown: Vec<String> = rates.iter().enumerate().map(cell).collect();
    println!("| {clients} | {block} | {window} | {} | {ratio} |", shown.join(" | "));
}

fn memory(ground: &Ground) {
    let running = start(ground, 0);
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", running.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default().to_owned();
        line.split_ascii_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    };
    let before = resident();
    let mut clients =
        ground.ourselves_at_client(&["half-open"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut open = [0; 4];
    clients.stdout.take().unwrap().read_exact(&mut open).unwrap();
    println!(
        "memory: {before:.1} MiB with files of {} MiB in memory, {:.1} MiB with {} transfers under way",
        (LARGE + SMALL) >> 20,
        resident(),
        String::from_utf8_lossy(&open).trim()
    );
    clients.stdin.take().unwrap().write_all(b"x").unwrap();
    clients.wait().unwrap();
}
