//! From evidence to the host's record: what it was, what it did, what others marked on it.

use crate::assess::NetworkState;
use crate::decide::Case;
use crate::diagnose::{ASKS_AGAIN_MS, BOOTED_BY_OTHERS_MS};
use crate::event::View;
use crate::rules::Rules;
use crate::signal::{BootStage, Power, Seen, Source};
use crate::time::{Elapsed, MINUTE, Millis};
use crate::world::host::{BootOrder, remember};
use crate::world::incident::Phase;

/// A silence that ended by itself within this is benign and remembered (rule 3).
const BENIGN_MAX_MS: Millis = MINUTE;

/// Puts what the evidence says now into the record of the host.
pub(crate) fn observe<R: Rules>(case: &mut Case<'_, R>) {
    let before = case.before.assessment;
    let now = case.now.elapsed;
    let fresh = case.view.evidence.assessment;
    case.host.assessment = fresh;

    if case.host.ready() {
        case.host.history.seen_healthy = true;
        case.host.history.declined = false;
    }
    asks(case);
    turns(case, before.network, before.network_since);
    boots(case);
    marks(case);
    if !case.before.bad() && case.host.bad() {
        let left = case.host.history.flap_points(&case.world.limits, case.now);
        let points = u32::try_from(left).unwrap_or(u32::MAX).saturating_add(1);
        case.host.history.flap = (points, now);
    }
}

/// When it fell silent before our eyes, and since when it asks the network for something to boot.
fn asks<R: Rules>(case: &mut Case<'_, R>) {
    let (before, seen) = (case.before.assessment, case.host.assessment);
    let site = &case.world.site;
    let looked_since = site.started_at.max(site.sight_good_since);
    if site.blind_since.is_some() || case.host.history.fell_silent.is_some_and(|at| at <= looked_since) {
        // While we did not look it may have asked.
        case.host.history.fell_silent = None;
    }
    let now = case.now.elapsed;
    let silent_now = before.answers() && !seen.answers();
    match (before.network, seen.network) {
        (NetworkState::Unknown, NetworkState::Silent) | (_, NetworkState::Unknown) => {
            case.host.history.fell_silent = None;
        }
        (NetworkState::Silent, _) | (_, NetworkState::Alive | NetworkState::KernelOnly | NetworkState::ProcessDead) => {
        }
        // Only of one that has answered ARP since we look: it is on a wire of ours, and its questions are heard.
        (_, NetworkState::Silent) if heard(case) => case.host.history.fell_silent = Some(seen.network_since),
        (_, NetworkState::Silent) => case.host.history.fell_silent = None,
    }
    // Some BMCs say POST for as long as the system runs: only one that began in this silence is one.
    let post = case.view.evidence.slot(Source::BootProgress).while_seen(Seen::Stage(BootStage::Post));
    let posts = post.zip(case.host.history.fell_silent).is_some_and(|(run, silent)| run.first > silent);
    let history = &mut case.host.history;
    if history.fell_silent.is_none() {
        history.firmware_ran = false;
    } else if matches!(seen.power, Power::Off) || posts {
        // A kernel that starts another one (kexec) asks nobody, whatever the firmware's order is.
        history.firmware_ran = true;
    }
    // What it asked before it was switched off is over, and so is it when a port is served. iPXE, which has an address while it
    // looks for something to boot, answers pings and refuses ports.
    let serves =
        seen.network == NetworkState::Alive && history.asked_since.is_some_and(|first| seen.network_since > first);
    // Whoever answered for minutes since his last question was booted by somebody, and falls silent for another reason.
    let long_ago = silent_now && seen.asked_to_boot.is_some_and(|last| now.since(last) >= ASKS_AGAIN_MS);
    if seen.power == Power::Off || serves || long_ago {
        history.asked_since = None;
    }
    let booted = case.incident.as_ref().and_then(|incident| incident.booted_at).unwrap_or(Elapsed(0));
    let fresh = seen.asked_to_boot.filter(|at| seen.asked_to_boot != before.asked_to_boot && *at > booted);
    if let Some(at) = fresh {
        let history = &mut case.host.history;
        let goes_on = before.asked_to_boot.is_some_and(|last| at.since(last) < ASKS_AGAIN_MS);
        history.asked_in_boot = true;
        if !goes_on || history.asked_since.is_none_or(|first| first <= booted) {
            history.asked_since = Some(at);
        }
    }
    // Nothing else may come of it: a machine that found nothing to boot stands still.
    if crate::diagnose::asks_to_boot(case)
        && let Some(first) = case.host.history.asked_since
    {
        let budget = case.host.history.boot_budget_ms(&case.world.limits);
        for at in [BOOTED_BY_OTHERS_MS, budget].map(|span| first.plus(span)) {
            if at > case.now.elapsed {
                case.wake_at(at);
            }
        }
    }
}

