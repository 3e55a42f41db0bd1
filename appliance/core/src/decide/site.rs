//! Events about the appliance itself: start, stall, store, lease, own sight.

use crate::command::{Loudness, Notice, Outcome, WakeTarget, Wakeup};
use crate::event::Change;
use crate::explain::Explanation;
use crate::rules::{Rule, Rules};
use crate::sight::OwnSight;
use crate::time::{Elapsed, Now, SECOND};
use crate::world::World;
use crate::world::incident::Incident;
use crate::world::scope::{ObserveOnly, Site};

/// How often the site is looked at while anything of it waits for time alone.
const SITE_RETRY_MS: u64 = 5 * SECOND;

fn put<R: Rules>(world: &World, site: Site, now: Now, say: Option<(Loudness, Explanation)>) -> Outcome<R> {
    let mut out = Outcome::default();
    if site != world.site {
        out.changes.push(Change::Site(Box::new(site)));
    }
    if let Some((loudness, explanation)) = say {
        out.notices.push(Notice { host: None, incident: None, loudness, explanation, at: now });
    }
    out
}

/// What is known of the state at a start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    /// A restored backup.
    pub(super) restored: bool,
    /// The journal could not be read whole.
    pub(super) corrupt: bool,
    /// `--observe-only`.
    pub(super) observe_only: bool,
}

/// The appliance started. Every open step is re-observed first: nothing is taken as running (rules 44, 45).
pub(super) fn started<R: Rules>(
    rules: R,
    world: &World,
    start: Start,
    lease_until: Elapsed,
    epoch: u64,
    now: Now,
) -> Outcome<R> {
    let until = now.elapsed.plus(world.limits.start_observe_ms);
    let mut site = world.site.clone();
    site.started_at = now.elapsed;
    site.last_event = now.elapsed;
    site.sight_good_since = now.elapsed;
    site.lease.epoch = epoch;
    site.lease.until = lease_until;
    // What a person or a failed store ordered outlives a restart; the rest is earned anew.
    site.observe_only = Some(match site.observe_only {
        _ if start.corrupt && rules.enforces(Rule(17)) => ObserveOnly::Corrupt,
        _ if start.restored => ObserveOnly::Restored,
        _ if start.observe_only => ObserveOnly::Ordered,
        Some(why) if why.until_a_person_says() => why,
        _ => site.behind_standby.unwrap_or(ObserveOnly::Starting { until }),
    });
    site.behind_standby = None;
    let sentence = format!(
        "started under epoch {epoch}: observing for {} s, {} open incidents are looked at afresh",
        world.limits.start_observe_ms / SECOND,
        world.incidents.len()
    );
    let mut out = put(world, site, now, Some((Loudness::Log, Explanation::refusal(45, "started", sentence))));
    for incident in world.incidents.values() {
        let mut reopened = incident.clone();
        reopened.executor_lost(now.elapsed);
        reopened.ready_since = None;
        if reopened != *incident {
            out.changes.push(Change::Incident(Box::new(reopened)));
        }
        out.wakeups.push(Wakeup { target: WakeTarget::Host(incident.host), at: now.elapsed.plus(SECOND) });
    }
    // Timers do not outlive a process: a spare that only waits for its next proof is asked when that is (rule 43).
    for spare in &world.tallies.spares {
        out.wakeups.push(Wakeup { target: WakeTarget::Host(*spare), at: until.plus(SECOND) });
    }
    out.wakeups.push(Wakeup { target: WakeTarget::Site, at: until });
    out
}

/// Something did not run, or a clock stepped: evidence is void, and the world is observed as after a start (rule 47).
pub(super) fn stalled<R: Rules>(rules: R, world: &World, stalled_ms: u64, now: Now) -> Outcome<R> {
    if !rules.enforces(Rule(47)) {
        return Outcome::default();
    }
    let until = now.elapsed.plus(world.limits.start_observe_ms);
    let mut site = world.site.clone();
    site.sight_good_since = now.elapsed;
    site.observe_only = match site.observe_only {
        None | Some(ObserveOnly::Starting { .. } | ObserveOnly::Void { .. }) => Some(ObserveOnly::Void { until }),
        other => other,
    };
    let sentence =
        format!("did not run for {} ms: all evidence is void, observing until it is gathered anew", stalled_ms);
    let mut out = put(world, site, now, Some((Loudness::Log, Explanation::refusal(47, "stalled", sentence))));
    for incident in world.incidents.values() {
        if incident.ready_since.is_some() {
            // Whether it was Ready without a gap is no longer known: the soak begins again.
            out.changes.push(Change::Incident(Box::new(Incident { ready_since: None, ..incident.clone() })));
        }
        // A look taken before the stall must not lead to a command after it.
        out.wakeups.push(Wakeup { target: WakeTarget::Host(incident.host), at: now.elapsed.plus(SECOND) });
    }
    out.wakeups.push(Wakeup { target: WakeTarget::Site, at: until });
    out
}

