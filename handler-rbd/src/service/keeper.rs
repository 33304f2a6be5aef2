//! Keeps the service on the bus: the bus may come after us, go, and come back, and nothing but targetcli
//! notices. One thread looks every few seconds whether the name is still ours.

use super::dbus::{Bus, DbusError, Service};
use crossbeam_channel::{RecvTimeoutError, Sender};
use std::convert::Infallible;
use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

/// The service, kept alive. Dropping it gives up the name.
#[derive(Debug)]
pub struct Keeper {
    /// Closed, never sent on, to end the thread.
    stop: Option<Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Tries to take the name before it returns, so that whoever starts us finds an answer, and goes on
    /// looking and trying every `interval` after that. `lost` hears when it is not to be had at first, and why,
    /// and each time that it is ours no longer.
    pub fn start(
        bus: Bus,
        interval: Duration,
        mut lost: impl FnMut(Option<&DbusError>) + Send + 'static,
    ) -> io::Result<Self> {
        let mut service = Service::start_on(&bus);
        if let Err(error) = &service {
            lost(Some(error));
        }
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let keep = move || {
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                match &service {
                    Ok(kept) if kept.owns_name() => continue,
                    Ok(_) => lost(None),
                    Err(_) => {}
                }
                // A reason that has been told is not told every time.
                service = Service::start_on(&bus);
                if service.is_ok() {
                    tracing::info!("serving on D-Bus again");
                }
            }
        };
        let thread = std::thread::Builder::new().name("dbus".into()).spawn(keep)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
