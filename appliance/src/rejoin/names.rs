//! Names that cannot hold a character with a meaning of its own.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The text is not what it is to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is no {kind}: {rule}")]
pub struct NoName {
    text: String,
    kind: &'static str,
    rule: &'static str,
}

fn no_name(text: &str, kind: &'static str, rule: &'static str) -> NoName {
    NoName { text: text.chars().take(80).flat_map(char::escape_default).collect(), kind, rule }
}

/// The name of a Node: an RFC 1123 subdomain, at most 253 characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(String);

impl NodeName {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The user that its kubelet is.
    #[must_use]
    pub fn user(&self) -> String {
        format!("system:node:{}", self.0)
    }
}

impl FromStr for NodeName {
    type Err = NoName;

    fn from_str(text: &str) -> Result<NodeName, NoName> {
        if text.len() <= 253 && text.split('.').all(is_label) {
            Ok(NodeName(text.to_owned()))
        } else {
            Err(no_name(text, "name of a Node", "use a-z 0-9 - in parts of 1 to 63 that are joined by dots"))
        }
    }
}

fn is_label(label: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !label.is_empty()
        && label.len() <= 63
        && label.bytes().all(inner)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

impl TryFrom<String> for NodeName {
    type Error = NoName;

    fn try_from(text: String) -> Result<NodeName, NoName> {
        text.parse()
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> String {
        name.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a host joins: `host:port`, the host a name, an IPv4 address or a bracketed IPv6 address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Endpoint(String);

impl Endpoint {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Endpoint {
    type Err = NoName;

    fn from_str(text: &str) -> Result<Endpoint, NoName> {
        let fits = text.rsplit_once(':').is_some_and(|(host, port)| {
            let v6 = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            let host_fits = match v6 {
                Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
                None => host.to_ascii_lowercase().parse::<NodeName>().is_ok(),
            };
            host_fits && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        if fits { Ok(Endpoint(text.to_owned())) } else { Err(no_name(text, "endpoint", "write host:port")) }
    }
}

impl TryFrom<String> for Endpoint {
    type Error = NoName;

    fn try_from(text: String) -> Result<Endpoint, NoName> {
        text.parse()
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> String {
        endpoint.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_a_cluster_knows_are_names() {
        for good in ["n1", "rack-1.example.org", "0", "a.b.c"] {
            assert_eq!(good.parse::<NodeName>().unwrap().as_str(), good);
        }
        let long = "a".repeat(64);
        for odd in ["", ".", "N1", "n1.", "-a", "a-", "a b", "a/b", "a\n", "ä", "a_b", "..", long.as_str()] {
            assert!(odd.parse::<NodeName>().is_err(), "{odd:?}");
        }
        for good in ["10.0.0.1:6443", "[fd00::1]:6443", "api.example.org:443"] {
            assert_eq!(good.parse::<Endpoint>().unwrap().as_str(), good);
        }
        for odd in ["10.0.0.1", "a:0", "a:99999", "fd00::1:6443x", "a b:1", "https://a:1", "a:1 --x"] {
            assert!(odd.parse::<Endpoint>().is_err(), "{odd:?}");
        }
    }
}
