//! The files behind the gate: what TFTP and HTTP may give to whom.
//!
//! Every name is `t/TOKEN/NAME`. The token says which ticket, the ticket which card, and the peer must be that card. The one
//! exception are the names that are built into GRUB, which cannot hold a token: see `Shelf::open_for_grub`.

use super::identity::Identity;
use super::job::{Job, MediaFor, State};
use super::jobs::Jobs;
use super::media;
use super::stock::{ServedImage, ServedSet, StockError};
use super::stored_content::{Verdict, Verdicts};
use bytes::Bytes;
use protocol::boot_set::Role;
use protocol::digest::Sha256;
use protocol::manifest::{Arch, Firmware, IMAGE_LIMIT_BYTES};
use protocol::name::Name;
use protocol::signature::PublicKey;
use pxe::files::{Body, BootFile, FileRequest, Files, Protocol, Transfer, TransferEvent, Withheld};
use pxe::gate::{self, FirstLoader, Now, Refusal, Stage, Target, Ticket, Tickets as _, Token};
use pxe::grub;
use pxe::mac::Mac;
use pxe::peers::Peers;
use pxe::recorder::Recorder;
use pxe::recorder::event::{BootEvent, file_name};
use pxe::script::{self, HostAddress, Installer, InstallerArguments, KernelArguments, MediaInstaller};
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A script that is asked for this often within [`LOOP_TIME`] is a host that goes in circles.
const LOOP_COUNT: usize = 3;
const LOOP_TIME: Duration = Duration::from_secs(60);
/// Tags remembered: one for each job that was served.
const TAGS_LIMIT: usize = 4096;
/// Between two lines of the timeline about a BMC that reads.
const MEDIA_LINE: Duration = Duration::from_secs(5);

/// Where the servers of one link are, as hosts reach them.
#[derive(Clone, Debug)]
pub struct Ports {
    /// The boot HTTP server's.
    pub http: u16,
    /// The installer's HTTPS.
    pub installer: u16,
    /// The prefix of the network that is attached to the link.
    pub prefix: u8,
    /// The networks of its hosts: first address, prefix, way out.
    pub networks: Vec<(Ipv4Addr, u8, Option<Ipv4Addr>)>,
}

/// Whether an address lies in a network.
fn lies_in(address: Ipv4Addr, network: Ipv4Addr, prefix: u8) -> bool {
    let mask = u32::MAX.checked_shl(32_u32.saturating_sub(prefix.into())).unwrap_or(0);
    u32::from(address) & mask == u32::from(network) & mask
}

impl Ports {
    /// What a host with this address has to know of its network.
    fn host(&self, address: Ipv4Addr) -> Option<HostAddress> {
        self.networks.iter().find_map(|&(network, prefix, gateway)| {
            let netmask = Ipv4Addr::from(u32::MAX.checked_shl(32_u32.saturating_sub(prefix.into())).unwrap_or(0));
            lies_in(address, network, prefix).then_some(HostAddress { address, netmask, gateway })
        })
    }
}

/// All that is served, and the gate before it.
#[derive(Debug)]
pub struct Shelf {
    /// The jobs.
    pub jobs: Arc<Jobs>,
    /// The flight recorder.
    pub recorder: Arc<Recorder>,
    /// Who speaks from which address.
    pub peers: Arc<Peers>,
    /// The boot set.
    pub set: ServedSet,
    /// The store, for images.
    pub store: PathBuf,
    /// Who may sign.
    pub trusted: Vec<PublicKey>,
    /// Further arguments for the installer's kernel.
    pub kernel_arguments: KernelArguments,
    /// Who we are to an installer.
    pub identity: Identity,
    /// By our address.
    pub ports: HashMap<Ipv4Addr, Ports>,
    /// The addresses that are reserved for cards.
    pub reserved: HashMap<Mac, Ipv4Addr>,
    /// Where files without a name may lie.
    pub scratch: PathBuf,
    /// What is remembered between requests.
    pub memory: Memory,
}

/// Who speaks with whom.
#[derive(Clone, Copy, Debug)]
struct Ends {
    ours: Ipv4Addr,
    host: Ipv4Addr,
}

/// What the shelf remembers between requests.
#[derive(Debug, Default)]
pub struct Memory {
    images: Mutex<HashMap<(Name, Name), Arc<ServedImage>>>,
    tags: Mutex<Vec<(Name, Mac)>>,
    scripts: Mutex<HashMap<Name, VecDeque<Now>>>,
    verdicts: Verdicts,
    media: Mutex<HashMap<Name, media::Served>>,
}

