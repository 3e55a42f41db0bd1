//! The SBAT section of an EFI program (shim's `SBAT.md`): which generation of each component it is, so that a revoked one
//! is seen before a host refuses it.

use protocol::boot_set::SbatEntry;

fn u16_at(bytes: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?)))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?)).ok()
}

/// A section of a PE file (Microsoft PE/COFF, "Section Table").
fn section<'a>(file: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let head = u32_at(file, 0x3c)?;
    if file.get(head..head.checked_add(4)?)? != b"PE\0\0" {
        return None;
    }
    let (count, optional) = (u16_at(file, head.checked_add(6)?)?, u16_at(file, head.checked_add(20)?)?);
    let table = head.checked_add(24)?.checked_add(optional)?;
    let entry = file.get(table..)?.chunks_exact(40).take(count).find(|entry| {
        let own = entry.get(..8).unwrap_or_default();
        own.split(|byte| *byte == 0).next() == Some(name)
    })?;
    let (length, from) = (u32_at(entry, 8)?, u32_at(entry, 20)?);
    file.get(from..from.checked_add(length)?)
}

/// The components of a program; empty when it names none.
#[must_use]
pub fn entries(file: &[u8]) -> Vec<SbatEntry> {
    let text = String::from_utf8_lossy(section(file, b".sbat").unwrap_or_default()).into_owned();
    let line = |line: &str| {
        let mut fields = line.split(',');
        let component = fields.next()?.trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned();
        let generation = fields.next()?.trim().parse().ok()?;
        (!component.is_empty()).then_some(SbatEntry { component, generation })
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_section_is_found_and_read() {
        let text = b"sbat,1,SBAT Version,sbat,1,https://example.org\ngrub,5,FSF,grub,2.12,https://example.org\n\0\0";
        let mut file = vec![0; 0x200];
        file[0x3c] = 0x80;
        file[0x80..0x84].copy_from_slice(b"PE\0\0");
        file[0x86] = 1;
        let table = 0x80 + 24;
        file[table..table + 5].copy_from_slice(b".sbat");
        file[table + 8..table + 12].copy_from_slice(&u32::try_from(text.len()).unwrap().to_le_bytes());
        file[table + 20..table + 24].copy_from_slice(&0x200_u32.to_le_bytes());
        file.extend_from_slice(text);
        let found: Vec<(String, u32)> = entries(&file).into_iter().map(|e| (e.component, e.generation)).collect();
        assert_eq!(found, [("sbat".to_owned(), 1), ("grub".to_owned(), 5)]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = entries(&bytes);
        }
    }
}
