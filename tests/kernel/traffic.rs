//! Packets in flight while something changes: none is lost where the plan says so, and few where it says briefly.

use std::process::{Child, Command, Stdio};

use crate::seed::{LEFT, Pair, number_before, received};
use crate::world::{Host, Plan, Run, assert_same, trials, wait_until};

trials![
    other_changes_lose_nothing,
    own_ttl_loses_nothing,
    every_operation,
    mesh_node_joins_and_leaves,
    adoption,
    require_hitless,
];

/// How many echoes go out, one every 4 ms.
const ECHOES: u32 = 800;

/// A stream of echoes.
struct Stream(Child);

impl Stream {
    fn start(host: &Host, to: &str) -> Self {
        let mut ping = Command::new("ping");
        ping.args([
            "-n",
            "-q",
            "-i",
            "0.004",
            "-W",
            "2",
            "-c",
            &ECHOES.to_string(),
            to,
        ]);
        ping.stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self(host.inside(|| ping.spawn().expect("ping starts")))
    }

    fn flows(&mut self) -> bool {
        self.0.try_wait().expect("its state").is_none()
    }

    /// How many were answered.
    fn end(self) -> u32 {
        let run = Run::new("ping".into(), self.0.wait_with_output().expect("ping ends"));
        received(&run.stdout)
    }
}

/// Echoes until they are stopped.
pub struct Flood(Child);

impl Flood {
    /// One echo every 20 ms.
    pub fn start(host: &Host, to: &str) -> Self {
        Self::start_every(host, to, "0.02")
    }

    /// `seconds` from one echo to the next. The first is out.
    pub fn start_every(host: &Host, to: &str, seconds: &str) -> Self {
        let mut ping = Command::new("ping");
        ping.args(["-n", "-q", "-i", seconds, "-W", "5", to]);
        ping.stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        host.inside(|| {
            let before = icmp_counters();
            let flood = Self(ping.spawn().expect("ping starts"));
            wait_until("an echo goes out", || icmp_counters() != before);
            flood
        })
    }

    /// How many were sent, and how many answered. One that is on its way counts as answered.
    pub fn end(self) -> (u32, u32) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("ping is there");
        let run = Run::new("ping".into(), self.0.wait_with_output().expect("ping ends"));
        let sent = number_before(&run.stdout, " packets transmitted");
        let answered = received(&run.stdout);
        (sent, if sent == answered + 1 { sent } else { answered })
    }
}

/// What the network namespace of this thread has counted of ICMP.
fn icmp_counters() -> Vec<String> {
    let counters = std::fs::read_to_string("/proc/thread-self/net/snmp").expect("it's there");
    let lines = counters.lines().filter(|line| line.starts_with("Icmp"));
    lines.map(str::to_owned).collect()
}

/// The left host's topology as the n-th change has it: everything but the tunnel's own options varies.
fn varied(n: usize) -> String {
    let other = ["1", "255"][n % 2];
    let hop = ["10.10.100.2", "10.10.100.3"][n % 2];
    let more = ["", ", 10.10.102.1/24, 10.10.100.9/24"][n % 2];
    format!(
        "version: 1\nname: left\ntunnels:\n  \
         tun1: {{local: 192.168.10.2, remote: 192.168.20.2, ttl: 64, addresses: [10.10.100.1/24{more}], \
         routes: [{{to: 10.244.2.0/24, via: {hop}, metric: 5}}]}}\n  \
         tun2: {{local: 192.168.10.2, remote: 192.168.30.2, ttl: {other}, addresses: [10.10.101.1/24]}}\n"
    )
}

