//! Diagnosis: what the evidence of one host, its scopes and our own sight say is wrong. Named as in design section 4.

use crate::assess::{BmcState, LeaseState, NetworkState, Probe};
use crate::decide::Case;
use crate::observe::bmc_silent_since;
use crate::rules::Rules;
use crate::signal::{Component, ComponentCause, HardwareFault, Power, Seen, Source};
use crate::time::{Elapsed, MINUTE, Millis, SECOND};
use crate::world::host::{BootOrder, within};
use crate::world::incident::{BootFailure, Diagnosis, Phase};

/// Whom somebody else boots from the network, by hand or with a tool of his own, answers within this of his question, and is
/// left alone.
pub(crate) const BOOTED_BY_OTHERS_MS: Millis = 90 * SECOND;

/// Firmware that goes on asking does so more often than this; a question after a longer pause is one of another boot.
pub(crate) const ASKS_AGAIN_MS: Millis = 5 * MINUTE;

/// A host that has just come back was asked for its API server and etcd member again within this.
const COMPONENT_PROBE_MS: Millis = MINUTE;

/// The agent pushes this often: a report up to that long after the first miss may have been on its way.
const AGENT_PERIOD_MS: Millis = 2 * SECOND;

/// What is wrong with the host, or `None` if nothing is.
#[must_use]
pub(crate) fn diagnose<R: Rules>(case: &Case<'_, R>) -> Option<Diagnosis> {
    let ill = own_illness(case)?;
    Some(scoped(case, ill).unwrap_or(ill))
}

/// A condition of site, cluster or domain that outranks what the host shows by itself.
fn scoped<R: Rules>(case: &Case<'_, R>, ill: Diagnosis) -> Option<Diagnosis> {
    let limits = &case.world.limits;
    let silent = case.host.assessment.network == NetworkState::Silent;
    // What a living host shows is its own; a scope explains only hosts that do not answer.
    let by_network = matches!(ill, Diagnosis::KernelDead | Diagnosis::HostHung);
    if !by_network {
        return None;
    }
    if case.view.sight.check(limits, &case.host.domains, case.now).is_err() {
        return Some(Diagnosis::Blind);
    }
    if silent {
        let outage = case.host.domains.iter().find(|d| {
            case.domain(**d).and_then(|d| d.correlated).is_some_and(|c| c.outage && !c.serial && c.canary.is_none())
        });
        if let Some(domain) = outage {
            return Some(Diagnosis::DomainOutage(*domain));
        }
    }
    if case.cluster().is_some_and(|c| c.freeze.is_some()) {
        return Some(Diagnosis::SiteStorm);
    }
    if case.host.control_plane() && vip_silent(case) {
        return Some(Diagnosis::VipLost);
    }
    if case.view.sight.api_unreachable(limits, case.now) {
        return Some(Diagnosis::ApiUnreachable);
    }
    None
}

/// The virtual address is silent, for however short a time.
fn vip_gone<R: Rules>(case: &Case<'_, R>) -> bool {
    case.view.sight.cluster.as_ref().is_some_and(|c| c.api.vip_silent_since.is_some())
}

fn vip_silent<R: Rules>(case: &Case<'_, R>) -> bool {
    let api = case.view.sight.cluster.as_ref().map(|c| c.api);
    api.is_some_and(|api| {
        api.unreachable_since.is_none()
            && api.vip_silent_since.is_some_and(|at| case.since(at) >= case.world.limits.api_unreachable_ms)
    })
}

/// It boots over and over: three times in half an hour, not counting boots that we ordered (rule 9).
#[must_use]
pub(crate) fn looping<R: Rules>(case: &Case<'_, R>) -> bool {
    let limits = &case.world.limits;
    let boots = within(&case.host.history.boots, limits.boot_loop_window_ms, case.now);
    case.enforces(9) && boots >= limits.boot_loop_count
}

/// It asked the network for something to boot and is silent, and holds no ticket.
pub(crate) fn asks_to_boot<R: Rules>(case: &Case<'_, R>) -> bool {
    let seen = case.host.assessment;
    let asked = case.host.history.asked_since.is_some();
    let boots = asked && !seen.answers() && !case.host.ready() && seen.power != Power::Off;
    boots && case.incident.as_ref().is_none_or(|i| i.job.is_none())
}

/// It asks still: the last question is no older than firmware takes to the next.
pub(crate) fn asks_still<R: Rules>(case: &Case<'_, R>) -> bool {
    case.host.assessment.asked_to_boot.is_some_and(|last| case.since(last) < ASKS_AGAIN_MS)
}

/// It is known to ask the network only after its disk, and nobody has booted it since.
pub(crate) fn asks_after_disk<R: Rules>(case: &Case<'_, R>) -> bool {
    let history = &case.host.history;
    let alone = history.asked_since.is_some_and(|first| case.since(first) >= BOOTED_BY_OTHERS_MS);
    history.boot_order == BootOrder::DiskFirst && alone
}

/// Its disk has nothing: it asks the network, and either it is known to do so only after its disk, or a boot budget later
/// it asks still. Firmware that asks the network first does so at every boot, and boots from its disk after it
/// (OVMF 2022.11, which tries PXE and HTTP by IPv4 and IPv6: a minute and a half later).
pub(crate) fn nothing_to_boot<R: Rules>(case: &Case<'_, R>) -> bool {
    let budget = case.host.history.boot_budget_ms(&case.world.limits);
    let long = case.host.history.asked_since.is_some_and(|first| case.since(first) >= budget);
    asks_to_boot(case) && (asks_after_disk(case) || long && asks_still(case))
}

