//! One rtnetlink socket: dumps, batches of requests with their acknowledgements, batches of look-ups.
//!
//! Everything is synchronous: the kernel carries out what a send holds before the send returns, so a process that is
//! killed leaves whole sends behind and no half.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use netlink_packet_core::{NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use rustix::net::sockopt;

use super::{Error, Refusal, wire};

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
/// Create the object.
pub(super) const NLM_F_CREATE: u16 = 0x400;
/// Fail if the object exists.
pub(super) const NLM_F_EXCL: u16 = 0x200;
/// Replace the object if it exists.
pub(super) const NLM_F_REPLACE: u16 = 0x100;

const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_HEADER: usize = 16;
/// `NLMSGERR_ATTR_MSG`: the kernel's sentence.
const ATTR_MESSAGE: u16 = 1;

/// Requests in one send. More than about 256 answers outstanding overrun the default receive buffer.
const BATCH_MESSAGES: usize = 128;
/// Bytes in one send, well within the default send buffer.
const BATCH_BYTES: usize = 64 << 10;
/// The kernel fills at most 32 KiB of a receive.
const RECEIVE_BYTES: usize = 64 << 10;
/// How often a dump that was torn by a change is taken again.
const DUMP_TRIES: usize = 8;
/// The kernel answers at once; a lost answer must not hang the process.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Takes the type and payload of one message of a dump.
type EachMessage<'a> = dyn FnMut(u16, &[u8]) -> Result<(), Error> + 'a;

/// A request that changes something.
pub(super) struct Request {
    pub(super) message: RouteNetlinkMessage,
    pub(super) flags: u16,
}

/// An rtnetlink socket of one network namespace.
pub(super) struct Channel {
    socket: Socket,
    sequence: u32,
    receive: Vec<u8>,
    /// Whether the kernel filters dumps by their headers (NETLINK_GET_STRICT_CHK, Linux 4.20).
    strict: bool,
    traffic: Traffic,
}

/// How many messages went over a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// To the kernel.
    pub sent: u64,
    /// From the kernel.
    pub received: u64,
}

