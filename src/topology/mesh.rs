//! What a mesh comes to: who is in it, who has a tunnel to whom, which way leads to whom, and what devices are called.
//!
//! Everything here follows from names and the file alone, never from an order of writing or a counter, so that a node
//! that comes or goes changes nothing for those that aren't its peers.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::rc::Rc;

use ipnet::Ipv4Net;

use super::{Links, Members, Mesh, Name, Node, Style, Topology};
use crate::state::InterfaceName;

/// Equal ways to a peer that a route takes at most.
const MOST_WAYS: usize = 8;
/// What shortens a peer's name, and has no place in a node's own: so no short name is another node's full one.
const SHORTENED: char = '~';
/// Characters of the digest in a shortened name, 5 bits each.
const DIGEST: usize = 8;
/// The longest name of a device.
const LONGEST_NAME: usize = 15;

/// A fleet with its names looked up: nodes have numbers here, in the order of their names.
pub struct Fleet<'a> {
    pub(super) topology: &'a Topology,
    pub(super) names: Vec<&'a Name>,
    pub(super) nodes: Vec<&'a Node>,
    numbers: HashMap<&'a str, usize>,
    pub(super) meshes: Vec<Graph<'a>>,
}

/// A mesh with its members.
pub struct Graph<'a> {
    pub(super) name: &'a Name,
    pub(super) mesh: &'a Mesh,
    /// Sorted.
    pub(super) members: Vec<usize>,
    /// For each node its neighbours, sorted; `None`: everyone is everyone's.
    neighbours: Option<HashMap<usize, Vec<usize>>>,
    /// point-to-point: what stands for each node in the name of a tunnel to it.
    pub(super) labels: Labels,
}

impl Topology {
    /// The fleet's meshes, resolved. Cheap for one host without any.
    pub fn fleet(&self) -> Fleet<'_> {
        let names: Vec<&Name> = self.nodes.keys().collect();
        let numbers: HashMap<&str, usize> = names
            .iter()
            .enumerate()
            .map(|(number, name)| (name.as_str(), number))
            .collect();
        let mut fleet = Fleet {
            topology: self,
            names,
            nodes: self.nodes.values().collect(),
            numbers,
            meshes: Vec::new(),
        };
        fleet.meshes = self
            .meshes
            .iter()
            .map(|(name, mesh)| Graph::new(name, mesh, &fleet))
            .collect();
        fleet
    }
}

impl<'a> Fleet<'a> {
    /// A node's number: its place among the names, from 0.
    pub fn number(&self, name: &Name) -> Option<usize> {
        self.numbers.get(name.as_str()).copied()
    }

    /// A node's underlay address, where the file has it.
    pub(super) fn underlay(&self, node: usize) -> Option<Ipv4Addr> {
        self.nodes[node].underlay.as_ref()?.address()
    }

    /// The meshes, in the order of their names.
    pub fn meshes(&self) -> impl ExactSizeIterator<Item = &Graph<'a>> {
        self.meshes.iter()
    }
}

impl<'a> Graph<'a> {
    fn new(name: &'a Name, mesh: &'a Mesh, fleet: &Fleet<'a>) -> Self {
        let members: Vec<usize> = match &mesh.members {
            Members::All => (0..fleet.nodes.len()).collect(),
            Members::List(names) => {
                let numbers = names.iter().filter_map(|name| fleet.number(name));
                numbers.collect::<BTreeSet<_>>().into_iter().collect()
            }
            Members::Labels(labels) => (0..fleet.nodes.len())
                .filter(|&node| {
                    let own = &fleet.nodes[node].labels;
                    labels
                        .iter()
                        .all(|(key, value)| own.get(key) == Some(value))
                })
                .collect(),
        };
        let neighbours = neighbours(&mesh.topology, &members, fleet);
        let labels = match mesh.style {
            Style::Multipoint => Labels::default(),
            Style::PointToPoint => {
                let room = LONGEST_NAME.saturating_sub(base(name, mesh).len());
                let names = members
                    .iter()
                    .map(|&node| (node, fleet.names[node].as_str()));
                Labels::new(names, room)
            }
        };
        Self {
            name,
            mesh,
            members,
            neighbours,
            labels,
        }
    }

