//! `rackmedic host`: hosts of a running appliance.

use super::Usage;
use super::declare::{self, limited, read_secret};
use super::output::{Exit, Format, data, json, table};
use super::socket::{Appliance, SaidNo};
use super::span::Span;
use crate::server::api::control::Asked;
use crate::server::resources::{
    Applied, BmcEntry, Declaration, DomainEntry, EntryKind, HostEntry, HostGiven, RoleEntry, Wrong,
};
use clap::{Args, Subcommand};
use protocol::disk::DiskName;
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// A file of hosts at most.
const FILE_BYTES_MAX: u64 = 32 << 20;

/// The columns that are known.
const COLUMNS: [&str; 22] = [
    "name",
    "node",
    "cluster",
    "pool",
    "role",
    "serial",
    "uuid",
    "address",
    "mac",
    "bmc_url",
    "bmc_password_file",
    "bmc_pin",
    "rack",
    "pdu",
    "switch",
    "chassis",
    "disk_serial",
    "disk_wwn",
    "second_port",
    "storage",
    "versions",
    "self",
];

#[derive(Debug, Subcommand)]
pub(super) enum Host {
    /// All hosts, with what happens to each.
    List(List),
    /// One host: what is declared, what is known, what happens next and which rule blocks it.
    Show(Named),
    /// Declare hosts from a CSV file, all of them or none.
    Import(Import),
    /// A maintenance window: nothing disruptive is done to the host. It needs `--for` or `--end`.
    Maintenance(Maintenance),
    /// Begin a host's ladder anew after a person said no to it, or look at the host at once. One that is well stays as it
    /// is, and no rule is waived.
    Heal(Named),
    /// Return a quarantined or flapping host to service.
    Return(Named),
    /// Prove a spare now: power, one boot from the network, disk and card, nothing written. It is how a new spare is linked,
    /// since it has no Node that could show whose BMC it is.
    Prove(Prove),
    /// Power-cycle a host that is Ready and that you have cordoned and drained: off, proof, on, Ready with a new boot. It shows that
    /// its BMC can be relied on, and how long a heal takes; the host stays cordoned as it was.
    Drill(Prove),
    /// Take a host out of the register. One with an open incident stays.
    Remove(Named),
}

#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    appliance: Appliance,
    /// How the result is written.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Debug, Args)]
pub(super) struct Named {
    /// The host.
    name: String,
    #[command(flatten)]
    list: List,
}

#[derive(Debug, Args)]
pub(super) struct Maintenance {
    #[command(flatten)]
    host: Named,
    /// For how long, such as `90m` or `8h`.
    #[arg(long = "for", value_name = "SPAN", conflicts_with = "end", required_unless_present = "end")]
    span: Option<Span>,
    /// End it.
    #[arg(long)]
    end: bool,
}

#[derive(Debug, Args)]
pub(super) struct Prove {
    #[command(flatten)]
    host: Named,
    /// The serial number on the machine whose power is switched.
    #[arg(long)]
    serial: String,
}

#[derive(Debug, Args)]
#[command(
    after_help = "The first line names the columns: name, pool and, of others, node, cluster, role, serial, uuid, address, mac (several apart by blanks),\nbmc_url, bmc_password_file, bmc_pin, rack, pdu, switch, chassis, disk_serial, disk_wwn, second_port, storage, versions, self.\nA host that is known keeps what has no column here; a field that is empty empties it. Every row has as many fields as the first line. Comma or semicolon, with or without byte order mark, LF or CRLF. Pools must be declared before (`rackmedic apply`)."
)]
pub(super) struct Import {
    /// The file.
    file: PathBuf,
    /// Say what would change, and change nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    list: List,
}

