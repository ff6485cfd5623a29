//! A tunnel that must be replaced, and what stands in for it: what that spares the packets, measured beside deleting and
//! creating in the same run.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::seed::Pair;
use crate::traffic::Flood;
use crate::watch::Daemon;
use crate::world::{Host, World, assert_same, trials};

trials![
    fewer_packets_are_lost,
    what_was_external,
    refused_before_anything_goes,
    kept_by_its_index,
    no_drift_to_the_daemon,
    status_counts_what_is_desired,
];

/// What would be called as the stand-in: so nothing stands in, and the tunnel is deleted and created.
const IN_THE_WAY: &str = "link add tun1~ type dummy";
const OUT_OF_THE_WAY: &str = "link del tun1~";

const UNICAST: &str = "\
version: 1
name: left
tunnels:
  tun1: {local: 192.168.10.2, remote: 192.168.20.2, ttl: 64, addresses: [10.10.100.1/24, 'fd00::1/64'],
    routes: [{to: 10.244.2.0/24, via: 192.168.20.2, onlink: true}]}
";

fn multipoint() -> String {
    UNICAST.replace("remote: 192.168.20.2", "remote: any")
}

/// Packets of a stream while a tunnel is replaced, and replaced again.
#[derive(Default)]
struct Tally {
    replacements: u32,
    sent: u32,
    lost: u32,
    time: Duration,
}

impl Tally {
    fn count(&mut self, host: &Host, replacements: impl FnOnce() -> u32) {
        let flood = Flood::start_every(host, "10.244.2.1", "0.0007");
        let start = Instant::now();
        self.replacements += replacements();
        self.time += start.elapsed();
        let (sent, answered) = flood.end();
        self.sent += sent;
        self.lost += sent - answered;
    }

    fn tell(&self, what: &str) {
        let each = f64::from(self.lost) / f64::from(self.replacements);
        let rate = f64::from(self.sent) / self.time.as_secs_f64();
        println!(
            "{what}: {} of {} packets lost in {} replacements, {each:.2} each, at {rate:.0} a second",
            self.lost, self.sent, self.replacements
        );
    }

    /// Not worse, beyond what comes by chance: twice the deviation of a count.
    #[track_caller]
    fn is_no_worse_than(&self, other: &Self) {
        let by_chance = 2.0 * f64::from(self.lost + other.lost).sqrt();
        let more = f64::from(self.lost) - f64::from(other.lost);
        assert!(more <= by_chance, "{} lost, and {}", self.lost, other.lost);
    }
}

/// Applies what replaces the tunnel, by way of a stand-in or without.
#[track_caller]
fn replace(host: &Host, topology: &str, arguments: &[&str], stand_in: bool) {
    let plan = host.apply_with(topology, arguments);
    let change = plan.change("tunnel", "tun1");
    assert_eq!(change["action"], "replace");
    let expected = if stand_in {
        Value::from("tun1~")
    } else {
        Value::Null
    };
    assert_eq!(change["stand_in"], expected, "{}", plan.told());
    assert_ne!(change["effect"], "none");
}

/// Multipoint to unicast and back, each way in turn.
fn fewer_packets_are_lost() {
    const ROUNDS: u32 = 4;
    const TURNS: u32 = 5;
    let pair = Pair::connected();
    pair.right.ip("addr add 10.244.2.1/24 dev lo");
    pair.left.apply(UNICAST);
    let left = &pair.left;
    let index = left.index("tun1");
    let turns = |stand_in: bool| {
        for _ in 0..TURNS {
            replace(left, &multipoint(), &[], stand_in);
            replace(left, UNICAST, &[], stand_in);
        }
        2 * TURNS
    };
    let (mut with, mut without) = (Tally::default(), Tally::default());
    for _ in 0..ROUNDS {
        with.count(left, || turns(true));
        left.ip(IN_THE_WAY);
        without.count(left, || turns(false));
        left.ip(OUT_OF_THE_WAY);
    }
    with.tell("with a stand-in");
    without.tell("deleted and created");
    with.is_no_worse_than(&without);
    assert_eq!(left.index("tun1"), index);
}

