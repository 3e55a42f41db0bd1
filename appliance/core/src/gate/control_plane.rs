//! Control plane and etcd: rules 18, 19, 21, 22.

use super::{Answer, Moment, approval};
use crate::assess::{NetworkState, Probe};
use crate::decide::Case;
use crate::explain::Explanation;
use crate::rules::Rules;
use crate::sight::EtcdReport;
use crate::signal::{OffCause, Power, Seen, Source};
use crate::time::Elapsed;
use crate::world::host::{Host, within};
use crate::world::incident::Rung;

/// Voters now and after the step.
struct Voters {
    all: usize,
    healthy: usize,
    own_healthy_or_unknown: bool,
}

impl Voters {
    fn quorum(&self) -> usize {
        self.all / 2 + 1
    }
}

/// Rules 18, 21 and 22: what a step on a control-plane host may do to the quorum.
pub(super) fn quorum<R: Rules>(case: &Case<'_, R>, rung: Rung) -> Answer {
    if !case.host.control_plane() {
        return Ok(());
    }
    let planes = case.cluster_id().and_then(|c| case.world.tallies.clusters.get(&c)).map_or(0, |t| t.control_planes);
    let access = case.cluster().is_some_and(|c| c.etcd_access);
    if access && planes <= 2 && rung == Rung::Reimage {
        // No majority of two is left without one of them: rule 18 cannot weigh this, a person must.
        return if case.enforces(21) {
            approval(
                case,
                rung,
                21,
                "small-control-plane",
                "a control plane of one or two is reimaged by approval only",
            )
        } else {
            Ok(())
        };
    }
    if !case.cluster().is_some_and(|c| c.etcd_access) {
        return without_etcd(case, rung, planes);
    }
    if !case.enforces(18) {
        return Ok(());
    }
    let report = case.view.sight.cluster.as_ref().and_then(|c| c.etcd.as_ref());
    let fresh = report.filter(|r| case.since(r.read_at) <= case.world.limits.etcd_age_ms);
    let silent = case.host.assessment.network == NetworkState::Silent;
    let down = member_down(case);
    let voters = fresh.map(|r| voters(case, r));

    if rung == Rung::PowerCycle && silent && down {
        // It lowers nothing. A plane of one or two has nobody else to ask; three and more must still have their quorum.
        if planes <= 2 {
            return small_plane(case);
        }
        if voters.is_some_and(|v| v.healthy >= v.quorum()) {
            return Ok(());
        }
        return approval(
            case,
            rung,
            18,
            "quorum-lost",
            "the etcd quorum is lost or unread: power on control-plane hosts by approval only",
        );
    }
    let Some(voters) = voters else {
        return Err(Explanation::refusal(18, "etcd-unread", "the etcd members were not read within 10 s"));
    };
    let after = voters.healthy.saturating_sub(usize::from(voters.own_healthy_or_unknown && !down));
    if after < voters.quorum() {
        return Err(Explanation::refusal(
            18,
            "quorum",
            format!("{after} healthy voters would stay, {} are needed", voters.quorum()),
        ));
    }
    Ok(())
}

fn voters<R: Rules>(case: &Case<'_, R>, report: &EtcdReport) -> Voters {
    let voting = report.members.iter().filter(|m| !m.learner);
    let own = report.members.iter().find(|m| m.host == Some(case.host.id));
    Voters {
        all: voting.clone().count(),
        healthy: voting.filter(|m| m.healthy).count(),
        own_healthy_or_unknown: own.is_none_or(|m| m.healthy && !m.learner),
    }
}

/// The member on this host has failed directly for 60 s.
fn member_down<R: Rules>(case: &Case<'_, R>) -> bool {
    case.host.assessment.etcd_member == Probe::Failing
        && case.view.evidence.slot(Source::EtcdMember).latest().is_some_and(|run| {
            matches!(run.seen, Seen::Miss | Seen::Refused) && case.since(run.first) >= case.world.limits.member_down_ms
        })
}