impl Host {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        match self {
            Host::List(list) => list.run(),
            Host::Show(named) => named.show(),
            Host::Import(import) => import.run(),
            Host::Maintenance(maintenance) => {
                let seconds = maintenance.span.map(|span| span.seconds);
                let asked = Asked::Maintenance { host: maintenance.host.name.clone(), seconds };
                super::operate::order(&maintenance.host.list.appliance, &asked, maintenance.host.list.output)
            }
            Host::Heal(named) => named.order(|host| Asked::Heal { host }),
            Host::Return(named) => named.order(|host| Asked::Return { host }),
            Host::Prove(Prove { host, serial }) => host.order_and_hint(|host| Asked::Prove { host, serial }),
            Host::Drill(Prove { host, serial }) => host.order_and_hint(|host| Asked::Drill { host, serial }),
            Host::Remove(named) => {
                named.list.appliance.delete(&format!("/control/v1/hosts/{}", segment(&named.name)?))?;
                Ok(Exit::Ok)
            }
        }
    }
}

/// A name as a segment of a path: only what names may hold.
fn segment(name: &str) -> Result<&str, Usage> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    if !name.is_empty() && name.chars().all(plain) && name != "." && name != ".." {
        return Ok(name);
    }
    Err(Usage(format!("`{}` is no name of a host", name.escape_default())))
}

/// A field as a person reads it.
pub(super) fn word(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

impl List {
    fn run(self) -> anyhow::Result<Exit> {
        let all = self.appliance.all("/api/v1/hosts")?;
        if self.output == Format::Json {
            json(&all)?;
            return Ok(Exit::Ok);
        }
        let rows: Vec<Vec<String>> = all
            .iter()
            .map(|host| {
                let mut row: Vec<String> = ["name", "role", "state", "link", "power", "network", "incident"]
                    .map(|key| word(&host[key]))
                    .into();
                row.push(word(&host["explanation"]["sentence"]));
                row
            })
            .collect();
        data(&table(&["HOST", "ROLE", "STATE", "LINK", "POWER", "NETWORK", "INCIDENT", "WHY"], &rows))?;
        Ok(Exit::Ok)
    }
}

impl Named {
    fn show(self) -> anyhow::Result<Exit> {
        let shown: Value = self.list.appliance.get(&format!("/api/v1/hosts/{}", segment(&self.name)?))?;
        match self.list.output {
            Format::Json => json(&shown)?,
            Format::Table => data(&(serde_saphyr::to_string(&shown)? + "\n"))?,
        }
        Ok(Exit::Ok)
    }

    /// What is ordered here begins with the host's next decision, or says there why not.
    fn order_and_hint(self, asked: impl FnOnce(String) -> Asked) -> anyhow::Result<Exit> {
        let (name, for_people) = (self.name.clone(), self.list.output == Format::Table);
        let done = self.order(asked)?;
        if for_people {
            data(&format!(
                "`rackmedic host show {name}` tells whether it was begun (known.order_refused), and how it went\n"
            ))?;
        }
        Ok(done)
    }

    fn order(self, asked: impl FnOnce(String) -> Asked) -> anyhow::Result<Exit> {
        super::operate::order(&self.list.appliance, &asked(self.name), self.list.output)
    }
}

/// Rows of a file with the line that each begins on.
struct Rows {
    columns: Vec<String>,
    rows: Vec<(u64, csv::StringRecord)>,
}

impl Import {
    fn run(self) -> anyhow::Result<Exit> {
        let bytes = limited(&self.file, FILE_BYTES_MAX)?;
        let Rows { columns, rows } = read(&bytes).map_err(|what| Usage(format!("{}:{what}", self.file.display())))?;
        let base = self.file.parent().unwrap_or(Path::new(""));
        let known: declare::Exported = self.list.appliance.get("/control/v1/export")?;
        let known: HashMap<&str, &HostEntry> = known.hosts.iter().map(|host| (host.name.as_str(), host)).collect();
        let (mut hosts, mut wrong) = (Vec::new(), Vec::new());
        for (index, (_, row)) in rows.iter().enumerate() {
            let row = Row { columns: &columns, row };
            hosts.push(host(row, row.get("name").and_then(|name| known.get(name)).copied(), base, index, &mut wrong));
        }
        let refused = |all: &[Wrong]| {
            let lines: Vec<String> = all.iter().map(|one| line(&self.file, &columns, &rows, one)).collect();
            Usage(lines.join("\n"))
        };
        if !wrong.is_empty() {
            return Err(refused(&wrong).into());
        }
        let declaration = Declaration { pools: Vec::new(), hosts, dry_run: self.dry_run };
        match self.list.appliance.post::<Applied>("/control/v1/apply", &declaration) {
            Ok(applied) => declare::show(&applied, self.list.output)?,
            Err(error) => match error.downcast::<SaidNo>() {
                Ok(SaidNo(problem)) if !problem.errors.is_empty() => return Err(refused(&problem.errors).into()),
                Ok(other) => return Err(other.into()),
                Err(error) => return Err(error),
            },
        }
        Ok(Exit::Ok)
    }
}

fn read(bytes: &[u8]) -> Result<Rows, String> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let head = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let semicolons = head.iter().filter(|byte| **byte == b';').count();
    let delimiter = if semicolons > head.iter().filter(|byte| **byte == b',').count() { b';' } else { b',' };
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(bytes);
    let mut records = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|why| {
            let line = why.position().map_or(1, csv::Position::line);
            format!("{line}:1: is no row of UTF-8 text")
        })?;
        let line = record.position().map_or(1, |at| line_at(bytes, at.byte()));
        // Spreadsheets leave rows of nothing but separators behind.
        if record.iter().any(|field| !field.is_empty()) {
            records.push((line, record));
        }
    }
    let mut records = records.into_iter();
    let (line, head) = records.next().ok_or("1:1: is empty: its first line names the columns")?;
    let columns: Vec<String> = head.iter().map(str::to_ascii_lowercase).collect();
    for (place, column) in columns.iter().enumerate() {
        let at = place + 1;
        if !COLUMNS.contains(&column.as_str()) {
            let known = COLUMNS.join(", ");
            return Err(format!("{line}:{at}: there is no column `{}`; known are {known}", column.escape_default()));
        }
        if columns.iter().take(place).any(|other| other == column) {
            return Err(format!("{line}:{at}: the column `{column}` is there twice"));
        }
    }
    for needed in ["name", "pool"] {
        if !columns.iter().any(|column| column == needed) {
            return Err(format!("{line}:1: the column `{needed}` is missing"));
        }
    }
    Ok(Rows { columns, rows: records.collect() })
}

