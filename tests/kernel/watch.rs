//! The daemon: whatever happens to the file or the host, the host is as the file says soon after.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::drift::{DAMAGES, TOPOLOGY, regardless_of_index};
use crate::soak::wakes;
use crate::world::{Host, TUNNELFORM, World, assert_same, run, trials, wait_until};

trials![
    every_damage_is_repaired,
    the_file_is_followed,
    a_list_beside_the_file_is_followed,
    a_bad_file_changes_nothing,
    a_device_is_waited_for,
    an_address_is_waited_for,
    a_conflict_costs_nothing_else,
    a_fight_is_slowed_down,
    other_daemons_routes_wake_nobody,
    the_underlay_is_followed,
    a_routing_daemons_underlay_is_followed,
    signals,
    the_service_manager_is_told,
    apply_hears_of_the_daemon,
    a_kill_harms_nothing
];

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A daemon in a host, and the lines that it logs.
pub struct Daemon {
    pub child: Child,
    lines: Receiver<Value>,
    pub file: PathBuf,
    pub heard: Vec<Value>,
}

impl Daemon {
    pub fn start(host: &Host, topology: &str) -> Self {
        Self::start_with(host, topology, &[], &[])
    }

    pub fn start_with(
        host: &Host,
        topology: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let directory = PathBuf::from(format!("/run/watch-{}", host.netns));
        std::fs::create_dir_all(&directory).expect("a directory in /run");
        let file = directory.join("hq.yaml");
        std::fs::write(&file, topology).expect("a file in /run");
        let mut command = Self::command(&host.netns, arguments);
        command.arg(&file).envs(environment.iter().copied());
        Self::spawn(command, file)
    }

    /// One that follows what is there already.
    pub fn follow(host: &Host, path: impl Into<PathBuf>, arguments: &[&str]) -> Self {
        let path = path.into();
        let mut command = Self::command(&host.netns, arguments);
        command.arg(&path);
        Self::spawn(command, path)
    }

    fn command(netns: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(TUNNELFORM);
        command.args(["watch", "--log-format", "json", "--netns", netns]);
        command.args(arguments);
        command
    }

