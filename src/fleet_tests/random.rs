//! Fleets that are right, and the hosts that they are for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

use crate::state::{Address, AddressKey, InterfaceName, Observed, Scope};

/// Names that YAML or a device's 15 bytes make difficult.
const NAMES: [&str; 10] = [
    "a",
    "b",
    "no",
    "1e3",
    "null",
    "0x1f",
    "node-with-a-long-name-1",
    "node-with-a-long-name-2",
    "node-with-a-lon",
    "true.example",
];

/// A fleet, and what its author knows about it.
#[derive(Clone)]
pub(super) struct Random {
    pub(super) text: String,
    pub(super) names: Vec<&'static str>,
    pub(super) meshes: Vec<RandomMesh>,
    pub(super) subnets: BTreeMap<&'static str, Vec<Ipv4Net>>,
    /// Each node's host, before anything is done to it.
    pub(super) observed: BTreeMap<&'static str, Observed>,
}

/// The text says it all.
impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.text)
    }
}

#[derive(Clone)]
pub(super) struct RandomMesh {
    /// What its devices are called, or begin with.
    pub(super) name: &'static str,
    pub(super) members: Vec<&'static str>,
    pub(super) routes: bool,
}

#[derive(Debug, Clone)]
struct RandomNode {
    /// Number of its underlay network; `None`: an address alone, as clouds give them.
    network: Option<u8>,
    /// How much of the underlay the file tells.
    told: u8,
    /// Lengths of its subnets.
    subnets: Vec<u8>,
    label: bool,
    /// A default of its own.
    ttl: Option<u8>,
}

#[derive(Debug, Clone)]
struct Options {
    point_to_point: bool,
    direct: bool,
    links: u8,
    hubs: Vec<Index>,
    parents: Vec<Index>,
    more: Vec<(Index, Index)>,
    link_network: bool,
    mtu: Option<u32>,
    local: bool,
    blackhole: bool,
    down: bool,
}

fn any_node() -> impl Strategy<Value = RandomNode> {
    (
        option::weighted(0.8, 0..3u8),
        0..4u8,
        vec(select(vec![24u8, 25, 32]), 0..4),
        any::<bool>(),
        option::weighted(0.2, 1..255u8),
    )
        .prop_map(|(network, told, subnets, label, ttl)| RandomNode {
            network,
            told,
            subnets,
            label,
            ttl,
        })
}

prop_compose! {
    fn any_options()(
        (point_to_point, direct, link_network, local, blackhole) in any::<(bool, bool, bool, bool, bool)>(),
        links in 0..3u8,
        hubs in vec(any::<Index>(), 1..3),
        parents in vec(any::<Index>(), 8),
        more in vec(any::<(Index, Index)>(), 0..6),
        mtu in option::of(1000..1400u32),
        down in prop::bool::weighted(0.1),
    ) -> Options {
        Options { point_to_point, direct, links, hubs, parents, more, link_network, mtu, local, blackhole, down }
    }
}

/// One mesh, or two: with the same members, or with one member in common.
pub(super) fn any_fleet() -> impl Strategy<Value = Random> {
    let nodes = subsequence(NAMES.to_vec(), 2..8).prop_flat_map(|names| {
        let count = names.len();
        (Just(names), vec(any_node(), count))
    });
    (nodes, any_options(), any_options(), 0..4u8, any::<Index>()).prop_map(
        |((names, nodes), one, mut two, shape, cut)| {
            two.point_to_point |= !one.point_to_point;
            (two.local, two.blackhole) = (one.local, one.blackhole);
            build(&names, &nodes, &one, &two, shape, cut)
        },
    )
}

