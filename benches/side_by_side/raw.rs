//! The limit: the same messages over one plain socket, and nothing else. No file is read, nothing is compared or verified,
//! no object is marked as anybody's.
//!
//! It is a program of its own: this one, started again as `raw STEP KIND COUNT`.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use std::{io, thread};

use netlink_sys::{Socket, protocols::NETLINK_ROUTE};

use crate::workload::{Case, GATEWAYS, LOCAL, Step, foreign, routes, tunnels};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE: u16 = 0x400;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_GROUP: u16 = 27;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_IPTUN_LOCAL: u16 = 2;
const IFLA_IPTUN_REMOTE: u16 = 3;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;

const RTEXT_FILTER_SKIP_STATS: u32 = 8;
const IFF_UP: u32 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RTPROT_BIRD: u8 = 12;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;

/// More than about 256 answers outstanding overrun the default receive buffer; only the last request asks for one.
const BATCH: usize = 128;
const SPARE_GROUP: u32 = 4711;

/// Carries out one step of a case.
pub fn step(case: Case, step: Step) -> io::Result<()> {
    let mut socket = Netlink::open()?;
    match (case, step) {
        (Case::Tunnels(count), Step::Create) => create_tunnels(&mut socket, count),
        (Case::Tunnels(count), Step::ChangeOne | Step::ChangeTenth) => {
            change_tunnels(&mut socket, count, step)
        }
        (Case::Tunnels(count), Step::Delete) => delete_tunnels(&mut socket, count),
        (Case::Routes(count), Step::Create) => {
            let eth0 = socket.indices()?["eth0"];
            for route in routes(count, step) {
                let flags = NLM_F_CREATE | NLM_F_EXCL;
                socket.queue(
                    RTM_NEWROUTE,
                    flags,
                    &via(route.to, route.via, eth0, RTPROT_STATIC),
                )?;
            }
            socket.flush()
        }
        (Case::Routes(count), Step::ChangeOne | Step::ChangeTenth) => {
            let eth0 = socket.indices()?["eth0"];
            for route in routes(count, step).filter(|route| step.changes(route.number)) {
                let flags = NLM_F_CREATE | NLM_F_REPLACE;
                socket.queue(
                    RTM_NEWROUTE,
                    flags,
                    &via(route.to, route.via, eth0, RTPROT_STATIC),
                )?;
            }
            socket.flush()
        }
        (Case::Routes(count), Step::Delete) => {
            for route in routes(count, step) {
                socket.queue(RTM_DELROUTE, 0, &any_route_to(route.to))?;
            }
            socket.flush()
        }
        (Case::Tunnels(_) | Case::Routes(_), Step::NoOp) => look(&mut socket, case),
    }
}

/// The dumps alone: devices, addresses, IPv4 routes. They must show the whole case.
fn look(socket: &mut Netlink, case: Case) -> io::Result<()> {
    let devices = socket.indices()?.len();
    let (mut addresses, mut routes) = (0, 0);
    let family = [AF_INET, 0, 0, 0, 0, 0, 0, 0];
    socket.dump(RTM_GETADDR, &family, |_| addresses += 1)?;
    let family = [&family[..], &[0; 4]].concat();
    socket.dump(RTM_GETROUTE, &family, |_| routes += 1)?;
    let seen = match case {
        Case::Tunnels(_) => devices.min(addresses).min(routes),
        Case::Routes(_) => routes,
    };
    if seen < case.size() as usize {
        return Err(io::Error::other(format!("the dumps show {seen} of {case}")));
    }
    Ok(())
}

/// Adds routes as a routing daemon would.
pub fn add_foreign(count: u32) -> io::Result<()> {
    let mut socket = Netlink::open()?;
    let eth0 = socket.indices()?["eth0"];
    for number in 0..count {
        let route = via(foreign(number), GATEWAYS[0], eth0, RTPROT_BIRD);
        socket.queue(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &route)?;
    }
    socket.flush()
}

/// Adds and deletes routes as a routing daemon would, at most so many a second, and leaves none. Prints how many it did.
pub fn flood(rate: u32, seconds: u32) -> io::Result<()> {
    const ROUTES: u32 = 50 * BATCH as u32;
    let mut socket = Netlink::open()?;
    let eth0 = socket.indices()?["eth0"];
    let (start, time) = (Instant::now(), Duration::from_secs(seconds.into()));
    let mut done: u32 = 0;
    while start.elapsed() < time || !done.is_multiple_of(2 * ROUTES) {
        for _ in 0..BATCH {
            let route = via(foreign(done % ROUTES), GATEWAYS[0], eth0, RTPROT_BIRD);
            match (done / ROUTES).is_multiple_of(2) {
                true => socket.queue(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &route)?,
                false => socket.queue(RTM_DELROUTE, 0, &route)?,
            }
            done += 1;
        }
        let due = Duration::from_secs_f64(f64::from(done) / f64::from(rate));
        thread::sleep(due.saturating_sub(start.elapsed()));
    }
    println!("{done}");
    Ok(())
}