/// The store failed or came back (rule 48).
pub(super) fn store<R: Rules>(rules: R, world: &World, healthy: bool, now: Now) -> Outcome<R> {
    let until = now.elapsed.plus(world.limits.start_observe_ms);
    let mut site = world.site.clone();
    let say = if healthy {
        if site.observe_only == Some(ObserveOnly::Store) {
            site.observe_only = Some(ObserveOnly::Starting { until });
        }
        (Loudness::Log, Explanation::refusal(48, "store-back", "the store works again: observing before acting"))
    } else {
        // What waits for a person goes on waiting for him.
        if rules.enforces(Rule(48)) && !site.observe_only.is_some_and(ObserveOnly::until_a_person_says) {
            site.observe_only = Some(ObserveOnly::Store);
        }
        (
            Loudness::Page,
            Explanation::refusal(
                48,
                "store-failed",
                "the store cannot be written: observe-only, hosts that we hold off are switched on; free space or replace the disk",
            ),
        )
    };
    let mut out = put(world, site, now, Some(say));
    for incident in world.incidents.values() {
        out.wakeups.push(Wakeup { target: WakeTarget::Host(incident.host), at: now.elapsed });
    }
    out.wakeups.push(Wakeup { target: WakeTarget::Site, at: until });
    out
}

/// The appliance lease was renewed, taken or lost (rule 46).
pub(super) fn lease<R: Rules>(world: &World, until: Elapsed, epoch: u64, now: Now) -> Outcome<R> {
    let mut site = world.site.clone();
    let lost = until <= now.elapsed;
    site.lease.until = until;
    site.lease.epoch = epoch.max(site.lease.epoch);
    let mut say = None;
    if lost && site.observe_only.is_none_or(|why| why != ObserveOnly::Standby) {
        site.behind_standby = site.observe_only.filter(|why| why.until_a_person_says());
        site.observe_only = Some(ObserveOnly::Standby);
        say = Some((
            Loudness::Page,
            Explanation::refusal(
                46,
                "standby",
                "the appliance lease is lost: another one may own the site, nothing is touched",
            ),
        ));
    }
    let returns = !lost && site.observe_only == Some(ObserveOnly::Standby);
    if returns {
        let starting = ObserveOnly::Starting { until: now.elapsed.plus(world.limits.start_observe_ms) };
        site.observe_only = Some(site.behind_standby.take().unwrap_or(starting));
    }
    let mut out = put(world, site, now, say);
    // A plain renewal must not push the site's timer away: only one is kept.
    if returns {
        out.wakeups.push(Wakeup { target: WakeTarget::Site, at: now.elapsed.plus(world.limits.start_observe_ms) });
    }
    out
}

/// Own sight changed, or the site's timer came: ends observations whose time is over, and freezes that cleared.
pub(super) fn sight<R: Rules>(rules: R, world: &World, sight: &OwnSight, now: Now) -> Outcome<R> {
    let mut site = world.site.clone();
    site.last_event = now.elapsed;
    let mut say = None;
    match sight.check(&world.limits, &[], now) {
        Ok(()) => {
            if site.blind_since.take().is_some() {
                site.sight_good_since = now.elapsed;
            }
        }
        Err(doubt) => {
            if site.blind_since.is_none() {
                site.blind_since = Some(now.elapsed);
                let sentence = format!("own sight is in doubt ({doubt:?}): nobody is acted on until it is good again");
                say = Some((Loudness::Page, Explanation::refusal(4, "blind", sentence)));
            }
        }
    }
    let mut next = None;
    if let Some(ObserveOnly::Starting { until } | ObserveOnly::Void { until }) = site.observe_only {
        if now.elapsed >= until || !rules.enforces(Rule(45)) {
            site.observe_only = None;
        } else {
            next = Some(until);
        }
    }
    site.watched_off.retain(|w| now.elapsed.since(w.at) < 4 * world.limits.off_watch_ms);
    if site.cold_start.as_ref().is_some_and(|c| c.expires.passed(now)) {
        site.cold_start = None;
    }
    let mut out = put(world, site, now, say);
    for cluster in world.clusters.values() {
        if cluster.freeze.is_some() || cluster.careful.is_some() {
            next = Some(next.unwrap_or(now.elapsed.plus(SITE_RETRY_MS)));
            let good = world.site.blind_since.is_none();
            if let Some(changed) = crate::scope_watch::thaw(rules, world, cluster, good, now) {
                out.changes.push(Change::Cluster(Box::new(changed)));
            }
        }
    }
    if let Some(at) = next {
        out.wakeups.push(Wakeup { target: WakeTarget::Site, at });
    }
    out
}
