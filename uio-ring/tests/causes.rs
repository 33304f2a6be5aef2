//! Errors that say their cause themselves have no `source`: who prints the whole chain would say it twice.
#![allow(clippy::unwrap_used)]

use std::error::Error;
use std::io;
use uio_ring::{AttachError, JournalError, ResumeError, RingError};

#[test]
fn a_cause_is_told_once() {
    let cause = || io::Error::from_raw_os_error(2);
    let errors: [(Box<dyn Error>, &str); 3] = [
        (RingError::Kick(cause()).into(), "device is gone: "),
        (AttachError::from(RingError::Kick(cause())).into(), "device is gone: "),
        (ResumeError::from(JournalError::from(cause())).into(), "the journal cannot be used: "),
    ];
    for (error, start) in errors {
        assert_eq!(error.to_string(), format!("{start}{}", cause()));
        assert!(error.source().is_none(), "{error}");
    }
}
