//! The generic netlink family TCM-USER: how the kernel tells of devices and hears our answers.
//!
//! Two sockets. The first only receives the multicast events and is for an epoll loop. The second
//! ([`Requests`]) carries requests and answers; the kernel's acknowledgement is in its queue when
//! `sendto` returns, so every send says whether the kernel took it, and an overrun of the events
//! never loses one. A lost event is a kernel task that waits for ever: the event socket's buffer is
//! large, and ENOBUFS is reported as [`Received::Overrun`], never swallowed.

use super::event::{self, Event, EventError, Owed};
use super::responder::{Answers, Epoch, wire_status};
use netlink_packet_core::{
    DefaultNla, Emitable, NLM_F_ACK, NLM_F_REQUEST, NLMSG_ERROR, NetlinkBuffer, NetlinkMessage,
};
use netlink_packet_generic::constants::{
    CTRL_ATTR_FAMILY_ID, CTRL_ATTR_FAMILY_NAME, CTRL_ATTR_MCAST_GROUPS, CTRL_ATTR_MCAST_GRP_ID,
    CTRL_ATTR_MCAST_GRP_NAME, CTRL_CMD_GETFAMILY, GENL_ID_CTRL,
};
use netlink_packet_generic::{GenlFamily, GenlMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tcmu_sys::genl::{FAMILY, GROUP, VERSION, attr, cmd};

/// Room for events: about ten thousand of them.
const EVENT_BUFFER: usize = 8 << 20;
/// More than the kernel puts into one message (`NLMSG_GOODSIZE` is at most 8 KiB).
const DATAGRAM: usize = 32 << 10;
const CONTROL_VERSION: u8 = 2;

/// Failure of the netlink interface.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetlinkError {
    /// The kernel does not know the family.
    #[error("the kernel has no generic netlink family {0}; load it with `modprobe target_core_user`")]
    NoFamily(String),
    /// The family does not have the multicast group.
    #[error("the generic netlink family {family} has no multicast group {group}")]
    NoGroup {
        /// The family.
        family: String,
        /// The group.
        group: String,
    },
    /// A socket call failed.
    #[error("cannot {action} the netlink socket")]
    Socket {
        /// What was tried.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The kernel refused a request.
    #[error("the kernel refused {request}: {errno}")]
    Refused {
        /// The request.
        request: &'static str,
        /// Why.
        errno: Errno,
    },
    /// The event was forgotten: see [`Requests::forget`].
    #[error("the answer comes too late: the netlink interface was reset since")]
    Late,
    /// The kernel's reply makes no sense.
    #[error("the kernel's reply to {0} cannot be understood")]
    Reply(&'static str),
}

/// The event socket and the family's numbers.
#[derive(Debug)]
pub struct TcmuNetlink {
    events: Socket,
    buffer: Vec<u8>,
    group: u32,
    requests: Arc<Requests>,
}

/// What one receive gave.
#[derive(Debug)]
pub enum Received {
    /// The events of one datagram; none if it was not from the kernel or not for us.
    Events(Vec<Result<Event, EventError>>),
    /// Events were lost. Creators and removers may wait for answers to them.
    Overrun,
    /// There is nothing to receive.
    WouldBlock,
}

impl TcmuNetlink {
    /// Finds the family TCM-USER. Events come after [`join`](Self::join).
    pub fn connect() -> Result<Self, NetlinkError> {
        Self::connect_to(FAMILY, GROUP)
    }

    /// The same for another family and group.
    pub fn connect_to(family: &str, group: &str) -> Result<Self, NetlinkError> {
        let requests = Requests::open(family)?;
        let group =
            requests.groups.iter().find(|(name, _)| name == group).map(|(_, id)| *id).ok_or_else(|| {
                NetlinkError::NoGroup { family: family.to_owned(), group: group.to_owned() }
            })?;
        let mut events = Socket::new(NETLINK_GENERIC).map_err(failed("create"))?;
        events.bind_auto().map_err(failed("bind"))?;
        events.set_non_blocking(true).map_err(failed("set options of"))?;
        if setsockopt(&events, sockopt::RcvBufForce, &EVENT_BUFFER).is_err() {
            // Without CAP_NET_ADMIN the size is capped at net.core.rmem_max.
            setsockopt(&events, sockopt::RcvBuf, &EVENT_BUFFER)
                .map_err(|errno| failed("size")(errno.into()))?;
        }
        let buffer = Vec::with_capacity(DATAGRAM);
        Ok(TcmuNetlink { events, buffer, group, requests: Arc::new(requests) })
    }

    /// Starts to receive events.
    pub fn join(&self) -> Result<(), NetlinkError> {
        self.events.add_membership(self.group).map_err(failed("join the group with"))
    }

    /// Tells the kernel whether events are answered from now on: see [`Requests::set_features`].
    pub fn set_features(&self, answers_events: bool) -> Result<(), NetlinkError> {
        self.requests.set_features(answers_events)
    }

    /// Receives without waiting.
    pub fn recv(&mut self) -> Result<Received, NetlinkError> {
        self.buffer.clear();
        // MSG_TRUNC is not set: a datagram that does not fit is cut, and its parser says so.
        match self.events.recv_from(&mut self.buffer, libc::MSG_DONTWAIT) {
            Ok((_, sender)) if sender.port_number() != 0 => Ok(Received::Events(Vec::new())),
            Ok(_) => Ok(Received::Events(event::parse(&self.buffer, self.requests.family))),
            Err(error) => match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
                Errno::EAGAIN | Errno::EINTR => Ok(Received::WouldBlock),
                Errno::ENOBUFS => Ok(Received::Overrun),
                _ => Err(failed("receive from")(error)),
            },
        }
    }

    /// Drops what was received and not yet looked at.
    pub(super) fn discard(&mut self) {
        while !matches!(self.recv(), Ok(Received::WouldBlock) | Err(_)) {}
    }

    /// The way to the kernel for requests and answers.
    pub fn requests(&self) -> Arc<Requests> {
        self.requests.clone()
    }
}

impl AsFd for TcmuNetlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

/// The socket for requests, one at a time, each acknowledged.
#[derive(Debug)]
pub struct Requests {
    socket: Mutex<Sequenced>,
    family: u16,
    groups: Vec<(String, u32)>,
}

#[derive(Debug)]
struct Sequenced {
    socket: Socket,
    next: u32,
    epoch: Epoch,
}

impl Requests {
    fn open(family: &str) -> Result<Self, NetlinkError> {
        let mut socket = Socket::new(NETLINK_GENERIC).map_err(failed("create"))?;
        socket.bind_auto().map_err(failed("bind"))?;
        // The kernel acknowledges before `sendto` returns; this is for a kernel that does not.
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(5, 0))
            .map_err(|errno| failed("set options of")(errno.into()))?;
        let socket = Mutex::new(Sequenced { socket, next: 1, epoch: Epoch(0) });
        let mut requests = Requests { socket, family: GENL_ID_CTRL, groups: Vec::new() };

        let name = [family.as_bytes(), b"\0"].concat();
        let attributes = vec![DefaultNla::new(CTRL_ATTR_FAMILY_NAME, name)];
        let message = Message { command: CTRL_CMD_GETFAMILY, version: CONTROL_VERSION, attributes };
        let reply = match requests.transact("CTRL_CMD_GETFAMILY", message) {
            Err(NetlinkError::Refused { errno: Errno::ENOENT, .. }) => {
                return Err(NetlinkError::NoFamily(family.to_owned()));
            }
            reply => reply?,
        };
        let attributes = reply.get(4..).unwrap_or_default();
        requests.family = attribute(attributes, CTRL_ATTR_FAMILY_ID)
            .and_then(|id| id.try_into().ok())
            .map(u16::from_ne_bytes)
            .ok_or(NetlinkError::Reply("CTRL_CMD_GETFAMILY"))?;
        let groups = attribute(attributes, CTRL_ATTR_MCAST_GROUPS).unwrap_or_default();
        requests.groups = event::attributes(groups).flatten().filter_map(|(_, found)| group(found)).collect();
        Ok(requests)
    }

    /// Tells the kernel whether events are answered from now on. It remembers this for the module,
    /// not for this process: while it is set and nobody listens, `enable` waits for ever.
    pub fn set_features(&self, answers_events: bool) -> Result<(), NetlinkError> {
        let value = vec![u8::from(answers_events)];
        let attributes = vec![DefaultNla::new(attr::SUPP_KERN_CMD_REPLY, value)];
        let message = Message { command: cmd::SET_FEATURES, version: VERSION, attributes };
        self.transact("SET_FEATURES", message).map(drop)
    }

    /// Refuses the answers to all events so far. After `reset_netlink` nobody waits for them, and the
    /// kernel would take one for the answer to the device's next event; if that is of another type,
    /// its task could never be freed.
    pub fn forget(&self) {
        self.lane().epoch.0 += 1;
    }

    fn lane(&self) -> MutexGuard<'_, Sequenced> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request and gives the payload that came before the acknowledgement, if any did.
    fn transact(&self, request: &'static str, message: Message) -> Result<Vec<u8>, NetlinkError> {
        self.send(&mut self.lane(), request, message)
    }

    fn send(
        &self,
        lane: &mut Sequenced,
        request: &'static str,
        message: Message,
    ) -> Result<Vec<u8>, NetlinkError> {
        let sequence = lane.next;
        lane.next = lane.next.wrapping_add(1);
        let mut generic = GenlMessage::from_payload(message);
        generic.set_resolved_family_id(self.family);
        let mut packet = NetlinkMessage::from(generic);
        packet.header.flags = NLM_F_REQUEST | NLM_F_ACK;
        packet.header.sequence_number = sequence;
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        retried(|| lane.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)).map_err(failed("send to"))?;
        acknowledged(&lane.socket, sequence, request)
    }
}

