//! The verbs of a BMC behind one trait, whatever it speaks.

use crate::boot::{BootDevice, BootMode, BootOverride, BootStage};
use crate::health::{LogEntry, Sensor};
use crate::ipmi::client::IpmiError;
use crate::ipmi::handshake::LoginError;
use crate::power::PowerCommand;
use crate::reading::Readings;
use crate::redfish::{HttpError, RedfishError};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use thiserror::Error;

/// A verb under way. Dropping it stops it; what was sent may have been done.
pub type Verb<'a, T> = Pin<Box<dyn Future<Output = Result<T, BmcError>> + Send + 'a>>;

/// Whether a change may still leave. It is asked immediately before the first byte that has an effect: connections,
/// logins and the reads before a write take their time, and a right may end meanwhile.
pub type Guard<'a> = &'a (dyn Fn() -> bool + Send + Sync);

/// The guard of who needs no right: a person at a bench.
pub const ALWAYS: Guard<'static> = &|| true;

/// What a caller must know of a failure to act rightly; the sentence for a person is beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No connection, no answer to a question that changes nothing. Nothing was done.
    Unreachable,
    /// It may have been done, or not: read before anything else.
    Unknown,
    /// The credential is refused. It is not tried again before it changes, or the time of rule 32.
    Credential,
    /// The certificate is another one. Nothing is sent.
    Pin,
    /// Busy; asked to come back after so long, if it said.
    Busy(Option<Duration>),
    /// It said no.
    Refused,
    /// This BMC cannot do it.
    NotOffered,
    /// It answered what nobody may answer.
    Hostile,
}

/// Why a verb did not do what was asked.
#[derive(Debug, Error)]
#[error("{text}")]
pub struct BmcError {
    /// For the caller.
    pub kind: Kind,
    /// For a person: cause, consequence, next step.
    pub text: String,
}

impl BmcError {
    /// One of our own making.
    #[must_use]
    pub fn new(kind: Kind, text: impl Into<String>) -> BmcError {
        BmcError { kind, text: text.into() }
    }

    /// A change that its guard kept back: nothing was done.
    pub(crate) fn withheld() -> BmcError {
        BmcError::new(Kind::Unreachable, "not sent: it may not leave any more")
    }
}

impl From<RedfishError> for BmcError {
    fn from(why: RedfishError) -> BmcError {
        let kind = match &why {
            RedfishError::Http(HttpError::PinChanged { .. } | HttpError::Untrusted { .. }) => Kind::Pin,
            RedfishError::Http(HttpError::Request { .. }) => Kind::Refused,
            RedfishError::Http(why) if why.may_have_been_done() => Kind::Unknown,
            RedfishError::Http(_) => Kind::Unreachable,
            RedfishError::Credential { .. } => Kind::Credential,
            RedfishError::Busy { retry_after, .. } => Kind::Busy(*retry_after),
            RedfishError::NotOffered { .. } | RedfishError::Missing { .. } => Kind::NotOffered,
            RedfishError::Unreadable { .. } | RedfishError::BadLink { .. } | RedfishError::Redirected { .. } => {
                Kind::Hostile
            }
            RedfishError::Task { .. } => Kind::Unknown,
            RedfishError::Forbidden { .. }
            | RedfishError::Refused { .. }
            | RedfishError::ManySystems { .. }
            | RedfishError::NotSet { .. } => Kind::Refused,
        };
        BmcError { kind, text: why.to_string() }
    }
}

impl From<IpmiError> for BmcError {
    fn from(why: IpmiError) -> BmcError {
        let kind = match &why {
            IpmiError::Login { source: LoginError::PasswordWrong | LoginError::UserRefused, .. } => Kind::Credential,
            IpmiError::Login { source: LoginError::NoSessions, .. } => Kind::Busy(None),
            IpmiError::Login { source: LoginError::Downgraded(_), .. } => Kind::Hostile,
            IpmiError::Login { .. } => Kind::Refused,
            IpmiError::ReplyLost { .. } => Kind::Unknown,
            IpmiError::Refused { code: 0xc0 | 0xc3 | 0xce | 0xd2, .. } => Kind::Busy(None),
            IpmiError::Refused { code: 0xc1 | 0xd6, .. } => Kind::NotOffered,
            IpmiError::Refused { .. } => Kind::Refused,
            IpmiError::Answer { .. } => Kind::Hostile,
            _ => Kind::Unreachable,
        };
        BmcError { kind, text: why.to_string() }
    }
}

/// Who a machine and its BMC say they are, as far as they tell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// Sixteen bytes: of a UUID in the order of its text, or of an IPMI GUID as sent.
    pub machine: Option<[u8; 16]>,
    /// Serial number.
    pub serial: Option<String>,
    /// Who made it.
    pub vendor: Option<String>,
    /// Model.
    pub model: Option<String>,
    /// The BMC's firmware.
    pub firmware: Option<String>,
    /// How it is spoken to: `IPMI 2.0, cipher suite 17` or `Redfish, session`.
    pub spoken: String,
}

/// One BMC with its session. Verbs take turns by `&mut`: one request in flight.
pub trait Controller: Send {
    /// Who it is, read now.
    fn identify(&mut self) -> Verb<'_, Identity>;
    /// The power, read now.
    fn readings(&mut self) -> Verb<'_, Readings>;
    /// Sends a power command, if the guard lets it. That it was accepted says nothing: read.
    fn power<'a>(&'a mut self, command: PowerCommand, guard: Guard<'a>) -> Verb<'a, ()>;
    /// Sets what it boots from next, once, if the guard lets it, and gives what reads back.
    fn set_boot_once<'a>(
        &'a mut self,
        device: &'a BootDevice,
        mode: BootMode,
        guard: Guard<'a>,
    ) -> Verb<'a, BootOverride>;
    /// What reads back as the override.
    fn boot_override(&mut self) -> Verb<'_, BootOverride>;
    /// How far the boot has come, where told.
    fn boot_stage(&mut self) -> Verb<'_, BootStage>;
    /// The newest entries of the event log, oldest first.
    fn event_log(&mut self, count: usize) -> Verb<'_, Vec<LogEntry>>;
    /// The sensors.
    fn sensors(&mut self) -> Verb<'_, Vec<Sensor>>;
    /// Puts an image in the virtual drive; gives the drive.
    fn insert_media<'a>(&'a mut self, url: &'a str) -> Verb<'a, String>;
    /// Empties it.
    fn eject_media(&mut self) -> Verb<'_, ()>;
    /// Restarts the BMC itself.
    fn reset_bmc(&mut self) -> Verb<'_, ()>;
    /// Keeps an idle session open, where there is one.
    fn keep_alive(&mut self) -> Verb<'_, ()>;
    /// What this BMC taught while it was used, in words.
    fn learned(&self) -> Vec<String>;
    /// Gives the session back.
    fn close(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}
