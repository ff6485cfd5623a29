//! What the daemon answers over HTTP, while it keeps a host, and to whom.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::watch::Daemon;
use crate::world::{Host, TUNNELFORM, World, parse, run, trials, wait_until};

trials![
    the_status_tells_of_drift_and_a_bad_file,
    the_status_tells_what_waits,
    prometheus_reads_the_metrics,
    not_ready_without_a_topology,
    a_stuck_loop_is_not_healthy,
    the_page_lets_nothing_in,
    strangers_and_garbage,
    the_crowd_waits,
    an_idle_daemon_sleeps,
    sockets_come_and_go
];

const SMALL: &str = "name: t\ntunnels:\n  tun1: {local: 192.168.10.2, remote: 192.168.20.2, ttl: 64, addresses: [10.1.0.1/24], routes: [10.2.0.0/16]}\n";
const PATIENCE: Duration = Duration::from_secs(30);

/// What a daemon is asked by way of.
pub struct Door(String);

#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    /// With small letters.
    head: String,
    body: String,
}

impl Door {
    pub fn new(host: &Host) -> Self {
        Self(format!("/run/http-{}.sock", host.netns))
    }

    /// What `--listen` gets.
    pub fn address(&self) -> String {
        format!("unix:{}", self.0)
    }

    /// A daemon behind the door.
    pub fn daemon(&self, host: &Host, topology: &str, more: &[&str]) -> Daemon {
        let listen = self.address();
        let arguments = [&["--listen", &listen], more].concat();
        let mut daemon = Daemon::start_with(host, topology, &arguments, &[]);
        daemon.says("listening on unix:");
        daemon
    }

    fn open(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.0).expect("it listens");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a time limit");
        stream
    }

    /// Waits until the daemon has made its first pass.
    pub fn opens(&self) {
        wait_until("it's ready", || self.get("/readyz").code == 200);
    }

    /// What comes back for these bytes.
    fn send(&self, request: &[u8]) -> String {
        let mut stream = self.open();
        // It may have heard enough, and hung up, before the end.
        let _ = stream.write_all(request);
        let _ = stream.shutdown(Shutdown::Write);
        heard(stream)
    }

    #[track_caller]
    fn ask(&self, method: &str, path: &str) -> Answer {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        Answer::new(&self.send(request.as_bytes()))
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path)
    }

    /// The status, which fits its schema.
    #[track_caller]
    pub fn status(&self) -> Value {
        let answer = self.get("/status");
        assert_eq!(answer.code, 200, "{answer:?}");
        let status = parse(&answer.body);
        let schema = parse(&run(TUNNELFORM, &["schema", "watch-status"], "").ok().stdout);
        let validator = jsonschema::validator_for(&schema).expect("a schema is a schema");
        let errors: Vec<String> = validator
            .iter_errors(&status)
            .map(|error| error.to_string())
            .collect();
        assert!(errors.is_empty(), "{errors:#?} in {status:#}");
        status
    }

    /// The samples of all metrics, as Prometheus' own parser reads them.
    #[track_caller]
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let answer = self.get("/metrics");
        assert_eq!(answer.code, 200, "{answer:?}");
        assert!(
            answer
                .head
                .contains("content-type: application/openmetrics-text; version=1.0.0")
        );
        read_metrics(&answer.body)
    }
}

/// Until the other end hangs up.
fn heard(mut stream: impl Read) -> String {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Answer {
    #[track_caller]
    fn new(text: &str) -> Self {
        let (head, body) = text
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("no answer: {text:?}"));
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Self {
            code: code.unwrap_or_else(|| panic!("no answer: {text:?}")),
            head: head.to_lowercase(),
            body: body.to_owned(),
        }
    }
}

