//! How makes of BMCs differ from the standard, as data. A row says for whom, what, and who reported it; what a row cannot
//! know is learned while the BMC is used ([`crate::redfish::Facts`]).
//!
//! What holds for all is not here but in the code, for nobody is known to suffer by it: action information is followed,
//! a refused reset type is remembered, an error after `ForceOff` leads to a reading, no `If-Match` on actions, no kept
//! connection, one session, exact `Off` only, 17 before 3, the countdown of IPMI boot flags switched off first.

/// What a make needs. `Default` is the standard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quirks {
    /// Sessions are scarce or cannot be ended: the password goes with every request.
    pub basic_only: bool,
    /// A change needs an ETag in any case; asking without one first is useless.
    pub etag_always: bool,
    /// The boot override is refused when it comes with more than target and duration.
    pub boot_minimal: bool,
    /// The boot mode must come with every override, or it falls back to legacy.
    pub boot_mode_always: bool,
    /// There is no boot mode; one that comes with an override gets it refused.
    pub boot_mode_never: bool,
    /// IPMI boot flags keep the device and lose the rest, the valid bit too: the device alone is what can be read back.
    pub boot_flags_lost: bool,
    /// The override is taken at the settings object only.
    pub boot_at_settings: bool,
    /// The override is refused during the self test: it is set before power on.
    pub boot_not_in_post: bool,
    /// The virtual drive is called `UsbCd`.
    pub cd_is_usb: bool,
    /// After an off, an on is refused for some time: it is asked for again.
    pub on_settles: bool,
    /// The chassis keeps its power while the system is off: it is no witness.
    pub chassis_unrelated: bool,
    /// IPMI boot device selector of the disk under UEFI, if not 0x08.
    pub ipmi_disk_selector: Option<u8>,
    /// An IPMI answer takes up to so many seconds.
    pub ipmi_answer_s: Option<u8>,
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// In the vendor's name, whatever the case; empty = any.
    pub vendor: &'static str,
    /// In the product's or the BMC's name; empty = any.
    pub product: &'static str,
    /// Its firmware begins with one of these; empty = any.
    pub firmware: &'static [&'static str],
    /// What it needs.
    pub flags: Quirks,
    /// Who says so.
    pub source: &'static str,
}

const STANDARD: Quirks = Quirks {
    basic_only: false,
    etag_always: false,
    boot_minimal: false,
    boot_mode_always: false,
    boot_mode_never: false,
    boot_flags_lost: false,
    boot_at_settings: false,
    boot_not_in_post: false,
    cd_is_usb: false,
    on_settles: false,
    chassis_unrelated: false,
    ipmi_disk_selector: None,
    ipmi_answer_s: None,
};