/// What the host shows by itself.
fn own_illness<R: Rules>(case: &Case<'_, R>) -> Option<Diagnosis> {
    let host = &case.host;
    let seen = host.assessment;
    let silent = seen.network == NetworkState::Silent;
    let agent = seen.agent;

    // Between two deaths it may look well for a minute: a loop once seen stays one until its boots grow old.
    let known_loop = case
        .incident
        .as_ref()
        .is_some_and(|i| i.phase == Phase::Suspected && i.diagnosis == Diagnosis::BootFailed(BootFailure::Loop));
    if looping(case) && (!host.ready() || silent || known_loop) {
        return Some(Diagnosis::BootFailed(BootFailure::Loop));
    }
    // It reached the end of its boot order: whatever reboot that was, it is over (design section 4).
    if nothing_to_boot(case) {
        return Some(Diagnosis::BootFailed(BootFailure::NoLocalBoot));
    }
    let rebooting = host.history.rebooting_until.is_some_and(|until| case.now.elapsed < until);
    if rebooting && (!host.ready() || silent) {
        return Some(Diagnosis::Rebooting);
    }
    match seen.network {
        NetworkState::Silent => Some(silent_illness(case)),
        NetworkState::KernelOnly => Some(flapping_or(case, Diagnosis::HostHung)),
        NetworkState::ProcessDead => Some(match agent.and_then(|a| a.failing) {
            Some((component, cause)) => Diagnosis::ComponentFailed(component, cause),
            None => Diagnosis::ComponentFailed(Component::Kubelet, ComponentCause::Dead),
        }),
        NetworkState::Alive | NetworkState::Unknown => living_illness(case),
    }
}

fn silent_illness<R: Rules>(case: &Case<'_, R>) -> Diagnosis {
    let seen = case.host.assessment;
    if seen.power == Power::Off {
        return match seen.hardware {
            Some(fault) => Diagnosis::HardwareFault(fault),
            None => Diagnosis::PoweredOff,
        };
    }
    // Somebody who renews a Lease or whose agent reports is alive, whatever our probes say.
    let evidence = &case.view.evidence;
    let silent_since = evidence.silence().map(|(_, since)| since);
    let after = |at: Option<Elapsed>, span| at.zip(silent_since).is_some_and(|(at, since)| at > since.plus(span));
    let renews = after(evidence.last_renewal(), case.world.limits.silent_ms);
    // The last report of a host that died is still young for a while: only one from after the silence began counts.
    let reports =
        seen.agent.is_some() && after(evidence.slot(Source::Agent).latest().map(|run| run.last), AGENT_PERIOD_MS);
    if reports || (renews && seen.lease <= LeaseState::Late) {
        return Diagnosis::NodeLostNetwork;
    }
    if let Some(fault) = seen.hardware
        && fault != HardwareFault::PowerSupply
    {
        return Diagnosis::HardwareFault(fault);
    }
    flapping_or(case, Diagnosis::KernelDead)
}

fn flapping_or<R: Rules>(case: &Case<'_, R>, otherwise: Diagnosis) -> Diagnosis {
    let limits = &case.world.limits;
    if case.host.history.flap_points(limits, case.now) >= limits.flap_points { Diagnosis::Flapping } else { otherwise }
}

fn living_illness<R: Rules>(case: &Case<'_, R>) -> Option<Diagnosis> {
    let seen = case.host.assessment;
    let evidence = &case.view.evidence;
    if let Some(agent) = seen.agent {
        if agent.disk_broken {
            return Some(Diagnosis::DiskOrOsBroken);
        }
        if let Some((component, cause)) = agent.failing {
            return Some(Diagnosis::ComponentFailed(component, cause));
        }
    }
    if seen.kubelet_hung {
        return Some(Diagnosis::ComponentFailed(Component::Kubelet, ComponentCause::Hung));
    }
    // Misses from before it answered again tell of the silence, not of the component.
    let answers_for = case.since(seen.network_since);
    let own = |source: Source| {
        evidence.slot(source).latest().is_some_and(|run| {
            run.seen == Seen::Refused || run.first > seen.network_since || answers_for > COMPONENT_PROBE_MS
        })
    };
    if seen.api_server == Probe::Failing && own(Source::ApiServer) {
        return Some(Diagnosis::ComponentFailed(Component::ApiServer, ComponentCause::Unknown));
    }
    if seen.etcd_member == Probe::Failing && own(Source::EtcdMember) {
        return Some(Diagnosis::ComponentFailed(Component::Etcd, ComponentCause::Unknown));
    }
    let watched = case.view.sight.watch_live_since(&case.world.limits, case.now).is_some();
    // The node controller writes Unknown for want of a Lease; beside a fresh Lease that is only its last word, not yet
    // taken back. What the kubelet itself says is False.
    let not_ready = seen.node.is_some_and(|n| n.ready == Some(false));
    // Kubelets speak to the API through the virtual address: while that is silent, a late Lease of a host that answers
    // is the address's illness, not the host's.
    let watched = watched && !vip_gone(case);
    if seen.network == NetworkState::Alive && watched && (not_ready || seen.lease == LeaseState::Expired) {
        return Some(Diagnosis::Unknown);
    }
    if seen.agent.is_some_and(|a| a.certificate_expiring) {
        return Some(Diagnosis::CertificateExpiring);
    }
    let dumb = matches!(seen.bmc, BmcState::Trouble(_))
        && bmc_silent_since(case.view).is_some_and(|at| case.since(at) >= case.world.limits.page_ms);
    dumb.then_some(Diagnosis::BmcUnreachable)
}
