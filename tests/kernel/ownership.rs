//! Whose an object is: what isn't ours is never touched, what is in the way is named, and `--adopt` takes it over.

use crate::world::{Host, Seen, World, assert_same, trials};

trials![
    foreign_objects_stay,
    conflicts,
    conflicts_that_cannot_be_adopted,
    a_second_route_of_the_same_key,
    a_second_route_becomes_the_wanted_one,
    no_prune,
    two_topologies,
    two_topologies_outside_tunnels,
    destroy_by_owner,
    destroy_takes_only_what_is_marked,
    alternative_name,
];

const FOREIGN: &str = "
    link add fore type ipip local 192.168.10.2 remote 192.168.99.1 ttl 9
    link set fore up alias mine
    addr add 10.99.0.1/24 dev fore
    addr add 10.98.0.1/32 dev lo
    addr add 10.97.0.1/24 dev eth0
    addr add 10.97.0.2/24 dev eth0
    addr add fd97::1/64 dev eth0 nodad
    route add 10.96.0.0/16 via 192.168.10.9
    route add 10.95.0.0/16 dev fore
    route add blackhole 10.94.0.0/16 proto bird
    route add 10.93.0.0/16 via 192.168.10.9 table 100
    route add fd93::/48 via fd97::9 table 100 proto ra";

/// A route of another routing daemon, through our tunnel.
const THROUGH_OURS: &str = "route add 10.92.0.0/16 dev tun1 proto bird
                            route add 10.91.0.0/16 via 10.10.100.9 proto 186 table 100";

fn hq(tunnel: &str, rest: &str) -> String {
    format!(
        "version: 1\nname: hq\n{rest}\ntunnels:\n  tun1: {{local: 192.168.10.2, remote: 192.168.20.2, {tunnel}}}\n"
    )
}

const NOTHING: &str = "version: 1\nname: hq\n";

fn foreign(host: &Host) -> Seen {
    let mut seen = host.seen().without(&["tun1", "tun2"], "117");
    let ours = ["10.7.0.1", "10.0.0.1", "fd07::1"];
    seen.addresses
        .retain(|a| !ours.iter().any(|ip| a["local"] == *ip));
    seen.routes.retain(|r| {
        !ours.iter().any(|ip| r["prefsrc"] == *ip || r["dst"] == *ip) && r["dst"] != "fd07::/64"
    });
    seen
}

/// Foreign tunnels, addresses and routes — on `lo`, on a device, in a table that is shared, through our own tunnel —
/// stay as they are through create, change and destroy.
fn foreign_objects_stay() {
    let world = World::new();
    let host = world.lone();
    host.ip(FOREIGN);
    host.apply(&hq("addresses: [10.10.100.1/24]", ""));
    host.ip(THROUGH_OURS);
    let before = foreign(&host);
    let outside = "addresses: {eth0: [10.7.0.1/24, 'fd07::1/64'], lo: [10.0.0.1/32]}\n\
                   routes: [{to: 10.66.0.0/16, type: blackhole, table: 100}, {to: 10.67.0.0/16, via: 192.168.10.9, table: 100}]";
    for file in [
        hq("addresses: [10.10.100.1/24], routes: [{to: 10.244.0.0/16, table: 100}]", outside),
        hq("ttl: 64, addresses: [10.10.100.1/24, 10.10.101.1/24], routes: [10.245.0.0/16]", outside),
        hq("ttl: 32, mtu: 1300, addresses: [10.10.100.1/24]", ""),
        // A replacement: what the kernel drops with the device is put back.
        "version: 1\nname: hq\ntunnels:\n  tun1: {local: 192.168.10.2, addresses: [10.10.100.1/24]}\n".to_owned(),
    ] {
        host.apply(&file);
        host.settled(&file);
        assert_same(&foreign(&host), &before);
    }
    host.tunnelform(&["destroy", "-"], &hq("", "")).ok();
    let mut before = before;
    before.routes.retain(|route| route["dev"] != "tun1");
    assert_same(&foreign(&host), &before);
    assert_eq!(
        host.seen().tunnels().into_iter().collect::<Vec<_>>(),
        ["fore"]
    );
}

/// What stands in the way: how it came, the file that wants its place, its name, and what is left when it's taken over
/// and destroyed.
struct Obstacle {
    script: &'static str,
    file: &'static str,
    object: &'static str,
}

const TUNNEL: &str = "tunnels: {tun1: {local: 192.168.10.2, remote: 192.168.20.2, ttl: 64}}";

