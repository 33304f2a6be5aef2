//! The user-space end of the TCMU command ring.
#[cfg(feature = "test-utils")]
pub mod mock;
