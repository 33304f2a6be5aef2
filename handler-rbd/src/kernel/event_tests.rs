//! Messages as the kernel's `tcmu_netlink_event_init` builds them, and broken ones. The numbers are
//! the header's, written out. Netlink is in the host's byte order; the tables are little-endian.
#![cfg(target_endian = "little")]

use super::*;
use proptest::prelude::*;

const FAMILY: u16 = 0x1d;

/// ADDED_DEVICE of `tcm-user/0/d0/rbd/p/i`, uio3, device id 7: 72 bytes.
#[rustfmt::skip]
const ADDED: [u8; 72] = [
    72, 0, 0, 0,                            // nlmsg_len
    0x1d, 0,                                // nlmsg_type: the family
    0, 0,                                   // nlmsg_flags
    0, 0, 0, 0,                             // nlmsg_seq
    0, 0, 0, 0,                             // nlmsg_pid
    1, 2, 0, 0,                             // ADDED_DEVICE, version 2, reserved
    26, 0, 1, 0,                            // 4 + 22 bytes, DEVICE
    b't', b'c', b'm', b'-', b'u', b's', b'e', b'r', b'/', b'0', b'/', b'd', b'0', b'/',
    b'r', b'b', b'd', b'/', b'p', b'/', b'i', 0,
    0, 0,                                   // to a multiple of 4
    8, 0, 2, 0, 3, 0, 0, 0,                 // MINOR: 3
    8, 0, 8, 0, 7, 0, 0, 0,                 // DEVICE_ID: 7
    8, 0, 99, 0, 1, 2, 3, 4,                // an attribute nobody knows
];

/// Offset of the attributes MINOR and DEVICE_ID in [`ADDED`].
const MINOR: usize = 48;
const DEVICE_ID: usize = 56;

/// The same message as another command, followed by more attributes.
fn message(command: u8, more: &[u8]) -> Vec<u8> {
    let mut bytes = ADDED.to_vec();
    bytes.extend_from_slice(more);
    bytes[0] = u8::try_from(bytes.len()).unwrap();
    bytes[16] = command;
    bytes
}

fn event(kind: EventKind) -> Event {
    let device = DeviceName { hba: 0, name: "d0".into(), config: "rbd/p/i".into() };
    Event { kind, device, minor: 3, device_id: DeviceId(7) }
}

fn owed(done: Done) -> Option<Owed> {
    Some(Owed { done, device_id: DeviceId(7) })
}

#[test]
fn added_and_removed() {
    assert_eq!(parse(&ADDED, FAMILY), [Ok(event(EventKind::Added))]);
    assert_eq!(parse(&message(2, &[]), FAMILY), [Ok(event(EventKind::Removed))]);
}

#[test]
#[rustfmt::skip]
fn reconfigured() {
    let table: [(&[u8], Change); 5] = [
        // DEV_CFG with the newline of `echo`
        (&[13, 0, 4, 0, b'r', b'b', b'd', b'/', b'p', b'/', b'j', b'\n', 0, 0, 0, 0], Change::Config("rbd/p/j".into())),
        // PAD, then DEV_SIZE
        (&[4, 0, 3, 0, 12, 0, 5, 0, 0, 0, 0, 0, 1, 0, 0, 0], Change::Size(0x1_0000_0000)),
        // WRITECACHE, off and on
        (&[5, 0, 6, 0, 0, 0, 0, 0], Change::WriteCache(false)),
        (&[5, 0, 6, 0, 1, 0, 0, 0], Change::WriteCache(true)),
        (&[], Change::Unknown),
    ];
    for (attribute, change) in table {
        assert_eq!(parse(&message(3, attribute), FAMILY), [Ok(event(EventKind::Reconfigured(change)))]);
    }
}

#[test]
fn the_answer_belongs_to_the_event() {
    let commands =
        [(EventKind::Added, 4), (EventKind::Removed, 5), (EventKind::Reconfigured(Change::Unknown), 6)];
    for (kind, command) in commands {
        assert_eq!(event(kind).owed().done.command(), command);
    }
}

#[test]
fn others_are_skipped() {
    assert_eq!(parse(&[], FAMILY), []);
    assert_eq!(parse(&ADDED, 0x1e), []);
    // SET_FEATURES and a command of the future
    assert_eq!(parse(&message(7, &[]), FAMILY), []);
    assert_eq!(parse(&message(8, &[]), FAMILY), []);
}

