//! Tunnels that are written by hand: from node to node, and beside those that meshes make.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};

use super::{Check, Held, top};
use crate::source::{Path, Severity};
use crate::state::{InterfaceName, MAIN_TABLE, Mode};
use crate::topology::mesh::Graph;
use crate::topology::{Endpoint, Mtu, Route, Short, Style, Tunnel};

/// A tunnel that is written for a node, with its ends.
struct Written<'a> {
    node: usize,
    path: Path,
    tunnel: &'a Tunnel,
    local: Option<Ipv4Addr>,
    remote: Option<Ipv4Addr>,
}

/// The written tunnels of every node, by the node and their ends: one look-up finds the other end of a tunnel.
struct ByEnds<'a>(HashMap<(usize, Option<Ipv4Addr>, Option<Ipv4Addr>), Written<'a>>);

impl<'a> ByEnds<'a> {
    /// The tunnel of `node` that takes packets which `from` sends to `to`, if it has one.
    fn taking(&self, node: usize, to: Ipv4Addr, from: Ipv4Addr) -> Option<&Written<'a>> {
        let ends = [
            (Some(to), Some(from)),
            (None, Some(from)),
            (Some(to), None),
            (None, None),
        ];
        ends.into_iter()
            .find_map(|(local, remote)| self.0.get(&(node, local, remote)))
    }
}

impl<'a> Check<'a> {
    /// Names of tunnels that are given twice: by a person, or by a person and a mesh.
    pub(super) fn written_tunnels(&mut self) {
        let topology = self.fleet.topology;
        let shared = Path::default().key("tunnels");
        for &name in topology.tunnels.keys() {
            self.derived(
                name,
                || shared.key(name),
                |graph, peer| match peer {
                    None => graph.members.first().copied(),
                    Some(peer) => graph.first_neighbour(peer),
                },
            );
        }
        for number in 0..self.fleet.nodes.len() {
            for &name in self.fleet.nodes[number].tunnels.keys() {
                let path = self.node(number).key("tunnels").key(name);
                if topology.tunnels.contains_key(&name) {
                    let message = format!("tunnel {name} is given for every node already");
                    let help = "give it another name, or delete one of the two";
                    self.clash(&path, &shared.key(name), &message, help);
                }
                self.derived(
                    name,
                    || path.clone(),
                    |graph, peer| {
                        let makes =
                            peer.map_or(graph.has(number), |peer| graph.joins(number, peer));
                        makes.then_some(number)
                    },
                );
            }
        }
    }

    /// `holder` finds a node that has both the written tunnel and the mesh's: its one, or the one to a peer.
    fn derived(
        &mut self,
        name: InterfaceName,
        path: impl Fn() -> Path,
        holder: impl Fn(&Graph, Option<usize>) -> Option<usize>,
    ) {
        let fleet = self.fleet;
        for graph in &fleet.meshes {
            let found = match graph.mesh.style {
                Style::Multipoint if graph.device() == Some(name) => holder(graph, None),
                Style::Multipoint => None,
                Style::PointToPoint => graph
                    .peer_of(name)
                    .and_then(|peer| holder(graph, Some(peer))),
            };
            if let Some(node) = found {
                let message = format!(
                    "the mesh {} makes a device called {name} on {}",
                    graph.name,
                    self.name(node)
                );
                let help = "give the tunnel another name, or the mesh another `interface`";
                self.relate(
                    &path(),
                    Severity::Error,
                    &message,
                    &top("meshes", graph.name),
                    "makes it",
                );
                self.help(help);
            }
        }
    }

