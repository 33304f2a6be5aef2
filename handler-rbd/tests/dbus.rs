//! The D-Bus service on a bus of the test's own, asked with busctl as an administrator would.
//! Expected texts are the incumbent's. Needs the packages dbus and systemd.

#![allow(clippy::unwrap_used)]

use handler_rbd::service::dbus::{Bus, DbusError, Service};
use handler_rbd::service::keeper::Keeper;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const NAME: &str = "org.kernel.TCMUService1";
const ROOT: &str = "/org/kernel/TCMUService1";
const HANDLER: &str = "/org/kernel/TCMUService1/rbd";
const MANAGER: &str = "/org/kernel/TCMUService1/HandlerManager1";

/// A dbus-daemon that lives as long as the test.
struct PrivateBus {
    #[allow(dead_code, reason = "ends with the test")]
    daemon: Ended,
    address: String,
    _directory: Option<tempfile::TempDir>,
}

/// A process that is ended by its pid.
struct Ended(Child);

impl PrivateBus {
    fn start(policy: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let bus = Self::start_in(directory.path(), policy);
        PrivateBus { _directory: Some(directory), ..bus }
    }

    fn start_in(directory: &Path, policy: &str) -> Self {
        let config = directory.join("bus.conf");
        fs::write(&config, bus_config(directory, policy)).unwrap();
        let mut daemon = Command::new("dbus-daemon")
            .arg("--config-file")
            .arg(&config)
            .args(["--nofork", "--print-address"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("dbus-daemon is installed (package dbus)");
        let mut address = String::new();
        BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut address).unwrap();
        PrivateBus { daemon: Ended(daemon), address: address.trim().to_owned(), _directory: None }
    }

    fn bus(&self) -> Bus {
        Bus::Address(self.address.clone())
    }

    fn busctl(&self, arguments: &[&str]) -> String {
        let output = Command::new("busctl")
            .arg(format!("--address={}", self.address))
            .args(arguments)
            .output()
            .expect("busctl is installed (package systemd)");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "busctl {arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn check(&self, configstr: &str) -> String {
        self.busctl(&["call", NAME, HANDLER, NAME, "CheckConfig", "s", configstr])
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn bus_config(directory: &Path, policy: &str) -> String {
    let socket = directory.join("socket");
    format!(
        "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN\" \
         \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\
         <busconfig><type>custom</type><listen>unix:path={}</listen>\
         <policy context=\"default\"><allow user=\"*\"/><allow send_destination=\"*\"/>\
         <allow eavesdrop=\"true\"/>{policy}</policy></busconfig>",
        socket.display()
    )
}

const MAY_OWN: &str = "<allow own=\"*\"/>";

#[test]
fn the_handler_object_is_as_targetcli_expects() {
    let bus = PrivateBus::start(MAY_OWN);
    let _service = Service::start_on(&bus.bus()).unwrap();

    let lines = bus.busctl(&["introspect", NAME, HANDLER, NAME]);
    let rows: Vec<Vec<&str>> = lines.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "TYPE", "SIGNATURE", "RESULT/VALUE", "FLAGS"]);
    assert_eq!(rows[1], [".CheckConfig", "method", "s", "bs", "-"]);
    assert_eq!(rows[2][..3], [".ConfigDesc", "property", "s"]);
    assert_eq!(rows[2].last(), Some(&"emits-change"));
    assert_eq!(rows.len(), 3);

    assert_eq!(
        bus.busctl(&["get-property", NAME, HANDLER, NAME, "ConfigDesc"]),
        "s \"RBD config string is of the form:\\npoolname/devicename[;option1;option2;...]\\nwhere:\\n\
         poolname:\\tExisting RADOS pool\\ndevicename:\\tName of the RBD image\\n\
         optionN:\\tLike: \\\"osd_op_timeout=30\\\" in secs\\n                     \
         \\\"conf=/etc/ceph/cluster.conf\\\"\\n                     \\\"id=user\\\"\\n\"\n"
    );
}

#[test]
fn arguments_have_the_incumbents_names() {
    let bus = PrivateBus::start(MAY_OWN);
    let _service = Service::start_on(&bus.bus()).unwrap();

    let handler = bus.busctl(&["introspect", "--xml-interface", NAME, HANDLER]);
    for argument in [
        "<arg name=\"configstr\" type=\"s\" direction=\"in\"/>",
        "<arg name=\"is_valid\" type=\"b\" direction=\"out\"/>",
        "<arg name=\"message\" type=\"s\" direction=\"out\"/>",
        "<property name=\"ConfigDesc\" type=\"s\" access=\"read\"",
    ] {
        assert!(handler.contains(argument), "{argument} in {handler}");
    }
    let manager = bus.busctl(&["introspect", "--xml-interface", NAME, MANAGER]);
    for argument in [
        "<arg name=\"subtype\" type=\"s\" direction=\"in\"/>",
        "<arg name=\"cfgstr_desc\" type=\"s\" direction=\"in\"/>",
        "<arg name=\"succeeded\" type=\"b\" direction=\"out\"/>",
        "<arg name=\"message\" type=\"s\" direction=\"out\"/>",
    ] {
        assert!(manager.contains(argument), "{argument} in {manager}");
    }
    for interface in ["Introspectable", "Peer", "Properties"] {
        assert!(handler.contains(&format!("org.freedesktop.DBus.{interface}")), "{interface}");
    }
}

#[test]
fn only_the_handler_is_a_managed_object() {
    let bus = PrivateBus::start(MAY_OWN);
    let _service = Service::start_on(&bus.bus()).unwrap();

    let interface = "org.freedesktop.DBus.ObjectManager";
    assert_eq!(
        bus.busctl(&["call", NAME, ROOT, interface, "GetManagedObjects"]),
        "a{oa{sa{sv}}} 1 \"/org/kernel/TCMUService1/rbd\" 1 \"org.kernel.TCMUService1\" 1 \
         \"ConfigDesc\" s \"RBD config string is of the form:\\npoolname/devicename[;option1;option2;...]\
         \\nwhere:\\npoolname:\\tExisting RADOS pool\\ndevicename:\\tName of the RBD image\\n\
         optionN:\\tLike: \\\"osd_op_timeout=30\\\" in secs\\n                     \
         \\\"conf=/etc/ceph/cluster.conf\\\"\\n                     \\\"id=user\\\"\\n\"\n"
    );
    let introspected = bus.busctl(&["introspect", NAME, ROOT, interface]);
    for member in [".GetManagedObjects", ".InterfacesAdded", ".InterfacesRemoved"] {
        assert!(introspected.contains(member), "{member} in {introspected}");
    }
    // HandlerManager1 is there, but only for those who know of it.
    let tree = bus.busctl(&["tree", "--list", NAME]);
    assert!(tree.lines().any(|path| path == MANAGER), "{tree}");
}

#[test]
fn config_strings_are_checked() {
    let bus = PrivateBus::start(MAY_OWN);
    let _service = Service::start_on(&bus.bus()).unwrap();

    assert_eq!(bus.check("rbd/rbd/img"), "bs true \"success\"\n");
    assert_eq!(bus.check("rbd/;tcmur_cmd_time_out=5;rbd/img;osd_op_timeout=30"), "bs true \"success\"\n");
    assert_eq!(
        bus.check("rbd/img"),
        "bs false \"the image is missing after \\\"img\\\"; write POOL/IMAGE\"\n"
    );
    assert_eq!(
        bus.check("rbd/a,b/img"),
        "bs false \"\\',\\' at byte 5 cannot be used: the kernel takes it for the end of the string\"\n"
    );
    assert!(bus.check("").starts_with("bs false \"the handler is \\\"\\\""));
}

#[test]
fn external_handlers_are_not_registered() {
    let bus = PrivateBus::start(MAY_OWN);
    let _service = Service::start_on(&bus.bus()).unwrap();

    let interface = "org.kernel.TCMUService1.HandlerManager1";
    assert_eq!(
        bus.busctl(&["call", NAME, MANAGER, interface, "RegisterHandler", "ss", "foo", "d"]),
        "bs false \"Cannot find handler bus name: org.kernel.TCMUService1.HandlerManager1.foo\"\n"
    );
}

#[test]
fn answers_while_every_other_thread_is_busy() {
    let bus = PrivateBus::start(MAY_OWN);
    let _service = Service::start_on(&bus.bus()).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop()
                }
            });
        }
        let start = Instant::now();
        let answer = bus.check("rbd/rbd/img");
        let elapsed = start.elapsed();
        stop.store(true, Ordering::Relaxed);
        assert_eq!(answer, "bs true \"success\"\n");
        assert!(elapsed < Duration::from_secs(10), "took {elapsed:?}");
    });
}

