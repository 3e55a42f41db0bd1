//! Secrets at rest: BMC passwords and keys, sealed with XChaCha20-Poly1305. Row and column are associated data, so a
//! sealed value moved to another row does not open. The data key is wrapped by a key that lies outside the database.

use super::JournalError;
use super::lock::{hex, io, random};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Longest secret in bytes.
pub const SECRET_MAX: usize = 4096;
const NONCE: usize = 24;

/// A secret in memory: wiped when dropped; no Debug, no Display, no Serialize.
#[derive(Zeroize, ZeroizeOnDrop)]
#[allow(missing_debug_implementations)] // A secret that can be printed will be.
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes the bytes of a secret.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Secret {
        Secret(bytes)
    }

    /// The bytes, for the one place that needs them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

/// The key that wraps the data key. From a key file of mode 0600, or a credential of systemd.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct OuterKey([u8; 32]);

impl OuterKey {
    /// Reads a key file, or makes it if it is not there.
    ///
    /// # Errors
    /// It cannot be read, others may read it, or it is not 64 hexadecimal digits.
    pub fn file(path: &Path) -> Result<OuterKey, JournalError> {
        // "Not allowed to look" is not "not there": a second key would open nothing that the first one sealed.
        if !path.try_exists().map_err(|e| JournalError::Key(format!("{}: {e}", path.display())))? {
            let mut key = random::<32>()?;
            let mut text = hex(&key);
            let mut file =
                OpenOptions::new().create_new(true).write(true).mode(0o600).open(path).map_err(|e| io(&e))?;
            let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|e| io(&e));
            text.zeroize();
            written?;
            let made = OuterKey(key);
            key.zeroize();
            return Ok(made);
        }
        let file = File::open(path).map_err(|e| JournalError::Key(format!("{}: {e}", path.display())))?;
        let mode = file.metadata().map_err(|e| io(&e))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(JournalError::Key(format!(
                "others may read {} (mode {:o}): set it to 0600",
                path.display(),
                mode & 0o777
            )));
        }
        let mut text = String::new();
        file.take(256).read_to_string(&mut text).map_err(|e| JournalError::Key(e.to_string()))?;
        let key = OuterKey::parse(text.trim())
            .ok_or_else(|| JournalError::Key(format!("{} is not 64 hexadecimal digits", path.display())));
        text.zeroize();
        key
    }

    /// The credential `rackmedic-key` of systemd, if the service has one.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn credential() -> Result<Option<OuterKey>, JournalError> {
        let Some(directory) = std::env::var_os("CREDENTIALS_DIRECTORY") else { return Ok(None) };
        let path = Path::new(&directory).join("rackmedic-key");
        if !path.try_exists().map_err(|e| JournalError::Key(format!("{}: {e}", path.display())))? {
            return Ok(None);
        }
        let mut text = std::fs::read_to_string(&path).map_err(|e| JournalError::Key(e.to_string()))?;
        let key = OuterKey::parse(text.trim());
        text.zeroize();
        key.map(Some).ok_or_else(|| JournalError::Key("the credential is not 64 hexadecimal digits".to_owned()))
    }

    fn parse(text: &str) -> Option<OuterKey> {
        let digits = text.as_bytes();
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let mut key = [0u8; 32];
        for (byte, pair) in key.iter_mut().zip(digits.chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(OuterKey(key))
    }

    /// The seed of the key that signs audit checkpoints: derived, so that one key file guards both.
    pub(super) fn audit_seed(&self) -> [u8; 32] {
        Sha256::new().chain_update(b"rackmedic audit checkpoint v1").chain_update(self.0).finalize().into()
    }
}

/// The opened data key.
pub struct Sealer(XChaCha20Poly1305);

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer")
    }
}

impl std::fmt::Debug for OuterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OuterKey")
    }
}

fn cipher(key: &[u8; 32]) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(key.into())
}

fn seal(cipher: &XChaCha20Poly1305, plain: &[u8], about: &[u8]) -> Result<Vec<u8>, JournalError> {
    let nonce = random::<NONCE>()?;
    let sealed = cipher
        .encrypt(&XNonce::from(nonce), Payload { msg: plain, aad: about })
        .map_err(|_| JournalError::Key("sealing failed".to_owned()))?;
    Ok(nonce.iter().copied().chain(sealed).collect())
}

fn unseal(cipher: &XChaCha20Poly1305, sealed: &[u8], about: &[u8]) -> Result<Vec<u8>, JournalError> {
    let wrong = || JournalError::Key("a sealed value does not open: wrong key, or it was changed or moved".to_owned());
    let (nonce, body) = sealed.split_at_checked(NONCE).ok_or_else(wrong)?;
    let nonce: [u8; NONCE] = nonce.try_into().map_err(|_| wrong())?;
    cipher.decrypt(&XNonce::from(nonce), Payload { msg: body, aad: about }).map_err(|_| wrong())
}

