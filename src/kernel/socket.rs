//! One rtnetlink socket: dumps, batches of requests with their acknowledgements, batches of look-ups.
//!
//! Everything is synchronous: the kernel carries out what a send holds before the send returns, so a process that is
//! killed leaves whole sends behind and no half.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;
use std::{mem, ptr};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use rustix::net::sockopt;

use super::message::{self, HEADER, Header, Query, messages};
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
/// `NLMSGERR_ATTR_MSG`: the kernel's sentence.
const ATTR_MESSAGE: u16 = 1;

/// Requests in one send at most. More than about 256 answers outstanding overrun the default receive buffer.
pub(super) const BATCH_MESSAGES: usize = 128;
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
        query: &Query,
        mut each: impl FnMut(&mut S, u16, &[u8]) -> Result<(), Error>,
    ) -> Result<S, Error> {
        for _ in 1..DUMP_TRIES {
            let mut seen = S::default();
            if self.dump_once(query, &mut |kind, payload| each(&mut seen, kind, payload))? {
                return Ok(seen);
            }
        }
        let mut seen = S::default();
        self.dump_once(query, &mut |kind, payload| each(&mut seen, kind, payload))?;
        Ok(seen)
    }

    /// One dump. False: it was torn.
    fn dump_once(&mut self, query: &Query, each: &mut EachMessage) -> Result<bool, Error> {
        let sequence = self.next_sequence();
        let mut bytes = Vec::new();
        query.write(&mut bytes, NLM_F_REQUEST | NLM_F_DUMP, sequence);
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
        requests: Vec<Request>,
    ) -> Result<Vec<Result<(), Refusal>>, Error> {
        let mut results = Vec::with_capacity(requests.len());
        let mut rest = requests.into_iter();
        while rest.len() > 0 {
            let (bytes, count, first) = self.batch(&mut rest);
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
        }
        Ok(results)
    }

    /// As many requests as go into one send. Only the last asks for an acknowledgement: a failure before it is
    /// reported all the same.
    fn batch(
        &mut self,
        requests: &mut impl ExactSizeIterator<Item = Request>,
    ) -> (Vec<u8>, usize, u32) {
        let (mut bytes, mut count) = (Vec::new(), 0);
        let first = self.sequence.wrapping_add(1);
        while let Some(Request { message, flags }) = requests.next() {
            count += 1;
            let is_last =
                requests.len() == 0 || count == BATCH_MESSAGES || bytes.len() > BATCH_BYTES;
            let ack = if is_last { NLM_F_ACK } else { 0 };
            let sequence = self.next_sequence();
            message::write(&mut bytes, message, NLM_F_REQUEST | flags | ack, sequence);
            if is_last {
                break;
            }
        }
        (bytes, count, first)
    }

    /// Sends look-ups, and calls `each` with the index of the request and the payload of its answer. A look-up that
    /// the kernel refuses has no answer. Many answers of at most `answer_bytes` are read at once, a longer one is asked
    /// for again.
    pub(super) fn look_up(
        &mut self,
        queries: &[Query],
        answer_bytes: usize,
        mut each: impl FnMut(usize, &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let at_once = (RECEIVE_BYTES / answer_bytes).min(BATCH_MESSAGES);
        for (chunk, some) in queries.chunks(at_once).enumerate() {
            let start = chunk * at_once;
            for long in self.look_up_at_once(some, |index, payload| each(start + index, payload))? {
                let alone = &some[long..=long];
                let longer =
                    self.look_up_at_once(alone, |_, payload| each(start + long, payload))?;
                if !longer.is_empty() {
                    return Err(too_long());
                }
            }
        }
        Ok(())
    }

    /// Look-ups that share the receive buffer. Which of them have an answer that is too long for that.
    fn look_up_at_once(
        &mut self,
        queries: &[Query],
        mut each: impl FnMut(usize, &[u8]) -> Result<(), Error>,
    ) -> Result<Vec<usize>, Error> {
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        for query in queries {
            let sequence = self.next_sequence();
            query.write(&mut bytes, NLM_F_REQUEST, sequence);
        }
        self.send(&bytes)?;
        let (mut waiting, mut long) = (queries.len(), Vec::new());
        while waiting > 0 {
            self.receive_slots(queries.len(), |header, payload| {
                let index = header.sequence_number.wrapping_sub(first) as usize;
                if index >= queries.len() {
                    return Ok(());
                }
                waiting = waiting.saturating_sub(1);
                match payload {
                    Some(_) if header.message_type == NLMSG_ERROR => Ok(()),
                    Some(payload) => each(index, payload),
                    None => {
                        long.push(index);
                        Ok(())
                    }
                }
            })?;
        }
        Ok(long)
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
        let flags = rustix::net::RecvFlags::TRUNC.bits() as i32;
        let length = again(|| {
            self.receive.clear();
            self.socket.recv(&mut self.receive, flags)
        })?;
        if length > self.receive.len() {
            return Err(too_long());
        }
        let mut outcome = Ok(());
        for message in messages(&self.receive) {
            let (header, payload) = message?;
            self.traffic.received += 1;
            // Keep the first error, but see every message: later ones may end a dump or a batch.
            outcome = outcome.and(each(&header, payload));
        }
        outcome
    }

    /// As many receives in one call as there are answers, `count` at most, and `each` message; one that didn't fit into
    /// its part of the buffer has no payload.
    fn receive_slots(
        &mut self,
        count: usize,
        mut each: impl FnMut(&Header, Option<&[u8]>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.receive.resize(RECEIVE_BYTES, 0);
        let slot_bytes = RECEIVE_BYTES / count;
        let lengths = again(|| {
            let slots = self.receive.chunks_exact_mut(slot_bytes).take(count);
            receive_many(&self.socket, slots.map(IoSliceMut::new).collect())
        })?;
        let mut outcome = Ok(());
        for (slot, length) in self.receive.chunks_exact(slot_bytes).zip(lengths) {
            self.traffic.received += 1;
            let answered = if length > slot_bytes {
                Header::of(slot).and_then(|header| each(&header, None))
            } else {
                Header::split(&slot[..length])
                    .and_then(|(header, payload, _)| each(&header, Some(payload)))
            };
            outcome = outcome.and(answered);
        }
        outcome
    }
}

fn too_long() -> Error {
    wire::malformed("a message longer than the receive buffer")
}

/// A receive that goes on after a signal, and doesn't wait for ever.
fn again<T>(mut receive: impl FnMut() -> io::Result<T>) -> Result<T, Error> {
    loop {
        match receive() {
            Ok(received) => return Ok(received),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let text = format!("no answer within {} s", ANSWER_TIMEOUT.as_secs());
                return Err(Error::Talk(io::Error::new(io::ErrorKind::TimedOut, text)));
            }
            Err(error) => return Err(Error::Talk(error)),
        }
    }
}

