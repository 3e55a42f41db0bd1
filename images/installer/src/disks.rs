//! The disks of the machine, and which one is meant.

use crate::failure::Failed;
use crate::foreign::{self, Area};
use crate::inventory::text;
use crate::kernel::say;
use protocol::disk::{Disk, DiskName};
use protocol::install::{FailureCode, InstallStage};
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

/// sysfs counts in these whatever the disk's own block is.
const SYSFS_BLOCK_BYTES: u64 = 512;
/// What the partition tables of images count in; no manifest says otherwise. On a disk with other blocks the head of a
/// GPT lies elsewhere (UEFI 2.10 section 5.3.1), and each place in either kind of table means another one.
const IMAGE_BLOCK_BYTES: u32 = 512;

/// How long a disk is waited for that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// In all.
    pub whole: Duration,
    /// From one look to the next.
    pub between: Duration,
}

/// Drivers look for their disks while everything else goes on, and disks of a large shelf start one after the other.
pub const PATIENCE: Patience = Patience { whole: Duration::from_secs(60), between: Duration::from_millis(500) };

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
            // One of several paths to a disk of NVMe, which the kernel shows as a whole under another name. It has no
            // device to be opened.
            if number("hidden") == Some(1) {
                return None;
            }
            let bytes = number("size")?.checked_mul(SYSFS_BLOCK_BYTES).filter(|bytes| *bytes > 0)?;
            let block_bytes = number("queue/logical_block_size").and_then(|n| u32::try_from(n).ok()).unwrap_or(512);
            // A CD that hangs on a virtual BMC is a removable disk without a serial number; it is shown and never fits.
            let foreign_data = match File::open(dev.join(&kernel_name)) {
                // Open first: that has the kernel look for the partitions, if it has not yet.
                Ok(file) => foreign::probe(&file, bytes, block_bytes, &partitions(&folder)),
                Err(error) => vec![foreign::unreadable(None, 0, &error)],
            };
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

