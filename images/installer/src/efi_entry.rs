//! The boot entry of UEFI (UEFI 2.10 section 3.1.3): one of ours, first in the order, older ones of ours removed.

use crate::gpt::Partition;
use std::fs;
use std::io;
use std::path::Path;

/// What our entries are called, and how they are known again.
pub const DESCRIPTION: &str = "Rackmedic disk";
/// The GUID of UEFI's own variables.
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// Kept over a restart, seen by firmware and system.
const ATTRIBUTES: u32 = 7;
/// An entry that is used.
const ACTIVE: u32 = 1;

/// The bytes of a load option that starts this loader from this partition.
#[must_use]
pub fn load_option(partition: &Partition, block_bytes: u32, loader: &str) -> Vec<u8> {
    let wide = |text: &str| -> Vec<u8> { text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect() };
    let block = u64::from(block_bytes.max(1));
    let mut path = Vec::new();
    // Media, hard drive (section 10.3.5.1): by the partition's own GUID in a GPT.
    path.extend_from_slice(&[4, 1, 42, 0]);
    path.extend_from_slice(&partition.number.to_le_bytes());
    path.extend_from_slice(&(partition.from_byte / block).to_le_bytes());
    path.extend_from_slice(&(partition.bytes / block).to_le_bytes());
    path.extend_from_slice(&partition.id);
    path.extend_from_slice(&[2, 2]);
    // Media, file path (section 10.3.5.4).
    let name = wide(loader);
    path.extend_from_slice(&[4, 4]);
    path.extend_from_slice(&u16::try_from(name.len() + 4).unwrap_or(u16::MAX).to_le_bytes());
    path.extend_from_slice(&name);
    path.extend_from_slice(&[0x7f, 0xff, 4, 0]);
    let mut option = ACTIVE.to_le_bytes().to_vec();
    option.extend_from_slice(&u16::try_from(path.len()).unwrap_or(u16::MAX).to_le_bytes());
    option.extend_from_slice(&wide(DESCRIPTION));
    option.extend_from_slice(&path);
    option
}

/// Whether a load option is one of ours.
fn is_ours(option: &[u8]) -> bool {
    let text = option.get(6..).unwrap_or_default().chunks_exact(2);
    let text = text.map(|pair| u16::from_le_bytes([pair[0], pair[1]])).take_while(|unit| *unit != 0);
    text.eq(DESCRIPTION.encode_utf16())
}

/// What a variable holds, behind its four bytes of attributes. `None`: it is not there.
///
/// What cannot be read is not taken for nothing: a new order that is made without it would drop every other entry,
/// network boot among them, and an entry of ours that is not known again would be there twice.
fn variable(path: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    let unread = |kind: io::ErrorKind, why: &str| {
        let what = format!(
            "its variable {name} cannot be read ({why}), and other entries would be lost without what it says, so no \
             variable was changed. Look at the boot entries in the firmware's setup, then install again"
        );
        io::Error::new(kind, what)
    };
    match fs::read(path) {
        Ok(bytes) => match bytes.get(4..) {
            Some(value) => Ok(Some(value.to_vec())),
            None => Err(unread(io::ErrorKind::InvalidData, "it is cut short")),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unread(error.kind(), &error.to_string())),
    }
}

