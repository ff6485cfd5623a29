//! Peers that the daemon probes: what it tells of them, and whose routes it takes out.

use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::fleet::{Site, fleet, text, underlay};
use crate::http::Door;
use crate::probe::crowd;
use crate::seed::{LEFT, Pair};
use crate::watch::Daemon;
use crate::world::{Host, TUNNELFORM, trials, wait_until};

trials![
    a_peer_goes_and_comes_back,
    a_daemon_finds_out_at_once,
    the_last_peers_routes_stay,
    an_mtu_black_hole_is_seen,
    a_slow_peer_delays_nobody,
    two_thousand_peers,
    without_the_right_to_probe,
    two_capabilities_are_enough,
    nothing_to_probe_costs_nothing
];

/// A fleet whose peers are probed often.
fn probed(mesh: &str, withdraw: &str) -> String {
    let probe = format!("{{interval: 1s, timeout: 300ms, count: 2, withdraw_routes: {withdraw}}}");
    fleet(&format!("{mesh}tunnel: {{probe: {probe}}}"))
}

/// Nothing comes from a node to the first one.
fn silence(site: &Site, node: usize) {
    site.nodes[&node].ip(&format!(
        "rule add pref 10 iif lo to {} blackhole",
        text(underlay(1))
    ));
}

fn end_silence(site: &Site, node: usize) {
    site.nodes[&node].ip("rule del pref 10");
}

/// What the daemon says of a peer; null: nothing yet.
#[track_caller]
fn peer(door: &Door, name: &str) -> Value {
    let status = door.status();
    let probes = status["probes"].as_array().expect("a list");
    let found = probes.iter().find(|probe| probe["peer"] == name);
    found.cloned().unwrap_or_default()
}

#[track_caller]
fn comes_to(door: &Door, name: &str, state: &str) {
    wait_until(&format!("{name} is {state}"), || {
        peer(door, name)["state"] == state
    });
}

/// The first node's daemon, once every peer has answered.
fn daemon(site: &Site, door: &Door, file: &str) -> Daemon {
    site.apply(file);
    let daemon = door.daemon(&site.nodes[&1], file, &["--node", "node-1"]);
    for node in 2..=5 {
        comes_to(door, &format!("node-{node}"), "reachable");
    }
    daemon
}

fn has_route(host: &Host, to: &str) -> bool {
    !host.seen().routes_to(to).is_empty()
}

