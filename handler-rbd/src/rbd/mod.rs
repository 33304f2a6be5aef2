//! The only code that names librbd and librados. Implements [`Backend`](crate::block::Backend) for an RBD
//! image and knows nothing of SCSI or the ring protocol.
//!
//! ```text
//!   image    Image: open, verify, close; Backend::submit
//!   call     which librbd call an operation is, and with which memory           (safe, pure)
//!   aio      starts the call; librbd's callback gives the request back          (unsafe)
//!   errands  what librbd only has blocking calls for, on a thread: extents, the note
//!   lock     the exclusive lock, taken over from the dead
//!   media    whether the data lies on solid-state devices
//!   cluster  Cluster: one RADOS client: configuration, fencing, service map
//!   ffi      owners of the C handles and thin calls on them                     (unsafe)
//! ```
//!
//! # Contracts
//! * Handles are closed in the order image, I/O context, client: each owner holds the next one.
//! * An image is closed only when no request is out; otherwise it is leaked, because librbd may still
//!   touch the requests' memory. Errands are waited for.
//! * A cache that would acknowledge writes before they are durable is refused at open, and so are writes
//!   from lent memory, whose completion librbd can lose.
//! * A range that is not within the image is refused here: librbd would write its part within and call it done.
//! * Opening takes no lock: librbd takes the exclusive lock with the first write. Only from a dead predecessor it is taken
//!   over at once, so that nobody gets in between.

mod aio;
#[rustfmt::skip] // tests/bindings.rs compares it with bindgen's own formatting
#[allow(missing_docs, missing_debug_implementations, non_camel_case_types, unreachable_pub, unsafe_code)]
#[allow(dead_code, clippy::all, clippy::pedantic, clippy::restriction)]
mod bindings;
pub mod call;
mod cluster;
mod errands;
mod error;
mod ffi;
mod image;
mod lock;
mod media;

pub use cluster::{Cluster, ClusterConfig, CommandError, ServiceStatus, TimeOuts};
pub use errands::KEY as NOTE_KEY;
pub use error::{ConnectError, OpenError};
pub use image::Image;
pub use lock::{Lock, Owner, Taken, is_prompt};
