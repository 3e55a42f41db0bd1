//! Plays the client: asks a link as every kind of firmware does, and says who answers what, how fast, and what is wrong.
//!
//! Rings: bytes ([`client`], [`answer`]) → which answer such a client takes and where it goes then ([`choice`]) → what is
//! wrong with all of it ([`finding`]) → sockets ([`run`], [`fetch`]). Nothing is taken away: no address is requested, no
//! file is fetched beyond its first block.

pub mod answer;
pub mod choice;
pub mod client;
pub mod fetch;
pub mod finding;
pub mod run;
