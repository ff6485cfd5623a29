//! Who is at the other end of a node's tunnels, and under which address of the overlay: what a fleet alone knows.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use super::mesh::{Fleet, Graph, first_address};
use super::{Address, Endpoint, Host, Name, Short, Style, Tunnel, Way};

/// The other end of a tunnel of a mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The way there. A multipoint tunnel leads to many peers.
    pub way: Way,
    /// The node there.
    pub node: Name,
    /// Its address on the tunnel.
    pub address: Option<Ipv4Addr>,
}

impl Fleet<'_> {
    /// The neighbours of a host in the fleet's meshes, in the order of the meshes' and the nodes' names.
    pub fn mesh_peers(&self, host: &Host) -> Vec<Peer> {
        let Some(own) = host.node.as_ref().and_then(|name| self.number(name)) else {
            return Vec::new();
        };
        let mut peers = Vec::new();
        for graph in self.meshes.iter().filter(|graph| graph.has(own)) {
            peers.extend(graph.neighbours(own).into_iter().filter_map(|peer| {
                Some(Peer {
                    way: self.way(graph, peer)?,
                    node: self.names[peer].clone(),
                    address: self
                        .underlay(peer)
                        .and_then(|_| self.address_in(graph, own, peer)),
                })
            }));
        }
        peers
    }

    /// A peer's address on its device of a mesh: given, or as the mesh makes it.
    fn address_in(&self, graph: &Graph, own: usize, peer: usize) -> Option<Ipv4Addr> {
        let (device, made) = match graph.mesh.style {
            Style::Multipoint => (graph.device(), first_address(self.nodes[peer])),
            Style::PointToPoint => (graph.tunnel_to(own), graph.link_address(self, peer)),
        };
        let given = device.into_iter().flat_map(|device| {
            let lists = [&self.topology.addresses, &self.nodes[peer].addresses];
            lists
                .into_iter()
                .filter_map(move |lists| lists.get(&device))
                .flatten()
        });
        networks(given).map(|net| net.addr()).next().or(made)
    }

    /// The node whose underlay address is the remote end of a written tunnel, and its address on the tunnel that leads
    /// back, where both ends are in one network.
    pub fn counterpart(&self, host: &Host, tunnel: &Tunnel) -> Option<(Name, Option<Ipv4Addr>)> {
        let own = self.number(host.node.as_ref()?)?;
        let remote = host.topology.tunnel(tunnel).get(|t| &t.remote)?.address()?;
        let there = (0..self.nodes.len())
            .find(|&node| node != own && self.underlay(node) == Some(remote))?;
        let back = self.underlay(own).map(Endpoint::Address);
        let written = self.written(there).topology;
        let mut returning = written
            .tunnels
            .values()
            .filter(|other| back.is_some() && written.tunnel(other).get(|t| &t.remote) == back);
        let here: Vec<Ipv4Net> = networks(&tunnel.addresses).collect();
        let address = returning.find_map(|other| {
            networks(&other.addresses)
                .find(|there| here.iter().any(|net| shares(net, there)))
                .map(|net| net.addr())
        });
        Some((self.names[there].clone(), address))
    }
}

/// Whether two hosts' addresses are in one network.
fn shares(one: &Ipv4Net, other: &Ipv4Net) -> bool {
    one.addr() != other.addr() && one.contains(&other.addr())
}

/// The IPv4 addresses of a list, with their networks.
fn networks<'a>(
    list: impl IntoIterator<Item = &'a Short<Address>>,
) -> impl Iterator<Item = Ipv4Net> {
    list.into_iter()
        .filter_map(|address| match address.address.net {
            IpNet::V4(net) => Some(net),
            IpNet::V6(_) => None,
        })
}

impl Tunnel {
    /// The host at the other end, where the tunnel's own addresses tell it: the peer of one, or the other host of a /30
    /// or /31.
    pub fn other_end(&self) -> Option<Ipv4Addr> {
        let peers = self.addresses.iter().filter_map(|address| {
            let IpAddr::V4(peer) = address.peer()? else {
                return None;
            };
            let alone = address
                .peer
                .is_some_and(|peer| !peer.explicit || peer.net.prefix_len() == 32);
            (alone && IpAddr::V4(peer) != address.address.net.addr()).then_some(peer)
        });
        let own = self
            .addresses
            .iter()
            .filter(|address| address.peer.is_none());
        peers.chain(networks(own).filter_map(other_host)).next()
    }
}

/// The other of the two hosts that a network has room for.
fn other_host(net: Ipv4Net) -> Option<Ipv4Addr> {
    let mut hosts = match net.prefix_len() {
        30 | 31 => net.hosts(),
        _ => return None,
    };
    let own = net.addr();
    let is_host = net.hosts().any(|host| host == own);
    hosts.find(|host| is_host && *host != own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_network_has_one_other_host() {
        for (net, other) in [
            ("10.0.0.1/30", Some("10.0.0.2")),
            ("10.0.0.2/30", Some("10.0.0.1")),
            ("10.0.0.0/30", None),
            ("10.0.0.3/30", None),
            ("10.0.0.0/31", Some("10.0.0.1")),
            ("10.0.0.1/31", Some("10.0.0.0")),
            ("10.0.0.1/32", None),
            ("10.0.0.1/29", None),
        ] {
            let expected = other.map(|other| other.parse().unwrap());
            assert_eq!(other_host(net.parse().unwrap()), expected, "{net}");
        }
    }
}
