//! Where nodes are in the underlay.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::topology::{Node, Topology};

/// The prefix length of an underlay subnet that nobody has written down.
const ASSUMED: u8 = 24;

/// What a picture says where something is assumed.
pub(super) const FOOTNOTE: &str =
    "?  assumed: the file gives the underlay address without a prefix length";

/// A part of the underlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// A subnet, and whether it is only assumed.
    Subnet(Ipv4Net, bool),
    /// Of a node whose address the file doesn't have.
    Unknown,
}

impl Place {
    pub(super) fn title(self) -> String {
        match self {
            Self::Subnet(net, false) => net.to_string(),
            Self::Subnet(net, true) => format!("{net} ?"),
            Self::Unknown => "underlay not in the file".into(),
        }
    }

    pub(super) fn is_assumed(self) -> bool {
        match self {
            Self::Subnet(_, assumed) => assumed,
            Self::Unknown => false,
        }
    }
}

/// A node's underlay address, where the file has it.
pub(super) fn address(node: &Node) -> Option<Ipv4Addr> {
    node.underlay.as_ref()?.address()
}

/// The subnet that a node's underlay address is written with.
pub(super) fn network(node: &Node) -> Option<Ipv4Net> {
    node.underlay.as_ref()?.network()
}

/// The nodes' numbers by place, in the order of their addresses.
pub(super) fn places(topology: &Topology) -> BTreeMap<Place, Vec<usize>> {
    let known: BTreeSet<Ipv4Net> = topology.nodes.values().filter_map(network).collect();
    let lengths: BTreeSet<u8> = known.iter().map(Ipv4Net::prefix_len).collect();
    let around = |address: Ipv4Addr| {
        let nets = lengths.iter().rev().map(|&length| net(address, length));
        let mut written = nets.filter(|net| known.contains(net));
        written.next().map(|net| Place::Subnet(net, false))
    };
    let mut places: BTreeMap<Place, Vec<usize>> = BTreeMap::new();
    for (number, node) in topology.nodes.values().enumerate() {
        let place = match (network(node), address(node)) {
            (Some(net), _) => Place::Subnet(net, false),
            (None, Some(address)) => {
                around(address).unwrap_or_else(|| Place::Subnet(net(address, ASSUMED), true))
            }
            (None, None) => Place::Unknown,
        };
        places.entry(place).or_default().push(number);
    }
    let nodes: Vec<&Node> = topology.nodes.values().collect();
    for numbers in places.values_mut() {
        numbers.sort_by_key(|&number| (address(nodes[number]), number));
    }
    places
}

/// The network of a prefix length around an address.
pub(super) fn net(address: Ipv4Addr, length: u8) -> Ipv4Net {
    Ipv4Net::new(address, length).unwrap_or_default().trunc()
}

/// The places in networks so much larger that there are `most` at the most, each with the number of its places.
pub(super) fn merged(
    places: &BTreeMap<Place, Vec<usize>>,
    most: usize,
) -> BTreeMap<Place, (usize, Vec<usize>)> {
    let mut merged = BTreeMap::new();
    for longest in [32, 24, 20, 16, 12, 8, 4, 0] {
        merged.clear();
        for (place, nodes) in places {
            let within = match *place {
                Place::Subnet(subnet, _) if subnet.prefix_len() > longest => {
                    Place::Subnet(net(subnet.addr(), longest), false)
                }
                place => place,
            };
            let entry: &mut (usize, Vec<usize>) = merged.entry(within).or_default();
            entry.0 += 1;
            entry.1.extend(nodes);
        }
        if merged.len() <= most {
            break;
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::topology;

    fn titles(nodes: &str) -> Vec<(String, Vec<usize>)> {
        let topology = topology(&format!("nodes: {nodes}"));
        let places = places(&topology).into_iter();
        places
            .map(|(place, nodes)| (place.title(), nodes))
            .collect()
    }

    #[test]
    fn a_subnet_is_written_or_assumed_or_unknown() {
        let found = titles(
            "{a: {underlay: 192.0.2.9/25}, b: {underlay: 192.0.2.7}, c: {underlay: 198.51.100.1}, \
             d: {underlay: {device: eth0}}, e: {underlay: 198.51.100.0}}",
        );
        let expected = [
            ("192.0.2.0/25".to_owned(), vec![1, 0]),
            ("198.51.100.0/24 ?".to_owned(), vec![4, 2]),
            ("underlay not in the file".to_owned(), vec![3]),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn many_places_become_larger_ones() {
        let subnet = |text: &str| Place::Subnet(text.parse().expect("a network"), true);
        let places = BTreeMap::from([
            (subnet("10.0.1.0/24"), vec![0]),
            (subnet("10.0.2.0/24"), vec![1]),
            (subnet("10.9.0.0/24"), vec![2]),
            (Place::Unknown, vec![3]),
        ]);
        let found: Vec<(String, usize)> = merged(&places, 3)
            .into_iter()
            .map(|(place, (count, _))| (place.title(), count))
            .collect();
        let expected = [
            ("10.0.0.0/20", 2),
            ("10.9.0.0/20", 1),
            ("underlay not in the file", 1),
        ];
        assert_eq!(
            found,
            expected.map(|(title, count)| (title.to_owned(), count))
        );
    }
}
