//! The daemon for a longer time: what it costs, how soon it mends, and that nothing unsettles it.

use std::fmt::Write;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::http::Door;
use crate::random::{Random, damage, ready, same, seed, topology};
use crate::watch::{Daemon, PATIENCE, SMALL, ttl};
use crate::world::{Host, World, run, trials, wait_until};

trials![
    it_sleeps_while_nothing_happens,
    it_never_grows,
    damage_is_mended_within_a_second,
    a_routing_daemon_costs_nothing,
    drift_edits_kills_and_underlay_changes
];

/// What a daemon's process has.
#[derive(Debug, Clone)]
struct Size {
    /// What each leads to.
    descriptors: Vec<String>,
    kilobytes: u64,
    threads: usize,
}

fn size(daemon: &Daemon) -> Size {
    let process = format!("/proc/{}", daemon.child.id());
    let entries = |what: &str| fs::read_dir(format!("{process}/{what}")).expect("it runs");
    let links = entries("fd").flatten().map(|entry| {
        let link = fs::read_link(entry.path()).unwrap_or_default();
        link.display().to_string()
    });
    Size {
        descriptors: links.collect(),
        kilobytes: field(format!("{process}/status"), "VmRSS:"),
        threads: entries("task").count(),
    }
}

/// A number in a `status` file.
fn field(path: impl AsRef<Path>, name: &str) -> u64 {
    let text = fs::read_to_string(path).expect("it runs");
    let line = text.lines().find(|line| line.starts_with(name));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("no {name} in {text}"))
}

/// How often any of the daemon's threads has been woken.
pub fn wakes(daemon: &Daemon) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.child.id())).expect("it runs");
    tasks
        .flatten()
        .map(|task| field(task.path().join("status"), "voluntary_ctxt_switches:"))
        .sum()
}

/// Not by its own reading of the files either.
fn it_sleeps_while_nothing_happens() {
    let world = World::new();
    let host = world.lone();
    let mut daemon = Daemon::start(&host, SMALL);
    daemon.says("pass: 1 created");
    std::thread::sleep(Duration::from_secs(1));
    let (before, ticks) = (wakes(&daemon), daemon.ticks());
    std::thread::sleep(Duration::from_secs(5));
    let woken = wakes(&daemon) - before;
    println!(
        "woken {woken} times in 5 s; {} ticks; {:?}",
        daemon.ticks() - ticks,
        size(&daemon)
    );
    assert_eq!(woken, 0);
}

/// Passes of all kinds: for a signal, for another file, for damage.
fn it_never_grows() {
    const PASSES: u32 = 10_000;
    let world = World::new();
    let host = world.lone();
    let door = Door::new(&host);
    let manager = PathBuf::from(format!("/run/manager-{}.sock", host.netns));
    let hears = UnixDatagram::bind(&manager).expect("a socket in /run");
    hears
        .set_read_timeout(Some(PATIENCE))
        .expect("a time limit");
    let arguments = ["--debounce", "1ms", "--listen", &door.address()];
    let environment = [("NOTIFY_SOCKET", manager.to_str().expect("a name"))];
    let mut daemon = Daemon::start_with(&host, SMALL, &arguments, &environment);
    daemon.says("pass: 1 created");
    let round = |daemon: &Daemon, number: u32| {
        match number % 50 {
            0 => {
                let wanted = 65 + number / 50 % 2;
                daemon.write(&SMALL.replace("64", &wanted.to_string()));
                wait_until("the file is followed", || ttl(&host) == Some(wanted.into()));
            }
            25 => {
                host.ip("link set tun1 mtu 1300");
                wait_until("it's repaired", || host.seen().link("tun1")["mtu"] == 1480);
            }
            _ => {}
        }
        // Nothing is told but what a signal asks for, and the pass is over then.
        daemon.signal(Signal::HUP);
        hear(&hears, "RELOADING=1");
        hear(&hears, "READY=1");
    };
    hear(&hears, "READY=1");
    for number in 0..200 {
        round(&daemon, number);
    }
    let (made, before, start) = (passes(&door), size(&daemon), Instant::now());
    for number in 0..PASSES {
        round(&daemon, number);
    }
    let took = start.elapsed().as_secs_f64();
    // An answer later than the last READY=1, whose socket is closed by then.
    let made = passes(&door) - made;
    let after = size(&daemon);
    let count = |size: &Size| size.descriptors.len();
    println!(
        "{made} passes in {took:.1} s, {} ticks; {} -> {} descriptors, {} -> {} kB",
        daemon.ticks(),
        count(&before),
        count(&after),
        before.kilobytes,
        after.kilobytes
    );
    assert!(made >= PASSES.into(), "{made}");
    assert_eq!(
        count(&after),
        count(&before),
        "{after:?}, before {before:?}"
    );
    assert_eq!(after.threads, before.threads);
    assert!(after.kilobytes <= before.kilobytes + 256);
}

