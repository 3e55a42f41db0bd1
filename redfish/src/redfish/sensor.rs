//! Sensors of a chassis: the old Thermal and Power resources, which nearly all BMCs have, else the sensor collection.

use super::client::Redfish;
use super::error::RedfishError;
use super::walk::Walk;
use crate::health::{Sensor, SensorKind, Severity, tame};

/// Sensors read one by one at most.
const SENSORS_MAX: usize = 128;

impl Redfish {
    /// The sensors, read now.
    ///
    /// # Errors
    /// There is no chassis, or it cannot be read. A resource that is named and missing is left out.
    pub async fn sensors(&mut self) -> Result<Vec<Sensor>, RedfishError> {
        let address = self.address();
        let hint = "ask over IPMI";
        let places = self.places().await?;
        let missing = RedfishError::Missing { address, what: "chassis of the system", hint };
        let chassis = self.get(&places.chassis.ok_or(missing)?).await?;
        let mut found = Vec::new();
        for (name, lists) in [
            ("Thermal", [("Temperatures", SensorKind::Temperature), ("Fans", SensorKind::Fan)].as_slice()),
            ("Power", [("Voltages", SensorKind::Voltage), ("PowerControl", SensorKind::Power)].as_slice()),
        ] {
            let Some(link) = self.link_of(chassis.walk().get(name))? else { continue };
            match self.get(&link).await {
                Ok(resource) => {
                    for (list, kind) in lists {
                        found.extend(resource.walk().get(list).items().filter_map(|item| old(item, *kind)));
                    }
                    found.extend(resource.walk().get("PowerSupplies").items().filter_map(supply));
                }
                Err(RedfishError::Refused { .. }) => {}
                Err(why) => return Err(why),
            }
        }
        if found.is_empty()
            && let Some(collection) = self.link_of(chassis.walk().get("Sensors"))?
        {
            for link in self.members(&collection).await?.into_iter().take(SENSORS_MAX) {
                match self.get(&link).await {
                    Ok(resource) => found.extend(new(resource.walk())),
                    Err(RedfishError::Refused { .. }) => {}
                    Err(why) => return Err(why),
                }
            }
        }
        Ok(found)
    }
}

fn severity(walk: Walk<'_>) -> Severity {
    match walk.at(&["Status", "Health"]).text() {
        Some("Critical") => Severity::Critical,
        Some("Warning") => Severity::Warning,
        _ => Severity::Ok,
    }
}

fn present(walk: Walk<'_>) -> bool {
    walk.at(&["Status", "State"]).text() != Some("Absent")
}

fn old(walk: Walk<'_>, kind: SensorKind) -> Option<Sensor> {
    if !present(walk) {
        return None;
    }
    let name = walk.get("Name").text().or(walk.get("FanName").text()).or(walk.get("MemberId").text()).map(tame)?;
    let (value, unit) = match kind {
        SensorKind::Temperature => (walk.get("ReadingCelsius").number(), "C".to_owned()),
        SensorKind::Voltage => (walk.get("ReadingVolts").number(), "V".to_owned()),
        SensorKind::Power => (walk.get("PowerConsumedWatts").number(), "W".to_owned()),
        _ => {
            let percent = walk.get("ReadingUnits").text() == Some("Percent");
            (walk.get("Reading").number(), if percent { "%" } else { "RPM" }.to_owned())
        }
    };
    Some(Sensor { name, kind, value, unit, severity: severity(walk) })
}

/// A power supply: what it gives, and whether it is well.
fn supply(walk: Walk<'_>) -> Option<Sensor> {
    let name = walk.get("Name").text().or(walk.get("MemberId").text()).map(tame)?;
    let value = ["PowerOutputWatts", "LastPowerOutputWatts", "PowerInputWatts"]
        .iter()
        .find_map(|field| walk.get(field).number());
    present(walk).then(|| Sensor {
        name,
        kind: SensorKind::Power,
        value,
        unit: "W".to_owned(),
        severity: severity(walk),
    })
}

fn new(walk: Walk<'_>) -> Option<Sensor> {
    let name = walk.get("Name").text().map(tame)?;
    let kind = match walk.get("ReadingType").text() {
        Some("Temperature") => SensorKind::Temperature,
        Some("Voltage") => SensorKind::Voltage,
        Some("Current") => SensorKind::Current,
        Some("Rotational") => SensorKind::Fan,
        Some("Power") => SensorKind::Power,
        _ => SensorKind::Other,
    };
    let unit = match walk.get("ReadingUnits").text() {
        Some("Cel") => "C".to_owned(),
        Some(unit) => tame(unit),
        None => String::new(),
    };
    present(walk).then(|| Sensor { name, kind, value: walk.get("Reading").number(), unit, severity: severity(walk) })
}
