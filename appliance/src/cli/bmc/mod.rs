//! `rackmedic bmc`: one BMC by hand. A bench tool: what it says of *off* is a verdict over readings, never the proof that
//! the appliance needs.

mod account;
pub(in crate::cli) mod boot;
mod console;
mod discover;
mod held;
mod identify;
mod media;
mod outlet;
pub(in crate::cli) mod place;
pub(in crate::cli) mod power;
mod probe;
mod show;

use super::output::{Exit, talk};
use clap::Subcommand;
use place::Place;
use std::path::PathBuf;
use std::time::Duration;

/// For a verb of a few requests.
const LIMIT: Duration = Duration::from_secs(160);
/// For one that waits for a person's system, an image, or thousands of entries.
const LONG_LIMIT: Duration = Duration::from_secs(400);
/// For giving the session back.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug, Subcommand)]
pub(super) enum Bmc {
    /// Reads or switches the power; `off` ends well only if the readings show it.
    Power {
        /// What is done.
        #[arg(value_enum)]
        what: power::What,
        #[command(flatten)]
        place: Place,
    },
    /// Who the BMC says that it and its machine are.
    Identify {
        #[command(flatten)]
        place: Place,
    },
    /// Sets what the machine boots from next time, once, and reads it back; or only reads it.
    Boot {
        /// What it boots from.
        #[arg(value_enum)]
        what: boot::What,
        /// The URL: of the loader for `http` (left out, DHCP names it), of the image for `cd` (left out, what is in the drive).
        #[arg(value_name = "URL")]
        loads: Option<String>,
        /// Boot by legacy BIOS instead of UEFI.
        #[arg(long)]
        legacy: bool,
        #[command(flatten)]
        place: Place,
    },
    /// The newest entries of the event log, oldest first.
    Sel {
        /// How many at most.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=4096))]
        count: u16,
        #[command(flatten)]
        place: Place,
    },
    /// The sensors, read now.
    Sensors {
        #[command(flatten)]
        place: Place,
    },
    /// What the BMC can do, found by reading alone, and what is open about it that should not be.
    Probe {
        #[command(flatten)]
        place: Place,
    },
    /// The serial console over IPMI, until `~.` at the beginning of a line, or the end of the input.
    Console {
        /// Ends another session's console, if there is one.
        #[arg(long)]
        take_over: bool,
        #[command(flatten)]
        place: Place,
    },
    /// The account in use: whether it is accepted, or another password for it.
    Account {
        /// What is done.
        #[arg(value_enum)]
        what: account::What,
        /// A file with the new password in its first line, for `rotate`.
        #[arg(long, value_name = "FILE")]
        new_password_file: Option<PathBuf>,
        #[command(flatten)]
        place: Place,
    },
    /// Outlets of a power distribution unit over Redfish.
    Outlet {
        /// What is done.
        #[arg(value_enum)]
        what: outlet::What,
        /// The outlet's link, as `list` prints it.
        outlet: Option<String>,
        #[command(flatten)]
        place: Place,
    },
    /// Asks subnets, without any credential, which addresses have a BMC.
    Discover(discover::Discover),
    /// The BMCs, and the units of outlets, that an appliance on this machine holds. Nothing is sent.
    Held(held::List),
    /// The virtual drive: puts an image in by its URL, or ejects it.
    Media {
        /// What is done.
        #[arg(value_enum)]
        what: media::What,
        /// The image for `insert`.
        #[arg(value_name = "URL")]
        image: Option<String>,
        #[command(flatten)]
        place: Place,
    },
}

impl Bmc {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.drive())
    }

    async fn drive(self) -> anyhow::Result<Exit> {
        let (place, privilege) = match &self {
            Bmc::Probe { place } => return self.within(probe::run(place)).await,
            Bmc::Account { what, new_password_file, place } => {
                return self.within(account::run(place, *what, new_password_file.as_deref())).await;
            }
            Bmc::Outlet { what, outlet, place } => {
                return self.within(outlet::run(place, *what, outlet.as_deref())).await;
            }
            Bmc::Console { take_over, place } => return console::run(place, *take_over).await,
            Bmc::Discover(discover) => return discover.run().await,
            Bmc::Held(held) => return held.run().await,
            Bmc::Power { place, .. } | Bmc::Boot { place, .. } | Bmc::Media { place, .. } => (place, place::OPERATOR),
            Bmc::Identify { place } | Bmc::Sel { place, .. } | Bmc::Sensors { place } => (place, place::USER),
        };
        self.check()?;
        let mut bmc = place.open(privilege).await?;
        let before = bmc.learned();
        let work = async {
            match &self {
                // Left above.
                Bmc::Probe { .. }
                | Bmc::Account { .. }
                | Bmc::Outlet { .. }
                | Bmc::Console { .. }
                | Bmc::Held(_)
                | Bmc::Discover(_) => Ok(Exit::Ok),
                Bmc::Power { what, place } => power::run(&mut *bmc, *what, place.output).await,
                Bmc::Identify { place } => identify::run(&mut *bmc, place.output).await,
                Bmc::Boot { what, loads, legacy, place } => {
                    boot::run(&mut *bmc, *what, loads.as_deref(), *legacy, place.output).await
                }
                Bmc::Sel { count, place } => show::event_log(&mut *bmc, usize::from(*count), place.output).await,
                Bmc::Sensors { place } => show::sensors(&mut *bmc, place.output).await,
                Bmc::Media { what, image, place } => media::run(&mut *bmc, *what, image.as_deref(), place.output).await,
            }
        };
        let done = self.within(work).await;
        let learned: Vec<String> = bmc.learned().into_iter().filter(|fact| !before.contains(fact)).collect();
        if !learned.is_empty() {
            talk(&format!("learned about this BMC: {}", learned.join("; ")));
        }
        // A BMC that does not answer keeps its session until it forgets it.
        let _ = tokio::time::timeout(CLOSE_LIMIT, bmc.close()).await;
        done
    }

    /// Ends the work at its limit.
    async fn within(&self, work: impl Future<Output = anyhow::Result<Exit>>) -> anyhow::Result<Exit> {
        let limit = self.limit();
        tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
            Err(anyhow::anyhow!(
                "the BMC took more than {} s; what was sent last may have been done: read before anything else",
                limit.as_secs()
            ))
        })
    }

    /// How long all of it may take. Power has deadlines of its own within this.
    fn limit(&self) -> Duration {
        match self {
            Bmc::Power { what: power::What::Cycle | power::What::GracefulOff, .. } | Bmc::Media { .. } => LONG_LIMIT,
            // A boot from a URL inserts the image first.
            Bmc::Boot { loads: Some(_), .. } | Bmc::Sel { .. } | Bmc::Probe { .. } => LONG_LIMIT,
            _ => LIMIT,
        }
    }

    /// Refuses what makes no sense before anything is sent.
    fn check(&self) -> anyhow::Result<()> {
        match self {
            Bmc::Boot { what, loads, .. } => boot::check(*what, loads.as_deref()),
            Bmc::Media { what, image, .. } => media::check(*what, image.as_deref()),
            _ => Ok(()),
        }
    }
}
