//! `tcmu-rbd serve`: start in the order the kernel and the tools rely on, run, end in order.

use crate::cli::{Level, Serve, Storage};
use crate::daemon::{Daemon, Settings, StorageKind, status};
use crate::kernel::Sys;
use crate::kernel::module::Module;
use crate::kernel::netlink::TcmuNetlink;
use crate::kernel::netlink_thread::NetlinkThread;
use crate::lock_file::LockFile;
use crate::log::{self, Chain, LogFile};
use crate::records::Records;
use crate::service::dbus::Bus;
use crate::service::keeper::Keeper;
use crate::service::status::{Format, StatusServer};
use crate::service::supervisor::Supervisor;
use anyhow::Context;
use crossbeam_channel::RecvTimeoutError;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::convert::Infallible;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::level_filters::LevelFilter;

/// Log file in the log directory: the incumbent's name, which logrotate and operators know.
const LOG_FILE: &str = "tcmu-runner.log";

/// How often the name on the bus is looked at, and tried for if it is not ours.
const BUS_INTERVAL: Duration = Duration::from_secs(5);

/// Runs the daemon until it is told to stop.
pub fn serve(options: &Serve) -> anyhow::Result<()> {
    // Before any thread exists, librados' among them: they inherit the mask, so only we see these.
    let signals = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect::<SigSet>();
    signals.thread_block().context("cannot block signals")?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .context("cannot listen to signals")?;

    let log_file = start_log(options);
    let _lock = LockFile::acquire(&options.lock_file)?;
    let sys = Sys::host();
    let module = Module::new(&sys);
    module.load()?;

    // First of all the name, so that targetcli finds an answer whatever the images do.
    let _service = Keeper::start(Bus::System, BUS_INTERVAL, |why| {
        let why = why.map_or("the bus is gone".to_owned(), |error| Chain(error).to_string());
        tracing::warn!("serving without D-Bus until it is there, so targetcli does not list user:rbd: {why}");
    })
    .context("cannot start the D-Bus thread")?;
    let records = Records::load(&options.run_dir).with_context(|| {
        format!("cannot read in {} which clients are to be fenced (--run-dir)", options.run_dir.display())
    })?;
    let settings = Settings {
        sys,
        open_timeout: options.open_timeout,
        drain_timeout: options.drain_timeout,
        zero_copy_writes: options.zero_copy_writes,
        storage: match options.storage {
            Storage::Rbd => StorageKind::Rbd,
            Storage::Memory => StorageKind::Memory,
        },
    };
    let daemon = Daemon::new(settings, records);
    let _status = start_status(&options.run_dir, &daemon);
    let mut loaded = module.instance();
    let mut netlink = start_netlink(&module, &daemon)?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "serving user:rbd");

    let mut supervisor = Supervisor::new();
    supervisor.ready(status(&daemon));
    let look = |supervisor: &mut Supervisor| {
        // Loaded anew it has a netlink family of its own, and waits for nobody until it is told that we answer.
        let found = module.instance();
        if found.is_some() && found != loaded {
            tracing::warn!("the kernel module was loaded anew, listening to it");
            match start_netlink(&module, &daemon) {
                Ok(thread) => (netlink, loaded) = (thread, found),
                Err(error) => tracing::error!("devices cannot be added, trying again: {error:#}"),
            }
        }
        let (mut beats, _) = daemon.beats();
        beats.push(("netlink".into(), netlink.beats()));
        supervisor.look(Instant::now(), beats, status(&daemon));
    };
    run(&signals, log_file.as_ref(), &mut supervisor, look)?;

    supervisor.stopping(options.drain_timeout);
    shut_down(&daemon, &supervisor);
    netlink.stop();
    let released = release_waiters(&module);
    tracing::info!("stopped");
    released.context("whoever waits for an answer about a device waits until the next start")
}

/// Whoever waits for an answer that we cannot give any more gets an error, and later creations do not wait.
fn release_waiters(module: &Module) -> anyhow::Result<()> {
    if !module.is_loaded() {
        return Ok(()); // there are no devices, and nobody waits
    }
    module.block_netlink(true)?;
    let reset = module.reset_netlink();
    let features = TcmuNetlink::connect().and_then(|link| link.set_features(false));
    module.block_netlink(false)?;
    reset?;
    Ok(features?)
}

