//! Signatures (ed25519, RFC 8032) over exactly the bytes of a file, with a purpose, so that a signed manifest can never
//! pass for a signed boot set.

use crate::digest::Sha256;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

/// What was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// An [`ImageManifest`](crate::manifest::ImageManifest).
    ImageManifest,
    /// A [`BootSet`](crate::boot_set::BootSet).
    BootSet,
}

impl Purpose {
    /// What stands before the bytes when they are signed.
    const fn domain(self) -> &'static [u8] {
        match self {
            Self::ImageManifest => b"rackmedic image-manifest 1\0",
            Self::BootSet => b"rackmedic boot-set 1\0",
        }
    }
}

const KEY_PREFIX: &str = "rackmedic-key-1:";

/// A key that may sign. Text form: `rackmedic-key-1:` and 32 bytes in Base64.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

/// The text is no public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no public key: one is written as '{KEY_PREFIX}' and 32 bytes in Base64")]
pub struct NoKey;

impl PublicKey {
    /// The public half of a signing key.
    #[must_use]
    pub fn of(key: &SigningKey) -> Self {
        Self(key.verifying_key())
    }

    /// Names the key: the first 16 hexadecimal digits of its SHA-256.
    #[must_use]
    pub fn id(&self) -> String {
        Sha256::of(self.0.as_bytes()).to_string().chars().take(16).collect()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{KEY_PREFIX}{}", BASE64.encode(self.0.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = NoKey;

    fn from_str(text: &str) -> Result<Self, NoKey> {
        let text = text.trim().strip_prefix(KEY_PREFIX).ok_or(NoKey)?;
        let bytes = BASE64.decode(text).map_err(|_| NoKey)?;
        let key = VerifyingKey::from_bytes(&bytes.try_into().map_err(|_| NoKey)?).map_err(|_| NoKey)?;
        // A key of small order verifies signatures that nobody made.
        if key.is_weak() { Err(NoKey) } else { Ok(Self(key)) }
    }
}

/// A detached signature, as it lies beside the file in `NAME.sig` (JSON).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// Which key made it: [`PublicKey::id`]. Only to find the key; trust comes from verifying.
    pub key: String,
    /// What was signed.
    pub purpose: Purpose,
    /// 64 bytes in Base64.
    pub signature: String,
}

/// Why signed bytes are not trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    /// It is signed for something else.
    #[error("the signature is for {found:?}, not for {wanted:?}: this is another kind of file")]
    Purpose {
        /// What it was to be.
        wanted: Purpose,
        /// What it says.
        found: Purpose,
    },
    /// Nobody whom we trust has that key.
    #[error("signed by key {key}, which is not trusted here: trusted are {trusted}")]
    Key {
        /// The key it names.
        key: String,
        /// The ids of the trusted keys.
        trusted: String,
    },
    /// The bytes are not those that were signed.
    #[error("the signature does not fit: the file was changed after it was signed")]
    Signature,
    /// The bytes are signed, yet not understood.
    #[error("it is signed, but it cannot be used: {0}")]
    Content(String),
}

/// What only a verified signature makes. It has no other constructor and cannot be deserialized.
#[derive(Debug)]
pub struct Verified<T>(T);

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Signs bytes for a purpose.
#[must_use]
pub fn sign(key: &SigningKey, purpose: Purpose, bytes: &[u8]) -> Signature {
    let signature = key.sign(&message(purpose, bytes));
    Signature { key: PublicKey::of(key).id(), purpose, signature: BASE64.encode(signature.to_bytes()) }
}

/// Verifies the signature over exactly these bytes, then reads them.
///
/// # Errors
/// Why they are not trusted.
pub fn verify<T: for<'de> Deserialize<'de>>(
    bytes: &[u8],
    signature: &Signature,
    purpose: Purpose,
    trusted: &[PublicKey],
) -> Result<Verified<T>, Untrusted> {
    if signature.purpose != purpose {
        return Err(Untrusted::Purpose { wanted: purpose, found: signature.purpose });
    }
    let key = trusted.iter().find(|key| key.id() == signature.key).ok_or_else(|| Untrusted::Key {
        key: signature.key.chars().take(16).filter(char::is_ascii_alphanumeric).collect(),
        trusted: match trusted {
            [] => "none".to_owned(),
            keys => keys.iter().map(PublicKey::id).collect::<Vec<_>>().join(", "),
        },
    })?;
    let raw = BASE64.decode(&signature.signature).map_err(|_| Untrusted::Signature)?;
    let raw = ed25519_dalek::Signature::from_slice(&raw).map_err(|_| Untrusted::Signature)?;
    key.0.verify_strict(&message(purpose, bytes), &raw).map_err(|_| Untrusted::Signature)?;
    serde_json::from_slice(bytes).map(Verified).map_err(|e| Untrusted::Content(e.to_string()))
}

fn message(purpose: Purpose, bytes: &[u8]) -> Vec<u8> {
    [purpose.domain(), bytes].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    #[test]
    fn what_was_signed_is_read_and_nothing_else() {
        let (ours, other) = (key(1), key(2));
        let trusted = [PublicKey::of(&ours)];
        let bytes = br#"{"a":1}"#;
        let read = |bytes: &[u8], signature: &Signature, purpose| {
            verify::<serde_json::Value>(bytes, signature, purpose, &trusted)
        };
        let good = sign(&ours, Purpose::BootSet, bytes);
        assert_eq!(read(bytes, &good, Purpose::BootSet).unwrap()["a"], 1);

        for place in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.to_vec();
                changed[place] ^= 1 << bit;
                assert_eq!(read(&changed, &good, Purpose::BootSet).unwrap_err(), Untrusted::Signature);
            }
        }
        assert!(matches!(read(bytes, &good, Purpose::ImageManifest), Err(Untrusted::Purpose { .. })));
        let disguised = Signature { purpose: Purpose::ImageManifest, ..good.clone() };
        assert_eq!(read(bytes, &disguised, Purpose::ImageManifest).unwrap_err(), Untrusted::Signature);
        let foreign = sign(&other, Purpose::BootSet, bytes);
        assert!(matches!(read(bytes, &foreign, Purpose::BootSet), Err(Untrusted::Key { .. })));
        let renamed = Signature { key: good.key.clone(), ..foreign };
        assert_eq!(read(bytes, &renamed, Purpose::BootSet).unwrap_err(), Untrusted::Signature);
        assert!(verify::<serde_json::Value>(bytes, &good, Purpose::BootSet, &[]).is_err());
    }

    #[test]
    fn a_key_is_written_and_read() {
        let public = PublicKey::of(&key(7));
        assert_eq!(public.to_string().parse(), Ok(public));
        let weak = format!("{KEY_PREFIX}{}", BASE64.encode([0_u8; 32]));
        for wrong in ["", "rackmedic-key-1:", "rackmedic-key-1:AAAA", &weak] {
            assert!(wrong.parse::<PublicKey>().is_err(), "{wrong}");
        }
    }
}
