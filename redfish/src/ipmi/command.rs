//! What is asked of a BMC, and what its answers mean: bytes to types, no I/O.

use super::frame::FrameError;

/// A command: its network function, number and data.
#[derive(Clone, PartialEq, Eq)]
pub struct Command {
    /// Logical unit of the BMC, 0 to 3; all but some sensors are on 0.
    pub lun: u8,
    /// Network function, even.
    pub net_fn: u8,
    /// Number.
    pub command: u8,
    /// Data.
    pub data: Vec<u8>,
    /// Sent again when its answer is lost: only what may be done twice.
    pub repeatable: bool,
}

impl std::fmt::Debug for Command {
    /// Without the data: it may be a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Command")
            .field("lun", &self.lun)
            .field("net_fn", &self.net_fn)
            .field("command", &self.command)
            .field("data_bytes", &self.data.len())
            .finish_non_exhaustive()
    }
}

impl Command {
    /// A command that may be done twice, to logical unit 0.
    pub(super) fn read(net_fn: u8, command: u8, data: Vec<u8>) -> Command {
        Command { lun: 0, net_fn, command, data, repeatable: true }
    }
}

/// Network functions (table 5-1).
pub(super) const CHASSIS: u8 = 0x00;
pub(super) const SENSOR: u8 = 0x04;
pub(super) const APPLICATION: u8 = 0x06;
pub(super) const STORAGE: u8 = 0x0a;

/// What chassis control does (section 28.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Hard off, at once.
    Off,
    /// On.
    On,
    /// Off and on by the BMC, which shows nobody the off between: never for a fence.
    Cycle,
    /// Hard reset.
    Reset,
    /// A diagnostic interrupt (NMI).
    Interrupt,
    /// The power button pressed for a moment: the system may do as it likes.
    Soft,
}

/// The power and what is known about it (section 28.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChassisStatus {
    /// The power is on.
    pub on: bool,
    /// The power supply failed.
    pub fault: bool,
    /// The last change was by a loss of AC.
    pub lost_ac: bool,
    /// The last off was by an overload.
    pub overload: bool,
    /// The last off was by an interlock.
    pub interlock: bool,
    /// The last on was by a command.
    pub commanded_on: bool,
}

/// Get Device ID, as far as all BMCs answer it: the short form of 11 bytes is legal (section 20.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceId {
    /// Device ID.
    pub device: u8,
    /// Firmware, major.
    pub firmware_major: u8,
    /// Firmware, minor, as two decimal digits.
    pub firmware_minor: u8,
    /// IANA enterprise number of the manufacturer.
    pub manufacturer: u32,
    /// Product ID.
    pub product: u16,
    /// It is updating its firmware or initialising itself.
    pub busy: bool,
}

/// Get Chassis Status.
#[must_use]
pub fn chassis_status() -> Command {
    Command::read(CHASSIS, 0x01, Vec::new())
}

/// Chassis Control. Only off and on may be sent again after a lost answer.
#[must_use]
pub fn chassis_control(control: Control) -> Command {
    let code = match control {
        Control::Off => 0,
        Control::On => 1,
        Control::Cycle => 2,
        Control::Reset => 3,
        Control::Interrupt => 4,
        Control::Soft => 5,
    };
    let repeatable = matches!(control, Control::Off | Control::On);
    Command { lun: 0, net_fn: CHASSIS, command: 0x02, data: vec![code], repeatable }
}

/// Get Device ID.
#[must_use]
pub fn device_id() -> Command {
    Command::read(APPLICATION, 0x01, Vec::new())
}

/// Cold Reset of the BMC (section 20.2). Never twice: the second would meet it while it starts.
#[must_use]
pub fn cold_reset() -> Command {
    Command { repeatable: false, ..Command::read(APPLICATION, 0x02, Vec::new()) }
}

/// Get System GUID: the machine's identity (section 22.14).
#[must_use]
pub fn system_guid() -> Command {
    Command::read(APPLICATION, 0x37, Vec::new())
}

/// Set Session Privilege Level: a session opens at User whatever was asked (section 22.18).
#[must_use]
pub fn set_privilege(level: u8) -> Command {
    Command::read(APPLICATION, 0x3b, vec![level])
}

/// Close Session (section 22.19).
#[must_use]
pub fn close_session(bmc_id: u32) -> Command {
    Command::read(APPLICATION, 0x3c, bmc_id.to_le_bytes().to_vec())
}

/// Reads the answer to Get Chassis Status.
///
/// # Errors
/// It is too short.
pub fn read_chassis_status(data: &[u8]) -> Result<ChassisStatus, FrameError> {
    let [power, last, ..] = *data else { return Err(FrameError::Short("chassis status")) };
    Ok(ChassisStatus {
        on: power & 0x01 != 0,
        overload: power & 0x02 != 0 || last & 0x02 != 0,
        interlock: power & 0x04 != 0 || last & 0x04 != 0,
        fault: power & 0x18 != 0 || last & 0x08 != 0,
        lost_ac: last & 0x01 != 0,
        commanded_on: last & 0x10 != 0,
    })
}

/// Reads the answer to Get Device ID.
///
/// # Errors
/// It is too short.
pub fn read_device_id(data: &[u8]) -> Result<DeviceId, FrameError> {
    let [device, _, firmware, minor, _, _, m0, m1, m2, p0, p1, ..] = *data else {
        return Err(FrameError::Short("device ID"));
    };
    Ok(DeviceId {
        device,
        firmware_major: firmware & 0x7f,
        // Binary-coded decimal; what is none is shown as it is.
        firmware_minor: if minor & 0x0f < 10 && minor >> 4 < 10 { (minor >> 4) * 10 + (minor & 0x0f) } else { minor },
        manufacturer: u32::from_le_bytes([m0, m1, m2 & 0x0f, 0]),
        product: u16::from_le_bytes([p0, p1]),
        busy: firmware & 0x80 != 0,
    })
}

/// Reads the answer to Get System GUID: sixteen bytes as sent. Their order differs between vendors; who compares must try
/// both.
///
/// # Errors
/// It is too short.
pub fn read_guid(data: &[u8]) -> Result<[u8; 16], FrameError> {
    super::frame::sixteen_at(data, 0, "GUID")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_off_and_on_are_sent_twice() {
        for control in [Control::Cycle, Control::Reset, Control::Interrupt, Control::Soft] {
            assert!(!chassis_control(control).repeatable, "{control:?}");
        }
        assert!(!cold_reset().repeatable);
        assert!(chassis_control(Control::Off).repeatable && chassis_control(Control::On).repeatable);
    }

    #[test]
    fn the_short_device_id_is_read() {
        // As pyghmi's BMC answers it: eleven bytes, no auxiliary revision.
        let short = [0x20, 0x01, 0x09, 0x08, 0x02, 0x9f, 0x91, 0x12, 0x00, 0x02, 0x0f];
        let seen = read_device_id(&short).unwrap();
        assert_eq!((seen.firmware_major, seen.firmware_minor, seen.manufacturer, seen.product), (9, 8, 0x1291, 0x0f02));
        assert!(read_device_id(&short[..10]).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(data in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = read_chassis_status(&data);
            let _ = read_device_id(&data);
            let _ = read_guid(&data);
        }
    }
}
