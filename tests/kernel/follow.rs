//! What the daemon follows: directories, links, silent file systems, devices that come and go, others beside it.

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::watch::{Daemon, SMALL, ttl};
use crate::world::{Host, TUNNELFORM, World, assert_same, trials, wait_until};

trials![
    a_directory_is_followed,
    a_configmap_is_followed,
    a_silent_file_system_is_read_again_and_again,
    a_good_file_may_come_late,
    a_node_may_be_known_late,
    a_refused_change_is_tried_again,
    an_overrun_is_one_pass,
    a_device_that_returns_has_its_tunnel_again,
    a_vrf_is_followed,
    apply_may_work_beside,
    a_lock_keeps_no_signal_waiting,
    two_owners_in_one_namespace,
    an_owner_of_another_daemon_is_left_to_it,
    news_during_a_pass,
    on_exit_destroy_takes_only_what_is_ours,
    one_capability_is_enough
];

/// A new directory on the tmpfs inside.
fn directory(host: &Host, name: &str) -> PathBuf {
    let path = PathBuf::from(format!("/run/{name}-{}", host.netns));
    fs::create_dir_all(&path).expect("a directory in /run");
    path
}

fn write(path: impl AsRef<Path>, text: &str) {
    fs::write(path, text).expect("a file can be written");
}

fn a_directory_is_followed() {
    let world = World::new();
    let host = world.lone();
    let place = directory(&host, "parts");
    write(place.join("1.yaml"), SMALL);
    let mut daemon = Daemon::follow(&host, &place, &[]);
    daemon.says("pass: 1 created");
    let second = "tunnels: {tun2: {local: 192.168.10.2, remote: 192.168.20.3}}\n";
    write(place.join("2.yaml"), second);
    daemon.says("pass: 1 created");
    write(place.join("1.yaml"), &SMALL.replace("64", "65"));
    daemon.says("pass: 0 created, 1 changed");
    write(place.join(".3.yaml.swp"), "an editor's");
    daemon.is_quiet(Duration::from_millis(600));
    fs::remove_file(place.join("2.yaml")).expect("a deletion");
    daemon.says("1 deleted");
    fs::remove_dir_all(&place).expect("a deletion");
    daemon.says("the last good topology stays in force");
    assert_eq!(ttl(&host), Some(65));
    fs::create_dir(&place).expect("a directory");
    write(place.join("1.yaml"), SMALL);
    daemon.says("pass: 0 created, 1 changed");
}

/// As the kubelet does it: a link to a link to a directory, of which the one in the middle is swapped.
fn a_configmap_is_followed() {
    let world = World::new();
    let host = world.lone();
    let place = directory(&host, "configmap");
    let version = |number: u32, ttl: &str| {
        let name = format!("..{number}");
        fs::create_dir(place.join(&name)).expect("a directory");
        write(place.join(&name).join("hq.yaml"), &SMALL.replace("64", ttl));
        symlink(&name, place.join("..data_tmp")).expect("a link");
        fs::rename(place.join("..data_tmp"), place.join("..data")).expect("a rename");
    };
    version(1, "64");
    symlink("..data/hq.yaml", place.join("hq.yaml")).expect("a link");
    let mut daemon = Daemon::follow(&host, place.join("hq.yaml"), &[]);
    daemon.says("pass: 1 created");
    for (number, value) in [(2, "65"), (3, "66")] {
        version(number, value);
        daemon.says("pass: 0 created, 1 changed");
        assert_eq!(ttl(&host), value.parse().ok());
        fs::remove_dir_all(place.join(format!("..{}", number - 1))).expect("a deletion");
    }
    daemon.is_quiet(Duration::from_millis(600));
    // The directory as a whole, with its hidden parts.
    daemon.end(Signal::TERM);
    let mut daemon = Daemon::follow(&host, &place, &[]);
    version(4, "67");
    daemon.says("pass: 0 created, 1 changed");
}

/// hostfs is one: what changes there is told to nobody. Only what was read twice alike counts.
fn a_silent_file_system_is_read_again_and_again() {
    let world = World::new();
    let host = world.lone();
    let place = tempfile::tempdir().expect("a directory in /tmp");
    let magic = rustix::fs::statfs(place.path())
        .expect("a file system")
        .f_type;
    if magic != 0x00c0_ffee {
        println!("NOT RUN: /tmp isn't on hostfs, as this isn't User-mode Linux");
        return;
    }
    let file = place.path().join("hq.yaml");
    write(&file, SMALL);
    let mut daemon = Daemon::follow(&host, &file, &[]);
    daemon.says(
        "is on a file system that tells of no changes: the topology is read every 2 s instead",
    );
    daemon.says("pass: 1 created");
    write(&file, &SMALL.replace("64", "65"));
    daemon.says("pass: 0 created, 1 changed");
    assert_eq!(ttl(&host), Some(65));
    host.ip("link del tun1");
    daemon.says("pass: 1 created");
}

