//! Rejoin: a wiped host becomes a member of its cluster again, under its old name and with a new identity.
//!
//! Steps in their order, each recorded, each answering "already so" when it is repeated, so that a crash between any two
//! is healed by beginning again:
//!
//! 1. [`Rejoin::save`]: labels, taints, annotations and the old identity, into the [`record`];
//! 2. [`Rejoin::remove_identity`]: Node, Lease, open certificate requests, volume attachments, secrets of the distribution;
//! 3. [`Rejoin::mint`]: a credential for this join alone, when the image is verified on the disk and not before;
//! 4. [`Rejoin::first_boot`]: the files that make the host join at its first boot;
//! 5. [`Rejoin::approve`]: its serving certificate, for its own name and addresses only;
//! 6. [`Rejoin::verify`]: Ready, in a boot that is not the old one, with the version that the image promised;
//! 7. [`Rejoin::restore`]: labels, then taints;
//! 8. [`Rejoin::delete_credential`].
//!
//! It never decides that a host is to be rejoined, and never touches power. What differs between distributions is a
//! [`driver::Driver`].

pub mod alone;
pub mod approve;
pub mod calls;
pub mod cluster;
pub mod credential;
pub mod driver;
pub mod first_boot;
pub mod identity;
#[cfg(test)]
mod mock;
pub mod names;
pub mod port;
pub mod record;
pub mod restore;
pub mod source;
pub mod template;
pub mod verify;

use cluster::{Cluster, ClusterError};
use driver::Driver;
use record::Record;
use std::future::Future;
use std::pin::Pin;

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// It was done now.
    Done,
    /// It was so already; nothing was changed.
    AlreadySo,
    /// Not yet: ask again. What is waited for.
    NotYet(String),
}

/// Why a step did not end.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Going on would do harm, or prove nothing: a person must look.
    #[error("{0}")]
    Stop(String),
    /// The record.
    #[error("the record of the rejoin {path}: {why}; nothing was changed, look at the data directory")]
    Record {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
}

/// The etcd that a control-plane host was a member of, where the appliance has access to it. Members go by their ID alone:
/// names and addresses may be another's by now.
pub trait EtcdMembers: Send + Sync {
    /// Removes a member. Answers false when there is none of this ID.
    fn remove<'a>(&'a self, member: u64) -> Pin<Box<dyn Future<Output = Result<bool, String>> + Send + 'a>>;
}

/// The rejoin of one host.
#[derive(Debug)]
pub struct Rejoin<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// What its distribution wants.
    pub driver: &'a Driver,
    /// What is known, and what is done.
    pub record: &'a mut Record,
    /// The secrets that this process has made and not forgotten.
    pub secrets: &'a credential::Secrets,
}

fn stop(what: impl Into<String>) -> StepError {
    StepError::Stop(what.into())
}
