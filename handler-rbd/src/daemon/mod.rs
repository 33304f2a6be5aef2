//! The set of devices: turns kernel events, start and end of the daemon into openings, stops and answers.
//!
//! The netlink thread only hands events over; every event is carried out on a thread of its own, so that
//! one dead cluster delays nobody else, and is answered exactly once, with the errno that is true, within
//! the open time-out. Nothing here touches the configfs directory of a device that is being removed.

mod adopt;
mod again;
mod error;
mod identity;
mod journal;
mod open;
mod pace;
mod recover;
mod registry;
mod size;
mod state;
pub mod status;
mod storage;
mod timeouts;

pub use error::SetupError;
pub use state::{Lun, State};

use crate::cfgstring;
use crate::device::{Exit, Handle, Message};
use crate::kernel::configfs::Backstore;
use crate::kernel::event::{Change, Event, EventKind};
use crate::kernel::responder::Responder;
use crate::kernel::uio::{Instance, UioDevice, UioError};
use crate::kernel::{DeviceName, Sys};
use crate::log::Chain;
use crate::records::{DeviceKey, Records};
use nix::errno::Errno;
use open::{Attached, Shape};
use pace::{Pace, Turn};
use registry::{Claim, Departure, Registry};
use size::Sizes;
use state::Event as Happening;
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};
use storage::{SizeRule, Slot, Storage};

/// Where images are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageKind {
    /// In RADOS.
    Rbd,
    /// In this process's memory: contents die with it. For pricing everything but storage.
    Memory,
}

/// What the daemon was started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The roots of `/sys` and `/dev`.
    pub sys: Sys,
    /// A new device whose image is not open after this long is refused.
    pub open_timeout: Duration,
    /// How long a stop waits for commands in progress.
    pub drain_timeout: Duration,
    /// See [`ClusterConfig::zero_copy_writes`](crate::rbd::ClusterConfig).
    pub zero_copy_writes: bool,
    /// Where images are kept.
    pub storage: StorageKind,
}

/// All devices of this host, and how to serve them.
#[derive(Debug)]
pub struct Daemon {
    settings: Settings,
    registry: Arc<Registry>,
    records: Arc<Records>,
    sizes: Sizes,
    failures: again::Failures,
    pace: Pace,
    /// Whether existing devices have been looked for.
    has_looked: AtomicBool,
    /// Whether the daemon stops; read for as long as it takes to block a device.
    stopping: RwLock<bool>,
    /// Of devices that are being stopped: the mark of their storage from when they were told.
    leaving: Mutex<HashMap<Instance, Option<String>>>,
}

/// How long a stop waits for that mark. Without it what waits on the ring gets BUSY from the successor.
const TENURE_PATIENCE: Duration = Duration::from_secs(2);

impl Daemon {
    /// A daemon without devices.
    pub fn new(settings: Settings, records: Arc<Records>) -> Arc<Self> {
        let (sizes, changes) = Sizes::new();
        let (registry, failures) = (Arc::default(), again::Failures::default());
        let daemon = Arc::new(Self {
            settings,
            registry,
            records,
            sizes,
            failures,
            pace: Pace::default(),
            has_looked: AtomicBool::new(false),
            stopping: RwLock::default(),
            leaving: Mutex::default(),
        });
        daemon.follow_sizes(changes);
        daemon
    }

    /// What each device is doing. Waits for nobody.
    pub fn luns(&self) -> Vec<Lun> {
        self.registry.board().luns()
    }

    /// Takes an event off the netlink thread's hands. Returns at once.
    pub fn handle(self: &Arc<Self>, event: Event, responder: Responder) {
        let daemon = self.clone();
        // The slot keeps the responder reachable if no thread can be had.
        let slot = Arc::new(Mutex::new(Some(responder)));
        let theirs = slot.clone();
        let name = format!("event-uio{}", event.minor);
        let work = move || {
            let Some(responder) = take(&theirs) else { return };
            let result = match event.kind {
                EventKind::Added => daemon.added(&event.device, event.minor),
                EventKind::Removed => daemon.removed(&event.device, event.minor),
                EventKind::Reconfigured(change) => daemon.reconfigured(&event.device, event.minor, &change),
            };
            // If nobody waits any more, a device just added is gone, and its thread notices.
            responder.done(result);
        };
        if let Err(error) = std::thread::Builder::new().name(name).spawn(work) {
            tracing::error!(%error, "no thread to carry out an event with");
            if let Some(responder) = take(&slot) {
                responder.done(Err(Errno::EAGAIN));
            }
        }
    }

