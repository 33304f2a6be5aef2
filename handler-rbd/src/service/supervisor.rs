//! What the service manager (systemd) hears of us: ready, stopping, what we do, and that nothing stands still.
//!
//! Its watchdog is fed only while every thread that must not stand still comes round: each device's loop and the
//! netlink thread count ("beat") every few seconds, also when idle. One that does not is named in the log, and the
//! food is withheld until it moves; then we are killed and started anew, which the devices survive. Without a manager
//! the log is all that happens.

use sd_notify::NotifyState;
use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

/// A thread that has not come round for so long is stuck. They come round every 5 s.
pub const STUCK: Duration = Duration::from_secs(15);
/// Longest time between two looks.
const LOOK: Duration = Duration::from_secs(5);
/// What ending takes beside the commands in progress: images are closed.
const CLOSING: Duration = Duration::from_secs(30);

/// After a failure the process ends no sooner: a manager starts it again at once.
const PAUSE: Duration = Duration::from_secs(2);

/// The threads watched, by name, and how far each has counted.
pub type Beats = Vec<(String, u64)>;

/// Tells the service manager how we are.
#[derive(Debug)]
pub struct Supervisor {
    watchdog: Option<Duration>,
    watch: Watch,
    status: String,
}

impl Supervisor {
    /// For the manager that the environment names, if any.
    pub fn new() -> Self {
        Self { watchdog: sd_notify::watchdog_enabled(), watch: Watch::new(STUCK), status: String::new() }
    }

    /// How long to wait between two calls of [`Supervisor::look`]: the manager wants to hear from us thrice in its time.
    pub fn interval(&self) -> Duration {
        self.watchdog.map_or(LOOK, |watchdog| (watchdog / 3).min(LOOK))
    }

    /// Events and D-Bus calls are answered from here on; images may still be opening.
    pub fn ready(&mut self, status: String) {
        tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
        self.status = status;
    }

    /// A reload has begun.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(error) => tracing::debug!(%error, "no clock"),
        }
    }

    /// The reload is over.
    pub fn reloaded(&self) {
        tell(&[NotifyState::Ready]);
    }

    /// Looks whether everything moves, and feeds the watchdog if so.
    pub fn look(&mut self, now: Instant, beats: Beats, status: String) {
        let stuck = self.watch.stuck(now, beats);
        let mut states = Vec::with_capacity(2);
        if !stuck.is_empty() {
            let names = stuck.join(", ");
            let consequence =
                if self.watchdog.is_some() { "; systemd restarts us unless it goes on" } else { "" };
            if self.watch.is_news() {
                tracing::error!("stuck for {} s: {names}{consequence}", STUCK.as_secs());
            }
            self.status = format!("stuck: {names}");
            return tell(&[NotifyState::Status(&self.status)]);
        }
        if self.watchdog.is_some() {
            states.push(NotifyState::Watchdog);
        }
        let changed = status != self.status;
        self.status = status;
        if changed {
            states.push(NotifyState::Status(&self.status));
        }
        if !states.is_empty() {
            tell(&states);
        }
    }

    /// The end has begun, and may take so long and a little.
    pub fn stopping(&self, drain: Duration) {
        let usec = u32::try_from((drain + CLOSING).as_micros()).unwrap_or(u32::MAX);
        let status = NotifyState::Status("completing the commands in progress");
        tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(usec), status]);
    }

    /// While ending: not stuck, though devices no longer count.
    pub fn alive(&self) {
        if self.watchdog.is_some() {
            tell(&[NotifyState::Watchdog]);
        }
    }
}

impl Default for Supervisor {
    fn default() -> Self {
        Self::new()
    }
}

/// The daemon could not start, or had to give up: why, for the manager, and a pause before it tries again, which there
/// is not after a crash.
pub fn failed(reason: &impl fmt::Display) {
    if std::env::var_os("NOTIFY_SOCKET").is_some() {
        tell(&[NotifyState::Status(&format!("{reason:#}").replace('\n', " "))]);
        std::thread::sleep(PAUSE);
    }
}

/// A manager that does not listen is no reason to stop.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager does not listen");
    }
}

