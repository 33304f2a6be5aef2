//! The sleep hand-shake of a device thread in every order that the memory model allows.
//!
//! The very source of `block::waker` is compiled here once more, on loom's atomics: a wake-up that can be
//! missed shows as a deadlock.
#![allow(unreachable_pub, dead_code)]

#[path = "../src/block/waker.rs"]
mod waker;

/// Stands for `block::sync`.
mod sync {
    pub(crate) use loom::sync::atomic::{AtomicUsize, Ordering, fence};
    use loom::sync::{Condvar, Mutex};
    use std::os::fd::{AsFd, BorrowedFd};

    /// Stores by exchange. That is the same where nobody looks at what was there, but loom needs it: it does
    /// not conclude that what an exchange wrote comes before a later store of what the exchange had read.
    pub(crate) struct AtomicBool(loom::sync::atomic::AtomicBool);

    impl AtomicBool {
        pub(crate) fn new(value: bool) -> Self {
            Self(loom::sync::atomic::AtomicBool::new(value))
        }

        pub(crate) fn load(&self, order: Ordering) -> bool {
            self.0.load(order)
        }

        pub(crate) fn store(&self, value: bool, order: Ordering) {
            self.0.swap(value, order);
        }

        pub(crate) fn swap(&self, value: bool, order: Ordering) -> bool {
            self.0.swap(value, order)
        }
    }

    impl std::fmt::Debug for AtomicBool {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            self.0.fmt(f)
        }
    }

    loom::lazy_static! {
        /// The edge of the eventfd.
        pub(crate) static ref EDGE: Edge = Edge { pending: Mutex::new(false), came: Condvar::new() };
        /// Writes to the eventfd.
        pub(crate) static ref WRITES: AtomicUsize = AtomicUsize::new(0);
    }

    pub(crate) struct Edge {
        pending: Mutex<bool>,
        came: Condvar,
    }

    impl Edge {
        fn set(&self) {
            *self.pending.lock().expect("no panic") = true;
            self.came.notify_one();
        }

        pub(crate) fn wait(&self) {
            let mut pending = self.pending.lock().expect("no panic");
            while !*pending {
                pending = self.came.wait(pending).expect("no panic");
            }
            *pending = false;
        }
    }

    pub(crate) struct Event;

    impl Event {
        #[allow(clippy::unnecessary_wraps)]
        pub(crate) fn new() -> nix::Result<Self> {
            Ok(Self)
        }

        #[allow(clippy::unused_self)]
        pub(crate) fn set(&self) {
            WRITES.fetch_add(1, Ordering::Relaxed);
            EDGE.set();
        }
    }

    impl AsFd for Event {
        fn as_fd(&self) -> BorrowedFd<'_> {
            unreachable!("the model has no descriptors")
        }
    }
}

use loom::sync::Arc;
use loom::thread;
use sync::{AtomicUsize, EDGE, Ordering, WRITES};
use waker::Waker;

/// As the device's loop: takes news until it has `want`, and sleeps when there are none. Returns how often.
fn owner(waker: &Waker, news: &AtomicUsize, want: usize) -> usize {
    let (mut got, mut sleeps) = (0, 0);
    loop {
        got += news.swap(0, Ordering::Relaxed);
        if got == want {
            return sleeps;
        }
        waker.going_to_sleep();
        sleeps += 1;
        if news.load(Ordering::Relaxed) == 0 {
            EDGE.wait();
        }
        waker.awake();
    }
}

fn no_wake_up_is_missed(producers: usize, each: usize) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let waker = Arc::new(Waker::new().expect("a model of an eventfd"));
        let news = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..producers)
            .map(|_| {
                let (waker, news) = (waker.clone(), news.clone());
                thread::spawn(move || {
                    for _ in 0..each {
                        // Weaker than what the completion queue does.
                        news.fetch_add(1, Ordering::Relaxed);
                        waker.wake();
                    }
                })
            })
            .collect();
        let sleeps = owner(&waker, &news, producers * each);
        for thread in threads {
            thread.join().expect("a producer that ends");
        }
        assert!(WRITES.load(Ordering::Relaxed) <= sleeps, "an eventfd was written to without need");
    });
}

#[test]
fn one_producer() {
    no_wake_up_is_missed(1, 1);
}

#[test]
fn one_producer_twice() {
    no_wake_up_is_missed(1, 2);
}

#[test]
fn two_producers() {
    no_wake_up_is_missed(2, 1);
}
