//! Where the session of a BMC outlives the process: a controller has few of them, and a process may be killed at any time.

use crate::Secret;
use std::sync::{Mutex, PoisonError};

/// An open session as it is kept. The keeper seals it: who has the token has the BMC.
#[derive(Debug, Clone)]
pub struct KeptSession {
    /// Its resource at the BMC, for its deletion.
    pub link: String,
    /// Its token.
    pub token: Secret,
}

/// Keeps one BMC's session. Calls are short and must not block for long.
pub trait SessionKeeper: Send + Sync {
    /// The session of an earlier process, if there is one.
    fn load(&self) -> Option<KeptSession>;
    /// Called as soon as a session is open, before its first use.
    fn store(&self, session: &KeptSession);
    /// Called when it is closed or dead.
    fn forget(&self);
}

/// Keeps it for the life of the process: a client that is made anew finds the session of the one before.
#[derive(Debug, Default)]
pub struct MemoryKeeper(Mutex<Option<KeptSession>>);

impl SessionKeeper for MemoryKeeper {
    fn load(&self) -> Option<KeptSession> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    fn store(&self, session: &KeptSession) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(session.clone());
    }
    fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Keeps nothing: for a bench, where the session ends with the command.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoKeeper;

impl SessionKeeper for NoKeeper {
    fn load(&self) -> Option<KeptSession> {
        None
    }
    fn store(&self, _: &KeptSession) {}
    fn forget(&self) {}
}
