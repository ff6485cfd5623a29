//! Packets that a tunnel throws away, counted as the kernel counts them.

use std::net::SocketAddrV4;

use rustix::net::{AddressFamily, Protocol, SendFlags, SocketType, sendto, socket};
use serde_json::Value;

use crate::http::Door;
use crate::world::{Host, World, parse, run, trials};

trials![
    what_is_no_ip_is_dropped,
    a_long_chain_is_cut,
    without_a_route_is_an_error
];

/// What `ip`, `status`, `/status` and `/metrics` count in a tunnel, which is the same.
#[track_caller]
fn counted(host: &Host, topology: &str, tunnel: &str, key: &str) -> u64 {
    let (way, what) = key.split_once('_').expect("rx or tx");
    let shown = run(
        "ip",
        &["-n", &host.netns, "-s", "-json", "link", "show", tunnel],
        "",
    );
    let witness = parse(&shown.ok().stdout)[0]["stats64"][way][what].clone();
    let counter = |status: &Value| {
        let rows = status["tunnels"].as_array().expect("a list");
        let row = rows.iter().find(|row| row["name"] == tunnel);
        row.expect("the tunnel")["counters"][key].clone()
    };
    assert_eq!(counter(&host.status(topology)), witness, "{tunnel} {key}");
    let door = Door::new(host);
    let _daemon = door.daemon(host, topology, &[]);
    door.opens();
    assert_eq!(counter(&door.status()), witness, "{tunnel} {key}");
    let metric = format!("tunnelform_tunnel_{key}_total tunnel={tunnel}");
    assert_eq!(door.metrics()[&metric], witness.as_f64().expect("a number"));
    witness.as_u64().expect("a number")
}

/// MPLS comes out of a tunnel that takes anything, on a host that has no MPLS.
fn what_is_no_ip_is_dropped() {
    const IPPROTO_MPLS: u32 = 137;
    const LABEL_AND_MORE: [u8; 40] = [0x11; 40];
    let topology =
        "name: t\ntunnels: {any: {local: 192.168.30.1, remote: 192.168.30.2, mode: any}}\n";
    let world = World::new();
    let (host, peer) = (world.host("here"), world.host("there"));
    world.cable(
        (&host, "eth0", "192.168.30.1/24"),
        (&peer, "eth0", "192.168.30.2/24"),
    );
    host.apply(topology);
    peer.inside(|| {
        let protocol = Protocol::from_raw(IPPROTO_MPLS.try_into().expect("not null"));
        let socket = socket(AddressFamily::INET, SocketType::RAW, Some(protocol));
        let socket = socket.expect("a raw socket");
        let to: SocketAddrV4 = "192.168.30.1:0".parse().expect("an address");
        for _ in 0..3 {
            sendto(&socket, &LABEL_AND_MORE, SendFlags::empty(), &to).expect("it's sent");
        }
    });
    assert_eq!(counted(&host, topology, "any", "rx_dropped"), 3);
    let text = host.tunnelform(&["status", "-"], topology);
    text.says("3 dropped");
}

/// Of tunnels through tunnels the kernel follows eight and a few (`XMIT_RECURSION_LIMIT`).
fn a_long_chain_is_cut() {
    const LENGTH: u32 = 12;
    let link = |n: u32| {
        let remote = match n {
            1 => "192.168.20.2".to_owned(),
            _ => format!("10.200.{}.2", n - 1),
        };
        format!("  n{n}: {{local: 192.168.10.2, remote: {remote}, addresses: [10.200.{n}.1/24]}}\n")
    };
    let links: String = (1..=LENGTH).map(link).collect();
    let topology = format!("name: t\ndefaults: {{mtu: 1400}}\ntunnels:\n{links}");
    let world = World::new();
    let host = world.lone();
    host.apply(&topology);
    let far = format!("10.200.{LENGTH}.2");
    host.exec(&["ping", "-c", "2", "-i", "0.2", "-W", "1", &far]);
    let status = host.status(&topology);
    let mut rows = status["tunnels"].as_array().into_iter().flatten();
    let cut = rows.find(|row| row["counters"]["tx_dropped"] != 0);
    let cut = cut.and_then(|row| row["name"].as_str());
    let cut = cut.expect("a tunnel that drops");
    assert_eq!(counted(&host, &topology, cut, "tx_dropped"), 2);
}

/// Not a drop, by the kernel's count.
fn without_a_route_is_an_error() {
    let topology = "name: t\ntunnels: {tun1: {remote: 172.31.0.1, addresses: [10.1.0.1/24]}}\n";
    let world = World::new();
    let host = world.host("here");
    host.apply(topology);
    host.exec(&["ping", "-c", "2", "-i", "0.2", "-W", "1", "10.1.0.2"]);
    assert_eq!(counted(&host, topology, "tun1", "tx_errors"), 2);
    assert_eq!(counted(&host, topology, "tun1", "tx_dropped"), 0);
}
