//! TFTP's packets, from and to bytes.

use std::fmt::Write as _;

/// The largest block (RFC 2348).
pub const LARGEST_BLOCK_BYTES: u16 = 65_464;
/// The block of a client that asks for none (RFC 1350).
pub const USUAL_BLOCK_BYTES: u16 = 512;
/// The longest request that is read: RFC 2347 allows no longer one.
pub const REQUEST_LIMIT_BYTES: usize = 512;

/// Error codes of RFC 1350 and RFC 2347.
pub mod error_code {
    /// Not defined; see the message.
    pub const NOT_DEFINED: u16 = 0;
    /// File not found.
    pub const NOT_FOUND: u16 = 1;
    /// The option negotiation is refused.
    pub const OPTIONS: u16 = 8;
}

/// How text is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As it is.
    Octet,
    /// With the line ends of Telnet (RFC 764).
    Netascii,
}

/// The options of a request (RFC 2347), as they were asked for. Unknown ones are left out; of one that comes twice the
/// first counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `blksize`: bytes of a block, at least 8.
    pub block_bytes: Option<u16>,
    /// `tsize`: the size is wanted.
    pub size: bool,
    /// `timeout`: seconds until a packet is sent again, at least 1.
    pub timeout_s: Option<u8>,
    /// `windowsize`: blocks between two acknowledgements, at least 1.
    pub window: Option<u16>,
}

/// A read request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRequest {
    /// The name as it was sent.
    pub name: String,
    /// How.
    pub mode: Mode,
    /// The options.
    pub options: Options,
}

/// A packet from a client, after its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromClient {
    /// It has everything up to this block, as the wire counts.
    Acknowledged(u16),
    /// It ends the transfer.
    Error {
        /// The code.
        code: u16,
        /// Its words, made printable and cut.
        message: String,
    },
}

/// The request of a first packet. `None`: not a read request that can be understood, and nothing is said to it. That
/// holds for write requests as well: an answer would tell an unarmed host that somebody is here.
#[must_use]
pub fn read_request(bytes: &[u8]) -> Option<ReadRequest> {
    let rest = bytes.strip_prefix(&[0, 1])?;
    if bytes.len() > REQUEST_LIMIT_BYTES {
        return None;
    }
    // Some ROMs send rubbish behind the last NUL; what follows it is no string and not read.
    let mut strings = rest.split_inclusive(|byte| *byte == 0).filter_map(|part| part.strip_suffix(&[0]));
    let name = std::str::from_utf8(strings.next()?).ok()?.to_owned();
    let mode = strings.next()?;
    let mode = if mode.eq_ignore_ascii_case(b"octet") {
        Mode::Octet
    } else if mode.eq_ignore_ascii_case(b"netascii") {
        Mode::Netascii
    } else {
        return None;
    };
    let mut options = Options::default();
    let (mut block_seen, mut timeout_seen, mut window_seen) = (false, false, false);
    while let (Some(name), Some(value)) = (strings.next(), strings.next()) {
        let Ok(value) = std::str::from_utf8(value) else { continue };
        let number = if value.bytes().all(|byte| byte.is_ascii_digit()) { value.parse::<u64>().ok() } else { None };
        // A value outside of what its RFC allows makes the option as if it had not been asked for.
        if name.eq_ignore_ascii_case(b"blksize") && !std::mem::replace(&mut block_seen, true) {
            options.block_bytes =
                number.filter(|n| *n >= 8).map(|n| u16::try_from(n).unwrap_or(u16::MAX).min(LARGEST_BLOCK_BYTES));
        } else if name.eq_ignore_ascii_case(b"tsize") {
            options.size = true;
        } else if name.eq_ignore_ascii_case(b"timeout") && !std::mem::replace(&mut timeout_seen, true) {
            options.timeout_s = number.and_then(|n| u8::try_from(n).ok()).filter(|n| *n >= 1);
        } else if name.eq_ignore_ascii_case(b"windowsize") && !std::mem::replace(&mut window_seen, true) {
            options.window = number.and_then(|n| u16::try_from(n).ok()).filter(|n| *n >= 1);
        }
    }
    Some(ReadRequest { name, mode, options })
}

/// A packet of a client to a transfer's own port; `None` for what has no meaning there.
#[must_use]
pub fn from_client(bytes: &[u8]) -> Option<FromClient> {
    match bytes {
        [0, 4, high, low, ..] => Some(FromClient::Acknowledged(u16::from_be_bytes([*high, *low]))),
        [0, 5, high, low, rest @ ..] => {
            let text = rest.split(|byte| *byte == 0).next().unwrap_or_default();
            let text = String::from_utf8_lossy(text);
            let message = text.chars().filter(|c| !c.is_control()).take(100).collect();
            Some(FromClient::Error { code: u16::from_be_bytes([*high, *low]), message })
        }
        _ => None,
    }
}

