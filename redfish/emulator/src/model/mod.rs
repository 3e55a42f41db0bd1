//! Makes of machines: how their Redfish differs. One file each; shapes taken from trees recorded at real BMCs.

mod ami_megarac;
mod dell_r750;
mod hpe_dl385;
mod lenovo_sr670;
mod openbmc;
mod supermicro_x12;

/// What ETags it gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Etag {
    /// None.
    None,
    /// Weak ones.
    Weak,
    /// Strong ones.
    Strong,
}

/// What it answers to an off of what is off and an on of what is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Already {
    /// Success.
    Accepts,
    /// 409.
    Conflict,
    /// 400 with `InvalidOperationForSystemState`.
    InvalidState,
}

/// Where an override is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootAt {
    /// At the system.
    System,
    /// At this resource under the system, announced as its settings object.
    Settings(&'static str),
    /// At this resource under the system, announced so; at the system it is refused by name.
    FutureState(&'static str),
}

/// A make.
#[derive(Debug, Clone, Copy)]
pub struct Model {
    /// Its name here.
    pub name: &'static str,
    /// `Vendor` of the service root, if it tells.
    pub root_vendor: Option<&'static str>,
    /// `Product` of the service root, if it tells.
    pub root_product: Option<&'static str>,
    /// `Manufacturer` of the system.
    pub manufacturer: &'static str,
    /// `Model` of the system.
    pub system_model: &'static str,
    /// `Model` of the manager, if it tells.
    pub manager_model: Option<&'static str>,
    /// `FirmwareVersion` of the manager.
    pub firmware: &'static str,
    /// IANA enterprise number over IPMI.
    pub enterprise: u32,
    /// `Id` of the system.
    pub system_id: &'static str,
    /// `Id` of the chassis.
    pub chassis_id: &'static str,
    /// `Id` of the manager.
    pub manager_id: &'static str,
    /// Its ETags.
    pub etag: Etag,
    /// A change without `If-Match` is refused with 428.
    pub if_match_required: bool,
    /// A change with a weak ETag is refused with 412.
    pub strong_only: bool,
    /// An action with `If-Match` is refused with 412.
    pub action_refuses_if_match: bool,
    /// Reset types stand behind `@Redfish.ActionInfo` instead of beside the action.
    pub action_info: bool,
    /// Reset types.
    pub resets: &'static [&'static str],
    /// Off of what is off, on of what is on.
    pub already: Already,
    /// Boot targets.
    pub boot_targets: &'static [&'static str],
    /// Where an override is written.
    pub boot_at: BootAt,
    /// It has a boot mode.
    pub boot_mode: bool,
    /// An override without mode falls back to legacy.
    pub boot_mode_wanted: bool,
    /// Only target, duration and mode together are taken.
    pub boot_whole_only: bool,
    /// Overrides are refused during the self test.
    pub boot_not_in_post: bool,
    /// `Continuous` is refused.
    pub boot_once_only: bool,
    /// Virtual media hang under the system, else under the manager.
    pub media_at_system: bool,
    /// What its virtual CD drive is called.
    pub media_id: &'static str,
    /// What its event log is called.
    pub log_id: &'static str,
    /// Beside that, it shows a `SEL` that can be cleared and has no entries.
    pub log_sel_bare: bool,
    /// It shows `PoweringOn` and `PoweringOff`.
    pub transient: bool,
    /// It has `BootProgress`.
    pub boot_progress: bool,
    /// Its self test shows in an OEM field instead.
    pub post_state: bool,
}

/// The makes.
pub(crate) const ALL: &[Model] = &[
    dell_r750::MODEL,
    hpe_dl385::MODEL,
    lenovo_sr670::MODEL,
    supermicro_x12::MODEL,
    ami_megarac::MODEL,
    openbmc::MODEL,
];

/// By its name.
#[must_use]
pub fn by_name(name: &str) -> Option<Model> {
    ALL.iter().copied().find(|model| model.name == name)
}

const BASE: Model = Model {
    name: "",
    root_vendor: None,
    root_product: None,
    manufacturer: "",
    system_model: "",
    manager_model: None,
    firmware: "1.0",
    enterprise: 0,
    system_id: "1",
    chassis_id: "1",
    manager_id: "1",
    etag: Etag::None,
    if_match_required: false,
    strong_only: false,
    action_refuses_if_match: false,
    action_info: false,
    resets: &["On", "ForceOff", "ForceRestart", "GracefulShutdown", "Nmi"],
    already: Already::Accepts,
    boot_targets: &["None", "Pxe", "Cd", "Hdd", "BiosSetup", "UefiHttp"],
    boot_at: BootAt::System,
    boot_mode: true,
    boot_mode_wanted: false,
    boot_whole_only: false,
    boot_not_in_post: false,
    boot_once_only: false,
    media_at_system: false,
    media_id: "Cd",
    log_id: "SEL",
    log_sel_bare: false,
    transient: false,
    boot_progress: true,
    post_state: false,
};
