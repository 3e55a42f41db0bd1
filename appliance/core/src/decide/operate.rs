//! What people order. They append events on the same path as everything else; nothing here waives a rule.

use crate::command::{Loudness, Notice, Outcome, WakeTarget, Wakeup};
use crate::event::{Change, Operator, Scope};
use crate::explain::Explanation;
use crate::id::{HostId, IncidentId, MachineId};
use crate::rules::Rules;
use crate::time::Now;
use crate::world::World;
use crate::world::host::{Host, Lifecycle, Link, Role};
use crate::world::incident::{Approval, Incident, Phase};
use crate::world::scope::{ColdStart, ObserveOnly, Site};

/// Most hosts that a person may name at once (freeze release, cold start).
const NAMED_MAX: usize = 20_000;

pub(super) fn order<R: Rules>(world: &World, order: &Operator, now: Now) -> Outcome<R> {
    let mut out = Outcome::default();
    match order {
        Operator::Pause { scope, paused } => pause(world, *scope, *paused, now, &mut out),
        Operator::ObserveOnly(true) => {
            let mut site = world.site.clone();
            // That the budgets are unknown stays known, whoever orders what.
            match site.observe_only {
                Some(ObserveOnly::Corrupt) => {}
                Some(ObserveOnly::Standby) => site.behind_standby = Some(ObserveOnly::Ordered),
                _ => site.observe_only = Some(ObserveOnly::Ordered),
            }
            put_site(world, site, &mut out);
            out.wakeups.extend(under_way(world, |_| true, now));
        }
        Operator::ObserveOnly(false) => match world.site.observe_only {
            Some(ObserveOnly::Corrupt) => refuse(
                &mut out,
                now,
                "refused",
                "the journal could not be read whole, so no budget is known (rule 17): restore a backup, or look at the hosts \
                 and accept it with `rackmedic site act --budgets-unknown`"
                    .to_owned(),
            ),
            Some(ObserveOnly::Standby) => {
                refuse(&mut out, now, "refused", "another appliance owns the site: it acts there".to_owned());
            }
            _ => act_again(world, now, &mut out),
        },
        Operator::AcceptUnknownBudgets if world.site.observe_only == Some(ObserveOnly::Corrupt) => {
            act_again(world, now, &mut out);
        }
        Operator::AcceptUnknownBudgets => {
            refuse(&mut out, now, "refused", "the budgets are known: `rackmedic site act` is enough".to_owned());
        }
        Operator::Arm { cluster, armed } => match world.clusters.get(cluster) {
            Some(old) => {
                let mut new = old.clone();
                new.armed = *armed;
                out.changes.push(Change::Cluster(Box::new(new)));
                if !*armed {
                    out.wakeups.extend(under_way(world, |host| host.cluster == Some(*cluster), now));
                }
            }
            None => refuse(&mut out, now, "no-such-cluster", format!("there is no cluster {}", cluster.0)),
        },
        Operator::Approve { incident, rung } => with(world, *incident, now, &mut out, |incident, host_boot, power| {
            incident.approval = Some(Approval {
                rung: *rung,
                diagnosis: incident.diagnosis,
                boot: host_boot,
                power,
                expires: now.expiry(world.limits.approval_ms),
            });
            Ok(())
        }),
        Operator::Deny { incident } => with(world, *incident, now, &mut out, |incident, _, _| {
            incident.denied = true;
            Ok(())
        }),
        Operator::ConfirmOff { incident, machine } => {
            let record = world.incidents.get(incident).and_then(|i| world.hosts.get(&i.host)).map(|h| h.machine);
            with(world, *incident, now, &mut out, |incident, _, _| {
                if !record.is_some_and(|m| m.same_machine(*machine)) {
                    return Err("the serial typed is not this host's: nothing was confirmed, read it off the machine"
                        .to_owned());
                }
                if incident.phase != Phase::Unfenced {
                    return Err("this incident does not wait for a confirmation: nothing was changed".to_owned());
                }
                incident.fence.human_confirmed = Some(now.elapsed);
                Ok(())
            });
        }
        Operator::ResetBreaker => {
            let mut site = world.site.clone();
            site.breaker = None;
            site.failed_in_a_row = 0;
            put_site(world, site, &mut out);
            for version in world.versions.values().filter(|v| v.failures > 0) {
                let cleared = crate::world::scope::Version { id: version.id, failures: 0 };
                out.changes.push(Change::Version(Box::new(cleared)));
            }
        }
        Operator::LiftPowerFreeze => {
            let mut site = world.site.clone();
            site.power_freeze = None;
            site.watched_off.clear();
            put_site(world, site, &mut out);
        }
        Operator::ReleaseHosts { cluster, hosts } => match world.clusters.get(cluster) {
            Some(old) => {
                let mut new = old.clone();
                new.released_hosts.clone_from(hosts);
                new.released_hosts.truncate(64);
                new.released_at = Some(now.elapsed);
                out.changes.push(Change::Cluster(Box::new(new)));
            }
            None => refuse(&mut out, now, "no-such-cluster", format!("there is no cluster {}", cluster.0)),
        },
        Operator::Maintenance { host, until } => put_host(world, *host, now, &mut out, |h| {
            h.marks.maintenance_until = *until;
        }),
        Operator::ReturnHost(host) => return_host(world, *host, now, &mut out),
        Operator::ColdStart { hosts } => cold_start(world, hosts, now, &mut out),
        Operator::EndColdStart => {
            let mut site = world.site.clone();
            site.cold_start = None;
            put_site(world, site, &mut out);
        }
        Operator::RequestHeal(host) => match world.hosts.get(host) {
            Some(known) if known.incident.is_some() => out.wakeups.push(wake(*host, now)),
            Some(known) => {
                let mut new = known.clone();
                new.history.declined = false;
                out.changes.push(Change::Host(Box::new(new)));
                out.wakeups.push(wake(*host, now));
            }
            None => refuse(&mut out, now, "no-such-host", format!("there is no host {}", host.0)),
        },
        Operator::Prove { host, machine } => prove(world, *host, *machine, now, &mut out),
        Operator::Drill { host, machine } => drill(world, *host, *machine, now, &mut out),
    }
    out
}

