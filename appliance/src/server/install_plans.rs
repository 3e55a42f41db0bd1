//! What is installed on a host: its pool's image, onto its one named disk.

use super::registrar::Registrar;
use crate::act::installs::InstallPlans;
use crate::boot::job::Task;
use healing::id::HostId;
use protocol::install::WriteMode;
use pxe::mac::Mac;
use std::sync::Arc;

/// The register as the source of plans.
#[derive(Debug)]
pub(super) struct RegisteredPlans(pub(super) Arc<Registrar>);

impl InstallPlans for RegisteredPlans {
    fn plan(&self, host: HostId) -> Result<(Mac, Task), String> {
        let book = self.0.book();
        let entry = book.host(host).ok_or("the register does not know it")?;
        let card = entry.macs.first().ok_or_else(|| format!("{} has no `macs`", entry.name))?;
        let mac: Mac = card.parse().map_err(|_| format!("{card} is no hardware address"))?;
        let disk = entry.disk.clone().ok_or_else(|| format!("{} has no `disk` that may be written", entry.name))?;
        let image = book.pool_of(entry).and_then(|pool| pool.image.clone());
        let image = image.ok_or_else(|| format!("its pool {} has no `image`", entry.pool))?;
        let task = Task {
            mac: mac.to_string(),
            image: image.name.parse().map_err(|why| format!("{why}"))?,
            image_version: image.version.parse().map_err(|why| format!("{why}"))?,
            disk,
            mode: if image.plain { WriteMode::Plain } else { WriteMode::Differential },
            // Foreign data ends the install; a person approves its loss by hand (rule 37).
            foreign_data_approved: false,
            first_boot: Vec::new(),
            join: None,
            media: None,
        };
        Ok((mac, task))
    }
}