fn build(
    names: &[&'static str],
    nodes: &[RandomNode],
    one: &Options,
    two: &Options,
    shape: u8,
    cut: Index,
) -> Random {
    let mut random = Random {
        text: "name: t\nnodes:\n".into(),
        names: names.to_vec(),
        meshes: Vec::new(),
        subnets: BTreeMap::new(),
        observed: BTreeMap::new(),
    };
    for (number, (name, node)) in names.iter().zip(nodes).enumerate() {
        random.node(number as u8, name, node);
    }
    random.text += "meshes:\n";
    let labelled: Vec<&'static str> = names
        .iter()
        .zip(nodes)
        .filter(|(_, node)| node.label)
        .map(|(name, _)| *name)
        .collect();
    match shape {
        // Chosen by their label.
        0 if labelled.len() > 1 => random.mesh("one", one, &labelled, "{role: yes-please}", true),
        // The second has routes of somebody else's.
        1 => {
            random.mesh("one", one, names, "all", true);
            if !(one.point_to_point && two.point_to_point) {
                random.mesh("two", two, names, "all", false);
            }
        }
        2 if names.len() > 2 => {
            let cut = 1 + cut.index(names.len() - 2);
            let (left, right) = (&names[..=cut], &names[cut..]);
            random.mesh("one", one, left, &list(left), true);
            random.mesh("two", two, right, &list(right), true);
        }
        _ => random.mesh("one", one, names, "all", true),
    }
    random
}

fn list(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    format!("[{}]", names.join(", "))
}

impl Random {
    fn node(&mut self, number: u8, name: &'static str, node: &RandomNode) {
        let (address, length) = match node.network {
            Some(network) => (Ipv4Addr::new(192, 168, network, number + 1), 24),
            None => (Ipv4Addr::new(203, 0, 113, number + 1), 32),
        };
        let underlay = match node.told {
            0 => address.to_string(),
            1 => format!("{address}/{length}"),
            2 => format!("{{address: {address}, device: eth0}}"),
            _ => format!("{{address: {address}/{length}, device: eth0}}"),
        };
        let subnets: Vec<Ipv4Net> = node
            .subnets
            .iter()
            .zip(0..)
            .map(|(&length, index)| {
                Ipv4Net::new(Ipv4Addr::new(10, number, index, 128), length)
                    .unwrap()
                    .trunc()
            })
            .collect();
        let shown: Vec<String> = subnets.iter().map(ToString::to_string).collect();
        self.text += &format!(
            "  {name:?}:\n    underlay: {underlay}\n    subnets: [{}]\n",
            shown.join(", ")
        );
        if node.label {
            self.text += "    labels: {role: yes-please, \"no\": \"1\"}\n";
        }
        if let Some(ttl) = node.ttl {
            self.text += &format!("    defaults: {{ttl: {ttl}}}\n");
        }
        self.subnets.insert(name, subnets);
        self.observed.insert(name, host(address, length));
    }

    fn mesh(
        &mut self,
        name: &'static str,
        options: &Options,
        members: &[&'static str],
        choice: &str,
        routes: bool,
    ) {
        let style = if options.point_to_point {
            "point-to-point"
        } else {
            "multipoint"
        };
        let Options {
            direct, blackhole, ..
        } = options;
        self.text += &format!(
            "  {name}:\n    style: {style}\n    members: {choice}\n    direct_routing: {direct}\n    routes: {routes}\n    blackhole: {blackhole}\n    topology: {}\n",
            links(options, members)
        );
        if options.local {
            self.text += "    local: br0\n";
        }
        if options.point_to_point && options.link_network {
            // Wide enough for every last bit of the underlay.
            self.text += "    link_network: 100.0.0.0/10\n"
                .replace("100.0", "100.64")
                .as_str();
        }
        let mtu = options.mtu.map(|mtu| format!("mtu: {mtu}"));
        let state = options.down.then(|| "state: down".to_owned());
        let tunnel: Vec<String> = mtu.into_iter().chain(state).collect();
        self.text += &format!("    tunnel: {{{}}}\n", tunnel.join(", "));
        let routes = routes && !options.down;
        self.meshes.push(RandomMesh {
            name,
            members: members.to_vec(),
            routes,
        });
    }
}

/// Connected, whoever is joined to whom.
fn links(options: &Options, members: &[&str]) -> String {
    match options.links {
        0 => "full".into(),
        1 => {
            let hubs: BTreeSet<&str> = options.hubs.iter().map(|hub| *hub.get(members)).collect();
            format!("{{hub: {}}}", list(&hubs.into_iter().collect::<Vec<_>>()))
        }
        _ => {
            let tree =
                (1..members.len()).map(|child| (options.parents[child % 8].index(child), child));
            let more = options
                .more
                .iter()
                .map(|(a, b)| (a.index(members.len()), b.index(members.len())));
            let edges: BTreeSet<(usize, usize)> = tree
                .chain(more)
                .filter(|(a, b)| a != b)
                .map(|(a, b)| (a.min(b), a.max(b)))
                .collect();
            let edges: Vec<String> = edges
                .into_iter()
                .map(|(a, b)| list(&[members[a], members[b]]))
                .collect();
            format!("{{edges: [{}]}}", edges.join(", "))
        }
    }
}

/// A host with its underlay address on eth0, and a bridge.
fn host(address: Ipv4Addr, length: u8) -> Observed {
    let mut observed = Observed::bare();
    let device: InterfaceName = "eth0".parse().unwrap();
    observed.add_device(device, 1500);
    observed.add_device("br0".parse().unwrap(), 1500);
    let local = IpAddr::V4(address);
    let value = Address {
        prefix_len: length,
        peer: None,
        broadcast: None,
        scope: Scope::GLOBAL,
        label: Some("eth0".into()),
        noprefixroute: false,
        metric: 0,
        protocol: 0,
        lifetime: None,
    };
    let key = AddressKey::new(device, local, None, length);
    observed.state.addresses.insert(key, value);
    observed
}
