//! What a fleet costs as it grows: reading it, one node's desired state, every node's plan. Time and memory.
//!
//! Each size is ten times the one before: so should the figures be, and the plans of all nodes a hundred times, as there
//! are as many routes more.

use divan::{AllocProfiler, Bencher, black_box};
use tunnelform::desired::desired;
use tunnelform::plan::{Terms, plan};
use tunnelform::state::{Desired, Observed};
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
    let terms = Terms {
        owner: topology.name.clone(),
        protocol: topology.route_protocol.0,
        adopt: false,
        prune: true,
        protect: Default::default(),
        hitless: false,
    };
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
