//! Policy: every number of the safety rules, with its default and the bound on its dangerous side.
//!
//! `Policy<Site>` is all that `serve` knows. `Policy<Lab>` (feature `lab`) may shorten waits of start, soak, boot
//! budget, power-cycle spacing and of rules 5 and 6; never the evidence rules 1-3 nor the proof of off.

use crate::time::{DAY, HOUR, MINUTE, SECOND};
use serde::{Deserialize, Serialize};
use std::marker::PhantomData;

/// On which side a number becomes dangerous.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// It must be at least this: a wait, a number of samples.
    AtLeast(u64),
    /// It must be at most this: a budget, a share, an age.
    AtMost(u64),
    /// Both.
    Within(u64, u64),
}

impl Bound {
    fn holds(self, value: u64) -> bool {
        match self {
            Bound::AtLeast(low) => value >= low,
            Bound::AtMost(high) => value <= high,
            Bound::Within(low, high) => (low..=high).contains(&value),
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Bound::AtLeast(low) => write!(f, "at least {low}"),
            Bound::AtMost(high) => write!(f, "at most {high}"),
            Bound::Within(low, high) => write!(f, "from {low} to {high}"),
        }
    }
}

/// One number of the policy.
#[derive(Debug, Clone, Copy)]
pub struct LimitInfo {
    /// Its key in the policy file.
    pub key: &'static str,
    /// The rule it belongs to.
    pub rule: u8,
    /// Its default.
    pub default: u64,
    /// Its bound at a site.
    pub site: Bound,
    /// Its bound in a lab, where that is wider.
    pub lab: Bound,
    /// What it is.
    pub about: &'static str,
    /// Reads it.
    pub get: fn(&Limits) -> u64,
}

macro_rules! limits {
    ($($key:ident = $default:expr, $rule:literal, $site:expr $(, lab $lab:expr)?; $about:literal)*) => {
        /// Every number of the safety rules. Units are in the names: `_ms` milliseconds, `_percent`, `_permille`;
        /// the rest are counts.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Limits {
            $(#[doc = $about] pub $key: u64,)*
        }

        impl Default for Limits {
            fn default() -> Self {
                Limits { $($key: $default,)* }
            }
        }

        impl Limits {
            /// The table of all numbers, in order.
            pub const TABLE: &'static [LimitInfo] = &[$(
                LimitInfo {
                    key: stringify!($key),
                    rule: $rule,
                    default: $default,
                    site: $site,
                    lab: { let bound = $site; $(let bound = { let _ = bound; $lab };)? bound },
                    about: $about,
                    get: |limits| limits.$key,
                },
            )*];
        }
    };
}

use Bound::{AtLeast, AtMost, Within};

