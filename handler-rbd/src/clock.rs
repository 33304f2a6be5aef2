//! Two clocks that no change of the host's date moves.

use nix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// A clock that goes on while the host is suspended. Processes share it.
pub fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// Milliseconds of one that stands still then, with the kernel's timers. Processes share it.
pub fn awake() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC);
    now.map_or(0, |now| u64::try_from(Duration::from(now).as_millis()).unwrap_or(0)) // 0: long ago
}
