//! Partition tables: what lies where (GPT, UEFI 2.10 section 5.3, and MBR), and the GPT's backup at the end of a disk that
//! is larger than the image.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// One partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number, from 1.
    pub number: u32,
    /// Its first byte on the disk.
    pub from_byte: u64,
    /// Its length, bytes.
    pub bytes: u64,
    /// Its type (GPT), as it lies on the disk; zeros in an MBR.
    pub kind: [u8; 16],
    /// Its own GUID (GPT), as it lies on the disk; zeros in an MBR.
    pub id: [u8; 16],
}

/// EFI system partition (C12A7328-F81F-11D2-BA4B-00A0C93EC93B), as it lies on the disk.
pub const EFI_SYSTEM: [u8; 16] =
    [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];

/// The type in a boot sector that stands for a GPT on the whole disk (UEFI 2.10 section 5.2.3).
const PROTECTIVE: u8 = 0xee;

const HEAD_BYTES: usize = 92;
/// The block of the first head.
const FIRST_HEAD: u64 = 1;

/// The head of a GPT.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Head {
    raw: Vec<u8>,
    entries_block: u64,
    entries: u32,
    entry_bytes: u32,
    entries_crc: u32,
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = at.checked_add(value.len()).and_then(|end| bytes.get_mut(at..end)) {
        place.copy_from_slice(value);
    }
}

/// CRC-32 of ISO 3309, as the GPT uses it.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1));
        }
    }
    !crc
}

impl Head {
    /// The head in this block of the disk.
    fn read(disk: &File, block_bytes: u32, number: u64) -> io::Result<Option<Self>> {
        let mut raw = vec![0; HEAD_BYTES];
        disk.read_exact_at(&mut raw, number.saturating_mul(block_bytes.into()))?;
        Ok(Self::parse(raw))
    }

    fn parse(raw: Vec<u8>) -> Option<Self> {
        if !raw.starts_with(b"EFI PART") || u32_at(&raw, 12)? != u32::try_from(HEAD_BYTES).ok()? {
            return None;
        }
        let mut without = raw.clone();
        put(&mut without, 16, &[0; 4]);
        if crc32(&without) != u32_at(&raw, 16)? {
            return None;
        }
        let (entries, entry_bytes) = (u32_at(&raw, 80)?, u32_at(&raw, 84)?);
        if entries > 1024 || !(128..=4096).contains(&entry_bytes) {
            return None;
        }
        Some(Self { entries_block: u64_at(&raw, 72)?, entries, entry_bytes, entries_crc: u32_at(&raw, 88)?, raw })
    }

    fn table(&self, disk: &File, block_bytes: u32) -> io::Result<Option<Vec<u8>>> {
        let mut table = vec![0; self.entries as usize * self.entry_bytes as usize];
        let at = self.entries_block.saturating_mul(block_bytes.into());
        // No disk is that long. The kernel would call such a place invalid, yet it is as much beyond the end as others.
        if i64::try_from(at.saturating_add(table.len() as u64)).is_err() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        disk.read_exact_at(&mut table, at)?;
        Ok((crc32(&table) == self.entries_crc).then_some(table))
    }

    /// The partitions in its table. `None`: the table is damaged.
    fn partitions(&self, disk: &File, block_bytes: u32) -> io::Result<Option<Vec<Partition>>> {
        let block = u64::from(block_bytes);
        let Some(table) = self.table(disk, block_bytes)? else { return Ok(None) };
        let entry = |(entry, number): (&[u8], u32)| -> Option<Partition> {
            let kind: [u8; 16] = entry.get(..16)?.try_into().ok()?;
            let (first, last) = (u64_at(entry, 32)?, u64_at(entry, 40)?);
            (kind != [0; 16] && last >= first).then_some(Partition {
                number,
                from_byte: first.saturating_mul(block),
                bytes: last.saturating_sub(first).saturating_add(1).saturating_mul(block),
                kind,
                id: entry.get(16..32)?.try_into().ok()?,
            })
        };
        Ok(Some(table.chunks_exact(self.entry_bytes as usize).zip(1..).filter_map(entry).collect()))
    }