/// While another tunnel's `ttl` changes, the route that the packets take is replaced, and addresses come and go on the
/// very tunnel, not one echo is lost.
fn other_changes_lose_nothing() {
    let pair = Pair::connected();
    // An ipip tunnel has one far end: it takes the packet whatever the gateway is called.
    pair.right.ip("addr add 10.244.2.1/24 dev lo");
    pair.left.apply(&varied(0));
    let mut stream = Stream::start(&pair.left, "10.244.2.1");
    let mut changes = 0;
    while stream.flows() {
        changes += 1;
        let plan = pair.left.apply(&varied(changes));
        assert!(
            plan.changes()
                .iter()
                .all(|change| change["action"] != "replace"),
            "{}",
            plan.told()
        );
    }
    assert_eq!(stream.end(), ECHOES, "after {changes} changes");
    assert!(changes >= 5, "only {changes} changes");
}

/// The tunnel's own `ttl` changes while it carries the stream.
fn own_ttl_loses_nothing() {
    let pair = Pair::connected();
    let mut stream = Stream::start(&pair.left, "10.10.100.2");
    let mut changes = 0;
    while stream.flows() {
        changes += 1;
        let ttl = ["ttl: 64", "ttl: 63"][changes % 2];
        pair.left
            .does(&LEFT.replace("ttl: 64", ttl), &["update tunnel tun1"]);
    }
    assert_eq!(stream.end(), ECHOES, "after {changes} changes");
    assert!(changes >= 3, "only {changes} changes");
}

/// The left host's topology, of which each operation changes a part.
const BASE: &str = "\
version: 1
name: left
tunnels:
  tun1: {local: 192.168.10.2, remote: 192.168.20.2, ttl: 64, addresses: [10.10.100.1/24], routes: [ROUTE]}
  tun9: {local: 192.168.10.2, remote: 192.168.90.2}
";
/// On a unicast tunnel the gateway says nothing, on a multipoint one it's the far end.
const ROUTE: &str = "{to: 10.244.2.0/24, via: 192.168.20.2, onlink: true}";

/// What an operation may do to the stream, which goes by `tun1` and its route.
enum Loses {
    /// Every change says `none`.
    Nothing,
    /// Some change of what the stream doesn't take says that it stops, or it's about packets larger than the stream's.
    NothingHere,
    /// Some change says `brief`, and packets are lost.
    AFew,
}

/// Echoes that one replacement may cost: 20 ms, at one every 4 ms.
const MOST_LOST: u32 = 5;

/// How often each operation is done, and as often back.
const TURNS: u32 = 1;

