//! The key that signs images and boot sets, in a file that only its owner may read.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::SigningKey;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const PREFIX: &str = "rackmedic-signing-key-1:";

/// Why a key is not used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read or written.
    #[error("the signing key {path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the file system says.
        source: io::Error,
    },
    /// The file is there.
    #[error("{0} is there already: a key is never overwritten, for what it signed could not be extended any more")]
    Exists(PathBuf),
    /// Others may read it.
    #[error("{path} may be read by others (mode {mode:o}): whoever has it can have any disk written. Run `chmod 600`")]
    Open {
        /// Which file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is no key.
    #[error("{0} is no signing key: make one with `rackmedic image key`")]
    NoKey(PathBuf),
    /// No randomness.
    #[error("the kernel gives no random numbers, so no key can be made: {0}")]
    Random(getrandom::Error),
}

/// Makes a key and writes it to a new file.
///
/// # Errors
/// When the file is there or cannot be written.
pub fn create(path: &Path) -> Result<SigningKey, KeyError> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut()).map_err(KeyError::Random)?;
    let text = Zeroizing::new(format!("{PREFIX}{}\n", BASE64.encode(seed.as_ref())));
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => KeyError::Exists(path.to_owned()),
        _ => KeyError::Io { path: path.to_owned(), source },
    })?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.map_err(|source| KeyError::Io { path: path.to_owned(), source })?;
    Ok(SigningKey::from_bytes(&seed))
}

/// Reads a key.
///
/// # Errors
/// When it cannot be read, others can, or it is none.
pub fn read(path: &Path) -> Result<SigningKey, KeyError> {
    let failed = |source| KeyError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Open { path: path.to_owned(), mode });
    }
    let mut text = Zeroizing::new(String::new());
    file.take(200).read_to_string(&mut text).map_err(failed)?;
    let none = || KeyError::NoKey(path.to_owned());
    let seed = text.trim().strip_prefix(PREFIX).ok_or_else(none)?;
    let seed = Zeroizing::new(BASE64.decode(seed).map_err(|_| none())?);
    Ok(SigningKey::from_bytes(seed.as_slice().try_into().map_err(|_| none())?))
}