fn create_tunnels(socket: &mut Netlink, count: u32) -> io::Result<()> {
    for tunnel in tunnels(count, Step::Create) {
        let mut name = Vec::new();
        let text = format!("t{}\0", tunnel.number);
        attribute(&mut name, IFLA_IFNAME, text.as_bytes());
        let mut create = [link(0, 0), name.clone()].concat();
        attribute(&mut create, IFLA_MTU, &tunnel.mtu.to_ne_bytes());
        ipip(&mut create, tunnel.remote);
        socket.queue(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &create)?;
        let mut no_address = [link(0, 0), name.clone()].concat();
        no_link_local(&mut no_address);
        socket.queue(RTM_SETLINK, 0, &no_address)?;
        let up = [link(0, IFF_UP), name].concat();
        socket.queue(RTM_SETLINK, 0, &up)?;
    }
    socket.flush()?;
    let indices = socket.indices()?;
    for tunnel in tunnels(count, Step::Create) {
        let mut body = vec![AF_INET, 30, 0, 0];
        body.extend(indices[&format!("t{}", tunnel.number)].to_ne_bytes());
        attribute(&mut body, IFA_LOCAL, &tunnel.address.octets());
        attribute(&mut body, IFA_ADDRESS, &tunnel.address.octets());
        socket.queue(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &body)?;
    }
    for tunnel in tunnels(count, Step::Create) {
        let mut body = route(24, RTPROT_STATIC, RT_SCOPE_LINK, RTN_UNICAST);
        attribute(&mut body, RTA_DST, &tunnel.route.octets());
        let index = indices[&format!("t{}", tunnel.number)];
        attribute(&mut body, RTA_OIF, &index.to_ne_bytes());
        socket.queue(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &body)?;
    }
    socket.flush()
}

fn change_tunnels(socket: &mut Netlink, count: u32, step: Step) -> io::Result<()> {
    let indices = socket.indices()?;
    for tunnel in tunnels(count, step).filter(|tunnel| step.changes(tunnel.number)) {
        let mut body = link(indices[&format!("t{}", tunnel.number)], 0);
        attribute(&mut body, IFLA_MTU, &tunnel.mtu.to_ne_bytes());
        socket.queue(RTM_NEWLINK, 0, &body)?;
    }
    socket.flush()
}

/// Addresses and routes go with their tunnels, and the tunnels as one group: each on its own waits for a grace period.
fn delete_tunnels(socket: &mut Netlink, count: u32) -> io::Result<()> {
    let indices = socket.indices()?;
    for number in 0..count {
        let mut body = link(indices[&format!("t{number}")], 0);
        attribute(&mut body, IFLA_GROUP, &SPARE_GROUP.to_ne_bytes());
        socket.queue(RTM_NEWLINK, 0, &body)?;
    }
    socket.flush()?;
    let mut body = link(0, 0);
    attribute(&mut body, IFLA_GROUP, &SPARE_GROUP.to_ne_bytes());
    socket.queue(RTM_DELLINK, 0, &body)?;
    socket.flush()
}

/// `struct ifinfomsg`.
fn link(index: u32, up: u32) -> Vec<u8> {
    [0, index, up, up].map(u32::to_ne_bytes).concat()
}

fn ipip(body: &mut Vec<u8>, remote: Ipv4Addr) {
    let mut data = Vec::new();
    attribute(&mut data, IFLA_IPTUN_LOCAL, &LOCAL.octets());
    attribute(&mut data, IFLA_IPTUN_REMOTE, &remote.octets());
    let mut info = Vec::new();
    attribute(&mut info, IFLA_INFO_KIND, b"ipip");
    attribute(&mut info, IFLA_INFO_DATA, &data);
    attribute(body, IFLA_LINKINFO, &info);
}

/// No IPv6 link-local address, of which an ipip tunnel has no use.
fn no_link_local(body: &mut Vec<u8>) {
    let mut inet6 = Vec::new();
    attribute(
        &mut inet6,
        IFLA_INET6_ADDR_GEN_MODE,
        &[IN6_ADDR_GEN_MODE_NONE],
    );
    let mut families = Vec::new();
    attribute(&mut families, AF_INET6.into(), &inet6);
    attribute(body, IFLA_AF_SPEC, &families);
}