/// Each operation with what it replaces in [`BASE`].
const OPERATIONS: &[(&str, &str, &str, Loses)] = &[
    ("ttl", "ttl: 64", "ttl: 63", Loses::Nothing),
    ("tos", "ttl: 64", "ttl: 64, tos: 4", Loses::Nothing),
    ("fwmark", "ttl: 64", "ttl: 64, fwmark: 7", Loses::Nothing),
    ("pmtudisc", "ttl: 64", "pmtudisc: false", Loses::NothingHere),
    ("mtu", "ttl: 64", "ttl: 64, mtu: 1400", Loses::NothingHere),
    (
        "device",
        "ttl: 64",
        "ttl: 64, device: eth0",
        Loses::NothingHere,
    ),
    ("mode", "ttl: 64", "ttl: 64, mode: any", Loses::AFew),
    (
        "multipoint",
        "remote: 192.168.20.2",
        "remote: any",
        Loses::AFew,
    ),
    (
        "more addresses",
        "100.1/24",
        "100.1/24, 10.10.102.1/24, 10.10.100.9/24",
        Loses::NothingHere,
    ),
    (
        "an address's metric",
        "10.10.100.1/24",
        "{address: 10.10.100.1/24, metric: 5}",
        Loses::Nothing,
    ),
    (
        "an address's label",
        "10.10.100.1/24",
        "{address: 10.10.100.1/24, label: 'tun1:x'}",
        Loses::AFew,
    ),
    (
        "a gateway",
        "via: 192.168.20.2",
        "via: 192.168.20.3",
        Loses::Nothing,
    ),
    (
        "a metric",
        "onlink: true",
        "onlink: true, metric: 7",
        Loses::Nothing,
    ),
    (
        "a source",
        "onlink: true",
        "onlink: true, src: 10.10.100.1",
        Loses::Nothing,
    ),
    (
        "a route's mtu",
        "onlink: true",
        "onlink: true, mtu: 1300",
        Loses::NothingHere,
    ),
    (
        "a tos",
        "[ROUTE]",
        "[ROUTE, {to: 10.244.2.0/24, tos: 16}]",
        Loses::NothingHere,
    ),
    (
        "several next hops",
        ", routes: [ROUTE]}\n  tun9: {local: 192.168.10.2, remote: 192.168.90.2}",
        "}\n  tun9: {local: 192.168.10.2, remote: 192.168.90.2}\nroutes: [{to: 10.244.2.0/24, nexthops: [\
         {via: 192.168.20.2, device: tun1, onlink: true}, {via: 192.168.20.3, device: tun1, onlink: true}]}]",
        Loses::Nothing,
    ),
    (
        "a longer prefix",
        "[ROUTE]",
        "[ROUTE, 10.244.2.0/28]",
        Loses::NothingHere,
    ),
    (
        "a shorter prefix",
        "[ROUTE]",
        "[ROUTE, 10.244.0.0/16]",
        Loses::NothingHere,
    ),
    (
        "another remote",
        "192.168.90.2",
        "192.168.91.2",
        Loses::NothingHere,
    ),
    (
        "another mode",
        "remote: 192.168.90.2",
        "remote: 192.168.90.2, mode: any",
        Loses::NothingHere,
    ),
    (
        "another down",
        "192.168.90.2",
        "192.168.90.2, state: down",
        Loses::NothingHere,
    ),
    ("another name", "tun9", "tun8", Loses::NothingHere),
];

/// The changes of a plan that say something else than `none`.
fn hits(plan: &Plan) -> Vec<String> {
    let hits = plan.changes().iter();
    let hits = hits.filter(|change| change["effect"] != "none");
    hits.map(|change| {
        format!(
            "{} {}: {}",
            change["object"], change["key"], change["effect"]
        )
    })
    .collect()
}

/// A stream flows while each operation is done and taken back: what a plan says of its effect is so.
fn every_operation() {
    let pair = Pair::connected();
    pair.right.ip("addr add 10.244.2.1/24 dev lo");
    let base = BASE.replace("ROUTE", ROUTE);
    pair.left.apply(&base);
    for (what, old, new, loses) in OPERATIONS {
        let [old, new] = [old, new].map(|part| part.replace("ROUTE", ROUTE));
        let changed = base.replacen(&old, &new, 1);
        let flood = Flood::start_every(&pair.left, "10.244.2.1", "0.004");
        let mut told = Vec::new();
        for _ in 0..TURNS {
            for file in [&changed, &base] {
                let plan = pair.left.apply(file);
                assert!(!plan.changes().is_empty(), "{what} changes nothing");
                told.extend(hits(&plan));
            }
        }
        let (sent, answered) = flood.end();
        let lost = sent - answered;
        println!("{what}: {lost} of {sent} lost; told: {told:?}");
        match loses {
            Loses::Nothing => assert_eq!((lost, told), (0, vec![]), "{what}"),
            Loses::NothingHere => assert_eq!(lost, 0, "{what}"),
            Loses::AFew => {
                assert!(
                    lost <= MOST_LOST * 2 * TURNS,
                    "{what}: {lost} of {sent} lost"
                );
                assert!(
                    !told.is_empty() && told.iter().all(|hit| hit.ends_with("\"brief\"")),
                    "{what}: {told:?}"
                );
            }
        }
    }
}

