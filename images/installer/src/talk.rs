//! The conversation while the work goes on: a report each second from a thread of its own, and the word to stop.

use crate::client::{Client, ClientError};
use crate::kernel::say;
use protocol::install::{Answer, Failure, InstallStage, REPORT_PATH, Report, WriteCount};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a report goes out.
const EVERY: Duration = Duration::from_secs(1);
/// How long the last word is repeated.
const LAST_WORD_PATIENCE: Duration = Duration::from_secs(30 * 60);
/// Numbers of differing chunks that are told.
const DIFFERING_TOLD: usize = 64;

/// The conversation after hello.
#[derive(Clone, Debug)]
pub struct Talk {
    client: Client,
    session: Arc<str>,
    began: Instant,
    report: Arc<Mutex<Report>>,
    stop: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
}

impl Talk {
    /// Begins to report.
    #[must_use]
    pub fn begin(client: Client, session: &str, began: Instant) -> Self {
        let report = Report {
            stage: InstallStage::Hello,
            since_start_ms: 0,
            done_bytes: 0,
            total_bytes: 0,
            count: None,
            differing: Vec::new(),
            failure: None,
        };
        let talk = Self {
            client,
            session: session.into(),
            began,
            report: Arc::new(Mutex::new(report)),
            stop: Arc::default(),
            over: Arc::default(),
        };
        let speaker = talk.clone();
        std::thread::spawn(move || {
            while !speaker.over.load(Ordering::Relaxed) {
                std::thread::sleep(EVERY);
                if !speaker.over.load(Ordering::Relaxed) {
                    let _ = speaker.send();
                }
            }
        });
        talk
    }

    fn change(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// A stage begins.
    pub fn stage(&self, stage: InstallStage, total_bytes: u64) {
        say(&format!("{stage}"));
        self.change(|report| {
            report.stage = stage;
            report.done_bytes = 0;
            report.total_bytes = total_bytes;
        });
        let _ = self.send();
    }

    /// The stage that was begun last.
    #[must_use]
    pub fn stage_now(&self) -> InstallStage {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).stage
    }

    /// So much more of the stage is done. Whether to go on.
    pub fn done(&self, bytes: u64) -> bool {
        self.change(|report| report.done_bytes = report.done_bytes.saturating_add(bytes));
        !self.stopped()
    }

    /// What the write did so far.
    pub fn count(&self, count: WriteCount, differing: &[u64]) {
        self.change(|report| {
            report.count = Some(count);
            report.differing = differing.iter().take(DIFFERING_TOLD).copied().collect();
        });
    }

    /// Whether the appliance has said to stop.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn send(&self) -> Result<(), ClientError> {
        let report = {
            let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
            report.since_start_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
            report.clone()
        };
        match self.client.post::<Report, Answer>(REPORT_PATH, Some(&self.session), &report) {
            Ok(Answer::Continue) => Ok(()),
            Ok(Answer::Stop { why }) | Err(ClientError::Refused(why)) => {
                if !self.stop.swap(true, Ordering::Relaxed) {
                    say(&format!("told to stop: {why}"));
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The last word: done, or why not. Repeated until it is heard.
    pub fn end(&self, failure: Option<Failure>) {
        self.over.store(true, Ordering::Relaxed);
        self.change(|report| {
            if failure.is_none() {
                report.stage = InstallStage::Done;
            }
            report.failure = failure;
        });
        let until = Instant::now() + LAST_WORD_PATIENCE;
        while Instant::now() < until {
            match self.send() {
                Ok(()) => return,
                Err(error) => say(&format!("the last word was not heard: {error}")),
            }
            std::thread::sleep(Duration::from_secs(2));
        }
    }
}
