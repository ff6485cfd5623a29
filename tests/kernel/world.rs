//! Hosts to try things on: a network namespace each, and what is done and seen in it.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

/// The binary under test.
pub const TUNNELFORM: &str = env!("CARGO_BIN_EXE_tunnelform");

/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(20);

/// The hosts of one test. They go when it ends, however it ends.
pub struct World {
    number: u32,
    hosts: std::cell::RefCell<Vec<String>>,
}

impl World {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            hosts: Default::default(),
        }
    }

    /// A host with nothing but `lo`, which is up.
    pub fn host(&self, name: &str) -> Host {
        let netns = format!("w{}-{name}", self.number);
        let host = Host { netns };
        run("ip", &["netns", "add", &host.netns], "").ok();
        self.hosts.borrow_mut().push(host.netns.clone());
        host.ip("link set lo up");
        host
    }

    /// A host as most tests want it: `eth0` is 192.168.10.2/24, with a default route by way of 192.168.10.1. Whatever
    /// it sends into the underlay is lost.
    pub fn lone(&self) -> Host {
        self.lone_as("lone")
    }

    /// As [`Self::lone`], under another name.
    pub fn lone_as(&self, name: &str) -> Host {
        let host = self.host(name);
        host.ip("link add eth0 up type dummy
                 addr add 192.168.10.2/24 dev eth0
                 route add default via 192.168.10.1");
        host
    }

    /// Joins two hosts by a cable: a device and an address at each end.
    pub fn cable(
        &self,
        (a, a_device, a_address): (&Host, &str, &str),
        (b, b_device, b_address): (&Host, &str, &str),
    ) {
        a.ip(&format!(
            "link add {a_device} type veth peer name {b_device} netns {}",
            b.netns
        ));
        a.ip(&format!(
            "addr add {a_address} dev {a_device}\nlink set {a_device} up"
        ));
        b.ip(&format!(
            "addr add {b_address} dev {b_device}\nlink set {b_device} up"
        ));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let hosts = self.hosts.borrow();
        let script: String = hosts
            .iter()
            .map(|netns| format!("netns del {netns}\n"))
            .collect();
        run("ip", &["-batch", "-"], &script);
    }
}

/// One host: a network namespace.
pub struct Host {
    pub netns: String,
}

impl Host {
    /// Runs lines of `ip` commands; the first that fails fails the test.
    #[track_caller]
    pub fn ip(&self, script: &str) {
        run("ip", &["-n", &self.netns, "-batch", "-"], script).ok();
    }

    /// Everything that the host has, as `ip` sees it.
    #[track_caller]
    pub fn seen(&self) -> Seen {
        let script = "link show\naddr show\nroute show table all\n";
        let shown = run(
            "ip",
            &["-n", &self.netns, "-details", "-json", "-batch", "-"],
            script,
        )
        .ok();
        let mut parts = serde_json::Deserializer::from_str(&shown.stdout)
            .into_iter::<Vec<Value>>()
            .map(|part| {
                part.unwrap_or_else(|error| panic!("{error} in what ip shows:\n{}", shown.stdout))
            });
        let mut part = || parts.next().unwrap_or_default();
        Seen {
            links: part(),
            addresses: addresses(part()),
            routes: part()
                .into_iter()
                .filter(|route| !comes_by_itself(route))
                .collect(),
        }
    }

