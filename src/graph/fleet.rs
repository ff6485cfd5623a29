//! A fleet with every node to be seen.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::place::{FOOTNOTE, Place, address, network, places};
use super::text::{clean, counted, first, number};
use super::{Card, CardKind, GroupKind, Link, MOST_LINKS, Picture, Web};
use crate::state::InterfaceName;
use crate::topology::{Endpoint, Fleet, Graph, Links, Name, Node, Style, Topology, Tunnel};

/// Overlay subnets on a node's card.
const MOST_SUBNETS: usize = 3;
/// Entries of one kind in a node's details.
const MOST_DETAILS: usize = 20;
/// A full mesh of more nodes is a shape, whatever its style: every link drawn would be a black box.
const MOST_FULL: usize = 30;
/// Hubs that a mesh's heading names.
const MOST_HUBS: usize = 3;
/// Outside addresses with a card of their own.
const MOST_OUTSIDE: usize = 40;
/// From so many nodes on, tunnels of one name to one place are a web of their own.
const MANY_ALIKE: usize = 8;

/// A tunnel that is written out, on one node.
pub(super) struct Written {
    pub(super) node: usize,
    pub(super) device: InterfaceName,
    pub(super) to: Target,
}

/// Where a tunnel leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    Node(usize),
    Outside(Ipv4Addr),
    /// To no one place.
    Any,
}

/// The tunnels of all nodes that aren't a mesh's.
pub(super) fn written(topology: &Topology, fleet: &Fleet) -> Vec<Written> {
    let of_address: BTreeMap<Ipv4Addr, usize> = (topology.nodes.values().enumerate())
        .filter_map(|(number, node)| Some((address(node)?, number)))
        .collect();
    let target = |node: &Node, tunnel: &Tunnel| {
        let remotes = [tunnel, &node.defaults, &topology.defaults];
        match remotes.into_iter().find_map(|t| t.remote.as_ref()) {
            Some(Endpoint::Node(name)) => fleet.number(name).map_or(Target::Any, Target::Node),
            Some(Endpoint::Address(address)) => match of_address.get(address) {
                Some(&number) => Target::Node(number),
                None => Target::Outside(*address),
            },
            Some(Endpoint::Any | Endpoint::Device(_)) | None => Target::Any,
        }
    };
    let mut list = Vec::new();
    for (number, node) in topology.nodes.values().enumerate() {
        let shared = topology.tunnels.iter();
        let shared = shared.filter(|(device, _)| !node.tunnels.contains_key(device));
        list.extend(shared.chain(&node.tunnels).map(|(device, tunnel)| Written {
            node: number,
            device: *device,
            to: target(node, tunnel),
        }));
    }
    list
}

/// What a mesh is, in a few words.
pub(super) fn facts(graph: &Graph) -> Vec<String> {
    let mesh = graph.mesh();
    let (device, style) = match mesh.style {
        Style::Multipoint => (format!("device {}", graph.base()), "multipoint"),
        Style::PointToPoint => (format!("devices {}…", graph.base()), "point-to-point"),
    };
    let links = match &mesh.topology {
        Links::Full => "full mesh".to_owned(),
        Links::Hub(hubs) => {
            let what = if hubs.len() == 1 { "hub" } else { "hubs" };
            format!("{what} {}", first(hubs.iter(), MOST_HUBS).join(", "))
        }
        Links::Edges(_) => "chosen pairs".to_owned(),
    };
    let mut facts = vec![clean(device), style.into(), links];
    facts.push(counted(graph.members().len(), "member"));
    if mesh.direct_routing {
        facts.push("direct routing".into());
    }
    facts
}

/// The hubs among a mesh's members, sorted.
pub(super) fn hubs(graph: &Graph, fleet: &Fleet) -> Vec<usize> {
    let names = match &graph.mesh().topology {
        Links::Hub(names) => names.as_slice(),
        Links::Full | Links::Edges(_) => &[],
    };
    let numbers = names.iter().filter_map(|name| fleet.number(name));
    let mut hubs: Vec<usize> = numbers
        .filter(|number| graph.members().binary_search(number).is_ok())
        .collect();
    hubs.sort_unstable();
    hubs.dedup();
    hubs
}

/// A fleet's numbers in a few words.
pub(super) fn summary(topology: &Topology, written: &[Written]) -> String {
    let subnets = topology.nodes.values().map(|node| node.subnets.len()).sum();
    let mut parts = vec![counted(topology.nodes.len(), "node")];
    if !topology.meshes.is_empty() {
        parts.push(counted(topology.meshes.len(), "mesh"));
    }
    if !written.is_empty() {
        parts.push(counted(written.len(), "written tunnel"));
    }
    parts.push(counted(subnets, "overlay subnet"));
    parts.join(" · ")
}

