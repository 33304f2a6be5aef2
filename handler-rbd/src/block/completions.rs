//! How finished requests, from any thread, reach the one thread that owns the device.
//!
//! Producers push and, only if the owner sleeps, ring an eventfd.

use super::Request;
pub use super::waker::Waker;
use crossbeam_queue::ArrayQueue;
use std::sync::Arc;

/// The queue of finished requests of one device.
#[derive(Debug)]
pub struct Completions {
    queue: ArrayQueue<Box<Request>>,
    waker: Arc<Waker>,
}

impl Completions {
    /// A queue for a device that never has more than `capacity` requests out.
    pub fn new(capacity: usize, waker: Arc<Waker>) -> Arc<Self> {
        Arc::new(Self { queue: ArrayQueue::new(capacity), waker })
    }

    /// Hands a finished request to the device.
    pub(super) fn push(&self, request: Box<Request>) {
        if let Err(request) = self.queue.push(request) {
            // The device counts its requests against the capacity, so this cannot happen; if it does,
            // losing the box would lose a command, so it is kept and the defect shouted.
            tracing::error!(
                ?request,
                "completion queue overflowed: more requests out than the device allows"
            );
            std::mem::forget(request);
        }
        self.waker.wake();
    }

    /// Takes one finished request.
    pub fn pop(&self) -> Option<Box<Request>> {
        self.queue.pop()
    }

    /// Whether nothing is waiting.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
