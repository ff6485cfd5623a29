//! News of changes, by multicast: that something changed, never what. The state comes from a snapshot.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use socket2::{SockFilter, SockRef};

use super::{Error, Kernel, netns};

/// `RTNLGRP_LINK`, `RTNLGRP_IPV4_IFADDR`, `RTNLGRP_IPV4_ROUTE`, `RTNLGRP_IPV6_IFADDR`, `RTNLGRP_IPV6_ROUTE`.
const GROUPS: [u32; 5] = [1, 5, 7, 9, 11];
/// A router's burst of routes, of which the filter lets few through.
const RECEIVE_BUFFER: usize = 8 << 20;

/// Messages read at once: whoever changes more than can be read doesn't keep the daemon from its work.
const MOST_AT_ONCE: usize = 1 << 14;

const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;

/// Protocols of routes that lead an underlay: the kernel's, a boot script's, a person's, DHCP's and router
/// advertisements' (`include/uapi/linux/rtnetlink.h`). A routing daemon's are too many to look at each.
const UNDERLAY_PROTOCOLS: [u8; 6] = [1, 2, 3, 4, 9, 16];

/// Remotes to which a routing daemon's routes are told, at most: the kernel limits a filter (`net.core.optmem_max`, by
/// default for some 300). Where there are more, no such route is.
const MOST_REMOTES: usize = 128;

/// Of which routes to hear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interest {
    /// Those of this protocol.
    pub protocol: u8,
    /// Those to these addresses, of whatever protocol. Of IPv6 none.
    pub towards: BTreeSet<IpAddr>,
}

/// What the kernel told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// Nothing that matters here.
    Nothing,
    /// A link, an address or a route changed.
    Change,
    /// More than there was room for: some of it is lost, so everything may have changed.
    Overrun,
}

/// A subscription to the changes in one network namespace.
pub struct Monitor {
    socket: Socket,
    buffer: Vec<u8>,
    interest: Interest,
}

impl Monitor {
    /// Subscribes in the network namespace `name`, or in the caller's. Changes that `kernel` makes itself aren't told, as
    /// far as the kernel says who made them, nor routes that are of no interest and no underlay's.
    ///
    /// # Errors
    /// [`Error::NamespaceName`], [`Error::Namespace`] or [`Error::Open`].
    pub fn open(name: Option<&str>, kernel: &Kernel, interest: Interest) -> Result<Self, Error> {
        let port = kernel.port();
        let subscribe = || subscribe(port, &interest).map_err(Error::Open);
        let socket = match name {
            Some(name) => netns::inside(name, &netns::open(name)?, subscribe)?,
            None => subscribe()?,
        };
        Ok(Self {
            socket,
            buffer: vec![0; 4096],
            interest,
        })
    }

    /// Of which routes it hears.
    pub fn interest(&self) -> &Interest {
        &self.interest
    }

    /// Reads what has been told so far, all but of a flood. Never waits.
    ///
    /// # Errors
    /// [`Error::Talk`].
    pub fn drain(&mut self) -> Result<News, Error> {
        let mut news = News::Nothing;
        for _ in 0..MOST_AT_ONCE {
            match self.socket.recv(&mut &mut self.buffer[..], 0) {
                Ok(_) if news == News::Nothing => news = News::Change,
                Ok(_) => {}
                Err(error)
                    if error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) =>
                {
                    news = News::Overrun;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(news),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Talk(error)),
            }
        }
        Ok(news)
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is the socket's, which lives as long as this borrow of it.
        unsafe { BorrowedFd::borrow_raw(self.socket.as_raw_fd()) }
    }
}