    fn sealed(mut self) -> Vec<u8> {
        put(&mut self.raw, 16, &[0; 4]);
        let crc = crc32(&self.raw);
        put(&mut self.raw, 16, &crc.to_le_bytes());
        self.raw
    }
}

/// The entries of the boot sector, 16 bytes each. Empty: it is none.
fn boot_sector(disk: &File) -> io::Result<Vec<u8>> {
    let mut sector = [0; 512];
    disk.read_exact_at(&mut sector, 0)?;
    if sector.get(510..) != Some(&[0x55, 0xaa]) {
        return Ok(Vec::new());
    }
    Ok(sector.get(446..510).unwrap_or_default().to_vec())
}

/// The partitions of a disk; of an MBR the four of its first sector, not what lies in an extended one, and not the one
/// that only stands for a GPT. Empty: no table, or a damaged one.
///
/// # Errors
/// When the disk cannot be read. [`io::ErrorKind::UnexpectedEof`]: the table lies beyond its end.
pub fn partitions(disk: &File, block_bytes: u32) -> io::Result<Vec<Partition>> {
    let block = u64::from(block_bytes);
    if let Some(head) = Head::read(disk, block_bytes, FIRST_HEAD)?
        && let Some(partitions) = head.partitions(disk, block_bytes)?
    {
        return Ok(partitions);
    }
    let entry = |(entry, number): (&[u8], u32)| -> Option<Partition> {
        let (first, count) = (u32_at(entry, 8)?, u32_at(entry, 12)?);
        (!matches!(*entry.get(4)?, 0 | PROTECTIVE) && count > 0).then_some(Partition {
            number,
            from_byte: u64::from(first).saturating_mul(block),
            bytes: u64::from(count).saturating_mul(block),
            kind: [0; 16],
            id: [0; 16],
        })
    };
    Ok(boot_sector(disk)?.chunks_exact(16).zip(1..).filter_map(entry).collect())
}

/// The partitions by the head in this block. `None`: head or table is damaged, or lies beyond the end.
fn by_head(disk: &File, block_bytes: u32, number: u64) -> io::Result<Option<Vec<Partition>>> {
    let found = match Head::read(disk, block_bytes, number) {
        Ok(Some(head)) => head.partitions(disk, block_bytes),
        Ok(None) => Ok(None),
        Err(error) => Err(error),
    };
    match found {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        found => found,
    }
}

/// Whether the boot sector says that there is a GPT, and the first head or the first table of it is damaged.
///
/// # Errors
/// When the disk cannot be read.
pub fn is_damaged(disk: &File, block_bytes: u32) -> io::Result<bool> {
    let stands_for_gpt = |entry: &[u8]| entry.get(4) == Some(&PROTECTIVE);
    let says_so = boot_sector(disk)?.chunks_exact(16).any(stands_for_gpt);
    Ok(says_so && by_head(disk, block_bytes, FIRST_HEAD)?.is_none())
}

/// The partitions by the backup in the last blocks of the disk. Empty: there is none, or it is damaged.
///
/// # Errors
/// When the disk cannot be read.
pub fn backup(disk: &File, disk_bytes: u64, block_bytes: u32) -> io::Result<Vec<Partition>> {
    let last = (disk_bytes / u64::from(block_bytes.max(1))).saturating_sub(1);
    Ok(by_head(disk, block_bytes, last)?.unwrap_or_default())
}

/// What is to be written where, so that a GPT ends where the disk ends. In this order: until the last of them the old
/// table is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moves(pub Vec<(u64, Vec<u8>)>);

