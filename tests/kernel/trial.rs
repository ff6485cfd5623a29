//! Changes on trial: kept when somebody confirms them, else the host is as before, whoever is lost meanwhile.

use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::atomic::{AFTER, BEFORE, crowded, hq, without_numbers};
use crate::watch::Daemon;
use crate::world::{Host, Run, Seen, TUNNELFORM, World, assert_same, run, trials, wait_until};

trials![
    kept,
    taken_back,
    taken_back_by_hand,
    garbage,
    nothing_on_trial,
    killed_at_each_message,
    terminal,
    guardian_lost,
    a_daemon_waits,
];

const MOST_SENDS: usize = 100;

/// A host as it was before, and is to be again.
fn before(world: &World) -> (Host, Seen) {
    let host = crowded(world, &hq(BEFORE));
    let seen = without_numbers(host.seen());
    (host, seen)
}

fn is_as(host: &Host, seen: &Seen) -> bool {
    without_numbers(host.seen()) == *seen && !is_on_trial(host)
}

fn is_on_trial(host: &Host) -> bool {
    !host.status(&hq(BEFORE))["on_trial"].is_null()
}

/// Makes a change for a time.
fn try_for(host: &Host, time: &str) -> Run {
    host.try_apply(&hq(AFTER), &["--confirm-within", time])
}

fn kept() {
    let world = World::new();
    let (host, _) = before(&world);
    let run = try_for(&host, "1h").ok();
    let run = run.says("tunnelform confirm --netns");
    assert_eq!(run.plan().0["on_trial_s"], 3_600);
    let status = host.status(&hq(AFTER));
    assert_eq!(status["on_trial"]["guarded"], true);
    let left = status["on_trial"]["seconds_left"].as_u64();
    assert!(
        left.is_some_and(|left| (3_000..3_600).contains(&left)),
        "{status}"
    );
    // Nobody else changes anything meanwhile.
    let during = host.seen();
    nobody_else(&host);
    assert_same(&host.seen(), &during);
    host.tunnelform(&["confirm"], "")
        .ok()
        .says("The change of hq is kept");
    assert!(!is_on_trial(&host));
    host.settled(&hq(AFTER));
    host.tunnelform(&["confirm"], "")
        .exits(1)
        .says("no change is on trial");
    host.tunnelform(&["rollback"], "")
        .exits(1)
        .says("no change is on trial");
    host.apply(&hq(BEFORE));
}

/// Whoever would change something is told that a change is on trial, for an hour.
#[track_caller]
pub fn nobody_else(host: &Host) {
    for arguments in [
        &["apply", "-"][..],
        &["destroy", "-"],
        &["apply", "-", "--confirm-within", "1h"],
    ] {
        let other = host.tunnelform(arguments, &hq(BEFORE));
        other
            .exits(1)
            .says("a change of hq is on trial here and is taken back in 3");
    }
}