    /// Does `work` on a thread inside the host. Processes that it starts are inside, too.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.netns);
        let enter = || {
            let namespace =
                std::fs::File::open(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
            move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&namespace),
                Some(LinkNameSpaceType::Network),
            )
            .unwrap_or_else(|error| panic!("{path}: {error}"));
            work()
        };
        std::thread::scope(|scope| {
            scope
                .spawn(enter)
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs a program inside the host.
    #[track_caller]
    pub fn exec(&self, command: &[&str]) -> Run {
        self.inside(|| run(command[0], &command[1..], ""))
    }

    /// Sets a kernel parameter, such as `ipv4/ip_forward`.
    pub fn sysctl(&self, key: &str, value: &str) {
        let path = format!("/proc/sys/net/{key}");
        self.inside(|| {
            std::fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"))
        });
    }

    /// Runs tunnelform with `--netns`, and `stdin` as its standard input.
    #[track_caller]
    pub fn tunnelform(&self, arguments: &[&str], stdin: &str) -> Run {
        let mut all = arguments.to_vec();
        all.extend(["--netns", &self.netns]);
        run(TUNNELFORM, &all, stdin)
    }

    /// Applies a topology, with more arguments, whatever comes of it.
    #[track_caller]
    pub fn try_apply(&self, topology: &str, arguments: &[&str]) -> Run {
        let mut all = vec!["apply", "-", "--output", "json"];
        all.extend(arguments);
        self.tunnelform(&all, topology)
    }

    /// Applies a topology with a fault that strace puts into it (`sendto,sendmsg:signal=KILL:when=3`), with more options
    /// for strace.
    #[track_caller]
    pub fn faulty_apply(
        &self,
        topology: &str,
        arguments: &[&str],
        inject: &str,
        options: &[&str],
    ) -> Run {
        let calls = inject.split(':').next().unwrap_or_default();
        let (trace, inject) = (format!("trace={calls}"), format!("inject={inject}"));
        let strace = ["-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
        let apply = [TUNNELFORM, "apply", "-", "--netns", &self.netns];
        let all = [&strace, options, &apply, arguments].concat();
        run("strace", &all, topology)
    }

    /// Applies a topology, after which the host is as the topology says.
    #[track_caller]
    pub fn apply(&self, topology: &str) -> Plan {
        self.apply_with(topology, &[])
    }

    /// As [`Self::apply`], with more arguments.
    #[track_caller]
    pub fn apply_with(&self, topology: &str, arguments: &[&str]) -> Plan {
        let plan = self.try_apply(topology, arguments).ok().plan();
        assert_eq!(plan.0["in_sync"], true, "{}", plan.told());
        let errors = plan.0["errors"].as_array();
        assert!(errors.is_some_and(Vec::is_empty), "{}", plan.told());
        plan
    }

    /// Shows that another apply has nothing to do.
    #[track_caller]
    pub fn settled(&self, topology: &str) {
        let again = self.try_apply(topology, &["--detailed-exitcode"]);
        let moves = again.plan().moves();
        assert_eq!(
            again.code, 0,
            "a second apply has something to do: {moves:?}\n{}",
            again.stderr
        );
        assert_eq!(moves, [""; 0]);
    }

    /// Applies a topology and shows that just this was done, in [`Plan::moves`]' words, and that it was enough.
    #[track_caller]
    pub fn does(&self, topology: &str, moves: &[&str]) -> Plan {
        let plan = self.apply(topology);
        assert_eq!(plan.moves(), sorted(moves), "{}", plan.told());
        self.settled(topology);
        plan
    }

    /// What would be done. Changes nothing.
    #[track_caller]
    pub fn plan(&self, topology: &str) -> Plan {
        let mut run = self.tunnelform(
            &[
                "apply",
                "-",
                "--dry-run",
                "--detailed-exitcode",
                "--output",
                "json",
            ],
            topology,
        );
        assert!(run.code == 0 || run.code == 2, "{run:?}");
        run.code = 0;
        run.ok().plan()
    }

    /// What `status` says.
    #[track_caller]
    pub fn status(&self, topology: &str) -> Value {
        parse(
            &self
                .tunnelform(&["status", "-", "--output", "json"], topology)
                .ok()
                .stdout,
        )
    }

    /// The index of a device.
    #[track_caller]
    pub fn index(&self, device: &str) -> u64 {
        self.seen().link(device)["ifindex"]
            .as_u64()
            .unwrap_or_default()
    }
}

/// What a program said, and how it ended.
#[derive(Debug, Clone)]
pub struct Run {
    pub command: String,
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    pub fn new(command: String, output: Output) -> Self {
        Self {
            command,
            code: code(output.status),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// It succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    /// It ended with this code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert!(
            self.code == code,
            "expected exit code {code}, found {}",
            self.told()
        );
        self
    }

    /// It said this, on either stream.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        let said = self.stderr.contains(text) || self.stdout.contains(text);
        assert!(said, "not a word of {text:?}: {}", self.told());
        self
    }

    /// What it did and said. Of a plan's document just what matters.
    fn told(&self) -> String {
        let stdout = match serde_json::from_str::<Value>(&self.stdout) {
            Ok(document) if document["changes"].is_array() => Plan(document).told(),
            _ => self.stdout.clone(),
        };
        format!("{}: {}\n{stdout}{}", self.code, self.command, self.stderr)
    }

    /// Its standard output as the plan's document.
    #[track_caller]
    pub fn plan(&self) -> Plan {
        assert!(self.stdout.starts_with('{'), "no document: {self:?}");
        Plan(parse(&self.stdout))
    }
}

/// The exit code; as the shell says it where a signal ended the program.
fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// A plan's JSON document.
#[derive(Debug, Clone)]
pub struct Plan(pub Value);

impl Plan {
    /// What is done, sorted: `update tunnel tun1`.
    pub fn moves(&self) -> Vec<String> {
        let word = |change: &Value, key: &str| change[key].as_str().unwrap_or_default().to_owned();
        let mut moves: Vec<String> = self
            .changes()
            .iter()
            .map(|c| {
                format!(
                    "{} {} {}",
                    word(c, "action"),
                    word(c, "object"),
                    word(c, "key")
                )
            })
            .collect();
        moves.sort();
        moves
    }

    /// A line for each change, conflict, warning and error.
    pub fn told(&self) -> String {
        let mut text = String::new();
        for change in self.changes() {
            let word = |key: &str| change[key].as_str().unwrap_or_default();
            let (action, object, key) = (word("action"), word("object"), word("key"));
            text += &format!(
                "{action} {object} {key}: {} {}",
                change["attributes"],
                word("status")
            );
            text += &format!(" {}\n", word("error"));
        }
        for list in ["conflicts", "warnings", "errors"] {
            for line in self.0[list].as_array().into_iter().flatten() {
                text += &format!("{list}: {line}\n");
            }
        }
        text
    }

    pub fn changes(&self) -> &[Value] {
        self.0["changes"].as_array().map_or(&[], Vec::as_slice)
    }

    /// The change of an object.
    #[track_caller]
    pub fn change(&self, object: &str, key: &str) -> &Value {
        self.changes()
            .iter()
            .find(|change| change["object"] == object && change["key"] == key)
            .unwrap_or_else(|| panic!("no change of {object} {key}: {:?}", self.moves()))
    }

    /// The objects that stand in the way.
    pub fn conflicts(&self) -> Vec<String> {
        let conflicts = self.0["conflicts"].as_array();
        conflicts
            .into_iter()
            .flatten()
            .map(|conflict| conflict["object"].as_str().unwrap_or_default().to_owned())
            .collect()
    }
}

/// What a host has, as `ip` sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    pub links: Vec<Value>,
    /// Each with its device as `dev`.
    pub addresses: Vec<Value>,
    pub routes: Vec<Value>,
}