#[test]
fn a_datagram_can_hold_several() {
    let other_family = {
        let mut bytes = ADDED;
        bytes[4] = 0x10;
        bytes
    };
    let datagram = [&message(2, &[])[..], &other_family, &ADDED].concat();
    assert_eq!(parse(&datagram, FAMILY), [Ok(event(EventKind::Removed)), Ok(event(EventKind::Added))]);
}

#[test]
#[rustfmt::skip]
fn broken_attributes_still_owe_an_answer() {
    let table: [(&[u8], Fault); 5] = [
        // DEV_SIZE of 4 bytes
        (&[8, 0, 5, 0, 1, 0, 0, 0], Fault::Value("DEV_SIZE")),
        // WRITECACHE of 4 bytes
        (&[8, 0, 6, 0, 1, 0, 0, 0], Fault::Value("WRITECACHE")),
        // DEV_CFG that is not UTF-8
        (&[8, 0, 4, 0, 0xff, 0xff, 0, 0], Fault::Value("DEV_CFG")),
        // an attribute longer than the message, and one shorter than its header
        (&[9, 0, 4, 0, b'r', b'b', b'd', 0], Fault::Length),
        (&[3, 0, 4, 0, b'r', b'b', b'd', 0], Fault::Length),
    ];
    for (attribute, fault) in table {
        let want = EventError { owed: owed(Done::Reconfigured), fault };
        assert_eq!(parse(&message(3, attribute), FAMILY), [Err(want)]);
    }
}

#[test]
fn a_bad_name_still_owes_an_answer() {
    let mut bytes = message(2, &[]);
    bytes[24..32].copy_from_slice(b"TCM-USER");
    let [Err(error)] = &parse(&bytes, FAMILY)[..] else { panic!("one error") };
    assert_eq!(error.owed, owed(Done::Removed));
    assert!(matches!(error.fault, Fault::Name(_)), "{:?}", error.fault);
}

#[test]
fn missing_attributes() {
    let unknown = 0x7f;
    for (at, name, owed) in [
        (20, "DEVICE", owed(Done::Added)),
        (MINOR, "MINOR", owed(Done::Added)),
        (DEVICE_ID, "DEVICE_ID", None),
    ] {
        let mut bytes = ADDED;
        bytes[at + 2] = unknown;
        assert_eq!(parse(&bytes, FAMILY), [Err(EventError { owed, fault: Fault::Missing(name) })]);
    }
}

#[test]
fn a_truncated_message_owes_an_answer_once_its_id_was_received() {
    for length in 1..ADDED.len() {
        let [Err(error)] = &parse(&ADDED[..length], FAMILY)[..] else { panic!("one error") };
        assert_eq!(error.fault, Fault::Truncated, "at {length}");
        assert_eq!(error.owed.is_some(), length >= DEVICE_ID + 8, "at {length}");
    }
}

#[test]
fn stated_lengths_are_not_trusted() {
    // shorter than the netlink header: it would never advance
    let mut bytes = ADDED;
    bytes[0] = 0;
    assert_eq!(parse(&bytes, FAMILY), [Err(EventError { owed: None, fault: Fault::Length })]);
    // no room for the generic header
    bytes[0] = 18;
    assert_eq!(parse(&bytes[..20], FAMILY), [Err(EventError { owed: None, fault: Fault::Length })]);
    // all ones
    bytes[..4].fill(0xff);
    assert_eq!(parse(&bytes, FAMILY), [Err(EventError { owed: owed(Done::Added), fault: Fault::Truncated })]);
}

#[test]
fn the_last_of_a_repeated_attribute_counts() {
    let bytes = message(1, &[8, 0, 8, 0, 9, 0, 0, 0]);
    let [Ok(event)] = &parse(&bytes, FAMILY)[..] else { panic!("one event") };
    assert_eq!(event.device_id, DeviceId(9));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), family: u16) {
        parse(&bytes, family);
    }

    #[test]
    fn damaged_messages_never_panic(
        command in 0u8..9,
        damage in prop::collection::vec((0usize..72, any::<u8>()), 0..6),
        length in 0usize..=72,
    ) {
        let mut bytes = message(command, &[]);
        for (at, byte) in damage {
            bytes[at] = byte;
        }
        parse(&bytes[..length], FAMILY);
    }
}
