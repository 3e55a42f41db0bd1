//! What a BMC says that it lets in, before anybody logged in: channel capabilities and cipher suites (sections 22.13 and
//! 22.15).

use super::command::APPLICATION;
use super::frame::{self, FrameError, Packet, Payload};
use super::handshake::Privilege;

/// Channel number "the one this is sent on" (section 6.3).
const THIS_CHANNEL: u8 = 0x0e;
/// Records come sixteen bytes at a time (section 22.15).
const SUITE_BYTES: usize = 16;
/// Parts of the list at most: the index has six bits.
pub const SUITE_PARTS_MAX: u8 = 64;

/// What a channel lets in (section 22.13). The names are the specification's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)]
pub struct ChannelCapabilities {
    /// It speaks IPMI 2.0 (RMCP+).
    pub ipmi_v2: bool,
    /// It speaks IPMI 1.5, which encrypts nothing.
    pub ipmi_v1_5: bool,
    /// IPMI 1.5 sessions without any authentication.
    pub none: bool,
    /// IPMI 1.5 sessions whose password is sent in clear text.
    pub straight_password: bool,
    /// IPMI 1.5 sessions by MD2.
    pub md2: bool,
    /// IPMI 1.5 sessions by MD5.
    pub md5: bool,
    /// A BMC key (Kg) beside the password is set.
    pub bmc_key: bool,
    /// Packets after the first of a session need no authentication.
    pub per_message_authentication_off: bool,
    /// Commands of user level need no authentication.
    pub user_level_authentication_off: bool,
    /// An account without name and without password is open.
    pub anonymous_login: bool,
    /// Accounts without name, but with a password, are open.
    pub null_usernames: bool,
    /// Accounts with a name are open.
    pub named_users: bool,
}

impl ChannelCapabilities {
    /// What should be closed, and how, in plain words. Empty if nothing.
    #[must_use]
    pub fn weaknesses(&self) -> Vec<&'static str> {
        [
            (self.anonymous_login, "anonymous login is enabled: disable the user without a name or give it a password"),
            (self.null_usernames, "users without a name are enabled: disable user 1 or name it"),
            (self.none, "IPMI 1.5 sessions without authentication are allowed: switch authentication type none off"),
            (self.straight_password, "IPMI 1.5 takes passwords in clear text: switch authentication type password off"),
            (self.md2, "IPMI 1.5 sessions by MD2 are allowed: switch authentication type MD2 off"),
            (self.per_message_authentication_off, "per-message authentication is off: switch it on"),
            (self.user_level_authentication_off, "user-level authentication is off: switch it on"),
        ]
        .into_iter()
        .filter_map(|(weak, words)| weak.then_some(words))
        .collect()
    }
}

/// Get Channel Authentication Capabilities, as a datagram outside a session.
#[must_use]
pub fn ask_capabilities(sequence: u8, privilege: Privilege) -> Vec<u8> {
    ask(0x38, sequence, &[0x80 | THIS_CHANNEL, privilege as u8])
}

/// Get Channel Cipher Suites, one part of the list by suite, as a datagram outside a session.
#[must_use]
pub fn ask_suites(sequence: u8, part: u8) -> Vec<u8> {
    ask(0x54, sequence, &[THIS_CHANNEL, Payload::Ipmi.code(), 0x80 | part & 0x3f])
}

fn ask(command: u8, sequence: u8, data: &[u8]) -> Vec<u8> {
    frame::sessionless(&frame::request(APPLICATION, command, sequence, data))
}

/// The answer to a message outside a session: completion code and data. `None` if it is not one to this.
#[must_use]
pub fn answer(datagram: &[u8], command: u8, sequence: u8) -> Option<(u8, Vec<u8>)> {
    let Ok(Packet::Sessionless { message }) = frame::parse(datagram, 0) else { return None };
    let seen = frame::response(message).ok()?;
    let ours = (seen.net_fn, seen.command, seen.sequence) == (APPLICATION, command, sequence);
    ours.then(|| (seen.completion, seen.data.to_vec()))
}

/// Reads the answer to [`ask_capabilities`].
///
/// # Errors
/// It is too short.
pub fn read_capabilities(data: &[u8]) -> Result<ChannelCapabilities, FrameError> {
    let [_channel, types, status, extended, ..] = *data else {
        return Err(FrameError::Short("channel capabilities"));
    };
    // The fourth byte means something only if the second says so: it came with IPMI 2.0.
    let has_extended = types & 0x80 != 0;
    Ok(ChannelCapabilities {
        ipmi_v2: has_extended && extended & 0x02 != 0,
        ipmi_v1_5: !has_extended || extended & 0x01 != 0,
        none: types & 0x01 != 0,
        straight_password: types & 0x10 != 0,
        md2: types & 0x02 != 0,
        md5: types & 0x04 != 0,
        bmc_key: has_extended && status & 0x20 != 0,
        per_message_authentication_off: status & 0x10 != 0,
        user_level_authentication_off: status & 0x08 != 0,
        anonymous_login: status & 0x01 != 0,
        null_usernames: status & 0x02 != 0,
        named_users: status & 0x04 != 0,
    })
}

/// A cipher suite as the BMC lists it. Lists lie: what counts is the triple that it answers a proposal with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CipherSuite {
    /// Its number (table 22-20), or the vendor's.
    pub number: u8,
    /// IANA enterprise number, if it is a vendor's own.
    pub vendor: Option<u32>,
    /// Authentication algorithm; 0 is none.
    pub authentication: u8,
    /// Integrity algorithms; without one, or with 0, packets are not signed.
    pub integrity: Vec<u8>,
    /// Confidentiality algorithms; without one, or with 0, packets are not encrypted.
    pub confidentiality: Vec<u8>,
}