/// Waits until a service manager is told this.
fn hear(manager: &UnixDatagram, word: &str) {
    let mut buffer = [0; 4096];
    loop {
        let length = manager.recv(&mut buffer).expect("it's told");
        if buffer[..length].starts_with(word.as_bytes()) {
            return;
        }
    }
}

/// How many passes it has made, by its own count.
fn passes(door: &Door) -> f64 {
    let metrics = door.metrics();
    let made = metrics.iter();
    let made = made.filter(|(name, _)| name.starts_with("tunnelform_passes_total"));
    made.map(|(_, count)| count).sum()
}

const MENDED: &str = "name: t
tunnels:
  tun1: {local: 192.168.10.2, remote: 192.168.20.2, ttl: 64, addresses: [10.1.0.1/24], routes: [10.244.0.0/16]}
";

/// From the end of the `ip` command to the daemon's word that it's repaired, beside what the command itself takes.
fn damage_is_mended_within_a_second() {
    const TIMES: usize = 10;
    const DAMAGES: [(&str, &str); 6] = [
        ("tunnel deleted", "link del tun1"),
        ("set down", "link set tun1 down"),
        (
            "ttl changed",
            "link set tun1 type ipip local 192.168.10.2 remote 192.168.20.2 ttl 9",
        ),
        ("address removed", "addr del 10.1.0.1/24 dev tun1"),
        (
            "route replaced",
            "route replace 10.244.0.0/16 via 192.168.10.1 proto 117",
        ),
        ("route added", "route add 10.245.0.0/16 dev tun1 proto 117"),
    ];
    let world = World::new();
    let host = world.lone();
    let mut table = String::from("damage           median   worst, ms until repaired; ip itself\n");
    for (name, damage) in DAMAGES {
        let (mut times, mut commands) = (Vec::new(), Vec::new());
        let mut daemon = Daemon::start(&host, MENDED);
        wait_until("it keeps the host", || {
            let status = host.tunnelform(&["status", "-"], MENDED);
            status.stderr.contains("follows") || status.stdout.contains("in sync: ")
        });
        for _ in 0..TIMES {
            // A hangup ends what would be taken for a fight.
            daemon.signal(Signal::HUP);
            daemon.says_nothing_more();
            let start = Instant::now();
            host.ip(damage);
            let damaged = Instant::now();
            daemon.says("pass: ");
            commands.push((damaged - start).as_secs_f64() * 1e3);
            times.push(damaged.elapsed().as_secs_f64() * 1e3);
        }
        host.settled(MENDED);
        times.sort_by(f64::total_cmp);
        commands.sort_by(f64::total_cmp);
        let (median, worst, command) = (times[TIMES / 2], times[TIMES - 1], commands[TIMES / 2]);
        let _ = writeln!(table, "{name:16} {median:6.1} {worst:7.1} {command:10.1}");
        assert!(median < 1000.0, "{table}");
    }
    println!("{table}");
}

