//! Saved plans: what was planned is done, that and nothing else; a host that isn't as it was refuses, and stays as it is.

use super::random::{self, Random, seed};
use super::world::{Host, Plan, Run, TUNNELFORM, World, assert_same, run, sorted, trials};

trials!(
    a_plan_is_carried_out_as_it_is,
    a_host_that_has_changed_refuses,
    what_the_plan_does_not_rest_on_may_change,
    what_is_done_already,
    another_host_refuses,
    another_namespace_refuses,
    a_node_is_known_by_its_address,
    adopted_and_replaced,
    destroying_is_planned_too,
    a_captured_state_is_as_good,
    a_trial_changes_nothing,
    nothing_is_done_without_the_right,
    random_plans,
);

const OLD: &str = "\
name: hq
tunnels:
  tun1: {local: 192.168.10.2, remote: 192.168.20.2, ttl: 64, addresses: [10.10.100.1/24], routes: [10.244.2.0/24]}
  gone: {local: 192.168.10.2, remote: 192.168.20.3}
";
const NEW: &str = "\
name: hq
tunnels:
  tun1: {local: 192.168.10.2, remote: 192.168.20.2, ttl: 32, addresses: [10.10.100.7/24], routes: [10.244.3.0/24]}
  tun2: {local: 192.168.10.2, remote: 192.168.20.9}
routes: [{to: 10.66.0.0/16, type: blackhole}]
";
const MOVES: [&str; 8] = [
    "update tunnel tun1",
    "create tunnel tun2",
    "delete tunnel gone",
    "create address 10.10.100.7/24 on tun1",
    "delete address 10.10.100.1/24 on tun1",
    "create route 10.244.3.0/24",
    "delete route 10.244.2.0/24",
    "create route 10.66.0.0/16",
];

/// Plans and saves, with more arguments; answers the file.
#[track_caller]
fn save(host: &Host, topology: &str, arguments: &[&str]) -> String {
    let file = format!("/run/{}.json", host.netns);
    let plan = [&["apply", "-", "--dry-run", "--out", &file], arguments].concat();
    host.tunnelform(&plan, topology).ok();
    file
}

fn carry_out(host: &Host, file: &str) -> Run {
    host.tunnelform(&["apply", file, "--output", "json"], "")
}

/// It's refused for these reasons, and the host stays as it is.
#[track_caller]
fn refused(host: &Host, file: &str, reasons: &[&str]) {
    let before = host.seen();
    for arguments in [
        &["apply", file][..],
        &["apply", file, "--dry-run"],
        &["apply", file, "-o", "json"],
    ] {
        let mut ran = host
            .tunnelform(arguments, "")
            .exits(1)
            .says("the plan is stale");
        for reason in reasons {
            ran = ran.says(reason);
        }
        assert_same(&host.seen(), &before);
    }
    let plan = carry_out(host, file).plan();
    let errors = plan.0["errors"].as_array().map_or(0, Vec::len);
    assert_eq!(errors, reasons.len(), "{}", plan.told());
    let statuses = plan.changes().iter().map(|change| &change["status"]);
    assert!(
        statuses.into_iter().all(|status| status == "pending"),
        "{}",
        plan.told()
    );
}

/// On a host that has the old topology, with the plan for the new one.
fn planned(world: &World, name: &str) -> (Host, String) {
    let host = world.lone_as(name);
    host.apply(OLD);
    let file = save(&host, NEW, &[]);
    (host, file)
}

fn a_plan_is_carried_out_as_it_is() {
    let world = World::new();
    let (host, file) = planned(&world, "a");
    let index = host.index("tun1");
    let done = carry_out(&host, &file).ok().plan();
    assert_eq!(done.moves(), sorted(&MOVES), "{}", done.told());
    assert_eq!(done.0["in_sync"], true);
    assert_eq!(host.index("tun1"), index);
    host.settled(NEW);

    // For people: the plan's own text, and what became of it.
    let (host, file) = planned(&world, "b");
    let shown = run(TUNNELFORM, &["show", &file], "").ok();
    let (_, text) = shown.stdout.split_once('\n').unwrap_or_default();
    let said = host.tunnelform(&["apply", &file], "").ok().stdout;
    assert_eq!(
        said,
        format!("{text}Done: 4 created, 1 changed, 0 replaced, 3 deleted.\n")
    );
    host.settled(NEW);
}

