//! Named places where a test has the process die, or a thread give up, to see what a successor makes of it.
//!
//! Only with the feature `crash-points`; without it `crash_point!` is nothing. A hook of the thread, if there is one,
//! is called with the place's name; else, in a process started with `TCMU_RBD_CRASH_AT=POINT:COUNT`, the process kills
//! itself with SIGKILL when it passes POINT for the COUNTth time; with `POINT:COUNT:stop` it stands still there (SIGSTOP), with
//! `POINT:COUNT:late` that thread alone does, for eight seconds.

/// Passes a crash point.
#[macro_export]
macro_rules! crash_point {
    ($name:literal) => {{
        #[cfg(feature = "crash-points")]
        $crate::crash::pass($name);
    }};
}

#[cfg(feature = "crash-points")]
mod points {
    use nix::sys::signal::{Signal, raise};
    use std::cell::RefCell;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    /// The variable that says where to die.
    pub const VARIABLE: &str = "TCMU_RBD_CRASH_AT";

    /// Every place in this crate, in the order in which one command passes them.
    pub const POINTS: [&str; 11] = [
        "record-half",   // the request is copied in part
        "record-whole",  // it is in the journal, not yet in progress
        "record-used",   // it is in progress, the ring's entry not yet consumed
        "consumed",      // the entry is consumed
        "answer-none",   // the answer is to be written
        "answer-half",   // the slot has the id and no status
        "answer-whole",  // the slot has the answer
        "publish-none",  // the journal says up to where answers are to be published
        "publish-tail",  // they are published
        "publish-half",  // some of them are struck off the journal
        "publish-whole", // all of them are, nobody has kicked
    ];

    /// What is called with the name of each point passed.
    pub type Hook = Box<dyn FnMut(&'static str)>;

    thread_local! {
        static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
    }

    /// Has `hook` called with the name of each point that this thread passes; it may panic.
    pub fn set_hook(hook: Option<Hook>) {
        HOOK.with(|slot| *slot.borrow_mut() = hook);
    }

    #[derive(Clone, Copy)]
    enum End {
        By(Signal),
        Late,
    }

    static WANTED: OnceLock<Option<(String, AtomicU64, End)>> = OnceLock::new();

    /// See the module.
    pub fn pass(point: &'static str) {
        // Taken out, so that a hook that panics leaves none behind.
        if let Some(mut hook) = HOOK.with(|slot| slot.borrow_mut().take()) {
            hook(point);
            HOOK.with(|slot| *slot.borrow_mut() = Some(hook));
            return;
        }
        let wanted = WANTED.get_or_init(|| {
            let text = std::env::var(VARIABLE).ok()?;
            let (point, count) = text.split_once(':')?;
            let (count, end) = match count.split_once(':') {
                None => (count, End::By(Signal::SIGKILL)),
                Some((count, "stop")) => (count, End::By(Signal::SIGSTOP)),
                Some((count, "late")) => (count, End::Late),
                Some(_) => return None,
            };
            Some((point.to_owned(), AtomicU64::new(count.parse().ok()?), end))
        });
        if let Some((wanted, left, end)) = wanted
            && wanted == point
            && left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            match end {
                End::By(signal) => drop(raise(*signal)),
                End::Late => std::thread::sleep(Duration::from_secs(8)),
            }
        }
    }
}

#[cfg(feature = "crash-points")]
pub use points::{Hook, POINTS, VARIABLE, pass, set_hook};
