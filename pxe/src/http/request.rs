//! The head of a request, from bytes.

/// The longest head that is read. Firmware sends some two hundred bytes, a browser some two thousand.
pub const HEAD_LIMIT_BYTES: usize = 8 * 1024;
/// Header lines of one request.
const HEADERS_LIMIT: usize = 64;
/// The longest name of a file.
const PATH_LIMIT_BYTES: usize = 1024;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The file.
    Get,
    /// Only what the head of the answer would be. OVMF and GRUB ask so for the size.
    Head,
    /// Anything else is refused.
    Other,
}

/// One range of bytes (RFC 9110 section 14.1.2), as it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// `first-` or `first-last`, both inclusive.
    From {
        /// The first byte.
        first: u64,
        /// The last one, when named.
        last: Option<u64>,
    },
    /// `-length`: the last bytes.
    Last(u64),
}

/// A request's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// What is to be done.
    pub method: Method,
    /// The name as [`crate::files::FileRequest`] wants it. `None`: it can be no name of ours.
    pub path: Option<String>,
    /// The range, when exactly one was asked for. Several at once are answered with the whole (RFC 9110 section 14.2
    /// lets a server ignore the field).
    pub range: Option<Range>,
    /// The validator that makes the range conditional (RFC 9110 section 13.1.5).
    pub if_range: Option<String>,
    /// Whether the connection may be used again.
    pub keep_alive: bool,
    /// How long the head was, bytes.
    pub bytes: usize,
}

/// Why a head was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// No HTTP/1 request.
    #[error("no HTTP/1 request")]
    Malformed,
    /// Longer than we read.
    #[error("a head of more than {HEAD_LIMIT_BYTES} bytes or {HEADERS_LIMIT} lines")]
    TooLong,
    /// It carries a body, which no request for a file does. Reading past it would be guessing where the next begins.
    #[error("a request with a body")]
    Body,
}

impl Head {
    /// The head at the start of these bytes; `None` while it is not there whole.
    ///
    /// # Errors
    /// Why it never will be.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, HeadError> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_LIMIT];
        let mut request = httparse::Request::new(&mut headers);
        let length = match request.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if bytes.len() >= HEAD_LIMIT_BYTES => return Err(HeadError::TooLong),
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooLong),
            Err(_) => return Err(HeadError::Malformed),
        };
        let method = match request.method {
            Some("GET") => Method::Get,
            Some("HEAD") => Method::Head,
            _ => Method::Other,
        };
        let mut head = Self {
            method,
            path: request.path.and_then(path),
            range: None,
            if_range: None,
            // HTTP/1.0 closes unless it says otherwise (RFC 9112 section 9.3).
            keep_alive: request.version == Some(1),
            bytes: length,
        };
        let mut ranges = 0_u8;
        for header in request.headers.iter() {
            let Ok(value) = std::str::from_utf8(header.value) else { continue };
            let value = value.trim();
            if header.name.eq_ignore_ascii_case("range") {
                ranges = ranges.saturating_add(1);
                head.range = if ranges == 1 { range(value) } else { None };
            } else if header.name.eq_ignore_ascii_case("if-range") {
                head.if_range = Some(value.to_owned());
            } else if header.name.eq_ignore_ascii_case("connection") {
                for option in value.split(',').map(str::trim) {
                    if option.eq_ignore_ascii_case("close") {
                        head.keep_alive = false;
                    } else if option.eq_ignore_ascii_case("keep-alive") && request.version == Some(0) {
                        head.keep_alive = true;
                    }
                }
            } else if header.name.eq_ignore_ascii_case("transfer-encoding")
                || header.name.eq_ignore_ascii_case("content-length") && value != "0"
            {
                return Err(HeadError::Body);
            }
        }
        Ok(Some(head))
    }
}

/// The name of a file from the target of a request (RFC 9112 section 3.2): origin form, or absolute form as some firmware
/// sends to what it takes for a proxy. Percent signs are decoded once, a query is cut off (GRUB and iPXE send none).
fn path(target: &str) -> Option<String> {
    let path = match target.strip_prefix("http://") {
        Some(rest) => rest.split_once('/')?.1,
        None => target.strip_prefix('/')?,
    };
    let path = path.split(['?', '#']).next()?;
    if path.len() > PATH_LIMIT_BYTES {
        return None;
    }
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let (high, low) = (rest.next()?, rest.next()?);
            let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            decoded.push((digit(high)? << 4) | digit(low)?);
        } else {
            decoded.push(byte);
        }
    }
    plain_name(&String::from_utf8(decoded).ok()?)
}

