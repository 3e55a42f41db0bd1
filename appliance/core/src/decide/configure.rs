//! Configuration events. What the world learned about a record (assessment, history, freeze) survives a new definition.

use crate::command::{Loudness, Notice, Outcome, WakeTarget, Wakeup};
use crate::event::{Change, Config};
use crate::explain::Explanation;
use crate::id::HostId;
use crate::rules::Rules;
use crate::time::Now;
use crate::world::World;
use crate::world::host::{BootOrder, Host, Link, Marks};

/// Most hosts of a site. The appliance is measured at 10,000; this is the limit behind which it refuses.
const HOSTS_MAX: usize = 20_000;

pub(super) fn configure<R: Rules>(world: &World, config: &Config, now: Now) -> Outcome<R> {
    let mut out = Outcome::default();
    let refuse = |code, sentence: String| Notice {
        host: None,
        incident: None,
        loudness: Loudness::Log,
        explanation: Explanation::note(code, sentence),
        at: now,
    };
    match config {
        Config::Policy { limits, version } => {
            out.changes.push(Change::Limits { limits: limits.clone(), version: *version });
        }
        Config::Cluster(cluster) => {
            let mut new = (**cluster).clone();
            match world.clusters.get(&new.id) {
                Some(old) => {
                    new.armed = old.armed;
                    new.paused = old.paused;
                    new.freeze = old.freeze;
                    new.freeze_ended = old.freeze_ended;
                    new.careful = old.careful;
                    new.released_hosts.clone_from(&old.released_hosts);
                    new.released_at = old.released_at;
                }
                // A new cluster only observes until a person arms it (rule 52).
                None => new.armed = false,
            }
            out.changes.push(Change::Cluster(Box::new(new)));
        }
        Config::Pool(pool) => out.changes.push(Change::Pool(pool.clone())),
        Config::Domain(domain) => {
            let mut new = (**domain).clone();
            if let Some(old) = world.domains.get(&new.id) {
                new.paused = old.paused;
                new.correlated = old.correlated;
            }
            out.changes.push(Change::Domain(Box::new(new)));
        }
        Config::Host(host) => match place(world, host) {
            Ok(new) => out.changes.push(Change::Host(Box::new(new))),
            Err(why) => out.notices.push(refuse("host-refused", why)),
        },
        Config::RemoveHost(id) => match world.hosts.get(id) {
            Some(host) if host.incident.is_none() => out.changes.push(Change::RemoveHost(*id)),
            Some(host) => out.notices.push(refuse(
                "host-in-incident",
                format!("{} has an open incident and stays: end or deny it, then remove the host", host.name),
            )),
            None => out.notices.push(refuse("no-such-host", format!("there is no host {}", id.0))),
        },
        Config::Link { host, link } => {
            if let Some(mut new) = world.hosts.get(host).cloned() {
                new.link = *link;
                if *link == Link::Unbound {
                    // What was shown of another BMC or card is not shown of this one (rule 43).
                    new.spare_proof = None;
                    new.drill = None;
                    new.history.boot_order = BootOrder::Unknown;
                }
                if *link == Link::Mismatch {
                    out.notices.push(Notice {
                        host: Some(*host),
                        incident: new.incident,
                        loudness: Loudness::Page,
                        explanation: Explanation::refusal(
                            29,
                            "identity-mismatch",
                            format!(
                                "record, BMC and Node of {} do not show one machine: no power until a person corrects the record, or \
                                 applies it again if it is right",
                                new.name
                            ),
                        ),
                        at: now,
                    });
                }
                out.changes.push(Change::Host(Box::new(new)));
            }
        }
        Config::Cmdb { host, state } => {
            if let Some(mut new) = world.hosts.get(host).cloned() {
                new.marks.cmdb = *state;
                out.changes.push(Change::Host(Box::new(new)));
            }
        }
        Config::SpareProof { host, proof } => {
            if let Some(mut new) = world.hosts.get(host).cloned() {
                new.spare_proof = Some(*proof);
                out.changes.push(Change::Host(Box::new(new)));
            }
        }
    }
    out.changes.retain(|change| !no_change(world, change));
    if let Config::Link { host, .. } = config {
        wake(world, *host, now, &mut out);
    }
    out
}

fn wake<R: Rules>(world: &World, host: HostId, now: Now, out: &mut Outcome<R>) {
    if world.hosts.get(&host).is_some_and(|h| h.incident.is_some()) {
        out.wakeups.push(Wakeup { target: WakeTarget::Host(host), at: now.elapsed });
    }
}

