//! An ISO 9660 volume with El Torito boot images, written from files that lie in memory: what a virtual drive is shown.
//!
//! Sources: ECMA-119 (ISO 9660), 4th edition, level 1 of interchange; "El Torito" Bootable CD-ROM Format Specification 1.0
//! (Phoenix, IBM 1995); UEFI 2.10 section 13.3.2.1 (platform 0xEF); the boot information table of isolinux and mkisofs(8).
//! No crate of the registry writes bootable volumes; `cdfs` and `iso9660` only read.

use bytes::Bytes;
use std::collections::BTreeSet;
use std::io::{self, Write};

/// Bytes of a logical sector (ECMA-119 6.1.2).
pub const SECTOR_BYTES: usize = 2048;
/// Sectors before the first descriptor, for whoever boots a disk: zeros here (ECMA-119 6.2.1).
const SYSTEM_AREA: u32 = 16;
/// The catalog's place: behind the three descriptors and the two path tables.
const PATH_TABLE_L: u32 = SYSTEM_AREA + 3;
const PATH_TABLE_M: u32 = PATH_TABLE_L + 1;
const CATALOG: u32 = PATH_TABLE_M + 1;
const FIRST_FOLDER: u32 = CATALOG + 1;
/// A folder's own record, and its parent's, are named by one byte (ECMA-119 7.6.2).
const SELF: &[u8] = &[0];
const PARENT: &[u8] = &[1];
/// BIOS loads so many 512-byte sectors of the boot image, which loads the rest of itself (isolinux, mkisofs' `-boot-load-size 4`).
const LOAD_SECTORS: u16 = 4;

/// One file of a volume.
#[derive(Clone, Debug)]
pub struct VolumeFile {
    /// Its place: parts of 1 to 8 characters, the last with a dot and an extension of 1 to 3, `A-Z 0-9 _`, joined by `/`
    /// (ECMA-119 10.1).
    pub path: &'static str,
    /// Its bytes.
    pub content: Bytes,
}

/// What a volume is made of.
#[derive(Clone, Debug)]
pub struct Volume {
    /// Its name: up to 32 characters of `A-Z 0-9 _`.
    pub name: String,
    /// When it was made, seconds since 1970. The same files and the same moment make the same bytes.
    pub made_unix_s: u64,
    /// The files.
    pub files: Vec<VolumeFile>,
    /// The path of what a BIOS starts, without emulation. It is told its own place by a boot information table.
    pub bios: &'static str,
    /// The path of the file system (FAT) with the loader that UEFI starts.
    pub uefi: &'static str,
}

/// Why there is no volume.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// What it was to be made of cannot be written in this form.
    #[error("the image for the virtual drive cannot be made: {0}; build the boot set anew with this release")]
    Content(String),
    /// The file system says no.
    #[error("the image for the virtual drive cannot be written: {0}; nothing is shown to the host")]
    Io(#[from] io::Error),
}

/// A folder and where it lies.
struct Folder {
    /// `` for the root.
    path: String,
    /// The number of its parent, counted from 0.
    parent: usize,
    at: u32,
}

/// Where everything lies.
struct Plan<'a> {
    volume: &'a Volume,
    folders: Vec<Folder>,
    /// By the order of `volume.files`.
    at: Vec<u32>,
    sectors: u32,
}

impl Volume {
    /// Writes the volume; how many bytes.
    ///
    /// # Errors
    /// When a name or a size does not fit the format, or the bytes are not taken.
    pub fn write(&self, out: &mut impl Write) -> Result<u64, VolumeError> {
        let plan = self.plan()?;
        let mut head = vec![0; sectors(SYSTEM_AREA)];
        head.extend(plan.primary()?);
        head.extend(boot_record());
        head.extend(terminator());
        head.extend(plan.path_table(u32::to_le_bytes, u16::to_le_bytes)?);
        head.extend(plan.path_table(u32::to_be_bytes, u16::to_be_bytes)?);
        head.extend(plan.catalog()?);
        for number in 0..plan.folders.len() {
            head.extend(plan.folder(number)?);
        }
        out.write_all(&head)?;
        for (file, at) in self.files.iter().zip(&plan.at) {
            let padding = padding(file.content.len());
            if file.path == self.bios {
                out.write_all(&with_boot_information(&file.content, *at)?)?;
            } else {
                out.write_all(&file.content)?;
            }
            out.write_all(&vec![0; padding])?;
        }
        out.flush()?;
        Ok(sectors(plan.sectors) as u64)
    }

