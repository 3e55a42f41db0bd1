//! A case: the working copies of one host's decision. Logic changes the copies; what differs in the end is emitted as
//! changes. Nothing else of the world can be changed from here.

use crate::budget::Permit;
use crate::command::{Command, Intent, Loudness, Notice, Outcome, Target, WakeTarget, Wakeup, Warrant};
use crate::event::{Change, View};
use crate::explain::Explanation;
use crate::fence::ProvenOff;
use crate::id::{BootId, ClusterId, DomainId, HostId, IncidentId, StepId, VersionId};
use crate::rules::{Rule, Rules};
use crate::time::{Elapsed, Millis, Now};
use crate::world::World;
use crate::world::host::{Host, Link, Role};
use crate::world::incident::{Diagnosis, Fence, Incident, Phase, Purpose, Running, Timings, Wait};
use crate::world::scope::{Cluster, Domain, Pool, Site, Version};
use std::collections::BTreeMap;

/// The working copies of one host's decision.
#[derive(Debug)]
pub struct Case<'a, R: Rules> {
    /// Which rules hold.
    pub rules: R,
    /// The world before this event.
    pub world: &'a World,
    /// The moment.
    pub now: Now,
    /// Evidence and sight.
    pub view: &'a View,
    /// The host as it was.
    pub before: &'a Host,
    /// The host as it becomes.
    pub host: Host,
    incident_before: Option<&'a Incident>,
    /// Its incident as it becomes; taken out when it ends.
    pub incident: Option<Incident>,
    ended: Option<Incident>,
    site: Option<Site>,
    cluster: Option<Cluster>,
    domains: BTreeMap<DomainId, Domain>,
    versions: BTreeMap<VersionId, Version>,
    others: BTreeMap<HostId, Host>,
    other_incidents: BTreeMap<IncidentId, Incident>,
    acted: Vec<Change>,
    wake_at: Option<Elapsed>,
    /// What is being produced.
    pub out: Outcome<R>,
}

