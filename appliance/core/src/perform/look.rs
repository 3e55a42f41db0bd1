//! The last look (rule 1): three echoes and one SYN, the Node and its Lease, power with identity, boot stage. Within its
//! time; what did not answer stays unknown.

use super::{State, StepRun};
use crate::command::{BmcCall, Call, ClusterCall, Failure, LastLook, NextCall, Observation, Reply, StepResult};
use crate::rules::Rules;
use crate::signal::{BootStage, Power};
use crate::time::Now;

/// How far the look is.
#[derive(Debug, Default)]
pub(super) struct Look {
    asked: u8,
    icmp: bool,
    tcp: bool,
    node: Option<crate::signal::NodeReport>,
    lease_renewed: Option<bool>,
    power: Power,
    identity: Option<crate::id::MachineId>,
    stage: BootStage,
    last_answer: Option<crate::time::Elapsed>,
}

pub(super) fn next<R: Rules>(run: &mut StepRun<R>, observation: &Observation, now: Now) -> NextCall {
    let host = run.command.target.host;
    let over = run.age(now) >= run.command.target.last_look_ms;
    let began = run.began;
    let State::Look(look) = &mut run.state else { return super::failed(Failure::Invalid, &[], false) };
    match observation {
        Observation::Cancel => return super::failed(Failure::Cancelled, &[], false),
        Observation::Reply(reply) => take(look, reply, now),
        Observation::Begin | Observation::Timer => {}
    }
    let calls = [
        Call::Probe,
        Call::Cluster(ClusterCall::ReadNode),
        Call::Bmc(host, BmcCall::ReadStage),
        Call::Bmc(host, BmcCall::ReadPower),
    ];
    match calls.get(usize::from(look.asked)) {
        Some(call) if !over => {
            look.asked += 1;
            NextCall::Call(*call)
        }
        _ => NextCall::Done(StepResult::Looked(LastLook {
            icmp: look.icmp,
            tcp: look.tcp,
            lease_renewed: look.lease_renewed,
            node: look.node,
            power: look.power,
            identity: look.identity,
            stage: look.stage,
            last_answer: look.last_answer.unwrap_or(began),
            began,
        })),
    }
}

fn take(look: &mut Look, reply: &Reply, now: Now) {
    let answered = match reply {
        Reply::Probed { icmp, tcp } => {
            look.icmp = *icmp;
            look.tcp = *tcp;
            // Silence is what is expected of it: its answer would be the news.
            true
        }
        Reply::Node { node, lease_renewed } => {
            look.node = *node;
            look.lease_renewed = Some(*lease_renewed);
            true
        }
        Reply::Power(reading) => {
            look.power = reading.power;
            look.identity = reading.identity;
            true
        }
        Reply::Stage(stage) => {
            look.stage = *stage;
            true
        }
        _ => false,
    };
    if answered {
        look.last_answer = Some(now.elapsed);
    }
}
