//! The one card: found by its address, given its IPv4 address.
#![allow(unsafe_code)] // The kernel's interface for this is ioctl with C structures; each use says why it is sound.

use crate::command_line::Address;
use crate::inventory::nics;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// Drivers take a while to show their cards, firmware of fast ones some seconds.
const CARD_WAIT: Duration = Duration::from_secs(60);
/// Spanning tree without portfast keeps a port silent for up to 50 s.
const CARRIER_WAIT: Duration = Duration::from_secs(90);

/// The kernel's name of the card with this address.
#[must_use]
pub fn find(sys: &Path, mac: &str) -> Option<String> {
    let until = Instant::now() + CARD_WAIT;
    loop {
        if let Some(nic) = nics(sys).into_iter().find(|nic| nic.mac == mac) {
            return Some(nic.kernel_name);
        }
        if Instant::now() >= until {
            return None;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits for the cable.
#[must_use]
pub fn wait_for_carrier(sys: &Path, name: &str) -> bool {
    let carrier = sys.join("class/net").join(name).join("carrier");
    let until = Instant::now() + CARRIER_WAIT;
    while Instant::now() < until {
        if crate::inventory::text(&carrier).as_deref() == Some("1") {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

fn socket() -> io::Result<OwnedFd> {
    Ok(rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?)
}

fn request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: ifreq is plain old data; all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = byte.cast_signed();
    }
    Ok(request)
}

fn call(socket: &OwnedFd, what: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: every `what` used here reads or writes one ifreq, and `request` is one.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), what as _, std::ptr::from_mut(request)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn ipv4(address: Ipv4Addr) -> libc::sockaddr {
    // SAFETY: sockaddr_in is plain old data of the same size as sockaddr, for which it stands in.
    unsafe {
        let mut internet: libc::sockaddr_in = std::mem::zeroed();
        internet.sin_family = libc::AF_INET as libc::sa_family_t;
        internet.sin_addr.s_addr = u32::from(address).to_be();
        std::mem::transmute::<libc::sockaddr_in, libc::sockaddr>(internet)
    }
}

/// Switches the card on.
///
/// # Errors
/// What the kernel says.
pub fn up(name: &str) -> io::Result<()> {
    let socket = socket()?;
    let mut flags = request(name)?;
    call(&socket, libc::SIOCGIFFLAGS as _, &mut flags)?;
    // SAFETY: SIOCGIFFLAGS has just filled this member of the union.
    unsafe { flags.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short };
    call(&socket, libc::SIOCSIFFLAGS as _, &mut flags)
}

/// Gives the card its address and the way out.
///
/// # Errors
/// What the kernel says.
pub fn give(name: &str, given: &Address) -> io::Result<()> {
    let socket = socket()?;
    let mut address = request(name)?;
    address.ifr_ifru.ifru_addr = ipv4(given.address);
    call(&socket, libc::SIOCSIFADDR as _, &mut address)?;
    let mut mask = request(name)?;
    mask.ifr_ifru.ifru_netmask = ipv4(given.netmask);
    call(&socket, libc::SIOCSIFNETMASK as _, &mut mask)?;
    let Some(gateway) = given.gateway else { return Ok(()) };
    // SAFETY: rtentry is plain old data; all zeros is a valid value, with a null pointer for no device.
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    route.rt_dst = ipv4(Ipv4Addr::UNSPECIFIED);
    route.rt_genmask = ipv4(Ipv4Addr::UNSPECIFIED);
    route.rt_gateway = ipv4(gateway);
    route.rt_flags = (libc::RTF_UP | libc::RTF_GATEWAY) as _;
    // SAFETY: SIOCADDRT reads one rtentry.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCADDRT as _, std::ptr::from_mut(&mut route)) };
    match io::Error::last_os_error() {
        error if result < 0 && error.raw_os_error() != Some(libc::EEXIST) => Err(error),
        _ => Ok(()),
    }
}

/// Lets a socket speak and hear through this card alone, which need not have an address for that.
///
/// # Errors
/// What the kernel says.
pub fn only_through(socket: &std::net::UdpSocket, name: &str) -> io::Result<()> {
    let length = libc::socklen_t::try_from(name.len()).map_err(io::Error::other)?;
    // SAFETY: SO_BINDTODEVICE reads `length` bytes of a name; they are those of `name`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            name.as_ptr().cast::<libc::c_void>(),
            length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Has the kernel read a disk's partitions again.
///
/// # Errors
/// What the kernel says: above all that a partition is in use.
pub fn read_partitions_again(disk: &std::fs::File) -> io::Result<()> {
    /// `linux/fs.h`: `_IO(0x12, 95)`.
    const BLKRRPART: libc::c_ulong = 0x125f;
    // SAFETY: BLKRRPART takes no argument.
    let result = unsafe { libc::ioctl(disk.as_raw_fd(), BLKRRPART as _, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