impl Shelf {
    /// An image of the store, verified once.
    ///
    /// # Errors
    /// When it is not there or not trusted.
    pub fn image(&self, name: &Name, version: &Name) -> Result<Arc<ServedImage>, StockError> {
        let key = (name.clone(), version.clone());
        let mut images = self.memory.images.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(image) = images.get(&key) {
            return Ok(Arc::clone(image));
        }
        let image = Arc::new(ServedImage::open(&self.store, name, version, &self.trusted)?);
        // Images of a site are few; their open files must stay few as well.
        if images.len() >= 32 {
            images.clear();
        }
        images.insert(key, Arc::clone(&image));
        Ok(image)
    }

    /// Whether the stored file of an image is what was signed. Asked when a job is opened as well, so that the answer is
    /// there when its host says hello.
    #[must_use]
    pub fn verdict(&self, image: &Arc<ServedImage>) -> Verdict {
        self.memory.verdicts.of(image)
    }

    fn tag(&self, job: &Name, mac: Mac) -> u64 {
        let mut tags = self.memory.tags.lock().unwrap_or_else(PoisonError::into_inner);
        if tags.len() >= TAGS_LIMIT {
            tags.clear();
        }
        let known = tags.iter().position(|(known, _)| known == job);
        let index = known.unwrap_or_else(|| {
            tags.push((job.clone(), mac));
            tags.len() - 1
        });
        index as u64
    }

    /// Whether this card may be the one that speaks from this address: the token of a path is a secret, but it travels in
    /// the clear, and a neighbour who has read it must still get nothing.
    ///
    /// Of a machine on a link of ours the kernel knows the card, or it could not answer it. Of one behind a router nobody
    /// may know it: after a restart of the appliance what DHCP taught is forgotten, and beside another DHCP server nothing
    /// was taught. It is then believed if its address lies in a network that the configuration names ([[link.subnet]]), and
    /// nowhere else.
    #[must_use]
    pub fn may_be(&self, address: Ipv4Addr, mac: Mac) -> bool {
        if let Some(known) = self.peers.card(address) {
            return known == mac;
        }
        let attached = self.ports.iter().any(|(ours, ports)| lies_in(address, *ours, ports.prefix));
        let mut networks = self.ports.values().flat_map(|ports| &ports.networks);
        !attached && networks.any(|&(network, prefix, _)| lies_in(address, network, prefix))
    }

    fn refuse(&self, ticket: &Ticket, now: Now, stage: Stage, why: Refusal) {
        self.recorder.note(&ticket.job, ticket.mac, now, BootEvent::Refused { stage, why });
    }

    /// Whether this ticket's host asks for its script again and again.
    fn goes_in_circles(&self, job: &Name, now: Now) -> bool {
        let mut scripts = self.memory.scripts.lock().unwrap_or_else(PoisonError::into_inner);
        if scripts.len() >= TAGS_LIMIT {
            scripts.clear();
        }
        let times = scripts.entry(job.clone()).or_default();
        times.retain(|then| now.elapsed.saturating_sub(then.elapsed) < LOOP_TIME);
        times.push_back(now);
        times.len() >= LOOP_COUNT
    }

    fn script(&self, ticket: &Ticket, target: Target, ends: Ends, grub: bool, now: Now) -> Option<Bytes> {
        let circles = !grub && self.goes_in_circles(&ticket.job, now);
        let how = self.jobs.ways(ticket.mac).local_boot;
        let text = match target {
            _ if circles => script::refused(&ticket.job, "three times within a minute"),
            Target::LocalDisk => script::local(&ticket.job, how),
            Target::Installer => {
                let installer = self.installer(ticket, ends.ours)?;
                if grub {
                    let host = self.ports.get(&ends.ours)?.host(ends.host);
                    if host.is_none() {
                        let why =
                            "GRUB does not tell the installer its network, and no [[link.subnet]] holds this address";
                        tracing::warn!(host = %ends.host, mac = %ticket.mac, "{why}: the host gets no script; add the subnet");
                    }
                    installer.grub(host?)
                } else {
                    installer.ipxe()
                }
            }
        };
        match text {
            Ok(text) => Some(text.into()),
            Err(error) => {
                tracing::error!(%error, "a defect of this release");
                None
            }
        }
    }

