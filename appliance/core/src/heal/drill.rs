//! A drill: a person has cordoned a host that is well, types its serial, and it is power-cycled by the very steps of a heal,
//! so that off, proof, on and the way back are known to work before they are needed. It is the one off of a host that is not
//! ill: every rule but those of the evidence of illness is asked, once, in the decision that orders the off; what is
//! interrupted is not begun again.

use super::{begin, finish, power};
use crate::command::Loudness;
use crate::decide::Case;
use crate::explain::Explanation;
use crate::gate;
use crate::rules::Rules;
use crate::signal::Power;
use crate::world::host::SpareProof;
use crate::world::incident::{Diagnosis, End, Purpose, Rung};

/// Begins the drill that was ordered, or says why not. An order is for now.
pub(super) fn open_if_ordered<R: Rules>(case: &mut Case<'_, R>) -> bool {
    if !std::mem::take(&mut case.host.history.drill_ordered) {
        return false;
    }
    if let Err(why) = gate::drill_may(case) {
        let sentence = format!("{}: its drill was not begun: {}", case.host.name, why.sentence);
        let told = Explanation { rule: why.rule, code: "drill-refused".into(), sentence: sentence.into() };
        case.host.history.order_refused = Some(told.clone());
        case.tell(Loudness::Page, told);
        return false;
    }
    case.open_incident(Diagnosis::DrillOrdered);
    if let Some(incident) = &mut case.incident {
        incident.purpose = Purpose::Drill;
        incident.rungs = vec![Rung::PowerCycle, Rung::Human];
        // Nothing of it is released: a person has drained it as far as he wanted, and it is back in minutes.
        incident.released = true;
    }
    begin::reserve(case, Rung::PowerCycle);
    case.note("drill-begun", format!("{}: a drill was ordered: off, proof, on, Ready", case.host.name));
    power::order_off(case, false);
    true
}

/// What it was to show was not shown. It is not tried again by itself; whatever is wrong with the host now is a matter for an
/// incident of its own, and a host that we hold off is switched on first.
pub(super) fn failed<R: Rules>(case: &mut Case<'_, R>, why: &Explanation) {
    if let Some(end) = case.incident.as_ref().and_then(|i| i.ending) {
        // It was told before; what was left was only to switch the host on.
        finish::withdraw(case, end);
        return;
    }
    let sentence =
        format!("{}: its drill failed ({}): that its power heals it is not shown", case.host.name, why.sentence);
    case.tell(Loudness::Page, Explanation { rule: why.rule, code: "drill-failed".into(), sentence: sentence.into() });
    case.host.drill = Some(SpareProof::now(case.now, false));
    finish::withdraw(case, End::Unproven);
}

/// A phase of the ladder of an ill host was come to: something forbade the off, or took it back. A host that the off reached
/// all the same is switched on again.
pub(super) fn interrupted<R: Rules>(case: &mut Case<'_, R>) {
    let why = case.incident.as_ref().and_then(|i| i.wait.as_ref()).map(|wait| wait.why.clone());
    let ours = case.incident.as_ref().is_some_and(|i| i.fence.our_off.is_some());
    if ours && case.host.assessment.power == Power::Off {
        case.host.held_off = case.incident.as_ref().map(|i| i.id);
    }
    failed(case, &why.unwrap_or_else(|| Explanation::note("interrupted", "what was begun could not be ended")));
}

/// Ready with another boot, soaked, and the canary pod ran.
pub(super) fn passed<R: Rules>(case: &mut Case<'_, R>) {
    if let Some(end) = case.incident.as_ref().and_then(|i| i.ending) {
        finish::withdraw(case, end);
        return;
    }
    if case.incident.as_ref().is_some_and(|i| i.timings.proven_off.is_none()) {
        return failed(case, &Explanation::note("cut-short", "it was switched on again before it was proven off"));
    }
    case.host.drill = Some(SpareProof::now(case.now, true));
    let told = case.incident.as_ref().map(|i| {
        let at = i.timings.off_ordered.unwrap_or(i.opened_at);
        let after = |moment: Option<crate::time::Elapsed>| moment.map_or(0, |moment| moment.since(at) / 1_000);
        format!(
            "{}: its drill passed: proven off {} s after the order, Ready again after {} s; it stays cordoned as it was",
            case.host.name,
            after(i.timings.proven_off),
            after(i.timings.ready)
        )
    });
    case.tell(Loudness::Log, Explanation::note("drill-passed", told.unwrap_or_default()));
    super::end(case, End::Proven);
}
