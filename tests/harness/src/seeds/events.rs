//! Messages as `tcmu_netlink_event_init` (target_core_user.c) builds them, and broken ones.

use super::{Became, Seed};
use Became::{Good, Nothing, Refused};

const DEVICE: u16 = 1;
const MINOR: u16 = 2;
const DEV_CFG: u16 = 4;
const DEV_SIZE: u16 = 5;
const WRITECACHE: u16 = 6;
const DEVICE_ID: u16 = 8;

pub(super) fn seeds() -> impl Iterator<Item = Seed> {
    let config = attribute(DEV_CFG, b"rbd/rbd/disk_2;osd_op_timeout=30\n\0");
    let size = attribute(DEV_SIZE, &(1u64 << 30).to_ne_bytes());
    let added = event(0x1d, 1, &[]);
    let repeated = event(0x1d, 2, &attribute(DEVICE_ID, &9u32.to_ne_bytes()));
    let cut = added[..60].to_vec();
    [
        ("added", added.clone(), Good),
        ("removed", event(0x1d, 2, &[]), Good),
        ("reconfigured_config", event(0x1d, 3, &config), Good),
        ("reconfigured_size", event(0x1d, 3, &size), Good),
        ("reconfigured_write_cache", event(0x1d, 3, &attribute(WRITECACHE, &[1])), Good),
        ("several", [repeated, event(0x10, 1, &[]), added].concat(), Good),
        ("size_of_another_size", event(0x1d, 3, &attribute(DEV_SIZE, &[1, 2, 3, 4])), Refused),
        ("attribute_too_long", event(0x1d, 1, &[9, 0, 4, 0, b'r', b'b', b'd', 0]), Refused),
        ("cut_short", cut, Refused),
        ("another_family", event(0x1e, 1, &[]), Nothing),
        ("set_features", event(0x1d, 7, &[]), Nothing),
    ]
    .into_iter()
    .map(|(name, bytes, want)| Seed { target: "netlink", name: name.into(), bytes, want })
}

/// A message with the attributes of every event, and more.
fn event(family: u16, command: u8, more: &[u8]) -> Vec<u8> {
    let mut body = vec![command, 2, 0, 0];
    body.extend(attribute(DEVICE, b"tcm-user/0/d0/rbd/rbd/disk_1\0"));
    body.extend(attribute(MINOR, &3u32.to_ne_bytes()));
    body.extend(attribute(DEVICE_ID, &7u32.to_ne_bytes()));
    body.extend(more);
    let len = u32::try_from(16 + body.len()).unwrap();
    let mut bytes = len.to_ne_bytes().to_vec();
    bytes.extend(family.to_ne_bytes());
    bytes.extend([0; 10]);
    bytes.extend(body);
    bytes
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = u16::try_from(4 + value.len()).unwrap().to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}
