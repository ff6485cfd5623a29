//! A fleet too large to show every node: its underlay subnets, with what they have and what joins them counted.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;

use super::fleet::{Target, facts, hubs, summary, written};
use super::place::{FOOTNOTE, merged, places};
use super::text::{clean, counted, first, number};
use super::{Card, CardKind, GroupKind, Link, MOST_LINKS, Picture, Web};
use crate::topology::{Fleet, Graph, Links, Node, Topology};

/// Boxes of nodes.
const MOST_BOXES: usize = 100;
/// Overlay networks on a box, put together where they are neighbours.
const MOST_NETWORKS: usize = 3;

/// The picture of a fleet, subnet by subnet.
pub(super) fn grouped(topology: &Topology) -> Picture {
    let fleet = topology.fleet();
    let written = written(topology, &fleet);
    let nodes: Vec<&Node> = topology.nodes.values().collect();
    let mut picture = Picture {
        title: clean(&topology.name),
        summary: summary(topology, &written),
        cards: Vec::new(),
        groups: Vec::new(),
        webs: Vec::new(),
        notes: vec!["too many nodes to show each: a box is an underlay subnet".into()],
    };
    let mut cards = Vec::new();
    let mut card_of = vec![0; nodes.len()];
    for (place, (subnets, numbers)) in merged(&places(topology), MOST_BOXES) {
        for &number in &numbers {
            card_of[number] = cards.len();
        }
        if place.is_assumed() && picture.notes.len() == 1 {
            picture.notes.push(FOOTNOTE.into());
        }
        cards.push(card(place.title(), subnets, &numbers, &nodes));
    }
    picture.add_group(String::new(), GroupKind::Loose, cards);
    let meshes = fleet.meshes().filter(|graph| graph.members().len() > 1);
    let meshes = meshes.map(|graph| web(graph, &fleet, &card_of));
    picture.webs.extend(meshes);
    let outside = picture.cards.len();
    let mut pairs = Pairs::default();
    let mut far = BTreeSet::new();
    for tunnel in &written {
        let own = card_of[tunnel.node];
        match tunnel.to {
            Target::Node(number) => pairs.add(own, card_of[number]),
            Target::Outside(address) => {
                pairs.add(own, outside);
                far.insert(address);
            }
            Target::Any => {}
        }
    }
    if !far.is_empty() {
        let card = Card {
            kind: CardKind::Many,
            title: counted(far.len(), "address"),
            lines: Vec::new(),
            subnets: Vec::new(),
            details: Vec::new(),
        };
        picture.add_group("outside".into(), GroupKind::Outside, vec![card]);
    }
    if !pairs.0.is_empty() {
        let fact = number(pairs.0.values().sum());
        picture
            .webs
            .push(pairs.web("written tunnels".into(), vec![fact]));
    }
    for web in &mut picture.webs {
        inside(web, &mut picture.cards);
    }
    picture
}

fn card(title: String, subnets: usize, numbers: &[usize], nodes: &[&Node]) -> Card {
    let overlay = numbers.iter().flat_map(|&number| &nodes[number].subnets);
    let overlay: Vec<Ipv4Net> = overlay.map(|subnet| subnet.0).collect();
    let mut lines = vec![
        counted(numbers.len(), "node"),
        counted(overlay.len(), "overlay subnet"),
    ];
    if subnets > 1 {
        lines.insert(0, counted(subnets, "underlay subnet"));
    }
    Card {
        kind: CardKind::Many,
        title,
        lines,
        subnets: first(Ipv4Net::aggregate(&overlay).iter(), MOST_NETWORKS),
        details: Vec::new(),
    }
}

/// How many tunnels join two cards.
#[derive(Default)]
struct Pairs(BTreeMap<(usize, usize), usize>);

impl Pairs {
    fn add(&mut self, one: usize, other: usize) {
        let ends = (one.min(other), one.max(other));
        *self.0.entry(ends).or_default() += 1;
    }

    fn web(self, title: String, facts: Vec<String>) -> Web {
        let ends = self.0.keys().flat_map(|&(one, other)| [one, other]);
        let members: BTreeSet<usize> = ends.collect();
        let link = |(ends, count)| Link {
            ends,
            label: number(count),
            details: vec![format!("{title}: {}", counted(count, "tunnel"))],
        };
        Web {
            facts,
            members: members.into_iter().collect(),
            hubs: Vec::new(),
            links: self.0.into_iter().map(link).collect(),
            title: title.clone(),
        }
    }
}

fn web(graph: &Graph, fleet: &Fleet, card_of: &[usize]) -> Web {
    let cards = |nodes: &[usize]| {
        let cards: BTreeSet<usize> = nodes.iter().map(|&node| card_of[node]).collect();
        cards.into_iter().collect::<Vec<usize>>()
    };
    let title = clean(graph.name());
    let mut pairs = Pairs::default();
    match graph.mesh().topology {
        Links::Full => {}
        Links::Hub(_) | Links::Edges(_) => {
            for (one, other) in graph.pairs() {
                pairs.add(card_of[one], card_of[other]);
            }
        }
    }
    if pairs.0.len() > MOST_LINKS {
        pairs = Pairs::default();
    }
    Web {
        members: cards(graph.members()),
        hubs: cards(&hubs(graph, fleet)),
        ..pairs.web(title, facts(graph))
    }
}

/// A link from a card to itself is no line: the card says so.
fn inside(web: &mut Web, cards: &mut [Card]) {
    let own = web.links.extract_if(.., |link| link.ends.0 == link.ends.1);
    for link in own {
        let line = format!("{}: {} inside", web.title, link.label);
        cards[link.ends.0].lines.push(line);
    }
}
