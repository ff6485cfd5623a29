//! `tunnelform probe`: who answers through a tunnel, and how large a packet may be.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fleet::{NODES, Site, fleet};
use crate::seed::{LEFT, Pair, RIGHT};
use crate::world::{Host, TUNNELFORM, World, run, trials};

trials![
    a_peer_that_answers,
    a_peer_that_does_not,
    an_mtu_black_hole,
    a_path_that_says_what_it_carries,
    every_peer_of_a_mesh,
    two_thousand_peers,
    without_the_tunnel_or_a_target,
    missing_rights
];

/// The seed's left host, which knows its peer's address.
fn left() -> String {
    LEFT.replace("ttl: 64", "ttl: 64\n    probe: {target: 10.10.100.2}")
}

/// The document of a probe that ends with this code.
#[track_caller]
fn probe(host: &Host, topology: &str, more: &[&str], code: i32) -> Value {
    let arguments = [&["probe", "-", "--output", "json"], more].concat();
    let said = host.tunnelform(&arguments, topology).exits(code);
    let report: Value = serde_json::from_str(&said.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", said.stdout));
    assert_eq!(report["all_reachable"], code == 0, "{report:#}");
    report
}

/// Echoes go through the tunnel and come back; the largest packet that the tunnel takes arrives.
fn a_peer_that_answers() {
    let pair = Pair::connected();
    let report = probe(&pair.left, &left(), &[], 0);
    let row = &report["probes"][0];
    assert_eq!(row["tunnel"], "tun1");
    assert_eq!(row["peer"], "192.168.20.2");
    assert_eq!(row["target"], "10.10.100.2");
    assert_eq!(row["state"], "reachable");
    assert_eq!((&row["sent"], &row["received"]), (&3.into(), &3.into()));
    let time = |key: &str| row["rtt"][key].as_f64().unwrap_or_default();
    assert!(time("min_ms") > 0.0, "{row:#}");
    assert!(time("min_ms") <= time("avg_ms") && time("avg_ms") <= time("max_ms"));
    assert_eq!(
        (&row["path_mtu"], &row["tunnel_mtu"]),
        (&1480.into(), &1480.into())
    );
    assert_eq!(report["warnings"], Value::Array(vec![]));
    let text = pair
        .left
        .tunnelform(&["probe", "-", "--count", "5"], &left());
    text.ok()
        .says("TUNNEL")
        .says("reachable")
        .says("0%")
        .says("1480");
    let quick = probe(&pair.left, &left(), &["--no-mtu", "--count", "1"], 0);
    assert_eq!(quick["probes"][0]["path_mtu"], Value::Null);
    assert_eq!(quick["probes"][0]["sent"], 1);
}

/// Without the peer's tunnel nobody answers, and the exit code says so. A peer that refuses is quoted.
fn a_peer_that_does_not() {
    let pair = Pair::new();
    pair.left.apply(LEFT);
    let report = probe(&pair.left, &left(), &["--timeout", "300ms"], 2);
    let row = &report["probes"][0];
    assert_eq!(row["state"], "unreachable");
    assert_eq!(row["loss_percent"], 100.0);
    assert_eq!(row["rtt"], Value::Null);
    pair.router.ip("route add unreachable 192.168.20.2");
    let said = pair.left.tunnelform(&["probe", "-"], &left()).exits(2);
    said.says("unreachable").says("100%");
}

/// The router's link carries less than the tunnel believes, and what would tell it is dropped.
fn an_mtu_black_hole() {
    let pair = Pair::connected();
    narrow(&pair);
    // Nothing of the router's own leaves it: what it forwards has another `iif`.
    pair.router
        .ip("rule add pref 10 iif lo to 192.168.10.2 blackhole");
    let report = probe(&pair.left, &left(), &["--timeout", "500ms"], 0);
    let row = &report["probes"][0];
    assert_eq!(
        (&row["path_mtu"], &row["tunnel_mtu"]),
        (&1280.into(), &1480.into())
    );
    let warning = report["warnings"][0].as_str().unwrap_or_default();
    assert!(
        warning
            .contains("MTU black hole: packets over 1280 bytes are lost, the tunnel's MTU is 1480"),
        "{report:#}"
    );
    pair.left
        .tunnelform(&["probe", "-", "--timeout", "500ms"], &left())
        .ok()
        .says("1280 of 1480")
        .says("MTU black hole");
}

/// The same path with a router that is heard: no black hole, but worth a warning that quotes it.
fn a_path_that_says_what_it_carries() {
    let pair = Pair::connected();
    narrow(&pair);
    let report = probe(&pair.left, &left(), &["--timeout", "500ms"], 0);
    assert_eq!(report["probes"][0]["path_mtu"], 1280, "{report:#}");
    let warning = report["warnings"][0].as_str().unwrap_or_default();
    assert!(
        warning.contains(
            "packets over 1280 bytes don't pass, the tunnel's MTU is 1480: fragmentation is needed (MTU 1300), says 192.168.10.1"
        ),
        "{report:#}"
    );
}

/// 1300 bytes from the router to the right host: 1280 within a tunnel.
fn narrow(pair: &Pair) {
    pair.router.ip("link set eth2 mtu 1300");
}

/// Each node of each kind of mesh asks its four peers.
fn every_peer_of_a_mesh() {
    let site = Site::new();
    for mesh in ["direct_routing: true", "", "style: point-to-point"] {
        let file = fleet(mesh);
        site.apply(&file);
        for (number, node) in &site.nodes {
            let name = format!("node-{number}");
            let report = probe(node, &file, &["--node", &name], 0);
            assert_eq!(report["node"], name);
            let rows = report["probes"].as_array().expect("probes are a list");
            assert_eq!(rows.len(), NODES - 1, "{report:#}");
            for row in rows {
                assert_eq!(row["state"], "reachable", "{report:#}");
                assert_eq!(row["path_mtu"], 1480, "{report:#}");
                assert_ne!(row["peer"], name);
            }
        }
    }
    site.nodes[&5].ip("link set pods-node-1 down");
    let report = probe(
        &site.nodes[&5],
        &fleet("style: point-to-point"),
        &["--node", "node-5", "--timeout", "300ms"],
        2,
    );
    let rows = report["probes"].as_array().expect("probes are a list");
    let lost: Vec<&Value> = rows
        .iter()
        .filter(|row| row["state"] != "reachable")
        .collect();
    assert_eq!(lost.len(), 1, "{report:#}");
    assert_eq!(lost[0]["peer"], "node-1");
}

/// The left host has many peers in a mesh, and the right one stands for all of them. With the left's file, whose mesh
/// holds `more`.
pub fn crowd(peers: usize, more: &str) -> (Pair, String) {
    let pair = Pair::new();
    let mut file =
        "name: left\nnodes:\n  left: {underlay: 192.168.10.2, subnets: [10.255.0.0/24]}\n"
            .to_owned();
    for peer in 0..peers {
        let (high, low) = (peer / 250, peer % 250);
        let _ = writeln!(
            file,
            "  peer-{peer}: {{underlay: 172.16.{high}.{low}, subnets: [10.{high}.{low}.0/24]}}"
        );
    }
    let _ = writeln!(
        file,
        "meshes: {{pods: {{topology: {{hub: [left]}}{more}}}}}"
    );
    pair.router.ip("route add 172.16.0.0/16 via 192.168.20.2");
    pair.right
        .ip("link add tun1 up type ipip local any remote any dev eth0
         addr add 172.31.0.1/32 dev tun1
         route add 10.255.0.0/24 via 192.168.10.2 dev tun1 onlink
         route add local 172.16.0.0/16 dev lo
         route add local 10.0.0.0/9 dev lo");
    pair.right.sysctl("ipv4/conf/all/rp_filter", "0");
    (pair, file)
}

/// A large mesh is asked at once: it takes seconds, even where all are silent.
fn two_thousand_peers() {
    const PEERS: usize = 2000;
    let (pair, file) = crowd(PEERS, "");
    let node = ["--node", "left"];
    pair.left.apply_with(&file, &node);
    let timed = |more: &[&str], code| {
        let start = Instant::now();
        let report = probe(&pair.left, &file, &[&node, more].concat(), code);
        let took = start.elapsed();
        let rows = report["probes"].as_array().expect("probes are a list");
        let reached = rows.iter().filter(|row| row["state"] == "reachable");
        eprintln!(
            "{PEERS} peers, {} reachable, {more:?}: {took:?}",
            reached.clone().count()
        );
        assert_eq!(rows.len(), PEERS);
        assert!(took < Duration::from_secs(60), "{took:?}");
        reached.count()
    };
    assert_eq!(timed(&[], 0), PEERS);
    pair.right.ip("route del local 172.16.0.0/16 dev lo");
    assert_eq!(timed(&[], 2), 0);
}

/// A tunnel that isn't there is named; one whose other end nobody knows is no failure.
fn without_the_tunnel_or_a_target() {
    let world = World::new();
    let host = world.lone();
    let row = &probe(&host, &left(), &["--timeout", "300ms"], 2)["probes"][0];
    assert_eq!(row["reason"], "there is no device tun1");
    let row = &probe(&host, LEFT, &[], 0)["probes"][0];
    assert_eq!(row["state"], "no_target");
    let row = &probe(&host, RIGHT, &[], 0)["probes"][0];
    assert_eq!(row["state"], "no_target");
}

/// Raw sockets need a capability, and the error names it.
fn missing_rights() {
    let arguments = [
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
        "--bounding-set=-all",
        TUNNELFORM,
        "probe",
        "-",
    ];
    run("setpriv", &arguments, &left())
        .exits(1)
        .says("CAP_NET_RAW");
}
