//! The one bridge from what a BMC said to what the fence judges.

use healing::fence::{Reading, ReadingSource};
use healing::id::MachineId;
use healing::signal::{OffCause, Power};
use healing::time::Elapsed;
use std::time::Instant;

/// A reading, its moment counted from `began`.
#[must_use]
pub fn bridge(reading: &bmc::Reading, began: Instant) -> Reading {
    let since = reading.at.saturating_duration_since(began).as_millis();
    Reading {
        at: Elapsed(u64::try_from(since).unwrap_or(u64::MAX)),
        source: match reading.source {
            bmc::Source::System => ReadingSource::Bmc,
            bmc::Source::Chassis => ReadingSource::SecondProtocol,
            bmc::Source::Outlet => ReadingSource::Outlets,
        },
        identity: reading.identity.map(|guid| MachineId(u128::from_be_bytes(guid))),
        power: match reading.power {
            bmc::Power::On => Power::On,
            bmc::Power::Off => Power::Off,
            bmc::Power::Transitioning => Power::Transitioning,
            bmc::Power::Unknown => Power::Unknown,
        },
        off_cause: match reading.off_cause {
            bmc::OffCause::AcLoss => OffCause::AcLoss,
            bmc::OffCause::Fault => OffCause::Fault,
            bmc::OffCause::Unknown => OffCause::Unknown,
        },
    }
}
