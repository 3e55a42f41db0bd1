//! ProLiant DL385 Gen10 Plus, iLO 5: weak ETags, 400 for what is so already, no override during the self test.

use super::{Already, BASE, Etag, Model};

pub(super) const MODEL: Model = Model {
    name: "hpe_dl385",
    root_vendor: Some("HPE"),
    root_product: Some("ProLiant DL385 Gen10 Plus v2"),
    manufacturer: "HPE",
    system_model: "ProLiant DL385 Gen10 Plus v2",
    manager_model: Some("iLO 5"),
    firmware: "iLO 5 v2.72",
    enterprise: 47_196,
    etag: Etag::Weak,
    resets: &["On", "ForceOff", "GracefulShutdown", "ForceRestart", "Nmi", "PushPowerButton", "GracefulRestart"],
    already: Already::InvalidState,
    boot_targets: &[
        "None",
        "Cd",
        "Hdd",
        "Usb",
        "SDCard",
        "Utilities",
        "Diags",
        "BiosSetup",
        "Pxe",
        "UefiShell",
        "UefiHttp",
        "UefiTarget",
    ],
    boot_not_in_post: true,
    media_id: "2",
    boot_progress: false,
    post_state: true,
    log_id: "IML",
    ..BASE
};