#[track_caller]
fn read_metrics(text: &str) -> BTreeMap<String, f64> {
    const PROGRAM: &str = "
import json, sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families as families
samples = [s for family in families(sys.stdin.read()) for s in family.samples]
print(json.dumps({' '.join([s.name, *(f'{k}={v}' for k, v in sorted(s.labels.items()))]): s.value for s in samples}))
";
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
    let python = target.expect("a target directory").join("venv/bin/python");
    assert!(
        python.exists(),
        "{} is missing: run `make setup`",
        python.display()
    );
    let mut child = Command::new(&python)
        .args(["-c", PROGRAM])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("Python starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(text.as_bytes()).expect("it listens");
    drop(stdin);
    let output = child.wait_with_output().expect("Python ends");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}\n{text}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn the_status_tells_of_drift_and_a_bad_file() {
    let world = World::new();
    let (host, door) = (world.lone(), Door::new(&world.lone_as("other")));
    let mut daemon = door.daemon(&host, SMALL, &[]);
    daemon.says("pass: 3 created");
    door.opens();
    let status = door.status();
    assert_eq!(status["in_force"]["owner"], "t");
    assert_eq!(status["error"], Value::Null);
    assert_eq!(status["tunnels"][0]["name"], "tun1");
    assert_eq!(status["tunnels"][0]["state"], "in_sync");
    assert_eq!(status["tunnels"][0]["up"], true);
    assert_eq!(status["tunnels"][0]["counters"]["rx_packets"], 0);
    assert_eq!(status["objects"]["routes"]["in_sync"], 1);
    assert_eq!(status["passes"][0]["trigger"], "file");
    assert_eq!(status["passes"][0]["counts"]["create"], 3);
    // What a new topology makes is no drift.
    assert_eq!(status["drift"], Value::Array(vec![]));

    host.ip("addr del 10.1.0.1/24 dev tun1");
    daemon.says("pass: ");
    wait_until("the drift is told", || {
        door.status()["drift"]
            .as_array()
            .is_some_and(|drift| !drift.is_empty())
    });
    let status = door.status();
    let drift = status["drift"].as_array().expect("a list");
    assert!(
        drift
            .iter()
            .any(|one| one["object"] == "address 10.1.0.1/24 on tun1"),
        "{drift:#?}"
    );
    let trigger = |pass: &Value| pass["trigger"] == "kernel" && pass["result"] == "changed";
    assert!(
        status["passes"]
            .as_array()
            .is_some_and(|list| list.iter().any(trigger))
    );

    let generation = status["in_force"]["generation"].clone();
    daemon.write("name: t\ntunnels: [");
    daemon.says("can't be used");
    wait_until("the error is told", || {
        door.status()["error"] != Value::Null
    });
    let status = door.status();
    assert!(
        status["error"]
            .as_str()
            .is_some_and(|error| error.contains("not valid YAML"))
    );
    assert_eq!(status["in_force"]["generation"], generation);
    // The last good topology is in force.
    assert_eq!(door.get("/readyz").code, 200);
    assert!(door.get("/readyz").body.contains("can't be used"));
    daemon.write(&SMALL.replace("64", "65"));
    daemon.says("pass: 0 created, 1 changed");
    wait_until("the error is gone", || {
        let status = door.status();
        status["error"] == Value::Null && status["in_force"]["generation"] != generation
    });
}

fn the_status_tells_what_waits() {
    let world = World::new();
    let host = world.lone();
    let door = Door::new(&host);
    host.ip("link add tun1 type ipip local 192.168.10.2 remote 192.168.30.2");
    let topology = "name: t\ntunnels:
  tun1: {local: 192.168.10.2, remote: 192.168.20.2}
  tun2: {local: 192.168.10.2, remote: 192.168.20.3, device: eth9}
  tun3: {local: 192.168.10.2, remote: 192.168.20.4, addresses: [10.3.0.1/24]}
  tun4: {local: {device: eth8}, remote: 192.168.20.5, addresses: [10.4.0.1/24]}\n";
    let mut daemon = door.daemon(&host, topology, &[]);
    daemon.says("pass: 2 created");
    wait_until("the pass is told", || {
        door.status()["passes"]
            .as_array()
            .is_some_and(|passes| !passes.is_empty())
    });
    let status = door.status();
    let states: Vec<&Value> = (0..4).map(|n| &status["tunnels"][n]["state"]).collect();
    assert_eq!(states, ["conflict", "pending", "in_sync", "pending"]);
    // Another's traffic isn't the tunnel's.
    assert_eq!(status["tunnels"][0]["counters"], Value::Null);
    assert_eq!(status["conflicts"][0]["object"], "tunnel tun1");
    for (waits, [device, lacks]) in [["eth8", "address"], ["eth9", "device"]].iter().enumerate() {
        assert_eq!(status["pending"][waits]["device"], *device);
        assert_eq!(status["pending"][waits]["lacks"], *lacks);
    }
    assert_eq!(status["objects"]["addresses"]["pending"], 1);
    assert_eq!(status["ready"], true);
    assert_eq!(status["objects"]["tunnels"]["in_sync"], 1);
    for _ in 0..5 {
        wait_until("10.3.0.1 is back", || {
            host.seen().find_address("tun3", "10.3.0.1").is_some()
        });
        host.ip("addr del 10.3.0.1/24 dev tun3");
    }
    daemon.says("left alone for 1 s");
    wait_until("the fight is told", || {
        let status = door.status();
        let held = &status["held"][0];
        held["cause"] == "fought"
            && held["seconds_left"]
                .as_f64()
                .is_some_and(|left| left <= 1.0)
            && status["tunnels"][2]["state"] == "fought"
    });
}

fn prometheus_reads_the_metrics() {
    let world = World::new();
    let host = world.lone();
    let door = Door::new(&host);
    let topology = SMALL.replace("tun1", "'a\"b\\c'");
    let mut daemon = door.daemon(&host, &topology, &[]);
    daemon.says("pass: 3 created");
    host.ip("link set a\"b\\c mtu 1300");
    daemon.says("pass: 0 created, 1 changed");
    // Nobody answers: what is sent is counted as sent.
    host.exec(&["ping", "-c", "1", "-W", "1", "10.2.0.1"]);
    let metrics = door.metrics();
    let is = |name: &str, value: f64| {
        assert_eq!(metrics.get(name), Some(&value), "{name} in {metrics:#?}");
    };
    is("tunnelform_passes_total result=changed trigger=file", 1.0);
    is("tunnelform_passes_total result=changed trigger=kernel", 1.0);
    is("tunnelform_objects kind=tunnel state=in_sync", 1.0);
    is("tunnelform_objects kind=route state=failed", 0.0);
    is("tunnelform_changes_total action=create kind=address", 1.0);
    is("tunnelform_drift_repairs_total kind=tunnel", 1.0);
    is("tunnelform_drift_repairs_total kind=route", 0.0);
    is("tunnelform_overruns_total", 0.0);
    for direction in ["sent", "received"] {
        let messages = format!("tunnelform_netlink_messages_total direction={direction}");
        assert!(metrics[&messages] >= 8.0, "{metrics:#?}");
    }
    is("tunnelform_file_bad", 0.0);
    is("tunnelform_ready", 1.0);
    is("tunnelform_tunnel_up tunnel=a\"b\\c", 1.0);
    is("tunnelform_tunnel_rx_packets_total tunnel=a\"b\\c", 0.0);
    is("tunnelform_tunnel_rx_errors_total tunnel=a\"b\\c", 0.0);
    let sent = "tunnelform_tunnel_tx_packets_total tunnel=a\"b\\c";
    assert!(metrics[sent] >= 1.0, "{metrics:#?}");
    assert!(metrics["tunnelform_pass_duration_seconds_count"] >= 2.0);
    assert!(metrics["tunnelform_last_good_load_timestamp_seconds"] > 1e9);
    let info = |name: &str| metrics.keys().any(|key| key.starts_with(name));
    assert!(info("tunnelform_topology_info file=/run/watch-"));
    assert!(info("tunnelform_build_info version=0"));
    daemon.write("");
    daemon.says("can't be used");
    wait_until("the metrics tell of the bad file", || {
        door.get("/metrics").body.contains("tunnelform_file_bad 1")
    });
}

fn not_ready_without_a_topology() {
    let world = World::new();
    let host = world.lone();
    let door = Door::new(&host);
    let mut daemon = door.daemon(&host, "name: t\ntunnels: [", &[]);
    daemon.says("there is none in force yet");
    let answer = door.get("/readyz");
    assert_eq!(answer.code, 503, "{answer:?}");
    assert_eq!(door.get("/healthz").code, 200);
    assert_eq!(door.status()["in_force"], Value::Null);
    assert_eq!(door.get("/topology.svg").code, 404);
    door.metrics();
    daemon.write(SMALL);
    daemon.says("pass: 3 created");
    door.opens();
}

/// Nobody reads the log, so the loop hangs where it writes the next line; who asks hears of it.
fn a_stuck_loop_is_not_healthy() {
    let world = World::new();
    let host = world.lone();
    let door = Door::new(&host);
    let file = format!("/run/http-{}.yaml", host.netns);
    std::fs::write(&file, SMALL).expect("a file in /run");
    let (mut log, mut end) = UnixStream::pair().expect("a pair of sockets");
    let listen = format!("unix:{}", door.0);
    let mut child = Command::new(TUNNELFORM)
        .args(["watch", "--netns", &host.netns, "--listen", &listen])
        .args(["--resync", "200ms", "--lock-timeout", "1", &file])
        .stderr(OwnedFd::from(end.try_clone().expect("another end")))
        .spawn()
        .expect("tunnelform starts");
    wait_until("it listens", || Path::new(&door.0).exists());
    door.opens();
    for _ in 0..20 {
        assert_eq!(door.get("/healthz").code, 200);
        std::thread::sleep(Duration::from_millis(100));
    }
    end.set_nonblocking(true).expect("a socket");
    while end.write(&[b'.'; 1024]).is_ok() {}
    while end.write(b".").is_ok() {}
    end.set_nonblocking(false).expect("a socket");
    host.ip("link del tun1");
    wait_until("it's stuck", || door.get("/healthz").code == 503);
    drop(end);
    let reader = std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    wait_until("it's healthy", || door.get("/healthz").code == 200);
    child.kill().expect("it's there");
    child.wait().expect("it ends");
    reader.join().expect("no panic").expect("the log ends");
}

fn the_page_lets_nothing_in() {
    let world = World::new();
    let host = world.lone();
    let door = Door::new(&host);
    let mut daemon = door.daemon(&host, SMALL, &[]);
    daemon.says("pass: 3 created");
    let nonces: Vec<String> = (0..2)
        .map(|_| {
            let page = door.get("/");
            assert_eq!(page.code, 200);
            assert!(!page.body.contains("{{nonce}}"));
            assert!(page.head.contains("default-src 'none'"), "{}", page.head);
            assert!(!page.head.contains("unsafe"), "{}", page.head);
            let (_, nonce) = page.head.split_once("script-src 'nonce-").expect("a nonce");
            let nonce = nonce.split('\'').next().expect("an end").to_owned();
            assert!(page.body.contains(&format!("<script nonce=\"{nonce}\">")));
            nonce
        })
        .collect();
    assert_ne!(nonces[0], nonces[1]);
    let picture = door.get("/topology.svg");
    assert!(picture.body.starts_with("<svg ") && picture.body.contains("tun1"));
}

fn strangers_and_garbage() {
    let world = World::new();
    let host = world.lone();
    let door = Door::new(&host);
    let mut daemon = door.daemon(&host, SMALL, &[]);
    daemon.says("pass: 3 created");
    for path in ["/", "/metrics", "/healthz", "/readyz", "/status"] {
        let (get, head) = (door.get(path), door.ask("HEAD", path));
        assert_eq!((get.code, head.code), (200, 200), "{path}");
        assert!(!get.body.is_empty() && head.body.is_empty(), "{path}");
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "FOO"] {
            let answer = door.ask(method, path);
            assert_eq!(answer.code, 405, "{method} {path}");
            assert!(answer.head.contains("allow: get, head"), "{answer:?}");
        }
    }
    for path in [
        "/nothing",
        "/../etc/passwd",
        "/status/",
        "//",
        "/%2e%2e",
        "*",
    ] {
        let code = door.get(path).code;
        assert!([400, 404].contains(&code), "{path}: {code}");
    }
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100_000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1000));
    for garbage in [
        &b"\0\0\0\0\xff\xfe"[..],
        b"\r\n\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nzzz",
        b"",
        long.as_bytes(),
        many.as_bytes(),
    ] {
        let text = door.send(garbage);
        assert!(!text.starts_with("HTTP/1.1 500"), "{text}");
    }
    assert_eq!(door.get("/healthz").code, 200);
    daemon.is_quiet(Duration::from_millis(200));

    // At a loopback address, only who means this host.
    let other = world.lone_as("second");
    let listen = ["--listen", "127.0.0.1:0"];
    let mut daemon = host.inside(|| Daemon::start_with(&other, SMALL, &listen, &[]));
    let said = daemon.says("listening on http://");
    let address = said
        .trim_start_matches("listening on http://")
        .trim_end_matches('/');
    daemon.says("pass: 3 created");
    host.inside(|| {
        let ask = |named: &str| {
            let mut stream = TcpStream::connect(address).expect("it listens");
            let request = format!("GET /healthz HTTP/1.1\r\nHost: {named}\r\n\r\n");
            stream.write_all(request.as_bytes()).expect("it listens");
            Answer::new(&heard(stream)).code
        };
        for named in [
            address,
            "localhost",
            "LOCALHOST:80",
            "[::1]:9117",
            "127.0.0.1",
        ] {
            assert_eq!(ask(named), 200, "{named}");
        }
        for named in ["evil.example", "localhost.evil.example:9117", ""] {
            assert_eq!(ask(named), 421, "{named}");
        }
    });
}

