//! tcmu-rbd: serves LIO `user:rbd` backstores from RBD images.
//!
//! Read `docs/ARCHITECTURE.md` first; modules by level, each using only those below it:
//!
//! ```text
//! serve, cli                 start and end of the process
//! daemon, service            the set of devices; D-Bus
//! device, rbd, kernel        one device's thread; librbd; LIO's control surface
//! lun                        what a command does to this disk
//! scsi, block, cfgstring     bytes and values; operations on an image
//! ```

pub mod block;
pub mod cfgstring;
pub mod cli;
pub mod clock;
pub mod daemon;
pub mod device;
pub mod kernel;
pub mod lock_file;
pub mod log;
pub mod lun;
pub mod rbd;
pub mod records;
pub mod scsi;
pub mod serve;
pub mod service;

/// The crash points of this crate that a kill leads to, beside those of `uio_ring`. Others belong to an orderly stop:
/// `left-free`, the lock is given up and the image's mark not read yet; and after it `adopt-as-left`, the image is as it was
/// left, its lock not taken.
#[cfg(feature = "crash-points")]
pub const CRASH_POINTS: [&str; 7] = [
    "adopt-fenced",  // a dead client is fenced, its lock not broken
    "adopt-broken",  // its lock is broken, not taken
    "adopt-locked",  // its lock is ours
    "adopt-resumed", // the ring is gone on with, nothing done
    "submit-none",   // storage is to be asked for something
    "submit-done",   // it has been
    "returned",      // it has answered
];