/// The line on which a record begins. Its place may be the end of the line before (CRLF), or blank lines.
fn line_at(bytes: &[u8], byte: u64) -> u64 {
    let start = usize::try_from(byte).unwrap_or(usize::MAX).min(bytes.len());
    let (before, rest) = bytes.split_at(start);
    let ends = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
    let newlines = before.iter().chain(ends).filter(|byte| **byte == b'\n').count();
    newlines as u64 + 1
}

/// One row with the names of its columns.
#[derive(Clone, Copy)]
struct Row<'a> {
    columns: &'a [String],
    row: &'a csv::StringRecord,
}

impl<'a> Row<'a> {
    /// A field that is there and says something.
    fn get(self, name: &str) -> Option<&'a str> {
        let place = self.columns.iter().position(|column| column == name)?;
        self.row.get(place).filter(|text| !text.is_empty())
    }

    /// What the column says, nothing included; without such a column, what is so already.
    fn or_kept(self, name: &str, kept: Option<String>) -> Option<String> {
        if self.columns.iter().any(|column| column == name) { self.get(name).map(str::to_owned) } else { kept }
    }

    /// A list apart by blanks, likewise.
    fn list_or_kept(self, name: &str, kept: Vec<String>) -> Vec<String> {
        if !self.columns.iter().any(|column| column == name) {
            return kept;
        }
        self.get(name).map(|text| text.split_whitespace().map(str::to_owned).collect()).unwrap_or_default()
    }
}