impl Channel {
    /// Opens a socket in the calling thread's network namespace.
    pub(super) fn open() -> Result<Self, Error> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(Error::Open)?;
        socket.bind_auto().map_err(Error::Open)?;
        socket.set_ext_ack(true).map_err(Error::Open)?;
        socket.set_cap_ack(true).map_err(Error::Open)?;
        let strict = socket.set_netlink_get_strict_chk(true).is_ok();
        // SAFETY: the descriptor is the socket's, which lives longer than this borrow.
        let descriptor = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
        sockopt::set_socket_timeout(descriptor, sockopt::Timeout::Recv, Some(ANSWER_TIMEOUT))
            .map_err(|errno| Error::Open(errno.into()))?;
        Ok(Self {
            socket,
            sequence: 0,
            receive: Vec::with_capacity(RECEIVE_BYTES),
            strict,
            traffic: Traffic::default(),
        })
    }

    /// How many messages were sent and received.
    pub(super) fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// The socket's address.
    pub(super) fn port(&self) -> u32 {
        let mut address = netlink_sys::SocketAddr::new(0, 0);
        match self.socket.get_address(&mut address) {
            Ok(()) => address.port_number(),
            // The kernel's own number, which nobody's change has: nothing is left out.
            Err(_) => u32::MAX,
        }
    }

    /// Whether the kernel itself filters dumps.
    pub(super) fn filters_dumps(&self) -> bool {
        self.strict
    }

    /// Calls `each` with the type and payload of every message of a dump, to gather what it says. When a change tore the
    /// dump, what was gathered is dropped and the dump taken again; after too many times what came last stands, and
    /// whoever compares afterwards has the last word.
    pub(super) fn dump<S: Default>(
        &mut self,
        request: &RouteNetlinkMessage,
        mut each: impl FnMut(&mut S, u16, &[u8]) -> Result<(), Error>,
    ) -> Result<S, Error> {
        for _ in 1..DUMP_TRIES {
            let mut seen = S::default();
            if self.dump_once(request, &mut |kind, payload| each(&mut seen, kind, payload))? {
                return Ok(seen);
            }
        }
        let mut seen = S::default();
        self.dump_once(request, &mut |kind, payload| each(&mut seen, kind, payload))?;
        Ok(seen)
    }

    /// One dump. False: it was torn.
    fn dump_once(
        &mut self,
        request: &RouteNetlinkMessage,
        each: &mut EachMessage,
    ) -> Result<bool, Error> {
        let sequence = self.next_sequence();
        let mut bytes = Vec::new();
        encode(&mut bytes, request, NLM_F_REQUEST | NLM_F_DUMP, sequence);
        self.send(&bytes)?;
        let (mut whole, mut done, mut failed) = (true, false, Ok(()));
        while !done {
            self.receive(|header, payload| {
                if header.sequence_number != sequence {
                    return Ok(());
                }
                whole &= header.flags & NLM_F_DUMP_INTR == 0;
                match header.message_type {
                    NLMSG_NOOP => {}
                    NLMSG_DONE | NLMSG_ERROR => {
                        done = true;
                        let code = if payload.is_empty() {
                            0
                        } else {
                            wire::u32(payload)? as i32
                        };
                        if code != 0 {
                            return Err(Error::Refused(refusal(header, payload, code)));
                        }
                    }
                    // The rest has to be read off the socket although it's of no use any more.
                    kind if failed.is_ok() => failed = each(kind, payload),
                    _ => {}
                }
                Ok(())
            })?;
        }
        failed.map(|()| whole)
    }

    /// Sends requests that change something, and returns what the kernel said to each, in their order.
    pub(super) fn transact(
        &mut self,
        requests: &[Request],
    ) -> Result<Vec<Result<(), Refusal>>, Error> {
        let mut results = Vec::with_capacity(requests.len());
        let mut rest = requests;
        while !rest.is_empty() {
            let (bytes, count, first) = self.batch(rest);
            self.send(&bytes)?;
            let start = results.len();
            results.resize_with(start + count, || Ok(()));
            let last = first.wrapping_add(count as u32 - 1);
            let mut done = false;
            while !done {
                self.receive(|header, payload| {
                    let index = header.sequence_number.wrapping_sub(first) as usize;
                    if header.message_type != NLMSG_ERROR || index >= count {
                        return Ok(());
                    }
                    let code = wire::u32(payload)? as i32;
                    if code != 0 {
                        results[start + index] = Err(refusal(header, payload, code));
                    }
                    done = header.sequence_number == last;
                    Ok(())
                })?;
            }
            rest = &rest[count..];
        }
        Ok(results)
    }

    /// As many requests as go into one send. Only the last asks for an acknowledgement: a failure before it is
    /// reported all the same.
    fn batch(&mut self, requests: &[Request]) -> (Vec<u8>, usize, u32) {
        let (mut bytes, mut count) = (Vec::new(), 0);
        let first = self.sequence.wrapping_add(1);
        for request in requests.iter().take(BATCH_MESSAGES) {
            if bytes.len() > BATCH_BYTES {
                break;
            }
            let last = bytes.len();
            let sequence = self.next_sequence();
            encode(
                &mut bytes,
                &request.message,
                NLM_F_REQUEST | request.flags,
                sequence,
            );
            count += 1;
            if count == requests.len() || count == BATCH_MESSAGES || bytes.len() > BATCH_BYTES {
                let flags = NLM_F_REQUEST | request.flags | NLM_F_ACK;
                bytes[last + 6..last + 8].copy_from_slice(&flags.to_ne_bytes());
            }
        }
        (bytes, count, first)
    }

    /// Sends look-ups, and calls `each` with the index of the request and the payload of its answer. A look-up that
    /// the kernel refuses has no answer.
    pub(super) fn look_up(
        &mut self,
        requests: &[RouteNetlinkMessage],
        mut each: impl FnMut(usize, &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for (chunk, messages) in requests.chunks(BATCH_MESSAGES).enumerate() {
            let mut bytes = Vec::new();
            let mut waiting = HashMap::new();
            for (index, message) in messages.iter().enumerate() {
                let sequence = self.next_sequence();
                encode(&mut bytes, message, NLM_F_REQUEST, sequence);
                waiting.insert(sequence, chunk * BATCH_MESSAGES + index);
            }
            self.send(&bytes)?;
            while !waiting.is_empty() {
                self.receive(
                    |header, payload| match waiting.remove(&header.sequence_number) {
                        Some(index) if header.message_type != NLMSG_ERROR => each(index, payload),
                        Some(_) | None => Ok(()),
                    },
                )?;
            }
        }
        Ok(())
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.traffic.sent += 1;
        self.sequence
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Error> {
        loop {
            match self.socket.send(bytes, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Talk(error)),
            }
        }
    }

    /// One receive, and `each` message in it.
    fn receive(
        &mut self,
        mut each: impl FnMut(&Header, &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.receive.clear();
        let length = loop {
            match self.socket.recv(
                &mut self.receive,
                rustix::net::RecvFlags::TRUNC.bits() as i32,
            ) {
                Ok(length) => break length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let text = format!("no answer within {} s", ANSWER_TIMEOUT.as_secs());
                    return Err(Error::Talk(io::Error::new(io::ErrorKind::TimedOut, text)));
                }
                Err(error) => return Err(Error::Talk(error)),
            }
        };
        if length > self.receive.len() {
            return Err(wire::malformed("a message longer than the receive buffer"));
        }
        let mut rest = self.receive.as_slice();
        let mut outcome = Ok(());
        while !rest.is_empty() {
            let (header, payload, next) = Header::split(rest)?;
            self.traffic.received += 1;
            // Keep the first error, but see every message: later ones may end a dump or a batch.
            outcome = outcome.and(each(&header, payload));
            rest = next;
        }
        outcome
    }
}

