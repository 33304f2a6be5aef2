//! Random command sequences through the ring against an oracle that knows SCSI's ordering rules.
//!
//! A device thread serves a [`LogicalUnit`](handler_rbd::lun::LogicalUnit) between the model of the kernel and
//! storage of the model's own (`disk`), which reorders, tears what may be torn, and fails. `make` and `illegal`
//! invent commands, `drive` sends them, and an oracle judges each answer: `exact`, an array of bytes, with one command
//! at a time; `sets`, what each block may hold, with up to 64. `mutants` breaks storage's promises to prove that the
//! oracles notice. None of this was written with a look at the code under test.
//!
//! `cargo test` sends 56,000 commands. For millions, which took four minutes on two busy CPUs:
//!
//! ```text
//! MODEL_COMMANDS=5000000 cargo test --release -p handler-rbd --test model random
//! ```
//!
//! A failure prints its seed; `MODEL_SEED` replays it: exactly with one command at a time, side by side with the
//! same commands but with the threads' own timing.
//!
//! Not modelled: effects after a failure was answered (a client that timed out is fenced by others), task
//! attributes other than SIMPLE, resets and task management, a size that changes. A buffer for the wrong direction
//! is not tried, as the ring does not say which direction one has.

#![allow(clippy::unwrap_used, reason = "helpers fail as their tests do")]

mod bits;
mod cdb;
mod command;
mod content;
mod disk;
mod drive;
mod exact;
mod history;
mod illegal;
mod make;
mod mutants;
mod oracle;
mod oracle_tests;
mod rig;
mod runs;
mod sets;
mod status;
mod verdict;
