//! Correlated loss, seen at the host whose fact completes it: storms of a cluster (5b, 6), losses in a physical domain
//! (5a, 5c), and the identity alarm of a fence that hit the wrong machine (29). Each sets one field of a scope.

use crate::assess::NetworkState;
use crate::command::Loudness;
use crate::decide::Case;
use crate::explain::Explanation;
use crate::id::{DomainId, HostId};
use crate::rules::{Rule, Rules};
use crate::signal::Power;
use crate::time::{Elapsed, MINUTE, Now};
use crate::world::World;
use crate::world::incident::Phase;
use crate::world::scope::{Cluster, Correlated, DomainKind, Freeze};
use crate::world::tally::ClusterTally;

/// Others at work on the control plane. Both ends of another's cordon change the Node, which is a fact of its host: so they
/// come by here (rule 19).
fn foreign_planes<R: Rules>(case: &mut Case<'_, R>) {
    let Some(cluster) = case.view.sight.cluster.as_ref() else { return };
    let Some(at) = cluster.foreign_actions.iter().map(|action| action.at).max() else { return };
    let id = cluster.cluster;
    // Once a minute, not at every event while somebody works for hours.
    if at.since(case.site().foreign_planes.get(&id).copied().unwrap_or_default()) >= MINUTE {
        case.site_mut().foreign_planes.insert(id, at);
    }
}

/// Looks at the scopes of the host after its record was brought up to date.
pub(crate) fn watch<R: Rules>(case: &mut Case<'_, R>) {
    if !case.host.serves() {
        return;
    }
    foreign_planes(case);
    storm(case);
    let fell_silent =
        case.host.assessment.network == NetworkState::Silent && case.before.assessment.network != NetworkState::Silent;
    if fell_silent {
        foreign_silence(case);
    }
    for domain in case.host.domains.clone() {
        correlated(case, domain, fell_silent);
    }
}

/// The cluster's bad hosts with this one as it is now.
fn bad_now<R: Rules>(case: &Case<'_, R>, tally: &ClusterTally) -> u64 {
    let counted = tally.bad.contains(&case.host.id);
    tally.bad.len() as u64 + u64::from(case.host.bad() && !counted) - u64::from(!case.host.bad() && counted)
}

fn storm<R: Rules>(case: &mut Case<'_, R>) {
    let limits = &case.world.limits;
    let Some(cluster) = case.cluster() else { return };
    let Some(tally) = case.world.tallies.clusters.get(&cluster.id) else { return };
    let bad = bad_now(case, tally);
    let changed = case.host.bad() != tally.bad.contains(&case.host.id);
    let stormy = is_storm(limits, bad, u64::from(tally.nodes)) && !in_one_domain(case, bad);
    let now = case.now.elapsed;
    match (cluster.freeze, cluster.careful) {
        (None, careful) if stormy && (careful.is_none() || (changed && case.host.bad())) => {
            let sentence =
                format!("{bad} of {} nodes of {} are bad at once: the cluster is frozen", tally.nodes, cluster.name);
            if let Some(cluster) = case.cluster_mut() {
                cluster.freeze = Some(Freeze { since: now, below_since: None, set_changed_at: now });
                cluster.careful = None;
                cluster.freeze_ended = None;
            }
            case.tell(Loudness::Page, Explanation::refusal(5, "storm", sentence));
            // The site's timer looks after the thaw.
            case.out
                .wakeups
                .push(crate::command::Wakeup { target: crate::command::WakeTarget::Site, at: now.plus(5_000) });
        }
        (Some(freeze), _) => {
            let below = (!stormy).then(|| freeze.below_since.unwrap_or(now));
            let set_changed_at = if changed { now } else { freeze.set_changed_at };
            let next = Freeze { below_since: below, set_changed_at, ..freeze };
            if next != freeze
                && let Some(cluster) = case.cluster_mut()
            {
                cluster.freeze = Some(next);
            }
        }
        _ => {}
    }
}

fn is_storm(limits: &crate::policy::Limits, bad: u64, nodes: u64) -> bool {
    bad >= limits.storm_min && bad * 100 >= nodes * limits.storm_percent
}

