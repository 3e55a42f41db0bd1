//! Links of a BMC: only paths at the BMC itself. A hostile one must not make us ask others, least of all with its
//! credentials.

use thiserror::Error;

/// No link of a BMC is longer.
pub(super) const LINK_BYTES_MAX: usize = 1_024;

/// A path at the BMC, with its query if it has one; without a fragment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link(String);

/// A link that is not followed. What it said is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadLink {
    /// It points to another host, port or scheme.
    #[error("the BMC names a link to another place than itself, which is not followed")]
    Foreign,
    /// It is no path.
    #[error("the BMC names a link that is no path")]
    NoPath,
}

/// Where a BMC is, as links name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Name or address, IPv6 without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl Origin {
    /// As in a `Host` header.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == 443 { host } else { format!("{host}:{}", self.port) }
    }

    /// Reads a link of this BMC: a path, or a whole URL of this very origin.
    ///
    /// # Errors
    /// It points elsewhere, or is no path.
    pub fn link(&self, text: &str) -> Result<Link, BadLink> {
        let path = match text.split_once("://") {
            Some((scheme, rest)) if !text.starts_with('/') => {
                let (authority, path) = rest.split_once('/').ok_or(BadLink::NoPath)?;
                let with_port = format!("{}:443", self.authority());
                let same = authority.eq_ignore_ascii_case(&self.authority())
                    || (self.port == 443 && authority.eq_ignore_ascii_case(&with_port));
                if scheme != "https" || !same {
                    return Err(BadLink::Foreign);
                }
                format!("/{path}")
            }
            _ => text.to_owned(),
        };
        Link::path(&path)
    }
}

impl Link {
    /// Reads a path.
    ///
    /// # Errors
    /// It is none.
    pub fn path(text: &str) -> Result<Link, BadLink> {
        let path = text.split('#').next().unwrap_or_default();
        if path.len() > LINK_BYTES_MAX || !path.starts_with('/') {
            return Err(BadLink::NoPath);
        }
        // Two slashes or a backslash begin another host for many readers.
        if path.starts_with("//") || path.contains('\\') {
            return Err(BadLink::Foreign);
        }
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '<' | '>' | '^' | '`' | '{' | '|' | '}');
        if !path.chars().all(plain) || path.split(['/', '?']).any(|part| part == "..") {
            return Err(BadLink::NoPath);
        }
        Ok(Link(path.to_owned()))
    }

    /// The path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A path under this one.
    ///
    /// # Errors
    /// It is none.
    pub fn under(&self, more: &str) -> Result<Link, BadLink> {
        Link::path(&format!("{}/{more}", self.0.trim_end_matches('/')))
    }

    /// The same resource, whether or not one is written with a slash at its end.
    #[must_use]
    pub fn same(&self, other: &Link) -> bool {
        self.0.trim_end_matches('/') == other.0.trim_end_matches('/')
    }
}

impl std::fmt::Display for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_bmc_itself_is_followed() {
        let origin = Origin { host: "10.0.0.7".to_owned(), port: 443 };
        for good in
            ["/redfish/v1", "https://10.0.0.7/redfish/v1", "https://10.0.0.7:443/redfish/v1", "/redfish/v1#/a/0"]
        {
            assert_eq!(origin.link(good).unwrap().as_str(), "/redfish/v1", "{good}");
        }
        for foreign in [
            "https://10.0.0.8/redfish/v1",
            "http://10.0.0.7/redfish/v1",
            "https://10.0.0.7:8443/x",
            "https://10.0.0.7@evil/x",
            "//evil/x",
            "/\\evil/x",
        ] {
            assert_eq!(origin.link(foreign), Err(BadLink::Foreign), "{foreign}");
        }
        for bad in ["", "redfish", "/a b", "/a\r\nX: y", "/../x", "/a/../b", "https://10.0.0.7"] {
            assert_eq!(origin.link(bad), Err(BadLink::NoPath), "{bad}");
        }
        let six = Origin { host: "fe80::1".to_owned(), port: 8443 };
        assert_eq!(six.authority(), "[fe80::1]:8443");
        assert!(six.link("https://[fe80::1]:8443/x").is_ok());
    }

    proptest! {
        #[test]
        fn a_link_never_breaks_a_request(text in "\\PC{0,60}|[/a-z\r\n\t .:@\\\\]{0,40}") {
            if let Ok(link) = Link::path(&text) {
                prop_assert!(link.as_str().starts_with('/') && !link.as_str().starts_with("//"));
                prop_assert!(link.as_str().bytes().all(|b| b.is_ascii_graphic()));
            }
        }
    }
}
