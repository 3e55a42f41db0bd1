//! One property over all routes to a host: without a ticket that lives, nothing is sent. DHCP on 67, ProxyDHCP on 67, PXE's
//! port 4011, IPv6's router advertisements, TFTP, HTTP, the image for the virtual drive and the installer's hello, asked with
//! what real firmware sends. In server mode a card with a
//! reservation is still given its address, and no word of booting.

use super::clock;
use super::identity::Identity;
use super::installer_api::{GivenFiles, InstallerApi};
use super::job::{HostWays, Job, MediaFor, State, Task, VERSION};
use super::jobs::Jobs;
use super::media;
use super::shelf::{Memory, Ports, Shelf};
use super::stock::ServedSet;
use bytes::Bytes;
use proptest::prelude::*;
use protocol::boot_set::Role;
use protocol::digest::Sha256;
use protocol::disk::DiskName;
use protocol::install::{Hello, InstallStage, Inventory, Nic, WriteMode};
use protocol::manifest::{Arch, Firmware};
use pxe::dhcp::decide::{Answerer, Arrival, Loaders, Port};
use pxe::dhcp::options::code;
use pxe::dhcp::request::Message;
use pxe::dhcp::scope::{Mode, Reservation, Scope, Subnet};
use pxe::files::{FileRequest, Files as _, Protocol, Withheld};
use pxe::gate::{FirstLoader, Now, Tickets as _, Token};
use pxe::mac::Mac;
use pxe::peers::Peers;
use pxe::recorder::Recorder;
use pxe::router;
use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const OURS: Ipv4Addr = Ipv4Addr::new(10, 79, 1, 1);
/// Behind a router, in a network that the configuration names: no neighbour table knows it.
const HOST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 50);
const TOKEN: [u8; 16] = [0xab; 16];
const MEDIA_TOKEN: [u8; 16] = [0xbc; 16];
const NONCE: [u8; 16] = [0xcd; 16];
/// Who may read the image for the virtual drive.
const BMC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
/// Captured from firmware; see pxe/tests/golden.rs.
const PACKETS: [&str; 7] = [
    "seabios-ipxe.discover",
    "ovmf-pxe.discover",
    "ovmf-pxe.request",
    "ovmf-pxe.boot-server-request",
    "ovmf-http.discover",
    "aavmf-pxe.discover",
    "ovmf-ipxe.discover",
];

