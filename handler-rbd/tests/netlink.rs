//! The netlink client against a kernel: families that every kernel has, and, where it has one,
//! TCM-USER itself.

#![allow(clippy::unwrap_used)]

use handler_rbd::kernel::Sys;
use handler_rbd::kernel::alua::AccessType;
use handler_rbd::kernel::configfs::{Backstore, ResetKind};
use handler_rbd::kernel::event::{Change, Event, EventKind};
use handler_rbd::kernel::module::Module;
use handler_rbd::kernel::netlink::{NetlinkError, Received, Requests, TcmuNetlink};
use handler_rbd::kernel::netlink_thread::NetlinkThread;
use handler_rbd::kernel::responder::{Answers, Responder};
use handler_rbd::kernel::uio::{self, UioDevice, UioError};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{NetlinkAddr, getsockname, getsockopt, sockopt};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Multicast group "notify" of the family "nlctrl" has the fixed number 16 (`GENL_ID_CTRL`).
const NOTIFY: u32 = 1 << (16 - 1);
const TARGET: &str = "/sys/kernel/config/target";
const PATIENCE: Duration = Duration::from_secs(20);

/// Switches that cannot be set; the thread says so and goes on.
fn no_module() -> Module {
    Module::new(&Sys::at("/nonexistent"))
}

fn connect() -> TcmuNetlink {
    TcmuNetlink::connect_to("nlctrl", "notify").unwrap()
}

/// A message as an impostor would send it: an event's form, but not from the kernel.
fn send(sender: &Socket, to: &SocketAddr, length: usize) {
    let mut bytes = vec![0; length];
    bytes[..4].copy_from_slice(&u32::try_from(length).unwrap().to_ne_bytes());
    bytes[4..6].copy_from_slice(&16u16.to_ne_bytes());
    bytes[16] = 1;
    sender.send_to(&bytes, to, 0).unwrap();
}

#[test]
fn finds_a_family_and_its_group() {
    let mut netlink = connect();
    netlink.join().unwrap();
    assert!(matches!(netlink.recv().unwrap(), Received::WouldBlock));
}

#[test]
fn a_missing_family_names_the_remedy() {
    let error = TcmuNetlink::connect_to("TCM-NONE", "config").unwrap_err();
    assert!(matches!(error, NetlinkError::NoFamily(_)), "{error}");
    assert_eq!(
        error.to_string(),
        "the kernel has no generic netlink family TCM-NONE; load it with `modprobe target_core_user`"
    );
}

#[test]
fn a_missing_group_is_an_error() {
    let error = TcmuNetlink::connect_to("nlctrl", "config").unwrap_err();
    assert_eq!(error.to_string(), "the generic netlink family nlctrl has no multicast group config");
}

#[test]
fn a_refusal_is_not_lost() {
    // The family nlctrl has no command 7, which is SET_FEATURES.
    let error = connect().set_features(true).unwrap_err();
    assert!(matches!(error, NetlinkError::Refused { request: "SET_FEATURES", .. }), "{error}");
}

#[test]
fn the_thread_stops() {
    NetlinkThread::spawn(connect(), no_module(), |_, _| {}, || {}).unwrap().stop();
}

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn the_buffer_is_large() {
    let netlink = connect();
    // The kernel doubles what it is given, to account for its own overhead.
    assert_eq!(getsockopt(&netlink.as_fd(), sockopt::RcvBuf).unwrap(), 16 << 20);
}

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn messages_that_are_not_the_kernels_are_dropped() {
    let mut netlink = connect();
    let address: NetlinkAddr = getsockname(netlink.as_fd().as_raw_fd()).unwrap();
    let sender = Socket::new(NETLINK_GENERIC).unwrap();

    send(&sender, &SocketAddr::new(address.pid(), 0), 64);

    let Received::Events(events) = netlink.recv().unwrap() else { panic!("no datagram") };
    assert!(events.is_empty(), "{events:?}");
    assert!(matches!(netlink.recv().unwrap(), Received::WouldBlock));
}

