//! Where the file has what one host of it has.

use std::collections::BTreeMap;

use super::probes::ends_that_the_fleet_tells;
use crate::source::{Index, Path, Segment};
use crate::state::InterfaceName;
use crate::topology::mesh::Fleet;
use crate::topology::{Name, Style};

/// The way back from a host's topology to the file's.
#[derive(Default)]
pub(super) struct View<'a> {
    node: Option<&'a Name>,
    /// Tunnels that only this node has.
    own_tunnels: Vec<InterfaceName>,
    /// Tunnels that meshes make, each with its mesh and, if it has only one, with the node at its other end.
    meshes: BTreeMap<InterfaceName, (&'a Name, Option<&'a Name>)>,
    /// Tunnels in writing whose other end the fleet tells.
    ends: Vec<InterfaceName>,
    /// How many addresses of a device every node has.
    shared_addresses: BTreeMap<InterfaceName, usize>,
    /// How many routes every node has, and how many this one adds.
    routes: (usize, usize),
}

impl<'a> View<'a> {
    /// A topology that is one host's own.
    pub(super) const WHOLE: Self = Self {
        node: None,
        own_tunnels: Vec::new(),
        meshes: BTreeMap::new(),
        ends: Vec::new(),
        shared_addresses: BTreeMap::new(),
        routes: (0, 0),
    };

    pub(super) fn of(fleet: &Fleet<'a>, number: usize) -> Self {
        let node = fleet.nodes[number];
        let meshes = fleet.meshes.iter().filter(|graph| graph.has(number));
        let meshes = meshes.filter_map(|graph| match graph.mesh.style {
            Style::Multipoint => Some((graph.device()?, (graph.name, None))),
            Style::PointToPoint => {
                let peer = graph.first_neighbour(number)?;
                let peer_name = Some(fleet.names[peer]);
                Some((graph.tunnel_to(peer)?, (graph.name, peer_name)))
            }
        });
        let shared = fleet.topology.addresses.iter();
        Self {
            node: Some(fleet.names[number]),
            own_tunnels: node.tunnels.keys().copied().collect(),
            meshes: meshes.collect(),
            ends: ends_that_the_fleet_tells(fleet, number),
            shared_addresses: shared.map(|(device, list)| (*device, list.len())).collect(),
            routes: (fleet.topology.routes.len(), node.routes.len()),
        }
    }

    /// Whether a mesh makes the tunnel.
    pub(super) fn is_of_mesh(&self, tunnel: InterfaceName) -> bool {
        self.meshes.contains_key(&tunnel)
    }

    /// Whether the fleet tells the overlay address at the tunnel's other end.
    pub(super) fn tells_end(&self, tunnel: InterfaceName) -> bool {
        self.ends.contains(&tunnel)
    }

    /// Whether it stands for the mesh's tunnels to all peers.
    pub(super) fn is_sample(&self, tunnel: InterfaceName) -> bool {
        let mesh = self.meshes.get(&tunnel);
        mesh.is_some_and(|(_, peer)| peer.is_some())
    }

    /// The path in the file of what the host has at `path`.
    pub(super) fn place(&self, path: &Path, root: &Index) -> Path {
        let Some(name) = self.node else {
            return path.clone();
        };
        let node = Path::default().key("nodes").key(name);
        match path.segments() {
            [Segment::Key(top), Segment::Key(device), rest @ ..] if top == "tunnels" => {
                let is = |name: &InterfaceName| name.to_string() == *device;
                if let Some((device, ends)) = self.meshes.iter().find(|(device, _)| is(device)) {
                    self.of_mesh(*device, *ends, rest, root)
                } else if self.own_tunnels.iter().any(is) {
                    node.join(path.segments())
                } else {
                    path.clone()
                }
            }
            [
                Segment::Key(top),
                Segment::Key(device),
                Segment::Index(index),
                rest @ ..,
            ] if top == "addresses" => match device.parse() {
                Ok(device) => self.address(device, *index, rest, root),
                Err(_) => path.clone(),
            },
            [Segment::Key(top), Segment::Index(index), rest @ ..] if top == "routes" => {
                let (shared, own) = self.routes;
                match index.checked_sub(shared) {
                    None => path.clone(),
                    Some(index) if index < own => node.key("routes").index(index).join(rest),
                    Some(_) => node.key("subnets"),
                }
            }
            [Segment::Key(top), ..] => {
                let own = node.join(path.segments());
                let of_node =
                    (top == "defaults" || top == "addresses") && root.find(&own).is_some();
                if of_node { own } else { path.clone() }
            }
            _ => path.clone(),
        }
    }

    /// A mesh takes the ends of its tunnels from the nodes, and its options from `tunnel`.
    fn of_mesh(
        &self,
        device: InterfaceName,
        (mesh, peer): (&Name, Option<&Name>),
        rest: &[Segment],
        root: &Index,
    ) -> Path {
        let mesh = Path::default().key("meshes").key(mesh);
        let underlay = |node: &Name| Path::default().key("nodes").key(node).key("underlay");
        match (rest, self.node, peer) {
            ([], ..) => {
                let interface = mesh.key("interface");
                let written = root.find(&interface).is_some();
                if written { interface } else { mesh }
            }
            ([Segment::Key(list), Segment::Index(index), ..], ..) if list == "addresses" => {
                self.address(device, *index, &[], root)
            }
            ([Segment::Key(end)], Some(own), _) if end == "local" => underlay(own),
            ([Segment::Key(end)], _, Some(peer)) if end == "remote" => underlay(peer),
            _ => mesh.key("tunnel").join(rest),
        }
    }

    fn address(&self, device: InterfaceName, index: usize, rest: &[Segment], root: &Index) -> Path {
        let list = Path::default().key("addresses").key(device);
        let shared = self.shared_addresses.get(&device).copied().unwrap_or(0);
        let path = match (index.checked_sub(shared), self.node) {
            (Some(index), Some(name)) => {
                let node = Path::default().key("nodes").key(name);
                let own = node.join(list.segments()).index(index);
                // What nobody has written comes from the first subnet.
                if root.find(&own).is_some() {
                    own
                } else {
                    node.key("subnets")
                }
            }
            _ => list.index(index),
        };
        path.join(rest)
    }

    /// A lost path as the host has it; `None`: it is another node's.
    pub(super) fn within<'p>(&self, path: &'p Path) -> Option<&'p [Segment]> {
        match (path.segments(), self.node) {
            ([Segment::Key(top), Segment::Key(node), rest @ ..], Some(name)) if top == "nodes" => {
                (node == name.as_str()).then_some(rest)
            }
            (segments, _) => Some(segments),
        }
    }
}