/// The peer that falls silent is told everywhere, its routes go, the others' stay; with its first answer all is as it was.
fn a_peer_goes_and_comes_back() {
    let site = Site::new();
    let host = &site.nodes[&1];
    for (mesh, node) in [
        ("", 3),
        ("direct_routing: true, ", 2),
        ("style: point-to-point, ", 3),
    ] {
        let file = probed(mesh, "true");
        let door = Door::new(host);
        let mut daemon = daemon(&site, &door, &file);
        let name = format!("node-{node}");
        let tunnel = peer(&door, &name)["tunnel"]
            .as_str()
            .expect("a name")
            .to_owned();
        let subnet = format!("10.244.{node}.0/24");
        let before = host.seen();
        let samples = || {
            let metrics = door.metrics();
            let (tunnel, name) = (tunnel.clone(), name.clone());
            move |what: &str| {
                let key = format!("tunnelform_probe_{what} peer={name} tunnel={tunnel}");
                let found = metrics.get(&key).copied();
                found.unwrap_or_else(|| panic!("no {key} in {metrics:#?}"))
            }
        };
        let repairs = || door.metrics()["tunnelform_drift_repairs_total kind=route"];
        let sample = samples();
        assert_eq!(
            (sample("up"), sample("withdrawn"), sample("loss_ratio")),
            (1.0, 0.0, 0.0)
        );
        assert!(sample("rtt_min_seconds") > 0.0);
        assert!(sample("rtt_min_seconds") <= sample("rtt_max_seconds"));
        assert_eq!(sample("path_mtu_bytes"), 1480.0, "{mesh}");

        silence(&site, node);
        daemon.says(&format!("to {name} (10.244.{node}.0): no answer"));
        comes_to(&door, &name, "unreachable");
        wait_until("the route is gone", || !has_route(host, &subnet));
        for other in (2..=5).filter(|other| *other != node) {
            assert!(has_route(host, &format!("10.244.{other}.0/24")), "{mesh}");
        }
        let sample = samples();
        assert_eq!(
            (sample("up"), sample("withdrawn"), sample("loss_ratio")),
            (0.0, 1.0, 1.0)
        );
        assert!(sample("echoes_sent_total") > sample("echoes_answered_total"));
        let standing = door.status()["standing"]
            .as_str()
            .expect("words")
            .to_owned();
        assert!(standing.contains("1 of 4 peers unreachable"), "{standing}");
        // What isn't wanted isn't missing.
        wait_until("`status` tells it", || {
            let told = host.tunnelform(&["status", "-"], &file).ok();
            told.stdout.contains("unreachable, withdrawn")
        });
        assert_eq!(host.status(&file)["in_sync"], true);
        // Neither drift nor a repair.
        assert_eq!(repairs(), 0.0);
        // Who applies by hand believes in everybody, and the daemon takes it out again.
        host.apply(&file);
        daemon.says("pass: ");
        wait_until("the route is gone again", || !has_route(host, &subnet));

        let repaired = repairs();
        assert!(repaired > 0.0);
        end_silence(&site, node);
        daemon.says("answers again");
        wait_until("all is as it was", || host.seen().routes == before.routes);
        comes_to(&door, &name, "reachable");
        assert_eq!(samples()("withdrawn"), 0.0);
        let status = door.status();
        assert_eq!(repairs(), repaired);
        let passes = status["passes"].as_array().expect("a list");
        assert!(
            passes.iter().any(|pass| pass["trigger"] == "probe"),
            "{passes:#?}"
        );
        daemon.end(Signal::TERM);
        let told = host.tunnelform(&["status", "-"], &file).ok();
        assert!(!told.stdout.contains("reachable"), "{}", told.stdout);
        for node in site.nodes.values() {
            node.tunnelform(&["destroy", "-"], &file).ok();
        }
    }
}

/// A daemon that starts believes in everybody, until the first probe; another file changes nothing about who is dead.
fn a_daemon_finds_out_at_once() {
    let site = Site::new();
    let host = &site.nodes[&1];
    let file = probed("", "true");
    site.apply(&file);
    silence(&site, 4);
    let door = Door::new(host);
    let mut daemon = door.daemon(host, &file, &["--node", "node-1"]);
    daemon.says("to node-4 (10.244.4.0): no answer");
    wait_until("the route is gone", || !has_route(host, "10.244.4.0/24"));
    daemon.write(&file.replace("count: 2", "count: 1"));
    wait_until("the file is read", || peer(&door, "node-2")["sent"] == 1);
    assert!(!has_route(host, "10.244.4.0/24"));
    assert!(peer(&door, "node-4")["withdrawn"] == true);
    daemon.write(&file.replace("withdraw_routes: true", "withdraw_routes: false"));
    wait_until("the route is back", || has_route(host, "10.244.4.0/24"));
    comes_to(&door, "node-4", "unreachable");
}

/// Where nobody answers, somebody's routes stay, unless the topology says otherwise.
fn the_last_peers_routes_stay() {
    let site = Site::new();
    let host = &site.nodes[&1];
    let file = probed("", "true");
    let door = Door::new(host);
    let mut daemon = daemon(&site, &door, &file);
    let routes = || {
        let peers = (2..=5).filter(|node| has_route(host, &format!("10.244.{node}.0/24")));
        peers.count()
    };
    // At once.
    host.ip("link set eth0 down");
    daemon.says("no peer answers any more");
    for node in 2..=5 {
        comes_to(&door, &format!("node-{node}"), "unreachable");
    }
    daemon.says_nothing_more();
    let left = routes();
    assert!(left > 0);
    daemon.write(&probed("", "all"));
    wait_until("all are gone", || routes() == 0);
    host.ip("link set eth0 up\nroute add default via 192.168.10.1");
    wait_until("all are back", || routes() == 4);
}

