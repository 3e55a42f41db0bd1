//! Evidence: rules 1, 2, 3, 4, 9, 29 (linked) and 33.

use super::Answer;
use crate::assess::{BmcState, NetworkState, Probe};
use crate::command::LastLook;
use crate::decide::Case;
use crate::explain::Explanation;
use crate::rules::Rules;
use crate::signal::{BootStage, Power, Seen, Source};
use crate::time::{Elapsed, Millis, SECOND};
use crate::world::host::Link;
use crate::world::incident::{Diagnosis, Rung};
use crate::world::scope::DomainKind;

/// A network sample older than this backs no decision: probes leave each second or two.
const FRESH_MS: Millis = 10 * SECOND;

/// Rule 4: own sight.
pub(super) fn sight<R: Rules>(case: &Case<'_, R>) -> Answer {
    if !case.enforces(4) {
        return Ok(());
    }
    case.view.sight.check(&case.world.limits, &case.host.domains, case.now).map_err(|doubt| {
        Explanation::refusal(
            4,
            "blind",
            format!("own sight is in doubt ({doubt:?}); acting on nobody until it is good"),
        )
    })
}

/// Rule 29: the BMC must be proven to be this machine's.
pub(super) fn linked<R: Rules>(case: &Case<'_, R>) -> Answer {
    if case.enforces(29) && !case.linked() {
        return Err(Explanation::refusal(
            29,
            "not-linked",
            "the BMC is not shown to be this host's: observe-only until a drill, the agent or a matching identity links it",
        ));
    }
    match &case.site().power_freeze {
        Some(why) if case.enforces(29) => Err(Explanation::refusal(
            29,
            "power-frozen",
            format!("all power is frozen until a person lifts it: {}", why.sentence),
        )),
        _ => Ok(()),
    }
}

/// Rule 9: a node never seen healthy here is not failed.
pub(super) fn known_healthy<R: Rules>(case: &Case<'_, R>) -> Answer {
    if case.enforces(9) && !case.host.history.seen_healthy {
        return Err(Explanation::refusal(
            9,
            "never-healthy",
            "it was never seen healthy here: not a failure, but a host to be set up",
        ));
    }
    Ok(())
}

/// Rule 33: no power during an orderly reboot, POST or a firmware task; and time for a crash dump, if policy wants it.
pub(super) fn rebooting<R: Rules>(case: &Case<'_, R>) -> Answer {
    if !case.enforces(33) {
        return Ok(());
    }
    let seen = case.host.assessment;
    if let Some(until) = case.host.history.rebooting_until
        && case.now.elapsed < until
    {
        let left = until.since(case.now.elapsed) / SECOND;
        return Err(Explanation::refusal(
            33,
            "rebooting",
            format!("an orderly reboot is under way: it has {left} s left to come back"),
        ));
    }
    match seen.stage {
        BootStage::FirmwareTask => {
            return Err(Explanation::refusal(33, "firmware-task", "a firmware task runs: no power until it ends"));
        }
        BootStage::ShuttingDown | BootStage::Post if !stands_still(case, seen.stage) => {
            return Err(Explanation::refusal(
                33,
                "booting",
                "the BMC reports a shutdown or POST: no power until the boot budget ends",
            ));
        }
        BootStage::None | BootStage::ShuttingDown | BootStage::Post | BootStage::OsStarting | BootStage::OsRunning => {}
    }
    let dump_wait = case.pool().map_or(0, |p| p.crash_dump_wait_ms.min(10 * crate::time::MINUTE));
    let silent_for = case.view.evidence.silence().map_or(0, |(_, since)| case.since(since));
    if dump_wait > 0 && seen.network == NetworkState::Silent && silent_for < dump_wait {
        return Err(Explanation::refusal(33, "crash-dump", "policy leaves it time to write a crash dump"));
    }
    Ok(())
}

/// The boot progress has said this very stage for longer than a boot may take: it hangs there, or its BMC tells no more.
fn stands_still<R: Rules>(case: &Case<'_, R>, stage: BootStage) -> bool {
    let budget = case.host.history.boot_budget_ms(&case.world.limits);
    let told = case.view.evidence.slot(Source::BootProgress).latest();
    told.is_some_and(|run| run.seen == Seen::Stage(stage) && case.since(run.first) >= budget)
}