fn a_good_file_may_come_late() {
    let world = World::new();
    let host = world.lone();
    let place = directory(&host, "late");
    let mut daemon = Daemon::follow(&host, place.join("hq.yaml"), &[]);
    daemon.says("can't be used, there is none in force yet");
    write(place.join("hq.yaml"), "name: t\ntunnels: [");
    daemon.says("not valid YAML");
    let start = Instant::now();
    write(place.join("hq.yaml"), SMALL);
    daemon.says("pass: 1 created");
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "it was told, not found"
    );
}

const FLEET: &str = "name: t
nodes:
  here: {underlay: 192.168.10.77, subnets: [10.244.1.0/24]}
  there: {underlay: 192.168.20.2, subnets: [10.244.2.0/24]}
meshes: {wan: {style: point-to-point, interface: to-, link_network: 10.10.0.0/16}}
";

fn a_node_may_be_known_late() {
    let world = World::new();
    let host = world.lone();
    let mut daemon = Daemon::start(&host, FLEET);
    daemon.says("there is none in force yet");
    host.ip("addr add 192.168.10.77/24 dev eth0");
    daemon.says("pass: ");
    daemon.says_nothing_more();
    host.settled(FLEET);
    // Also when another topology was good before.
    host.ip("addr del 192.168.10.77/24 dev eth0\naddr add 192.168.10.78/24 dev eth0");
    daemon.says_nothing_more();
    daemon.write(&FLEET.replace(".77", ".79"));
    daemon.says("the last good topology stays in force");
    host.ip("addr add 192.168.10.79/24 dev eth0");
    wait_until("the new topology is in force", || {
        host.plan(&FLEET.replace(".77", ".79")).moves().is_empty()
    });
}

/// A gateway that can't be reached: longer waits each time, the rest is as it should be, and what makes it reachable
/// brings its turn at once.
fn a_refused_change_is_tried_again() {
    let world = World::new();
    let host = world.lone();
    let topology = format!("{SMALL}routes: [{{to: 10.90.0.0/16, via: 10.80.0.1, device: eth0}}]\n");
    let mut daemon = Daemon::start(&host, &topology);
    let first = daemon.says("next try in");
    daemon.says("pass: 1 created, 0 changed, 0 replaced, 0 deleted, 1 failed");
    let mut waits = vec![wait(&first)];
    for _ in 0..3 {
        waits.push(wait(&daemon.says("next try in")));
    }
    assert!(waits.is_sorted() && waits[3] >= 6.0, "{waits:?}");
    host.ip("link del tun1");
    daemon.says("tun1");
    host.ip("addr add 10.80.0.2/24 dev eth0");
    let start = Instant::now();
    wait_until("the route is there", || {
        host.seen().routes_to("10.90.0.0/16").len() == 1
    });
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
    wait_until("all is well", || host.plan(&topology).moves().is_empty());
}

/// Seconds until the next try.
fn wait(message: &str) -> f64 {
    let seconds = message.rsplit("next try in ").next().unwrap_or_default();
    seconds.trim_end_matches(" s").parse().expect("seconds")
}

/// More news than there is room for while the daemon is stopped: one snapshot tells it all.
fn an_overrun_is_one_pass() {
    let world = World::new();
    let host = world.lone();
    let mut daemon = Daemon::start(&host, SMALL);
    daemon.says("pass: 1 created");
    daemon.is_quiet(Duration::from_millis(500));
    daemon.signal(Signal::STOP);
    for verb in ["add", "del"] {
        let script: String = (0..20_000)
            .map(|n| {
                format!(
                    "route {verb} blackhole 10.{}.{}.0/24 proto static\n",
                    n / 256,
                    n % 256
                )
            })
            .collect();
        host.ip(&script);
    }
    // Lost among so many.
    host.ip("link set tun1 type ipip ttl 9\naddr add 10.77.0.1/24 dev tun1");
    daemon.signal(Signal::CONT);
    let start = Instant::now();
    daemon.says("pass: ");
    let told = daemon.heard.last().cloned().unwrap_or_default();
    println!(
        "{} ms after it went on: {told}",
        start.elapsed().as_millis()
    );
    assert_eq!(told["trigger"], "overrun", "{told}");
    assert_eq!(ttl(&host), Some(64));
    host.settled(SMALL);
    daemon.is_quiet(Duration::from_millis(500));
}