/// Leaves observe-only. That is like a start: look before acting.
fn act_again<R: Rules>(world: &World, now: Now, out: &mut Outcome<R>) {
    let until = now.elapsed.plus(world.limits.start_observe_ms);
    let mut site = world.site.clone();
    site.observe_only = Some(ObserveOnly::Starting { until });
    put_site(world, site, out);
    out.wakeups.push(Wakeup { target: WakeTarget::Site, at: until });
}

/// Hosts with a step under way look at once at what was ordered.
fn under_way(world: &World, which: impl Fn(&Host) -> bool, now: Now) -> Vec<Wakeup> {
    let running = world.incidents.values().filter(|incident| incident.running.is_some());
    let hosts = running.filter_map(|incident| world.hosts.get(&incident.host)).filter(|host| which(host));
    hosts.map(|host| wake(host.id, now)).collect()
}

fn wake(host: HostId, now: Now) -> Wakeup {
    Wakeup { target: WakeTarget::Host(host), at: now.elapsed }
}

fn refuse<R: Rules>(out: &mut Outcome<R>, now: Now, code: &'static str, sentence: String) {
    let explanation = Explanation::note(code, sentence);
    out.notices.push(Notice { host: None, incident: None, loudness: Loudness::Log, explanation, at: now });
}

fn put_site<R: Rules>(world: &World, site: Site, out: &mut Outcome<R>) {
    if site != world.site {
        out.changes.push(Change::Site(Box::new(site)));
    }
}

