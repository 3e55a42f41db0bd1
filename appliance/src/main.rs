//! The `rackmedic` binary.

fn main() {}
