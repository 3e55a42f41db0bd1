//! The resources that the emulated API serves, as a table: a new one is one line.

/// One kind of object.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// API group; empty for the core.
    pub group: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The name in paths.
    pub plural: &'static str,
    /// The name in `kind`.
    pub kind: &'static str,
    /// It lies in a namespace.
    pub namespaced: bool,
    /// It has a status subresource.
    pub status: bool,
    /// What `kubectl` calls it too.
    pub short: &'static [&'static str],
}

/// A kind by its place in [`KINDS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KindId(usize);

macro_rules! kinds {
    ($($name:ident = $group:literal $version:literal $plural:literal $kind:literal $namespaced:literal $status:literal [$($short:literal)*];)*) => {
        /// All kinds.
        pub const KINDS: &[Kind] = &[$(Kind {
            group: $group,
            version: $version,
            plural: $plural,
            kind: $kind,
            namespaced: $namespaced,
            status: $status,
            short: &[$($short),*],
        }),*];
        kinds!(@ids 0usize, $($name)*);
    };
    (@ids $at:expr, $name:ident $($rest:ident)*) => {
        #[doc = concat!("The kind ", stringify!($name), ".")]
        pub const $name: KindId = KindId($at);
        kinds!(@ids $at + 1, $($rest)*);
    };
    (@ids $at:expr,) => {};
}

kinds! {
    NODE = "" "v1" "nodes" "Node" false true ["no"];
    POD = "" "v1" "pods" "Pod" true true ["po"];
    NAMESPACE = "" "v1" "namespaces" "Namespace" false true ["ns"];
    SECRET = "" "v1" "secrets" "Secret" true false [];
    SERVICE_ACCOUNT = "" "v1" "serviceaccounts" "ServiceAccount" true false ["sa"];
    CONFIG_MAP = "" "v1" "configmaps" "ConfigMap" true false ["cm"];
    EVENT = "" "v1" "events" "Event" true false ["ev"];
    LEASE = "coordination.k8s.io" "v1" "leases" "Lease" true false [];
    VOLUME_ATTACHMENT = "storage.k8s.io" "v1" "volumeattachments" "VolumeAttachment" false true [];
    SIGNING_REQUEST = "certificates.k8s.io" "v1" "certificatesigningrequests" "CertificateSigningRequest" false true ["csr"];
    DEPLOYMENT = "apps" "v1" "deployments" "Deployment" true true ["deploy"];
    REPLICA_SET = "apps" "v1" "replicasets" "ReplicaSet" true true ["rs"];
    STATEFUL_SET = "apps" "v1" "statefulsets" "StatefulSet" true true ["sts"];
    DAEMON_SET = "apps" "v1" "daemonsets" "DaemonSet" true true ["ds"];
}

impl KindId {
    /// What is known of it.
    #[must_use]
    pub fn get(self) -> &'static Kind {
        // Only this module makes one.
        &KINDS[self.0]
    }

    /// By group, version and plural name.
    #[must_use]
    pub fn find(group: &str, version: &str, plural: &str) -> Option<KindId> {
        let same = |kind: &Kind| kind.group == group && kind.version == version && kind.plural == plural;
        KINDS.iter().position(same).map(KindId)
    }
}

impl Kind {
    /// `apiVersion` of its objects.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_for_their_lines() {
        for (id, plural) in [(NODE, "nodes"), (LEASE, "leases"), (DAEMON_SET, "daemonsets")] {
            assert_eq!(id.get().plural, plural);
            assert_eq!(KindId::find(id.get().group, id.get().version, plural), Some(id));
        }
        assert_eq!(KindId::find("", "v1", "leases"), None);
    }
}
