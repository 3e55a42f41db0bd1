//! The MTU of an interface, as the network of this process has it: asked by netlink. `/sys/class/net` shows the network in
//! which it was mounted, which is another one after `nsenter --net`.
//!
//! Sources: rtnetlink(7), netlink(7), `linux/rtnetlink.h`, `linux/if_link.h`.

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType};
use std::io;
use std::time::Duration;

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const IFLA_MTU: u16 = 4;
/// `struct nlmsghdr`, and behind it `struct ifinfomsg`.
const HEAD_BYTES: usize = 16;
const LINK_BYTES: usize = 16;
/// The kernel answers from memory; a question that is lost must not hang a start.
const PATIENCE: Duration = Duration::from_secs(2);

/// The MTU of the interface with this index.
///
/// # Errors
/// What the kernel says.
pub fn interface_mtu(index: u32) -> io::Result<u32> {
    // Protocol 0 is NETLINK_ROUTE.
    let socket = rustix::net::socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
    rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Recv, Some(PATIENCE))?;
    rustix::net::sendto(&socket, &question(index), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut answer = vec![0; 64 << 10];
    let (length, _) = rustix::net::recv(&socket, answer.as_mut_slice(), RecvFlags::empty())?;
    mtu(answer.get(..length).unwrap_or_default())
}

fn question(index: u32) -> Vec<u8> {
    let length = u32::try_from(HEAD_BYTES + LINK_BYTES).unwrap_or_default();
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(RTM_GETLINK.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([0; 4]);
    message.extend(index.to_ne_bytes());
    message.extend([0; 8]);
    message
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// Reads the kernel's answer.
fn mtu(answer: &[u8]) -> io::Result<u32> {
    let odd =
        || io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer about the interface is not understood");
    match short(answer, 4).ok_or_else(odd)? {
        NLMSG_ERROR => {
            let code = long(answer, HEAD_BYTES).ok_or_else(odd)?.cast_signed();
            return Err(io::Error::from_raw_os_error(code.saturating_neg()));
        }
        RTM_NEWLINK => {}
        _ => return Err(odd()),
    }
    let mut attributes = answer.get(HEAD_BYTES + LINK_BYTES..).ok_or_else(odd)?;
    loop {
        let length = usize::from(short(attributes, 0).ok_or_else(odd)?);
        if short(attributes, 2) == Some(IFLA_MTU) {
            return long(attributes, 4).ok_or_else(odd);
        }
        // Each begins at a multiple of four (RTA_ALIGN).
        attributes = attributes.get(length.max(4).next_multiple_of(4)..).ok_or_else(odd)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_interface_of_this_network_has_the_mtu_that_ip_shows() {
        let shown = std::process::Command::new("ip").args(["-j", "link", "show"]).output();
        let Ok(shown) = shown.as_ref().map(|output| String::from_utf8_lossy(&output.stdout).into_owned()) else {
            return;
        };
        let all: Vec<serde_json::Value> = serde_json::from_str(&shown).unwrap();
        assert!(!all.is_empty());
        for link in all {
            let index = u32::try_from(link["ifindex"].as_u64().unwrap()).unwrap();
            assert_eq!(u64::from(interface_mtu(index).unwrap()), link["mtu"].as_u64().unwrap(), "{link}");
        }
        let error = interface_mtu(0x7fff_ffff).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(19), "ENODEV: {error}");
    }

    #[test]
    fn no_answer_makes_it_panic_or_turn_in_circles() {
        let mut whole = question(1);
        whole[4..6].copy_from_slice(&RTM_NEWLINK.to_ne_bytes());
        whole.extend([5, 0, 3, 0, b'x', 0, 0, 0, 8, 0, 4, 0]);
        whole.extend(1400_u32.to_ne_bytes());
        assert_eq!(mtu(&whole).unwrap(), 1400);
        for cut in 0..whole.len() {
            assert!(mtu(&whole[..cut]).is_err(), "{cut}");
            let mut turned = whole.clone();
            turned[cut] = 0;
            let _ = mtu(&turned);
        }
    }
}
