//! One RADOS client: configured before it connects, fenced and seen by the cluster as one.
//!
//! One client for each image is the rule here, because a blocklist entry shuts out a whole client. Calls
//! block (up to the time-outs given) and belong on a control thread, never on a ring thread.

use super::error::ConnectError;
use super::ffi::{Dict, Errno, Rados, c_string};
use std::ffi::CStr;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Seconds that a fenced client stays shut out. Ceph's own default; an operator may have made that shorter, and an OSD that
/// was frozen, with an operation of the client's in its queue, must find the client shut out when it thaws.
const FENCED_FOR: u32 = 3600;

/// Name of the service in the service map; ceph-iscsi and the dashboard look for this one.
const SERVICE: &CStr = c"tcmu-runner";

/// Set for every client, whatever files and monitors say: no cache, and few threads, since each image has a
/// client of its own. `librados_thread_count` is left alone: one thread instead of its default of two costs a
/// third more context switches (docs/performance.md).
/// The times of the last access and change would be stored in the image's header once a minute, for nobody, and change the
/// version that `Lock::mark` goes by.
const OPTIONS: [(&CStr, &str); 4] = [
    (c"rbd_cache", "false"),
    (c"ms_async_op_threads", "1"),
    (c"rbd_atime_update_interval", "0"),
    (c"rbd_mtime_update_interval", "0"),
];

/// How to reach a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// User without "client."; `None` is librados' default, admin.
    pub id: Option<String>,
    /// Configuration file; `None` is librados' search list, where a missing file is no error.
    pub conf: Option<PathBuf>,
    /// When an operation that no OSD answers fails. Too short a value is replaced, see
    /// [`Cluster::connect`].
    pub op_timeout: Option<Duration>,
    /// How long to wait for monitors, when connecting and later. Rounded up to whole seconds.
    pub connect_timeout: Duration,
    /// Whether librbd sends writes from our pages, rather than from a copy that it makes at submission.
    ///
    /// That loses completions: a write that fails before it reaches the object layer, as every write of a
    /// blocklisted client does, keeps its buffer until it completes, and completes only once the buffer is
    /// released (librbd `AioCompletion::fail`, `ImageDispatchSpec`; seen with 16.2.15,
    /// tests/rbd_live/fencing.rs). So only for measuring, and where nobody fences.
    pub zero_copy_writes: bool,
}

/// How long a client's operations may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeOuts {
    /// One operation on an OSD: `rados_osd_op_timeout`.
    pub operation: Duration,
    /// Until the lock of a client that died is to be had: `osd_client_watch_timeout`.
    pub lock: Duration,
    /// A monitor's answer, and connecting.
    pub monitors: Duration,
}

/// A connected RADOS client. Disconnects when the last image of it is closed and this is dropped.
pub struct Cluster {
    pub(super) zero_copy_writes: bool,
    rados: Arc<Rados>,
    id: String,
    time_outs: TimeOuts,
}

/// What the service map says of an image, in the words of tcmu-runner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceStatus {
    /// Whether this client holds the image's exclusive lock.
    pub lock_owner: bool,
    /// How often the lock was lost.
    pub lock_lost: u64,
    /// How often the connection was lost.
    pub connection_lost: u64,
    /// How many commands timed out.
    pub commands_timed_out: u64,
}

/// A monitor refused a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the monitors refuse the command: {message} ({})", Errno(*errno))]
pub struct CommandError {
    /// Positive errno.
    pub errno: i32,
    /// The monitor's words.
    pub message: String,
}