/// Answers `tcmu-rbd status`. Nothing depends on it, so a failure is only logged.
fn start_status(dir: &Path, daemon: &Arc<Daemon>) -> Option<StatusServer> {
    let daemon = daemon.clone();
    let answer = move |format| match format {
        Format::Text => status::table(&daemon.luns()),
        Format::Json => status::json(&daemon.luns()),
    };
    StatusServer::start(dir, answer)
        .inspect_err(|error| {
            tracing::warn!("'tcmu-rbd status' gets no answer: no socket in {}: {error}", dir.display());
        })
        .ok()
}

fn start_log(options: &Serve) -> Option<LogFile> {
    let level = match options.log_level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
    };
    let path = options.log_dir.join(LOG_FILE);
    let file = LogFile::open(&path);
    log::init(level, file.as_ref().ok().cloned());
    match file {
        Ok(file) => Some(file),
        Err(error) => {
            tracing::warn!("logging to standard error only, cannot open {}: {error}", path.display());
            None
        }
    }
}

/// Releases whoever waits for a predecessor's answer, then listens, then takes on what exists; while that
/// is being found out the kernel refuses changes with EAGAIN.
fn start_netlink(module: &Module, daemon: &Arc<Daemon>) -> anyhow::Result<NetlinkThread> {
    module.block_netlink(true)?;
    let started = module.reset_netlink().map_err(anyhow::Error::from).and_then(|()| {
        let link = TcmuNetlink::connect()?;
        link.set_features(true)?;
        let (handler, scanner) = (daemon.clone(), daemon.clone());
        let thread = NetlinkThread::spawn(
            link,
            module.clone(),
            move |event, responder| handler.handle(event, responder),
            // Events were lost. Devices that vanished notice it themselves.
            move || scanner.adopt_all(),
        )?;
        daemon.adopt_all();
        Ok(thread)
    });
    module.block_netlink(false)?;
    started
}

/// What `systemctl status` shows.
fn status(daemon: &Daemon) -> String {
    match daemon.beats() {
        (served, 0) => format!("serving {} devices", served.len()),
        (served, others) => format!("serving {} devices, {others} not open yet", served.len()),
    }
}

/// Waits for signals and looks after the threads meanwhile; returns on the signal that ends us.
fn run(
    signals: &SignalFd,
    log_file: Option<&LogFile>,
    supervisor: &mut Supervisor,
    mut look: impl FnMut(&mut Supervisor),
) -> anyhow::Result<()> {
    let mut next = Instant::now();
    loop {
        let now = Instant::now();
        if now >= next {
            look(supervisor);
            next = now + supervisor.interval();
        }
        let pause = PollTimeout::try_from(next.saturating_duration_since(now)).unwrap_or(PollTimeout::ZERO);
        match nix::poll::poll(&mut [PollFd::new(signals.as_fd(), PollFlags::POLLIN)], pause) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot wait for signals"),
        }
        let Some(signal) = signals.read_signal().context("cannot read signals")? else { continue };
        if signal.ssi_signo != Signal::SIGHUP as u32 {
            tracing::info!(signal = signal.ssi_signo, "stopping");
            return Ok(());
        }
        supervisor.reloading();
        if let Some(file) = log_file {
            match file.reopen() {
                Ok(()) => tracing::info!("log file reopened"),
                Err(error) => tracing::error!(%error, "cannot reopen the log file; the old one stays in use"),
            }
        }
        supervisor.reloaded();
    }
}

/// Ends all devices, and says meanwhile that this is in order.
fn shut_down(daemon: &Arc<Daemon>, supervisor: &Supervisor) {
    std::thread::scope(|scope| {
        let (alive, ended) = crossbeam_channel::bounded::<Infallible>(0);
        let work = move || {
            let _alive = alive;
            daemon.shut_down();
        };
        if std::thread::Builder::new().name("stop".into()).spawn_scoped(scope, work).is_err() {
            return daemon.shut_down(); // no thread to be had: unattended
        }
        while ended.recv_timeout(supervisor.interval()) == Err(RecvTimeoutError::Timeout) {
            supervisor.alive();
        }
    });
}