/// Tens of thousands of changes of routes that are others'.
fn a_routing_daemon_costs_nothing() {
    let world = World::new();
    let host = world.lone();
    let mut daemon = Daemon::start(&host, SMALL);
    daemon.says("pass: 1 created");
    daemon.says_nothing_more();
    let flood = |verb: &str| -> String {
        let routes = (0..30_000).map(|n| {
            format!(
                "route {verb} blackhole 10.{}.{}.0/24 proto bird\n",
                n / 256,
                n % 256
            )
        });
        routes.collect()
    };
    let scripts = [flood("add"), flood("del")];
    let (before, ticks, woken) = (size(&daemon), daemon.ticks(), wakes(&daemon));
    let start = Instant::now();
    for script in &scripts {
        host.ip(script);
    }
    let took = start.elapsed().as_secs_f64();
    let (after, ticks, woken) = (
        size(&daemon),
        daemon.ticks() - ticks,
        wakes(&daemon) - woken,
    );
    println!(
        "{:.0} changes a second for {took:.1} s: {ticks} ticks, woken {woken} times, {} -> {} kB",
        60_000.0 / took,
        before.kilobytes,
        after.kilobytes
    );
    assert_eq!((ticks, woken), (0, 0));
    assert!(after.kilobytes <= before.kilobytes + 64);
}

/// All at once, at random; when it's over, the host is as the file says, and what isn't ours is as it was.
fn drift_edits_kills_and_underlay_changes() {
    const TIME: Duration = Duration::from_secs(40);
    let seed = seed();
    let mut random = Random(seed);
    let world = World::new();
    let host = ready(&world);
    let foreign = host.seen();
    let mut text = topology(&mut random);
    let mut daemon = Daemon::start(&host, &text);
    let (mut edits, mut kills, mut turns) = (0, 0, 0);
    let start = Instant::now();
    while start.elapsed() < TIME {
        turns += 1;
        damage(&host, &mut random);
        disturb(&host, &mut random);
        if random.once_in(4) {
            text = topology(&mut random);
            daemon.write(&text);
            edits += 1;
        }
        if random.once_in(9) {
            let file = daemon.file.clone();
            daemon.end(Signal::KILL);
            daemon = Daemon::follow(&host, file, &[]);
            kills += 1;
        }
        std::thread::sleep(Duration::from_millis(random.below(300)));
    }
    // Calm: what was lost of the underlay comes back.
    let calm = "link set d0 up mtu 1400\naddr replace 10.250.0.2/24 dev eth0\naddr replace 172.16.0.1/24 dev d0
                route replace 10.253.0.0/16 via 192.168.10.9 src 10.250.0.2";
    host.ip(calm);
    // One that has just been started isn't ended by the signal once it's there for others.
    let process = format!("(process {})", daemon.child.id());
    let status = || host.tunnelform(&["status", "-"], &text).stderr;
    wait_until("the daemon is there", || status().contains(&process));
    // What was fought over has waited long enough.
    daemon.signal(Signal::HUP);
    daemon.says_nothing_more();
    println!(
        "{turns} turns, {edits} edits, {kills} kills; {} lines logged since the last",
        daemon.heard.len()
    );
    let start = Instant::now();
    let mut left = host.plan(&text);
    while !left.moves().is_empty() {
        let patience = start.elapsed() < Duration::from_secs(30);
        assert!(
            patience,
            "seed {seed}:\n{text}\n{}\n{:#?}",
            left.told(),
            daemon.heard
        );
        std::thread::sleep(Duration::from_millis(200));
        left = host.plan(&text);
    }
    assert!(
        left.conflicts().is_empty(),
        "seed {seed}:\n{text}\n{}",
        left.told()
    );
    println!("settled after {} ms", start.elapsed().as_millis());
    same(&foreign, &host.seen());
}

/// What may happen to an underlay.
fn disturb(host: &Host, random: &mut Random) {
    let line = match random.below(6) {
        0 => "link set d0 down\nlink set d0 up",
        1 => "link set d0 mtu 1300\nlink set d0 mtu 1400",
        2 => {
            "addr del 10.250.0.2/24 dev eth0\naddr add 10.250.0.2/24 dev eth0\nroute replace 10.253.0.0/16 via 192.168.10.9 src 10.250.0.2"
        }
        3 => "addr add 10.250.0.3/24 dev eth0\naddr del 10.250.0.3/24 dev eth0",
        4 => "link add other type dummy\nlink del other",
        _ => return,
    };
    run("ip", &["-n", &host.netns, "-force", "-batch", "-"], line);
}