limits! {
    samples_min = 3, 1, AtLeast(3); "Samples that each of two planes must show before power is considered."
    kernel_only_ms = MINUTE, 1, AtLeast(MINUTE); "How long a host must answer ICMP only before power is considered."
    kernel_only_samples = 10, 1, AtLeast(10); "Samples of kernel-only before power is considered."
    kernel_only_lease_ms = MINUTE, 1, AtLeast(MINUTE); "Age of the Lease of a kernel-only host before power is considered."
    process_dead_ms = 10 * MINUTE, 1, AtLeast(10 * MINUTE); "NotReady time of a living host before a soft reboot is asked for."
    soft_reboot_ms = 5 * MINUTE, 1, AtLeast(5 * MINUTE); "Deadline of a soft reboot before force-off is allowed."
    control_plane_dead_ms = MINUTE, 1, AtLeast(MINUTE); "How long /readyz and the etcd member of a control-plane host must fail."
    lease_late_ms = 12 * SECOND, 1, AtLeast(12 * SECOND); "Age from which seconds of a late Lease count as samples."
    lease_ready_ms = 20 * SECOND, 1, Within(12 * SECOND, 22 * SECOND); "Age at which a node no longer counts as Ready."
    watch_proof_ms = 12 * SECOND, 1, AtMost(12 * SECOND); "Age of the last proof that the watch lives."
    last_look_ms = 3 * SECOND, 1, AtMost(3 * SECOND); "Time for the last look."
    last_look_slow_ms = 15 * SECOND, 1, AtMost(15 * SECOND); "Time for the last look with a slow BMC."
    command_age_ms = 3 * SECOND, 1, AtMost(3 * SECOND); "Age of the last answer of the last look when the command goes."
    lease_expired_ms = 40 * SECOND, 3, AtLeast(40 * SECOND); "A Lease renewed within this forbids power."
    lease_overdue_ms = 22 * SECOND, 3, AtLeast(22 * SECOND); "The same for a silent, linked host with good own sight and quiet history."
    silent_ms = 12 * SECOND, 3, AtLeast(12 * SECOND); "Silence that lets the shorter Lease age suffice."
    benign_silence_ms = 15 * SECOND, 3, AtMost(15 * SECOND); "A benign silence in the host's history above this lengthens the wait."
    benign_factor_percent = 150, 3, AtLeast(150); "By how much of the longest benign silence."
    benign_cap_ms = MINUTE, 3, AtLeast(MINUTE); "At most this long."
    sight_age_ms = 10 * SECOND, 4, AtMost(10 * SECOND); "Age of own sight when it is used."
    blind_bmc_percent = 50, 4, AtMost(50); "Share of BMCs gone dumb that makes us blind."
    blind_bmc_min = 3, 4, AtMost(3); "And at least so many."
    blind_hosts_min = 3, 4, AtMost(3); "Everybody silent among at least so many hosts is blindness."
    domain_window_ms = 10 * SECOND, 5, AtLeast(10 * SECOND); "A whole domain silent within this is an outage of the domain."
    domain_wait_ms = 15 * MINUTE, 5, AtLeast(15 * MINUTE), lab AtLeast(5 * SECOND); "No power in such a domain for this long."
    storm_percent = 30, 5, AtMost(30); "Share of bad nodes that freezes a cluster."
    storm_min = 3, 5, AtMost(3); "And at least so many."
    pair_window_ms = MINUTE, 5, AtLeast(MINUTE); "Two onsets in a domain within this are correlated."
    pair_percent = 10, 5, AtMost(10); "And at least this share of the domain."
    pair_wait_ms = 2 * MINUTE, 5, AtLeast(2 * MINUTE), lab AtLeast(5 * SECOND); "Wait before the canary."
    freeze_clear_ms = MINUTE, 6, AtLeast(MINUTE), lab AtLeast(5 * SECOND); "A storm must be below its share for this long."
    freeze_stable_ms = 15 * MINUTE, 6, AtLeast(15 * MINUTE), lab AtLeast(5 * SECOND); "Or the bad set unchanged for this long."
    after_freeze_ms = 2 * MINUTE, 6, AtLeast(2 * MINUTE), lab AtLeast(5 * SECOND); "No disruptive action for this long after a freeze."
    api_unreachable_ms = 15 * SECOND, 7, AtLeast(15 * SECOND); "VIP and all endpoints silent for this long is an unreachable API."
    flap_points = 3, 8, AtMost(3); "Turns to bad that make a host flapping."
    flap_decay_ms = 10 * MINUTE, 8, AtLeast(10 * MINUTE); "One point is forgiven per this."
    heals_day_max = 2, 8, AtMost(6); "Heals in 24 h after which a host stays cordoned."
    heals_week_max = 4, 8, AtMost(12); "Heals in 7 days after which a host stays cordoned."
    boot_budget_ms = 15 * MINUTE, 9, AtLeast(15 * MINUTE), lab AtLeast(20 * SECOND); "Time from the first boot of an incident to Ready."
    boot_factor_percent = 150, 9, AtLeast(150); "Learned p99 of boot times this."
    boot_loop_count = 3, 9, AtMost(9); "Boots that make a loop."
    boot_loop_window_ms = 30 * MINUTE, 9, AtLeast(30 * MINUTE); "Within this."
    concurrent_percent = 10, 11, AtMost(30); "Share of workers under disruptive action at once, at least one host."
    ready_min_percent = 50, 12, AtLeast(50); "Share of schedulable nodes that stays Ready."
    rate_10min = 3, 13, AtMost(9); "Disruptive actions per 10 min, fleet-wide."
    rate_10min_permille = 1, 13, AtMost(3); "Or this share of all hosts."
    rate_hour = 10, 13, AtMost(30); "Disruptive actions per hour, fleet-wide."
    rate_hour_permille = 5, 13, AtMost(15); "Or this share of all hosts."
    rate_hour_cap = 60, 13, AtMost(60); "Never more per hour."
    breaker_failures = 3, 13, AtMost(3); "Failed heals in a row that trip the breaker."
    cycle_spacing_ms = 15 * MINUTE, 14, AtLeast(15 * MINUTE), lab AtLeast(5 * SECOND); "Between two power cycles of a host."
    cycles_day_max = 3, 14, AtMost(9); "Power cycles of a host in 24 h."
    reimages_day_max = 1, 14, AtMost(3); "Reimages of a host in 24 h."
    reimages_week_max = 2, 14, AtMost(6); "Reimages of a host in 7 days."
    installs_max = 2, 14, AtMost(2); "Installs inside one permitted reimage."
    power_steps_max = 6, 14, AtMost(6); "Power steps inside one permitted reimage or replacement."
    version_failures_max = 2, 15, AtMost(2); "Failures after the same version that stop destructive actions."
    spare_reserve = 1, 16, AtLeast(1); "Spares kept back from workers, if there are more."
    etcd_age_ms = 10 * SECOND, 18, AtMost(10 * SECOND); "Age of the member read."
    member_down_ms = MINUTE, 18, AtLeast(MINUTE); "How long a silent host's member must be down."
    small_plane_ms = 3 * MINUTE, 18, AtLeast(3 * MINUTE); "Good sight before a control plane of one or two acts."
    foreign_action_ms = 30 * MINUTE, 19, AtLeast(30 * MINUTE); "Others' control-plane actions count for this long."
    off_gap_ms = 2 * SECOND, 23, AtLeast(2 * SECOND); "Between two Off reads after our command."
    found_off_gap_ms = 10 * SECOND, 23, AtLeast(10 * SECOND); "Between two Off reads of a host found off."
    proof_age_ms = 30 * SECOND, 23, AtMost(30 * SECOND); "A proof of off is valid for this long."
    release_ms = 2 * MINUTE, 25, AtLeast(2 * MINUTE); "Host stays off until released, or this long."
    hold_off_ms = 10 * MINUTE, 25, AtMost(30 * MINUTE); "Held off at most this long while the API is unreachable."
    taint_tail_ms = MINUTE, 26, AtMost(MINUTE); "The taint never outlives its incident by more."
    reread_ms = 10 * SECOND, 27, AtMost(10 * SECOND); "An unfenced host's BMC is read this often."
    reread_fast_ms = 10 * MINUTE, 27, AtLeast(10 * MINUTE); "For this long, then each minute."
    proof_not_before_ms = 5 * SECOND, 29, AtLeast(5 * SECOND); "Proof comes no earlier after the first Off."
    off_watch_ms = 15 * SECOND, 29, AtLeast(15 * SECOND); "An answer, or another host's silence, within this of our off is an alarm."
    effect_ms = MINUTE, 30, AtMost(MINUTE); "Accepted without effect for this long has failed."
    ac_stable_ms = 2 * MINUTE, 31, AtLeast(2 * MINUTE); "Power must be back for this long before a host lost to AC is started."
    action_spacing_ms = SECOND, 32, AtLeast(SECOND); "Between two writes to a BMC."
    mark_ms = 2 * MINUTE, 33, AtLeast(2 * MINUTE); "A closed connection followed by silence within this is a reboot."
    ticket_ms = 30 * MINUTE, 35, AtMost(30 * MINUTE); "A boot ticket waits this long for its first hello."
    progress_ms = 5 * MINUTE, 35, AtMost(5 * MINUTE); "A reporting job may be silent this long."
    job_ms = 2 * HOUR, 35, AtMost(2 * HOUR); "A job lives at most this long."
    credential_ms = 15 * MINUTE, 40, AtMost(30 * MINUTE); "Life of a join credential."
    soak_ms = 5 * MINUTE, 42, AtLeast(5 * MINUTE), lab AtLeast(5 * SECOND); "Ready for this long before a host returns."
    component_soak_ms = MINUTE, 42, AtLeast(MINUTE), lab AtLeast(5 * SECOND); "The same after a component restart."
    spare_proof_ms = 7 * DAY, 43, AtMost(7 * DAY); "Age of a spare's last proof."
    spare_prove_again_ms = 3 * DAY, 43, Within(HOUR, 3 * DAY); "A spare is proven again this long after its last proof, whatever that showed."
    start_observe_ms = 2 * MINUTE, 45, AtLeast(2 * MINUTE), lab AtLeast(5 * SECOND); "Observe-only after start."
    lease_margin_ms = 10 * SECOND, 46, AtLeast(10 * SECOND); "No power write within this of the appliance lease's end."
    stall_ms = 2 * SECOND, 47, AtMost(2 * SECOND); "A loop or prober that did not run for longer voids all evidence."
    clock_apart_ms = 5 * SECOND, 47, AtMost(5 * SECOND); "Clocks apart by more void all evidence."
    drained_ms = 500, 47, AtMost(500); "A miss counts only if the receiver was drained within this."
    marks_page_ms = 2 * HOUR, 50, AtMost(6 * HOUR); "Others' marks on a dead host older than this page a human."
    cmdb_age_ms = DAY, 50, AtMost(DAY); "Age of the last CMDB state that is used when it is unreachable."
    approval_ms = 15 * MINUTE, 51, AtMost(45 * MINUTE); "An approval expires after this."
    component_restarts_max = 3, 53, AtMost(9); "Component restarts of a host within the window."
    component_window_ms = 30 * MINUTE, 53, AtLeast(30 * MINUTE); "That window."
    page_ms = 10 * MINUTE, 55, AtMost(30 * MINUTE); "No incident is silent for longer."
    cold_start_ms = 2 * HOUR, 58, AtMost(6 * HOUR); "A cold start stays armed for at most this."
    cold_start_gap_ms = 5 * SECOND, 58, AtLeast(5 * SECOND); "Between two power-ons on one PDU."
    cold_start_settle_ms = 10 * MINUTE, 58, AtLeast(10 * MINUTE); "Other rungs stay disarmed this long after the API is ready."
    step_ms = 2 * MINUTE, 55, Within(30 * SECOND, 10 * MINUTE); "An executor that has not answered within this is asked again by re-observing."
    retry_ms = 5 * SECOND, 55, Within(SECOND, MINUTE); "How often a waiting incident is looked at again."
    component_cure_ms = 20 * SECOND, 53, Within(5 * SECOND, 5 * MINUTE); "How long a restarted component gets to come back."
}

