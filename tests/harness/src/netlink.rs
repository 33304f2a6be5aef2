//! Any datagram as the kernel's, and the answers that it is owed. Layout: the datagram; the family is 1dh.

use handler_rbd::kernel::event::{Change, Done, Event, EventError, EventKind, Fault, parse};

const FAMILY: u16 = 0x1d;

/// Runs one input; its events.
pub fn run(datagram: &[u8]) -> Vec<Result<Event, EventError>> {
    let events = parse(datagram, FAMILY);
    assert!(events.len() <= datagram.len() / 16 + 1, "more events than messages");
    for event in events.iter().filter_map(|event| event.as_ref().ok()) {
        assert!(!event.device.name.is_empty() && !event.device.name.contains('/'), "{event:?}");
        assert!(!matches!(event.device.name.as_str(), "." | ".."), "{event:?}: a path that leads elsewhere");
        assert_eq!(event.owed().device_id, event.device_id);
        let done = match event.kind {
            EventKind::Added => Done::Added,
            EventKind::Removed => Done::Removed,
            EventKind::Reconfigured(_) => Done::Reconfigured,
        };
        assert_eq!(event.owed().done, done);
        if let EventKind::Reconfigured(Change::Config(config)) = &event.kind {
            assert!(!config.ends_with(['\n', '\0', ' ']), "{config:?}");
        }
    }
    let faults = events.iter().filter_map(|event| event.as_ref().err());
    for fault in faults.map(|error| &error.fault) {
        assert!(!fault.to_string().is_empty());
        assert!(!matches!(fault, Fault::Missing(name) | Fault::Value(name) if name.is_empty()));
    }
    let answers: Vec<_> = events
        .iter()
        .map(|event| match event {
            Ok(event) => Some(event.owed()),
            Err(error) => error.owed,
        })
        .map(|owed| owed.map(|owed| (owed.done.command(), owed.device_id.0)))
        .collect();
    assert_eq!(answers, owed(datagram), "the answers that the kernel waits for");
    events
}

/// For each message of the family that is an event, or is too short to tell, the answer that the kernel waits for:
/// the command's number plus 3, and the id. Written from the kernel's headers, not from the parser.
fn owed(mut datagram: &[u8]) -> Vec<Option<(u8, u32)>> {
    let mut answers = vec![];
    while !datagram.is_empty() {
        // struct nlmsghdr: length u32, type u16, flags u16, sequence u32, port u32.
        let stated = word(datagram, 0).map_or(0, |len| len as usize);
        let Some(kind) = half(datagram, 4).filter(|_| datagram.len() >= 16 && stated >= 16) else {
            answers.push(None);
            break;
        };
        let message = &datagram[16..stated.min(datagram.len())];
        if kind == FAMILY {
            // struct genlmsghdr: command u8, version u8, reserved u16.
            match message.get(..4) {
                None => answers.push(None),
                Some(&[command @ 1..=3, ..]) => {
                    answers.push(device_id(&message[4..]).map(|id| (command + 3, id)));
                }
                Some(_) => {}
            }
        }
        datagram = datagram.get(stated.div_ceil(4) * 4..).unwrap_or_default();
    }
    answers
}

/// The last `DEVICE_ID` (8) before an attribute whose length is wrong, if it has four bytes.
fn device_id(mut attributes: &[u8]) -> Option<u32> {
    let mut found = None;
    // struct nlattr: length u16 with the header, type u16 with two flags on top.
    while let (Some(len), Some(kind)) = (half(attributes, 0), half(attributes, 2)) {
        let len = usize::from(len);
        let Some(value) = attributes.get(4..len) else { break };
        if kind & 0x3fff == 8 {
            found = Some(value.try_into().ok().map(u32::from_ne_bytes));
        }
        attributes = attributes.get(len.div_ceil(4) * 4..).unwrap_or_default();
    }
    found.flatten()
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}