/// Who says nothing is shown out, and who came later than the last chair has his turn then.
fn the_crowd_waits() {
    let world = World::new();
    let host = world.lone();
    let door = Door::new(&host);
    let mut daemon = door.daemon(&host, SMALL, &[]);
    daemon.says("pass: 3 created");
    let start = Instant::now();
    let silent: Vec<UnixStream> = (0..40).map(|_| door.open()).collect();
    assert_eq!(door.get("/healthz").code, 200);
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    drop(silent);
}

/// Having listened costs nothing: no thread of the daemon wakes up while nobody asks.
fn an_idle_daemon_sleeps() {
    let world = World::new();
    let host = world.lone();
    let door = Door::new(&host);
    let mut daemon = door.daemon(&host, SMALL, &[]);
    daemon.says("pass: 3 created");
    door.status();
    std::thread::sleep(Duration::from_millis(500));
    let wakes = || -> u64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.child.id()));
        let of = |task: std::fs::DirEntry| {
            let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
            let line = status
                .lines()
                .find(|line| line.starts_with("voluntary_ctxt_switches:"));
            let count = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
            count.expect("the kernel counts")
        };
        let tasks = tasks.expect("it runs");
        tasks.map(|task| of(task.expect("it runs"))).sum()
    };
    let before = wakes();
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(wakes() - before, 0);
}

