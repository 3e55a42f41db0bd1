//! Power: what it reads, and the few commands. A command that was accepted says nothing; who wants to know reads.

use super::client::Redfish;
use super::error::RedfishError;
use super::link::Link;
use super::walk::Walk;
use crate::controller::Guard;
use crate::power::PowerCommand;
use crate::reading::{OffCause, Power, Reading, Readings, Source};
use serde_json::json;
use std::time::Instant;

/// Messages that mean that this type of reset does not exist here.
const NO_SUCH_TYPE: [&str; 5] = [
    "ActionNotSupported",
    "ActionParameterNotSupported",
    "ActionParameterValueNotInList",
    "ActionParameterValueFormatError",
    "PropertyValueNotInList",
];

/// Reads a power state. Only the exact words count: whatever else is said is *unknown*, never *off*.
pub(super) fn power(word: Option<&str>) -> Power {
    match word {
        Some("On") => Power::On,
        Some("Off") => Power::Off,
        Some("PoweringOn" | "PoweringOff" | "Paused") => Power::Transitioning,
        _ => Power::Unknown,
    }
}

/// The types of reset for a command, the preferred first. None of them toggles and none restarts: a restart shows nobody
/// the off between.
fn types(command: PowerCommand) -> &'static [&'static str] {
    match command {
        PowerCommand::On => &["On", "ForceOn"],
        PowerCommand::Off => &["ForceOff"],
        PowerCommand::GracefulOff => &["GracefulShutdown"],
        PowerCommand::Interrupt => &["Nmi"],
    }
}

impl Redfish {
    /// The power now: of the system, and of its chassis beside it.
    ///
    /// # Errors
    /// It cannot be read. That is not *off*.
    pub async fn readings(&mut self) -> Result<Readings, RedfishError> {
        let places = self.places().await?;
        let system = self.get(&places.system).await?;
        let at = Instant::now();
        let walk = system.walk();
        let identity = walk.get("UUID").text().and_then(super::system::uuid);
        let word = power(walk.get("PowerState").text());
        let off_cause = match walk.get("LastPowerLossReason").text().or(walk.get("PowerOffReason").text()) {
            Some("ACLoss" | "PowerLoss") => OffCause::AcLoss,
            Some("PowerFault" | "Overload") => OffCause::Fault,
            _ => OffCause::Unknown,
        };
        let main = Reading { at, source: Source::System, identity, power: word, off_cause };
        let unrelated = self.quirks.chassis_unrelated || self.facts.chassis_unrelated;
        // Asked only where it matters: an *off* that the chassis contradicts.
        let beside = match places.chassis.filter(|_| main.power == Power::Off && !unrelated) {
            Some(chassis) => self.chassis(&chassis, identity).await,
            None => None,
        };
        Ok(Readings { main, beside })
    }

    /// The chassis as a witness against: one that tells no power is none.
    async fn chassis(&mut self, chassis: &Link, identity: Option<[u8; 16]>) -> Option<Reading> {
        let resource = self.get(chassis).await.ok()?;
        let walk = resource.walk();
        // More than one system in it: an enclosure.
        if walk.at(&["Links", "ComputerSystems"]).items().count() > 1 {
            return None;
        }
        let word = walk.get("PowerState").text()?;
        let (at, source) = (Instant::now(), Source::Chassis);
        Some(Reading { at, source, identity, power: power(Some(word)), off_cause: OffCause::Unknown })
    }

    /// Sends a power command, once, in the first form that this BMC does not refuse as unknown. The guard is asked
    /// right before it leaves, after all that is read for it.
    ///
    /// # Errors
    /// The guard withheld it, it was refused, or its answer was lost. In the last two cases the power is to be read
    /// before anything else is concluded: an off of what is off already is refused by many.
    pub async fn power(&mut self, command: PowerCommand, guard: Guard<'_>) -> Result<(), RedfishError> {
        let (link, system) = self.system().await?;
        let action = system.walk().at(&["Actions", "#ComputerSystem.Reset"]);
        let target = match action.get("target").text() {
            Some(text) => self.link(text)?,
            None => link.under("Actions/ComputerSystem.Reset").map_err(|_| self.no_reset("it names no action"))?,
        };
        let offered = self.offered(action).await?;
        let mut last = None;
        for reset in types(command) {
            let listed = offered.is_empty() || offered.iter().any(|offer| offer == reset);
            if !listed || self.facts.reset_refused.contains(*reset) {
                continue;
            }
            match self.post_and_read(&target, &json!({ "ResetType": reset }), guard).await {
                Ok(_) => return Ok(()),
                Err(why @ RedfishError::Refused { .. }) => {
                    // Off and On stay allowed: a refusal may have been of the moment.
                    if !unknown_type(&why) {
                        return Err(why);
                    }
                    if !matches!(command, PowerCommand::Off | PowerCommand::On) {
                        self.facts.reset_refused.insert((*reset).to_owned());
                    }
                    last = Some(why);
                }
                Err(why) => return Err(why),
            }
        }
        let names = if offered.is_empty() { "nothing".to_owned() } else { offered.join(", ") };
        Err(last.unwrap_or_else(|| RedfishError::NotOffered {
            address: self.address(),
            what: format!("do {}", types(command).join(" or ")),
            reason: format!("it offers {names}"),
        }))
    }

