//! The daemon's own trials: a new topology that nobody confirms, or that cuts peers off, goes back to the last good one.

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::atomic::{AFTER, BEFORE, crowded, hq, without_numbers};
use crate::http::Door;
use crate::seed::{LEFT, Pair};
use crate::trial::nobody_else;
use crate::watch::Daemon;
use crate::world::{Host, Seen, World, assert_same, trials, wait_until};

trials![
    confirmed,
    not_confirmed,
    another_file_meanwhile,
    killed,
    told_to_stop,
    no_way_back,
    peers_confirm,
    peers_are_cut_off,
    nobody_to_ask,
];

const ON_TRIAL: &str = "a new topology is on trial, to be confirmed until";

/// A host as it was before, and its daemon.
fn daemon(world: &World, within: &str) -> (Host, Seen, Door, Daemon) {
    let host = crowded(world, &hq(BEFORE));
    let seen = without_numbers(host.seen());
    let door = Door::new(&host);
    let daemon = door.daemon(&host, &hq(BEFORE), &["--confirm-within", within]);
    door.opens();
    // The first has nothing to go back to.
    assert!(on_trial(&host).is_null());
    (host, seen, door, daemon)
}

fn on_trial(host: &Host) -> Value {
    host.status(&hq(BEFORE))["on_trial"].clone()
}

fn is_as(host: &Host, seen: &Seen) -> bool {
    without_numbers(host.seen()) == *seen && on_trial(host).is_null()
}

#[track_caller]
fn is_back(host: &Host, seen: &Seen) {
    wait_until("it's taken back", || on_trial(host).is_null());
    assert_same(&without_numbers(host.seen()), seen);
}

/// On trial it's told everywhere, and drift is repaired against the new topology; confirmed, it's the good one.
fn confirmed() {
    let world = World::new();
    let (host, _, door, mut daemon) = daemon(&world, "1h");
    assert_eq!(door.metrics()["tunnelform_on_trial"], 0.0);
    daemon.write(&hq(AFTER));
    daemon.says(ON_TRIAL);
    let change = on_trial(&host);
    assert_eq!(
        (&change["topology"], &change["guarded"]),
        (&"hq".into(), &true.into())
    );
    let left = change["seconds_left"].as_u64();
    assert!(
        left.is_some_and(|left| (3_000..3_600).contains(&left)),
        "{change}"
    );
    wait_until("it's told", || !door.status()["on_trial"].is_null());
    let told = door.status();
    let left = told["on_trial"]["seconds_left"].as_f64();
    assert!(
        left.is_some_and(|left| (3_000.0..3_600.0).contains(&left)),
        "{told}"
    );
    assert_eq!(told["on_trial"]["by_probe"], false);
    assert!(
        told["standing"]
            .as_str()
            .is_some_and(|words| words.contains(ON_TRIAL)),
        "{told}"
    );
    assert_eq!(door.metrics()["tunnelform_on_trial"], 1.0);
    nobody_else(&host);
    host.ip("link set tun4 mtu 1300");
    daemon.says("mtu: 1300 -> 1480");
    assert_eq!(on_trial(&host)["guarded"], true);
    host.tunnelform(&["confirm"], "")
        .ok()
        .says("The change of hq is kept");
    daemon.says("the new topology is kept: somebody has confirmed it");
    wait_until("it's told", || door.status()["on_trial"].is_null());
    assert_eq!(door.metrics()["tunnelform_on_trial"], 0.0);
    host.settled(&hq(AFTER));
    // Nobody is in the way of the next.
    host.try_apply(&hq(BEFORE), &["--confirm-within", "1h"])
        .ok();
    host.tunnelform(&["rollback"], "").ok();
    host.settled(&hq(AFTER));
}

