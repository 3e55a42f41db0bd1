//! Doing: the driver that carries a step of `healing::perform` to its end over real ports. It adds I/O, deadlines and
//! the withdrawal of rights, and nothing else: it never decides and never repeats a call by itself.

pub mod bmc_reading;
pub mod bmc_signal;
pub mod bmcs;
pub mod installs;
pub mod outlets;
pub mod ports;

use crate::decide_loop::{Executor, Right, RunningTime};
use healing::command::{
    BmcCall, Call, ClusterCall, Command, Failure, Intent, NextCall, Observation, Reply, StepResult, Target,
};
use healing::id::IncidentId;
use healing::perform::{StepRun, perform};
use healing::rules::Enforced;
use healing::signal::BmcTrouble;
use healing::time::{Elapsed, Millis, SECOND};
use std::future::Future;

/// Most calls of one step. A release of two minutes with a read each second stays far below; more is a loop.
const CALLS_MAX: u32 = 2_000;

/// The outside: BMCs, cluster APIs, probes, outlets, agents and boot tickets.
pub trait Ports: Send + Sync + 'static {
    /// Makes one call and gives its reply. Asks [`Asked::may_leave`] immediately before the first byte that has an effect
    /// is written, since connections and sessions take their time; if it may not, nothing is sent and `None` answered.
    /// Never retries: the step machine knows which calls may be sent again.
    fn call(&self, asked: &Asked<'_>) -> impl Future<Output = Option<Reply>> + Send;
}

/// A call with what the port must know of its step.
#[derive(Debug)]
pub struct Asked<'a> {
    /// What is to be called.
    pub call: Call,
    /// The host, and what must be known of it.
    pub target: &'a Target,
    /// The incident that the step belongs to.
    pub incident: IncidentId,
    /// What the step does.
    pub intent: Intent,
    /// When the step began: whether a Lease changed is asked from there.
    pub began: Elapsed,
    right: &'a Right,
    time: &'a RunningTime,
}

impl Asked<'_> {
    /// Whether the call may leave at this moment: an act needs fresh evidence and no stall since it was ordered
    /// (rule 47), and power is written only well within the appliance lease (rule 46).
    #[must_use]
    pub fn may_leave(&self) -> bool {
        let now = self.time.now().elapsed;
        let fresh = kind(self.call) != Kind::Act || self.right.may_act(now);
        fresh && (!writes_power(self.call) || self.right.may_write(now))
    }
}

/// An executor over ports.
#[derive(Debug)]
pub struct Driver<P> {
    ports: P,
    time: std::sync::OnceLock<RunningTime>,
}

/// What a call may do, which decides whether it may leave when rights are in question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Reads only.
    Read,
    /// Ends or undoes something of ours: allowed after a stall, so that no host is stranded (rules 45, 49).
    Restore,
    /// Acts on evidence.
    Act,
}

fn kind(call: Call) -> Kind {
    match call {
        Call::Bmc(_, bmc) => match bmc {
            BmcCall::Identify | BmcCall::ReadPower | BmcCall::ReadStage | BmcCall::ReadNetworkBootOnce => Kind::Read,
            BmcCall::PowerOn => Kind::Restore,
            BmcCall::ForceOff | BmcCall::GracefulRestart | BmcCall::SetNetworkBootOnce => Kind::Act,
        },
        Call::Cluster(cluster) => match cluster {
            ClusterCall::ReadNode | ClusterCall::ReadLeftovers | ClusterCall::ReadCanary => Kind::Read,
            ClusterCall::Uncordon
            | ClusterCall::RemoveTaint
            | ClusterCall::DeleteCredential
            | ClusterCall::RestoreLabels
            | ClusterCall::DeleteCanary => Kind::Restore,
            ClusterCall::Cordon
            | ClusterCall::PutTaint
            | ClusterCall::DeletePods
            | ClusterCall::DeleteVolumeAttachments
            | ClusterCall::DeleteNode
            | ClusterCall::RemoveEtcdMember(_)
            | ClusterCall::MintCredential
            | ClusterCall::CreateCanary => Kind::Act,
        },
        Call::Probe | Call::ReadOutlets => Kind::Read,
        Call::CloseTicket(_) | Call::OutletsOn => Kind::Restore,
        Call::OutletsOff | Call::RestartComponent(_) => Kind::Act,
        Call::OpenTicket(_) | Call::OpenProofTicket(_) => Kind::Act,
    }
}

fn writes_power(call: Call) -> bool {
    matches!(
        call,
        Call::Bmc(_, BmcCall::ForceOff | BmcCall::PowerOn | BmcCall::GracefulRestart)
            | Call::OutletsOff
            | Call::OutletsOn
    )
}

