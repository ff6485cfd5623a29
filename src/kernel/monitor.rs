//! News of changes, by multicast: that something changed, never what. The state comes from a snapshot.

use std::io;
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
}

impl Monitor {
    /// Subscribes in the network namespace `name`, or in the caller's. Changes that `kernel` makes itself aren't told, as
    /// far as the kernel says who made them, nor routes of other protocols than `protocol` and those of underlays.
    ///
    /// # Errors
    /// [`Error::NamespaceName`], [`Error::Namespace`] or [`Error::Open`].
    pub fn open(name: Option<&str>, kernel: &Kernel, protocol: u8) -> Result<Self, Error> {
        let port = kernel.port();
        let subscribe = || subscribe(port, protocol).map_err(Error::Open);
        let socket = match name {
            Some(name) => netns::inside(name, &netns::open(name)?, subscribe)?,
            None => subscribe()?,
        };
        Ok(Self {
            socket,
            buffer: vec![0; 4096],
        })
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

fn subscribe(port: u32, protocol: u8) -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    // SAFETY: the descriptor is the socket's, which lives longer than this borrow.
    let descriptor = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
    let options = SockRef::from(&descriptor);
    // Before the subscription, so that nothing comes unfiltered.
    let program = filter(port, protocol).into_iter();
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

/// Drops what `port` has made itself, and routes that matter to nobody here, before they wake the process: a router's
/// daemon may change a million routes a minute.
fn filter(port: u32, protocol: u8) -> Vec<Instruction> {
    // linux/bpf_common.h
    const LOAD_WORD: u16 = 0x20;
    const LOAD_HALF: u16 = 0x28;
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    // Offsets in struct nlmsghdr, and behind it in struct rtmsg. BPF loads in network byte order, netlink writes in the
    // host's.
    const TYPE: u32 = 4;
    const PORT: u32 = 12;
    const PROTOCOL: u32 = 16 + 5;
    let half = |value: u16| u32::from(u16::from_be_bytes(value.to_ne_bytes()));
    let word = |value: u32| u32::from_be_bytes(value.to_ne_bytes());
    let protocols: Vec<u8> = UNDERLAY_PROTOCOLS.into_iter().chain([protocol]).collect();
    let accept = u8::try_from(protocols.len()).unwrap_or(u8::MAX);
    let mut program = vec![
        Instruction(LOAD_WORD, 0, 0, PORT),
        // To the end, where it is dropped.
        Instruction(JUMP_IF_EQUAL, accept + 4, 0, word(port)),
        Instruction(LOAD_HALF, 0, 0, TYPE),
        Instruction(JUMP_IF_EQUAL, 1, 0, half(RTM_NEWROUTE)),
        Instruction(JUMP_IF_EQUAL, 0, accept + 2, half(RTM_DELROUTE)),
        Instruction(LOAD_BYTE, 0, 0, PROTOCOL),
    ];
    for (index, protocol) in protocols.iter().enumerate() {
        let further = accept - u8::try_from(index).unwrap_or(0);
        program.push(Instruction(JUMP_IF_EQUAL, further, 0, u32::from(*protocol)));
    }
    program.push(Instruction(RETURN, 0, 0, 0));
    program.push(Instruction(RETURN, 0, 0, u32::MAX));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program on a message, as the kernel does.
    fn passes(program: &[Instruction], message: &[u8]) -> bool {
        let (mut accumulator, mut next) = (0, 0);
        loop {
            let Instruction(operation, yes, no, k) = program[next];
            let at = k as usize;
            next += 1;
            match operation {
                0x20 => accumulator = u32::from_be_bytes(message[at..at + 4].try_into().unwrap()),
                0x28 => {
                    accumulator =
                        u32::from(u16::from_be_bytes(message[at..at + 2].try_into().unwrap()))
                }
                0x30 => accumulator = u32::from(message[at]),
                0x15 => next += usize::from(if accumulator == k { yes } else { no }),
                0x06 => return k > 0,
                other => panic!("operation {other}"),
            }
        }
    }

    fn message(kind: u16, port: u32, protocol: u8) -> Vec<u8> {
        let mut bytes = vec![0; 28];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[12..16].copy_from_slice(&port.to_ne_bytes());
        bytes[21] = protocol;
        bytes
    }

    #[test]
    fn only_what_matters_passes() {
        const RTM_NEWLINK: u16 = 16;
        const RTM_DELADDR: u16 = 21;
        let program = filter(4242, 117);
        for (kind, port, protocol, expected) in [
            (RTM_NEWLINK, 0, 12, true),
            (RTM_NEWLINK, 4242, 0, false),
            (RTM_DELADDR, 77, 186, true),
            (RTM_NEWROUTE, 0, 117, true),
            (RTM_DELROUTE, 0, 117, true),
            (RTM_DELROUTE, 4242, 117, false),
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
}
