//! Echoes over raw sockets, to many targets at once.
//!
//! A socket is bound to the tunnel's device, so that what it sends leaves through the tunnel and what it hears came
//! through it. It writes its IP header itself: with DF in it, and past the kernel's own memory of the path's MTU, which
//! is what is to be found out.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use etherparse::icmpv4::DestUnreachableHeader;
use etherparse::{
    IcmpEchoHeader, Icmpv4Header, Icmpv4Slice, Icmpv4Type, IpNumber, Ipv4Header, Ipv4HeaderSlice,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, set_ip_mtu_discover, set_socket_recv_buffer_size_force,
};
use rustix::net::{RecvFlags, recv};
use socket2::{Domain, Protocol, Socket, Type};

use super::session::{Complaint, Session, Step};
use super::{Error, Order, Outcome};
use crate::state::InterfaceName;

/// Targets that are probed at the same time: each has a socket and few packets in flight.
const MOST_AT_ONCE: usize = 512;
/// Bytes before an echo's own: an IPv4 header without options and ICMP's.
const HEADERS: u32 = 28;
const IPV4_HEADER: u32 = 20;
const TTL: u8 = 64;
/// What the answers to all targets together need, where the kernel grants it.
const RECEIVE_BUFFER: usize = 4 << 20;
/// How long a full queue is given to drain.
const PAUSE: Duration = Duration::from_millis(5);
/// The largest IPv4 packet.
const LARGEST: usize = 65_535;

/// Probes every target. The outcomes, in the order of the orders. The caller's thread is in the targets' network
/// namespace.
///
/// # Errors
/// When there can be no raw sockets, or waiting for them fails.
pub fn probe(orders: &[Order]) -> Result<Vec<Outcome>, Error> {
    let mut engine = Engine::new()?;
    for (place, order) in orders.iter().enumerate() {
        engine.add(place, *order);
    }
    let mut outcomes = vec![Outcome::default(); orders.len()];
    while !engine.is_idle() {
        for (place, outcome) in engine.turn(None, None)? {
            outcomes[place] = outcome;
        }
    }
    Ok(outcomes)
}

/// Probes that are under way.
pub struct Engine {
    /// Hears of what goes wrong: the kernel's own complaints come over `lo`, where a bound socket is deaf.
    complaints: Socket,
    sockets: HashMap<Option<InterfaceName>, Weak<Socket>>,
    /// The echo identifier of the first slot.
    base: u16,
    /// What tells the next session's answers from others' with the same identifier.
    nonce: u64,
    waiting: VecDeque<(usize, Order)>,
    slots: Vec<Option<Busy>>,
    buffer: Vec<u8>,
}

/// A target that is being probed.
struct Busy {
    number: usize,
    to: Ipv4Addr,
    nonce: [u8; 8],
    socket: Rc<Socket>,
    session: Session,
}

impl Engine {
    /// Nothing is under way yet. The caller's thread is and stays in the targets' network namespace.
    ///
    /// # Errors
    /// When there can be no raw sockets.
    pub fn new() -> Result<Self, Error> {
        let random = RandomState::new();
        Ok(Self {
            complaints: open(None).map_err(|source| match source.kind() {
                io::ErrorKind::PermissionDenied => Error::Privilege,
                _ => Error::Socket(source),
            })?,
            sockets: HashMap::new(),
            base: u16::try_from(random.hash_one(1) % 0xf000).unwrap_or(0),
            nonce: random.hash_one(2),
            waiting: VecDeque::new(),
            slots: (0..MOST_AT_ONCE).map(|_| None).collect(),
            buffer: vec![0; LARGEST],
        })
    }

    /// Takes an order. Its outcome comes with the same number.
    pub fn add(&mut self, number: usize, order: Order) {
        self.waiting.push_back((number, order));
    }

