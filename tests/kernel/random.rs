//! Random topologies on a host in a random state: applied, observed, nothing left to do, foreign objects untouched.
//!
//! The state that a case starts from is what the case before left, damaged by random `ip` commands.

use std::fmt::Write;

use tunnelform::topology::Topology;

use super::atomic::without_numbers;
use super::world::{Host, Seen, World, assert_same, run, trials};

trials!(topologies, rolled_back);

/// Cases of one run: one or two a second on one slow processor.
const CASES: u64 = 200;
/// How often something is applied and rolled back, unless `TUNNELFORM_TRIALS` says more: each takes two seconds.
const TRIALS: usize = 30;
/// Of this many topologies that came out valid, few may be empty: else the test would prove nothing.
const LEAST_CHANGES: usize = 600;

/// Names that a topology may use; what isn't ours has others.
pub const TUNNELS: [&str; 5] = ["tun1", "tun2", "tun3", "tun4", "tun5"];

/// SplitMix64: all that a test needs of randomness is a seed that can be written down.
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len() as u64) as usize]
    }

    /// Each word with the probability of one in two.
    pub fn some<'a>(&mut self, words: &[&'a str]) -> Vec<&'a str> {
        words.iter().copied().filter(|_| self.once_in(2)).collect()
    }
}

/// The seed of this run, which is shown.
pub fn seed() -> u64 {
    let seed = std::env::var("TUNNELFORM_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| std::process::id() as u64 ^ now());
    println!("seed {seed}; TUNNELFORM_SEED={seed} runs the same cases");
    seed
}

fn topologies() {
    let seed = seed();
    let mut random = Random(seed);
    let world = World::new();
    let host = ready(&world);
    let foreign = host.seen();
    let mut changes = 0;
    for case in 0..CASES {
        damage(&host, &mut random);
        let topology = topology(&mut random);
        let shown = Shown(format!("case {case} of seed {seed}:\n{topology}"));
        changes += host.apply(&topology).changes().len();
        same(&foreign, &host.seen());
        drop(shown);
    }
    assert!(
        changes > LEAST_CHANGES,
        "only {changes} changes in {CASES} cases"
    );
    let gone = "name: random\n";
    host.apply(gone);
    assert!(
        host.seen().tunnels().into_iter().eq(["foreign"]),
        "{:?}",
        host.seen().tunnels()
    );
}

/// Applied and rolled back, the host is as before: what was made, changed, adopted, pruned, and dropped along. Every
/// other topology then stays, for the next case to begin with. Second routes of one key aren't put back, and aren't here.
fn rolled_back() {
    let seed = seed();
    let mut random = Random(seed);
    let world = World::new();
    let host = ready(&world);
    let wanted = std::env::var("TUNNELFORM_TRIALS").ok();
    let wanted = wanted.map_or(TRIALS, |text| text.parse().expect("a number"));
    let mut trials = 0;
    while trials < wanted {
        damage_of(&host, &mut random, 11);
        let topology = topology(&mut random);
        let shown = Shown(format!("trial {trials} of seed {seed}:\n{topology}"));
        let before = without_history(host.seen());
        if has_dead_hop(&before) {
            host.apply_with(&topology, &["--adopt"]);
            continue;
        }
        let run = host
            .try_apply(&topology, &["--adopt", "--confirm-within", "1h"])
            .ok();
        if !run.plan().changes().is_empty() {
            trials += 1;
            host.tunnelform(&["rollback"], "").ok();
            assert_same(&without_history(host.seen()), &before);
        }
        if random.once_in(2) {
            host.apply_with(&topology, &["--adopt"]);
        }
        drop(shown);
    }
}

/// Whether a route has a hop on a device that is down, as the kernel lets nobody make one.
fn has_dead_hop(seen: &Seen) -> bool {
    let hops = seen
        .routes
        .iter()
        .filter_map(|route| route["nexthops"].as_array());
    let is_dead = |hop: &serde_json::Value| hop["flags"].to_string().contains("dead");
    hops.flatten().any(is_dead)
}

/// Without what a device can't have again: its number, no queue at all until it was first up, its first `local`.
fn without_history(seen: Seen) -> Seen {
    let mut seen = without_numbers(seen);
    for link in &mut seen.links {
        if let Some(map) = link.as_object_mut() {
            map.remove("qdisc");
            map.remove("permaddr");
        }
    }
    seen
}

/// The case in hand, shown if it fails.
struct Shown(String);

impl Drop for Shown {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0);
        }
    }
}

fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.as_nanos() as u64)
}

/// A host with an underlay, and with things of others on the devices and in the tables that the topologies use.
pub fn ready(world: &World) -> Host {
    let host = world.lone();
    host.ip("link add d0 up mtu 1400 type dummy
             addr add 172.16.0.1/24 dev d0
             addr add 10.250.0.1/24 dev eth0
             addr add 10.250.0.2/24 dev eth0
             link add foreign type ipip local 192.168.10.2 remote 192.0.2.250
             link set foreign up
             addr add 10.251.0.1/24 dev foreign
             route add 10.252.0.0/16 dev foreign
             route add 10.253.0.0/16 via 192.168.10.9 src 10.250.0.2
             route add 10.254.0.0/16 via 192.168.10.9 table 100
             route add blackhole 10.255.0.0/16");
    host
}

/// What `ip` commands may have done meanwhile to things of ours.
pub fn damage(host: &Host, random: &mut Random) {
    damage_of(host, random, 12);
}

/// As [`damage`], of so many kinds. The last is a second route with the key of another.
fn damage_of(host: &Host, random: &mut Random, kinds: u64) {
    let mut script = String::new();
    for _ in 0..random.below(5) {
        let tunnel = random.pick(&TUNNELS);
        let number = random.below(6);
        let line = match random.below(kinds) {
            0 => format!("link del {tunnel}"),
            1 => format!("link set {tunnel} down"),
            2 => format!("link set {tunnel} type ipip ttl 9"),
            3 => format!("link set {tunnel} mtu {}", 1300 + number),
            4 => format!("addr add 10.1.{number}.77/24 dev {tunnel}"),
            5 => format!("addr flush dev {tunnel}"),
            6 => format!("route add 10.20.{number}.0/24 dev {tunnel} proto 117"),
            7 => format!("route replace blackhole 10.20.{number}.0/24 proto 117"),
            8 => "route flush proto 117".to_owned(),
            9 => format!("-6 route add 2001:db8:{number}::/48 dev d0 proto 117"),
            10 => format!(
                "link set {tunnel} type ipip remote 192.0.2.{}",
                100 + number
            ),
            _ => format!("route append 10.20.{number}.0/24 dev {tunnel} proto 117"),
        };
        let _ = writeln!(script, "{line}");
    }
    // Half of them fail, for what they damage isn't there.
    run("ip", &["-n", &host.netns, "-force", "-batch", "-"], &script);
}

/// A topology that validates.
pub fn topology(random: &mut Random) -> String {
    loop {
        let text = any_topology(random);
        match Topology::parse("random", &text) {
            Ok(_) => return text,
            Err(problems) if problems.list.is_empty() => {
                panic!("refused without a reason:\n{text}")
            }
            Err(_) => {}
        }
    }
}

fn any_topology(random: &mut Random) -> String {
    let mut text = "name: random\ntunnels:\n".to_owned();
    let mut up = Vec::new();
    for (number, tunnel) in random.some(&TUNNELS).into_iter().enumerate() {
        if any_tunnel(random, tunnel, number, &mut text) {
            up.push(tunnel);
        }
    }
    if text.ends_with("tunnels:\n") {
        text = "name: random\n".to_owned();
    }
    text += "addresses:\n";
    let _ = writeln!(
        text,
        "  lo: [{}]",
        random
            .some(&["10.2.0.1/32", "10.2.0.2/32", "2001:db8:ffff::1/128"])
            .join(", ")
    );
    let _ = writeln!(
        text,
        "  d0: [{}]",
        random
            .some(&["10.3.0.1/24", "10.3.0.2/24", "10.3.0.3/25"])
            .join(", ")
    );
    text += "routes:\n  - {to: 10.30.0.0/16, type: blackhole}\n";
    for _ in 0..random.below(5) {
        let _ = writeln!(text, "  - {}", any_route(random, &up));
    }
    text
}

/// Writes a tunnel; whether it's up, so that it can have routes.
fn any_tunnel(random: &mut Random, name: &str, number: usize, text: &mut String) -> bool {
    let _ = writeln!(
        text,
        "  {name}:\n    local: {}",
        random.pick(&["192.168.10.2", "192.168.10.2", "10.250.0.1"])
    );
    if !random.once_in(5) {
        let _ = writeln!(text, "    remote: 192.0.2.{}", 1 + random.below(4));
    }
    for option in random.some(&[
        "mode: any",
        "ttl: 64",
        "tos: inherit",
        "device: eth0",
        "fwmark: 7",
        "mtu: 1300",
    ]) {
        let _ = writeln!(text, "    {option}");
    }
    let down = random.once_in(6);
    if down {
        text.push_str("    state: down\n");
    }
    let prefix_len = random.pick(&["24", "25", "32"]);
    let _ = writeln!(
        text,
        "    addresses: [10.1.{number}.1/{prefix_len}, 10.1.{number}.{}/24]",
        2 + random.below(2)
    );
    if !down {
        let via = format!(
            "{{to: 10.21.{number}.0/24, via: 192.0.2.9, onlink: true, metric: {}}}",
            random.below(3)
        );
        let _ = writeln!(text, "    routes: [10.20.{number}.0/24, {via}]");
    }
    !down
}

fn any_route(random: &mut Random, up: &[&str]) -> String {
    let number = random.below(6);
    let kind = random.pick(&["blackhole", "unreachable", "prohibit", "throw"]);
    match random.below(7) {
        0 => format!("{{to: 10.20.{number}.0/24, type: {kind}}}"),
        1 => format!(
            "{{to: 10.31.{number}.0/24, via: 192.168.10.1, device: eth0, mtu: 1200, table: 100}}"
        ),
        2 => format!("{{to: 10.31.{number}.0/24, device: d0, metric: {number}, scope: link}}"),
        3 => format!("{{to: '2001:db8:{number}::/48', device: d0}}"),
        4 => format!("{{to: '2001:db8:{number}::/48', type: {kind}}}"),
        5 => format!(
            "{{to: 10.32.{number}.0/24, via: 192.168.10.1, device: eth0, src: 192.168.10.2}}"
        ),
        _ => match up {
            [first, second, ..] => format!(
                "{{to: 10.33.{number}.0/24, nexthops: [{{device: {first}}}, {{device: {second}, weight: 3}}]}}"
            ),
            _ => format!(
                "{{to: 10.33.{number}.0/24, via: 192.168.10.1, device: eth0, advmss: 1000, metric: 9}}"
            ),
        },
    }
}

/// What isn't ours is as it was.
pub fn same(before: &Seen, after: &Seen) {
    let (before, after) = (
        before.without(&TUNNELS, "117"),
        after.without(&TUNNELS, "117"),
    );
    for link in &before.links {
        assert!(
            after
                .links
                .iter()
                .any(|other| other["ifname"] == link["ifname"]),
            "{link} is gone"
        );
    }
    for address in &before.addresses {
        assert!(
            after.addresses.contains(address),
            "{address} is gone or changed"
        );
    }
    for route in &before.routes {
        assert!(after.routes.contains(route), "{route} is gone or changed");
    }
}