/// A third node joins a mesh, and leaves it: the other two don't notice, and no plan says that they could.
fn mesh_node_joins_and_leaves() {
    let pair = Pair::new();
    let fleet = |third: &str| {
        format!(
            "version: 1\nname: pods\nnodes:\n  left: {{underlay: 192.168.10.2, subnets: [10.244.1.0/24]}}\n  \
             right: {{underlay: 192.168.20.2, subnets: [10.244.2.0/24]}}\n{third}meshes: {{pods: {{interface: pods0}}}}\n"
        )
    };
    let (two, three) = (
        fleet(""),
        fleet("  third: {underlay: 192.168.30.2, subnets: [10.244.3.0/24]}\n"),
    );
    let nodes = [(&pair.left, "left"), (&pair.right, "right")];
    for (host, node) in nodes {
        host.apply_with(&two, &["--node", node]);
    }
    let flood = Flood::start_every(&pair.left, "10.244.2.0", "0.004");
    for (file, effect) in [(&three, "none"), (&two, "stops"), (&three, "none")] {
        for (host, node) in nodes {
            let plan = host.apply_with(file, &["--node", node]);
            let change = plan.change("route", "10.244.3.0/24");
            assert_eq!(change["effect"], effect);
            assert_eq!(plan.changes().len(), 1);
        }
    }
    let (sent, answered) = flood.end();
    assert_eq!(sent, answered);
}

/// What somebody made by hand is taken over under the stream.
fn adoption() {
    let pair = Pair::connected();
    pair.left.ip("link del tun1
        link add tun1 type ipip local 192.168.10.2 remote 192.168.20.2 ttl 64
        link set tun1 up
        addr add 10.10.100.1/24 dev tun1
        route add 10.244.2.0/24 dev tun1");
    pair.right.ip("addr add 10.244.2.1/24 dev lo");
    let file = LEFT.replace("ttl: 64", "ttl: 64\n    mode: any");
    let flood = Flood::start_every(&pair.left, "10.244.2.1", "0.004");
    let plan = pair
        .left
        .apply_with(&file, &["--adopt", "--require-hitless"]);
    let (sent, answered) = flood.end();
    assert_eq!(sent, answered);
    assert_eq!(
        plan.moves(),
        ["update route 10.244.2.0/24", "update tunnel tun1"]
    );
}

/// With `--require-hitless` a plan that stops anything is refused, named, and nothing is touched: live, dry, saved.
fn require_hitless() {
    let pair = Pair::connected();
    let before = pair.left.seen();
    let any = LEFT
        .replace("remote: 192.168.20.2", "remote: any")
        .replace("ttl: 64", "ttl: 63");
    let refused = |run: Run| {
        run.exits(1)
            .says("not hitless: tunnel tun1 (traffic: brief)")
    };
    refused(
        pair.left
            .tunnelform(&["apply", "-", "--require-hitless"], &any),
    );
    refused(
        pair.left
            .tunnelform(&["apply", "-", "--require-hitless", "--keep-going"], &any),
    );
    refused(
        pair.left
            .tunnelform(&["apply", "-", "--require-hitless", "--dry-run"], &any),
    );
    let run = pair
        .left
        .tunnelform(&["destroy", "-", "--require-hitless"], LEFT);
    run.exits(1).says("tunnel tun1 (traffic: stops)");
    let plan = format!("/run/hitless-{}.json", pair.left.netns);
    pair.left
        .tunnelform(&["apply", "-", "--dry-run", "--out", &plan], &any)
        .ok();
    refused(
        pair.left
            .tunnelform(&["apply", &plan, "--require-hitless"], ""),
    );
    let document = pair
        .left
        .try_apply(&any, &["--require-hitless"])
        .exits(1)
        .plan();
    assert_eq!(
        document.0["hits"].as_array().map(Vec::len),
        Some(3),
        "{document:?}"
    );
    assert_same(&pair.left.seen(), &before);
    pair.left
        .apply_with(&LEFT.replace("ttl: 64", "ttl: 63"), &["--require-hitless"]);
}
