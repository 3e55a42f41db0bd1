//! Shared pieces of the black-box tests: the workspace as cargo and the file system show it.

use std::path::{Path, PathBuf};

/// The root of the checkout.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// All files of the checkout with this ending, build output and version control left out; relative to the root.
#[must_use]
pub fn files(ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            let name = entry.file_name();
            let hidden = ["target", ".git", "node_modules"].iter().any(|skip| name == *skip);
            if path.is_dir() && !hidden {
                folders.push(path);
            } else if name.to_string_lossy().ends_with(ending) {
                found.push(path.strip_prefix(root()).map_or(path.clone(), Path::to_path_buf));
            }
        }
    }
    found.sort();
    found
}
