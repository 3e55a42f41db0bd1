//! What an event or a state of a sensor means: tables 42-1 to 42-3 of the specification in words, each with how bad it is.
//!
//! The specification gives no severity for most states; ours says whether a machine may go on (warning) or is or was
//! broken by it (critical).

use crate::health::Severity::{self, Critical, Ok, Warning};

/// Event/reading type of thresholds (table 42-1).
pub const THRESHOLD: u8 = 0x01;
/// Event/reading type of states that the sensor's type defines (table 42-1).
pub const SENSOR_SPECIFIC: u8 = 0x6f;

type State = (&'static str, Severity);

/// Table 42-3, the types' names.
const SENSOR_TYPES: [&str; 0x2d] = [
    "Reserved",
    "Temperature",
    "Voltage",
    "Current",
    "Fan",
    "Physical Security",
    "Platform Security",
    "Processor",
    "Power Supply",
    "Power Unit",
    "Cooling Device",
    "Other Units",
    "Memory",
    "Drive Slot",
    "POST Memory Resize",
    "System Firmware",
    "Event Logging",
    "Watchdog 1",
    "System Event",
    "Critical Interrupt",
    "Button",
    "Module",
    "Microcontroller",
    "Add-in Card",
    "Chassis",
    "Chip Set",
    "Other FRU",
    "Cable",
    "Terminator",
    "System Boot",
    "Boot Error",
    "OS Boot",
    "OS Stop",
    "Slot",
    "System ACPI Power State",
    "Watchdog 2",
    "Platform Alert",
    "Entity Presence",
    "Monitor ASIC",
    "LAN",
    "Management Subsystem Health",
    "Battery",
    "Session Audit",
    "Version Change",
    "FRU State",
];

/// Events of a threshold sensor (table 42-2, type 01h).
const THRESHOLD_EVENTS: &[State] = &[
    ("lower non-critical going low", Warning),
    ("lower non-critical going high", Warning),
    ("lower critical going low", Critical),
    ("lower critical going high", Critical),
    ("lower non-recoverable going low", Critical),
    ("lower non-recoverable going high", Critical),
    ("upper non-critical going low", Warning),
    ("upper non-critical going high", Warning),
    ("upper critical going low", Critical),
    ("upper critical going high", Critical),
    ("upper non-recoverable going low", Critical),
    ("upper non-recoverable going high", Critical),
];

/// States that no type defines for itself (table 42-2, types 02h to 0Ch).
fn generic(event_type: u8) -> &'static [State] {
    match event_type {
        0x02 => &[("idle", Ok), ("active", Ok), ("busy", Ok)],
        0x03 => &[("state deasserted", Ok), ("state asserted", Ok)],
        0x04 => &[("predictive failure deasserted", Ok), ("predictive failure asserted", Warning)],
        0x05 => &[("limit not exceeded", Ok), ("limit exceeded", Warning)],
        0x06 => &[("performance met", Ok), ("performance lags", Warning)],
        0x07 => &[
            ("OK", Ok),
            ("non-critical from OK", Warning),
            ("critical from less severe", Critical),
            ("non-recoverable from less severe", Critical),
            ("non-critical from more severe", Warning),
            ("critical from non-recoverable", Critical),
            ("non-recoverable", Critical),
            ("monitor", Ok),
            ("informational", Ok),
        ],
        0x08 => &[("device absent", Ok), ("device present", Ok)],
        0x09 => &[("device disabled", Ok), ("device enabled", Ok)],
        0x0a => &[
            ("running", Ok),
            ("in test", Ok),
            ("power off", Ok),
            ("on line", Ok),
            ("off line", Ok),
            ("off duty", Ok),
            ("degraded", Warning),
            ("power save", Ok),
            ("install error", Warning),
        ],
        0x0b => &[
            ("fully redundant", Ok),
            ("redundancy lost", Warning),
            ("redundancy degraded", Warning),
            ("non-redundant: sufficient from redundant", Warning),
            ("non-redundant: sufficient from insufficient", Warning),
            ("non-redundant: insufficient resources", Critical),
            ("redundancy degraded from fully redundant", Warning),
            ("redundancy degraded from non-redundant", Warning),
        ],
        0x0c => &[("D0 power state", Ok), ("D1 power state", Ok), ("D2 power state", Ok), ("D3 power state", Ok)],
        _ => &[],
    }
}

