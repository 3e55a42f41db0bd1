//! The sixty safety rules: who owns each, where it is enforced, where it is checked, and whether a switch can break just
//! it. `docs/SAFETY.md` shows this table; a test keeps the two equal and complete.

use healing::rules::Rule;

/// Who owns a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The decision core.
    Core,
    /// The step machines.
    Steps,
    /// The loop and the store.
    Loop,
    /// Work that is still to come; the number is its issue.
    Later(u8),
}

impl Owner {
    /// Its name in the table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Owner::Core => "healing (decisions)",
            Owner::Steps => "healing (step machines)",
            Owner::Loop => "appliance (loop, store)",
            Owner::Later(3) => "bmc",
            Owner::Later(4) => "pxe, installer",
            Owner::Later(_) => "appliance (server)",
        }
    }

    /// The issue that brings it.
    #[must_use]
    pub fn issue(self) -> u8 {
        match self {
            Owner::Core | Owner::Steps | Owner::Loop => 2,
            Owner::Later(issue) => issue,
        }
    }
}

/// One rule.
#[derive(Debug, Clone, Copy)]
pub struct RuleInfo {
    /// Its number.
    pub rule: Rule,
    /// What it forbids, in a few words.
    pub title: &'static str,
    /// Its owner.
    pub owner: Owner,
    /// The file that enforces it.
    pub enforced: &'static str,
    /// The file that checks it.
    pub checked: &'static str,
}

impl RuleInfo {
    /// Rules owned by core or step machines have a switch that breaks just them.
    #[must_use]
    pub fn has_switch(&self) -> bool {
        matches!(self.owner, Owner::Core | Owner::Steps)
    }
}

const CORE: &str = "appliance/core/src/";
const SIM: &str = "appliance/sim/src/checks/";

/// The path of a file in the table.
#[must_use]
pub fn path(short: &str) -> String {
    match short.split_once(':') {
        Some(("core", file)) => format!("{CORE}{file}"),
        Some(("checks", file)) => format!("{SIM}{file}"),
        _ => short.to_owned(),
    }
}

macro_rules! rules {
    ($($number:literal $owner:ident$(($issue:literal))? $title:literal, $enforced:literal, $checked:literal;)*) => {
        /// All sixty, in order.
        pub const RULES: &[RuleInfo] = &[$(RuleInfo {
            rule: Rule($number),
            title: $title,
            owner: Owner::$owner$(($issue))?,
            enforced: $enforced,
            checked: $checked,
        },)*];
    };
}

