//! A run as a person reads it: when, which host, what was seen, decided, called, and why.

use crate::watch::WorldTime;
use healing::assess::Assessment;
use healing::command::{BmcCall, Call, ClusterCall, Intent, Reply, StepResult};
use std::fmt::Write as _;

/// Lines of a run, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transcript {
    /// The lines.
    pub lines: Vec<String>,
}

impl Transcript {
    /// Adds a line.
    pub fn say(&mut self, at: WorldTime, who: &str, verb: &str, what: &str) {
        let (h, m, s, ms) = (at / 3_600_000, at / 60_000 % 60, at / 1_000 % 60, at % 1_000);
        self.lines.push(format!("{h:02}:{m:02}:{s:02}.{ms:03}  {who:<12} {verb:<8} {what}"));
    }

    /// All of it.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = self.lines.join("\n");
        text.push('\n');
        text
    }
}

/// What changed from one assessment to the next; empty if nothing that a person reads.
#[must_use]
pub fn difference(before: &Assessment, after: &Assessment) -> String {
    let mut words = String::new();
    let mut add = |name: &str, old: String, new: String| {
        if old != new {
            let _ = write!(words, "{}{name} {new}", if words.is_empty() { "" } else { ", " });
        }
    };
    add("network", format!("{:?}", before.network), format!("{:?}", after.network));
    add("lease", format!("{:?}", before.lease), format!("{:?}", after.lease));
    let node = |a: &Assessment| match a.node {
        None => "none".to_owned(),
        Some(n) => {
            let ready = match n.ready {
                Some(true) => "Ready",
                Some(false) => "NotReady",
                None => "Unknown",
            };
            format!(
                "{ready}{}{}",
                if n.cordoned { ", cordoned" } else { "" },
                if n.foreign_mark { " by others" } else { "" }
            )
        }
    };
    add("node", node(before), node(after));
    if before.node.zip(after.node).is_some_and(|(a, b)| a.boot != b.boot) {
        add("boot", String::new(), "new".to_owned());
    }
    add("power", format!("{:?}", before.power), format!("{:?}", after.power));
    add("bmc", format!("{:?}", before.bmc), format!("{:?}", after.bmc));
    add("stage", format!("{:?}", before.stage), format!("{:?}", after.stage));
    add("hardware", format!("{:?}", before.hardware), format!("{:?}", after.hardware));
    let agent = |a: &Assessment| match a.agent {
        None => "silent".to_owned(),
        Some(r) => match r.failing {
            _ if r.shutting_down => "says shutting down".to_owned(),
            Some((component, cause)) => format!("says {component:?} {cause:?}"),
            None if r.disk_broken => "says disk broken".to_owned(),
            None if r.certificate_expiring => "says certificate expiring".to_owned(),
            None => "well".to_owned(),
        },
    };
    add("agent", agent(before), agent(after));
    add("kubelet", hung(before), hung(after));
    add("apiserver", format!("{:?}", before.api_server), format!("{:?}", after.api_server));
    add("etcd", format!("{:?}", before.etcd_member), format!("{:?}", after.etcd_member));
    if after.closed_mark.is_some() && before.closed_mark.is_none() {
        add("connection", String::new(), "closed in good order".to_owned());
    }
    if after.asked_to_boot != before.asked_to_boot && after.asked_to_boot.is_some() {
        add("asks", String::new(), "the network for something to boot".to_owned());
    }
    words
}

fn hung(a: &Assessment) -> String {
    if a.kubelet_hung { "hung" } else { "answers" }.to_owned()
}

/// A call in words.
#[must_use]
pub fn call(call: &Call) -> String {
    match call {
        Call::Bmc(_, bmc) => match bmc {
            BmcCall::Identify => "BMC: who are you".to_owned(),
            BmcCall::ReadPower => "BMC: read power".to_owned(),
            BmcCall::ForceOff => "BMC: force off".to_owned(),
            BmcCall::PowerOn => "BMC: power on".to_owned(),
            BmcCall::GracefulRestart => "BMC: orderly restart".to_owned(),
            BmcCall::ReadStage => "BMC: read boot stage".to_owned(),
            BmcCall::SetNetworkBootOnce => "BMC: boot from network once".to_owned(),
            BmcCall::ReadNetworkBootOnce => "BMC: read boot override".to_owned(),
        },
        Call::Cluster(cluster) => format!(
            "API: {}",
            match cluster {
                ClusterCall::ReadNode => "read node and lease".to_owned(),
                ClusterCall::Cordon => "cordon".to_owned(),
                ClusterCall::Uncordon => "uncordon".to_owned(),
                ClusterCall::PutTaint => "put out-of-service taint".to_owned(),
                ClusterCall::RemoveTaint => "remove out-of-service taint".to_owned(),
                ClusterCall::DeletePods => "delete pods".to_owned(),
                ClusterCall::DeleteVolumeAttachments => "delete volume attachments".to_owned(),
                ClusterCall::ReadLeftovers => "count pods and attachments".to_owned(),
                ClusterCall::DeleteNode => "delete node".to_owned(),
                ClusterCall::RemoveEtcdMember(id) => format!("remove etcd member {id:x}"),
                ClusterCall::MintCredential => "mint join credential".to_owned(),
                ClusterCall::DeleteCredential => "delete join credential".to_owned(),
                ClusterCall::RestoreLabels => "restore labels and taints".to_owned(),
                ClusterCall::CreateCanary => "create canary pod".to_owned(),
                ClusterCall::ReadCanary => "read canary pod".to_owned(),
                ClusterCall::DeleteCanary => "delete canary pod".to_owned(),
            }
        ),
        Call::Probe => "probe: 3 echoes, 1 SYN".to_owned(),
        Call::OutletsOff => "PDU: outlets off".to_owned(),
        Call::OutletsOn => "PDU: outlets on".to_owned(),
        Call::ReadOutlets => "PDU: read outlets".to_owned(),
        Call::RestartComponent(component) => format!("agent: restart {component:?}"),
        Call::OpenTicket(_) => "open boot ticket".to_owned(),
        Call::OpenProofTicket(_) => "open boot ticket to prove".to_owned(),
        Call::CloseTicket(_) => "close boot ticket".to_owned(),
    }
}

