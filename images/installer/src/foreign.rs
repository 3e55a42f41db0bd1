//! Marks of data on a disk that somebody may still want. Only ever reads.
//!
//! An ordinary installed system (partitions with ext4, xfs, btrfs, FAT, swap) is no foreign data: a reimage is there to
//! replace it. Whatever spans disks or is put on whole disks is.

use crate::gpt;
use protocol::disk::ForeignData;
use std::fs::File;
use std::io;
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

/// What firmware that makes arrays of whole disks puts at their ends, by sectors of 512 bytes from there: Intel's IMSM
/// (`MPB_SIGNATURE` in mdadm's super-intel.c; isw_raid.c of libblkid) and DDF (SNIA DDF 2.0, the anchor header), which
/// some write in the other byte order (ddf_raid.c of libblkid).
const END_MARKS: [(&str, u64, &[u8]); 3] = [
    ("Intel firmware RAID member", 2, b"Intel Raid ISM Cfg Sig. "),
    ("DDF firmware RAID member", 1, b"\xde\x11\xde\x11"),
    ("DDF firmware RAID member", 1, b"\x11\xde\x11\xde"),
];

/// A part of a disk that is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// The number of the partition, from 1, or the whole disk.
    pub partition: Option<u32>,
    /// Its first byte on the disk.
    pub from_byte: u64,
    /// Its length, bytes.
    pub bytes: u64,
}

/// Everything foreign on a disk, and what of it cannot be read. `known`: partitions that the kernel knows. It sees more
/// than the table of the first sectors says, such as the logical partitions of an MBR.
#[must_use]
pub fn probe(disk: &File, disk_bytes: u64, block_bytes: u32, known: &[Area]) -> Vec<ForeignData> {
    let mut found = Vec::new();
    let whole = Area { partition: None, from_byte: 0, bytes: disk_bytes };
    let mut table = or_nothing(gpt::partitions(disk, block_bytes), whole, &mut found);
    if or_nothing(gpt::is_damaged(disk, block_bytes), whole, &mut found) {
        // The kernel shows no partition then (block/partitions/efi.c), and the backup may be older than what was lost:
        // nobody knows what is there, so nobody may take it without a person's approval.
        let what = "damaged partition table".to_owned();
        found.push(ForeignData { what, partition: None, at_byte: block_bytes.into() });
        table.extend(or_nothing(gpt::backup(disk, disk_bytes, block_bytes), whole, &mut found));
    }
    if let Err(error) = look_at(disk, whole, &mut found) {
        add_unreadable(whole, &error, &mut found);
    }
    if let Err(error) = look_at_end(disk, disk_bytes, &mut found) {
        add_unreadable(whole, &error, &mut found);
    }
    if table.is_empty()
        && let Err(error) = look_at_whole_disk(disk, disk_bytes, &mut found)
    {
        add_unreadable(whole, &error, &mut found);
    }
    let mut areas: Vec<Area> = table
        .iter()
        .map(|entry| Area { partition: Some(entry.number), from_byte: entry.from_byte, bytes: entry.bytes })
        .collect();
    for area in known {
        if !areas.contains(area) {
            areas.push(*area);
        }
    }
    for area in areas {
        if let Err(error) = look_at(disk, area, &mut found) {
            add_unreadable(area, &error, &mut found);
        }
    }
    found
}

/// The word for what cannot be read: nobody knows what is there, so nobody may take it without a person's approval.
#[must_use]
pub fn unreadable(partition: Option<u32>, at_byte: u64, error: &io::Error) -> ForeignData {
    ForeignData { what: format!("something that cannot be read ({error})"), partition, at_byte }
}

/// What the tables say; nothing where they cannot be read, which is added.
fn or_nothing<T: Default>(read: io::Result<T>, disk: Area, found: &mut Vec<ForeignData>) -> T {
    read.unwrap_or_else(|error| {
        // A table that lies beyond the end of the disk names nothing that is on it.
        if error.kind() != io::ErrorKind::UnexpectedEof {
            add_unreadable(disk, &error, found);
        }
        T::default()
    })
}

fn add_unreadable(area: Area, error: &io::Error, found: &mut Vec<ForeignData>) {
    let data = unreadable(area.partition, area.from_byte, error);
    if !found.contains(&data) {
        found.push(data);
    }
}

fn look_at_whole_disk(disk: &File, disk_bytes: u64, found: &mut Vec<ForeignData>) -> io::Result<()> {
    let look = read(disk, 0, disk_bytes.min(LOOK_BYTES as u64))?;
    for (what, at, mark) in WHOLE_DISK_MARKS {
        if look.get(at..).is_some_and(|rest| rest.starts_with(mark)) {
            found.push(ForeignData { what: what.to_owned(), partition: None, at_byte: at as u64 });
        }
    }
    Ok(())
}

fn look_at_end(disk: &File, disk_bytes: u64, found: &mut Vec<ForeignData>) -> io::Result<()> {
    for (what, sectors, mark) in END_MARKS {
        let Some(sector) = (disk_bytes / 512).checked_sub(sectors) else { continue };
        let at = sector.saturating_mul(512);
        if read(disk, at, mark.len() as u64)? == mark {
            found.push(ForeignData { what: what.to_owned(), partition: None, at_byte: at });
        }
    }
    Ok(())
}

