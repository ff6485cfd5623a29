//! All or nothing: whatever goes wrong at whichever message, the host is as before or as it should be, others' objects
//! included.

use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::world::{Host, Run, Seen, TUNNELFORM, World, assert_same, run, trials, wait_until};

trials![
    refused,
    kept_going,
    killed,
    ended_by_a_signal,
    nobody_comes_between,
    message_not_sent,
    answer_not_received,
    device_vanishes,
    endpoints_taken,
    taken_before_it_is_verified,
    can_not_take_back,
];

/// After so many faults an apply must have come through.
const MOST_SENDS: usize = 100;

pub fn hq(body: &str) -> String {
    format!("version: 1\nname: hq\n{body}\n")
}

/// A host with tunnels of others', and others' addresses and routes on ours and theirs.
pub fn crowded(world: &World, file: &str) -> Host {
    let host = world.lone();
    host.ip(
        "link add fore type ipip local 192.168.10.2 remote 192.168.99.1
         link set fore up alias mine
         addr add 10.99.0.1/24 dev fore
         route add 10.98.0.0/16 dev fore
         link add dummy1 up type dummy
         addr add 172.16.0.2/24 dev dummy1",
    );
    host.apply(file);
    host.ip("route add 10.97.1.0/24 dev tun1 proto bird
         route add 10.97.2.0/24 dev tun2 proto bird
         route add 10.97.3.0/24 via 192.168.20.8 dev tun3 onlink proto bird
         route add 10.97.4.0/24 dev eth0 src 10.10.102.1 proto bird
         route add 10.96.0.0/16 via 192.168.10.1 proto bird
         addr add 10.95.0.1/24 dev eth0");
    host
}

/// What a deleted and created device can't have again: its number.
pub fn without_numbers(mut seen: Seen) -> Seen {
    for link in &mut seen.links {
        if let Some(map) = link.as_object_mut() {
            map.remove("ifindex");
        }
    }
    let text = |value: &serde_json::Value, key: &str| value[key].as_str().map(str::to_owned);
    seen.links.sort_by_key(|link| text(link, "ifname"));
    // The order of one device's addresses matters, that of devices doesn't.
    seen.addresses.sort_by_key(|address| text(address, "dev"));
    seen.routes.sort_by_key(ToString::to_string);
    seen
}

pub const BEFORE: &str = "\
tunnels:
  tun1: {local: 192.168.10.2, remote: 192.168.20.2, ttl: 64, addresses: [10.10.100.1/24, 10.10.101.1/24], routes: [10.244.2.0/24, {to: 10.244.3.0/24, via: 10.10.100.2}]}
  tun2: {local: 192.168.10.2, remote: 192.168.20.3, addresses: [10.10.102.1/24], routes: [10.244.4.0/24]}
  tun3: {local: 192.168.10.2, addresses: [10.10.103.1/24], routes: [{to: 10.244.5.0/24, via: 192.168.20.9, onlink: true}]}
addresses: {lo: [10.0.0.1/32]}
routes: [{to: 10.66.0.0/16, type: blackhole}, {to: 10.67.0.0/16, via: 192.168.10.9, device: eth0}]
";

/// Tunnels, addresses and routes of each kind of change: created, updated, replaced (`tun3`), deleted (`tun2`).
pub const AFTER: &str = "\
tunnels:
  tun1: {local: 192.168.10.2, remote: 192.168.20.7, ttl: 32, addresses: [10.10.100.7/24, 10.10.101.1/24], routes: [10.244.2.0/24, {to: 10.244.3.0/24, via: 10.10.100.9}]}
  tun3: {local: 192.168.10.2, remote: 192.168.20.9, addresses: [10.10.103.1/24], routes: [10.244.5.0/24]}
  tun4: {local: 192.168.10.2, remote: 192.168.20.4, addresses: [10.10.104.1/24], routes: [10.244.6.0/24]}
addresses: {dummy1: [172.16.9.1/24]}
routes: [{to: 10.66.0.0/16, type: prohibit}, {to: 10.68.0.0/16, via: 172.16.0.1, device: dummy1}]
";

/// The kernel refuses what the snapshot couldn't tell: everything is taken back, and both are said.
fn refused() {
    let world = World::new();
    let host = crowded(&world, &hq(BEFORE));
    // IPv6 is off on a device: no address of that family, which only the kernel knows.
    host.sysctl("ipv6/conf/dummy1/disable_ipv6", "1");
    let before = without_numbers(host.seen());
    let file = hq(&AFTER.replace("dummy1: [", "dummy1: ['fd01::1/64', "));
    let run = host.try_apply(&file, &[]).exits(1);
    let run = run
        .says("failed to create address fd01::1/64 on dummy1: ")
        .says("the host is as before");
    let plan = run.plan();
    assert_eq!(plan.0["taken_back"]["complete"], true);
    assert_eq!(plan.0["in_sync"], false);
    assert_eq!(
        plan.change("address", "fd01::1/64 on dummy1")["status"],
        "failed"
    );
    assert_eq!(plan.change("tunnel", "tun1")["status"], "undone");
    assert_same(&without_numbers(host.seen()), &before);
    // Nothing is left behind that another run would stumble over.
    host.apply(&hq(AFTER));
    host.settled(&hq(AFTER));
}

/// With `--keep-going` the rest is done.
fn kept_going() {
    let world = World::new();
    let host = crowded(&world, &hq(BEFORE));
    host.sysctl("ipv6/conf/dummy1/disable_ipv6", "1");
    let file = hq(&AFTER.replace("dummy1: [", "dummy1: ['fd01::1/64', "));
    let plan = host.try_apply(&file, &["--keep-going"]).exits(1).plan();
    assert_eq!(plan.0["taken_back"], serde_json::Value::Null);
    host.settled(&hq(AFTER));
}

/// One fault at each call in turn: the host is as before, or as it should be, by what the exit code says.
fn whole_or_nothing(calls: &str, error: &str) {
    let world = World::new();
    let host = crowded(&world, &hq(BEFORE));
    let before = without_numbers(host.seen());
    let (mut undone, mut n) = (0, 0);
    loop {
        n += 1;
        let inject = format!("{calls}:error={error}:when={n}");
        let run = host.faulty_apply(&hq(AFTER), &[], &inject, &["-f"]);
        match run.code {
            0 => break,
            1 => {
                undone += usize::from(run.stderr.contains("is taken back"));
                assert_same(&without_numbers(host.seen()), &before);
            }
            _ => panic!("{run:?}"),
        }
        assert!(n < MOST_SENDS, "no end after {n} faults");
    }
    assert!(
        undone >= 3,
        "of {n} faults only {undone} came in the middle"
    );
    host.settled(&hq(AFTER));
}

/// SIGKILL at each message: somebody is left behind who takes back what was done.
fn killed() {
    let world = World::new();
    let host = crowded(&world, &hq(BEFORE));
    let before = without_numbers(host.seen());
    let (mut undone, mut n) = (0, 0);
    loop {
        n += 1;
        let inject = format!("sendto,sendmsg:signal=KILL:when={n}");
        // Without -f, so that the messages of who is left behind aren't counted.
        let run = host.faulty_apply(&hq(AFTER), &[], &inject, &[]);
        if run.code == 0 {
            break;
        }
        assert_eq!(run.code, 128 + 9, "{run:?}");
        // Its standard error is the run's, which is read to its end: it has ended, too.
        undone += usize::from(run.stderr.contains("was taken back"));
        assert_same(&without_numbers(host.seen()), &before);
        assert!(n < MOST_SENDS, "no end after {n} kills");
    }
    assert!(undone >= 3, "of {n} kills only {undone} came in the middle");
    host.settled(&hq(AFTER));
}

/// Ctrl-C, or a service manager's SIGTERM to the whole group, in the middle.
fn ended_by_a_signal() {
    let world = World::new();
    let host = crowded(&world, &hq(BEFORE));
    let before = without_numbers(host.seen());
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let run = interrupted(&host, &hq(AFTER), IN_THE_MIDDLE, || {
            signal_run(&host, &["apply", "inherit"], signal);
        });
        assert!(run.stderr.contains("was taken back"), "{run:?}");
        assert_same(&without_numbers(host.seen()), &before);
    }
}

