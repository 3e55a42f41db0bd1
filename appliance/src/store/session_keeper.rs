//! The Redfish session of a BMC, sealed in a file of its own: a controller has few sessions, and after a kill the next
//! process must find the one that is open. A file, not a row: it is written between a login and its first use, beside the
//! journal's one writer.

use super::secret::{Sealer, Secret};
use bmc::redfish::{KeptSession, SessionKeeper};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Longest sealed session in bytes.
const FILE_BYTES_MAX: u64 = 8_192;
const COLUMN: &str = "bmc-session";

/// Keeps the session of one BMC.
#[derive(Debug)]
pub struct SealedKeeper {
    file: PathBuf,
    bmc: String,
    sealer: Arc<Sealer>,
}

impl SealedKeeper {
    /// In this folder, for the BMC of this name. The name is bound into the seal: a file that is moved to another BMC does
    /// not open.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn new(folder: &Path, bmc: &str, sealer: Arc<Sealer>) -> std::io::Result<SealedKeeper> {
        std::fs::create_dir_all(folder)?;
        let digest = Sha256::digest(bmc.as_bytes());
        let name: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Ok(SealedKeeper { file: folder.join(name), bmc: bmc.to_owned(), sealer })
    }

    fn read(&self) -> Option<KeptSession> {
        let mut sealed = Vec::new();
        File::open(&self.file).ok()?.take(FILE_BYTES_MAX).read_to_end(&mut sealed).ok()?;
        // One that does not open is of another key, or was changed: the BMC will forget its session by itself.
        let plain = self.sealer.open_secret(&self.bmc, COLUMN, &sealed).ok()?;
        let at = plain.expose().iter().position(|byte| *byte == b'\n')?;
        let (link, token) = plain.expose().split_at(at);
        let link = String::from_utf8(link.to_vec()).ok()?;
        Some(KeptSession { link, token: bmc::Secret::new(token.get(1..)?.to_vec()) })
    }

    fn write(&self, session: &KeptSession) -> Result<(), Box<dyn std::error::Error>> {
        let plain = [session.link.as_bytes(), b"\n", session.token.expose()].concat();
        let sealed = self.sealer.seal(&self.bmc, COLUMN, &Secret::new(plain))?;
        let new = self.file.with_extension("new");
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        file.write_all(&sealed)?;
        file.sync_all()?;
        std::fs::rename(&new, &self.file)?;
        Ok(())
    }
}

impl SessionKeeper for SealedKeeper {
    fn load(&self) -> Option<KeptSession> {
        self.read()
    }

    fn store(&self, session: &KeptSession) {
        if let Err(why) = self.write(session) {
            tracing::warn!(bmc = self.bmc, %why, "the session of this BMC cannot be kept; after a restart it stays open there until it times out");
        }
    }

    fn forget(&self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::store::secret::OuterKey;

    #[test]
    fn a_session_is_kept_sealed_and_opens_for_its_own_bmc_only() {
        let folder = std::env::temp_dir().join(format!("rackmedic-keeper-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let outer = OuterKey::file(&folder.join("key")).unwrap();
        let (sealer, _) = Sealer::make(&outer).unwrap();
        let sealer = Arc::new(sealer);
        let keeper = SealedKeeper::new(&folder.join("sessions"), "redfish://10.0.0.7", sealer.clone()).unwrap();
        assert!(keeper.load().is_none());
        let token = bmc::Secret::new(b"token-of-a-session".to_vec());
        keeper.store(&KeptSession { link: "/redfish/v1/SessionService/Sessions/4".to_owned(), token: token.clone() });
        let on_disk = std::fs::read(&keeper.file).unwrap();
        assert!(!on_disk.windows(5).any(|part| part == b"token"), "it is sealed");
        let found = keeper.load().unwrap();
        assert_eq!((found.link.as_str(), &found.token), ("/redfish/v1/SessionService/Sessions/4", &token));
        let other = SealedKeeper::new(&folder.join("sessions"), "redfish://10.0.0.8", sealer).unwrap();
        std::fs::copy(&keeper.file, &other.file).unwrap();
        assert!(other.load().is_none(), "moved to another BMC it does not open");
        std::fs::write(&keeper.file, b"short").unwrap();
        assert!(keeper.load().is_none());
        keeper.forget();
        assert!(keeper.load().is_none() && !keeper.file.exists());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