/// What was created, changed, adopted, replaced, pruned and dropped along is as before.
fn taken_back() {
    let world = World::new();
    let (host, _) = before(&world);
    host.ip(
        "link add found type ipip local 192.168.10.2 remote 192.168.77.1 ttl 9
             link set found up
             addr add 10.77.0.1/24 dev found
             route add 10.78.0.0/16 dev found proto bird
             route add 10.79.0.0/16 dev eth0 proto static",
    );
    let seen = without_numbers(host.seen());
    let adopting = AFTER
        .replace("  tun4:", "  found: {local: 192.168.10.2, remote: 192.168.77.1, addresses: [10.77.0.2/24], routes: [10.80.0.0/16]}\n  tun4:")
        .replace("routes: [{to: 10.66", "routes: [{to: 10.79.0.0/16, device: dummy1}, {to: 10.66");
    assert_ne!(adopting, AFTER);
    let run = host.try_apply(&hq(&adopting), &["--adopt", "--confirm-within", "3s"]);
    let plan = run.ok().plan();
    assert_eq!(plan.0["in_sync"], true);
    wait_until("it's taken back", || is_as(&host, &seen));
    assert_same(&without_numbers(host.seen()), &seen);
    host.tunnelform(&["confirm"], "")
        .exits(1)
        .says("the last change of hq was taken back at")
        .says("nobody confirmed it in time");
    let status = host.status(&hq(BEFORE));
    assert_eq!(status["taken_back"]["complete"], true);
    // The next change that stays is news of its own.
    try_for(&host, "1h").ok();
    host.tunnelform(&["confirm"], "").ok();
    assert!(host.status(&hq(AFTER))["taken_back"].is_null());
    // One follows the other at once.
    for _ in 0..3 {
        for file in [BEFORE, AFTER] {
            host.apply_with(&hq(file), &["--confirm-within", "1h"]);
            host.tunnelform(&["confirm"], "").ok();
        }
    }
    host.apply_with(&hq(BEFORE), &["--confirm-within", "1h"]);
    host.tunnelform(&["rollback"], "").ok();
    assert!(!host.status(&hq(AFTER))["taken_back"].is_null());
    host.apply(&hq(BEFORE));
    assert!(host.status(&hq(AFTER))["taken_back"].is_null());
}

/// A record that makes no sense doesn't keep the rest from being shown, and goes with the next change.
fn garbage() {
    let world = World::new();
    let (host, _) = before(&world);
    try_for(&host, "1h").ok();
    host.tunnelform(&["rollback"], "").ok();
    for entry in std::fs::read_dir("/run/tunnelform").expect("it's there") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|end| end == "taken-back") {
            std::fs::write(path, "\u{1b}[31m{").expect("it's written");
        }
    }
    let status = host.tunnelform(&["status", "-"], &hq(BEFORE)).ok();
    status
        .says("isn't what this release of tunnelform writes")
        .says("tun1");
    host.apply(&hq(AFTER));
    let status = host.tunnelform(&["status", "-"], &hq(AFTER)).ok();
    assert_eq!(status.stderr, "");
}

fn taken_back_by_hand() {
    let world = World::new();
    let (host, seen) = before(&world);
    try_for(&host, "1h").ok();
    host.tunnelform(&["rollback"], "")
        .ok()
        .says("the host is as before");
    assert!(is_as(&host, &seen));
    // Where something is in the way it's said what.
    try_for(&host, "1h").ok();
    host.ip("link del eth0");
    host.tunnelform(&["rollback"], "")
        .exits(3)
        .says("+ route 10.67.0.0/16");
    assert!(!is_on_trial(&host));
}

/// Where nothing changes, or all was taken back already, there is nothing to confirm.
fn nothing_on_trial() {
    let world = World::new();
    let (host, seen) = before(&world);
    host.try_apply(&hq(BEFORE), &["--confirm-within", "1h"])
        .ok();
    assert!(is_as(&host, &seen));
    host.sysctl("ipv6/conf/dummy1/disable_ipv6", "1");
    let refused = hq(&AFTER.replace("dummy1: [", "dummy1: ['fd01::1/64', "));
    host.try_apply(&refused, &["--confirm-within", "1h"])
        .exits(1)
        .says("is taken back");
    assert!(is_as(&host, &seen));
    let times = ["0s", "2days", "soon"];
    for time in times {
        try_for(&host, time)
            .exits(2)
            .says("expected a time from 1s to 1day");
    }
}

/// SIGKILL at every message: a guardian is left behind, and takes back what was done.
fn killed_at_each_message() {
    let world = World::new();
    let (host, seen) = before(&world);
    let mut undone = 0;
    for n in 1..MOST_SENDS {
        let inject = format!("sendto,sendmsg:signal=KILL:when={n}");
        // Without -f, so that the guardian's messages aren't counted.
        let run = host.faulty_apply(&hq(AFTER), &["--confirm-within", "1h"], &inject, &[]);
        if run.code == 0 {
            assert!(undone >= 3, "of {n} kills only {undone} came in the middle");
            host.tunnelform(&["rollback"], "").ok();
            return assert_same(&without_numbers(host.seen()), &seen);
        }
        assert_eq!(run.code, 128 + 9, "{run:?}");
        wait_until("it's taken back", || is_as(&host, &seen));
        let ended = &host.status(&hq(BEFORE))["taken_back"];
        undone += usize::from(ended["reason"] == "interrupted");
    }
    panic!("no end");
}

