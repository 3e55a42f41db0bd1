//! The life of an appliance: start, stop, lease, store, crash points; and the transcript of all.

use super::*;

impl<R: Rules> Simulation<R> {
    pub(super) fn start(&mut self, app: usize, takes_over: bool) {
        let at = self.reality.at;
        let appliance = &mut self.appliances[app];
        if appliance.up && !takes_over {
            return;
        }
        let id = appliance.id;
        let taken = self.reality.lease.is_some_and(|(holder, until)| holder != id && at < until + TAKEOVER_MS);
        if taken && !takes_over {
            // The other one owns the site: it stands by.
            appliance.up = true;
            appliance.standby = true;
            appliance.life += 1;
            self.push(at + 10 * SECOND, Happening::StandBy(app));
            return;
        }
        self.open_store(app);
        self.store.told = false;
        let appliance = &mut self.appliances[app];
        appliance.up = true;
        appliance.standby = false;
        appliance.stopped_until = None;
        appliance.life += 1;
        // Running time goes on where the journal ends; down time counts zero.
        let resumed = if at == 0 { appliance.committed } else { appliance.committed.plus(1) };
        appliance.clock.delta = resumed.0.cast_signed() - at.cast_signed();
        appliance.clock.begun_at = at;
        self.store.epoch += 1;
        appliance.epoch = self.store.epoch;
        let (id, epoch, life) = (appliance.id, appliance.epoch, appliance.life);
        let until = at + LEASE_LENGTH_MS;
        self.reality.lease = Some((id, until));
        let lease_until = appliance.clock.elapsed(until);
        appliance.watch_all(&self.reality, self.seed);
        if at > 0 {
            self.ledger.stats.restarts += 1;
            self.say_site("starts", if takes_over { "the second appliance takes over" } else { "the appliance" });
        }
        let how = if takes_over { Interruption::TookOver } else { Interruption::Started };
        self.interrupted(app, how);
        self.handle(app, &Event::Started { restored: false, observe_only: false, corrupt: false, lease_until, epoch });
        self.push(at + LEASE_RENEW_MS, Happening::RenewLease(app, life));
        let hosts: Vec<HostId> = self.appliances[app].watched.keys().copied().collect();
        for host in hosts {
            self.look(app, host);
        }
        self.reality.dirty_sight = true;
        if self.store.broken > 0 {
            self.push(at + 5 * SECOND, Happening::StoreProbe(app));
        }
    }

    /// The process dies.
    pub(crate) fn kill(&mut self, app: usize, down_ms: Millis) {
        let at = self.reality.at;
        let appliance = &mut self.appliances[app];
        if !appliance.up {
            return;
        }
        appliance.up = false;
        appliance.life += 1;
        appliance.stopped_until = None;
        appliance.runs.clear();
        appliance.timers.clear();
        self.say_site("dies", &format!("the appliance, for {} s", down_ms / SECOND));
        self.interrupted(app, Interruption::Killed);
        self.push(at + down_ms, Happening::Start(app));
    }

    /// The process is stopped and goes on later.
    pub(crate) fn stop(&mut self, app: usize, lasts_ms: Millis) {
        let at = self.reality.at;
        let appliance = &mut self.appliances[app];
        if !appliance.acts() {
            return;
        }
        appliance.stopped_until = Some(at + lasts_ms);
        self.say_site("stops", &format!("the appliance is stopped for {} s", lasts_ms / SECOND));
        self.interrupted(app, Interruption::Stopped(lasts_ms));
        self.push(at + lasts_ms, Happening::Resume(app));
    }

    pub(super) fn resume(&mut self, app: usize) {
        let at = self.reality.at;
        let Some(since) = self.appliances[app].stopped_until.filter(|until| *until <= at) else { return };
        self.appliances[app].stopped_until = None;
        self.interrupted(app, Interruption::Stopped(0));
        self.void_evidence(app, since);
    }

    /// The loop noticed that it did not run, or that its clocks are apart: all evidence is void (rule 47).
    pub(crate) fn void_evidence(&mut self, app: usize, _since: WorldTime) {
        let at = self.reality.at;
        if !self.appliances[app].acts() {
            return;
        }
        if self.appliances[app].epoch < self.store.epoch {
            self.step_down(app);
            return;
        }
        let void = self.rules.enforces(Rule(47));
        let hosts: Vec<HostId> = self.appliances[app].watched.keys().copied().collect();
        let timers = &self.appliances[app].timers;
        let overdue: Vec<WakeTarget> = timers.iter().filter(|(_, (_, due))| *due <= at).map(|(t, _)| *t).collect();
        for host in &hosts {
            let appliance = &mut self.appliances[app];
            let now = appliance.now(at);
            let outlook = appliance.outlook(&self.reality, *host);
            let Some(watched) = appliance.watched.get_mut(host) else { continue };
            if void {
                watched.outlook = outlook;
                watched.void(now);
            } else {
                watched.face(outlook, &appliance.world.limits, now);
            }
        }
        self.say_site("resumes", "the loop did not run, or the clocks are apart");
        self.handle(app, &Event::Stalled { stalled_ms: 2_500 });
        // Timers that came due meanwhile come now, after the loop knows that it stood still.
        for target in overdue {
            if self.appliances[app].timers.get(&target).is_some_and(|(_, due)| *due <= at) {
                let soon = self.appliances[app].clock.elapsed(at + 1);
                self.set_timer(app, target, soon);
            }
        }
        for host in hosts {
            self.look(app, host);
        }
        self.reality.dirty_sight = true;
    }