    /// Whether every order has had its outcome.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.slots.iter().all(Option::is_none)
    }

    /// Goes on: the outcomes that are known now. If there are none, it waits first for what comes soonest: an answer, the
    /// next echo's time, `until`, or something to read at `wake`.
    ///
    /// # Errors
    /// When waiting fails.
    pub fn turn(
        &mut self,
        wake: Option<BorrowedFd>,
        until: Option<Instant>,
    ) -> Result<Vec<(usize, Outcome)>, Error> {
        let now = Instant::now();
        let mut done = Vec::new();
        let mut soonest = until;
        for slot in 0..self.slots.len() {
            if let Some(then) = self.fill(slot, now, &mut done) {
                soonest = Some(soonest.map_or(then, |soonest| soonest.min(then)));
            }
        }
        if let (true, Some(soonest)) = (done.is_empty(), soonest) {
            self.listen(wake, soonest)?;
        }
        Ok(done)
    }

    /// Lets a slot's session go on, and the next one follow. Until when it waits; `None`: there is no next one.
    fn fill(
        &mut self,
        slot: usize,
        now: Instant,
        done: &mut Vec<(usize, Outcome)>,
    ) -> Option<Instant> {
        loop {
            if self.slots[slot].is_none() {
                let (number, order) = self.waiting.pop_front()?;
                match self.start(number, &order) {
                    Ok(busy) => self.slots[slot] = Some(busy),
                    Err(outcome) => done.push((number, outcome)),
                }
            } else if let Some(until) = self.advance(slot, now) {
                return Some(until);
            } else if let Some(busy) = self.slots[slot].take() {
                done.push((busy.number, busy.session.outcome()));
            }
        }
    }

    fn start(&mut self, number: usize, order: &Order) -> Result<Busy, Outcome> {
        let socket = self.socket(order.device).map_err(|error| {
            let device = order.device.map_or("-".into(), |device| device.to_string());
            Outcome::failed(match error.raw_os_error() {
                Some(code) if code == Errno::NODEV.raw_os_error() => {
                    format!("there is no device {device}")
                }
                _ => format!("can't send through {device}: {error}"),
            })
        })?;
        self.nonce = self.nonce.wrapping_add(1);
        Ok(Busy {
            number,
            nonce: self.nonce.to_be_bytes(),
            to: order.to,
            socket,
            session: Session::new(order),
        })
    }

    /// The socket of a device, which the targets behind it share while there are any.
    fn socket(&mut self, device: Option<InterfaceName>) -> io::Result<Rc<Socket>> {
        if let Some(socket) = self.sockets.get(&device).and_then(Weak::upgrade) {
            return Ok(socket);
        }
        let socket = Rc::new(open(device)?);
        self.sockets.insert(device, Rc::downgrade(&socket));
        Ok(socket)
    }

    /// Lets a target's session do what it wants. Until when it waits; `None`: it is done.
    fn advance(&mut self, slot: usize, now: Instant) -> Option<Instant> {
        let identifier = self.identifier(slot);
        let busy = self.slots[slot].as_mut()?;
        loop {
            let (number, size) = match busy.session.step(now) {
                Step::Done => return None,
                Step::Wait(until) => return Some(until),
                Step::Send { number, size } => (number, size),
            };
            let packet = echo(busy.to, identifier, number, size, busy.nonce);
            let to = SocketAddrV4::new(busy.to, 0);
            match busy.socket.send_to(&packet, &to.into()) {
                Ok(_) => busy.session.sent(now),
                Err(error) => match error.raw_os_error().map(Errno::from_raw_os_error) {
                    Some(Errno::AGAIN | Errno::NOBUFS | Errno::INTR) => {
                        busy.session.later(now + PAUSE);
                    }
                    other => {
                        let complaint = Complaint {
                            text: format!("can't be sent: {error}"),
                            fits: None,
                            too_large: other == Some(Errno::MSGSIZE),
                        };
                        busy.session.refused(now, complaint);
                    }
                },
            }
        }
    }

    fn identifier(&self, slot: usize) -> u16 {
        self.base.wrapping_add(u16::try_from(slot).unwrap_or(0))
    }

    fn listen(&mut self, wake: Option<BorrowedFd>, until: Instant) -> Result<(), Error> {
        let sockets: Vec<Rc<Socket>> = self.sockets.values().filter_map(Weak::upgrade).collect();
        self.sockets.retain(|_, socket| socket.strong_count() > 0);
        let ready: Vec<bool> = {
            let fds = std::iter::once(&self.complaints).chain(sockets.iter().map(|s| &**s));
            let mut fds: Vec<PollFd> = fds
                .map(AsFd::as_fd)
                .chain(wake)
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
                .collect();
            let left = until.saturating_duration_since(Instant::now());
            let left = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            match poll(&mut fds, Some(&left)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::Socket(errno.into())),
            }
            fds.iter().map(|fd| !fd.revents().is_empty()).collect()
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        for (socket, _) in sockets.iter().zip(&ready[1..]).filter(|(_, ready)| **ready) {
            while let Some(packet) = receive(socket, &mut buffer) {
                self.hear_answer(socket, packet);
            }
        }
        if ready[0] {
            while let Some(packet) = receive(&self.complaints, &mut buffer) {
                self.hear_complaint(packet);
            }
        }
        self.buffer = buffer;
        Ok(())
    }

    fn hear_answer(&mut self, socket: &Rc<Socket>, packet: &[u8]) {
        let Some((header, icmp)) = icmp(packet) else {
            return;
        };
        let Icmpv4Type::EchoReply(echo) = icmp.icmp_type() else {
            return;
        };
        if let Some(busy) = self.busy(echo.id, header.source_addr())
            && Rc::ptr_eq(&busy.socket, socket)
            && icmp.payload().starts_with(&busy.nonce)
        {
            busy.session.answered(echo.seq, Instant::now());
        }
    }

    fn hear_complaint(&mut self, packet: &[u8]) {
        let Some((header, icmp)) = icmp(packet) else {
            return;
        };
        let Some(mut complaint) = complaint(&icmp.icmp_type(), &speaker(&header)) else {
            return;
        };
        let Some(quoted) = quoted(icmp.payload()) else {
            return;
        };
        if quoted.outer {
            complaint.fits = complaint.fits.map(|size| size.saturating_sub(IPV4_HEADER));
        }
        if let Some(busy) = self.busy(quoted.identifier, quoted.to) {
            busy.session.complained(quoted.number, complaint);
        }
    }

    fn busy(&mut self, identifier: u16, to: Ipv4Addr) -> Option<&mut Busy> {
        let slot = usize::from(identifier.wrapping_sub(self.base));
        let busy = self.slots.get_mut(slot)?.as_mut()?;
        (busy.to == to).then_some(busy)
    }
}