rules! {
    1 Core "No disruptive action on fewer than two planes with three samples each; longer times for hosts that still answer; a last look before the command", "core:gate/evidence.rs", "checks:evidence.rs";
    2 Core "One plane alone never triggers power", "core:gate/evidence.rs", "checks:evidence.rs";
    3 Core "No power on a node whose Lease or boot is young", "core:gate/evidence.rs", "checks:evidence.rs";
    4 Core "Nobody is acted on while our own sight is in doubt", "core:gate/evidence.rs", "checks:evidence.rs";
    5 Core "Correlated loss freezes a cluster, or waits for one canary in a domain", "core:gate/scope.rs", "checks:evidence.rs";
    6 Core "A freeze ends slowly, and evidence from before it does not count", "core:scope_watch.rs", "checks:evidence.rs";
    7 Core "With the API unreachable workers are left alone", "core:gate/scope.rs", "checks:evidence.rs";
    8 Core "Flapping hosts are powered by approval; hosts healed too often stay cordoned", "core:gate/people.rs", "checks:evidence.rs";
    9 Core "A node never seen healthy, or within its boot budget, is not failed; a boot loop is not power-cycled", "core:diagnose.rs", "checks:evidence.rs";
    10 Loop "Each decision stores its evidence and can be replayed", "appliance/src/decide_loop/group.rs", "appliance/src/cli/replay.rs";
    11 Core "At once a tenth of the workers, one host per domain and chassis", "core:gate/budget.rs", "checks:budgets.rs";
    12 Core "A host that answers is not taken down if fewer than half would stay Ready", "core:gate/budget.rs", "checks:budgets.rs";
    13 Core "The fleet's rate, and a breaker that a human resets", "core:gate/budget.rs", "checks:budgets.rs";
    14 Core "How often one host is cycled and reimaged, reserved before the effect", "core:gate/budget.rs", "checks:budgets.rs";
    15 Core "Two failures with a version stop destructive actions with it", "core:gate/budget.rs", "checks:budgets.rs";
    16 Core "A reserve of spares is kept", "core:gate/budget.rs", "checks:budgets.rs";
    17 Core "Unknown budget state is no budget; no target means nobody", "core:gate/people.rs", "checks:budgets.rs";
    18 Core "Never below the etcd quorum", "core:gate/control_plane.rs", "checks:planes.rs";
    19 Core "One control-plane action at a time, others' included", "core:gate/control_plane.rs", "checks:planes.rs";
    20 Core "An etcd member is removed by ID, its host off, quorum holding; no reimage while it is listed", "core:heal/reimage.rs", "checks:planes.rs";
    21 Core "A control plane of one or two is reimaged by approval only", "core:gate/control_plane.rs", "checks:planes.rs";
    22 Core "Without etcd access control-plane rungs end at the power cycle", "core:gate/control_plane.rs", "checks:planes.rs";
    23 Core "Workloads are released only after proven off", "core:fence.rs", "checks:fencing.rs";
    24 Steps "Before proof only a cordon", "core:perform/sequence.rs", "checks:fencing.rs";
    25 Steps "Off until released, untainted before on, never off for long without the API", "core:perform/release.rs", "checks:fencing.rs";
    26 Steps "The taint never outlives its incident", "core:perform/release.rs", "checks:fencing.rs";
    27 Core "Off not provable releases nothing", "core:heal/power.rs", "checks:fencing.rs";
    28 Core "Storage hosts: not while redundancy is reduced, one per system, stronger rungs by approval", "core:gate/storage.rs", "checks:fencing.rs";
    29 Steps "Identity is read live before each power write; a speaking host behind an Off freezes all power", "core:perform/off.rs", "checks:fencing.rs";
    30 Steps "Read before write, read back after", "core:perform/on.rs", "checks:fencing.rs";
    31 Core "Found off: on again by itself only after AC loss or a fault; others' changes stop us", "core:heal/power_on.rs", "checks:fencing.rs";
    32 Later(3) "One request per BMC, spaced writes, one wrong password", "redfish/src/discipline.rs", "redfish/emulator/tests/stations.rs";
    33 Steps "No power during firmware tasks, POST or an orderly reboot", "core:perform/off.rs", "checks:evidence.rs";
    34 Steps "Boot order is one-shot and read back", "core:perform/sequence.rs", "checks:fencing.rs";
    35 Later(4) "Boot answers need an unexpired ticket", "", "";
    36 Core "Reimage only proven off, released, on a named disk", "core:heal/reimage.rs", "checks:fencing.rs";
    37 Later(4) "Other disks are never written; foreign data blocks", "", "";
    38 Core "A ticket installs once; two failed installs end it", "core:heal/reimage.rs", "checks:fencing.rs";
    39 Later(4) "Images are checked against a signed manifest", "", "";
    40 Steps "Join credentials are minted late and for one node", "core:perform/sequence.rs", "checks:fencing.rs";
    41 Core "A name is reused only after the old identity is gone", "core:heal/power.rs", "checks:fencing.rs";
    42 Core "Back in service only with a new boot, a soak and a canary", "core:heal/back.rs", "checks:healing_end.rs";
    43 Core "Spares are proven every three days and used only with a fresh proof; the replaced host is quarantined and stays off", "core:gate/budget.rs", "checks:spares.rs";
    44 Loop "Intent is durable before any effect; a kill at any point ends the same", "appliance/src/decide_loop/group.rs", "appliance/tests/loop_kill/main.rs";
    45 Core "After a start two minutes of looking; a host held off is completed safely", "core:gate/people.rs", "checks:people.rs";
    46 Core "One appliance owns a site by a lease", "core:gate/people.rs", "checks:fencing.rs";
    47 Core "A stall or clock step voids all evidence", "core:decide/site.rs", "checks:people.rs";
    48 Core "A failing store means observe-only", "core:decide/site.rs", "checks:people.rs";
    49 Core "A pause stops unsent steps within a second and strands nobody", "core:gate/people.rs", "checks:people.rs";
    50 Core "Others' marks, windows, upgrades and the CMDB forbid disruption", "core:gate/people.rs", "checks:people.rs";
    51 Core "An approval is bound to what was seen, and expires", "core:gate/people.rs", "checks:people.rs";
    52 Core "A new cluster observes until a person arms it", "core:gate/people.rs", "checks:people.rs";
    53 Core "Component restarts are few and useful", "core:gate/component.rs", "checks:people.rs";
    54 Core "A runtime restart that kills containers needs consent", "core:gate/component.rs", "checks:people.rs";
    55 Core "No incident is silent for more than ten minutes", "core:heal/mod.rs", "checks:healing_end.rs";
    56 Loop "Hash-chained audit without secrets; the blocking rule is named", "appliance/src/store/audit.rs", "appliance/tests/store_audit.rs";
    57 Later(5) "Times to detect, prove, release and recover are exported", "appliance/src/server/stages.rs", "appliance/tests/serve/main.rs";
    58 Core "Cold start: by a person, in order, one power-on per PDU every 5 s", "core:heal/start_cold.rs", "checks:people.rs";
    59 Core "Hosts that carry the appliance are never acted on", "core:gate/people.rs", "checks:people.rs";
    60 Later(5) "Manual power goes by the same journal, lease and identity check", "appliance/src/cli/bmc/place.rs", "appliance/tests/bmc_registered.rs";
}

/// A rule by number.
#[must_use]
pub fn info(rule: Rule) -> Option<&'static RuleInfo> {
    RULES.iter().find(|info| info.rule == rule)
}

/// The table as it stands in `docs/SAFETY.md`.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(
        "| rule | what it says | owner | enforced where | checked where | switch | issue |\n|---|---|---|---|---|---|---|\n",
    );
    for info in RULES {
        let place = |short: &str| if short.is_empty() { "to come".to_owned() } else { format!("`{}`", path(short)) };
        let switch = if info.has_switch() { format!("`--break {}`", info.rule.0) } else { "–".to_owned() };
        text.push_str(&format!(
            "| {} | {} | {} | {} | {} | {switch} | {} |\n",
            info.rule.0,
            info.title,
            info.owner.name(),
            place(info.enforced),
            place(info.checked),
            info.owner.issue(),
        ));
    }
    text
}
