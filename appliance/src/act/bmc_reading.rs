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
        contradicted: false,
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

/// What a BMC said of its system and of the chassis beside it, as one reading.
#[must_use]
pub fn bridge_both(readings: &bmc::Readings, began: Instant) -> Reading {
    let beside_on = readings.beside.as_ref().is_some_and(|beside| beside.power == bmc::Power::On);
    let main = bridge(&readings.main, began);
    Reading { contradicted: beside_on && main.power == Power::Off, ..main }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chassis_that_reads_on_contradicts_an_off_and_nothing_else() {
        let began = Instant::now();
        let reading = |source, power| bmc::Reading {
            at: began,
            source,
            identity: Some([7; 16]),
            power,
            off_cause: bmc::OffCause::Unknown,
        };
        let both = |main, beside: Option<bmc::Power>| {
            let beside = beside.map(|power| reading(bmc::Source::Chassis, power));
            bridge_both(&bmc::Readings { main: reading(bmc::Source::System, main), beside }, began)
        };
        assert!(both(bmc::Power::Off, Some(bmc::Power::On)).contradicted);
        for (main, beside) in [
            (bmc::Power::Off, None),
            (bmc::Power::Off, Some(bmc::Power::Off)),
            (bmc::Power::Off, Some(bmc::Power::Unknown)),
            (bmc::Power::On, Some(bmc::Power::On)),
        ] {
            assert!(!both(main, beside).contradicted, "{main:?} beside {beside:?}");
        }
    }
}