/// An object of ours that exists without our mark is a conflict: named, exit code 1, and nothing at all is changed.
/// `--adopt` takes it over in place; afterwards it's ours to change and to delete.
fn conflicts() {
    let obstacles = [
        Obstacle {
            script: "link add tun1 type ipip local 192.168.10.2 remote 192.168.20.2 mode ipip",
            file: TUNNEL,
            object: "tunnel tun1",
        },
        Obstacle {
            script: "link add tun1 type ipip local 192.168.10.2 remote 192.168.77.7 mode ipip\nlink set tun1 alias tunnelform:other",
            file: TUNNEL,
            object: "tunnel tun1",
        },
        Obstacle {
            script: "addr add 10.7.0.1/24 dev eth0",
            file: "addresses: {eth0: [10.7.0.1/24]}",
            object: "address 10.7.0.1/24 on eth0",
        },
        Obstacle {
            script: "addr add 10.0.0.1/32 dev lo",
            file: "addresses: {lo: [{address: 10.0.0.1/32, metric: 7}]}",
            object: "address 10.0.0.1/32 on lo",
        },
        Obstacle {
            script: "addr add fd07::1/64 dev eth0 nodad",
            file: "addresses: {eth0: ['fd07::1/64']}",
            object: "address fd07::1 on eth0",
        },
        Obstacle {
            script: "route add 10.8.0.0/16 via 192.168.10.9",
            file: "routes: [{to: 10.8.0.0/16, via: 192.168.10.7, device: eth0}]",
            object: "route 10.8.0.0/16",
        },
        Obstacle {
            script: "route add 10.8.0.0/16 via 192.168.10.9 table 100 metric 5 proto bird",
            file: "routes: [{to: 10.8.0.0/16, via: 192.168.10.9, device: eth0, table: 100, metric: 5}]",
            object: "route 10.8.0.0/16 metric 5 table 100",
        },
        Obstacle {
            script: "route add fd08::/48 dev eth0",
            file: "routes: [{to: 'fd08::/48', device: eth0}]",
            object: "route fd08::/48",
        },
        Obstacle {
            script: "route add blackhole fd08::/48",
            file: "routes: [{to: 'fd08::/48', device: eth0}]",
            object: "route fd08::/48",
        },
    ];
    let world = World::new();
    let host = world.lone();
    let empty = host.seen();
    for Obstacle {
        script,
        file,
        object,
    } in obstacles
    {
        let file = format!("version: 1\nname: hq\n{file}\n");
        let with_more = file.clone()
            + if file.contains("routes:") {
                "addresses: {lo: [10.0.0.9/32]}\n"
            } else {
                "routes: [{to: 10.66.0.0/16, type: blackhole}]\n"
            };
        host.ip(script);
        let before = host.seen();
        for dry in [&["--dry-run"][..], &[]] {
            let refused = host.try_apply(&with_more, dry).exits(1).says(object);
            assert_eq!(refused.plan().conflicts(), [object]);
            assert_same(&host.seen(), &before);
        }
        host.apply_with(&file, &["--adopt"]);
        host.settled(&file);
        let after = host.seen();
        assert_eq!(
            after.find_link("tun1").map(|l| &l["ifindex"]),
            before.find_link("tun1").map(|l| &l["ifindex"])
        );
        host.tunnelform(&["destroy", "-"], &file).ok();
        let mut left = host.seen();
        left.links.retain(|link| link["ifname"] != "tunl0");
        let mut empty = empty.clone();
        empty.links.retain(|link| link["ifname"] != "tunl0");
        assert_same(&left, &empty);
    }
}

/// A device of another kind with our tunnel's name, and a foreign tunnel with our tunnel's endpoints: nobody can take
/// them over, so `--adopt` doesn't either.
fn conflicts_that_cannot_be_adopted() {
    let world = World::new();
    let host = world.lone();
    let file = format!(
        "version: 1\nname: hq\n{TUNNEL}\nroutes: [{{to: 10.66.0.0/16, type: blackhole}}]\n"
    );
    for (script, name) in [
        ("link add tun1 type dummy", "tun1"),
        (
            "link add other type ipip local 192.168.10.2 remote 192.168.20.2",
            "other",
        ),
    ] {
        host.ip(script);
        let before = host.seen();
        for arguments in [&[][..], &["--adopt"], &["--dry-run", "--adopt"]] {
            let refused = host.try_apply(&file, arguments).exits(1).says(name);
            assert_eq!(refused.plan().conflicts(), ["tunnel tun1"]);
            assert_same(&host.seen(), &before);
        }
        host.ip(&format!("link del {name}"));
    }
}

