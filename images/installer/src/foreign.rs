//! Marks of data on a disk that somebody may still want. Only ever reads.
//!
//! An ordinary installed system (partitions with ext4, xfs, btrfs, FAT, swap) is no foreign data: a reimage is there to
//! replace it. Whatever spans disks or is put on whole disks is.

use crate::gpt;
use protocol::disk::ForeignData;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// Bytes read from the beginning of the disk and of each partition: the last mark looked for there is ZFS's first ring of
/// uberblocks, which ends at 256 KiB.
const LOOK_BYTES: usize = 256 * 1024;

/// A mark: what it is, where it lies from the beginning, its bytes.
const MARKS: [(&str, usize, &[u8]); 13] = [
    ("Ceph BlueStore", 0, b"bluestore block device"),
    ("LUKS volume", 0, b"LUKS\xba\xbe"),
    ("Linux RAID member", 0, b"\xfc\x4e\x2b\xa9"),
    ("Linux RAID member", 4096, b"\xfc\x4e\x2b\xa9"),
    ("bcache device", 4096 + 24, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"),
    ("NTFS file system", 3, b"NTFS    "),
    ("BitLocker volume", 3, b"-FVE-FS-"),
    ("Oracle ASM disk", 32, b"ORCLDISK"),
    ("OCFS2 file system", 1024, b"OCFSV2"),
    ("OCFS2 file system", 2048, b"OCFSV2"),
    ("OCFS2 file system", 4096, b"OCFSV2"),
    ("VMFS volume", 0x10_0000, b"\x0d\xd0\x01\xc0"),
    ("GFS2 file system", 0x1_0000, b"\x01\x16\x19\x70"),
];

/// File systems that are usual on a partition, but not on a whole disk: there they hold data.
const WHOLE_DISK_MARKS: [(&str, usize, &[u8]); 3] = [
    ("XFS file system on the whole disk", 0, b"XFSB"),
    ("Btrfs file system on the whole disk", 0x1_0040, b"_BHRfS_M"),
    ("ext file system on the whole disk", 0x438, b"\x53\xef"),
];

/// Everything foreign on a disk.
#[must_use]
pub fn probe(disk: &File, disk_bytes: u64, block_bytes: u32) -> Vec<ForeignData> {
    let partitions = gpt::partitions(disk, block_bytes).unwrap_or_default();
    let mut found = Vec::new();
    area(disk, 0, disk_bytes, None, &mut found);
    let whole = |look: &[u8], at: usize, mark: &[u8]| look.get(at..).is_some_and(|rest| rest.starts_with(mark));
    if partitions.is_empty() {
        let look = read(disk, 0, disk_bytes.min(LOOK_BYTES as u64));
        for (what, at, mark) in WHOLE_DISK_MARKS {
            if whole(&look, at, mark) {
                found.push(ForeignData { what: what.to_owned(), partition: None, at_byte: at as u64 });
            }
        }
    }
    for partition in partitions {
        area(disk, partition.from_byte, partition.bytes, Some(partition.number), &mut found);
    }
    found
}

fn area(disk: &File, from: u64, bytes: u64, partition: Option<u32>, found: &mut Vec<ForeignData>) {
    let look = read(disk, from, bytes.min(LOOK_BYTES as u64));
    let starts = |at: usize, mark: &[u8]| look.get(at..).is_some_and(|rest| rest.starts_with(mark));
    let mut add = |what: &str, at: u64| {
        if !found.iter().any(|known| known.partition == partition && known.what == what) {
            found.push(ForeignData { what: what.to_owned(), partition, at_byte: from.saturating_add(at) });
        }
    };
    for (what, at, mark) in MARKS {
        let there = if at < LOOK_BYTES {
            starts(at, mark)
        } else {
            read(disk, from.saturating_add(at as u64), mark.len() as u64) == mark
        };
        if there {
            add(what, at as u64);
        }
    }
    // The label is in one of the first four sectors (lvm2 format_text).
    for sector in 0..4 {
        if starts(sector * 512, b"LABELONE") && starts(sector * 512 + 24, b"LVM2 001") {
            add("LVM2 physical volume", sector as u64 * 512);
        }
    }
    // Uberblocks of either byte order, each kilobyte of the ring (ZFS on-disk format, chapter 1.3).
    for at in (128 * 1024..LOOK_BYTES).step_by(1024) {
        if starts(at, b"\x0c\xb1\xba\x00\0\0\0\0") || starts(at, b"\0\0\0\0\x00\xba\xb1\x0c") {
            add("ZFS pool member", at as u64);
            break;
        }
    }
    // RAID metadata 1.0 lies 8 KiB before the end, 0.90 in the last whole 64 KiB but one.
    for at in [(bytes & !0xfff).checked_sub(8192), (bytes & !0xffff).checked_sub(65_536)].into_iter().flatten() {
        if read(disk, from.saturating_add(at), 4) == b"\xfc\x4e\x2b\xa9" {
            add("Linux RAID member", at);
        }
    }
}

/// What can be read there; less than asked for when the disk says no.
fn read(disk: &File, at: u64, bytes: u64) -> Vec<u8> {
    let mut buffer = vec![0; usize::try_from(bytes).unwrap_or(0)];
    match disk.read_exact_at(&mut buffer, at) {
        Ok(()) => buffer,
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(marks: &[(u64, &[u8])]) -> Vec<String> {
        let path = std::env::temp_dir().join(format!(
            "rackmedic-foreign-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        let disk = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        disk.set_len(8 << 20).unwrap();
        for (at, mark) in marks {
            disk.write_all_at(mark, *at).unwrap();
        }
        let found = probe(&disk, 8 << 20, 512);
        std::fs::remove_file(&path).unwrap();
        found.into_iter().map(|data| format!("{} {:?}", data.what, data.partition)).collect()
    }

    #[test]
    fn marks_of_storage_that_spans_disks_are_seen() {
        assert_eq!(with(&[]), Vec::<String>::new());
        assert_eq!(with(&[(0, b"bluestore block device\n")]), ["Ceph BlueStore None"]);
        assert_eq!(with(&[(512, b"LABELONE"), (536, b"LVM2 001")]), ["LVM2 physical volume None"]);
        assert_eq!(with(&[(0x2_1000, b"\x0c\xb1\xba\x00\0\0\0\0")]), ["ZFS pool member None"]);
        assert_eq!(with(&[(4096, b"\xfc\x4e\x2b\xa9")]), ["Linux RAID member None"]);
        assert_eq!(with(&[((8 << 20) - 8192, b"\xfc\x4e\x2b\xa9")]), ["Linux RAID member None"]);
        assert_eq!(with(&[(0, b"XFSB")]), ["XFS file system on the whole disk None"]);
    }

    #[test]
    fn a_partition_with_an_ordinary_file_system_is_not_foreign_and_one_with_lvm_is() {
        // A boot sector with one partition of type Linux from sector 2,048, 4,096 sectors long.
        let entry: &[u8] = &[0, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 16, 0, 0];
        let table: [(u64, &[u8]); 2] = [(446, entry), (510, b"\x55\xaa")];
        let part = 2048 * 512_u64;
        assert_eq!(with(&[table[0], table[1], (part, b"XFSB"), (part + 0x438, b"\x53\xef")]), Vec::<String>::new());
        let lvm = with(&[table[0], table[1], (part + 512, b"LABELONE"), (part + 536, b"LVM2 001")]);
        assert_eq!(lvm, ["LVM2 physical volume Some(1)"]);
    }
}