impl Seen {
    #[track_caller]
    pub fn link(&self, name: &str) -> &Value {
        self.find_link(name)
            .unwrap_or_else(|| panic!("no device {name}"))
    }

    pub fn find_link(&self, name: &str) -> Option<&Value> {
        self.links.iter().find(|link| link["ifname"] == name)
    }

    /// A tunnel's options.
    #[track_caller]
    pub fn tunnel(&self, name: &str) -> &Value {
        &self.link(name)["linkinfo"]["info_data"]
    }

    #[track_caller]
    pub fn address(&self, device: &str, local: &str) -> &Value {
        self.find_address(device, local)
            .unwrap_or_else(|| panic!("no address {local} on {device}: {:#?}", self.addresses))
    }

    pub fn find_address(&self, device: &str, local: &str) -> Option<&Value> {
        self.addresses
            .iter()
            .find(|a| a["dev"] == device && a["local"] == local)
    }

    /// The one route to a destination, in every table but the kernel's `local`.
    #[track_caller]
    pub fn route(&self, dst: &str) -> &Value {
        match self.routes_to(dst).as_slice() {
            [route] => route,
            routes => panic!("{} routes to {dst}: {:#?}", routes.len(), self.routes),
        }
    }

    pub fn routes_to(&self, dst: &str) -> Vec<&Value> {
        self.routes
            .iter()
            .filter(|r| r["dst"] == dst && r["table"] != "local")
            .collect()
    }

    /// Routes with a protocol, as `ip` writes it.
    pub fn routes_of(&self, protocol: &str) -> Vec<&Value> {
        self.routes
            .iter()
            .filter(|r| r["protocol"] == protocol)
            .collect()
    }

