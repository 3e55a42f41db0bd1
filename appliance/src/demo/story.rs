//! One run of the demo: the world is started, the server on it, something breaks, and what follows is shown and recorded.

use super::api::kinds::POD;
use super::cable::Cable;
use super::console::{self, Word};
use super::folder::Folder;
use super::scenario::{Goal, Scenario};
use super::server;
use super::table::{self, Around, Style};
use super::world::{NoWorld, World};
use crate::cli::output::talk;
use crate::server::chronicle::{Chronicle, Line};
use crate::server::{NoServer, Server};
use crate::store::JournalError;
use healing::id::HostId;
use healing::policy::{Limits, Policy, Site};
use serde::Serialize;
use std::collections::VecDeque;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Until everything is seen, linked and armed.
const READY_LIMIT: Duration = Duration::from_secs(120);
/// Between two looks at the records.
const LOOK: Duration = Duration::from_millis(250);
/// Sentences shown under the table.
const TOLD_SHOWN: usize = 6;

/// What is asked of a run.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Hosts that carry Nodes.
    pub hosts: u32,
    /// Spares beside them.
    pub spares: u32,
    /// What goes wrong by itself.
    pub scenario: Option<Scenario>,
    /// Ends by itself at this goal.
    pub until: Option<Goal>,
    /// No table and no commands.
    pub headless: bool,
    /// Ends without the goal after this.
    pub limit: Duration,
}