fn a_host_that_has_changed_refuses() {
    let world = World::new();
    let cases: [(&str, &[&str]); 9] = [
        (
            "link set tun1 type ipip ttl 7",
            &["tunnel tun1: ttl was 64, is 7"],
        ),
        (
            "link set tun1 down",
            &[
                "tunnel tun1: state was up, is down",
                "route 10.244.2.0/24: was to be deleted, and nothing is to be done now",
            ],
        ),
        (
            "link del gone",
            &["tunnel gone: was to be deleted, and nothing is to be done now"],
        ),
        (
            "link add tun2 type ipip local 192.168.10.2 remote 192.168.20.9",
            &["tunnel tun2: it's in the way now: it exists"],
        ),
        (
            "addr add 10.10.100.9/24 dev tun1",
            &["address 10.10.100.9/24 on tun1: nothing was to be done, and now it's to be deleted"],
        ),
        (
            "route add 10.244.3.0/24 dev tun1 proto bird",
            &["route 10.244.3.0/24: it's in the way now: a route of protocol 12"],
        ),
        (
            "link set eth0 mtu 1400",
            &[
                "tunnel tun1: mtu was to become 1480, would become 1380",
                "tunnel tun2: mtu was to become 1480, would become 1380",
                "way to 192.168.20.2: was dev eth0, mtu 1500, is dev eth0, mtu 1400",
                "way to 192.168.20.9: was dev eth0, mtu 1500, is dev eth0, mtu 1400",
            ],
        ),
        (
            "link add eth1 up type dummy\nroute add 192.168.20.0/24 dev eth1",
            &[
                "way to 192.168.20.2: was dev eth0, mtu 1500, is dev eth1, mtu 1500",
                "way to 192.168.20.9: was dev eth0, mtu 1500, is dev eth1, mtu 1500",
            ],
        ),
        (
            "addr del 192.168.10.2/24 dev eth0\naddr add 192.168.10.2/24 dev lo",
            &[
                "local 192.168.10.2: was on eth0, is on lo",
                "tunnel tun1: mtu was to become 1480",
                "tunnel tun2: mtu was to become 1480",
                "way to 192.168.20.2",
                "way to 192.168.20.9",
            ],
        ),
    ];
    for (number, (meanwhile, reasons)) in cases.into_iter().enumerate() {
        println!("{meanwhile}");
        let (host, file) = planned(&world, &format!("h{number}"));
        host.ip(meanwhile);
        refused(&host, &file, reasons);
    }
}

