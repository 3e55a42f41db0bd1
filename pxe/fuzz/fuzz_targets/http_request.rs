//! The head of a request and what is answered: names never leave the tree, ranges never leave the file, the answer is a
//! head whose length is what follows.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pxe::files::{Body, BootFile};
use pxe::http::answer::Answer;
use pxe::http::request::{Head, Method};

fuzz_target!(|bytes: &[u8]| {
    let head = match Head::parse(bytes) {
        Ok(Some(head)) => head,
        Ok(None) => return,
        Err(error) => {
            assert!(Answer::refused(error).head.ends_with("\r\n\r\n"));
            return;
        }
    };
    assert!(head.bytes <= bytes.len());
    if let Some(path) = &head.path {
        assert!(!path.is_empty() && !path.starts_with('/') && !path.contains('\\'));
        assert!(path.split('/').all(|part| !part.is_empty() && part != "." && part != ".."));
    }
    let body = Body::Bytes(vec![7; 1000].into());
    let file = BootFile { body, media_type: "application/efi", sha256: Some([0xab; 32]), tag: 0 };
    let answer = Answer::with(&head, &file);
    assert!(answer.from + answer.length <= 1000);
    assert!(answer.head.ends_with("\r\n\r\n") && answer.head.matches("\r\n\r\n").count() == 1);
    if head.method == Method::Head {
        assert_eq!(answer.length, 0);
    } else if answer.status != 416 {
        assert!(answer.head.contains(&format!("Content-Length: {}\r\n", answer.length)));
    }
});
