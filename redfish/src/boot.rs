//! What a machine boots from next time, and how far its boot has come.

/// What it shall boot from once. Never persistently: what boots a host twice reinstalls it twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BootDevice {
    /// Network boot by PXE.
    Pxe,
    /// Network boot by UEFI HTTP. The BMC passes the URI on, or the firmware takes it from DHCP.
    Http {
        /// Where the loader lies; `None` leaves it to DHCP.
        uri: Option<String>,
    },
    /// The CD drive: virtual media.
    Cd,
    /// The first disk.
    Disk,
}

/// The firmware mode asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootMode {
    /// UEFI.
    Uefi,
    /// Legacy BIOS.
    Legacy,
}

/// How long an override lasts, as read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootLasts {
    /// For the next boot.
    Once,
    /// For every boot from now on: read back after a one-shot was asked for, it is a fault of the BMC and said so.
    Always,
    /// It is off.
    Disabled,
    /// Not told.
    Unknown,
}

/// The override as read back. What was asked for and what is set differ on many machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootOverride {
    /// The device; `None` if none is set or it is none of ours.
    pub device: Option<BootDevice>,
    /// How long.
    pub lasts: BootLasts,
    /// The mode, where told.
    pub mode: Option<BootMode>,
    /// The BMC's own word for the device.
    pub word: String,
}

/// How far a boot has come, where told. Vendors fill it unevenly: its absence says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootStage {
    /// Power-on self test: memory, buses, firmware.
    Post,
    /// The firmware is in its set-up screen.
    Setup,
    /// A boot loader or kernel was started.
    OsLoading,
    /// The operating system runs.
    OsRunning,
    /// Not told.
    Unknown,
}