/// Who has not counted for how long.
#[derive(Debug)]
struct Watch {
    patience: Duration,
    looked: Option<Instant>,
    seen: HashMap<String, Seen>,
    news: bool,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    count: u64,
    since: Instant,
    told: bool,
}

impl Watch {
    fn new(patience: Duration) -> Self {
        Self { patience, looked: None, seen: HashMap::new(), news: false }
    }

    /// The names of those that have stood still for longer than they may.
    fn stuck(&mut self, now: Instant, beats: Beats) -> Vec<String> {
        // Whoever was stopped himself (a debugger, a frozen machine) cannot blame others for it.
        let slept = self.looked.is_none_or(|looked| now.saturating_duration_since(looked) > self.patience);
        self.looked = Some(now);
        self.news = false;
        let before = std::mem::take(&mut self.seen);
        let mut stuck = Vec::new();
        for (name, count) in beats {
            let fresh = Seen { count, since: now, told: false };
            let mut seen = before.get(&name).copied().filter(|seen| seen.count == count).unwrap_or(fresh);
            if slept {
                seen.since = now;
            }
            if now.saturating_duration_since(seen.since) > self.patience {
                self.news |= !seen.told;
                seen.told = true;
                stuck.push(name.clone());
            }
            self.seen.insert(name, seen);
        }
        stuck.sort_unstable();
        stuck
    }

    /// Whether somebody was found at the last look who was not found before.
    fn is_news(&self) -> bool {
        self.news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beats(of: &[(&str, u64)]) -> Beats {
        of.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    /// A watch with a patience of 10 s, and the second it is at.
    fn watch() -> (Watch, impl Fn(u64) -> Instant) {
        let start = Instant::now();
        (Watch::new(Duration::from_secs(10)), move |second| start + Duration::from_secs(second))
    }

    #[test]
    fn whoever_stands_still_is_named_and_told_of_once() {
        let (mut watch, at) = watch();
        for (second, b) in [(0, 0), (5, 1), (10, 2)] {
            assert!(watch.stuck(at(second), beats(&[("a", 7), ("b", b)])).is_empty(), "{second}");
        }
        assert_eq!(watch.stuck(at(15), beats(&[("a", 7), ("b", 3)])), ["a"]);
        assert!(watch.is_news());
        assert_eq!(watch.stuck(at(20), beats(&[("a", 7), ("b", 3)])), ["a"]);
        assert!(!watch.is_news());
        assert_eq!(watch.stuck(at(26), beats(&[("a", 7), ("b", 3)])), ["a", "b"]);
        assert!(watch.is_news());
        // They go on; and later one stands still again.
        assert!(watch.stuck(at(30), beats(&[("a", 8), ("b", 4)])).is_empty());
        assert!(watch.stuck(at(40), beats(&[("a", 8), ("b", 5)])).is_empty());
        assert_eq!(watch.stuck(at(45), beats(&[("a", 8), ("b", 6)])), ["a"]);
        assert!(watch.is_news());
    }

    #[test]
    fn whoever_has_ended_is_not_stuck_and_whoever_is_new_has_time() {
        let (mut watch, at) = watch();
        assert!(watch.stuck(at(0), beats(&[("a", 7)])).is_empty());
        assert!(watch.stuck(at(9), beats(&[])).is_empty());
        assert!(watch.stuck(at(18), beats(&[("a", 7)])).is_empty());
        assert!(watch.stuck(at(28), beats(&[("a", 7)])).is_empty());
        assert_eq!(watch.stuck(at(29), beats(&[("a", 7)])), ["a"]);
    }

    #[test]
    fn a_watch_that_was_stopped_blames_nobody() {
        let (mut watch, at) = watch();
        assert!(watch.stuck(at(0), beats(&[("a", 7)])).is_empty());
        assert!(watch.stuck(at(100), beats(&[("a", 7)])).is_empty());
        assert!(watch.stuck(at(110), beats(&[("a", 7)])).is_empty());
        assert_eq!(watch.stuck(at(111), beats(&[("a", 7)])), ["a"]);
    }
}