    /// The names of the ipip devices, but for the kernel's own.
    pub fn tunnels(&self) -> BTreeSet<String> {
        let tunnels = self
            .links
            .iter()
            .filter(|l| l["linkinfo"]["info_kind"] == "ipip" && l["ifname"] != "tunl0");
        tunnels
            .map(|link| link["ifname"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    /// What isn't on or through one of these devices, and not of this protocol: what a topology with these tunnels must
    /// leave alone.
    pub fn without(&self, devices: &[&str], protocol: &str) -> Self {
        let on = |name: &Value| name.as_str().is_some_and(|name| devices.contains(&name));
        let through = |route: &Value| {
            let hops = route["nexthops"].as_array();
            on(&route["dev"]) || hops.into_iter().flatten().any(|hop| on(&hop["dev"]))
        };
        let keep = |list: &[Value], drop: &dyn Fn(&Value) -> bool| -> Vec<Value> {
            list.iter()
                .filter(|object| !drop(object))
                .cloned()
                .collect()
        };
        Self {
            links: keep(&self.links, &|link| {
                on(&link["ifname"]) || link["ifname"] == "tunl0"
            }),
            addresses: keep(&self.addresses, &|address| on(&address["dev"])),
            routes: keep(&self.routes, &|route| {
                route["protocol"] == protocol || (through(route) && route["protocol"] == "kernel")
            }),
        }
    }
}

impl Seen {
    /// Without the routes whose device is this one.
    pub fn not_through(mut self, device: &str) -> Self {
        self.routes.retain(|route| route["dev"] != device);
        self
    }
}

/// Whether the kernel adds a route when it likes, for a link-local address or after duplicate address detection.
fn comes_by_itself(route: &Value) -> bool {
    let to = route["dst"].as_str().unwrap_or_default();
    route["protocol"] == "kernel"
        && to.contains(':')
        && (route["table"] == "local" || to.starts_with("fe80:"))
}

/// The addresses of all devices as one list, without what comes and goes by itself: link-local ones of the kernel's, and
/// the marks of duplicate address detection.
fn addresses(devices: Vec<Value>) -> Vec<Value> {
    let mut list = Vec::new();
    for device in devices {
        for address in device["addr_info"].as_array().into_iter().flatten() {
            let mut address = address.clone();
            if address["local"]
                .as_str()
                .is_some_and(|local| local.starts_with("fe80:"))
            {
                continue;
            }
            address["dev"] = device["ifname"].clone();
            if let Some(map) = address.as_object_mut() {
                map.remove("tentative");
                map.remove("nodad");
            }
            list.push(address);
        }
    }
    list
}

/// Runs a program to its end.
#[track_caller]
pub fn run(program: &str, arguments: &[&str], stdin: &str) -> Run {
    let name = format!("{program} {}", arguments.join(" "));
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("can't run {program}: {error}"));
    if let Some(mut pipe) = child.stdin.take() {
        // A program that ends without reading it all is judged by its exit code.
        let _ = pipe.write_all(stdin.as_bytes());
    }
    let output = child
        .wait_with_output()
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    Run::new(
        if stdin.is_empty() {
            name
        } else {
            format!("{name} <<EOF\n{stdin}\nEOF")
        },
        output,
    )
}

#[track_caller]
pub fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

pub fn sorted(words: &[&str]) -> Vec<String> {
    let mut words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
    words.sort();
    words
}

/// Both hosts, or one at two times, are the same; else shows where not.
#[track_caller]
pub fn assert_same(now: &Seen, then: &Seen) {
    let differs = |now: &[Value], then: &[Value]| -> String {
        let lines = |sign, a: &[Value], b: &[Value]| -> Vec<String> {
            a.iter()
                .filter(|x| !b.contains(x))
                .map(|x| format!("{sign} {x}\n"))
                .collect()
        };
        [lines('-', then, now), lines('+', now, then)]
            .concat()
            .concat()
    };
    let all = [
        differs(&now.links, &then.links),
        differs(&now.addresses, &then.addresses),
        differs(&now.routes, &then.routes),
    ];
    assert!(now == then, "not as before:\n{}", all.concat());
}

/// Waits until a condition is true.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::yield_now();
    }
}

/// The trials of a module: its functions by name.
macro_rules! trials {
    ($($name:ident),+ $(,)?) => {
        pub fn trials() -> Vec<libtest_mimic::Trial> {
            let module = module_path!().split_once("::").map_or("", |(_, module)| module);
            vec![$(libtest_mimic::Trial::test(format!("{module}::{}", stringify!($name)), || { $name(); Ok(()) })),+]
        }
    };
}
pub(crate) use trials;
