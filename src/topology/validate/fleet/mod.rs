//! What the nodes and meshes of a fleet mean together. What one node has by itself is checked as a host of its own.
//!
//! Nothing here looks at each pair of nodes: a fleet of ten thousand has fifty million.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;

use super::{looks_like_ipv4_end, never_an_address, unusable};
use crate::source::{Lost, Node as Source, Path, Problem, Severity};
use crate::state::{InterfaceName, Mode};
use crate::topology::mesh::{Fleet, Graph};
use crate::topology::{Endpoint, Links, Members, Mtu, Name, Style, Tunnel};

pub(super) fn validate(fleet: &Fleet, lost: &Lost, root: &Source) -> Vec<Problem> {
    let mut check = Check {
        fleet,
        lost,
        root,
        problems: Vec::new(),
    };
    check.names();
    check.underlays();
    check.subnets();
    for (number, graph) in fleet.meshes.iter().enumerate() {
        check.mesh(graph);
        for other in &fleet.meshes[..number] {
            check.meshes(other, graph);
        }
    }
    check.written_tunnels();
    check.ends();
    check.problems
}

struct Check<'a> {
    fleet: &'a Fleet<'a>,
    lost: &'a Lost,
    root: &'a Source<'a>,
    problems: Vec<Problem>,
}

fn top(key: &str, name: &Name) -> Path {
    Path::default().key(key).key(name)
}

/// A tunnel that is written for a node, with its ends.
struct Written<'a> {
    node: usize,
    path: Path,
    tunnel: &'a Tunnel,
    local: Option<Ipv4Addr>,
    remote: Option<Ipv4Addr>,
}

impl<'a> Check<'a> {
    fn report(&mut self, path: &Path, severity: Severity, message: &str) -> &mut Problem {
        let path = self.lost.written(path);
        let span = self.root.locate(&path);
        let problem = Problem::error(span, path.describe(message));
        self.problems.push(Problem {
            severity,
            ..problem
        });
        let last = self.problems.len() - 1;
        &mut self.problems[last]
    }

    fn error(&mut self, path: &Path, message: &str, help: &str) {
        self.report(path, Severity::Error, message).help = Some(help.to_owned());
    }

    fn clash(&mut self, path: &Path, first: &Path, message: &str, help: &str) {
        let written = self.lost.written(first);
        let related = Some((
            self.root.locate(&written),
            format!("`{written}` is the first"),
        ));
        let problem = self.report(path, Severity::Error, message);
        problem.related = related;
        problem.help = Some(help.to_owned());
    }