fn a_device_that_returns_has_its_tunnel_again() {
    let world = World::new();
    let host = world.lone();
    host.ip("link add d1 up type dummy\naddr add 172.16.1.1/24 dev d1");
    let topology = "name: t\ntunnels:\n  tun1: {local: 172.16.1.1, remote: 172.16.1.2, device: d1, addresses: [10.1.0.1/24], routes: [10.244.0.0/16]}\n";
    let mut daemon = Daemon::start(&host, topology);
    daemon.says("pass: 3 created");
    host.ip("link del d1");
    daemon.says("waits for the device d1");
    host.ip("link add d1 up type dummy\naddr add 172.16.1.1/24 dev d1");
    wait_until("the tunnel is bound to the new device", || {
        host.plan(topology).moves().is_empty()
    });
    assert_eq!(host.seen().link("tun1")["link"], "d1");
}

/// A tunnel whose packets travel in a VRF, and routes in that VRF's table. Whoever puts the tunnel itself into a VRF has
/// it there still after a repair.
fn a_vrf_is_followed() {
    let world = World::new();
    let host = world.lone();
    let topology = "name: t\ntunnels: {tun1: {local: 192.168.10.2, remote: 192.168.20.2, device: red, addresses: [10.1.0.1/24], routes: [{to: 10.244.0.0/16, table: 10}]}}\n";
    let mut daemon = Daemon::start(&host, topology);
    daemon.says("pending: tunnel tun1 waits for the device red");
    for _ in 0..2 {
        host.ip("link add red up type vrf table 10");
        daemon.says("pass: 3 created");
        assert_eq!(host.seen().link("tun1")["link"], "red");
        host.settled(topology);
        host.ip("link set tun1 master red");
        wait_until("the routes are there again", || {
            host.plan(topology).moves().is_empty()
        });
        host.ip("addr del 10.1.0.1/24 dev tun1");
        wait_until("the address is there again", || {
            host.plan(topology).moves().is_empty()
        });
        assert_eq!(host.seen().link("tun1")["master"], "red");
        host.ip("link del tun1\nlink del red");
        daemon.says_nothing_more();
    }
}

/// `apply` of the same file and the daemon mend the same damage at once: neither fails, nothing is done twice.
fn apply_may_work_beside() {
    let world = World::new();
    let host = world.lone();
    let topology = "name: t\ntunnels: {tun1: {local: 192.168.10.2, addresses: [10.1.0.1/24], routes: [10.244.0.0/16]}}\n";
    let mut daemon = Daemon::start(&host, topology);
    daemon.says("pass: 3 created");
    // One fewer than what is taken for a fight.
    for damage in [
        "link del tun1",
        "addr flush dev tun1",
        "link set tun1 down",
        "link del tun1",
    ] {
        host.ip(damage);
        host.apply(topology);
        host.settled(topology);
    }
    daemon.says_nothing_more();
    for line in &daemon.heard {
        assert_eq!(line["level"], "INFO", "{line}");
    }
}

/// While another run holds the lock, the daemon still hears.
fn a_lock_keeps_no_signal_waiting() {
    let world = World::new();
    let host = world.lone();
    let mut daemon = Daemon::start(&host, SMALL);
    daemon.says("pass: 1 created");
    let lock = hold(&host);
    host.ip("link del tun1");
    daemon.is_quiet(Duration::from_millis(500));
    drop(lock);
    daemon.says("pass: 1 created");
    let _lock = hold(&host);
    host.ip("link del tun1");
    std::thread::sleep(Duration::from_millis(300));
    let start = Instant::now();
    assert_eq!(daemon.end(Signal::TERM), Some(0));
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
    let mut daemon = Daemon::start_with(&host, SMALL, &["--lock-timeout", "1"], &[]);
    daemon.says("no pass: another tunnelform is at work");
}

fn hold(host: &Host) -> fs::File {
    use std::os::unix::fs::MetadataExt;
    let namespace = fs::metadata(format!("/run/netns/{}", host.netns)).expect("the namespace");
    let path = format!(
        "/run/tunnelform/netns-{}-{}.lock",
        namespace.dev(),
        namespace.ino()
    );
    let file = fs::File::create(path).expect("the lock");
    file.lock().expect("the lock is free");
    file
}

fn another_owner(host: &Host) -> PathBuf {
    let file = directory(host, "other").join("other.yaml");
    write(
        &file,
        "name: other\nroute_protocol: 118\ntunnels: {tun2: {local: 192.168.10.2, remote: 192.168.20.3, addresses: [10.2.0.1/24], routes: [10.245.0.0/16]}}\n",
    );
    file
}

