//! The plan: which rungs a diagnosis calls for, in order. A rung that cannot cure is not on the ladder: a reboot cures
//! no expired certificate, a reimage no dead power supply.

use crate::world::host::Host;
use crate::world::incident::{Diagnosis, Rung};
use crate::world::scope::{Consent, Pool};

/// The ladder of a diagnosis on a host, ending with a human.
#[must_use]
pub fn ladder(diagnosis: Diagnosis, host: &Host, pool: Option<&Pool>, pool_nodes: u32) -> Vec<Rung> {
    let mut rungs = wanted(diagnosis);
    let single = pool_nodes <= 1;
    if matches!(diagnosis, Diagnosis::HardwareFault(_)) && (host.control_plane() || single) {
        // It cannot be replaced here: one try with the power is all that is left.
        rungs.insert(0, Rung::PowerCycle);
    }
    let never = |consent: Option<Consent>| consent == Some(Consent::Never);
    // Single-node pools: component restart and power cycle only (rule 12).
    rungs.retain(|rung| match rung {
        Rung::SoftReboot => !never(pool.map(|p| p.soft_reboot)),
        Rung::Reimage => !never(pool.map(|p| p.reimage)) && !single,
        Rung::Replace => !host.control_plane() && !single,
        Rung::RestartComponent(_) | Rung::PowerCycle | Rung::Prove | Rung::Human => true,
    });
    rungs
}

fn wanted(diagnosis: Diagnosis) -> Vec<Rung> {
    use Rung::{Human, PowerCycle, Prove, Reimage, Replace, RestartComponent, SoftReboot};
    match diagnosis {
        Diagnosis::ComponentFailed(component, cause) => {
            if cause.restart_helps() {
                vec![RestartComponent(component), SoftReboot, PowerCycle, Human]
            } else {
                vec![Reimage, Human]
            }
        }
        // "One more cycle" stands on the ladder itself (design section 5).
        Diagnosis::HostHung
        | Diagnosis::KernelDead
        | Diagnosis::Rebooting
        | Diagnosis::DomainOutage(_)
        | Diagnosis::SiteStorm
        | Diagnosis::Blind
        | Diagnosis::ApiUnreachable
        | Diagnosis::VipLost
        | Diagnosis::BootFailed(crate::world::incident::BootFailure::Late) => {
            vec![PowerCycle, PowerCycle, Reimage, Replace, Human]
        }
        Diagnosis::PoweredOff => vec![PowerCycle, Reimage, Replace, Human],
        Diagnosis::BootFailed(_) | Diagnosis::DiskOrOsBroken => vec![Reimage, Replace, Human],
        // Fenced, released and left off; a spare takes the role if there is one.
        Diagnosis::HardwareFault(_) => vec![Replace, Human],
        Diagnosis::Flapping => vec![PowerCycle, Replace, Human],
        Diagnosis::CertificateExpiring
        | Diagnosis::NodeLostNetwork
        | Diagnosis::BmcUnreachable
        | Diagnosis::Unknown => vec![Human],
        Diagnosis::PlaceVacant => vec![Reimage, Human],
        Diagnosis::ProofDue => vec![Prove, Human],
        Diagnosis::DrillOrdered => vec![PowerCycle, Human],
    }
}