/// Ends at the first place that cannot be read: a failing disk may take half a minute for each.
fn look_at(disk: &File, area: Area, found: &mut Vec<ForeignData>) -> io::Result<()> {
    let Area { partition, from_byte: from, bytes } = area;
    let look = read(disk, from, bytes.min(LOOK_BYTES as u64))?;
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
            // What lies behind the end of a small partition is not in it.
            let length = bytes.saturating_sub(at as u64).min(mark.len() as u64);
            read(disk, from.saturating_add(at as u64), length)? == mark
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
        if read(disk, from.saturating_add(at), 4)? == b"\xfc\x4e\x2b\xa9" {
            add("Linux RAID member", at);
        }
    }
    Ok(())
}

/// What is there: less than asked for where the disk ends, nothing beyond its end. A table may say what it likes.
fn read(disk: &File, at: u64, bytes: u64) -> io::Result<Vec<u8>> {
    // No disk is that long, and the kernel would call such a place invalid rather than empty.
    if i64::try_from(at.saturating_add(bytes)).is_err() {
        return Ok(Vec::new());
    }
    let mut buffer = vec![0; usize::try_from(bytes).unwrap_or(0)];
    let mut filled = 0_usize;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match disk.read_at(rest, at.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(more) => filled = filled.saturating_add(more),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(marks: &[(u64, &[u8])]) -> Vec<String> {
        with_known(marks, &[])
    }

    fn with_known(marks: &[(u64, &[u8])], known: &[Area]) -> Vec<String> {
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
        let found = probe(&disk, 8 << 20, 512, known);
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
        let end = 8_u64 << 20;
        let intel: &[u8] = b"Intel Raid ISM Cfg Sig. 1.2.02";
        assert_eq!(with(&[(end - 1024, intel)]), ["Intel firmware RAID member None"]);
        assert_eq!(with(&[(end - 512, intel), (end - 1536, intel)]), Vec::<String>::new(), "in one place alone");
        for ddf in [b"\xde\x11\xde\x11", b"\x11\xde\x11\xde"] {
            assert_eq!(with(&[(end - 512, ddf)]), ["DDF firmware RAID member None"]);
        }
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

    #[test]
    fn a_logical_partition_that_the_kernel_knows_is_looked_at() {
        // A boot sector with one extended partition from sector 2,048, 8,192 sectors long.
        let entry: &[u8] = &[0, 0, 0, 0, 5, 0, 0, 0, 0, 8, 0, 0, 0, 32, 0, 0];
        let extended = 2048 * 512_u64;
        let logical = Area { partition: Some(5), from_byte: extended + (1 << 20), bytes: 2 << 20 };
        let marks: [(u64, &[u8]); 4] = [
            (446, entry),
            (510, b"\x55\xaa"),
            (logical.from_byte + 512, b"LABELONE"),
            (logical.from_byte + 536, b"LVM2 001"),
        ];
        assert_eq!(with(&marks), Vec::<String>::new(), "the first sector does not name it");
        // The kernel shows an extended partition as one of two sectors.
        let shown = Area { partition: Some(1), from_byte: extended, bytes: 1024 };
        assert_eq!(with_known(&marks, &[shown, logical]), ["LVM2 physical volume Some(5)"]);
        let first = Area { partition: Some(1), from_byte: extended, bytes: 8192 * 512 };
        let luks: [(u64, &[u8]); 3] = [marks[0], marks[1], (extended, b"LUKS\xba\xbe")];
        assert_eq!(with_known(&luks, &[first]), ["LUKS volume Some(1)"], "what both name is told once");
    }

    #[test]
    fn what_is_short_or_beyond_the_end_is_no_error() {
        let end = 8_u64 << 20;
        let area = |from_byte, bytes| Area { partition: Some(5), from_byte, bytes };
        let odd = [
            area(end - 512, 1 << 30),
            area(end - 512, 0),
            area(end, 4096),
            area(1 << 40, 1 << 40),
            area(0, u64::MAX),
            area(u64::MAX, u64::MAX),
            area(u64::MAX - 4096, 8192),
        ];
        assert_eq!(with_known(&[], &odd), Vec::<String>::new());
        let cut = with_known(&[(end - 512, b"LUKS\xba\xbe")], &[area(end - 512, 1 << 30)]);
        assert_eq!(cut, ["LUKS volume Some(5)"], "what is there of it is looked at");
        let behind = with_known(&[(0x20_0000, b"\x0d\xd0\x01\xc0")], &[area(0x10_0000, 4096)]);
        assert_eq!(behind, Vec::<String>::new(), "what lies behind a small partition is not in it");
        let inside = with_known(&[(0x20_0000, b"\x0d\xd0\x01\xc0")], &[area(0x10_0000, 2 << 20)]);
        assert_eq!(inside, ["VMFS volume Some(5)"]);
    }

    #[test]
    fn what_cannot_be_read_is_foreign() {
        let path = std::env::temp_dir().join(format!("rackmedic-foreign-unreadable-{}", std::process::id()));
        // Opened for writing alone: each read is an error, as on a disk that fails.
        let disk = File::create(&path).unwrap();
        disk.set_len(8 << 20).unwrap();
        let logical = Area { partition: Some(5), from_byte: 1 << 20, bytes: 1 << 20 };
        let found = probe(&disk, 8 << 20, 512, &[logical]);
        std::fs::remove_file(&path).unwrap();
        let places: Vec<(Option<u32>, u64)> = found.iter().map(|data| (data.partition, data.at_byte)).collect();
        assert_eq!(places, [(None, 0), (Some(5), 1 << 20)], "each place once");
        assert!(found.iter().all(|data| data.what.contains("cannot be read")), "{found:?}");
    }
}