/// A terminal: Enter keeps the change; a connection that breaks off leaves it to the guardian.
fn terminal() {
    let world = World::new();
    let (host, _) = before(&world);
    let file = format!("/run/trial-{}.yaml", host.netns);
    std::fs::write(&file, hq(AFTER)).expect("a file in /run");
    let apply = |time: &str| {
        let command = format!(
            "{TUNNELFORM} apply {file} --netns {} --confirm-within {time}",
            host.netns
        );
        let mut script = Command::new("script");
        script.args(["-qec", &command, "/dev/null"]);
        script
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        script.spawn().expect("script")
    };
    let mut there = apply("1h");
    wait_until("it's on trial", || is_on_trial(&host));
    use std::io::Write;
    let keyboard = there.stdin.as_mut().expect("a pipe");
    keyboard.write_all(b"\n").expect("it's read");
    let said = Run::new("apply".into(), there.wait_with_output().expect("it ends"));
    said.ok()
        .says("Press Enter to keep the change")
        .says("The change is kept");
    assert!(!is_on_trial(&host));
    host.settled(&hq(AFTER));

    // What others had there went with our tunnels.
    host.apply(&hq(BEFORE));
    let seen = without_numbers(host.seen());
    let mut gone = apply("4s");
    wait_until("it's on trial", || is_on_trial(&host));
    gone.kill().expect("it's there");
    let _ = gone.wait();
    wait_until("it's taken back", || is_as(&host, &seen));

    let mut patient = apply("1s");
    let _keyboard = patient.stdin.take();
    let output = Run::new("apply".into(), patient.wait_with_output().expect("it ends"));
    output.exits(1).says("nobody confirmed it in time");
    assert!(is_as(&host, &seen));
}

/// Nobody is left to take the change back: that is said, and it's for people to decide.
fn guardian_lost() {
    let world = World::new();
    let (host, seen) = before(&world);
    let lose = || {
        try_for(&host, "1h").ok();
        let pattern = format!("guard --netns={}$", host.netns);
        run("pkill", &["-KILL", "-f", &pattern], "").ok();
        wait_until("it's gone", || {
            host.status(&hq(AFTER))["on_trial"]["guarded"] == false
        });
        let apply = host.try_apply(&hq(BEFORE), &[]);
        apply
            .exits(1)
            .says("the process that would take it back is gone");
    };
    lose();
    host.tunnelform(&["rollback"], "").ok();
    assert!(is_as(&host, &seen));
    lose();
    host.tunnelform(&["confirm"], "").ok();
    host.settled(&hq(AFTER));
}

/// A daemon doesn't meddle while a change is on trial; afterwards the host is as its file says.
fn a_daemon_waits() {
    let world = World::new();
    let (host, _) = before(&world);
    let mut daemon = Daemon::start(&host, &hq(BEFORE));
    wait_until("it's there", || {
        let status = host.tunnelform(&["status", "-"], &hq(BEFORE));
        status.stderr.contains("in sync")
    });
    try_for(&host, "1h").ok();
    daemon.says("a change of hq is on trial");
    host.ip("link set tun1 mtu 1300");
    daemon.is_quiet(Duration::from_secs(2));
    assert_eq!(host.seen().link("tun1")["mtu"], 1300);
    host.tunnelform(&["confirm"], "").ok();
    wait_until("it's as its file says", || {
        host.plan(&hq(BEFORE)).moves().is_empty()
    });
    daemon.end(Signal::TERM);
}
