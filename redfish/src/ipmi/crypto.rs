//! The two cipher suites that we speak, and what they compute (sections 13.28 to 13.32).
//!
//! Suite 17 is RAKP-HMAC-SHA256, HMAC-SHA256-128, AES-CBC-128; suite 3 is RAKP-HMAC-SHA1, HMAC-SHA1-96, AES-CBC-128.
//! Anything else has no integrity, no confidentiality or MD5, and is not here.

use aes::cipher::{Block, BlockDecryptMut, BlockEncryptMut, KeyIvInit};
use hmac::{Hmac, Mac};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

/// A cipher suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Suite {
    /// Number 3.
    Sha1,
    /// Number 17.
    Sha256,
}

/// A key or a digest of a suite: 20 or 32 bytes, wiped when dropped.
pub type Digest = Zeroizing<Vec<u8>>;

const BLOCK_BYTES: usize = 16;

impl Suite {
    /// The order in which they are tried.
    pub const PREFERENCE: [Suite; 2] = [Suite::Sha256, Suite::Sha1];

    /// Its number in the specification.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Suite::Sha1 => 3,
            Suite::Sha256 => 17,
        }
    }

    /// The suite of a number, if it is one of ours.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Suite> {
        Suite::PREFERENCE.into_iter().find(|suite| suite.number() == number)
    }

    /// Authentication, integrity and confidentiality algorithm by number. An answer with another triple is another
    /// suite, whatever it calls itself.
    #[must_use]
    pub fn triple(self) -> [u8; 3] {
        match self {
            Suite::Sha1 => [1, 1, 1],
            Suite::Sha256 => [3, 4, 1],
        }
    }

    /// Length of the codes in RAKP 2 and 3, bytes.
    #[must_use]
    pub fn rakp_code_bytes(self) -> usize {
        match self {
            Suite::Sha1 => 20,
            Suite::Sha256 => 32,
        }
    }

    /// Length of the code behind each packet of a session, and of the one in RAKP 4, bytes.
    #[must_use]
    pub fn packet_code_bytes(self) -> usize {
        match self {
            Suite::Sha1 => 12,
            Suite::Sha256 => 16,
        }
    }

    /// HMAC over parts, whole.
    #[must_use]
    pub fn hmac(self, key: &[u8], parts: &[&[u8]]) -> Digest {
        fn run<M: Mac + hmac::digest::KeyInit>(key: &[u8], parts: &[&[u8]]) -> Digest {
            // HMAC takes keys of any length.
            let Ok(mut mac) = <M as Mac>::new_from_slice(key) else { return Zeroizing::new(Vec::new()) };
            for part in parts {
                mac.update(part);
            }
            Zeroizing::new(mac.finalize().into_bytes().to_vec())
        }
        match self {
            Suite::Sha1 => run::<Hmac<sha1::Sha1>>(key, parts),
            Suite::Sha256 => run::<Hmac<sha2::Sha256>>(key, parts),
        }
    }

    /// The code behind a packet.
    #[must_use]
    pub fn packet_code(self, k1: &[u8], covered: &[u8]) -> Vec<u8> {
        let mut code = self.hmac(k1, &[covered]).to_vec();
        code.truncate(self.packet_code_bytes());
        code
    }

    /// Whether a code fits, in constant time. An empty or short one never does.
    #[must_use]
    pub fn fits(self, expected: &Digest, code: &[u8], length: usize) -> bool {
        match expected.get(..length) {
            Some(part) if length > 0 && code.len() == length => part.ct_eq(code).into(),
            _ => false,
        }
    }
}

/// The key for AES from K2: its first sixteen bytes (section 13.29).
fn key(k2: &[u8]) -> Option<Zeroizing<[u8; BLOCK_BYTES]>> {
    k2.get(..BLOCK_BYTES).and_then(|k| k.try_into().ok()).map(Zeroizing::new)
}

