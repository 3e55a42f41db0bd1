//! The unsafe leaf under [`super::packet_wire`]: a packet socket whose frames come in by a ring of memory that is shared with
//! the kernel (`Documentation/networking/packet_mmap.rst`, version 2) and go out many at a time by `sendmmsg`.
#![allow(unsafe_code)] // Socket options and ioctls that have no safe form, the shared memory, and sendmmsg.

use super::wire::{Frames, Received};
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};
use std::ffi::c_int;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// Linux: all protocols.
const ETH_P_ALL: u16 = 3;

/// `PACKET_IGNORE_OUTGOING`: what this machine sends does not come in.
const PACKET_IGNORE_OUTGOING: c_int = 23;

/// Room for one frame with the kernel's head before it (66 bytes).
const FRAME_BYTES: usize = 512;

/// The ring is allocated in pieces of this.
const BLOCK_BYTES: usize = 64 * 1024;

const FRAMES_PER_BLOCK: usize = BLOCK_BYTES / FRAME_BYTES;

/// Fewest and most frames of a ring (2 MiB, 64 MiB).
const FRAMES_BOUNDS: (usize, usize) = (4_096, 131_072);

/// Frames handed to the kernel by one call; its own limit is 1,024.
const SEND_AT_ONCE: usize = 512;

/// See the module.
#[derive(Debug)]
pub(super) struct PacketRing {
    /// Receives; closed after the memory is given back.
    socket: Socket,
    /// Sends. Apart, so that an error of one is never taken for one of the other.
    sender: Socket,
    interface: String,
    memory: NonNull<u8>,
    frames: usize,
    next: usize,
}

// SAFETY: the memory belongs to this value alone; nothing else in the process has a pointer to it.
unsafe impl Send for PacketRing {}