    /// The mesh's name.
    pub fn name(&self) -> &'a Name {
        self.name
    }

    /// What the file says of it.
    pub fn mesh(&self) -> &'a Mesh {
        self.mesh
    }

    /// The numbers of its nodes, sorted.
    pub fn members(&self) -> &[usize] {
        &self.members
    }

    /// The pairs of members that have a tunnel, each once, the smaller number first. A full mesh of 10,000 has fifty
    /// million.
    pub fn pairs(&self) -> impl Iterator<Item = (usize, usize)> {
        self.members.iter().flat_map(|&one| {
            let others = self.neighbours(one).into_iter();
            others
                .filter(move |&other| other > one)
                .map(move |other| (one, other))
        })
    }

    pub(super) fn has(&self, node: usize) -> bool {
        self.members.binary_search(&node).is_ok()
    }

    /// The nodes that a member has a tunnel to, sorted.
    pub(super) fn neighbours(&self, node: usize) -> Vec<usize> {
        match &self.neighbours {
            None if self.has(node) => {
                let others = self.members.iter().filter(|&&other| other != node);
                others.copied().collect()
            }
            None => Vec::new(),
            Some(lists) => lists.get(&node).cloned().unwrap_or_default(),
        }
    }

    /// One of them.
    pub(super) fn first_neighbour(&self, node: usize) -> Option<usize> {
        match &self.neighbours {
            None if self.has(node) => self.members.iter().copied().find(|&other| other != node),
            None => None,
            Some(lists) => lists.get(&node)?.first().copied(),
        }
    }

    pub(super) fn joins(&self, one: usize, other: usize) -> bool {
        match &self.neighbours {
            None => one != other && self.has(one) && self.has(other),
            Some(lists) => lists
                .get(&one)
                .is_some_and(|list| list.binary_search(&other).is_ok()),
        }
    }

    /// The other members that `from` can reach, each with the neighbours that begin a shortest way to it.
    pub(super) fn ways(&self, from: usize) -> Vec<(usize, Rc<[usize]>)> {
        let neighbours = self.neighbours(from);
        let mut reached: Vec<(usize, Rc<[usize]>)> = neighbours
            .iter()
            .map(|&neighbour| (neighbour, Rc::from([neighbour])))
            .collect();
        let Some(lists) = &self.neighbours else {
            return reached;
        };
        // Hop by hop away from the node: who is reached takes over the first hops of those that it is reached from.
        let mut seen: HashMap<usize, usize> = HashMap::from([(from, 0)]);
        seen.extend(neighbours.iter().map(|&neighbour| (neighbour, 1)));
        let (mut start, mut distance) = (0, 1);
        while start < reached.len() {
            let end = reached.len();
            let mut next: HashMap<usize, Rc<[usize]>> = HashMap::new();
            distance += 1;
            for (node, first_hops) in &reached[start..end] {
                for &other in lists.get(node).map_or(&[][..], Vec::as_slice) {
                    if *seen.entry(other).or_insert(distance) == distance {
                        let hops = next.entry(other).or_insert_with(|| Rc::clone(first_hops));
                        if hops != first_hops {
                            *hops = union(hops, first_hops);
                        }
                    }
                }
            }
            let mut next: Vec<_> = next.into_iter().collect();
            next.sort_unstable_by_key(|(node, _)| *node);
            reached.extend(next);
            start = end;
        }
        reached
    }

    /// The device of a multipoint mesh.
    pub(super) fn device(&self) -> Option<InterfaceName> {
        base(self.name, self.mesh).parse().ok()
    }

    /// The name of the tunnel to a peer. `None` where no name fits, which the validation refuses.
    pub(super) fn tunnel_to(&self, peer: usize) -> Option<InterfaceName> {
        let label = self.labels.of_node.get(&peer)?;
        format!("{}{label}", base(self.name, self.mesh))
            .parse()
            .ok()
    }

    /// The other end of a tunnel of a point-to-point mesh, by the tunnel's name.
    pub(super) fn peer_of(&self, tunnel: InterfaceName) -> Option<usize> {
        let name = tunnel.to_string();
        self.labels.node(name.strip_prefix(&self.base())?)
    }

    /// What the mesh's devices are called, or begin with.
    pub fn base(&self) -> String {
        base(self.name, self.mesh)
    }

    /// A node's address on its tunnels of a point-to-point mesh.
    pub(super) fn link_address(&self, fleet: &Fleet, node: usize) -> Option<Ipv4Addr> {
        match self.mesh.link_network {
            Some(net) => Some(link_address(net.0, fleet.underlay(node)?)),
            None => first_address(fleet.nodes[node]),
        }
    }
}

