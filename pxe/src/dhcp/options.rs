//! DHCP options as they lie in a message: RFC 2131 section 4.1 (overload), RFC 2132, RFC 3396 (long options).
//!
//! The reader is tolerant: an option that nobody asks for cannot spoil a message. iPXE's raw user class, padding in odd
//! places, a missing end and a last option that is cut short have all been seen (metal3-io/baremetal-operator#446).

use std::borrow::Cow;

/// Codes of the options used here.
pub mod code {
    /// Subnet mask.
    pub const MASK: u8 = 1;
    /// Routers.
    pub const ROUTER: u8 = 3;
    /// Name servers.
    pub const DNS: u8 = 6;
    /// Host name.
    pub const HOST_NAME: u8 = 12;
    /// Vendor-specific; PXE's sub-options.
    pub const VENDOR: u8 = 43;
    /// MTU of the interface.
    pub const MTU: u8 = 26;
    /// Requested address.
    pub const REQUESTED: u8 = 50;
    /// Lease time, seconds.
    pub const LEASE_TIME: u8 = 51;
    /// Where else options are (overload).
    pub const OVERLOAD: u8 = 52;
    /// Message type.
    pub const MESSAGE_TYPE: u8 = 53;
    /// Server identifier.
    pub const SERVER: u8 = 54;
    /// Which options the client wants.
    pub const PARAMETERS: u8 = 55;
    /// A sentence, in a NAK.
    pub const MESSAGE: u8 = 56;
    /// The largest message the client takes, bytes.
    pub const MAX_SIZE: u8 = 57;
    /// T1, seconds.
    pub const RENEWAL: u8 = 58;
    /// T2, seconds.
    pub const REBINDING: u8 = 59;
    /// Vendor class.
    pub const CLASS: u8 = 60;
    /// Client identifier.
    pub const CLIENT_ID: u8 = 61;
    /// TFTP server name.
    pub const TFTP_SERVER: u8 = 66;
    /// Boot file.
    pub const BOOT_FILE: u8 = 67;
    /// User class.
    pub const USER_CLASS: u8 = 77;
    /// Relay agent information.
    pub const RELAY: u8 = 82;
    /// Client's architecture.
    pub const ARCH: u8 = 93;
    /// Client's network interface.
    pub const INTERFACE: u8 = 94;
    /// Client's machine identifier.
    pub const MACHINE: u8 = 97;
    /// TFTP server addresses (RFC 5859).
    pub const TFTP_ADDRESS: u8 = 150;
    /// iPXE's encapsulated options.
    pub const IPXE: u8 = 175;
}

const PAD: u8 = 0;
const END: u8 = 255;

/// The options of one message, in the order in which they were first seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options<'a>(Vec<(u8, Cow<'a, [u8]>)>);

impl<'a> Options<'a> {
    /// Reads the options field, and `file` and `sname` where option 52 says that options lie there as well.
    /// Fragments of one option are joined in the order options, file, sname (RFC 3396 section 5).
    #[must_use]
    pub fn read(field: &'a [u8], file: &'a [u8], sname: &'a [u8]) -> Self {
        let mut options = Self::default();
        options.read_field(field);
        let overload = options.byte(code::OVERLOAD).unwrap_or(0);
        if overload & 1 != 0 {
            options.read_field(file);
        }
        if overload & 2 != 0 {
            options.read_field(sname);
        }
        options
    }

    /// Reads sub-options (PXE's in 43, the relay's in 82, iPXE's in 175).
    #[must_use]
    pub fn encapsulated(field: &'a [u8]) -> Self {
        let mut options = Self::default();
        options.read_field(field);
        options
    }

    fn read_field(&mut self, mut field: &'a [u8]) {
        while let Some((&code, rest)) = field.split_first() {
            field = rest;
            match code {
                PAD => continue,
                END => return,
                _ => {}
            }
            let Some((&length, rest)) = field.split_first() else { return };
            // The last option of a message that was cut short: what is there of it cannot be trusted.
            let Some((value, rest)) = rest.split_at_checked(usize::from(length)) else { return };
            field = rest;
            match self.0.iter_mut().find(|(known, _)| *known == code) {
                Some((_, whole)) => whole.to_mut().extend_from_slice(value),
                None => self.0.push((code, Cow::Borrowed(value))),
            }
        }
    }

    /// The bytes of an option.
    #[must_use]
    pub fn get(&self, code: u8) -> Option<&[u8]> {
        self.0.iter().find(|(known, _)| *known == code).map(|(_, value)| value.as_ref())
    }

    /// The first byte of an option.
    #[must_use]
    pub fn byte(&self, code: u8) -> Option<u8> {
        self.get(code)?.first().copied()
    }

    /// The first 16-bit number of an option.
    #[must_use]
    pub fn short(&self, code: u8) -> Option<u16> {
        self.get(code)?.first_chunk().copied().map(u16::from_be_bytes)
    }

    /// The first address of an option.
    #[must_use]
    pub fn address(&self, code: u8) -> Option<std::net::Ipv4Addr> {
        self.get(code)?.first_chunk::<4>().copied().map(std::net::Ipv4Addr::from)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Writes one option; a long one in fragments of 255 bytes (RFC 3396).
pub(crate) fn write(into: &mut Vec<u8>, code: u8, value: &[u8]) {
    if value.is_empty() {
        into.extend_from_slice(&[code, 0]);
    }
    for part in value.chunks(255) {
        into.push(code);
        into.push(u8::try_from(part.len()).unwrap_or(255));
        into.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn options_in_any_order_with_padding_and_no_end_are_read() {
        let read = Options::read(&[0, 0, 60, 3, b'P', b'X', b'E', 0, 53, 1, 1], &[], &[]);
        assert_eq!(read.get(60), Some(&b"PXE"[..]));
        assert_eq!(read.byte(53), Some(1));
    }

    #[test]
    fn an_option_cut_short_is_left_out_and_spoils_nothing() {
        let read = Options::read(&[53, 1, 1, 60, 200, b'P'], &[], &[]);
        assert_eq!(read.byte(53), Some(1));
        assert_eq!(read.get(60), None);
    }

    #[test]
    fn overloaded_fields_are_read_in_the_order_of_rfc_3396() {
        let read = Options::read(&[52, 1, 3, 77, 1, b'a', 255], &[77, 1, b'b', 255, 77, 1, b'x'], &[77, 1, b'c', 255]);
        assert_eq!(read.get(77), Some(&b"abc"[..]));
        let not_overloaded = Options::read(&[77, 1, b'a', 255], &[77, 1, b'b'], &[77, 1, b'c']);
        assert_eq!(not_overloaded.get(77), Some(&b"a"[..]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(field in proptest::collection::vec(any::<u8>(), 0..400), file: [u8; 32]) {
            let _ = Options::read(&field, &file, &file);
        }

        #[test]
        fn what_is_written_is_read(value in proptest::collection::vec(any::<u8>(), 0..700), code in 1_u8..=254) {
            prop_assume!(code != 52);
            let mut bytes = Vec::new();
            write(&mut bytes, code, &value);
            bytes.push(255);
            let read = Options::read(&bytes, &[], &[]);
            prop_assert_eq!(read.get(code), Some(&value[..]));
        }
    }
}