/// Rules 1 and 2: two planes say ill, by at least three samples each, the network plane meaning silent; or the longer
/// ways of a host that answers pings only, or lives but stays NotReady.
pub(super) fn planes<R: Rules>(case: &Case<'_, R>, rung: Rung) -> Answer {
    let network = network_plane(case, rung);
    let cluster = cluster_plane(case);
    // With rule 2 broken alone, one plane suffices; with rule 1 broken, two planes of any number of samples do.
    match (network, cluster) {
        (Ok(()), Ok(())) => Ok(()),
        (Ok(()), Err(_)) | (Err(_), Ok(())) if !case.enforces(2) => Ok(()),
        (Err(why), _) | (_, Err(why)) => Err(why),
    }
}

/// Whether two planes agree, for the incident's timing of *confirmed*.
#[must_use]
pub(crate) fn confirmed<R: Rules>(case: &Case<'_, R>) -> bool {
    network_plane(case, Rung::PowerCycle).is_ok() && cluster_plane(case).is_ok()
}

fn needed<R: Rules>(case: &Case<'_, R>) -> u64 {
    if case.enforces(1) { case.world.limits.samples_min } else { 1 }
}

fn network_plane<R: Rules>(case: &Case<'_, R>, rung: Rung) -> Answer {
    let limits = &case.world.limits;
    let evidence = &case.view.evidence;
    let after_freeze = case.cluster().and_then(|c| c.freeze_ended);
    let fresh = |source| {
        let last = evidence.slot(source).latest().map(|run| run.last);
        last.is_some_and(|at| case.since(at) <= FRESH_MS && after_freeze.is_none_or(|end| at > end))
    };
    match case.host.assessment.network {
        NetworkState::Silent => {
            if case.enforces(2) && lived_on(case) {
                return Err(Explanation::refusal(
                    2,
                    "path-lost",
                    "it renewed its Lease while it was silent to us: it is our path that is lost, the cluster plane alone does not suffice",
                ));
            }
            let enough = evidence.silence().is_some_and(|(count, _)| u64::from(count) >= needed(case));
            let current = [Source::Icmp, Source::KubeletPort, Source::SecondPort].into_iter().all(fresh);
            if enough && (current || !case.enforces(1)) {
                return Ok(());
            }
            Err(Explanation::refusal(1, "few-samples", "the network plane has too few fresh misses"))
        }
        NetworkState::KernelOnly => {
            let run = evidence.slot(Source::KubeletPort).while_seen(Seen::Miss);
            // The state outlives a stall that voided its samples; the minute counts from those taken since.
            let enough = run.is_some_and(|r| {
                u64::from(r.count) >= limits.kernel_only_samples && case.since(r.first) >= limits.kernel_only_ms
            });
            let lease_old = lease_silence_ms(case).is_some_and(|age| age >= limits.kernel_only_lease_ms)
                || (case.view.sight.api_unreachable(limits, case.now) && control_plane_dead(case));
            if !case.enforces(1)
                || (case.since(case.host.assessment.network_since) >= limits.kernel_only_ms
                    && enough
                    && lease_old
                    && fresh(Source::Icmp))
            {
                return Ok(());
            }
            Err(Explanation::refusal(
                1,
                "kernel-only",
                "it answers pings only: that must last 60 s, with a Lease as old",
            ))
        }
        NetworkState::ProcessDead | NetworkState::Alive => living(case, rung),
        NetworkState::Unknown => Err(Explanation::refusal(1, "no-samples", "the network plane knows nothing yet")),
    }
}

/// It renewed its Lease well after it fell silent: silence tells nothing about this host until it has answered again.
fn lived_on<R: Rules>(case: &Case<'_, R>) -> bool {
    let evidence = &case.view.evidence;
    let silent_since = evidence.silence().map(|(_, since)| since);
    let renewed = evidence.last_renewal();
    renewed.zip(silent_since).is_some_and(|(at, since)| at > since.plus(case.world.limits.silent_ms))
}

