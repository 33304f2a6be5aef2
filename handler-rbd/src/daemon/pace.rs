//! How many images are opened at a time.
//!
//! A client of a cluster costs a processor's time and a dozen threads. A hundred that are begun together are all ready when
//! the last one is, and meanwhile nothing else on the machine gets its turn; begun a few at a time they are ready one after
//! the other, and no later in sum.
//!
//! Who waits for a cluster must not delay others: clusters do not wait for each other, what has been at it for long counts no
//! more, and once a cluster has not answered in time nobody waits before he finds that out for himself.

use super::error::SetupError;
use nix::errno::Errno;
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
    openings: Mutex<Openings>,
    fewer: Condvar,
}

#[derive(Debug, Default)]
struct Openings {
    /// When each began; the oldest first.
    begun: Vec<Instant>,
    /// The last one to end was not answered in time: whoever is to find that out need not wait for it.
    away: bool,
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

    /// Waits until an image of this cluster may be opened. None if that takes longer than `patience`.
    pub(super) fn turn(&self, conf: Option<&Path>, patience: Duration) -> Option<Turn> {
        let key = conf.map(Path::to_owned);
        let cluster = lock(&self.clusters).entry(key).or_default().clone();
        let mut openings = lock(&cluster.openings);
        let start = Instant::now();
        let now = loop {
            let now = Instant::now();
            openings.begun.retain(|at| now.duration_since(*at) < self.busy);
            let full = openings.begun.len() >= self.at_once && !openings.away;
            let Some(oldest) = openings.begun.first().filter(|_| full) else { break now };
            let left = patience.saturating_sub(now.duration_since(start));
            if left.is_zero() {
                return None;
            }
            let wait = left.min(self.busy.saturating_sub(now.duration_since(*oldest)));
            openings = cluster.fewer.wait_timeout(openings, wait).unwrap_or_else(PoisonError::into_inner).0;
        };
        openings.begun.push(now);
        drop(openings);
        Some(Turn { cluster, begun: now })
    }
}

impl Turn {
    /// Opens the image.
    pub(super) fn take<T>(self, open: impl FnOnce() -> Result<T, SetupError>) -> Result<T, SetupError> {
        let result = open();
        let away = result.as_ref().is_err_and(|error| error.errno() == Errno::ETIMEDOUT);
        lock(&self.cluster.openings).away = away;
        self.cluster.fewer.notify_all();
        result
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut openings = lock(&self.cluster.openings);
        if let Some(at) = openings.begun.iter().position(|at| *at == self.begun) {
            openings.begun.remove(at);
        }
        drop(openings);
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
        let (first, _second) = (turn(&pace), turn(&pace));
        let (tell, told) = bounded(1);
        let theirs = pace.clone();
        std::thread::spawn(move || tell.send(turn(&theirs)).unwrap());
        let _other = pace.turn(Some(Path::new("/etc/ceph/other.conf")), Duration::ZERO).unwrap(); // waits for nobody
        std::thread::sleep(Duration::from_millis(50));
        assert!(matches!(told.try_recv(), Err(TryRecvError::Empty)));
        assert!(pace.turn(None, Duration::from_millis(1)).is_none(), "nor does the fourth get it sooner");
        drop(first);
        told.recv_timeout(SOON).unwrap();
    }

    #[test]
    fn what_does_not_end_keeps_nobody_waiting() {
        let pace = Pace::new(2, Duration::from_millis(20));
        let turns: Vec<_> = (0..7).map(|_| turn(&pace)).collect();
        drop(turns); // of which most are forgotten already
        let _none_is_left_behind = (turn(&pace), turn(&pace));
        assert_eq!(lock(&lock(&pace.clusters)[&None].openings).begun.len(), 2);
    }

    /// Else the last of many devices would find out long after the first that their cluster is away, and their initiators would
    /// get no answer meanwhile.
    #[test]
    fn nobody_waits_for_a_cluster_that_does_not_answer() {
        let pace = Arc::new(Pace::new(1, FOR_EVER));
        let first = turn(&pace);
        let theirs = pace.clone();
        let (tell, told) = bounded(1);
        std::thread::spawn(move || tell.send(turn(&theirs)).unwrap());
        let late = || Err::<(), _>(SetupError::Late(Duration::ZERO));
        assert!(matches!(first.take(late), Err(SetupError::Late(_))));
        let _second = told.recv_timeout(SOON).unwrap();
        let third = pace.turn(None, Duration::ZERO).unwrap();
        let gone = || Err::<(), _>(SetupError::Other { image: "p/i".into() });
        assert!(third.take(gone).is_err());
        assert!(pace.turn(None, Duration::ZERO).is_none(), "it answers again");
    }

    fn turn(pace: &Pace) -> Turn {
        pace.turn(None, FOR_EVER).unwrap()
    }
}
