//! Drift: whatever somebody does by hand to what is ours, `status` shows it and `apply` mends it.

use serde_json::Value;

use crate::world::{Seen, World, assert_same, trials};

trials![every_damage, alias_removed, route_taken_over];

pub const TOPOLOGY: &str = "
version: 1
name: hq
tunnels:
  tun1:
    local: 192.168.10.2
    remote: 192.168.20.2
    ttl: 64
    addresses: [10.10.100.1/24, 'fd00::1/64']
    routes: [10.244.2.0/24, {to: 10.245.0.0/16, via: 10.10.100.2}, {to: 'fd02::/48', via: 'fd00::2'}]
  tun2:
    local: 192.168.10.2
    addresses: [10.10.101.1/24]
addresses:
  lo: [10.0.0.1/32]
routes:
  - {to: 10.66.0.0/16, type: blackhole}
  - {to: 10.67.0.0/16, nexthops: [{via: 10.10.100.2, device: tun1}, {via: 10.10.101.2, device: tun2}]}
";

/// What is done by hand, and how `tun1` stands then.
pub const DAMAGES: [(&str, &str); 21] = [
    ("link del tun1", "missing"),
    ("link set tun1 down", "drifted"),
    ("link set tun1 mtu 1300", "drifted"),
    ("tunnel change tun1 ttl 9", "drifted"),
    ("tunnel change tun1 remote 192.168.20.9", "drifted"),
    (
        "link del tun1\nlink add tun1 type ipip local 192.168.10.7\nlink set tun1 alias tunnelform:hq",
        "drifted",
    ),
    ("addr del 10.10.100.1/24 dev tun1", "drifted"),
    ("addr del fd00::1/64 dev tun1", "drifted"),
    ("addr flush dev tun1", "drifted"),
    ("addr add 10.10.77.1/24 dev tun1", "drifted"),
    ("addr add fd77::1/64 dev tun1", "drifted"),
    ("route del 10.244.2.0/24 dev tun1", "drifted"),
    (
        "route change 10.244.2.0/24 dev tun1 proto 117 mtu 1300",
        "drifted",
    ),
    (
        "route replace 10.245.0.0/16 via 192.168.10.9 proto 117",
        "drifted",
    ),
    ("route replace fd02::/48 via fd00::9 proto 117", "drifted"),
    ("route add 10.246.9.0/24 dev tun1 proto 117", "drifted"),
    (
        "route append 10.244.2.0/24 via 10.10.100.3 proto 117",
        "drifted",
    ),
    ("link del tun2", "drifted"),
    ("route add blackhole 10.247.0.0/16 proto 117", "in_sync"),
    ("route del blackhole 10.66.0.0/16", "in_sync"),
    ("addr del 10.0.0.1/32 dev lo", "in_sync"),
];

/// Without indices, which a tunnel that was made anew can't have kept, and in no order.
pub fn regardless_of_index(mut seen: Seen) -> Seen {
    for link in &mut seen.links {
        if let Some(map) = link.as_object_mut() {
            map.remove("ifindex");
        }
    }
    for list in [&mut seen.links, &mut seen.addresses, &mut seen.routes] {
        list.sort_by_key(Value::to_string);
    }
    seen
}

/// Every damage is shown by `status`, mended by one `apply`, and leaves nothing to do for a second.
fn every_damage() {
    let world = World::new();
    let host = world.lone();
    host.apply(TOPOLOGY);
    let good = regardless_of_index(host.seen());
    for (damage, standing) in DAMAGES {
        println!("{damage}");
        host.ip(damage);
        let status = host.status(TOPOLOGY);
        assert_eq!(status["in_sync"], false, "{damage}\n{status:#}");
        assert_eq!(
            status["tunnels"][0]["state"], standing,
            "{damage}\n{status:#}"
        );
        host.apply(TOPOLOGY);
        assert_same(&regardless_of_index(host.seen()), &good);
    }
    host.settled(TOPOLOGY);
    assert_eq!(host.status(TOPOLOGY)["in_sync"], true);
}

/// A tunnel whose alias somebody took away is nobody's: `apply` says so and changes nothing, `--adopt` mends it.
fn alias_removed() {
    let world = World::new();
    let host = world.lone();
    host.apply(TOPOLOGY);
    let good = host.seen();
    host.exec(&["ip", "link", "set", "tun1", "alias", ""]).ok();
    let bad = host.seen();
    assert_eq!(host.status(TOPOLOGY)["tunnels"][0]["state"], "foreign");
    host.try_apply(TOPOLOGY, &[]).exits(1).says("tunnel tun1");
    assert_same(&host.seen(), &bad);
    host.apply_with(TOPOLOGY, &["--adopt"]);
    assert_same(&host.seen(), &good);
}

/// A route of ours that another program replaced by its own is the other program's now.
fn route_taken_over() {
    let world = World::new();
    let host = world.lone();
    host.apply(TOPOLOGY);
    host.ip("route replace 10.244.2.0/24 via 192.168.10.9 proto bird");
    let theirs = host.seen();
    assert_eq!(host.status(TOPOLOGY)["in_sync"], false);
    host.try_apply(TOPOLOGY, &[])
        .exits(1)
        .says("route 10.244.2.0/24");
    assert_same(&host.seen(), &theirs);
}