    /// A device was made: serve it or say why not.
    fn added(self: &Arc<Self>, device: &DeviceName, minor: u32) -> Result<(), Errno> {
        let failed = |error: &SetupError| {
            tracing::error!(%device, config = device.config, "cannot add the device: {}", Chain(error));
            error.errno()
        };
        let uio = UioDevice::by_minor(&self.settings.sys, minor).map_err(|error| failed(&error.into()))?;
        let instance = uio.instance;
        let Some(claim) = self.registry.begin(instance) else {
            tracing::info!(%device, minor, "is being taken on already");
            return Ok(());
        };
        self.registry.board().enter(&uio);
        let (tell, opened) = crossbeam_channel::bounded(1);
        let daemon = self.clone();
        let opener = move || {
            let _ = tell.send(daemon.open_and_serve(claim, &uio));
        };
        let thread = std::thread::Builder::new().name(format!("open-uio{minor}")).spawn(opener);
        thread.map_err(|error| failed(&SetupError::Thread(error)))?;
        let timeout = self.settings.open_timeout;
        let result = match opened.recv_timeout(timeout) {
            Ok(result) => result,
            Err(_) if self.registry.give_up(instance) => Err(SetupError::Late(timeout)),
            // It is past the point of return; only local steps are left, and they are bounded.
            Err(_) => opened.recv().unwrap_or(Err(SetupError::Thread(Errno::EIO.into()))),
        };
        result.map_err(|error| failed(&error))?;
        tracing::info!(%device, minor, config = device.config, "device added");
        Ok(())
    }

    fn open_and_serve(self: &Arc<Self>, claim: Claim, uio: &UioDevice) -> Result<(), SetupError> {
        let device = &uio.name;
        let turn = self.turn(device, Duration::MAX);
        if !claim.is_wanted() {
            return Err(UioError::Gone(uio.minor).into()); // to nobody
        }
        let storage = self.open_image(turn, device)?;
        let shape = Shape::read(&self.backstore(device))?;
        storage.check_size(device, shape.size, SizeRule::Equal)?;
        if !claim.attach() {
            tracing::info!(%device, "is open too late, closing it again");
            return Err(UioError::Gone(uio.minor).into()); // to nobody, unless it was taken for another that is gone
        }
        let attached = self.attach(uio, open::claim_ring(uio)?)?;
        self.serve(claim, uio, shape, attached, storage)
    }

    fn backstore(&self, device: &DeviceName) -> Backstore {
        Backstore::new(&self.settings.sys, device)
    }

    /// Waits until a device's image may be opened, but no longer than that; not for one that cannot be, which is refused at
    /// once.
    fn turn(&self, device: &DeviceName, patience: Duration) -> Option<Turn> {
        let config = cfgstring::parse_dev_config(&device.config).ok()?;
        self.pace.turn(config.conf.as_deref(), patience)
    }

    fn open_image(&self, turn: Option<Turn>, device: &DeviceName) -> Result<Storage, SetupError> {
        let open = || Storage::open(&self.settings, &self.records, device);
        turn.map_or_else(open, |turn| turn.take(open))
    }

