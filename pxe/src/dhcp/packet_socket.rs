//! A packet socket on one interface: reads the frames of the boot protocols, writes whole frames.
//!
//! The kernel filters: DHCP, PXE's port 4011, the first packet of TFTP, and IPv6 router solicitations. Everything else on
//! the link never reaches this process.
#![allow(unsafe_code)] // Three uses, below: an address of the family AF_PACKET, handing the descriptor to tokio, an option.

use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};
use std::io;
use tokio::io::unix::AsyncFd;

/// Linux: all protocols, also what this machine sends itself.
const ETH_P_ALL: u16 = 3;

/// See the module.
#[derive(Debug)]
pub(crate) struct PacketSocket(AsyncFd<Socket>);

impl PacketSocket {
    /// Opens it on the interface with this number. Needs `CAP_NET_RAW`.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub(crate) fn open(interface: u32) -> io::Result<Self> {
        // With protocol 0 nothing is received until the bind below, so no frame passes before the filter stands.
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), Some(Protocol::from(0)))?;
        socket.attach_filter(&filter())?;
        socket.bind(&address(interface)?)?;
        // SAFETY: the descriptor belongs to the socket, which the AsyncFd owns and closes only when it is itself gone;
        // nothing here takes it out or replaces it.
        let socket = unsafe { AsyncFd::register(socket) }.map_err(io::Error::from)?;
        Ok(Self(socket))
    }

    /// From now on frames to other cards are heard as well, which the interface drops otherwise: servers answer to the card
    /// that a message names, also where it asks for a broadcast. It ends with the socket.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub(crate) fn hear_all(&self, interface: u32) -> io::Result<()> {
        let index = i32::try_from(interface).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let wish = libc::packet_mreq {
            mr_ifindex: index,
            mr_type: u16::try_from(libc::PACKET_MR_PROMISC).unwrap_or_default(),
            mr_alen: 0,
            mr_address: [0; 8],
        };
        let length = libc::socklen_t::try_from(size_of::<libc::packet_mreq>()).unwrap_or_default();
        let descriptor = std::os::fd::AsRawFd::as_raw_fd(self.0.get_ref());
        // SAFETY: the descriptor is open as long as `self`; the kernel reads `length` bytes of `wish`, which lives until
        // the call is over.
        let done = unsafe {
            let value = std::ptr::from_ref(&wish).cast();
            libc::setsockopt(descriptor, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, value, length)
        };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// The next frame, cut to the buffer.
    ///
    /// # Errors
    /// What the kernel says, such as "network is down".
    pub(crate) async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            if let Ok(read) =
                ready.try_io(|socket| rustix::io::read(socket.get_ref(), &mut *buffer).map_err(io::Error::from))
            {
                return read;
            }
        }
    }

    /// Sends a whole frame.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.0.get_ref().send(frame).map(drop)
    }
}

fn address(interface: u32) -> io::Result<SockAddr> {
    let index = i32::try_from(interface).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: the closure fills in a sockaddr_ll inside the zeroed storage it is given, which is larger and aligned for
    // every kind of address, and sets the length to exactly what it wrote.
    let (_, address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let link = &mut *storage.cast::<libc::sockaddr_ll>();
            link.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or_default();
            link.sll_protocol = ETH_P_ALL.to_be();
            link.sll_ifindex = index;
            *length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or_default();
            Ok(())
        })?
    };
    Ok(address)
}

/// The filter as a classic BPF program (`Documentation/networking/filter.rst`).
fn filter() -> [SockFilter; 26] {
    // Operation, jump when true, jump when false, operand. Jumps count from the next line. 24 is "keep", 25 is "drop".
    const LDH: u16 = 0x28; // half word at a fixed place
    const LDB: u16 = 0x30; // byte at a fixed place
    const LDH_X: u16 = 0x48; // half word behind the IP head
    const LDX_HEAD: u16 = 0xb1; // X = length of the IP head
    const JEQ: u16 = 0x15;
    const JSET: u16 = 0x45;
    const RET: u16 = 0x06;
    let line = |at: u8, code, to_true: u8, to_false: u8, k| {
        SockFilter::new(code, to_true.saturating_sub(at + 1), to_false.saturating_sub(at + 1), k)
    };
    [
        line(0, LDH, 0, 0, 12),
        line(1, JEQ, 2, 18, 0x0800),
        line(2, LDB, 0, 0, 23),
        line(3, JEQ, 4, 25, 17),
        line(4, LDH, 0, 0, 20),
        line(5, JSET, 25, 6, 0x1fff), // a later fragment has no ports
        line(6, LDX_HEAD, 0, 0, 14),
        line(7, LDH_X, 0, 0, 14),
        line(8, JEQ, 24, 9, 67),
        line(9, JEQ, 24, 10, 68),
        line(10, JEQ, 24, 11, 69),
        line(11, JEQ, 24, 12, 4011),
        line(12, LDH_X, 0, 0, 16),
        line(13, JEQ, 24, 14, 67),
        line(14, JEQ, 24, 15, 68),
        line(15, JEQ, 24, 16, 69),
        line(16, JEQ, 24, 25, 4011),
        line(17, RET, 0, 0, 0),
        line(18, JEQ, 19, 25, 0x86dd),
        line(19, LDB, 0, 0, 20),
        line(20, JEQ, 21, 25, 58), // ICMPv6
        line(21, LDB, 0, 0, 54),
        line(22, JEQ, 24, 25, 133), // router solicitation
        line(23, RET, 0, 0, 0),
        line(24, RET, 0, 0, 0x0004_0000),
        line(25, RET, 0, 0, 0),
    ]
}