/// The partitions that the kernel has found, logical ones of an MBR among them.
fn partitions(folder: &Path) -> Vec<Area> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut areas: Vec<Area> = entries
        .flatten()
        .filter_map(|entry| {
            let number = |name: &str| text(&entry.path().join(name)).and_then(|text| text.parse::<u64>().ok());
            Some(Area {
                partition: Some(u32::try_from(number("partition")?).ok()?),
                from_byte: number("start")?.saturating_mul(SYSFS_BLOCK_BYTES),
                bytes: number("size")?.saturating_mul(SYSFS_BLOCK_BYTES),
            })
        })
        .collect();
    areas.sort_by_key(|area| area.partition);
    areas
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
/// None or several fit, it cannot be written, no image starts from it, or foreign data is on it that nobody has given
/// up.
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
    if disk.block_bytes != IMAGE_BLOCK_BYTES {
        return failed(
            FailureCode::Partitions,
            format!(
                "{} has logical blocks of {} bytes, and images have partition tables for blocks of \
                 {IMAGE_BLOCK_BYTES}: no host would start from it, so nothing was written. Format the disk with blocks \
                 of {IMAGE_BLOCK_BYTES} bytes (`nvme format`, `sg_format`), or name another disk",
                disk.kernel_name, disk.block_bytes
            ),
        );
    }
    if disk.bytes < image_bytes {
        return failed(
            FailureCode::DiskTooSmall,
            format!(
                "{} has {} bytes, the image needs {image_bytes}: nothing was written",
                disk.kernel_name, disk.bytes
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

/// Looks for the one disk again and again while none fits: its driver may not have found it yet. `go_on` says whether
/// to wait further, `look` is [`all`] and [`choose`].
///
/// # Errors
/// What the last look says, or that the appliance said to stop.
pub fn wait(
    patience: Patience,
    go_on: impl Fn() -> bool,
    look: impl Fn() -> Result<Disk, Failed>,
) -> Result<Disk, Failed> {
    let missing =
        |found: &Result<Disk, Failed>| matches!(found, Err(Failed(failure)) if failure.code == FailureCode::NoDisk);
    let until = Instant::now() + patience.whole;
    let mut found = look();
    let mut waited = false;
    while missing(&found) && Instant::now() < until {
        if !waited {
            say(&format!("no disk fits yet: it is waited for, {} s at most", patience.whole.as_secs()));
        }
        waited = true;
        std::thread::sleep(patience.between);
        if !go_on() {
            let what = "the appliance said to stop: nothing was written";
            return Err(Failed::new(InstallStage::Disk, FailureCode::Refused, what));
        }
        found = look();
    }
    if waited && !missing(&found) {
        // A disk that has come this moment may have no device yet, or not show its partitions.
        std::thread::sleep(patience.between);
        found = look();
    }
    found
}

/// That a disk which was chosen is the one that is meant still. Asked while it is open: as long as it is, the kernel
/// gives its name to no other.
///
/// # Errors
/// When the name meant another disk.
pub fn same(chosen: &Disk, now: &Disk) -> Result<(), Failed> {
    let shape = |disk: &Disk| (disk.bytes, disk.block_bytes);
    if chosen.kernel_name == now.kernel_name && shape(chosen) == shape(now) {
        return Ok(());
    }
    let said =
        |disk: &Disk| format!("{} with {} bytes in blocks of {}", disk.kernel_name, disk.bytes, disk.block_bytes);
    let (before, after) = (said(chosen), said(now));
    let what = format!("the disk was {before} when it was chosen, and is {after} now: nothing was written. Try again");
    Err(Failed::new(InstallStage::Disk, FailureCode::DiskBusy, what).with_candidates(vec![now.clone()]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::disk::ForeignData;
    use std::cell::Cell;
    use std::os::unix::fs::FileExt as _;
    use std::path::PathBuf;

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
        let fixed = Disk { read_only: true, ..one.clone() };
        assert_eq!(code(choose(&[fixed], &wanted, 512, true)), FailureCode::DiskBusy);
        let foreign = ForeignData { what: "ZFS pool member".to_owned(), partition: Some(1), at_byte: 0 };
        let zfs = Disk { foreign_data: vec![foreign], ..one };
        assert_eq!(code(choose(std::slice::from_ref(&zfs), &wanted, 512, false)), FailureCode::ForeignData);
        assert!(choose(&[zfs], &wanted, 512, true).is_ok());
    }

    #[test]
    fn a_disk_with_other_blocks_than_the_tables_of_images_is_refused_whatever_divides_what() {
        let wanted = DiskName { serial: Some("S1".to_owned()), wwn: None };
        for block_bytes in [520, 4096] {
            let other = Disk { block_bytes, ..disk("sda", "S1") };
            for image_bytes in [512, 8 << 20] {
                let failure = choose(std::slice::from_ref(&other), &wanted, image_bytes, true).unwrap_err().0;
                assert_eq!((failure.stage, failure.code), (InstallStage::Disk, FailureCode::Partitions));
                assert!(!failure.disk_touched);
                for says in [block_bytes.to_string().as_str(), "nothing was written", "nvme format"] {
                    assert!(failure.sentence.contains(says), "{says}: {}", failure.sentence);
                }
            }
        }
        assert!(choose(&[disk("sda", "S1")], &wanted, 8 << 20, true).is_ok());
    }

    /// A machine of files: each disk is 8 MiB large. Its folders of sysfs and of devices are below what is given.
    fn machine(name: &str, disks: &[&str]) -> PathBuf {
        let root = std::env::temp_dir().join(format!("rackmedic-disks-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(root.join("dev")).unwrap();
        for kernel_name in disks {
            let block = root.join("sys/block").join(kernel_name);
            fs::create_dir_all(&block).unwrap();
            fs::write(block.join("size"), ((8 << 20) / 512).to_string()).unwrap();
            File::create(root.join("dev").join(kernel_name)).unwrap().set_len(8 << 20).unwrap();
        }
        root
    }

    #[test]
    fn partitions_of_sysfs_are_looked_at_and_count_in_512_bytes() {
        let root = machine("logical", &["sda"]);
        let block = root.join("sys/block/sda");
        fs::create_dir_all(block.join("queue")).unwrap();
        fs::write(block.join("queue/logical_block_size"), "4096\n").unwrap();
        let partition = block.join("sda5");
        fs::create_dir_all(&partition).unwrap();
        for (file, text) in [("partition", "5\n"), ("start", "4096\n"), ("size", "2048\n")] {
            fs::write(partition.join(file), text).unwrap();
        }
        let device = File::options().write(true).open(root.join("dev/sda")).unwrap();
        device.write_all_at(b"LUKS\xba\xbe", 4096 * 512).unwrap();
        let disks = all(&root.join("sys"), &root.join("dev"));
        let luks = ForeignData { what: "LUKS volume".to_owned(), partition: Some(5), at_byte: 4096 * 512 };
        assert_eq!(disks.len(), 1);
        assert_eq!(disks[0].block_bytes, 4096);
        assert_eq!(disks[0].foreign_data, [luks]);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_disk_that_cannot_be_opened_or_read_is_taken_by_nobody_without_approval() {
        let root = machine("unreadable", &["sda", "sdb", "sdc"]);
        for name in ["sda", "sdb", "sdc"] {
            fs::write(root.join("sys/block").join(name).join("serial"), name).unwrap();
        }
        fs::remove_file(root.join("dev/sda")).unwrap();
        // A folder can be opened, and no byte be read of it.
        fs::remove_file(root.join("dev/sdb")).unwrap();
        fs::create_dir(root.join("dev/sdb")).unwrap();
        // This one is shorter than it says, which is no error.
        File::create(root.join("dev/sdc")).unwrap().set_len(1 << 20).unwrap();
        let disks = all(&root.join("sys"), &root.join("dev"));
        let wanted = |serial: &str| DiskName { serial: Some(serial.to_owned()), wwn: None };
        for name in ["sda", "sdb"] {
            let failure = choose(&disks, &wanted(name), 512, false).unwrap_err().0;
            assert_eq!(failure.code, FailureCode::ForeignData);
            assert!(failure.sentence.contains("cannot be read"), "{}", failure.sentence);
            assert!(choose(&disks, &wanted(name), 512, true).is_ok());
        }
        assert!(choose(&disks, &wanted("sdc"), 512, false).is_ok());
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_hidden_path_to_a_disk_is_no_disk() {
        let root = machine("hidden", &["nvme0c0n1", "nvme0n1"]);
        for (name, hidden) in [("nvme0c0n1", "1\n"), ("nvme0n1", "0\n")] {
            fs::write(root.join("sys/block").join(name).join("hidden"), hidden).unwrap();
        }
        let names: Vec<String> =
            all(&root.join("sys"), &root.join("dev")).into_iter().map(|disk| disk.kernel_name).collect();
        assert_eq!(names, ["nvme0n1"]);
        fs::remove_dir_all(root).unwrap();
    }

    fn patience(whole_ms: u64) -> Patience {
        Patience { whole: Duration::from_millis(whole_ms), between: Duration::from_millis(1) }
    }

    #[test]
    fn a_disk_that_comes_late_is_waited_for_and_looked_at_once_more() {
        let wanted = DiskName { serial: Some("S1".to_owned()), wwn: None };
        let foreign = ForeignData { what: "ZFS pool member".to_owned(), partition: Some(1), at_byte: 0 };
        let bare = disk("sda", "S1");
        let whole = Disk { foreign_data: vec![foreign], ..bare.clone() };
        let looks = Cell::new(0);
        // It comes with the third look, its partitions with the fourth.
        let look = || {
            looks.set(looks.get() + 1);
            let disks = match looks.get() {
                1 | 2 => Vec::new(),
                3 => vec![bare.clone()],
                _ => vec![whole.clone()],
            };
            choose(&disks, &wanted, 512, false)
        };
        assert_eq!(code(wait(patience(60_000), || true, look)), FailureCode::ForeignData);
        assert_eq!(looks.get(), 4);
        // What is there at once is not waited for.
        let look = || choose(std::slice::from_ref(&bare), &wanted, 512, false);
        assert_eq!(wait(patience(60_000), || panic!("nothing is waited for"), look).unwrap(), bare);
        let look = || choose(&[bare.clone(), disk("sdb", "S1")], &wanted, 512, false);
        assert_eq!(code(wait(patience(60_000), || panic!("nothing is waited for"), look)), FailureCode::ManyDisks);
    }

    #[test]
    fn waiting_for_a_disk_ends() {
        let wanted = DiskName { serial: Some("S1".to_owned()), wwn: None };
        let looks = Cell::new(0);
        let look = || {
            looks.set(looks.get() + 1);
            choose(&[], &wanted, 512, false)
        };
        assert_eq!(code(wait(patience(0), || true, look)), FailureCode::NoDisk);
        assert_eq!(looks.get(), 1, "without patience there is one look");
        assert_eq!(code(wait(patience(100), || true, look)), FailureCode::NoDisk);
        assert!(looks.get() > 2);
        looks.set(0);
        assert_eq!(code(wait(patience(60_000), || looks.get() < 3, look)), FailureCode::Refused);
        assert_eq!(looks.get(), 3, "the appliance said to stop");
    }

    #[test]
    fn a_name_that_went_to_another_disk_is_refused() {
        let chosen = disk("sda", "S1");
        assert!(same(&chosen, &disk("sda", "S1")).is_ok());
        let larger = Disk { bytes: 2 << 30, ..chosen.clone() };
        let other_blocks = Disk { block_bytes: 4096, ..chosen.clone() };
        for now in [disk("sdb", "S1"), larger, other_blocks] {
            assert_eq!(code(same(&chosen, &now).map(|()| now)), FailureCode::DiskBusy);
        }
        // It was pulled out, and another one has its name.
        let wanted = DiskName { serial: Some("S1".to_owned()), wwn: None };
        assert_eq!(code(choose(&[disk("sda", "S2")], &wanted, 512, false)), FailureCode::NoDisk);
    }
}
