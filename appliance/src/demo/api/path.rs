//! Paths and queries of the Kubernetes API.

use super::kinds::{KindId, NAMESPACE};
use std::collections::BTreeMap;

/// What a path means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The kind.
    pub kind: KindId,
    /// The namespace; `None` = all.
    pub namespace: Option<String>,
    /// The object; `None` = the collection.
    pub name: Option<String>,
    /// The subresource.
    pub sub: Option<String>,
}

impl Place {
    /// Reads a path. `None`: it names nothing that is served.
    #[must_use]
    pub fn parse(path: &str) -> Option<Place> {
        let parts: Option<Vec<String>> = path.split('/').filter(|part| !part.is_empty()).map(decode).collect();
        let parts = parts?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let own = |text: &str| Some(text.to_owned());
        let (namespace, plural, rest) = match rest {
            // The namespaces themselves are objects too.
            ["namespaces"] => (None, "namespaces", &rest[1..]),
            ["namespaces", _] => (None, "namespaces", &rest[1..]),
            ["namespaces", _, "status" | "finalize"] => (None, "namespaces", &rest[1..]),
            ["namespaces", namespace, plural, ..] => (own(namespace), *plural, &rest[3..]),
            [plural, ..] => (None, *plural, &rest[1..]),
            [] => return None,
        };
        let kind = KindId::find(group, version, plural)?;
        let (name, sub) = match rest {
            [] => (None, None),
            [name] => (own(name), None),
            [name, sub] => (own(name), own(sub)),
            _ => return None,
        };
        if kind.get().namespaced {
            // An object of a namespace is only named within it.
            (name.is_none() || namespace.is_some()).then_some(Place { kind, namespace, name, sub })
        } else {
            (namespace.is_none() || kind == NAMESPACE).then_some(Place { kind, namespace: None, name, sub })
        }
    }
}

/// The parameters of a query; of one that is given twice, the last.
#[must_use]
pub fn query(text: &str) -> BTreeMap<String, String> {
    text.split('&')
        .filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(&name.replace('+', " "))?, decode(&value.replace('+', " "))?))
        })
        .collect()
}

/// Takes percent encoding away.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::super::kinds::{LEASE, NODE, POD};
    use super::*;

    #[test]
    fn paths_name_collections_objects_and_subresources() {
        let place = |path: &str| Place::parse(path);
        let seen = place("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/node-1").unwrap();
        assert_eq!(
            (seen.kind, seen.namespace.as_deref(), seen.name.as_deref()),
            (LEASE, Some("kube-node-lease"), Some("node-1"))
        );
        let seen = place("/api/v1/nodes/node-1/status").unwrap();
        assert_eq!((seen.kind, seen.name.as_deref(), seen.sub.as_deref()), (NODE, Some("node-1"), Some("status")));
        assert_eq!(place("/api/v1/pods").unwrap(), Place { kind: POD, namespace: None, name: None, sub: None });
        let seen = place("/api/v1/namespaces/kube-system").unwrap();
        assert_eq!((seen.kind, seen.name.as_deref()), (NAMESPACE, Some("kube-system")));
        for none in [
            "/api/v1/pods/p",
            "/api/v2/pods",
            "/api/v1/namespaces/x/nodes",
            "/",
            "/api/v1/nodes/%zz",
            "/api/v1/nodes/a/b/c",
        ] {
            assert_eq!(place(none), None, "{none}");
        }
    }

    #[test]
    fn queries_are_decoded() {
        let seen = query("fieldSelector=spec.nodeName%3Dnode-1&watch=1&x");
        assert_eq!(seen["fieldSelector"], "spec.nodeName=node-1");
        assert_eq!(seen["watch"], "1");
        assert_eq!(seen["x"], "");
    }
}
