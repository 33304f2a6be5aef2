//! `org.kernel.TCMUService1` on the system bus: how targetcli finds the handler and checks strings.
//!
//! targetcli makes a `user:NAME` backstore of every object that GetManagedObjects returns and
//! blocks on our answers, so the object manager is our own: it lists the handler and nothing else,
//! and every answer comes from memory, from zbus's own thread, whatever the rest of the daemon is
//! doing. A problem is an answer `(false, reason)`, never a D-Bus error. A host without a bus (a
//! container) is served all the same: the caller logs [`DbusError`] and goes on.

use crate::cfgstring;
use std::collections::HashMap;
use std::time::Duration;
use zbus::fdo::{RequestNameFlags, RequestNameReply};
use zbus::object_server::SignalEmitter;
use zbus::wire::{ObjectPath, OwnedObjectPath, OwnedVariant, Variant};
use zbus::{Connection, connection, interface};

/// The name on the bus.
pub const NAME: &str = "org.kernel.TCMUService1";
const ROOT: &str = "/org/kernel/TCMUService1";
const HANDLER: &str = "/org/kernel/TCMUService1/rbd";
const HANDLER_MANAGER: &str = "/org/kernel/TCMUService1/HandlerManager1";
/// A bus that does not answer within this time counts as missing.
const PATIENCE: Duration = Duration::from_secs(10);

/// Shown by `targetcli /backstores/user:rbd help create`, word for word the incumbent's.
pub const CONFIG_DESC: &str = "RBD config string is of the form:\n\
    poolname/devicename[;option1;option2;...]\n\
    where:\n\
    poolname:\tExisting RADOS pool\n\
    devicename:\tName of the RBD image\n\
    optionN:\tLike: \"osd_op_timeout=30\" in secs\n\
    \x20                    \"conf=/etc/ceph/cluster.conf\"\n\
    \x20                    \"id=user\"\n";

/// Which bus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Bus {
    /// The machine's system bus.
    #[default]
    System,
    /// The bus at a D-Bus address.
    Address(String),
}

/// Failure to offer the service.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DbusError {
    /// There is no bus, or it does not let us in.
    #[error("cannot connect to {bus}; targetcli will not show user:rbd, all else works")]
    Connect {
        /// What was tried.
        bus: String,
        /// Why.
        source: zbus::Error,
    },
    /// Another process has the name.
    #[error(
        "{NAME} is owned by process {owner} on {bus}; stop it, it may be tcmu-runner or another tcmu-rbd"
    )]
    Taken {
        /// What was tried.
        bus: String,
        /// Its process id, or "unknown".
        owner: String,
    },
    /// The bus does not let us have the name.
    #[error(
        "{bus} does not give us the name {NAME}; is /etc/dbus-1/system.d/tcmu-runner.conf installed, and are we root?"
    )]
    Refused {
        /// What was tried.
        bus: String,
        /// Why.
        source: zbus::Error,
    },
}

/// The service; dropping it gives up the name.
#[derive(Debug)]
pub struct Service {
    connection: Connection,
}

impl Service {
    /// Offers the service on the system bus.
    pub fn start() -> Result<Self, DbusError> {
        Self::start_on(&Bus::System)
    }

    /// Offers the service on another bus.
    pub fn start_on(bus: &Bus) -> Result<Self, DbusError> {
        zbus::block_on(Self::connect(bus))
    }

    /// Whether the bus still says that the name is ours. Waits for its answer at most a few seconds.
    pub fn owns_name(&self) -> bool {
        let bus = "org.freedesktop.DBus";
        let ours = self.connection.unique_name().map(ToString::to_string);
        let owner = async {
            let reply = self.connection.call_method(
                Some(bus),
                "/org/freedesktop/DBus",
                Some(bus),
                "GetNameOwner",
                &(NAME),
            );
            reply.await.ok()?.body().deserialize::<String>().ok()
        };
        ours.is_some() && zbus::block_on(owner) == ours
    }

