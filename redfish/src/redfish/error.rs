//! Why a Redfish request did not do what was asked.

use super::http::HttpError;
use super::link::{BadLink, Link};
use super::message::Messages;
use super::walk::Unreadable;
use std::net::SocketAddr;
use std::time::Duration;
use thiserror::Error;

/// Why it did not.
#[derive(Debug, Error)]
pub enum RedfishError {
    /// The connection.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The password or the account is refused. It is not tried again: BMCs lock accounts.
    #[error("{address} refuses the account or its password; it is not tried again until the credential changes")]
    Credential {
        /// Where.
        address: SocketAddr,
    },
    /// The account may not.
    #[error("{address}: the account may not {request} (status 403{text}); give it the privilege for it")]
    Forbidden {
        /// Where.
        address: SocketAddr,
        /// What was asked.
        request: String,
        /// What the BMC said, with `: ` before it, or nothing.
        text: String,
    },
    /// It has no time, or no session.
    #[error("{address} is busy ({text}); it is asked again later")]
    Busy {
        /// Where.
        address: SocketAddr,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
        /// What it said.
        text: String,
    },
    /// It said no. Nothing was done, as far as it says: the state is read, not guessed.
    #[error("{address}: {request} was refused (status {status}): {}", words(messages))]
    Refused {
        /// Where.
        address: SocketAddr,
        /// What was asked.
        request: String,
        /// HTTP status.
        status: u16,
        /// What it said.
        messages: Messages,
    },
    /// It sent us elsewhere.
    #[error("{address} answers {request} with a redirection (status {status}), which is not followed")]
    Redirected {
        /// Where.
        address: SocketAddr,
        /// What was asked.
        request: String,
        /// HTTP status.
        status: u16,
    },
    /// The answer cannot be read.
    #[error("{address}: {request}: {reason}")]
    Unreadable {
        /// Where.
        address: SocketAddr,
        /// What was asked.
        request: String,
        /// Why.
        reason: Unreadable,
    },
    /// A link that is not followed.
    #[error("{address}: {reason}")]
    BadLink {
        /// Where.
        address: SocketAddr,
        /// Why.
        reason: BadLink,
    },
    /// What is needed is not there.
    #[error("{address} names no {what}; {hint}")]
    Missing {
        /// Where.
        address: SocketAddr,
        /// What is missing.
        what: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// Several machines behind one address.
    #[error("{address} serves {count} systems that can be switched ({names}); name one of them")]
    ManySystems {
        /// Where.
        address: SocketAddr,
        /// How many.
        count: usize,
        /// Their links, the first few.
        names: String,
    },
    /// This BMC cannot do it.
    #[error("{address} cannot {what}: {reason}")]
    NotOffered {
        /// Where.
        address: SocketAddr,
        /// What was asked.
        what: String,
        /// Why.
        reason: String,
    },
    /// It was accepted as a task, which failed or never ended.
    #[error("{address}: the task for {request} ended as {state}: {text}")]
    Task {
        /// Where.
        address: SocketAddr,
        /// What was asked.
        request: String,
        /// Its state.
        state: String,
        /// What it said.
        text: String,
    },
    /// It was accepted, and reads back otherwise.
    #[error("{address} accepted {what}, but reads back {seen}")]
    NotSet {
        /// Where.
        address: SocketAddr,
        /// What was asked.
        what: String,
        /// What it reads.
        seen: String,
    },
}

impl RedfishError {
    /// The BMC may have acted on it although it did not say so.
    #[must_use]
    pub fn may_have_been_done(&self) -> bool {
        match self {
            RedfishError::Http(why) => why.may_have_been_done(),
            // An answer in the 200s whose body cannot be read.
            RedfishError::Unreadable { .. } | RedfishError::Task { .. } => true,
            _ => false,
        }
    }

    /// It was refused with this status.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            RedfishError::Refused { status, .. } | RedfishError::Redirected { status, .. } => Some(*status),
            RedfishError::Forbidden { .. } => Some(403),
            _ => None,
        }
    }
}

fn words(messages: &Messages) -> String {
    if !messages.text.is_empty() {
        messages.text.clone()
    } else if messages.ids.is_empty() {
        "it gives no reason".to_owned()
    } else {
        messages.ids.join(", ")
    }
}

/// What a request is called in an error.
pub(super) fn called(method: &str, link: &Link) -> String {
    format!("{method} {link}")
}