const WRAPPED: &[u8] = b"rackmedic data key";

impl Sealer {
    /// Makes a data key; gives it open, and wrapped for the database.
    ///
    /// # Errors
    /// No randomness.
    pub fn make(outer: &OuterKey) -> Result<(Sealer, Vec<u8>), JournalError> {
        let mut key = random::<32>()?;
        let wrapped = seal(&cipher(&outer.0), &key, WRAPPED);
        let sealer = Sealer(cipher(&key));
        key.zeroize();
        Ok((sealer, wrapped?))
    }

    /// Opens a wrapped data key.
    ///
    /// # Errors
    /// The outer key is another one, or the wrapped key was changed.
    pub fn open(outer: &OuterKey, wrapped: &[u8]) -> Result<Sealer, JournalError> {
        let mut key = unseal(&cipher(&outer.0), wrapped, WRAPPED)?;
        let fixed: Result<[u8; 32], _> = key.as_slice().try_into();
        key.zeroize();
        let mut fixed = fixed.map_err(|_| JournalError::Key("the data key has another length".to_owned()))?;
        let sealer = Sealer(cipher(&fixed));
        fixed.zeroize();
        Ok(sealer)
    }

    /// Wraps the data key of a database anew, for another outer key.
    ///
    /// # Errors
    /// The old outer key does not open it.
    pub fn rewrap(old: &OuterKey, new: &OuterKey, wrapped: &[u8]) -> Result<Vec<u8>, JournalError> {
        let mut key = unseal(&cipher(&old.0), wrapped, WRAPPED)?;
        let again = seal(&cipher(&new.0), &key, WRAPPED);
        key.zeroize();
        again
    }

    /// Seals a secret for a row and a column.
    ///
    /// # Errors
    /// It is too long, or there is no randomness.
    pub fn seal(&self, row: &str, column: &str, secret: &Secret) -> Result<Vec<u8>, JournalError> {
        if secret.expose().len() > SECRET_MAX {
            return Err(JournalError::Key(format!("a secret is at most {SECRET_MAX} bytes long")));
        }
        seal(&self.0, secret.expose(), about(row, column).as_bytes())
    }

    /// Opens a secret of a row and a column.
    ///
    /// # Errors
    /// It was sealed for another place, changed, or under another key.
    pub fn open_secret(&self, row: &str, column: &str, sealed: &[u8]) -> Result<Secret, JournalError> {
        unseal(&self.0, sealed, about(row, column).as_bytes()).map(Secret)
    }
}

fn about(row: &str, column: &str) -> String {
    // Lengths first: no two pairs give the same text.
    format!("{}:{row}/{}:{column}", row.len(), column.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer() -> Sealer {
        Sealer::make(&OuterKey([7; 32])).unwrap().0
    }

    #[test]
    fn a_secret_opens_only_in_its_own_row_and_column() {
        let sealer = sealer();
        let sealed = sealer.seal("bmc/1", "password", &Secret::new(b"calvin".to_vec())).unwrap();
        assert_eq!(sealer.open_secret("bmc/1", "password", &sealed).unwrap().expose(), b"calvin");
        assert!(sealer.open_secret("bmc/2", "password", &sealed).is_err());
        assert!(sealer.open_secret("bmc/1", "user", &sealed).is_err());
        assert!(sealer.open_secret("bmc/1p", "assword", &sealed).is_err());
    }

    #[test]
    fn a_changed_byte_is_noticed_everywhere() {
        let sealer = sealer();
        let sealed = sealer.seal("r", "c", &Secret::new(b"secret".to_vec())).unwrap();
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(sealer.open_secret("r", "c", &changed).is_err(), "byte {at}");
        }
        assert!(sealer.open_secret("r", "c", &sealed[..10]).is_err());
    }

    #[test]
    fn a_rewrapped_key_opens_the_same_secrets() {
        let (old, new) = (OuterKey([1; 32]), OuterKey([2; 32]));
        let (sealer, wrapped) = Sealer::make(&old).unwrap();
        let sealed = sealer.seal("r", "c", &Secret::new(b"x".to_vec())).unwrap();
        let again = Sealer::rewrap(&old, &new, &wrapped).unwrap();
        assert!(Sealer::open(&old, &again).is_err());
        assert_eq!(Sealer::open(&new, &again).unwrap().open_secret("r", "c", &sealed).unwrap().expose(), b"x");
    }
}
