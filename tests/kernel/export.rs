//! What the kernel has, as a topology and as a state, and plans that are made against the state elsewhere.

use serde_json::Value;

use crate::world::{Host, Plan, TUNNELFORM, World, assert_same, run, trials};

trials![
    foreign_tunnels_are_taken_over,
    what_an_owner_has,
    what_has_no_words_is_named,
    a_captured_state_gives_the_same_plan,
    a_captured_state_is_checked
];

const FOREIGN: &str = "\
link add t1 type ipip local 192.168.10.2 remote 192.168.20.2 ttl 64 mode ipip
addr add 10.1.0.1/24 dev t1
addr add 10.1.1.1 peer 10.1.1.2 dev t1
link set t1 mtu 1400 up
route add 10.9.0.0/16 dev t1
route add 10.8.0.0/16 via 10.1.0.2 dev t1 metric 50 mtu 1300 advmss 1200 src 10.1.0.1
route add 10.7.0.0/16 dev t1 table 100 scope global
link add t2 type ipip local 192.168.10.2 remote any tos inherit nopmtudisc dev eth0 fwmark 7 mode any
addr add 10.2.0.1/32 dev t2 label t2:x
link set t2 up
route add 10.6.0.0/16 via 192.168.20.9 dev t2 onlink
route add 10.5.0.0/16 nexthop via 10.1.0.2 dev t1 weight 3 nexthop via 192.168.20.9 dev t2 onlink
link add t3 type ipip local 192.168.10.2 remote 192.168.20.3 mode mplsip
";

/// A plan's changes that are more than the marks that taking over leaves.
fn beyond_marks(plan: &Plan) -> Vec<String> {
    let only_marks = |change: &&Value| {
        let attributes = change["attributes"].as_array();
        let names = attributes
            .into_iter()
            .flatten()
            .map(|attribute| &attribute["name"]);
        change["action"] == "update"
            && names
                .into_iter()
                .all(|name| name == "alias" || name == "protocol")
    };
    let changes = plan.changes().iter().filter(|change| !only_marks(change));
    changes.map(Value::to_string).collect()
}

fn exported(host: &Host, arguments: &[&str]) -> String {
    let mut all = vec!["export"];
    all.extend(arguments);
    host.tunnelform(&all, "").ok().stdout
}

fn foreign_tunnels_are_taken_over() {
    let world = World::new();
    let host = world.lone();
    host.ip(FOREIGN);
    let before = host.seen();
    let topology = exported(&host, &[]);
    let plan = host
        .tunnelform(
            &["apply", "-", "--dry-run", "--adopt", "-o", "json"],
            &topology,
        )
        .ok()
        .plan();
    assert_eq!(beyond_marks(&plan), [""; 0], "{}", plan.told());
    assert_eq!(plan.moves().len(), 8, "{}", plan.told());
    host.apply_with(&topology, &["--adopt"]);
    host.settled(&topology);
    let mut after = host.seen();
    for link in after.links.iter_mut().filter_map(Value::as_object_mut) {
        link.remove("ifalias");
    }
    let unmarked = |routes: &[Value]| -> Vec<Value> {
        let mut routes = routes.to_vec();
        for route in routes.iter_mut().filter_map(Value::as_object_mut) {
            route.remove("protocol");
        }
        routes.sort_by_key(Value::to_string);
        routes
    };
    assert_eq!(after.links, before.links);
    assert_eq!(unmarked(&after.routes), unmarked(&before.routes));
}

/// What a topology has made is exported as a topology that has nothing to do.
fn what_an_owner_has() {
    let world = World::new();
    let host = world.lone();
    let topology = "\
name: hq
tunnels:
  tun1: {local: 192.168.10.2, remote: 192.168.20.2, ttl: 64, addresses: [10.10.100.1/24], routes: [10.244.2.0/24]}
addresses: {lo: [10.0.0.1/32]}
routes: [{to: 10.66.0.0/16, type: blackhole}, {to: 10.99.0.0/16, via: 192.168.10.9, device: eth0, metric: 50}]
";
    host.apply(topology);
    host.ip("route add 10.9.0.0/16 dev tun1 proto bird\nlink add foreign type ipip local 192.168.10.2 remote 192.168.20.9");
    let before = host.seen();
    let again = exported(&host, &["--owner", "hq"]);
    host.settled(&again);
    assert_same(&host.seen(), &before);
    let told = host.tunnelform(&["export"], "").ok();
    told.clone()
        .says("left out: tunnels of the topology hq: 1 in all");
    assert!(
        told.stdout.contains("foreign:") && !told.stdout.contains("tun1:"),
        "{told:?}"
    );
}

