//! Which addresses of a subnet have a BMC.

use crate::cli::Usage;
use crate::cli::output::{Exit, Format, Progress, data, json, table};
use bmc::discover::{ADDRESSES_MAX, Found, Subnet, ask};
use clap::Args;
use serde::Serialize;
use std::net::IpAddr;
use std::time::Duration;
use tokio::task::JoinSet;

/// For an answer of one address.
const WAIT: Duration = Duration::from_secs(2);
/// Addresses asked at the same time.
const AT_ONCE_MAX: usize = 256;

#[derive(Debug, Args)]
pub(in crate::cli) struct Discover {
    /// Subnets, as 10.0.0.0/24; each at most a /16.
    #[arg(required = true, value_name = "SUBNET")]
    subnets: Vec<Subnet>,
    /// Addresses a second at most: gentle on old switches and on intrusion detection.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: u32,
    /// UDP port of IPMI.
    #[arg(long, default_value_t = 623)]
    ipmi_port: u16,
    /// TCP port of Redfish.
    #[arg(long, default_value_t = 443)]
    redfish_port: u16,
    /// How the result is written.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Debug, Serialize)]
struct Shown {
    address: IpAddr,
    ipmi: bool,
    redfish: bool,
    vendor: Option<String>,
    product: Option<String>,
    uuid: Option<String>,
    tls_pin: Option<String>,
}

impl Discover {
    pub(super) async fn run(&self) -> anyhow::Result<Exit> {
        let total: u64 = self.subnets.iter().map(|subnet| subnet.count()).sum();
        if total > ADDRESSES_MAX {
            return Err(Usage(format!("{total} addresses are too many for one scan; at most {ADDRESSES_MAX}")).into());
        }
        let progress = Progress::new();
        let mut found: Vec<Found> = Vec::new();
        let mut asking = JoinSet::new();
        let mut pace = tokio::time::interval(Duration::from_secs(1) / self.rate);
        let (mut asked, mut shown_at) = (0u64, 0u64);
        for address in self.subnets.iter().flat_map(|subnet| subnet.addresses()) {
            pace.tick().await;
            while asking.len() >= AT_ONCE_MAX {
                found.extend(asking.join_next().await.and_then(Result::ok).flatten());
            }
            asking.spawn(ask(IpAddr::V4(address), self.ipmi_port, self.redfish_port, WAIT));
            asked += 1;
            while let Some(done) = asking.try_join_next() {
                found.extend(done.ok().flatten());
            }
            if asked - shown_at >= u64::from(self.rate) {
                shown_at = asked;
                progress.show(&format!("{asked} of {total} addresses asked, {} BMCs", found.len()));
            }
        }
        while let Some(done) = asking.join_next().await {
            found.extend(done.ok().flatten());
        }
        progress.done();
        found.sort_by_key(|one| one.address);
        self.show(found.into_iter().map(shown).collect())
    }

    fn show(&self, found: Vec<Shown>) -> anyhow::Result<Exit> {
        match self.output {
            Format::Json => json(&found)?,
            Format::Table => {
                let rows: Vec<Vec<String>> = found
                    .iter()
                    .map(|one| {
                        let yes = |yes| if yes { "yes" } else { "-" }.to_owned();
                        let name =
                            [&one.vendor, &one.product].into_iter().flatten().cloned().collect::<Vec<_>>().join(" ");
                        let pin = one.tls_pin.clone().unwrap_or_default();
                        vec![one.address.to_string(), yes(one.ipmi), yes(one.redfish), name, pin]
                    })
                    .collect();
                data(&table(&["address", "IPMI", "Redfish", "says that it is", "certificate"], &rows))?;
            }
        }
        Ok(Exit::Ok)
    }
}

fn shown(found: Found) -> Shown {
    let redfish = found.redfish.as_ref();
    Shown {
        address: found.address,
        ipmi: found.ipmi == Some(true),
        redfish: redfish.is_some(),
        vendor: redfish.and_then(|greeting| greeting.vendor.clone()),
        product: redfish.and_then(|greeting| greeting.product.clone()),
        uuid: redfish.and_then(|greeting| greeting.uuid.clone()),
        tls_pin: redfish.map(|greeting| greeting.certificate.to_string()),
    }
}
