//! The permit: the only ticket to a disruptive step, made by the budget alone.

use crate::id::{HostId, IncidentId};
use crate::rules::{Enforced, Rules};
use crate::world::incident::{Incident, Rung};

/// The right to one disruptive step under an open reservation. Not `Clone`, not `Deserialize`; after a restart it is
/// earned again from the incident's own open reservation, which counts once.
#[derive(Debug)]
pub struct Permit<R: Rules = Enforced> {
    host: HostId,
    incident: IncidentId,
    rung: Rung,
    rules: R,
}

impl<R: Rules> Permit<R> {
    /// Earns a permit from the open reservation of an incident; `None` if it has none.
    pub(crate) fn from_reservation(rules: R, incident: &Incident) -> Option<Permit<R>> {
        let reservation = incident.reservation.as_ref()?;
        Some(Permit { host: incident.host, incident: incident.id, rung: reservation.rung, rules })
    }

    /// A permit for tests of the step machines.
    #[cfg(test)]
    pub(crate) fn for_test(
        host: HostId,
        incident: IncidentId,
        reservation: &crate::world::incident::Reservation,
        rules: R,
    ) -> Permit<R> {
        Permit { host, incident, rung: reservation.rung, rules }
    }

    /// The host it is for.
    #[must_use]
    pub fn host(&self) -> HostId {
        self.host
    }

    /// The incident it is for.
    #[must_use]
    pub fn incident(&self) -> IncidentId {
        self.incident
    }

    /// The rung it is for.
    #[must_use]
    pub fn rung(&self) -> Rung {
        self.rung
    }

    /// The rules under which it was made.
    #[must_use]
    pub fn rules(&self) -> R {
        self.rules
    }
}