    /// The last step of every opening: the device's thread starts.
    fn serve(
        self: &Arc<Self>,
        claim: Claim,
        uio: &UioDevice,
        shape: Shape,
        attached: Attached,
        storage: Storage,
    ) -> Result<(), SetupError> {
        let (daemon, device, instance) = (self.clone(), uio.name.clone(), uio.instance);
        let (ticket, of_end) = (claim.ticket(), uio.clone());
        let ended = move |exit: &Exit, storage: Option<Storage>| {
            daemon.close(instance, exit, storage);
            drop(claim);
            tracing::info!(%device, ?exit, "device closed");
            if let Exit::Failed(_) = exit {
                // As after a crash of the whole process, but for this device alone.
                daemon.take_on_again(instance);
            } else if *exit == Exit::Removed {
                daemon.forget_own_journal(&of_end);
            }
        };
        let (daemon, of_news) = (Arc::downgrade(self), uio.clone());
        let last = Mutex::new(None);
        let news = move |slot: &Arc<Slot>, what| {
            if let Some(daemon) = daemon.upgrade() {
                daemon.heard(&of_news, slot, &last, what);
            }
        };
        let changed = self.sizes.signal(instance);
        self.watch(uio, &storage);
        let handle = open::serve(&self.settings, uio, shape, attached, storage, news, ended)?;
        self.registry.board().sized(instance, shape.size);
        self.registry.board().tell(instance, Happening::Opened, "the image is open");
        self.registry.serve(ticket, uio.name.to_string(), handle);
        // The image may have grown while nobody watched it.
        changed();
        Ok(())
    }

    /// Has the device follow its image's size.
    fn watch(&self, uio: &UioDevice, storage: &Storage) {
        if let Err(error) = storage.backend().watch(Box::new(self.sizes.signal(uio.instance))) {
            tracing::warn!(device = %uio.name, "'rbd resize' will not be noticed, set dev_size by hand: {error}");
        }
    }

    /// Closes the image of a device that has ended.
    fn close(&self, instance: Instance, exit: &Exit, storage: Option<Storage>) {
        let since = self.leaving.lock().unwrap_or_else(PoisonError::into_inner).remove(&instance);
        let Some(storage) = storage else { return };
        match (exit, since) {
            (Exit::Failed(_), _) => storage.abandon(),
            (Exit::Stopped, Some(Some(since))) => storage.leave(&since),
            // Told to stop before it served.
            (Exit::Stopped, None) if self.is_stopping() => storage.leave_as_found(),
            (Exit::Stopped | Exit::Removed, _) => {}
        }
    }

    /// A device has failed and is closed.
    fn take_on_again(self: &Arc<Self>, instance: Instance) {
        let pause = self.failures.pause(instance, Instant::now());
        if !pause.is_zero() {
            tracing::error!(
                minor = instance.minor,
                "the device fails again and again; next try in {} s",
                pause.as_secs()
            );
            return self.later(pause, move |daemon| daemon.take_on_now(instance));
        }
        self.take_on_now(instance);
    }

    /// That device alone: another may be there and its making not told of yet.
    fn take_on_now(self: &Arc<Self>, instance: Instance) {
        match UioDevice::by_minor(&self.settings.sys, instance.minor) {
            Ok(uio) if uio.instance == instance => self.adopt_one(uio),
            Ok(_) | Err(UioError::Gone(_)) => {}
            Err(error) => {
                tracing::error!(minor = instance.minor, "cannot look at the device: {}", Chain(&error));
                self.later(Duration::from_secs(1), move |daemon| daemon.take_on_now(instance));
            }
        }
    }

    /// A device is going away: close its image before the answer, so that it can be removed at once.
    fn removed(&self, device: &DeviceName, minor: u32) -> Result<(), Errno> {
        // While the kernel waits for the answer the device is there. If it is not, its thread notices.
        let Ok(uio) = UioDevice::by_minor(&self.settings.sys, minor) else { return Ok(()) };
        if uio.name != *device {
            return Ok(()); // the minor's next device: this event comes late
        }
        match self.registry.depart(uio.instance) {
            Departure::Unknown => tracing::debug!(%device, minor, "removed, was not served"),
            Departure::GivenUp => tracing::info!(%device, minor, "removed while its image was being opened"),
            Departure::Serving(handle) => {
                handle.send(Message::Stop);
                if handle.wait(self.settings.drain_timeout) {
                    self.records.forget_journal(&journal::key(&uio));
                    tracing::info!(%device, minor, "device removed");
                } else {
                    self.records.abandon(&DeviceKey::new(device.hba, &device.name));
                    tracing::warn!(%device, minor, "removed, but its image takes long to close");
                }
            }
        }
        Ok(())
    }