    fn arch(&self, job: &Job) -> Arch {
        let image = job.task.of_image().and_then(|(name, version)| self.image(name, version).ok());
        image.map_or(Arch::X86_64, |image| image.manifest.arch)
    }

    fn installer(&self, ticket: &Ticket, local: Ipv4Addr) -> Option<Installer> {
        let job = self.jobs.job(&ticket.job)?;
        let arch = self.arch(&job);
        let ports = self.ports.get(&local)?;
        Some(Installer {
            http: SocketAddrV4::new(local, ports.http),
            token: ticket.token.clone(),
            kernel: self.set.name(Role::Kernel, arch)?.clone(),
            initrd: self.set.name(Role::Initrd, arch)?.clone(),
            arguments: self.arguments(&job, ticket.mac, local)?,
        })
    }

    /// What the installer's kernel is told, when its host reaches us at this address.
    fn arguments(&self, job: &Job, mac: Mac, local: Ipv4Addr) -> Option<InstallerArguments> {
        Some(InstallerArguments {
            api: SocketAddrV4::new(local, self.ports.get(&local)?.installer),
            pin: self.identity.pin,
            job: job.name.clone(),
            nonce: Token::parse(&job.nonce)?,
            mac,
            more: self.kernel_arguments.clone(),
        })
    }

    /// What GRUB asks for without a token, by TFTP: its script, and "not there" for all the rest.
    ///
    /// The right to it is the address. It is given only to an address that is known, by our own DHCP or by the kernel's
    /// neighbour table, to be that of a card with a ticket whose first loader is shim, while that ticket lets it ask for a
    /// script. To everybody else, and to a host with another loader, it is silence as ever.
    ///
    /// The script holds the ticket's token and the nonce of the first hello. That gives nothing away which DHCP does not:
    /// who can be this card on its link hears the token in our offer, and gets the other loader's script, with the same
    /// nonce, for it. Who merely forges the source of a request makes us send one packet to the true host. Who takes the
    /// host's address by ARP with a card of its own is another card in the neighbour table and hears nothing; who takes
    /// the card's address as well is, to every server on that link, the host. What remains is what remains there anyway:
    /// hello is said once, and a second one ends the job.
    fn open_for_grub(&self, request: &FileRequest<'_>) -> Result<BootFile, Withheld> {
        let (SocketAddr::V4(peer), SocketAddr::V4(local), Protocol::Tftp) =
            (request.peer, request.local, request.protocol)
        else {
            return Err(Withheld::Silence);
        };
        let asked = grub::asked(request.path).ok_or(Withheld::Silence)?;
        // Not `may_be`: there a token speaks for the host, and here nothing would.
        let mac = self.peers.card(*peer.ip()).ok_or(Withheld::Silence)?;
        let ticket = self.jobs.of_mac(mac).ok_or(Withheld::Silence)?;
        if ticket.first_loader != FirstLoader::Shim {
            return Err(Withheld::Silence);
        }
        let target = self.pass(&ticket, Stage::Script)?;
        match asked {
            grub::Asked::Script => self.give(&ticket, target, "grub.cfg", Ends { ours: *local.ip(), host: *peer.ip() }),
            grub::Asked::Optional => Err(self.not_there(&ticket, request)),
        }
    }

    /// Asks the gate, and notes its refusal.
    fn pass(&self, ticket: &Ticket, stage: Stage) -> Result<Target, Withheld> {
        let now = self.jobs.now();
        gate::may_boot(Some(ticket), ticket.mac, &ticket.job, stage, now).map_err(|why| {
            self.refuse(ticket, now, stage, why);
            Withheld::Silence
        })
    }

    /// The file for a host that has passed the gate.
    fn give(&self, ticket: &Ticket, target: Target, name: &str, ends: Ends) -> Result<BootFile, Withheld> {
        let file = self.body(ticket, target, name, ends, self.jobs.now());
        let (body, media_type, digest) = file.ok_or(Withheld::NotThere)?;
        let tag = self.tag(&ticket.job, ticket.mac);
        Ok(BootFile { body, media_type, sha256: digest.map(|digest| digest.0), tag })
    }

    /// For a host that has passed the gate.
    fn not_there(&self, ticket: &Ticket, request: &FileRequest<'_>) -> Withheld {
        let event = BootEvent::FileNotThere { file: file_name(request.path) };
        self.recorder.note(&ticket.job, ticket.mac, self.jobs.now(), event);
        Withheld::NotThere
    }

