//! What the daemon offers to tools on its host.

pub mod dbus;
pub mod keeper;
pub mod status;
