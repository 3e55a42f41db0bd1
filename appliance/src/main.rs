//! The `rackmedic` binary.

use clap::Parser;
use rackmedic::cli::output::{Exit, talk};
use rackmedic::cli::{Cli, exit_of};
use std::process::ExitCode;

fn main() -> ExitCode {
    // A wrong argument is said and ended with 2 by clap itself.
    let exit = match Cli::parse().run() {
        Ok(exit) => exit,
        Err(error) => {
            talk(&format!("rackmedic: {}", chain(&error)));
            exit_of(&error)
        }
    };
    Exit::into(exit)
}

/// The whole chain of causes, once each: a cause that its error already spells out is not said twice.
fn chain(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}