    /// Another epoch owns the store: this process may decide nothing more.
    pub(super) fn step_down(&mut self, app: usize) {
        let appliance = &mut self.appliances[app];
        if appliance.standby {
            return;
        }
        appliance.standby = true;
        appliance.timers.clear();
        // Its executors are told to stop; what they would still send is stopped by the lease.
        let runs: Vec<(StepId, u64)> = appliance.runs.iter().map(|(step, d)| (*step, d.awaits)).collect();
        self.say_site("yields", "another appliance owns the site: standby");
        if self.rules.enforces(Rule(46)) {
            self.appliances[app].runs.clear();
        } else {
            for (step, awaits) in runs {
                self.push(self.reality.at + 1, Happening::StepTimer(app, step, awaits));
            }
        }
        self.push(self.reality.at + 10 * SECOND, Happening::StandBy(app));
    }

    pub(super) fn renew_lease(&mut self, app: usize, life: u64) {
        let at = self.reality.at;
        let appliance = &self.appliances[app];
        if appliance.life != life || !appliance.up {
            return;
        }
        if let Some(until) = appliance.stopped_until {
            self.push(until + 3, Happening::RenewLease(app, life));
            return;
        }
        if appliance.epoch < self.store.epoch {
            self.step_down(app);
            return;
        }
        let until = at + LEASE_LENGTH_MS;
        self.reality.lease = Some((appliance.id, until));
        let (until, epoch) = (appliance.clock.elapsed(until), appliance.epoch);
        self.handle(app, &Event::Lease { until, epoch });
        self.push(at + LEASE_RENEW_MS, Happening::RenewLease(app, life));
    }

    pub(super) fn stand_by(&mut self, app: usize) {
        let at = self.reality.at;
        if !self.appliances[app].standby {
            return;
        }
        let free = self.reality.lease.is_none_or(|(_, until)| at >= until + TAKEOVER_MS);
        if !free {
            self.push(at + 10 * SECOND, Happening::StandBy(app));
            return;
        }
        self.start(app, true);
    }

    /// What was committed last, by whichever appliance, is the world of the one that opens the store.
    pub(super) fn open_store(&mut self, app: usize) {
        let last = self.appliances.iter().position(|a| a.epoch == self.store.epoch).filter(|last| *last != app);
        if let Some(last) = last {
            self.appliances[app].world = self.appliances[last].world.clone();
            self.appliances[app].committed = self.appliances[last].committed;
        }
    }

    pub(super) fn interrupted(&mut self, app: usize, how: Interruption) {
        let (at, id) = (self.reality.at, self.appliances[app].id);
        for checker in &mut self.checkers.0 {
            self.breaches.extend(checker.interrupted(at, id, how, &self.reality));
        }
    }

    /// The loop's own way of counting points; whether the appliance was killed here.
    pub(super) fn passes(&mut self, app: usize, point: Point, event: &Event) -> bool {
        if self.crash.is_none() && self.passed.is_none() {
            return false;
        }
        let during = match event {
            Event::StepDone { host, result, .. } => {
                format!("result of {}: {}", self.name(*host), transcript::result(result))
            }
            Event::Fact { host, .. } => format!("fact of {}", self.name(*host)),
            Event::Wake { host, .. } => format!("timer of {}", self.name(*host)),
            Event::Install { host, report, .. } => format!("installer of {}: {report:?}", self.name(*host)),
            Event::Started { .. } => "start".to_owned(),
            Event::Sight(_) => "own sight".to_owned(),
            Event::Operator(order) => format!("order: {order:?}"),
            Event::Config(_) => "configuration".to_owned(),
            Event::Stalled { .. } => "stall".to_owned(),
            Event::Store { .. } => "store".to_owned(),
            Event::Lease { .. } => "lease".to_owned(),
        };
        self.point(app, point, || during)
    }

    pub(super) fn passes_call(&mut self, app: usize, point: Point, sent: &Sent) -> bool {
        let during = format!("{} of {}", transcript::call(&sent.call), self.name(sent.host));
        self.point(app, point, || during)
    }

    pub(super) fn point(&mut self, app: usize, point: Point, during: impl FnOnce() -> String) -> bool {
        let number = self.points;
        self.points += 1;
        if let Some(passed) = &mut self.passed {
            passed.push(Passed { number, point, at: self.reality.at, during: during() });
        }
        if self.crash.is_some_and(|c| c.point == number) {
            let down = self.crash.map_or(0, |c| c.down_ms);
            self.kill(app, down);
            return true;
        }
        false
    }

    pub(super) fn name(&self, host: HostId) -> String {
        self.names.get(&host).cloned().unwrap_or_else(|| format!("host-{}", host.0))
    }

    pub(super) fn say(&mut self, host: HostId, verb: &str, what: &str) {
        let at = self.reality.at;
        if let Some(transcript) = &mut self.transcript {
            let name = self.names.get(&host).map_or("?", String::as_str);
            transcript.say(at, name, verb, what);
        }
    }

    pub(crate) fn say_site(&mut self, verb: &str, what: &str) {
        let at = self.reality.at;
        if let Some(transcript) = &mut self.transcript {
            transcript.say(at, "site", verb, what);
        }
    }

    // ---- faults and people ----
}
