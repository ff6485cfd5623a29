//! What a fleet and a host cost as they grow, without a kernel: reading the file, the desired state, the plan, netlink
//! messages. Time and memory.
//!
//! Each size is ten times the one before: so should the figures be, and the plans of all nodes a hundred times, as there
//! are as many routes more.

use divan::{AllocProfiler, Bencher, black_box};
use tunnelform::desired::desired;
use tunnelform::kernel::codec;
use tunnelform::plan::{Terms, plan};
use tunnelform::source::{Content, ListFile};
use tunnelform::state::{Desired, Observed, State};
use tunnelform::topology::{Fleet, Name, Topology};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

/// A pod mesh: a subnet for each node.
fn file(nodes: usize, style: &str) -> String {
    let mut text = String::from("version: 1\nname: pods\nnodes:\n");
    for node in 0..nodes {
        let (high, low) = (node / 256, node % 256);
        text += &format!(
            "  node-{node:05}: {{underlay: 172.16.{high}.{low}, subnets: [10.{high}.{low}.0/24]}}\n"
        );
    }
    text + &format!("meshes: {{pods: {{style: {style}}}}}\n")
}

fn read(nodes: usize, style: &str) -> Topology {
    match Topology::parse("fleet.yaml", &file(nodes, style)) {
        Ok(parsed) => parsed.topology,
        Err(problems) => panic!("{problems}"),
    }
}

fn terms(topology: &Topology) -> Terms {
    Terms::new(topology.name.clone(), topology.route_protocol.0)
}

fn wanted(fleet: &Fleet, node: &Name) -> Desired {
    let host = fleet.host(Some(node)).expect("the node is there");
    desired(&host, &Observed::bare())
}

/// Reading and checking the file.
#[divan::bench(args = [100, 1_000, 10_000])]
fn validate(bencher: Bencher, nodes: usize) {
    let text = file(nodes, "multipoint");
    bencher.bench_local(|| Topology::parse("fleet.yaml", black_box(&text)).is_ok());
}

/// What one node should have. `max alloc` by the number of nodes is the memory for a route.
#[divan::bench(args = [100, 1_000, 10_000])]
fn one_node(bencher: Bencher, nodes: usize) {
    let topology = read(nodes, "multipoint");
    let fleet = topology.fleet();
    let node = fleet.names().nth(nodes / 2).expect("there are nodes");
    bencher.bench_local(|| wanted(&fleet, black_box(node)).state.len());
}

/// The same with a tunnel for each peer.
#[divan::bench(args = [100, 1_000, 10_000])]
fn one_node_point_to_point(bencher: Bencher, nodes: usize) {
    let topology = read(nodes, "point-to-point");
    let fleet = topology.fleet();
    let node = fleet.names().nth(nodes / 2).expect("there are nodes");
    bencher.bench_local(|| wanted(&fleet, black_box(node)).state.len());
}

/// Every node's plan against a bare host, one after the other.
#[divan::bench(args = [100, 300, 1_000], sample_count = 3, sample_size = 1)]
fn all_nodes(bencher: Bencher, nodes: usize) {
    let topology = read(nodes, "multipoint");
    let terms = terms(&topology);
    let bare = Observed::bare();
    bencher.bench_local(|| {
        let fleet = topology.fleet();
        let plans = fleet.names().map(|node| {
            let wanted = wanted(&fleet, node);
            plan(&wanted, Some(&wanted.state), &bare, &terms)
                .changes
                .len()
        });
        plans.sum::<usize>()
    });
}

/// A host's tunnels, with an address and a route each.
fn tunnels(count: usize) -> String {
    let mut text =
        String::from("version: 1\nname: hq\ndefaults: {local: 192.168.10.2}\ntunnels:\n");
    for n in 0..count {
        let (high, low) = (n / 250, n % 250);
        text += &format!(
            "  t{n}: {{remote: 172.16.{high}.{low}, addresses: [10.{high}.{low}.1/24], routes: [11.{high}.{low}.0/24]}}\n"
        );
    }
    text
}