/// Waits for one message and takes those that are there besides, each into a slot of its own. Their lengths, also of those
/// that were too long.
fn receive_many(socket: &Socket, mut slots: Vec<IoSliceMut>) -> io::Result<Vec<usize>> {
    let headers = slots.iter_mut().map(|slot| {
        // SAFETY: all zeros is a valid mmsghdr: without a name, control data and slots.
        let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
        header.msg_hdr.msg_iov = ptr::from_mut(slot).cast();
        header.msg_hdr.msg_iovlen = 1;
        header
    });
    let mut headers: Vec<libc::mmsghdr> = headers.collect();
    // SAFETY: each header points to one IoSliceMut, which is laid out as an iovec; they and their bytes are borrowed for as
    // long as the call takes. No timeout is given.
    let count = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            headers.len() as libc::c_uint,
            libc::MSG_WAITFORONE | libc::MSG_TRUNC,
            ptr::null_mut(),
        )
    };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    let lengths = headers[..count].iter();
    Ok(lengths.map(|header| header.msg_len as usize).collect())
}

/// The refusal in an error message: `struct nlmsgerr`, then the request's header (and body, unless capped), then
/// attributes with the kernel's sentence.
fn refusal(header: &Header, payload: &[u8], code: i32) -> Refusal {
    let attributes = if header.message_type == NLMSG_DONE {
        payload.get(4..)
    } else if header.flags & NLM_F_CAPPED != 0 {
        payload.get(4 + HEADER..)
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
        sentence: sentence.map(|(_, value)| wire::text(value).into()),
    }
}
