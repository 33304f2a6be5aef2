//! When a device that has failed is taken on again: at once, but not as fast as it can fail. A command that meets a
//! defect is retried by its initiator and meets it again, and each time a client of ours is fenced.

use crate::kernel::uio::Instance;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// After so long without a failure the next one is the first again.
const CALM: Duration = Duration::from_secs(60);

/// The last failure of each device, and the pause after it.
#[derive(Debug, Default)]
pub(super) struct Failures(Mutex<HashMap<Instance, (Instant, Duration)>>);

impl Failures {
    /// Notes a failure; says how long to wait.
    pub(super) fn pause(&self, device: Instance, now: Instant) -> Duration {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent =
            |(at, pause): &(Instant, Duration)| now.saturating_duration_since(*at) < CALM + *pause;
        last.retain(|_, failure| is_recent(failure)); // devices go, and their number is not given again
        let pause = match last.get(&device) {
            Some((_, pause)) => (*pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE),
            None => Duration::ZERO,
        };
        last.insert(device, (now, pause));
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Instance = Instance { minor: 0, inode: 10 };
    const OTHER: Instance = Instance { minor: 1, inode: 11 };

    #[test]
    fn the_first_failure_costs_no_pause_and_the_next_ever_more() {
        let (failures, mut now) = (Failures::default(), Instant::now());
        for expected in [0, 1, 2, 4, 8, 16, 30, 30] {
            let pause = failures.pause(ONE, now);
            assert_eq!(pause, Duration::from_secs(expected));
            now += pause + Duration::from_secs(50);
        }
        assert_eq!(failures.pause(OTHER, now), Duration::ZERO, "another device");
        assert_eq!(failures.pause(ONE, now + Duration::from_secs(120)), Duration::ZERO, "calm between");
    }
}