fn what_has_no_words_is_named() {
    let world = World::new();
    let host = world.lone();
    host.ip("link add t1 type ipip external
             link add t2 up type ipip local 192.168.10.2 remote 192.168.20.2
             addr add 10.1.0.1/24 dev t2 valid_lft 1000 preferred_lft 1000
             route add 10.9.0.0/16 dev t2 proto bird
             route add 10.8.0.0/16 dev t2 metric 5 rto_min 100ms");
    host.tunnelform(&["export"], "")
        .ok()
        .says("left out: tunnel t1: a topology has no `external` mode")
        .says("left out: address 10.1.0.1/24 on t2: it has a lifetime")
        .says("left out: route 10.9.0.0/16: protocol 12")
        .says("left out: route 10.8.0.0/16 metric 5: it has attributes");
}

/// Here and now, and elsewhere later: the same plan, whatever the host has.
fn a_captured_state_gives_the_same_plan() {
    let world = World::new();
    let topology = "\
name: hq
tunnels:
  tun1:
    local: 192.168.10.2
    remote: 192.168.20.2
    ttl: 64
    addresses: [10.10.100.1/24, 10.10.101.1/24]
    routes: [10.244.2.0/24, {to: 10.244.3.0/24, via: 10.10.100.2}]
  tun2: {local: 192.168.10.2, remote: 192.168.30.2, mtu: auto}
addresses: {lo: [10.0.0.1/32]}
routes: [{to: 10.66.0.0/16, type: blackhole}, {to: 10.99.0.0/16, via: 192.168.10.9, metric: 50}]
";
    let states = [
        "",
        FOREIGN,
        "link add tun1 type ipip local 192.168.10.2 remote 192.168.20.2",
        "link set eth0 mtu 9000\nroute add 192.168.30.0/24 via 192.168.10.9 mtu 1280",
        "link property add dev eth0 altname tun1",
        "route add 10.66.0.0/16 via 192.168.10.9\nroute append 10.66.0.0/16 via 192.168.10.8",
    ];
    let damages = [
        "link del tun1",
        "link set tun1 down",
        "addr del 10.10.100.1/24 dev tun1",
        "link set tun1 type ipip ttl 7",
    ];
    for (number, state) in states.into_iter().enumerate() {
        println!("{state}");
        let host = world.lone_as(&format!("s{number}"));
        if !state.is_empty() {
            host.ip(state);
        }
        same_plan_elsewhere(&host, topology);
    }
    for (number, damage) in damages.into_iter().enumerate() {
        println!("{damage}");
        let host = world.lone_as(&format!("d{number}"));
        host.apply(topology);
        host.ip(damage);
        same_plan_elsewhere(&host, topology);
    }
}

fn same_plan_elsewhere(host: &Host, topology: &str) {
    let here = host.tunnelform(&["apply", "-", "--dry-run", "-o", "json"], topology);
    for form in ["text", "json"] {
        let state = exported(host, &["--state", "-o", form]);
        let file = format!("/run/{}.yaml", host.netns);
        std::fs::write(&file, &state).expect("a file in /run");
        // Without a namespace: nothing is asked here.
        let elsewhere = run(
            TUNNELFORM,
            &["apply", "-", "--dry-run", "-o", "json", "--against", &file],
            topology,
        );
        assert_eq!(
            here.plan().0,
            elsewhere.plan().0,
            "{}\n{}",
            here.plan().told(),
            elsewhere.plan().told()
        );
        assert_eq!(here.code, elsewhere.code);
    }
}

/// A state is somebody's file: what is wrong in it is shown at its place, and nothing is planned.
fn a_captured_state_is_checked() {
    let world = World::new();
    let host = world.lone();
    let state = exported(&host, &["--state"]);
    let cases = [
        (
            state.replace("format_version: 1", "format_version: 2"),
            "expected 1, found 2",
        ),
        (
            state.replace("mtu: 1500", "mtu: much"),
            "expected a whole number from 0 to 4294967295, found \"much\"",
        ),
        (
            state.replace("marks_addresses", "remarks"),
            "unknown key \"remarks\"",
        ),
        ("[".repeat(1000), "nested more than 32 levels deep"),
        (String::new(), "the file holds no YAML document"),
    ];
    for (bad, message) in cases {
        let file = format!("/run/{}.yaml", host.netns);
        std::fs::write(&file, bad).expect("a file in /run");
        let plan = ["apply", "-", "--dry-run", "--against", &file];
        run(TUNNELFORM, &plan, "name: t").exits(1).says(message);
    }
}