impl<'a, R: Rules> Case<'a, R> {
    /// Opens the case of a host; `None` if there is no such host.
    #[must_use]
    pub fn open(rules: R, world: &'a World, host: HostId, view: &'a View, now: Now) -> Option<Case<'a, R>> {
        let before = world.host(host)?;
        let incident_before = before.incident.and_then(|id| world.incident(id));
        Some(Case {
            rules,
            world,
            now,
            view,
            before,
            host: before.clone(),
            incident_before,
            incident: incident_before.cloned(),
            ended: None,
            site: None,
            cluster: None,
            domains: BTreeMap::new(),
            versions: BTreeMap::new(),
            others: BTreeMap::new(),
            other_incidents: BTreeMap::new(),
            acted: Vec::new(),
            wake_at: None,
            out: Outcome::default(),
        })
    }

    /// Whether a rule is enforced.
    #[must_use]
    pub fn enforces(&self, rule: u8) -> bool {
        self.rules.enforces(Rule(rule))
    }

    /// Milliseconds of running time since a moment.
    #[must_use]
    pub fn since(&self, at: Elapsed) -> Millis {
        self.now.elapsed.since(at)
    }

    /// The site's record as of now.
    #[must_use]
    pub fn site(&self) -> &Site {
        self.site.as_ref().unwrap_or(&self.world.site)
    }

    /// The site's record, to be changed.
    pub fn site_mut(&mut self) -> &mut Site {
        self.site.get_or_insert_with(|| self.world.site.clone())
    }

    /// The host's cluster as of now.
    #[must_use]
    pub fn cluster(&self) -> Option<&Cluster> {
        match (&self.cluster, self.host.cluster) {
            (Some(changed), _) => Some(changed),
            (None, Some(id)) => self.world.cluster(id),
            (None, None) => None,
        }
    }

    /// The host's cluster, to be changed.
    pub fn cluster_mut(&mut self) -> Option<&mut Cluster> {
        if self.cluster.is_none() {
            self.cluster = self.host.cluster.and_then(|id| self.world.cluster(id)).cloned();
        }
        self.cluster.as_mut()
    }

    /// The host's pool.
    #[must_use]
    pub fn pool(&self) -> Option<&'a Pool> {
        self.world.pool(self.host.pool)
    }

    /// A domain as of now.
    #[must_use]
    pub fn domain(&self, id: DomainId) -> Option<&Domain> {
        self.domains.get(&id).or_else(|| self.world.domain(id))
    }

    /// A domain, to be changed.
    pub fn domain_mut(&mut self, id: DomainId) -> Option<&mut Domain> {
        if !self.domains.contains_key(&id) {
            let copy = self.world.domain(id)?.clone();
            self.domains.insert(id, copy);
        }
        self.domains.get_mut(&id)
    }

    /// Another host (a spare), to be changed.
    pub fn other_mut(&mut self, id: HostId) -> Option<&mut Host> {
        if id == self.host.id {
            return None;
        }
        if !self.others.contains_key(&id) {
            let copy = self.world.host(id)?.clone();
            self.others.insert(id, copy);
        }
        self.others.get_mut(&id)
    }

    /// Another host's incident, to be changed (identity alarm).
    pub fn other_incident_mut(&mut self, id: IncidentId) -> Option<&mut Incident> {
        if !self.other_incidents.contains_key(&id) {
            let copy = self.world.incident(id)?.clone();
            self.other_incidents.insert(id, copy);
        }
        self.other_incidents.get_mut(&id)
    }

    /// A version blamed once more (rule 15).
    pub fn blame_version(&mut self, id: VersionId) {
        let known = self.world.versions.get(&id).cloned().unwrap_or(Version { id, failures: 0 });
        let version = self.versions.entry(id).or_insert(known);
        version.failures = version.failures.saturating_add(1);
    }

    /// Opens an incident on the host.
    pub fn open_incident(&mut self, diagnosis: Diagnosis) {
        let id = self.next_incident();
        let evidence = &self.view.evidence;
        let life = evidence.last_answer().max(evidence.last_renewal());
        let boot = self.host.history.last_boot;
        self.host.incident = Some(id);
        let incident = fresh_incident(id, self.host.id, diagnosis, boot, self.now);
        let timings = Timings { last_sign_of_life: life, ..incident.timings };
        self.incident = Some(Incident { timings, ..incident });
    }

    /// Opens an incident on another host and wakes it; `set` makes of it what it is to be. Nothing if that host has one.
    pub fn open_incident_on(&mut self, host: HostId, diagnosis: Diagnosis, set: impl FnOnce(&mut Incident)) {
        let Some(boot) = self.other_mut(host).filter(|h| h.incident.is_none()).map(|h| h.history.last_boot) else {
            return;
        };
        let id = self.next_incident();
        let mut incident = fresh_incident(id, host, diagnosis, boot, self.now);
        set(&mut incident);
        if let Some(other) = self.other_mut(host) {
            other.incident = Some(id);
        }
        self.other_incidents.insert(id, incident);
        self.out.wakeups.push(Wakeup { target: WakeTarget::Host(host), at: self.now.elapsed.plus(1) });
    }

    fn next_incident(&mut self) -> IncidentId {
        let site = self.site_mut();
        site.next_incident += 1;
        IncidentId(site.next_incident)
    }

    /// *Linked*, or a spare whose first boot a person ordered by typing its serial: the one power that is allowed on a
    /// host that is not linked (terms of the safety rules).
    #[must_use]
    pub fn linked(&self) -> bool {
        let ordered = match &self.incident {
            Some(incident) => matches!(incident.purpose, Purpose::Prove { ordered: true }),
            None => self.host.role == Role::Spare && self.host.history.proof_ordered,
        };
        match self.host.link {
            Link::Linked => true,
            Link::Unbound => ordered && !self.host.machine.is_placeholder(),
            Link::Mismatch => false,
        }
    }

    /// Ends the incident: it leaves the world with this event.
    pub fn end_incident(&mut self, end: crate::world::incident::End) {
        if let Some(mut incident) = self.incident.take() {
            incident.end = Some(end);
            incident.running = None;
            incident.reservation = None;
            incident.wait = None;
            self.host.incident = None;
            self.note("ended", format!("{} ended: {end:?}", self.host.name));
            self.ended = Some(incident);
        }
    }

    /// Goes to a phase. The step of the old one, if any, is forgotten.
    pub fn go(&mut self, phase: Phase) {
        let now = self.now.elapsed;
        if let Some(incident) = &mut self.incident {
            if incident.phase != phase {
                incident.tries = 0;
            }
            incident.phase = phase;
            incident.phase_since = now;
            incident.running = None;
            settle_wait(incident, now);
        }
    }

    /// Waits for a reason. The same reason keeps its clock.
    pub fn wait(&mut self, why: Explanation) {
        let (now, retry) = (self.now.elapsed, self.retry_ms());
        let mut fresh = None;
        if let Some(incident) = &mut self.incident {
            match &mut incident.wait {
                Some(wait) if wait.why.code == why.code && wait.why.rule == why.rule => wait.why = why,
                _ => {
                    fresh = Some(why.clone());
                    settle_wait(incident, now);
                    incident.wait = Some(Wait { why, since: now, paged_at: None });
                }
            }
        }
        if let Some(why) = fresh {
            self.tell(Loudness::Log, why);
        }
        self.wake_in(retry);
    }

    /// How long until a waiting incident is looked at again: soon at first, rarely after ten minutes.
    fn retry_ms(&self) -> Millis {
        let limits = &self.world.limits;
        let age = self.incident.as_ref().map_or(0, |i| self.since(i.phase_since));
        if age > 10 * crate::time::MINUTE { limits.retry_ms * 6 } else { limits.retry_ms }
    }

    /// It is Ready and answers the network: a Node that says Ready may only be what was last seen of a host that is gone.
    #[must_use]
    pub fn serves_now(&self) -> bool {
        self.host.ready() && self.host.assessment.answers()
    }

    /// No longer waits.
    pub fn stop_waiting(&mut self) {
        let now = self.now.elapsed;
        if let Some(incident) = &mut self.incident {
            settle_wait(incident, now);
        }
    }

    /// Comes back at the earliest of all moments asked for.
    pub fn wake_at(&mut self, at: Elapsed) {
        self.wake_at = Some(self.wake_at.map_or(at, |sooner| sooner.min(at)));
    }

    /// Comes back after a span.
    pub fn wake_in(&mut self, span: Millis) {
        self.wake_at(self.now.elapsed.plus(span));
    }

    /// Tells people.
    pub fn tell(&mut self, loudness: Loudness, explanation: Explanation) {
        let incident = self.incident.as_ref().map(|i| i.id);
        // A line in the record reaches nobody: only a page, or a step forward, ends the silence (rule 55).
        if let Some(open) = self.incident.as_mut().filter(|_| loudness == Loudness::Page) {
            open.last_word = self.now.elapsed;
        }
        self.out.notices.push(Notice { host: Some(self.host.id), incident, loudness, explanation, at: self.now });
    }

    /// Keeps a plain line with the incident: a step forward, which ends its silence.
    pub fn note(&mut self, code: &'static str, sentence: String) {
        if let Some(open) = &mut self.incident {
            open.last_word = self.now.elapsed;
        }
        self.tell(Loudness::Log, Explanation::note(code, sentence));
    }

    /// Orders a step that needs no warrant.
    pub fn order(&mut self, intent: Intent) {
        self.issue(intent, Warrant::Free);
    }

    /// Orders a disruptive step under the incident's open reservation.
    pub fn order_with_permit(&mut self, intent: Intent) {
        let permit = self.incident.as_ref().and_then(|i| Permit::from_reservation(self.rules, i));
        if let Some(permit) = permit {
            self.issue(intent, Warrant::Permit(permit));
        }
    }

    /// Orders a step that needs the proof of off, which it consumes.
    pub fn order_with_proof(&mut self, intent: Intent, proof: ProvenOff<R>) {
        self.issue(intent, Warrant::Proof(proof));
    }

    fn issue(&mut self, intent: Intent, warrant: Warrant<R>) {
        let target = self.target(intent);
        let (now, step_ms) = (self.now.elapsed, self.world.limits.step_ms);
        let pause = self.world.limits.retry_ms;
        let Some(incident) = &mut self.incident else { return };
        // What just failed is not tried again in the same breath: an API that refuses would be asked hundreds of times a second.
        if let Some(at) = incident.failed_at.filter(|at| now.since(*at) < pause && incident.failed_step == Some(intent))
        {
            self.wake_at(at.plus(pause));
            return;
        }
        incident.failed_at = None;
        let step = StepId((incident.id.0 << 16) | u64::from(incident.steps_issued));
        if let Some(command) = Command::new(step, incident.id, target, intent, warrant) {
            incident.steps_issued = incident.steps_issued.saturating_add(1);
            incident.tries = incident.tries.saturating_add(1);
            let deadline = now.plus(step_ms + self.world.limits.release_ms);
            incident.running = Some(Running { step, intent, issued_at: now, deadline });
            self.out.commands.push(command);
            self.stop_waiting();
            self.wake_at(deadline);
        }
    }

    fn target(&self, intent: Intent) -> Target {
        let limits = &self.world.limits;
        let slow = matches!(intent, Intent::LastLook { slow_bmc: true });
        let spare = match intent {
            Intent::Promote(spare) => self.world.host(spare).map(|h| h.machine),
            _ => None,
        };
        Target {
            host: self.host.id,
            name: self.host.name.clone(),
            cluster: self.host.cluster,
            machine: self.host.machine,
            linked: self.linked(),
            found_off: self.incident.as_ref().is_some_and(|i| i.fence.found_off),
            network: self.host.assessment.network,
            outlets_off: self.incident.as_ref().is_some_and(|i| i.fence.outlets_off),
            on_left: self.incident.as_ref().and_then(|i| i.fence.our_on),
            boot_before: self.incident.as_ref().and_then(|i| i.boot_before),
            disk: self.host.disk.clone(),
            spare_machine: spare,
            effect_ms: limits.effect_ms,
            off_gap_ms: limits.off_gap_ms,
            found_off_gap_ms: limits.found_off_gap_ms,
            release_ms: limits.release_ms,
            last_look_ms: if slow { limits.last_look_slow_ms } else { limits.last_look_ms },
            action_spacing_ms: limits.action_spacing_ms,
        }
    }

    /// Counts a disruptive action before its effect (rules 13, 14).
    pub fn acted(&mut self, rung: crate::world::incident::Rung) {
        self.acted.push(Change::Acted { host: self.host.id, rung, at: self.now.elapsed });
    }

    /// Closes the case: what differs becomes changes.
    #[must_use]
    pub fn close(mut self) -> Outcome<R> {
        let mut changes = self.acted;
        if let Some(site) = self.site.filter(|s| *s != self.world.site) {
            changes.push(Change::Site(Box::new(site)));
        }
        if let Some(cluster) = self.cluster.filter(|c| self.world.clusters.get(&c.id) != Some(c)) {
            changes.push(Change::Cluster(Box::new(cluster)));
        }
        for (id, domain) in self.domains {
            if self.world.domains.get(&id) != Some(&domain) {
                changes.push(Change::Domain(Box::new(domain)));
            }
        }
        changes.extend(self.versions.into_values().map(|v| Change::Version(Box::new(v))));
        for (id, host) in self.others {
            if self.world.hosts.get(&id) != Some(&host) {
                changes.push(Change::Host(Box::new(host)));
            }
        }
        changes.extend(self.other_incidents.into_values().map(|i| Change::Incident(Box::new(i))));
        if self.host != *self.before {
            let only_assessment = Host { assessment: self.before.assessment, ..self.host.clone() } == *self.before;
            changes.push(if only_assessment {
                Change::Assessed { host: self.host.id, assessment: self.host.assessment }
            } else {
                Change::Host(Box::new(self.host))
            });
        }
        if let Some(ended) = self.ended {
            changes.push(Change::Ended(Box::new(ended)));
        }
        if let Some(incident) = self.incident
            && self.incident_before != Some(&incident)
        {
            changes.push(Change::Incident(Box::new(incident)));
        }
        if let Some(at) = self.wake_at {
            self.out.wakeups.push(Wakeup { target: WakeTarget::Host(self.before.id), at });
        }
        self.out.changes = changes;
        self.out
    }

    /// The cluster's number, for tallies.
    #[must_use]
    pub fn cluster_id(&self) -> Option<ClusterId> {
        self.host.cluster
    }
}