/// A number beyond its bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutOfBound {
    /// The key.
    pub key: &'static str,
    /// Its value.
    pub value: u64,
    /// What it must be.
    pub bound: Bound,
    /// The rule it belongs to.
    pub rule: u8,
}

impl std::fmt::Display for OutOfBound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} = {} is beyond its bound: it must be {} (safety rule {}); correct the number or leave the key out for the default",
            self.key, self.value, self.bound, self.rule
        )
    }
}

/// A kind of policy: which bounds hold.
pub trait Kind: Copy + std::fmt::Debug {
    /// The bound of a number under this kind.
    fn bound(info: &LimitInfo) -> Bound;
}

/// The policy of a site. The only kind that the server knows.
#[derive(Debug, Clone, Copy)]
pub struct Site;

impl Kind for Site {
    fn bound(info: &LimitInfo) -> Bound {
        info.site
    }
}

/// The policy of a lab: shorter waits, for emulated hosts only.
#[cfg(feature = "lab")]
#[derive(Debug, Clone, Copy)]
pub struct Lab;

#[cfg(feature = "lab")]
impl Kind for Lab {
    fn bound(info: &LimitInfo) -> Bound {
        info.lab
    }
}

/// Checked numbers: exists only if every one is within its bound.
#[derive(Debug, Clone)]
pub struct Policy<K: Kind> {
    limits: Limits,
    kind: PhantomData<K>,
}