fn sockets_come_and_go() {
    let world = World::new();
    let host = world.lone();
    let door = Door::new(&host);
    let mut daemon = door.daemon(&host, SMALL, &[]);
    daemon.says("pass: 3 created");
    // Somebody listens there.
    let listen = format!("unix:{}", door.0);
    let file = daemon.file.display().to_string();
    let taken = ["watch", "--netns", &host.netns, "--listen", &listen, &file];
    run(TUNNELFORM, &taken, "")
        .exits(1)
        .says("can't listen on unix:");
    daemon.end(Signal::KILL);
    assert!(Path::new(&door.0).exists());
    let again = door.daemon(&host, SMALL, &[]);
    assert_eq!(door.get("/healthz").code, 200);
    assert_eq!(again.end(Signal::TERM), Some(0));
    assert!(!Path::new(&door.0).exists());
    // A file is no socket.
    std::fs::write(&door.0, "precious").expect("a file in /run");
    run(TUNNELFORM, &taken, "").exits(1).says("can't listen");
    assert_eq!(
        std::fs::read_to_string(&door.0).expect("it's there"),
        "precious"
    );
    let open = ["watch", "--listen", "0.0.0.0:9117", &file];
    run(TUNNELFORM, &open, "")
        .exits(1)
        .says("--listen-anywhere");
}