/// States of a sensor type of its own (table 42-3).
fn specific(sensor_type: u8) -> &'static [State] {
    match sensor_type {
        0x05 => &[
            ("general chassis intrusion", Warning),
            ("drive bay intrusion", Warning),
            ("I/O card area intrusion", Warning),
            ("processor area intrusion", Warning),
            ("system unplugged from LAN", Warning),
            ("unauthorized dock", Warning),
            ("fan area intrusion", Warning),
        ],
        0x06 => &[
            ("front panel lockout violation attempted", Warning),
            ("pre-boot password violation: user password", Warning),
            ("pre-boot password violation: setup password", Warning),
            ("pre-boot password violation: network boot password", Warning),
            ("other pre-boot password violation", Warning),
            ("out-of-band access password violation", Warning),
        ],
        0x07 => &[
            ("IERR", Critical),
            ("thermal trip", Critical),
            ("FRB1/BIST failure", Critical),
            ("FRB2/hang in POST failure", Critical),
            ("FRB3/processor startup failure", Critical),
            ("configuration error", Critical),
            ("uncorrectable CPU-complex error", Critical),
            ("presence detected", Ok),
            ("disabled", Warning),
            ("terminator presence detected", Ok),
            ("throttled", Warning),
            ("uncorrectable machine check exception", Critical),
            ("correctable machine check error", Warning),
        ],
        0x08 => &[
            ("presence detected", Ok),
            ("failure detected", Critical),
            ("predictive failure", Warning),
            ("power supply AC lost", Critical),
            ("AC lost or out-of-range", Critical),
            ("AC out-of-range, but present", Warning),
            ("configuration error", Warning),
            ("power supply inactive", Ok),
        ],
        0x09 => &[
            ("power off/down", Ok),
            ("power cycle", Ok),
            ("240VA power down", Critical),
            ("interlock power down", Warning),
            ("AC lost", Critical),
            ("soft-power control failure", Critical),
            ("failure detected", Critical),
            ("predictive failure", Warning),
        ],
        0x0c => &[
            ("correctable ECC", Warning),
            ("uncorrectable ECC", Critical),
            ("parity", Critical),
            ("memory scrub failed", Critical),
            ("memory device disabled", Critical),
            ("correctable ECC logging limit reached", Warning),
            ("presence detected", Ok),
            ("configuration error", Critical),
            ("spare", Ok),
            ("throttled", Warning),
            ("critical overtemperature", Critical),
        ],
        0x0d => &[
            ("drive present", Ok),
            ("drive fault", Critical),
            ("predictive failure", Warning),
            ("hot spare", Ok),
            ("parity check in progress", Ok),
            ("in critical array", Critical),
            ("in failed array", Critical),
            ("rebuild in progress", Warning),
            ("rebuild aborted", Warning),
        ],
        0x0f => &[("firmware error", Critical), ("firmware hang", Critical), ("firmware progress", Ok)],
        0x10 => &[
            ("correctable memory error logging disabled", Warning),
            ("event logging disabled", Warning),
            ("log area reset/cleared", Ok),
            ("all event logging disabled", Warning),
            ("log full", Warning),
            ("log almost full", Warning),
            ("correctable machine check error logging disabled", Warning),
        ],
        0x11 => &[
            ("BIOS reset", Critical),
            ("OS reset", Critical),
            ("OS shut down", Critical),
            ("OS power down", Critical),
            ("OS power cycle", Critical),
            ("OS NMI/diagnostic interrupt", Critical),
            ("OS expired", Warning),
            ("OS pre-timeout interrupt", Warning),
        ],
        0x12 => &[
            ("system reconfigured", Ok),
            ("OEM system boot event", Ok),
            ("undetermined system hardware failure", Critical),
            ("entry added to auxiliary log", Ok),
            ("PEF action", Ok),
            ("timestamp clock sync", Ok),
        ],
        0x13 => &[
            ("NMI/diagnostic interrupt", Critical),
            ("bus timeout", Critical),
            ("I/O channel check NMI", Critical),
            ("software NMI", Critical),
            ("PCI PERR", Critical),
            ("PCI SERR", Critical),
            ("EISA failsafe timeout", Critical),
            ("bus correctable error", Warning),
            ("bus uncorrectable error", Critical),
            ("fatal NMI", Critical),
            ("bus fatal error", Critical),
            ("bus degraded", Warning),
        ],
        0x14 => &[
            ("power button pressed", Ok),
            ("sleep button pressed", Ok),
            ("reset button pressed", Ok),
            ("FRU latch open", Ok),
            ("FRU service request button pressed", Ok),
        ],
        0x19 => &[("soft power control failure", Critical), ("thermal trip", Critical)],
        0x1b => &[("connected", Ok), ("configuration error", Warning)],
        0x1d => &[
            ("initiated by power up", Ok),
            ("initiated by hard reset", Ok),
            ("initiated by warm reset", Ok),
            ("user requested PXE boot", Ok),
            ("automatic boot to diagnostic", Ok),
            ("OS initiated hard reset", Ok),
            ("OS initiated warm reset", Ok),
            ("system restart", Ok),
        ],
        0x1e => &[
            ("no bootable media", Critical),
            ("non-bootable disk in drive", Warning),
            ("PXE server not found", Warning),
            ("invalid boot sector", Critical),
            ("timeout waiting for selection", Warning),
        ],
        0x1f => &[
            ("A: boot completed", Ok),
            ("C: boot completed", Ok),
            ("PXE boot completed", Ok),
            ("diagnostic boot completed", Ok),
            ("CD-ROM boot completed", Ok),
            ("ROM boot completed", Ok),
            ("boot completed - device not specified", Ok),
            ("installation started", Ok),
            ("installation completed", Ok),
            ("installation aborted", Warning),
            ("installation failed", Critical),
        ],
        0x20 => &[
            ("critical stop during OS load", Critical),
            ("run-time critical stop", Critical),
            ("OS graceful stop", Ok),
            ("OS graceful shutdown", Ok),
            ("PEF initiated soft shutdown", Ok),
            ("agent not responding", Warning),
        ],
        0x21 => &[
            ("fault status", Critical),
            ("identify status", Ok),
            ("device installed", Ok),
            ("ready for device installation", Ok),
            ("ready for device removal", Ok),
            ("slot power is off", Ok),
            ("device removal request", Ok),
            ("interlock", Ok),
            ("slot is disabled", Ok),
            ("spare device", Ok),
        ],
        0x22 => &[
            ("S0/G0: working", Ok),
            ("S1: sleeping with system hw & processor context maintained", Ok),
            ("S2: sleeping, processor context lost", Ok),
            ("S3: sleeping, processor & hw context lost, memory retained", Ok),
            ("S4: non-volatile sleep/suspend-to-disk", Ok),
            ("S5/G2: soft-off", Ok),
            ("S4/S5: soft-off", Ok),
            ("G3: mechanical off", Ok),
            ("sleeping in S1/S2/S3 state", Ok),
            ("G1: sleeping", Ok),
            ("S5: entered by override", Ok),
            ("legacy ON state", Ok),
            ("legacy OFF state", Ok),
            ("", Ok),
            ("unknown", Ok),
        ],
        0x23 => &[
            ("timer expired", Warning),
            ("hard reset", Critical),
            ("power down", Critical),
            ("power cycle", Critical),
            ("", Ok),
            ("", Ok),
            ("", Ok),
            ("", Ok),
            ("timer interrupt", Warning),
        ],
        0x24 => &[("page", Ok), ("LAN alert", Ok), ("platform event trap", Ok), ("SNMP trap, OEM format", Ok)],
        0x25 => &[("present", Ok), ("absent", Ok), ("disabled", Ok)],
        0x27 => &[("heartbeat lost", Warning), ("heartbeat", Ok)],
        0x28 => &[
            ("sensor access degraded or unavailable", Warning),
            ("controller access degraded or unavailable", Warning),
            ("management controller off-line", Critical),
            ("management controller unavailable", Critical),
            ("sensor failure", Warning),
            ("FRU failure", Critical),
        ],
        0x29 => &[("low", Warning), ("failed", Critical), ("presence detected", Ok)],
        0x2a => &[
            ("session activated", Ok),
            ("session deactivated", Ok),
            ("invalid user name or password", Warning),
            ("account disabled by invalid passwords", Warning),
        ],
        0x2b => &[
            ("hardware change detected", Ok),
            ("firmware or software change detected", Ok),
            ("hardware incompatibility", Warning),
            ("firmware or software incompatibility", Warning),
            ("hardware version invalid or unsupported", Warning),
            ("firmware or software version invalid or unsupported", Warning),
            ("hardware change successful", Ok),
            ("firmware or software change successful", Ok),
        ],
        0x2c => &[
            ("not installed", Ok),
            ("inactive", Ok),
            ("activation requested", Ok),
            ("activation in progress", Ok),
            ("active", Ok),
            ("deactivation requested", Ok),
            ("deactivation in progress", Ok),
            ("communication lost", Warning),
        ],
        _ => &[],
    }
}

