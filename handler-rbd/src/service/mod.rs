//! What the daemon offers to tools on its host, and says to its service manager.

pub mod dbus;
pub mod keeper;
pub mod status;
pub mod supervisor;
