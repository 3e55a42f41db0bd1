//! What is asked of a BMC and what it says.

use crate::At;
use crate::fault::HardwareKind;
use crate::power::{OffCause, Power};
use serde::{Deserialize, Serialize};

/// A request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BmcRequest {
    /// Live identity.
    Identify,
    /// Power, identity and off cause in one session.
    ReadPower,
    /// Force off.
    ForceOff,
    /// Power on.
    PowerOn,
    /// Hard reset: the power stays on, so nobody ever reads Off. Not idempotent.
    ForceRestart,
    /// Orderly restart through the operating system.
    GracefulRestart,
    /// Orderly shutdown through the operating system.
    GracefulShutdown,
    /// Boot progress and firmware tasks.
    ReadStage,
    /// Firmware tasks alone.
    ReadTask,
    /// Set the one-shot boot override.
    SetBootOnce(BootOverride),
    /// Read the override back.
    ReadBootOnce,
    /// Hardware health.
    ReadHealth,
    /// The event log.
    ReadEvents,
    /// Watts drawn.
    ReadWatts,
    /// Put the installer of a job into the virtual drive.
    InsertMedia(u64),
    /// Empty the virtual drive.
    EjectMedia,
    /// What is in the virtual drive.
    ReadMedia,
    /// Restart the BMC itself.
    Reset,
}

impl BmcRequest {
    /// It changes the power of the host, or may.
    #[must_use]
    pub fn writes_power(self) -> bool {
        matches!(
            self,
            BmcRequest::ForceOff
                | BmcRequest::PowerOn
                | BmcRequest::ForceRestart
                | BmcRequest::GracefulRestart
                | BmcRequest::GracefulShutdown
        )
    }

    /// It changes something.
    #[must_use]
    pub fn writes(self) -> bool {
        self.writes_power()
            || matches!(
                self,
                BmcRequest::SetBootOnce(_) | BmcRequest::InsertMedia(_) | BmcRequest::EjectMedia | BmcRequest::Reset
            )
    }
}

/// The one-shot boot override.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum BootOverride {
    /// None.
    #[default]
    None,
    /// Network by PXE, once.
    NetworkOnce,
    /// Network by UEFI HTTP, once.
    HttpOnce,
    /// Virtual drive, once.
    VirtualMediaOnce,
    /// Disk, once.
    DiskOnce,
}

/// A power reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerRead {
    /// What it says.
    pub power: Power,
    /// The identity it shows.
    pub identity: u128,
    /// Why it is off, if it is.
    pub cause: OffCause,
}

/// Boot progress as the BMC tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StageRead {
    /// Nothing.
    None,
    /// Self test.
    Post,
    /// The operating system starts.
    Starting,
    /// It runs.
    Running,
    /// An orderly shutdown.
    ShuttingDown,
    /// A firmware task.
    FirmwareTask,
}

/// An entry of the event log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BmcEvent {
    /// Its number; they grow, and the oldest entries are dropped.
    pub id: u64,
    /// When.
    pub at: At,
    /// What.
    pub kind: BmcEventKind,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BmcEventKind {
    /// The host went off.
    PoweredOff(OffCause),
    /// The host went on.
    PoweredOn,
    /// A hard reset by command.
    Reset,
    /// The self test began.
    PostBegan,
    /// The operating system shuts down.
    ShuttingDown,
    /// Hardware failed.
    HardwareFailed(HardwareKind),
    /// The BMC itself started again.
    BmcRestarted,
}

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BmcReply {
    /// Accepted.
    Accepted,
    /// It is so already, or it cannot be done in this state (409).
    Conflict,
    /// Identity.
    Identity(u128),
    /// Power.
    Power(PowerRead),
    /// Stage.
    Stage(StageRead),
    /// Whether a firmware task runs.
    Task(bool),
    /// The override.
    Boot(BootOverride),
    /// Hardware health: `None` is good.
    Health(Option<HardwareKind>),
    /// The event log, oldest first, at most 64 entries.
    Events(Vec<BmcEvent>),
    /// Watts drawn.
    Watts(u32),
    /// The job whose installer is in the virtual drive.
    Media(Option<u64>),
}

/// No reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BmcError {
    /// No answer at all.
    Silent,
    /// Wrong credential, or locked after too many wrong ones.
    Refused,
    /// Busy or no session free.
    Busy,
    /// The request took effect; its reply was lost.
    ReplyLost,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BmcOutcome {
    /// When the reply (or the caller's certainty that none comes) arrives.
    pub arrives_at: At,
    /// The reply.
    pub result: Result<BmcReply, BmcError>,
}