/// A living host: a soft reboot after ten minutes of NotReady, force-off only after that reboot's own deadline.
fn living<R: Rules>(case: &Case<'_, R>, rung: Rung) -> Answer {
    if !case.enforces(1) {
        return Ok(());
    }
    let limits = &case.world.limits;
    let Some(incident) = &case.incident else {
        return Err(Explanation::refusal(1, "alive", "it lives"));
    };
    if case.host.ready() && !broken_but_ready(incident.diagnosis) {
        return Err(Explanation::refusal(
            1,
            "ready",
            "it lives and is Ready: nothing stronger than a component restart",
        ));
    }
    let state_for = case.since(case.host.assessment.network_since.max(case.view.evidence.void_before));
    if state_for < limits.process_dead_ms {
        // A host that is just coming up looks the same.
        return Err(Explanation::refusal(
            1,
            "just-answering",
            format!(
                "it has answered for {} s only: not Ready must last ten minutes on a living host",
                state_for / SECOND
            ),
        ));
    }
    let ill_for = case.since(incident.opened_at);
    if ill_for < limits.process_dead_ms {
        let left = (limits.process_dead_ms - ill_for) / SECOND;
        return Err(Explanation::refusal(
            1,
            "alive-not-ready",
            format!("it lives but is not Ready: a reboot is considered in {left} s"),
        ));
    }
    if rung != Rung::SoftReboot && tried_soft(case) {
        return Ok(());
    }
    let cut_before = incident.timings.off_ordered.is_some();
    if rung != Rung::SoftReboot && !cut_before {
        // No soft reboot stands before this rung, since none would help: then a person says so.
        return super::approval(case, rung, 1, "approve-alive", "it lives: cutting its power needs approval");
    }
    Ok(())
}

fn broken_but_ready(diagnosis: Diagnosis) -> bool {
    matches!(diagnosis, Diagnosis::DiskOrOsBroken)
}

/// A soft reboot of this incident was tried and its deadline passed.
fn tried_soft<R: Rules>(case: &Case<'_, R>) -> bool {
    case.incident.as_ref().is_some_and(|i| i.soft_rebooted)
}

/// How long the Lease has been silent while the watch was proven live without a gap, or `None` while it is not.
#[must_use]
fn lease_silence_ms<R: Rules>(case: &Case<'_, R>) -> Option<Millis> {
    let since = lease_silent_since(case)?;
    Some(case.since(since))
}

fn lease_silent_since<R: Rules>(case: &Case<'_, R>) -> Option<Elapsed> {
    let live = case.view.sight.watch_live_since(&case.world.limits, case.now);
    let evidence = &case.view.evidence;
    let renewed = evidence.last_renewal().unwrap_or(evidence.void_before);
    match live {
        Some(live) => Some(renewed.max(live)),
        None if case.enforces(1) => None,
        None => Some(renewed),
    }
}

fn cluster_plane<R: Rules>(case: &Case<'_, R>) -> Answer {
    let limits = &case.world.limits;
    // An Off read by the BMC stands for the cluster plane of a host that somebody switched off.
    if case.host.assessment.power == Power::Off && case.host.assessment.network == NetworkState::Silent {
        return Ok(());
    }
    if case.view.sight.api_unreachable(limits, case.now) {
        // Its own API server and etcd speak for a host that is gone; on one whose kubelet answers they may be down for
        // want of the others, and it may hold the last good copy.
        let kubelet_answers = case.host.assessment.network == NetworkState::Alive;
        if control_plane_dead(case) && !(kubelet_answers && case.enforces(1)) {
            if case.enforces(2) && path_in_doubt(case) {
                return Err(Explanation::refusal(
                    2,
                    "path-in-doubt",
                    "the API is away and everything else on its network path is silent too: its own endpoints say nothing",
                ));
            }
            return Ok(());
        }
        return Err(Explanation::refusal(
            2,
            "no-cluster-plane",
            "the API is unreachable: the cluster plane says nothing about this host",
        ));
    }
    let silent = matches!(case.host.assessment.network, NetworkState::Silent | NetworkState::KernelOnly);
    if silent && case.enforces(2) && lease_silence_ms(case).is_some() && leases_late_everywhere(case) {
        // Late Leases of hosts that answer are the API's illness: they prove nothing about this one.
        // A control-plane host has its own /readyz and etcd to speak for it, beside its Lease.
        if !control_plane_dead(case) {
            return Err(Explanation::refusal(
                2,
                "leases-late",
                "many nodes that answer are late or not Ready, or the API's address is silent: that says nothing about one host",
            ));
        }
    }
    if matches!(case.host.assessment.network, NetworkState::Alive | NetworkState::ProcessDead) {
        let not_ready = !case.host.ready() || case.host.assessment.agent.is_some_and(|a| a.disk_broken);
        // What the Node said before the API was lost is not what it says now: time for a living kubelet to report.
        let live = case.view.sight.watch_live_since(limits, case.now);
        if case.enforces(2) && live.is_none_or(|since| case.since(since) < limits.lease_expired_ms) {
            return Err(Explanation::refusal(
                2,
                "node-state-old",
                "it lives, and what its Node said is from before our watch was proven live again",
            ));
        }
        return if not_ready { Ok(()) } else { Err(Explanation::refusal(2, "ready", "the cluster plane says Ready")) };
    }
    let late_samples = lease_silence_ms(case).map(|age| age.saturating_sub(limits.lease_late_ms) / SECOND);
    match late_samples {
        Some(samples) if samples >= needed(case) => Ok(()),
        Some(_) => Err(Explanation::refusal(
            2,
            "lease-not-late",
            "the cluster plane does not say ill: its Lease is not late yet",
        )),
        None => Err(Explanation::refusal(
            2,
            "watch-not-live",
            "the cluster plane says nothing: our watch is not proven live",
        )),
    }
}