/// Whether it has answered ARP since we look: after a start, a stall or a blind time what it asked before is not known.
fn heard<R: Rules>(case: &Case<'_, R>) -> bool {
    let site = &case.world.site;
    let looked_since = site.started_at.max(site.sight_good_since);
    case.view.evidence.slot(Source::Arp).last_seen(Seen::Answer).is_some_and(|at| at > looked_since)
}

/// A host that has run for so long since its last boot is over whatever made it boot over and over.
const STAYED_MS: Millis = 10 * MINUTE;

/// Silences that ended by themselves, and orderly reboots (rules 3, 33).
fn turns<R: Rules>(case: &mut Case<'_, R>, network_before: NetworkState, since: Elapsed) {
    let limits = &case.world.limits;
    let now = case.now.elapsed;
    let fresh = case.host.assessment;
    // From our first power step until it is Ready again it boots by our doing. What it does after that is not ours.
    let ours = case.incident.as_ref().and_then(|i| i.reservation.as_ref()).is_some_and(|r| r.power_steps > 0);

    if network_before == NetworkState::Silent && fresh.answers() && !ours {
        let span = now.since(since);
        let boot_same = fresh.node.is_some_and(|n| Some(n.boot) == case.host.history.last_boot);
        if span <= BENIGN_MAX_MS && boot_same {
            remember(&mut case.host.history.benign_silences, (now, span), 8);
        }
    }
    if ours || !case.enforces(33) {
        return;
    }
    let budget = case.host.history.boot_budget_ms(limits);
    let until = now.plus(budget);
    // A mark, then silence within 120 s: the host said goodbye before it went.
    let goodbye = fresh.closed_mark.is_some_and(|mark| {
        fresh.network == NetworkState::Silent
            && fresh.network_since.plus(limits.mark_ms) >= mark
            && fresh.network_since <= mark.plus(limits.mark_ms)
    });
    let said = fresh.node.is_some_and(|n| n.shutting_down)
        || fresh.agent.is_some_and(|a| a.shutting_down)
        || matches!(fresh.stage, BootStage::ShuttingDown | BootStage::Post | BootStage::OsStarting);
    let ill = !case.host.ready();
    if crate::diagnose::nothing_to_boot(case) {
        case.host.history.rebooting_until = None;
        return;
    }
    // Its firmware speaks: it is on its way up, until it has had the time for that.
    let said = said || crate::diagnose::asks_to_boot(case);
    // A host that boots over and over is not *rebooting*: its clock would never end. But one that has stayed up for long since
    // its last boot and then says goodbye goes because somebody wants it to.
    let orderly = goodbye
        || fresh.node.is_some_and(|n| n.shutting_down)
        || fresh.agent.is_some_and(|a| a.shutting_down)
        || fresh.stage == BootStage::ShuttingDown;
    let ran_until = if fresh.network == NetworkState::Silent { fresh.network_since } else { now };
    let stayed = case.host.history.boots.last().is_none_or(|boot| ran_until.since(*boot) >= STAYED_MS);
    let by_itself = crate::diagnose::looping(case) && !(orderly && stayed);
    if (goodbye || said) && ill && !by_itself {
        // The clock starts with the first word of it and is not wound up again by the next.
        if case.host.history.rebooting_until.is_none() {
            case.host.history.rebooting_until = Some(until);
        }
    } else if case.host.ready() {
        case.host.history.rebooting_until = None;
    }
}

