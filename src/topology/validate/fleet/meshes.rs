//! One mesh: its members, who is joined to whom, and what its devices and links are called.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::{Check, Held, overlapping, top};
use crate::source::{Path, Severity};
use crate::state::InterfaceName;
use crate::topology::mesh::Graph;
use crate::topology::{Links, Members, Name, Style};

impl Check<'_> {
    pub(super) fn mesh(&mut self, graph: &Graph, subnets: &[Held]) {
        let path = top("meshes", graph.name);
        self.own_keys(graph, &path);
        self.devices(graph, &path);
        if graph.members.len() < 2 {
            self.too_few(graph, &path);
            return;
        }
        self.reachable(graph, &path);
        self.links(graph, &path);
        self.link_network(graph, &path, subnets);
    }

    fn too_few(&mut self, graph: &Graph, path: &Path) {
        if let Members::List(names) = &graph.mesh.members
            && names.iter().any(|name| self.fleet.number(name).is_none())
        {
            // That has been said.
            return;
        }
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
    }

    fn reachable(&mut self, graph: &Graph, path: &Path) {
        for &number in &graph.members {
            let underlay = self.fleet.nodes[number].underlay.as_ref();
            // An underlay that says nothing at all has an error of its own.
            if underlay.is_none_or(|u| u.address.is_none() && u.device.is_some()) {
                let message = format!(
                    "{} is a member of the mesh {}, and the others can't know its underlay address",
                    self.name(number),
                    graph.name
                );
                let help = "give its `underlay` an `address`, or leave it out of the mesh";
                let node = match underlay {
                    Some(_) => self.node(number).key("underlay"),
                    None => self.node(number),
                };
                self.relate(&node, Severity::Error, &message, path, "is the mesh");
                self.help(help);
            }
        }
    }

    fn links(&mut self, graph: &Graph, path: &Path) {
        let place = path.key("topology");
        let number = |name: &Name| self.fleet.number(name);
        let outsider = |name: &Name| number(name).is_some_and(|number| !graph.has(number));
        let known;
        let mut wrong: Vec<(Path, String)> = Vec::new();
        match &graph.mesh.topology {
            Links::Full => return,
            Links::Hub(hubs) => {
                let place = place.key("hub");
                known = hubs.iter().all(|hub| number(hub).is_some());
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
                let mut ends = edges.iter().flat_map(|(one, other)| [one, other]);
                known = ends.all(|end| number(end).is_some());
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
        let sound = known && wrong.is_empty();
        for (path, message) in wrong {
            self.error(&path, &message, "an edge joins two members of the mesh");
        }
        if sound {
            self.connected(graph, &place);
        }
    }

    fn connected(&mut self, graph: &Graph, place: &Path) {
        let first = graph.members[0];
        let ways = graph.ways(first).into_iter();
        let reached: HashSet<usize> = ways.map(|(node, _)| node).collect();
        let mut others = graph.members.iter().filter(|&&node| node != first);
        if let Some(&apart) = others.find(|node| !reached.contains(node)) {
            let message = format!(
                "no edges lead from {} to {}: they can't reach each other",
                self.name(first),
                self.name(apart)
            );
            self.report(place, Severity::Warning, &message);
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
        } else if let Some(number) = graph.labels.without_room {
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

    /// What the links' addresses are taken from.
    fn link_network(&mut self, graph: &Graph, path: &Path, subnets: &[Held]) {
        let Some(network) = graph.mesh.link_network.map(|network| network.0) else {
            return;
        };
        let place = path.key("link_network");
        match graph.mesh.style {
            Style::Multipoint => self.error(
                &place,
                "a multipoint mesh has no links",
                "set `style: point-to-point`, or leave it out",
            ),
            Style::PointToPoint => {
                self.link_addresses(graph, &place, network);
                self.link_network_apart(&place, network, subnets);
            }
        }
    }

    fn link_addresses(&mut self, graph: &Graph, place: &Path, network: Ipv4Net) {
        let mut seen: HashMap<Ipv4Addr, usize> = HashMap::new();
        for &number in &graph.members {
            let Some(address) = graph.link_address(self.fleet, number) else {
                continue;
            };
            let Some(first) = seen.insert(address, number) else {
                continue;
            };
            let underlay = |number| self.fleet.underlay(number);
            // The same underlay address twice has an error of its own.
            if underlay(first) == underlay(number) {
                continue;
            }
            let message = format!(
                "{} and {} would both have the link address {address}: the last {} bits of their underlay addresses are the same",
                self.name(first),
                self.name(number),
                32 - network.prefix_len()
            );
            let node = self.node(number).key("underlay");
            self.relate(place, Severity::Error, &message, &node, "is one of them");
            self.help("give a larger `link_network`");
            return;
        }
    }

    fn link_network_apart(&mut self, place: &Path, link: Ipv4Net, subnets: &[Held]) {
        if let Some(held) = overlapping(subnets, link) {
            let message = format!("{link} overlaps {} of {}", held.0, self.name(held.1));
            let help = "keep the link addresses apart from the subnets";
            self.clash(place, &self.subnet(held), &message, help);
        }
        let inside = (0..self.fleet.nodes.len()).find(|&number| {
            let network = self.underlay(number).map(|(_, network)| network);
            network.is_some_and(|network| network.contains(&link) || link.contains(&network))
        });
        if let Some(number) = inside {
            let node = self.node(number).key("underlay");
            let message = format!("{link} overlaps the underlay of {}", self.name(number));
            let help = "keep the link addresses apart from the underlay";
            self.clash(place, &node, &message, help);
        }
    }

    /// What the mesh decides for its tunnels itself.
    fn own_keys(&mut self, graph: &Graph, path: &Path) {
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
        if tunnel.probe.is_some_and(|probe| probe.target.is_some()) {
            self.error(
                &path.key("tunnel").key("probe").key("target"),
                "each of the mesh's tunnels is probed at its own peer, not at one `target`",
                "leave it out",
            );
        }
    }
}
