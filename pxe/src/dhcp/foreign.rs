//! DHCP servers that are not ours: what they say to hosts on our link.

use super::options::code;
use super::request::{Message, MessageType};
use super::scope::Mode;
use crate::mac::Mac;
use crate::recorder::LinkWarning;
use std::net::Ipv4Addr;

/// What is wrong about an offer or acknowledgement of another server, seen on a link where we run in `mode`.
#[must_use]
pub fn judge(message: &Message<'_>, from: (Mac, Ipv4Addr), mode: Mode) -> Vec<LinkWarning> {
    let mut warnings = Vec::new();
    if message.op != 2 || !matches!(message.kind, MessageType::Offer | MessageType::Ack) {
        return warnings;
    }
    let (mac, source) = from;
    let server = message.options.address(code::SERVER).unwrap_or(source);
    if mode == Mode::Server && !message.yiaddr.is_unspecified() {
        warnings.push(LinkWarning::RogueServer { server, mac });
    }
    let class = message.options.get(code::CLASS).unwrap_or_default();
    let file = message.options.get(code::BOOT_FILE).unwrap_or(message.file);
    if class.starts_with(b"PXEClient") && file.is_empty() && message.options.get(code::VENDOR).is_none() {
        warnings.push(LinkWarning::StrayClass { server, mac });
    }
    if !file.is_empty() {
        let file = String::from_utf8_lossy(file.get(..100).unwrap_or(file))
            .trim_end_matches('\0')
            .escape_default()
            .to_string();
        warnings.push(LinkWarning::ForeignBootFile { server, mac, file });
    }
    warnings
}
