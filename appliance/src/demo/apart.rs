//! The rack in one process and the server in another, so that the one can be killed without the other.

use super::cable::{Cable, lend};
use super::console::{self, Word};
use super::handover::Handover;
use super::server;
use super::story::{Stopped, policy_lines};
use super::world::{NoWorld, World, private};
use crate::cli::output::{json, talk};
use crate::server::chronicle::Chronicle;
use machine::{Machine, OffCause};
use serde::Serialize;
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The truth about a host, for whoever checks a server from outside.
#[derive(Debug, Serialize)]
struct Truth {
    host: String,
    power: &'static str,
    healthy: bool,
    boots: u64,
    /// Commands that its BMC received.
    offs: u64,
    ons: u64,
    others: u64,
    /// What they did.
    cuts: u32,
    working_cuts: u32,
    power_ons: u32,
}

/// Serves a rack and nothing else, with its description in `folder/rack.json`, until its input ends or a signal comes.
/// Each line of input is a command of the console; `truth` prints a line of JSON.
///
/// # Errors
/// It cannot be started.
pub async fn rack_only(hosts: u32, spares: u32, folder: &Path) -> Result<(), Stopped> {
    let stop = CancellationToken::new();
    let mut world = World::start(hosts, spares, folder, stop.clone()).await?;
    let wire = folder.join("wire");
    lend(world.segment.clone(), &wire).map_err(Stopped::Folder)?;
    world.handover.wire = Some(wire);
    let path = folder.join("rack.json");
    let text = serde_json::to_vec(&world.handover).map_err(|why| Stopped::Folder(io::Error::other(why)))?;
    private(&path, &text)?;
    let written = |done: io::Result<()>| done.map_err(Stopped::Folder);
    written(json(&serde_json::json!({ "rack": path })))?;
    let mut interrupted = signal(SignalKind::interrupt()).map_err(Stopped::Signal)?;
    let mut terminated = signal(SignalKind::terminate()).map_err(Stopped::Signal)?;
    let mut lines = console::lines();
    loop {
        let line = tokio::select! {
            _ = interrupted.recv() => break,
            _ = terminated.recv() => break,
            line = lines.recv() => line,
        };
        let Some(line) = line else { break };
        if line.trim() == "truth" {
            written(json(&truth(&world)))?;
            continue;
        }
        match console::carry_out(&line, &world.rack) {
            Word::Quit => break,
            Word::Story(scenario) => written(json(&serde_json::json!({ "scenario": scenario.name() })))?,
            Word::Said(text) => written(json(&serde_json::json!({ "said": text })))?,
        }
    }
    stop.cancel();
    Ok(())
}

fn truth(world: &World) -> Vec<Truth> {
    let all = world.rack.hosts.iter().map(|host| {
        let counted = host.counted();
        let look = |machine: &Machine| {
            let ledger = machine.power_ledger();
            let ours = |cut: &&machine::Cut| cut.by == OffCause::Command && !cut.orderly;
            let cuts = ledger.recent.iter().filter(ours).count();
            let working = ledger.recent.iter().filter(ours).filter(|cut| cut.kubelet_ok).count();
            let count = |many: usize| u32::try_from(many).unwrap_or(u32::MAX);
            let power = match machine.power() {
                machine::Power::On => "on",
                machine::Power::Off => "off",
                machine::Power::GoingOff => "going-off",
            };
            (power, machine.truth().healthy, machine.boots(), count(cuts), count(working), ledger.power_ons)
        };
        let (power, healthy, boots, cuts, working_cuts, power_ons) = host.machine(look);
        Truth {
            host: host.place.name.clone(),
            power,
            healthy,
            boots,
            offs: counted.offs,
            ons: counted.ons,
            others: counted.restarts + counted.shutdowns,
            cuts,
            working_cuts,
            power_ons,
        }
    });
    all.collect()
}

/// Runs a server on a rack that another process serves, with its records in a folder that lasts, until a signal comes.
/// Tells what it does line by line.
///
/// # Errors
/// It cannot be started, or its records cannot be read.
pub async fn server_on(rack: &Path, folder: &Path) -> Result<(), Stopped> {
    let write = |source| Stopped::World(NoWorld::Write { path: rack.to_owned(), source });
    let text = std::fs::read(rack).map_err(write)?;
    let handover: Handover = serde_json::from_slice(&text).map_err(|why| write(io::Error::other(why)))?;
    refuse_the_world_outside(&handover).map_err(write)?;
    let wire = handover.wire.clone().ok_or_else(|| write(io::Error::other("it names no wire")))?;
    for line in policy_lines(&server::limits()) {
        talk(&line);
    }
    let server = Box::pin(server::start(&handover, Cable::There(wire), folder)).await?;
    let mut chronicle = Chronicle::of(&folder.join("data"));
    let mut interrupted = signal(SignalKind::interrupt()).map_err(Stopped::Signal)?;
    let mut terminated = signal(SignalKind::terminate()).map_err(Stopped::Signal)?;
    let mut tick = tokio::time::interval(Duration::from_millis(250));
    let mut watched = false;
    loop {
        tokio::select! {
            _ = interrupted.recv() => break,
            _ = terminated.recv() => break,
            _ = tick.tick() => {}
        }
        for told in chronicle.read_on().await? {
            talk(&told.sentence);
        }
        if !watched && server.appliance.missing().is_empty() {
            watched = true;
            talk("the rack is watched: every host is linked and Ready");
        }
    }
    server.stop().await;
    Ok(())
}

/// The lab's policy is for emulated hosts: whatever is outside of loopback is refused.
fn refuse_the_world_outside(handover: &Handover) -> io::Result<()> {
    let on_loopback = |url: &str| {
        let place = url.rsplit_once("//").map_or(url, |(_, rest)| rest);
        let place = place.rsplit_once('@').map_or(place, |(_, rest)| rest);
        place.parse::<std::net::SocketAddr>().is_ok_and(|address| address.ip().is_loopback())
    };
    let planes = handover.control_planes.iter().map(|plane| &plane.api);
    let all = handover.hosts.iter().map(|host| &host.bmc).chain(planes).chain([&handover.vip]);
    match all.into_iter().find(|url| !on_loopback(url)) {
        Some(url) => Err(io::Error::other(format!(
            "{url} is not on loopback, and the lab's short waits are for emulated hosts only"
        ))),
        None => Ok(()),
    }
}