/// The acknowledgement of options: those that are given and nothing else (RFC 2347).
#[must_use]
pub fn option_acknowledgement(
    block: Option<u16>,
    size: Option<u64>,
    timeout_s: Option<u8>,
    window: Option<u16>,
) -> Vec<u8> {
    let mut text = String::new();
    let mut put = |name: &str, value: Option<u64>| {
        if let Some(value) = value {
            let _ = write!(text, "{name}\0{value}\0");
        }
    };
    put("blksize", block.map(u64::from));
    put("tsize", size);
    put("timeout", timeout_s.map(u64::from));
    put("windowsize", window.map(u64::from));
    [&[0, 6], text.as_bytes()].concat()
}

/// An error.
#[must_use]
pub fn error(code: u16, message: &str) -> Vec<u8> {
    let [high, low] = code.to_be_bytes();
    [&[0, 5, high, low], message.as_bytes(), &[0]].concat()
}

/// The four bytes before a block's content.
#[must_use]
pub fn data_head(block: u64) -> [u8; 4] {
    // The wire counts modulo 65,536, and 0 follows 65,535 (no RFC says so; every client but very old ones does).
    let [.., high, low] = block.to_be_bytes();
    [0, 3, high, low]
}

/// Text with the line ends of Telnet: LF becomes CR LF, CR becomes CR NUL.
#[must_use]
pub fn netascii(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len() + bytes.len() / 16);
    for byte in bytes {
        match byte {
            b'\n' => text.extend_from_slice(b"\r\n"),
            b'\r' => text.extend_from_slice(b"\r\0"),
            byte => text.push(*byte),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(text: &str) -> Option<ReadRequest> {
        read_request(&[&[0, 1], text.replace('|', "\0").as_bytes()].concat())
    }

    #[test]
    fn the_request_of_edk2_is_understood() {
        let read = request("t/x/snponly.efi|octet|tsize|0|blksize|1468|windowsize|4|").unwrap();
        assert_eq!(read.name, "t/x/snponly.efi");
        let options = Options { block_bytes: Some(1468), size: true, timeout_s: None, window: Some(4) };
        assert_eq!(read.options, options);
    }

    #[test]
    fn odd_options_are_as_if_not_asked_for() {
        let options = |text: &str| request(&format!("a|OCTET|{text}")).unwrap().options;
        assert_eq!(options("blksize|7|"), Options::default());
        assert_eq!(options("blksize|99999|").block_bytes, Some(LARGEST_BLOCK_BYTES));
        assert_eq!(options("timeout|0|windowsize|0|"), Options::default());
        assert_eq!(options("timeout|256|windowsize|65536|"), Options::default());
        assert_eq!(options("BLKSIZE|1024|blksize|512|").block_bytes, Some(1024));
        assert_eq!(options("blksize|x|blksize|512|").block_bytes, None);
        assert_eq!(options("multicast||blksize|600|").block_bytes, Some(600));
        assert_eq!(options("blksize|600").block_bytes, None, "without its last NUL it is no option");
    }

    #[test]
    fn nothing_but_read_requests_is_answered() {
        assert_eq!(read_request(b"\0\x02a\0octet\0"), None);
        assert_eq!(request("a|mail|"), None);
        assert_eq!(request("a"), None);
        assert_eq!(request(&format!("{}|octet|", "a".repeat(600))), None);
        assert_eq!(read_request(b"\0\x01\xff\0octet\0"), None);
    }

    #[test]
    fn only_given_options_are_acknowledged() {
        assert_eq!(option_acknowledgement(Some(512), None, None, Some(4)), b"\0\x06blksize\x00512\0windowsize\x004\0");
    }

    #[test]
    fn netascii_doubles_line_ends() {
        assert_eq!(netascii(b"a\nb\rc"), b"a\r\nb\r\0c");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
            let _ = from_client(&bytes);
            let with_code = [&[0, 1], bytes.as_slice()].concat();
            if let Some(read) = read_request(&with_code) {
                prop_assert!(read.options.block_bytes.is_none_or(|n| (8..=LARGEST_BLOCK_BYTES).contains(&n)));
                prop_assert!(read.options.window != Some(0) && read.options.timeout_s != Some(0));
            }
        }
    }
}