impl Cluster {
    /// Configures a client, then connects it.
    ///
    /// Set before connecting, over whatever files and monitors say: no cache and no writes from lent memory
    /// ([`Image::open`] verifies that no override brings them back), time-outs, few threads. The time-out
    /// is `config.op_timeout`, else the configuration's `rados_osd_op_timeout`, if longer than the time in
    /// which the cluster notices a dead OSD; else a little more than that. A shorter one would fail
    /// commands, and might invalidate the object map, during ordinary recovery.
    ///
    /// [`Image::open`]: super::Image::open
    pub fn connect(config: &ClusterConfig) -> Result<Self, ConnectError> {
        let other = |step| move |Errno(errno): Errno| ConnectError::Other { step, errno };
        let name = config.id.as_deref().map(c_string).transpose().map_err(other("user name"))?;
        let rados = Rados::create(name.as_deref()).map_err(other("creating a RADOS client"))?;
        read_conf(&rados, config)?;
        let seconds = whole_seconds(config.connect_timeout);
        let time_outs = configure(&rados, config, seconds)?;
        let id = config.id.clone().unwrap_or_else(|| "admin".into());
        rados.connect().map_err(|errno| connect_error(&rados, errno, &id, seconds))?;
        Ok(Self { zero_copy_writes: config.zero_copy_writes, rados: Arc::new(rados), id, time_outs })
    }

    /// How long its operations may take.
    pub fn time_outs(&self) -> TimeOuts {
        self.time_outs
    }

    /// The client's addresses, as [`Cluster::blocklist`] takes them. They change with every connection
    /// and identify this client in fencing: keep them where a successor finds them.
    pub fn addresses(&self) -> Result<String, CommandError> {
        self.rados.addresses().map_err(plain)
    }

    /// Shuts a client out of the cluster for an hour, and waits until the
    /// map that says so has arrived here. `addresses` may be a list as [`Cluster::addresses`] gives it.
    ///
    /// When this returns, no operation of that client that has not happened can still happen before one
    /// that this client starts now: operations carry the map's epoch, and OSDs wait for it.
    pub fn blocklist(&self, addresses: &str) -> Result<(), CommandError> {
        for address in endpoints(addresses) {
            let address = c_string(address).map_err(plain)?;
            self.rados.blocklist(&address, FENCED_FOR).map_err(plain)?;
        }
        Ok(())
    }

    /// Sends a JSON command to the monitors.
    pub fn mon_command(&self, json: &str) -> Result<Vec<u8>, CommandError> {
        let json = c_string(json).map_err(plain)?;
        self.rados.mon_command(&json).map_err(|(errno, words)| CommandError {
            errno: errno.0,
            message: String::from_utf8_lossy(&words).into_owned(),
        })
    }

    /// Enters the image into the service map, which is what `ceph -s`, the dashboard and ceph-iscsi show.
    /// It stays while the client lives. Nothing depends on it, so a failure is only logged.
    pub fn service_register(&self, pool: &str, image: &str, image_id: &str) {
        let node = nix::sys::utsname::uname()
            .map(|name| name.nodename().to_string_lossy().into_owned())
            .unwrap_or_default();
        let metadata = Dict::new([
            ("pool_name", pool),
            ("image_name", image),
            ("image_id", image_id),
            ("daemon_type", "portal"),
            ("daemon_prefix", &node),
        ]);
        let daemon = format!("{node}:{pool}/{image}");
        let result =
            c_string(&daemon).and_then(|daemon| self.rados.service_register(SERVICE, &daemon, &metadata));
        if let Err(errno) = result {
            tracing::warn!("{daemon} is not in the service map: {errno}");
        }
    }

    /// Replaces the image's status in the service map. A failure is only logged.
    pub fn service_status(&self, status: &ServiceStatus) {
        if let Err(errno) = self.rados.service_status(&status.dict()) {
            tracing::warn!("status in the service map is not updated: {errno}");
        }
    }

    pub(super) fn rados(&self) -> &Arc<Rados> {
        &self.rados
    }

    /// The user, without "client.".
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("id", &self.id).finish_non_exhaustive()
    }
}