/// An incident that has just opened.
fn fresh_incident(
    id: IncidentId,
    host: HostId,
    diagnosis: Diagnosis,
    boot_before: Option<BootId>,
    now: Now,
) -> Incident {
    Incident {
        id,
        purpose: Purpose::Heal,
        host,
        opened_at: now.elapsed,
        opened_wall_ms: now.wall_ms,
        diagnosis,
        rungs: Vec::new(),
        rung: 0,
        phase: Phase::Suspected,
        phase_since: now.elapsed,
        running: None,
        wait: None,
        steps_issued: 0,
        tries: 0,
        failed_at: None,
        failed_step: None,
        cycles: 0,
        soft_rebooted: false,
        reservation: None,
        fence: Fence::default(),
        proof: None,
        released: false,
        identity_removed: false,
        boot_before,
        booted_at: None,
        ready_since: None,
        job: None,
        installed: false,
        progress_at: None,
        early_report: None,
        ticket_at: None,
        ticket_open: false,
        spare: None,
        alarmed: false,
        approval: None,
        denied: false,
        ending: None,
        end: None,
        last_word: now.elapsed,
        timings: Timings { suspected: Some(now.elapsed), ..Timings::default() },
        blocked_ms: Vec::new(),
    }
}

/// Ends a wait and adds its time to the rule that it waited for.
fn settle_wait(incident: &mut Incident, now: Elapsed) {
    let Some(wait) = incident.wait.take() else { return };
    let Some(rule) = wait.why.rule else { return };
    let span = now.since(wait.since);
    match incident.blocked_ms.iter_mut().find(|(r, _)| *r == rule) {
        Some((_, total)) => *total += span,
        None => incident.blocked_ms.push((rule, span)),
    }
}