/// The moves for a disk of this size; `None` when there is no GPT, or its backup is where it belongs.
///
/// # Errors
/// When the disk cannot be read.
pub fn move_backup(disk: &File, disk_bytes: u64, block_bytes: u32) -> io::Result<Option<Moves>> {
    let block = u64::from(block_bytes);
    let Some(head) = Head::read(disk, block_bytes, FIRST_HEAD)? else { return Ok(None) };
    let Some(table) = head.table(disk, block_bytes)? else { return Ok(None) };
    let last = (disk_bytes / block).saturating_sub(1);
    if u64_at(&head.raw, 32) == Some(last) {
        return Ok(None);
    }
    let table_blocks = (table.len() as u64).div_ceil(block);
    let backup_table = last.saturating_sub(table_blocks);
    let last_usable = backup_table.saturating_sub(1);
    let mut primary = head.clone();
    put(&mut primary.raw, 32, &last.to_le_bytes());
    put(&mut primary.raw, 48, &last_usable.to_le_bytes());
    let mut backup = primary.clone();
    put(&mut backup.raw, 24, &last.to_le_bytes());
    put(&mut backup.raw, 32, &1_u64.to_le_bytes());
    put(&mut backup.raw, 72, &backup_table.to_le_bytes());
    let whole_blocks = |mut bytes: Vec<u8>| {
        bytes.resize(bytes.len().next_multiple_of(block_bytes as usize), 0);
        bytes
    };
    Ok(Some(Moves(vec![
        (backup_table.saturating_mul(block), whole_blocks(table)),
        (last.saturating_mul(block), whole_blocks(backup.sealed())),
        (block, whole_blocks(primary.sealed())),
    ])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn the_crc_is_that_of_the_standard() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_table_beyond_the_end_is_told_from_a_disk_that_cannot_be_read() {
        let path = std::env::temp_dir().join(format!("rackmedic-gpt-beyond-{}", std::process::id()));
        let disk = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        disk.set_len(8 << 20).unwrap();
        for entries_block in [1_u64 << 30, u64::MAX] {
            let mut raw = vec![0; HEAD_BYTES];
            put(&mut raw, 0, b"EFI PART");
            put(&mut raw, 12, &92_u32.to_le_bytes());
            put(&mut raw, 72, &entries_block.to_le_bytes());
            put(&mut raw, 80, &128_u32.to_le_bytes());
            put(&mut raw, 84, &128_u32.to_le_bytes());
            let head = Head { raw, entries_block, entries: 128, entry_bytes: 128, entries_crc: 0 };
            disk.write_all_at(&head.sealed(), 512).unwrap();
            let error = partitions(&disk, 512).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{entries_block}");
            assert!(crate::foreign::probe(&disk, 8 << 20, 512, &[]).is_empty(), "{entries_block}");
        }
        let unreadable = File::options().write(true).open(&path).unwrap();
        assert_ne!(partitions(&unreadable, 512).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        std::fs::remove_file(&path).unwrap();
    }

    /// Two copies of a GPT, and the boot sector that says so. Its one partition has 2 MiB from byte 1 MiB on.
    fn put_gpt(disk: &File, disk_bytes: u64) {
        let mut table = vec![0; 128 * 128];
        put(&mut table, 0, &[7; 16]);
        put(&mut table, 16, &[9; 16]);
        put(&mut table, 32, &2048_u64.to_le_bytes());
        put(&mut table, 40, &6143_u64.to_le_bytes());
        let head = |entries_block: u64| {
            let mut raw = vec![0; HEAD_BYTES];
            put(&mut raw, 0, b"EFI PART");
            put(&mut raw, 12, &92_u32.to_le_bytes());
            put(&mut raw, 72, &entries_block.to_le_bytes());
            put(&mut raw, 80, &128_u32.to_le_bytes());
            put(&mut raw, 84, &128_u32.to_le_bytes());
            put(&mut raw, 88, &crc32(&table).to_le_bytes());
            Head { raw, entries_block, entries: 128, entry_bytes: 128, entries_crc: 0 }.sealed()
        };
        let mut sector = vec![0; 512];
        put(&mut sector, 446 + 4, &[PROTECTIVE]);
        put(&mut sector, 446 + 8, &1_u32.to_le_bytes());
        put(&mut sector, 446 + 12, &u32::MAX.to_le_bytes());
        put(&mut sector, 510, &[0x55, 0xaa]);
        let last = disk_bytes / 512 - 1;
        for (block, bytes) in [(0, &sector), (1, &head(2)), (2, &table), (last, &head(last - 32)), (last - 32, &table)]
        {
            disk.write_all_at(bytes, block * 512).unwrap();
        }
    }

    #[test]
    fn behind_a_damaged_table_the_partitions_of_its_backup_are_looked_at() {
        const BYTES: u64 = 8 << 20;
        let path = std::env::temp_dir().join(format!("rackmedic-gpt-damaged-{}", std::process::id()));
        let (table, label) = ("damaged partition table None", "LVM2 physical volume Some(1)");
        let last = BYTES - 512;
        // What is damaged, by its place, and what is seen then.
        let cases: [(&[u64], &[&str]); 6] = [
            (&[], &[label]),
            (&[last + 60], &[label]),
            (&[512 + 60], &[table, label]),
            (&[1024 + 100], &[table, label]),
            (&[1024 + 100, last + 60], &[table]),
            (&[512 + 60, last - 32 * 512 + 100], &[table]),
        ];
        for (damaged, seen) in cases {
            let disk = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
            disk.set_len(BYTES).unwrap();
            put_gpt(&disk, BYTES);
            disk.write_all_at(b"LABELONE", (1 << 20) + 512).unwrap();
            disk.write_all_at(b"LVM2 001", (1 << 20) + 536).unwrap();
            for at in damaged {
                disk.write_all_at(&[0xa5], *at).unwrap();
            }
            let found = crate::foreign::probe(&disk, BYTES, 512, &[]);
            let found: Vec<String> =
                found.into_iter().map(|data| format!("{} {:?}", data.what, data.partition)).collect();
            assert_eq!(found, seen, "{damaged:?}");
            // What a boot sector says of a GPT is no partition.
            assert_eq!(partitions(&disk, 512).unwrap().is_empty(), seen.contains(&table), "{damaged:?}");
        }
        std::fs::remove_file(&path).unwrap();
    }

    /// `sfdisk --verify` and `sgdisk -v` are the judges; without them this is said.
    #[test]
    fn a_grown_disk_satisfies_other_tools() {
        let path = std::env::temp_dir().join(format!("rackmedic-gpt-{}", std::process::id()));
        File::create(&path).unwrap().set_len(64 << 20).unwrap();
        let made = Command::new("sh")
            .args(["-c", "printf 'label: gpt\nsize=8M, type=U\nsize=16M\n' | sfdisk -q \"$0\""])
            .arg(&path)
            .status();
        if !made.is_ok_and(|made| made.success()) {
            let _ = std::fs::remove_file(&path);
            assert!(std::env::var_os("RACKMEDIC_PEERS").is_none(), "sfdisk is missing: run tests/peers/install-boot");
            return;
        }
        let disk = File::options().read(true).write(true).open(&path).unwrap();
        let before = partitions(&disk, 512).unwrap();
        assert_eq!(before.len(), 2);
        assert_eq!(before[0].kind, EFI_SYSTEM);
        assert_eq!(move_backup(&disk, 64 << 20, 512).unwrap(), None, "it is where it belongs");
        disk.set_len(200 << 20).unwrap();
        for (at, bytes) in move_backup(&disk, 200 << 20, 512).unwrap().unwrap().0 {
            disk.write_all_at(&bytes, at).unwrap();
        }
        assert_eq!(partitions(&disk, 512).unwrap(), before);
        assert_eq!(move_backup(&disk, 200 << 20, 512).unwrap(), None);
        let verify = Command::new("sgdisk").arg("-v").arg(&path).output();
        if let Ok(verify) = verify {
            let said = String::from_utf8_lossy(&verify.stdout).into_owned();
            assert!(said.contains("No problems found"), "{said}");
        }
        let verify = Command::new("sfdisk").arg("--verify").arg(&path).output().unwrap();
        let said = String::from_utf8_lossy(&verify.stdout).into_owned() + &String::from_utf8_lossy(&verify.stderr);
        assert!(verify.status.success() && said.contains("No errors detected"), "{said}");
        std::fs::remove_file(&path).unwrap();
    }
}
