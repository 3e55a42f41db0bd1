//! Correlated loss: rules 5, 6 and 7.

use super::Answer;
use crate::decide::Case;
use crate::explain::Explanation;
use crate::id::HostId;
use crate::rules::Rules;
use crate::time::SECOND;
use crate::world::incident::End;
use crate::world::scope::Correlated;

/// Rule 7: with the API unreachable worker rungs are suspended; control-plane rungs go by rules 18 to 22.
pub(super) fn api<R: Rules>(case: &Case<'_, R>) -> Answer {
    let away = case.view.sight.api_unreachable(&case.world.limits, case.now);
    if case.enforces(7) && away && !case.host.control_plane() {
        return Err(Explanation::refusal(
            7,
            "api-unreachable",
            "the API is unreachable: worker rungs are suspended until it answers",
        ));
    }
    Ok(())
}

/// Rules 5b and 6: a storm freezes the cluster; after it 120 s pass, and evidence is gathered wholly after.
pub(super) fn storm<R: Rules>(case: &Case<'_, R>) -> Answer {
    let Some(cluster) = case.cluster() else { return Ok(()) };
    let limits = &case.world.limits;
    // A person who named it knew of the freeze until then, not of one that came later.
    let began = cluster.freeze.map(|f| f.since).or(cluster.careful.map(|c| c.since));
    let named = cluster.released_hosts.contains(&case.host.id)
        && cluster.released_at.is_some_and(|at| began.is_none_or(|since| since <= at));
    if case.enforces(5) && cluster.freeze.is_some() && !named {
        return Err(Explanation::refusal(
            5,
            "storm",
            "too many nodes of the cluster are bad at once: frozen until that clears, stays the same for 15 min, or a person names hosts",
        ));
    }
    if case.enforces(6)
        && let Some(ended) = cluster.freeze_ended
        && case.since(ended) < limits.after_freeze_ms
        && !named
    {
        let left = (limits.after_freeze_ms - case.since(ended)) / SECOND;
        return Err(Explanation::refusal(
            6,
            "after-freeze",
            format!("a freeze has just ended: {left} s more, and evidence from after it"),
        ));
    }
    match &cluster.careful {
        Some(care) if case.enforces(6) && !named => careful(case, care, 6),
        _ => Ok(()),
    }
}

/// Rules 5a and 5c: a correlated loss in a physical domain.
pub(super) fn domains<R: Rules>(case: &Case<'_, R>) -> Answer {
    if !case.enforces(5) {
        return Ok(());
    }
    let named = case.cluster().filter(|c| c.released_hosts.contains(&case.host.id)).and_then(|c| c.released_at);
    for id in &case.host.domains {
        let Some(care) = case.domain(*id).and_then(|d| d.correlated) else { continue };
        // A person who named it knew of the losses until then, not of one that came later.
        if named.is_none_or(|at| care.since > at) {
            careful(case, &care, 5)?;
        }
    }
    Ok(())
}

/// One canary; came back = the rest one by one; failed = one second canary; two failed = ask.
fn careful<R: Rules>(case: &Case<'_, R>, care: &Correlated, rule: u8) -> Answer {
    if case.now.elapsed < care.not_before {
        let left = care.not_before.since(case.now.elapsed) / SECOND;
        let (code, what) =
            if care.outage { ("domain-outage", "its whole domain") } else { ("correlated", "several of its domain") };
        return Err(Explanation::refusal(
            rule,
            code,
            format!("{what} went silent together: no power for {left} s more"),
        ));
    }
    if care.serial || care.canary.is_none_or(|canary| canary == case.host.id) {
        if care.failures >= 2 && !care.serial && super::people::approved_any(case).is_none() {
            return Err(Explanation::refusal(
                rule,
                "canaries-failed",
                "two canaries of this loss did not come back: a person must approve",
            ));
        }
        return Ok(());
    }
    Err(Explanation::refusal(rule, "canary", "another host of the same loss is healed first, as the canary"))
}

/// Makes the host the canary of the losses that it is part of.
pub(crate) fn become_canary<R: Rules>(case: &mut Case<'_, R>) {
    let id = case.host.id;
    for domain in case.host.domains.clone() {
        if case.domain(domain).is_some_and(|d| d.correlated.is_some())
            && let Some(care) = case.domain_mut(domain).and_then(|d| d.correlated.as_mut())
        {
            care.canary.get_or_insert(id);
        }
    }
    if case.cluster().is_some_and(|c| c.careful.is_some())
        && let Some(care) = case.cluster_mut().and_then(|c| c.careful.as_mut())
    {
        care.canary.get_or_insert(id);
    }
}

/// Tells the losses that this host was the canary of how it ended.
pub(crate) fn care_ended<R: Rules>(case: &mut Case<'_, R>, end: End) {
    let id = case.host.id;
    let came_back = end == End::Healed;
    let aborted = end == End::Aborted;
    for domain in case.host.domains.clone() {
        if case.domain(domain).is_some_and(|d| d.correlated.is_some_and(|c| c.canary == Some(id)))
            && let Some(care) = case.domain_mut(domain).and_then(|d| d.correlated.as_mut())
        {
            settle(care, id, came_back, aborted);
        }
    }
    if case.cluster().is_some_and(|c| c.careful.is_some_and(|c| c.canary == Some(id)))
        && let Some(care) = case.cluster_mut().and_then(|c| c.careful.as_mut())
    {
        settle(care, id, came_back, aborted);
    }
}

fn settle(care: &mut Correlated, host: HostId, came_back: bool, aborted: bool) {
    if care.canary != Some(host) {
        return;
    }
    if came_back {
        care.serial = true;
    } else if !aborted && !care.serial {
        care.failures = care.failures.saturating_add(1);
    }
    care.canary = None;
}