impl<K: Kind> Policy<K> {
    /// Checks numbers against the bounds of this kind.
    ///
    /// # Errors
    /// Every number beyond its bound, in the order of the table.
    pub fn check(limits: Limits) -> Result<Policy<K>, Vec<OutOfBound>> {
        let beyond: Vec<OutOfBound> = Limits::TABLE
            .iter()
            .filter_map(|info| {
                let value = (info.get)(&limits);
                let bound = K::bound(info);
                (!bound.holds(value)).then_some(OutOfBound { key: info.key, value, bound, rule: info.rule })
            })
            .collect();
        if beyond.is_empty() { Ok(Policy { limits, kind: PhantomData }) } else { Err(beyond) }
    }

    /// The numbers.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }
}

impl Default for Policy<Site> {
    fn default() -> Self {
        Policy { limits: Limits::default(), kind: PhantomData }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_within_every_bound() {
        assert!(Policy::<Site>::check(Limits::default()).is_ok());
    }

    #[test]
    fn a_number_on_the_dangerous_side_is_refused_with_its_key() {
        let limits = Limits { samples_min: 2, storm_percent: 60, ..Limits::default() };
        let beyond = Policy::<Site>::check(limits).unwrap_err();
        assert_eq!(beyond.iter().map(|b| b.key).collect::<Vec<_>>(), ["samples_min", "storm_percent"]);
        assert!(beyond[0].to_string().contains("at least 3"));
    }

    #[cfg(feature = "lab")]
    #[test]
    fn a_lab_shortens_waits_but_never_the_evidence_or_the_proof() {
        let short = Limits { soak_ms: 5 * SECOND, start_observe_ms: 5 * SECOND, ..Limits::default() };
        assert!(Policy::<Lab>::check(short.clone()).is_ok());
        assert!(Policy::<Site>::check(short).is_err());
        for info in Limits::TABLE.iter().filter(|i| matches!(i.rule, 1..=3 | 23..=31)) {
            assert_eq!(info.lab, info.site, "{}", info.key);
        }
    }
}
