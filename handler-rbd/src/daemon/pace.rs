//! How many images are opened at a time.
//!
//! A client of a cluster costs a processor's time and a dozen threads. A hundred that are begun together are all ready when
//! the last one is, and meanwhile nothing else on the machine gets its turn; begun a few at a time they are ready one after
//! the other, and no later in sum.
//!
//! Who waits for a cluster must not delay others: clusters do not wait for each other, and what has been at it for long counts
//! no more.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// More than a processor can be busy with: most of an opening is waiting for answers.
const PER_PROCESSOR: usize = 4;
/// An opening that takes longer waits for something else than processors.
const BUSY: Duration = Duration::from_secs(2);

/// Who may open an image now, by the configuration file of its cluster.
#[derive(Debug)]
pub(super) struct Pace {
    clusters: Mutex<HashMap<Option<PathBuf>, Arc<Cluster>>>,
    at_once: usize,
    busy: Duration,
}

#[derive(Debug, Default)]
struct Cluster {
    /// When each opening began; the oldest first.
    begun: Mutex<Vec<Instant>>,
    fewer: Condvar,
}

/// Held while an image is opened.
#[derive(Debug)]
pub(super) struct Turn {
    cluster: Arc<Cluster>,
    begun: Instant,
}

impl Default for Pace {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self::new(PER_PROCESSOR * processors, BUSY)
    }
}

impl Pace {
    fn new(at_once: usize, busy: Duration) -> Self {
        Self { clusters: Mutex::default(), at_once, busy }
    }

    /// Waits until an image of this cluster may be opened.
    pub(super) fn turn(&self, conf: Option<&Path>) -> Turn {
        let key = conf.map(Path::to_owned);
        let cluster = lock(&self.clusters).entry(key).or_default().clone();
        let mut begun = lock(&cluster.begun);
        let now = loop {
            let now = Instant::now();
            begun.retain(|at| now.duration_since(*at) < self.busy);
            let Some(oldest) = begun.first().filter(|_| begun.len() >= self.at_once) else { break now };
            let patience = self.busy.saturating_sub(now.duration_since(*oldest));
            begun = cluster.fewer.wait_timeout(begun, patience).unwrap_or_else(PoisonError::into_inner).0;
        };
        begun.push(now);
        drop(begun);
        Turn { cluster, begun: now }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut begun = lock(&self.cluster.begun);
        if let Some(at) = begun.iter().position(|at| *at == self.begun) {
            begun.remove(at);
        }
        drop(begun);
        self.cluster.fewer.notify_one();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crossbeam_channel::{TryRecvError, bounded};

    const FOR_EVER: Duration = Duration::from_secs(3600);
    const SOON: Duration = Duration::from_secs(30);

    #[test]
    fn the_third_of_two_at_once_waits_for_the_end_of_one() {
        let pace = Arc::new(Pace::new(2, FOR_EVER));
        let (first, _second) = (pace.turn(None), pace.turn(None));
        let (tell, told) = bounded(1);
        let theirs = pace.clone();
        std::thread::spawn(move || tell.send(theirs.turn(None)).unwrap());
        let _other = pace.turn(Some(Path::new("/etc/ceph/other.conf"))); // waits for nobody
        std::thread::sleep(Duration::from_millis(50));
        assert!(matches!(told.try_recv(), Err(TryRecvError::Empty)));
        drop(first);
        told.recv_timeout(SOON).unwrap();
    }

    #[test]
    fn what_does_not_end_keeps_nobody_waiting() {
        let pace = Pace::new(2, Duration::from_millis(20));
        let turns: Vec<_> = (0..7).map(|_| pace.turn(None)).collect();
        drop(turns); // of which most are forgotten already
        let _none_is_left_behind = (pace.turn(None), pace.turn(None));
        assert_eq!(lock(&lock(&pace.clusters)[&None].begun).len(), 2);
    }
}