    fn plan(&self) -> Result<Plan<'_>, VolumeError> {
        let d = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        if self.name.is_empty() || self.name.len() > 32 || !self.name.chars().all(d) {
            return Err(VolumeError::Content(format!("'{}' is no name of a volume", self.name.escape_default())));
        }
        let mut paths = BTreeSet::new();
        for file in &self.files {
            let (folder, name) = file.path.rsplit_once('/').unwrap_or(("", file.path));
            let good = name.split_once('.').is_some_and(|(stem, extension)| {
                (1..=8).contains(&stem.len())
                    && (1..=3).contains(&extension.len())
                    && (stem.chars().chain(extension.chars())).all(d)
            });
            let good_folder = |part: &str| (1..=8).contains(&part.len()) && part.chars().all(d);
            if !good || !(folder.is_empty() || folder.split('/').all(good_folder)) {
                return Err(VolumeError::Content(format!("{} is no path of ISO 9660", file.path)));
            }
            let mut whole = String::new();
            for part in folder.split('/').filter(|part| !part.is_empty()) {
                if !whole.is_empty() {
                    whole.push('/');
                }
                whole.push_str(part);
                // By depth first: the order of the path table (ECMA-119 6.9.1).
                paths.insert((whole.matches('/').count(), whole.clone()));
            }
        }
        let mut folders = vec![Folder { path: String::new(), parent: 0, at: FIRST_FOLDER }];
        let mut at = FIRST_FOLDER + 1;
        for (_, path) in paths {
            let above = path.rsplit_once('/').map_or("", |(above, _)| above);
            let parent = folders.iter().position(|folder| folder.path == above).unwrap_or(0);
            folders.push(Folder { path, parent, at });
            at += 1;
        }
        let mut places = Vec::new();
        for file in &self.files {
            places.push(at);
            let length = u32::try_from(file.content.len().div_ceil(SECTOR_BYTES));
            let end = length.ok().and_then(|length| at.checked_add(length)).filter(|end| *end < u32::MAX / 2048);
            at = end.ok_or_else(|| VolumeError::Content("it would be larger than 4 GiB".to_owned()))?;
        }
        Ok(Plan { volume: self, folders, at: places, sectors: at })
    }
}

fn sectors(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(SECTOR_BYTES)
}

fn padding(length: usize) -> usize {
    length.next_multiple_of(SECTOR_BYTES).saturating_sub(length)
}

/// One sector with these bytes at its beginning.
fn sector(mut bytes: Vec<u8>, what: &str) -> Result<Vec<u8>, VolumeError> {
    if bytes.len() > SECTOR_BYTES {
        return Err(VolumeError::Content(format!("{what} does not fit into a sector")));
    }
    bytes.resize(SECTOR_BYTES, 0);
    Ok(bytes)
}

/// Both byte orders, one behind the other (ECMA-119 7.3.3, 7.2.3).
fn both32(value: u32) -> [u8; 8] {
    let ([a, b, c, d], [e, f, g, h]) = (value.to_le_bytes(), value.to_be_bytes());
    [a, b, c, d, e, f, g, h]
}

fn both16(value: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (value.to_le_bytes(), value.to_be_bytes());
    [a, b, c, d]
}

fn filled(text: &str, length: usize) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(length, b' ');
    bytes
}