fn put_host<R: Rules>(
    world: &World,
    id: HostId,
    now: Now,
    out: &mut Outcome<R>,
    change: impl FnOnce(&mut crate::world::host::Host),
) {
    let Some(known) = world.hosts.get(&id) else {
        return refuse(out, now, "no-such-host", format!("there is no host {}", id.0));
    };
    let mut new = known.clone();
    change(&mut new);
    if new != *known {
        out.changes.push(Change::Host(Box::new(new)));
    }
    out.wakeups.push(wake(id, now));
}

fn with<R: Rules>(
    world: &World,
    id: IncidentId,
    now: Now,
    out: &mut Outcome<R>,
    change: impl FnOnce(&mut Incident, Option<crate::id::BootId>, crate::signal::Power) -> Result<(), String>,
) {
    let Some((known, host)) = world.incidents.get(&id).and_then(|i| Some((i, world.hosts.get(&i.host)?))) else {
        return refuse(out, now, "no-such-incident", format!("incident {} is not open: nothing was changed", id.0));
    };
    let mut new = known.clone();
    match change(&mut new, host.assessment.node.map(|n| n.boot), host.assessment.power) {
        Ok(()) => {
            out.changes.push(Change::Incident(Box::new(new)));
            out.wakeups.push(wake(known.host, now));
        }
        Err(why) => refuse(out, now, "refused", why),
    }
}

/// A pause sets one field that hosts read, cancels the steps under it, and wakes their incidents (rule 49).
fn pause<R: Rules>(world: &World, scope: Scope, paused: bool, now: Now, out: &mut Outcome<R>) {
    match scope {
        Scope::Site => {
            let mut site = world.site.clone();
            site.paused = paused;
            put_site(world, site, out);
        }
        Scope::Cluster(id) => {
            if let Some(mut new) = world.clusters.get(&id).cloned() {
                new.paused = paused;
                out.changes.push(Change::Cluster(Box::new(new)));
            }
        }
        Scope::Domain(id) => {
            if let Some(mut new) = world.domains.get(&id).cloned() {
                new.paused = paused;
                out.changes.push(Change::Domain(Box::new(new)));
            }
        }
        Scope::Host(id) => {
            if let Some(mut new) = world.hosts.get(&id).cloned() {
                new.marks.paused = paused;
                out.changes.push(Change::Host(Box::new(new)));
            }
        }
    }
    for incident in world.incidents.values() {
        let Some(host) = world.hosts.get(&incident.host) else { continue };
        let under = match scope {
            Scope::Site => true,
            Scope::Cluster(id) => host.cluster == Some(id),
            Scope::Domain(id) => host.domains.contains(&id),
            Scope::Host(id) => host.id == id,
        };
        if !under {
            continue;
        }
        if paused && let Some(running) = &incident.running {
            out.cancels.push(running.step);
        }
        out.wakeups.push(wake(host.id, now));
    }
}

/// Takes the order to prove a spare: the host's next decision, which sees its evidence, begins it or says why not.
fn prove<R: Rules>(world: &World, id: HostId, machine: MachineId, now: Now, out: &mut Outcome<R>) {
    let Some(known) = world.hosts.get(&id) else {
        return refuse(out, now, "no-such-host", format!("there is no host {}", id.0));
    };
    let why = if known.machine.is_placeholder() {
        Some("its record names no machine: declare its `uuid`, which the installer then compares with what it boots on")
    } else if !known.machine.same_machine(machine) {
        Some("the serial typed is not this host's: read it off the machine")
    } else if known.role != Role::Spare {
        Some("it is no spare: only a spare is proven")
    } else if known.lifecycle != Lifecycle::InService {
        Some("it is in quarantine: return it first")
    } else if known.link == Link::Mismatch {
        Some("its BMC is another machine's: correct the record first")
    } else if known.incident.is_some() || known.history.promised.is_some() {
        Some("it is being proven already, or promised to a host that needs it")
    } else if world.site.observe_only.is_some() {
        Some("the appliance only observes now")
    } else {
        None
    };
    if let Some(why) = why {
        return refuse(out, now, "refused", format!("{why}; nothing was started"));
    }
    put_host(world, id, now, out, |h| {
        h.history.proof_ordered = true;
        h.history.order_refused = None;
    });
}

