//! The proof of a machine that waits to be used: its card has a cable, and the one disk that it would be installed on is
//! there and can be read. Nothing is opened for writing.

use crate::disks::Patience;
use crate::failure::Failed;
use crate::flow::Places;
use crate::kernel::say;
use crate::{disks, inventory};
use protocol::install::{FailureCode, InstallStage, ProveOrder};
use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// Most that is read of the disk, bytes.
pub const READ_BYTES_MAX: u64 = 64 << 20;
/// So many places, spread over the whole disk.
const PLACES: u64 = 64;
/// What is read at each, bytes.
const PIECE_BYTES: u64 = READ_BYTES_MAX / PLACES;

/// Shows the machine. `patience` is for a disk that is not there yet; `done` hears of what was read and says whether to
/// go on.
///
/// # Errors
/// What it does not show.
pub fn prove(
    order: &ProveOrder,
    places: &Places,
    mac: &str,
    patience: Patience,
    done: impl Fn(u64) -> bool,
) -> Result<(), Failed> {
    let failed = |code, sentence: String| Failed::new(InstallStage::Disk, code, sentence);
    let nics = inventory::nics(&places.sys);
    let card = nics.iter().find(|nic| nic.mac.eq_ignore_ascii_case(mac));
    let card = card.ok_or_else(|| {
        failed(FailureCode::NoBootNic, format!("no card has the address {mac}: nothing was read. Look at the machine"))
    })?;
    if !card.link {
        let what = format!("{} has no cable, as its card says: nothing was read. Look at its port", card.kernel_name);
        return Err(failed(FailureCode::NoNetwork, what));
    }
    // What the disk holds is not asked: nothing is written, so nothing is lost. Its size is asked by the image.
    let look = || disks::choose(&disks::all(&places.sys, &places.dev), &order.disk, 0, true);
    let disk = disks::wait(patience, || done(0), look)?;
    let unreadable = |error: std::io::Error| {
        let what = format!("{} cannot be read: {error}. Replace the disk", disk.kernel_name);
        failed(FailureCode::DiskRead, what)
    };
    // Read-only: not even the kernel could be made to write through it.
    let device = File::open(places.dev.join(&disk.kernel_name)).map_err(unreadable)?;
    // What is open keeps its name; until then another disk could have got it.
    disks::same(&disk, &look()?)?;
    let bytes = read_spread(&device, disk.bytes, done).map_err(unreadable)?;
    say(&format!("{}: {bytes} bytes read at spread places, nothing written", disk.kernel_name));
    Ok(())
}

