//! What the kernel's TCM-USER messages say: bytes to values, and nothing else.
//!
//! The kernel waits for an answer to every event, without a time limit, and takes only the answer
//! that belongs to the event ([`Done`]). So whatever is wrong with a message, [`EventError::owed`]
//! says whom to answer, as soon as the command and `DEVICE_ID` can be read. Messages come from
//! `tcmu_netlink_event_init` (target_core_user.c): DEVICE, MINOR, DEVICE_ID, then for a
//! reconfiguration the changed attribute. Of a repeated attribute the last one counts, as in the
//! kernel's own parser. Unknown attributes and commands are skipped.

use super::device_name::{DeviceName, NameError, trimmed};
use netlink_packet_core::{NLA_HEADER_SIZE, NetlinkBuffer, NlasIterator};
use tcmu_sys::genl::{attr, cmd};

/// The kernel's handle of a device in netlink messages. It appears nowhere in sysfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId(pub u32);

/// An event of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happens.
    pub kind: EventKind,
    /// The device's UIO name.
    pub device: DeviceName,
    /// N of `/dev/uioN`.
    pub minor: u32,
    /// Whom the answer is for.
    pub device_id: DeviceId,
}

/// What happens to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It was configured; `enable` waits. Its serial number and ALUA groups are not set yet.
    Added,
    /// It is being removed. Its configfs directory must not be touched: the lookup would wait for
    /// the removal, which waits for the answer.
    Removed,
    /// An attribute is being written; the kernel stores it if the answer is success.
    Reconfigured(Change),
}

/// The attribute that is being written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// `dev_config`, without the newline that `echo` added.
    Config(String),
    /// `dev_size`, in bytes.
    Size(u64),
    /// `emulate_write_cache`.
    WriteCache(bool),
    /// An attribute this daemon does not know.
    Unknown,
}

/// Which answer the kernel waits for. Another one leaves it waiting for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Done {
    /// `ADDED_DEVICE_DONE`.
    Added,
    /// `REMOVED_DEVICE_DONE`.
    Removed,
    /// `RECONFIG_DEVICE_DONE`.
    Reconfigured,
}

impl Done {
    /// The answer's command number.
    pub fn command(self) -> u8 {
        match self {
            Done::Added => cmd::ADDED_DEVICE_DONE,
            Done::Removed => cmd::REMOVED_DEVICE_DONE,
            Done::Reconfigured => cmd::RECONFIG_DEVICE_DONE,
        }
    }
}

impl Event {
    /// The answer this event waits for.
    pub fn owed(&self) -> Owed {
        let done = match self.kind {
            EventKind::Added => Done::Added,
            EventKind::Removed => Done::Removed,
            EventKind::Reconfigured(_) => Done::Reconfigured,
        };
        Owed { done, device_id: self.device_id }
    }
}

/// An answer that is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owed {
    /// Which answer.
    pub done: Done,
    /// Whom it is for.
    pub device_id: DeviceId,
}

/// A message that is not a proper event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad TCM-USER message")]
pub struct EventError {
    /// The answer the kernel waits for. `None` means that it may wait and cannot be answered: only
    /// a reset of the netlink interface frees it.
    pub owed: Option<Owed>,
    /// What is wrong.
    #[source]
    pub fault: Fault,
}

