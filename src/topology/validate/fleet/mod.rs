//! What the nodes and meshes of a fleet mean together. What one node has by itself is checked as a host of its own.
//!
//! Nothing here looks at each pair of nodes: a fleet of ten thousand has fifty million.

mod meshes;
mod pairs;
#[cfg(test)]
mod tests;
mod tunnels;

use std::cell::Cell;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use super::{looks_like_ipv4_end, never_an_address, unusable};
use crate::source::{Index, Lost, Path, Problem, Severity};
use crate::state::InterfaceName;
use crate::topology::mesh::{Fleet, Graph};
use crate::topology::{Endpoint, Links, Members, Name, Tunnel};

/// Whoever is told so often what a name may have meant knows; and to look for it takes a while among ten thousand nodes.
const MOST_GUESSES: usize = 10;

pub(super) fn validate(fleet: &Fleet, lost: &Lost, root: &Index) -> Vec<Problem> {
    let mut check = Check {
        fleet,
        lost,
        root,
        problems: Vec::new(),
        guesses: Cell::new(0),
    };
    check.names();
    check.underlays();
    let subnets = check.subnets();
    check.overlay_in_underlay(&subnets);
    for (number, graph) in fleet.meshes.iter().enumerate() {
        check.mesh(graph, &subnets);
        for other in &fleet.meshes[..number] {
            check.meshes(other, graph);
        }
    }
    check.written_tunnels();
    check.written_routes(&subnets);
    check.ends();
    check.problems
}

struct Check<'a> {
    fleet: &'a Fleet<'a>,
    lost: &'a Lost,
    root: &'a Index<'a, 'a>,
    problems: Vec<Problem>,
    /// How often a name was looked for that is like one nobody has.
    guesses: Cell<usize>,
}

/// A subnet with its node's number and its place in that node's list.
type Held = (Ipv4Net, usize, usize);

/// A node's name, and where something refers to it by that.
struct Named<'a> {
    path: Path,
    name: &'a Name,
    role: Role,
}

/// What the node is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Local,
    Remote,
    Member,
}

