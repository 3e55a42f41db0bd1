//! Steps under way: calls, effects, replies and results.

use super::*;

impl<R: Rules> Simulation<R> {
    pub(super) fn begin(&mut self, app: usize, command: Command<R>) {
        let at = self.reality.at;
        let now = self.appliances[app].now(at);
        let (step, incident, host) = (command.step, command.incident, command.target.host);
        let intent = command.intent();
        let run = StepRun::new(self.rules, command, now);
        let lease_at = self.reality.nodes.get(&host).map_or(0, |n| n.lease_at(at));
        let driven = Driven { run, step, incident, host, intent, awaits: 0, lease_at };
        self.appliances[app].runs.insert(step, driven);
        self.observe(app, step, 0, Observation::Begin);
    }

    /// Gives a step what it waits for, and does what it asks next.
    pub(super) fn observe(&mut self, app: usize, step: StepId, awaits: u64, observation: Observation) {
        let at = self.reality.at;
        let appliance = &mut self.appliances[app];
        if !appliance.up {
            return;
        }
        if let Some(until) = appliance.stopped_until {
            // Nothing runs now; what came meanwhile is there when it goes on.
            if observation == Observation::Timer {
                self.push(until + 2, Happening::StepTimer(app, step, awaits));
            }
            return;
        }
        let now = appliance.now(at);
        let Some(driven) = appliance.runs.get_mut(&step).filter(|d| d.awaits == awaits) else { return };
        let mut next = perform(&mut driven.run, &observation, now);
        if let NextCall::Call(call) = &next
            && writes_power(call)
            && self.rules.enforces(Rule(46))
            && !self.owns_site(app)
        {
            // The lease is read again before each power write: without it nothing is sent.
            if let Some(driven) = self.appliances[app].runs.get_mut(&step) {
                next = perform(&mut driven.run, &Observation::Cancel, now);
                if matches!(&next, NextCall::Call(call) if writes_power(call)) {
                    // A power-on is never cancelled; it waits for the lease like everything else.
                    next = NextCall::WaitUntil(now.elapsed.plus(SECOND));
                }
            }
        }
        let Some(driven) = self.appliances[app].runs.get_mut(&step) else { return };
        driven.awaits += 1;
        let awaits = driven.awaits;
        match next {
            NextCall::Call(call) => {
                let sent = Sent {
                    appliance: app,
                    life: self.appliances[app].life,
                    step,
                    incident: self.appliances[app].runs[&step].incident,
                    host: self.appliances[app].runs[&step].host,
                    intent: self.appliances[app].runs[&step].intent,
                    call,
                    at,
                    awaits,
                    lease_at: self.appliances[app].runs[&step].lease_at,
                };
                let arrives = at + self.way_there(&sent);
                let during = sent.clone();
                self.push(arrives, Happening::Effect(Box::new(sent)));
                self.passes_call(app, Point::Sent, &during);
            }
            NextCall::WaitUntil(when) => {
                let when = self.appliances[app].clock.world(when).max(at + 1);
                self.push(when, Happening::StepTimer(app, step, awaits));
            }
            NextCall::Done(result) => self.step_done(app, step, result),
        }
    }

    pub(super) fn owns_site(&self, app: usize) -> bool {
        let id = self.appliances[app].id;
        self.reality.lease.is_some_and(|(holder, until)| holder == id && until > self.reality.at + 10 * SECOND)
    }

    pub(super) fn step_done(&mut self, app: usize, step: StepId, result: StepResult) {
        let at = self.reality.at;
        let Some(driven) = self.appliances[app].runs.remove(&step) else { return };
        if self.transcript.is_some() {
            let words = format!("{}: {}", transcript::intent(&driven.intent), transcript::result(&result));
            self.say(driven.host, "did", &words);
        }
        let finished = Finished {
            at,
            now: self.appliances[app].now(at),
            step,
            incident: driven.incident,
            host: driven.host,
            intent: driven.intent,
            result: &result,
        };
        for checker in &mut self.checkers.0 {
            self.breaches.extend(checker.finished_step(&finished, &self.reality));
        }
        let during = format!("{} of {}", transcript::intent(&driven.intent), self.name(driven.host));
        if self.point(app, Point::ResultReady, || during) {
            return;
        }
        self.bring_up(app, driven.host);
        let Some(view) = self.appliances[app].view(&self.reality, driven.host) else { return };
        self.note_reported(app, driven.host);
        let event =
            Event::StepDone { host: driven.host, incident: driven.incident, step, result: Box::new(result), view };
        self.handle(app, &event);
        self.plan_look(app, driven.host, at);
    }

    /// The loop hears the assessment with any event about the host.
    pub(super) fn note_reported(&mut self, app: usize, host: HostId) {
        let at = self.reality.at;
        let appliance = &mut self.appliances[app];
        let now = appliance.now(at);
        if let Some(watched) = appliance.watched.get_mut(&host) {
            let (before, after) = (watched.reported, watched.evidence.assessment);
            watched.reported = after;
            appliance.count(host, &before, &after, now.elapsed);
        }
    }

    pub(super) fn effect(&mut self, sent: Sent) {
        let at = self.reality.at;
        let life = (self.appliances[sent.appliance].life, self.appliances[sent.appliance].up);
        let now = self.appliances[sent.appliance].now(at);
        let truth_before = self.called_before(&sent);
        let (arrives, reply) = self.take_effect(&sent);
        let well = truth_before.was_healthy && truth_before.healthy_for_ms >= crate::tally::KNOWABLE_MS;
        self.ledger.called(at, &sent, truth_before.actual, well);
        if self.transcript.is_some() {
            let words = format!("{}: {}", transcript::call(&sent.call), transcript::reply(Some(&reply)));
            let target = match sent.call {
                Call::Bmc(host, _) => host,
                _ => sent.host,
            };
            self.say(target, "calls", &words);
        }
        let called = crate::watch::Called {
            at,
            now,
            appliance: self.appliances[sent.appliance].id,
            step: sent.step,
            incident: sent.incident,
            intent: sent.intent,
            target: sent.host,
            actual: truth_before.actual,
            call: sent.call,
            reply: Some(&reply),
            sent_at: self.appliances[sent.appliance].clock.elapsed(sent.at),
            was_healthy: truth_before.was_healthy,
            was_power: truth_before.was_power,
            world: &self.appliances[sent.appliance].world,
        };
        for checker in &mut self.checkers.0 {
            self.breaches.extend(checker.called(&called, &self.reality));
        }
        if life != (sent.life, true) {
            return;
        }
        let app = sent.appliance;
        let during = sent.clone();
        self.push(arrives, Happening::Reply(Box::new(sent), reply));
        self.passes_call(app, Point::Effected, &during);
    }

    pub(super) fn reply(&mut self, sent: &Sent, mut reply: Reply) {
        let app = sent.appliance;
        let appliance = &self.appliances[app];
        if appliance.life != sent.life || !appliance.up {
            return;
        }
        if let Some(until) = appliance.stopped_until {
            self.push(until + 1, Happening::Reply(Box::new(sent.clone()), reply));
            return;
        }
        if let Reply::Power(reading) = &mut reply {
            reading.at = appliance.clock.elapsed(self.reality.at);
        }
        self.observe(app, sent.step, sent.awaits, Observation::Reply(reply));
    }

    // ---- life of the appliance ----
}