    fn no_reset(&self, reason: &str) -> RedfishError {
        let (address, what) = (self.address(), "reset the system".to_owned());
        RedfishError::NotOffered { address, what, reason: reason.to_owned() }
    }

    /// The reset types that are offered: beside the action, or behind its action information; empty if not told.
    pub(super) async fn offered(&mut self, action: Walk<'_>) -> Result<Vec<String>, RedfishError> {
        let beside: Vec<String> =
            action.get("ResetType@Redfish.AllowableValues").texts().map(crate::health::tame).collect();
        if !beside.is_empty() {
            return Ok(beside);
        }
        let Some(text) = action.get("@Redfish.ActionInfo").text() else { return Ok(Vec::new()) };
        let link = self.link(text)?;
        let info = match self.get(&link).await {
            Ok(info) => info,
            Err(RedfishError::Refused { .. } | RedfishError::Unreadable { .. }) => return Ok(Vec::new()),
            Err(why) => return Err(why),
        };
        let parameters = info.walk().get("Parameters");
        let of_reset = parameters.items().find(|parameter| parameter.get("Name").text() == Some("ResetType"));
        Ok(of_reset.map(|p| p.get("AllowableValues").texts().map(crate::health::tame).collect()).unwrap_or_default())
    }

    /// Restarts the BMC itself. Sent once; its answer is often lost.
    ///
    /// # Errors
    /// It was refused, or its answer was lost.
    pub async fn reset_bmc(&mut self) -> Result<(), RedfishError> {
        let address = self.address();
        let hint = "restart it in its own pages";
        let manager = self.places().await?.manager.ok_or(RedfishError::Missing { address, what: "manager", hint })?;
        let resource = self.get(&manager).await?;
        let action = resource.walk().at(&["Actions", "#Manager.Reset"]);
        let missing = RedfishError::Missing { address, what: "reset of its manager", hint };
        let target = self.link(action.get("target").text().ok_or(missing)?)?;
        let offered = self.offered(action).await?;
        let preferred = ["GracefulRestart", "ForceRestart"];
        let word = preferred.into_iter().find(|word| offered.iter().any(|offer| offer == word));
        let body = match (word, offered.is_empty()) {
            (Some(word), _) => json!({ "ResetType": word }),
            (None, true) => json!({ "ResetType": "ForceRestart" }),
            (None, false) => json!({}),
        };
        self.post(&target, &body).await.map(drop)
    }
}

fn unknown_type(why: &RedfishError) -> bool {
    match why {
        RedfishError::Refused { status: 405 | 501, .. } => true,
        RedfishError::Refused { messages, .. } => messages.any(&NO_SUCH_TYPE),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_word_is_off() {
        assert_eq!(power(Some("Off")), Power::Off);
        for other in ["off", "OFF", " Off", "Off ", "SoftOff", "PowerOff", "Standby", "", "null"] {
            assert_eq!(power(Some(other)), Power::Unknown, "{other}");
        }
        assert_eq!(power(Some("PoweringOff")), Power::Transitioning);
        assert_eq!(power(None), Power::Unknown);
    }

    #[test]
    fn nothing_that_toggles_or_restarts_is_ever_sent() {
        use PowerCommand::{GracefulOff, Interrupt, Off, On};
        for command in [On, Off, GracefulOff, Interrupt] {
            for word in types(command) {
                assert!(!word.contains("Push") && !word.contains("Restart") && !word.contains("Cycle"), "{word}");
            }
        }
        assert_eq!(types(Off), ["ForceOff"]);
    }
}