/// A tunnel in external mode, made by hand, is taken over as one with a far end. Nothing stands in for the way back: the
/// kernel has one external tunnel.
fn what_was_external() {
    const TURNS: u32 = 15;
    let pair = Pair::connected();
    pair.right.ip("addr add 10.244.2.1/24 dev lo");
    let left = &pair.left;
    let by_hand = || {
        left.ip("link del tun1
            link add tun1 type ipip external
            link set tun1 up
            addr add 10.10.100.1/24 dev tun1
            route add 10.244.2.0/24 encap ip dst 192.168.20.2 src 192.168.10.2 ttl 64 dev tun1");
    };
    let (mut with, mut without) = (Tally::default(), Tally::default());
    for _ in 0..TURNS {
        by_hand();
        with.count(left, || {
            replace(left, UNICAST, &["--adopt"], true);
            1
        });
        by_hand();
        left.ip(IN_THE_WAY);
        without.count(left, || {
            replace(left, UNICAST, &["--adopt"], false);
            1
        });
        left.ip(OUT_OF_THE_WAY);
    }
    with.tell("external to unicast with a stand-in");
    without.tell("external to unicast, deleted and created");
    with.is_no_worse_than(&without);
    by_hand();
    // Its encapsulation couldn't be put back.
    left.ip("route del 10.244.2.0/24");
    let external = left.seen();
    let run = left.try_apply(UNICAST, &["--adopt", "--confirm-within", "1h"]);
    run.ok();
    left.tunnelform(&["rollback"], "").ok();
    let again = left.seen();
    assert_eq!(again.tunnel("tun1"), external.tunnel("tun1"));
    assert_eq!(left.seen().tunnels().len(), 1);
}

/// What the kernel refuses the stand-in is refused while the tunnel is there still: nothing was deleted.
fn refused_before_anything_goes() {
    let world = World::new();
    let host = world.lone();
    host.apply(UNICAST);
    host.ip("route add 10.97.1.0/24 dev tun1 proto bird");
    let before = host.seen();
    // No device that is made from now on has IPv6, which nobody could know.
    host.sysctl("ipv6/conf/default/disable_ipv6", "1");
    let run = host.try_apply(&multipoint(), &[]).exits(1);
    run.says("address fd00::1/64 on tun1: ")
        .says("the host is as before");
    assert_same(&host.seen(), &before);
    host.sysctl("ipv6/conf/default/disable_ipv6", "0");
    host.apply(&multipoint());
    host.settled(&multipoint());
}

/// The tunnel has its ifindex again, and nothing is left of what stood in, whoever had routes over it.
fn kept_by_its_index() {
    let world = World::new();
    let host = world.lone();
    host.apply(UNICAST);
    host.ip("route add 10.97.1.0/24 dev tun1 proto bird
             route add 10.97.2.0/24 proto bird nexthop dev tun1 weight 2 nexthop via 192.168.10.9 weight 3
             route add 10.97.3.0/24 dev tun1 src 10.10.100.1 table 100 proto bird
             route add fd97::/64 dev tun1 src fd00::1 proto bird");
    let without_tunnel = |host: &Host| {
        let mut seen = host.seen();
        seen.links.retain(|link| link["ifname"] != "tun1");
        seen.routes.sort_by_key(Value::to_string);
        seen
    };
    let (before, index) = (without_tunnel(&host), host.index("tun1"));
    for file in [&multipoint(), UNICAST] {
        replace(&host, file, &[], true);
        host.settled(file);
        assert_same(&without_tunnel(&host), &before);
        assert_eq!(host.index("tun1"), index);
    }
    // A route that can't be led over another device as it is: the old way.
    host.ip("route add 10.97.4.0/24 dev tun1 proto bird realms 7");
    replace(&host, &multipoint(), &[], false);
    host.ip("route del 10.97.4.0/24");
    assert_same(&without_tunnel(&host), &before);
}

/// The daemon's own comings and goings are no news to it.
fn no_drift_to_the_daemon() {
    let world = World::new();
    let host = world.lone();
    let mut daemon = Daemon::start(&host, UNICAST);
    daemon.says("pass: 4 created");
    for file in [&multipoint(), UNICAST] {
        daemon.write(file);
        daemon.says("pass: 0 created, 0 changed, 1 replaced");
        daemon.is_quiet(Duration::from_millis(700));
        host.settled(file);
    }
}

/// What is put back is as it should be, and others' routes aren't the topology's.
fn status_counts_what_is_desired() {
    let world = World::new();
    let host = world.lone();
    host.apply(UNICAST);
    host.ip("route add 10.9.0.0/16 dev tun1 proto bird");
    let told = host.status(&multipoint());
    let tunnel = &told["tunnels"][0];
    assert_eq!(tunnel["state"], "drifted", "{told:#}");
    for (objects, count) in [("addresses", 2), ("routes", 1)] {
        let tally = serde_json::json!({"in_sync": count, "desired": count});
        assert_eq!(tunnel[objects], tally, "{told:#}");
    }
    host.ip("route change 10.244.2.0/24 dev tun1 proto 117 mtu 1300");
    let told = host.status(UNICAST);
    assert_eq!(told["tunnels"][0]["routes"]["in_sync"], 0, "{told:#}");
}
