//! Set and Get System Boot Options (sections 28.12 and 28.13): what the machine boots from next time, once.

use super::command::{CHASSIS, Command};
use super::frame::FrameError;
use crate::boot::{BootDevice, BootLasts, BootMode, BootOverride};
use thiserror::Error;

/// Parameter 3: what clears the valid bit of the boot flags (table 28-14).
const FLAG_VALID_BIT_CLEARING: u8 = 3;
/// Parameter 5: the boot flags (table 28-14).
const BOOT_FLAGS: u8 = 5;

const VALID: u8 = 0x80;
const PERSISTENT: u8 = 0x40;
const EFI: u8 = 0x20;
/// The device selector lies in bits 5 to 2.
const DEVICE: u8 = 0x3c;

const NO_OVERRIDE: u8 = 0x00;
const PXE: u8 = 0x04;
const CD: u8 = 0x14;
const REMOTE_CD: u8 = 0x20;

/// Which selector means the first disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DiskSelector {
    /// 0x08, "default hard drive", as the specification has it.
    #[default]
    Standard,
    /// 0x24, "primary remote media": Supermicro's UEFI firmware boots the disk by it and ignores 0x08.
    SupermicroUefi,
}

impl DiskSelector {
    fn bits(self) -> u8 {
        match self {
            DiskSelector::Standard => 0x08,
            DiskSelector::SupermicroUefi => 0x24,
        }
    }
}

/// Why IPMI cannot ask for a boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "IPMI has no selector for UEFI HTTP boot, nothing was set; use PXE or virtual CD, or register the BMC by Redfish"
)]
pub struct NotExpressible;

/// Keeps the BMC from forgetting the boot flags 60 seconds after they were set, if no chassis control came by then: an off
/// that is proven slowly takes longer than that. Bit 3 alone, so that a boot still uses the flags up.
#[must_use]
pub fn keep_flags_beyond_60_s() -> Command {
    Command::read(CHASSIS, 0x08, vec![FLAG_VALID_BIT_CLEARING, 0x08])
}

/// The boot flags for the next boot alone. Never persistent: what boots a host twice reinstalls it twice.
///
/// # Errors
/// IPMI cannot express the device.
pub fn set_boot_once(device: &BootDevice, mode: BootMode, disk: DiskSelector) -> Result<Command, NotExpressible> {
    let device = match device {
        BootDevice::Pxe => PXE,
        BootDevice::Disk => disk.bits(),
        BootDevice::Cd => CD,
        BootDevice::Http { .. } => return Err(NotExpressible),
    };
    let efi = if mode == BootMode::Uefi { EFI } else { 0 };
    Ok(Command::read(CHASSIS, 0x08, vec![BOOT_FLAGS, VALID | efi, device, 0, 0, 0]))
}

/// Get System Boot Options, the boot flags.
#[must_use]
pub fn get_boot_flags() -> Command {
    Command::read(CHASSIS, 0x09, vec![BOOT_FLAGS, 0, 0])
}

/// How a make keeps the boot flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Habit {
    /// Which selector means the first disk.
    pub disk: DiskSelector,
    /// It keeps the device and loses every flag, the valid bit too ([`crate::quirk::Quirks::boot_flags_lost`]).
    pub flags_lost: bool,
}

/// Reads the answer to [`get_boot_flags`].
///
/// # Errors
/// It is too short, or is another parameter.
pub fn read_boot_flags(data: &[u8], habit: Habit) -> Result<BootOverride, FrameError> {
    let disk = habit.disk;
    let [_version, parameter, flags, device, ..] = *data else { return Err(FrameError::Short("boot flags")) };
    if parameter & 0x7f != BOOT_FLAGS {
        return Err(FrameError::Field("boot option parameter"));
    }
    let selector = device & DEVICE;
    // Bit 7 of the parameter number: it is marked invalid or locked.
    let flagged = flags & VALID != 0 || habit.flags_lost && flags == 0 && selector != NO_OVERRIDE;
    let valid = flagged && parameter & 0x80 == 0;
    let lasts = match (valid && selector != NO_OVERRIDE, flags & PERSISTENT != 0) {
        (false, _) => BootLasts::Disabled,
        (true, false) => BootLasts::Once,
        (true, true) => BootLasts::Always,
    };
    let device = match selector {
        _ if !valid => None,
        PXE => Some(BootDevice::Pxe),
        CD | REMOTE_CD => Some(BootDevice::Cd),
        // Either: what was set by somebody else is a disk as well.
        0x08 => Some(BootDevice::Disk),
        other if other == disk.bits() => Some(BootDevice::Disk),
        _ => None,
    };
    let mode =
        (flags & VALID != 0 && valid).then_some(if flags & EFI != 0 { BootMode::Uefi } else { BootMode::Legacy });
    Ok(BootOverride { device, lasts, mode, word: word(selector, valid) })
}