fn packet(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pxe/tests/packets").join(name);
    let text = std::fs::read_to_string(path).unwrap();
    let digits: String = text.lines().filter(|line| !line.starts_with('#')).collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// Where a job may be.
#[derive(Clone, Copy, Debug)]
enum Where {
    None,
    Armed,
    Installing,
    Installed,
    Closed,
}

#[derive(Debug)]
struct Lab {
    folder: PathBuf,
    shelf: Arc<Shelf>,
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A shelf with one job for this card, opened so long ago; the wall clock was set by so much since then.
fn lab(mac: Mac, first_loader: FirstLoader, place: Where, age_s: u64, wall_moved_s: i64) -> Lab {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("rackmedic-gate-{}-{number}", std::process::id()));
    let jobs = folder.join("jobs");
    std::fs::create_dir_all(&jobs).unwrap();
    let now = clock::now();
    let age = Duration::from_secs(age_s);
    let wall = now.wall - age;
    let wall = if wall_moved_s < 0 {
        wall + Duration::from_secs(wall_moved_s.unsigned_abs())
    } else {
        wall - Duration::from_secs(wall_moved_s.unsigned_abs())
    };
    let state = match place {
        Where::None => None,
        Where::Armed => Some(State::Armed),
        Where::Installing => Some(State::Installing {
            boot: Token::new([1; 16]).as_str().to_owned(),
            session: Sha256([2; 32]),
            stage: InstallStage::Write,
        }),
        Where::Installed => Some(State::Installed),
        Where::Closed => Some(State::Armed.closed("disarmed")),
    };
    if let Some(state) = state {
        let job = Job {
            version: VERSION,
            name: "job".parse().unwrap(),
            task: Task {
                mac: mac.to_string(),
                image: Some("image".parse().unwrap()),
                image_version: Some("1".parse().unwrap()),
                prove: false,
                disk: DiskName { serial: Some("DISK1".to_owned()), wwn: None },
                mode: WriteMode::Plain,
                foreign_data_approved: false,
                first_boot: Vec::new(),
                join: None,
                media: Some(MediaFor { reader: BMC, appliance: OURS }),
            },
            token: Token::new(TOKEN).as_str().to_owned(),
            media_token: Token::new(MEDIA_TOKEN).as_str().to_owned(),
            nonce: Token::new(NONCE).as_str().to_owned(),
            boot_id: std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().to_owned(),
            opened: Now { elapsed: now.elapsed - age, wall },
            system_uuid: None,
            state,
        };
        std::fs::write(jobs.join("job.json"), serde_json::to_vec(&job).unwrap()).unwrap();
    }
    let files = [
        ("undionly.kpxe", Role::IpxeBios, Arch::X86_64),
        ("snponly-x64.efi", Role::IpxeUefi, Arch::X86_64),
        ("snponly-arm64.efi", Role::IpxeUefi, Arch::Aarch64),
        ("shimx64.efi", Role::Shim, Arch::X86_64),
        ("grubx64.efi", Role::Grub, Arch::X86_64),
        ("shimaa64.efi", Role::Shim, Arch::Aarch64),
        ("vmlinuz", Role::Kernel, Arch::X86_64),
        ("installer.cpio", Role::Initrd, Arch::X86_64),
        ("isolinux.bin", Role::Isolinux, Arch::X86_64),
        ("ldlinux.c32", Role::IsolinuxLibrary, Arch::X86_64),
        ("efi.img", Role::EfiImage, Arch::X86_64),
    ];
    let files: BTreeMap<_, _> = files
        .into_iter()
        .map(|(name, role, arch)| (name.parse().unwrap(), (Bytes::from_static(&[7; 100]), Sha256([3; 32]), role, arch)))
        .collect();
    let ways = HashMap::from([(mac, HostWays { first_loader, ..HostWays::default() })]);
    let shelf = Shelf {
        jobs: Arc::new(Jobs::open(&jobs, ways).unwrap()),
        recorder: Arc::new(Recorder::new(1 << 16, None)),
        peers: Arc::new(Peers::default()),
        set: ServedSet { files },
        store: folder.join("store"),
        trusted: Vec::new(),
        kernel_arguments: "".parse().unwrap(),
        identity: Identity::open(&folder).unwrap(),
        ports: HashMap::from([(
            OURS,
            Ports {
                http: 8080,
                installer: 8443,
                prefix: 24,
                networks: vec![(OURS, 24, None), (Ipv4Addr::new(203, 0, 113, 0), 24, None)],
            },
        )]),
        reserved: HashMap::new(),
        scratch: folder.clone(),
        memory: Memory::default(),
    };
    Lab { folder, shelf: Arc::new(shelf) }
}

impl Lab {
    /// Boot options that are said over DHCP in this mode; `None`: nothing is said at all.
    fn dhcp(&self, mode: Mode, packet: &[u8], port: Port) -> Option<Vec<u8>> {
        let request = Message::read(packet).unwrap();
        let network = Subnet {
            network: Ipv4Addr::new(10, 79, 1, 0),
            prefix: 24,
            router: None,
            dns: Vec::new(),
            range: None,
            lease: Duration::from_secs(600),
            relays: Vec::new(),
        };
        let address = Ipv4Addr::new(10, 79, 1, 50);
        let reservations = HashMap::from([(request.mac, Reservation { address, host_name: None })]);
        let subnets = if mode == Mode::Server { vec![network] } else { Vec::new() };
        let loaders = Loaders { names: self.shelf.set.names(), http_port: 8080 };
        let mut answerer = Answerer::new(Scope { mode, subnets, reservations }, loaders);
        let arrival = Arrival { port, source: SocketAddrV4::new(request.ciaddr, 68), local: OURS };
        let jobs = &self.shelf.jobs;
        let outcome = answerer.answer(&request, arrival, jobs.of_mac(request.mac).as_deref(), jobs.now());
        let (reply, _) = outcome.reply?;
        let (bytes, _) = reply.encode(request.max_size());
        let said = Message::read(&bytes).unwrap();
        let boot = [
            code::CLASS,
            code::VENDOR,
            code::TFTP_SERVER,
            code::BOOT_FILE,
            code::MACHINE,
            code::TFTP_ADDRESS,
            code::IPXE,
        ];
        let mut boot: Vec<u8> = boot.into_iter().filter(|code| said.options.get(*code).is_some()).collect();
        if !said.file.is_empty() || !said.siaddr.is_unspecified() {
            boot.push(0);
        }
        Some(boot)
    }

    fn file(&self, protocol: Protocol, token: [u8; 16], name: &str) -> bool {
        self.file_for(protocol, token, name, HOST)
    }

    fn file_for(&self, protocol: Protocol, token: [u8; 16], name: &str, peer: Ipv4Addr) -> bool {
        self.sent(protocol, &format!("t/{}/{name}", Token::new(token).as_str()), peer)
    }

    /// Whether anything at all is sent: that a file is not there is an answer, too, but by HTTP, where it is the one that
    /// everybody gets.
    fn sent(&self, protocol: Protocol, path: &str, peer: Ipv4Addr) -> bool {
        let (peer, local) = (SocketAddr::from((peer, 2000)), SocketAddr::from((OURS, 8080)));
        match self.shelf.open(&FileRequest { protocol, peer, local, path }) {
            Ok(_) => true,
            Err(Withheld::NotThere) => protocol == Protocol::Tftp,
            Err(Withheld::Silence) => false,
        }
    }

    /// The names that GRUB asks for without a token: those about which this address hears something.
    fn without_token(&self, protocol: Protocol, peer: Ipv4Addr) -> Vec<&'static str> {
        WITHOUT_TOKEN.into_iter().filter(|name| self.sent(protocol, name, peer)).collect()
    }

    /// What is sent to a card that asks for IPv6 routers, in the frame of a real solicitation (RFC 4861 section 4.1).
    fn advertisement(&self, card: Mac) -> Option<Vec<u8>> {
        let mut frame = [[0x33, 0x33, 0, 0, 0, 2], card.0].concat();
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 58, 255]);
        frame.extend(router::link_local(card).octets());
        frame.extend("ff02::2".parse::<std::net::Ipv6Addr>().unwrap().octets());
        frame.extend([133, 0, 0x7b, 0xb8, 0, 0, 0, 0]);
        let asked = router::solicitation(&frame).expect("a question for routers");
        assert_eq!(asked.mac, card);
        let jobs = &self.shelf.jobs;
        let answered = router::answer(Mac([2, 0, 0, 0, 0, 1]), asked, jobs.of_mac(card).as_deref(), jobs.now());
        answered.map(|(_, frame)| frame)
    }

    /// Whether this address is given the image for the virtual drive.
    fn media(&self, protocol: Protocol, token: [u8; 16], peer: Ipv4Addr) -> bool {
        let path = format!("t/{}/{}", Token::new(token).as_str(), media::FILE_NAME);
        self.sent(protocol, &path, peer)
    }

    /// What hello is refused with. There is no image in the store, so that even a welcome one ends there.
    fn hello(&self, mac: Mac) -> String {
        let api = InstallerApi::new(Arc::clone(&self.shelf), Arc::new(GivenFiles(Arc::clone(&self.shelf))));
        let hello = Hello {
            protocol: protocol::PROTOCOL_VERSION,
            installer: "test".to_owned(),
            job: "job".parse().unwrap(),
            nonce: Token::new(NONCE).as_str().to_owned(),
            mac: mac.to_string(),
            boot: Token::new([1; 16]).as_str().to_owned(),
            inventory: Inventory {
                arch: Arch::X86_64,
                firmware: Firmware::Uefi,
                secure_boot: None,
                system_uuid: None,
                system_serial: None,
                product: None,
                memory_bytes: 1 << 30,
                processors: 1,
                nics: vec![Nic { kernel_name: "eth0".to_owned(), mac: mac.to_string(), link: true }],
                disks: Vec::new(),
            },
            proves: true,
        };
        let (peer, local) = (SocketAddr::from((HOST, 2000)), SocketAddr::from((OURS, 8443)));
        api.hello(peer, local, hello).expect_err("there is no image").1.sentence
    }
}