/// A reply in words.
#[must_use]
pub fn reply(reply: Option<&Reply>) -> String {
    match reply {
        None => "(reply lost)".to_owned(),
        Some(Reply::Ok) => "ok".to_owned(),
        Some(Reply::Power(reading)) => format!("{:?}", reading.power),
        Some(Reply::Identity(_)) => "identity".to_owned(),
        Some(Reply::Stage(stage)) => format!("{stage:?}"),
        Some(Reply::Flag(flag)) => if *flag { "yes" } else { "no" }.to_owned(),
        Some(Reply::Probed { icmp, tcp }) => match (icmp, tcp) {
            (false, false) => "silent".to_owned(),
            _ => format!("echo {icmp}, port {tcp}"),
        },
        Some(Reply::Node { node, lease_renewed }) => match node {
            None => "no such node".to_owned(),
            Some(_) if *lease_renewed => "lease renewed".to_owned(),
            Some(_) => "lease unchanged".to_owned(),
        },
        Some(Reply::Leftovers { pods, attachments }) => format!("{pods} pods, {attachments} attachments left"),
        Some(Reply::BmcTrouble(why)) => format!("BMC {why:?}"),
        Some(Reply::Conflict) => "so already".to_owned(),
        Some(Reply::ApiSilent) => "API silent".to_owned(),
        Some(Reply::ApiRefused) => "API refused".to_owned(),
        Some(Reply::AgentSilent) => "agent silent".to_owned(),
    }
}

/// A step in words.
#[must_use]
pub fn intent(intent: &Intent) -> String {
    match intent {
        Intent::RestartComponent(component) => format!("restart {component:?}"),
        Intent::Cordon => "cordon".to_owned(),
        Intent::LastLook { .. } => "last look".to_owned(),
        Intent::SoftReboot => "soft reboot".to_owned(),
        Intent::ForceOff { found_off: false, .. } => "force off".to_owned(),
        Intent::ForceOff { found_off: true, .. } => "take over a host found off".to_owned(),
        Intent::ProveOff => "read off again".to_owned(),
        Intent::OutletsOff => "outlets off".to_owned(),
        Intent::Release { keep_taint: false } => "release pods and volumes".to_owned(),
        Intent::Release { keep_taint: true } => "release pods and volumes, taint stays".to_owned(),
        Intent::PowerOn { alarm: false } => "power on".to_owned(),
        Intent::PowerOn { alarm: true } => "power on (identity alarm)".to_owned(),
        Intent::ArmBoot(_) => "arm network boot".to_owned(),
        Intent::ArmProof(_) => "arm network boot to prove".to_owned(),
        Intent::CloseTicket(_) => "close ticket".to_owned(),
        Intent::RemoveIdentity { etcd_member: None } => "remove old identity".to_owned(),
        Intent::RemoveIdentity { etcd_member: Some(_) } => "remove etcd member and old identity".to_owned(),
        Intent::MintCredential(_) => "mint join credential".to_owned(),
        Intent::Promote(spare) => format!("promote spare {}", spare.0),
        Intent::Canary => "canary pod".to_owned(),
        Intent::Return => "return to service".to_owned(),
        Intent::Withdraw { uncordon: true } => "withdraw our marks".to_owned(),
        Intent::Withdraw { uncordon: false } => "withdraw our taint".to_owned(),
    }
}

/// A result in words.
#[must_use]
pub fn result(result: &StepResult) -> String {
    match result {
        StepResult::Done => "done".to_owned(),
        StepResult::AlreadySo => "so already".to_owned(),
        StepResult::Looked(look) => format!(
            "echo {}, port {}, lease renewed {}, power {:?}, stage {:?}",
            look.icmp,
            look.tcp,
            look.lease_renewed.map_or("unknown", |r| if r { "yes" } else { "no" }),
            look.power,
            look.stage
        ),
        StepResult::Readings { readings, off_sent } => {
            let read: Vec<String> = readings.iter().map(|r| format!("{:?}", r.power)).collect();
            format!("read {}{}", read.join(" "), if off_sent.is_some() { ", off was sent" } else { "" })
        }
        StepResult::Failed { why, sent, .. } => {
            format!("failed: {why:?}{}", if *sent { ", something may have left" } else { "" })
        }
    }
}
