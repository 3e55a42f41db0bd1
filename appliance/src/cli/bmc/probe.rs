//! What a BMC can do, and what is open about it that should not be. Reads only.

use super::place::{ADMINISTRATOR, Opened, Place, USER};
use super::power::hex;
use crate::cli::output::{Exit, Format, data, json, table};
use bmc::controller::Controller as _;
use bmc::endpoint::Protocol;
use bmc::ipmi::client::{Client, IpmiError, Patience, auth_capabilities, list_suites, ping, suite_zero_open};
use bmc::ipmi::handshake::{LoginError, Privilege};
use bmc::ipmi::suite_zero::SuiteZero;
use bmc::known_bad::holes;
use bmc::quirk::{Quirks, vendor_of_enterprise};
use bmc::redfish::Redfish;
use serde::Serialize;
use std::net::SocketAddr;
use std::time::Instant;

/// A thing it can do or is, in a word and in detail.
#[derive(Debug, Serialize)]
struct Capability {
    what: &'static str,
    state: &'static str,
    detail: String,
}

/// Something open that should not be.
#[derive(Debug, Serialize)]
struct Finding {
    /// `red`: anybody gets in. `amber`: easier than it must be. `check`: only a person can tell.
    severity: &'static str,
    what: String,
}

#[derive(Debug, Default, Serialize)]
struct Report {
    capabilities: Vec<Capability>,
    quirks: Vec<String>,
    audit: Vec<Finding>,
}

impl Report {
    fn can(&mut self, what: &'static str, state: &'static str, detail: impl Into<String>) {
        self.capabilities.push(Capability { what, state, detail: detail.into() });
    }

    fn told<T>(&mut self, what: &'static str, read: Result<T, String>, detail: impl Fn(&T) -> String) {
        match read {
            Ok(read) => self.can(what, "yes", detail(&read)),
            Err(why) => self.can(what, "no", why),
        }
    }

    fn finds(&mut self, severity: &'static str, what: impl Into<String>) {
        self.audit.push(Finding { severity, what: what.into() });
    }

    fn show(self, output: Format) -> anyhow::Result<Exit> {
        if output == Format::Json {
            json(&self)?;
            return Ok(Exit::Ok);
        }
        let rows: Vec<Vec<String>> = self
            .capabilities
            .iter()
            .map(|one| vec![one.what.to_owned(), one.state.to_owned(), one.detail.clone()])
            .collect();
        let mut text = table(&["what", "state", "detail"], &rows);
        text += "\nspecial handling of this make:\n";
        if self.quirks.is_empty() {
            text += "  none\n";
        }
        for quirk in &self.quirks {
            text += &format!("  {quirk}\n");
        }
        text += "\nsecurity:\n";
        if self.audit.is_empty() {
            text += "  nothing found\n";
        }
        for finding in &self.audit {
            text += &format!("  {:<5}  {}\n", finding.severity, finding.what);
        }
        data(&text)?;
        Ok(Exit::Ok)
    }
}

pub(super) async fn run(place: &Place) -> anyhow::Result<Exit> {
    let (endpoint, address) = place.endpoint().await?;
    let mut report = Report::default();
    match endpoint.protocol {
        Protocol::Redfish => {
            let Opened::Redfish(mut client) = place.open_as(USER).await? else {
                anyhow::bail!("not a Redfish address");
            };
            let done = over_redfish(&mut client, &mut report).await;
            client.close().await;
            done?;
        }
        Protocol::Ipmi => over_ipmi(place, address, &endpoint.user, &mut report).await?,
    }
    report.show(place.output)
}

