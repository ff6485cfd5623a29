//! `mtu: auto` follows the outer path, and never flaps.

use serde_json::json;

use crate::world::{Host, World, assert_same, trials};

trials![
    follows_the_device,
    follows_a_route,
    follows_our_own_route,
    what_follows_is_not_hitless,
    of_a_multipoint_tunnel,
    over_a_tunnel_of_ours,
    of_an_unnumbered_tunnel,
    of_nested_tunnels,
];

fn hq(tunnel: &str, rest: &str) -> String {
    format!(
        "version: 1\nname: hq\ntunnels:\n  tun1: {{{tunnel}, addresses: [10.10.100.1/24]}}\n{rest}\n"
    )
}

const ENDS: &str = "local: 192.168.10.2, remote: 192.168.20.2";

/// The file says nothing new, and the tunnel's MTU becomes this.
#[track_caller]
fn becomes(host: &Host, file: &str, mtu: u32) {
    let index = host.index("tun1");
    host.does(file, &["update tunnel tun1"]);
    assert_eq!(host.seen().link("tun1")["mtu"], mtu);
    assert_eq!(host.index("tun1"), index);
}

/// The MTU of the device that outer packets leave by, or of the tunnel's own `device`, less 20.
fn follows_the_device() {
    let world = World::new();
    let host = world.lone();
    host.ip("link add eth1 mtu 9000 up type dummy");
    host.apply(&hq(ENDS, ""));
    assert_eq!(host.seen().link("tun1")["mtu"], 1480);
    host.ip("link set eth0 mtu 1400");
    becomes(&host, &hq(ENDS, ""), 1380);
    becomes(&host, &hq(&format!("{ENDS}, device: eth1"), ""), 8980);
    host.ip("link set eth1 mtu 4000");
    becomes(&host, &hq(&format!("{ENDS}, device: eth1"), ""), 3980);
    becomes(&host, &hq(ENDS, ""), 1380);
    becomes(&host, &hq(&format!("{ENDS}, mtu: 1300"), ""), 1300);
    becomes(&host, &hq(&format!("{ENDS}, mtu: auto"), ""), 1380);
}

/// The MTU of the route to the remote, where it has one.
fn follows_a_route() {
    let world = World::new();
    let host = world.lone();
    host.apply(&hq(ENDS, ""));
    host.ip("route add 192.168.20.0/24 via 192.168.10.1 mtu 1420");
    becomes(&host, &hq(ENDS, ""), 1400);
    host.ip("route add 192.168.20.2/32 via 192.168.10.1 mtu lock 1320");
    becomes(&host, &hq(ENDS, ""), 1300);
    host.ip("route del 192.168.20.2/32\nroute del 192.168.20.0/24");
    becomes(&host, &hq(ENDS, ""), 1480);
}

/// A route that a rule leads to is hitless, and the smaller tunnel that follows from it isn't: all is taken back, or with `--keep-going` the
/// route is all that's made.
fn what_follows_is_not_hitless() {
    let world = World::new();
    let host = world.lone();
    host.ip("rule add to 192.168.20.2 table 100");
    host.apply(&hq(ENDS, ""));
    let before = host.seen();
    let file = hq(
        ENDS,
        "routes: [{to: 192.168.20.2/32, via: 192.168.10.1, device: eth0, mtu: 1400, table: 100}]",
    );
    let reason = "what follows from these changes isn't made: --require-hitless";
    host.try_apply(&file, &["--require-hitless"])
        .exits(1)
        .says(reason)
        .says("taken back");
    assert_same(&host.seen(), &before);
    host.try_apply(&file, &["--require-hitless", "--keep-going"])
        .exits(1)
        .says(reason);
    host.seen().route("192.168.20.2");
    assert_eq!(host.seen().link("tun1")["mtu"], 1480);
    becomes(&host, &file, 1380);
}

/// A topology whose own route leads to the remote converges in one apply, when it comes, changes and goes.
fn follows_our_own_route() {
    let world = World::new();
    let host = world.lone();
    host.ip("link add eth1 mtu 9000 up type dummy\naddr add 192.168.11.2/24 dev eth1");
    let route = |says: &str| {
        hq(
            ENDS,
            &format!("routes: [{{to: 192.168.20.0/24, via: 192.168.11.1, device: eth1{says}}}]"),
        )
    };
    let mtu = |file: &str, mtu: u32| {
        host.apply(file);
        host.settled(file);
        assert_eq!(host.seen().link("tun1")["mtu"], mtu);
    };
    mtu(&route(""), 8980);
    mtu(&route(", mtu: 2000"), 1980);
    mtu(&route(""), 8980);
    mtu(&hq(ENDS, ""), 1480);
    mtu(&route(", mtu: 1400"), 1380);
    mtu(
        &hq(
            ENDS,
            "routes: [{to: default, via: 192.168.11.1, device: eth1, metric: 100}]",
        ),
        1480,
    );
}

/// Without a remote it's the device that has `local`; without that, 1500.
fn of_a_multipoint_tunnel() {
    let world = World::new();
    let host = world.lone();
    host.ip("link set eth0 mtu 1400");
    for (tunnel, mtu) in [
        ("local: 192.168.10.2", 1380),
        ("local: 192.168.10.99", 1480),
        ("device: eth0", 1380),
    ] {
        host.apply(&hq(tunnel, ""));
        host.settled(&hq(tunnel, ""));
        assert_eq!(host.seen().link("tun1")["mtu"], json!(mtu), "{tunnel}");
    }
}

/// A tunnel whose remote is reached through another tunnel of ours: 20 less again, in one apply.
fn over_a_tunnel_of_ours() {
    let world = World::new();
    let host = world.lone();
    let file = |mtu: &str| {
        hq(
            &format!("{ENDS}, mtu: {mtu}"),
            "  tun2: {local: 10.10.100.1, remote: 10.10.100.2, addresses: [10.10.101.1/24]}",
        )
    };
    for (mtu, shown) in [("auto", 1460), ("1300", 1280), ("auto", 1460)] {
        host.apply(&file(mtu));
        host.settled(&file(mtu));
        assert_eq!(host.seen().link("tun2")["mtu"], json!(shown), "{mtu}");
    }
}

/// A tunnel that borrows the underlay's address is no underlay of its own.
fn of_an_unnumbered_tunnel() {
    let world = World::new();
    let host = world.lone();
    host.apply("name: hq\ntunnels: {tun1: {local: 192.168.10.2, addresses: [192.168.10.2/32]}}");
    assert_eq!(host.seen().link("tun1")["mtu"], 1480);
}

/// Each tunnel in a tunnel carries 20 bytes less, and one plan knows it.
fn of_nested_tunnels() {
    let world = World::new();
    let host = world.lone();
    let mut topology = "name: hq\ntunnels:\n".to_owned();
    for (name, device, n) in [
        ("d", "eth0", 1),
        ("c", "d", 2),
        ("b", "c", 3),
        ("a", "b", 4),
    ] {
        topology +=
            &format!("  {name}: {{local: 10.9.{n}.1, remote: 10.9.{n}.2, device: {device}}}\n");
    }
    host.apply(&topology);
    for (name, mtu) in [("d", 1480), ("c", 1460), ("b", 1440), ("a", 1420)] {
        assert_eq!(host.seen().link(name)["mtu"], mtu, "{name}");
    }
}
