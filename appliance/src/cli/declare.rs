//! `rackmedic apply` and `rackmedic export`: the register as a file.

use super::Usage;
use super::output::{Exit, Format, data, json, talk};
use super::socket::{Appliance, SaidNo};
use crate::server::resources::{Applied, Declaration, EntryKind, HostEntry, HostGiven, PoolEntry, Wrong};
use anyhow::Context as _;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_saphyr::Spanned;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// A file of declarations at most.
const FILE_BYTES_MAX: u64 = 32 << 20;
/// A file with a password at most.
const PASSWORD_BYTES_MAX: u64 = 4_096;

/// `rack.yaml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RackFile {
    #[serde(default)]
    pools: Vec<Spanned<PoolEntry>>,
    #[serde(default)]
    hosts: Vec<Spanned<HostEntry>>,
}

/// What `export` prints.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Exported {
    pools: Vec<PoolEntry>,
    pub(super) hosts: Vec<HostEntry>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "All of a file is taken, or nothing; applied again it changes nothing. What is left out of the file stays as it is.\nPasswords are read from the files that are named, relative to this one, sealed by the appliance and never shown again.\nExit codes: 0 done, 1 not done, 2 the file is wrong (each place is named), 3 a rule forbids it."
)]
pub(super) struct Apply {
    /// The file.
    #[arg(short, long, value_name = "rack.yaml")]
    file: PathBuf,
    /// Say what would change, and change nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    appliance: Appliance,
    /// How the result is written.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Debug, Args)]
pub(super) struct Export {
    #[command(flatten)]
    appliance: Appliance,
    /// How it is written: YAML that `apply` takes, or JSON.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

impl Apply {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let text = limited(&self.file, FILE_BYTES_MAX)?;
        let text = String::from_utf8(text).map_err(|_| Usage(format!("{}: is no UTF-8 text", self.file.display())))?;
        let file: RackFile = serde_saphyr::from_str(&text).map_err(|why| {
            let at = why.location().map(|at| format!("{}:{}:", at.line(), at.column())).unwrap_or_default();
            Usage(format!("{}:{at} {}", self.file.display(), plain(&why)))
        })?;
        let places = Places::of(&text, &file);
        let base = self.file.parent().unwrap_or(Path::new(""));
        let mut hosts = Vec::new();
        let mut wrong = Vec::new();
        for (index, host) in file.hosts.into_iter().enumerate() {
            let entry = host.value;
            let bmc = entry.bmc.as_ref().and_then(|bmc| bmc.password_file.as_ref());
            let bmc_password = read_secret(base, bmc, "bmc.password_file", index, &mut wrong);
            let outlets = entry.outlets.as_ref().and_then(|outlets| outlets.password_file.as_ref());
            let outlets_password = read_secret(base, outlets, "outlets.password_file", index, &mut wrong);
            hosts.push(HostGiven { entry, bmc_password, outlets_password });
        }
        let refused = |all: &[Wrong]| {
            let lines: Vec<String> = all.iter().map(|one| places.line(&self.file, one)).collect();
            Usage(lines.join("\n"))
        };
        if !wrong.is_empty() {
            return Err(refused(&wrong).into());
        }
        let pools = file.pools.into_iter().map(|pool| pool.value).collect();
        let declaration = Declaration { pools, hosts, dry_run: self.dry_run };
        let applied = match self.appliance.post::<Applied>("/control/v1/apply", &declaration) {
            Err(error) => match error.downcast::<SaidNo>() {
                Ok(SaidNo(problem)) if !problem.errors.is_empty() => return Err(refused(&problem.errors).into()),
                Ok(other) => return Err(other.into()),
                Err(error) => return Err(error),
            },
            Ok(applied) => applied,
        };
        show(&applied, self.output)?;
        Ok(Exit::Ok)
    }
}

/// Says what became of a declaration.
pub(super) fn show(applied: &Applied, output: Format) -> anyhow::Result<()> {
    if output == Format::Json {
        return Ok(json(applied)?);
    }
    let mut text = String::new();
    for one in &applied.changed {
        let kind = match one.kind {
            EntryKind::Pool => "pool",
            EntryKind::Host => "host",
        };
        let what = if one.added { "added" } else { "changed" };
        text.push_str(&format!("{kind} {} {what}\n", one.name));
    }
    let nothing = if applied.dry_run { "; this was a dry run, nothing was written" } else { "" };
    text.push_str(&format!("{} changed, {} unchanged{nothing}\n", applied.changed.len(), applied.unchanged));
    Ok(data(&text)?)
}

/// The first words of what the parser says: the rest is a picture of the file.
fn plain(why: &serde_saphyr::Error) -> String {
    let text = why.without_snippet().to_string();
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let first = first.split(", expected one of").next().unwrap_or(first);
    first.trim_start_matches("error: ").to_owned()
}

/// Reads a file up to a size.
pub(super) fn limited(path: &Path, bytes_max: u64) -> anyhow::Result<Vec<u8>> {
    let cannot = |why: std::io::Error| Usage(format!("{}: {why}", path.display()));
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(cannot)?.take(bytes_max + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > bytes_max {
        return Err(Usage(format!("{}: longer than {bytes_max} bytes", path.display())).into());
    }
    Ok(bytes)
}

/// The password in the first line of a file. What is wrong names the file, never what is in it.
pub(super) fn read_secret(
    base: &Path,
    file: Option<&String>,
    field: &str,
    index: usize,
    wrong: &mut Vec<Wrong>,
) -> Option<String> {
    let path = base.join(file?);
    let mut tell = |what: String| {
        wrong.push(Wrong { kind: EntryKind::Host, index, field: field.to_owned(), what });
    };
    let bytes = match limited(&path, PASSWORD_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(why) => {
            tell(why.to_string());
            return None;
        }
    };
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match std::str::from_utf8(line) {
        Ok("") => tell(format!("{}: the password is empty", path.display())),
        Ok(password) => return Some(password.to_owned()),
        Err(_) => tell(format!("{}: the password is no UTF-8 text", path.display())),
    }
    None
}

/// Where the entries of a file stand.
struct Places<'a> {
    lines: Vec<&'a str>,
    pools: Vec<(usize, usize)>,
    hosts: Vec<(usize, usize)>,
}

impl<'a> Places<'a> {
    fn of(text: &'a str, file: &RackFile) -> Places<'a> {
        let at = |line: u64, column: u64| {
            (usize::try_from(line).unwrap_or_default(), usize::try_from(column).unwrap_or_default())
        };
        Places {
            lines: text.lines().collect(),
            pools: file.pools.iter().map(|one| at(one.defined.line(), one.defined.column())).collect(),
            hosts: file.hosts.iter().map(|one| at(one.defined.line(), one.defined.column())).collect(),
        }
    }

    /// One thing that is wrong, with the line of its key; of what is missing, the line of its entry.
    fn line(&self, path: &Path, wrong: &Wrong) -> String {
        let list = match wrong.kind {
            EntryKind::Pool => &self.pools,
            EntryKind::Host => &self.hosts,
        };
        let (mut line, mut column) = list.get(wrong.index).copied().unwrap_or((1, 1));
        let end = list.get(wrong.index + 1).map_or(self.lines.len() + 1, |(next, _)| *next);
        for key in wrong.field.split('.') {
            let below = (line..end).find_map(|number| {
                let text = self.lines.get(number.checked_sub(1)?)?;
                let at = text.find(&format!("{key}:"))?;
                // A key, not the end of another one or a word in a value.
                let before = text.get(..at)?;
                let free = before.chars().all(|c| matches!(c, ' ' | '-' | '{' | '"' | '\''))
                    || before.ends_with([' ', '{', ',']);
                free.then(|| (number, before.chars().count() + 1))
            });
            match below {
                Some(place) => (line, column) = place,
                None => break,
            }
        }
        format!("{}:{line}:{column}: {}: {}", path.display(), wrong.field, wrong.what)
    }
}

impl Export {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let exported: Exported = self.appliance.get("/control/v1/export")?;
        match self.output {
            Format::Json => json(&exported)?,
            Format::Table => {
                let yaml = serde_saphyr::to_string(&exported).context("the register cannot be written as YAML")?;
                let note = "# Passwords are never exported: an appliance that has them keeps them when this is applied;\n\
                            # for another one name each BMC's password_file.\n";
                data(&format!("{note}{yaml}"))?;
            }
        }
        talk("passwords are not exported");
        Ok(Exit::Ok)
    }
}