/// `ip route append` makes a second route of the same key: a foreign one beside ours must neither go nor change.
fn a_second_route_of_the_same_key() {
    let world = World::new();
    let host = world.lone();
    let file = |mtu: u32| {
        format!(
            "{NOTHING}routes: [{{to: 10.8.0.0/16, via: 192.168.10.7, device: eth0, mtu: {mtu}}}]\n"
        )
    };
    host.apply(&file(1400));
    host.ip("route append 10.8.0.0/16 via 192.168.10.9 proto bird");
    let foreign = |seen: &Seen| {
        seen.routes_of("bird")
            .into_iter()
            .cloned()
            .collect::<Vec<_>>()
    };
    let before = foreign(&host.seen());
    host.settled(&file(1400));
    let changed = host.try_apply(&file(1300), &[]);
    assert_eq!(foreign(&host.seen()), before, "{}", changed.stdout);
    host.tunnelform(&["destroy", "-"], NOTHING).ok();
    assert_eq!(foreign(&host.seen()), before);
    assert!(host.seen().routes_of("117").is_empty());
}

/// The kernel refuses to make a route like one that stands behind it, so that one goes first, pruning or not.
fn a_second_route_becomes_the_wanted_one() {
    let world = World::new();
    let host = world.lone();
    let tunnels = |of: u8| {
        let route = |tunnel| if of == tunnel { "10.8.0.0/16" } else { "" };
        let tunnel = |n| {
            let ends = format!("local: 192.168.10.2, remote: 192.168.20.{n}");
            format!("tun{n}: {{{ends}, routes: [{}]}}", route(n))
        };
        format!("{NOTHING}tunnels: {{{}, {}}}\n", tunnel(1), tunnel(4))
    };
    for options in [&[][..], &["--no-prune"]] {
        host.apply(&tunnels(1));
        host.ip("route append 10.8.0.0/16 dev tun4 proto 117");
        assert_eq!(host.seen().routes_of("117").len(), 2);
        host.apply_with(&tunnels(4), options);
        let seen = host.seen();
        let left: Vec<_> = seen.routes_of("117").iter().map(|r| &r["dev"]).collect();
        assert_eq!(left, ["tun4"], "{options:?}");
    }
}

/// `--no-prune` leaves alone what is ours and no longer in the file; without it, the same file takes it away.
fn no_prune() {
    let world = World::new();
    let host = world.lone();
    host.apply(&hq(
        "addresses: [10.10.100.1/24, 10.10.101.1/24], routes: [10.244.0.0/16]",
        "routes: [{to: 10.66.0.0/16, type: blackhole}]",
    ));
    let before = host.seen();
    let small =
        format!("{NOTHING}tunnels: {{tun2: {{local: 192.168.10.2, remote: 192.168.20.3}}}}\n");
    let plan = host.apply_with(&small, &["--no-prune"]);
    assert_eq!(plan.moves(), ["create tunnel tun2"]);
    assert_same(
        &host.seen().without(&["tun2"], ""),
        &before.without(&["tun2"], ""),
    );
    let plan = host.apply(&small);
    assert_eq!(
        plan.moves(),
        ["delete route 10.66.0.0/16", "delete tunnel tun1"]
    );
}

fn branch(body: &str) -> String {
    format!("version: 1\nname: branch\n{body}\n")
}

/// Two topologies on one host: each changes and prunes its own objects only.
fn two_topologies() {
    let world = World::new();
    let host = world.lone();
    let ours = hq("addresses: [10.10.100.1/24], routes: [10.244.0.0/16]", "");
    let theirs = branch(
        "tunnels: {tun2: {local: 192.168.10.2, remote: 192.168.20.3, addresses: [10.10.101.1/24], routes: [10.245.0.0/16]}}",
    );
    host.apply(&ours);
    host.apply(&theirs);
    host.settled(&ours);
    let mine = host.seen();
    host.apply(&branch(""));
    assert_same(
        &host.seen().without(&[], ""),
        &mine.without(&["tun2"], "").not_through("tun2"),
    );
    host.apply(&theirs);
    host.apply(NOTHING);
    host.settled(&theirs);
    assert_eq!(
        host.seen().tunnels().into_iter().collect::<Vec<_>>(),
        ["tun2"]
    );
    // A tunnel of theirs is in the way of ours.
    host.try_apply(
        &format!("{NOTHING}tunnels: {{tun2: {{local: 192.168.10.2, remote: 192.168.20.3}}}}\n"),
        &[],
    )
    .exits(1)
    .says("branch");
    host.settled(&theirs);
    // So is a route through it.
    host.try_apply(
        &format!("{NOTHING}routes: [{{to: 10.245.0.0/16, type: blackhole}}]\n"),
        &[],
    )
    .exits(1)
    .says("route 10.245.0.0/16");
    host.settled(&theirs);
}

