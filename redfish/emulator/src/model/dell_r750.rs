//! PowerEdge R750, iDRAC 9: no ETag at the system, 409 for what is so already, 412 for an action with `If-Match`.

use super::{Already, BASE, Model};

pub(super) const MODEL: Model = Model {
    name: "dell_r750",
    root_vendor: Some("Dell"),
    root_product: Some("Integrated Dell Remote Access Controller"),
    manufacturer: "Dell Inc.",
    system_model: "PowerEdge R750",
    manager_model: Some("16G Monolithic"),
    firmware: "6.00.30.00",
    enterprise: 674,
    system_id: "System.Embedded.1",
    chassis_id: "System.Embedded.1",
    manager_id: "iDRAC.Embedded.1",
    action_refuses_if_match: true,
    resets: &[
        "On",
        "ForceOff",
        "ForceRestart",
        "GracefulRestart",
        "GracefulShutdown",
        "PushPowerButton",
        "Nmi",
        "PowerCycle",
    ],
    already: Already::Conflict,
    boot_targets: &["None", "Pxe", "Floppy", "Cd", "Hdd", "BiosSetup", "Utilities", "UefiTarget", "SDCard", "UefiHttp"],
    media_at_system: true,
    media_id: "1",
    boot_progress: false,
    log_id: "Sel",
    ..BASE
};
