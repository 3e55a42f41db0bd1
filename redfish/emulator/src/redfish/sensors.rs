//! What the machine is like and what of it broke: temperatures, fans, voltages, supplies.

use machine::{HardwareKind, Machine, Power};
use serde_json::{Value, json};

fn status(fails: bool) -> Value {
    json!({ "State": "Enabled", "Health": if fails { "Critical" } else { "OK" } })
}

/// The `Thermal` of a chassis.
pub(super) fn thermal(machine: &Machine, path: &str) -> Value {
    let off = machine.power() == Power::Off;
    let hot = machine.hardware() == Some(HardwareKind::Thermal) && !off;
    let celsius = match (hot, off) {
        (true, _) => 97,
        (false, true) => 24,
        (false, false) => 48,
    };
    let fan = if off { 0 } else { 7_200 };
    json!({ "@odata.id": path,
        "Temperatures": [
            { "Name": "CPU1 Temp", "ReadingCelsius": celsius, "UpperThresholdCritical": 95, "Status": status(hot) },
            { "Name": "CPU2 Temp", "ReadingCelsius": null, "Status": { "State": "Absent" } },
        ],
        "Fans": [{ "Name": "FAN1", "Reading": fan, "ReadingUnits": "RPM", "Status": status(false) }] })
}

/// The `Power` of a chassis.
pub(super) fn power(machine: &Machine, path: &str) -> Value {
    let watts = machine.watts();
    let failed = machine.hardware() == Some(HardwareKind::PowerSupply);
    // Without a feed, or behind a dead supply, there is no voltage at all.
    let volts = if watts == 0 { 0.0 } else { 12.06 };
    json!({ "@odata.id": path,
        "PowerControl": [{ "Name": "System Power Control", "PowerConsumedWatts": watts }],
        "Voltages": [{ "Name": "12V", "ReadingVolts": volts, "Status": status(false) }],
        "PowerSupplies": [{ "Name": "PS1", "LastPowerOutputWatts": watts, "LineInputVoltage": if machine.fed() { 230 } else { 0 },
            "Status": status(failed) }] })
}