#[test]
fn dropping_the_service_gives_up_the_name() {
    let bus = PrivateBus::start(MAY_OWN);
    drop(Service::start_on(&bus.bus()).unwrap());
    // The bus may still be noticing; a successor waits for that, as it does here.
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut next = Service::start_on(&bus.bus());
    while next.is_err() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
        next = Service::start_on(&bus.bus());
    }
    next.unwrap();
}

#[test]
fn a_name_that_is_taken_names_its_owner() {
    let bus = PrivateBus::start(MAY_OWN);
    let _service = Service::start_on(&bus.bus()).unwrap();

    let error = Service::start_on(&bus.bus()).unwrap_err();

    assert!(matches!(error, DbusError::Taken { .. }), "{error}");
    let owner = format!("{NAME} is owned by process {} on", std::process::id());
    assert!(error.to_string().starts_with(&owner), "{error}");
}

#[test]
fn a_missing_policy_is_named() {
    let bus = PrivateBus::start("<deny own=\"*\"/>");
    let error = Service::start_on(&bus.bus()).unwrap_err();
    assert!(matches!(error, DbusError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("/etc/dbus-1/system.d/tcmu-runner.conf"), "{error}");
}

#[test]
fn a_missing_bus_is_an_error_at_once() {
    let start = Instant::now();
    let error = Service::start_on(&Bus::Address("unix:path=/nonexistent/socket".into())).unwrap_err();
    assert!(matches!(error, DbusError::Connect { .. }), "{error}");
    assert!(error.to_string().contains("unix:path=/nonexistent/socket"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn the_name_is_taken_when_the_bus_comes_and_when_it_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let at = Bus::Address(format!("unix:path={}", socket.display()));
    let (tell, heard) = mpsc::channel();
    let lost = move |why: Option<&DbusError>| tell.send(why.is_some()).unwrap();
    let _keeper = Keeper::start(at, Duration::from_millis(50), lost).unwrap();
    assert_eq!(heard.try_recv(), Ok(true), "there is no bus yet");
    for _ in 0..2 {
        let bus = PrivateBus::start_in(directory.path(), MAY_OWN);
        let deadline = Instant::now() + Duration::from_secs(20);
        while !bus.busctl(&["list", "--acquired"]).contains(NAME) {
            assert!(Instant::now() < deadline, "the name is not taken");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(bus.check("rbd/pool/image"), "bs true \"success\"\n");
        drop(bus);
        assert_eq!(heard.recv_timeout(Duration::from_secs(20)), Ok(false), "the bus has gone");
        let _ = fs::remove_file(&socket);
    }
    assert!(heard.try_recv().is_err(), "told once each");
}