/// The record as it will stand, or why it may not.
fn place(world: &World, host: &Host) -> Result<Host, String> {
    let mut new = host.clone();
    match world.hosts.get(&new.id) {
        Some(old) => {
            new.assessment = old.assessment;
            new.history.clone_from(&old.history);
            new.incident = old.incident;
            new.our_cordon = old.our_cordon;
            new.our_taint = old.our_taint;
            new.held_off = old.held_off;
            new.lifecycle = old.lifecycle;
            // Whether it carries us is the record's word (rule 59); the other marks are set by orders.
            new.marks = Marks { is_self: host.marks.is_self, ..old.marks };
            if old.machine == new.machine || old.machine.same_machine(new.machine) {
                // What was shown of this machine is not undone by a record that is applied again: a mismatch found
                // meanwhile stays one (rule 29), a spare's proof is neither lost nor brought back (rule 43).
                new.link = old.link;
                // What was shown of another disk is not shown of this one.
                new.spare_proof = old.spare_proof.filter(|_| old.disk == new.disk);
                new.drill = old.drill;
                if old.history.was_spare {
                    // It took a host's place since that record was written.
                    (new.role, new.pool, new.cluster) = (old.role, old.pool, old.cluster);
                }
            } else {
                // Another identity is another machine: the link must be shown again (rule 29), and so must a spare.
                new.link = Link::Unbound;
                new.spare_proof = None;
                new.history.boot_order = BootOrder::Unknown;
            }
        }
        None if world.hosts.len() >= HOSTS_MAX => {
            return Err(format!(
                "{} is host number {} of at most {HOSTS_MAX}: it was not added",
                new.name,
                world.hosts.len() + 1
            ));
        }
        None => {}
    }
    if new.machine.is_placeholder() && new.link == Link::Linked {
        new.link = Link::Unbound;
    }
    if new.domains.len() > 8 || new.versions.len() > 8 {
        return Err(format!("{} names more than 8 domains or versions: it was not added", new.name));
    }
    // The same identity on two hosts counts as none (terms, *linked*).
    let mut others = world.hosts.values().filter(|_| new.link == Link::Linked);
    if let Some(twin) = others.find(|h| h.id != new.id && h.machine.same_machine(new.machine)) {
        return Err(format!(
            "{} has the machine identity of {}: it was not added, correct one of the two records",
            new.name, twin.name
        ));
    }
    Ok(new)
}

fn no_change(world: &World, change: &Change) -> bool {
    match change {
        Change::Cluster(c) => world.clusters.get(&c.id) == Some(c),
        Change::Pool(p) => world.pools.get(&p.id) == Some(p),
        Change::Domain(d) => world.domains.get(&d.id) == Some(d),
        Change::Host(h) => world.hosts.get(&h.id) == Some(h),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ClusterId, MachineId, PoolId};
    use crate::policy::{Policy, Site};
    use crate::time::Elapsed;
    use crate::world::host::{Lifecycle, Role, SpareProof};

    fn record(role: Role) -> Host {
        Host {
            id: HostId(1),
            name: "n1".to_owned(),
            cluster: None,
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
            assessment: crate::assess::Assessment::default(),
            history: crate::world::host::History::default(),
            incident: None,
            our_cordon: None,
            our_taint: None,
            held_off: None,
        }
    }

    /// A world that knows this host; what becomes of the record when it is applied.
    fn applied(known: Host, record: &Host) -> Host {
        let mut world = World::new(&Policy::<Site>::default());
        world.apply(&Change::Host(Box::new(known)));
        place(&world, record).unwrap()
    }

    #[test]
    fn a_mismatch_stays_one_when_the_record_is_applied_again() {
        let known = Host { link: Link::Mismatch, ..record(Role::Worker) };
        assert_eq!(applied(known, &record(Role::Worker)).link, Link::Mismatch);
        let known = Host { link: Link::Linked, ..record(Role::Worker) };
        let unbound = Host { link: Link::Unbound, ..record(Role::Worker) };
        assert_eq!(applied(known, &unbound).link, Link::Linked);
        let other = Host { machine: MachineId(0x9999), ..record(Role::Worker) };
        assert_eq!(applied(record(Role::Worker), &other).link, Link::Unbound);
    }

    #[test]
    fn whether_it_carries_us_is_the_records_word_and_a_pause_is_not() {
        let marks = Marks { paused: true, ..Marks::default() };
        let known = Host { marks, ..record(Role::Worker) };
        let carries = Host { marks: Marks { is_self: true, ..Marks::default() }, ..record(Role::Worker) };
        let after = applied(known, &carries);
        assert_eq!((after.marks.is_self, after.marks.paused), (true, true));
        assert!(!applied(after, &record(Role::Worker)).marks.is_self);
    }

    #[test]
    fn a_spare_keeps_its_proof_and_one_that_took_a_place_keeps_the_place() {
        let proof = Some(SpareProof { at: Elapsed(7), passed: true, at_wall_ms: 0 });
        let proven = Host { spare_proof: proof, ..record(Role::Spare) };
        assert_eq!(applied(proven.clone(), &record(Role::Spare)).spare_proof, proof);
        assert_eq!(applied(record(Role::Spare), &proven).spare_proof, None, "a stale proof comes back");
        let other_disk = Host { disk: Some("other".to_owned()), ..record(Role::Spare) };
        assert_eq!(applied(proven.clone(), &other_disk).spare_proof, None, "another disk was shown");
        let mut worker = Host { cluster: Some(ClusterId(3)), pool: PoolId(2), ..record(Role::Worker) };
        worker.history.was_spare = true;
        let again = applied(worker, &record(Role::Spare));
        assert_eq!((again.role, again.pool, again.cluster), (Role::Worker, PoolId(2), Some(ClusterId(3))));
    }
}