/// `struct rtmsg`.
fn route(bits: u8, protocol: u8, scope: u8, kind: u8) -> Vec<u8> {
    let table = if kind == 0 { 0 } else { RT_TABLE_MAIN };
    vec![
        AF_INET, bits, 0, 0, table, protocol, scope, kind, 0, 0, 0, 0,
    ]
}

fn via(to: Ipv4Addr, gateway: Ipv4Addr, index: u32, protocol: u8) -> Vec<u8> {
    let mut body = route(32, protocol, 0, RTN_UNICAST);
    attribute(&mut body, RTA_DST, &to.octets());
    attribute(&mut body, RTA_GATEWAY, &gateway.octets());
    attribute(&mut body, RTA_OIF, &index.to_ne_bytes());
    body
}

fn any_route_to(to: Ipv4Addr) -> Vec<u8> {
    let mut body = route(32, 0, 255, RTN_UNICAST);
    attribute(&mut body, RTA_DST, &to.octets());
    body
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend((value.len() as u16 + 4).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

struct Netlink {
    socket: Socket,
    sequence: u32,
    queue: Vec<u8>,
    queued: usize,
    /// Where the last message of the queue begins.
    last: usize,
    receive: Vec<u8>,
}

impl Netlink {
    fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.set_cap_ack(true)?;
        Ok(Self {
            socket,
            sequence: 0,
            queue: Vec::new(),
            queued: 0,
            last: 0,
            receive: Vec::with_capacity(64 << 10),
        })
    }

    fn message(&mut self, kind: u16, flags: u16, body: &[u8]) {
        self.sequence += 1;
        self.last = self.queue.len();
        self.queue.extend((body.len() as u32 + 16).to_ne_bytes());
        self.queue.extend(kind.to_ne_bytes());
        self.queue.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        self.queue.extend(self.sequence.to_ne_bytes());
        self.queue.extend([0; 4]);
        self.queue.extend(body);
        self.queued += 1;
    }

    fn queue(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.message(kind, flags, body);
        if self.queued < BATCH {
            return Ok(());
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.queued == 0 {
            return Ok(());
        }
        self.queue[self.last + 6] |= NLM_F_ACK as u8;
        self.send()?;
        self.answers(|_| {})
    }

    fn send(&mut self) -> io::Result<()> {
        self.socket.send(&self.queue, 0)?;
        self.queue.clear();
        self.queued = 0;
        Ok(())
    }

    fn dump(&mut self, kind: u16, body: &[u8], each: impl FnMut(&[u8])) -> io::Result<()> {
        self.message(kind, NLM_F_DUMP, body);
        self.send()?;
        self.answers(each)
    }

    fn indices(&mut self) -> io::Result<HashMap<String, u32>> {
        let mut seen = HashMap::new();
        let mut body = link(0, 0);
        attribute(
            &mut body,
            IFLA_EXT_MASK,
            &RTEXT_FILTER_SKIP_STATS.to_ne_bytes(),
        );
        self.dump(RTM_GETLINK, &body, |message| {
            seen.extend(named(message));
        })?;
        Ok(seen)
    }

    /// Takes every answer up to the one to the last message sent; an error ends it.
    fn answers(&mut self, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        loop {
            self.receive.clear();
            self.socket.recv(&mut self.receive, 0)?;
            let mut rest = self.receive.as_slice();
            while rest.len() >= 16 {
                let length = number(rest, 0) as usize;
                let (message, kind) = (&rest[..length], number(rest, 4) as u16);
                if kind == NLMSG_ERROR || kind == NLMSG_DONE {
                    let code = number(message, 16) as i32;
                    if code != 0 {
                        return Err(io::Error::from_raw_os_error(-code));
                    }
                    if number(message, 8) == self.sequence {
                        return Ok(());
                    }
                } else {
                    each(message);
                }
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

/// A device's name and index, in a message of a dump.
fn named(message: &[u8]) -> Option<(String, u32)> {
    let mut rest = &message[32..];
    while rest.len() >= 4 {
        let length = usize::from(number(rest, 0) as u16);
        if (number(rest, 0) >> 16) as u16 == IFLA_IFNAME {
            let name = String::from_utf8_lossy(&rest[4..length - 1]);
            return Some((name.into_owned(), number(message, 20)));
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