/// Sends more than the buffer holds to everybody in the group, in this network namespace.
fn flood(sender: &Socket) {
    for _ in 0..200 {
        send(sender, &SocketAddr::new(0, NOTIFY), 100_000);
    }
}

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn an_overrun_is_reported() {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let mut netlink = connect();
    netlink.join().unwrap();
    flood(&Socket::new(NETLINK_GENERIC).unwrap());

    assert!(matches!(netlink.recv().unwrap(), Received::Overrun));
    // What did fit is still there.
    assert!(matches!(netlink.recv().unwrap(), Received::Events(_)));
}

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn the_thread_reports_each_overrun_with_an_empty_queue() {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let (lost, heard) = mpsc::channel();
    let thread =
        NetlinkThread::spawn(connect(), no_module(), |_, _| {}, move || lost.send(()).unwrap()).unwrap();
    let sender = Socket::new(NETLINK_GENERIC).unwrap();

    // If the callback came before the queue was empty, the kernel would not report the next loss.
    let mut reports = 0;
    let deadline = Instant::now() + PATIENCE;
    while reports < 3 && Instant::now() < deadline {
        flood(&sender);
        reports += heard.try_iter().count();
    }
    thread.stop();
    assert!(reports >= 3, "{reports}");
}

/// An administrator's command, which waits for the daemon's answer.
fn administrator<T: Send + 'static>(command: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    std::thread::spawn(command)
}

fn echo(path: PathBuf, text: &'static str) -> JoinHandle<io::Result<()>> {
    // One write; `fs::write` would repeat an interrupted one.
    administrator(move || File::options().write(true).open(path)?.write(text.as_bytes()).map(drop))
}

fn errno(command: JoinHandle<io::Result<()>>) -> Option<i32> {
    command.join().unwrap().unwrap_err().raw_os_error()
}

/// There is one netlink interface in a kernel, so one test uses it at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// A daemon on this machine's kernel, as far as netlink goes.
struct Daemon {
    module: Module,
    requests: Arc<Requests>,
    events: mpsc::Receiver<(Event, Responder)>,
    thread: NetlinkThread,
    _alone: MutexGuard<'static, ()>,
}

impl Daemon {
    fn start(rescan: impl FnMut() + Send + 'static) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let module = Module::new(&Sys::host());
        module.load().unwrap();
        module.block_netlink(true).unwrap();
        module.reset_netlink().unwrap();
        let netlink = TcmuNetlink::connect().unwrap();
        let requests = netlink.requests();
        requests.set_features(true).unwrap();
        let (sender, events) = mpsc::channel();
        let handler = move |event: Event, responder| sender.send((event, responder)).unwrap();
        let thread = NetlinkThread::spawn(netlink, module.clone(), handler, rescan).unwrap();
        module.block_netlink(false).unwrap();
        Daemon { module, requests, events, thread, _alone: alone }
    }

    fn next(&self) -> (Event, Responder) {
        self.events.recv_timeout(PATIENCE).unwrap()
    }

    /// Makes a backstore that is not enabled yet.
    fn backstore(&self, name: &str) -> PathBuf {
        let dir = PathBuf::from(TARGET).join("core").join(name);
        fs::create_dir_all(&dir).unwrap();
        let config = "dev_config=rbd/rbd/img;osd_op_timeout=30,dev_size=67108864";
        fs::write(dir.join("control"), config).unwrap();
        fs::write(dir.join("control"), "max_data_area_mb=4,hw_max_sectors=1024").unwrap();
        dir
    }

    fn remove(&self, dir: &Path, before_the_answer: impl FnOnce()) -> Event {
        let directory = dir.to_owned();
        let remove = administrator(move || fs::remove_dir(directory));
        // A command that was interrupted by a recovery may have left its event behind.
        let (event, responder) = loop {
            let next = self.next();
            if next.0.kind == EventKind::Removed {
                break next;
            }
        };
        before_the_answer();
        assert!(responder.done(Ok(())));
        remove.join().unwrap().unwrap();
        fs::remove_dir(dir.parent().unwrap()).unwrap();
        event
    }

    fn stop(self) {
        self.thread.stop();
        self.requests.set_features(false).unwrap();
    }
}

/// The multicast groups that generic netlink sockets of this machine have joined, as a bit mask.
fn joined_groups() -> u32 {
    let table = fs::read_to_string("/proc/net/netlink").unwrap();
    let rows = table.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
    let generic = rows.filter(|columns| columns[1] == "16");
    generic.map(|columns| u32::from_str_radix(columns[3], 16).unwrap()).fold(0, |all, one| all | one)
}