/// Whether all bad hosts of the cluster stand in one physical domain: then it is that domain's matter (5a, 5c).
fn in_one_domain<R: Rules>(case: &Case<'_, R>, bad: u64) -> bool {
    let Some(cluster) = case.host.cluster else { return false };
    let Some(tally) = case.world.tallies.clusters.get(&cluster) else { return false };
    // If all are in one domain, then any one of them names it.
    let first =
        if case.host.bad() { Some(case.host.id) } else { tally.bad.iter().find(|h| **h != case.host.id).copied() };
    let Some(domains) = first.and_then(|id| {
        if id == case.host.id { Some(&case.host.domains) } else { case.world.host(id).map(|h| &h.domains) }
    }) else {
        return false;
    };
    let counted = tally.bad.contains(&case.host.id);
    domains.iter().any(|id| {
        let unlabelled = case.domain(*id).is_some_and(|d| d.kind == DomainKind::Unlabelled);
        let known = case.world.tallies.domains.get(id).and_then(|t| t.bad.get(&cluster)).copied().unwrap_or(0);
        let here = case.host.domains.contains(id);
        let own = i64::from(here && case.host.bad() && !counted) - i64::from(here && !case.host.bad() && counted);
        !unlabelled && i64::from(known) + own == i64::try_from(bad).unwrap_or(i64::MAX)
    })
}

/// Whether a cluster's freeze or care is over by time, and how it stands then (rule 6).
pub(crate) fn thaw<R: Rules>(
    rules: R,
    world: &World,
    cluster: &Cluster,
    good_sight: bool,
    now: Now,
) -> Option<Cluster> {
    let limits = &world.limits;
    let tally = world.tallies.clusters.get(&cluster.id);
    let bad = tally.map_or(0, |t| t.bad.len() as u64);
    let nodes = tally.map_or(0, |t| u64::from(t.nodes));
    let mut next = cluster.clone();
    if let Some(freeze) = cluster.freeze {
        // The counts are those of now: whether they fell below is seen here too, not only at a host's event.
        let stormy = is_storm(limits, bad, nodes);
        let below = (!stormy || freeze.below_since.is_some()).then(|| freeze.below_since.unwrap_or(now.elapsed));
        next.freeze = Some(Freeze { below_since: below, ..freeze });
        let cleared = below.is_some_and(|at| now.elapsed.since(at) >= limits.freeze_clear_ms);
        let stable = good_sight && now.elapsed.since(freeze.set_changed_at) >= limits.freeze_stable_ms;
        if cleared || stable || !rules.enforces(Rule(6)) {
            next.freeze = None;
            next.freeze_ended = Some(now.elapsed);
            next.released_hosts.clear();
            next.careful = (stable && !cleared).then_some(Correlated {
                since: freeze.since,
                not_before: now.elapsed,
                canary: None,
                failures: 0,
                serial: false,
                outage: false,
            });
        }
    } else if cluster.careful.is_some() && bad == 0 {
        next.careful = None;
        next.released_hosts.clear();
    }
    (next != *cluster).then_some(next)
}

/// Looks at one physical domain: a whole outage, a pair, or its end.
fn correlated<R: Rules>(case: &mut Case<'_, R>, id: DomainId, fell_silent: bool) {
    let limits = &case.world.limits;
    let Some(domain) = case.domain(id) else { return };
    let Some(tally) = case.world.tallies.domains.get(&id) else { return };
    let own = (case.host.assessment.network_since, case.host.id);
    let before = (case.before.assessment.network_since, case.host.id);
    let silent_now = case.host.assessment.network == NetworkState::Silent;
    // The other silent hosts by onset; this one is looked at as it is now.
    let others = || tally.silent.iter().filter(|s| **s != before && s.1 != case.host.id);
    let count = others().count() as u64 + u64::from(silent_now);
    if count == 0 {
        if domain.correlated.is_some()
            && let Some(domain) = case.domain_mut(id)
        {
            domain.correlated = None;
        }
        return;
    }
    if !silent_now || (!fell_silent && domain.correlated.is_some_and(|c| c.outage)) {
        return;
    }
    let watched = u64::from(tally.watched);
    let known = domain.correlated;
    let first = others().map(|s| s.0).chain([own.0]).min().unwrap_or(own.0);
    let last = others().map(|s| s.0).chain([own.0]).max().unwrap_or(own.0);
    let on = u64::from(tally.silent_on) + u64::from(case.host.assessment.power == Power::On && !was_counted_on(case));
    let whole = watched >= 2
        && count >= watched
        && last.since(first) <= limits.domain_window_ms
        && on >= count
        && domain.kind != DomainKind::Unlabelled;
    // The record of an earlier outage, kept alive by a host that never came back, says nothing about this one.
    if whole && known.is_none_or(|c| !c.outage || apart(c.since, first) > limits.domain_window_ms) {
        let sentence = format!("all {count} hosts of {} went silent within 10 s with their power on", domain.name);
        put(case, id, first, limits.domain_wait_ms, true);
        case.tell(Loudness::Page, Explanation::refusal(5, "domain-outage", sentence));
        return;
    }
    let near = || others().filter(|s| apart(s.0, own.0) <= limits.pair_window_ms);
    let close = 1 + near().count() as u64;
    // A loss that was taken care of before is another one: hosts that have been silent for long keep its record alive.
    let began = near().map(|s| s.0).chain([own.0]).min().unwrap_or(own.0);
    let waits = known.is_some_and(|c| c.outage && case.now.elapsed < c.not_before);
    let fresh = !waits && known.is_none_or(|c| apart(c.since, began) > limits.pair_window_ms);
    // A host may join a loss without falling silent now: a person returned it to service while it was silent.
    let many = (fell_silent || known.is_none()) && close >= 2 && close * 100 >= watched * limits.pair_percent;
    // The loss still grows: the time to look at it begins again, its canary stays.
    if many
        && !fresh
        && let Some(care) = known.filter(|c| !c.outage && case.now.elapsed < c.not_before)
    {
        let not_before = case.now.elapsed.plus(limits.pair_wait_ms);
        if let Some(domain) = case.domain_mut(id) {
            domain.correlated = Some(Correlated { not_before, ..care });
        }
        return;
    }
    if many && fresh {
        let sentence = format!("{close} hosts of {} went silent within 60 s: one canary is healed first", domain.name);
        put(case, id, began, limits.pair_wait_ms, false);
        case.tell(Loudness::Log, Explanation::refusal(5, "correlated", sentence));
    }
}