/// A host's routes that go through none of its tunnels.
fn routes(count: usize) -> String {
    let mut text = String::from("version: 1\nname: hq\nroutes:\n");
    for n in 0..count {
        let (high, middle, low) = (n / 62_500, n / 250 % 250, n % 250);
        text +=
            &format!("  - {{to: 11.{high}.{middle}.{low}/32, via: 192.168.10.1, device: eth0}}\n");
    }
    text
}

fn host(text: &str) -> Topology {
    match Topology::parse("hq.yaml", text) {
        Ok(parsed) => parsed.topology,
        Err(problems) => panic!("{problems}"),
    }
}

/// Reading and checking a host's file.
#[divan::bench(args = [100, 1_000, 10_000])]
fn read_tunnels(bencher: Bencher, count: usize) {
    let text = tunnels(count);
    bencher.bench_local(|| Topology::parse("hq.yaml", black_box(&text)).is_ok());
}

/// The same of nothing but routes.
#[divan::bench(args = [1_000, 10_000, 100_000])]
fn read_routes(bencher: Bencher, count: usize) {
    let text = routes(count);
    bencher.bench_local(|| Topology::parse("hq.yaml", black_box(&text)).is_ok());
}

/// The same routes from a file of their own.
#[divan::bench(args = [1_000, 10_000, 100_000])]
fn read_list(bencher: Bencher, count: usize) {
    let lines = (0..count).map(|n| {
        let (high, middle, low) = (n / 62_500, n / 250 % 250, n % 250);
        format!("11.{high}.{middle}.{low}/32\n")
    });
    let list = ListFile {
        file: "routes.txt".into(),
        path: "routes.txt".into(),
        bytes: Ok(lines.collect::<String>().into_bytes()),
    };
    let text = "name: hq\nroutes: {file: routes.txt, via: 192.168.10.1, device: eth0}\n";
    let file = Content {
        lists: vec![list],
        ..Content::new("hq.yaml", text)
    };
    let files = || vec![file.clone()];
    bencher
        .with_inputs(files)
        .bench_local_values(|files| Topology::parse_files("hq.yaml", files).is_ok());
}

/// The desired state of a host without a fleet.
#[divan::bench(args = [1_000, 10_000, 100_000])]
fn desired_routes(bencher: Bencher, count: usize) {
    let topology = host(&routes(count));
    let fleet = topology.fleet();
    let host = fleet.host(None).expect("one host");
    let bare = Observed::bare();
    bencher.bench_local(|| desired(&host, black_box(&bare)).state.len());
}

/// What differs, in which order: a host that has nothing.
#[divan::bench(args = [100, 1_000, 10_000])]
fn plan_create(bencher: Bencher, count: usize) {
    plan_against(bencher, &tunnels(count), 3 * count, |_| Observed::bare());
}

/// The same where nothing differs.
#[divan::bench(args = [100, 1_000, 10_000])]
fn plan_no_op(bencher: Bencher, count: usize) {
    let as_wanted = |wanted: &Desired| Observed::holding(&wanted.state);
    plan_against(bencher, &tunnels(count), 0, as_wanted);
}

/// The messages that make a host's tunnels, addresses and routes.
#[divan::bench(args = [100, 1_000, 10_000])]
fn encode(bencher: Bencher, count: usize) {
    let state = state(count);
    bencher.bench_local(|| codec::encode(black_box(&state)).is_ok());
}

/// The same messages, read.
#[divan::bench(args = [100, 1_000, 10_000])]
fn decode(bencher: Bencher, count: usize) {
    let messages = codec::encode(&state(count)).expect("every device is known");
    bencher.bench_local(|| black_box(&messages).decode().expect("they are whole").len());
}

fn state(count: usize) -> State {
    let topology = host(&tunnels(count));
    let host = topology.fleet().host(None).expect("one host");
    desired(&host, &Observed::bare()).state
}

fn plan_against(
    bencher: Bencher,
    text: &str,
    changes: usize,
    observed: impl Fn(&Desired) -> Observed,
) {
    let topology = host(text);
    let terms = terms(&topology);
    let fleet = topology.fleet();
    let host = fleet.host(None).expect("one host");
    let wanted = desired(&host, &Observed::bare());
    let observed = observed(&wanted);
    let planned = || plan(&wanted, Some(&wanted.state), &observed, &terms);
    assert_eq!(planned().changes.len(), changes);
    bencher.bench_local(|| planned().changes.len());
}
