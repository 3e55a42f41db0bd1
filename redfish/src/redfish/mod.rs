//! Redfish, as real BMCs speak it: read tolerantly, written sparingly, judged by what reads back.
//!
//! Sources: DMTF DSP0266 (protocol) 1.20, DSP0268 (schemas) 2024.1; quirks in [`crate::quirk`].

mod account;
mod boot;
mod client;
mod controller;
mod error;
mod facts;
mod greet;
mod http;
mod keeper;
mod link;
mod log;
mod media;
mod message;
mod outlet;
mod power;
mod sensor;
mod survey;
mod system;
mod tls;
mod unclean;
mod walk;

pub use client::{Credential, Options, Redfish, look};
pub use error::RedfishError;
pub use facts::{EtagUse, Facts};
pub use greet::{Greeting, greet};
pub use http::{HttpError, Patience};
pub use keeper::{KeptSession, MemoryKeeper, NoKeeper, SessionKeeper};
pub use link::{BadLink, Link, Origin};
pub use media::Media;
pub use message::Messages;
pub use outlet::Outlet;
pub use survey::Survey;
pub use system::Identity;
pub use tls::{Authorities, BadAuthorities, BadFingerprint, Fingerprint, Trust, authorities};
pub use walk::{Unreadable, Walk, parse};