fn open(device: Option<InterfaceName>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
    socket.set_nonblocking(true)?;
    socket.set_header_included_v4(true)?;
    // What the kernel remembers of a path's MTU must not count, else a packet of the size in question is refused
    // before it is sent (`ip_skb_dst_mtu` in `include/net/ip.h`).
    set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE)?;
    if let Some(device) = device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    // What doesn't fit counts as lost. Without CAP_NET_ADMIN the sysctl `net.core.rmem_max` has its say.
    if set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).is_err() {
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    }
    Ok(socket)
}

fn receive<'a>(socket: &Socket, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    let (length, _) = recv(socket, &mut *buffer, RecvFlags::empty()).ok()?;
    Some(&buffer[..length])
}

/// An echo request of `size` bytes with its IPv4 header, whose source and checksum the kernel fills in.
fn echo(to: Ipv4Addr, identifier: u16, number: u16, size: u32, nonce: [u8; 8]) -> Vec<u8> {
    let room = size.max(HEADERS).min(LARGEST as u32) - HEADERS;
    let payload: Vec<u8> = nonce.into_iter().cycle().take(room as usize).collect();
    let kind = Icmpv4Type::EchoRequest(IcmpEchoHeader {
        id: identifier,
        seq: number,
    });
    let icmp = Icmpv4Header::with_checksum(kind, &payload);
    let header = Ipv4Header {
        total_len: u16::try_from(room + HEADERS).unwrap_or(u16::MAX),
        dont_fragment: true,
        time_to_live: TTL,
        protocol: IpNumber::ICMP,
        destination: to.octets(),
        ..Ipv4Header::default()
    };
    [&header.to_bytes()[..], &icmp.to_bytes(), &payload].concat()
}

/// The ICMP message of an IPv4 packet.
fn icmp(packet: &[u8]) -> Option<(Ipv4HeaderSlice<'_>, Icmpv4Slice<'_>)> {
    let header = Ipv4HeaderSlice::from_slice(packet).ok()?;
    let icmp = Icmpv4Slice::from_slice(&packet[header.slice().len()..]).ok()?;
    Some((header, icmp))
}

/// The echo request that a complaint is about.
struct Quoted {
    to: Ipv4Addr,
    identifier: u16,
    number: u16,
    /// Whether the complaint is about the tunnel's packet around it.
    outer: bool,
}

fn quoted(packet: &[u8]) -> Option<Quoted> {
    let header = Ipv4HeaderSlice::from_slice(packet).ok()?;
    let rest = &packet[header.slice().len()..];
    match header.protocol() {
        IpNumber::ICMP => {
            let Icmpv4Type::EchoRequest(echo) = Icmpv4Slice::from_slice(rest).ok()?.icmp_type()
            else {
                return None;
            };
            Some(Quoted {
                to: header.destination_addr(),
                identifier: echo.id,
                number: echo.seq,
                outer: false,
            })
        }
        IpNumber::IPV4 => {
            let inner = Ipv4HeaderSlice::from_slice(rest).ok()?;
            (inner.protocol() == IpNumber::ICMP).then_some(())?;
            Some(Quoted {
                outer: true,
                ..quoted(rest)?
            })
        }
        _ => None,
    }
}