/// Who is left behind holds the lock, too.
fn nobody_comes_between() {
    let world = World::new();
    let host = crowded(&world, &hq(BEFORE));
    let before = without_numbers(host.seen());
    let run = interrupted(&host, &hq(AFTER), IN_THE_MIDDLE, || {
        signal_run(&host, &["apply"], Signal::KILL);
        // Not before: the kernel wakes a stopped group whose parent goes (`kill_orphaned_pgrp`).
        while !running(&host, &["apply"]).is_empty() {}
        signal_run(&host, &["inherit"], Signal::STOP);
        host.try_apply(&hq(AFTER), &["--lock-timeout", "1"])
            .exits(1)
            .says("another tunnelform is at work");
        signal_run(&host, &["inherit"], Signal::CONT);
    });
    assert!(run.stderr.contains("was taken back"), "{run:?}");
    assert_same(&without_numbers(host.seen()), &before);
}

/// Without a program to start, which may take longer than the rest of the apply.
fn signal_run(host: &Host, commands: &[&str], signal: Signal) {
    let found = running(host, commands).into_iter();
    let signalled = found.filter(|pid| kill_process(*pid, signal).is_ok());
    assert!(signalled.count() > 0, "no {commands:?} is there");
}

fn running(host: &Host, commands: &[&str]) -> Vec<Pid> {
    let is_meant = |command: &[u8]| {
        let command = String::from_utf8_lossy(command);
        let mut words = command.trim_end_matches('\0').split('\0');
        let program = words
            .next()
            .is_some_and(|word| word.ends_with("tunnelform"));
        let what = words.next().is_some_and(|word| commands.contains(&word));
        let netns = words.next_back();
        program && what && netns.is_some_and(|word| word.ends_with(&host.netns))
    };
    let processes = std::fs::read_dir("/proc").expect("it's there").flatten();
    let found = processes.filter(|process| {
        let command = std::fs::read(process.path().join("cmdline"));
        command.is_ok_and(|command| is_meant(&command))
    });
    let ids = found.filter_map(|process| process.file_name().to_str()?.parse().ok());
    ids.filter_map(Pid::from_raw).collect()
}