/// Whether nothing that shares the way to this host answers: its rack, switch or chassis is silent as a whole. Its own
/// endpoints are then asked over the same lost way as its pings, and are no second plane.
fn path_in_doubt<R: Rules>(case: &Case<'_, R>) -> bool {
    if case.host.assessment.network != NetworkState::Silent {
        return false;
    }
    case.host.domains.iter().any(|id| {
        let way = case
            .domain(*id)
            .is_some_and(|d| matches!(d.kind, DomainKind::Rack | DomainKind::Switch | DomainKind::Chassis));
        let tally = case.world.tallies.domains.get(id);
        way && tally.is_some_and(|t| t.watched >= 2 && t.silent.len() as u64 >= u64::from(t.watched))
    })
}

/// Many hosts that answer the network have late Leases, or the address by which kubelets reach the API is silent.
fn leases_late_everywhere<R: Rules>(case: &Case<'_, R>) -> bool {
    if case.view.sight.cluster.as_ref().is_some_and(|c| c.api.vip_silent_since.is_some()) {
        return true;
    }
    let limits = &case.world.limits;
    let Some(tally) = case.cluster_id().and_then(|id| case.world.tallies.clusters.get(&id)) else { return false };
    let bad = u32::try_from(tally.bad.len()).unwrap_or(u32::MAX);
    let late = u64::from(tally.schedulable.saturating_sub(tally.ready).saturating_sub(bad));
    late >= limits.storm_min && late * 100 >= u64::from(tally.schedulable) * limits.storm_percent
}

/// With the API unreachable, a control-plane host's Lease is replaced by its own /readyz and etcd failing for 60 s.
fn control_plane_dead<R: Rules>(case: &Case<'_, R>) -> bool {
    if !case.host.control_plane() {
        return false;
    }
    let limits = &case.world.limits;
    let failing = |source: Source, state: Probe| {
        state == Probe::Failing
            && case.view.evidence.slot(source).latest().is_some_and(|run| {
                matches!(run.seen, Seen::Miss | Seen::Refused) && case.since(run.first) >= limits.control_plane_dead_ms
            })
    };
    let seen = case.host.assessment;
    // They count only while the way to the host is shown to be good: its BMC answers (safety terms, *planes*).
    if case.enforces(2) && seen.bmc != BmcState::Answers {
        return false;
    }
    let etcd_unseen = seen.etcd_member == Probe::Unknown;
    failing(Source::ApiServer, seen.api_server) && (etcd_unseen || failing(Source::EtcdMember, seen.etcd_member))
}