/// The table. Rows add up.
pub const TABLE: &[Row] = &[
    Row {
        vendor: "dell",
        product: "idrac 10",
        firmware: &[],
        flags: Quirks { on_settles: true, ..STANDARD },
        source: "ironic, drivers/modules/redfish/power.py: 409 ActionParameterValueConflict after power off",
    },
    Row {
        vendor: "hp",
        product: "ilo 4",
        firmware: &[],
        flags: Quirks { boot_mode_never: true, ..STANDARD },
        source: "ironic: Gen9 has no boot mode to change",
    },
    Row {
        vendor: "hp",
        product: "ilo 5",
        firmware: &[],
        flags: Quirks { boot_not_in_post: true, ..STANDARD },
        source: "ironic; metal-operator#997: 400 UnableToModifyDuringSystemPOST",
    },
    Row {
        vendor: "hp",
        product: "ilo 6",
        firmware: &[],
        flags: Quirks { boot_not_in_post: true, ..STANDARD },
        source: "ironic; metal-operator#997: 400 UnableToModifyDuringSystemPOST",
    },
    Row {
        vendor: "hp",
        product: "dl160 gen10",
        firmware: &[],
        flags: Quirks { boot_minimal: true, ..STANDARD },
        source: "bmclib: the whole Boot object is rejected",
    },
    Row {
        vendor: "supermicro",
        product: "x10",
        firmware: &[],
        flags: Quirks { boot_mode_never: true, ..STANDARD },
        source: "metal-operator#982, #985: no BootSourceOverrideMode",
    },
    Row {
        vendor: "supermicro",
        product: "x11",
        firmware: &[],
        flags: Quirks { boot_mode_always: true, cd_is_usb: true, ipmi_disk_selector: Some(0x24), ..STANDARD },
        source: "ironic, sushy: mode and duration fall back to legacy unless sent; media is UsbCd",
    },
    Row {
        vendor: "supermicro",
        product: "x12",
        firmware: &[],
        flags: Quirks { boot_mode_always: true, cd_is_usb: true, ipmi_disk_selector: Some(0x24), ..STANDARD },
        source: "ironic, sushy: mode and duration fall back to legacy unless sent; media is UsbCd",
    },
    Row {
        vendor: "supermicro",
        product: "x13",
        firmware: &[],
        flags: Quirks { boot_mode_always: true, ipmi_disk_selector: Some(0x24), ..STANDARD },
        source: "ironic, sushy: mode and duration fall back to legacy unless sent",
    },
    Row {
        vendor: "lenovo",
        product: "sr655",
        firmware: &[],
        flags: Quirks { etag_always: true, boot_at_settings: true, boot_mode_always: true, ..STANDARD },
        source: "gofish#171; ironic: AMI firmware, 428 without If-Match",
    },
    Row {
        vendor: "lenovo",
        product: "xcc",
        firmware: &[],
        flags: Quirks { etag_always: true, boot_at_settings: true, ..STANDARD },
        source: "mockup XCC 2.83: pending object; community.general#11261: strong ETags",
    },
    Row {
        vendor: "ami",
        product: "",
        firmware: &[],
        flags: Quirks { etag_always: true, boot_at_settings: true, boot_mode_always: true, ..STANDARD },
        source: "Tacklebox#22, #144: 428, OperationSupportedInFutureStateURI, the whole Boot object",
    },
    Row {
        vendor: "asrockrack",
        product: "",
        firmware: &[],
        flags: Quirks { etag_always: true, boot_at_settings: true, boot_mode_always: true, ..STANDARD },
        source: "gofish#171: as AMI MegaRAC",
    },
    Row {
        vendor: "giga",
        product: "",
        firmware: &[],
        flags: Quirks { etag_always: true, boot_at_settings: true, boot_mode_always: true, ..STANDARD },
        source: "gofish#171: as AMI MegaRAC",
    },
    Row {
        vendor: "openbmc",
        product: "",
        firmware: &[],
        flags: Quirks { ipmi_answer_s: Some(6), ..STANDARD },
        source: "openbmc#3666: IPMI answers after five seconds, 0xCE",
    },
    Row {
        vendor: "cisco",
        product: "",
        firmware: &[],
        flags: Quirks { basic_only: true, ..STANDARD },
        source: "ansible#65169: the cap on user sessions is soon reached and cannot be cleared",
    },
    Row {
        vendor: "sushy emulator",
        product: "",
        firmware: &[],
        flags: Quirks { chassis_unrelated: true, ..STANDARD },
        source: "sushy-tools 2.2.0: the chassis reads On whatever its system does",
    },
    Row {
        vendor: "openipmi simulator",
        product: "",
        firmware: &[],
        flags: Quirks { boot_flags_lost: true, ..STANDARD },
        source: "OpenIPMI 2.0.33: Get System Boot Options answers 0 for the flags whatever was set",
    },
    Row {
        vendor: "huawei",
        product: "",
        firmware: &[],
        flags: Quirks { etag_always: true, ..STANDARD },
        source: "not verified by a machine: If-Match required on changes",
    },
];

impl Quirks {
    /// The flags of all rows that fit.
    #[must_use]
    pub fn of(vendor: &str, product: &str, firmware: &str) -> Quirks {
        Quirks::rows(vendor, product, firmware).fold(STANDARD, |all, row| all.with(row.flags))
    }

    /// The rows that fit, for a person to read.
    pub fn rows(vendor: &str, product: &str, firmware: &str) -> impl Iterator<Item = &'static Row> {
        let (vendor, product) = (vendor.to_lowercase(), product.to_lowercase());
        let firmware = firmware.to_owned();
        TABLE.iter().filter(move |row| {
            vendor.contains(row.vendor)
                && product.contains(row.product)
                && (row.firmware.is_empty() || row.firmware.iter().any(|begin| firmware.starts_with(begin)))
        })
    }

    fn with(self, more: Quirks) -> Quirks {
        Quirks {
            basic_only: self.basic_only | more.basic_only,
            etag_always: self.etag_always | more.etag_always,
            boot_minimal: self.boot_minimal | more.boot_minimal,
            boot_mode_always: self.boot_mode_always | more.boot_mode_always,
            boot_mode_never: self.boot_mode_never | more.boot_mode_never,
            boot_flags_lost: self.boot_flags_lost | more.boot_flags_lost,
            boot_at_settings: self.boot_at_settings | more.boot_at_settings,
            boot_not_in_post: self.boot_not_in_post | more.boot_not_in_post,
            cd_is_usb: self.cd_is_usb | more.cd_is_usb,
            on_settles: self.on_settles | more.on_settles,
            chassis_unrelated: self.chassis_unrelated | more.chassis_unrelated,
            ipmi_disk_selector: more.ipmi_disk_selector.or(self.ipmi_disk_selector),
            ipmi_answer_s: more.ipmi_answer_s.or(self.ipmi_answer_s),
        }
    }

    /// The names of the flags in force.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        [
            (self.basic_only, "basic_only"),
            (self.etag_always, "etag_always"),
            (self.boot_minimal, "boot_minimal"),
            (self.boot_mode_always, "boot_mode_always"),
            (self.boot_mode_never, "boot_mode_never"),
            (self.boot_flags_lost, "boot_flags_lost"),
            (self.boot_at_settings, "boot_at_settings"),
            (self.boot_not_in_post, "boot_not_in_post"),
            (self.cd_is_usb, "cd_is_usb"),
            (self.on_settles, "on_settles"),
            (self.chassis_unrelated, "chassis_unrelated"),
            (self.ipmi_disk_selector.is_some(), "ipmi_disk_selector"),
            (self.ipmi_answer_s.is_some(), "ipmi_answer_s"),
        ]
        .into_iter()
        .filter_map(|(on, name)| on.then_some(name))
        .collect()
    }
}

