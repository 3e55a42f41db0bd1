//! What the beginning of a disk says of its partitions: enough to refuse what is no disk before it is shelved.

/// The kinds of partition table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// The table of the PC's boot sector.
    Mbr,
    /// UEFI 2.10 section 5.
    Gpt,
}

/// What is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskLayout {
    /// Which table.
    pub table: Table,
    /// The numbers of the partitions that hold something.
    pub partitions: Vec<u32>,
    /// Whether one of them is an EFI system partition.
    pub efi_system: bool,
}

/// EFI system partition, as it lies on the disk (UEFI 2.10 table 5.7: C12A7328-F81F-11D2-BA4B-00A0C93EC93B).
const EFI_SYSTEM: [u8; 16] =
    [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];

/// How many bytes of a disk have to be there for [`DiskLayout::read`]: boot sector, head and 128 entries of a GPT.
pub const LOOK_BYTES: usize = 34 * 512;

impl DiskLayout {
    /// Reads the first [`LOOK_BYTES`] of a disk with sectors of 512 bytes. `None`: no partition table.
    #[must_use]
    pub fn read(look: &[u8]) -> Option<Self> {
        if look.get(510..512) != Some(&[0x55, 0xaa]) {
            return None;
        }
        if look.get(512..520) == Some(b"EFI PART") {
            let number = |at: usize| -> Option<usize> {
                let bytes: [u8; 4] = look.get(at..at.checked_add(4)?)?.try_into().ok()?;
                usize::try_from(u32::from_le_bytes(bytes)).ok()
            };
            let (count, size) = (number(512 + 80)?.min(128), number(512 + 84)?);
            if size < 128 {
                return None;
            }
            let (mut partitions, mut efi_system) = (Vec::new(), false);
            for (index, entry) in look.get(1024..)?.chunks_exact(size).take(count).enumerate() {
                let kind = entry.get(..16)?;
                if kind.iter().any(|byte| *byte != 0) {
                    partitions.push(u32::try_from(index).ok()? + 1);
                    efi_system |= kind == EFI_SYSTEM;
                }
            }
            return Some(Self { table: Table::Gpt, partitions, efi_system });
        }
        let (mut partitions, mut efi_system) = (Vec::new(), false);
        for (entry, number) in look.get(446..510)?.chunks_exact(16).zip(1..) {
            let kind = *entry.get(4)?;
            if kind != 0 {
                partitions.push(number);
                efi_system |= kind == 0xef;
            }
        }
        Some(Self { table: Table::Mbr, partitions, efi_system })
    }
}
