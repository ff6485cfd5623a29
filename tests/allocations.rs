//! What the pure parts ask of the allocator, below limits that don't depend on the machine. Who makes them ask for less
//! lowers the limits.

use std::path::PathBuf;

use allocation_counter::{AllocationInfo, measure};
use tunnelform::desired::desired;
use tunnelform::plan::{Terms, plan};
use tunnelform::source::{Content, ListFile};
use tunnelform::state::{Desired, Observed};
use tunnelform::topology::{Host, Parsed, Topology};

const ROUTES: u32 = 20_000;
const TUNNELS: u32 = 1_000;

/// At most so many allocations and so many bytes at a time for each object.
struct Limit {
    what: &'static str,
    allocations: f64,
    bytes: f64,
}

impl Limit {
    fn holds(&self, objects: u32, found: AllocationInfo) {
        let each = |number: u64| number as f64 / f64::from(objects);
        let Self {
            what,
            allocations,
            bytes,
        } = self;
        let (found, most) = (each(found.count_total), each(found.bytes_max));
        println!("{what}: {found:.2} allocations, {most:.0} bytes at a time");
        assert!(
            found <= *allocations,
            "{what}: {found:.2} allocations each, {allocations} allowed"
        );
        assert!(
            most <= *bytes,
            "{what}: {most:.0} bytes each at a time, {bytes} allowed"
        );
    }
}

fn network(number: u32) -> String {
    let [high, middle, low, _] = (number << 8).to_be_bytes();
    format!("{}.{middle}.{low}.0/24", 11 + high)
}

fn yaml() -> Content {
    let mut text = String::from("version: 1\nname: hq\nroutes:\n");
    for number in 0..ROUTES {
        let to = network(number);
        text += &format!("  - {{to: {to}, via: 192.168.10.1, device: eth0}}\n");
    }
    Content::new("hq.yaml", text)
}

fn list() -> Content {
    let lines: String = (0..ROUTES).map(|number| network(number) + "\n").collect();
    let text = "version: 1\nname: hq\nroutes: {file: r.txt, via: 192.168.10.1, device: eth0}\n";
    Content {
        lists: vec![ListFile {
            file: "r.txt".into(),
            path: PathBuf::from("r.txt"),
            bytes: Ok(lines.into_bytes()),
        }],
        ..Content::new("hq.yaml", text)
    }
}

fn tunnels() -> Content {
    let mut text = String::from("name: hq\ndefaults: {local: 192.168.10.2}\ntunnels:\n");
    for number in 0..TUNNELS {
        let [.., high, low] = number.to_be_bytes();
        text += &format!(
            "  t{number}: {{remote: 172.16.{high}.{low}, addresses: [10.{high}.{low}.1/24], routes: [{}]}}\n",
            network(number)
        );
    }
    Content::new("hq.yaml", text)
}

fn read(file: Content) -> Topology {
    match Topology::parse_files("hq.yaml", vec![file]) {
        Ok(Parsed { topology, .. }) => topology,
        Err(problems) => panic!("{problems}"),
    }
}

fn host(topology: &Topology) -> Host {
    topology.fleet().host(None).expect("it's for one host")
}

/// What making something takes, and that.
fn measured<T>(make: impl FnOnce() -> T) -> (AllocationInfo, T) {
    let mut made = None;
    let info = measure(|| made = Some(make()));
    (info, made.expect("it was made"))
}

fn limit(what: &'static str, allocations: f64, bytes: f64) -> Limit {
    Limit {
        what,
        allocations,
        bytes,
    }
}

#[test]
fn reading_and_checking() {
    for (limit, file, objects) in [
        (limit("a route in YAML", 0.1, 400.0), yaml(), ROUTES),
        (limit("a route in a list", 0.1, 400.0), list(), ROUTES),
        (limit("a tunnel", 65.0, 1300.0), tunnels(), TUNNELS),
    ] {
        let (found, _) = measured(|| read(file));
        limit.holds(objects, found);
    }
}

#[test]
fn desired_states() {
    for (limit, file, objects) in [
        (limit("a desired route", 1.6, 170.0), list(), ROUTES),
        (limit("a desired tunnel", 8.0, 1300.0), tunnels(), TUNNELS),
    ] {
        let topology = read(file);
        let (found, _) = measured(|| desired(&host(&topology), &Observed::bare()));
        limit.holds(objects, found);
    }
}

#[test]
fn plans() {
    let nothing = |_: &Desired| Observed::bare();
    let everything = |wanted: &Desired| Observed {
        state: wanted.state.clone(),
        ..Observed::bare()
    };
    type Seen = fn(&Desired) -> Observed;
    let cases: [(Limit, Content, u32, Seen); 4] = [
        (
            limit("no change of a route", 0.1, 10.0),
            list(),
            ROUTES,
            everything,
        ),
        (
            limit("no change of a tunnel", 6.0, 600.0),
            tunnels(),
            TUNNELS,
            everything,
        ),
        (limit("a new route", 12.0, 700.0), list(), ROUTES, nothing),
        (
            limit("a new tunnel", 10.0, 1600.0),
            tunnels(),
            TUNNELS,
            nothing,
        ),
    ];
    for (limit, file, objects, seen) in cases {
        let topology = read(file);
        let terms = Terms::new(topology.name.clone(), topology.route_protocol.0);
        let wanted = desired(&host(&topology), &Observed::bare());
        let observed = seen(&wanted);
        let (found, _) = measured(|| plan(&wanted, Some(&wanted.state), &observed, &terms));
        limit.holds(objects, found);
    }
}
