//! Supermicro X12: reset types behind action information, the mode wanted with every override, the drive a `UsbCd`.

use super::{BASE, Model};

pub(super) const MODEL: Model = Model {
    name: "supermicro_x12",
    root_vendor: Some("Supermicro"),
    root_product: None,
    manufacturer: "Supermicro",
    system_model: "SYS-620C-TN12R X12DPi",
    manager_model: Some("ASPEED"),
    firmware: "01.03.19",
    enterprise: 10_876,
    action_info: true,
    resets: &["On", "ForceOff", "GracefulShutdown", "GracefulRestart", "ForceRestart", "Nmi", "ForceOn"],
    boot_targets: &["None", "Pxe", "Floppy", "UsbCd", "Usb", "Hdd", "BiosSetup", "UefiHttp"],
    boot_mode_wanted: true,
    media_id: "VirtualMedia1",
    ..BASE
};