/// Sets the entry. Gives its number.
///
/// # Errors
/// What the firmware says, by way of the kernel. A variable that cannot be read: then none is changed.
pub fn set(variables: &Path, option: &[u8]) -> io::Result<u16> {
    let place = |name: &str| variables.join(format!("{name}-{GLOBAL}"));
    let read = |name: &str| variable(&place(name), name);
    let write = |name: &str, value: &[u8]| fs::write(place(name), [&ATTRIBUTES.to_le_bytes(), value].concat());
    let order: Vec<u16> = read("BootOrder")?
        .unwrap_or_default()
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .collect();
    let mut used = Vec::new();
    for entry in fs::read_dir(variables)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let number = name.strip_prefix("Boot").and_then(|rest| rest.strip_suffix(&format!("-{GLOBAL}")));
        let Some(number) = number.filter(|n| n.len() == 4).and_then(|n| u16::from_str_radix(n, 16).ok()) else {
            continue;
        };
        // One that cannot be read is somebody's: its place is taken, and no more is made of it.
        let ours = read(&format!("Boot{number:04X}")).is_ok_and(|found| found.is_some_and(|option| is_ours(&option)));
        used.push((number, ours));
    }
    // One of ours is written over: firmware with few places left then needs no new one.
    let ours: Vec<u16> = used.iter().filter(|(_, ours)| *ours).map(|(number, _)| *number).collect();
    let free = || (0..=u16::MAX).find(|number| used.iter().all(|(other, _)| other != number)).unwrap_or(0);
    let number = ours.first().copied().unwrap_or_else(free);
    let name = format!("Boot{number:04X}");
    if read(&name)?.as_deref() != Some(option) {
        write(&name, option)?;
    }
    let mut new_order = vec![number];
    new_order.extend(order.iter().filter(|other| !ours.contains(other) && **other != number));
    if new_order != order {
        write("BootOrder", &new_order.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>())?;
    }
    for other in ours.iter().filter(|other| **other != number) {
        // Firmware that does not let go of an old entry boots all the same: it stands in no order any more.
        let _ = fs::remove_file(place(&format!("Boot{other:04X}")));
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_is_first_and_there_is_one() {
        let folder = std::env::temp_dir().join(format!("rackmedic-efi-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let place = |name: &str| folder.join(format!("{name}-{GLOBAL}"));
        let partition = Partition { number: 1, from_byte: 1 << 20, bytes: 8 << 20, kind: [0; 16], id: [9; 16] };
        let option = load_option(&partition, 512, "\\EFI\\BOOT\\BOOTX64.EFI");
        let with = |value: &[u8]| [&7_u32.to_le_bytes(), value].concat();
        let other = [&1_u32.to_le_bytes()[..], &[0, 0], b"P\0X\0E\0\0\0"].concat();
        fs::write(place("Boot0000"), with(&other)).unwrap();
        fs::write(place("Boot0003"), with(&load_option(&partition, 512, "\\old"))).unwrap();
        fs::write(place("Boot0007"), with(&load_option(&partition, 512, "\\older"))).unwrap();
        fs::write(place("BootOrder"), with(&[7, 0, 0, 0, 3, 0])).unwrap();
        let number = set(&folder, &option).unwrap();
        assert!(number == 3 || number == 7);
        let left = [3, 7].iter().filter(|n| place(&format!("Boot{n:04X}")).exists()).count();
        assert_eq!(left, 1, "the other one of ours is gone");
        assert_eq!(fs::read(place("BootOrder")).unwrap(), with(&[u8::try_from(number).unwrap(), 0, 0, 0]));
        assert_eq!(fs::read(place(&format!("Boot{number:04X}"))).unwrap(), with(&option));
        assert_eq!(set(&folder, &option).unwrap(), number, "and again, nothing changes");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn an_order_that_cannot_be_read_is_not_taken_for_an_empty_one() {
        let folder = std::env::temp_dir().join(format!("rackmedic-efi-unread-{}", std::process::id()));
        let place = |name: &str| folder.join(format!("{name}-{GLOBAL}"));
        let partition = Partition { number: 1, from_byte: 1 << 20, bytes: 8 << 20, kind: [0; 16], id: [9; 16] };
        let option = load_option(&partition, 512, "\\EFI\\BOOT\\BOOTX64.EFI");
        let with = |value: &[u8]| [&7_u32.to_le_bytes(), value].concat();
        let all = [
            ("Boot0000", with(b"\x01\0\0\0\0\0P\0X\0E\0\0\0")),
            ("Boot0003", with(&load_option(&partition, 512, "\\old"))),
            ("BootOrder", with(&[0, 0, 3, 0])),
        ];
        // The second way is a file that ends within its attributes.
        for (broken, cut) in all.iter().flat_map(|(name, _)| [(*name, false), (*name, true)]) {
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir_all(&folder).unwrap();
            for (name, bytes) in &all {
                match (*name == broken, cut) {
                    (false, _) => fs::write(place(name), bytes).unwrap(),
                    (true, true) => fs::write(place(name), [7_u8, 0]).unwrap(),
                    // A folder can be opened, and no byte be read of it.
                    (true, false) => fs::create_dir(place(name)).unwrap(),
                }
            }
            let content = || {
                let mut content: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
                content.sort();
                content.into_iter().map(|path| (fs::read(&path).ok(), path)).collect::<Vec<_>>()
            };
            let before = content();
            let done = set(&folder, &option);
            if broken == "BootOrder" {
                let error = done.unwrap_err();
                assert!(error.to_string().contains(broken), "{error}");
                assert_eq!(content(), before);
            } else {
                // An entry of somebody else's is left, and its place in the order too; of ours there are two then.
                let (number, order) =
                    if broken == "Boot0000" { (3, [3, 0, 0, 0].to_vec()) } else { (1, [1, 0, 0, 0, 3, 0].to_vec()) };
                assert_eq!(done.unwrap(), number);
                assert_eq!(fs::read(place("BootOrder")).unwrap(), with(&order));
                assert!(place(broken).exists());
            }
        }
        // Without an order, which no firmware has to have, ours is the first of one.
        fs::remove_dir_all(&folder).unwrap();
        fs::create_dir_all(&folder).unwrap();
        assert_eq!(set(&folder, &option).unwrap(), 0);
        assert_eq!(fs::read(place("BootOrder")).unwrap(), with(&[0, 0]));
        fs::remove_dir_all(&folder).unwrap();
    }
}