/// The router's link carries less than the tunnel, and what would tell it is dropped.
fn an_mtu_black_hole_is_seen() {
    let pair = Pair::connected();
    pair.router.ip("link set eth2 mtu 1300");
    pair.router
        .ip("rule add pref 10 iif lo to 192.168.10.2 blackhole");
    let file = LEFT.replace(
        "ttl: 64",
        "ttl: 64\n    mtu: 1480\n    probe: {target: 10.10.100.2, interval: 1s, timeout: 500ms}",
    );
    let door = Door::new(&pair.left);
    let mut daemon = door.daemon(&pair.left, &file, &[]);
    daemon.says("MTU black hole: packets over 1280 bytes are lost, the tunnel's MTU is 1480");
    let name = "192.168.20.2";
    wait_until("it's shown", || peer(&door, name)["path_mtu"] == 1280);
    let row = peer(&door, name);
    assert_eq!(
        (&row["state"], &row["tunnel_mtu"]),
        (&"reachable".into(), &1480.into())
    );
    assert!(
        row["warning"]
            .as_str()
            .is_some_and(|warning| warning.contains("black hole"))
    );
    wait_until("`status` tells it", || {
        let told = pair.left.tunnelform(&["status", "-"], &file).ok();
        told.stdout.contains("1280 of 1480") && told.stdout.contains("black hole")
    });
    // What was found stands with the probes that don't look for it.
    let sent = row["sent_total"].as_u64().unwrap_or_default();
    wait_until("more probes", || {
        let row = peer(&door, name);
        assert_eq!(row["path_mtu"], 1280);
        row["sent_total"].as_u64() > Some(sent + 6)
    });
    daemon.write(&file.replace("mtu: 1480", "mtu: 1280"));
    daemon.says("packets of the tunnel's MTU pass again");
    wait_until("it's shown", || peer(&door, name)["warning"] == Value::Null);
}

/// One that is waited for a minute costs the others nothing.
fn a_slow_peer_delays_nobody() {
    let pair = Pair::connected();
    let file = LEFT.replace(
        "ttl: 64",
        "ttl: 64\n    probe: {target: 10.10.100.2, interval: 1s, count: 1}",
    ) + "  tun9: {local: 192.168.10.2, remote: 192.168.30.9, addresses: [10.9.0.1/30], probe: {interval: 1s, timeout: 1m}}\n";
    pair.router.ip("route add blackhole 192.168.30.0/24");
    let door = Door::new(&pair.left);
    let _daemon = door.daemon(&pair.left, &file, &[]);
    wait_until("several answers", || {
        peer(&door, "192.168.20.2")["received_total"].as_u64() >= Some(5)
    });
    assert_eq!(peer(&door, "192.168.30.9")["state"], "unknown");
}

/// Many peers are asked each in its turn, and cost little.
fn two_thousand_peers() {
    const PEERS: usize = 2000;
    let (pair, file) = crowd(PEERS, ", tunnel: {probe: {withdraw_routes: true}}");
    let door = Door::new(&pair.left);
    let daemon = door.daemon(&pair.left, &file, &["--node", "left"]);
    let reached = || {
        let metrics = door.metrics();
        let up = metrics
            .iter()
            .filter(|(name, _)| name.starts_with("tunnelform_probe_up "));
        up.filter(|(_, value)| **value == 1.0).count()
    };
    let start = Instant::now();
    while reached() < PEERS {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "{} of {PEERS}",
            reached()
        );
        std::thread::sleep(Duration::from_secs(1));
    }
    let sent = || {
        let metrics = door.metrics();
        let of_peers = |name: &str| name.starts_with("tunnelform_probe_echoes_sent_total ");
        let sent = metrics.iter().filter(|(name, _)| of_peers(name));
        sent.map(|(_, count)| count).sum::<f64>()
    };
    let (since, before) = (Instant::now(), (sent(), daemon.ticks()));
    std::thread::sleep(Duration::from_secs(10));
    let (took, echoes) = (since.elapsed().as_secs_f64(), sent() - before.0);
    let spent = daemon.ticks() - before.1;
    eprintln!(
        "{PEERS} peers: {echoes} echoes in {took:.1} s, {spent} hundredths of a second of work"
    );
    // Three for each in 10 s.
    let expected = PEERS as f64 * 3.0 * took / 10.0;
    assert!(echoes > expected * 0.8, "{echoes} of {expected}");
    assert_eq!(reached(), PEERS);
}

