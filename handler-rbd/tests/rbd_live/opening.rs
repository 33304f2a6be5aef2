//! Connecting, opening and closing, and the sentences when they fail.

use crate::setup::{TestImage, conf, config, connect, connect_as, eventually, run};
use handler_rbd::block::{Buffer, Op};
use handler_rbd::rbd::{Cluster, ClusterConfig, Image, OpenError, ServiceStatus};
use std::time::{Duration, Instant};

/// The sentence and errno of a failing connection, which must not take much longer than its time-out.
fn refused(config: &ClusterConfig) -> (String, i32) {
    let start = Instant::now();
    let error = Cluster::connect(config).unwrap_err();
    let limit = config.connect_timeout + Duration::from_secs(3);
    assert!(start.elapsed() < limit, "{error}: after {:?}", start.elapsed());
    (error.to_string(), error.errno())
}

#[test]
fn a_configuration_file_that_is_named_must_exist() {
    let config = ClusterConfig {
        id: None,
        conf: Some("/nonexistent/ceph.conf".into()),
        op_timeout: None,
        connect_timeout: Duration::from_secs(1),
        zero_copy_writes: false,
    };
    let (sentence, errno) = refused(&config);
    assert!(sentence.starts_with("cannot use /nonexistent/ceph.conf: No such file"), "{sentence}");
    assert_eq!(errno, libc::ENOENT);
}

#[test]
fn a_user_name_with_a_nul_is_refused() {
    let config = ClusterConfig {
        id: Some("a\0b".into()),
        conf: None,
        op_timeout: None,
        connect_timeout: Duration::from_secs(1),
        zero_copy_writes: false,
    };
    assert_eq!(refused(&config).1, libc::EINVAL);
}

