//! The case that tunnelform was made for: two hosts, a router between them, a tunnel, and real packets.

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, recv, socket_with, sockopt,
};

use crate::world::{Host, TUNNELFORM, World, run, trials};

trials![
    echoes_through_the_tunnel,
    networks_behind_the_tunnel,
    inside_ip_netns_exec
];

pub const LEFT: &str = "
version: 1
name: left
tunnels:
  tun1:
    local: 192.168.10.2
    remote: 192.168.20.2
    ttl: 64
    addresses: [10.10.100.1/24]
    routes: [10.244.2.0/24]
";

pub const RIGHT: &str = "
version: 1
name: right
tunnels:
  tun2:
    local: 192.168.20.2
    remote: 192.168.10.2
    ttl: 64
    addresses: [10.10.100.2/24]
    routes: [10.244.1.0/24]
";

/// Two hosts with a router between them.
pub struct Pair {
    pub left: Host,
    pub right: Host,
    pub router: Host,
    _world: World,
}

impl Pair {
    pub fn new() -> Self {
        let world = World::new();
        let (left, right, router) = (
            world.host("left"),
            world.host("right"),
            world.host("router"),
        );
        world.cable(
            (&left, "eth0", "192.168.10.2/24"),
            (&router, "eth1", "192.168.10.1/24"),
        );
        world.cable(
            (&right, "eth0", "192.168.20.2/24"),
            (&router, "eth2", "192.168.20.1/24"),
        );
        router.sysctl("ipv4/ip_forward", "1");
        left.ip("route add default via 192.168.10.1");
        right.ip("route add default via 192.168.20.1");
        Self {
            left,
            right,
            router,
            _world: world,
        }
    }

    /// Both ends of the tunnel, as the topologies say.
    pub fn connected() -> Self {
        let pair = Self::new();
        pair.left.apply(LEFT);
        pair.right.apply(RIGHT);
        pair
    }
}

/// The IP protocols of the IPv4 packets that pass a host while `work` is done, each with its source and destination.
pub fn captured<T>(host: &Host, work: impl FnOnce() -> T) -> (T, BTreeSet<(u8, [u8; 8])>) {
    /// `ETH_P_ALL` in network byte order: also what a bridge takes away before IP sees it.
    const ALL: u32 = 0x0003_u16.to_be() as u32;
    let socket = host.inside(|| {
        socket_with(
            AddressFamily::PACKET,
            SocketType::DGRAM,
            SocketFlags::NONBLOCK,
            Some(Protocol::from_raw(ALL.try_into().unwrap())),
        )
        .expect("a packet socket")
    });
    let _ = sockopt::set_socket_recv_buffer_size(&socket, 4 << 20);
    let done = work();
    let (mut seen, mut packet) = (BTreeSet::new(), vec![0; 2048]);
    while let Ok((length, _)) = recv(&socket, packet.as_mut_slice(), RecvFlags::empty()) {
        let packet = &packet[..length];
        let ipv4 = packet.first().is_some_and(|first| first >> 4 == 4);
        if let (Some(&protocol), Some(ends), true) = (packet.get(9), packet.get(12..20), ipv4) {
            seen.insert((protocol, ends.try_into().unwrap()));
        }
    }
    (done, seen)
}

/// Sends echo requests and returns how many were answered.
pub fn ping(host: &Host, to: &str, count: u32, every: Duration) -> u32 {
    let (count, every) = (count.to_string(), every.as_secs_f64().to_string());
    let said = host.exec(&[
        "ping", "-n", "-q", "-c", &count, "-i", &every, "-W", "2", to,
    ]);
    received(&said.stdout)
}

/// The number in ping's `5 packets transmitted, 5 received`.
pub fn received(summary: &str) -> u32 {
    number_before(summary, " received")
}

pub fn number_before(summary: &str, word: &str) -> u32 {
    let before = summary.split(word).next().unwrap_or_default();
    before
        .split_whitespace()
        .next_back()
        .and_then(|word| word.parse().ok())
        .unwrap_or_else(|| panic!("no count in: {summary}"))
}

/// The packets that status counts in a tunnel: received, sent.
fn counted(host: &Host, topology: &str) -> (u64, u64) {
    let status = host.status(topology);
    let counters = &status["tunnels"][0]["counters"];
    let number = |key: &str| {
        counters[key]
            .as_u64()
            .unwrap_or_else(|| panic!("no {key} in {status:#}"))
    };
    (number("rx_packets"), number("tx_packets"))
}

/// Applied on both hosts, the seed's topologies carry real echoes; the outer packets are IPIP (protocol 4) from host to
/// host, and `status` counts them.
fn echoes_through_the_tunnel() {
    let pair = Pair::connected();
    pair.left.settled(LEFT);
    let (answered, seen) = captured(&pair.router, || {
        ping(&pair.left, "10.10.100.2", 5, Duration::from_millis(200))
    });
    assert_eq!(answered, 5);
    let there = (4, [192, 168, 10, 2, 192, 168, 20, 2]);
    let back = (4, [192, 168, 20, 2, 192, 168, 10, 2]);
    assert!(seen.contains(&there) && seen.contains(&back), "{seen:?}");
    assert!(
        !seen.iter().any(|(_, ends)| ends[0] == 10),
        "an inner packet went bare: {seen:?}"
    );
    for (host, topology) in [(&pair.left, LEFT), (&pair.right, RIGHT)] {
        let (received, sent) = counted(host, topology);
        assert!(
            received >= 5 && sent >= 5,
            "{received} received, {sent} sent"
        );
    }
}

/// A tunnel's route leads to the network behind the peer.
fn networks_behind_the_tunnel() {
    let pair = Pair::connected();
    pair.left.ip("addr add 10.244.1.1/24 dev lo");
    pair.right.ip("addr add 10.244.2.1/24 dev lo");
    let answered = pair.left.exec(&[
        "ping",
        "-n",
        "-q",
        "-c",
        "3",
        "-i",
        "0.1",
        "-W",
        "2",
        "-I",
        "10.244.1.1",
        "10.244.2.1",
    ]);
    assert_eq!(received(&answered.stdout), 3);
}

/// Without `--netns`, tunnelform works in the namespace that it is started in.
fn inside_ip_netns_exec() {
    let world = World::new();
    let host = world.lone();
    let apply = ["netns", "exec", &host.netns, TUNNELFORM, "apply", "-"];
    run("ip", &apply, LEFT).ok().says("Done: 3 created");
    run("ip", &apply, LEFT).ok().says("No changes");
    host.settled(LEFT);
    assert_eq!(host.seen().link("tun1")["ifalias"], "tunnelform:left");
}