    fn name(&self, number: usize) -> &'a Name {
        self.fleet.names[number]
    }

    fn node(&self, number: usize) -> Path {
        top("nodes", self.name(number))
    }

    /// Nodes that are named and not there.
    fn names(&mut self) {
        let topology = self.fleet.topology;
        let mut named: Vec<(Path, &Name)> = Vec::new();
        let mut tunnel = |path: Path, tunnel: &'a Tunnel| {
            for (key, end) in [("local", &tunnel.local), ("remote", &tunnel.remote)] {
                if let Some(Endpoint::Node(name)) = end {
                    named.push((path.key(key), name));
                }
            }
        };
        tunnel(Path::default().key("defaults"), &topology.defaults);
        for (name, own) in &topology.tunnels {
            tunnel(Path::default().key("tunnels").key(name), own);
        }
        for (name, node) in &topology.nodes {
            tunnel(top("nodes", name).key("defaults"), &node.defaults);
            for (device, own) in &node.tunnels {
                tunnel(top("nodes", name).key("tunnels").key(device), own);
            }
        }
        for graph in &self.fleet.meshes {
            let path = top("meshes", graph.name);
            if let Members::List(names) = &graph.mesh.members {
                let list = path.key("members");
                let names = names.iter().enumerate();
                named.extend(names.map(|(index, name)| (list.index(index), name)));
            }
            match &graph.mesh.topology {
                Links::Full => {}
                Links::Hub(names) => {
                    let list = path.key("topology").key("hub");
                    let names = names.iter().enumerate();
                    named.extend(names.map(|(index, name)| (list.index(index), name)));
                }
                Links::Edges(edges) => {
                    let list = path.key("topology").key("edges");
                    for (index, (one, other)) in edges.iter().enumerate() {
                        let pair = list.index(index);
                        named.extend([(pair.index(0), one), (pair.index(1), other)]);
                    }
                }
            }
        }
        for (path, name) in named {
            if self.fleet.number(name).is_none() {
                self.unknown(&path, name);
            } else if path.segments().len() > 2 && self.without_address(name) && is_remote(&path) {
                let message = format!(
                    "{name} looks its underlay address up on itself, so nobody else knows it"
                );
                self.error(&path, &message, "give the node's `underlay` an `address`");
            }
        }
    }

    fn without_address(&self, name: &Name) -> bool {
        let number = self.fleet.number(name);
        number.is_some_and(|number| self.fleet.underlay(number).is_none())
    }

    fn unknown(&mut self, path: &Path, name: &Name) {
        if self.fleet.names.is_empty() {
            let help = "a name here stands for a node, and this topology has no `nodes`";
            self.error(path, &looks_like_ipv4_end(name.as_str()), help);
            return;
        }
        let names: Vec<&str> = self.fleet.names.iter().map(|name| name.as_str()).collect();
        let close = similar::get_close_matches(name.as_str(), &names, 1, 0.6);
        let help = match close.first() {
            Some(close) => format!("did you mean `{close}`?"),
            None => "add it to `nodes`".to_owned(),
        };
        self.error(
            path,
            &format!("no node is called {name:?}", name = name.as_str()),
            &help,
        );
    }

    fn underlays(&mut self) {
        let mut seen: HashMap<Ipv4Addr, usize> = HashMap::new();
        for (number, node) in self.fleet.nodes.iter().enumerate() {
            let Some(underlay) = &node.underlay else {
                continue;
            };
            let path = || self.node(number).key("underlay");
            match underlay.address.map(|address| address.net.addr()) {
                None if underlay.device.is_none() => {
                    let path = path();
                    self.error(
                        &path,
                        "neither an address nor a device",
                        "give its `address`, or the `device` that has it",
                    );
                }
                None => {}
                Some(IpAddr::V6(address)) => {
                    let path = path();
                    let message = format!(
                        "{address} is an IPv6 address: an ipip tunnel's outer header is IPv4 (RFC 2003)"
                    );
                    self.error(&path, &message, "give the node's IPv4 address");
                }
                Some(IpAddr::V4(address)) => {
                    if let Some(kind) = unusable(address) {
                        let path = path();
                        let message = format!(
                            "{address} is {kind} address: a node's underlay address is one host's"
                        );
                        self.error(
                            &path,
                            &message,
                            "give the address that the other nodes reach it by",
                        );
                    } else if let Some(first) = seen.insert(address, number) {
                        let message =
                            format!("{address} is {}'s underlay address, too", self.name(first));
                        let (path, first) = (path(), self.node(first).key("underlay"));
                        self.clash(
                            &path,
                            &first,
                            &message,
                            "each node has its own underlay address",
                        );
                    }
                }
            }
        }
    }

    /// Subnets that overlap one another, or the underlay.
    fn subnets(&mut self) {
        let nodes = self.fleet.nodes.iter().enumerate();
        let mut all: Vec<(Ipv4Net, usize, usize)> = nodes
            .flat_map(|(number, node)| {
                let subnets = node.subnets.iter().enumerate();
                subnets.map(move |(index, subnet)| (subnet.0, number, index))
            })
            .collect();
        all.sort_unstable_by_key(|(net, number, index)| {
            (net.network(), net.prefix_len(), *number, *index)
        });
        let at = |check: &Self, (_, number, index): (Ipv4Net, usize, usize)| {
            check.node(number).key("subnets").index(index)
        };
        // Sorted by their starts, a subnet can lie only within one that is still open.
        let mut widest: Option<(Ipv4Net, usize, usize)> = None;
        for &subnet in &all {
            let net = subnet.0;
            if never_an_address(IpAddr::V4(net.network())) == Some("a multicast") {
                let path = at(self, subnet);
                self.error(
                    &path,
                    &format!("{net} is a multicast network"),
                    "give a network of hosts",
                );
            }
            match widest.filter(|(open, ..)| open.broadcast() >= net.network()) {
                Some(first) => {
                    let (one, other) = (self.name(first.1), self.name(subnet.1));
                    let message = format!("{net} of {other} overlaps {} of {one}", first.0);
                    let (path, first) = (at(self, subnet), at(self, first));
                    self.clash(&path, &first, &message, "a packet can be for one node only");
                }
                None => widest = Some(subnet),
            }
        }
        self.overlay_in_underlay(&all);
    }

    fn overlay_in_underlay(&mut self, subnets: &[(Ipv4Net, usize, usize)]) {
        for number in 0..self.fleet.nodes.len() {
            let Some(address) = self.fleet.underlay(number) else {
                continue;
            };
            let written = self.fleet.nodes[number].underlay.as_ref();
            let network = written.and_then(|underlay| underlay.network());
            let network = network.unwrap_or(Ipv4Net::from(address));
            // The last subnet that starts before the network ends.
            let after = subnets.partition_point(|(net, ..)| net.network() <= network.broadcast());
            let Some(&(net, owner, index)) = after.checked_sub(1).and_then(|i| subnets.get(i))
            else {
                continue;
            };
            if net.broadcast() < network.network() {
                continue;
            }
            let (owner, name) = (
                self.node(owner).key("subnets").index(index),
                self.name(number),
            );
            let message = format!(
                "the underlay of {name}, {network}, is in the overlay {net}: outer packets to it would be routed into the tunnel"
            );
            let path = self.node(number).key("underlay");
            self.clash(
                &path,
                &owner,
                &message,
                "keep the nodes' subnets apart from the underlay's networks",
            );
        }
        let links = self.fleet.meshes.iter();
        let links = links.filter_map(|graph| Some((graph.name, graph.mesh.link_network?.0)));
        for (name, link) in links.collect::<Vec<_>>() {
            let path = top("meshes", name).key("link_network");
            let after = subnets.partition_point(|(net, ..)| net.network() <= link.broadcast());
            if let Some(&(net, owner, index)) = after.checked_sub(1).and_then(|i| subnets.get(i))
                && net.broadcast() >= link.network()
            {
                let first = self.node(owner).key("subnets").index(index);
                let message = format!("{link} overlaps {net} of {}", self.name(owner));
                self.clash(
                    &path,
                    &first,
                    &message,
                    "keep the link addresses apart from the subnets",
                );
            }
            let inside = (0..self.fleet.nodes.len()).find(|&number| {
                self.fleet
                    .underlay(number)
                    .is_some_and(|a| link.contains(&a))
            });
            if let Some(number) = inside {
                let first = self.node(number).key("underlay");
                let message = format!("the underlay address of {} is in {link}", self.name(number));
                self.clash(
                    &path,
                    &first,
                    &message,
                    "keep the link addresses apart from the underlay",
                );
            }
        }
    }

    fn mesh(&mut self, graph: &Graph) {
        let path = top("meshes", graph.name);
        if graph.members.len() < 2 {
            let found = match graph.members.as_slice() {
                [only] => format!("{} alone", self.name(*only)),
                _ => "none".to_owned(),
            };
            let message = format!("a mesh joins two members at least, found {found}");
            self.error(
                &path.key("members"),
                &message,
                "check `members` against the nodes' names and labels",
            );
            return;
        }
        for &number in &graph.members {
            if self.fleet.underlay(number).is_none() {
                let message = format!(
                    "{} is a member of the mesh {}, and the others can't know its underlay address",
                    self.name(number),
                    graph.name
                );
                let node = self.node(number);
                self.clash(
                    &node,
                    &path,
                    &message,
                    "give its `underlay` an `address`, or leave it out of the mesh",
                );
            }
        }
        self.links(graph, &path);
        self.devices(graph, &path);
        self.link_addresses(graph, &path);
        self.options(graph, &path);
    }

    fn links(&mut self, graph: &Graph, path: &Path) {
        let place = path.key("topology");
        let outsider = |name: &Name| {
            self.fleet
                .number(name)
                .filter(|&number| !graph.has(number))
                .is_some()
        };
        let mut wrong: Vec<(Path, String)> = Vec::new();
        match &graph.mesh.topology {
            Links::Full => return,
            Links::Hub(hubs) => {
                let place = place.key("hub");
                if hubs.is_empty() {
                    wrong.push((place.clone(), "a hub-and-spoke mesh needs a hub".into()));
                }
                let hubs = hubs.iter().enumerate().filter(|(_, hub)| outsider(hub));
                wrong.extend(hubs.map(|(index, hub)| {
                    (
                        place.index(index),
                        format!("the hub {hub} is no member of the mesh"),
                    )
                }));
            }
            Links::Edges(edges) => {
                let place = place.key("edges");
                let mut seen = HashSet::new();
                for (index, (one, other)) in edges.iter().enumerate() {
                    let path = place.index(index);
                    for (end, name) in [one, other].into_iter().enumerate() {
                        if outsider(name) {
                            wrong.push((
                                path.index(end),
                                format!("{name} is no member of the mesh"),
                            ));
                        }
                    }
                    if one == other {
                        wrong.push((path, format!("an edge from {one} to itself")));
                    } else if !seen.insert((one.min(other), one.max(other))) {
                        wrong.push((
                            path,
                            format!("the edge of {one} and {other} is given twice"),
                        ));
                    }
                }
            }
        }
        let sound = wrong.is_empty();
        for (path, message) in wrong {
            self.error(&path, &message, "an edge joins two members of the mesh");
        }
        let first = graph.members[0];
        let reached: HashSet<usize> = graph
            .ways(first)
            .into_iter()
            .map(|(node, _)| node)
            .collect();
        let apart = graph
            .members
            .iter()
            .find(|&&node| node != first && !reached.contains(&node));
        if let Some(&apart) = apart.filter(|_| sound) {
            let message = format!(
                "no edges lead from {} to {}: they can't reach each other",
                self.name(first),
                self.name(apart)
            );
            self.report(&place, Severity::Warning, &message);
        }
    }

    fn devices(&mut self, graph: &Graph, path: &Path) {
        let place = path.key("interface");
        let base = graph.base();
        if let Err(error) = base.parse::<InterfaceName>() {
            self.error(
                &place,
                &error.to_string(),
                "give the mesh an `interface` of its own",
            );
        } else if let Some(number) = graph
            .labels
            .without_room()
            .filter(|_| graph.mesh.style == Style::PointToPoint)
        {
            let message = format!(
                "{base:?} leaves no room for the name of {}: a device's name has 15 bytes",
                self.name(number)
            );
            self.error(
                &place,
                &message,
                "give an `interface` of 6 bytes at most, or shorter names to the nodes",
            );
        }
    }

    fn link_addresses(&mut self, graph: &Graph, path: &Path) {
        let Some(network) = graph.mesh.link_network else {
            return;
        };
        let place = path.key("link_network");
        if graph.mesh.style == Style::Multipoint {
            self.error(
                &place,
                "a multipoint mesh has no links",
                "set `style: point-to-point`, or leave it out",
            );
            return;
        }
        let mut seen: HashMap<Ipv4Addr, usize> = HashMap::new();
        for &number in &graph.members {
            let Some(address) = graph.link_address(self.fleet, number) else {
                continue;
            };
            if let Some(first) = seen.insert(address, number) {
                let message = format!(
                    "{} and {} would both have the link address {address}: the last {} bits of their underlay addresses are the same",
                    self.name(first),
                    self.name(number),
                    32 - network.0.prefix_len()
                );
                let node = self.node(number).key("underlay");
                self.clash(&place, &node, &message, "give a larger `link_network`");
                return;
            }
        }
    }

    /// What the mesh decides for its tunnels itself.
    fn options(&mut self, graph: &Graph, path: &Path) {
        let tunnel = &graph.mesh.tunnel;
        let given = [
            ("local", tunnel.local.is_some()),
            ("remote", tunnel.remote.is_some()),
            ("addresses", !tunnel.addresses.is_empty()),
            ("routes", !tunnel.routes.is_empty()),
        ];
        for (key, _) in given.into_iter().filter(|(_, given)| *given) {
            let message = format!("the mesh gives its tunnels their `{key}`");
            self.error(&path.key("tunnel").key(key), &message, "leave it out");
        }
    }

    /// Two meshes that have members in common.
    fn meshes(&mut self, one: &Graph, other: &Graph) {
        let (first, path) = (top("meshes", one.name), top("meshes", other.name));
        let (base, other_base) = (one.base(), other.base());
        let ptp = |graph: &Graph| graph.mesh.style == Style::PointToPoint;
        let mut common = one.members.iter().copied().filter(|&node| other.has(node));
        let (Some(shared), next) = (common.next(), common.next()) else {
            return;
        };
        let name = self.name(shared);
        let taken = match (ptp(one), ptp(other)) {
            (false, false) => {
                let message = format!(
                    "{name} is in two multipoint meshes: the kernel could not tell their packets apart"
                );
                self.clash(
                    &path,
                    &first,
                    &message,
                    "join the meshes, or make one point-to-point",
                );
                return;
            }
            (true, true) => {
                base != other_base
                    && (base.starts_with(&other_base) || other_base.starts_with(&base))
            }
            (true, false) => begins(&other_base, &base, one),
            (false, true) => begins(&base, &other_base, other),
        };
        if taken {
            let message = format!(
                "devices of the meshes {} and {} could have the same name: they are called {base:?} and {other_base:?}",
                one.name, other.name
            );
            self.clash(
                &path.key("interface"),
                &first,
                &message,
                "give the meshes `interface`s of which none begins with the other",
            );
        }
        let edge = one.members.iter().copied().find_map(|node| {
            let peers = other
                .neighbours(node)
                .into_iter()
                .take(if ptp(one) && ptp(other) {
                    usize::MAX
                } else {
                    0
                });
            let peer = peers.into_iter().find(|&peer| one.joins(node, peer))?;
            Some((node, peer))
        });
        if let Some((node, peer)) = edge {
            let message = format!(
                "{} and {} are joined by two point-to-point meshes: the kernel could not tell the tunnels apart",
                self.name(node),
                self.name(peer)
            );
            self.clash(&path, &first, &message, "leave the pair to one of them");
        } else if let Some(next) = next.filter(|_| one.mesh.routes && other.mesh.routes) {
            let message = format!(
                "{name} and {} are in two meshes, and both route to their subnets",
                self.name(next)
            );
            self.clash(
                &path,
                &first,
                &message,
                "set `routes: false` in one of them",
            );
        }
        let resort = |graph: &Graph| {
            (
                graph.mesh.local,
                graph.mesh.local.is_none() && graph.mesh.blackhole,
            )
        };
        if one.mesh.routes && other.mesh.routes && resort(one) != resort(other) {
            let message = format!(
                "the meshes {} and {} differ in what becomes of packets to unused addresses of {name}",
                one.name, other.name
            );
            self.clash(
                &path,
                &first,
                &message,
                "give both the same `blackhole` and `local`",
            );
        }
    }

    /// Names of tunnels that are given twice: by a person, or by a person and a mesh.
    fn written_tunnels(&mut self) {
        let topology = self.fleet.topology;
        let shared = Path::default().key("tunnels");
        let mut devices: BTreeMap<InterfaceName, Path> = BTreeMap::new();
        for number in 0..self.fleet.nodes.len() {
            for &name in self.fleet.nodes[number].tunnels.keys() {
                let path = self.node(number).key("tunnels").key(name);
                if topology.tunnels.contains_key(&name) {
                    let message = format!("tunnel {name} is given for every node already");
                    self.clash(
                        &path,
                        &shared.key(name),
                        &message,
                        "give it another name, or delete one of the two",
                    );
                }
                self.derived(number, name, &path);
            }
            for &name in topology.tunnels.keys() {
                let path = devices
                    .entry(name)
                    .or_insert_with(|| shared.key(name))
                    .clone();
                self.derived(number, name, &path);
            }
        }
    }

    fn derived(&mut self, number: usize, name: InterfaceName, path: &Path) {
        let graphs = self.fleet.meshes.iter().filter(|graph| graph.has(number));
        let clash = graphs.filter(|graph| match graph.mesh.style {
            Style::Multipoint => graph.device() == Some(name),
            Style::PointToPoint => {
                let text = name.to_string();
                let peer = text
                    .strip_prefix(&graph.base())
                    .and_then(|l| graph.labels.node(l));
                peer.is_some_and(|peer| graph.joins(number, peer))
            }
        });
        for graph in clash.collect::<Vec<_>>() {
            let message = format!(
                "the mesh {} makes a device called {name} on {}",
                graph.name,
                self.name(number)
            );
            self.clash(
                path,
                &top("meshes", graph.name),
                &message,
                "give the tunnel another name, or the mesh another `interface`",
            );
        }
    }

    /// Tunnels from node to node whose other end doesn't take them.
    fn ends(&mut self) {
        let holders: HashMap<Ipv4Addr, usize> = (0..self.fleet.nodes.len())
            .filter_map(|number| Some((self.fleet.underlay(number)?, number)))
            .collect();
        let mut written: HashMap<usize, Vec<Written>> = HashMap::new();
        for number in 0..self.fleet.nodes.len() {
            let list = self.tunnels_of(number);
            if !list.is_empty() {
                written.insert(number, list);
            }
        }
        let mut numbers: Vec<usize> = written.keys().copied().collect();
        numbers.sort_unstable();
        for tunnel in numbers.iter().flat_map(|number| &written[number]) {
            let Some((remote, &peer)) = tunnel
                .remote
                .and_then(|remote| Some((remote, holders.get(&remote)?)))
            else {
                continue;
            };
            let own = self.fleet.underlay(tunnel.node);
            if peer == tunnel.node {
                let message = format!(
                    "on {} itself the tunnel would end where it starts",
                    self.name(peer)
                );
                self.error(
                    &tunnel.path,
                    &message,
                    "give it to the other nodes only, or use a mesh",
                );
                continue;
            }
            let Some(source) = tunnel.local.or(own) else {
                continue;
            };
            let others = written.get(&peer).map_or(&[][..], Vec::as_slice);
            let takes = |other: &&Written| {
                other.local.is_none_or(|local| local == remote)
                    && other.remote.is_none_or(|end| end == source)
            };
            let exact = others.iter().filter(takes).max_by_key(|other| other.remote);
            match exact {
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

    /// The two ends of a link. Said once, at the second.
    fn agree(&mut self, one: &Written, other: &Written) {
        if one.node < other.node && other.remote.is_some() {
            return;
        }
        let topology = self.fleet.topology;
        let option = |end: &Written| {
            let node = self.fleet.nodes[end.node];
            Tunnel {
                addresses: Vec::new(),
                routes: Vec::new(),
                ..end.tunnel.clone()
            }
            .or(&node.defaults)
            .or(&topology.defaults)
        };
        let (mine, theirs) = (option(one), option(other));
        let mode = |tunnel: &Tunnel| tunnel.mode.unwrap_or(Mode::Ipip);
        let (own, far) = (mode(&mine), mode(&theirs));
        if own != far && own != Mode::Any && far != Mode::Any {
            let message = "the two ends of this tunnel carry different things (`mode`)";
            self.clash(
                &one.path,
                &other.path,
                message,
                "give both ends the same `mode`",
            );
        }
        if let (Some(Mtu::Bytes(own)), Some(Mtu::Bytes(far))) = (mine.mtu, theirs.mtu)
            && own != far
        {
            let first = self.lost.written(&other.path);
            let related = Some((self.root.locate(&first), "the other end".to_owned()));
            let message =
                format!("the two ends of this tunnel have different MTUs: {own} and {far}");
            self.report(&one.path, Severity::Warning, &message).related = related;
        }
    }
}

fn is_remote(path: &Path) -> bool {
    path.to_string().ends_with(".remote")
}

fn begins(device: &str, base: &str, graph: &Graph) -> bool {
    let label = device.strip_prefix(base);
    label.is_some_and(|label| graph.labels.node(label).is_some())
}