/// Lost events: the kernel's waiting task is freed, the answer to it is void, and all goes on.
#[test]
#[ignore = "needs a kernel with target_core_user"]
fn an_overrun_frees_who_waits() {
    let (sender, rescans) = mpsc::channel();
    let daemon = Daemon::start(move || sender.send(()).unwrap());
    let dir = daemon.backstore("user_78/overrun");
    let enable = echo(dir.join("enable"), "1");
    assert!(daemon.next().1.done(Ok(())));
    enable.join().unwrap().unwrap();

    let command = echo(dir.join("attrib/dev_size"), "134217728");
    let (_, responder) = daemon.next();
    let sender = Socket::new(NETLINK_GENERIC).unwrap();
    let group = SocketAddr::new(0, joined_groups());
    let deadline = Instant::now() + PATIENCE;
    while rescans.try_recv().is_err() && Instant::now() < deadline {
        (0..200).for_each(|_| send(&sender, &group, 100_000));
    }
    assert_eq!(errno(command), Some(libc::EINTR));
    assert!(!responder.done(Ok(())));

    // What the floods left may be recovered from once more before this gets through.
    let mut command = echo(dir.join("attrib/dev_size"), "134217728");
    let mut granted = daemon.events.recv_timeout(PATIENCE).is_ok_and(|(_, responder)| responder.done(Ok(())));
    while !granted && Instant::now() < deadline {
        let _ = command.join().unwrap();
        command = echo(dir.join("attrib/dev_size"), "134217728");
        granted = daemon.events.recv_timeout(PATIENCE).is_ok_and(|(_, responder)| responder.done(Ok(())));
    }
    command.join().unwrap().unwrap();
    daemon.remove(&dir, || {});
    daemon.stop();
}

