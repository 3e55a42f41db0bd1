//! Whether the stored file of an image is still the one that was signed: read whole before a host is told to write it, so
//! that a store that lost a bit costs no host its disk.
//!
//! The installer compares every chunk with its signed digest as well. It does so while it writes, so alone it would find a
//! damaged chunk in the middle of a disk that is half written.

use super::stock::ServedImage;
use protocol::digest::Sha256;
use protocol::name::Name;
use sha2::Digest as _;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes read at once.
const PORTION_BYTES: usize = 1 << 20;
/// Verdicts remembered: one for each image of a site.
const VERDICTS_LIMIT: usize = 256;

/// What is known of a stored file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is being read.
    Reading,
    /// It is what was signed.
    Whole,
    /// It is not, or it cannot be read.
    Damaged(String),
}

/// What a file looked like when it was read: whoever changes one byte changes one of these.
type Look = (u64, u64, i64, i64, i64, i64);

/// By name and version: what a file looked like, and what was found.
type Known = HashMap<(Name, Name), (Look, Verdict)>;

/// The verdicts, by image.
#[derive(Clone, Debug, Default)]
pub struct Verdicts(Arc<Mutex<Known>>);

impl Verdicts {
    /// What is known of this image's stored file. The first question, and the first one after the file was changed, has it
    /// read on a thread of its own and is answered by [`Verdict::Reading`].
    #[must_use]
    pub fn of(&self, image: &Arc<ServedImage>) -> Verdict {
        let key = (image.manifest.name.clone(), image.manifest.version.clone());
        let look = match look(&image.content) {
            Ok(look) => look,
            Err(error) => return Verdict::Damaged(format!("the stored file cannot be looked at: {error}")),
        };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((then, verdict)) = known.get(&key)
            && *then == look
        {
            return verdict.clone();
        }
        if known.len() >= VERDICTS_LIMIT {
            known.clear();
        }
        known.insert(key.clone(), (look, Verdict::Reading));
        drop(known);
        let (verdicts, image) = (self.clone(), Arc::clone(image));
        let told = key.clone();
        let reader = std::thread::Builder::new().name("image digest".to_owned()).spawn(move || {
            let verdict = judge(&image);
            if let Verdict::Damaged(what) = &verdict {
                tracing::error!(image = %told.0, version = %told.1, "an image of the store is not served: {what}");
            }
            verdicts.keep(&told, look, verdict);
        });
        if let Err(error) = reader {
            // Without a verdict for this look the next question tries again.
            self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            tracing::warn!(%error, "no thread could be started to read an image");
        }
        Verdict::Reading
    }

    /// A file that was changed meanwhile has a look, and a reader, of its own.
    fn keep(&self, key: &(Name, Name), look: Look, verdict: Verdict) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = known.get_mut(key).filter(|(then, _)| *then == look) {
            kept.1 = verdict;
        }
    }
}

fn look(file: &File) -> io::Result<Look> {
    let about = file.metadata()?;
    Ok((about.ino(), about.len(), about.mtime(), about.mtime_nsec(), about.ctime(), about.ctime_nsec()))
}

fn judge(image: &ServedImage) -> Verdict {
    let stored = image.manifest.stored;
    match digest(&image.content, stored.bytes) {
        Ok(found) if found == stored.sha256 => Verdict::Whole,
        Ok(found) => Verdict::Damaged(format!(
            "the stored file has SHA-256 {found}, the signed manifest says {}. `rackmedic image verify` names the chunk; \
             import the image again under another version",
            stored.sha256
        )),
        Err(error) => Verdict::Damaged(format!("the stored file cannot be read to its end: {error}")),
    }
}

fn digest(file: &File, bytes: u64) -> io::Result<Sha256> {
    let mut digest = sha2::Sha256::new();
    let mut portion = vec![0; PORTION_BYTES];
    let mut at = 0;
    while at < bytes {
        let most = usize::try_from(bytes - at).unwrap_or(PORTION_BYTES).min(PORTION_BYTES);
        let Some(space) = portion.get_mut(..most) else { break };
        file.read_exact_at(space, at)?;
        digest.update(&*space);
        at = at.saturating_add(most as u64);
    }
    Ok(Sha256(digest.finalize().into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::import::{About, import};
    use ed25519_dalek::SigningKey;
    use protocol::manifest::{Arch, Encoding, Firmware};
    use protocol::signature::PublicKey;
    use std::time::{Duration, Instant};

    fn settled(verdicts: &Verdicts, image: &Arc<ServedImage>) -> Verdict {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            match verdicts.of(image) {
                Verdict::Reading => assert!(Instant::now() < until, "it is read for ever"),
                verdict => return verdict,
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_byte_that_changes_after_the_first_verdict_is_found_as_well() {
        // Given an image in a store
        let folder = std::env::temp_dir().join(format!("rackmedic-stored-content-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut disk = vec![7; 3 << 20];
        disk[446..510].fill(0);
        disk[446..462].copy_from_slice(&[0x80, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 16, 0, 0]);
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        std::fs::write(folder.join("disk.raw"), &disk).unwrap();
        let key = SigningKey::from_bytes(&[3; 32]);
        let (name, version): (Name, Name) = ("disk".parse().unwrap(), "1".parse().unwrap());
        let about = About {
            name: name.clone(),
            version: version.clone(),
            arch: Arch::X86_64,
            firmware: vec![Firmware::Bios],
            root: None,
            efi_loader: None,
            kernel: None,
            kubelet: None,
            encoding: Encoding::Raw,
            created: "2026-01-01T00:00:00Z".to_owned(),
            largest_bytes: 1 << 30,
        };
        import(&folder.join("disk.raw"), &about, &key, &folder, |_| {}).unwrap();
        let image = Arc::new(ServedImage::open(&folder, &name, &version, &[PublicKey::of(&key)]).unwrap());
        let verdicts = Verdicts::default();
        // When it is asked for, then it is read once and found whole
        assert_eq!(verdicts.of(&image), Verdict::Reading);
        assert_eq!(settled(&verdicts, &image), Verdict::Whole);
        // And when one byte of it is changed, with the length as it was
        let content = File::options().write(true).open(folder.join("images/disk/1/content")).unwrap();
        content.write_all_at(&[8], 2 << 20).unwrap();
        // Then that is found
        let Verdict::Damaged(what) = settled(&verdicts, &image) else { panic!("a changed byte was not seen") };
        assert!(what.contains("rackmedic image verify"), "{what}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
