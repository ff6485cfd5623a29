//! One node's part of a fleet: a topology for a single host.
//!
//! What everyone has and what the node has alone are put together, names of nodes become addresses, and each mesh becomes
//! tunnels, addresses and routes. Routes to other nodes' subnets stay in a compact form: there may be ten thousand.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use super::mesh::{Fleet, Graph, first_address};
use super::{
    Address, Destination, Endpoint, Ip, Name, NextHop, Prefix, Route, Short, Style, Topology,
    Tunnel,
};
use crate::state::{AdminState, InterfaceName, RouteKey, RouteType};

/// The metric of what a packet to the node's own subnets takes when nothing better is there: the last there is, as the
/// kernel's own null routes have it. It never stands in the way of a bridge's prefix route.
const LAST_RESORT: u32 = u32::MAX;

/// What one host has of a topology.
#[derive(Debug, Clone)]
pub struct Host {
    /// The node; `None`: the topology is for one host.
    pub node: Option<Name>,
    /// Its tunnels, addresses and routes, but for those to its peers' subnets. Without nodes and meshes.
    pub topology: Topology,
    /// The peers that don't answer, whose routes are left out of the desired state. Nothing of it is in a file.
    pub silent: Vec<Silent>,
    /// The ways of all `routes`, one behind the other.
    ways: Vec<Way>,
    routes: Vec<Span>,
}

/// A route to a peer's subnet, as [`Host::peers`] shows it.
#[derive(Debug, Clone, Copy)]
pub struct PeerRoute<'a> {
    /// The peer's subnet.
    pub to: Ipv4Net,
    /// The ways there, one or several of equal cost.
    pub ways: &'a [Way],
}

/// One way to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Way {
    /// The device of ours.
    pub tunnel: InterfaceName,
    /// The underlay address of the next node; `None`: the tunnel has no other end.
    pub via: Option<Ipv4Addr>,
    /// Without the tunnel where the next node is in the same underlay network.
    pub direct: bool,
}

/// A peer that doesn't answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silent {
    /// The way to it, which no route takes meanwhile.
    pub way: Way,
    /// Its address in the overlay, which is still asked that way.
    pub address: Ipv4Addr,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    to: Ipv4Net,
    first: u32,
    count: u8,
}

impl Host {
    fn new(node: Option<Name>, topology: Topology) -> Self {
        Self {
            node,
            topology,
            silent: Vec::new(),
            ways: Vec::new(),
            routes: Vec::new(),
        }
    }

    /// The routes to the peers' subnets, sorted.
    pub fn peers(&self) -> impl ExactSizeIterator<Item = PeerRoute<'_>> {
        self.routes.iter().map(|span| {
            let first = span.first as usize;
            PeerRoute {
                to: span.to,
                ways: &self.ways[first..first + usize::from(span.count)],
            }
        })
    }

    /// The same with every route written out: a topology for a single host.
    pub fn into_topology(self) -> Topology {
        let routes = self.peers().filter(|route| self.can_be_written(route));
        let written: Vec<(Option<InterfaceName>, Route)> = routes.map(write_out).collect();
        let mut topology = self.topology;
        for (tunnel, route) in written {
            let own = tunnel.and_then(|name| topology.tunnels.get_mut(&name));
            own.map_or(&mut topology.routes, |tunnel| &mut tunnel.routes)
                .push(Short(route));
        }
        topology
    }

    /// The same host as it would be read from what [`Self::into_topology`] has written.
    pub fn written_out(self) -> Self {
        Self::new(self.node.clone(), self.into_topology())
    }

    /// In the list of a tunnel that is down a route waits. One through several tunnels has no such list, and elsewhere
    /// the kernel would refuse it.
    fn can_be_written(&self, route: &PeerRoute) -> bool {
        let is_up = |way: &Way| {
            let tunnel = self.topology.tunnels.get(&way.tunnel);
            tunnel.is_some_and(|own| {
                self.topology.tunnel(own).get(|t| &t.state) != Some(AdminState::Down)
            })
        };
        route.ways.len() == 1 || (!route.ways.is_empty() && route.ways.iter().all(is_up))
    }

    /// Room for so many routes more with one way each. A list that grows by doubling takes up to three times the memory.
    fn reserve(&mut self, routes: usize) {
        self.routes.reserve_exact(routes);
        self.ways.reserve_exact(routes);
    }

    fn add(&mut self, to: Ipv4Net, ways: impl Iterator<Item = Way>) {
        let first = self.ways.len();
        self.ways.extend(ways);
        let count = self.ways.len() - first;
        self.routes.push(Span {
            to,
            first: u32::try_from(first).unwrap_or(u32::MAX),
            count: u8::try_from(count).unwrap_or(u8::MAX),
        });
    }
}

