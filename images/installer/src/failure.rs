//! How an install ends before its end: a stage, a code, a sentence.

use protocol::disk::Disk;
use protocol::install::{Failure, FailureCode, InstallStage};

/// What goes up through the installer.
#[derive(Debug)]
pub struct Failed(pub Box<Failure>);

impl Failed {
    /// A failure before anything was written.
    pub fn new(stage: InstallStage, code: FailureCode, sentence: impl Into<String>) -> Self {
        let (sentence, candidates) = (sentence.into(), Vec::new());
        Self(Box::new(Failure { stage, code, sentence, candidates, disk_touched: stage >= InstallStage::Write }))
    }

    /// With the disks that could have been meant.
    #[must_use]
    pub fn with_candidates(mut self, candidates: Vec<Disk>) -> Self {
        self.0.candidates = candidates;
        self
    }
}