/// How long a call may take, in milliseconds, before it counts as unanswered.
fn deadline_ms(call: Call) -> Millis {
    match call {
        Call::Bmc(..) | Call::OutletsOff | Call::OutletsOn | Call::ReadOutlets => 15 * SECOND,
        Call::Cluster(_) => 10 * SECOND,
        Call::Probe => 3 * SECOND,
        Call::RestartComponent(_) => 30 * SECOND,
        Call::OpenTicket(_) | Call::OpenProofTicket(_) | Call::CloseTicket(_) => 2 * SECOND,
    }
}

/// What an unanswered call means. `None`: nothing may be concluded (a probe that never came back from its port is not a
/// miss, rule 47), so the step ends.
fn unanswered(call: Call) -> Option<Reply> {
    match call {
        Call::Bmc(..) | Call::OutletsOff | Call::OutletsOn | Call::ReadOutlets => {
            Some(Reply::BmcTrouble(BmcTrouble::Silent))
        }
        Call::Cluster(_) => Some(Reply::ApiSilent),
        Call::RestartComponent(_) => Some(Reply::AgentSilent),
        Call::Probe | Call::OpenTicket(_) | Call::OpenProofTicket(_) | Call::CloseTicket(_) => None,
    }
}

impl<P: Ports> Driver<P> {
    /// A driver over ports. It refuses every step until [`Driver::use_time`] gave it the loop's running time.
    #[must_use]
    pub fn new(ports: P) -> Driver<P> {
        Driver { ports, time: std::sync::OnceLock::new() }
    }

    /// Gives it the running time of the loop, known once the journal was read.
    pub fn use_time(&self, time: RunningTime) {
        // A second loop in one process would be another driver's; the first time stays.
        let _ = self.time.set(time);
    }

    /// The ports.
    #[must_use]
    pub fn ports(&self) -> &P {
        &self.ports
    }

    async fn drive(&self, command: Command<Enforced>, right: &Right, time: &RunningTime) -> StepResult {
        let began = time.now();
        let mut run = StepRun::new(Enforced, command, began);
        let mut next = perform(&mut run, &Observation::Begin, time.now());
        let mut cancelled = false;
        let mut acted = false;
        for _ in 0..CALLS_MAX {
            let observation = match next {
                NextCall::Done(result) => return result,
                NextCall::WaitUntil(at) => tokio::select! {
                    biased;
                    () = right.cancelled().cancelled(), if !cancelled => Observation::Cancel,
                    () = tokio::time::sleep(time.until(at)) => Observation::Timer,
                },
                NextCall::Call(call) => {
                    let asked = Asked {
                        call,
                        target: run.target(),
                        incident: run.incident(),
                        intent: run.intent(),
                        began: began.elapsed,
                        right,
                        time,
                    };
                    let observation = self.call(&asked, cancelled).await;
                    if observation == Observation::Cancel && cancelled {
                        // Told once that it may not, the step still wants to: it ends here, and is observed again.
                        return StepResult::Failed { why: Failure::Cancelled, readings: Vec::new(), sent: acted };
                    }
                    acted |= kind(call) == Kind::Act && observation != Observation::Cancel;
                    observation
                }
            };
            cancelled |= observation == Observation::Cancel;
            next = perform(&mut run, &observation, time.now());
        }
        StepResult::Failed { why: Failure::Invalid, readings: Vec::new(), sent: acted }
    }

    async fn call(&self, asked: &Asked<'_>, cancelled: bool) -> Observation {
        if !asked.may_leave() {
            return Observation::Cancel;
        }
        // A read is given up at once; a write that left is waited for, since its effect must be known.
        let gives_way = kind(asked.call) == Kind::Read && !cancelled;
        tokio::select! {
            biased;
            () = asked.right.cancelled().cancelled(), if gives_way => Observation::Cancel,
            reply = self.ports.call(asked) => reply.map_or(Observation::Cancel, Observation::Reply),
            () = tokio::time::sleep(asked.time.span(deadline_ms(asked.call))) => {
                unanswered(asked.call).map_or(Observation::Cancel, Observation::Reply)
            }
        }
    }
}

impl<P: Ports> Executor for Driver<P> {
    async fn run(&self, command: Command<Enforced>, right: Right) -> StepResult {
        match self.time.get() {
            Some(time) => self.drive(command, &right, time).await,
            None => StepResult::Failed { why: Failure::Invalid, readings: Vec::new(), sent: false },
        }
    }
}
