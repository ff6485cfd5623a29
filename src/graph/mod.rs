//! A topology as a picture: its nodes in their underlay subnets, what joins them, and the overlay subnets behind them.
//!
//! [`draw`] makes a picture of a topology, a value that knows nothing of places and colours, and writes it in one of
//! three formats. The same file gives the same bytes.

mod dot;
mod fleet;
mod host;
mod layout;
mod mermaid;
mod place;
mod subnets;
mod svg;
#[cfg(test)]
mod testing;
mod text;

use std::ops::Range;

use crate::topology::Topology;

/// With more nodes, or more tunnels on one host, a picture shows underlay subnets instead of them.
const MOST_NODES: usize = 300;
/// A mesh with more links is drawn as one shape.
const MOST_LINKS: usize = 1_000;

/// What a picture is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// An image for a browser, complete in itself.
    Svg,
    /// Graphviz's language.
    Dot,
    /// Mermaid's flowchart.
    Mermaid,
}

/// Draws a topology.
pub fn draw(topology: &Topology, format: Format) -> String {
    let picture = Picture::of(topology, MOST_NODES);
    match format {
        Format::Svg => svg::write(&picture),
        Format::Dot => dot::write(&picture),
        Format::Mermaid if mermaid::fits(&picture) => mermaid::write(&picture),
        Format::Mermaid => mermaid::write(&Picture::of(topology, 0)),
    }
}

/// What there is to see.
#[derive(Debug)]
struct Picture {
    /// The topology's name.
    title: String,
    /// What it has, counted.
    summary: String,
    /// Sorted by group.
    cards: Vec<Card>,
    groups: Vec<Group>,
    webs: Vec<Web>,
    /// What is assumed, and what is left out.
    notes: Vec<String>,
}

/// One box.
#[derive(Debug)]
struct Card {
    kind: CardKind,
    title: String,
    lines: Vec<String>,
    /// Overlay subnets; on a tunnel, its routes.
    subnets: Vec<String>,
    /// For those who want to know more, a line each.
    details: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CardKind {
    /// A node of a fleet.
    Node,
    /// The one host.
    Host,
    /// A tunnel of the one host.
    Tunnel,
    /// An address that is no node's.
    Outside,
    /// Many nodes, or many tunnels.
    Many,
}

/// Boxes that belong together.
#[derive(Debug)]
struct Group {
    /// Empty: nothing to see of the group.
    title: String,
    kind: GroupKind,
    cards: Range<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GroupKind {
    /// An underlay subnet.
    Subnet,
    /// Nodes whose subnet the file doesn't tell.
    Unknown,
    /// What is no part of the fleet.
    Outside,
    /// No group to anyone but the layout.
    Loose,
}

/// Tunnels that belong together: a mesh, or those that are written one by one.
#[derive(Debug)]
struct Web {
    title: String,
    facts: Vec<String>,
    /// Sorted numbers of cards.
    members: Vec<usize>,
    /// The members that the others reach one another through, sorted.
    hubs: Vec<usize>,
    /// Empty: everyone is joined to everyone, or there are too many to draw each.
    links: Vec<Link>,
}

/// A line between two cards.
#[derive(Debug)]
struct Link {
    ends: (usize, usize),
    label: String,
    details: Vec<String>,
}

impl Picture {
    /// The picture of a topology, which groups what is more than `most`.
    fn of(topology: &Topology, most: usize) -> Self {
        match (topology.nodes.len(), topology.tunnels.len()) {
            (0, tunnels) if tunnels <= most => host::detailed(topology),
            (0, _) => host::grouped(topology),
            (nodes, _) if nodes <= most => fleet::detailed(topology),
            (_, _) => subnets::grouped(topology),
        }
    }

    /// Appends a group of cards.
    fn add_group(&mut self, title: String, kind: GroupKind, cards: Vec<Card>) {
        let first = self.cards.len();
        self.cards.extend(cards);
        self.groups.push(Group {
            title,
            kind,
            cards: first..self.cards.len(),
        });
    }
}

impl Web {
    /// Drawn as a shape that its members are joined to.
    fn is_shape(&self) -> bool {
        self.links.is_empty()
    }

    /// Its name and what there is to know about it, in one line.
    fn heading(&self) -> String {
        let parts = std::iter::once(&self.title).chain(&self.facts);
        parts.map(String::as_str).collect::<Vec<_>>().join(" · ")
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{HOSTILE, mesh, topology};
    use super::*;

    const FORMATS: [Format; 3] = [Format::Svg, Format::Dot, Format::Mermaid];

    #[test]
    fn the_same_file_gives_the_same_bytes() {
        for format in FORMATS {
            for topology in [topology(HOSTILE), mesh(50, 7, ""), mesh(400, 20, "")] {
                assert_eq!(draw(&topology, format), draw(&topology.clone(), format));
            }
        }
    }

    #[test]
    fn a_mesh_is_a_shape_where_lines_would_be_too_many() {
        let links = |count, kind| {
            Picture::of(&mesh(count, 10, kind), MOST_NODES).webs[0]
                .links
                .len()
        };
        assert_eq!(links(5, ""), 0);
        assert_eq!(links(5, "style: point-to-point"), 10);
        assert_eq!(links(30, "style: point-to-point"), 435);
        assert_eq!(links(31, "style: point-to-point"), 0);
        assert_eq!(links(31, "topology: {hub: [node-3]}"), 30);
        assert_eq!(
            links(290, "topology: {hub: [node-1, node-2, node-3, node-4]}"),
            0
        );
    }

    #[test]
    fn a_fleet_beyond_the_limit_is_drawn_by_subnet() {
        let boxes = |count| Picture::of(&mesh(count, 10, ""), MOST_NODES).cards.len();
        assert_eq!(boxes(300), 300);
        assert_eq!(boxes(301), 31);
        let picture = Picture::of(&mesh(301, 10, "topology: {hub: [node-0]}"), MOST_NODES);
        let counts: Vec<&str> = picture.webs[0]
            .links
            .iter()
            .map(|l| l.label.as_str())
            .collect();
        assert_eq!(counts.len(), 30);
        assert_eq!((counts[0], counts[29]), ("10", "1"));
        assert!(
            picture.cards[0]
                .lines
                .contains(&"pods: 9 inside".to_owned())
        );
    }

    #[test]
    fn written_tunnels_lead_to_nodes_and_outside() {
        let picture = Picture::of(&topology(HOSTILE), MOST_NODES);
        let outside: Vec<&str> = picture
            .cards
            .iter()
            .filter(|card| card.kind == CardKind::Outside)
            .map(|card| card.title.as_str())
            .collect();
        assert_eq!(outside, ["203.0.113.9", "203.0.113.10"]);
        let written = picture.webs.last().expect("written tunnels");
        assert_eq!(written.links.len(), 6);
        assert_eq!(written.links[0].details, ["]-->|x on end, to one"]);
        assert!(picture.webs[1].facts.contains(&"direct routing".to_owned()));
    }
}
