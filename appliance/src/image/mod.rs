//! The store of images: what comes in, what is signed, what is damaged.
//!
//! Layout: `images/NAME/VERSION/{manifest.json,manifest.json.sig,chunks,content}` and
//! `boot-sets/VERSION/{boot-set.json,boot-set.json.sig,FILES}`. A version is written whole beside and renamed into its
//! place; it is never changed afterwards.

pub mod build;
pub mod disk_layout;
pub mod import;
pub mod key;
pub mod shelve;
pub mod source;
pub mod verify;