/// Why a run stopped before its end.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// No folder.
    #[error("no temporary folder can be made: {0}; set TMPDIR to one that can be written")]
    Folder(io::Error),
    /// No world.
    #[error(transparent)]
    World(#[from] NoWorld),
    /// No server.
    #[error(transparent)]
    Server(#[from] NoServer),
    /// No records.
    #[error(transparent)]
    Records(#[from] JournalError),
    /// No signals.
    #[error("signals cannot be caught: {0}")]
    Signal(io::Error),
    /// It never came up.
    #[error("after {0} s the rack is not ready to be broken: {1}; the machine may be too busy")]
    NotReady(u64, String),
}

/// What a run came to.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The story.
    pub scenario: Option<&'static str>,
    /// The policy it ran under.
    pub policy: &'static str,
    /// The goal was reached; of a run without a goal, it ended by order.
    pub reached: bool,
    /// All incidents.
    pub incidents: Vec<Line>,
    /// Power commands that each BMC received, of those that received any.
    pub power_commands: Vec<PowerCommands>,
    /// Working hosts whose power was cut: never anything but zero.
    pub working_hosts_cut: u32,
    /// What people were told, in order.
    #[serde(skip)]
    pub timeline: Vec<String>,
}

/// What one BMC was told to do.
#[derive(Debug, Clone, Serialize)]
pub struct PowerCommands {
    /// Whose.
    pub host: String,
    /// Hard offs.
    pub offs: u64,
    /// Ons.
    pub ons: u64,
    /// Everything else that changes power.
    pub others: u64,
}

fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Runs the demo to its goal, to its limit, or until a person ends it.
///
/// # Errors
/// It could not be started, or its records could not be read.
pub async fn run(asked: Asked) -> Result<Outcome, Stopped> {
    // Caught before there is a folder: one that comes during the start is heard when it is over, and nothing stays behind.
    let signals = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
    let [interrupted, terminated] = signals;
    let mut ordered = (interrupted.map_err(Stopped::Signal)?, terminated.map_err(Stopped::Signal)?);
    let folder = Folder::temporary().map_err(Stopped::Folder)?;
    let stop = CancellationToken::new();
    let world = World::start(asked.hosts, asked.spares, folder.path(), stop.clone()).await?;
    for line in policy_lines(&server::limits()) {
        talk(&line);
    }
    let server = Box::pin(server::start(&world.handover, Cable::Here(world.segment.clone()), folder.path())).await?;
    talk(&format!(
        "{} hosts and {} spares on loopback; KUBECONFIG={}",
        asked.hosts,
        asked.spares,
        world.handover.kubeconfig.display()
    ));
    talk("not exercised here: the kubelet's TLS health and the held connection, the node agent, the installer");
    let chronicle = Chronicle::of(&folder.path().join("data"));
    let mut run =
        Run { asked, world, server, chronicle, told: VecDeque::new(), timeline: Vec::new(), began_wall_ms: wall_ms() };
    let ended = run.follow(&mut ordered).await;
    let outcome = ended.map(|reached| run.outcome(reached));
    run.server.stop().await;
    stop.cancel();
    outcome
}

/// What differs from a site's policy, each number with its rule.
pub fn policy_lines(lab: &Limits) -> Vec<String> {
    let site = Limits::default();
    let site = Policy::<Site>::check(site).map(|policy| policy.limits().clone()).unwrap_or_default();
    let mut lines = vec!["lab policy, for emulated hosts only; a site waits longer:".to_owned()];
    for info in Limits::TABLE {
        let (here, there) = ((info.get)(lab), (info.get)(&site));
        if here != there {
            lines.push(format!("  {} = {here} (a site: {there}; rule {})", info.key, info.rule));
        }
    }
    lines
}

struct Run {
    asked: Asked,
    world: World,
    server: Server,
    chronicle: Chronicle,
    told: VecDeque<String>,
    timeline: Vec<String>,
    began_wall_ms: i64,
}

impl Run {
    async fn follow(&mut self, (interrupted, terminated): &mut (Signal, Signal)) -> Result<bool, Stopped> {
        let style = Style::of_terminal(self.asked.headless);
        let mut lines = if self.asked.headless { tokio::sync::mpsc::channel(1).1 } else { console::lines() };
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let ready_by = Instant::now() + READY_LIMIT;
        let mut story_ends_at = None;
        let mut awaits_story = self.asked.scenario;
        let (mut whole, mut turn) = (true, 0_u32);
        loop {
            tokio::select! {
                _ = interrupted.recv() => return Ok(self.asked.until.is_none()),
                _ = terminated.recv() => return Ok(self.asked.until.is_none()),
                Some(line) = lines.recv() => {
                    whole = true;
                    match console::carry_out(&line, &self.world.rack) {
                        Word::Quit => return Ok(self.asked.until.is_none()),
                        Word::Story(scenario) => self.begin(scenario),
                        Word::Said(text) if text.is_empty() => {}
                        Word::Said(text) => self.tell(text, style),
                    }
                    continue;
                }
                _ = tick.tick() => {}
            }
            self.read_on(style).await?;
            if let Some(scenario) = awaits_story {
                let missing = self.not_ready();
                if missing.is_empty() {
                    awaits_story = None;
                    story_ends_at = Some(Instant::now() + self.asked.limit);
                    scenario.strike(&self.world.rack);
                    self.begin(scenario);
                } else if Instant::now() > ready_by {
                    return Err(Stopped::NotReady(READY_LIMIT.as_secs(), missing));
                }
            }
            turn += 1;
            if style.live && (whole || turn.is_multiple_of(2)) {
                self.draw(style, whole);
                whole = false;
            }
            if let (Some(scenario), Some(goal), Some(end)) = (self.asked.scenario, self.asked.until, story_ends_at) {
                if self.reached(scenario, goal) {
                    return Ok(true);
                }
                if Instant::now() > end {
                    return Ok(false);
                }
            }
        }
    }

    fn begin(&mut self, scenario: Scenario) {
        self.began_wall_ms = wall_ms();
        let victims = scenario.victims(&self.world.rack).join(", ");
        let line = format!("    0.0 s  scenario {}: {victims}", scenario.name());
        self.note(line);
    }

    fn note(&mut self, line: String) {
        if self.told.len() >= TOLD_SHOWN {
            self.told.pop_front();
        }
        self.told.push_back(line.clone());
        self.timeline.push(line);
    }

    fn tell(&mut self, line: String, style: Style) {
        if !style.live {
            talk(&line);
        }
        self.note(line);
    }

    async fn read_on(&mut self, style: Style) -> Result<(), Stopped> {
        for told in self.chronicle.read_on().await? {
            let rule = told.rule.map(|rule| format!(" [rule {rule}]")).unwrap_or_default();
            let tenths = (told.wall_ms - self.began_wall_ms) / 100;
            let line = format!("{:>5}.{} s  {}{rule}", tenths / 10, (tenths % 10).abs(), told.sentence);
            self.tell(line, style);
        }
        Ok(())
    }

    /// What is still missing before something may break; empty = nothing.
    fn not_ready(&self) -> String {
        let missing = self.server.appliance.missing();
        if !missing.is_empty() {
            return missing;
        }
        let (running, wanted) = self.pods();
        if running < wanted || wanted == 0 { format!("{running} of {wanted} pods run") } else { String::new() }
    }

    fn pods(&self) -> (usize, usize) {
        let pods = self.world.objects.of(POD);
        let runs = |pod: &serde_json::Value| {
            pod["status"]["phase"] == "Running" && pod["status"]["conditions"][0]["status"] == "True"
        };
        (pods.iter().filter(|(_, pod)| runs(pod)).count(), pods.len())
    }

    fn reached(&self, scenario: Scenario, goal: Goal) -> bool {
        let victims = scenario.victims(&self.world.rack);
        let of = |name: &String| {
            let id = self.world.rack.host(name).map(|host| HostId(host.place.id));
            self.chronicle.chapters().filter(move |chapter| Some(chapter.incident.host) == id)
        };
        match goal {
            Goal::Diagnosed => victims.iter().flat_map(of).any(|chapter| scenario.named(&chapter.incident)),
            Goal::Healed => victims.iter().all(|name| {
                let healed = |end| end == healing::world::incident::End::Healed;
                of(name).any(|chapter| chapter.incident.end.is_some_and(healed))
            }),
        }
    }

    fn draw(&self, style: Style, whole: bool) {
        let now = self.server.appliance.time.now().elapsed;
        let around = Around {
            title: format!(
                "rackmedic demo · lab policy · {}",
                self.asked.scenario.map_or("break it: help", Scenario::name)
            ),
            told: self.told.iter().cloned().collect(),
            pods: self.pods(),
            now_ms: now.0,
        };
        table::draw(&table::lines(&self.server.appliance.inbox.views, &around, style), whole);
    }

    fn outcome(&self, reached: bool) -> Outcome {
        let name = |id: HostId| {
            let found = self.world.rack.hosts.iter().find(|host| host.place.id == id.0);
            found.map_or_else(|| format!("host-{}", id.0), |host| host.place.name.clone())
        };
        let mut power_commands = Vec::new();
        let mut working_hosts_cut = 0;
        for host in &self.world.rack.hosts {
            let counted = host.counted();
            if counted.powered() > 0 {
                power_commands.push(PowerCommands {
                    host: host.place.name.clone(),
                    offs: counted.offs,
                    ons: counted.ons,
                    others: counted.restarts + counted.shutdowns,
                });
            }
            // Cuts by a command alone: a lost feed hits working hosts, and nobody's hand was in it.
            working_hosts_cut += host.machine(|machine| {
                let ours = |cut: &&machine::Cut| cut.by == machine::OffCause::Command && !cut.orderly && cut.kubelet_ok;
                u32::try_from(machine.power_ledger().recent.iter().filter(ours).count()).unwrap_or(u32::MAX)
            });
        }
        Outcome {
            scenario: self.asked.scenario.map(Scenario::name),
            policy: "lab",
            reached: reached && working_hosts_cut == 0,
            incidents: self.chronicle.lines(self.began_wall_ms, name),
            power_commands,
            working_hosts_cut,
            timeline: self.timeline.clone(),
        }
    }
}