fn base(name: &Name, mesh: &Mesh) -> String {
    match (mesh.interface, mesh.style) {
        (Some(interface), _) => interface.to_string(),
        (None, Style::Multipoint) => name.to_string(),
        (None, Style::PointToPoint) => format!("{name}-"),
    }
}

/// An address of the link network that has the last bits of the underlay address. Two nodes have the same one only where
/// these bits are the same, which the validation refuses.
fn link_address(network: Ipv4Net, underlay: Ipv4Addr) -> Ipv4Addr {
    let host = u32::from(network.hostmask()) & u32::from(underlay);
    Ipv4Addr::from(u32::from(network.network()) | host)
}

/// A node's address in the overlay where it has no better one: its first subnet's network address, as Flannel and
/// Calico do it.
pub(super) fn first_address(node: &Node) -> Option<Ipv4Addr> {
    node.subnets.first().map(|subnet| subnet.0.network())
}

fn union(one: &[usize], other: &[usize]) -> Rc<[usize]> {
    let all: BTreeSet<usize> = one.iter().chain(other).copied().collect();
    all.into_iter().take(MOST_WAYS).collect()
}

fn neighbours(
    links: &Links,
    members: &[usize],
    fleet: &Fleet,
) -> Option<HashMap<usize, Vec<usize>>> {
    let is_member = |node: &usize| members.binary_search(node).is_ok();
    let number = |name: &Name| fleet.number(name).filter(is_member);
    let mut lists: HashMap<usize, Vec<usize>> = HashMap::new();
    match links {
        Links::Full => return None,
        Links::Hub(names) => {
            let hubs: BTreeSet<usize> = names.iter().filter_map(number).collect();
            for &member in members {
                let others: Vec<usize> = if hubs.contains(&member) {
                    members.iter().filter(|&&m| m != member).copied().collect()
                } else {
                    hubs.iter().copied().collect()
                };
                lists.insert(member, others);
            }
        }
        Links::Edges(edges) => {
            for (one, other) in edges {
                if let (Some(one), Some(other)) = (number(one), number(other))
                    && one != other
                {
                    lists.entry(one).or_default().push(other);
                    lists.entry(other).or_default().push(one);
                }
            }
            for list in lists.values_mut() {
                list.sort_unstable();
                list.dedup();
            }
        }
    }
    Some(lists)
}

/// Names of nodes, cut to the room that is left in the name of a device.
#[derive(Default)]
pub(super) struct Labels {
    of_node: HashMap<usize, String>,
    /// And back.
    nodes: HashMap<String, usize>,
    /// A node for whose name there is too little room.
    pub(super) without_room: Option<usize>,
}

impl Labels {
    /// A name that fits stays as it is. Another keeps what there is room for and a digest of the whole. Two digests that
    /// are the same are told apart by digesting once more, in the order of the names.
    fn new<'n>(names: impl Iterator<Item = (usize, &'n str)>, room: usize) -> Self {
        let mut labels = Self::default();
        for (number, name) in names {
            let Some(label) = labels.of(name, room) else {
                labels.without_room.get_or_insert(number);
                continue;
            };
            labels.nodes.insert(label.clone(), number);
            labels.of_node.insert(number, label);
        }
        labels
    }

    /// A label that no other node has.
    fn of(&self, name: &str, room: usize) -> Option<String> {
        if name.len() <= room {
            return Some(name.to_owned());
        }
        // No node's name has characters of more than one byte.
        let head = &name[..room.checked_sub(DIGEST + 1)?];
        let mut attempts = (0..).map(|round| format!("{head}{SHORTENED}{}", digest(name, round)));
        attempts.find(|label| !self.nodes.contains_key(label))
    }

    /// The node that a label stands for.
    pub(super) fn node(&self, label: &str) -> Option<usize> {
        self.nodes.get(label).copied()
    }
}

