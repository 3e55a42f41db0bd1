//! Packages of the distribution: fetched and verified by apt, unpacked into a folder, never installed.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Why a package is not here.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// A program of Debian is not here, or could not be started.
    #[error(
        "{program} could not be started: {source}. Images are made on Debian 12; a boot set needs the packages apt, dpkg, kmod, dosfstools and mtools, a node image mmdebstrap, e2fsprogs and fdisk besides"
    )]
    Program {
        /// Which.
        program: String,
        /// What the kernel says.
        source: io::Error,
    },
    /// It ended badly.
    #[error("{program} failed: {said}")]
    Failed {
        /// What was run.
        program: String,
        /// Its last words.
        said: String,
    },
    /// A package has not what was looked for.
    #[error("the package {package} has no {what}: is it of another release than this was made for?")]
    Lacks {
        /// Which package.
        package: String,
        /// What it lacks.
        what: String,
    },
    /// The file system.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
}

/// A package that lies unpacked.
#[derive(Clone, Debug)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Where its files are.
    pub folder: PathBuf,
}

/// Runs a program to its end; its standard output.
///
/// # Errors
/// When it cannot be started or ends badly.
pub fn run(program: &str, arguments: &[&str], folder: &Path) -> Result<String, PackageError> {
    run_with(&[], program, arguments, folder)
}

/// The same, with variables of its environment.
///
/// # Errors
/// When it cannot be started or ends badly.
pub fn run_with(
    environment: &[(&str, &str)],
    program: &str,
    arguments: &[&str],
    folder: &Path,
) -> Result<String, PackageError> {
    let mut command = Command::new(program);
    command.args(arguments).envs(environment.iter().copied()).current_dir(folder).stdin(Stdio::null());
    let output = command.output();
    let output = output.map_err(|source| PackageError::Program { program: program.to_owned(), source })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last: Vec<&str> = said.lines().rev().take(3).collect();
        let said = last.into_iter().rev().collect::<Vec<_>>().join("; ");
        return Err(PackageError::Failed { program: format!("{program} {}", arguments.join(" ")), said });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Fetches a package, or takes it from an earlier time, and unpacks it.
///
/// # Errors
/// When it cannot be had.
pub fn fetch(name: &str, work: &Path) -> Result<Package, PackageError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| PackageError::Io { path, source }
    };
    let downloads = work.join("packages");
    std::fs::create_dir_all(&downloads).map_err(io(&downloads))?;
    let shown = run("apt-cache", &["show", "--no-all-versions", name], work)?;
    let version = field(&shown, "Version").ok_or_else(|| PackageError::Lacks {
        package: name.to_owned(),
        what: "version in the lists of apt".to_owned(),
    })?;
    run("apt-get", &["download", "-q", &format!("{name}={version}")], &downloads)?;
    let begins = format!("{name}_{}_", version.replace(':', "%3a"));
    let entries = std::fs::read_dir(&downloads).map_err(io(&downloads))?.flatten();
    let file = entries
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&begins)));
    let file = file.ok_or_else(|| PackageError::Lacks { package: name.to_owned(), what: "file".to_owned() })?;
    let folder = work.join("unpacked").join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).map_err(io(&folder))?;
    }
    std::fs::create_dir_all(&folder).map_err(io(&folder))?;
    run("dpkg-deb", &["-x", &file.to_string_lossy(), &folder.to_string_lossy()], work)?;
    Ok(Package { name: name.to_owned(), version, folder })
}

/// The first package that a meta package depends on, such as the kernel behind `linux-image-amd64`.
///
/// # Errors
/// When apt does not know it.
pub fn behind(name: &str, work: &Path) -> Result<String, PackageError> {
    let shown = run("apt-cache", &["show", "--no-all-versions", name], work)?;
    let depends = field(&shown, "Depends").unwrap_or_default();
    let first = depends.split(',').map(str::trim).find(|one| one.starts_with("linux-image-"));
    Ok(first.and_then(|first| first.split_whitespace().next()).unwrap_or(name).to_owned())
}

fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned))
}

impl Package {
    /// Reads a file of the package.
    ///
    /// # Errors
    /// When it is not there.
    pub fn read(&self, path: &str) -> Result<Vec<u8>, PackageError> {
        std::fs::read(self.folder.join(path)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => PackageError::Lacks { package: self.name.clone(), what: path.to_owned() },
            _ => PackageError::Io { path: self.folder.join(path), source: error },
        })
    }

    /// As it stands in a boot set.
    #[must_use]
    pub fn source(&self) -> String {
        format!("{} {}", self.name, self.version)
    }
}
