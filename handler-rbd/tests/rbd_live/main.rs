//! librbd and a real cluster behind the block layer.
//!
//! The ignored tests need a cluster that `CEPH_CONF` names, with a pool `rbd`, its admin's keyring and the
//! command-line tools: `scripts/test` runs them in the lab. Each makes its own images. Run with
//! `--test-threads=1`: one of them sets an option of the whole pool.

#![allow(clippy::unwrap_used, reason = "helpers fail as their tests do")]

mod calls;
mod extents;
mod fencing;
mod lending;
mod limits;
mod notes;
mod opening;
mod operations;
mod resizing;
mod ring;
mod setup;
mod timeouts;