#[test]
fn without_monitors_the_sentence_says_so() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[global]\nauth_client_required = none\n").unwrap();
    let config = ClusterConfig {
        id: None,
        conf: Some(file.path().into()),
        op_timeout: None,
        connect_timeout: Duration::from_secs(1),
        zero_copy_writes: false,
    };
    let (sentence, errno) = refused(&config);
    assert!(sentence.starts_with("no monitor address is configured"), "{sentence}");
    assert_eq!(errno, libc::ENOENT);
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn a_missing_keyring_and_a_missing_key_are_told() {
    let (_file, no_keyring) = conf(|line| {
        Some(if line.starts_with("keyring") { "keyring = /nonexistent".into() } else { line.to_owned() })
    });
    let (sentence, errno) = refused(&no_keyring);
    assert!(sentence.contains("client.admin in /nonexistent;"), "{sentence}");
    assert_eq!(errno, libc::ENOENT);
    let (sentence, errno) = refused(&ClusterConfig { id: Some("nobody".into()), ..config() });
    assert!(sentence.starts_with("client.nobody has no valid key"), "{sentence}");
    assert_eq!(errno, libc::EACCES);
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn a_wrong_key_is_denied() {
    let keyring = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(keyring.path(), "[client.admin]\nkey = AQBmS6pnAAAAABAAAAAAAAAAAAAAAAAAAAAAAA==\n")
        .unwrap();
    let replacement = format!("keyring = {}", keyring.path().display());
    let (_file, config) =
        conf(|line| Some(if line.starts_with("keyring") { replacement.clone() } else { line.to_owned() }));
    let (sentence, errno) = refused(&config);
    assert!(sentence.starts_with("client.admin has no valid key"), "{sentence}");
    assert!([libc::EACCES, libc::EPERM].contains(&errno), "{errno}");
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn a_dead_monitor_is_given_up_within_the_time_out() {
    let (_file, config) = conf(|line| {
        Some(if line.starts_with("mon_host") {
            "mon_host = v2:127.0.0.1:1/0".into()
        } else {
            line.to_owned()
        })
    });
    let config = ClusterConfig { connect_timeout: Duration::from_secs(2), ..config };
    let (sentence, errno) = refused(&config);
    assert!(sentence.contains("no monitor of v2:127.0.0.1:1/0 answered in 2 s"), "{sentence}");
    assert_eq!(errno, libc::ETIMEDOUT);
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn missing_pool_and_missing_image_are_told_apart() {
    let cluster = connect();
    let error = Image::open(cluster.clone(), "nopool", "x").unwrap_err();
    assert_eq!(error, OpenError::NoPool { pool: "nopool".into() });
    assert_eq!(error.errno(), libc::ENOENT);
    let error = Image::open(cluster, "rbd", "noimage").unwrap_err();
    assert_eq!(error, OpenError::NoImage { pool: "rbd".into(), image: "noimage".into() });
    assert!(error.to_string().contains("rbd ls rbd"), "{error}");
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn a_user_without_capabilities_is_told_which() {
    let test = TestImage::create("caps", "16M");
    let cluster = connect_as("weak", r#"["mon","profile rbd"]"#);
    let error = Image::open(cluster, "rbd", &test.0).unwrap_err();
    assert!(error.to_string().contains("osd 'profile rbd pool=rbd'"), "{error}");
    assert_eq!(error.errno(), libc::EPERM);
    run("ceph auth rm client.weak");
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn an_unsafe_override_of_image_or_pool_is_found_and_refused() {
    let test = TestImage::create("cache", "16M");
    for (option, value) in [("rbd_cache", "true"), ("rbd_disable_zero_copy_writes", "false")] {
        for (level, of) in [("image", test.path()), ("pool", "rbd".into())] {
            run(&format!("rbd config {level} set {of} {option} {value}"));
            let opened = Image::open(connect(), "rbd", &test.0).map(drop);
            let remedy = format!("rbd config {level} rm {of} {option}");
            run(&remedy);
            let error = opened.unwrap_err();
            assert!(error.to_string().contains(&format!("run '{remedy}'")), "{error}");
            assert_eq!(error.errno(), libc::EINVAL);
        }
    }
    drop(test.open());
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn a_cache_asked_for_by_file_or_monitors_is_overruled() {
    let test = TestImage::create("cache-conf", "16M");
    run("ceph config set client rbd_cache true");
    let (_file, config) = conf(|line| {
        Some(if line == "[global]" { "[global]\nrbd_cache = true".into() } else { line.to_owned() })
    });
    let cluster = Cluster::connect(&config).unwrap();
    let opened = Image::open(cluster.into(), "rbd", &test.0).map(drop);
    run("ceph config rm client rbd_cache");
    opened.unwrap();
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn opening_takes_no_lock_and_closing_drops_the_watch_at_once() {
    let test = TestImage::create("lock", "16M");
    let image = test.open();
    let device = crate::setup::Device::new(4096);
    let locks = || run(&format!("rbd lock ls --format json {}", test.path()));
    let watchers = || run(&format!("rbd status --format json {}", test.path()));
    assert_eq!(locks().trim(), "[]");
    assert_eq!(device.read(&image, 0, 512), [0; 512]);
    assert_eq!(locks().trim(), "[]", "reading needs no lock");
    device_write(&device, &image);
    assert!(locks().contains("auto"), "librbd takes the lock with the first write: {}", locks());
    assert!(!watchers().contains("\"watchers\":[]"), "{}", watchers());
    drop(image);
    assert!(watchers().contains("\"watchers\":[]"), "{}", watchers());
    assert_eq!(locks().trim(), "[]");
}

fn device_write(device: &crate::setup::Device, image: &Image) {
    use handler_rbd::block::Backend;
    let op = Op::Write(crate::setup::range(0, 512));
    image.submit(device.request(op, Buffer::Owned(vec![1; 512])));
    assert_eq!(device.wait().result, Ok(()));
}

#[test]
#[ignore = "needs a Ceph cluster: run by scripts/test through the lab"]
fn the_service_map_shows_the_image() {
    let test = TestImage::create("service", "16M");
    let image = test.open();
    image.cluster().service_register("rbd", &test.0, image.id());
    let status =
        ServiceStatus { lock_owner: true, lock_lost: 41, connection_lost: 42, commands_timed_out: 43 };
    image.cluster().service_status(&status);
    let node = nix::sys::utsname::uname().unwrap();
    let daemon = format!("\"{}:rbd/{}\"", node.nodename().to_str().unwrap(), test.0);
    eventually("the daemon in the service map", || {
        let dump = run("ceph service dump --format json");
        dump.contains("\"tcmu-runner\"") && dump.contains(&daemon) && dump.contains(image.id())
    });
    eventually("its status", || {
        run("ceph service status --format json").contains("\"cmd_timed_out_cnt\":\"43\"")
    });
}