    async fn connect(at: &Bus) -> Result<Self, DbusError> {
        let (bus, builder) = match at {
            Bus::System => ("the system bus".to_owned(), connection::Builder::system()),
            Bus::Address(address) => {
                (format!("the bus at {address}"), connection::Builder::address(address.as_str()))
            }
        };
        let connection = builder
            .method_timeout(PATIENCE)
            .serve_at(ROOT, ObjectManager)
            .serve_at(HANDLER, Handler)
            .serve_at(HANDLER_MANAGER, HandlerManager)
            .build()
            .await
            .map_err(|source| DbusError::Connect { bus: bus.clone(), source })?;
        // The objects are there before the name is: nobody who sees the name finds them missing.
        match connection.request_name_with_flags(NAME, RequestNameFlags::DO_NOT_QUEUE).await {
            Ok(RequestNameReply::PrimaryOwner | RequestNameReply::AlreadyOwner) => Ok(Service { connection }),
            Ok(_) | Err(zbus::Error::NameTaken) => {
                let owner = owner(&connection).await.map_or("unknown".to_owned(), |pid| pid.to_string());
                Err(DbusError::Taken { bus, owner })
            }
            Err(source) => Err(DbusError::Refused { bus, source }),
        }
    }
}

/// Process id of the name's owner.
async fn owner(connection: &Connection) -> Option<u32> {
    let bus = "org.freedesktop.DBus";
    let method = "GetConnectionUnixProcessID";
    let reply = connection.call_method(Some(bus), "/org/freedesktop/DBus", Some(bus), method, &(NAME)).await;
    reply.ok()?.body().deserialize().ok()
}

/// The handler object, which targetcli shows as `user:rbd`.
struct Handler;

#[interface(name = "org.kernel.TCMUService1")]
impl Handler {
    #[zbus(property)]
    fn config_desc(&self) -> &str {
        CONFIG_DESC
    }

    #[zbus(out_args("is_valid", "message"))]
    fn check_config(&self, configstr: &str) -> (bool, String) {
        match cfgstring::check(configstr) {
            Ok(()) => (true, "success".to_owned()),
            Err(error) => (false, error.to_string()),
        }
    }
}

/// Registration of external handlers, which this daemon does not have.
struct HandlerManager;

#[interface(name = "org.kernel.TCMUService1.HandlerManager1")]
impl HandlerManager {
    #[zbus(out_args("succeeded", "message"))]
    fn register_handler(&self, subtype: &str, cfgstr_desc: &str) -> (bool, String) {
        let _ = cfgstr_desc;
        (false, format!("Cannot find handler bus name: {NAME}.HandlerManager1.{subtype}"))
    }
}

type Interfaces = HashMap<String, HashMap<String, OwnedVariant>>;

/// The object manager, which lists the handler only.
struct ObjectManager;

#[interface(name = "org.freedesktop.DBus.ObjectManager")]
impl ObjectManager {
    #[zbus(out_args("object_paths_interfaces_and_properties"))]
    fn get_managed_objects(&self) -> zbus::fdo::Result<HashMap<OwnedObjectPath, Interfaces>> {
        let description = Variant::from(CONFIG_DESC).try_into()?;
        let properties = HashMap::from([("ConfigDesc".to_owned(), description)]);
        let path = ObjectPath::from_static_str_unchecked(HANDLER).into();
        Ok(HashMap::from([(path, HashMap::from([(NAME.to_owned(), properties)]))]))
    }

    #[zbus(signal)]
    async fn interfaces_added(
        emitter: &SignalEmitter<'_>,
        object_path: ObjectPath<'_>,
        interfaces_and_properties: Interfaces,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn interfaces_removed(
        emitter: &SignalEmitter<'_>,
        object_path: ObjectPath<'_>,
        interfaces: Vec<String>,
    ) -> zbus::Result<()>;
}
