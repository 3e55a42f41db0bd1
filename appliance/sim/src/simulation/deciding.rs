//! News, decisions, their commit, and what they let out.

use super::*;

impl<R: Rules> Simulation<R> {
    /// An installer repeats its last word until it is acknowledged, which happens after the commit.
    pub(super) fn retell(&mut self, host: HostId, news: News) {
        let News::Install(job, _) = news else { return };
        let awaited =
            self.world().incident_of(host).is_some_and(|i| i.job == Some(job) && i.phase == Phase::Installing);
        let speaks = self.reality.machine_installs(host, job);
        if awaited && speaks {
            self.machine_news(host, news);
        }
    }

    pub(super) fn machine_news(&mut self, host: HostId, news: News) {
        if let News::Install(_, report) = news
            && report != healing::event::InstallReport::Progress
        {
            self.push(self.reality.at + 15 * SECOND, Happening::Retell(host, news));
        }
        for app in 0..self.appliances.len() {
            if !self.appliances[app].acts() || !self.reality.path_to(host) {
                continue;
            }
            match news {
                News::AskedToBoot => {
                    let appliance = &mut self.appliances[app];
                    let now = appliance.now(self.reality.at);
                    if let Some(watched) = appliance.watched.get_mut(&host) {
                        let seen = healing::signal::Seen::AskedToBoot;
                        let source = healing::signal::Source::BootRequest;
                        watched.glimpse(source, seen, &appliance.world.limits, now);
                    }
                    self.look(app, host);
                }
                News::Install(job, report) => {
                    use healing::event::InstallReport;
                    if matches!(report, InstallReport::Installed | InstallReport::Proven { .. }) {
                        // The gate's own durable record: a ticket installs once.
                        self.reality.tickets.remove(&host);
                    }
                    self.bring_up(app, host);
                    if self.transcript.is_some() {
                        self.say(host, "installer", &format!("{report:?}"));
                    }
                    if let Some(view) = self.appliances[app].view(&self.reality, host) {
                        self.handle(app, &Event::Install { host, job, report, view });
                    }
                }
            }
        }
    }

    /// Decides an event, commits what it changes, and only then lets commands, timers and words out.
    pub(super) fn handle(&mut self, app: usize, event: &Event) {
        let at = self.reality.at;
        if self.appliances[app].epoch < self.store.epoch {
            self.step_down(app);
            return;
        }
        let now = self.appliances[app].now(at);
        let outcome = decide(self.rules, &self.appliances[app].world, event, now);
        self.ledger.stats.decisions += 1;
        if std::mem::take(&mut self.store.torn) && !matches!(event, Event::Started { .. }) {
            // The group was half written when the process died: nothing of it is there after the restart.
            self.kill(app, 20 * SECOND);
            return;
        }
        if self.passes(app, Point::BeforeCommit, event) {
            return;
        }
        if self.store.broken > 0 && !self.commit_without_store(app, event) {
            return;
        }
        let before = self.before(app, &outcome);
        let appliance = &mut self.appliances[app];
        for change in &outcome.changes {
            appliance.world.apply(change);
        }
        appliance.committed = now.elapsed;
        self.let_out(app, event, outcome, now, before);
    }

    /// While the store cannot be written only the reserve takes groups; whether this one found room.
    pub(super) fn commit_without_store(&mut self, app: usize, event: &Event) -> bool {
        let told = matches!(event, Event::Store { healthy: false } | Event::Started { .. });
        if !told && !std::mem::replace(&mut self.store.told, true) {
            // The commit failed: what was decided is dropped, and the loop says so to itself.
            self.handle(app, &Event::Store { healthy: false });
            self.push(self.reality.at + 5 * SECOND, Happening::StoreProbe(app));
            return false;
        }
        self.store.reserve = self.store.reserve.saturating_sub(1);
        self.store.reserve > 0
    }

    pub(super) fn probe_store(&mut self, app: usize) {
        if !self.appliances[app].acts() {
            return;
        }
        if self.store.broken > 0 {
            self.push(self.reality.at + 5 * SECOND, Happening::StoreProbe(app));
            return;
        }
        self.store.reserve = RESERVE_GROUPS;
        self.store.told = false;
        self.handle(app, &Event::Store { healthy: true });
    }

    pub(super) fn before(&self, app: usize, outcome: &Outcome<R>) -> Before {
        let mut before = Before::default();
        if self.checkers.0.is_empty() {
            return before;
        }
        let world = &self.appliances[app].world;
        for change in &outcome.changes {
            match change {
                Change::Host(host) => {
                    before.hosts.entry(host.id).or_insert_with(|| world.hosts.get(&host.id).cloned());
                }
                Change::Assessed { host, .. } | Change::RemoveHost(host) => {
                    before.hosts.entry(*host).or_insert_with(|| world.hosts.get(host).cloned());
                }
                Change::Incident(incident) | Change::Ended(incident) => {
                    let known = || world.incidents.get(&incident.id).cloned();
                    before.incidents.entry(incident.id).or_insert_with(known);
                }
                Change::Cluster(cluster) => {
                    before.clusters.entry(cluster.id).or_insert_with(|| world.clusters.get(&cluster.id).cloned());
                }
                Change::Site(_) => before.site = Some(world.site.clone()),
                Change::Limits { .. }
                | Change::Pool(_)
                | Change::Domain(_)
                | Change::Version(_)
                | Change::Acted { .. } => {}
            }
        }
        before
    }

