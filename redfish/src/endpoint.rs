//! Where a BMC is: `ipmi://USER@HOST[:PORT]` or `redfish://USER@HOST[:PORT]`. A password is never part of it.

use std::str::FromStr;
use thiserror::Error;

/// How it is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// IPMI 2.0 over LAN, UDP 623 by default.
    Ipmi,
    /// Redfish over TLS, TCP 443 by default.
    Redfish,
}

/// A BMC's address and the account to use there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The protocol.
    pub protocol: Protocol,
    /// The account.
    pub user: String,
    /// An IPv4 or IPv6 address (without brackets) or a name.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Why a URL is none of a BMC. No variant repeats what was given: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadEndpoint {
    /// Another scheme.
    #[error("the URL of a BMC begins with ipmi:// or redfish://")]
    Scheme,
    /// A password in it.
    #[error(
        "the URL holds a password, which every process list would show; take it out and name a file with --password-file, or set RACKMEDIC_BMC_PASSWORD"
    )]
    Password,
    /// No account.
    #[error("the URL names no user: write it as ipmi://USER@HOST")]
    User,
    /// No host, or characters that no host has.
    #[error("the URL names no host, or one with characters that no host has")]
    Host,
    /// No number, or zero, or too large.
    #[error("the port of the URL is no number from 1 to 65535")]
    Port,
}

impl FromStr for Endpoint {
    type Err = BadEndpoint;

    fn from_str(url: &str) -> Result<Endpoint, BadEndpoint> {
        let (scheme, rest) = url.split_once("://").ok_or(BadEndpoint::Scheme)?;
        let (protocol, default_port) = match scheme {
            "ipmi" => (Protocol::Ipmi, 623),
            "redfish" => (Protocol::Redfish, 443),
            _ => return Err(BadEndpoint::Scheme),
        };
        let (user, place) = rest.rsplit_once('@').ok_or(BadEndpoint::User)?;
        if user.contains(':') {
            return Err(BadEndpoint::Password);
        }
        if user.is_empty() || user.chars().any(char::is_control) {
            return Err(BadEndpoint::User);
        }
        let place = place.strip_suffix('/').unwrap_or(place);
        let (host, port) = match place.strip_prefix('[') {
            Some(v6) => {
                let (host, tail) = v6.split_once(']').ok_or(BadEndpoint::Host)?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| BadEndpoint::Host)?;
                match tail {
                    "" => (host, None),
                    _ => (host, Some(tail.strip_prefix(':').ok_or(BadEndpoint::Port)?)),
                }
            }
            None => match place.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (place, None),
            },
        };
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':');
        if host.is_empty() || !host.chars().all(allowed) {
            return Err(BadEndpoint::Host);
        }
        let port = match port {
            None => default_port,
            Some(text) => text.parse().ok().filter(|port| *port != 0).ok_or(BadEndpoint::Port)?,
        };
        Ok(Endpoint { protocol, user: user.to_owned(), host: host.to_owned(), port })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_are_some() {
        let seen: Endpoint = "ipmi://admin@10.0.0.7".parse().unwrap();
        assert_eq!(
            (seen.protocol, seen.user.as_str(), seen.host.as_str(), seen.port),
            (Protocol::Ipmi, "admin", "10.0.0.7", 623)
        );
        let seen: Endpoint = "redfish://a.b@[fe80::1]:8443/".parse().unwrap();
        assert_eq!((seen.host.as_str(), seen.port), ("fe80::1", 8443));
    }

    #[test]
    fn urls_that_are_none_and_what_is_said() {
        for (url, why) in [
            ("http://admin@h", BadEndpoint::Scheme),
            ("10.0.0.7", BadEndpoint::Scheme),
            ("ipmi://10.0.0.7", BadEndpoint::User),
            ("ipmi://@10.0.0.7", BadEndpoint::User),
            ("ipmi://admin:hunter2@10.0.0.7", BadEndpoint::Password),
            ("ipmi://admin@", BadEndpoint::Host),
            ("ipmi://admin@h/../x", BadEndpoint::Host),
            ("ipmi://admin@[::1", BadEndpoint::Host),
            ("ipmi://admin@h:0", BadEndpoint::Port),
            ("ipmi://admin@h:70000", BadEndpoint::Port),
        ] {
            let seen = url.parse::<Endpoint>();
            assert_eq!(seen, Err(why), "{url}");
            assert!(!why.to_string().contains("hunter2"));
        }
    }
}