/// The make of a machine by its IPMI enterprise number, as far as rows need it.
#[must_use]
pub fn vendor_of_enterprise(number: u32) -> &'static str {
    match number {
        674 => "dell",
        11 | 47_196 => "hpe",
        10_876 => "supermicro",
        19_046 | 20_301 => "lenovo",
        343 => "intel",
        49_622 => "openbmc",
        5_771 => "cisco",
        2_011 => "huawei",
        10_368 => "fujitsu",
        49_769 => "asrockrack",
        15_370 => "giga",
        // MontaVista, who began OpenIPMI: the number that its simulator's examples carry.
        4_753 => "openipmi simulator",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_says_something_and_who_reported_it() {
        for row in TABLE {
            assert_ne!(row.flags, STANDARD, "{row:?}");
            assert!(row.source.len() > 10, "{row:?}");
            assert_eq!(row.vendor, row.vendor.to_lowercase());
            assert_eq!(row.product, row.product.to_lowercase());
            let seen = Quirks::of(row.vendor, row.product, "");
            assert_eq!(seen.names().len(), seen.with(row.flags).names().len(), "{row:?} is not found by its own words");
        }
    }

    #[test]
    fn rows_find_their_machines() {
        let of = |vendor, product| Quirks::of(vendor, product, "1.0").names();
        assert_eq!(of("HPE", "ProLiant DL385 Gen10 Plus v2 iLO 5"), ["boot_not_in_post"]);
        assert_eq!(of("HPE", "ProLiant DL160 Gen10 iLO 5"), ["boot_minimal", "boot_not_in_post"]);
        assert_eq!(of("HP", "ProLiant DL380 Gen9 iLO 4"), ["boot_mode_never"]);
        assert_eq!(of("Supermicro", "SYS-620 X12DPi"), ["boot_mode_always", "cd_is_usb", "ipmi_disk_selector"]);
        assert_eq!(of("Lenovo", "ThinkSystem SR670 V2 XCC"), ["etag_always", "boot_at_settings"]);
        assert_eq!(of("AMI", "MegaRAC SP"), ["etag_always", "boot_mode_always", "boot_at_settings"]);
        assert_eq!(of("Dell Inc.", "PowerEdge R750 iDRAC 9"), [""; 0]);
        assert_eq!(of("Dell Inc.", "PowerEdge R770 iDRAC 10"), ["on_settles"]);
        assert_eq!(of("Cisco Systems", "UCSC"), ["basic_only"]);
        assert_eq!(of("Huawei", "2288H iBMC"), ["etag_always"]);
        assert_eq!(of("Lenovo", "ThinkSystem SR655"), ["etag_always", "boot_mode_always", "boot_at_settings"]);
        assert_eq!(of("ASRockRack", "X"), of("AMI", "X"));
        assert_eq!(of("GIGABYTE", "R182"), of("AMI", "X"));
        assert_eq!(of("OpenBMC", ""), ["ipmi_answer_s"]);
        assert_eq!(of("HPE", "ProLiant DL380 Gen11 iLO 6"), ["boot_not_in_post"]);
        assert_eq!(of("Supermicro", "X10DRi"), ["boot_mode_never"]);
        assert_eq!(of("Supermicro", "X11DPH"), of("Supermicro", "X12DPi"));
        assert_eq!(of("Supermicro", "X13SEM"), ["boot_mode_always", "ipmi_disk_selector"]);
        assert_eq!(of("Sushy Emulator", ""), ["chassis_unrelated"]);
        assert_eq!(of("", ""), [""; 0]);
    }
}