    /// Routes that are given twice: by a person, and by a mesh as the way to a peer's subnet.
    pub(super) fn written_routes(&mut self, subnets: &[Held]) {
        if self.fleet.meshes.iter().all(|graph| !graph.mesh.routes) {
            return;
        }
        let subnets: HashMap<Ipv4Net, Held> = subnets.iter().map(|held| (held.0, *held)).collect();
        let topology = self.fleet.topology;
        self.routes_of(None, &Path::default(), &topology.routes, &subnets);
        for (name, tunnel) in &topology.tunnels {
            let path = Path::default().key("tunnels").key(name);
            self.routes_of(None, &path, &tunnel.routes, &subnets);
        }
        for (number, node) in self.fleet.nodes.iter().enumerate() {
            let path = self.node(number);
            self.routes_of(Some(number), &path, &node.routes, &subnets);
            for (name, tunnel) in &node.tunnels {
                let path = path.key("tunnels").key(name);
                self.routes_of(Some(number), &path, &tunnel.routes, &subnets);
            }
        }
    }

    /// The routes of one node, or of all.
    fn routes_of(
        &mut self,
        node: Option<usize>,
        path: &Path,
        routes: &[Short<Route>],
        subnets: &HashMap<Ipv4Net, Held>,
    ) {
        for (index, route) in routes.iter().enumerate() {
            let key = route.key();
            let IpNet::V4(to) = key.to else { continue };
            if key.table != MAIN_TABLE || key.tos != 0 || key.metric != 0 {
                continue;
            }
            let Some(&held) = subnets.get(&to).filter(|held| Some(held.1) != node) else {
                continue;
            };
            let mut meshes = self.fleet.meshes.iter();
            let mesh = meshes.find(|graph| {
                let here = node.is_none_or(|node| graph.has(node));
                graph.mesh.routes && here && graph.has(held.1)
            });
            if let Some(graph) = mesh {
                let message = format!(
                    "the mesh {} makes a route {key}, to {}, already",
                    graph.name,
                    self.name(held.1)
                );
                let path = path.key("routes").index(index);
                self.relate(
                    &path,
                    Severity::Error,
                    &message,
                    &self.subnet(held),
                    "is the subnet",
                );
                self.help("leave it out, or give it a `metric` to make it a spare way");
            }
        }
    }

    /// Tunnels from node to node whose other end doesn't take them.
    pub(super) fn ends(&mut self) {
        let holders: HashMap<Ipv4Addr, usize> = (0..self.fleet.nodes.len())
            .filter_map(|number| Some((self.fleet.underlay(number)?, number)))
            .collect();
        let mut all = ByEnds(HashMap::new());
        for number in 0..self.fleet.nodes.len() {
            for tunnel in self.tunnels_of(number) {
                all.0
                    .entry((number, tunnel.local, tunnel.remote))
                    .or_insert(tunnel);
            }
        }
        let mut tunnels: Vec<&Written> = all.0.values().collect();
        tunnels.sort_unstable_by(|a, b| (a.node, &a.path).cmp(&(b.node, &b.path)));
        for tunnel in tunnels {
            let remote = tunnel.remote;
            if let Some((remote, &peer)) =
                remote.and_then(|remote| Some((remote, holders.get(&remote)?)))
            {
                self.end(tunnel, remote, peer, &all);
            }
        }
    }

    /// A tunnel to a node.
    fn end(&mut self, tunnel: &Written, remote: Ipv4Addr, peer: usize, all: &ByEnds) {
        let own = self.fleet.underlay(tunnel.node);
        if tunnel.local == Some(remote) {
            // A rule of each host's own.
            return;
        }
        if peer == tunnel.node {
            let message = format!(
                "on {} itself the tunnel would end where it starts",
                self.name(peer)
            );
            let help = "give it to the other nodes only, or use a mesh";
            self.error(&tunnel.path, &message, help);
            return;
        }
        let Some(source) = tunnel.local.or(own) else {
            return;
        };
        self.beside_a_mesh(tunnel, peer);
        match all.taking(peer, remote, source) {
            Some(other) => self.agree(tunnel, other),
            None if own == Some(source) && self.mesh_takes(peer, tunnel.node) => {}
            None => {
                let message = format!(
                    "{} has no tunnel that takes packets from {source}",
                    self.name(peer)
                );
                let help = format!(
                    "add `{{remote: {}}}` to the tunnels of {}",
                    self.name(tunnel.node),
                    self.name(peer)
                );
                self.error(&tunnel.path, &message, &help);
            }
        }
    }