/// The picture of a fleet, node by node.
pub(super) fn detailed(topology: &Topology) -> Picture {
    let fleet = topology.fleet();
    let written = written(topology, &fleet);
    let mut picture = Picture {
        title: clean(&topology.name),
        summary: summary(topology, &written),
        cards: Vec::new(),
        groups: Vec::new(),
        webs: Vec::new(),
        notes: Vec::new(),
    };
    let mut drawing = Drawing {
        topology,
        names: topology.nodes.keys().map(clean).collect(),
        written: &written,
        card_of: vec![0; topology.nodes.len()],
        outside: BTreeMap::new(),
    };
    drawing.subnets(&mut picture);
    drawing.outside(&mut picture);
    let graphs = fleet.meshes().filter(|graph| graph.members().len() > 1);
    let meshes = graphs.map(|graph| drawing.mesh(graph, &hubs(graph, &fleet)));
    picture.webs.extend(meshes);
    picture.webs.extend(drawing.webs());
    picture
}

struct Drawing<'a> {
    topology: &'a Topology,
    written: &'a [Written],
    /// By a node's number.
    names: Vec<String>,
    /// By a node's number.
    card_of: Vec<usize>,
    outside: BTreeMap<Ipv4Addr, usize>,
}

impl Drawing<'_> {
    fn subnets(&mut self, picture: &mut Picture) {
        let nodes: Vec<(&Name, &Node)> = self.topology.nodes.iter().collect();
        let mut devices: BTreeMap<usize, Vec<&Written>> = BTreeMap::new();
        for tunnel in self.written {
            devices.entry(tunnel.node).or_default().push(tunnel);
        }
        let mut guessed = false;
        for (place, numbers) in places(self.topology) {
            let mut cards = Vec::new();
            for number in numbers {
                self.card_of[number] = picture.cards.len() + cards.len();
                let (name, node) = nodes[number];
                guessed |= network(node).is_none() && address(node).is_some();
                let tunnels = devices.get(&number).map_or(&[][..], Vec::as_slice);
                cards.push(card(name, node, tunnels));
            }
            let kind = match place {
                Place::Subnet(_, _) => GroupKind::Subnet,
                Place::Unknown => GroupKind::Unknown,
            };
            picture.add_group(place.title(), kind, cards);
        }
        if guessed {
            picture.notes.push(FOOTNOTE.into());
        }
    }

    fn outside(&mut self, picture: &mut Picture) {
        let targets = self.written.iter().filter_map(|tunnel| match tunnel.to {
            Target::Outside(address) => Some((address, 0)),
            Target::Node(_) | Target::Any => None,
        });
        self.outside = targets.collect();
        if self.outside.is_empty() {
            return;
        }
        let before = picture.cards.len();
        let many = self.outside.len() > MOST_OUTSIDE;
        for (number, card) in self.outside.values_mut().enumerate() {
            *card = before + if many { 0 } else { number };
        }
        let cards = if many {
            vec![Card {
                kind: CardKind::Many,
                title: counted(self.outside.len(), "address"),
                lines: Vec::new(),
                subnets: Vec::new(),
                details: first(self.outside.keys(), MOST_DETAILS),
            }]
        } else {
            let addresses = self.outside.keys();
            addresses
                .map(|address| Card {
                    kind: CardKind::Outside,
                    title: address.to_string(),
                    lines: Vec::new(),
                    subnets: Vec::new(),
                    details: vec!["not a node of this topology".into()],
                })
                .collect()
        };
        picture.add_group("outside".into(), GroupKind::Outside, cards);
    }

    fn cards(&self, nodes: &[usize]) -> Vec<usize> {
        let mut cards: Vec<usize> = nodes.iter().map(|&node| self.card_of[node]).collect();
        cards.sort_unstable();
        cards
    }

    fn mesh(&self, graph: &Graph, hubs: &[usize]) -> Web {
        let title = clean(graph.name());
        let shape = match (&graph.mesh().topology, graph.mesh().style) {
            (Links::Full, Style::Multipoint) => true,
            (Links::Full, Style::PointToPoint) => graph.members().len() > MOST_FULL,
            (Links::Hub(_) | Links::Edges(_), _) => graph.pairs().nth(MOST_LINKS).is_some(),
        };
        let link = |(one, other)| {
            let (from, to) = (&self.names[one], &self.names[other]);
            Link {
                ends: ordered(self.card_of[one], self.card_of[other]),
                label: String::new(),
                details: vec![format!("{title}: {from} – {to}")],
            }
        };
        Web {
            facts: facts(graph),
            members: self.cards(graph.members()),
            hubs: self.cards(hubs),
            links: if shape {
                Vec::new()
            } else {
                graph.pairs().map(link).collect()
            },
            title,
        }
    }

    fn card_at(&self, target: Target) -> Option<usize> {
        match target {
            Target::Node(number) => Some(self.card_of[number]),
            Target::Outside(address) => self.outside.get(&address).copied(),
            Target::Any => None,
        }
    }

    /// The tunnels that are written out: alike ones as a web with a hub, the others together.
    fn webs(&self) -> Vec<Web> {
        let mut alike: BTreeMap<(InterfaceName, usize), Vec<&Written>> = BTreeMap::new();
        for tunnel in self.written {
            if let Some(card) = self.card_at(tunnel.to) {
                alike.entry((tunnel.device, card)).or_default().push(tunnel);
            }
        }
        let (many, few): (Vec<_>, Vec<_>) = alike
            .into_iter()
            .partition(|(_, tunnels)| tunnels.len() >= MANY_ALIKE);
        let mut webs: Vec<Web> = many
            .into_iter()
            .map(|((device, hub), tunnels)| Web {
                hubs: vec![hub],
                ..self.web(clean(device), &tunnels, false)
            })
            .collect();
        let few: Vec<&Written> = few.into_iter().flat_map(|(_, tunnels)| tunnels).collect();
        if !few.is_empty() {
            webs.push(Web {
                facts: vec![number(few.len())],
                ..self.web("written tunnels".into(), &few, true)
            });
        }
        webs
    }

    /// One link for each pair of cards.
    fn web(&self, title: String, tunnels: &[&Written], labelled: bool) -> Web {
        let mut pairs: BTreeMap<(usize, usize), Vec<&Written>> = BTreeMap::new();
        for tunnel in tunnels {
            if let Some(card) = self.card_at(tunnel.to) {
                let ends = ordered(self.card_of[tunnel.node], card);
                pairs.entry(ends).or_default().push(tunnel);
            }
        }
        let ends = pairs.keys().flat_map(|&(one, other)| [one, other]);
        let members: BTreeSet<usize> = ends.collect();
        let link = |(ends, tunnels): (_, Vec<&Written>)| Link {
            ends,
            label: if labelled {
                label(&tunnels)
            } else {
                String::new()
            },
            details: tunnels.iter().map(|tunnel| self.detail(tunnel)).collect(),
        };
        Web {
            title,
            facts: vec![counted(tunnels.len(), "tunnel")],
            members: members.into_iter().collect(),
            hubs: Vec::new(),
            links: pairs.into_iter().map(link).collect(),
        }
    }

    fn detail(&self, tunnel: &Written) -> String {
        let to = match tunnel.to {
            Target::Node(number) => self.names[number].clone(),
            Target::Outside(address) => address.to_string(),
            Target::Any => "any".into(),
        };
        format!(
            "{} on {}, to {to}",
            clean(tunnel.device),
            self.names[tunnel.node]
        )
    }
}