    pub(super) fn let_out(&mut self, app: usize, event: &Event, outcome: Outcome<R>, now: Now, before: Before) {
        let at = self.reality.at;
        let ordered: Vec<Ordered> = outcome.commands.iter().map(describe).collect();
        self.ledger.decided(at, &outcome.changes, &outcome.notices, &self.reality, &self.appliances[app].clock);
        self.show(app, event, &outcome, &ordered, now, &before);
        if self.passes(app, Point::Committed, event) {
            return;
        }
        for change in &outcome.changes {
            self.attend(app, change, now);
        }
        for step in &outcome.cancels {
            let awaits = self.appliances[app].runs.get(step).map(|d| d.awaits);
            if let Some(awaits) = awaits {
                self.observe(app, *step, awaits, Observation::Cancel);
            }
        }
        let life = self.appliances[app].life;
        for wakeup in &outcome.wakeups {
            self.set_timer(app, wakeup.target, wakeup.at);
        }
        for command in outcome.commands {
            if self.appliances[app].life != life || !self.appliances[app].up {
                return;
            }
            self.begin(app, command);
        }
        if let Some(mut person) = self.person.take() {
            for notice in outcome.notices.iter().filter(|n| n.loudness == Loudness::Page) {
                for (when, act) in person.paged(at, notice, &self.appliances[app].world, &self.reality) {
                    self.push(when, Happening::Act(Box::new(act)));
                }
            }
            self.person = Some(person);
        }
    }

    pub(super) fn show(
        &mut self,
        app: usize,
        event: &Event,
        outcome: &Outcome<R>,
        ordered: &[Ordered],
        now: Now,
        before: &Before,
    ) {
        if self.transcript.is_some() {
            for notice in &outcome.notices {
                let why = &notice.explanation;
                let rule = why.rule.map_or_else(String::new, |r| format!(" [{r}]"));
                let words = format!("{}: {}{rule}", why.code, why.sentence);
                let verb = if notice.loudness == Loudness::Page { "pages" } else { "says" };
                match notice.host {
                    Some(host) => self.say(host, verb, &words),
                    None => self.say_site(verb, &words),
                }
            }
            for order in ordered {
                self.say(order.host, "orders", &transcript::intent(&order.intent));
            }
            for change in &outcome.changes {
                if let Change::Ended(incident) = change {
                    let words = format!("incident {} {:?}", incident.id.0, incident.end);
                    self.say(incident.host, "ends", &words);
                }
            }
        }
        let appliance = &self.appliances[app];
        let decided = Decided {
            at: self.reality.at,
            now,
            appliance: appliance.id,
            before,
            world: &appliance.world,
            event,
            changes: &outcome.changes,
            ordered,
            cancels: &outcome.cancels,
            notices: &outcome.notices,
            wakeups: &outcome.wakeups,
        };
        for checker in &mut self.checkers.0 {
            self.breaches.extend(checker.decided(&decided, &self.reality));
        }
    }

    /// A host with an incident is watched closely; a new host gets eyes.
    pub(super) fn attend(&mut self, app: usize, change: &Change, now: Now) {
        let Change::Host(host) = change else { return };
        if host.history.was_spare || host.role == healing::world::host::Role::Spare {
            self.reality.serves_as(host.id, host.role, host.cluster);
        }
        let seed = self.seed;
        let appliance = &mut self.appliances[app];
        match appliance.watched.get_mut(&host.id) {
            Some(watched) => {
                let network = host.role != healing::world::host::Role::Spare;
                if network && !watched.on_network {
                    watched.on_network = true;
                    appliance.on_network += 1;
                }
                watched.attend(host.incident.is_some(), now);
                let at = self.reality.at;
                self.plan_look(app, host.id, at);
            }
            None => {
                let salt = crate::prober::mix(seed, u64::from(host.id.0), u64::from(appliance.id));
                appliance.watched.insert(host.id, Watched::new(salt, now, host.assessment));
                self.reality.dirty.insert(host.id);
            }
        }
    }

    pub(super) fn set_timer(&mut self, app: usize, target: WakeTarget, when: Elapsed) {
        self.order += 1;
        let generation = self.order;
        let at = self.reality.at;
        let appliance = &mut self.appliances[app];
        let when = appliance.clock.world(when).max(at + 1);
        appliance.timers.insert(target, (generation, when));
        self.push(when, Happening::Wake(app, target, generation));
    }
}