    /// Any program that is the daemon.
    pub fn spawn(mut command: Command, file: PathBuf) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("tunnelform starts");
        let stderr = child.stderr.take().expect("a pipe");
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            lines,
            file,
            heard: Vec::new(),
        }
    }

    /// The next line that says this.
    #[track_caller]
    pub fn says(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    let message = line["message"].as_str().unwrap_or_default().to_owned();
                    self.heard.push(line);
                    if message.contains(text) {
                        return message;
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("not a word of {text:?} in {:#?}", self.heard)
                }
            }
        }
    }

    /// It says nothing for a while.
    #[track_caller]
    pub fn is_quiet(&mut self, time: Duration) {
        let end = Instant::now() + time;
        let left = || end.saturating_duration_since(Instant::now());
        while let Ok(line) = self.lines.recv_timeout(left()) {
            // What it says of the file doesn't count.
            assert!(line["file"].is_string(), "{line}");
        }
    }

    /// Waits until it has said nothing for a while.
    pub fn says_nothing_more(&mut self) {
        while let Ok(line) = self.lines.recv_timeout(Duration::from_millis(250)) {
            self.heard.push(line);
        }
    }

    pub fn write(&self, topology: &str) {
        std::fs::write(&self.file, topology).expect("a file in /run");
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it's there");
    }

    /// Its exit code, after a signal.
    pub fn end(mut self, signal: Signal) -> Option<i32> {
        self.signal(signal);
        self.child.wait().expect("it ends").code()
    }

    /// Hundredths of a second that it has computed.
    pub fn ticks(&self) -> u64 {
        let stat =
            std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it runs");
        let fields: Vec<&str> = stat
            .rsplit(") ")
            .next()
            .unwrap_or_default()
            .split(' ')
            .collect();
        let number = |index: usize| fields[index].parse::<u64>().expect("a number");
        number(11) + number(12)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn every_damage_is_repaired() {
    let world = World::new();
    let host = world.lone();
    let mut daemon = Daemon::start(&host, TOPOLOGY);
    daemon.says("pass: ");
    let good = regardless_of_index(host.seen());
    for (damage, _) in DAMAGES {
        println!("{damage}");
        daemon.is_quiet(Duration::from_millis(200));
        host.ip(damage);
        wait_until(damage, || regardless_of_index(host.seen()) == good);
        // The damages are of other people at other times: no fight, which would be slowed down. The one has to be gone
        // before the next comes: a host has one daemon of an owner.
        drop(daemon);
        daemon = Daemon::start(&host, TOPOLOGY);
    }
}

pub const SMALL: &str =
    "name: t\ntunnels: {tun1: {local: 192.168.10.2, remote: 192.168.20.2, ttl: 64}}\n";

pub fn ttl(host: &Host) -> Option<u64> {
    host.seen()
        .find_link("tun1")
        .and_then(|link| link["linkinfo"]["info_data"]["ttl"].as_u64())
}

/// A write, a rename over it, a deletion and a return: each is one pass.
fn the_file_is_followed() {
    let world = World::new();
    let host = world.lone();
    let mut daemon = Daemon::start(&host, SMALL);
    daemon.says("pass: 1 created");
    daemon.write(&SMALL.replace("64", "65"));
    daemon.says("pass: 0 created, 1 changed");
    assert_eq!(ttl(&host), Some(65));
    let other = daemon.file.with_extension("new");
    std::fs::write(&other, SMALL.replace("64", "66")).expect("a file in /run");
    std::fs::rename(&other, &daemon.file).expect("a rename");
    daemon.says("pass: 0 created, 1 changed");
    assert_eq!(ttl(&host), Some(66));
    std::fs::remove_file(&daemon.file).expect("a deletion");
    daemon.says("can't be used, the last good topology stays in force");
    assert_eq!(ttl(&host), Some(66));
    daemon.write(&SMALL.replace("64", "67"));
    daemon.says("pass: 0 created, 1 changed");
    // A slow writer gives one pass.
    for ttl in 70..80 {
        daemon.write(&SMALL.replace("64", &ttl.to_string()));
        std::thread::sleep(Duration::from_millis(20));
    }
    daemon.says("ttl: 67 -> 79");
    daemon.says("pass: 0 created, 1 changed");
    daemon.is_quiet(Duration::from_millis(500));
}

/// A list in a directory of its own, which is named first and is there later; a swapped link to it; a bad one.
fn a_list_beside_the_file_is_followed() {
    let world = World::new();
    let host = world.lone();
    let mut daemon = Daemon::start(
        &host,
        "name: t\nroutes: {file: lists/r.txt, type: blackhole}\n",
    );
    daemon.says("can't read lists/r.txt: No such file");
    let lists = daemon.file.with_file_name("lists");
    std::fs::create_dir_all(&lists).expect("a directory in /run");
    let list = lists.join("r.txt");
    let write = |name: &str, text: &str| {
        std::fs::write(lists.join(name), text).expect("a file in /run");
    };
    write("r.txt", "10.1.0.0/16\n");
    daemon.says("pass: 1 created");
    write("r.txt", "10.1.0.0/16\n10.2.0.0/16\n");
    daemon.says("pass: 1 created");
    write("r.txt", "10.1.0.0/33\n");
    daemon.says("lists/r.txt:1:1");
    std::fs::create_dir_all(lists.join("elsewhere")).expect("a directory in /run");
    write("elsewhere/r.txt", "10.3.0.0/16\n");
    let link = lists.join("r.new");
    std::os::unix::fs::symlink("elsewhere/r.txt", &link).expect("a link in /run");
    std::fs::rename(&link, &list).expect("a rename");
    daemon.says("pass: 1 created, 0 changed, 0 replaced, 2 deleted");
    write("elsewhere/r.txt", "10.4.0.0/16\n");
    daemon.says("pass: 1 created, 0 changed, 0 replaced, 1 deleted");
    daemon.is_quiet(Duration::from_millis(500));
}

/// Not valid, empty, holding nothing: the last good topology stays in force, and drift is repaired against it.
fn a_bad_file_changes_nothing() {
    let world = World::new();
    let host = world.lone();
    let mut daemon = Daemon::start(&host, SMALL);
    daemon.says("pass: 1 created");
    for (bad, message) in [
        ("name: t\ntunnels: [", "not valid YAML"),
        ("", "the file holds no YAML document"),
        ("name: t\ntunnels: {}", "holds nothing for this host"),
    ] {
        daemon.write(bad);
        daemon.says(message);
        assert_eq!(ttl(&host), Some(64));
        host.ip("link del tun1");
        daemon.says("pass: 1 created");
    }
    let told = host.tunnelform(&["status", "-"], SMALL).ok();
    told.says("holds nothing for this host");
    daemon.write(SMALL);
    daemon.end(Signal::TERM);
    let mut willing = Daemon::start_with(&host, "name: t\ntunnels: {}", &["--allow-empty"], &[]);
    willing.says("pass: 0 created, 0 changed, 0 replaced, 1 deleted");
}

fn a_device_is_waited_for() {
    let world = World::new();
    let host = world.lone();
    let topology = "name: t\ntunnels:\n  tun1: {local: 192.168.10.2, remote: 192.168.20.2, device: eth9, addresses: [10.1.0.1/24]}\n  tun2: {local: 192.168.10.2, remote: 192.168.20.3}\n";
    let mut daemon = Daemon::start(&host, topology);
    daemon.says("pending: tunnel tun1 waits for the device eth9");
    daemon.says("pass: 1 created");
    host.ip("link add eth9 type dummy");
    daemon.says("pass: 2 created");
    host.settled(topology);
}

/// The tunnel that looks up its `local` waits for it, and stays as it is while it's lost. The others don't care.
fn an_address_is_waited_for() {
    let world = World::new();
    let host = world.lone();
    host.ip("link add eth1 up type dummy");
    let topology = "name: t\ntunnels:\n  tun1: {local: {device: eth1}, remote: 192.168.20.2, addresses: [10.1.0.1/24], routes: [10.244.0.0/16]}\n  tun2: {local: 192.168.10.2, remote: 192.168.20.3}\n";
    let mut daemon = Daemon::start(&host, topology);
    daemon.says("pending: tunnel tun1 waits for an address on eth1");
    daemon.says("pass: 1 created");
    let status = host.status(topology);
    assert_eq!(status["in_sync"], false);
    assert_eq!(status["tunnels"][0]["state"], "pending");
    assert_eq!(status["tunnels"][0]["routes"]["in_sync"], 0);
    assert_eq!(status["tunnels"][1]["state"], "in_sync");
    host.ip("addr add 192.168.30.2/24 dev eth1");
    daemon.says("pass: 3 created");
    assert_eq!(host.seen().tunnel("tun1")["local"], "192.168.30.2");
    host.settled(topology);
    let before = host.seen();
    host.ip("addr del 192.168.30.2/24 dev eth1");
    daemon.says("pending: tunnel tun1 waits for an address on eth1");
    let mut changed = before.clone();
    changed.addresses.retain(|address| address["dev"] != "eth1");
    changed.routes.retain(|route| route["dev"] != "eth1");
    assert_same(
        &host.seen().not_through("eth1"),
        &changed.not_through("eth1"),
    );
    daemon.write(
        &topology
            .replace("10.1.0.1", "10.1.0.2")
            .replace("20.3", "20.4"),
    );
    daemon.says("pass: 0 created, 1 changed, 0 replaced, 0 deleted");
    assert!(host.seen().find_address("tun1", "10.1.0.1").is_some());
    host.ip("addr add 192.168.30.77/24 dev eth1");
    daemon.says("local: 192.168.30.2 -> 192.168.30.77");
    daemon.says("pass: 1 created, 1 changed, 0 replaced, 1 deleted");
    assert_eq!(
        host.index("tun1"),
        before.link("tun1")["ifindex"].as_u64().unwrap_or_default()
    );
}

fn a_conflict_costs_nothing_else() {
    let world = World::new();
    let host = world.lone();
    host.ip("link add tun1 type ipip local 192.168.10.2 remote 192.168.30.2");
    let topology = format!("{SMALL}addresses: {{lo: [10.0.0.1/32]}}\n");
    let mut daemon = Daemon::start(&host, &topology);
    daemon.says("conflict: tunnel tun1");
    daemon.says("pass: 1 created");
    host.ip("addr del 10.0.0.1/32 dev lo");
    daemon.says("pass: 1 created");
    host.ip("link del tun1");
    daemon.says("pass: 1 created");
    host.settled(&topology);
}

/// Somebody takes the address away again and again: the daemon gives way, for longer each time, and repairs another
/// object at once meanwhile.
fn a_fight_is_slowed_down() {
    let world = World::new();
    let host = world.lone();
    let topology =
        "name: t\ntunnels: {tun1: {local: 192.168.10.2, addresses: [10.1.0.1/24, 10.2.0.1/24]}}\n";
    let mut daemon = Daemon::start(&host, topology);
    daemon.says("pass: 3 created");
    let has = |address: &str| host.seen().find_address("tun1", address).is_some();
    for _ in 0..5 {
        wait_until("10.1.0.1 is back", || has("10.1.0.1"));
        host.ip("addr del 10.1.0.1/24 dev tun1");
    }
    daemon.says("address 10.1.0.1/24 on tun1 is changed again and again: left alone for 1 s");
    host.ip("addr del 10.2.0.1/24 dev tun1");
    wait_until("10.2.0.1 is back", || has("10.2.0.1"));
    wait_until("10.1.0.1 is back", || has("10.1.0.1"));
    host.ip("addr del 10.1.0.1/24 dev tun1");
    daemon.says("left alone for 2 s");
}

/// Twenty thousand route changes of a routing daemon: not one pass, hardly any time.
fn other_daemons_routes_wake_nobody() {
    let world = World::new();
    let host = world.lone();
    let mut daemon = Daemon::start(&host, SMALL);
    daemon.says("pass: 1 created");
    let before = daemon.ticks();
    for verb in ["add", "del"] {
        let script: String = (0..10_000)
            .map(|n| {
                format!(
                    "route {verb} blackhole 10.{}.{}.0/24 proto bird\n",
                    n / 256,
                    n % 256
                )
            })
            .collect();
        host.ip(&script);
    }
    let spent = daemon.ticks() - before;
    assert!(spent <= 5, "{spent} hundredths of a second");
    daemon.is_quiet(Duration::from_millis(200));
    host.ip("link del tun1");
    daemon.says("pass: 1 created");
}

/// `mtu: auto` and `{device: eth0}` follow what becomes of the underlay.
fn the_underlay_is_followed() {
    let world = World::new();
    let host = world.lone();
    let topology = "name: t\ntunnels: {tun1: {local: {device: eth0}, remote: 192.168.20.2}}\n";
    let mut daemon = Daemon::start(&host, topology);
    daemon.says("mtu 1480");
    host.ip("link set eth0 mtu 1400");
    daemon.says("mtu: 1480 -> 1380");
    host.ip("addr del 192.168.10.2/24 dev eth0");
    daemon.says("pending: tunnel tun1 waits for an address on eth0");
    host.ip("addr add 192.168.10.77/24 dev eth0");
    daemon.says("local: 192.168.10.2 -> 192.168.10.77");
}

/// A routing daemon's routes wake it only where they lead to a remote.
fn a_routing_daemons_underlay_is_followed() {
    let world = World::new();
    let host = world.lone();
    host.ip("link add eth1 up mtu 1300 type dummy\naddr add 192.168.30.2/24 dev eth1");
    let topology = "name: t\ntunnels: {tun1: {local: 192.168.10.2, remote: 192.168.20.2}}\n";
    let mut daemon = Daemon::start(&host, topology);
    daemon.says("mtu 1480");
    host.ip("route add 192.168.20.0/24 via 192.168.30.1 proto bird");
    daemon.says("mtu: 1480 -> 1280");
    host.ip("route add 192.168.20.2/32 via 192.168.10.1 proto bird");
    daemon.says("mtu: 1280 -> 1480");
    host.ip("route del 192.168.20.2/32 proto bird");
    daemon.says("mtu: 1480 -> 1280");
    host.ip("route del 192.168.20.0/24 proto bird");
    daemon.says("mtu: 1280 -> 1480");
    daemon.says_nothing_more();
    let before = wakes(&daemon);
    host.ip("route add 192.168.21.0/24 via 192.168.30.1 proto bird");
    daemon.is_quiet(Duration::from_millis(300));
    assert_eq!(wakes(&daemon), before);
    // Another file is about other ways.
    daemon.write(&topology.replace("20.2", "21.2"));
    daemon.says("mtu: 1480 -> 1280");
    host.ip("route del 192.168.21.0/24 proto bird");
    daemon.says("mtu: 1280 -> 1480");
}

fn signals() {
    let world = World::new();
    let host = world.lone();
    let mut daemon = Daemon::start(&host, SMALL);
    daemon.says("pass: 1 created");
    let before = host.seen();
    daemon.signal(Signal::HUP);
    assert_eq!(daemon.end(Signal::TERM), Some(0));
    assert_same(&host.seen(), &before);
    let mut again = Daemon::start_with(&host, SMALL, &["--on-exit", "destroy"], &[]);
    again.is_quiet(Duration::from_millis(500));
    assert_same(&host.seen(), &before);
    assert_eq!(again.end(Signal::INT), Some(0));
    assert!(host.seen().find_link("tun1").is_none());
}

fn the_service_manager_is_told() {
    let world = World::new();
    let host = world.lone();
    let path = format!("/run/notify-{}", host.netns);
    let socket = UnixDatagram::bind(&path).expect("a socket in /run");
    socket
        .set_read_timeout(Some(PATIENCE))
        .expect("a time limit");
    let hears = |text: &str| {
        let mut said = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(length) = socket.recv(&mut buffer) {
            said.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
            if said.last().is_some_and(|last| last.contains(text)) {
                return said;
            }
        }
        panic!("not a word of {text:?} in {said:?}");
    };
    let environment = [
        ("NOTIFY_SOCKET", path.as_str()),
        ("WATCHDOG_USEC", "400000"),
    ];
    let daemon = Daemon::start_with(&host, SMALL, &[], &environment);
    hears("STATUS=in sync: 1 tunnels");
    hears("READY=1");
    hears("WATCHDOG=1");
    daemon.signal(Signal::HUP);
    let reloading = hears("RELOADING=1");
    assert!(
        reloading
            .last()
            .is_some_and(|said| said.contains("MONOTONIC_USEC="))
    );
    hears("READY=1");
    daemon.write("name: t\ntunnels: [");
    hears("can't be used: ");
    daemon.end(Signal::TERM);
    hears("STOPPING=1");
}

/// One that applies by hand is told of the daemon; a second daemon of the same owner is refused.
fn apply_hears_of_the_daemon() {
    let world = World::new();
    let host = world.lone();
    let mut daemon = Daemon::start(&host, SMALL);
    daemon.says("pass: 1 created");
    let file = daemon.file.display().to_string();
    let note = format!(
        "`tunnelform watch` (process {}) follows {file} here",
        daemon.child.id()
    );
    host.tunnelform(&["apply", "-"], SMALL).ok().says(&note);
    host.tunnelform(&["status", "-"], SMALL).ok().says(&note);
    run(TUNNELFORM, &["watch", "--netns", &host.netns, &file], "")
        .exits(1)
        .says("keeps this owner's objects");
    daemon.end(Signal::TERM);
    let quiet = host.tunnelform(&["apply", "-"], SMALL).ok();
    assert!(!quiet.stderr.contains("watch"), "{}", quiet.stderr);
}

fn a_kill_harms_nothing() {
    let world = World::new();
    let host = world.lone();
    let mut daemon = Daemon::start(&host, TOPOLOGY);
    daemon.says("pass: ");
    let before = host.seen();
    daemon.end(Signal::KILL);
    let mut again = Daemon::start(&host, TOPOLOGY);
    again.is_quiet(Duration::from_millis(500));
    assert_same(&host.seen(), &before);
    host.ip("link del tun1");
    again.says("pass: ");
    host.settled(TOPOLOGY);
}