impl Plan<'_> {
    /// The primary volume descriptor (ECMA-119 8.4).
    fn primary(&self) -> Result<Vec<u8>, VolumeError> {
        let table = u32::try_from(self.path_table_entries(u32::to_le_bytes, u16::to_le_bytes)?.len());
        let table = table.map_err(|_| VolumeError::Content("its path table is too long".to_owned()))?;
        let mut d = vec![1];
        d.extend(b"CD001\x01\0");
        d.extend(filled("", 32));
        d.extend(filled(&self.volume.name, 32));
        d.extend([0; 8]);
        d.extend(both32(self.sectors));
        d.extend([0; 32]);
        d.extend([both16(1), both16(1), both16(2048)].concat());
        d.extend(both32(table));
        d.extend(PATH_TABLE_L.to_le_bytes());
        d.extend([0; 4]);
        d.extend(PATH_TABLE_M.to_be_bytes());
        d.extend([0; 4]);
        d.extend(self.record(SELF, FIRST_FOLDER, 2048, true));
        d.extend(filled("", 128));
        d.extend(filled("RACKMEDIC", 128));
        d.extend(filled("", 128));
        d.extend(filled("RACKMEDIC", 128));
        d.extend(filled("", 37 * 3));
        let made = self.date().map_or_else(
            || "0".repeat(16),
            |d| {
                let (date, time) = (d.date(), d.time());
                format!(
                    "{:04}{:02}{:02}{:02}{:02}{:02}00",
                    date.year(),
                    date.month(),
                    date.day(),
                    time.hour(),
                    time.minute(),
                    time.second()
                )
            },
        );
        for date in [made.as_str(), made.as_str(), "0000000000000000", "0000000000000000"] {
            d.extend(date.as_bytes());
            d.push(0);
        }
        d.extend([1, 0]);
        sector(d, "the volume descriptor")
    }

    fn date(&self) -> Option<jiff::civil::DateTime> {
        let seconds = i64::try_from(self.volume.made_unix_s).ok()?;
        Some(jiff::Timestamp::from_second(seconds).ok()?.to_zoned(jiff::tz::TimeZone::UTC).datetime())
    }

    /// A directory record (ECMA-119 9.1).
    fn record(&self, name: &[u8], at: u32, length: u32, folder: bool) -> Vec<u8> {
        let mut record = vec![0, 0];
        record.extend(both32(at));
        record.extend(both32(length));
        let date = self.date().map_or([0; 6], |d| {
            let parts = [d.year().saturating_sub(1900), d.month().into(), d.day().into()];
            let time = [d.hour().into(), d.minute().into(), d.second().into()];
            let mut all = parts.into_iter().chain(time).map(|part: i16| u8::try_from(part).unwrap_or(0));
            [(); 6].map(|()| all.next().unwrap_or(0))
        });
        record.extend(date);
        record.extend([0, if folder { 2 } else { 0 }, 0, 0]);
        record.extend(both16(1));
        record.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        record.extend(name);
        if record.len() % 2 == 1 {
            record.push(0);
        }
        if let Ok(length) = u8::try_from(record.len())
            && let Some(first) = record.first_mut()
        {
            *first = length;
        }
        record
    }

    /// The records of a folder: itself, its parent, and what is in it by name (ECMA-119 9.3).
    fn folder(&self, number: usize) -> Result<Vec<u8>, VolumeError> {
        let lost = || VolumeError::Content("a folder has no parent".to_owned());
        let folder = self.folders.get(number).ok_or_else(lost)?;
        let parent = self.folders.get(folder.parent).ok_or_else(lost)?;
        let mut inside = Vec::new();
        let name_in = |path: &str| -> Option<String> {
            let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
            (above == folder.path && !name.is_empty()).then(|| name.to_owned())
        };
        for other in &self.folders {
            if let Some(name) = name_in(&other.path) {
                inside.push((name.clone().into_bytes(), self.record(name.as_bytes(), other.at, 2048, true)));
            }
        }
        for (file, at) in self.volume.files.iter().zip(&self.at) {
            if let Some(name) = name_in(file.path) {
                let length = u32::try_from(file.content.len());
                let length = length.map_err(|_| VolumeError::Content(format!("{} is too large", file.path)))?;
                let name = format!("{name};1").into_bytes();
                inside.push((name.clone(), self.record(&name, *at, length, false)));
            }
        }
        inside.sort();
        if let Some([(name, _), _]) = inside.array_windows().find(|[one, other]| one.0 == other.0) {
            return Err(VolumeError::Content(format!("it has {} twice", String::from_utf8_lossy(name))));
        }
        let mut records = self.record(SELF, folder.at, 2048, true);
        records.extend(self.record(PARENT, parent.at, 2048, true));
        inside.into_iter().for_each(|(_, record)| records.extend(record));
        sector(records, "a folder")
    }

    /// The path table (ECMA-119 9.4).
    fn path_table_entries(&self, long: fn(u32) -> [u8; 4], short: fn(u16) -> [u8; 2]) -> Result<Vec<u8>, VolumeError> {
        let mut table = Vec::new();
        for folder in &self.folders {
            let name = folder.path.rsplit('/').next().unwrap_or_default().as_bytes();
            let name = if name.is_empty() { SELF } else { name };
            let parent = u16::try_from(folder.parent.saturating_add(1));
            let parent = parent.map_err(|_| VolumeError::Content("it has too many folders".to_owned()))?;
            table.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
            table.push(0);
            table.extend(long(folder.at));
            table.extend(short(parent));
            table.extend(name);
            if name.len() % 2 == 1 {
                table.push(0);
            }
        }
        Ok(table)
    }

    fn path_table(&self, long: fn(u32) -> [u8; 4], short: fn(u16) -> [u8; 2]) -> Result<Vec<u8>, VolumeError> {
        sector(self.path_table_entries(long, short)?, "the path table")
    }

    fn place(&self, path: &str) -> Result<(u32, usize), VolumeError> {
        let found = self.volume.files.iter().zip(&self.at).find(|(file, _)| file.path == path);
        let found = found.map(|(file, at)| (*at, file.content.len()));
        found.ok_or_else(|| VolumeError::Content(format!("{path} is to be started and is not there")))
    }

    /// The boot catalog (El Torito section 2): one entry for a BIOS, one section with one entry for UEFI.
    fn catalog(&self) -> Result<Vec<u8>, VolumeError> {
        let (bios, _) = self.place(self.volume.bios)?;
        let (uefi, uefi_bytes) = self.place(self.volume.uefi)?;
        let uefi_sectors = u16::try_from(uefi_bytes.div_ceil(512));
        let uefi_sectors = uefi_sectors.map_err(|_| {
            VolumeError::Content(format!("{} has {uefi_bytes} bytes, a boot image at most 32 MiB", self.volume.uefi))
        })?;
        let mut validation = vec![1, 0, 0, 0];
        validation.extend(b"RACKMEDIC");
        validation.resize(28, 0);
        validation.extend([0, 0, 0x55, 0xaa]);
        // All its words together are zero.
        let sum = validation.chunks_exact(2).fold(0_u16, |sum, pair| match pair {
            [low, high] => sum.wrapping_add(u16::from_le_bytes([*low, *high])),
            _ => sum,
        });
        if let Some(place) = validation.get_mut(28..30) {
            place.copy_from_slice(&0_u16.wrapping_sub(sum).to_le_bytes());
        }
        let entry = |count: u16, at: u32| {
            let mut entry = vec![0x88, 0, 0, 0, 0, 0];
            entry.extend(count.to_le_bytes());
            entry.extend(at.to_le_bytes());
            entry.resize(32, 0);
            entry
        };
        let mut catalog = validation;
        catalog.extend(entry(LOAD_SECTORS, bios));
        // The last section (0x91), of platform 0xEF, with one entry.
        let mut section = vec![0x91, 0xef, 1, 0];
        section.resize(32, 0);
        catalog.extend(section);
        catalog.extend(entry(uefi_sectors, uefi));
        sector(catalog, "the boot catalog")
    }
}