fn what_the_plan_does_not_rest_on_may_change() {
    let world = World::new();
    let (host, file) = planned(&world, "h");
    host.ip("link add eth7 up type dummy
             addr add 10.7.0.1/24 dev eth7
             route add 10.8.0.0/16 via 10.7.0.9
             link add other type ipip local 192.168.10.2 remote 192.168.20.77");
    let foreign = host.seen().without(&["tun1", "tun2", "gone"], "117");
    let done = carry_out(&host, &file).ok().plan();
    assert_eq!(done.moves(), sorted(&MOVES), "{}", done.told());
    assert_same(
        &host.seen().without(&["tun1", "tun2", "gone"], "117"),
        &foreign,
    );
}

/// All of it: that's no error. A part of it: that's another plan.
fn what_is_done_already() {
    let world = World::new();
    let (host, file) = planned(&world, "h");
    carry_out(&host, &file).ok();
    let there = host.seen();
    for arguments in [
        &["apply", &file, "--detailed-exitcode"][..],
        &["apply", &file, "--dry-run"],
    ] {
        host.tunnelform(arguments, "")
            .ok()
            .says("Nothing to do: the host is already as planned.");
    }
    let again = carry_out(&host, &file).ok().plan();
    assert_eq!((again.moves(), &again.0["in_sync"]), (vec![], &true.into()));
    assert_same(&host.seen(), &there);
    host.ip("link del tun2");
    refused(
        &host,
        &file,
        &[
            "tunnel tun1: was to be changed, and nothing is to be done now",
            "tunnel gone: was to be deleted, and nothing is to be done now",
            "address 10.10.100.1/24 on tun1: was to be deleted",
            "address 10.10.100.7/24 on tun1: was to be created",
            "route 10.66.0.0/16: was to be created",
            "route 10.244.2.0/24: was to be deleted",
            "route 10.244.3.0/24: was to be created",
        ],
    );
}

/// The same host under another name.
fn another_host_refuses() {
    let world = World::new();
    let (host, file) = planned(&world, "h");
    let before = host.seen();
    let script = format!(
        "hostname elsewhere && exec {} apply {file} --netns {}",
        TUNNELFORM, host.netns
    );
    run("unshare", &["--uts", "sh", "-c", &script], "")
        .exits(1)
        .says("the plan was made for the host ")
        .says(", and this is elsewhere");
    assert_same(&host.seen(), &before);
}

fn another_namespace_refuses() {
    let world = World::new();
    let (host, file) = planned(&world, "one");
    let other = world.lone_as("other");
    other.apply(OLD);
    let before = other.seen();
    other
        .tunnelform(&["apply", &file], "")
        .exits(1)
        .says(&format!(
            "the plan was made with --netns {}, and this is with",
            host.netns
        ));
    assert_same(&other.seen(), &before);
    carry_out(&host, &file).ok();
}

const FLEET: &str = "\
name: pods
nodes:
  node-1: {underlay: 192.168.10.2, subnets: [10.244.1.0/24]}
  node-2: {underlay: 192.168.10.3, subnets: [10.244.2.0/24]}
meshes:
  pods: {interface: pods0}
";

/// Made anywhere, carried out on the node: the other node refuses it.
fn a_node_is_known_by_its_address() {
    let world = World::new();
    let (one, two) = (world.lone_as("one"), world.lone_as("two"));
    two.ip("addr flush dev eth0\naddr add 192.168.10.3/24 dev eth0");
    let directory = format!("/run/{}", one.netns);
    let all = [
        "apply",
        "-",
        "--dry-run",
        "--against",
        "empty",
        "--all-nodes",
        "--out",
        &directory,
    ];
    run(TUNNELFORM, &all, FLEET).ok();
    let plan = |node: &str| format!("{directory}/{node}.json");
    let before = two.seen();
    carry_out(&two, &plan("node-1"))
        .exits(1)
        .says("hasn't that node's underlay address 192.168.10.2");
    assert_same(&two.seen(), &before);
    for (host, node) in [(&one, "node-1"), (&two, "node-2")] {
        let done = carry_out(host, &plan(node)).ok().plan();
        assert_eq!(done.moves().len(), 4, "{}", done.told());
        host.settled(FLEET);
    }
}

fn adopted_and_replaced() {
    let world = World::new();
    let host = world.lone();
    host.ip(
        "link add tun1 type ipip local 192.168.10.2 remote 192.168.20.2 mode ipip
             link set tun1 up
             route add 10.66.0.0/16 via 192.168.10.9
             link add tun2 type ipip local 192.168.10.2 remote 192.168.20.9 mode any
             link set tun2 up
             route add 10.77.0.0/16 dev tun2 proto bird",
    );
    let topology = "\
name: hq
tunnels:
  tun1: {local: 192.168.10.2, remote: 192.168.20.2, ttl: 9}
  tun2: {local: 192.168.10.2, remote: 192.168.20.9}
routes: [{to: 10.66.0.0/16, type: blackhole}]
";
    let file = save(&host, topology, &["--adopt"]);
    host.tunnelform(&["apply", &file, "--adopt"], "")
        .exits(1)
        .says("--adopt goes with a topology");
    let done = carry_out(&host, &file).ok().plan();
    let moves = [
        "update tunnel tun1",
        "replace tunnel tun2",
        "update route 10.66.0.0/16",
        "restore route 10.77.0.0/16",
    ];
    assert_eq!(done.moves(), sorted(&moves), "{}", done.told());
    host.settled(topology);
    assert_eq!(host.seen().route("10.77.0.0/16")["protocol"], "bird");

    // What goes along with a replacement is part of the plan.
    let multipoint = topology.replace(", remote: 192.168.20.9", "");
    let file = save(&host, &multipoint, &[]);
    host.ip("route add 10.78.0.0/16 dev tun2 proto bird");
    refused(
        &host,
        &file,
        &["route 10.78.0.0/16: nothing was to be done, and now it's to be put back"],
    );
}

fn destroying_is_planned_too() {
    let world = World::new();
    for (name, which, stdin) in [("file", &["-"][..], OLD), ("owner", &["--owner", "hq"], "")] {
        let host = world.lone_as(name);
        let bare = host.seen();
        host.apply(OLD);
        let file = format!("/run/{}.json", host.netns);
        let plan = [&["destroy", "--dry-run", "--out", &file], which].concat();
        host.tunnelform(&plan, stdin).ok();
        host.ip("link set tun1 type ipip ttl 7");
        refused(&host, &file, &["tunnel tun1: ttl was 64, is 7"]);
        host.ip("link set tun1 type ipip ttl 64");
        let done: Plan = carry_out(&host, &file).ok().plan();
        assert_eq!(done.moves(), ["delete tunnel gone", "delete tunnel tun1"]);
        assert_same(&host.seen(), &bare);
        carry_out(&host, &file).ok();
    }
}

/// The state captured here, the plan made elsewhere, carried out here.
fn a_captured_state_is_as_good() {
    let world = World::new();
    let host = world.lone();
    host.apply(OLD);
    let state = format!("/run/{}.yaml", host.netns);
    let captured = host.tunnelform(&["export", "--state"], "").ok().stdout;
    std::fs::write(&state, captured).expect("a file in /run");
    let file = format!("/run/{}.json", host.netns);
    let plan = [
        "apply",
        "-",
        "--dry-run",
        "--against",
        &state,
        "--out",
        &file,
    ];
    run(TUNNELFORM, &plan, NEW).ok();
    host.ip("link set tun1 type ipip ttl 7");
    refused(&host, &file, &["tunnel tun1: ttl was 64, is 7"]);
    host.ip("link set tun1 type ipip ttl 64");
    let done = carry_out(&host, &file).ok().plan();
    assert_eq!(done.moves(), sorted(&MOVES), "{}", done.told());
    host.settled(NEW);
}

fn a_trial_changes_nothing() {
    let world = World::new();
    let (host, file) = planned(&world, "h");
    let before = host.seen();
    let trial = [
        "apply",
        &file,
        "--dry-run",
        "--detailed-exitcode",
        "--output",
        "json",
    ];
    let plan = host.tunnelform(&trial, "").exits(2).plan();
    assert_eq!(plan.moves(), sorted(&MOVES));
    assert_same(&host.seen(), &before);
}

fn nothing_is_done_without_the_right() {
    let world = World::new();
    let (host, file) = planned(&world, "h");
    let before = host.seen();
    let bounded = [
        "--bounding-set=-net_admin",
        TUNNELFORM,
        "apply",
        &file,
        "--netns",
        &host.netns,
    ];
    run("setpriv", &bounded, "")
        .exits(1)
        .says("needs CAP_NET_ADMIN");
    assert_same(&host.seen(), &before);
}

/// Whatever is planned is what is done, and is enough.
fn random_plans() {
    const CASES: u64 = 25;
    let mut random = Random(seed());
    let world = World::new();
    let host = random::ready(&world);
    let foreign = host.seen();
    let mut changes = 0;
    for case in 0..CASES {
        random::damage(&host, &mut random);
        let topology = random::topology(&mut random);
        println!("case {case}:\n{topology}");
        let plan = host.plan(&topology).moves();
        let file = save(&host, &topology, &[]);
        let done = carry_out(&host, &file).ok().plan();
        assert_eq!(done.moves(), plan, "{}", done.told());
        changes += plan.len();
        host.settled(&topology);
        random::same(&foreign, &host.seen());
    }
    assert!(changes > 60, "only {changes} changes in {CASES} cases");
}
