//! Faults and people: what happens to the site from outside.

use super::*;

impl<R: Rules> Simulation<R> {
    pub(super) fn next_fault(&mut self) {
        let Some(mut generator) = self.generator.take() else { return };
        let at = self.reality.at;
        if let Some((fault, host)) = generator.draw(&self.reality) {
            self.inject(fault, host);
        }
        let next = generator.next_after(at);
        self.generator = Some(generator);
        self.push(next, Happening::NextFault);
    }

    pub(super) fn inject(&mut self, fault: Fault, host: Option<HostId>) {
        let at = self.reality.at;
        if self.transcript.is_some() {
            let cure = fault.cure();
            match host {
                Some(host) => self.say(host, "fault", &format!("{} (cured by {cure:?})", fault.name())),
                None => self.say_site("fault", fault.name()),
            }
        }
        *self.ledger.stats.faults.entry(fault.name()).or_insert(0) += 1;
        let was_healthy = host.is_some_and(|host| self.reality.healthy(host));
        match fault {
            Fault::Killed { down_ms } => self.kill(self.owner(), down_ms),
            Fault::Stopped { lasts_ms } => self.stop(self.owner(), lasts_ms),
            Fault::ClockStepped { by_ms } => {
                let owner = self.owner();
                self.appliances[owner].wall_off_ms += by_ms;
                self.interrupted(owner, Interruption::ClockStepped(by_ms));
                if by_ms.unsigned_abs() > self.appliances[owner].world.limits.clock_apart_ms {
                    self.void_evidence(owner, at);
                }
            }
            Fault::Starved { .. } => {
                let owner = self.owner();
                self.appliances[owner].starved += 1;
                self.interrupted(owner, Interruption::Stopped(2_500));
                self.void_evidence(owner, at);
                self.reality.dirty.extend(self.names.keys().copied());
            }
            Fault::StoreFails { .. } => self.store.broken += 1,
            Fault::TornWrite => self.store.torn = true,
            Fault::SitePower { lasts_ms } => {
                self.kill(self.owner(), lasts_ms + 60 * SECOND);
                crate::inject::begin(&mut self.reality, &fault, host);
            }
            _ => crate::inject::begin(&mut self.reality, &fault, host),
        }
        for checker in &mut self.checkers.0 {
            let injected = crate::watch::Injected { at, fault: &fault, host, was_healthy };
            self.breaches.extend(checker.faulted(&injected, &self.reality));
        }
        if let Some(span) = crate::inject::lasts(&fault) {
            self.next_end += 1;
            let number = self.next_end;
            self.ends.insert(number, (fault, host));
            self.push(at + span, Happening::Ends(number));
        }
        self.tell_cmdb(&fault, host, true);
    }

    pub(super) fn end_fault(&mut self, number: u64) {
        let Some((fault, host)) = self.ends.remove(&number) else { return };
        match fault {
            Fault::StoreFails { .. } => self.store.broken = self.store.broken.saturating_sub(1),
            Fault::Starved { .. } => {
                for appliance in &mut self.appliances {
                    appliance.starved = appliance.starved.saturating_sub(1);
                }
                self.reality.dirty.extend(self.names.keys().copied());
            }
            _ => crate::inject::end(&mut self.reality, &fault, host),
        }
        if self.transcript.is_some() {
            match host {
                Some(host) => self.say(host, "over", fault.name()),
                None => self.say_site("over", fault.name()),
            }
        }
        self.tell_cmdb(&fault, host, false);
    }

    /// What the CMDB says reaches the loop as configuration.
    pub(super) fn tell_cmdb(&mut self, fault: &Fault, host: Option<HostId>, begins: bool) {
        let (Fault::CmdbOther { .. }, Some(host)) = (fault, host) else { return };
        let owner = self.owner();
        let at = self.appliances[owner].now(self.reality.at).elapsed;
        let state = if begins {
            healing::world::host::CmdbState::Other
        } else {
            healing::world::host::CmdbState::InService { at }
        };
        let event = Event::Config(healing::event::Config::Cmdb { host, state });
        self.push(self.reality.at, Happening::Order(owner, Box::new(event)));
    }

    pub(super) fn act(&mut self, act: Act) {
        let at = self.reality.at;
        let owner = self.owner();
        let act = match act {
            Act::Decide(page) => {
                let Some(mut person) = self.person.take() else { return };
                let acts = person.react(at, &page, &self.appliances[owner].world, &self.reality);
                self.person = Some(person);
                for (when, act) in acts {
                    self.push(when, Happening::Act(Box::new(act)));
                }
                return;
            }
            act => act,
        };
        *self.ledger.stats.operator.entry(act.name()).or_insert(0) += 1;
        match act {
            Act::Order(order) => {
                if self.transcript.is_some() {
                    self.say_site("person", &format!("{order:?}"));
                }
                if self.appliances[owner].acts() {
                    self.handle(owner, &Event::Operator(order));
                } else {
                    // The page does not load; tried again in a minute.
                    self.push(at + 60 * SECOND, Happening::Act(Box::new(Act::Order(order))));
                }
            }
            Act::Repair(host) => {
                self.say(host, "person", "repairs the machine and its BMC");
                crate::inject::repair(&mut self.reality, host);
                let wrong = self.appliances[owner]
                    .world
                    .hosts
                    .get(&host)
                    .is_some_and(|h| h.link == healing::world::host::Link::Mismatch);
                if wrong && self.appliances[owner].acts() {
                    let link = healing::world::host::Link::Linked;
                    self.handle(owner, &Event::Config(healing::event::Config::Link { host, link }));
                }
            }
            Act::PullPlug(host) => {
                self.say(host, "person", "switches it off at the machine");
                crate::inject::pull_plug(&mut self.reality, host);
            }
            Act::Decide(_) => {}
        }
    }
}