/// Boots by the node's own boot ID (rules 3, 9, 42).
fn boots<R: Rules>(case: &mut Case<'_, R>) {
    let Some(node) = case.host.assessment.node else { return };
    let seen = case.before.assessment.node.map(|n| n.boot);
    let now = case.now.elapsed;
    // The first boot after a power-on of ours is our doing, not a symptom (rule 9).
    let booted_at = case.incident.as_ref().and_then(|i| i.booted_at);
    let ours = booted_at.is_some_and(|at| case.host.history.boots.last().is_none_or(|last| *last < at));
    let ordered = ours && case.incident.as_ref().is_some_and(|i| i.boot_before.is_some() && i.boot_before == seen);
    if seen.is_some_and(|boot| boot != node.boot) && !ordered {
        remember(&mut case.host.history.boots, now, 8);
    }
    if case.host.ready() && case.host.history.last_boot != Some(node.boot) {
        // Only the first boot after a power-on of ours tells how long a boot takes; a host that restarts again and again
        // would teach an ever longer one.
        let first = case.incident.as_ref().is_some_and(|i| i.boot_before == case.host.history.last_boot);
        if let Some(booted) = booted_at.filter(|_| first) {
            // A slow upper mark: the longest of what was seen, falling by a tenth at each shorter boot.
            let took = now.since(booted);
            let learned = case.host.history.boot_p99_ms.unwrap_or(0);
            case.host.history.boot_p99_ms = Some(took.max(learned - learned / 10));
        }
        boot_order(case);
        case.host.history.last_boot = Some(node.boot);
    }
    // A Node shows Ready for 40 s after its host has gone, and iPXE answers meanwhile.
    let serves = case.host.assessment.network == NetworkState::Alive && case.host.history.asked_since.is_none();
    if case.host.ready() && serves {
        case.host.history.asked_in_boot = false;
        case.host.history.fell_silent = None;
        case.host.history.firmware_ran = false;
    }
}

/// What a boot that just led to Ready shows of the firmware's order. One that our ticket answered shows nothing, nor does one
/// of which the firmware was not seen to run.
fn boot_order<R: Rules>(case: &mut Case<'_, R>) {
    let installed = case.incident.as_ref().is_some_and(|i| i.job.is_some() || i.installed);
    let history = &mut case.host.history;
    let asked = history.asked_in_boot;
    match history.boot_order {
        _ if asked && !installed => history.boot_order = BootOrder::NetworkFirst,
        // Its BMC may have kept the order to ask the network: whatever is known of it is not sure any more.
        BootOrder::DiskFirst if asked => history.boot_order = BootOrder::Unknown,
        BootOrder::Unknown | BootOrder::NetworkFirst if !asked && !installed && history.firmware_ran => {
            history.boot_order = BootOrder::DiskFirst;
        }
        _ => {}
    }
}

/// Others' marks (rule 50). While our own cordon is on, only their explicit mark tells them from us.
fn marks<R: Rules>(case: &mut Case<'_, R>) {
    let Some(node) = case.host.assessment.node else { return };
    let theirs = node.foreign_mark || (node.cordoned && case.host.our_cordon.is_none() && !cordoning(case));
    let since = case.host.marks.foreign_since;
    case.host.marks.foreign_since = if theirs { since.or(Some(case.now.elapsed)) } else { None };
}

fn cordoning<R: Rules>(case: &Case<'_, R>) -> bool {
    // Our own cordon shows on the Node before its step has reported, and stays a moment after it was removed.
    case.incident
        .as_ref()
        .is_some_and(|i| matches!(i.phase, Phase::Cordoning | Phase::Returning | Phase::Withdrawing | Phase::LastLook))
}

/// Since when the BMC has given no reading.
#[must_use]
pub(crate) fn bmc_silent_since(view: &View) -> Option<Elapsed> {
    let run = view.evidence.slot(Source::Power).latest()?;
    matches!(run.seen, Seen::Trouble(_)).then_some(run.first)
}