/// The route as a person would write it, and the tunnel in whose list it belongs.
fn write_out(route: PeerRoute) -> (Option<InterfaceName>, Route) {
    let to = Destination::Prefix(IpNet::V4(route.to));
    let via = |way: &Way| way.via.map(|via| Ip(IpAddr::V4(via)));
    match route.ways {
        [way] => (
            Some(way.tunnel),
            Route {
                via: via(way),
                onlink: way.via.is_some(),
                direct: way.direct,
                ..Route::plain(to)
            },
        ),
        ways => {
            let nexthops = ways.iter().map(|way| NextHop {
                via: via(way),
                device: Some(way.tunnel),
                weight: None,
                onlink: way.via.is_some(),
                direct: way.direct,
            });
            let nexthops = nexthops.collect();
            (
                None,
                Route {
                    nexthops,
                    ..Route::plain(to)
                },
            )
        }
    }
}

impl Fleet<'_> {
    /// Names of the nodes, sorted. Empty for a topology of one host.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &Name> {
        self.names.iter().copied()
    }

    /// The part of a node; of the one host where the topology has no nodes.
    ///
    /// `None`: there is no such node, or one is needed.
    pub fn host(&self, node: Option<&Name>) -> Option<Host> {
        match node {
            None if self.nodes.is_empty() => Some(Host::new(None, self.topology.clone())),
            None => None,
            Some(name) => {
                let number = self.number(name)?;
                let mut host = self.written(number);
                for graph in &self.meshes {
                    self.mesh(graph, number, &mut host);
                }
                host.routes.sort_unstable_by_key(|span| span.to);
                Some(host)
            }
        }
    }

    /// What a node has in writing, with its multipoint devices: all but what grows with the number of its peers.
    pub(super) fn written(&self, number: usize) -> Host {
        let mut topology = self.shared(number);
        for graph in self.meshes.iter().filter(|graph| graph.has(number)) {
            if let (Style::Multipoint, Some(device)) = (graph.mesh.style, graph.device()) {
                let address = first_address(self.nodes[number]).map(|address| alone(address, None));
                let tunnel = self.tunnel(graph, number, device, None, address, &mut topology);
                topology.tunnels.insert(device, tunnel);
            }
            self.own_subnets(graph, number, &mut topology);
        }
        Host::new(Some(self.names[number].clone()), topology)
    }

    /// What the validation looks at: a tunnel of each point-to-point mesh stands for all of them.
    pub(super) fn sample(&self, number: usize) -> Topology {
        let mut topology = self.written(number).topology;
        let meshes = self.meshes.iter();
        for graph in meshes.filter(|graph| graph.mesh.style == Style::PointToPoint) {
            if let Some(peer) = graph.first_neighbour(number) {
                self.link(graph, number, peer, &mut topology);
            }
        }
        topology
    }

    /// What every node has and what this one adds, with addresses for names.
    fn shared(&self, number: usize) -> Topology {
        let node = self.nodes[number];
        let all = self.topology;
        let mut topology = Topology {
            version: all.version,
            name: all.name.clone(),
            route_protocol: all.route_protocol,
            defaults: node.defaults.clone().or(&all.defaults),
            tunnels: all.tunnels.clone(),
            addresses: all.addresses.clone(),
            routes: all
                .routes
                .iter()
                .chain(node.routes.iter())
                .cloned()
                .collect(),
            nodes: BTreeMap::new(),
            meshes: BTreeMap::new(),
        };
        topology.tunnels.extend(node.tunnels.clone());
        for (device, list) in &node.addresses {
            topology
                .addresses
                .entry(*device)
                .or_default()
                .extend(list.iter().cloned());
        }
        let tunnels = topology.tunnels.values_mut();
        for tunnel in tunnels.chain([&mut topology.defaults]) {
            self.resolve(&mut tunnel.local, |number| Some(self.endpoint(number)));
            self.resolve(&mut tunnel.remote, |number| {
                self.underlay(number).map(Endpoint::Address)
            });
        }
        topology
    }

    /// A name that stands for nothing stays, and the validation refuses it.
    fn resolve(&self, end: &mut Option<Endpoint>, of_node: impl Fn(usize) -> Option<Endpoint>) {
        if let Some(Endpoint::Node(name)) = end
            && let Some(known) = self.number(name).and_then(of_node)
        {
            *end = Some(known);
        }
    }

    fn endpoint(&self, number: usize) -> Endpoint {
        let underlay = self.nodes[number].underlay.as_ref();
        let device = underlay.and_then(|underlay| underlay.device);
        self.underlay(number)
            .map(Endpoint::Address)
            .or(device.map(Endpoint::Device))
            .unwrap_or(Endpoint::Any)
    }

    fn tunnel(
        &self,
        graph: &Graph,
        number: usize,
        device: InterfaceName,
        remote: Option<Endpoint>,
        address: Option<Address>,
        topology: &mut Topology,
    ) -> Tunnel {
        // What the file gives the device comes instead.
        let given = topology.addresses.remove(&device);
        Tunnel {
            local: Some(self.endpoint(number)),
            remote: Some(remote.unwrap_or(Endpoint::Any)),
            addresses: given.unwrap_or_else(|| address.into_iter().map(Short).collect()),
            ..graph.mesh.tunnel.clone()
        }
    }

    /// So that a packet to an unused address of the node's own never goes round.
    fn own_subnets(&self, graph: &Graph, number: usize, topology: &mut Topology) {
        let mesh = graph.mesh;
        if !mesh.routes || !(mesh.blackhole || mesh.local.is_some()) {
            return;
        }
        let mut known: HashSet<RouteKey> =
            topology.routes.iter().map(|route| route.key()).collect();
        for subnet in &self.nodes[number].subnets {
            let route = Route {
                device: mesh.local,
                kind: match mesh.local {
                    Some(_) => RouteType::Unicast,
                    None => RouteType::Blackhole,
                },
                metric: LAST_RESORT,
                ..Route::plain(Destination::Prefix(IpNet::V4(subnet.0)))
            };
            // Another mesh has made the same one already, or a person has written another.
            if known.insert(route.key()) {
                topology.routes.push(Short(route));
            }
        }
    }

    /// The tunnels of a point-to-point mesh, and the routes to every peer.
    fn mesh(&self, graph: &Graph, number: usize, host: &mut Host) {
        if !graph.has(number) {
            return;
        }
        if graph.mesh.style == Style::PointToPoint {
            for peer in graph.neighbours(number) {
                self.link(graph, number, peer, &mut host.topology);
            }
        }
        if !graph.mesh.routes {
            return;
        }
        let peers = graph.ways(number);
        let subnets = peers
            .iter()
            .map(|(peer, _)| self.nodes[*peer].subnets.len());
        host.reserve(subnets.sum());
        for (peer, first_hops) in peers {
            let known = || {
                first_hops
                    .iter()
                    .filter(|&&hop| self.underlay(hop).is_some())
            };
            let ways = || known().filter_map(|&hop| self.way(graph, hop));
            let subnets = self.nodes[peer].subnets.iter().map(|subnet| subnet.0);
            // A neighbour's link address is on the link; the others' need a route.
            let far = graph.mesh.style == Style::PointToPoint
                && graph.mesh.link_network.is_some()
                && !graph.joins(number, peer);
            let link = graph.link_address(self, peer).filter(|_| far);
            for to in subnets.chain(link.map(Ipv4Net::from)) {
                host.add(to, ways());
            }
        }
    }

    /// The tunnel of a point-to-point mesh to a peer.
    fn link(&self, graph: &Graph, number: usize, peer: usize, topology: &mut Topology) {
        let (Some(device), Some(remote)) = (graph.tunnel_to(peer), self.underlay(peer)) else {
            return;
        };
        let own = graph.link_address(self, number);
        let address = own.map(|own| alone(own, graph.link_address(self, peer)));
        let remote = Some(Endpoint::Address(remote));
        let tunnel = self.tunnel(graph, number, device, remote, address, topology);
        topology.tunnels.insert(device, tunnel);
    }

    /// The way to a neighbour in a mesh.
    pub(super) fn way(&self, graph: &Graph, hop: usize) -> Option<Way> {
        let direct = graph.mesh.direct_routing;
        let (tunnel, has_gateway) = match graph.mesh.style {
            Style::Multipoint => (graph.device()?, true),
            Style::PointToPoint => (graph.tunnel_to(hop)?, direct),
        };
        Some(Way {
            tunnel,
            via: self.underlay(hop).filter(|_| has_gateway),
            direct,
        })
    }
}

/// An address of one host, with the host at the other end of the link.
fn alone(address: Ipv4Addr, peer: Option<Ipv4Addr>) -> Address {
    let prefix = |address: Ipv4Addr, explicit| Prefix {
        net: IpNet::from(IpAddr::V4(address)),
        explicit,
    };
    Address {
        address: prefix(address, peer.is_none()),
        peer: peer.map(|peer| prefix(peer, false)),
        scope: None,
        label: None,
        noprefixroute: false,
        metric: 0,
    }
}
