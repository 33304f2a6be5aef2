//! One device is one thread: it owns the ring, the logical unit and the commands in progress.
//!
//! ```text
//!   kernel -> Ring::next() -> Command{cdb, token}
//!                               | scsi::decode, LogicalUnit::start --- done at once -----.
//!                               v a job                                                  |
//!                          Backend::submit(request with the token) ... storage's threads |
//!                               |                                                        |
//!   completion queue -> LogicalUnit::resume --- done -----------------------------------.|
//!                                                                                        v
//!   kernel <- Ring::flush() (one store, one kick per round) <- Ring::complete(token, answer)
//! ```
//!
//! Nothing in the loop blocks but its own sleep: no configfs, no lock call, no log above debug per command,
//! no allocation for a READ or WRITE in steady state. What needs configfs (the identity pages) is fetched by
//! a thread of its own while the command waits here.

mod identity;
mod news;
mod ring_loop;

pub use news::News;
pub use ring_loop::{Exit, IdentitySource, Served};

use crate::block::completions::Waker;
use crate::block::{Backend, BackendError, ErrorKind};
use crate::scsi::identity::Identity;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use std::convert::Infallible;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// A device's thread beats at least this often, also when nothing happens.
pub const BEAT: Duration = Duration::from_secs(5);

/// What others may ask of a device's thread.
#[derive(Debug)]
pub enum Message {
    /// The identity pages' contents, as asked for.
    Identity(Result<Identity, String>),
    /// The size changed, to so many bytes.
    Resize(u64),
    /// Go on with another backend for the same image, once the one before has returned everything.
    Replace(Replacement),
    /// Take nothing more from the ring, complete what is in progress, then end.
    Stop,
}

/// The note that the image has; empty if none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// What [`Op::SetNote`](crate::block::Op::SetNote) stored.
    pub text: Vec<u8>,
    /// Whether a client of ours stored it that cannot be at work any more.
    pub ours: bool,
}

/// A backend to take the place of one that was fenced.
pub struct Replacement {
    backend: Arc<dyn Backend>,
    note: Noted,
    done: Sender<()>,
}

impl fmt::Debug for Replacement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replacement").finish_non_exhaustive()
    }
}

/// A running device's thread, as its owner sees it.
pub struct Handle {
    inbox: Sender<Message>,
    waker: Arc<Waker>,
    /// Weak: the device's thread decides when the image closes.
    image: Mutex<Weak<dyn Backend>>,
    beats: Arc<AtomicU64>,
    closing: Arc<AtomicBool>,
    size: AtomicU64,
    block_size: u32,
    /// Closed, never sent on, when the thread has ended.
    ended: Receiver<Infallible>,
}

impl Handle {
    /// Runs `served` on a thread of its own. When it has ended and its ring is closed, `ended` runs on that
    /// thread, to close the image; only then does [`Handle::wait`] return.
    pub fn spawn(
        name: &str,
        served: Served,
        ended: impl FnOnce(&Exit) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (inbox, waker, image) = served.address();
        let beats = served.beats();
        let (size, block_size) = served.geometry();
        let (alive, has_ended) = crossbeam_channel::bounded(0);
        let closing = Arc::<AtomicBool>::default();
        let closes = closing.clone();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _alive = alive;
            // A panic takes down this device alone. Those of the loop are caught in there; this one would be of the
            // clearing up.
            let exit = catch_unwind(AssertUnwindSafe(|| served.run()));
            closes.store(true, Ordering::Relaxed);
            ended(&exit.unwrap_or_else(|_| Exit::Failed("its thread panicked".into())));
        })?;
        let image = Mutex::new(image);
        let size = AtomicU64::new(size);
        Ok(Self { inbox, waker, image, beats, closing, size, block_size, ended: has_ended })
    }

    /// Sends a message; one to a device that has ended is void.
    pub fn send(&self, message: Message) {
        let _ = self.inbox.send(message);
        self.waker.wake();
    }

    /// Whether the device has ended and its image is being closed, which takes as long as storage likes.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// How often the device's thread has come round; goes up within [`BEAT`] unless the thread is stuck or
    /// [closing](Self::is_closing).
    pub fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    /// The device's size in bytes.
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    /// Length of a logical block in bytes.
    pub fn block_size(&self) -> u32 {
        self.block_size
    }

    /// Gives the device another size, in bytes; its initiators are told.
    pub fn resize(&self, size: u64) {
        self.size.store(size, Ordering::Relaxed);
        self.send(Message::Resize(size));
    }

    /// Has the device go on with another backend for its image. Waits until the one before has returned everything
    /// and is not used any more; false if the device has ended instead.
    pub fn replace(&self, backend: Arc<dyn Backend>, note: Noted) -> bool {
        let (done, swapped) = crossbeam_channel::bounded(1);
        let image = Arc::downgrade(&backend);
        self.send(Message::Replace(Replacement { backend, note, done }));
        let swapped = swapped.recv().is_ok();
        if swapped {
            *self.image() = image;
        }
        swapped
    }

    fn image(&self) -> MutexGuard<'_, Weak<dyn Backend>> {
        self.image.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The image's size, looked at anew, in bytes. May block.
    pub fn image_size(&self) -> Result<u64, BackendError> {
        let image = self.image().upgrade();
        match image {
            Some(image) => image.refresh(),
            None => Err(BackendError::new(ErrorKind::Gone)),
        }
    }

    /// See [`Backend::tenure`]. `None` also if that takes longer than `patience`; then the image is not closed when the device
    /// has ended, but once storage answers.
    pub fn tenure(&self, patience: Duration) -> Option<String> {
        let image = self.image().upgrade()?;
        let (tell, told) = crossbeam_channel::bounded(1);
        let ask = move || {
            let tenure = image.tenure();
            drop(image); // whoever hears of it may close it
            let _ = tell.send(tenure);
        };
        match std::thread::Builder::new().name("tenure".into()).spawn(ask) {
            Ok(_) => told.recv_timeout(patience).ok().flatten(),
            Err(_) => None,
        }
    }

    /// Waits until the device has ended and its image is closed, at most `patience`; whether it has.
    pub fn wait(&self, patience: Duration) -> bool {
        !matches!(self.ended.recv_timeout(patience), Err(RecvTimeoutError::Timeout))
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}