    /// The image for the virtual drive of a job's host, for its BMC.
    fn open_media(&self, request: &FileRequest<'_>, token: &Token, name: &str) -> Option<BootFile> {
        let (job, ticket) = self.jobs.of_media(token)?;
        let of = job.task.media?;
        if request.protocol != Protocol::Http || name != media::FILE_NAME {
            return None;
        }
        let now = self.jobs.now();
        // A BMC is no card that has a ticket, and often behind a router: it is told by its address.
        if request.peer.ip() != IpAddr::V4(of.reader) {
            self.refuse(&ticket, now, Stage::Media, Refusal::OtherReader);
            return None;
        }
        if let Err(why) = gate::may_boot(Some(&ticket), ticket.mac, &job.name, Stage::Media, now) {
            self.refuse(&ticket, now, Stage::Media, why);
            return None;
        }
        let (file, length) = self.media(&job, of, ticket.mac)?;
        let body = Body::File { file, offset: 0, length };
        // The same job makes the same bytes, also in another process of ours: parts of both fit together.
        let tag = self.tag(&job.name, ticket.mac);
        Some(BootFile { body, media_type: "application/octet-stream", sha256: None, tag })
    }

    fn media(&self, job: &Job, of: MediaFor, mac: Mac) -> Option<(Arc<File>, u64)> {
        let mut all = self.memory.media.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(served) = all.get(&job.name).filter(|served| served.of == of) {
            return Some((Arc::clone(&served.file), served.length));
        }
        // Each holds the size of kernel and initramfs on our disk: those of jobs that are over are let go.
        all.retain(|name, _| self.jobs.job(name).is_some_and(|job| matches!(job.state, State::Armed)));
        let Some(arguments) = self.arguments(job, mac, of.appliance) else {
            let address = of.appliance;
            tracing::error!(job = %job.name, %address, "no image for its virtual drive: no link of ours has this address");
            return None;
        };
        let host = self.reserved.get(&mac).and_then(|address| self.ports.get(&of.appliance)?.host(*address));
        let installer = MediaInstaller { arguments, host };
        match media::make(&self.set, self.arch(job), &installer, job.opened.wall.as_secs(), &self.scratch) {
            Ok((file, length)) => {
                let file = Arc::new(file);
                let served = media::Served { file: Arc::clone(&file), length, of, read_bytes: 0, noted: None };
                all.insert(job.name.clone(), served);
                Some((file, length))
            }
            Err(error) => {
                tracing::error!(job = %job.name, %error, "no image for its virtual drive");
                None
            }
        }
    }

    /// What a BMC reads of an image, in few lines: some read it whole, others sector by sector as the firmware asks.
    fn media_read(&self, job: &Name, mac: Mac, what: &TransferEvent) {
        let now = self.jobs.now();
        let mut all = self.memory.media.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(served) = all.get_mut(job) else { return };
        match what {
            TransferEvent::OnlySize => return,
            TransferEvent::Began { .. } => {}
            // Many end a request early that they need no more of.
            TransferEvent::Ended { bytes, .. } | TransferEvent::Failed { bytes, .. } => {
                served.read_bytes = served.read_bytes.saturating_add(*bytes);
            }
        }
        let due = |then: Now| now.elapsed.saturating_sub(then.elapsed) >= MEDIA_LINE;
        if served.noted.is_some_and(|then| !due(then)) {
            return;
        }
        served.noted = Some(now);
        let bytes = served.read_bytes;
        drop(all);
        self.recorder.note(job, mac, now, BootEvent::MediaRead { bytes });
    }

    /// The stage that a name belongs to. `None`: there is nothing of this name.
    fn stage(&self, name: &str) -> Option<Stage> {
        match name {
            "boot.ipxe" | "grub.cfg" => Some(Stage::Script),
            "image/chunks" | "image/content" => Some(Stage::Image),
            name => match self.set.files.get(&name.parse::<Name>().ok()?)?.2 {
                Role::Kernel | Role::Initrd => Some(Stage::Kernel),
                Role::IpxeBios | Role::IpxeUefi | Role::Shim | Role::Grub => Some(Stage::Loader),
                // Parts of the image for a virtual drive, and of no use alone.
                Role::Isolinux | Role::IsolinuxLibrary | Role::EfiImage => None,
            },
        }
    }

