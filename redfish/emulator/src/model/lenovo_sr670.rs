//! ThinkSystem SR670 V2, XCC: strong ETags demanded, overrides once only and at the pending object.

use super::{BASE, BootAt, Etag, Model};

pub(super) const MODEL: Model = Model {
    name: "lenovo_sr670",
    root_vendor: Some("Lenovo"),
    root_product: None,
    manufacturer: "Lenovo",
    system_model: "ThinkSystem SR670 V2",
    manager_model: Some("Lenovo XClarity Controller"),
    firmware: "AFBT40D 2.83",
    enterprise: 19_046,
    etag: Etag::Strong,
    if_match_required: true,
    strong_only: true,
    resets: &["On", "Nmi", "GracefulShutdown", "GracefulRestart", "ForceOn", "ForceOff", "ForceRestart"],
    boot_targets: &["None", "Pxe", "Cd", "Usb", "Hdd", "BiosSetup", "Diags", "UefiTarget"],
    boot_at: BootAt::Settings("Pending"),
    boot_once_only: true,
    media_at_system: true,
    media_id: "EXT1",
    log_id: "PlatformLog",
    log_sel_bare: true,
    ..BASE
};