/// What is wrong with a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It ends before its headers or its stated length do.
    #[error("it is truncated")]
    Truncated,
    /// Its stated length is shorter than its headers, or an attribute's length is wrong.
    #[error("a length in it is wrong")]
    Length,
    /// An attribute that every event has is not there.
    #[error("attribute {0} is missing")]
    Missing(&'static str),
    /// An attribute does not have its type's size, or is not text.
    #[error("attribute {0} has a wrong value")]
    Value(&'static str),
    /// The device's name cannot be parsed.
    #[error(transparent)]
    Name(#[from] NameError),
}

const NETLINK_HEADER: usize = 16;
const GENERIC_HEADER: usize = 4;

/// Parses a datagram from the kernel. Messages of other families, and commands that are not
/// events, are skipped.
pub fn parse(datagram: &[u8], family: u16) -> Vec<Result<Event, EventError>> {
    let mut events = Vec::new();
    let mut rest = datagram;
    while !rest.is_empty() {
        if rest.len() < NETLINK_HEADER {
            events.push(Err(EventError { owed: None, fault: Fault::Truncated }));
            break;
        }
        let header = NetlinkBuffer::new(rest);
        let stated = usize::try_from(header.length()).unwrap_or(usize::MAX);
        if stated < NETLINK_HEADER {
            events.push(Err(EventError { owed: None, fault: Fault::Length }));
            break;
        }
        let body = &rest[NETLINK_HEADER..stated.min(rest.len())];
        if header.message_type() == family {
            events.extend(parse_message(body, stated > rest.len()).transpose());
        }
        let next = stated.checked_next_multiple_of(4).unwrap_or(usize::MAX);
        rest = rest.get(next..).unwrap_or_default();
    }
    events
}

/// Parses what follows the netlink header of one message.
fn parse_message(body: &[u8], truncated: bool) -> Result<Option<Event>, EventError> {
    let Some((header, attributes)) = body.split_at_checked(GENERIC_HEADER) else {
        let fault = if truncated { Fault::Truncated } else { Fault::Length };
        return Err(EventError { owed: None, fault });
    };
    let done = match header[0] {
        cmd::ADDED_DEVICE => Done::Added,
        cmd::REMOVED_DEVICE => Done::Removed,
        cmd::RECONFIG_DEVICE => Done::Reconfigured,
        _ => return Ok(None),
    };
    let (found, length) = Attributes::collect(attributes);
    let device_id = found.device_id.and_then(u32_of).map(DeviceId);
    let owed = device_id.map(|device_id| Owed { done, device_id });
    let error = |fault| EventError { owed, fault };
    if truncated {
        return Err(error(Fault::Truncated));
    }
    length.map_err(error)?;
    let Some(device_id) = device_id else {
        return Err(error(fault_of(found.device_id, "DEVICE_ID")));
    };
    let minor = found.minor.and_then(u32_of).ok_or_else(|| error(fault_of(found.minor, "MINOR")))?;
    let device = found.device.ok_or_else(|| error(Fault::Missing("DEVICE")))?;
    let device = DeviceName::parse(device).map_err(|name| error(name.into()))?;
    let kind = match done {
        Done::Added => EventKind::Added,
        Done::Removed => EventKind::Removed,
        Done::Reconfigured => EventKind::Reconfigured(found.change().map_err(error)?),
    };
    Ok(Some(Event { kind, device, minor, device_id }))
}

#[derive(Clone, Copy, Default)]
struct Attributes<'a> {
    device: Option<&'a [u8]>,
    minor: Option<&'a [u8]>,
    device_id: Option<&'a [u8]>,
    config: Option<&'a [u8]>,
    size: Option<&'a [u8]>,
    write_cache: Option<&'a [u8]>,
}

impl<'a> Attributes<'a> {
    /// The attributes up to the first one whose length is wrong.
    fn collect(bytes: &'a [u8]) -> (Self, Result<(), Fault>) {
        let mut found = Attributes::default();
        for attribute in attributes(bytes) {
            let Some((kind, value)) = attribute else { return (found, Err(Fault::Length)) };
            let value = Some(value);
            match kind {
                attr::DEVICE => found.device = value,
                attr::MINOR => found.minor = value,
                attr::DEVICE_ID => found.device_id = value,
                attr::DEV_CFG => found.config = value,
                attr::DEV_SIZE => found.size = value,
                attr::WRITECACHE => found.write_cache = value,
                _ => {}
            }
        }
        (found, Ok(()))
    }

    fn change(&self) -> Result<Change, Fault> {
        if let Some(config) = self.config {
            let text = std::str::from_utf8(config).map_err(|_| Fault::Value("DEV_CFG"))?;
            Ok(Change::Config(trimmed(text).to_owned()))
        } else if let Some(size) = self.size {
            let size = size.try_into().map_err(|_| Fault::Value("DEV_SIZE"))?;
            Ok(Change::Size(u64::from_ne_bytes(size)))
        } else if let Some(write_cache) = self.write_cache {
            let &[on] = write_cache else { return Err(Fault::Value("WRITECACHE")) };
            Ok(Change::WriteCache(on != 0))
        } else {
            Ok(Change::Unknown)
        }
    }
}

/// Type and value of each attribute; `None` once, at the end, if a length is wrong.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = Option<(u16, &[u8])>> {
    NlasIterator::new(bytes).map(|attribute| {
        let attribute = attribute.ok()?;
        let (kind, end) = (attribute.kind(), usize::from(attribute.length()));
        Some((kind, attribute.into_inner().get(NLA_HEADER_SIZE..end)?))
    })
}

fn u32_of(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_ne_bytes)
}

fn fault_of(value: Option<&[u8]>, name: &'static str) -> Fault {
    if value.is_some() { Fault::Value(name) } else { Fault::Missing(name) }
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