impl ServiceStatus {
    fn dict(&self) -> Dict {
        Dict::new([
            ("lock_owner", if self.lock_owner { "true" } else { "false" }),
            ("lock_lost_cnt", &self.lock_lost.to_string()),
            ("conn_lost_cnt", &self.connection_lost.to_string()),
            ("cmd_timed_out_cnt", &self.commands_timed_out.to_string()),
        ])
    }
}

fn plain(errno: Errno) -> CommandError {
    CommandError { errno: errno.0, message: "no answer with words".into() }
}

fn read_conf(rados: &Rados, config: &ClusterConfig) -> Result<(), ConnectError> {
    let Some(path) = &config.conf else {
        // Without any file, CEPH_ARGS or DNS may still name monitors; connecting tells.
        return rados.read_conf(None).or(Ok(()));
    };
    let unreadable = |Errno(errno): Errno| ConnectError::Conf { path: path.clone(), errno };
    let c_path = path.to_str().ok_or(Errno(libc::EINVAL)).and_then(c_string).map_err(unreadable)?;
    rados.read_conf(Some(&c_path)).map_err(unreadable)
}

fn configure(rados: &Rados, config: &ClusterConfig, connect_seconds: u64) -> Result<TimeOuts, ConnectError> {
    let number = |option: &CStr| rados.get(option).ok().and_then(|v| v.parse::<f64>().ok()).unwrap_or(0.0);
    let recovery = number(c"osd_heartbeat_grace") + number(c"osd_heartbeat_interval");
    let asked = config.op_timeout.map(|t| t.as_secs_f64());
    let op_timeout = op_timeout(asked, number(c"rados_osd_op_timeout"), recovery);
    if asked.is_some_and(|asked| asked != op_timeout) {
        tracing::warn!(
            "an operation time-out of {}s is not longer than a dead OSD stays unnoticed ({recovery} s); \
             {op_timeout} s is used",
            asked.unwrap_or_default()
        );
    }
    let time_outs = TimeOuts {
        operation: seconds(op_timeout),
        lock: seconds(number(c"osd_client_watch_timeout")),
        monitors: Duration::from_secs(connect_seconds),
    };
    let connect_timeout = connect_seconds.to_string();
    let op_timeout = op_timeout.to_string();
    let asked_for: [(&CStr, &str); 4] = [
        (c"rbd_disable_zero_copy_writes", if config.zero_copy_writes { "false" } else { "true" }),
        (c"rados_osd_op_timeout", &op_timeout),
        (c"rados_mon_op_timeout", &connect_timeout),
        (c"client_mount_timeout", &connect_timeout),
    ];
    for (option, value) in OPTIONS.into_iter().chain(asked_for) {
        let set = c_string(value).and_then(|value| rados.set(option, &value));
        set.map_err(|Errno(errno)| ConnectError::Option {
            option: option.to_string_lossy().into_owned(),
            value: value.into(),
            errno,
        })?;
    }
    Ok(time_outs)
}

/// A time-out as configured: in seconds, and so large that it is as good as none where it is no time.
fn seconds(number: f64) -> Duration {
    Duration::try_from_secs_f64(number).unwrap_or(Duration::from_secs(u32::MAX.into()))
}

/// The operation time-out in seconds: what was `asked` for, else what is `configured`, provided that it is
/// longer than `recovery`, the time until a dead OSD is noticed; else a bit more than that. tcmu-runner's
/// rule, so that `osd_op_timeout=30` means what it did.
fn op_timeout(asked: Option<f64>, configured: f64, recovery: f64) -> f64 {
    asked.into_iter().chain([configured]).find(|t| *t > recovery).unwrap_or(recovery + 5.0)
}