fn top(key: &str, name: &Name) -> Path {
    Path::default().key(key).key(name)
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
        self.relate(path, Severity::Error, message, first, "is the first");
        self.help(help);
    }

    /// What to do about the last problem.
    fn help(&mut self, help: &str) {
        if let Some(problem) = self.problems.last_mut() {
            problem.help = Some(help.to_owned());
        }
    }

    /// Reports something that has to do with another place.
    fn relate(&mut self, path: &Path, severity: Severity, message: &str, other: &Path, is: &str) {
        let written = self.lost.written(other);
        let related = Some((self.root.locate(&written), format!("`{written}` {is}")));
        self.report(path, severity, message).related = related;
    }

    fn name(&self, number: usize) -> &'a Name {
        self.fleet.names[number]
    }

    fn node(&self, number: usize) -> Path {
        top("nodes", self.name(number))
    }

    /// The underlay device that a mesh's tunnels are bound to on a node.
    fn device_of(&self, graph: &Graph, node: usize) -> Option<InterfaceName> {
        let defaults = [
            &self.fleet.nodes[node].defaults,
            &self.fleet.topology.defaults,
        ];
        let tunnels = [&graph.mesh.tunnel].into_iter().chain(defaults);
        tunnels.into_iter().find_map(|tunnel| tunnel.device)
    }

    /// Nodes that are named and not there, or can't be reached by their name.
    fn names(&mut self) {
        let named = self.ends_that_are_nodes();
        for Named { path, name, role } in named.into_iter().chain(self.nodes_of_meshes()) {
            let Some(number) = self.fleet.number(name) else {
                self.unknown(&path, name);
                continue;
            };
            let underlay = self.fleet.nodes[number].underlay.as_ref();
            let nowhere = underlay.is_none() && role != Role::Member;
            if nowhere {
                let message = format!("{name} has no `underlay`");
                self.error(&path, &message, "give the node its `underlay` address");
            } else if role == Role::Remote && underlay.is_some_and(|u| u.address.is_none()) {
                let message = format!(
                    "{name} looks its underlay address up on itself, so nobody else knows it"
                );
                self.error(&path, &message, "give the node's `underlay` an `address`");
            }
        }
    }

    fn ends_that_are_nodes(&self) -> Vec<Named<'a>> {
        let mut named = Vec::new();
        let mut tunnel = |path: &dyn Fn() -> Path, tunnel: &'a Tunnel| {
            let ends = [
                ("local", &tunnel.local, Role::Local),
                ("remote", &tunnel.remote, Role::Remote),
            ];
            for (key, end, role) in ends {
                if let Some(Endpoint::Node(name)) = end {
                    let path = path().key(key);
                    named.push(Named { path, name, role });
                }
            }
        };
        let topology = self.fleet.topology;
        tunnel(&|| Path::default().key("defaults"), &topology.defaults);
        for (name, shared) in &topology.tunnels {
            tunnel(&|| Path::default().key("tunnels").key(name), shared);
        }
        for (name, node) in &topology.nodes {
            let path = top("nodes", name);
            tunnel(&|| path.key("defaults"), &node.defaults);
            for (device, own) in &node.tunnels {
                tunnel(&|| path.key("tunnels").key(device), own);
            }
        }
        named
    }

    fn nodes_of_meshes(&self) -> Vec<Named<'a>> {
        let mut named = Vec::new();
        let mut list = |path: &Path, names: &mut dyn Iterator<Item = &'a Name>| {
            named.extend(names.enumerate().map(|(index, name)| Named {
                path: path.index(index),
                name,
                role: Role::Member,
            }));
        };
        for graph in &self.fleet.meshes {
            let path = top("meshes", graph.name);
            match &graph.mesh.members {
                Members::All | Members::Labels(_) => {}
                Members::List(names) => list(&path.key("members"), &mut names.iter()),
            }
            let path = path.key("topology");
            match &graph.mesh.topology {
                Links::Full => {}
                Links::Hub(names) => list(&path.key("hub"), &mut names.iter()),
                Links::Edges(edges) => {
                    for (index, (one, other)) in edges.iter().enumerate() {
                        let pair = path.key("edges").index(index);
                        list(&pair, &mut [one, other].into_iter());
                    }
                }
            }
        }
        named
    }

    fn unknown(&mut self, path: &Path, name: &Name) {
        if self.fleet.names.is_empty() {
            let help = "a name here stands for a node, and this topology has no `nodes`";
            self.error(path, &looks_like_ipv4_end(name.as_str()), help);
            return;
        }
        let help = match self.guess(name) {
            Some(close) => format!("did you mean `{close}`?"),
            None => "add it to `nodes`".to_owned(),
        };
        let message = format!("no node is called {name:?}", name = name.as_str());
        self.error(path, &message, &help);
    }

    /// The node that somebody may have meant.
    fn guess(&self, name: &Name) -> Option<&'a str> {
        let made = self.guesses.get();
        if made == MOST_GUESSES {
            return None;
        }
        self.guesses.set(made + 1);
        let names: Vec<&str> = self.fleet.names.iter().map(|name| name.as_str()).collect();
        let close = similar::get_close_matches(name.as_str(), &names, 1, 0.6);
        close.first().copied()
    }

    fn underlays(&mut self) {
        let mut seen: HashMap<Ipv4Addr, usize> = HashMap::new();
        for (number, node) in self.fleet.nodes.iter().enumerate() {
            let Some(underlay) = &node.underlay else {
                continue;
            };
            let path = self.node(number).key("underlay");
            match underlay.address.map(|address| address.net) {
                None if underlay.device.is_none() => self.error(
                    &path,
                    "neither an address nor a device",
                    "give its `address`, or the `device` that has it",
                ),
                None => {}
                Some(IpNet::V6(net)) => {
                    let message = format!(
                        "{} is an IPv6 address: an ipip tunnel's outer header is IPv4 (RFC 2003)",
                        net.addr()
                    );
                    self.error(&path, &message, "give the node's IPv4 address");
                }
                Some(IpNet::V4(net)) => match no_host(net) {
                    Some(kind) => {
                        let message = format!(
                            "{} is {kind} address: a node's underlay address is one host's",
                            net.addr()
                        );
                        let help = "give the address that the other nodes reach it by";
                        self.error(&path, &message, help);
                    }
                    None => self.underlay_once(number, net.addr(), &mut seen),
                },
            }
        }
    }

    fn underlay_once(
        &mut self,
        number: usize,
        address: Ipv4Addr,
        seen: &mut HashMap<Ipv4Addr, usize>,
    ) {
        if let Some(first) = seen.insert(address, number) {
            let message = format!("{address} is {}'s underlay address, too", self.name(first));
            self.clash(
                &self.node(number).key("underlay"),
                &self.node(first).key("underlay"),
                &message,
                "each node has its own underlay address",
            );
        }
    }

    fn subnet(&self, (_, number, index): Held) -> Path {
        self.node(number).key("subnets").index(index)
    }

    /// The subnets of every node, sorted. Those that overlap one another are an error.
    fn subnets(&mut self) -> Vec<Held> {
        let nodes = self.fleet.nodes.iter().enumerate();
        let mut all: Vec<Held> = nodes
            .flat_map(|(number, node)| {
                let subnets = node.subnets.iter().enumerate();
                subnets.map(move |(index, subnet)| (subnet.0, number, index))
            })
            .collect();
        all.sort_unstable_by_key(|(net, number, index)| {
            (net.network(), net.prefix_len(), *number, *index)
        });
        // Sorted by their starts, a subnet can lie only within one that is still open.
        let mut widest: Option<Held> = None;
        for &subnet in &all {
            let net = subnet.0;
            if never_an_address(IpAddr::V4(net.network())) == Some("a multicast") {
                let message = format!("{net} is a multicast network");
                self.error(&self.subnet(subnet), &message, "give a network of hosts");
            }
            match widest.filter(|(open, ..)| open.broadcast() >= net.network()) {
                Some(first) => {
                    let (one, other) = (self.name(first.1), self.name(subnet.1));
                    let message = format!("{net} of {other} overlaps {} of {one}", first.0);
                    self.clash(
                        &self.subnet(subnet),
                        &self.subnet(first),
                        &message,
                        "a packet can be for one node only",
                    );
                }
                None => widest = Some(subnet),
            }
        }
        all
    }

    fn overlay_in_underlay(&mut self, subnets: &[Held]) {
        let help = "keep the nodes' subnets apart from the underlay's networks";
        for number in 0..self.fleet.nodes.len() {
            let Some((address, network)) = self.underlay(number) else {
                continue;
            };
            let name = self.name(number);
            let path = self.node(number).key("underlay");
            if let Some(held) = overlapping(subnets, address.into()) {
                let message = format!(
                    "the underlay address of {name}, {address}, is in the overlay {} of {}: outer packets to it would be routed into the tunnel",
                    held.0,
                    self.name(held.1)
                );
                self.clash(&path, &self.subnet(held), &message, help);
            } else if let Some(held) = overlapping(subnets, network) {
                let message = format!(
                    "the underlay network of {name}, {network}, holds the overlay {} of {}",
                    held.0,
                    self.name(held.1)
                );
                self.clash(&path, &self.subnet(held), &message, help);
            }
        }
    }

    /// A node's underlay address, and the network around it as far as the file tells it.
    fn underlay(&self, number: usize) -> Option<(Ipv4Addr, Ipv4Net)> {
        let underlay = self.fleet.nodes[number].underlay.as_ref()?;
        let address = underlay.address()?;
        Some((address, underlay.network().unwrap_or(address.into())))
    }
}

/// What keeps an address from being a host's.
fn no_host(net: Ipv4Net) -> Option<&'static str> {
    let has_hosts = net.prefix_len() < 31;
    unusable(net.addr())
        .or((has_hosts && net.addr() == net.network()).then_some("its network's own"))
        .or((has_hosts && net.addr() == net.broadcast()).then_some("its network's broadcast"))
}

/// One of the subnets that has something in common with a network. They are sorted and don't overlap.
fn overlapping(subnets: &[Held], network: Ipv4Net) -> Option<Held> {
    let after = subnets.partition_point(|(net, ..)| net.network() <= network.broadcast());
    let last = after.checked_sub(1).and_then(|index| subnets.get(index));
    last.copied()
        .filter(|(net, ..)| net.broadcast() >= network.network())
}
