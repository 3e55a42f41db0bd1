//! Who talks to the BMC and how: sessions, wrong passwords, and a record of manners for those who check.

use crate::At;
use crate::Millis;
use crate::bmc::message::{BmcError, BmcRequest};
use crate::host::Machine;
use serde::{Deserialize, Serialize};

/// Writes closer together than this count as too close.
const WRITE_SPACING_MS: Millis = 1_000;

/// Ground truth about how the BMC was treated, for checkers. Counts of the whole life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BmcLedger {
    /// Requests that reached it.
    pub requests: u64,
    /// Requests that came while the reply to an earlier one was under way.
    pub overlapping: u64,
    /// Requests that change something.
    pub writes: u64,
    /// Those among them that came less than 1 s after the one before.
    pub writes_too_close: u64,
    /// Requests that change the power.
    pub power_writes: u64,
    /// Boot overrides set.
    pub boot_overrides: u64,
    /// Wrong passwords.
    pub wrong_passwords: u64,
    /// Times that wrong passwords locked it.
    pub lockouts: u64,
    /// Logins refused because no session was free.
    pub sessions_refused: u64,
    /// Most sessions held at once.
    pub sessions_most: u8,
}

/// A session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Session {
    id: u32,
    used_at: At,
}

/// Sessions, lockout and manners.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Access {
    pub(crate) ledger: BmcLedger,
    sessions: Vec<Session>,
    last_session: u32,
    wrong_in_a_row: u32,
    pub(crate) locked_until: At,
    busy_until: At,
    last_write_at: Option<At>,
}

impl Access {
    pub(crate) fn note_request(&mut self, now: At, request: BmcRequest, arrives_at: At) {
        let ledger = &mut self.ledger;
        ledger.requests += 1;
        ledger.overlapping += u64::from(now < self.busy_until);
        self.busy_until = self.busy_until.max(arrives_at);
        ledger.power_writes += u64::from(request.writes_power());
        ledger.boot_overrides += u64::from(matches!(request, BmcRequest::SetBootOnce(_)));
        if request.writes() {
            ledger.writes += 1;
            let close = self.last_write_at.is_some_and(|at| now < at + WRITE_SPACING_MS);
            ledger.writes_too_close += u64::from(close);
            self.last_write_at = Some(now);
        }
    }

    pub(crate) fn note_wrong_password(&mut self, now: At, after: u32, lasts_ms: Millis) {
        self.ledger.wrong_passwords += 1;
        self.wrong_in_a_row += 1;
        if self.wrong_in_a_row >= after.max(1) {
            self.wrong_in_a_row = 0;
            self.ledger.lockouts += 1;
            self.locked_until = now + lasts_ms;
        }
    }

    /// Hands give it a fresh start; what it has seen stays counted.
    pub(crate) fn start_anew(&mut self) {
        self.sessions.clear();
        self.wrong_in_a_row = 0;
        self.locked_until = 0;
    }

    pub(crate) fn forget_sessions(&mut self) {
        self.sessions.clear();
    }
}

impl Machine {
    /// Opens a session at the BMC; `right` says whether the password is right. Returns its number.
    ///
    /// # Errors
    /// Why it opens none.
    pub fn bmc_login(&mut self, at: At, right: bool) -> Result<u32, BmcError> {
        self.advance(at);
        let now = self.at;
        if self.bmc_is_silent(now) {
            return Err(BmcError::Silent);
        }
        if now < self.bmc.access.locked_until {
            return Err(BmcError::Refused);
        }
        if !right || self.bmc.refusing {
            let (after, lasts) = (self.spec.bmc_lockout_after, self.spec.bmc_lockout_ms);
            self.bmc.access.note_wrong_password(now, after, lasts);
            return Err(BmcError::Refused);
        }
        let idle = self.spec.bmc_session_idle_ms;
        let full = self.bmc.sessions_full;
        let access = &mut self.bmc.access;
        access.wrong_in_a_row = 0;
        access.sessions.retain(|s| now < s.used_at + idle);
        if full || access.sessions.len() >= usize::from(self.spec.bmc_sessions_max) {
            access.ledger.sessions_refused += 1;
            return Err(BmcError::Busy);
        }
        access.last_session = access.last_session.wrapping_add(1);
        let id = access.last_session;
        access.sessions.push(Session { id, used_at: now });
        let open = u8::try_from(access.sessions.len()).unwrap_or(u8::MAX);
        access.ledger.sessions_most = access.ledger.sessions_most.max(open);
        Ok(id)
    }

    /// Whether a session is still known; using it keeps it alive.
    pub fn bmc_use_session(&mut self, at: At, session: u32) -> bool {
        self.advance(at);
        let (now, idle) = (self.at, self.spec.bmc_session_idle_ms);
        self.bmc.access.sessions.retain(|s| now < s.used_at + idle);
        let found = self.bmc.access.sessions.iter_mut().find(|s| s.id == session);
        found.is_some_and(|s| {
            s.used_at = now;
            true
        })
    }

    /// Closes a session. Returns whether it was open.
    pub fn bmc_logout(&mut self, at: At, session: u32) -> bool {
        let known = self.bmc_use_session(at, session);
        self.bmc.access.sessions.retain(|s| s.id != session);
        known
    }

    /// The caller gave up the request under way (a fence aborts a running poll): the next one does not overlap it.
    pub fn bmc_abort(&mut self, at: At) {
        self.advance(at);
        self.bmc.access.busy_until = self.at;
    }

    /// Sessions open now, those included that nobody has used for long.
    #[must_use]
    pub fn bmc_sessions(&self) -> usize {
        self.bmc.access.sessions.len()
    }

    /// How the BMC was treated, for checkers.
    #[must_use]
    pub fn bmc_ledger(&self) -> &BmcLedger {
        &self.bmc.access.ledger
    }
}