/// The whole life of a backstore, with a kernel that has TCMU and iSCSI. It must have no other
/// daemon, and configfs must be mounted.
#[test]
#[ignore = "needs a kernel with target_core_user"]
fn the_life_of_a_backstore() {
    let sys = Sys::host();
    let daemon = Daemon::start(|| panic!("lost events"));
    let Daemon { module, requests, .. } = &daemon;
    let next = || daemon.next();
    let target = PathBuf::from(TARGET);
    let dir = daemon.backstore("user_77/life");

    // Refused, forgotten, granted.
    let enable = echo(dir.join("enable"), "1");
    let (event, responder) = next();
    assert_eq!(event.kind, EventKind::Added);
    assert_eq!(event.device.to_string(), "user_77/life");
    assert_eq!(event.device.config, "rbd/rbd/img;osd_op_timeout=30");
    assert!(responder.done(Err(Errno::ENOENT)));
    assert_eq!(errno(enable), Some(libc::ENOENT));

    let enable = echo(dir.join("enable"), "1");
    drop(next().1);
    assert_eq!(errno(enable), Some(libc::EIO));

    let enable = echo(dir.join("enable"), "1");
    let (event, responder) = next();
    let device = UioDevice::by_minor(&sys, event.minor).unwrap();
    assert_eq!(device.name, event.device);
    let backstore = Backstore::new(&sys, &event.device);
    assert_eq!(backstore.dev_size().unwrap(), 67_108_864);
    assert_eq!(backstore.block_size().unwrap(), 512);
    let fd = device.open(PATIENCE).unwrap();
    assert!(responder.done(Ok(())));
    enable.join().unwrap().unwrap();
    // A second answer has nobody to hear it.
    let error = requests.answer(requests.epoch(), event.owed(), Ok(())).unwrap_err();
    assert!(matches!(error, NetlinkError::Refused { errno: Errno::ENODEV, .. }), "{error}");

    assert!(uio::scan(&sys).unwrap().contains(&device));
    assert_eq!(device.map_size, (8 + 4) << 20);
    let error = device.open(Duration::from_millis(50)).unwrap_err();
    assert!(matches!(error, UioError::Busy { .. }), "{error}");
    drop(fd);
    let fd = device.open(PATIENCE).unwrap();

    // A reset frees who waits, and voids the answer.
    let command = echo(dir.join("attrib/dev_size"), "1073741824");
    let (_, responder) = next();
    module.block_netlink(true).unwrap();
    module.reset_netlink().unwrap();
    requests.forget();
    assert_eq!(errno(command), Some(libc::EINTR));
    module.block_netlink(false).unwrap();
    assert!(!responder.done(Ok(())));

    assert_eq!(backstore.max_sectors().unwrap(), 1024);
    assert_eq!(backstore.cmd_time_out().unwrap(), 30);
    assert_eq!(backstore.unit_serial().unwrap(), "");
    fs::write(dir.join("wwn/vpd_unit_serial"), "6e7b9b6e-2d7c-4e0c-9b0e-000000000001\n").unwrap();
    assert_eq!(backstore.unit_serial().unwrap(), "6e7b9b6e-2d7c-4e0c-9b0e-000000000001");
    backstore.block(true).unwrap();
    backstore.reset_ring(ResetKind::Busy).unwrap();
    backstore.reset_ring(ResetKind::CheckCondition).unwrap();
    backstore.block(false).unwrap();

    // Reconfiguration: refused, granted, with the newline of `echo`, forgotten.
    let attribute = |name: &str| dir.join("attrib").join(name);
    for (name, text, change, status, want) in [
        ("dev_size", "134217728", Change::Size(134_217_728), Err(Errno::EINVAL), Some(libc::EINVAL)),
        ("dev_size", "134217728", Change::Size(134_217_728), Ok(()), None),
        ("dev_config", "rbd/rbd/img\n", Change::Config("rbd/rbd/img".into()), Ok(()), None),
        (
            "emulate_write_cache",
            "1",
            Change::WriteCache(true),
            Err(Errno::EOPNOTSUPP),
            Some(libc::EOPNOTSUPP),
        ),
    ] {
        let command = echo(attribute(name), text);
        let (event, responder) = next();
        assert_eq!(event.kind, EventKind::Reconfigured(change));
        assert!(responder.done(status));
        assert_eq!(command.join().unwrap().err().and_then(|error| error.raw_os_error()), want);
    }
    assert_eq!(backstore.dev_size().unwrap(), 134_217_728);
    assert!(!backstore.emulate_write_cache().unwrap());
    let renamed = UioDevice::by_minor(&sys, event.minor).unwrap();
    assert_eq!(renamed.name.config, "rbd/rbd/img");

    // Target port groups as ceph-iscsi makes them.
    let group = dir.join("alua/ao");
    fs::create_dir(&group).unwrap();
    assert_eq!(backstore.port_groups().unwrap(), []);
    for (attribute, value) in [
        ("tg_pt_gp_id", "5"),
        ("alua_access_type", "1"),
        ("alua_support_offline", "0"),
        ("alua_support_unavailable", "0"),
        ("implicit_trans_secs", "45"),
    ] {
        fs::write(group.join(attribute), value).unwrap();
    }
    let iqn = target.join("iscsi/iqn.2026-01.io.example:life");
    let tpg = iqn.join("tpgt_3");
    let lun = tpg.join("lun/lun_0");
    fs::create_dir_all(&lun).unwrap();
    symlink(&dir, lun.join("life")).unwrap();
    fs::write(lun.join("alua_tg_pt_gp"), "ao").unwrap();
    let groups = backstore.port_groups().unwrap();
    assert_eq!(backstore.enabled_port(&groups).unwrap(), None);
    fs::write(tpg.join("enable"), "1").unwrap();
    let port = backstore.enabled_port(&groups).unwrap().unwrap();
    assert_eq!((groups.len(), groups[0].id, groups[0].implicit_trans_secs), (1, 5, 45));
    assert_eq!((groups[0].access_type, groups[0].supported), (AccessType::Implicit, 0x87));
    assert_eq!((port.protocol, port.tpgt, port.group_id), (5, 3, 5));
    assert_eq!(port.wwn, "iqn.2026-01.io.example:life");

    fs::write(tpg.join("enable"), "0").unwrap();
    fs::remove_file(lun.join("life")).unwrap();
    for directory in [&lun, &tpg, &iqn, &group] {
        fs::remove_dir(directory).unwrap();
    }

    let removed = daemon.remove(&dir, || drop(fd));
    assert_eq!(removed.device_id, event.device_id);
    let error = UioDevice::by_minor(&sys, event.minor).unwrap_err();
    assert!(matches!(error, UioError::Gone(_)), "{error}");
    daemon.stop();
}
