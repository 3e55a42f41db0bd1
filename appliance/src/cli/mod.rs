//! The command line.

pub mod output;
pub mod policy_file;
pub mod seeds;