async fn over_redfish(client: &mut Redfish, report: &mut Report) -> anyhow::Result<()> {
    let identity = Redfish::identify(client).await?;
    let survey = client.survey().await?;
    let named = |text: &Option<String>| text.clone().unwrap_or_else(|| "not told".to_owned());
    let (vendor, model) = (named(&identity.vendor), named(&identity.model));
    let firmware = format!("{} {}", identity.bmc.clone().unwrap_or_default(), named(&identity.firmware));
    report.can("machine", "is", format!("{vendor} {model}, serial {}", named(&identity.serial)));
    match identity.uuid {
        Some(uuid) => report.can("identity", "yes", hex(uuid)),
        None => report.can(
            "identity",
            "no",
            "it names no UUID: whose power is read is not known, and nothing is proven off",
        ),
    }
    report.can("BMC", "is", firmware.trim());
    report.can("Redfish", "yes", named(&survey.version));
    if let Some(certificate) = client.certificate() {
        report.can("certificate", "is", certificate.to_string());
    }
    let session = if survey.session { "one, reused and closed" } else { "none: the password goes with each request" };
    report.can("session", if survey.session { "yes" } else { "no" }, session);
    report.can("reading", "takes", format!("{:.0} ms", survey.latency.as_secs_f64() * 1_000.0));
    if let Some(ahead) = survey.clock_ahead_s {
        report.can("clock", if ahead.abs() > 60 { "wrong" } else { "yes" }, format!("{ahead} s ahead of ours"));
    }
    report.can("power", "reads", named(&survey.system_power));
    let offered = if survey.resets.is_empty() { "not told".to_owned() } else { survey.resets.join(", ") };
    let behind = if survey.resets_behind_action_info { ", behind action information" } else { "" };
    let forced = survey.resets.is_empty() || survey.resets.iter().any(|reset| reset == "ForceOff");
    report.can("hard off", if forced { "yes" } else { "no" }, format!("{offered}{behind}"));
    match &survey.chassis_power {
        Some(word) => report.can("second witness", "yes", format!("the chassis reads {word}")),
        None => report.can("second witness", "no", "the chassis tells no power of its own"),
    }
    let targets = if survey.boot_targets.is_empty() { "not told".to_owned() } else { survey.boot_targets.join(", ") };
    let place = if survey.settings_object { ", with a settings object" } else { "" };
    report.can(
        "one-shot boot",
        if survey.boot_targets.is_empty() { "unknown" } else { "yes" },
        format!("{targets}{place}"),
    );
    report.can("boot progress", if survey.boot_progress { "yes" } else { "no" }, "");
    report.told("virtual media", survey.media, Clone::clone);
    report.told("event log", survey.event_log, |count| format!("{count} of its newest entries read"));
    report.told("sensors", survey.sensors, |count| format!("{count}"));
    for row in &survey.quirks {
        report.quirks.push(format!("{} ({})", row.flags.names().join(", "), row.source));
    }
    if client.lets_strangers_read().await? {
        report.finds("red", "anybody may read the systems without logging in: switch authentication on");
    }
    for hole in holes(&vendor, &format!("{model} {}", identity.bmc.unwrap_or_default()), &named(&identity.firmware)) {
        report.finds("check", format!("{}: {}", hole.cve, hole.text));
    }
    Ok(())
}

async fn over_ipmi(place: &Place, address: SocketAddr, user: &str, report: &mut Report) -> anyhow::Result<()> {
    let patience = Patience::default();
    let quick = Patience { tries: 2, ..patience };
    match ping(address, quick).await? {
        Some(true) => report.can("presence ping", "yes", "it says that it speaks IPMI"),
        Some(false) => report.can("presence ping", "yes", "it does not say that it speaks IPMI"),
        None => report.can("presence ping", "no", "silent, as many are told to be"),
    }
    let channel = auth_capabilities(address, Privilege::User, patience).await?;
    report.can("IPMI 2.0", if channel.ipmi_v2 { "yes" } else { "no" }, "");
    for weakness in channel.weaknesses() {
        report.finds("amber", weakness);
    }
    match list_suites(address, quick).await {
        Ok(suites) => {
            let numbers: Vec<String> = suites.iter().map(|suite| suite.number.to_string()).collect();
            report.can("cipher suites", "lists", numbers.join(", "));
            for (suite, weakness) in suites.iter().filter_map(|suite| suite.weakness().map(|why| (suite, why))) {
                let severity = if suite.authentication == 0 { "red" } else { "amber" };
                report.finds(severity, format!("cipher suite {}: {weakness}; switch it off", suite.number));
            }
        }
        Err(why) => report.can("cipher suites", "no", why.to_string()),
    }
    match suite_zero_open(address, user, quick).await? {
        SuiteZero::Opens => report.finds(
            "red",
            "cipher suite 0 opens a session without the password (CVE-2013-4782): whoever reaches this BMC has its power button; switch suite 0 off",
        ),
        SuiteZero::Refused(_) => report.can("cipher suite 0", "refused", ""),
        SuiteZero::Silent => report.can("cipher suite 0", "silent", "no answer to the proposal"),
    }
    // The list of users needs an administrator; all else does not.
    let (mut client, administrator) = match open(place, ADMINISTRATOR).await {
        Ok(client) => (client, true),
        Err(why) if is_about_privilege(&why) => (open(place, USER).await?, false),
        Err(why) => return Err(why),
    };
    let done = in_session(&mut client, administrator, report).await;
    client.close().await;
    done
}

