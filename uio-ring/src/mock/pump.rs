//! The model as a second thread, so that a device thread can run against it.

use super::MockKernel;
use nix::sys::epoll::EpollTimeout;
use std::thread::{self, JoinHandle};

/// Keeps the pumping thread alive; ends it when dropped. Only one at a time per device.
#[derive(Debug)]
pub struct Pump {
    mock: MockKernel,
    thread: Option<JoinHandle<()>>,
}

impl Pump {
    pub(super) fn start(mock: MockKernel) -> Self {
        let watch = mock.with(|kernel| {
            assert_eq!(kernel.threads, 0, "one pump at a time");
            kernel.threads = 1;
            kernel.bell.watch()
        });
        let pumped = mock.clone();
        let thread = thread::spawn(move || {
            while watch.wait(pumped.patience()) {
                pumped.pump();
            }
        });
        Self { mock, thread: Some(thread) }
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        let watch = self.mock.with(|kernel| kernel.bell.watch());
        watch.stop();
        let ended = self.thread.take().map(JoinHandle::join);
        // A panic of the model must fail the test, but not while that is unwinding already.
        assert!(!matches!(ended, Some(Err(_))) || thread::panicking(), "the pumping thread panicked");
        self.mock.pump();
        self.mock.with(|kernel| kernel.threads = 0);
    }
}

impl MockKernel {
    /// How long to sleep for a kick. With a seed the kernel also looks at the ring by itself.
    fn patience(&self) -> EpollTimeout {
        self.with(|kernel| match kernel.config.seed {
            None => EpollTimeout::NONE,
            Some(_) => {
                kernel.kick(false);
                EpollTimeout::from(u8::try_from(kernel.next_random() % 4 + 1).expect("at most 4"))
            }
        })
    }
}
