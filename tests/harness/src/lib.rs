//! What the fuzzers of `tests/fuzz` call: any bytes in, the code under test driven to its end, oracles behind it.
//!
//! Each target is a function `run(&[u8])` that panics when something is wrong, and says what became of the
//! input, so that ordinary tests (`tests/seeds.rs`) can run the [`seeds`] through it and see that they do what
//! they are meant to. Input that is too short is as if followed by zeros. Layouts are plain bytes at fixed places:
//! seeds can be written by hand, and a mutation stays where it was made.
//!
//! Numbers (opcodes, offsets, lengths) are the standards' and the kernel's, written down again: an oracle that
//! imports a constant agrees with every mistake in it.
#![allow(clippy::unwrap_used, reason = "a failed expectation must panic")]

pub mod cfgstring;
pub mod command;
mod disk;
mod drive;
mod input;
pub mod malformed_ring;
pub mod netlink;
mod oracle;
pub mod parameter_list;
pub mod ring;
pub mod seeds;

pub use drive::End;