fn message_not_sent() {
    whole_or_nothing("sendto,sendmsg", "EPERM");
}

fn answer_not_received() {
    whole_or_nothing("recvfrom,recvmsg,recvmmsg", "ENOBUFS");
}

/// How far an apply has come, for somebody to come between: by the host's devices, as `ip` shows them.
/// With the microseconds that each send waits meanwhile.
type Moment = (&'static str, fn(&str) -> bool, u32);

const AT_ONCE: Moment = ("before anything", |_| true, 100_000);
const IN_THE_MIDDLE: Moment = (
    "a tunnel is made",
    |devices| devices.contains("tun4@"),
    100_000,
);
const BEFORE_IT_IS_VERIFIED: Moment = (
    "a tunnel is changed",
    |devices| devices.contains("mtu 1400"),
    500_000,
);

/// Applies slowly, and does something at a moment in the middle.
fn interrupted(
    host: &Host,
    file: &str,
    (what, came, wait): Moment,
    meanwhile: impl FnOnce(),
) -> Run {
    let topology = format!("/run/atomic-{}.yaml", host.netns);
    std::fs::write(&topology, file).expect("a file in /run");
    let slowly = format!("inject=sendto,sendmsg:delay_enter={wait}");
    let child = Command::new("strace")
        .args([
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=sendto,sendmsg",
            "-e",
            &slowly,
        ])
        .args([TUNNELFORM, "apply", &topology, "--netns", &host.netns])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("strace");
    let devices = || run("ip", &["-n", &host.netns, "-oneline", "link"], "").ok();
    wait_until(what, || came(&devices().stdout));
    meanwhile();
    let output = child.wait_with_output().expect("it ends");
    Run::new(format!("apply, interrupted when {what}"), output)
}

/// A device that the plan needs goes away in the middle.
fn device_vanishes() {
    let world = World::new();
    let host = crowded(&world, &hq(BEFORE));
    host.ip("link del dummy1");
    let without = without_numbers(host.seen());
    for moment in [AT_ONCE, IN_THE_MIDDLE] {
        host.ip("link add dummy1 up type dummy\naddr add 172.16.0.2/24 dev dummy1");
        let run = interrupted(&host, &hq(AFTER), moment, || host.ip("link del dummy1"));
        run.exits(1);
        assert_same(&without_numbers(host.seen()), &without);
    }
}

/// Somebody makes a tunnel in the middle, with the endpoints of one that the plan is about to make.
fn endpoints_taken() {
    let world = World::new();
    let host = crowded(&world, &hq(BEFORE));
    let before = without_numbers(host.seen());
    let add = "link add rival type ipip local 192.168.10.2 remote 192.168.20.4";
    let run = interrupted(&host, &hq(AFTER), AT_ONCE, || host.ip(add));
    run.exits(1);
    host.ip("link del rival");
    assert_same(&without_numbers(host.seen()), &before);
}

/// What somebody takes from a tunnel between its change and the verification is missed, and put back.
fn taken_before_it_is_verified() {
    let world = World::new();
    let host = crowded(&world, &hq(BEFORE));
    let changed = hq(&BEFORE.replace("ttl: 64, ", "ttl: 64, mtu: 1400, "));
    for damage in [
        "route del 10.244.2.0/24 dev tun1",
        "addr del 10.10.101.1/24 dev tun1",
    ] {
        host.apply(&hq(BEFORE));
        let run = interrupted(&host, &changed, BEFORE_IT_IS_VERIFIED, || host.ip(damage));
        run.ok();
        host.settled(&changed);
    }
}

/// What can't be taken back is said, precisely where it's known, and the next apply makes all good.
fn can_not_take_back() {
    let world = World::new();
    let host = crowded(&world, &hq(BEFORE));
    // Of a conversation that broke off for good nobody knows how it stands.
    let broken = (1..MOST_SENDS).find_map(|n| {
        let inject = format!("sendto,sendmsg:error=EPERM:when={n}+");
        let run = host.faulty_apply(&hq(AFTER), &[], &inject, &["-f"]);
        assert!(run.code == 1 || run.code == 3, "{run:?}");
        (run.code == 3).then_some(run)
    });
    let broken = broken.expect("one in the middle");
    broken.says("it isn't known how the host differs");
    host.apply(&hq(AFTER));
    host.settled(&hq(AFTER));
    host.apply(&hq(BEFORE));
    // Without its device a route can't come back.
    let run = interrupted(&host, &hq(AFTER), IN_THE_MIDDLE, || {
        host.ip("link del eth0\nlink del dummy1");
    });
    run.exits(3)
        .says("not everything could be taken back")
        .says("+ route 10.67.0.0/16")
        .says("device eth0 doesn't exist");
    host.ip("link add eth0 up type dummy\naddr add 192.168.10.2/24 dev eth0");
    host.apply(&hq(BEFORE));
}
