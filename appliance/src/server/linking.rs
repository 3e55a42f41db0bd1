//! Shows for each host that its BMC and its Node are of one machine (terms of the safety rules, *linked*): record, live BMC
//! and Node must say the same; a Node that shows another machine later breaks it. A record that names no machine takes the one on which BMC and Node agree. A spare carries no Node:
//! it is linked by its proof; once it has taken a place, its Node is looked at like any other.

use super::registrar::Registrar;
use crate::act::bmcs::Bmcs;
use crate::cluster::NameTable;
use crate::decide_loop::Inbox;
use bmc::station::Station;
use futures_util::stream::{self, StreamExt as _};
use healing::id::{HostId, MachineId};
use healing::world::host::{Host, Link, Role};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How often it is looked for hosts whose link is not shown.
const LOOK: Duration = Duration::from_millis(500);
/// After a BMC did not tell who it is, or contradicted, it is asked again this late.
const AGAIN: Duration = Duration::from_secs(30);
/// BMCs asked at the same time.
const AT_ONCE: usize = 32;

/// Looks until it is stopped.
pub(super) async fn link(
    registrar: Arc<Registrar>,
    bmcs: Arc<Bmcs>,
    names: Arc<NameTable>,
    inbox: Inbox,
    stop: CancellationToken,
) {
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut not_before: HashMap<HostId, Instant> = HashMap::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let now = Instant::now();
        not_before.retain(|_, until| *until > now);
        let found_at = *registrar.bmcs_changed().borrow();
        let (mut open, mut odd) = (Vec::new(), Vec::new());
        let views = inbox.views.hosts();
        let placed = views.iter().map(|view| &view.host).filter(|h| h.history.was_spare && h.role != Role::Spare);
        registrar.place(placed.filter_map(|host| Some((host.id, host.cluster?))).collect());
        for view in views {
            let host = &view.host;
            if not_before.contains_key(&host.id) {
                continue;
            }
            let node = names.machine(host.id);
            if host.link == Link::Linked && node.is_some_and(|node| !node.same_machine(host.machine)) {
                // Disks or names were swapped: its Node runs on another machine than the one whose power we would cut.
                odd.push(host.id);
                continue;
            }
            let (Link::Unbound, Some(node), Some(station)) = (host.link, node, bmcs.station(host.id)) else { continue };
            open.push((host.clone(), node, station));
        }
        for host in odd {
            if let Err(why) = registrar.link(host, Link::Mismatch, found_at, &inbox).await {
                tracing::warn!(host = host.0, %why, "that its Node shows another machine is not recorded; it is looked at again");
                not_before.insert(host, now + AGAIN);
            }
        }
        let asked = open.into_iter().map(|(host, node, station)| ask(host, node, station));
        let mut answers = stream::iter(asked).buffer_unordered(AT_ONCE);
        loop {
            let answer = tokio::select! {
                () = stop.cancelled() => return,
                answer = answers.next() => answer,
            };
            let Some((host, verdict)) = answer else { break };
            let done = match verdict {
                Some(Verdict::Shown(link)) => registrar.link(host, link, found_at, &inbox).await,
                Some(Verdict::Learned(machine)) => registrar.learn(host, machine, found_at, &inbox).await,
                None => {
                    not_before.insert(host, now + AGAIN);
                    continue;
                }
            };
            if let Err(why) = done {
                tracing::warn!(host = host.0, %why, "the link of this host is not recorded; it is shown again");
                not_before.insert(host, now + AGAIN);
            }
        }
    }
}

enum Verdict {
    Shown(Link),
    Learned(MachineId),
}

async fn ask(host: Host, node: MachineId, station: Arc<Station>) -> (HostId, Option<Verdict>) {
    let seen = station.poll(|bmc| bmc.identify()).await.ok();
    let live = seen.and_then(|seen| seen.machine).map(|guid| MachineId(u128::from_be_bytes(guid)));
    let verdict = live.filter(|live| !live.is_placeholder()).map(|live| judge(host.machine, node, live));
    (host.id, verdict)
}

fn judge(record: MachineId, node: MachineId, live: MachineId) -> Verdict {
    match (record.is_placeholder(), live.same_machine(node)) {
        // The link itself is shown by the next look, against the record that now is.
        (true, true) => Verdict::Learned(live),
        (false, true) if live.same_machine(record) => Verdict::Shown(Link::Linked),
        _ => Verdict::Shown(Link::Mismatch),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_that_agree_link_two_that_agree_teach_and_anything_else_alarms() {
        let (a, b, none) = (MachineId(0x11), MachineId(0x22), MachineId(0));
        assert!(matches!(judge(a, a, a), Verdict::Shown(Link::Linked)));
        assert!(matches!(judge(none, a, a), Verdict::Learned(MachineId(0x11))));
        assert!(matches!(judge(none, a, b), Verdict::Shown(Link::Mismatch)));
        assert!(matches!(judge(b, a, a), Verdict::Shown(Link::Mismatch)));
        assert!(matches!(judge(a, b, a), Verdict::Shown(Link::Mismatch)));
    }
}
