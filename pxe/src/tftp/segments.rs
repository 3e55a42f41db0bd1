//! One call for many datagrams: the kernel cuts what it is given into datagrams of one length (Linux `UDP_SEGMENT`, udp(7)).
#![allow(unsafe_code)] // One use, below: neither rustix nor socket2 has this option.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

/// The most datagrams of one call (Linux `UDP_MAX_SEGMENTS`).
pub(super) const MOST: usize = 64;
/// The most bytes of one call: a whole IPv4 packet before it is cut, without its heads.
pub(super) const MOST_BYTES: usize = 65_507;

/// Lets every call on this socket send datagrams of so many bytes, the last one what is left.
///
/// # Errors
/// On a kernel that cannot; then each datagram needs its call.
pub(super) fn cut_into(socket: impl AsFd, bytes: u16) -> io::Result<()> {
    let value = libc::c_int::from(bytes);
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or_default();
    // SAFETY: the descriptor is open for the time of the call, which the borrow keeps; the kernel reads exactly `length`
    // bytes from a c_int on our stack and keeps no pointer to it.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            std::ptr::from_ref(&value).cast(),
            length,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