/// Encrypts a payload: the IV, then payload, padding 1, 2, 3… and the padding's length (section 13.29.2).
#[must_use]
pub fn encrypt(k2: &[u8], iv: [u8; BLOCK_BYTES], payload: &[u8]) -> Vec<u8> {
    let Some(key) = key(k2) else { return Vec::new() };
    let pad = (BLOCK_BYTES - (payload.len() + 1) % BLOCK_BYTES) % BLOCK_BYTES;
    let mut body = payload.to_vec();
    body.extend((1..=pad).map(|n| u8::try_from(n).unwrap_or(0)));
    body.push(u8::try_from(pad).unwrap_or(0));
    let mut cipher = cbc::Encryptor::<aes::Aes128>::new((&*key).into(), (&iv).into());
    for block in body.chunks_exact_mut(BLOCK_BYTES) {
        cipher.encrypt_block_mut(Block::<aes::Aes128>::from_mut_slice(block));
    }
    let mut out = iv.to_vec();
    out.append(&mut body);
    out
}

/// Decrypts a payload whose packet was verified. `None` if its length or its padding is impossible.
#[must_use]
pub fn decrypt(k2: &[u8], encrypted: &[u8]) -> Option<Vec<u8>> {
    let key = key(k2)?;
    let (iv, body) = encrypted.split_at_checked(BLOCK_BYTES)?;
    if body.is_empty() || body.len() % BLOCK_BYTES != 0 {
        return None;
    }
    let iv: [u8; BLOCK_BYTES] = iv.try_into().ok()?;
    let mut plain = body.to_vec();
    let mut cipher = cbc::Decryptor::<aes::Aes128>::new((&*key).into(), (&iv).into());
    for block in plain.chunks_exact_mut(BLOCK_BYTES) {
        cipher.decrypt_block_mut(Block::<aes::Aes128>::from_mut_slice(block));
    }
    let pad = usize::from(*plain.last()?);
    let end = plain.len().checked_sub(1 + pad)?;
    // The padding's bytes are not looked at: known firmware leaves other values there, and the packet is authenticated.
    if pad >= BLOCK_BYTES {
        plain.zeroize();
        return None;
    }
    plain.truncate(end);
    Some(plain)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hmac_as_in_rfc_2202_and_rfc_4231() {
        let hex = |digest: &Digest| digest.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let parts: &[&[u8]] = &[b"what do ya want ", b"for nothing?"];
        assert_eq!(hex(&Suite::Sha1.hmac(b"Jefe", parts)), "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
        assert_eq!(
            hex(&Suite::Sha256.hmac(b"Jefe", parts)),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn aes_cbc_as_in_nist_sp_800_38a() {
        // F.2.1, first block; the rest of the output is our padding block.
        let key = [0x2b, 0x7e, 0x15, 0x16, 0x28, 0xae, 0xd2, 0xa6, 0xab, 0xf7, 0x15, 0x88, 0x09, 0xcf, 0x4f, 0x3c];
        let iv = std::array::from_fn(|n| u8::try_from(n).unwrap());
        let text = [0x6b, 0xc1, 0xbe, 0xe2, 0x2e, 0x40, 0x9f, 0x96, 0xe9, 0x3d, 0x7e, 0x11, 0x73, 0x93, 0x17, 0x2a];
        let out = encrypt(&key, iv, &text);
        let expected = [0x76, 0x49, 0xab, 0xac, 0x81, 0x19, 0xb2, 0x46, 0xce, 0xe9, 0x8e, 0x9b, 0x12, 0xe9, 0x19, 0x7d];
        assert_eq!(&out[16..32], &expected);
        assert_eq!(out.len(), 48);
        assert_eq!(decrypt(&key, &out).unwrap(), text);
    }

    #[test]
    fn a_code_of_no_length_fits_nothing() {
        let digest = Suite::Sha1.hmac(b"k", &[b"x"]);
        assert!(!Suite::Sha1.fits(&digest, &[], 0));
        assert!(!Suite::Sha1.fits(&digest, &digest[..11], 12));
        assert!(Suite::Sha1.fits(&digest, &digest[..12], 12));
    }

    proptest! {
        #[test]
        fn what_is_encrypted_is_decrypted(key: [u8; 16], iv: [u8; 16], text in proptest::collection::vec(any::<u8>(), 0..80)) {
            let out = encrypt(&key, iv, &text);
            prop_assert_eq!(out.len() % 16, 0);
            prop_assert_eq!(decrypt(&key, &out).unwrap(), text);
        }

        #[test]
        fn no_bytes_make_it_panic(key: [u8; 16], text in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = decrypt(&key, &text);
        }
    }
}