/// Reads at places spread over the whole disk, the first and the last byte among them. Gives how much was read.
///
/// # Errors
/// A place that cannot be read.
fn read_spread(disk: &File, disk_bytes: u64, done: impl Fn(u64) -> bool) -> std::io::Result<u64> {
    let piece = PIECE_BYTES.min(disk_bytes);
    let places = disk_bytes.div_ceil(piece.max(1)).min(PLACES);
    let mut buffer = vec![0; usize::try_from(piece).unwrap_or(0)];
    let mut read = 0;
    for place in 0..places {
        let last = disk_bytes - piece;
        let at = if places < 2 { 0 } else { last / (places - 1) * place };
        // The division leaves a rest: the last place ends with the disk.
        let at = if place + 1 == places { last } else { at };
        disk.read_exact_at(&mut buffer, at)
            .map_err(|error| std::io::Error::new(error.kind(), format!("at byte {at} of {disk_bytes}: {error}")))?;
        read += piece;
        if !done(piece) {
            return Err(std::io::Error::new(std::io::ErrorKind::Interrupted, "the appliance said to stop"));
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::disk::DiskName;
    use std::cell::RefCell;
    use std::fs;
    use std::path::PathBuf;
    use std::time::Duration;

    const MAC: &str = "52:54:00:00:00:01";
    const ONE_LOOK: Patience = Patience { whole: Duration::ZERO, between: Duration::ZERO };

    /// A machine of files: one card, and disks with their serial numbers.
    fn machine(name: &str, carrier: &str, disks: &[(&str, &str)]) -> (PathBuf, Places) {
        let root = std::env::temp_dir().join(format!("rackmedic-prove-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let (sys, dev) = (root.join("sys"), root.join("dev"));
        let card = sys.join("class/net/eth0");
        fs::create_dir_all(&card).unwrap();
        fs::create_dir_all(&dev).unwrap();
        for (file, text) in [("address", MAC), ("type", "1"), ("carrier", carrier)] {
            fs::write(card.join(file), text).unwrap();
        }
        for (kernel_name, serial) in disks {
            let block = sys.join("block").join(kernel_name);
            fs::create_dir_all(&block).unwrap();
            fs::write(block.join("size"), ((100_u64 << 20) / 512).to_string()).unwrap();
            fs::write(block.join("serial"), serial).unwrap();
            let device = dev.join(kernel_name);
            File::create(&device).unwrap().set_len(100 << 20).unwrap();
            // Whoever opened it for writing would fail, were it not root who runs the test; then the content tells.
            let mut rights = fs::metadata(&device).unwrap().permissions();
            rights.set_readonly(true);
            fs::set_permissions(&device, rights).unwrap();
        }
        let mount = root.join("mount");
        (root, Places { sys, dev, mount })
    }

    fn order(serial: &str) -> ProveOrder {
        ProveOrder { disk: DiskName { serial: Some(serial.to_owned()), wwn: None } }
    }

    #[test]
    fn the_one_disk_is_read_at_spread_places_within_bounds_and_stays_as_it_was() {
        let (root, places) = machine("good", "1", &[("sda", "S1"), ("sdb", "S2")]);
        let before = fs::metadata(places.dev.join("sdb")).unwrap().modified().unwrap();
        let read = RefCell::new(0);
        let done = |bytes| {
            *read.borrow_mut() += bytes;
            true
        };
        prove(&order("S2"), &places, "52:54:00:00:00:01", ONE_LOOK, done).unwrap();
        assert_eq!(*read.borrow(), READ_BYTES_MAX);
        assert_eq!(fs::metadata(places.dev.join("sdb")).unwrap().modified().unwrap(), before);
        assert!(!places.mount.exists());
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn what_is_missing_twice_unreadable_or_unplugged_is_told() {
        let code = |places: &Places, serial: &str, mac: &str| {
            let failure = prove(&order(serial), places, mac, ONE_LOOK, |_| true).unwrap_err().0;
            assert!(!failure.disk_touched && !failure.sentence.is_empty());
            failure.code
        };
        let (root, places) = machine("bad", "1", &[("sda", "S1"), ("sdb", "S1"), ("sdc", "S3")]);
        assert_eq!(code(&places, "S1", MAC), FailureCode::ManyDisks);
        assert_eq!(code(&places, "S9", MAC), FailureCode::NoDisk);
        assert_eq!(code(&places, "S3", "52:54:00:00:00:02"), FailureCode::NoBootNic);
        // The disk is shorter than it says: its end cannot be read.
        fs::remove_file(places.dev.join("sdc")).unwrap();
        File::create(places.dev.join("sdc")).unwrap().set_len(90 << 20).unwrap();
        assert_eq!(code(&places, "S3", MAC), FailureCode::DiskRead);
        fs::remove_dir_all(root).unwrap();
        let (root, places) = machine("unplugged", "0", &[("sda", "S1")]);
        assert_eq!(code(&places, "S1", MAC), FailureCode::NoNetwork);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_disk_that_comes_late_is_proven_and_a_word_to_stop_ends_the_wait() {
        let (root, places) = machine("late", "1", &[("sda", "S1")]);
        let patience = Patience { whole: Duration::from_secs(60), between: Duration::from_millis(1) };
        let asked = RefCell::new(0);
        let done = |bytes| {
            *asked.borrow_mut() += 1;
            // While nothing is read yet the disk comes: it was there with another serial number before.
            if bytes == 0 && *asked.borrow() == 3 {
                fs::write(places.sys.join("block/sda/serial"), "S2").unwrap();
            }
            true
        };
        prove(&order("S2"), &places, MAC, patience, done).unwrap();
        let failure = prove(&order("S9"), &places, MAC, patience, |_| false).unwrap_err().0;
        assert_eq!((failure.stage, failure.code), (InstallStage::Disk, FailureCode::Refused));
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_small_disk_is_read_whole_and_a_large_one_from_end_to_end() {
        let path = std::env::temp_dir().join(format!("rackmedic-spread-{}", std::process::id()));
        for bytes in [1, 4096, (1 << 20) + 512, 200 << 20] {
            File::create(&path).unwrap().set_len(bytes).unwrap();
            let disk = File::open(&path).unwrap();
            let read = read_spread(&disk, bytes, |_| true).unwrap();
            assert!(read >= bytes.min(READ_BYTES_MAX) && read <= READ_BYTES_MAX, "{bytes}: {read}");
            assert!(read_spread(&disk, bytes + 1, |_| true).is_err(), "{bytes}: one more than there is");
        }
        fs::remove_file(path).unwrap();
    }
}
