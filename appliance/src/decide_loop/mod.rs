//! The one loop (design section 3): a task that owns the world and the evidence, decides events, makes them durable in
//! groups, and only then lets commands, answers and views out.
//!
//! It must never know how anything is done (that is `act`), how anything is seen (that is `watch`) or how the journal is
//! written (that is `store`).

pub mod clock;
mod evidence_table;
mod executor;
mod group;
mod inbox;
mod pulse;
mod run;
mod signals;
mod start;
#[cfg(test)]
mod tests;
mod timers;
mod views;

pub use clock::{Clock, RunningTime, SystemClock};
pub use executor::{Executor, Right};
pub use inbox::{Committed, Inbox, LANE, NotCommitted, Order};
pub use pulse::Pulse;
pub use run::{Decide, Ended, SNAPSHOT_EVENTS, SNAPSHOTS_KEPT};
pub use signals::Signals;
pub use start::{Handle, Setup, start};
pub use views::{HostView, Scopes, Views};
