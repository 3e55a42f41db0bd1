//! What is answered: a pure function of the request's head and of the file that may be given.

use super::request::{Head, HeadError, Method, Range};
use crate::files::BootFile;
use std::fmt::Write as _;

/// An answer: its head, and which bytes of the file follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The head as it is sent, with its empty line.
    pub head: String,
    /// The first byte of the body within the file.
    pub from: u64,
    /// How many bytes of the file follow.
    pub length: u64,
    /// Whether the connection lives on.
    pub keep_alive: bool,
}

impl Answer {
    /// For a head that was not understood. The connection ends: nobody knows where the next request begins.
    #[must_use]
    pub fn refused(error: HeadError) -> Self {
        match error {
            HeadError::Malformed => Self::bare(400, "Bad Request", "", false),
            HeadError::TooLong => Self::bare(431, "Request Header Fields Too Large", "", false),
            HeadError::Body => Self::bare(413, "Content Too Large", "", false),
        }
    }

    /// The answer to everything that may not be given, byte for byte the same whatever the reason: no such name, no
    /// ticket, expired, another card. The connection is closed with it: shim (15.7) waits for more after a 404 until the
    /// server closes, and asks for three optional files before its second stage.
    #[must_use]
    pub fn nothing() -> Self {
        Self::bare(404, "Not Found", "", false)
    }

    /// When a method other than GET and HEAD was asked for; said before any name is looked at.
    #[must_use]
    pub fn other_method() -> Self {
        Self::bare(405, "Method Not Allowed", "Allow: GET, HEAD\r\n", false)
    }

    /// With the file.
    ///
    /// Always `Content-Length`, never chunked, compressed or redirected: UEFI's HTTP boot takes nothing else
    /// (EDK2 `HttpBootDxe`).
    #[must_use]
    pub fn with(head: &Head, file: &BootFile) -> Self {
        let total = file.body.length();
        let tag = file.sha256.map(|digest| {
            let mut tag = String::with_capacity(66);
            tag.push('"');
            for byte in digest {
                let _ = write!(tag, "{byte:02x}");
            }
            tag.push('"');
            tag
        });
        // RFC 9110 section 13.1.5: a validator that does not fit makes the range void, and the whole is sent. Dates never
        // fit, for we send none.
        let range = head.range.filter(|_| head.if_range.is_none() || head.if_range == tag);
        let mut more = format!("Content-Type: {}\r\nAccept-Ranges: bytes\r\n", file.media_type);
        if let Some(tag) = &tag {
            let _ = write!(more, "ETag: {tag}\r\n");
        }
        let (status, reason, from, length) = match range.map(|range| bounds(range, total)) {
            None => (200, "OK", 0, total),
            Some(Some((from, length))) => {
                let last = from.saturating_add(length).saturating_sub(1);
                let _ = write!(more, "Content-Range: bytes {from}-{last}/{total}\r\n");
                (206, "Partial Content", from, length)
            }
            Some(None) => {
                let more = format!("Content-Range: bytes */{total}\r\n");
                return Self::bare(416, "Range Not Satisfiable", &more, head.keep_alive);
            }
        };
        let text = text(status, reason, length, &more, head.keep_alive);
        let length = if head.method == Method::Head { 0 } else { length };
        Self { status, head: text, from, length, keep_alive: head.keep_alive }
    }

    fn bare(status: u16, reason: &str, more: &str, keep_alive: bool) -> Self {
        Self { status, head: text(status, reason, 0, more, keep_alive), from: 0, length: 0, keep_alive }
    }
}

fn text(status: u16, reason: &str, length: u64, more: &str, keep_alive: bool) -> String {
    let connection = if keep_alive { "keep-alive" } else { "close" };
    format!("HTTP/1.1 {status} {reason}\r\nContent-Length: {length}\r\n{more}Connection: {connection}\r\n\r\n")
}

/// First byte and length of a range within a file; `None` when nothing of it lies inside.
fn bounds(range: Range, total: u64) -> Option<(u64, u64)> {
    match range {
        Range::From { first, last } => {
            let end = last.map_or(total, |last| last.saturating_add(1).min(total));
            (first < total).then(|| (first, end.saturating_sub(first)))
        }
        Range::Last(length) => {
            let length = length.min(total);
            (length > 0).then(|| (total.saturating_sub(length), length))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Body;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn file(length: usize) -> BootFile {
        let body = Body::Bytes(Bytes::from(vec![7; length]));
        BootFile { body, media_type: "application/efi", sha256: Some([0xab; 32]), tag: 0 }
    }

    fn answer(request: &str, length: usize) -> Answer {
        let head = Head::parse(request.as_bytes()).unwrap().unwrap();
        Answer::with(&head, &file(length))
    }

    #[test]
    fn the_whole_file_has_its_exact_length_and_its_digest_as_tag() {
        let answer = answer("GET /a HTTP/1.1\r\n\r\n", 10);
        insta::assert_snapshot!(answer.head.replace('\r', ""), @r#"
        HTTP/1.1 200 OK
        Content-Length: 10
        Content-Type: application/efi
        Accept-Ranges: bytes
        ETag: "abababababababababababababababababababababababababababababababab"
        Connection: keep-alive
        "#);
        assert_eq!((answer.from, answer.length), (0, 10));
    }

    #[test]
    fn head_names_the_length_and_sends_nothing() {
        let answer = answer("HEAD /a HTTP/1.0\r\n\r\n", 10);
        assert!(answer.head.contains("Content-Length: 10\r\n") && answer.head.contains("Connection: close"));
        assert_eq!(answer.length, 0);
    }

    #[test]
    fn a_range_that_lies_outside_is_refused_with_the_size() {
        let answer = answer("GET /a HTTP/1.1\r\nRange: bytes=10-\r\n\r\n", 10);
        assert_eq!(answer.status, 416);
        assert!(answer.head.contains("Content-Range: bytes */10\r\n"));
    }

    #[test]
    fn a_validator_of_another_file_makes_the_range_void() {
        let other = answer("GET /a HTTP/1.1\r\nRange: bytes=1-2\r\nIf-Range: \"x\"\r\n\r\n", 10);
        assert_eq!((other.status, other.length), (200, 10));
        let tag = "ab".repeat(32);
        let same = answer(&format!("GET /a HTTP/1.1\r\nRange: bytes=1-2\r\nIf-Range: \"{tag}\"\r\n\r\n"), 10);
        assert_eq!((same.status, same.from, same.length), (206, 1, 2));
    }

    proptest! {
        #[test]
        fn a_range_never_reaches_beyond_the_file(first in any::<u64>(), last in any::<u64>(), total in any::<u64>()) {
            for range in [Range::From { first, last: Some(last.max(first)) }, Range::From { first, last: None }, Range::Last(last)] {
                if let Some((from, length)) = bounds(range, total) {
                    prop_assert!(length > 0 && from.checked_add(length).is_some_and(|end| end <= total));
                }
            }
        }
    }
}
