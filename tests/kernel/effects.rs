//! What the kernel drops by itself when something else changes is put back in the same run, ours and others'.

use crate::world::{Host, Seen, World, assert_same, trials};

trials![
    source_address_replaced,
    source_address_deleted,
    secondaries_stay,
    foreign_secondaries_stay,
    replacement_puts_everything_back,
    endpoints_swapped,
    endpoints_passed_round,
    endpoints_taken_over,
    renamed,
    address_moves_between_tunnels,
    underlay_of_our_own,
    last_address_replaced,
];

fn hq(body: &str) -> String {
    format!("version: 1\nname: hq\n{body}\n")
}

/// An address that a route prefers as its source is replaced: the route, and another program's, stand afterwards.
fn source_address_replaced() {
    let world = World::new();
    let host = world.lone();
    let file = |label: &str, length: u8| {
        hq(&format!(
            "addresses: {{eth0: [{{address: 10.7.0.1/24, label: {label}}}, 'fd07::1/{length}']}}\n\
             routes: [{{to: 10.8.0.0/16, device: eth0, src: 10.7.0.1}}, {{to: 10.9.0.0/16, device: eth0, src: 10.7.0.1, table: 100}}, \
             {{to: 'fd08::/48', device: eth0, src: 'fd07::1'}}]"
        ))
    };
    host.apply(&file("eth0", 64));
    host.ip("route add 10.81.0.0/16 dev eth0 src 10.7.0.1 proto bird
             route add fd81::/48 dev eth0 src fd07::1 proto bird");
    let routes = |seen: &Seen| -> Vec<String> {
        let marked = |r: &&serde_json::Value| r["protocol"] == "117" || r["protocol"] == "bird";
        let mut routes: Vec<String> = seen
            .routes
            .iter()
            .filter(marked)
            .map(ToString::to_string)
            .collect();
        routes.sort();
        routes
    };
    let before = routes(&host.seen());
    assert_eq!(before.len(), 5);
    for file in [file("'eth0:x'", 64), file("'eth0:x'", 56), file("eth0", 64)] {
        host.apply(&file);
        host.settled(&file);
        assert_eq!(routes(&host.seen()), before);
    }
}

/// An address goes for good, and with it the route that prefers it: the plan and the result agree, and nothing flaps.
fn source_address_deleted() {
    let world = World::new();
    let host = world.lone();
    let with = hq(
        "addresses: {eth0: [10.7.0.1/24, 10.6.0.1/24]}\nroutes: [{to: 10.8.0.0/16, device: eth0, src: 10.7.0.1}]",
    );
    let without = hq(
        "addresses: {eth0: [10.6.0.1/24]}\nroutes: [{to: 10.8.0.0/16, device: eth0, src: 10.6.0.1}]",
    );
    let neither = hq("addresses: {eth0: [10.6.0.1/24]}");
    host.apply(&with);
    host.apply(&without);
    host.settled(&without);
    assert_eq!(host.seen().route("10.8.0.0/16")["prefsrc"], "10.6.0.1");
    host.apply(&with);
    host.apply(&neither);
    host.settled(&neither);
    assert!(host.seen().routes_to("10.8.0.0/16").is_empty());
}

/// A primary address goes, its secondaries stay, whatever `promote_secondaries` says; so does a route that prefers one.
fn secondaries_stay() {
    for promote in ["0", "1"] {
        let world = World::new();
        let host = world.lone();
        host.sysctl("ipv4/conf/all/promote_secondaries", promote);
        host.sysctl("ipv4/conf/eth0/promote_secondaries", promote);
        let file = |addresses: &str| {
            hq(&format!(
                "addresses: {{eth0: [{addresses}]}}\nroutes: [{{to: 10.8.0.0/16, device: eth0, src: 10.7.0.3}}]\n\
                 tunnels: {{tun1: {{local: 192.168.10.2, addresses: [{addresses}]}}}}"
            ))
        };
        host.apply(&file("10.7.0.1/24, 10.7.0.2/24, 10.7.0.3/24"));
        let fewer = file("10.7.0.2/24, 10.7.0.3/24");
        host.apply(&fewer);
        host.settled(&fewer);
        let seen = host.seen();
        for device in ["eth0", "tun1"] {
            seen.address(device, "10.7.0.2");
            seen.address(device, "10.7.0.3");
            assert!(seen.find_address(device, "10.7.0.1").is_none());
        }
        assert_eq!(seen.route("10.8.0.0/16")["prefsrc"], "10.7.0.3");
    }
}

/// A foreign address behind ours, and a foreign route that prefers it, are still there when ours goes or is replaced.
fn foreign_secondaries_stay() {
    for promote in ["0", "1"] {
        let world = World::new();
        let host = world.lone();
        host.sysctl("ipv4/conf/all/promote_secondaries", promote);
        host.sysctl("ipv4/conf/eth0/promote_secondaries", promote);
        host.apply(&hq("addresses: {eth0: [10.7.0.1/24]}"));
        host.ip("addr add 10.7.0.9/24 dev eth0 label eth0:f
                 route add 10.81.0.0/16 dev eth0 src 10.7.0.9 proto bird");
        for file in [
            hq("addresses: {eth0: [{address: 10.7.0.1/24, label: 'eth0:x'}]}"),
            hq(""),
        ] {
            host.apply(&file);
            host.settled(&file);
            let seen = host.seen();
            assert_eq!(
                seen.address("eth0", "10.7.0.9")["label"],
                "eth0:f",
                "promote {promote}"
            );
            assert_eq!(
                seen.route("10.81.0.0/16")["protocol"],
                "bird",
                "promote {promote}"
            );
        }
    }
}

/// A replacement that the kernel forces puts back the tunnel's addresses, our routes and the others'.
fn replacement_puts_everything_back() {
    let world = World::new();
    let host = world.lone();
    let file = |remote: &str| {
        hq(&format!(
            "tunnels:\n  tun1: {{local: 192.168.10.2, remote: {remote}, addresses: [10.10.100.1/24, 10.10.100.3/24, 'fd00::1/64'], \
             routes: [10.244.0.0/16, {{to: 10.245.0.0/16, via: 10.10.100.2, src: 10.10.100.3}}, {{to: 'fd02::/48', via: 'fd00::2'}}]}}\n\
             routes: [{{to: 10.67.0.0/16, nexthops: [{{via: 10.10.100.2, device: tun1}}, {{via: 192.168.10.9, device: eth0}}]}}]"
        ))
    };
    host.apply(&file("any"));
    host.ip("route add 10.92.0.0/16 dev tun1 proto bird
             route add 10.91.0.0/16 via 10.10.100.2 proto bird metric 7 table 100
             route add fd91::/48 via fd00::2 dev tun1 proto bird");
    let kept = |host: &Host| {
        let mut seen = host.seen();
        seen.links.clear();
        seen.routes.sort_by_key(ToString::to_string);
        seen
    };
    let before = kept(&host);
    for remote in ["192.168.20.2", "any"] {
        let plan = host.apply(&file(remote));
        host.settled(&file(remote));
        assert!(
            plan.moves()
                .contains(&"restore route 10.92.0.0/16".to_owned()),
            "{:?}",
            plan.moves()
        );
        assert_same(&kept(&host), &before);
    }
}

fn tunnels(remotes: &[(&str, &str)]) -> String {
    let lines = remotes.iter().enumerate().map(|(n, (name, remote))| {
        format!("  {name}: {{local: 192.168.10.2, remote: 192.168.20.{remote}, addresses: [10.10.{n}.1/24], routes: [10.100.{n}.0/24]}}\n")
    });
    hq(&format!("tunnels:\n{}", lines.collect::<String>()))
}

fn assert_remotes(host: &Host, remotes: &[(&str, &str)]) {
    let seen = host.seen();
    for (n, (name, remote)) in remotes.iter().enumerate() {
        assert_eq!(seen.tunnel(name)["remote"], format!("192.168.20.{remote}"));
        seen.address(name, &format!("10.10.{n}.1"));
        assert_eq!(seen.route(&format!("10.100.{n}.0/24"))["dev"], *name);
    }
    assert_eq!(seen.tunnels().len(), remotes.len());
}

/// From one set of endpoints to another, in one run.
fn becomes(steps: &[&[(&str, &str)]]) {
    let world = World::new();
    let host = world.lone();
    for step in steps {
        host.apply(&tunnels(step));
        host.settled(&tunnels(step));
        assert_remotes(&host, step);
    }
}

/// Two tunnels swap their endpoints.
fn endpoints_swapped() {
    becomes(&[
        &[("tun1", "2"), ("tun2", "3")],
        &[("tun1", "3"), ("tun2", "2")],
    ]);
}

/// Three tunnels pass their endpoints round, and a fourth follows them.
fn endpoints_passed_round() {
    becomes(&[
        &[("tun1", "2"), ("tun2", "3"), ("tun3", "4"), ("tun4", "5")],
        &[("tun1", "3"), ("tun2", "4"), ("tun3", "2"), ("tun4", "6")],
        &[("tun1", "4"), ("tun2", "2"), ("tun3", "3"), ("tun4", "5")],
        &[("tun1", "5"), ("tun2", "4"), ("tun3", "2"), ("tun4", "3")],
    ]);
}

/// A tunnel takes over the endpoints of one that is deleted, and one that is created those of one that changed.
fn endpoints_taken_over() {
    becomes(&[
        &[("tun1", "2"), ("tun2", "3")],
        &[("tun2", "2")],
        &[("tun1", "2"), ("tun2", "3")],
    ]);
}

/// A tunnel gets another name in the file: the old one goes, the new one has its addresses and routes.
fn renamed() {
    becomes(&[&[("old", "2")], &[("new", "2")]]);
}

/// An address, and the route beside it, move from one tunnel to another.
fn address_moves_between_tunnels() {
    let world = World::new();
    let host = world.lone();
    let file = |on: [&str; 2]| {
        hq(&format!(
            "tunnels:\n  tun1: {{local: 192.168.10.2, remote: 192.168.20.2, {}}}\n  tun2: {{local: 192.168.10.2, remote: 192.168.20.3, {}}}",
            on[0], on[1]
        ))
    };
    let objects = "addresses: [10.10.100.1/24, 'fd00::1/64'], routes: [{to: 10.244.0.0/16, via: 10.10.100.2, src: 10.10.100.1}, {to: 'fd02::/48', src: 'fd00::1'}]";
    host.apply(&file([objects, ""]));
    for (turn, device) in [(["", objects], "tun2"), ([objects, ""], "tun1")] {
        host.apply(&file(turn));
        host.settled(&file(turn));
        let seen = host.seen();
        assert_eq!(seen.route("10.244.0.0/16")["dev"], device);
        assert_eq!(seen.route("fd02::/48")["dev"], device);
        seen.address(device, "10.10.100.1");
        seen.address(device, "fd00::1");
    }
}

/// A tunnel through a tunnel: the outer one is replaced beneath the inner one, which is bound to it.
fn underlay_of_our_own() {
    let world = World::new();
    let host = world.lone();
    let file = |remote: &str| {
        hq(&format!(
            "tunnels:\n  tun1: {{local: 192.168.10.2, remote: {remote}, addresses: [10.10.100.1/24]}}\n  \
             tun0: {{local: 10.10.100.1, remote: 10.10.100.2, device: tun1, addresses: [10.10.101.1/24], routes: [10.244.0.0/16]}}"
        ))
    };
    for remote in ["192.168.20.2", "any", "192.168.20.2"] {
        host.apply(&file(remote));
        host.settled(&file(remote));
        let seen = host.seen();
        assert_eq!(seen.tunnel("tun0")["link"], "tun1");
        assert_eq!(seen.route("10.244.0.0/16")["dev"], "tun0");
    }
    host.apply(&hq(""));
    assert!(host.seen().tunnels().is_empty());
}

/// With a device's last IPv4 address the kernel drops every route over it. Ours and others' are put back in the same run,
/// and the plan says so.
fn last_address_replaced() {
    let world = World::new();
    let host = world.lone();
    let topology = "name: hq
tunnels: {tun1: {local: 192.168.10.2, remote: 192.168.20.2, addresses: [10.10.100.1/24], routes: [10.244.2.0/24]}}";
    host.apply(topology);
    host.ip("route add 10.50.0.0/16 dev tun1 proto bird");
    host.does(
        &topology.replace("100.1/24", "100.7/24"),
        &[
            "create address 10.10.100.7/24 on tun1",
            "delete address 10.10.100.1/24 on tun1",
            "restore route 10.244.2.0/24",
            "restore route 10.50.0.0/16",
        ],
    );
    assert_eq!(host.seen().route("10.50.0.0/16")["protocol"], "bird");
}