/// Takes the order for a drill: the host's next decision asks every rule, and begins it or says why not.
fn drill<R: Rules>(world: &World, id: HostId, machine: MachineId, now: Now, out: &mut Outcome<R>) {
    let Some(known) = world.hosts.get(&id) else {
        return refuse(out, now, "no-such-host", format!("there is no host {}", id.0));
    };
    let why = if known.machine.is_placeholder() || !known.machine.same_machine(machine) {
        Some("the serial typed is not this host's: read it off the machine")
    } else if known.role == Role::Spare {
        Some("it is a spare: `rackmedic host prove` is its drill")
    } else if known.control_plane() {
        Some("it carries the control plane: no drill takes a part of it down")
    } else if known.lifecycle != Lifecycle::InService {
        Some("it is in quarantine: return it first")
    } else if known.incident.is_some() {
        Some("it has an open incident")
    } else {
        None
    };
    if let Some(why) = why {
        return refuse(out, now, "refused", format!("{why}; nothing was begun"));
    }
    put_host(world, id, now, out, |h| {
        h.history.drill_ordered = true;
        h.history.order_refused = None;
    });
}

/// Returns a quarantined or flapping host: it counts again, and what we cordoned is uncordoned by a small incident.
fn return_host<R: Rules>(world: &World, id: HostId, now: Now, out: &mut Outcome<R>) {
    let Some(known) = world.hosts.get(&id) else {
        return refuse(out, now, "no-such-host", format!("there is no host {}", id.0));
    };
    let mut new = known.clone();
    new.lifecycle = Lifecycle::InService;
    new.history.flap = (0, now.elapsed);
    new.history.heals.clear();
    new.history.declined = false;
    new.history.returned = true;
    if new.role == Role::Spare {
        // Whatever it was meant for, it is a spare again, and is proven before it is used.
        new.history.was_spare = false;
        new.history.returned = false;
        new.spare_proof = None;
    }
    out.changes.push(Change::Host(Box::new(new)));
    out.wakeups.push(wake(id, now));
}