/// The `ip:port/nonce` parts of an address list such as `[v2:10.0.0.1:0/7,v1:10.0.0.1:0/7]`, each once. A
/// client that does not listen has the same one for each protocol version.
pub(super) fn endpoints(addresses: &str) -> Vec<&str> {
    let typed = ["[v1:", "[v2:", "[any:"].iter().any(|start| addresses.starts_with(start));
    let list = if typed { addresses.trim_start_matches('[').trim_end_matches(']') } else { addresses };
    let mut found = Vec::new();
    for address in list.split(',') {
        let bare = ["v1:", "v2:", "any:"].iter().find_map(|kind| address.strip_prefix(kind));
        let endpoint = bare.unwrap_or(address);
        if !endpoint.is_empty() && !found.contains(&endpoint) {
            found.push(endpoint);
        }
    }
    found
}

fn whole_seconds(timeout: Duration) -> u64 {
    timeout.as_secs().saturating_add(u64::from(timeout.subsec_nanos() > 0)).max(1)
}

fn connect_error(rados: &Rados, errno: Errno, id: &str, seconds: u64) -> ConnectError {
    let mon_host = rados.get(c"mon_host").unwrap_or_default();
    match errno.0 {
        libc::ENOENT if mon_host.is_empty() => ConnectError::NoMonitors,
        libc::ENOENT => {
            let searched = rados.get(c"keyring").unwrap_or_else(|_| "its default places".into());
            ConnectError::NoKeyring { id: id.into(), searched }
        }
        libc::EACCES | libc::EPERM | libc::EOPNOTSUPP => {
            ConnectError::Denied { id: id.into(), errno: errno.0 }
        }
        libc::ETIMEDOUT => ConnectError::Unreachable { mon_host, seconds },
        errno => ConnectError::Other { step: "connecting to the cluster", errno },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn op_timeout_is_longer_than_recovery() {
        assert_eq!(op_timeout(Some(30.0), 0.0, 26.0), 30.0); // as asked
        assert_eq!(op_timeout(Some(26.0), 0.0, 26.0), 31.0); // must be longer, not equal
        assert_eq!(op_timeout(Some(10.0), 40.0, 26.0), 40.0); // the configuration's
        assert_eq!(op_timeout(None, 40.0, 26.0), 40.0);
        assert_eq!(op_timeout(None, 0.0, 26.0), 31.0); // 0 is "never", which is too long
        assert_eq!(op_timeout(None, 10.0, 26.0), 31.0);
    }

    #[test]
    fn endpoints_are_found_in_every_form() {
        assert_eq!(endpoints("v2:10.0.0.1:0/7"), ["10.0.0.1:0/7"]);
        assert_eq!(endpoints("10.0.0.1:0/7"), ["10.0.0.1:0/7"]);
        assert_eq!(endpoints("[v2:10.0.0.1:0/7,v1:10.0.0.1:0/7]"), ["10.0.0.1:0/7"]);
        assert_eq!(endpoints("[v2:10.0.0.1:3300/7,v1:10.0.0.1:6789/7]").len(), 2);
        assert_eq!(endpoints("[v2:[fd00::1]:0/7,v1:[fd00::1]:0/7]"), ["[fd00::1]:0/7"]);
        assert_eq!(endpoints("[fd00::1]:0/7"), ["[fd00::1]:0/7"]);
        assert!(endpoints("").is_empty());
    }

    #[test]
    fn seconds_are_rounded_up_and_never_zero() {
        assert_eq!(whole_seconds(Duration::ZERO), 1); // 0 would mean no time-out
        assert_eq!(whole_seconds(Duration::from_millis(2001)), 3);
        assert_eq!(whole_seconds(Duration::from_secs(5)), 5);
    }

    #[test]
    fn status_is_what_ceph_iscsi_parses() {
        let status =
            ServiceStatus { lock_owner: true, lock_lost: 1, connection_lost: 2, commands_timed_out: 3 };
        let expected = Dict::new([
            ("lock_owner", "true"),
            ("lock_lost_cnt", "1"),
            ("conn_lost_cnt", "2"),
            ("cmd_timed_out_cnt", "3"),
        ]);
        assert_eq!(status.dict(), expected);
    }
}