impl Answers for Requests {
    fn epoch(&self) -> Epoch {
        self.lane().epoch
    }

    fn answer(&self, epoch: Epoch, owed: Owed, status: Result<(), Errno>) -> Result<(), NetlinkError> {
        let attributes = vec![
            DefaultNla::new(attr::CMD_STATUS, wire_status(status).to_ne_bytes().to_vec()),
            DefaultNla::new(attr::DEVICE_ID, owed.device_id.0.to_ne_bytes().to_vec()),
        ];
        let message = Message { command: owed.done.command(), version: VERSION, attributes };
        let mut lane = self.lane();
        if lane.epoch != epoch {
            return Err(NetlinkError::Late);
        }
        self.send(&mut lane, "the answer to an event", message).map(drop)
    }
}

/// Reads replies to `sequence` up to its acknowledgement.
fn acknowledged(socket: &Socket, sequence: u32, request: &'static str) -> Result<Vec<u8>, NetlinkError> {
    let mut payload = Vec::new();
    loop {
        let mut buffer = Vec::with_capacity(DATAGRAM);
        let (_, sender) = retried(|| socket.recv_from(&mut buffer, 0)).map_err(failed("receive from"))?;
        if sender.port_number() != 0 {
            continue;
        }
        let mut rest = buffer.as_slice();
        while let Ok(message) = NetlinkBuffer::new_checked(rest) {
            if message.sequence_number() == sequence {
                if message.message_type() == NLMSG_ERROR {
                    let code = message.payload().first_chunk().map(|code| i32::from_ne_bytes(*code));
                    return match code {
                        Some(0) => Ok(payload),
                        Some(code) => Err(NetlinkError::Refused { request, errno: Errno::from_raw(-code) }),
                        None => Err(NetlinkError::Reply(request)),
                    };
                }
                payload = message.payload().to_vec();
            }
            let length = usize::try_from(message.length()).unwrap_or(usize::MAX);
            let next = length.checked_next_multiple_of(4).unwrap_or(usize::MAX);
            rest = rest.get(next..).unwrap_or_default();
        }
    }
}