fn two_owners_in_one_namespace() {
    let world = World::new();
    let host = world.lone();
    let file = another_owner(&host);
    let mut one = Daemon::start(&host, SMALL);
    one.says("pass: 1 created");
    let mut other = Daemon::follow(&host, &file, &[]);
    other.says("pass: 3 created");
    for _ in 0..3 {
        host.ip("link del tun1\nlink del tun2");
        one.says("pass: 1 created");
        other.says("pass: 3 created");
    }
    one.says_nothing_more();
    other.says_nothing_more();
    other.end(Signal::TERM);
    host.ip("link del tun1\nlink del tun2");
    one.says("pass: 1 created");
    assert!(host.seen().find_link("tun2").is_none());
}

/// A file that suddenly names the owner that another daemon works for is a bad file.
fn an_owner_of_another_daemon_is_left_to_it() {
    let world = World::new();
    let host = world.lone();
    let file = another_owner(&host);
    let mut other = Daemon::follow(&host, &file, &[]);
    other.says("pass: 3 created");
    let mut one = Daemon::start(&host, SMALL);
    one.says("pass: 1 created");
    one.write(&SMALL.replace("name: t", "name: other"));
    one.says("the last good topology stays in force");
    let last = one.heard.last().cloned().unwrap_or_default();
    assert!(
        last.to_string().contains("keeps this owner's objects"),
        "{last}"
    );
    host.ip("link del tun1");
    one.says("pass: 1 created");
    assert!(host.seen().find_link("tun2").is_some());
    other.end(Signal::TERM);
    one.says("1 deleted");
}

/// A pass of 300 tunnels takes a while: SIGHUP, an edit and damages that come meanwhile have their turn after it.
fn news_during_a_pass() {
    let world = World::new();
    let host = world.lone();
    let many = |ttl: u32| -> String {
        let tunnels = (0..300).map(|n| {
            format!(
                "  t{n}: {{local: 192.168.10.2, remote: 192.168.{}.{}, ttl: {ttl}}}\n",
                30 + n / 200,
                1 + n % 200
            )
        });
        format!("name: t\ntunnels:\n{}", tunnels.collect::<String>())
    };
    let mut daemon = Daemon::start(&host, &many(64));
    wait_until("it's at work", || {
        host.exec(&["ip", "link", "show", "t9"]).code == 0
    });
    daemon.signal(Signal::HUP);
    daemon.write(&many(65));
    daemon.signal(Signal::HUP);
    host.ip("link del t3");
    wait_until("all is as the second file says", || {
        host.plan(&many(65)).moves().is_empty()
    });
    daemon.says("pass: ");
    daemon.end(Signal::TERM);
}

fn on_exit_destroy_takes_only_what_is_ours() {
    let world = World::new();
    let host = world.lone();
    host.ip(
        "link add foreign type ipip local 192.168.10.2 remote 192.0.2.9
             route add blackhole 10.99.0.0/16 proto bird",
    );
    let before = host.seen();
    let topology = format!(
        "{SMALL}addresses: {{lo: [10.0.0.1/32]}}\nroutes: [{{to: 10.66.0.0/16, type: blackhole}}]\n"
    );
    let mut daemon = Daemon::start_with(&host, &topology, &["--on-exit", "destroy"], &[]);
    daemon.says("pass: 3 created");
    daemon.signal(Signal::TERM);
    daemon.says("stopping: what the topology owns is taken away");
    assert_eq!(daemon.end(Signal::TERM), Some(0));
    assert_same(&host.seen(), &before);
}

/// As the unit in `examples/systemd` runs it: another user, and no capability but one.
fn one_capability_is_enough() {
    let world = World::new();
    let host = world.lone();
    let (user, place) = (65534, directory(&host, "user"));
    chown(&place, Some(user), Some(user)).expect("a user of its own");
    let file = directory(&host, "file").join("hq.yaml");
    let topology = format!("{SMALL}addresses: {{lo: [10.0.0.1/32]}}\n");
    write(&file, &topology);
    let mut command = Command::new("setpriv");
    command
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--no-new-privs",
        ])
        .args([
            "--inh-caps=-all,+net_admin",
            "--ambient-caps=-all,+net_admin",
            "--bounding-set=-all,+net_admin",
        ])
        .args([TUNNELFORM, "watch", "--log-format", "json"])
        .arg(&file)
        .env("TUNNELFORM_RUN_DIR", &place);
    let mut daemon = host.inside(|| Daemon::spawn(command, file));
    daemon.says("pass: 2 created");
    let status =
        fs::read_to_string(format!("/proc/{}/status", daemon.child.id())).expect("it runs");
    assert!(status.contains("CapEff:\t0000000000001000\n"), "{status}");
    assert!(status.contains("Uid:\t65534\t"), "{status}");
    host.ip("link del tun1");
    daemon.says("pass: 1 created");
    daemon.write(&topology.replace("64", "65"));
    daemon.says("pass: 0 created, 1 changed");
    assert_eq!(ttl(&host), Some(65));
    assert_eq!(daemon.end(Signal::TERM), Some(0));
}