async fn open(place: &Place, privilege: Privilege) -> anyhow::Result<Client> {
    match place.open_as(privilege).await? {
        Opened::Ipmi(client) => Ok(*client),
        Opened::Redfish(_) => anyhow::bail!("not an IPMI address"),
    }
}

fn is_about_privilege(why: &anyhow::Error) -> bool {
    match why.downcast_ref::<IpmiError>() {
        Some(IpmiError::Refused { code: 0x80 | 0x81 | 0xd4, .. }) => true,
        Some(IpmiError::Login { source, .. }) => !matches!(source, LoginError::PasswordWrong),
        _ => false,
    }
}

async fn in_session(client: &mut Client, administrator: bool, report: &mut Report) -> anyhow::Result<()> {
    let suite = client.suite();
    report.can("session", "yes", format!("cipher suite {}", suite.number()));
    let begun = Instant::now();
    let device = client.device_id().await?;
    report.can("reading", "takes", format!("{:.0} ms", begun.elapsed().as_secs_f64() * 1_000.0));
    let vendor = vendor_of_enterprise(device.manufacturer);
    let shown = if vendor.is_empty() { format!("enterprise {}", device.manufacturer) } else { vendor.to_owned() };
    let firmware = format!("{}.{:02}", device.firmware_major, device.firmware_minor);
    report.can("BMC", "is", format!("{shown}, product {}, firmware {firmware}", device.product));
    let seen = client.reading().await?;
    match seen.identity {
        Some(guid) if guid != [0; 16] => report.can("identity", "yes", hex(guid)),
        _ => report.can(
            "identity",
            "no",
            "it names no GUID: whose power is read is not known, and nothing is proven off",
        ),
    }
    report.can("power", "reads", format!("{:?}", seen.power).to_lowercase());
    let boot = client.boot_override(bmc::ipmi::boot_options::Habit::default()).await;
    report.told("one-shot boot", boot.map_err(|why| why.to_string()), |seen| {
        format!("now {:?}", seen.lasts).to_lowercase()
    });
    let log = client.event_log_info().await.map_err(|why| why.to_string());
    report.told("event log", log, |info| format!("{} entries", info.entries));
    let records = client.sensor_records().await.map_err(|why| why.to_string());
    report.told("sensors", records, |records| format!("{}", records.sensors.len()));
    for row in Quirks::rows(vendor, "", &firmware).filter(|row| !row.vendor.is_empty()) {
        report.quirks.push(format!("{} ({})", row.flags.names().join(", "), row.source));
    }
    for hole in holes(vendor, "", &firmware) {
        report.finds("check", format!("{}: {}", hole.cve, hole.text));
    }
    if suite == bmc::ipmi::crypto::Suite::Sha1 {
        report.finds(
            "amber",
            "cipher suite 17 is not taken: sessions are signed by SHA-1; update the firmware or enable it",
        );
    }
    report.finds(
        "check",
        "IPMI 2.0 shows a hash of the password to whoever asks (CVE-2013-4786): give each BMC its own random password of 16 characters or more, and prefer Redfish",
    );
    if !administrator {
        report.can("users", "unknown", "the account is no administrator and may not list them");
        return Ok(());
    }
    match client.user_list().await {
        Ok(users) => {
            let names: Vec<String> =
                users.iter().filter(|user| !user.name.is_empty()).map(|user| user.name.clone()).collect();
            report.can("users", "lists", names.join(", "));
            if users.iter().any(bmc::ipmi::users::User::is_open_without_name) {
                report.finds("red", "a user without a name may log in: disable it");
            }
        }
        Err(why) => report.can("users", "no", why.to_string()),
    }
    Ok(())
}
