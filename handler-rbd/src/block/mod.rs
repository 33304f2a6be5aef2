//! The neutral middle: operations on a byte-addressed image, and who carries them out.
//!
//! Knows nothing of SCSI or Ceph. A [`Request`] is one owned value: whoever holds the box holds the
//! memory it lends, and a [`Backend`] that took it gives it back through
//! [`Completions`](completions::Completions) exactly once, whatever happens. So no error path can lose a
//! command, and no buffer is freed while storage may still touch it.

pub mod completions;
mod error;
pub mod memory;
mod op;
mod request;
mod sync;
mod waker;

pub use error::{BackendError, ErrorKind};
pub use op::{ByteRange, Op};
pub use request::{Buffer, Request};

/// What an image can do, as numbers the SCSI layer advertises. All in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Size of the image.
    pub size: u64,
    /// Size of the objects that the image is striped over; no atomic operation crosses one.
    pub object_size: u64,
    /// Longest range that can be compared and written atomically: one between two multiples of it.
    pub compare_and_write: u64,
    /// Smallest extent whose space a discard gives back.
    pub discard_granularity: u64,
    /// Whether the media is known to be solid state.
    pub solid_state: bool,
}

/// Carries out requests, asynchronously. Any thread may submit.
pub trait Backend: Send + Sync {
    /// Takes `request` and starts it. It comes back through the completion queue that the backend was
    /// opened with, exactly once, also when it could not be started.
    fn submit(&self, request: Box<Request>);

    /// The image's numbers, as of opening or of the last [`Backend::refresh`].
    fn limits(&self) -> Limits;

    /// Looks at the image's size anew, and says it in bytes. May block.
    fn refresh(&self) -> Result<u64, BackendError>;

    /// Has `changed` called whenever the image may have changed, its size for one, by whomever, until the backend is
    /// dropped. It is called on a thread of storage's and must not be slow. A backend that no one else can change
    /// never calls it.
    fn watch(&self, changed: Box<dyn Fn() + Send + Sync>) -> Result<(), BackendError> {
        drop(changed);
        Ok(())
    }

    /// If nobody else has the image for writing: a mark that is another one once somebody has had it. `None` if somebody
    /// has it, or it cannot be told. May block.
    fn tenure(&self) -> Option<String> {
        None
    }

    /// Lets others have the image, before the backend is dropped and with nothing out: a mark that is another one as soon as
    /// somebody may have written. `None` if somebody may have since the mark `since`, or it cannot be told. May block.
    fn leave(&self, since: &str) -> Option<String> {
        let _ = since;
        None
    }

    /// Has storage refuse this client from now on: nothing of it can happen any more, and whoever has the image next need not
    /// wait for it. May block.
    fn shut_out(&self) -> Result<(), BackendError> {
        Ok(())
    }

    /// From now on, gives the image to nobody who asks for it: who wants it must shut this client out. Only if it has
    /// the image now. May block.
    fn hold_on(&self) -> Result<(), BackendError> {
        Ok(())
    }

    /// What [`Op::SetNote`] left with the image, perhaps by an earlier process; empty if nothing. May block.
    fn note(&self) -> Result<Vec<u8>, BackendError>;

    /// Whether there may be a note with the image, as far as this backend has read or stored it. Does not block.
    fn has_note(&self) -> bool;
}