/// FNV-1a of 64 bits, in base 32. It must stay the same for ever: devices are called by it.
fn digest(name: &str, round: u64) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let bytes = name.bytes().chain(round.to_be_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // The upper bits are mixed best.
    (0..DIGEST)
        .map(|place| {
            let bits = hash >> (64 - 5 * (place + 1));
            char::from(ALPHABET[usize::try_from(bits & 31).unwrap_or(0)])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};
    use std::net::Ipv4Addr;

    use ipnet::Ipv4Net;
    use proptest::collection::btree_set;
    use proptest::prelude::*;

    use super::{DIGEST, Labels, digest, link_address};

    /// Short names, long ones that begin alike, and some that look like what is made of those.
    fn any_name() -> impl Strategy<Value = String> {
        let long = "node-of-the-same-beginning-[0-9]{1,3}";
        prop_oneof![
            "[ab]{1,3}",
            long,
            "[a-c.-]{1,40}a",
            (long, 0..6usize, 0..3u64).prop_map(|(name, head, round)| {
                format!("{}-{}", &name[..head], digest(&name, round))
            }),
            (long, 0..6usize)
                .prop_map(|(name, head)| name[..head].to_owned() + &digest(&name, 0) + "a"),
        ]
    }

    fn labels(names: &BTreeSet<String>, room: usize) -> Labels {
        Labels::new(names.iter().map(String::as_str).enumerate(), room)
    }

    fn of<'l>(names: &BTreeSet<String>, labels: &'l Labels, name: &str) -> Option<&'l String> {
        let number = names.iter().position(|known| known == name)?;
        labels.of_node.get(&number)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        #[test]
        fn labels_are_one_nodes_own(names in btree_set(any_name(), 1..40), room in 0..15usize) {
            let labels = labels(&names, room);
            let mut seen = HashSet::new();
            for (number, name) in names.iter().enumerate() {
                let Some(label) = labels.of_node.get(&number) else {
                    prop_assert!(room <= DIGEST && name.len() > room, "no label for {name}");
                    prop_assert!(labels.without_room.is_some());
                    continue;
                };
                prop_assert!((1..=room).contains(&label.len()), "{label}");
                prop_assert!(seen.insert(label), "{label} twice");
                prop_assert_eq!(labels.node(label), Some(number));
                prop_assert!(name.len() > room || label == name);
            }
        }

        #[test]
        fn who_comes_renames_nobody(names in btree_set(any_name(), 1..40), more in btree_set(any_name(), 1..10), room in 9..15usize) {
            let all: BTreeSet<String> = names.union(&more).cloned().collect();
            let (few, many) = (labels(&names, room), labels(&all, room));
            for name in &names {
                prop_assert_eq!(of(&names, &few, name), of(&all, &many, name));
            }
        }

        /// What it is hangs on nothing but the node's own underlay address, and two that are alike have equal last bits.
        #[test]
        fn link_addresses_are_one_nodes_own(one: u32, other: u32, network: u32, length in 1..=30u8) {
            let network = Ipv4Net::new(Ipv4Addr::from(network), length).unwrap().trunc();
            let address = |underlay: u32| link_address(network, Ipv4Addr::from(underlay));
            prop_assert!(network.contains(&address(one)));
            let last = |underlay: u32| underlay & u32::from(network.hostmask());
            prop_assert_eq!(address(one) == address(other), last(one) == last(other));
        }
    }

    /// Devices are called by it: another digest would replace every tunnel.
    #[test]
    fn the_digest_stays() {
        assert_eq!(digest("node-with-a-long-name-1", 0), "2auzgkgc");
        assert_eq!(digest("node-with-a-long-name-1", 1), "2auzekgc");
    }
}
