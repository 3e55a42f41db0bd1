//! Virtual media: an image by URL in a drive that the machine can boot from. Which URLs are allowed is the caller's.

use super::client::{Redfish, Resource};
use super::error::RedfishError;
use super::link::Link;
use super::walk::Walk;
use crate::health::tame;
use serde_json::json;
use std::time::Duration;

/// A BMC fetches the beginning of an image before it says that it is in.
const TASK_LIMIT: Duration = Duration::from_secs(120);
/// An inserted image shows up within this.
const SHOWS_WITHIN: Duration = Duration::from_secs(15);
/// Drives that are looked at.
const DRIVES_MAX: usize = 16;

/// What is in the drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// The drive's resource.
    pub drive: String,
    /// The image, as the BMC tells it.
    pub image: Option<String>,
    /// It is in.
    pub inserted: bool,
}

struct Drive {
    link: Link,
    resource: Resource,
}

impl Drive {
    fn media(&self) -> Media {
        let walk = self.resource.walk();
        let image = walk.get("Image").text().map(tame);
        // Slots that say *not connected* may still name an old image (Supermicro).
        let connected = walk.get("ConnectedVia").text() != Some("NotConnected");
        let inserted = walk.get("Inserted").flag().unwrap_or(image.is_some()) && connected;
        Media { drive: self.link.as_str().to_owned(), image, inserted }
    }
}

impl Redfish {
    /// What is in the drive for CDs.
    ///
    /// # Errors
    /// There is no such drive, or it cannot be read.
    pub async fn media(&mut self) -> Result<Media, RedfishError> {
        Ok(self.drive().await?.media())
    }

    /// Puts the image in the drive and gives what reads back. What was in it is ejected.
    ///
    /// # Errors
    /// It is refused, or does not read back as inserted.
    pub async fn insert_media(&mut self, url: &str) -> Result<Media, RedfishError> {
        let drive = self.drive().await?;
        if drive.media().inserted {
            self.eject(&drive).await?;
        }
        let action = drive.resource.walk().at(&["Actions", "#VirtualMedia.InsertMedia"]);
        let whole = json!({ "Image": url, "Inserted": true, "WriteProtected": true });
        let minimal = json!({ "Image": url });
        let written = match action.get("target").text() {
            Some(text) => {
                let target = self.link(text)?;
                let first = if self.facts.media_minimal { &minimal } else { &whole };
                match self.post(&target, first).await {
                    Err(RedfishError::Refused { status: 400 | 422, .. }) if !self.facts.media_minimal => {
                        let written = self.post(&target, &minimal).await?;
                        self.facts.media_minimal = true;
                        written
                    }
                    answer => answer?,
                }
            }
            None => self.patch(&drive.link, &json!({ "Image": url, "Inserted": true })).await?,
        };
        self.finish(written, "the virtual media", TASK_LIMIT).await?;
        let seen = self.shows(&drive.link, true).await?;
        let same = seen.image.as_deref().is_none_or(|image| image == tame(url));
        if seen.inserted && same {
            return Ok(seen);
        }
        let shown = match (&seen.image, seen.inserted) {
            (_, false) => "an empty drive".to_owned(),
            (Some(image), true) => image.clone(),
            (None, true) => "another image".to_owned(),
        };
        Err(RedfishError::NotSet { address: self.address(), what: "the virtual media".to_owned(), seen: shown })
    }

    /// Empties the drive.
    ///
    /// # Errors
    /// It is refused, or does not read back as empty.
    pub async fn eject_media(&mut self) -> Result<Media, RedfishError> {
        let drive = self.drive().await?;
        if !drive.media().inserted {
            return Ok(drive.media());
        }
        self.eject(&drive).await
    }

    async fn eject(&mut self, drive: &Drive) -> Result<Media, RedfishError> {
        let action = drive.resource.walk().at(&["Actions", "#VirtualMedia.EjectMedia", "target"]);
        let written = match action.text() {
            Some(text) => {
                let target = self.link(text)?;
                self.post(&target, &json!({})).await?
            }
            None => self.patch(&drive.link, &json!({ "Image": null, "Inserted": false })).await?,
        };
        self.finish(written, "the ejection", TASK_LIMIT).await?;
        let seen = self.shows(&drive.link, false).await?;
        if seen.inserted {
            let (address, what) = (self.address(), "to eject the virtual media".to_owned());
            let seen = seen.image.unwrap_or_else(|| "a medium in the drive".to_owned());
            return Err(RedfishError::NotSet { address, what, seen });
        }
        Ok(seen)
    }

    /// Reads the drive until it is as wanted or the time is over.
    async fn shows(&mut self, link: &Link, inserted: bool) -> Result<Media, RedfishError> {
        let until = tokio::time::Instant::now() + SHOWS_WITHIN;
        loop {
            let media = Drive { link: link.clone(), resource: self.get(link).await? }.media();
            if media.inserted == inserted || tokio::time::Instant::now() >= until {
                return Ok(media);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// The first drive for CDs: of the system, else of its manager; an empty one before a full one.
    async fn drive(&mut self) -> Result<Drive, RedfishError> {
        let address = self.address();
        let (_, system) = self.system().await?;
        let mut collections = Vec::new();
        collections.extend(self.link_of(system.walk().get("VirtualMedia"))?);
        if let Some(manager) = self.places().await?.manager {
            let manager = self.get(&manager).await?;
            collections.extend(self.link_of(manager.walk().get("VirtualMedia"))?);
        }
        let mut full = None;
        for collection in collections {
            for link in self.members(&collection).await?.into_iter().take(DRIVES_MAX) {
                let resource = match self.get(&link).await {
                    Ok(resource) => resource,
                    Err(RedfishError::Refused { .. }) => continue,
                    Err(why) => return Err(why),
                };
                if !takes_cds(resource.walk()) {
                    continue;
                }
                let drive = Drive { link, resource };
                if !drive.media().inserted {
                    return Ok(drive);
                }
                full.get_or_insert(drive);
            }
        }
        let hint = "boot it over the network, or check the BMC's licence";
        full.ok_or(RedfishError::Missing { address, what: "virtual drive for CDs", hint })
    }
}

/// It is a drive for CDs that an image can be put in by request.
fn takes_cds(drive: Walk<'_>) -> bool {
    let types: Vec<&str> = drive.get("MediaTypes").texts().collect();
    let cd = types.is_empty() || types.iter().any(|kind| matches!(*kind, "CD" | "DVD"));
    let action = drive.at(&["Actions", "#VirtualMedia.InsertMedia"]).is_some();
    // Without the action it is written to directly, where it has the fields for it.
    cd && (action || drive.get("Inserted").value().is_some())
}