/// A control plane of one or two: three minutes of good sight with the BMC reading On.
fn small_plane<R: Rules>(case: &Case<'_, R>) -> Answer {
    let limits = &case.world.limits;
    let site = case.site();
    let good_for = if site.blind_since.is_some() { 0 } else { case.since(site.sight_good_since) };
    let ill_for = case.incident.as_ref().map_or(0, |i| case.since(i.opened_at));
    if case.host.assessment.power != Power::On && case.host.assessment.power != Power::Off {
        return Err(Explanation::refusal(
            18,
            "power-unknown",
            "its BMC does not read On: a small control plane is not touched on a guess",
        ));
    }
    if good_for.min(ill_for) < limits.small_plane_ms {
        return Err(Explanation::refusal(
            18,
            "small-plane-wait",
            "a control plane of one or two is touched after 3 min of good sight",
        ));
    }
    Ok(())
}

/// Rule 22: without etcd access the ladder ends at the power cycle, and only while the others stand.
fn without_etcd<R: Rules>(case: &Case<'_, R>, rung: Rung, planes: u32) -> Answer {
    if !case.enforces(22) {
        return Ok(());
    }
    if rung.destructive() || rung == Rung::Replace {
        return Err(Explanation::refusal(
            22,
            "no-etcd-access",
            "without etcd access a control-plane host is power-cycled at most",
        ));
    }
    let tally = case.cluster_id().and_then(|c| case.world.tallies.clusters.get(&c));
    let others_ready = tally.is_some_and(|t| t.control_planes_ready + 1 >= planes && !case.host.ready());
    let other_lives = planes == 1 || other_plane_lives(case);
    if planes <= 2 {
        if other_lives {
            return small_plane(case);
        }
    } else if others_ready {
        return Ok(());
    }
    approval(
        case,
        rung,
        22,
        "others-not-ready",
        "without etcd access it waits until every other control-plane host is Ready, or for approval",
    )
}

/// The other host of a two-node control plane shows life: its /readyz or its kernel.
fn other_plane_lives<R: Rules>(case: &Case<'_, R>) -> bool {
    let Some(tally) = case.cluster_id().and_then(|c| case.world.tallies.clusters.get(&c)) else { return false };
    let mut others = tally.control_plane_hosts.iter().filter(|id| **id != case.host.id);
    others
        .any(|id| case.world.host(*id).is_some_and(|h| h.assessment.api_server == Probe::Ok || h.assessment.answers()))
}

/// Rule 19: one control-plane action at a time, others' included.
pub(super) fn exclusive<R: Rules>(case: &Case<'_, R>, moment: Moment) -> Answer {
    if !case.host.control_plane() || !case.enforces(19) {
        return Ok(());
    }
    let own = u32::from(case.incident.as_ref().is_some_and(|i| i.reservation.is_some()));
    let open =
        case.cluster_id().and_then(|c| case.world.tallies.clusters.get(&c)).map_or(0, |t| t.control_plane_permits);
    if open > own || (moment == Moment::Entering && open > 0 && own == 0) {
        return Err(Explanation::refusal(
            19,
            "control-plane-busy",
            "another control-plane host of the cluster is being healed",
        ));
    }
    let limits = &case.world.limits;
    let foreign = case.view.sight.cluster.as_ref().map_or(&[][..], |c| &c.foreign_actions);
    let kept = case.cluster_id().and_then(|id| case.site().foreign_planes.get(&id));
    let lately = |at: Elapsed| case.since(at) < limits.foreign_action_ms;
    if kept.is_some_and(|at| lately(*at)) || foreign.iter().any(|action| lately(action.at)) {
        return Err(Explanation::refusal(19, "control-plane-foreign", "somebody else is working on the control plane"));
    }
    if in_others_hands(case) {
        return Err(Explanation::refusal(
            19,
            "control-plane-foreign",
            "another control-plane host is cordoned, or its power was changed within 30 min, and not by us",
        ));
    }
    Ok(())
}

