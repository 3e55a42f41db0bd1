//! A file system of ext4 from a folder, without mounting anything, the same to the byte each time.

use super::{BuildError, Identity, Recipe, io};
use crate::image::build::packages;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

const MIB: u64 = 1 << 20;

/// Makes it from `root`.
pub(super) fn make(recipe: &Recipe, root: &Path, work: &Path, identity: &Identity) -> Result<PathBuf, BuildError> {
    let place = work.join("root.ext4");
    let (from, to) = (root.display().to_string(), place.display().to_string());
    let told = packages::run("du", &["--summarize", "--block-size=1M", &from], work)?;
    let used: u64 = told.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0);
    // What the file system keeps for itself: inodes, bitmaps, the journal, and the rest of each file's last block.
    let size = (used + used / 8 + 96 + recipe.free_mib).next_multiple_of(8);
    let seed = format!("hash_seed={},root_owner=0:0", identity.uuid("hash"));
    // Checksums of metadata would have to be computed anew for every date that is set below; the installer reads every
    // byte back, and `tune2fs -O metadata_csum` switches them on for who wants them.
    let features = "^metadata_csum,^64bit,^orphan_file";
    let arguments = ["-q", "-F", "-t", "ext4", "-m", "1", "-L", "root", "-O", features, "-E", &seed];
    let uuid = identity.uuid("root");
    let more = ["-U", &uuid, "-d", &from, &to, &format!("{size}M")];
    std::fs::File::create(&place).and_then(|file| file.set_len(size * MIB)).map_err(io(&place))?;
    let epoch = recipe.epoch_s.to_string();
    // -d copies the times of reading and of change of this machine's files; those of making, and that of the last writing, are
    // the tools' own clock, which this variable sets.
    let clock = [("E2FSPROGS_FAKE_TIME", epoch.as_str())];
    packages::run_with(&clock, "mke2fs", &[&arguments[..], &more].concat(), work)?;
    let script = work.join("dates");
    let shown = packages::run("dumpe2fs", &[&to], work)?;
    std::fs::write(&script, dates(&shown, recipe.epoch_s)).map_err(io(&script))?;
    packages::run_with(&clock, "debugfs", &["-w", "-f", &script.display().to_string(), &to], work)?;
    // A file system that is not whole never goes further.
    packages::run("e2fsck", &["-f", "-n", &to], work)?;
    Ok(place)
}

/// Orders for debugfs that set the dates of every inode in use, read from what dumpe2fs shows.
fn dates(shown: &str, epoch_s: u64) -> String {
    let count = |key: &str| shown.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u64>().ok());
    let all = count("Inode count:").unwrap_or(0);
    let free: Vec<(u64, u64)> = shown
        .lines()
        // Indented: without, it is the count of the whole file system.
        .filter_map(|line| line.strip_prefix("  Free inodes:"))
        .flat_map(|ranges| ranges.split(','))
        .filter_map(|range| {
            let (from, to) = range.split_once('-').unwrap_or((range, range));
            Some((from.trim().parse().ok()?, to.trim().parse().ok()?))
        })
        .collect();
    let mut script = String::new();
    for inode in (1..=all).filter(|inode| !free.iter().any(|(from, to)| (from..=to).contains(&inode))) {
        for field in ["atime", "ctime"] {
            // Writing to a String cannot fail.
            let _ = writeln!(script, "set_inode_field <{inode}> {field} @{epoch_s}");
        }
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inodes_in_use_are_dated_and_free_ones_are_not() {
        let shown = "Inode count:              8\nFree inodes:              3\n  Free inodes: 4, 7-8\n";
        let script = dates(shown, 7);
        let dated: Vec<&str> = script.lines().filter(|line| line.contains("atime")).collect();
        assert_eq!(dated, ["1", "2", "3", "5", "6"].map(|inode| format!("set_inode_field <{inode}> atime @7")));
    }
}
