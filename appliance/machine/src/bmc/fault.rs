//! How a BMC misbehaves.

use crate::Millis;
use serde::{Deserialize, Serialize};

/// A fault of the BMC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BmcFault {
    /// Each reply comes so much later.
    Slow(Millis),
    /// It refuses the credential.
    Refusing,
    /// No answer until its own power is cut.
    Dead,
    /// All its sessions are taken.
    SessionsFull,
    /// It restarts, for so long.
    Resetting(Millis),
    /// From the next power command on it says Off, whatever is so.
    SaysOff,
    /// It says Off as soon as it accepted an off, before the power is gone.
    SaysOffEarly,
    /// It says On, whatever is so.
    SaysOn,
    /// It hangs on the host's feed and dies with it.
    Sideband,
    /// It does not follow one-shot boot.
    IgnoresBoot,
    /// It accepts one-shot boot and makes it permanent.
    KeepsBoot,
    /// It refuses boot overrides while the host is in its self test.
    NoBootChangeInPost,
    /// It accepts power commands without effect.
    IgnoresPower,
    /// Its off takes so much longer to take effect.
    SlowOff(Millis),
    /// It answers 409 to an On for so long after the host went off, and does nothing.
    SettlesAfterOff(Millis),
    /// A firmware task runs, for so long.
    FirmwareTask(Millis),
    /// It answers power from a copy so old.
    Stale(Millis),
    /// The next power write takes effect, but its reply is lost.
    LosesReply,
    /// The next Off, On or hard reset takes effect a second time, so much later.
    RepeatsPower(Millis),
    /// It answers 409 to an Off of a machine that is off, and to an On of one that is on.
    Conflicts,
    /// It shows this identity instead of its own (0: a board without one).
    ShowsIdentity(u128),
    /// All of these are over.
    Cured,
}