    /// A tunnel with the ends of one that a point-to-point mesh makes.
    fn beside_a_mesh(&mut self, tunnel: &Written, peer: usize) {
        if tunnel.local.is_none() || tunnel.local != self.fleet.underlay(tunnel.node) {
            return;
        }
        let fleet = self.fleet;
        let device = self.options(tunnel).device;
        let mesh = fleet.meshes.iter().find(|graph| {
            graph.mesh.style == Style::PointToPoint
                && graph.joins(tunnel.node, peer)
                && self.device_of(graph, tunnel.node) == device
        });
        if let Some(graph) = mesh {
            let message = format!(
                "the mesh {} joins {} and {} already: the kernel could not tell the tunnels apart",
                graph.name,
                self.name(tunnel.node),
                self.name(peer)
            );
            let mesh = top("meshes", graph.name);
            self.relate(
                &tunnel.path,
                Severity::Error,
                &message,
                &mesh,
                "is the mesh",
            );
            self.help("leave the pair to one of them");
        }
    }

    fn mesh_takes(&self, node: usize, from: usize) -> bool {
        self.fleet
            .meshes
            .iter()
            .any(|graph| match graph.mesh.style {
                Style::Multipoint => graph.has(node),
                Style::PointToPoint => graph.joins(node, from),
            })
    }

    fn tunnels_of(&self, number: usize) -> Vec<Written<'a>> {
        let topology = self.fleet.topology;
        let node = self.fleet.nodes[number];
        let shared = topology
            .tunnels
            .iter()
            .map(|(name, tunnel)| (Path::default().key("tunnels").key(name), tunnel));
        let own = node
            .tunnels
            .iter()
            .map(|(name, tunnel)| (self.node(number).key("tunnels").key(name), tunnel));
        let end = |tunnel: &Tunnel, field: fn(&Tunnel) -> &Option<Endpoint>| {
            let defaults = [&node.defaults, &topology.defaults];
            let given = field(tunnel)
                .as_ref()
                .or_else(|| defaults.into_iter().find_map(|d| field(d).as_ref()))?;
            match given {
                Endpoint::Address(address) => Some(*address),
                Endpoint::Node(name) => self.fleet.underlay(self.fleet.number(name)?),
                Endpoint::Any | Endpoint::Device(_) => None,
            }
        };
        shared
            .chain(own)
            .map(|(path, tunnel)| Written {
                node: number,
                path,
                tunnel,
                local: end(tunnel, |t| &t.local),
                remote: end(tunnel, |t| &t.remote),
            })
            .collect()
    }

    /// A tunnel with the defaults behind it.
    fn options(&self, written: &Written) -> Tunnel {
        let node = self.fleet.nodes[written.node];
        let own = Tunnel {
            addresses: Vec::new(),
            routes: Default::default(),
            ..written.tunnel.clone()
        };
        own.or(&node.defaults).or(&self.fleet.topology.defaults)
    }

    /// The two ends of a link. Said once, at the second.
    fn agree(&mut self, one: &Written, other: &Written) {
        if one.node < other.node && other.remote.is_some() {
            return;
        }
        let (mine, theirs) = (self.options(one), self.options(other));
        let mode = |tunnel: &Tunnel| tunnel.mode.unwrap_or(Mode::Ipip);
        let (own, far) = (mode(&mine), mode(&theirs));
        if own != far && own != Mode::Any && far != Mode::Any {
            let message = "the two ends of this tunnel carry different things (`mode`)";
            let is = "is the other end";
            self.relate(&one.path, Severity::Error, message, &other.path, is);
            self.help("give both ends the same `mode`");
        }
        if let (Some(Mtu::Bytes(own)), Some(Mtu::Bytes(far))) = (mine.mtu, theirs.mtu)
            && own != far
        {
            let message =
                format!("the two ends of this tunnel have different MTUs: {own} and {far}");
            let is = "is the other end";
            self.relate(&one.path, Severity::Warning, &message, &other.path, is);
        }
    }
}