/// The names of the devices at either end, each once.
fn label(tunnels: &[&Written]) -> String {
    let mut names: Vec<String> = tunnels.iter().map(|tunnel| clean(tunnel.device)).collect();
    names.sort_unstable();
    names.dedup();
    first(names.iter(), 2).join(" / ")
}

fn ordered(one: usize, other: usize) -> (usize, usize) {
    (one.min(other), one.max(other))
}

fn card(name: &Name, node: &Node, tunnels: &[&Written]) -> Card {
    let multipoint = tunnels.iter().filter(|tunnel| tunnel.to == Target::Any);
    let multipoint: Vec<String> = multipoint
        .map(|tunnel| format!("{} · any remote", clean(tunnel.device)))
        .collect();
    let mut lines = vec![underlay(node)];
    lines.extend(first(multipoint.iter(), 2));
    let mut details = vec![format!("underlay {}", underlay(node))];
    let labels = node
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"));
    let lists = [
        ("labels", labels.collect::<Vec<_>>()),
        (
            "subnets",
            node.subnets.iter().map(|s| s.0.to_string()).collect(),
        ),
        (
            "tunnels",
            tunnels.iter().map(|t| t.device.to_string()).collect(),
        ),
    ];
    for (what, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        details.push(format!(
            "{what} {}",
            first(list.iter(), MOST_DETAILS).join(", ")
        ));
    }
    Card {
        kind: CardKind::Node,
        title: clean(name),
        lines,
        subnets: first(node.subnets.iter().map(|subnet| subnet.0), MOST_SUBNETS),
        details,
    }
}

fn underlay(node: &Node) -> String {
    let device = node.underlay.as_ref().and_then(|underlay| underlay.device);
    match (address(node), device) {
        (Some(address), _) if network(node).is_none() => format!("{address} ?"),
        (Some(address), _) => address.to_string(),
        (None, Some(device)) => format!("address of {}", clean(device)),
        (None, None) => "none given".into(),
    }
}