    fn body(
        &self,
        ticket: &Ticket,
        target: Target,
        name: &str,
        ends: Ends,
        now: Now,
    ) -> Option<(Body, &'static str, Option<Sha256>)> {
        match name {
            "boot.ipxe" | "grub.cfg" => {
                let text = self.script(ticket, target, ends, name == "grub.cfg", now)?;
                Some((Body::Bytes(text), "text/plain", None))
            }
            "image/chunks" | "image/content" => {
                let task = self.jobs.job(&ticket.job)?.task;
                let (name_of_image, version) = task.of_image().filter(|_| !task.prove)?;
                let image = self.image(name_of_image, version).ok()?;
                if name == "image/chunks" {
                    let digest = image.manifest.chunks.table.sha256;
                    return Some((Body::Bytes(image.table.clone()), "application/octet-stream", Some(digest)));
                }
                let length = image.manifest.stored.bytes.min(IMAGE_LIMIT_BYTES);
                let body = Body::File { file: Arc::clone(&image.content), offset: 0, length };
                Some((body, "application/octet-stream", Some(image.manifest.stored.sha256)))
            }
            name => {
                let (content, digest, role, _) = self.set.files.get(&name.parse::<Name>().ok()?)?;
                let media = match role {
                    Role::IpxeUefi | Role::Shim | Role::Grub => "application/efi",
                    _ => "application/octet-stream",
                };
                Some((Body::Bytes(content.clone()), media, Some(*digest)))
            }
        }
    }
}

impl Files for Shelf {
    fn open(&self, request: &FileRequest<'_>) -> Result<BootFile, Withheld> {
        let Some(path) = request.path.strip_prefix("t/") else { return self.open_for_grub(request) };
        let (token, name) = path.split_once('/').ok_or(Withheld::Silence)?;
        let token = Token::parse(token).ok_or(Withheld::Silence)?;
        let Some(ticket) = self.jobs.of_token(&token) else {
            return self.open_media(request, &token, name).ok_or(Withheld::Silence);
        };
        let (SocketAddr::V4(peer), SocketAddr::V4(local)) = (request.peer, request.local) else {
            return Err(Withheld::Silence);
        };
        // shim asks for its second stage, and GRUB for its configuration, at places of their own choosing.
        let name = grub::usual_name(name);
        let stage = self.stage(name);
        // That there is no such file hears who may have a loader: what is optional is asked for by loaders.
        let asked = stage.unwrap_or(Stage::Loader);
        if !self.may_be(*peer.ip(), ticket.mac) {
            self.refuse(&ticket, self.jobs.now(), asked, Refusal::OtherMac);
            return Err(Withheld::Silence);
        }
        let target = self.pass(&ticket, asked)?;
        if stage.is_none() {
            return Err(self.not_there(&ticket, request));
        }
        self.give(&ticket, target, name, Ends { ours: *local.ip(), host: *peer.ip() })
    }

    fn transferred(&self, transfer: &Transfer<'_>) {
        let tags = self.memory.tags.lock().unwrap_or_else(PoisonError::into_inner);
        let known = usize::try_from(transfer.tag).ok().and_then(|index| tags.get(index)).cloned();
        drop(tags);
        let Some((job, mac)) = known else { return };
        if transfer.path.ends_with(media::FILE_NAME) {
            return self.media_read(&job, mac, &transfer.what);
        }
        let (file, protocol) = (file_name(transfer.path), transfer.protocol);
        // The content is fetched in thousands of ranges: only what goes wrong is worth a line. The installer reports the rest.
        let quiet = protocol == Protocol::Http && transfer.path.ends_with("image/content");
        let event = match &transfer.what {
            TransferEvent::Began { .. } | TransferEvent::Ended { .. } if quiet => return,
            TransferEvent::Began { bytes, agreed, .. } => {
                BootEvent::FileBegan { protocol, file, bytes: *bytes, agreed: agreed.clone() }
            }
            TransferEvent::Ended { bytes, took, sent_again } => {
                let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                BootEvent::FileEnded { protocol, file, bytes: *bytes, took_ms, sent_again: *sent_again }
            }
            TransferEvent::OnlySize => BootEvent::FileSized { file },
            TransferEvent::Failed { bytes, why } => {
                BootEvent::FileFailed { protocol, file, bytes: *bytes, why: why.clone() }
            }
        };
        self.recorder.note(&job, mac, self.jobs.now(), event);
    }
}

/// Whether an image can be started by this firmware.
#[must_use]
pub fn starts(firmware: Firmware, image: &ServedImage) -> bool {
    image.manifest.firmware.contains(&firmware)
}
