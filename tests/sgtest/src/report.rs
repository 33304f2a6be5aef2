//! One line per check, a total at the end, and a watchdog: a check that never returns is a failure with a name.

use std::process;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What a check found: nothing to say, or why it failed.
pub type Verdict = Result<(), String>;

#[derive(Debug, Default)]
struct Counts {
    passed: usize,
    failed: usize,
    running: String,
}

/// Prints and counts.
#[derive(Clone, Debug)]
pub struct Report(Arc<Mutex<Counts>>);

impl Report {
    /// Starts counting; after `limit` the process ends, naming the check that hangs.
    #[must_use]
    pub fn with_limit(limit: Duration) -> Self {
        let report = Self(Arc::default());
        let watched = report.clone();
        thread::spawn(move || {
            let end = Instant::now() + limit;
            while let Some(left) = end.checked_duration_since(Instant::now()) {
                thread::sleep(left);
            }
            let name = watched.with(|counts| counts.running.clone());
            watched.record(&name, &Err(format!("not done within the limit of {} s", limit.as_secs())));
            process::exit(watched.finish());
        });
        report
    }

    fn with<T>(&self, f: impl FnOnce(&mut Counts) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs one check and prints its line.
    pub fn check(&self, name: &str, body: impl FnOnce() -> Verdict) {
        self.with(|counts| counts.running = name.to_owned());
        let verdict = body();
        self.record(name, &verdict);
    }

    /// Prints and counts a verdict reached elsewhere.
    pub fn record(&self, name: &str, verdict: &Verdict) {
        self.with(|counts| match verdict {
            Ok(()) => {
                counts.passed += 1;
                println!("ok    {name}");
            }
            Err(why) => {
                counts.failed += 1;
                println!("FAIL  {name}: {why}");
            }
        });
    }

    /// Prints the total; the exit status. No check at all is a failure.
    #[must_use]
    pub fn finish(&self) -> i32 {
        self.with(|counts| {
            println!("{} passed, {} failed", counts.passed, counts.failed);
            i32::from(counts.failed > 0 || counts.passed == 0)
        })
    }
}
