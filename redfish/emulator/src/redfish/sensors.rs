//! What the machine is like and what of it broke: temperatures, fans, voltages, supplies.

use super::tree::{Paths, collection};
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

/// The collection of sensors (DSP0268, Sensor), or one of it: the same values by the newer way.
pub(super) fn collected(machine: &Machine, paths: &Paths, path: &str) -> Option<Value> {
    let (thermal, power) = (thermal(machine, ""), power(machine, ""));
    let (cpu, fan, volts) = (&thermal["Temperatures"][0], &thermal["Fans"][0], &power["Voltages"][0]);
    let sensors = [
        ("CPU1Temp", "Temperature", "Cel", &cpu["ReadingCelsius"], cpu),
        ("FAN1", "Rotational", "RPM", &fan["Reading"], fan),
        ("12V", "Voltage", "V", &volts["ReadingVolts"], volts),
    ];
    let rest = path.strip_prefix(&paths.chassis)?.strip_prefix("/Sensors")?;
    if rest.is_empty() {
        return Some(collection(path, &sensors.map(|(id, ..)| format!("{path}/{id}"))));
    }
    let (id, kind, unit, value, old) = sensors.into_iter().find(|(id, ..)| rest.strip_prefix('/') == Some(id))?;
    Some(json!({ "@odata.id": path, "@odata.type": "#Sensor.v1_7_0.Sensor", "Id": id, "Name": old["Name"],
        "ReadingType": kind, "ReadingUnits": unit, "Reading": value, "Status": old["Status"] }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::emulator::Setup;
    use crate::model::by_name;

    #[test]
    fn the_collection_says_what_the_old_resources_say() {
        let setup = Setup::of(by_name("openbmc").unwrap());
        let paths = Paths::of(&setup.model);
        let machine = Machine::new(setup.spec, 1);
        let all = format!("{}/Sensors", paths.chassis);
        let members = collected(&machine, &paths, &all).unwrap()["Members"].as_array().unwrap().clone();
        assert_eq!(members.len(), 3);
        let read = |machine: &Machine, member: &Value| {
            collected(machine, &paths, member["@odata.id"].as_str().unwrap()).unwrap()["Reading"].clone()
        };
        assert_eq!(
            members.iter().map(|member| read(&machine, member)).collect::<Vec<_>>(),
            [48.into(), 7_200.into(), 12.06.into()] as [Value; 3]
        );
        let off = machine.switched_off();
        assert_eq!(read(&off, &members[1]), Value::from(0));
        assert_eq!(collected(&off, &paths, &format!("{all}/none")), None);
        assert_eq!(collected(&off, &paths, &paths.chassis), None);
    }
}