/// `struct nlmsghdr`.
struct Header {
    message_type: u16,
    flags: u16,
    sequence_number: u32,
}

impl Header {
    fn split(bytes: &[u8]) -> Result<(Self, &[u8], &[u8]), Error> {
        let (raw, _) = wire::split::<NLMSG_HEADER>(bytes)?;
        let length = u32::from_ne_bytes([raw[0], raw[1], raw[2], raw[3]]) as usize;
        let payload = bytes
            .get(NLMSG_HEADER..length)
            .ok_or_else(|| wire::malformed("message length"))?;
        let next = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        let header = Self {
            message_type: u16::from_ne_bytes([raw[4], raw[5]]),
            flags: u16::from_ne_bytes([raw[6], raw[7]]),
            sequence_number: u32::from_ne_bytes([raw[8], raw[9], raw[10], raw[11]]),
        };
        Ok((header, payload, next))
    }
}

/// The refusal in an error message: `struct nlmsgerr`, then the request's header (and body, unless capped), then
/// attributes with the kernel's sentence.
fn refusal(header: &Header, payload: &[u8], code: i32) -> Refusal {
    let attributes = if header.message_type == NLMSG_DONE {
        payload.get(4..)
    } else if header.flags & NLM_F_CAPPED != 0 {
        payload.get(4 + NLMSG_HEADER..)
    } else {
        let length = payload
            .get(4..8)
            .and_then(|length| wire::u32(length).ok())
            .unwrap_or(0) as usize;
        payload.get(4 + length.next_multiple_of(4)..)
    };
    let attributes = attributes
        .filter(|_| header.flags & NLM_F_ACK_TLVS != 0)
        .unwrap_or_default();
    let sentence = wire::attributes(attributes)
        .filter_map(Result::ok)
        .find(|(kind, _)| *kind == ATTR_MESSAGE);
    Refusal {
        errno: code.checked_neg().unwrap_or(0),
        sentence: sentence.map(|(_, value)| wire::text(value)),
    }
}

fn encode(bytes: &mut Vec<u8>, message: &RouteNetlinkMessage, flags: u16, sequence: u32) {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    // The library serializes whole messages only, and takes the payload by value.
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message.clone()));
    message.finalize();
    let start = bytes.len();
    bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
    message.serialize(&mut bytes[start..]);
}