/// Others' objects that went with ours come back, and what was taken back isn't tried again by itself.
fn not_confirmed() {
    let world = World::new();
    let (host, seen, door, mut daemon) = daemon(&world, "2s");
    assert!(!seen.routes_to("10.97.2.0/24").is_empty());
    daemon.write(&hq(AFTER));
    daemon.says(ON_TRIAL);
    assert!(host.seen().routes_to("10.97.2.0/24").is_empty());
    daemon.says("the last change of hq was taken back at");
    is_back(&host, &seen);
    let told = daemon.says("can't be used, the last good topology stays in force");
    assert!(
        told.contains("as nobody confirmed it in time: change it, or send SIGHUP to try it again"),
        "{told}"
    );
    let ended = host.status(&hq(BEFORE))["taken_back"].clone();
    assert_eq!(
        (&ended["reason"], &ended["complete"]),
        (&"unconfirmed".into(), &true.into())
    );
    assert!(
        door.status()["error"]
            .as_str()
            .is_some_and(|error| error.contains("SIGHUP"))
    );
    assert_eq!(door.metrics()["tunnelform_taken_back_total"], 1.0);
    assert_eq!(door.metrics()["tunnelform_file_bad"], 1.0);
    // Neither the clock nor another look at the same content.
    daemon.says_nothing_more();
    daemon.write(&hq(AFTER));
    daemon.is_quiet(Duration::from_secs(7));
    host.ip("link set tun1 mtu 1300");
    daemon.says("mtu: 1300 -> 1480");
    assert_same(&without_numbers(host.seen()), &seen);

    daemon.signal(Signal::HUP);
    daemon.says(ON_TRIAL);
    host.tunnelform(&["rollback"], "")
        .ok()
        .says("the host is as before");
    daemon.says("the last change of hq was taken back at");
    let told = daemon.says("can't be used");
    assert!(told.contains("by hand"), "{told}");
    is_back(&host, &seen);
    daemon.write(&hq(&AFTER.replace("ttl: 32", "ttl: 33")));
    daemon.says(ON_TRIAL);
    host.tunnelform(&["confirm"], "").ok();
    daemon.says("the new topology is kept");
    wait_until("it's good", || door.status()["error"].is_null());
    assert_eq!(door.metrics()["tunnelform_taken_back_total"], 2.0);
}

/// The newest topology is on trial, its time begins anew, and the way back leads to the last that was confirmed; when the
/// file holds that again, at once.
fn another_file_meanwhile() {
    let world = World::new();
    let (host, seen, door, mut daemon) = daemon(&world, "6s");
    daemon.write(&hq(AFTER));
    daemon.says(ON_TRIAL);
    let start = Instant::now();
    std::thread::sleep(Duration::from_secs(3));
    daemon.write(&hq(&AFTER.replace("ttl: 32", "ttl: 33")));
    daemon.says(ON_TRIAL);
    daemon.says("the last change of hq was taken back at");
    assert!(
        start.elapsed() > Duration::from_secs(8),
        "{:?}",
        start.elapsed()
    );
    is_back(&host, &seen);

    daemon.write(&hq(AFTER));
    daemon.says(ON_TRIAL);
    let start = Instant::now();
    daemon.write(&hq(BEFORE));
    daemon.says("the last change of hq was taken back at");
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    is_back(&host, &seen);
    wait_until("it's good", || {
        let status = door.status();
        status["error"].is_null() && status["on_trial"].is_null()
    });
}

/// The next daemon takes back what one that was killed had on trial, but no repair of its, and doesn't try it again.
fn killed() {
    let world = World::new();
    let (host, seen, door, mut first) = daemon(&world, "1h");
    first.write(&hq(AFTER));
    first.says(ON_TRIAL);
    host.ip("addr del 10.10.101.1/24 dev tun1");
    first.says("pass: 1 created");
    let file = first.file.clone();
    first.end(Signal::KILL);
    assert_eq!(on_trial(&host)["guarded"], false);
    let follow = || {
        Daemon::follow(
            &host,
            &file,
            &["--confirm-within", "1h", "--listen", &door.address()],
        )
    };
    let mut next = follow();
    next.says("as the daemon that made it ended before somebody confirmed it");
    next.says("can't be used, there is none in force yet");
    is_back(&host, &seen);
    next.is_quiet(Duration::from_secs(1));
    assert_same(&without_numbers(host.seen()), &seen);
    // The one after that knows of it, too.
    next.end(Signal::TERM);
    let mut next = follow();
    next.says("can't be used, there is none in force yet");
    assert_same(&without_numbers(host.seen()), &seen);
    // There is a host to go back to, if no topology.
    next.write(&hq(&AFTER.replace("ttl: 32", "ttl: 33")));
    next.says(ON_TRIAL);
    host.tunnelform(&["rollback"], "").ok();
    next.says("can't be used, there is none in force yet");
    is_back(&host, &seen);
    assert!(door.status()["in_force"].is_null());
    next.write(&hq(BEFORE));
    wait_until("it's good", || !door.status()["in_force"].is_null());
    assert!(is_as(&host, &seen));
}

/// Who ends can't go back later.
fn told_to_stop() {
    let world = World::new();
    let (host, seen, _, mut daemon) = daemon(&world, "1h");
    daemon.write(&hq(AFTER));
    daemon.says(ON_TRIAL);
    assert_eq!(daemon.end(Signal::TERM), Some(0));
    assert!(is_as(&host, &seen));
    assert_eq!(
        host.status(&hq(BEFORE))["taken_back"]["reason"],
        "interrupted"
    );
}