fn was_counted_on<R: Rules>(case: &Case<'_, R>) -> bool {
    case.before.assessment.network == NetworkState::Silent && case.before.assessment.power == Power::On
}

fn apart(a: Elapsed, b: Elapsed) -> u64 {
    a.since(b).max(b.since(a))
}

fn put<R: Rules>(case: &mut Case<'_, R>, id: DomainId, since: Elapsed, wait_ms: u64, outage: bool) {
    let not_before = case.now.elapsed.plus(wait_ms);
    if let Some(domain) = case.domain_mut(id) {
        domain.correlated = Some(Correlated { since, not_before, canary: None, failures: 0, serial: false, outage });
    }
}

/// Rule 29: another host fell silent within 15 s of our off. Our off may have hit it.
fn foreign_silence<R: Rules>(case: &mut Case<'_, R>) {
    if !case.enforces(29) {
        return;
    }
    let since = case.host.assessment.network_since;
    let window = case.world.limits.off_watch_ms;
    let own_incident = case.incident.as_ref().is_some_and(|i| i.timings.off_ordered.is_some());
    if own_incident {
        // It is silent because we switched it off ourselves.
        return;
    }
    let suspects: Vec<(HostId, crate::id::IncidentId)> = case
        .site()
        .watched_off
        .iter()
        .filter(|w| w.host != case.host.id && since >= w.at && since <= w.at.plus(window))
        .map(|w| (w.host, w.incident))
        .collect();
    for (host, incident) in suspects {
        let sentence = format!(
            "{} fell silent within 15 s of our switching host {} off: the BMC may be another machine's",
            case.host.name, host.0
        );
        raise_alarm(case, sentence);
        let now = case.now.elapsed;
        let mut cancel = None;
        if let Some(other) = case.other_incident_mut(incident) {
            cancel = other.running.as_ref().map(|r| r.step);
            other.executor_lost(now);
            other.phase = Phase::SafeCompletion;
            other.phase_since = now;
            other.alarmed = true;
        }
        case.out.cancels.extend(cancel);
        case.out.wakeups.push(crate::command::Wakeup { target: crate::command::WakeTarget::Host(host), at: now });
    }
}

/// An identity alarm: all power freezes, the breaker opens, a human is paged (rules 13, 29).
pub(crate) fn raise_alarm<R: Rules>(case: &mut Case<'_, R>, sentence: String) {
    let why = Explanation::refusal(29, "identity-alarm", sentence);
    if case.site().power_freeze.is_none() {
        let site = case.site_mut();
        site.power_freeze = Some(why.clone());
        site.breaker.get_or_insert_with(|| why.clone());
        // Others' offs that are decided and have not left do not leave any more.
        let at = case.now.elapsed;
        let running = case.world.incidents.values().filter(|incident| incident.running.is_some());
        let targets = running.map(|incident| crate::command::WakeTarget::Host(incident.host));
        case.out.wakeups.extend(targets.map(|target| crate::command::Wakeup { target, at }));
    }
    case.tell(Loudness::Page, why);
}