/// The specification's word for a selector (table 28-14).
fn word(selector: u8, valid: bool) -> String {
    let device = match selector >> 2 {
        0 => "no override",
        1 => "PXE",
        2 => "default hard drive",
        3 => "default hard drive, safe mode",
        4 => "diagnostic partition",
        5 => "CD/DVD",
        6 => "BIOS setup",
        7 => "remote floppy or primary removable media",
        8 => "remote CD/DVD",
        9 => "primary remote media",
        11 => "remote hard drive",
        15 => "floppy or primary removable media",
        _ => "reserved",
    };
    if valid { device.to_owned() } else { format!("{device} (not valid)") }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_boot_is_asked_for_once_and_in_the_mode_wanted() {
        let set = |device, mode, disk| set_boot_once(&device, mode, disk).unwrap().data;
        // As `ipmitool chassis bootdev pxe options=efiboot` sends it, seen on goipmi-server: a0 04 00 00 00.
        assert_eq!(set(BootDevice::Pxe, BootMode::Uefi, DiskSelector::Standard), [5, 0xa0, 0x04, 0, 0, 0]);
        assert_eq!(set(BootDevice::Pxe, BootMode::Legacy, DiskSelector::Standard), [5, 0x80, 0x04, 0, 0, 0]);
        assert_eq!(set(BootDevice::Disk, BootMode::Uefi, DiskSelector::Standard), [5, 0xa0, 0x08, 0, 0, 0]);
        assert_eq!(set(BootDevice::Disk, BootMode::Uefi, DiskSelector::SupermicroUefi), [5, 0xa0, 0x24, 0, 0, 0]);
        assert_eq!(set(BootDevice::Cd, BootMode::Uefi, DiskSelector::Standard), [5, 0xa0, 0x14, 0, 0, 0]);
        let http = set_boot_once(&BootDevice::Http { uri: None }, BootMode::Uefi, DiskSelector::Standard);
        assert_eq!(http, Err(NotExpressible));
    }

    #[test]
    fn the_countdown_is_what_is_switched_off() {
        // As ironic sends it: raw 0x00 0x08 0x03 0x08.
        let sent = keep_flags_beyond_60_s();
        assert_eq!((sent.net_fn, sent.command, &sent.data[..]), (0, 0x08, &[3, 8][..]));
    }

    #[test]
    fn what_is_set_is_read_back_and_what_differs_is_seen() {
        let read = |data: &[u8]| read_boot_flags(data, Habit::default()).unwrap();
        let once = read(&[1, 5, 0xa0, 0x04, 0, 0, 0]);
        assert_eq!((once.device, once.lasts), (Some(BootDevice::Pxe), BootLasts::Once));
        assert_eq!((once.mode, &once.word[..]), (Some(BootMode::Uefi), "PXE"));
        // ipmi_sim keeps the device and loses everything else.
        let lost = read(&[1, 5, 0x00, 0x04, 0, 0, 0]);
        assert_eq!((lost.device, lost.lasts, lost.mode), (None, BootLasts::Disabled, None));
        assert_eq!(lost.word, "PXE (not valid)");
        assert_eq!(read(&[1, 5, 0xe0, 0x08, 0, 0, 0]).lasts, BootLasts::Always);
        assert_eq!(read(&[1, 0x85, 0xa0, 0x08, 0, 0, 0]).lasts, BootLasts::Disabled);
        assert_eq!(read(&[1, 5, 0xa0, 0x24, 0, 0, 0]).device, None);
        // Of a make that is known to lose them the device alone is believed, and never more than one boot.
        let known = Habit { flags_lost: true, ..Habit::default() };
        let kept = read_boot_flags(&[1, 5, 0x00, 0x04, 0, 0, 0], known).unwrap();
        assert_eq!((kept.device, kept.lasts, kept.mode), (Some(BootDevice::Pxe), BootLasts::Once, None));
        assert_eq!(read_boot_flags(&[1, 5, 0x00, 0x00, 0, 0, 0], known).unwrap().lasts, BootLasts::Disabled);
        assert_eq!(read_boot_flags(&[1, 5, 0x40, 0x04, 0, 0, 0], known).unwrap().lasts, BootLasts::Disabled);
        let supermicro = Habit { disk: DiskSelector::SupermicroUefi, ..Habit::default() };
        let disk = read_boot_flags(&[1, 5, 0xa0, 0x24, 0, 0, 0], supermicro).unwrap();
        assert_eq!(disk.device, Some(BootDevice::Disk));
        assert!(read_boot_flags(&[1, 3, 0x08, 0], Habit::default()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(data in proptest::collection::vec(any::<u8>(), 0..16)) {
            let _ = read_boot_flags(&data, Habit::default());
            let _ = read_boot_flags(&data, Habit { disk: DiskSelector::SupermicroUefi, flags_lost: true });
        }
    }
}