/// Another control-plane host of the cluster is in others' hands by what its record says. That outlives a restart; what
/// the cluster's watchers remember does not. What others did to this host itself is a matter of rules 31, 33 and 50.
fn in_others_hands<R: Rules>(case: &Case<'_, R>) -> bool {
    let Some(tally) = case.cluster_id().and_then(|c| case.world.tallies.clusters.get(&c)) else { return false };
    let others = tally.control_plane_hosts.iter().filter(|id| **id != case.host.id);
    let mut known = others.filter_map(|id| case.world.host(*id));
    known.any(|other| cordoned_by_others(other) || booted_by_others(case, other) || switched_off_by_others(case, other))
}

/// As its Node was last seen: until the API has answered after a start, that is all there is to know.
fn cordoned_by_others(other: &Host) -> bool {
    let cordoned = other.assessment.node.is_some_and(|node| node.cordoned) && other.our_cordon.is_none();
    // In the moment in which our own cordon goes, only the mark tells whose it is.
    cordoned && other.marks.foreign_since.is_some()
}

/// It runs another boot, and no power step of ours explains it. Boots over and over are no work of others (rule 9).
fn booted_by_others<R: Rules>(case: &Case<'_, R>, other: &Host) -> bool {
    let limits = &case.world.limits;
    let history = &other.history;
    if within(&history.boots, limits.boot_loop_window_ms, case.now) >= limits.boot_loop_count {
        return false;
    }
    let budget = history.boot_budget_ms(limits);
    let explained = |boot: Elapsed| {
        let mut steps = history.cycles.iter().chain(&history.reimages);
        steps.any(|step| *step <= boot && boot.since(*step) < budget)
    };
    let mut recent = history.boots.iter().filter(|boot| case.since(**boot) < limits.foreign_action_ms);
    recent.any(|boot| !explained(*boot))
}