/// Repeats a call that a signal interrupted.
fn retried<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn failed(action: &'static str) -> impl Fn(io::Error) -> NetlinkError {
    move |source| NetlinkError::Socket { action, source }
}

fn attribute(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    event::attributes(attributes).flatten().find(|found| found.0 == kind).map(|found| found.1)
}

/// Name and id of a multicast group.
fn group(attributes: &[u8]) -> Option<(String, u32)> {
    let name = attribute(attributes, CTRL_ATTR_MCAST_GRP_NAME)?;
    let name = std::str::from_utf8(name).ok()?.trim_end_matches('\0').to_owned();
    let id = attribute(attributes, CTRL_ATTR_MCAST_GRP_ID)?.try_into().ok().map(u32::from_ne_bytes)?;
    Some((name, id))
}

/// A request of any generic netlink family.
#[derive(Debug)]
struct Message {
    command: u8,
    version: u8,
    attributes: Vec<DefaultNla>,
}

impl GenlFamily for Message {
    fn family_name() -> &'static str {
        FAMILY
    }

    fn command(&self) -> u8 {
        self.command
    }

    fn version(&self) -> u8 {
        self.version
    }
}

impl Emitable for Message {
    fn buffer_len(&self) -> usize {
        self.attributes.as_slice().buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.attributes.as_slice().emit(buffer);
    }
}