/// Where the way back can't be written down nothing is touched, for as long as that is so.
fn no_way_back() {
    let world = World::new();
    let (host, seen, _, mut daemon) = daemon(&world, "1h");
    let namespace = std::fs::metadata(format!("/run/netns/{}", host.netns)).expect("it's there");
    let (device, inode) = (namespace.dev(), namespace.ino());
    let obstacle = format!("/run/tunnelform/netns-{device}-{inode}.new");
    std::fs::create_dir(&obstacle).expect("a directory");
    daemon.write(&hq(AFTER));
    daemon.says("no pass: without a way back nothing is changed: can't keep the way back in");
    daemon.is_quiet(Duration::from_secs(3));
    assert!(is_as(&host, &seen));
    std::fs::remove_dir(&obstacle).expect("it's empty");
    daemon.says(ON_TRIAL);
    host.tunnelform(&["rollback"], "").ok();
    assert!(is_as(&host, &seen));
}

/// The left one's file, with a probe that comes seldom.
fn probed(file: &str) -> String {
    file.replace(
        "ttl: 64",
        "ttl: 64\n    probe: {target: 10.10.100.2, interval: 1m, timeout: 300ms}",
    )
}

/// Its daemon, once the peer has answered.
fn probing(pair: &Pair, within: &str) -> (Door, Daemon) {
    let door = Door::new(&pair.left);
    let arguments = ["--confirm-by-probe", "--confirm-within", within];
    let daemon = door.daemon(&pair.left, &probed(LEFT), &arguments);
    wait_until("the peer answers", || {
        door.status()["probes"][0]["state"] == "reachable"
    });
    (door, daemon)
}

/// The peer answers on: nobody has to confirm it, and nobody waits for the peer's next turn.
fn peers_confirm() {
    let pair = Pair::connected();
    let (door, mut daemon) = probing(&pair, "1h");
    let start = Instant::now();
    daemon.write(&probed(LEFT).replace("ttl: 64", "ttl: 65"));
    daemon.says("a new topology is on trial, 1 peers have to answer");
    daemon.says("the new topology is kept: no answer is missing");
    eprintln!("kept after {:?}", start.elapsed());
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
    wait_until("it's told", || door.status()["on_trial"].is_null());
    assert!(door.status()["error"].is_null());
    assert_eq!(pair.left.seen().tunnel("tun1")["ttl"], 65);
}

/// The change cuts the way to the peer: it goes back, and the peer has a name.
fn peers_are_cut_off() {
    let pair = Pair::connected();
    let (door, mut daemon) = probing(&pair, "4s");
    let before = pair.left.seen();
    daemon.write(&probed(LEFT).replace("remote: 192.168.20.2", "remote: 192.168.20.99"));
    daemon.says("1 peers have to answer");
    let peer = "tun1 to 192.168.20.99 (10.10.100.2)";
    wait_until("it's told", || {
        door.status()["on_trial"]["awaited"][0] == peer
    });
    assert_eq!(door.status()["on_trial"]["by_probe"], true);
    daemon.says(&format!("as no answer came any more from {peer}"));
    wait_until("all is as it was", || {
        pair.left.seen().tunnels() == before.tunnels()
    });
    assert_same(&pair.left.seen(), &before);
    let told = daemon.says("can't be used, the last good topology stays in force");
    assert!(told.contains(peer), "{told}");
    let ended = pair.left.status(LEFT)["taken_back"].clone();
    assert_eq!(
        (&ended["reason"], &ended["silent"][0]),
        (&"unanswered".into(), &peer.into())
    );
    wait_until("the peer answers again", || {
        door.status()["probes"][0]["state"] == "reachable"
    });
}

/// Where nobody answered before, or nobody is asked any more, there is nothing to go by.
fn nobody_to_ask() {
    let pair = Pair::connected();
    let (door, mut daemon) = probing(&pair, "1h");
    let nothing = "no peer that the new topology probes has answered before";
    daemon.write(&LEFT.replace("ttl: 64", "ttl: 65"));
    daemon.says(nothing);
    daemon.says("the new topology is kept");
    daemon.write(&probed(LEFT));
    daemon.says(nothing);
    daemon.says("the new topology is kept");
    wait_until("it's over", || door.status()["on_trial"].is_null());
    assert_eq!(pair.left.seen().tunnel("tun1")["ttl"], 64);
}