fn subscribe(port: u32, interest: &Interest) -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    // SAFETY: the descriptor is the socket's, which lives longer than this borrow.
    let descriptor = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
    let options = SockRef::from(&descriptor);
    // Before the subscription, so that nothing comes unfiltered.
    let program = filter(port, interest).into_iter();
    let program: Vec<SockFilter> = program
        .map(|Instruction(code, yes, no, value)| SockFilter::new(code, yes, no, value))
        .collect();
    options.attach_filter(&program)?;
    // Beyond the system's limit only with CAP_NET_ADMIN; without it there are more overruns, and so more snapshots.
    if set_socket_recv_buffer_size_force(descriptor, RECEIVE_BUFFER).is_err() {
        let _ = options.set_recv_buffer_size(RECEIVE_BUFFER);
    }
    socket.bind(&SocketAddr::new(0, 0))?;
    for group in GROUPS {
        socket.add_membership(group)?;
    }
    socket.set_non_blocking(true)?;
    Ok(socket)
}

/// Operation, how many to skip if it's true and if it's false, and its value (`struct sock_filter`).
struct Instruction(u16, u8, u8, u32);

// linux/bpf_common.h
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const LOAD_WORD_BEHIND_INDEX: u16 = 0x40;
const LOAD_VALUE: u16 = 0x00;
const LOAD_MEMORY: u16 = 0x60;
const STORE: u16 = 0x02;
const SET_INDEX: u16 = 0x01;
const INDEX_FROM_MEMORY: u16 = 0x61;
const TO_INDEX: u16 = 0x07;
const SUBTRACT_INDEX: u16 = 0x1c;
const XOR: u16 = 0xa4;
const SHIFT_RIGHT_BY_INDEX: u16 = 0x7c;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
/// Where the attribute of the index's type begins, from the accumulator on; 0: nowhere (`SKF_AD_NLATTR`).
const FIND_ATTRIBUTE: u32 = 0xffff_f000 + 12;

const ACCEPT: Instruction = Instruction(RETURN, 0, 0, u32::MAX);
const DROP: Instruction = Instruction(RETURN, 0, 0, 0);

/// Drops what `port` has made itself, and routes that matter to nobody here, before they wake the process: a router's
/// daemon may change a million routes a minute.
fn filter(port: u32, interest: &Interest) -> Vec<Instruction> {
    // Offsets in struct nlmsghdr, and behind it in struct rtmsg. BPF loads in network byte order, netlink writes in the
    // host's.
    const TYPE: u32 = 4;
    const PORT: u32 = 12;
    const PROTOCOL: u32 = 16 + 5;
    let half = |value: u16| u32::from(u16::from_be_bytes(value.to_ne_bytes()));
    let word = |value: u32| u32::from_be_bytes(value.to_ne_bytes());
    let protocols = UNDERLAY_PROTOCOLS.into_iter().chain([interest.protocol]);
    let protocols: Vec<u8> = protocols.collect();
    let count = u8::try_from(protocols.len()).unwrap_or(u8::MAX);
    let mut program = vec![
        Instruction(LOAD_WORD, 0, 0, PORT),
        Instruction(JUMP_IF_EQUAL, count + 5, 0, word(port)),
        Instruction(LOAD_HALF, 0, 0, TYPE),
        Instruction(JUMP_IF_EQUAL, 1, 0, half(RTM_NEWROUTE)),
        Instruction(JUMP_IF_EQUAL, 0, count + 3, half(RTM_DELROUTE)),
        Instruction(LOAD_BYTE, 0, 0, PROTOCOL),
    ];
    for (index, protocol) in (0..).zip(&protocols) {
        let accept = count - index + 1;
        program.push(Instruction(JUMP_IF_EQUAL, accept, 0, u32::from(*protocol)));
    }
    program.extend([Instruction(JUMP, 0, 0, 2), DROP, ACCEPT]);
    program.extend(leads_to(&interest.towards));
    program
}

