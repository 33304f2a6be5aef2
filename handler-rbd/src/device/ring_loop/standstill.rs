//! What has waited too long is not begun any more (invariant "no late write"): its initiator may have sent it to another gateway
//! meanwhile, and something newer after it.
//!
//! A thread that stands still does not notice while it does. So it looks at the clock before it looks at the ring, before it
//! takes what storage returns, and last before storage gets anything that changes the disk.

use super::super::BEAT;
use super::super::identity::Parked;
use super::Served;
use crate::clock;
use crate::lun::Outcome;
use std::time::Duration;
use uio_ring::{Entry, RingError};

/// A device's thread comes round every [`BEAT`]. If it has not for longer, it stood still, with the whole process or host perhaps,
/// and what is on the ring may have waited for as long.
const STANDSTILL: Duration = BEAT.saturating_add(Duration::from_secs(3));

/// How often the ring is emptied with BUSY at a time.
const REFUSALS: u32 = 64;

impl Served {
    /// BUSY for what is queued by now; its initiator sends it again. After a reset from outside the kernel gave it pages that
    /// were still lent to storage, and a read of before the reset may have come to lie over its data. Before a client is
    /// replaced, and after a standstill, it may have waited for as long as that took, while another gateway has written
    /// (invariant "no late write").
    ///
    /// What found no room on the ring has waited no less. The kernel queues it when it takes the answers, so the ring is
    /// looked at again, but not for as long as initiators like to try again.
    pub(super) fn refuse_queued(&mut self) -> Result<(), RingError> {
        for _ in 0..REFUSALS {
            self.awake_at = clock::since_boot(); // what comes after this look has not waited
            while let Some(entry) = self.ring.next() {
                match entry? {
                    Entry::Command(command) => self.complete(command.token, &Outcome::Busy)?,
                    Entry::Tmr(tmr) => self.abort(&tmr)?,
                }
            }
            if !self.ring.flush()? {
                break;
            }
        }
        Ok(())
    }

    /// Before a look at the ring: after a standstill, BUSY for what has waited.
    pub(super) fn refuse_stale(&mut self) -> Result<(), RingError> {
        let now = clock::since_boot();
        if self.stood_still_until(now) {
            self.refuse_waiting()?;
            if !self.stopping {
                return self.refuse_queued().map(|()| self.is_late = false);
            }
            self.is_late = false;
        }
        self.awake_at = now;
        Ok(())
    }

    /// Whether the last look at the ring is so long ago that what was seen then is not to be begun any more. Then what is in
    /// progress is gone on with no further either. Until [`Served::refuse_stale`] has refused it all.
    pub(super) fn has_stood_still(&mut self) -> bool {
        self.stood_still_until(clock::since_boot())
    }

    fn stood_still_until(&mut self, now: Duration) -> bool {
        let stood = now.saturating_sub(self.awake_at);
        if stood > STANDSTILL && !self.is_late {
            tracing::warn!("stood still for {} s; what has waited meanwhile gets BUSY", stood.as_secs());
            self.all_is_stale();
            self.is_late = true;
        }
        self.is_late
    }

    /// BUSY for what would change the disk, has not begun, and is not on the ring any more: it waits for the device's identity,
    /// or for the disk to itself.
    pub(super) fn refuse_waiting(&mut self) -> Result<(), RingError> {
        let parked = self.waiting.take(|parked| parked.command.changes_medium());
        self.for_each(parked, |device, Parked { token, .. }| device.complete(token, &Outcome::Busy))?;
        self.refuse_exclusive(&Outcome::Busy)
    }
}
