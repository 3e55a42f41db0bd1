//! OpenBMC (bmcweb): transitions show, and the chassis' power is its own.

use super::{BASE, Etag, Model};

pub(super) const MODEL: Model = Model {
    name: "openbmc",
    root_vendor: Some("OpenBMC"),
    root_product: None,
    manufacturer: "OpenBMC",
    system_model: "system",
    manager_model: Some("OpenBMC"),
    firmware: "2.14.0",
    enterprise: 49_622,
    system_id: "system",
    chassis_id: "chassis",
    manager_id: "bmc",
    etag: Etag::Strong,
    action_info: true,
    boot_targets: &["None", "Pxe", "Hdd", "Cd", "Diags", "BiosSetup", "Usb"],
    media_id: "Slot_0",
    transient: true,
    ..BASE
};
