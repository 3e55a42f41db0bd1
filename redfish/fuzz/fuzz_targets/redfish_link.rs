//! Links: whatever a BMC writes, what is followed is a path at the BMC itself, and fits into a request.
#![no_main]

use bmc::redfish::{Link, Origin};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for (host, port) in [("10.0.0.7", 443), ("fe80::1", 8_443), ("bmc.example", 443)] {
        let origin = Origin { host: host.to_owned(), port };
        for link in [origin.link(text), Link::path(text)].into_iter().flatten() {
            let path = link.as_str();
            assert!(path.starts_with('/') && !path.starts_with("//") && !path.contains('\\'));
            assert!(path.bytes().all(|byte| byte.is_ascii_graphic()) && !path.contains('#'));
            assert!(!path.split(['/', '?']).any(|part| part == ".."));
            assert_eq!(origin.link(path).as_ref(), Ok(&link), "read again it is the same");
        }
        // A whole URL is followed only if it names this very place.
        if let (Some((scheme, rest)), Ok(_)) = (text.split_once("://"), origin.link(text))
            && !text.starts_with('/')
        {
            let authority = rest.split('/').next().unwrap_or_default();
            assert_eq!(scheme, "https");
            assert!(authority.to_ascii_lowercase().starts_with(&origin.authority()) || authority.starts_with(host));
            assert!(!authority.contains('@'));
        }
    }
});