/// Arms a cold start for named hosts (rule 58). Hosts that are not linked are refused by name.
fn cold_start<R: Rules>(world: &World, hosts: &[HostId], now: Now, out: &mut Outcome<R>) {
    let linked = |id: &&HostId| world.hosts.get(id).is_some_and(|h| h.link == Link::Linked);
    let named: Vec<HostId> = hosts.iter().filter(linked).copied().take(NAMED_MAX).collect();
    if named.len() < hosts.len() {
        let left = hosts.len() - named.len();
        refuse(
            out,
            now,
            "cold-start-unlinked",
            format!("{left} of the named hosts are not linked and stay as they are"),
        );
    }
    if named.is_empty() {
        // An empty target set means nobody (rule 17).
        return refuse(out, now, "cold-start-nobody", "no host was named: nothing was armed".to_owned());
    }
    let mut site = world.site.clone();
    site.cold_start = Some(ColdStart {
        hosts: named.clone(),
        expires: now.expiry(world.limits.cold_start_ms),
        api_ready_at: None,
        last_on: Vec::new(),
    });
    put_site(world, site, out);
    out.wakeups.extend(named.into_iter().map(|id| wake(id, now)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Policy, Site as SitePolicy};
    use crate::rules::Enforced;
    use crate::time::Elapsed;
    use crate::world::host::{Host, Marks};

    const NOW: Now = Now { elapsed: Elapsed(1_000_000), wall_ms: 0 };

    fn spare() -> Host {
        Host {
            id: HostId(1),
            name: "spare-1".to_owned(),
            cluster: None,
            pool: crate::id::PoolId(1),
            role: Role::Spare,
            domains: Vec::new(),
            versions: Vec::new(),
            storage: None,
            machine: MachineId(0x1234),
            link: Link::Unbound,
            outlets: false,
            disk: Some("S1".to_owned()),
            lifecycle: Lifecycle::InService,
            marks: Marks::default(),
            spare_proof: None,
            drill: None,
            assessment: crate::assess::Assessment::default(),
            history: crate::world::host::History::default(),
            incident: None,
            our_cordon: None,
            our_taint: None,
            held_off: None,
        }
    }

    /// Whether the order to prove it was taken.
    fn taken(host: Host, typed: MachineId) -> bool {
        let mut world = World::new(&Policy::<SitePolicy>::default());
        world.apply(&Change::Host(Box::new(host)));
        let out: Outcome<Enforced> = order(&world, &Operator::Prove { host: HostId(1), machine: typed }, NOW);
        let ordered = |change: &Change| matches!(change, Change::Host(host) if host.history.proof_ordered);
        let (taken, refused) =
            (out.changes.iter().any(ordered), out.notices.iter().any(|n| n.explanation.code == "refused"));
        assert!(taken != refused && out.commands.is_empty(), "an order starts nothing by itself");
        taken
    }

    #[test]
    fn the_proof_of_a_spare_is_ordered_by_what_is_written_on_it_and_of_nobody_else() {
        let own = MachineId(0x1234);
        assert!(taken(spare(), own));
        assert!(taken(Host { link: Link::Linked, ..spare() }, own));
        assert!(!taken(spare(), MachineId(0x9999)));
        assert!(
            !taken(Host { machine: MachineId(0), ..spare() }, MachineId(0)),
            "a record without a machine names none"
        );
        assert!(!taken(Host { role: Role::Worker, ..spare() }, own));
        assert!(!taken(Host { link: Link::Mismatch, ..spare() }, own));
        assert!(!taken(Host { lifecycle: Lifecycle::Quarantined { since: Elapsed(1) }, ..spare() }, own));
        let mut promised = spare();
        promised.history.promised = Some(IncidentId(3));
        assert!(!taken(promised, own));
    }

    #[test]
    fn a_spare_that_is_returned_is_proven_before_it_is_used() {
        let mut world = World::new(&Policy::<SitePolicy>::default());
        let mut failed = Host { lifecycle: Lifecycle::Quarantined { since: Elapsed(1) }, ..spare() };
        failed.history.was_spare = true;
        failed.spare_proof = Some(crate::world::host::SpareProof { at: Elapsed(1), passed: true, at_wall_ms: 0 });
        world.apply(&Change::Host(Box::new(failed)));
        assert_eq!(world.tallies.promoted, 1, "it is not back in the pool yet");
        let out: Outcome<Enforced> = order(&world, &Operator::ReturnHost(HostId(1)), NOW);
        out.changes.iter().for_each(|change| world.apply(change));
        assert_eq!((world.tallies.promoted, world.tallies.spares.len()), (0, 1));
        assert_eq!(world.hosts[&HostId(1)].spare_proof, None);
    }

    #[test]
    fn that_the_budgets_are_unknown_is_waived_by_no_other_order() {
        let mut world = World::new(&Policy::<SitePolicy>::default());
        world.site.observe_only = Some(ObserveOnly::Corrupt);
        let mut said = |asked: Operator| {
            let out: Outcome<Enforced> = order(&world, &asked, NOW);
            out.changes.iter().for_each(|change| world.apply(change));
            (out.notices.len(), world.site.observe_only)
        };
        assert_eq!(said(Operator::ObserveOnly(true)), (0, Some(ObserveOnly::Corrupt)));
        assert_eq!(said(Operator::ObserveOnly(false)), (1, Some(ObserveOnly::Corrupt)));
        assert!(matches!(said(Operator::AcceptUnknownBudgets), (0, Some(ObserveOnly::Starting { .. }))));
        assert_eq!(said(Operator::AcceptUnknownBudgets).0, 1, "they are known now");
    }
}
