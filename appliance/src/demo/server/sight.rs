//! The product's own watchers, pointed at the rack: the prober of frames on a cable, the BMC poller.

use super::super::cable::Cable;
use super::super::handover::Handover;
use super::super::layout::{GATEWAY, REFERENCES, SECOND_PORT};
use super::NoServer;
use super::bmcs::Bmcs;
use crate::decide_loop::{Inbox, RunningTime};
use crate::watch::bmcs::BmcWatch;
use crate::watch::network::{NetworkWatch, Setup};
use crate::watch::prober::Marks;
use crate::watch::standing::Standings;
use crate::watch::target::{KUBELET_PORT, Reach, ReferencePoint, Roster, Target};
use crate::watch::wire::WireError;
use bmc::poll::Pace;
use healing::id::HostId;
use pxe::mac::Mac;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often it is looked up who needs attention.
const ATTEND: Duration = Duration::from_millis(500);

/// Hosts with an incident, for whoever looks at them faster.
pub(super) fn attended(
    inbox: Inbox,
    tracker: &TaskTracker,
    stop: CancellationToken,
) -> watch::Receiver<Arc<Vec<HostId>>> {
    let (tell, attended) = watch::channel(Arc::new(Vec::new()));
    tracker.spawn(async move {
        let mut tick = tokio::time::interval(ATTEND);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let ill =
                inbox.views.hosts().iter().filter(|view| view.incident.is_some()).map(|view| view.host.id).collect();
            let ill = Arc::new(ill);
            tell.send_if_modified(|now| std::mem::replace(now, Arc::clone(&ill)) != ill);
        }
    });
    attended
}

/// Starts the prober.
pub(super) fn network(
    handover: &Handover,
    cable: Cable,
    attended: watch::Receiver<Arc<Vec<HostId>>>,
    inbox: &Inbox,
    time: &RunningTime,
) -> Result<NetworkWatch, NoServer> {
    let mut targets = Vec::new();
    for host in &handover.hosts {
        let mac =
            card(&host.mac).ok_or_else(|| NoServer::Handover(format!("`{}` is no hardware address", host.mac)))?;
        targets.push(Target {
            host: HostId(host.id),
            address: host.address,
            reach: Reach::Attached(mac),
            kubelet_port: KUBELET_PORT,
            second_port: SECOND_PORT,
        });
    }
    let references = REFERENCES.map(|address| ReferencePoint { address, domain: None, attached: true }).to_vec();
    let roster = Arc::new(Roster::new(targets, Vec::new(), Some(GATEWAY), references)?);
    let (keep, roster) = watch::channel(roster);
    let failed = |source| WireError::System { interface: "the cable".to_owned(), doing: "opening it", source };
    let setup = Setup {
        open: Box::new(move || {
            // The roster of a demo never changes; its sender lives as long as the prober.
            let _ = &keep;
            cable.open().map_err(failed)
        }),
        marks: Marks::random(),
        roster,
        attended,
        signals: inbox.signals.clone(),
        time: time.clone(),
    };
    Ok(NetworkWatch::start(setup)?)
}

fn card(text: &str) -> Option<Mac> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(Mac(bytes))
}

/// Looks at the BMCs until it is stopped.
pub(super) async fn bmcs(
    bmcs: Arc<Bmcs>,
    standings: Standings,
    attended: watch::Receiver<Arc<Vec<HostId>>>,
    inbox: Inbox,
    time: RunningTime,
    stop: CancellationToken,
) {
    let pace = Pace { healthy: Duration::from_secs(15), ..Pace::default() };
    let watch =
        BmcWatch { stations: bmcs.iter().collect(), pace, standings, attended, signals: inbox.signals.clone(), time };
    tokio::select! {
        () = stop.cancelled() => {}
        () = watch.run() => {}
    }
}