/// One row as a host; what cannot be is told and left out. Of a host that is known, only the columns that are there change.
fn host(row: Row<'_>, known: Option<&HostEntry>, base: &Path, index: usize, wrong: &mut Vec<Wrong>) -> HostGiven {
    let mut tell = |field: &str, what: String| {
        wrong.push(Wrong { kind: EntryKind::Host, index, field: field.to_owned(), what });
    };
    // A field that is not there is not an empty one: a file that was cut off would erase what is kept of the host.
    if row.row.len() != row.columns.len() {
        let cut = if row.row.len() < row.columns.len() {
            ": the file may be cut off, or the spreadsheet left out what is empty at the end of a row"
        } else {
            ""
        };
        tell("name", format!("{} fields, but {} columns{cut}", row.row.len(), row.columns.len()));
    }
    let kept = known.cloned();
    let kept = kept.unwrap_or_else(|| HostEntry {
        name: String::new(),
        node: None,
        cluster: None,
        pool: String::new(),
        role: RoleEntry::Worker,
        serial: None,
        uuid: None,
        address: None,
        macs: Vec::new(),
        bmc: None,
        domains: std::collections::BTreeMap::new(),
        versions: Vec::new(),
        storage: None,
        disk: None,
        outlets: None,
        second_port: 22,
        is_self: false,
    });
    let has = |name: &str| row.columns.iter().any(|column| column == name);
    let role = match row.get("role") {
        None if has("role") => RoleEntry::Worker,
        None => kept.role,
        Some("worker") => RoleEntry::Worker,
        Some("control-plane") => RoleEntry::ControlPlane,
        Some("spare") => RoleEntry::Spare,
        Some(_) => {
            tell("role", "is neither worker, control-plane nor spare".to_owned());
            kept.role
        }
    };
    let address = match row.get("address").map(str::parse) {
        None if has("address") => None,
        None => kept.address,
        Some(Ok(address)) => Some(address),
        Some(Err(_)) => {
            tell("address", "is no IPv4 address".to_owned());
            None
        }
    };
    let mut number = |name: &str, kept: Option<u16>| match row.get(name).map(str::parse::<u16>) {
        None if has(name) => None,
        None => kept,
        Some(Ok(number)) => Some(number),
        Some(Err(_)) => {
            tell(name, "is no number from 0 to 65535".to_owned());
            None
        }
    };
    let (second_port, storage) = (number("second_port", Some(kept.second_port)), number("storage", kept.storage));
    let is_self = match row.get("self") {
        None => kept.is_self && !has("self"),
        Some("no" | "false" | "0") => false,
        Some("yes" | "true" | "1") => true,
        Some(_) => {
            tell("self", "is neither yes nor no".to_owned());
            kept.is_self
        }
    };
    let of_bmc = |of: fn(&BmcEntry) -> Option<String>| kept.bmc.as_ref().and_then(of);
    let url = row.or_kept("bmc_url", of_bmc(|bmc| Some(bmc.url.clone())));
    let pin = row.or_kept("bmc_pin", of_bmc(|bmc| bmc.pin.clone()));
    let password_file = row.get("bmc_password_file").map(str::to_owned);
    let system = of_bmc(|bmc| bmc.system.clone());
    let ignore_chassis = kept.bmc.as_ref().is_some_and(|bmc| bmc.ignore_chassis);
    let bmc = url.map(|url| BmcEntry { url, password_file, pin, system, ignore_chassis });
    let kinds = [DomainEntry::Rack, DomainEntry::Pdu, DomainEntry::Switch, DomainEntry::Chassis];
    let domain = |kind: DomainEntry| Some((kind, row.or_kept(kind.word(), kept.domains.get(&kind).cloned())?));
    let disk = DiskName {
        serial: row.or_kept("disk_serial", kept.disk.as_ref().and_then(|disk| disk.serial.clone())),
        wwn: row.or_kept("disk_wwn", kept.disk.as_ref().and_then(|disk| disk.wwn.clone())),
    };
    let entry = HostEntry {
        name: row.get("name").unwrap_or_default().to_owned(),
        node: row.or_kept("node", kept.node),
        cluster: row.or_kept("cluster", kept.cluster),
        pool: row.get("pool").unwrap_or_default().to_owned(),
        role,
        serial: row.or_kept("serial", kept.serial),
        uuid: row.or_kept("uuid", kept.uuid),
        address,
        macs: row.list_or_kept("mac", kept.macs),
        bmc,
        domains: kinds.into_iter().filter_map(domain).collect(),
        versions: row.list_or_kept("versions", kept.versions),
        storage,
        disk: disk.is_given().then_some(disk),
        outlets: kept.outlets,
        second_port: second_port.unwrap_or(22),
        is_self,
    };
    let file = entry.bmc.as_ref().and_then(|bmc| bmc.password_file.as_ref());
    let bmc_password = read_secret(base, file, "bmc.password_file", index, wrong);
    HostGiven { entry, bmc_password, outlets_password: None }
}