/// Rule 3: nobody whose Lease was renewed or whose boot changed lately.
pub(super) fn recent_life<R: Rules>(case: &Case<'_, R>, rung: Rung) -> Answer {
    if !case.enforces(3) {
        return Ok(());
    }
    let limits = &case.world.limits;
    let seen = case.host.assessment;
    let living = matches!(seen.network, NetworkState::Alive | NetworkState::ProcessDead);
    let patience = patience_ms(case);
    if let Some(boot) = case.host.history.boots.last()
        && case.since(*boot) < patience
    {
        return Err(Explanation::refusal(3, "just-booted", "its boot changed within the last 40 s"));
    }
    if living && rung == Rung::SoftReboot {
        // A living NotReady host may well renew its Lease; rule 1 has its own, longer clock for an orderly reboot.
        return Ok(());
    }
    if seen.power == Power::Off && seen.network == NetworkState::Silent {
        return Ok(());
    }
    if case.view.sight.api_unreachable(limits, case.now) && control_plane_dead(case) {
        return Ok(());
    }
    match case.view.evidence.last_renewal() {
        Some(at) if case.since(at) <= patience => {
            let left = (patience - case.since(at)) / SECOND;
            Err(Explanation::refusal(
                3,
                "lease-renewed",
                format!("its Lease was renewed {} s ago: {left} s more", case.since(at) / SECOND),
            ))
        }
        Some(_) => Ok(()),
        // Nothing was received since the evidence was voided: silence counts from there.
        None if case.since(case.view.evidence.void_before) > patience => Ok(()),
        None => Err(Explanation::refusal(
            3,
            "lease-unknown",
            "its Lease was not watched long enough since the evidence was voided",
        )),
    }
}

/// 40 s; or the host's own patience (22 to 60 s) when it was silent for 12 s and is linked.
fn patience_ms<R: Rules>(case: &Case<'_, R>) -> Millis {
    let limits = &case.world.limits;
    let silent = case.view.evidence.silence().is_some_and(|(_, since)| case.since(since) >= limits.silent_ms);
    let linked = case.host.link == Link::Linked;
    let own = case.host.history.patience_ms(limits, case.now);
    if silent && linked { own } else { limits.lease_expired_ms.max(own) }
}

/// Whether the last look still shows the illness (rule 1), and that the power may be touched (rule 33).
pub(crate) fn look_confirms<R: Rules>(case: &Case<'_, R>, look: &LastLook) -> Answer {
    if case.enforces(1) {
        let network = case.host.assessment.network;
        let living = matches!(network, NetworkState::Alive | NetworkState::ProcessDead);
        if look.icmp && network == NetworkState::Silent {
            return Err(Explanation::refusal(1, "answered", "it answered the last look: evidence is gathered anew"));
        }
        if look.tcp && !living {
            return Err(Explanation::refusal(
                1,
                "answered",
                "a port answered the last look: evidence is gathered anew",
            ));
        }
        if look.lease_renewed == Some(true) && !living {
            return Err(Explanation::refusal(1, "lease-renewed", "its Lease was renewed during the last look"));
        }
    }
    if case.enforces(7) && look.lease_renewed.is_none() && !case.host.control_plane() {
        return Err(Explanation::refusal(
            7,
            "api-silent",
            "the API did not answer the last look: nothing is done without it",
        ));
    }
    if let Some(node) = look.node {
        // What the API says now counts, if the watch has not told it yet. What it has told the gate has asked about already.
        let told = case.host.assessment.node.unwrap_or_default();
        let theirs = node.foreign_mark || (node.cordoned && case.host.our_cordon.is_none());
        if case.enforces(50) && theirs {
            return Err(Explanation::refusal(
                50,
                "foreign-mark",
                "the Node carries a cordon or a mark of somebody else now",
            ));
        }
        if case.enforces(33) && node.shutting_down && !told.shutting_down {
            return Err(Explanation::refusal(
                33,
                "shutting-down",
                "its Node says that it is shutting down: no power now",
            ));
        }
        if case.enforces(1) && case.host.assessment.node.is_some_and(|seen| seen.boot != node.boot) {
            return Err(Explanation::refusal(
                1,
                "booted",
                "its Node shows another boot now: evidence is gathered anew",
            ));
        }
    }
    let moves = matches!(look.stage, BootStage::ShuttingDown | BootStage::Post) && !stands_still(case, look.stage);
    if case.enforces(33) && (look.stage == BootStage::FirmwareTask || moves) {
        return Err(Explanation::refusal(
            33,
            "booting",
            "the BMC reports POST, a shutdown or a firmware task: no power now",
        ));
    }
    if look.power == Power::Transitioning {
        return Err(Explanation::refusal(30, "power-moving", "its power is changing by itself: read again first"));
    }
    Ok(())
}
