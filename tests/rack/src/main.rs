//! `rack up|status|break|down`: the virtual rack by hand. Needs root.
#![allow(clippy::print_stdout, reason = "a command line tool")]

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use rack::fault::{self, Fault};
use rack::layout::Rack;
use rack::{bmc, network, power_hook, run};
use std::path::PathBuf;
use std::process::Command;

/// The virtual rack: QEMU hosts behind BMCs of OpenIPMI, in network namespaces.
#[derive(Parser)]
struct Line {
    /// Where the rack's state lies.
    #[arg(long, global = true, default_value = "/var/tmp/rackmedic-rack")]
    folder: PathBuf,
    /// Prefix of its namespaces.
    #[arg(long, global = true, default_value = "rack")]
    prefix: String,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Makes the network, the BMCs and the hosts; gives the hosts power.
    Up {
        /// How many hosts.
        #[arg(long, default_value_t = 2)]
        hosts: u8,
        /// The disk image that they boot from; without one their disks are empty.
        #[arg(long)]
        disk: Option<PathBuf>,
    },
    /// Shows each host: power, BMC, and how often it was switched.
    Status,
    /// Breaks something.
    Break {
        /// The number in the host's name.
        host: u8,
        /// What.
        fault: Fault,
    },
    /// Ends all of it.
    Down,
    /// Called by a BMC.
    #[command(hide = true)]
    Hook {
        host: u8,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

fn hosts(rack: &Rack) -> u8 {
    (1..=u8::MAX).take_while(|number| rack.host(*number).folder.exists()).last().unwrap_or(0)
}

fn main() -> Result<()> {
    let line = Line::parse();
    let rack = Rack::new(&line.prefix, &line.folder);
    let program = std::env::current_exe()?;
    match line.verb {
        Verb::Up { hosts, disk } => up(&rack, hosts, disk, &program),
        Verb::Status => {
            for host in (1..=hosts(&rack)).map(|number| rack.host(number)) {
                let (on, off) = host.switched();
                let power = if host.is_on() { "on" } else { "off" };
                println!("{} {} power {power}, switched on {on} and off {off} times", host.name(), host.address());
            }
            Ok(())
        }
        Verb::Break { host, fault } => fault::apply(&rack, &rack.host(host), fault, &program),
        Verb::Down => {
            for host in (1..=hosts(&rack)).map(|number| rack.host(number)) {
                bmc::stop(&host);
                host.power_off()?;
            }
            network::remove(&rack);
            std::fs::remove_dir_all(&rack.folder).or_else(|error| match error.kind() {
                std::io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })?;
            Ok(())
        }
        Verb::Hook { host, words } => {
            let mut again = Command::new(&program);
            again.arg("--folder").arg(&rack.folder).args(["--prefix", &rack.prefix, "hook", &host.to_string()]);
            print!("{}", power_hook::serve(&rack.host(host), again, &words)?);
            Ok(())
        }
    }
}

fn up(rack: &Rack, hosts: u8, disk: Option<PathBuf>, program: &std::path::Path) -> Result<()> {
    network::make(rack, hosts).context("the rack's network: run `rack down` first if one is there, and be root")?;
    for host in (1..=hosts).map(|number| rack.host(number)) {
        std::fs::create_dir_all(&host.folder)?;
        let place = host.disk().display().to_string();
        if let Some(image) = &disk {
            let image = image.display().to_string();
            run::run("cp", &["--sparse=always", "--reflink=auto", &image, &place])?;
        }
        run::run("truncate", &["-s", "3G", &place])?;
        bmc::start(rack, &host, program)?;
        host.power_on(false)?;
        println!("{} {} BMC ipmi://admin@{}", host.name(), host.address(), host.bmc_address());
    }
    Ok(())
}
