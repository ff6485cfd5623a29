//! Packets in flight while something changes: none is lost.

use std::process::{Child, Command, Stdio};

use crate::seed::{LEFT, Pair, number_before, received};
use crate::world::{Host, Run, trials};

trials![other_changes_lose_nothing, own_ttl_loses_nothing];

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

/// Echoes until they are stopped, one every 20 ms.
pub struct Flood(Child);

impl Flood {
    pub fn start(host: &Host, to: &str) -> Self {
        let mut ping = Command::new("ping");
        ping.args(["-n", "-q", "-i", "0.02", "-W", "5", to]);
        ping.stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self(host.inside(|| ping.spawn().expect("ping starts")))
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
