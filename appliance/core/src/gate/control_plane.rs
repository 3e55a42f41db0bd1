//! Control plane and etcd: rules 18, 19, 21, 22.

use super::{Answer, Moment, approval};
use crate::assess::{NetworkState, Probe};
use crate::decide::Case;
use crate::explain::Explanation;
use crate::rules::Rules;
use crate::sight::EtcdReport;
use crate::signal::{Power, Seen, Source};
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
    if foreign.iter().any(|a| case.since(a.at) < limits.foreign_action_ms) {
        return Err(Explanation::refusal(19, "control-plane-foreign", "somebody else is working on the control plane"));
    }
    Ok(())
}
