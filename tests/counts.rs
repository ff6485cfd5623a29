//! What the pure parts ask of the allocator and of the processor, below limits that don't depend on the machine. Who makes
//! them ask for less lowers the limits.

use std::path::PathBuf;
use std::process::Command;

use allocation_counter::{AllocationInfo, measure};
use tunnelform::desired::desired;
use tunnelform::kernel::codec;
use tunnelform::plan::{Terms, plan};
use tunnelform::source::{Content, ListFile};
use tunnelform::state::{Desired, Observed};
use tunnelform::topology::{Host, Parsed, Topology};

const ROUTES: u32 = 5_000;
const TUNNELS: u32 = 1_000;
/// Which case a copy of this program runs under valgrind.
const COUNTED: &str = "TUNNELFORM_COUNTED";

/// Something that is done with many objects, and what it may cost for each at most.
struct Case {
    what: &'static str,
    objects: u32,
    allocations: f64,
    /// At a time.
    bytes: f64,
    /// Of a build without optimization: a fifth more than was found, for other compilers.
    instructions: f64,
    run: fn() -> AllocationInfo,
}

const fn case(
    what: &'static str,
    objects: u32,
    (allocations, bytes, instructions): (f64, f64, f64),
    run: fn() -> AllocationInfo,
) -> Case {
    Case {
        what,
        objects,
        allocations,
        bytes,
        instructions,
        run,
    }
}

const CASES: [Case; 11] = [
    case("a route in YAML", ROUTES, (0.1, 350.0, 70_000.0), || {
        reading(yaml())
    }),
    case("a route in a list", ROUTES, (0.1, 350.0, 37_000.0), || {
        reading(list())
    }),
    case("a tunnel", TUNNELS, (6.4, 850.0, 208_000.0), || {
        reading(tunnels())
    }),
    case("a desired route", ROUTES, (0.5, 150.0, 12_000.0), || {
        wanting(list())
    }),
    case("a desired tunnel", TUNNELS, (0.5, 480.0, 32_000.0), || {
        wanting(tunnels())
    }),
    case("no change of a route", ROUTES, (0.1, 10.0, 5_100.0), || {
        planning(list(), everything)
    }),
    case(
        "no change of a tunnel",
        TUNNELS,
        (0.1, 10.0, 17_000.0),
        || planning(tunnels(), everything),
    ),
    case("a new route", ROUTES, (8.5, 600.0, 60_000.0), || {
        planning(list(), nothing)
    }),
    case("a new tunnel", TUNNELS, (5.5, 1_450.0, 138_000.0), || {
        planning(tunnels(), nothing)
    }),
    case(
        "a tunnel's messages, written",
        TUNNELS,
        (23.0, 1_150.0, 255_000.0),
        || encoding(tunnels()),
    ),
    case(
        "a tunnel's messages, read",
        TUNNELS,
        (0.4, 510.0, 44_000.0),
        || decoding(tunnels()),
    ),
];

impl Case {
    fn holds(&self, kind: &str, found: u64, most: f64) -> Result<(), String> {
        let each = found as f64 / f64::from(self.objects);
        println!("{}: {each:.2} {kind}", self.what);
        match each <= most {
            true => Ok(()),
            false => Err(format!("{}: {each:.2} {kind}, {most} allowed", self.what)),
        }
    }
}

#[track_caller]
fn all_hold(found: impl Iterator<Item = Result<(), String>>) {
    let too_many: Vec<String> = found.filter_map(Result::err).collect();
    assert!(too_many.is_empty(), "{}", too_many.join("\n"));
}

#[test]
fn allocations() {
    let found = CASES.iter().flat_map(|case| {
        let found = (case.run)();
        [
            case.holds("allocations", found.count_total, case.allocations),
            case.holds("bytes at a time", found.bytes_max, case.bytes),
        ]
    });
    all_hold(found);
}

/// Counted by valgrind, in a copy of this program for each case, only within [`toggled`].
#[test]
fn instructions() {
    let this = std::env::current_exe().expect("the name of this program");
    let found = CASES.iter().map(|case| {
        let valgrind = "--tool=callgrind --callgrind-out-file=/dev/null --toggle-collect=*toggled*";
        let output = Command::new("valgrind")
            .args(valgrind.split(' '))
            .arg(&this)
            .args(["--exact", "one_case", "--ignored"])
            .env(COUNTED, case.what)
            .output()
            .unwrap_or_else(|error| panic!("valgrind (`make setup` installs it): {error}"));
        let said = String::from_utf8_lossy(&output.stderr);
        let collected = said
            .lines()
            .find_map(|line| line.split_once("Collected :"))
            .and_then(|(_, number)| number.trim().parse().ok())
            .filter(|number| *number > 0 && output.status.success())
            .unwrap_or_else(|| panic!("{}: valgrind says: {said}", case.what));
        case.holds("instructions", collected, case.instructions)
    });
    all_hold(found);
}

#[test]
#[ignore = "it's for `instructions`, which runs it under valgrind"]
fn one_case() {
    let what = std::env::var(COUNTED).expect("the case's name");
    let case = CASES.iter().find(|case| case.what == what);
    (case.expect("a case").run)();
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

/// What valgrind counts: the name has to be in no other function's.
#[inline(never)]
fn toggled<T>(make: impl FnOnce() -> T) -> T {
    make()
}

/// What making something takes, and that.
fn measured<T>(make: impl FnOnce() -> T) -> (AllocationInfo, T) {
    let mut made = None;
    let info = measure(|| made = Some(toggled(make)));
    (info, made.expect("it was made"))
}

fn reading(file: Content) -> AllocationInfo {
    measured(|| read(file)).0
}

fn wanting(file: Content) -> AllocationInfo {
    let topology = read(file);
    measured(|| desired(&host(&topology), &Observed::bare())).0
}

fn planning(file: Content, seen: fn(&Desired) -> Observed) -> AllocationInfo {
    let topology = read(file);
    let terms = Terms::new(topology.name.clone(), topology.route_protocol.0);
    let wanted = desired(&host(&topology), &Observed::bare());
    let observed = seen(&wanted);
    let (found, plan) = measured(|| plan(&wanted, Some(&wanted.state), &observed, &terms));
    let differs = observed.state != wanted.state;
    assert_eq!(!plan.is_empty(), differs, "{} changes", plan.changes.len());
    found
}

fn encoding(file: Content) -> AllocationInfo {
    let state = desired(&host(&read(file)), &Observed::bare()).state;
    measured(|| codec::encode(&state).is_ok()).0
}

fn decoding(file: Content) -> AllocationInfo {
    let state = desired(&host(&read(file)), &Observed::bare()).state;
    let messages = codec::encode(&state).expect("every device is known");
    let (found, read) = measured(|| messages.decode().expect("they are whole"));
    assert_eq!(read.len(), state.len());
    found
}

fn nothing(_: &Desired) -> Observed {
    Observed::bare()
}

fn everything(wanted: &Desired) -> Observed {
    Observed::holding(&wanted.state)
}
