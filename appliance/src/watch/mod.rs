//! Seeing: probes of hosts, of their kubelets and BMCs, and of our own sight, each turned into signals.
//!
//! It must never know what a signal means: that is `healing`. Rings: [`frame`] is bytes, [`prober`] decides what leaves when
//! and what an answer answers, [`network`] is the thread around it, [`packet_wire`] the socket.

pub mod answer;
pub mod bmcs;
pub mod frame;
pub mod held;
pub mod kubelet;
mod look;
pub mod network;
mod packet_ring;
pub mod packet_wire;
pub mod prober;
pub mod standing;
mod surroundings;
pub mod tally;
pub mod target;
mod track;
pub mod wire;