/// One thing that is wrong, with its line and the number of its column.
fn line(path: &Path, columns: &[String], rows: &[(u64, csv::StringRecord)], wrong: &Wrong) -> String {
    let column = match wrong.field.as_str() {
        "bmc.url" => "bmc_url",
        "bmc.password_file" => "bmc_password_file",
        "bmc.pin" => "bmc_pin",
        "macs" => "mac",
        "disk" => "disk_serial",
        "domains" => "rack",
        other => other,
    };
    let line = rows.get(wrong.index).map_or(1, |(line, _)| *line);
    let at = columns.iter().position(|name| name == column).map_or(1, |place| place + 1);
    format!("{}:{line}:{at}: {column}: {}", path.display(), wrong.what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreadsheets_of_all_kinds_are_read_alike() {
        let plain = "name,pool,rack\nn1,w,r1\nn2,w,r2\n";
        let theirs = format!("\u{feff}{}\r\n;;\r\n", plain.trim_end().replace(',', ";").replace('\n', "\r\n"));
        let (a, b) = (read(plain.as_bytes()).unwrap(), read(theirs.as_bytes()).unwrap());
        let fields = |rows: &Rows| {
            rows.rows.iter().map(|(line, row)| (*line, row.iter().collect::<Vec<_>>().join("|"))).collect::<Vec<_>>()
        };
        assert_eq!(fields(&a), [(2, "n1|w|r1".to_owned()), (3, "n2|w|r2".to_owned())]);
        assert_eq!(fields(&a), fields(&b));
        assert_eq!(a.columns, b.columns);
    }

    #[test]
    fn a_row_with_fewer_or_more_fields_than_the_head_is_refused_with_its_line_and_erases_nothing() {
        let wrong_of = |text: &str| {
            let Rows { columns, rows } = read(text.as_bytes()).unwrap();
            let mut wrong = Vec::new();
            for (index, (_, row)) in rows.iter().enumerate() {
                host(Row { columns: &columns, row }, None, Path::new(""), index, &mut wrong);
            }
            wrong.iter().map(|one| line(Path::new("hosts.csv"), &columns, &rows, one)).collect::<Vec<_>>()
        };
        assert!(wrong_of("name,pool,rack,self\nn1,w,r1,yes\nn2,w,,\n").is_empty(), "empty fields are fields");
        let cut = wrong_of("name,pool,rack,self\nn1,w,r1,yes\nn2,w");
        assert_eq!(cut.len(), 1, "{cut:?}");
        assert!(cut[0].starts_with("hosts.csv:3:1: name: 2 fields, but 4 columns: the file may be cut off"), "{cut:?}");
        // At a comma too: the last field is there and empty, those behind it are not there.
        assert_eq!(wrong_of("name,pool,rack,self\nn1,w,").len(), 1);
        let long = wrong_of("name,pool\nn1,w,r1\n");
        assert_eq!(long, ["hosts.csv:2:1: name: 3 fields, but 2 columns"]);
    }

    #[test]
    fn a_head_that_is_not_understood_is_refused_with_its_column() {
        let refused = |text: &str| read(text.as_bytes()).err().unwrap();
        assert!(refused("name,pool,colour\n").starts_with("1:3: there is no column `colour`"));
        assert!(refused("name,pool,name\n").starts_with("1:3: the column `name` is there twice"));
        assert!(refused("name\nn1\n").starts_with("1:1: the column `pool` is missing"));
        assert!(refused("").starts_with("1:1: is empty"));
        assert!(read(b"name,pool\nn1,\xff\n").is_err());
    }
}
