//! What a BMC said about power, and when. Readings only: what they prove is not decided here.

use std::time::Instant;

/// Power as read. Nothing is derived from `Unknown`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Power {
    /// On.
    On,
    /// Off: the exact word, or the clear bit.
    Off,
    /// On its way from one to the other.
    Transitioning,
    /// Not told, or told in words that mean neither.
    Unknown,
}

/// Why it is off, as far as the BMC tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OffCause {
    /// The mains or the feed was lost.
    AcLoss,
    /// A power fault, an overload or an interlock.
    Fault,
    /// Not told.
    Unknown,
}

/// By what it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// The system itself: IPMI chassis status, or the power state of the Redfish system.
    System,
    /// The chassis around it, as its BMC tells it: it can contradict, never prove.
    Chassis,
    /// An outlet of a power distribution unit.
    Outlet,
}

/// One live reading of power. Never from a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// When the answer came.
    pub at: Instant,
    /// By what.
    pub source: Source,
    /// The identity that the same session gave: sixteen bytes of GUID as sent, or `None` if the BMC tells none.
    pub identity: Option<[u8; 16]>,
    /// What was read.
    pub power: Power,
    /// Why it is off.
    pub off_cause: OffCause,
}

/// What one look at a BMC gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readings {
    /// The system's power.
    pub main: Reading,
    /// What else the BMC tells about it, where it does.
    pub beside: Option<Reading>,
}
