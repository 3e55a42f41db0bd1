//! The disks of the machine, and which one is meant.

use crate::failure::Failed;
use crate::foreign;
use crate::inventory::text;
use protocol::disk::{Disk, DiskName};
use protocol::install::{FailureCode, InstallStage};
use std::fs::{self, File};
use std::path::Path;

/// What is no disk of the machine, by the beginning of the kernel's name.
const NOT_DISKS: [&str; 10] = ["loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd", "drbd", "mtdblock"];

/// All disks, by the kernel's name. Each is opened for reading only, and looked at for foreign data.
#[must_use]
pub fn all(sys: &Path, dev: &Path) -> Vec<Disk> {
    let Ok(entries) = fs::read_dir(sys.join("block")) else { return Vec::new() };
    let mut disks: Vec<Disk> = entries
        .flatten()
        .filter_map(|entry| {
            let kernel_name = entry.file_name().into_string().ok()?;
            if NOT_DISKS.iter().any(|not| kernel_name.starts_with(not)) {
                return None;
            }
            let folder = entry.path();
            let number = |name: &str| text(&folder.join(name)).and_then(|text| text.parse::<u64>().ok());
            // sysfs counts in 512 bytes whatever the disk's own sector is.
            let bytes = number("size")?.checked_mul(512).filter(|bytes| *bytes > 0)?;
            let block_bytes = number("queue/logical_block_size").and_then(|n| u32::try_from(n).ok()).unwrap_or(512);
            // A CD that hangs on a virtual BMC is a removable disk without a serial number; it is shown and never fits.
            let foreign_data = File::open(dev.join(&kernel_name))
                .map(|file| foreign::probe(&file, bytes, block_bytes))
                .unwrap_or_default();
            Some(Disk {
                bytes,
                block_bytes,
                serial: serial(&folder),
                wwn: text(&folder.join("wwid")).or_else(|| text(&folder.join("device/wwid"))),
                model: text(&folder.join("device/model")),
                read_only: number("ro") == Some(1),
                removable: number("removable") == Some(1),
                foreign_data,
                kernel_name,
            })
        })
        .collect();
    disks.sort_by(|a, b| a.kernel_name.cmp(&b.kernel_name));
    disks
}

/// The serial number: of virtio and NVMe as text, of SCSI and SATA in the vital product data (SPC-4 section 7.8.15, page
/// 0x80: four bytes of head).
fn serial(folder: &Path) -> Option<String> {
    text(&folder.join("serial")).or_else(|| text(&folder.join("device/serial"))).or_else(|| {
        let page = fs::read(folder.join("device/vpd_pg80")).ok()?;
        let serial = String::from_utf8_lossy(page.get(4..)?);
        let serial = serial.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        (!serial.is_empty()).then(|| serial.to_owned())
    })
}

/// The one disk that is meant.
///
/// # Errors
/// None or several fit, it cannot be written, or foreign data is on it that nobody has given up.
pub fn choose(disks: &[Disk], wanted: &DiskName, image_bytes: u64, foreign_approved: bool) -> Result<Disk, Failed> {
    let failed =
        |code, sentence: String| Err(Failed::new(InstallStage::Disk, code, sentence).with_candidates(disks.to_vec()));
    let fitting: Vec<&Disk> = disks.iter().filter(|disk| wanted.fits(disk)).collect();
    let disk = match fitting.as_slice() {
        [disk] => *disk,
        [] => {
            return failed(
                FailureCode::NoDisk,
                "no disk has the serial number or WWN that was ordered: nothing was written. Compare with the disks listed here"
                    .to_owned(),
            );
        }
        several => {
            let names: Vec<&str> = several.iter().map(|disk| disk.kernel_name.as_str()).collect();
            return failed(
                FailureCode::ManyDisks,
                format!(
                    "{} all have what was ordered: nothing was written. Name the disk by its WWN as well",
                    names.join(", ")
                ),
            );
        }
    };
    if disk.read_only {
        return failed(FailureCode::DiskBusy, format!("{} is read-only: nothing was written", disk.kernel_name));
    }
    if disk.bytes < image_bytes || !image_bytes.is_multiple_of(u64::from(disk.block_bytes)) {
        return failed(
            FailureCode::DiskTooSmall,
            format!(
                "{} has {} bytes in blocks of {}, the image needs {image_bytes}: nothing was written",
                disk.kernel_name, disk.bytes, disk.block_bytes
            ),
        );
    }
    if !disk.foreign_data.is_empty() && !foreign_approved {
        let what: Vec<String> = disk
            .foreign_data
            .iter()
            .map(|data| match data.partition {
                Some(number) => format!("{} on partition {number}", data.what),
                None => data.what.clone(),
            })
            .collect();
        return failed(
            FailureCode::ForeignData,
            format!(
                "{} holds {}: nothing was written. A person has to approve that this is lost",
                disk.kernel_name,
                what.join(", ")
            ),
        );
    }
    Ok(disk.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::disk::ForeignData;

    fn disk(name: &str, serial: &str) -> Disk {
        Disk {
            kernel_name: name.to_owned(),
            bytes: 1 << 30,
            block_bytes: 512,
            serial: Some(serial.to_owned()),
            wwn: None,
            model: None,
            read_only: false,
            removable: false,
            foreign_data: Vec::new(),
        }
    }

    fn code(result: Result<Disk, Failed>) -> FailureCode {
        let failure = result.unwrap_err().0;
        assert!(!failure.disk_touched && failure.stage == InstallStage::Disk);
        failure.code
    }

    #[test]
    fn names_that_the_kernel_gives_mean_nothing() {
        let wanted = DiskName { serial: Some("S2".to_owned()), wwn: None };
        for (first, second) in [("sda", "sdb"), ("sdb", "sda")] {
            let disks = [disk(first, "S1"), disk(second, "S2")];
            assert_eq!(choose(&disks, &wanted, 4096, false).unwrap().kernel_name, second);
        }
    }

    #[test]
    fn none_two_small_read_only_and_foreign_are_refused() {
        let wanted = DiskName { serial: Some("S1".to_owned()), wwn: None };
        let one = disk("sda", "S1");
        assert_eq!(code(choose(&[disk("sda", "S3")], &wanted, 512, true)), FailureCode::NoDisk);
        assert_eq!(code(choose(&[one.clone(), disk("sdb", "S1")], &wanted, 512, true)), FailureCode::ManyDisks);
        assert_eq!(code(choose(std::slice::from_ref(&one), &wanted, (1 << 30) + 512, true)), FailureCode::DiskTooSmall);
        let four = Disk { block_bytes: 4096, ..one.clone() };
        assert_eq!(code(choose(&[four], &wanted, 512, true)), FailureCode::DiskTooSmall);
        let fixed = Disk { read_only: true, ..one.clone() };
        assert_eq!(code(choose(&[fixed], &wanted, 512, true)), FailureCode::DiskBusy);
        let foreign = ForeignData { what: "ZFS pool member".to_owned(), partition: Some(1), at_byte: 0 };
        let zfs = Disk { foreign_data: vec![foreign], ..one };
        assert_eq!(code(choose(std::slice::from_ref(&zfs), &wanted, 512, false)), FailureCode::ForeignData);
        assert!(choose(&[zfs], &wanted, 512, true).is_ok());
    }
}
