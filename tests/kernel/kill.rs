//! SIGKILL at every message that an apply sends: the next apply makes all good, and nothing foreign is touched.

use crate::world::{Host, Seen, World, assert_same, trials};

trials![create_and_delete, change, replace];

/// So many tunnels, with an address and a route each, that every kind of request takes several sends.
const TUNNELS: usize = 45;

/// After so many kills an apply must have come through.
const MOST_SENDS: usize = 200;

fn topology(tunnels: usize, ttl: u8) -> String {
    let mut text = String::from("version: 1\nname: hq\n");
    text += "routes: [{to: 10.66.0.0/16, type: blackhole}]\naddresses: {lo: [10.0.0.1/32]}\n";
    text += "tunnels:\n  last: {local: 192.168.10.2, remote: 192.168.30.1}\n";
    for n in 0..tunnels {
        text += &format!(
            "  t{n}: {{local: 192.168.10.2, remote: 192.168.20.{n}, ttl: {ttl}, addresses: [10.10.{n}.1/24, 10.11.{n}.{ttl}/24], \
             routes: [{{to: 10.100.{n}.0/24, via: 10.10.{n}.{ttl}}}]}}\n"
        );
    }
    text
}

/// Applies, but is killed at the n-th send. Whether it was: else it came through.
fn killed(host: &Host, file: &str, n: usize) -> bool {
    let inject = format!("sendto,sendmsg:signal=KILL:when={n}");
    let run = host.faulty_apply(file, &[], &inject, &["-f"]);
    assert!(run.code == 0 || run.code == 128 + 9, "{run:?}");
    run.code != 0
}

/// No tunnel is without an owner but the foreign one.
fn assert_no_orphan(seen: &Seen) {
    for link in &seen.links {
        let ipip = link["linkinfo"]["info_kind"] == "ipip";
        let known = link["ifname"] == "fore" || link["ifname"] == "tunl0";
        let orphan = ipip && !known && link["ifalias"] != "tunnelform:hq";
        assert!(!orphan, "an orphan: {link}");
    }
}

fn foreign(mut seen: Seen) -> Seen {
    seen.links
        .retain(|link| link["ifname"] == "fore" || link["linkinfo"]["info_kind"] != "ipip");
    seen.addresses
        .retain(|address| address["dev"] == "fore" || address["dev"] == "eth0");
    seen.routes
        .retain(|route| route["dev"] == "fore" || route["dev"] == "eth0");
    seen
}

/// From one topology to the other and back, with a kill at each send in turn; the next apply finishes what was left
/// half done.
fn survives(there: &str, back: &str, foreign_routes: &str) {
    let world = World::new();
    let host = world.lone();
    host.ip(
        "link add fore type ipip local 192.168.10.2 remote 192.168.99.1
         link set fore up alias mine
         addr add 10.99.0.1/24 dev fore
         route add 10.98.0.0/16 dev fore",
    );
    let before = foreign(host.seen());
    host.apply(back);
    host.ip(foreign_routes);
    let kept = |host: &Host| sorted(host.seen().routes_of("bird"));
    let routes = kept(&host);
    for n in 1..=MOST_SENDS {
        let mut kills = 0;
        for file in [there, back] {
            kills += usize::from(killed(&host, file, n));
            let seen = host.seen();
            assert_no_orphan(&seen);
            assert_same(&foreign(seen), &before);
            host.status(file);
            host.apply(file);
            assert_eq!(kept(&host), routes);
        }
        if kills == 0 {
            host.settled(back);
            assert!(n > 8, "only {n} sends: nothing was tried");
            println!("{} kills", n - 1);
            return;
        }
    }
    panic!("no end after {MOST_SENDS} kills");
}

fn sorted(routes: Vec<&serde_json::Value>) -> Vec<String> {
    let mut routes: Vec<String> = routes.into_iter().map(ToString::to_string).collect();
    routes.sort();
    routes
}

/// Killed while it creates, and while it deletes.
fn create_and_delete() {
    survives(&topology(TUNNELS, 64), "version: 1\nname: hq\n", "");
}

/// Killed while it changes tunnels, addresses and routes, and deletes some.
fn change() {
    survives(&topology(TUNNELS, 65), &topology(TUNNELS / 2, 64), "");
}

/// Killed while it replaces tunnels, with routes of others' over them, more than one send holds.
fn replace() {
    const TUNNELS: usize = 12;
    let file = |remote: &str| {
        let tunnels = (0..TUNNELS).map(|n| {
            format!(
                "  t{n}: {{local: 192.168.10.{n}, remote: {remote}, addresses: [10.10.{n}.1/24, 10.11.{n}.1/24], \
                 routes: [{{to: 10.100.{n}.0/24, via: 10.10.{n}.9}}]}}\n"
            )
        });
        format!("name: hq\ntunnels:\n{}", tunnels.collect::<String>())
    };
    let foreign = (0..TUNNELS).map(|n| format!("route add 10.12.{n}.0/24 dev t{n} proto bird\n"));
    survives(
        &file("any"),
        &file("192.168.20.1"),
        &foreign.collect::<String>(),
    );
}
