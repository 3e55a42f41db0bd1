//! The host's serial port, in memory: what its firmware and its operating system print, and the echo of what is typed.
//!
//! What is printed while nobody looks is kept, the newest of it, as a BMC with a log of its console does.

use machine::{Fault, Machine, Power, StageRead};
use std::collections::VecDeque;

/// Characters kept until somebody takes them.
const KEPT_CHARACTERS: usize = 16 * 1_024;

/// The port.
#[derive(Debug)]
pub(crate) struct Serial {
    unread: VecDeque<u8>,
    overrun: bool,
    powered: bool,
    stage: StageRead,
    boots: u64,
}

impl Serial {
    /// The port of a machine as it stands: nothing was printed yet.
    pub(crate) fn new(machine: &Machine) -> Serial {
        let (powered, stage) = (machine.power() != Power::Off, machine.bmc_stage(machine.now()));
        Serial { unread: VecDeque::new(), overrun: false, powered, stage, boots: machine.boots() }
    }

    /// Prints what the machine prints on its way from where it was to where it is now.
    pub(crate) fn follow(&mut self, machine: &Machine) {
        let powered = machine.power() != Power::Off;
        if powered && !self.powered {
            let spec = machine.spec();
            self.print(&format!("\r\n{} {}: power on\r\n", spec.vendor, spec.model));
        }
        self.powered = powered;
        let stage = match machine.bmc_stage(machine.now()) {
            // Firmware of the BMC's own doing: the host prints nothing of it.
            StageRead::FirmwareTask => return,
            stage => stage,
        };
        let boots = machine.boots();
        if (stage, boots) == (self.stage, self.boots) {
            return;
        }
        let before = std::mem::replace(&mut self.stage, stage);
        self.boots = boots;
        match stage {
            StageRead::Post => self.print("POST: testing processors and memory\r\n"),
            StageRead::Starting => self.print("POST: done\r\nLoading the operating system\r\n"),
            StageRead::Running if machine.truth().kernel_ok => {
                self.print(&format!("Linux: boot {boots} on {}\r\nlogin: ", machine.spec().serial));
            }
            StageRead::Running if before == StageRead::Post => self.print("POST: hardware fault, system halted\r\n"),
            StageRead::ShuttingDown => self.print("\r\nThe system is going down\r\n"),
            StageRead::Running | StageRead::None | StageRead::FirmwareTask => {}
        }
    }

    /// Prints the last words of a kernel. One that hangs has none.
    pub(crate) fn strike(&mut self, machine: &Machine, fault: Fault) {
        if machine.truth().kernel_ok && matches!(fault, Fault::KernelPanic { .. }) {
            self.print("\r\nKernel panic - not syncing: Fatal exception\r\n");
        }
    }

    /// The host has power: its port is there.
    pub(crate) fn is_powered(&self) -> bool {
        self.powered
    }

    /// Somebody types. A kernel that lives echoes; firmware and the dead do not.
    pub(crate) fn typed(&mut self, machine: &Machine, characters: &[u8]) {
        if machine.truth().kernel_ok {
            self.write(characters);
        }
    }

    /// Somebody sends a break: the kernel's magic keys.
    pub(crate) fn broken(&mut self, machine: &Machine) {
        if machine.truth().kernel_ok {
            self.print("\r\nsysrq: HELP : reboot(b) crash(c) sync(s)\r\n");
        }
    }

    /// Takes what was printed, at most so much.
    pub(crate) fn take(&mut self, most: usize) -> Vec<u8> {
        let count = self.unread.len().min(most);
        self.unread.drain(..count).collect()
    }

    /// Puts back what was taken and did not arrive.
    pub(crate) fn put_back(&mut self, characters: &[u8]) {
        for character in characters.iter().rev() {
            self.unread.push_front(*character);
        }
    }

    /// Characters were lost since the last call.
    pub(crate) fn take_overrun(&mut self) -> bool {
        std::mem::take(&mut self.overrun)
    }

    /// Forgets what nobody took.
    pub(crate) fn flush(&mut self) {
        self.unread.clear();
    }

    /// Prints.
    pub(crate) fn print(&mut self, text: &str) {
        self.write(text.as_bytes());
    }

    fn write(&mut self, characters: &[u8]) {
        self.unread.extend(characters);
        let over = self.unread.len().saturating_sub(KEPT_CHARACTERS);
        self.overrun |= over > 0;
        self.unread.drain(..over);
    }

    /// One that printed this.
    #[cfg(test)]
    pub(crate) fn printing(text: &str) -> Serial {
        let mut serial = Serial::new(&Machine::new(machine::Spec::default(), 1));
        serial.print(text);
        serial
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::{BmcRequest, Spec};

    #[test]
    fn a_boot_prints_its_way_and_a_dead_kernel_echoes_nothing() {
        let mut machine = Machine::new(Spec::default(), 1).switched_off();
        let mut serial = Serial::new(&machine);
        machine.bmc_request(1_000, BmcRequest::PowerOn);
        while let Some(at) = machine.next_change_at() {
            serial.follow(&machine);
            if !machine.truth().kernel_ok {
                serial.typed(&machine, b"lost");
            }
            machine.advance(at);
        }
        serial.follow(&machine);
        serial.typed(&machine, b"root");
        let text = String::from_utf8_lossy(&serial.take(usize::MAX)).into_owned();
        let places: Vec<_> = ["power on", "POST:", "Loading", "login: root"].map(|word| text.find(word)).into();
        assert!(places.iter().all(Option::is_some) && places.is_sorted() && !text.contains("lost"), "{text}");
        serial.strike(&machine, Fault::KernelPanic { dump_ms: None });
        machine.inject(machine.now(), Fault::KernelPanic { dump_ms: None });
        serial.typed(&machine, b"hello?");
        let text = String::from_utf8_lossy(&serial.take(usize::MAX)).into_owned();
        assert!(text.contains("Kernel panic") && !text.contains("hello?"), "{text}");
    }

    #[test]
    fn what_nobody_takes_is_kept_up_to_a_bound() {
        let mut serial = Serial::printing(&"x".repeat(KEPT_CHARACTERS));
        assert!(!serial.take_overrun());
        serial.print("newest");
        assert!(serial.take_overrun());
        let kept = serial.take(usize::MAX);
        assert!(kept.len() == KEPT_CHARACTERS && kept.ends_with(b"newest"));
    }
}