/// The name without empty parts. `None` when it has parts that no name of ours has.
#[must_use]
pub fn plain_name(path: &str) -> Option<String> {
    if path.chars().any(|c| c.is_control() || c == '\\') {
        return None;
    }
    let mut name = String::with_capacity(path.len());
    for part in path.split('/').filter(|part| !part.is_empty()) {
        if part == "." || part == ".." {
            return None;
        }
        if !name.is_empty() {
            name.push('/');
        }
        name.push_str(part);
    }
    (!name.is_empty()).then_some(name)
}

/// One range of bytes; `None` for anything else, which is then answered with the whole.
fn range(value: &str) -> Option<Range> {
    let (unit, set) = value.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = set.trim().split_once('-')?;
    let number = |text: &str| -> Option<u64> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().ok()).flatten()
    };
    if first.is_empty() {
        return Some(Range::Last(number(last)?));
    }
    let first = number(first)?;
    let last = if last.is_empty() { None } else { Some(number(last)?) };
    // Last before first is no valid range (RFC 9110 section 14.1.1) and ignored.
    last.is_none_or(|last| last >= first).then_some(Range::From { first, last })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(text: &str) -> Head {
        Head::parse(text.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn what_ovmf_sends_is_understood() {
        let text =
            "HEAD /t/abc/ipxe.efi HTTP/1.1\r\nHost: 192.0.2.1\r\nAccept: */*\r\nUser-Agent: UefiHttpBoot/1.0\r\n\r\n";
        let head = head(text);
        assert_eq!((head.method, head.path.as_deref()), (Method::Head, Some("t/abc/ipxe.efi")));
        assert!(head.keep_alive);
        assert_eq!(head.bytes, text.len());
    }

    #[test]
    fn names_are_decoded_once_and_never_leave_the_tree() {
        let name = |target: &str| head(&format!("GET {target} HTTP/1.1\r\n\r\n")).path;
        assert_eq!(name("/a%2fb//c?x=1"), Some("a/b/c".to_owned()));
        assert_eq!(name("http://192.0.2.1:8080/a/b"), Some("a/b".to_owned()));
        for wrong in ["/", "/../a", "/a/%2e%2e/b", "/a%00", "/a%5cb", "/%zz", "/%4", "*", "a", "/%ff"] {
            assert_eq!(name(wrong), None, "{wrong}");
        }
        assert_eq!(name("/%252e%252e/a"), Some("%2e%2e/a".to_owned()));
    }

    #[test]
    fn only_one_plain_range_counts() {
        let range = |value: &str| head(&format!("GET /a HTTP/1.1\r\nRange: {value}\r\n\r\n")).range;
        assert_eq!(range("bytes=0-99"), Some(Range::From { first: 0, last: Some(99) }));
        assert_eq!(range("bytes=5-"), Some(Range::From { first: 5, last: None }));
        assert_eq!(range("Bytes = -7"), Some(Range::Last(7)));
        for ignored in ["bytes=0-1,5-6", "bytes=9-3", "lines=1-2", "bytes=", "bytes=-", "bytes=+1-2", "bytes=1-x"] {
            assert_eq!(range(ignored), None, "{ignored}");
        }
        assert_eq!(head("GET /a HTTP/1.1\r\nRange: bytes=0-1\r\nRange: bytes=2-3\r\n\r\n").range, None);
    }

    #[test]
    fn the_connection_is_kept_as_the_version_says() {
        assert!(head("GET /a HTTP/1.1\r\n\r\n").keep_alive);
        assert!(!head("GET /a HTTP/1.0\r\n\r\n").keep_alive);
        assert!(head("GET /a HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").keep_alive);
        assert!(!head("GET /a HTTP/1.1\r\nConnection: foo, close\r\n\r\n").keep_alive);
    }

    #[test]
    fn a_body_and_an_endless_head_are_refused() {
        let body = b"GET /a HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(Head::parse(body), Err(HeadError::Body));
        assert_eq!(Head::parse(b"GET /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"), Err(HeadError::Body));
        let endless = format!("GET /a HTTP/1.1\r\nX: {}", "a".repeat(HEAD_LIMIT_BYTES));
        assert_eq!(Head::parse(endless.as_bytes()), Err(HeadError::TooLong));
        assert_eq!(Head::parse(b"\x16\x03\x01\x02\x00\x01"), Err(HeadError::Malformed));
        assert_eq!(Head::parse(b"GET /a HT"), Ok(None));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(Some(head)) = Head::parse(&bytes) {
                prop_assert!(head.bytes <= bytes.len());
            }
        }

        #[test]
        fn no_target_yields_a_name_that_climbs(target in "[/.%a-f0-9\\\\]{0,40}") {
            if let Some(name) = path(&format!("/{target}")) {
                prop_assert!(!name.starts_with('/') && !name.contains('\\'));
                prop_assert!(name.split('/').all(|part| !part.is_empty() && part != ".." && part != "."));
            }
        }
    }
}