/// GRUB's script and what it asks for before; then what nobody is told anything about without a token.
const WITHOUT_TOKEN: [&str; 7] = [
    "grub/grub.cfg",
    "grub/x86_64-efi/grub.cfg",
    "grub/x86_64-efi/command.lst",
    "grub.cfg",
    "boot.ipxe",
    "vmlinuz",
    "revocations_sku.efi",
];
/// How many of these are GRUB's.
const OF_GRUB: usize = 3;

const NAMES: [&str; 11] = [
    "shimx64.efi",
    "grubx64.efi",
    // Of this there is nothing.
    "revocations_sku.efi",
    "undionly.kpxe",
    "snponly-x64.efi",
    "boot.ipxe",
    "grub.cfg",
    "vmlinuz",
    "installer.cpio",
    "image/chunks",
    "image/content",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn without_a_ticket_that_lives_nothing_is_sent_on_any_route(
        place in prop::sample::select(vec![Where::None, Where::Armed, Where::Armed, Where::Armed, Where::Installing, Where::Installed, Where::Closed]),
        age_s in prop::sample::select(vec![0_u64, 60, 1700, 1900, 3600, 7100, 7300, 90_000]),
        wall_moved_s in prop::sample::select(vec![0_i64, 0, 0, 30, 120, -7200, 86_400]),
        other_card in any::<bool>(),
        first_loader in prop::sample::select(vec![FirstLoader::Ipxe, FirstLoader::Shim]),
    ) {
        // All captured packets come from one card.
        let card = Message::read(&packet(PACKETS[0])).unwrap().mac;
        let mac = if other_card { Mac([2, 0, 0, 0, 0, 9]) } else { card };
        let lab = lab(mac, first_loader, place, age_s, wall_moved_s);
        // Rule 35 in its own words. The last report is always new here; the gate's own test has old ones.
        let clocks_agree = wall_moved_s.unsigned_abs() <= 60;
        let right = clocks_agree && age_s < 7200;
        let booting = right && match place {
            Where::Armed => age_s < 1800,
            // Silence leads it to its disk.
            Where::Installed => first_loader != FirstLoader::Shim,
            Where::Installing | Where::None | Where::Closed => false,
        };
        let own = booting && !other_card;
        for name in PACKETS {
            let packet = packet(name);
            let port = if name.ends_with("boot-server-request") { Port::BootServer } else { Port::Dhcp };
            let proxy = lab.dhcp(Mode::Proxy, &packet, port);
            prop_assert_eq!(proxy.as_ref().is_some_and(|options| !options.is_empty()), own, "{} by proxy: {:?}", name, proxy);
            if !own {
                prop_assert_eq!(proxy, None, "{}: the proxy says something", name);
            }
            let server = lab.dhcp(Mode::Server, &packet, port);
            match port {
                Port::BootServer => prop_assert_eq!(server.is_some(), own, "{}", name),
                Port::Dhcp => {
                    let options = server.expect("a reserved card is always given its address");
                    prop_assert_eq!(!options.is_empty(), own, "{}: {:?}", name, options);
                }
            }
        }
        // A question for IPv6 routers is answered to who may boot, and to nobody else.
        let advertised = lab.advertisement(card);
        prop_assert_eq!(advertised.is_some(), own, "a router advertisement");
        if let Some(frame) = advertised {
            prop_assert_eq!(&frame[..6], &card.0, "to one card");
        }
        // A file is given to who has the token and speaks from the ticket's card; nothing is known of this address.
        for protocol in [Protocol::Tftp, Protocol::Http] {
            for name in NAMES {
                prop_assert!(!lab.file(protocol, [0xee; 16], name), "{name} for a token that nobody was given");
                let given = lab.file(protocol, TOKEN, name);
                if !right || matches!(place, Where::None | Where::Closed) || matches!(place, Where::Armed) && !booting {
                    prop_assert!(!given, "{name} is given over {protocol:?}");
                }
            }
            if booting {
                prop_assert!(lab.file(protocol, TOKEN, "undionly.kpxe"), "a host that may boot is given its loader");
            }
            // By TFTP it hears of a file that is not there, as long as it may load, and nobody else does.
            let hears = booting && protocol == Protocol::Tftp;
            prop_assert_eq!(lab.file(protocol, TOKEN, "revocations_sku.efi"), hears, "{:?}", protocol);
            // Without a token only the address speaks for a host, and nothing is known of this one yet.
            prop_assert_eq!(lab.without_token(protocol, HOST), Vec::<&str>::new(), "{:?}", protocol);
        }
        // Of neither of these anything is known: one would be in the neighbour table, the other is in no network of ours.
        for stranger in [Ipv4Addr::new(10, 79, 1, 77), Ipv4Addr::new(198, 51, 100, 7)] {
            for protocol in [Protocol::Tftp, Protocol::Http] {
                let given = NAMES.iter().any(|name| lab.file_for(protocol, TOKEN, name, stranger));
                prop_assert!(!given, "{stranger} is given a file");
                prop_assert_eq!(lab.without_token(protocol, stranger), Vec::<&str>::new(), "{}", stranger);
            }
        }
        // Learnt from DHCP: this address is another card's. Then the token alone opens nothing.
        lab.shelf.peers.learn(HOST, Mac([2, 0, 0, 0, 0, 77]));
        for protocol in [Protocol::Tftp, Protocol::Http] {
            prop_assert!(!NAMES.iter().any(|name| lab.file(protocol, TOKEN, name)), "a neighbour is given a file");
            prop_assert_eq!(lab.without_token(protocol, HOST), Vec::<&str>::new(), "a neighbour, {:?}", protocol);
        }
        lab.shelf.peers.learn(HOST, mac);
        // The card is known to speak from there: GRUB's names are answered, by TFTP, to a host that is to start by shim.
        let answered = booting && first_loader == FirstLoader::Shim;
        let expected = if answered { &WITHOUT_TOKEN[..OF_GRUB] } else { &[] };
        prop_assert_eq!(lab.without_token(Protocol::Tftp, HOST), expected, "{:?}", first_loader);
        prop_assert_eq!(lab.without_token(Protocol::Http, HOST), Vec::<&str>::new());
        // The image for the virtual drive: to the BMC that the job names, by HTTP, until hello, and to nobody else.
        let armed = booting && matches!(place, Where::Armed);
        prop_assert_eq!(lab.media(Protocol::Http, MEDIA_TOKEN, BMC), armed, "the BMC");
        for (protocol, token, peer, who) in [
            (Protocol::Tftp, MEDIA_TOKEN, BMC, "the BMC by TFTP"),
            (Protocol::Http, MEDIA_TOKEN, HOST, "the host, with the BMC's token"),
            (Protocol::Http, TOKEN, BMC, "the BMC, with the host's token"),
            (Protocol::Http, [0xee; 16], BMC, "the BMC, with a token that nobody was given"),
        ] {
            prop_assert!(!lab.media(protocol, token, peer), "{who} is given the image");
        }
        for name in NAMES {
            prop_assert!(!lab.file_for(Protocol::Http, MEDIA_TOKEN, name, BMC), "the BMC's token opens {name}");
        }
        let hello = lab.hello(mac);
        let welcome = right && match place {
            Where::Armed => age_s < 1800,
            Where::Installing => true,
            Where::None | Where::Installed | Where::Closed => false,
        };
        let refused = hello.contains("not welcome") || hello.contains("no ticket is open");
        prop_assert_eq!(!refused, welcome, "hello: {}", hello);
    }
}