/// Two topologies that both want objects outside tunnels can't tell whose is whose by one `route_protocol`: an error
/// that says so. With two they live side by side.
fn two_topologies_outside_tunnels() {
    let world = World::new();
    let host = world.lone();
    let ours = hq(
        "",
        "routes: [{to: 10.66.0.0/16, type: blackhole}]\naddresses: {lo: [10.0.0.1/32]}",
    );
    let theirs = |protocol: u8| {
        branch(&format!(
            "route_protocol: {protocol}\ntunnels: {{tun2: {{local: 192.168.10.2, remote: 192.168.20.3}}}}\n\
             routes: [{{to: 10.67.0.0/16, type: blackhole}}]\naddresses: {{lo: [10.0.0.2/32]}}"
        ))
    };
    host.apply(&ours);
    let before = host.seen();
    host.try_apply(&theirs(117), &[])
        .exits(1)
        .says("route_protocol")
        .says("route 10.66.0.0/16");
    assert_same(&host.seen(), &before);
    host.apply(&theirs(118));
    host.settled(&ours);
    host.settled(&theirs(118));
    host.tunnelform(&["destroy", "-"], &theirs(118)).ok();
    assert_same(&host.seen(), &before);
}

/// `destroy --owner` needs no file: the owner's tunnels go with all that is on them, and what has the mark outside.
fn destroy_by_owner() {
    let world = World::new();
    let host = world.lone();
    host.ip("link add tunl0x type dummy");
    host.ip("link del tunl0x");
    host.apply(&hq("", ""));
    host.tunnelform(&["destroy", "--owner", "hq"], "").ok();
    let empty = host.seen();
    assert!(empty.tunnels().is_empty());
    host.ip(FOREIGN);
    let before = host.seen();
    host.apply(&hq(
        "addresses: [10.10.100.1/24], routes: [10.244.0.0/16]",
        "routes: [{to: 10.66.0.0/16, type: blackhole}]\naddresses: {lo: [10.0.0.1/32]}",
    ));
    host.tunnelform(&["destroy", "--owner", "someone"], "").ok();
    assert_eq!(host.seen().link("tun1")["ifalias"], "tunnelform:hq");
    let dry = host.tunnelform(
        &[
            "destroy",
            "--owner",
            "hq",
            "--dry-run",
            "--detailed-exitcode",
        ],
        "",
    );
    assert_eq!(dry.code, 2);
    host.tunnelform(&["destroy", "--owner", "hq"], "").ok();
    assert_same(&host.seen(), &before);
    host.tunnelform(&["destroy", "--owner", "hq", "--detailed-exitcode"], "")
        .exits(0);
}

/// `destroy FILE` removes what is marked, and an unmarked object that the file names is still not ours.
fn destroy_takes_only_what_is_marked() {
    let world = World::new();
    let host = world.lone();
    host.ip(
        "link add tun1 type ipip local 192.168.10.2 remote 192.168.20.2
             addr add 10.0.0.1/32 dev lo
             route add blackhole 10.66.0.0/16",
    );
    let before = host.seen();
    let file = hq(
        "addresses: [10.10.100.1/24]",
        "routes: [{to: 10.66.0.0/16, type: blackhole}]\naddresses: {lo: [10.0.0.1/32]}",
    );
    host.tunnelform(&["destroy", "-"], &file).ok();
    assert_same(&host.seen(), &before);
}

/// A tunnel can't have a name by which the kernel knows another device; that device isn't marked as ours.
fn alternative_name() {
    let world = World::new();
    let host = world.lone();
    host.ip("link property add dev eth0 altname tun1");
    let before = host.seen();
    let topology = "name: hq\ntunnels: {tun1: {local: 192.168.10.2, remote: 192.168.20.2}}";
    host.try_apply(topology, &[])
        .exits(1)
        .says("it is an alternative name of the device eth0");
    assert_eq!(host.seen().link("eth0"), before.link("eth0"));
}
