//! Disks: what the installer sees of them, and how an order names exactly one.

use serde::{Deserialize, Serialize};

/// What names a disk: what is burnt into it, never a name that the kernel gives (`sda` changes between boots), and
/// never a place on a bus (the host number of HCTL shifts).
///
/// A disk is meant when everything given fits. At least one is given; see [`DiskName::is_given`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskName {
    /// The serial number, compared after trimming white space at both ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// The World Wide Name (`naa.…`, `eui.…`, `nvme.…`), compared without regard to case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wwn: Option<String>,
}

impl DiskName {
    /// Whether it says anything: an empty name would fit every disk.
    #[must_use]
    pub fn is_given(&self) -> bool {
        let said = |text: &Option<String>| text.as_ref().is_some_and(|t| !t.trim().is_empty());
        said(&self.serial) || said(&self.wwn)
    }

    /// Whether the disk is meant.
    #[must_use]
    pub fn fits(&self, disk: &Disk) -> bool {
        let serial = |wanted: &String| disk.serial.as_deref().is_some_and(|s| s.trim() == wanted.trim());
        let wwn = |wanted: &String| disk.wwn.as_deref().is_some_and(|w| w.trim().eq_ignore_ascii_case(wanted.trim()));
        self.is_given() && self.serial.as_ref().is_none_or(serial) && self.wwn.as_ref().is_none_or(wwn)
    }
}

/// Data on a disk that somebody may still want.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignData {
    /// What it is, such as `LVM2 physical volume`, `ZFS pool member`, `Ceph BlueStore`.
    pub what: String,
    /// The partition it lies on (from 1), or the whole disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<u32>,
    /// Where its mark was found, bytes from the beginning of the disk.
    pub at_byte: u64,
}

/// A disk as the installer sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// The kernel's name in this boot, such as `sda`. Shown, never used to choose.
    pub kernel_name: String,
    /// Its size, bytes.
    pub bytes: u64,
    /// Its logical block size, bytes.
    pub block_bytes: u32,
    /// The serial number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// The World Wide Name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wwn: Option<String>,
    /// The model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Whether the kernel refuses to write to it.
    pub read_only: bool,
    /// Whether it can be pulled out.
    pub removable: bool,
    /// Marks of data that is not an ordinary installed system.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign_data: Vec<ForeignData>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(serial: &str, wwn: Option<&str>) -> Disk {
        Disk {
            kernel_name: "sda".to_owned(),
            bytes: 1 << 30,
            block_bytes: 512,
            serial: Some(serial.to_owned()),
            wwn: wwn.map(str::to_owned),
            model: None,
            read_only: false,
            removable: false,
            foreign_data: Vec::new(),
        }
    }

    #[test]
    fn an_empty_name_names_no_disk() {
        assert!(!DiskName::default().fits(&disk("", None)));
        let blank = DiskName { serial: Some("  ".to_owned()), wwn: None };
        assert!(!blank.fits(&disk("  ", None)));
    }

    #[test]
    fn everything_that_is_given_must_fit() {
        let both = DiskName { serial: Some("S1".to_owned()), wwn: Some("NAA.5000".to_owned()) };
        assert!(both.fits(&disk(" S1 ", Some("naa.5000"))));
        assert!(!both.fits(&disk("S1", None)));
        assert!(!both.fits(&disk("S2", Some("naa.5000"))));
        assert!(!DiskName { serial: Some("s1".to_owned()), wwn: None }.fits(&disk("S1", None)));
    }
}
