//! GRUB for BIOS, put onto a disk by hand: its own installer wants a device, and there is none.
//!
//! Source: GRUB 2.06, `include/grub/i386/pc/boot.h` (places in the boot sector) and `util/setup.c` (what is written there).

/// Bytes of the boot sector that are code; the partition table begins behind them.
const CODE_BYTES: usize = 440;
/// Where the boot sector keeps the first sector of the core.
const KERNEL_SECTOR: usize = 0x5c;
/// Where it keeps a jump that is taken out on hard disks, for BIOSes that name the wrong drive.
const DRIVE_CHECK: usize = 0x66;
/// Where the core's first sector keeps the list of its others: sector, count, segment; 12 bytes.
const FIRST_LIST: usize = 0x1f4;
/// The segment to which the rest of the core is loaded.
const SEGMENT: u16 = 0x820;
const SECTOR: usize = 512;

/// The code of a disk's first sector, for a core that begins at sector `core_at`.
pub(super) fn boot_code(boot: &[u8], core_at: u64) -> Result<[u8; CODE_BYTES], String> {
    let mut code = [0; CODE_BYTES];
    code.copy_from_slice(boot.get(..CODE_BYTES).ok_or("GRUB's boot sector is too short")?);
    put(&mut code, KERNEL_SECTOR, &core_at.to_le_bytes())?;
    put(&mut code, DRIVE_CHECK, &[0x90, 0x90])?;
    Ok(code)
}

/// The core, as it lies from sector `core_at` on.
pub(super) fn core(core: &[u8], core_at: u64) -> Result<Vec<u8>, String> {
    let mut core = core.to_vec();
    core.resize(core.len().next_multiple_of(SECTOR), 0);
    let rest = u16::try_from(core.len() / SECTOR).ok().and_then(|sectors| sectors.checked_sub(1));
    let rest = rest.filter(|rest| *rest > 0).ok_or("GRUB's core has an odd size")?;
    put(&mut core, FIRST_LIST, &core_at.saturating_add(1).to_le_bytes())?;
    put(&mut core, FIRST_LIST + 8, &rest.to_le_bytes())?;
    put(&mut core, FIRST_LIST + 10, &SEGMENT.to_le_bytes())?;
    Ok(core)
}

fn put(bytes: &mut [u8], at: usize, what: &[u8]) -> Result<(), String> {
    let place = bytes.get_mut(at..at.saturating_add(what.len())).ok_or("GRUB's files are shorter than they must be")?;
    place.copy_from_slice(what);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_are_those_of_grub() {
        let code = boot_code(&[0xaa; 512], 2048).unwrap();
        assert_eq!(&code[0x5c..0x64], [0, 8, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&code[0x66..0x68], [0x90, 0x90]);
        assert_eq!((code[0x5b], code[0x64], code[0x68]), (0xaa, 0xaa, 0xaa));
        let core = core(&[0xbb; 1500], 2048).unwrap();
        assert_eq!(core.len(), 1536);
        assert_eq!(&core[0x1f4..0x200], [1, 8, 0, 0, 0, 0, 0, 0, 2, 0, 0x20, 0x08]);
        assert!(boot_code(&[0; 100], 1).is_err() && super::core(&[0; 100], 1).is_err());
    }
}
