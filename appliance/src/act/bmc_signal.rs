//! The one bridge from what a BMC said to the signals of the out-of-band plane. Beside [`super::bmc_reading`], which
//! bridges to the fence: evidence and proof are never the same object.

use bmc::boot::BootStage as Told;
use bmc::controller::Kind;
use bmc::discipline::Hold;
use bmc::health::{Sensor, SensorKind, Severity};
use bmc::station::Skipped;
use healing::signal::{BmcTrouble, BootStage, HardwareFault, OffCause, Power, Seen};

/// Power as the system itself tells it; the chassis beside it is the fence's witness.
#[must_use]
pub fn power(reading: &bmc::Reading) -> Seen {
    let power = match reading.power {
        bmc::Power::On => Power::On,
        bmc::Power::Off => Power::Off,
        bmc::Power::Transitioning => Power::Transitioning,
        bmc::Power::Unknown => Power::Unknown,
    };
    let cause = match reading.off_cause {
        bmc::OffCause::AcLoss => OffCause::AcLoss,
        bmc::OffCause::Fault => OffCause::Fault,
        bmc::OffCause::Unknown => OffCause::Unknown,
    };
    Seen::Power(power, cause)
}

/// Why there is no reading. `None` when the BMC was not asked at all: that says nothing of it.
#[must_use]
pub fn trouble(why: &Skipped) -> Option<Seen> {
    let trouble = match why {
        Skipped::Fence | Skipped::Hold(Hold::Until(_)) => return None,
        // It is not asked because it refused: that still stands.
        Skipped::Hold(Hold::Credential(_)) => BmcTrouble::Refused,
        Skipped::Failed(why) => match why.kind {
            Kind::Credential => BmcTrouble::Refused,
            Kind::Busy(_) | Kind::Refused | Kind::NotOffered => BmcTrouble::Busy,
            Kind::Unreachable | Kind::Unknown | Kind::Pin | Kind::Hostile => BmcTrouble::Silent,
        },
    };
    Some(Seen::Trouble(trouble))
}

/// How far the boot has come.
#[must_use]
pub fn stage(told: Told) -> Seen {
    Seen::Stage(match told {
        Told::Post | Told::Setup => BootStage::Post,
        Told::OsLoading => BootStage::OsStarting,
        Told::OsRunning => BootStage::OsRunning,
        Told::Unknown => BootStage::None,
    })
}

/// What is broken by the sensors of a host that is on; when it is off, still fans and missing volts are no fault.
#[must_use]
pub fn hardware(sensors: &[Sensor]) -> Seen {
    let critical = sensors.iter().filter(|sensor| sensor.severity == Severity::Critical);
    Seen::Health(critical.map(fault).min())
}

fn fault(sensor: &Sensor) -> HardwareFault {
    let name = sensor.name.to_ascii_lowercase();
    let named = |words: &[&str]| words.iter().any(|word| name.contains(word));
    if named(&["psu", "ps1", "ps2", "power supply", "pwr supply"]) {
        return HardwareFault::PowerSupply;
    }
    match sensor.kind {
        SensorKind::Temperature | SensorKind::Fan => HardwareFault::Thermal,
        _ if named(&["dimm", "mem"]) => HardwareFault::Memory,
        _ if named(&["cpu", "proc"]) => HardwareFault::Processor,
        _ if named(&["drive", "disk", "hdd", "ssd", "nvme"]) => HardwareFault::Disk,
        SensorKind::Voltage | SensorKind::Current | SensorKind::Power | SensorKind::Discrete | SensorKind::Other => {
            HardwareFault::Other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bmc::BmcError;
    use std::time::Instant;

    #[test]
    fn who_was_not_asked_is_in_no_trouble_and_who_refuses_says_so() {
        let failed = |kind| Skipped::Failed(BmcError::new(kind, "why"));
        assert_eq!(trouble(&Skipped::Fence), None);
        assert_eq!(trouble(&Skipped::Hold(Hold::Until(Instant::now()))), None);
        assert_eq!(trouble(&Skipped::Hold(Hold::Credential(None))), Some(Seen::Trouble(BmcTrouble::Refused)));
        assert_eq!(trouble(&failed(Kind::Credential)), Some(Seen::Trouble(BmcTrouble::Refused)));
        assert_eq!(trouble(&failed(Kind::Unreachable)), Some(Seen::Trouble(BmcTrouble::Silent)));
        assert_eq!(trouble(&failed(Kind::Busy(None))), Some(Seen::Trouble(BmcTrouble::Busy)));
    }

    #[test]
    fn a_critical_sensor_names_what_is_broken_and_a_warning_does_not() {
        let sensor = |name: &str, kind, severity| Sensor {
            name: name.to_owned(),
            kind,
            value: None,
            unit: String::new(),
            severity,
        };
        let warm = sensor("Inlet Temp", SensorKind::Temperature, Severity::Warning);
        assert_eq!(hardware(std::slice::from_ref(&warm)), Seen::Health(None));
        let supply = sensor("PSU1 Status", SensorKind::Discrete, Severity::Critical);
        assert_eq!(hardware(&[warm, supply]), Seen::Health(Some(HardwareFault::PowerSupply)));
        let memory = sensor("DIMM A1", SensorKind::Discrete, Severity::Critical);
        assert_eq!(hardware(&[memory]), Seen::Health(Some(HardwareFault::Memory)));
    }
}