/// Accepts an IPv4 route whose destination holds one of the addresses, and drops any other.
fn leads_to(addresses: &BTreeSet<IpAddr>) -> Vec<Instruction> {
    const FAMILY: u32 = 16;
    const DST_LEN: u32 = 16 + 1;
    const ATTRIBUTES: u32 = 16 + 12;
    const AF_INET: u32 = 2;
    const RTA_DST: u32 = 1;
    const HEADER: u32 = 4;
    // In the program's memory.
    const DST: u32 = 0;
    const HOST_BITS: u32 = 1;
    let addresses = addresses.iter().filter_map(|address| match address {
        IpAddr::V4(address) => Some(address.to_bits()),
        IpAddr::V6(_) => None,
    });
    let addresses: Vec<u32> = addresses.collect();
    if addresses.is_empty() || addresses.len() > MOST_REMOTES {
        return vec![DROP];
    }
    let mut program = vec![
        Instruction(LOAD_BYTE, 0, 0, FAMILY),
        Instruction(JUMP_IF_EQUAL, 1, 0, AF_INET),
        DROP,
        // A default route has no destination, and leads anywhere.
        Instruction(LOAD_BYTE, 0, 0, DST_LEN),
        Instruction(JUMP_IF_EQUAL, 0, 1, 0),
        ACCEPT,
        Instruction(TO_INDEX, 0, 0, 0),
        Instruction(LOAD_VALUE, 0, 0, 32),
        Instruction(SUBTRACT_INDEX, 0, 0, 0),
        Instruction(STORE, 0, 0, HOST_BITS),
        Instruction(SET_INDEX, 0, 0, RTA_DST),
        Instruction(LOAD_VALUE, 0, 0, ATTRIBUTES),
        Instruction(LOAD_WORD, 0, 0, FIND_ATTRIBUTE),
        Instruction(JUMP_IF_EQUAL, 0, 1, 0),
        DROP,
        Instruction(TO_INDEX, 0, 0, 0),
        Instruction(LOAD_WORD_BEHIND_INDEX, 0, 0, HEADER),
        Instruction(STORE, 0, 0, DST),
        Instruction(INDEX_FROM_MEMORY, 0, 0, HOST_BITS),
    ];
    for address in addresses {
        program.extend([
            Instruction(LOAD_MEMORY, 0, 0, DST),
            Instruction(XOR, 0, 0, address),
            Instruction(SHIFT_RIGHT_BY_INDEX, 0, 0, 0),
            Instruction(JUMP_IF_EQUAL, 0, 1, 0),
            ACCEPT,
        ]);
    }
    program.push(DROP);
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program on a message, as the kernel does.
    fn passes(program: &[Instruction], message: &[u8]) -> bool {
        let (mut accumulator, mut index, mut next, mut memory) = (0_u32, 0_u32, 0, [0; 2]);
        let word = |at: usize| u32::from_be_bytes(message[at..at + 4].try_into().unwrap());
        loop {
            let Instruction(operation, yes, no, k) = program[next];
            let at = k as usize;
            next += 1;
            match operation {
                LOAD_WORD if k == FIND_ATTRIBUTE => {
                    accumulator = attribute(message, accumulator, index);
                }
                LOAD_WORD => accumulator = word(at),
                LOAD_HALF => accumulator = word(at) >> 16,
                LOAD_BYTE => accumulator = u32::from(message[at]),
                LOAD_WORD_BEHIND_INDEX => accumulator = word(index as usize + at),
                LOAD_VALUE => accumulator = k,
                LOAD_MEMORY => accumulator = memory[at],
                STORE => memory[at] = accumulator,
                SET_INDEX => index = k,
                INDEX_FROM_MEMORY => index = memory[at],
                TO_INDEX => index = accumulator,
                SUBTRACT_INDEX => accumulator -= index,
                XOR => accumulator ^= k,
                SHIFT_RIGHT_BY_INDEX => accumulator >>= index,
                JUMP => next += at,
                JUMP_IF_EQUAL => next += usize::from(if accumulator == k { yes } else { no }),
                RETURN => return k > 0,
                other => panic!("operation {other}"),
            }
        }
    }

    fn attribute(message: &[u8], from: u32, kind: u32) -> u32 {
        let mut at = from as usize;
        while at + 4 <= message.len() {
            let half = |at: usize| u16::from_ne_bytes(message[at..at + 2].try_into().unwrap());
            if u32::from(half(at + 2)) == kind {
                return u32::try_from(at).unwrap();
            }
            at += usize::from(half(at)).next_multiple_of(4);
        }
        0
    }

    fn message(kind: u16, port: u32, protocol: u8) -> Vec<u8> {
        let mut bytes = vec![0; 28];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[12..16].copy_from_slice(&port.to_ne_bytes());
        bytes[21] = protocol;
        bytes
    }

    /// As a routing daemon's route is told: `RTA_TABLE`, then `RTA_DST`.
    fn route(family: u8, to: &str) -> Vec<u8> {
        let net: ipnet::Ipv4Net = to.parse().unwrap();
        let mut bytes = message(RTM_NEWROUTE, 0, 12);
        (bytes[16], bytes[17]) = (family, net.prefix_len());
        let mut attribute = |kind: u16, value: [u8; 4]| {
            bytes.extend(8_u16.to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(value);
        };
        attribute(15, 254_u32.to_ne_bytes());
        if net.prefix_len() > 0 {
            attribute(1, net.addr().octets());
        }
        bytes
    }

    fn interest(towards: &[&str]) -> Interest {
        Interest {
            protocol: 117,
            towards: towards
                .iter()
                .map(|address| address.parse().unwrap())
                .collect(),
        }
    }

    #[test]
    fn only_what_matters_passes() {
        const RTM_NEWLINK: u16 = 16;
        const RTM_DELADDR: u16 = 21;
        let program = filter(4242, &interest(&[]));
        for (kind, port, protocol, expected) in [
            (RTM_NEWLINK, 0, 12, true),
            (RTM_NEWLINK, 4242, 0, false),
            (RTM_DELADDR, 77, 186, true),
            (RTM_NEWROUTE, 0, 117, true),
            (RTM_DELROUTE, 0, 117, true),
            (RTM_DELROUTE, 4242, 117, false),
            (RTM_NEWROUTE, 0, 1, true),
            (RTM_NEWROUTE, 0, 2, true),
            (RTM_NEWROUTE, 0, 4, true),
            (RTM_NEWROUTE, 0, 16, true),
            (RTM_NEWROUTE, 0, 12, false),
            (RTM_NEWROUTE, 0, 186, false),
            (RTM_DELROUTE, 0, 11, false),
        ] {
            let passed = passes(&program, &message(kind, port, protocol));
            assert_eq!(passed, expected, "{kind} from {port}, protocol {protocol}");
        }
    }

    #[test]
    fn a_way_to_a_remote_passes() {
        const AF_INET: u8 = 2;
        const AF_INET6: u8 = 10;
        let remotes = ["192.168.20.2", "203.0.113.9", "2001:db8::1"];
        let program = filter(4242, &interest(&remotes));
        for (family, to, expected) in [
            (AF_INET, "192.168.20.2/32", true),
            (AF_INET, "192.168.20.0/24", true),
            (AF_INET, "192.0.0.0/8", true),
            (AF_INET, "128.0.0.0/1", true),
            (AF_INET, "203.0.113.8/31", true),
            (AF_INET, "0.0.0.0/0", true),
            (AF_INET, "192.168.20.3/32", false),
            (AF_INET, "192.168.21.0/24", false),
            (AF_INET, "10.0.0.0/8", false),
            (AF_INET, "0.0.0.0/1", false),
            (AF_INET6, "192.168.20.0/24", false),
        ] {
            assert_eq!(passes(&program, &route(family, to)), expected, "{to}");
        }
        // What its own protocol has passes all the same, and what it made itself doesn't.
        assert!(passes(&program, &message(RTM_NEWROUTE, 0, 117)));
        assert!(!passes(&program, &message(RTM_NEWROUTE, 4242, 117)));
    }

    #[test]
    fn too_many_remotes_are_none() {
        let towards =
            (0..=MOST_REMOTES).map(|n| IpAddr::from([10, 0, 1, u8::try_from(n).unwrap()]));
        let program = filter(
            4242,
            &Interest {
                protocol: 117,
                towards: towards.collect(),
            },
        );
        assert!(!passes(&program, &route(2, "10.0.1.0/24")));
    }
}