/// Without CAP_NET_RAW all else goes on, and everybody is told why there are no probes.
fn without_the_right_to_probe() {
    let pair = Pair::connected();
    let host = &pair.left;
    let file = LEFT.replace(
        "ttl: 64",
        "ttl: 64\n    probe: {target: 10.10.100.2, interval: 1s, withdraw_routes: all}",
    );
    let path = PathBuf::from(format!("/run/peers-{}.yaml", host.netns));
    std::fs::write(&path, &file).expect("a file in /run");
    let (door, mut command) = (Door::new(host), Command::new("setpriv"));
    command.args([
        "--bounding-set=-net_raw",
        TUNNELFORM,
        "watch",
        "--netns",
        &host.netns,
    ]);
    command
        .args(["--log-format", "json", "--listen", &door.address()])
        .arg(&path);
    let mut daemon = Daemon::spawn(command, path);
    daemon.says("no peer is probed: probing needs CAP_NET_RAW");
    wait_until("it's told", || {
        peer(&door, "192.168.20.2")["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("CAP_NET_RAW"))
    });
    assert_eq!(peer(&door, "192.168.20.2")["state"], "unknown");
    assert_eq!(door.get("/readyz").code, 200);
    host.ip("addr del 10.10.100.1/24 dev tun1");
    wait_until("it's put back", || {
        host.seen().find_address("tun1", "10.10.100.1").is_some()
    });
    assert!(has_route(host, "10.244.2.0/24"));
    daemon.says("pass: ");
    // Once is enough.
    daemon.is_quiet(Duration::from_secs(3));
}

/// A user of its own with CAP_NET_ADMIN and CAP_NET_RAW, as the example unit makes it.
fn two_capabilities_are_enough() {
    let pair = Pair::connected();
    let place = PathBuf::from(format!("/run/peers-{}", pair.left.netns));
    std::fs::create_dir_all(&place).expect("a directory in /run");
    chown(&place, Some(65534), Some(65534)).expect("a user of its own");
    let file = place.join("hq.yaml");
    let probe = "probe: {target: 10.10.100.2, interval: 1s, timeout: 300ms}";
    std::fs::write(
        &file,
        LEFT.replace("ttl: 64", &format!("ttl: 64\n    {probe}")),
    )
    .expect("a file");
    let mut command = Command::new("setpriv");
    command
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--no-new-privs",
        ])
        .args(
            ["inh-caps", "ambient-caps", "bounding-set"]
                .map(|set| format!("--{set}=-all,+net_admin,+net_raw")),
        )
        .args([TUNNELFORM, "watch", "--log-format", "json"])
        .arg(&file)
        .env("TUNNELFORM_RUN_DIR", &place);
    let mut daemon = pair.left.inside(|| Daemon::spawn(command, file));
    for _ in 0..2 {
        pair.right.ip("link set tun2 down");
        daemon.says("tun1 to 192.168.20.2 (10.10.100.2): no answer");
        pair.right.ip("link set tun2 up");
        daemon.says("tun1 to 192.168.20.2 (10.10.100.2): answers again");
    }
    assert_eq!(daemon.end(Signal::TERM), Some(0));
}

/// There is a thread only while there is somebody to probe.
fn nothing_to_probe_costs_nothing() {
    let pair = Pair::connected();
    let door = Door::new(&pair.left);
    let mut daemon = door.daemon(&pair.left, LEFT, &[]);
    wait_until("it's ready", || door.get("/readyz").code == 200);
    let id = daemon.child.id();
    let probes = || {
        let tasks = std::fs::read_dir(format!("/proc/{id}/task")).expect("it runs");
        let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm"));
        let mut names = tasks.flatten().filter_map(|task| name(task).ok());
        names.any(|name| name.trim() == "probes")
    };
    assert!(!probes());
    assert_eq!(door.status()["probes"], Value::Array(vec![]));
    daemon.write(&LEFT.replace("ttl: 64", "ttl: 65\n    probe: {target: 10.10.100.2}"));
    daemon.says("pass: 0 created, 1 changed");
    comes_to(&door, "192.168.20.2", "reachable");
    assert!(probes());
    daemon.write(LEFT);
    daemon.says("pass: 0 created, 1 changed");
    wait_until("nobody is probed", || !probes());
    assert_eq!(door.status()["probes"], Value::Array(vec![]));
}