/// It went silent and reads Off, and we do not hold it off. A lost feed or a fault is nobody's work.
fn switched_off_by_others<R: Rules>(case: &Case<'_, R>, other: &Host) -> bool {
    let seen = other.assessment;
    let off = seen.power == Power::Off && seen.network == NetworkState::Silent;
    let incident = other.incident.and_then(|id| case.world.incident(id));
    let ours = other.held_off.is_some() || incident.is_some_and(|i| i.reservation.is_some());
    let by_itself = matches!(seen.off_cause, OffCause::AcLoss | OffCause::Fault);
    off && !ours && !by_itself && case.since(seen.network_since) < case.world.limits.foreign_action_ms
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::assess::{Assessment, LeaseState};
    use crate::event::{Change, View};
    use crate::evidence::Evidence;
    use crate::id::{ClusterId, HostId, IncidentId, MachineId, PoolId};
    use crate::policy::{Policy, Site};
    use crate::rules::Enforced;
    use crate::sight::OwnSight;
    use crate::signal::NodeReport;
    use crate::time::{MINUTE, Now};
    use crate::world::World;
    use crate::world::host::{History, Lifecycle, Link, Marks, Role};

    const NOW: Now = Now { elapsed: Elapsed(120 * MINUTE), wall_ms: 0 };

    /// A host that is well.
    pub(in crate::gate) fn host(id: u32, role: Role) -> Host {
        let node = Some(NodeReport { ready: Some(true), ..NodeReport::default() });
        let (network, lease) = (NetworkState::Alive, LeaseState::Fresh);
        Host {
            id: HostId(id),
            name: format!("n{id}"),
            cluster: Some(ClusterId(1)),
            pool: PoolId(1),
            role,
            domains: Vec::new(),
            versions: Vec::new(),
            storage: None,
            machine: MachineId(0x1234),
            link: Link::Linked,
            outlets: false,
            disk: None,
            lifecycle: Lifecycle::InService,
            marks: Marks::default(),
            spare_proof: None,
            drill: None,
            assessment: Assessment { network, lease, node, ..Assessment::default() },
            history: History::default(),
            incident: None,
            our_cordon: None,
            our_taint: None,
            held_off: None,
        }
    }

    fn plane(id: u32) -> Host {
        host(id, Role::ControlPlane)
    }

    fn ago(minutes: u64) -> Elapsed {
        NOW.elapsed.minus(minutes * MINUTE)
    }

    fn with_history(id: u32, boots: &[u64], cycles: &[u64]) -> Host {
        let mut host = plane(id);
        host.history.boots = boots.iter().map(|minutes| ago(*minutes)).collect();
        host.history.cycles = cycles.iter().map(|minutes| ago(*minutes)).collect();
        host
    }

    /// Whether somebody else's work forbids to touch the one beside the other.
    fn foreign(target: Host, other: Host) -> bool {
        let mut world = World::new(&Policy::<Site>::default());
        let id = target.id;
        for known in [target, other] {
            world.apply(&Change::Host(Box::new(known)));
        }
        let view = View { evidence: Evidence::default(), sight: OwnSight::default() };
        let case = Case::open(Enforced, &world, id, &view, NOW).unwrap();
        match exclusive(&case, Moment::Entering) {
            Ok(()) => false,
            Err(why) => {
                assert_eq!(why.code, "control-plane-foreign");
                true
            }
        }
    }

    #[test]
    fn a_boot_that_no_power_step_of_ours_explains_counts_for_half_an_hour() {
        let booted = |boots: &[u64], cycles: &[u64]| foreign(plane(1), with_history(2, boots, cycles));
        assert!(!booted(&[], &[10]));
        assert!(booted(&[20], &[]));
        assert!(!booted(&[31], &[]));
        assert!(!booted(&[20], &[24]), "we cycled it");
        assert!(booted(&[20], &[10]), "before we cycled it");
        assert!(booted(&[5], &[24]), "long after we cycled it");
        assert!(!booted(&[25, 15, 5], &[]), "over and over, by itself");
    }

    #[test]
    fn what_happens_to_itself_or_to_a_worker_is_no_work_on_the_others() {
        assert!(!foreign(with_history(1, &[20], &[]), plane(2)));
        assert!(!foreign(plane(1), Host { role: Role::Worker, ..with_history(2, &[20], &[]) }));
        assert!(!foreign(plane(1), Host { cluster: Some(ClusterId(2)), ..with_history(2, &[20], &[]) }));
    }

    #[test]
    fn one_that_somebody_switched_off_counts_for_half_an_hour() {
        let off = |cause: OffCause, minutes: u64, held: Option<IncidentId>| {
            let mut other = Host { held_off: held, ..plane(2) };
            other.assessment.power = Power::Off;
            other.assessment.off_cause = cause;
            other.assessment.network = NetworkState::Silent;
            other.assessment.network_since = ago(minutes);
            foreign(plane(1), other)
        };
        assert!(off(OffCause::Command, 5, None));
        assert!(off(OffCause::Unknown, 29, None));
        assert!(!off(OffCause::Command, 31, None));
        assert!(!off(OffCause::AcLoss, 5, None));
        assert!(!off(OffCause::Command, 5, Some(IncidentId(7))), "we hold it off");
    }

    #[test]
    fn a_cordon_of_others_counts_before_the_api_has_answered_again() {
        let mut cordoned = plane(2);
        cordoned.assessment.node = Some(NodeReport { cordoned: true, ready: Some(true), ..NodeReport::default() });
        assert!(!foreign(plane(1), cordoned.clone()), "ours, which is just being removed");
        cordoned.marks.foreign_since = Some(ago(90));
        assert!(foreign(plane(1), cordoned.clone()));
        assert!(!foreign(plane(1), Host { our_cordon: Some(IncidentId(7)), ..cordoned }));
    }
}