type Refused = (&'static str, io::Error);

impl PacketRing {
    pub(super) fn open(
        interface: &str,
        index: u32,
        filter: &[SockFilter],
        frames: usize,
    ) -> Result<PacketRing, Refused> {
        // With protocol 0 nothing is received until the bind below, so no frame passes before the filter stands.
        let socket = packet_socket()?;
        socket.attach_filter(filter).map_err(|why| ("setting the filter", why))?;
        set(&socket, libc::PACKET_VERSION, &1_i32).map_err(|why| ("choosing the ring", why))?;
        set(&socket, PACKET_IGNORE_OUTGOING, &1_i32).map_err(|why| ("leaving out own frames", why))?;
        let blocks = frames.clamp(FRAMES_BOUNDS.0, FRAMES_BOUNDS.1).div_ceil(FRAMES_PER_BLOCK);
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let request = libc::tpacket_req {
            tp_block_size: number(BLOCK_BYTES),
            tp_block_nr: number(blocks),
            tp_frame_size: number(FRAME_BYTES),
            tp_frame_nr: number(blocks * FRAMES_PER_BLOCK),
        };
        set(&socket, libc::PACKET_RX_RING, &request).map_err(|why| ("making the ring", why))?;
        // SAFETY: a new mapping of the size that the kernel was just told, at an address of its choice; the result is
        // checked, and unmapped once, by Drop, with the same size.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                blocks * BLOCK_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                socket.as_raw_fd(),
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(("sharing the ring", io::Error::last_os_error()));
        }
        let Some(memory) = NonNull::new(memory.cast()) else {
            return Err(("sharing the ring", io::ErrorKind::OutOfMemory.into()));
        };
        let sender = packet_socket()?;
        let frames = blocks * FRAMES_PER_BLOCK;
        let ring = PacketRing { socket, sender, interface: interface.to_owned(), memory, frames, next: 0 };
        let at = |protocol| address(index, protocol).map_err(|why| ("addressing the interface", why));
        ring.sender.bind(&at(0)?).map_err(|why| ("binding to the interface", why))?;
        ring.socket.bind(&at(ETH_P_ALL)?).map_err(|why| ("binding to the interface", why))?;
        Ok(ring)
    }

    /// The place of a frame and its status word.
    fn slot(&self, place: usize) -> (NonNull<u8>, &AtomicU32) {
        // SAFETY: `place` is below `frames`, and frames lie side by side as each block is a whole number of them, so the
        // pointer stays inside the mapping; it is aligned for the head, as frames are multiples of 512 bytes from a page.
        // The kernel writes the status word with release order, so it is only ever looked at as an atomic.
        unsafe {
            let start = self.memory.add(place % self.frames * FRAME_BYTES);
            (start, AtomicU32::from_ptr(start.as_ptr().cast()))
        }
    }

    /// Hands over all frames that wait. At most one turn of the ring at a time: who floods us does not keep us here.
    pub(super) fn receive(&mut self, take: &mut dyn FnMut(&[u8])) -> io::Result<Received> {
        let mut received = Received { drained: false, ..Received::default() };
        let mut losing = false;
        while received.frames < self.frames {
            let (start, status) = self.slot(self.next);
            let state = status.load(Ordering::Acquire);
            if state & libc::TP_STATUS_USER == 0 {
                received.drained = true;
                break;
            }
            losing |= state & libc::TP_STATUS_LOSING != 0;
            // SAFETY: the status says that the frame is ours until it is given back below, so nobody writes it meanwhile. The
            // length is held inside the frame whatever the head says.
            let frame = unsafe {
                let head = &*start.as_ptr().cast::<libc::tpacket2_hdr>();
                let from = usize::from(head.tp_mac).min(FRAME_BYTES);
                let length = usize::try_from(head.tp_snaplen).unwrap_or(0).min(FRAME_BYTES - from);
                std::slice::from_raw_parts(start.as_ptr().add(from), length)
            };
            take(frame);
            status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
            self.next = (self.next + 1) % self.frames;
            received.frames += 1;
        }
        // A frame is marked only after the loss: a ring that was nearly full is asked too.
        if losing || received.frames > self.frames / 2 {
            received.lost = self.lost()?;
        }
        Ok(received)
    }

    /// Frames lost since the last time that this was asked.
    fn lost(&self) -> io::Result<usize> {
        let mut stats = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut length = libc::socklen_t::try_from(size_of_val(&stats)).unwrap_or_default();
        // SAFETY: the kernel writes at most `length` bytes into `stats`, which has that size.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut stats).cast(),
                &raw mut length,
            )
        };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(usize::try_from(stats.tp_drops).unwrap_or(usize::MAX))
        }
    }

    /// Sends the frames in order; see [`super::wire::Wire::send`].
    pub(super) fn send(&mut self, frames: &Frames, unsent: &mut dyn FnMut(usize)) -> io::Result<()> {
        let mut vectors: Vec<libc::iovec> =
            frames.iter().map(|f| libc::iovec { iov_base: f.as_ptr().cast_mut().cast(), iov_len: f.len() }).collect();
        let mut messages: Vec<libc::mmsghdr> = vectors
            .iter_mut()
            .map(|vector| {
                // SAFETY: all zeros is a valid message without a name, control data or vectors.
                let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
                message.msg_hdr.msg_iov = vector;
                message.msg_hdr.msg_iovlen = 1;
                message
            })
            .collect();
        let mut at = 0;
        while at < messages.len() {
            let some = &mut messages[at..];
            let count = u32::try_from(some.len().min(SEND_AT_ONCE)).unwrap_or_default();
            // SAFETY: each message points to one vector and each vector to one frame; vectors and frames live, unmoved and
            // unchanged, until this function ends. The kernel reads the frames only.
            let result =
                unsafe { libc::sendmmsg(self.sender.as_raw_fd(), some.as_mut_ptr(), count, libc::MSG_DONTWAIT) };
            if let Ok(left) = usize::try_from(result)
                && left > 0
            {
                at += left;
                continue;
            }
            let why = io::Error::last_os_error();
            match why.raw_os_error() {
                Some(libc::EINTR) => {}
                // The queue is full, or the link is down: what is left stays, and is not waited for.
                Some(libc::ENOBUFS | libc::EAGAIN | libc::ENETDOWN) => {
                    (at..messages.len()).for_each(&mut *unsent);
                    return Ok(());
                }
                _ => {
                    (0..messages.len()).for_each(&mut *unsent);
                    return Err(why);
                }
            }
        }
        Ok(())
    }

    /// Whether the interface has carrier.
    pub(super) fn carrier(&self) -> bool {
        // SAFETY: all zeros is a valid ifreq.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        let name = self.interface.as_bytes();
        for (place, byte) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name) {
            *place = libc::c_char::from_ne_bytes([*byte]);
        }
        // SAFETY: SIOCGIFFLAGS reads the name and writes the flags inside the ifreq, which lives here.
        let result = unsafe { libc::ioctl(self.sender.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) };
        // SAFETY: of the union, the kernel wrote this member.
        let flags = c_int::from(unsafe { request.ifr_ifru.ifru_flags });
        result == 0 && flags & libc::IFF_RUNNING != 0
    }
}

impl Drop for PacketRing {
    fn drop(&mut self) {
        // SAFETY: the mapping of `open`, with its size; no slice of it outlives a call of `receive`.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.frames * FRAME_BYTES) };
    }
}

fn packet_socket() -> Result<Socket, Refused> {
    Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), Some(Protocol::from(0)))
        .map_err(|why| ("opening a packet socket", why))
}

fn set<T>(socket: &Socket, option: c_int, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).unwrap_or_default();
    // SAFETY: the kernel reads `length` bytes of `value`, which has that size.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, option, std::ptr::from_ref(value).cast(), length)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn address(interface: u32, protocol: u16) -> io::Result<SockAddr> {
    let index = i32::try_from(interface).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: the closure fills in a sockaddr_ll inside the zeroed storage it is given, which is larger and aligned for
    // every kind of address, and sets the length to exactly what it wrote.
    let (_, address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let link = &mut *storage.cast::<libc::sockaddr_ll>();
            link.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or_default();
            link.sll_protocol = protocol.to_be();
            link.sll_ifindex = index;
            *length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or_default();
            Ok(())
        })?
    };
    Ok(address)
}