    /// An attribute is being changed: agree or say why not.
    fn reconfigured(&self, device: &DeviceName, minor: u32, change: &Change) -> Result<(), Errno> {
        let uio = UioDevice::by_minor(&self.settings.sys, minor).map_err(|_| Errno::ENODEV)?;
        let handle = self.registry.serving(uio.instance).ok_or(Errno::ENODEV)?;
        match change {
            Change::Size(size) => resize(device, &handle, *size),
            // targetcli writes every attribute again when it restores; only a change is refused.
            Change::Config(config) if *config == device.config => Ok(()),
            Change::WriteCache(false) => Ok(()),
            Change::Config(_) => {
                tracing::error!(%device, "dev_config cannot be changed; delete the device and create it anew");
                Err(Errno::EOPNOTSUPP)
            }
            Change::WriteCache(true) | Change::Unknown => Err(Errno::EOPNOTSUPP),
        }
    }

    /// How often the thread of each device that is served has come round, by the device's name; and how many devices
    /// are there that are not served yet. Does not block.
    pub fn beats(&self) -> (Vec<(String, u64)>, usize) {
        self.registry.beats()
    }

    /// Ends all devices: every command that is on a ring is answered, then images are closed.
    pub fn shut_down(self: &Arc<Self>) {
        *self.stopping.write().unwrap_or_else(PoisonError::into_inner) = true;
        let (instances, start) = (self.registry.close(), Instant::now());
        let stops: Vec<_> = instances
            .into_iter()
            .filter_map(|instance| {
                let daemon = self.clone();
                let name = format!("stop-uio{}", instance.minor);
                std::thread::Builder::new().name(name).spawn(move || daemon.stop(instance)).ok()
            })
            .collect();
        for stop in stops {
            let _ = stop.join();
        }
        // Whoever was still opening an image finds that nobody wants it, and closes it. An image that a dead process had
        // open could not be removed for half a minute.
        if !self.records.close(self.settings.drain_timeout.saturating_sub(start.elapsed())) {
            tracing::warn!(
                "an image takes long to open, stopping without it; the next start fences this client"
            );
        }
    }

    fn stop(&self, instance: Instance) {
        let uio = UioDevice::by_minor(&self.settings.sys, instance.minor);
        let Some(uio) = uio.ok().filter(|uio| uio.instance == instance) else { return };
        if let Departure::Serving(handle) = self.registry.depart(instance) {
            // Before: what is not consumed any more has been queued after this (invariant "no late write").
            let tenure = handle.tenure(TENURE_PATIENCE);
            self.leaving.lock().unwrap_or_else(PoisonError::into_inner).insert(instance, tenure);
            handle.send(Message::Stop);
            if !handle.wait(self.settings.drain_timeout) {
                self.records.abandon(&DeviceKey::new(uio.name.hba, &uio.name.name));
                tracing::warn!(
                    device = %uio.name,
                    "commands are still in progress; the next start fences this client and begins them again"
                );
            }
        }
        // What comes now waits on the ring for our successor; also where we have not come to serving.
        if let Err(error) = self.backstore(&uio.name).block(false) {
            tracing::warn!(device = %uio.name, "cannot unblock the device: {}", Chain(&error));
        }
    }
}

/// The administrator has changed `dev_size`: right if the image has as much.
fn resize(device: &DeviceName, handle: &Handle, size: u64) -> Result<(), Errno> {
    let refused = |reason: std::fmt::Arguments<'_>| {
        tracing::error!(%device, "dev_size={size} refused: {reason}");
        Err(Errno::EINVAL)
    };
    let image = handle.image_size().map_err(|error| {
        tracing::error!(%device, "cannot look at the image's size: {error}");
        Errno::EIO
    })?;
    let (now, block) = (handle.size(), u64::from(handle.block_size()));
    if size < now {
        // Whoever uses the LUN would lose what lies behind, and is not asked.
        return refused(format_args!("it is {now} now, and a device in use is not shrunk; create it anew"));
    }
    if !size.is_multiple_of(block) {
        return refused(format_args!("it is no multiple of the block size, {block}"));
    }
    if image < size {
        return refused(format_args!("the image has {image} bytes, run 'rbd resize' first"));
    }
    tracing::info!(%device, size, "resized");
    handle.resize(size);
    Ok(())
}

fn take(slot: &Mutex<Option<Responder>>) -> Option<Responder> {
    slot.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
}