/// Who complains. What the kernel here has to say comes from the address that it goes to.
fn speaker(header: &Ipv4HeaderSlice) -> String {
    match header.source_addr() {
        from if from == header.destination_addr() => "this host's kernel".into(),
        from => from.to_string(),
    }
}

fn complaint(kind: &Icmpv4Type, from: &str) -> Option<Complaint> {
    let (what, fits, too_large) = match kind {
        Icmpv4Type::DestinationUnreachable(unreachable) => {
            let (what, fits) = in_words(unreachable);
            let too_large = matches!(
                unreachable,
                DestUnreachableHeader::FragmentationNeeded { .. }
            );
            (what, fits, too_large)
        }
        Icmpv4Type::TimeExceeded(_) => ("its time to live is over".to_owned(), None, false),
        Icmpv4Type::ParameterProblem(_) => ("a header is wrong".to_owned(), None, false),
        Icmpv4Type::Unknown { .. }
        | Icmpv4Type::EchoReply(_)
        | Icmpv4Type::EchoRequest(_)
        | Icmpv4Type::Redirect(_)
        | Icmpv4Type::TimestampRequest(_)
        | Icmpv4Type::TimestampReply(_) => return None,
    };
    Some(Complaint {
        text: format!("{what}, says {from}"),
        fits,
        too_large,
    })
}

fn in_words(unreachable: &DestUnreachableHeader) -> (String, Option<u32>) {
    use DestUnreachableHeader as U;
    let words = match unreachable {
        U::FragmentationNeeded { next_hop_mtu } => {
            let fits = (*next_hop_mtu > 0).then(|| u32::from(*next_hop_mtu));
            return match fits {
                Some(fits) => (format!("fragmentation is needed (MTU {fits})"), Some(fits)),
                None => ("fragmentation is needed".into(), None),
            };
        }
        U::Network => "the network is unreachable",
        U::Host => "the host is unreachable",
        U::Protocol => "the protocol is unreachable (no tunnel is there)",
        U::Port => "the port is unreachable",
        U::SourceRouteFailed => "the source route failed",
        U::NetworkUnknown => "the network is unknown",
        U::HostUnknown => "the host is unknown",
        U::Isolated => "the source host is isolated",
        U::NetworkProhibited | U::HostProhibited | U::FilterProhibited => "a filter prohibits it",
        U::TosNetwork | U::TosHost => "unreachable with this type of service",
        U::HostPrecedenceViolation | U::PrecedenceCutoff => "its precedence is too low",
    };
    (words.into(), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);

    #[test]
    fn an_echo_has_the_size_that_was_asked_for() {
        for size in [28, 68, 84, 1480, 65515] {
            let packet = echo(TO, 7, 9, size, [1; 8]);
            assert_eq!(packet.len(), size as usize);
            let (header, icmp) = icmp(&packet).unwrap();
            assert!(header.dont_fragment());
            assert_eq!(u32::from(header.total_len()), size);
            assert_eq!(header.destination_addr(), TO);
            let expected = Icmpv4Type::EchoRequest(IcmpEchoHeader { id: 7, seq: 9 });
            assert_eq!(icmp.icmp_type(), expected);
        }
    }

    /// A router quotes the tunnel's packet, and the echo is within.
    #[test]
    fn what_a_complaint_quotes() {
        let inner = echo(TO, 7, 9, 84, [1; 8]);
        let found = quoted(&inner).unwrap();
        assert_eq!((found.to, found.identifier, found.number), (TO, 7, 9));
        assert!(!found.outer);
        let outer = Ipv4Header {
            protocol: IpNumber::IPV4,
            total_len: 104,
            ..Ipv4Header::default()
        };
        let packet = [&outer.to_bytes()[..], &inner[..28]].concat();
        let found = quoted(&packet).unwrap();
        assert_eq!((found.to, found.identifier, found.number), (TO, 7, 9));
        assert!(found.outer);
        assert!(quoted(&packet[..47]).is_none());
        assert!(quoted(&[]).is_none());
    }

    #[test]
    fn complaints_have_words() {
        let says = |unreachable| {
            complaint(&Icmpv4Type::DestinationUnreachable(unreachable), "10.1.0.2").unwrap()
        };
        let large = says(DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1400 });
        assert_eq!(
            large.text,
            "fragmentation is needed (MTU 1400), says 10.1.0.2"
        );
        assert_eq!((large.fits, large.too_large), (Some(1400), true));
        let gone = says(DestUnreachableHeader::Host);
        assert_eq!(gone.text, "the host is unreachable, says 10.1.0.2");
        assert!(!gone.too_large);
    }
}