/// El Torito's boot record volume descriptor (section 2.0).
fn boot_record() -> Vec<u8> {
    let mut d = vec![0];
    d.extend(b"CD001\x01EL TORITO SPECIFICATION");
    d.resize(0x47, 0);
    d.extend(CATALOG.to_le_bytes());
    d.resize(SECTOR_BYTES, 0);
    d
}

/// ECMA-119 8.3.
fn terminator() -> Vec<u8> {
    let mut d = vec![255];
    d.extend(b"CD001\x01");
    d.resize(SECTOR_BYTES, 0);
    d
}

/// The boot image with its boot information table at byte 8: where the volume's descriptor and the image itself lie, its
/// length, and the sum of its words from byte 64 on (mkisofs(8), "EL TORITO BOOT INFORMATION TABLE").
fn with_boot_information(image: &[u8], at: u32) -> Result<Vec<u8>, VolumeError> {
    let length = u32::try_from(image.len()).ok().filter(|length| *length >= 64);
    let length = length.ok_or_else(|| VolumeError::Content("its BIOS boot image is no boot image".to_owned()))?;
    let mut image = image.to_vec();
    let sum = image.get(64..).unwrap_or_default().chunks(4).fold(0_u32, |sum, chunk| {
        let mut word = [0; 4];
        word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
        sum.wrapping_add(u32::from_le_bytes(word))
    });
    let table: Vec<u8> = [SYSTEM_AREA, at, length, sum].into_iter().flat_map(u32::to_le_bytes).chain([0; 40]).collect();
    if let Some(place) = image.get_mut(8..64) {
        place.copy_from_slice(&table);
    }
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    fn volume() -> Volume {
        let file = |path, content: &[u8]| VolumeFile { path, content: Bytes::copy_from_slice(content) };
        Volume {
            name: "RACKMEDIC".to_owned(),
            made_unix_s: 1_800_000_000,
            files: vec![
                file("ISOLINUX/ISOLINUX.BIN", &[0x90; 5000]),
                file("ISOLINUX/ISOLINUX.CFG", b"DEFAULT installer\n"),
                file("BOOT/GRUB/GRUB.CFG", b"set timeout=0\n"),
                file("EFI.IMG", &[7; 4096]),
                file("KERNEL.IMG", &[1; 2048]),
                file("INITRD.IMG", &[2; 2049]),
                file("EMPTY.IMG", b""),
            ],
            bios: "ISOLINUX/ISOLINUX.BIN",
            uefi: "EFI.IMG",
        }
    }

    fn written(volume: &Volume) -> Vec<u8> {
        let mut bytes = Vec::new();
        let length = volume.write(&mut bytes).unwrap();
        assert_eq!(length, bytes.len() as u64);
        bytes
    }

    fn on_disk(name: &str) -> PathBuf {
        let place = std::env::temp_dir().join(format!("rackmedic-iso-{}-{name}.iso", std::process::id()));
        std::fs::write(&place, written(&volume())).unwrap();
        place
    }

    /// Stands for the volume among the arguments of a program.
    const PLACE: &str = "@";

    /// What a program of others says of the volume; `None`: it is not on this machine, which is said.
    #[allow(clippy::print_stderr, reason = "a test that was not run says so")]
    fn said(program: &str, arguments: &[&str], place: &Path) -> Option<Vec<u8>> {
        let place = place.display().to_string();
        let arguments = arguments.iter().map(|argument| if *argument == PLACE { place.as_str() } else { argument });
        let output = match Command::new(program).args(arguments).output() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                eprintln!("not run: there is no {program} here (tests/peers/install-boot)");
                return None;
            }
            output => output.unwrap(),
        };
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program}: {stderr}");
        Some([output.stdout, output.stderr].concat())
    }

    #[test]
    fn libarchive_reads_every_byte_of_every_file() {
        let place = on_disk("libarchive");
        for file in volume().files.iter().filter(|file| !file.path.ends_with(".BIN")) {
            let shown = Command::new("bsdtar").args(["-xOf"]).arg(&place).arg(file.path).output();
            let Ok(shown) = shown else { return drop(said("bsdtar", &["-tf", PLACE], &place)) };
            assert!(shown.status.success(), "{}: {}", file.path, String::from_utf8_lossy(&shown.stderr));
            assert_eq!(shown.stdout, file.content, "{}", file.path);
        }
        std::fs::remove_file(place).unwrap();
    }

    #[test]
    fn genisoimages_reader_and_xorriso_find_both_boot_images() {
        let place = on_disk("xorriso");
        if let Some(listed) = said("isoinfo", &["-l", "-i", PLACE], &place) {
            let listed = String::from_utf8_lossy(&listed).into_owned();
            for name in ["ISOLINUX.CFG;1", "GRUB.CFG;1", "EFI.IMG;1", "KERNEL.IMG;1"] {
                assert!(listed.contains(name), "{listed}");
            }
        }
        if let Some(report) = said("xorriso", &["-indev", PLACE, "-report_el_torito", "plain"], &place) {
            let report = String::from_utf8_lossy(&report).into_owned();
            for words in ["El Torito boot img :   1  BIOS  y   none", "El Torito boot img :   2  UEFI  y   none"] {
                assert!(report.contains(words), "{report}");
            }
            assert!(report.contains("boot-info-table"), "{report}");
        }
        std::fs::remove_file(place).unwrap();
    }

    #[test]
    fn the_same_files_make_the_same_bytes() {
        assert_eq!(written(&volume()), written(&volume()));
    }

    #[test]
    fn what_the_format_cannot_hold_is_refused() {
        let with = |change: fn(&mut Volume)| {
            let mut volume = volume();
            change(&mut volume);
            volume.write(&mut Vec::new()).unwrap_err().to_string()
        };
        assert!(with(|v| v.files[0].path = "isolinux/isolinux.bin").contains("no path"));
        assert!(with(|v| v.files[4].path = "../KERNEL.IMG").contains("no path"));
        assert!(with(|v| v.files[4].path = "INITRD.IMG").contains("twice"));
        assert!(with(|v| v.name = "a b".to_owned()).contains("no name"));
        assert!(with(|v| v.uefi = "NONE.IMG").contains("is not there"));
        assert!(with(|v| v.files[3].content = vec![0; 33 << 20].into()).contains("at most 32 MiB"));
        assert!(with(|v| v.files[0].content = Bytes::from_static(b"short")).contains("no boot image"));
    }
}
