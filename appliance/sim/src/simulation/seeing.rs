//! What an appliance gets to see, and when it looks.

use super::*;

impl<R: Rules> Simulation<R> {
    pub(super) fn face(&mut self, app: usize, host: HostId) {
        let at = self.reality.at;
        let appliance = &mut self.appliances[app];
        let outlook = appliance.outlook(&self.reality, host);
        let now = appliance.now(at);
        let Some(watched) = appliance.watched.get_mut(&host) else { return };
        if watched.outlook == outlook {
            return;
        }
        watched.face(outlook, &appliance.world.limits, now);
        self.look(app, host);
    }

    /// Looks at a host now: brings its evidence up, tells the loop if there is news, and plans the next look.
    pub(super) fn look(&mut self, app: usize, host: HostId) {
        let at = self.reality.at;
        if self.bring_up(app, host) {
            self.tell(app, host, false);
        }
        self.plan_look(app, host, at);
    }

    pub(super) fn plan_look(&mut self, app: usize, host: HostId, at: WorldTime) {
        let appliance = &mut self.appliances[app];
        let now = appliance.now(at);
        let clock = appliance.clock;
        let Some(watched) = appliance.watched.get_mut(&host) else { return };
        let next = watched.next_look(&appliance.world.limits, now);
        if next == watched.planned && next.is_some_and(|n| n > now.elapsed) {
            return;
        }
        watched.planned = next;
        watched.generation += 1;
        let generation = watched.generation;
        if let Some(next) = next {
            self.push(clock.world(next), Happening::Look(app, host, generation));
        }
    }

    /// Brings a host's evidence up to now; whether the loop has to hear of it.
    pub(super) fn bring_up(&mut self, app: usize, host: HostId) -> bool {
        let at = self.reality.at;
        let appliance = &mut self.appliances[app];
        let now = appliance.now(at);
        let Some(watched) = appliance.watched.get_mut(&host) else { return false };
        watched.bring_up(&appliance.world.limits, now)
    }

    /// Tells the loop what is seen of a host: a fact, or the host's timer.
    pub(super) fn tell(&mut self, app: usize, host: HostId, timer: bool) {
        let at = self.reality.at;
        let appliance = &mut self.appliances[app];
        let now = appliance.now(at);
        let mut said = None;
        let mut counts = false;
        if let Some(watched) = appliance.watched.get_mut(&host) {
            let (before, after) = (watched.reported, watched.evidence.assessment);
            watched.reported = after;
            if before != after {
                if self.transcript.is_some() {
                    said = Some(transcript::difference(&before, &after));
                }
                counts = before.network != after.network || before.bmc != after.bmc;
                appliance.count(host, &before, &after, now.elapsed);
            }
        }
        if let Some(words) = said.filter(|w| !w.is_empty()) {
            self.say(host, "sees", &words);
        }
        if counts {
            self.check_sight(app);
            if !self.appliances[app].bmcs_dumb.is_empty() {
                self.push(at + 10 * 60 * SECOND + 1, Happening::CheckSight(app));
            }
        }
        let Some(view) = self.appliances[app].view(&self.reality, host) else { return };
        let event = if timer { Event::Wake { host, view } } else { Event::Fact { host, view } };
        self.handle(app, &event);
    }

    pub(super) fn wake(&mut self, app: usize, target: WakeTarget, generation: u64) {
        if self.appliances[app].timers.get(&target).is_none_or(|(g, _)| *g != generation) {
            return;
        }
        if !self.appliances[app].acts() {
            return;
        }
        self.appliances[app].timers.remove(&target);
        match target {
            WakeTarget::Host(host) => {
                self.bring_up(app, host);
                self.tell(app, host, true);
                self.plan_look(app, host, self.reality.at);
            }
            WakeTarget::Site => {
                let sight = self.appliances[app].sight(&self.reality, None);
                self.handle(app, &Event::Sight(Box::new(sight)));
            }
        }
    }

    /// Tells the loop when the verdict on own sight, or on a cluster's API, has changed.
    pub(super) fn check_sight(&mut self, app: usize) {
        if !self.appliances[app].acts() {
            return;
        }
        let clusters: Vec<Option<ClusterId>> =
            std::iter::once(None).chain(self.reality.clusters.keys().copied().map(Some)).collect();
        for cluster in clusters {
            let appliance = &mut self.appliances[app];
            let now = appliance.now(self.reality.at);
            let sight = appliance.sight(&self.reality, cluster);
            let limits = &appliance.world.limits;
            let verdict = match cluster {
                None => sight.check(limits, &[], now).is_ok(),
                Some(_) => !sight.api_unreachable(limits, now),
            };
            if appliance.sight_told.insert(cluster, verdict).unwrap_or(true) != verdict {
                if self.transcript.is_some() {
                    let words = match (cluster, verdict) {
                        (None, true) => "own sight is good again".to_owned(),
                        (None, false) => format!("own sight is in doubt: {:?}", sight.check(limits, &[], now).err()),
                        (Some(id), true) => format!("the API of cluster-{} answers again", id.0),
                        (Some(id), false) => format!("the API of cluster-{} is unreachable", id.0),
                    };
                    self.say_site("sees", &words);
                }
                self.handle(app, &Event::Sight(Box::new(sight)));
            }
        }
    }
}
