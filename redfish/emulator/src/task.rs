//! Tasks: what was answered with 202 and ends later, or badly, or never (DSP0266, section 12.2).

use crate::misbehaviour::Misbehaviour;
use crate::state::State;

/// Tasks that are remembered.
const TASKS_MAX: usize = 64;
/// How long one takes that ends well.
const TAKES_MS: u64 = 2_000;

/// How a task goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// It ends badly, at once.
    Fails,
    /// It never ends.
    Hangs,
    /// It ends well then.
    EndsAt(u64),
}

impl Task {
    /// `TaskState` and `TaskStatus` as they are at this moment.
    pub(crate) fn words(self, at: u64) -> (&'static str, &'static str) {
        match self {
            Task::Fails => ("Exception", "Critical"),
            Task::EndsAt(end) if at >= end => ("Completed", "OK"),
            Task::Hangs | Task::EndsAt(_) => ("Running", "OK"),
        }
    }
}

impl State {
    /// Begins a task if power commands are answered so now; its number.
    pub(crate) fn begin_task(&mut self, at: u64) -> Option<u32> {
        let task = if self.has(Misbehaviour::EndlessTask) {
            Task::Hangs
        } else if self.has(Misbehaviour::FailingTask) {
            Task::Fails
        } else if self.has(Misbehaviour::TaskThenDone) {
            Task::EndsAt(at + TAKES_MS)
        } else {
            return None;
        };
        let number = self.tasks.keys().next_back().map_or(1, |last| last.wrapping_add(1));
        if self.tasks.len() >= TASKS_MAX {
            self.tasks.pop_first();
        }
        self.tasks.insert(number, task);
        Some(number)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::emulator::Setup;
    use crate::model::by_name;
    use crate::redfish::resource;
    use crate::state::Handle;
    use machine::Machine;

    #[test]
    fn a_task_goes_as_its_misbehaviour_says_and_its_monitor_shows_it() {
        let setup = Setup::of(by_name("openbmc").unwrap());
        let handle = Handle::new(Machine::new(setup.spec, 1), setup.model, Vec::new());
        assert_eq!(handle.lock().begin_task(0), None, "without misbehaviour all is done at once");
        let word = |number: u32, at| {
            let path = format!("/redfish/v1/TaskService/TaskMonitors/{number}");
            resource(&mut handle.lock(), at, &path, "").map(|task| task["TaskState"].as_str().unwrap().to_owned())
        };
        handle.set(Misbehaviour::TaskThenDone, true);
        let number = handle.lock().begin_task(1_000).unwrap();
        assert_eq!(word(number, 2_999).as_deref(), Some("Running"));
        assert_eq!(word(number, 3_000).as_deref(), Some("Completed"));
        handle.set(Misbehaviour::FailingTask, true);
        let number = handle.lock().begin_task(4_000).unwrap();
        assert_eq!(word(number, 4_000).as_deref(), Some("Exception"));
        handle.set(Misbehaviour::EndlessTask, true);
        for _ in 0..TASKS_MAX {
            handle.lock().begin_task(5_000).unwrap();
        }
        assert_eq!(word(number + 1, 1_000_000_000).as_deref(), Some("Running"));
        assert_eq!(word(number, 6_000), None, "the oldest are forgotten");
        assert_eq!(handle.lock().tasks.len(), TASKS_MAX);
    }
}
