//! The boot flight recorder: one timeline for each job, a plain verdict when it stops, and the packets themselves.

pub mod event;