/// What stopped POST (table 42-3, type 0Fh, offset 0).
const POST_ERRORS: [&str; 14] = [
    "unspecified",
    "no system memory installed",
    "no usable system memory",
    "unrecoverable hard disk failure",
    "unrecoverable system board failure",
    "unrecoverable diskette failure",
    "unrecoverable hard disk controller failure",
    "unrecoverable keyboard failure",
    "removable boot media not found",
    "unrecoverable video controller failure",
    "no video device detected",
    "firmware ROM corruption detected",
    "CPU voltage mismatch",
    "CPU speed matching failure",
];

/// How far POST was (table 42-3, type 0Fh, offsets 1 and 2).
const POST_PROGRESS: [&str; 26] = [
    "unspecified",
    "memory initialization",
    "hard disk initialization",
    "secondary processor initialization",
    "user authentication",
    "user-initiated system setup",
    "USB resource configuration",
    "PCI resource configuration",
    "option ROM initialization",
    "video initialization",
    "cache initialization",
    "SM bus initialization",
    "keyboard controller initialization",
    "management controller initialization",
    "docking station attachment",
    "enabling docking station",
    "docking station ejection",
    "disabling docking station",
    "calling operating system wake-up vector",
    "starting operating system boot process",
    "baseboard initialization",
    "reserved",
    "floppy initialization",
    "keyboard test",
    "pointing device test",
    "primary processor initialization",
];

