//! AMI MegaRAC: 428 without `If-Match`, the override only at the future state, and only whole.

use super::{BASE, BootAt, Etag, Model};

pub(super) const MODEL: Model = Model {
    name: "ami_megarac",
    root_vendor: Some("AMI"),
    root_product: Some("AMI Redfish Server"),
    manufacturer: "AMI",
    system_model: "MegaRAC board",
    manager_model: Some("MegaRAC SP"),
    firmware: "13.02",
    enterprise: 1_572,
    system_id: "Self",
    chassis_id: "Self",
    manager_id: "Self",
    etag: Etag::Weak,
    if_match_required: true,
    action_info: true,
    boot_at: BootAt::FutureState("SD"),
    boot_whole_only: true,
    media_id: "CD1",
    ..BASE
};
