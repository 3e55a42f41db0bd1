//! `rackmedic boot probe`: plays every kind of client on a link and says who answers what, how fast, and what is wrong.

use super::Usage;
use super::output::{Exit, Format, data, json, table, talk};
use clap::Args;
use pxe::mac::Mac;
use pxe::probe::choice::Way;
use pxe::probe::client::Client;
use pxe::probe::fetch::Fetched;
use pxe::probe::finding::{self, Finding, Weight};
use pxe::probe::run::{self, BootServer, Interface, Plan, Seen};
use serde::Serialize;
use std::time::Duration;

#[derive(Debug, Args)]
pub(super) struct Probe {
    /// The interface on the link that is probed. A server that runs on this machine does not hear it.
    #[arg(long, value_name = "INTERFACE")]
    interface: String,
    /// The card that is played; without it one that nobody has. With the card of an open job its boot is seen, and its
    /// timeline shows the probe.
    #[arg(long)]
    mac: Option<Mac>,
    /// How long offers are waited for, seconds.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=60))]
    wait_s: u64,
    /// Send DISCOVERs only: ask no port 4011 and look for no file.
    #[arg(long)]
    offers_only: bool,
    /// How the result is written.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Serialize)]
struct Report<'a> {
    interface: &'a Interface,
    mac: String,
    clients: &'a [Seen],
    findings: &'a [Finding],
}

impl Probe {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let interface = Interface::find(&self.interface)?;
        if let Some(group) = self.mac.filter(|mac| !mac.is_unicast()) {
            return Err(Usage(format!("--mac {group} names a group, not a card")).into());
        }
        let mut random = [0_u8; 10];
        getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("the kernel gives no random numbers: {error}"))?;
        let [a, b, c, d, e, xid @ ..] = random;
        let plan = Plan {
            // Locally administered (IEEE 802): no maker gave this address to a card.
            mac: self.mac.unwrap_or(Mac([0x02, a, b, c, d, e])),
            xid: u32::from_be_bytes([xid[0], xid[1], xid[2], 0]) | u32::from(xid[4]),
            clients: Client::ALL.to_vec(),
            patience: Duration::from_secs(self.wait_s),
            follow: !self.offers_only,
        };
        if self.output == Format::Table {
            talk(&format!("asking on {} as {}, for about {} s", interface.name, plan.mac, self.wait_s + 2));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let seen = runtime.block_on(run::run(&interface, &plan))?;
        let findings = finding::judge(&interface, &seen, serves_here());
        let bad = findings.iter().any(|finding| finding.weight == Weight::Fault);
        match self.output {
            Format::Json => {
                let mac = plan.mac.to_string();
                json(&Report { interface: &interface, mac, clients: &seen, findings: &findings })?;
            }
            Format::Table => data(&page(&seen, &findings))?,
        }
        Ok(if bad { Exit::Failed } else { Exit::Ok })
    }
}

/// Whether a DHCP server has its socket on this machine: `/proc/net/udp` lists it in the network that we are in.
fn serves_here() -> bool {
    let listed = std::fs::read_to_string("/proc/net/udp").unwrap_or_default();
    listed.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).any(|local| local.ends_with(":0043"))
}

fn page(seen: &[Seen], findings: &[Finding]) -> String {
    let mut answers = Vec::new();
    let mut ends = Vec::new();
    for one in seen {
        for answer in &one.answers {
            let or_none = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
            answers.push(vec![
                one.client.name().to_owned(),
                answer.who().to_string(),
                answer.from_mac.to_string(),
                or_none(answer.address.map(|address| address.to_string())),
                or_none(answer.file.as_deref().map(pxe::recorder::event::file_name)),
                or_none(answer.next_server.map(|server| server.to_string())),
                format!("{}", answer.after_ms),
            ]);
        }
        ends.push(vec![one.client.name().to_owned(), end(one)]);
    }
    let head = ["client", "server", "from card", "address", "file", "next server", "ms"];
    let mut text = if answers.is_empty() { String::new() } else { table(&head, &answers) + "\n" };
    text.push_str(&table(&["client", "ends with"], &ends));
    for finding in findings {
        let word = match finding.weight {
            Weight::Fault => "fault",
            Weight::Note => "note",
        };
        let who: Vec<&str> = finding.clients.iter().map(|client| client.name()).collect();
        let who =
            if who.is_empty() || who.len() == seen.len() { String::new() } else { format!(" [{}]", who.join(", ")) };
        text.push_str(&format!("\n{word}: {}{who}\n  {}\n", finding.name, finding.sentence));
    }
    text
}

/// Where a client ends, in a few words.
fn end(one: &Seen) -> String {
    if one.answers.is_empty() {
        return "no answer".to_owned();
    }
    let Some(lease) = one.choice.lease.and_then(|lease| one.answers.get(lease)) else {
        return "no address".to_owned();
    };
    let mut text = format!("an address of {}", lease.who());
    match &one.boot_server {
        Some(BootServer::Answered { answer }) => text.push_str(&format!(", port 4011 of {} answers", answer.who())),
        Some(BootServer::Closed) => text.push_str(", port 4011 closed"),
        Some(BootServer::Silent) => text.push_str(", port 4011 silent"),
        Some(BootServer::NotAsked { why }) => text.push_str(&format!(", port 4011 not asked ({why})")),
        None => {}
    }
    let Some(way) = &one.fetches else { return text };
    text.push_str(&match way {
        Way::Tftp { server, file } => {
            format!(", {} by TFTP from {server}", pxe::recorder::event::file_name(file))
        }
        Way::Http { url } => format!(", {} by HTTP", pxe::recorder::event::file_name(url)),
        Way::BootServer { server } => format!(", asks port 4011 of {server}"),
    });
    text.push_str(&match &one.fetched {
        Some(Fetched::There { bytes: Some(bytes), after_ms }) => format!(": there, {bytes} bytes, {after_ms} ms"),
        Some(Fetched::There { bytes: None, after_ms }) => format!(": there, {after_ms} ms"),
        Some(Fetched::Refused { why }) => format!(": refused, {why}"),
        Some(Fetched::Silent { .. }) => ": nobody answers".to_owned(),
        Some(Fetched::LargeLost { .. }) => ": large packets are lost".to_owned(),
        Some(Fetched::NotTried { .. }) | None => String::new(),
    });
    text
}
