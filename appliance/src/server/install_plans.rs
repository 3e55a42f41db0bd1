//! What is installed on a host: the image of the pool in which it serves, onto its one named disk; and what a spare shows
//! when it is proven.

use super::book::Book;
use super::registrar::Registrar;
use super::resources::{HostEntry, ImageEntry, PoolEntry};
use crate::act::installs::InstallPlans;
use crate::boot::job::Task;
use crate::decide_loop::Inbox;
use healing::id::HostId;
use healing::world::host::{Host, Role};
use protocol::install::WriteMode;
use protocol::name::Name;
use pxe::mac::Mac;
use std::sync::Arc;

/// The register as the source of plans, with the decisions' word on who serves where.
#[derive(Debug)]
pub(super) struct RegisteredPlans {
    pub(super) registrar: Arc<Registrar>,
    pub(super) inbox: Inbox,
}

impl InstallPlans for RegisteredPlans {
    fn plan(&self, host: HostId) -> Result<(Mac, Task), String> {
        let book = self.registrar.book();
        let view = self.inbox.views.host(host);
        planned(&book, host, view.as_deref().map(|view| &view.host))
    }

    fn proof(&self, host: HostId) -> Result<(Mac, Task), String> {
        let book = self.registrar.book();
        let (entry, mac, task) = named(&book, host)?;
        // It writes nothing; an image, if its pool has one, says for which code the machine is.
        let image = book.pool_of(entry).and_then(|pool| pool.image.as_ref());
        let (image, image_version) = image.map(name).transpose()?.unzip();
        Ok((mac, Task { image, image_version, prove: true, ..task }))
    }
}

/// The plan of a host. One that took another's place is installed as of that place's pool.
fn planned(book: &Book, id: HostId, known: Option<&Host>) -> Result<(Mac, Task), String> {
    let (entry, mac, task) = named(book, id)?;
    let moved = known.filter(|host| host.history.was_spare && host.role != Role::Spare);
    let pool: Option<&PoolEntry> = match moved {
        Some(host) => book.pools.values().find(|pool| pool.id == u32::from(host.pool.0)).map(|pool| &pool.entry),
        None => book.pool_of(entry),
    };
    let pool = pool.ok_or_else(|| format!("the pool of {} is not declared any more", entry.name))?;
    let image = pool.image.as_ref().ok_or_else(|| format!("its pool {} has no `image`", pool.name))?;
    let (name, version) = name(image)?;
    let mode = if image.plain { WriteMode::Plain } else { WriteMode::Differential };
    Ok((mac, Task { image: Some(name), image_version: Some(version), mode, ..task }))
}

fn name(image: &ImageEntry) -> Result<(Name, Name), String> {
    Ok((image.name.parse().map_err(|why| format!("{why}"))?, image.version.parse().map_err(|why| format!("{why}"))?))
}

/// What every job needs: the card and the disk.
fn named(book: &Book, id: HostId) -> Result<(&HostEntry, Mac, Task), String> {
    let entry = book.host(id).ok_or("the register does not know it")?;
    let card = entry.macs.first().ok_or_else(|| format!("{} has no `macs`", entry.name))?;
    let mac: Mac = card.parse().map_err(|_| format!("{card} is no hardware address"))?;
    let disk = entry.disk.clone().ok_or_else(|| format!("{} has no `disk` that may be written", entry.name))?;
    let task = Task {
        mac: mac.to_string(),
        image: None,
        image_version: None,
        prove: false,
        disk,
        mode: WriteMode::Plain,
        // Foreign data ends the install; a person approves its loss by hand (rule 37).
        foreign_data_approved: false,
        first_boot: Vec::new(),
        join: None,
        media: None,
    };
    Ok((entry, mac, task))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::book::Numbered;
    use healing::id::PoolId;
    use serde_json::json;

    fn book() -> Book {
        let pool = |id: u32, name: &str, image: serde_json::Value| {
            let entry = serde_json::from_value(json!({"name": name, "image": image})).unwrap();
            (name.to_owned(), Numbered { id, entry })
        };
        let host = json!({
            "name": "spare-1", "pool": "spares", "role": "spare", "macs": ["52:54:00:00:00:09"], "disk": {"serial": "S9"},
        });
        let entry = serde_json::from_value(host).unwrap();
        Book {
            pools: [
                pool(1, "workers", json!({"name": "node", "version": "2"})),
                pool(2, "spares", serde_json::Value::Null),
            ]
            .into(),
            hosts: [("spare-1".to_owned(), Numbered { id: 9, entry })].into(),
            ..Book::default()
        }
    }

    #[test]
    fn a_spare_that_took_a_place_is_installed_as_of_that_place() {
        let book = book();
        let waits = planned(&book, HostId(9), None).unwrap_err();
        assert!(waits.contains("spares has no `image`"), "{waits}");
        let config = book.configuration(&crate::server::book::Ground::default());
        let record = config.into_iter().find_map(|config| match config {
            healing::event::Config::Host(host) => Some(*host),
            _ => None,
        });
        let mut host = record.unwrap();
        host.role = Role::Worker;
        host.pool = PoolId(1);
        host.history.was_spare = true;
        let (mac, task) = planned(&book, HostId(9), Some(&host)).unwrap();
        assert_eq!((mac.to_string().as_str(), task.prove), ("52:54:00:00:00:09", false));
        assert_eq!(task.of_image().map(|(name, version)| format!("{name} {version}")).as_deref(), Some("node 2"));
        assert_eq!(task.disk.serial.as_deref(), Some("S9"));
    }
}