/// The name of a sensor type.
#[must_use]
pub fn sensor_type(code: u8) -> &'static str {
    match SENSOR_TYPES.get(usize::from(code)) {
        Some(name) => name,
        None if code >= 0xc0 => "OEM sensor",
        None => "Reserved",
    }
}

/// What a state means, and how bad it is. `None` if the specification gives it no meaning.
#[must_use]
pub fn state(sensor_type: u8, event_type: u8, offset: u8) -> Option<(&'static str, Severity)> {
    let states = match event_type {
        THRESHOLD => THRESHOLD_EVENTS,
        SENSOR_SPECIFIC => specific(sensor_type),
        other => generic(other),
    };
    let (text, severity) = *states.get(usize::from(offset))?;
    // A bare "state asserted" is for the record: how bad it is, only the sensor's name tells.
    (!text.is_empty()).then_some((text, severity))
}

/// What event data 2 and 3 add, where the specification gives them a meaning (table 42-3).
#[must_use]
pub fn detail(sensor_type: u8, event_type: u8, data: [u8; 3]) -> Option<String> {
    let [first, second, third] = data;
    let (second_is_ours, third_is_ours) = (first >> 6 == 3, first >> 4 & 3 == 3);
    match (sensor_type, event_type, first & 0x0f) {
        (0x0f, SENSOR_SPECIFIC, 0) if second_is_ours => word(&POST_ERRORS, second),
        (0x0f, SENSOR_SPECIFIC, 1 | 2) if second_is_ours => word(&POST_PROGRESS, second),
        (0x0c, SENSOR_SPECIFIC, _) if third_is_ours => Some(format!("memory module {third}")),
        (0x23, SENSOR_SPECIFIC, _) if second_is_ours => {
            let timer = match second & 0x0f {
                1 => "BIOS FRB2",
                2 => "BIOS/POST",
                3 => "OS load",
                4 => "SMS/OS",
                5 => "OEM",
                _ => return None,
            };
            Some(format!("timer of {timer}"))
        }
        _ => None,
    }
}

fn word(words: &[&str], code: u8) -> Option<String> {
    match words.get(usize::from(code)) {
        Some(word) => Some((*word).to_owned()),
        None => Some(format!("code {code:#04x}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_breaks_a_machine_is_critical() {
        let severity = |sensor, kind, offset| state(sensor, kind, offset).map(|(_, severity)| severity);
        assert_eq!(severity(0x01, THRESHOLD, 9), Some(Critical));
        assert_eq!(severity(0x01, THRESHOLD, 7), Some(Warning));
        assert_eq!(severity(0x0c, SENSOR_SPECIFIC, 1), Some(Critical));
        assert_eq!(severity(0x0c, SENSOR_SPECIFIC, 0), Some(Warning));
        assert_eq!(severity(0x08, SENSOR_SPECIFIC, 0), Some(Ok));
        assert_eq!(severity(0x08, SENSOR_SPECIFIC, 3), Some(Critical));
        assert_eq!(severity(0x20, SENSOR_SPECIFIC, 1), Some(Critical));
        assert_eq!(severity(0x23, SENSOR_SPECIFIC, 4), None);
        assert_eq!(severity(0x0b, 0x0b, 1), Some(Warning));
        assert_eq!(sensor_type(0x2c), "FRU State");
        assert_eq!(sensor_type(0xc8), "OEM sensor");
    }

    #[test]
    fn data_bytes_speak_only_where_they_say_so() {
        assert_eq!(detail(0x0f, 0x6f, [0xc0, 0x01, 0xff]).as_deref(), Some("no system memory installed"));
        assert_eq!(detail(0x0f, 0x6f, [0xc2, 0x13, 0xff]).as_deref(), Some("starting operating system boot process"));
        assert_eq!(detail(0x0f, 0x6f, [0x00, 0x01, 0xff]), None);
        assert_eq!(detail(0x0c, 0x6f, [0x31, 0xff, 0x05]).as_deref(), Some("memory module 5"));
        assert_eq!(detail(0x23, 0x6f, [0xc1, 0x04, 0xff]).as_deref(), Some("timer of SMS/OS"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(kind: u8, event: u8, offset: u8, data: [u8; 3]) {
            let _ = (sensor_type(kind), state(kind, event, offset), detail(kind, event, data));
        }
    }
}