impl CipherSuite {
    /// Why it should be switched off, if it should be.
    #[must_use]
    pub fn weakness(&self) -> Option<&'static str> {
        let lacks = |algorithms: &[u8]| algorithms.is_empty() || algorithms.contains(&0);
        if self.vendor.is_some() {
            None
        } else if self.authentication == 0 {
            Some("it asks for no password")
        } else if lacks(&self.integrity) {
            Some("its packets are not signed")
        } else if lacks(&self.confidentiality) {
            Some("its packets are not encrypted")
        } else if self.authentication == 2 || self.integrity.iter().any(|a| matches!(a, 2 | 3)) {
            Some("it trusts MD5")
        } else if self.confidentiality.iter().any(|a| matches!(a, 2 | 3)) {
            Some("it encrypts by RC4")
        } else {
            None
        }
    }
}

/// Puts the parts of the list together. `add` gives `false` when there are no more.
#[derive(Debug, Clone, Default)]
pub struct SuiteList {
    bytes: Vec<u8>,
}

impl SuiteList {
    /// Takes the answer to [`ask_suites`]; whether another part is to be asked for.
    pub fn add(&mut self, data: &[u8]) -> bool {
        let part = data.get(1..).unwrap_or_default();
        let part = part.get(..SUITE_BYTES).unwrap_or(part);
        // Some firmware ignores the index and gives the first part for ever.
        if part.len() == SUITE_BYTES && self.bytes.ends_with(part) {
            return false;
        }
        self.bytes.extend(part);
        part.len() == SUITE_BYTES
    }

    /// The suites in it; what cannot be read is left out.
    #[must_use]
    pub fn suites(&self) -> Vec<CipherSuite> {
        let (mut suites, mut rest) = (Vec::new(), &self.bytes[..]);
        loop {
            let (number, vendor, tail) = match *rest {
                [0xc0, number, ref tail @ ..] => (number, None, tail),
                [0xc1, number, v0, v1, v2, ref tail @ ..] => (number, Some(u32::from_le_bytes([v0, v1, v2, 0])), tail),
                [_, ref tail @ ..] => {
                    rest = tail;
                    continue;
                }
                [] => return suites,
            };
            let mut suite =
                CipherSuite { number, vendor, authentication: 0, integrity: Vec::new(), confidentiality: Vec::new() };
            // Bits 7 and 6: which kind of algorithm; both set: the next record.
            let tags = tail.iter().take_while(|tag| **tag < 0xc0).count();
            let (algorithms, next) = tail.split_at_checked(tags).unwrap_or((tail, &[]));
            for tag in algorithms {
                match tag >> 6 {
                    0 => suite.authentication = tag & 0x3f,
                    1 => suite.integrity.push(tag & 0x3f),
                    _ => suite.confidentiality.push(tag & 0x3f),
                }
            }
            suites.push(suite);
            rest = next;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_channel_lets_in_is_told_in_plain_words() {
        // A BMC that allows everything, then one that allows RMCP+ by name alone.
        let open = read_capabilities(&[0x01, 0x97, 0x1f, 0x03, 0, 0, 0, 0]).unwrap();
        assert!(open.anonymous_login && open.none && open.straight_password && open.ipmi_v1_5 && open.ipmi_v2);
        assert_eq!(open.weaknesses().len(), 7);
        let closed = read_capabilities(&[0x01, 0x80, 0x04, 0x02, 0, 0, 0, 0]).unwrap();
        assert!(closed.ipmi_v2 && closed.named_users && !closed.ipmi_v1_5 && !closed.bmc_key);
        assert_eq!(closed.weaknesses(), Vec::<&str>::new());
        let old = read_capabilities(&[0x01, 0x04, 0x24, 0xff]).unwrap();
        assert!(old.ipmi_v1_5 && !old.ipmi_v2 && !old.bmc_key);
        assert!(read_capabilities(&[1, 2, 3]).is_err());
    }

    #[test]
    fn the_list_of_suites_is_put_together_and_read() {
        // As ipmi_sim answers, then a vendor's own suite.
        let mut list = SuiteList::default();
        let first = [1, 0xc0, 0x00, 0x00, 0x40, 0x80, 0xc0, 0x01, 0x01, 0x40, 0x80, 0xc0, 0x02, 0x01, 0x41, 0x80, 0xc0];
        assert!(list.add(&first));
        assert!(!list.add(&first), "the same part again: the index is ignored");
        assert!(!list.add(&[1, 0x03, 0x01, 0x41, 0x81, 0xc1, 0x80, 0x57, 0x01, 0x00, 0x3f, 0x7f, 0xbf]));
        let suites = list.suites();
        let numbers: Vec<u8> = suites.iter().map(|suite| suite.number).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 0x80]);
        assert_eq!(suites[0].weakness(), Some("it asks for no password"));
        assert_eq!(suites[1].weakness(), Some("its packets are not signed"));
        assert_eq!(suites[2].weakness(), Some("its packets are not encrypted"));
        assert_eq!(suites[3].weakness(), None);
        assert_eq!((suites[4].vendor, suites[4].authentication), (Some(343), 0x3f));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(data in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = (read_capabilities(&data), answer(&data, 0x38, 1));
            let mut list = SuiteList::default();
            let _ = (list.add(&data), list.add(&data));
            let _ = list.suites().iter().map(CipherSuite::weakness).count();
        }
    }
}
